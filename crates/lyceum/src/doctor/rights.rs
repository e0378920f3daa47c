//! Rights: the device of KVM, and other processes' memory, which suspend and move read.

use super::Finding;
use nix::unistd::{AccessFlags, access, geteuid};
use std::path::Path;
use std::process::{Command, Stdio};

pub(super) fn check(state: &Path) -> Vec<Finding> {
    let mut findings = vec![kvm_device(), memory_of_a_child()];
    findings.extend(ptrace_scope());
    findings.extend(paths(state));
    findings
}

fn kvm_device() -> Finding {
    let device = Path::new("/dev/kvm");
    if !device.exists() {
        return Finding::warn(
            "rights",
            "/dev/kvm is not there",
            "switch on virtualisation (VT-x, AMD-V) in the firmware, or nested virtualisation for this virtual machine, and load kvm_intel or kvm_amd; until then guests are emulated, which is many times slower",
        );
    }
    match access(device, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Finding::ok("rights", "/dev/kvm may be opened"),
        Err(_) => Finding::warn(
            "rights",
            "/dev/kvm may not be opened by this user",
            "usermod -aG kvm USER, then sign in again; until then guests are emulated, which is many times slower",
        ),
    }
}

/// Reads the memory of a child process, as a host agent reads QEMU's for a suspend.
fn memory_of_a_child() -> Finding {
    let cure = "run the host agent as root, or give it CAP_SYS_PTRACE; without it desktops start but can't be suspended, moved or handed out";
    let child = Command::new("/proc/self/exe")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => {
            return Finding::warn(
                "rights",
                format!("no process can be started to read its memory: {e}"),
                cure,
            );
        }
    };
    // Opening checks the rights. The child may have ended by then, but it stays there, as a
    // zombie, until it is waited for.
    let opened = std::fs::File::open(format!("/proc/{}/mem", child.id()))
        .and_then(|_| std::fs::File::open(format!("/proc/{}/pagemap", child.id())));
    let _ = child.wait();
    match opened {
        Ok(_) => Finding::ok(
            "rights",
            "memory of own child processes may be read (suspend, hand-out)",
        ),
        Err(e) => Finding::fail(
            "rights",
            format!("memory of own child processes may not be read: {e}"),
            cure,
        ),
    }
}

fn ptrace_scope() -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    match text.trim() {
        "0" => None,
        _ if geteuid().is_root() => None,
        "3" => Some(Finding::fail(
            "rights",
            "kernel.yama.ptrace_scope is 3: nobody may read another process's memory",
            "sysctl kernel.yama.ptrace_scope=1 needs a reboot after 3; set it in /etc/sysctl.d",
        )),
        scope => Some(Finding::warn(
            "rights",
            format!(
                "kernel.yama.ptrace_scope is {scope}: after a restart of a host agent its desktops can't be suspended or moved"
            ),
            "sysctl kernel.yama.ptrace_scope=0, or run the host agent as root",
        )),
    }
}

/// Unix sockets have paths of at most 107 bytes.
fn paths(state: &Path) -> Option<Finding> {
    let socket = std::path::absolute(state)
        .ok()?
        .join("controller/controller.sock");
    (socket.as_os_str().len() > 107).then(|| {
        Finding::fail(
            "paths",
            format!("{} is too long for a socket", socket.display()),
            "choose a shorter state directory with --state",
        )
    })
}
