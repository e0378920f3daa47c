//! Requests, states and errors of the interface.

use lyceum_model::{DesktopId, Durability, Generation, Hostname, MachineSize, Platform, ReleaseId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All that is needed to start one machine. Kept in the run directory, so that
/// an agent that was restarted knows what it finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRequest {
    /// Whose machine.
    pub desktop: DesktopId,
    /// The generation it runs under.
    pub generation: Generation,
    /// Absolute path of a directory of its own (mode 0700) for sockets, pid file and log.
    pub run_dir: PathBuf,
    /// vCPUs and memory.
    pub size: MachineSize,
    /// The writable disk.
    pub disk: DiskFiles,
    /// Where its first instruction comes from.
    pub from: StartFrom,
    /// Passed as the VM generation id. A fork gets a new one, so that the guest
    /// reseeds; a resume gets the desktop's own.
    pub vm_generation_id: uuid::Uuid,
    /// Identity to renew before the desktop is offered; `None` for drafts and seals.
    pub identity: Option<Identity>,
    /// The network card; `None`: no network.
    pub nic: Option<Nic>,
    /// Whether it serves SPICE as well, where the hypervisor can.
    #[serde(default)]
    pub spice: bool,
    /// How long it may take until it is usable, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// Files of the writable disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskFiles {
    /// The qcow2 file that is written: an overlay, or a draft's own disk.
    pub top: PathBuf,
    /// The sealed disk under it: opened read-only and cached.
    pub base: Option<PathBuf>,
    /// The release that it is a disk of; `None`: a draft's own disk.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// What flushed writes survive.
    pub durability: Durability,
    /// An ISO to put into a CD drive and boot from first, for drafts that are installed.
    pub cdrom: Option<PathBuf>,
}

/// Files of a sealed release's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedFiles {
    /// Which release; written into deltas and compared when one is used.
    pub release: ReleaseId,
    /// The RAM file; mapped copy-on-write.
    pub ram: PathBuf,
    /// The device state file.
    pub device_state: PathBuf,
}

/// Where a machine's first instruction comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StartFrom {
    /// The sealed memory of the release.
    Fork {
        /// Its files.
        sealed: SealedFiles,
    },
    /// A delta over the sealed memory: the desktop as it was.
    Resume {
        /// The release's files.
        sealed: SealedFiles,
        /// Folder of the delta.
        delta: PathBuf,
    },
    /// Another desktop's delta over the sealed memory: its NIC is replaced and the identity made new
    /// before the desktop is put on the network. The overlay was copied by the caller.
    HandOut {
        /// The release's files.
        sealed: SealedFiles,
        /// Folder of the delta.
        delta: PathBuf,
    },
    /// A running desktop of another host, which [sends](crate::Instance::send) it here. The machine
    /// waits, and leaves its disk alone until it [takes over](crate::Instance::take_over).
    Arrive {
        /// The release's files, for a delta; `None`: all of its memory comes (live migration).
        sealed: Option<SealedFiles>,
    },
    /// Power on: the firmware boots the disk.
    Cold,
    /// Power on with RAM in a shared file and without a NIC, to be sealed. Usable when
    /// the guest helper says ready; a guest without a helper never becomes sealed memory.
    ColdForSeal {
        /// The RAM file to make.
        ram: PathBuf,
        /// The device state file that `seal` writes.
        device_state: PathBuf,
    },
}

impl StartFrom {
    /// The release's memory that such a machine shares: only what differs from it is the machine's own. `None`:
    /// all of its memory is.
    pub fn shares(&self) -> Option<&SealedFiles> {
        match self {
            StartFrom::Fork { sealed }
            | StartFrom::Resume { sealed, .. }
            | StartFrom::HandOut { sealed, .. }
            | StartFrom::Arrive {
                sealed: Some(sealed),
            } => Some(sealed),
            StartFrom::Arrive { sealed: None }
            | StartFrom::Cold
            | StartFrom::ColdForSeal { .. } => None,
        }
    }
}

/// What is made new in a fork.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Host name in the guest.
    pub hostname: Hostname,
    /// 32 lower-case hex digits for `/etc/machine-id`.
    pub machine_id: String,
}

/// The network card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    /// `52:54:00:xx:xx:xx`.
    pub mac: String,
    /// How it is connected.
    pub link: NicLink,
}

/// What the network card is connected to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NicLink {
    /// QEMU's user network, for machines without rights on the host's network:
    /// every desktop is alone in it.
    User {
        /// Network in CIDR notation, for example `10.77.3.0/24`.
        network: String,
        /// The address that its DHCP server gives the desktop.
        address: std::net::Ipv4Addr,
        /// Whether the desktop reaches the outside.
        outside: bool,
    },
    /// A tap that is there already, with rules of its own: a course's network.
    Tap {
        /// The device.
        name: String,
        /// The address that the desktop is going to get.
        address: std::net::Ipv4Addr,
    },
}

/// What a machine is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// On its way, with the step it is at for the page.
    Starting {
        /// For example `loading memory`, `identity`, `address`.
        step: String,
    },
    /// Usable.
    Running {
        /// Details.
        usable: Usable,
    },
    /// The process is gone.
    Ended {
        /// Why, in words for a person.
        reason: String,
        /// Whether it was asked for.
        expected: bool,
    },
}

/// How a machine became usable. Times are milliseconds after the start of the process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Usable {
    /// Address with prefix length, when there is a NIC and the guest told it.
    pub address: Option<String>,
    /// Identity renewed, when it was to be.
    pub identity_ms: Option<u64>,
    /// Address obtained.
    pub address_ms: Option<u64>,
    /// First whole picture served by the VNC server.
    pub picture_ms: u64,
    /// The new SSH host key, as the guest told it.
    pub ssh_host_key: Option<String>,
    /// Whether Lyceum's guest helper answers.
    pub guest_helper: bool,
}

/// What a delta consists of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeltaSummary {
    /// Pages of the release's memory that were written, in bytes.
    pub memory_bytes: u64,
    /// Other RAM blocks and device state, in bytes.
    pub device_bytes: u64,
    /// Bytes on disk of the overlay.
    pub overlay_bytes: u64,
    /// It shares no memory with its release: the delta holds its disk alone, and is booted from.
    pub disk_only: bool,
    /// Of a disk alone: why the guest could not be asked to write out what it had in memory, so that
    /// the disk is as a power cut would leave it.
    pub not_flushed: Option<String>,
    /// How long the desktop stood still, in milliseconds.
    pub stand_still_ms: u64,
    /// How long it took in all, in milliseconds.
    pub total_ms: u64,
}

/// What was sent of a machine that stands still now, its disk given up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Bytes sent.
    pub bytes: u64,
    /// Pages sent, those that were sent again included.
    pub pages: u64,
    /// How it was usable here, and is going to be there.
    pub usable: Usable,
    /// When it began to stand still.
    #[serde(skip)]
    pub stood_still: Option<std::time::Instant>,
}

/// What became of a machine whose move did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenBack {
    /// It goes on here, and can't begin anywhere else.
    GoesOn,
    /// Its disk is in another machine's hands: it must not go on here.
    Elsewhere,
    /// Another machine went on with its disk and has ended: what is in memory here is out of date.
    Outdated,
}

/// What a seal made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealSummary {
    /// What it was sealed on.
    pub platform: Platform,
    /// Its size.
    pub size: MachineSize,
    /// Whether the guest helper answered.
    pub guest_helper: bool,
}

/// What a machine uses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Proportional set size in KiB: shared pages are counted once over all that share them.
    pub pss_kib: u64,
    /// Resident set size in KiB.
    pub rss_kib: u64,
    /// CPU time since the start, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes the process caused to be read from storage.
    pub read_bytes: u64,
    /// Bytes the process caused to be written to storage.
    pub written_bytes: u64,
}

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A fork or resume is not possible, a cold boot may be. The text goes to the page.
    #[error("cannot be forked: {0}")]
    NotForkable(String),
    /// The delta is damaged, of another release or another platform. It must not be tried again.
    #[error("the saved desktop cannot be used: {0}")]
    BadDelta(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] HypervisorError),
}

/// Why a delta can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DeltaFault {
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It is whole, but of another release, size or platform.
    #[error("{0}")]
    Unfit(String),
    /// It could not be looked at.
    #[error(transparent)]
    Other(#[from] HypervisorError),
}

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The machine is not in a state for this.
    #[error("{0}")]
    State(String),
    /// The guest did not do what it was asked for.
    #[error("the guest {0}")]
    Guest(String),
    /// QEMU refused.
    #[error("QEMU refused {command}: {message}")]
    Refused {
        /// Which command.
        command: String,
        /// Its own words.
        message: String,
    },
    /// A file or a socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{what} took longer than {seconds} s")]
    Timeout {
        /// What.
        what: String,
        /// The limit.
        seconds: u64,
    },
}
