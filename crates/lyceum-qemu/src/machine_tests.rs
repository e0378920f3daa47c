//! Golden argument vectors. A difference here means: releases that were sealed
//! before can't be forked by this program.

use super::*;
use lyceum_hypervisor::{DiskFiles, Identity, Nic, SealedFiles};
use lyceum_model::{Generation, Hostname};

fn platform() -> Platform {
    Platform {
        qemu_version: "10.0.2".into(),
        machine_type: "pc-i440fx-10.0".into(),
        cpu_model: "qemu64,+ssse3".into(),
        accelerator: Accelerator::Tcg,
    }
}

fn request(from: StartFrom) -> StartRequest {
    StartRequest {
        desktop: "d1".parse().expect("id"),
        generation: Generation(1),
        run_dir: "/run/d1".into(),
        size: MachineSize {
            vcpus: 1,
            memory_mib: 768,
        },
        disk: DiskFiles {
            top: "/slow/o.qcow2".into(),
            base: Some("/fast/disk.qcow2".into()),
            release: None,
            durability: Durability::Throwaway,
            cdrom: None,
        },
        from,
        vm_generation_id: uuid::Uuid::from_u128(1),
        identity: Some(Identity {
            hostname: Hostname::from_text("a", ""),
            machine_id: "0".repeat(32),
        }),
        nic: Some(Nic {
            mac: "52:54:00:00:00:01".into(),
            link: NicLink::User {
                network: "10.77.1.0/24".into(),
                address: [10, 77, 1, 15].into(),
                outside: false,
            },
        }),
        spice: false,
        ready_timeout_ms: 1000,
    }
}

fn sealed() -> SealedFiles {
    SealedFiles {
        release: "r1".parse().expect("id"),
        ram: "/fast/ram".into(),
        device_state: "/fast/state".into(),
    }
}

fn lines(request: &StartRequest, nic: Option<&SavedNic>) -> String {
    let mut out = String::new();
    for arg in arguments(&platform(), request, nic) {
        out.push_str(if arg.starts_with('-') && !out.is_empty() {
            "\n"
        } else if out.is_empty() {
            ""
        } else {
            " "
        });
        out.push_str(&arg);
    }
    out
}

fn saved() -> SavedNic {
    SavedNic {
        mac: "52:54:00:00:00:99".into(),
    }
}

#[test]
fn fork() {
    insta::assert_snapshot!(lines(&request(StartFrom::Fork { sealed: sealed() }), None));
}

#[test]
fn spice_comes_beside_vnc_and_changes_nothing_else() {
    let without = request(StartFrom::Fork { sealed: sealed() });
    let mut with = without.clone();
    with.spice = true;
    let (with, without) = (lines(&with, None), lines(&without, None));
    let more: Vec<&str> = with
        .lines()
        .filter(|line| !without.contains(*line))
        .collect();
    assert_eq!(
        more,
        ["-spice unix=on,addr=/proc/self/fd/200/spice.sock,disable-ticketing=on,agent-mouse=off"]
    );
    assert_eq!(with.lines().count(), without.lines().count() + 1);
}

#[test]
fn resume() {
    let from = StartFrom::Resume {
        sealed: sealed(),
        delta: "/slow/delta".into(),
    };
    insta::assert_snapshot!(lines(&request(from), Some(&saved())));
}

#[test]
fn hand_out() {
    let from = StartFrom::HandOut {
        sealed: sealed(),
        delta: "/slow/delta".into(),
    };
    insta::assert_snapshot!(lines(&request(from), Some(&saved())));
}

#[test]
fn cold_for_seal() {
    let mut request = request(StartFrom::ColdForSeal {
        ram: "/fast/ram".into(),
        device_state: "/fast/state".into(),
    });
    (request.nic, request.identity, request.disk.base) = (None, None, None);
    request.disk.durability = Durability::Safe;
    insta::assert_snapshot!(lines(&request, None));
}

#[test]
fn draft_from_iso() {
    let mut request = request(StartFrom::Cold);
    (request.identity, request.disk.base) = (None, None);
    request.disk.cdrom = Some("/fast/install.iso".into());
    insta::assert_snapshot!(lines(&request, None));
}

/// Everything that the sealed device state describes must be the same in the
/// machine that is sealed and in its forks.
#[test]
fn sealed_machine_and_forks_have_the_same_devices() {
    let devices = |from: StartFrom| -> Vec<String> {
        let mut request = request(from);
        request.nic = None;
        let args = arguments(&platform(), &request, None);
        args.windows(2)
            .filter(|w| {
                matches!(
                    w[0].as_str(),
                    "-device" | "-machine" | "-cpu" | "-smp" | "-m"
                )
            })
            .map(|w| w[1].clone())
            .collect()
    };
    let seal = devices(StartFrom::ColdForSeal {
        ram: "/r".into(),
        device_state: "/s".into(),
    });
    let delta = std::path::PathBuf::from("/d");
    assert_eq!(seal, devices(StartFrom::Fork { sealed: sealed() }));
    assert_eq!(
        seal,
        devices(StartFrom::Resume {
            sealed: sealed(),
            delta: delta.clone()
        })
    );
    assert_eq!(
        seal,
        devices(StartFrom::HandOut {
            sealed: sealed(),
            delta
        })
    );
}

/// Invariant: the base is never opened with direct I/O and never writable, the
/// overlay's own mode notwithstanding.
#[test]
fn the_base_is_shared_and_read_only_in_every_mode() {
    for durability in [Durability::Safe, Durability::Throwaway] {
        let mut request = request(StartFrom::Cold);
        request.disk.durability = durability;
        let args = arguments(&platform(), &request, None);
        let nodes: Vec<serde_json::Value> = args
            .windows(2)
            .filter(|w| w[0] == "-blockdev")
            .map(|w| serde_json::from_str(&w[1]).expect("JSON"))
            .collect();
        for name in ["base", "base-file"] {
            let node = nodes
                .iter()
                .find(|n| n["node-name"] == name)
                .expect("there");
            assert_eq!(node["cache"]["direct"], false);
            assert_eq!(node["read-only"], true);
        }
    }
}
