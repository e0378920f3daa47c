//! The agent on real QEMU with the tiny image: from a draft to a desktop that outlives
//! its agent. What single machines can do is tested in `lyceum-qemu`.

#![allow(clippy::unwrap_used)]

#[path = "../agent/lab.rs"]
#[allow(dead_code)] // Shared with the tests on simulated machines.
mod lab;
mod moves;

use lab::{Lab, code};
use lyceum_hypervisor::Hypervisor;
use lyceum_hypervisor::sim::SimConfig;
use lyceum_model::disk::layout;
use lyceum_model::{DraftId, Phase};
use lyceum_proto::host::{SealOutcome, StartMode};
use lyceum_qemu::{AcceleratorChoice, QemuConfig, QemuHypervisor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

const READY_MS: u64 = 120_000;

fn tiny_image() -> PathBuf {
    let path = std::env::var_os("LYCEUM_TINY_IMAGE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/tiny.qcow2"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is not there: make it with `make tiny-image`, or name another one in LYCEUM_TINY_IMAGE",
        path.display()
    );
    path
}

/// Ends what a failed test leaves.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for folder in ["d", "s", "t"] {
            let entries = std::fs::read_dir(self.0.join(folder));
            for entry in entries.into_iter().flatten().flatten() {
                if let Some(pid) = qemu_pid(&entry.path()) {
                    kill(pid);
                }
            }
        }
    }
}

/// The machine whose run directory this is.
fn qemu_pid(run_dir: &Path) -> Option<i32> {
    let stat = std::fs::read_to_string(run_dir.join("process")).ok()?;
    let pid: i32 = stat.split(' ').next()?.parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    line.windows(13)
        .any(|w| w == b"guest=lyceum-")
        .then_some(pid)
}

fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    );
}

fn draft(lab: &Lab, name: &str) -> DraftId {
    let draft: DraftId = name.parse().unwrap();
    let disk = lab.config.fast.join(layout::draft(&draft));
    std::fs::copy(tiny_image(), disk).unwrap();
    lab.stage(&draft);
    draft
}

#[tokio::test]
async fn from_a_draft_to_a_desktop_that_outlives_its_agent() {
    let hypervisor = QemuHypervisor::new(QemuConfig {
        accelerator: AcceleratorChoice::Tcg,
        ..QemuConfig::default()
    })
    .unwrap();
    let platform = hypervisor.platform();
    let mut lab = Lab::stopped(SimConfig::default());
    lab.real = Some(Arc::new(hypervisor));
    lab.config.memory_mib = Some(1024);
    let _cleanup = Cleanup(lab.config.run_dir.clone());
    lab.start().await;

    // Killed in the middle of a seal: nothing is left, no machine either.
    let lost = draft(&lab, "lost");
    lab.seal(&lost, READY_MS).await;
    lab.wait_seal(&lost, |s| s.step.contains("waiting for the guest"))
        .await;
    let machine = qemu_pid(&lab.config.run_dir.join("s/lost")).unwrap();
    lab.kill().await;
    lab.start().await;
    match lab.sealed(&lost).await {
        SealOutcome::Failed { message } => assert!(message.contains("restarted"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(!lab.staging(&lost).exists());
    assert!(!Path::new(&format!("/proc/{machine}")).exists());

    // Sealed, and a fork of it came up.
    let good = draft(&lab, "good");
    lab.seal(&good, READY_MS).await;
    match lab.sealed(&good).await {
        SealOutcome::Sealed {
            guest_helper,
            fork_usable_ms,
            ..
        } => {
            assert!(guest_helper);
            println!("trial fork usable after {fork_usable_ms} ms");
        }
        other => panic!("{other:?}"),
    }
    lab.release = lab.publish(&lab.staging(&good), platform);

    let mut request = lab.fork("a", 1);
    request.ready_timeout_ms = READY_MS;
    lab.run("a", &request).await.unwrap();
    let seen = lab
        .wait("a", |d| matches!(d.phase, Phase::Running | Phase::Failed))
        .await;
    assert_eq!(seen.phase, Phase::Running, "{}", seen.detail);
    assert_eq!(seen.started_by.as_deref(), Some("fork"));
    assert_eq!(seen.address.as_deref(), Some("10.77.1.5/24"));
    assert!(seen.ssh_host_key.unwrap().starts_with("ssh-ed25519 "));
    println!("fork usable after {:?} ms", seen.usable_ms);
    let console = lab
        .client
        .upgrade("/v1/desktops/a/console", "lyceum-console")
        .await
        .unwrap();
    let mut console = lyceum_console::relay::Relayed::new(console);
    let mut version = [0; 12];
    console.read_exact(&mut version).await.unwrap();
    assert_eq!(&version[..4], b"RFB ");

    // The agent is killed: the same machine is found again and known as what it is.
    let run_dir = lab.config.run_dir.join("d/a");
    let machine = qemu_pid(&run_dir).unwrap();
    lab.kill().await;
    lab.start().await;
    let again = lab.wait_phase("a", Phase::Running).await;
    assert_eq!(again.usable_ms, seen.usable_ms);
    assert_eq!(qemu_pid(&run_dir), Some(machine));
    assert_eq!(
        code(lab.run("a", &lab.fork("a", 0)).await),
        "stale_generation"
    );

    let saved = lab.save("suspend", "a", 1, "s").await.unwrap();
    println!("suspended: {saved:?}");
    assert!(!Path::new(&format!("/proc/{machine}")).exists());
    let mut resume = lab.fork("a", 2);
    resume.ready_timeout_ms = READY_MS;
    resume.start = StartMode::Resume {
        release: lab.release.clone(),
        delta: "s".parse().unwrap(),
    };
    lab.run("a", &resume).await.unwrap();
    let seen = lab
        .wait("a", |d| matches!(d.phase, Phase::Running | Phase::Failed))
        .await;
    assert_eq!(seen.phase, Phase::Running, "{}", seen.detail);
    assert_eq!(seen.started_by.as_deref(), Some("resume"));
    println!("resume usable after {:?} ms", seen.usable_ms);

    // kill -9 of a machine in use.
    kill(qemu_pid(&run_dir).unwrap());
    let seen = lab.wait_phase("a", Phase::Failed).await;
    assert!(seen.detail.contains("QEMU"), "{}", seen.detail);
    assert!(!run_dir.exists());
    let mut request = lab.fork("a", 3);
    request.ready_timeout_ms = READY_MS;
    lab.run("a", &request).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    assert_eq!(lab.stop("a", 3).await.unwrap().phase, Phase::Stopped);
    assert!(!run_dir.exists());
    lab.shut_down().await;
}
