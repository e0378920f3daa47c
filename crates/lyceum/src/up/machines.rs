//! How machines are run on this one: with which accelerator, found out once per boot, and as
//! which user.

use super::layout::Layout;
use lyceum_disk::driver::Owner;
use lyceum_qemu::probe::{self, Kvm};
use lyceum_qemu::{AcceleratorChoice, QemuConfig};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The user for QEMU when this runs as root: the first that exists.
const USERS: [&str; 2] = ["lyceum", "nobody"];

/// The choice.
pub struct Machines {
    /// For every host: all are this machine.
    pub accelerator: AcceleratorChoice,
    /// Whom QEMU runs as; `None`: as ourselves.
    pub user: Option<String>,
    /// The same, for the disks that it writes.
    pub owner: Option<Owner>,
}

/// What was found out, kept in the state directory. The guest that tries KVM may take seconds
/// to be given up, so it is run once per boot and QEMU.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    /// [`probe::VERSION`].
    probe: u32,
    boot: String,
    qemu: String,
    /// Why KVM does not work; absent: it works.
    broken: Option<String>,
}

/// Decides; an accelerator that was chosen by a person is taken as it is.
pub async fn choose(layout: &Layout, accelerator: AcceleratorChoice) -> Machines {
    let file = layout.path("kvm.json");
    let accelerator = match accelerator {
        AcceleratorChoice::Auto => tokio::task::spawn_blocking(move || find_out(&file))
            .await
            .unwrap_or(AcceleratorChoice::Auto),
        chosen => chosen,
    };
    let user = nix::unistd::geteuid()
        .is_root()
        .then(|| {
            USERS
                .iter()
                .find_map(|name| nix::unistd::User::from_name(name).ok().flatten())
        })
        .flatten();
    Machines {
        accelerator,
        owner: user.as_ref().map(|user| Owner {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        user: user.map(|user| user.name),
    }
}

fn find_out(file: &Path) -> AcceleratorChoice {
    let QemuConfig {
        binary, cpu_model, ..
    } = QemuConfig::default();
    let (Ok(boot), Ok(qemu)) = (
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id"),
        probe::version(&binary),
    ) else {
        return AcceleratorChoice::Auto;
    };
    let (boot, qemu) = (boot.trim().to_owned(), qemu.to_string());
    let known = std::fs::read(file)
        .ok()
        .and_then(|text| serde_json::from_slice::<Tried>(&text).ok())
        .filter(|t| t.probe == probe::VERSION && t.boot == boot && t.qemu == qemu);
    let tried = known.unwrap_or_else(|| {
        let tried = Tried {
            probe: probe::VERSION,
            boot,
            qemu,
            broken: match probe::kvm(&binary, &cpu_model) {
                Kvm::Works => None,
                Kvm::Broken(why) | Kvm::Absent(why) => Some(why),
            },
        };
        if let Ok(text) = serde_json::to_vec(&tried) {
            // Without the file it is tried again next time.
            let _ = lyceum_wire::write_atomically(file, &text, 0o600);
        }
        tried
    });
    match tried.broken {
        None => AcceleratorChoice::Kvm,
        Some(why) => {
            // At every start: nobody should wonder why it is slow.
            eprintln!("KVM does not work here: {why}");
            eprintln!(
                "guests run in software emulation, many times slower; lyceum doctor says more"
            );
            AcceleratorChoice::Tcg
        }
    }
}
