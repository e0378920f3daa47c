//! A host that runs short of memory: real guests on QEMU that use more than their host may give.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mod.rs"]
mod common;

use common::{find, type_on};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: guests are emulated, and other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(300);

fn lyceum(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lyceum"));
    command
        .env_remove("LYCEUM_URL")
        .env("LYCEUM_STATE", state)
        .stdin(Stdio::null());
    command
}

fn json(state: &Path, args: &[&str]) -> Value {
    let output = lyceum(state).args(args).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A classroom with real machines. Its desktops are suspended and it ends when this is dropped.
struct Classroom(Child);

impl Classroom {
    fn start(state: &Path, memory_mib: u64) -> Classroom {
        let image = std::env::var_os("LYCEUM_TINY_IMAGE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/tiny.qcow2"),
            PathBuf::from,
        );
        assert!(
            image.is_file(),
            "{} is not there: make tiny-image",
            image.display()
        );
        let mut child = lyceum(state)
            .args(["up", "--free-ports", "--hosts", "1", "--accelerator", "tcg"])
            .args(["--image-memory", "128", "--memory", &memory_mib.to_string()])
            .arg("--image")
            .arg(image)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let classroom = Classroom(child);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("{line}");
                if line.starts_with("ready: ") {
                    let _ = tell.send(());
                }
            }
        });
        told.recv_timeout(PATIENCE).expect("the classroom comes up");
        classroom
    }
}

impl Drop for Classroom {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_host_that_runs_short_admits_no_more_and_suspends_before_anything_is_killed() {
    let dir = tempfile::Builder::new()
        .prefix("lyp")
        .tempdir_in("/tmp")
        .unwrap();
    let state = dir.path().join("s");
    let _classroom = Classroom::start(&state, 200);
    let course = "First steps in programming";
    json(&state, &["course", "start", course]);
    let desktops = || {
        json(&state, &["desktop", "list"])
            .as_array()
            .unwrap()
            .clone()
    };
    let in_phase = |phase: &str| desktops().iter().filter(|d| d["phase"] == phase).count();
    assert_eq!(in_phase("running"), 3);
    let host = || json(&state, &["host", "list"])[0].clone();
    assert!(host()["refuses_because"].is_null(), "{}", host());

    // Each fills its RAM disk; with what they have already that is more than their host may give.
    let mut sockets = Vec::new();
    find(&state.join("run"), "vnc.sock", &mut sockets);
    assert_eq!(sockets.len(), 3, "{sockets:?}");
    let eat = "dd if=/dev/zero of=/tmp/eaten bs=1M count=55";
    let until = Instant::now() + PATIENCE;
    let mut typed = Instant::now() - PATIENCE;
    let mut refused = None;
    while in_phase("suspended") == 0 {
        assert!(
            Instant::now() < until,
            "nothing was suspended: {} {:?}",
            host(),
            desktops()
        );
        if refused.is_none() {
            if let Some(why) = host()["refuses_because"].as_str() {
                refused = Some(why.to_owned());
            } else if typed.elapsed() > Duration::from_secs(30) {
                // Again: keys of an emulated keyboard get lost.
                for socket in &sockets {
                    let _ = type_on(socket, eat);
                }
                typed = Instant::now();
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let refused = refused.expect("it says that it admits no more before anything is suspended");
    assert!(refused.contains("its desktops use"), "{refused}");

    // Whoever was suspended is told why, and keeps everything; the others run on.
    let all = desktops();
    let suspended: Vec<&Value> = all.iter().filter(|d| d["phase"] == "suspended").collect();
    for d in &suspended {
        let notice = d["notice"].as_str().unwrap_or_default();
        assert!(notice.contains("ran out of memory"), "{d}");
        assert!(d["delta_bytes"].as_u64().unwrap() > 0, "{d}");
    }
    for d in &all {
        let phase = d["phase"].as_str().unwrap();
        assert!(
            matches!(phase, "running" | "suspended" | "suspending"),
            "{d}"
        );
    }
    assert!(suspended.len() < all.len(), "all of them went");
    // Enough of them went: what is left fits.
    let until = Instant::now() + PATIENCE;
    loop {
        let now = host();
        if now["desktops_pss_mib"].as_u64() <= now["memory_mib"].as_u64() {
            break;
        }
        assert!(Instant::now() < until, "{now}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(in_phase("failed"), 0, "{:?}", desktops());
}
