//! The one definition of the virtual machine: from what is asked for to QEMU's
//! arguments. Pure, and covered by golden tests: any change here makes releases that
//! were sealed before unusable for forks, so it comes with another machine definition.
//!
//! QEMU inherits its files as open descriptors with the fixed numbers of [`fd`].

use lyceum_hypervisor::{NicLink, StartFrom, StartRequest};
use lyceum_model::{Accelerator, Durability, MachineSize, Platform};
use serde_json::json;

/// Descriptors that QEMU is started with.
pub mod fd {
    /// The directory that QEMU may write: its VNC socket, saved device state.
    pub const DIR: i32 = 200;
    /// Listening socket of the control channel.
    pub const QMP: i32 = 201;
    /// Listening socket of the guest helper's port.
    pub const GUEST: i32 = 202;
    /// Listening socket of the guest agent's port.
    pub const QGA: i32 = 203;
    /// The sealed disk, read-only.
    pub const BASE: i32 = 204;
    /// The writable disk.
    pub const TOP: i32 = 205;
    /// The RAM file.
    pub const RAM: i32 = 206;
    /// Device state to load.
    pub const STATE: i32 = 207;
    /// The ISO in the CD drive.
    pub const CDROM: i32 = 208;
    /// The tap that the network card is plugged into.
    pub const TAP: i32 = 209;
    /// All of them.
    pub const RANGE: std::ops::RangeInclusive<i32> = DIR..=TAP;
}

/// QEMU's name of the RAM block whose pages are shared.
pub const RAM_BLOCK: &str = "ram";
/// Id of the network card.
pub const NIC: &str = "nic0";
/// Id of what the network card is connected to.
pub const NETDEV: &str = "net0";
/// Id of the helper's port.
pub const GUEST_PORT: &str = "guest0";
/// Name of the SPICE socket in QEMU's directory.
pub const SPICE_SOCKET: &str = "spice.sock";
/// Name of the VNC socket in QEMU's directory.
pub const VNC_SOCKET: &str = "vnc.sock";
/// Name of the socket in QEMU's directory through which a live migration goes.
pub const MIGRATION_SOCKET: &str = "migration.sock";
/// Name of the file in QEMU's directory to which it saves device state.
pub const SAVED_STATE: &str = "state";

/// The network card that is part of the device state to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedNic {
    /// Its MAC address.
    pub mac: String,
}

/// Path of a descriptor, for options that open by name.
fn fd_path(fd: i32) -> String {
    format!("/proc/self/fd/{fd}")
}

/// Where QEMU saves its device state, as it names it.
pub fn saved_state_uri() -> String {
    format!("{}/{SAVED_STATE}", fd_path(fd::DIR))
}

/// The socket of a live migration, as QEMU names it.
pub fn migration_uri() -> String {
    format!("unix:{}/{MIGRATION_SOCKET}", fd_path(fd::DIR))
}

/// QEMU's name of a descriptor that was given with `-add-fd`.
fn fd_set(fd: i32) -> String {
    format!("/dev/fdset/{fd}")
}

/// Where QEMU loads device state from.
pub fn device_state_uri() -> String {
    format!("file:{}", fd_set(fd::STATE))
}

/// Whether the machine waits for device state instead of starting at its firmware.
pub fn is_incoming(from: &StartFrom) -> bool {
    match from {
        StartFrom::Fork { .. }
        | StartFrom::Resume { .. }
        | StartFrom::HandOut { .. }
        | StartFrom::Arrive { .. } => true,
        StartFrom::Cold | StartFrom::ColdForSeal { .. } => false,
    }
}

/// Code that software emulation keeps translated, MiB. It is each desktop's own memory and
/// never given back, and QEMU's limit would be 1 GiB: an idle class would grow by what its
/// desktops once ran. A fork of the demo desktop needs about 20 until it is idle.
const TRANSLATION_CACHE_MIB: u32 = 32;

/// Arguments after the program's name. `saved_nic`: the network card that is in the device state.
pub fn arguments(
    platform: &Platform,
    request: &StartRequest,
    saved_nic: Option<&SavedNic>,
) -> Vec<String> {
    let mut args = Vec::with_capacity(96);
    let mut arg = |name: &str, value: String| {
        args.push(name.to_owned());
        if !value.is_empty() {
            args.push(value);
        }
    };
    let size = request.size;
    arg("-nodefaults", String::new());
    arg("-no-user-config", String::new());
    arg("-name", format!("guest=lyceum-{}", request.desktop));
    arg("-msg", "timestamp=on".into());
    arg(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    arg(
        "-machine",
        format!(
            "{},memory-backend={RAM_BLOCK},usb=off,vmport=off,hpet=off",
            platform.machine_type
        ),
    );
    arg("-cpu", platform.cpu_model.clone());
    arg("-accel", accelerator(platform.accelerator));
    arg("-smp", size.vcpus.to_string());
    arg("-m", size.memory_mib.to_string());
    arg("-object", memory(&request.from, size));
    arg("-rtc", "base=utc".into());
    for (name, fd) in [("qmp", fd::QMP), ("guest", fd::GUEST), ("qga", fd::QGA)] {
        arg(
            "-chardev",
            format!("socket,id={name},fd={fd},server=on,wait=off"),
        );
    }
    arg("-mon", "chardev=qmp,mode=control".into());
    arg("-device", "VGA,id=video,vgamem_mb=8,addr=02.0".into());
    // Keys go to the keyboard as they are read: QEMU's own queue in front of it, one key in 10 ms, is
    // forgotten when the machine moves, while the keyboard's moves along. The gateway paces them.
    arg(
        "-vnc",
        format!(
            "unix:{}/{VNC_SOCKET},share=ignore,key-delay-ms=0",
            fd_path(fd::DIR)
        ),
    );
    if request.spice {
        // Nothing of it is visible in the guest: a release is forked with and without. Without a password, since
        // nobody but the agent reaches the socket.
        arg(
            "-spice",
            format!(
                "unix=on,addr={}/{SPICE_SOCKET},disable-ticketing=on,agent-mouse=off",
                fd_path(fd::DIR)
            ),
        );
    }
    arg("-device", "virtio-serial-pci,id=vser,addr=03.0".into());
    arg(
        "-device",
        format!(
            "virtserialport,id={GUEST_PORT},bus=vser.0,nr=1,chardev=guest,name=org.lyceum.guest.0"
        ),
    );
    arg(
        "-device",
        "virtserialport,id=qga0,bus=vser.0,nr=2,chardev=qga,name=org.qemu.guest_agent.0".into(),
    );
    block_nodes(request, &mut arg);
    let boot = if request.disk.cdrom.is_some() {
        ",bootindex=1"
    } else {
        ""
    };
    arg(
        "-device",
        format!("virtio-blk-pci,id=disk0,drive=top,addr=04.0{boot}"),
    );
    if request.disk.cdrom.is_some() {
        arg("-device", "ide-cd,id=cd0,drive=cdrom,bootindex=0".into());
    }
    arg("-device", "virtio-tablet-pci,id=tablet,addr=05.0".into());
    arg("-device", "virtio-rng-pci,id=rng,addr=06.0".into());
    arg(
        "-device",
        format!("vmgenid,id=generation,guid={}", request.vm_generation_id),
    );
    network(request, saved_nic, &mut arg);
    if is_incoming(&request.from) {
        if !matches!(request.from, StartFrom::Arrive { sealed: None }) {
            arg("-add-fd", format!("fd={},set={}", fd::STATE, fd::STATE));
        }
        arg("-incoming", "defer".into());
        // It goes on when everything is in place, never by itself.
        arg("-S", String::new());
    }
    args
}

fn accelerator(accelerator: Accelerator) -> String {
    match accelerator {
        Accelerator::Kvm => "kvm".into(),
        // There is no simulated QEMU; software emulation is the nearest.
        Accelerator::Tcg | Accelerator::Simulated => {
            format!("tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}")
        }
    }
}

fn memory(from: &StartFrom, size: MachineSize) -> String {
    let size = size.memory_mib;
    let file = format!(
        "memory-backend-file,id={RAM_BLOCK},size={size}M,mem-path={}",
        fd_path(fd::RAM)
    );
    match from {
        // Written pages are the desktop's own; the file can't be changed through it.
        StartFrom::Fork { .. }
        | StartFrom::Resume { .. }
        | StartFrom::HandOut { .. }
        | StartFrom::Arrive { sealed: Some(_) } => {
            format!("{file},share=off,readonly=on,rom=off")
        }
        StartFrom::ColdForSeal { .. } => format!("{file},share=on"),
        StartFrom::Cold | StartFrom::Arrive { sealed: None } => {
            format!("memory-backend-ram,id={RAM_BLOCK},size={size}M")
        }
    }
}

/// Every node by its name, with its cache mode spelled out: a mode given to the
/// overlay alone would be inherited by the base and end the sharing of its pages.
fn block_nodes(request: &StartRequest, arg: &mut impl FnMut(&str, String)) {
    let disk = &request.disk;
    let add_fd =
        |arg: &mut dyn FnMut(&str, String), fd: i32| arg("-add-fd", format!("fd={fd},set={fd}"));
    let read_only = |name: &str, fd: i32| {
        json!({
            "driver": "file", "node-name": name, "filename": fd_set(fd),
            "read-only": true, "auto-read-only": false,
            "cache": { "direct": false, "no-flush": false },
        })
        .to_string()
    };
    if disk.base.is_some() {
        add_fd(arg, fd::BASE);
        arg("-blockdev", read_only("base-file", fd::BASE));
        arg(
            "-blockdev",
            json!({
                "driver": "qcow2", "node-name": "base", "file": "base-file", "backing": null,
                "read-only": true, "auto-read-only": false,
                "cache": { "direct": false, "no-flush": false },
            })
            .to_string(),
        );
    }
    // Safe: what the guest flushed is on stable storage, and no second copy of it in
    // this host's memory. Throwaway: the host's cache, flushes ignored.
    let cache = match disk.durability {
        Durability::Safe => json!({ "direct": true, "no-flush": false }),
        Durability::Throwaway => json!({ "direct": false, "no-flush": true }),
    };
    add_fd(arg, fd::TOP);
    arg(
        "-blockdev",
        json!({
            "driver": "file", "node-name": "top-file", "filename": fd_set(fd::TOP),
            "locking": "on", "discard": "unmap", "cache": cache,
        })
        .to_string(),
    );
    // Null: whatever the image says of a backing file is not followed.
    let backing = disk.base.is_some().then_some("base");
    arg(
        "-blockdev",
        json!({
            "driver": "qcow2", "node-name": "top", "file": "top-file", "backing": backing,
            "discard": "unmap", "cache": cache,
        })
        .to_string(),
    );
    if disk.cdrom.is_some() {
        add_fd(arg, fd::CDROM);
        arg("-blockdev", read_only("cdrom-file", fd::CDROM));
        arg(
            "-blockdev",
            json!({ "driver": "raw", "node-name": "cdrom", "file": "cdrom-file", "read-only": true }).to_string(),
        );
    }
}

/// Largest packet on a tap, bytes: what goes through a VXLAN. DHCP says so too, but guests have to listen.
const TAP_MTU: u16 = 1430;

/// Whether the desktop's own card is plugged into a tap.
pub fn on_tap(request: &StartRequest) -> bool {
    let link = request.nic.as_ref().map(|nic| &nic.link);
    matches!(link, Some(NicLink::Tap { .. }))
}

/// Properties of the network card, for the command line and for `device_add` alike. `tap`: the
/// driver is told how large packets may be.
pub fn nic_device(mac: &str, tap: bool) -> serde_json::Value {
    let mut device = json!({
        "driver": "virtio-net-pci", "id": NIC, "bus": "pci.0", "addr": "10.0",
        "netdev": NETDEV, "mac": mac, "romfile": "",
    });
    if tap {
        device["host_mtu"] = TAP_MTU.into();
    }
    device
}

/// What the network card is connected to, for the command line and for `netdev_add` alike.
pub fn netdev(link: &NicLink) -> serde_json::Value {
    match link {
        NicLink::User {
            network,
            address,
            outside,
        } => json!({
            "type": "user", "id": NETDEV, "net": network, "dhcpstart": address,
            "restrict": !outside, "ipv6": false,
        }),
        NicLink::Tap { .. } => json!({ "type": "tap", "id": NETDEV, "fd": fd::TAP.to_string() }),
    }
}

fn network(
    request: &StartRequest,
    saved_nic: Option<&SavedNic>,
    arg: &mut impl FnMut(&str, String),
) {
    let own = request
        .nic
        .as_ref()
        .map(|nic| (nic, netdev(&nic.link).to_string()));
    let tap = on_tap(request);
    match (&request.from, saved_nic, own) {
        // The original's card, which its driver knows by what a tap can do: on the copy's own tap, where the host
        // lets nothing through under the original's address.
        (StartFrom::HandOut { .. }, Some(saved), Some((_, netdev))) if tap => {
            arg("-netdev", netdev);
            arg("-device", nic_device(&saved.mac, tap).to_string());
        }
        // The original's card, connected to a network without a way out; it is
        // taken away before the copy gets its own.
        (StartFrom::HandOut { .. } | StartFrom::Resume { .. }, Some(saved), None)
        | (StartFrom::HandOut { .. }, Some(saved), Some(_)) => {
            arg(
                "-netdev",
                json!({ "type": "user", "id": NETDEV, "restrict": true, "ipv6": false })
                    .to_string(),
            );
            arg("-device", nic_device(&saved.mac, false).to_string());
        }
        (_, Some(saved), Some((_, netdev))) => {
            arg("-netdev", netdev);
            arg("-device", nic_device(&saved.mac, tap).to_string());
        }
        // A draft keeps the card it boots with.
        (StartFrom::Cold, None, Some((nic, netdev))) if request.identity.is_none() => {
            arg("-netdev", netdev);
            arg("-device", nic_device(&nic.mac, tap).to_string());
        }
        // The card is plugged in once the identity is new.
        (_, None, Some((_, netdev))) => arg("-netdev", netdev),
        (_, _, None) => {}
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
