//! The host agent.
//!
//! | request | meaning |
//! |---|---|
//! | `GET /v1/host` | [`HostFacts`] |
//! | `GET /v1/watch?after=N&wait_ms=M` | [`Observed`], at once if its revision is above N, else when it changes or after M ms |
//! | `PUT /v1/desktops/{id}` | [`RunRequest`]: run it under this generation. An older generation that runs here is ended first; the same one is left alone |
//! | `POST /v1/desktops/{id}/suspend` | [`SaveRequest`]: write the delta, end the machine |
//! | `POST /v1/desktops/{id}/capture` | [`SaveRequest`]: write the delta, go on; the disk alone where no memory is shared with the release |
//! | `POST /v1/desktops/{id}/stop` | [`StopRequest`]: end the machine; answers when it is gone |
//! | `GET /v1/desktops/{id}/console?generation=N` | upgrade (`Upgrade: lyceum-console`), then RFB bytes; those to the controller in frames, with how many were taken at the end. Another generation: refused |
//! | `GET /v1/desktops/{id}/spice?generation=N` | upgrade (`Upgrade: lyceum-spice`), then a channel of SPICE from its link on. Another generation, or a machine without SPICE: refused |
//! | `GET`, `PUT /v1/desktops/{id}/clipboard` | [`Clipboard`] |
//! | `PUT /v1/seals/{draft}` | [`SealRequest`]: a job; the same draft again is the same job |
//! | `DELETE /v1/seals/{draft}` | cancel, or forget when it is over |
//! | `POST /v1/deltas/{id}/verify` | [`VerifyDelta`]: read every byte of it; 422 `damaged` when they were changed, 400 `invalid` when this host can't use it |
//! | `POST /v1/power-off` | switch the machine off; 409 `state` while a desktop is on it or on its way to it. From then on it takes none |
//! | `PUT /v1/network` | [`NetworkRequest`]: answers when it is so; 409 `state` when it can't be, or this host has no network |
//! | `POST /v1/releases/{id}/prepare` | verify the release's bytes and warm them up; 422 `damaged` when they were changed |

use lyceum_model::{
    DeltaId, DesktopId, DiskRef, DraftId, Durability, Generation, Hostname, MachineSize, Phase,
    Platform, ReleaseId, UnixMillis,
};
use serde::{Deserialize, Serialize};

/// What a host is and how it is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Version of the agent.
    pub version: String,
    /// What it runs desktops with.
    pub platform: Platform,
    /// Words for the page when the platform is not what one would want (no KVM).
    pub warnings: Vec<String>,
    /// Logical CPUs.
    pub cpus: u32,
    /// Load right now.
    pub load: HostLoad,
    /// Where it takes desktops from other hosts, when that is another address than its own.
    #[serde(default)]
    pub migration_url: Option<String>,
    /// How it takes part in courses' networks; absent: not at all.
    #[serde(default)]
    pub network: Option<NetworkFacts>,
    /// What tells its tiers from others; hosts between which desktops move have the same.
    #[serde(default)]
    pub tiers: Option<String>,
    /// Releases on a disk of its own, when it keeps some there.
    #[serde(default)]
    pub replica: Option<ReplicaFacts>,
    /// Whether it can switch its machine off.
    #[serde(default)]
    pub can_power_off: bool,
    /// Whether desktops can serve SPICE here: QEMU's module for it is there.
    #[serde(default)]
    pub spice: bool,
    /// Cores that its desktops may use; a part of one where a control group limits them. Not known: `None`.
    #[serde(default)]
    pub cores: Option<f64>,
}

/// Releases that a host has on a disk of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplicaFacts {
    /// Complete ones.
    pub releases: Vec<ReleaseId>,
    /// What they take.
    pub used_bytes: u64,
    /// What they may take.
    pub limit_bytes: u64,
    /// The one that is being copied.
    #[serde(default)]
    pub filling: Option<ReplicaFilling>,
    /// Bytes read from the file server to fill it, since the agent started.
    #[serde(default)]
    pub from_server_bytes: u64,
    /// Bytes that were taken from other releases here instead.
    #[serde(default)]
    pub from_here_bytes: u64,
    /// Times that a release was taken from here, since the agent started.
    #[serde(default)]
    pub hits: u64,
    /// Times that one was taken from the file server, because it was not here.
    #[serde(default)]
    pub misses: u64,
    /// Releases that made room, since the agent started.
    #[serde(default)]
    pub evicted: u64,
    /// Releases that were found damaged and removed, since the agent started.
    #[serde(default)]
    pub damaged: u64,
    /// Why it is not as it should be: what failed, why, what to do.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// A release on its way to a host's own disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFilling {
    /// Which.
    pub release: ReleaseId,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Measured load of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostLoad {
    /// When it was measured.
    pub at: UnixMillis,
    /// Memory that desktops may use, in MiB: the configured share of this machine.
    pub memory_mib: u64,
    /// Memory the kernel says is available on the machine, in MiB.
    pub available_mib: u64,
    /// Sum of the desktops' proportional set sizes, in MiB.
    pub desktops_pss_mib: u64,
    /// CPU use of the whole machine, in percent, over the last sample.
    pub cpu_percent: f64,
    /// CPU use of this host's desktops, in percent of the whole machine.
    pub desktops_cpu_percent: f64,
    /// Memory pressure: share of time in which some task waited for memory, in percent, 10 s average.
    pub memory_pressure: f64,
    /// Whether the agent admits further desktops: real memory use and pressure are below their marks.
    pub admits: bool,
    /// Why not, when it does not.
    pub refuses_because: Option<String>,
    /// Bytes that went through its disks and network cards since it started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// Bytes that went through, counted from some moment on that may change with every start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Read from disk.
    pub read: Option<u64>,
    /// Written to disk.
    pub written: Option<u64>,
    /// Received from the network.
    pub received: Option<u64>,
    /// Sent to the network.
    pub sent: Option<u64>,
}

/// Everything an agent runs, with a number that grows with every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// A number made anew at each start of the agent: revisions of two starts can't be compared.
    pub boot: u64,
    /// Grows with every change.
    pub revision: u64,
    /// Every desktop this agent knows of: running, failed, or just ended.
    pub desktops: Vec<ObservedDesktop>,
    /// Every seal job.
    pub seals: Vec<SealStatus>,
    /// Load.
    pub load: HostLoad,
}

/// One desktop as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedDesktop {
    /// Which.
    pub desktop: DesktopId,
    /// The generation it runs or ran under.
    pub generation: Generation,
    /// What it is doing.
    pub phase: Phase,
    /// The step it is at, or why it failed, or why it booted cold, in words for a person.
    pub detail: String,
    /// How it was started in the end: `fork`, `resume`, `hand_out`, `move` or `cold`.
    pub started_by: Option<String>,
    /// Why it was booted cold although a fork was asked for.
    pub cold_reason: Option<String>,
    /// Address in the guest's network.
    pub address: Option<String>,
    /// The guest's new SSH host key.
    pub ssh_host_key: Option<String>,
    /// Milliseconds from the request until it was usable.
    pub usable_ms: Option<u64>,
    /// Proportional set size, KiB, last sample.
    pub pss_kib: u64,
    /// CPU use in percent of one CPU, last sample.
    pub cpu_percent: f64,
    /// Bytes that its machine caused to be read from disk since it started, last sample.
    #[serde(default)]
    pub read_bytes: u64,
    /// Bytes through its disks and network card since it started, last sample.
    #[serde(default)]
    pub traffic: Traffic,
    /// The delta it was suspended to.
    pub delta: Option<SavedDelta>,
}

/// A delta that is complete on the slow tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedDelta {
    /// Which.
    pub delta: DeltaId,
    /// Bytes of written pages and device state on disk.
    pub memory_bytes: u64,
    /// Bytes of the overlay on disk.
    pub overlay_bytes: u64,
    /// It shares no memory with its release, so this is its disk alone, to be booted from.
    #[serde(default)]
    pub disk_only: bool,
    /// Of a disk alone: why the guest could not be asked to write out what it had in memory first.
    #[serde(default)]
    pub not_flushed: Option<String>,
    /// How long the desktop stood still, milliseconds.
    pub stand_still_ms: u64,
    /// How long it took in all, milliseconds.
    pub total_ms: u64,
}

/// Run a desktop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Never older than what the agent knows.
    pub generation: Generation,
    /// Size.
    pub size: MachineSize,
    /// The disk it writes.
    pub disk: DiskRef,
    /// What flushed writes survive.
    pub durability: Durability,
    /// How to start it.
    pub start: StartMode,
    /// Made new in a fork; absent for drafts.
    pub identity: Option<IdentityRequest>,
    /// Its network card; absent: none.
    pub nic: Option<NicRequest>,
    /// Whether it serves SPICE as well, where the host can.
    #[serde(default)]
    pub spice: bool,
    /// Passed as VM generation id; the same for resume and move, new for a fork.
    pub vm_generation_id: uuid::Uuid,
    /// How long it may take until it is usable, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// How a desktop starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum StartMode {
    /// Fork the release; where that is impossible, boot the overlay cold and say why.
    Fork {
        /// The release.
        release: ReleaseId,
    },
    /// Bring back a suspended desktop. Not possible: an error, nothing is booted, the delta stays.
    Resume {
        /// The release.
        release: ReleaseId,
        /// The delta.
        delta: DeltaId,
    },
    /// Start from another desktop's delta with a new identity. The overlay given is a copy already.
    HandOut {
        /// The release.
        release: ReleaseId,
        /// The captured delta.
        delta: DeltaId,
    },
    /// Wait for the desktop to [arrive](crate::moves) from another host.
    Arrive {
        /// Its release; its memory is mapped for a delta.
        release: ReleaseId,
        /// Who sends it.
        from: lyceum_model::HostId,
        /// How it comes.
        way: lyceum_model::MoveWay,
        /// What it runs on there.
        platform: Platform,
        /// The tiers as the other host sees them.
        tiers: Option<String>,
        /// Memory it is going to need here, MiB.
        need_mib: u64,
    },
    /// Boot the disk.
    Cold {
        /// Why, for the page, when a person would expect a fork.
        reason: Option<String>,
        /// ISO in the draft's CD drive, named as the storage agent knows it.
        cdrom: Option<DraftId>,
    },
}

/// What is made new.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityRequest {
    /// Host name in the guest.
    pub hostname: Hostname,
    /// 32 lower-case hex digits.
    pub machine_id: String,
}

/// Network card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicRequest {
    /// `52:54:00:xx:xx:xx`.
    pub mac: String,
    /// The desktop's address; its `/24` is its user network.
    pub address: std::net::Ipv4Addr,
    /// Whether it reaches the outside.
    pub outside: bool,
    /// Where it is plugged into its course's network; absent: QEMU's user network, in which it is alone.
    #[serde(default)]
    pub plug: Option<lyceum_net::Plug>,
}

/// How a host takes part in courses' networks, as it is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// How its desktops reach other machines.
    pub uplink: lyceum_net::wanted::Uplink,
    /// Why its network is not as it should be; desktops can't start until it is.
    pub problem: Option<String>,
    /// What somebody had changed by hand, the last time; absent: nothing since the agent began.
    #[serde(default)]
    pub repaired: Option<NetworkRepaired>,
}

/// Something in a host's network that somebody had changed, and that was put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRepaired {
    /// What it was, in words.
    pub what: String,
    /// When it was put right, milliseconds since 1970 by the host's clock.
    pub at: UnixMillis,
}

/// What a host is told of courses' networks, whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// The machines that segments span, the gateway included.
    pub members: Vec<std::net::IpAddr>,
    /// The gateway's address among them.
    pub gateway: Option<std::net::IpAddr>,
    /// Segments whose desktops reach each other; in all others each is alone with the gateway.
    pub among_themselves: std::collections::BTreeSet<u32>,
}

/// Suspend or capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRequest {
    /// Of the desktop, as it runs.
    pub generation: Generation,
    /// Name of the delta to write.
    pub delta: DeltaId,
}

/// What a delta must belong to in order to be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyDelta {
    /// The release.
    pub release: ReleaseId,
    /// Size of the desktop.
    pub size: MachineSize,
}

/// Stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// The newest the store knows: from now on nothing older is started.
    pub generation: Generation,
    /// How long the guest may take to shut down by itself; 0: ended at once.
    pub patience_ms: u64,
}

/// Text of a clipboard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clipboard {
    /// At most 32 KiB.
    pub text: String,
}

/// Seal a draft whose disk is on the fast tier and in use by nobody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealRequest {
    /// Size of the machine to seal, and so of its forks.
    pub size: MachineSize,
    /// How long the guest may take until it says it is ready, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// A seal job. The job boots a copy of the draft's disk in the staging folder, seals it
/// there, forks the result once over a throw-away overlay, and reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealStatus {
    /// Which draft.
    pub draft: DraftId,
    /// What it is doing, for the page: `booting`, `saving memory`, `trying a fork`, ...
    pub step: String,
    /// Whether and how it ended.
    pub outcome: Option<SealOutcome>,
}

/// How a seal ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum SealOutcome {
    /// The staging folder is complete and a fork of it came up.
    Sealed {
        /// What it was sealed on.
        platform: Platform,
        /// Whether the guest helper answered.
        guest_helper: bool,
        /// Milliseconds the trial fork took until it was usable.
        fork_usable_ms: u64,
    },
    /// The disk is fine, but it can only be booted cold.
    ColdOnly {
        /// Why.
        reason: String,
    },
    /// Nothing is left behind.
    Failed {
        /// What failed, why, what to do.
        message: String,
    },
}
