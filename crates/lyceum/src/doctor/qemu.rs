//! QEMU: there, new enough, with every device; and KVM, by running a guest.

use super::Finding;
use lyceum_qemu::QemuConfig;
use lyceum_qemu::probe::{self, Kvm, Version};
use std::path::Path;

const BINARY: &str = "qemu-system-x86_64";
/// `blockdev-set-active`, which suspend and move stand on, came with it.
const MINIMUM: Version = Version {
    major: 10,
    minor: 0,
    micro: 0,
};
const CURE: &str = "make setup; or on Debian 13: apt-get install qemu-system-x86 qemu-utils; on Debian 12 the same from bookworm-backports (-t bookworm-backports)";

/// Runs what blocks where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

pub(super) async fn check() -> Vec<Finding> {
    let mut findings = Vec::new();
    match blocking(|| probe::version(Path::new(BINARY))).await {
        Some(Ok(version)) if version >= MINIMUM => {
            findings.push(Finding::ok("qemu", format!("version {version}")))
        }
        Some(Ok(version)) => {
            return vec![Finding::fail(
                "qemu",
                format!(
                    "version {version}; {MINIMUM} is the oldest that can suspend and move desktops"
                ),
                CURE,
            )];
        }
        Some(Err(e)) => return vec![Finding::fail("qemu", e.to_string(), CURE)],
        None => return vec![Finding::fail("qemu", "QEMU could not be asked", CURE)],
    }
    match blocking(|| probe::missing_devices(Path::new(BINARY))).await {
        Some(Ok(missing)) if missing.is_empty() => findings.push(Finding::ok(
            "qemu",
            "every device that desktops need is there",
        )),
        Some(Ok(missing)) => {
            let devices: Vec<&str> = missing.iter().map(|(device, _)| *device).collect();
            let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
            findings.push(Finding::fail(
                "qemu",
                format!("it has no {}", devices.join(", ")),
                format!(
                    "install the packages with these devices: {}",
                    packages.join(" ")
                ),
            ));
        }
        Some(Err(e)) => findings.push(Finding::fail("qemu", e.to_string(), CURE)),
        None => {}
    }
    match blocking(|| probe::has_spice(Path::new(BINARY))).await {
        Some(Ok(true)) => findings.push(Finding::ok(
            "qemu",
            "its module for SPICE is there: courses may allow remote-viewer",
        )),
        // Nothing fails without it.
        Some(Ok(false)) => findings.push(Finding::ok(
            "qemu",
            "without its module for SPICE: desktops are seen in the page and with VNC viewers, not with remote-viewer \
             (apt-get install --no-install-recommends qemu-system-modules-spice, then restart the host agent)",
        )),
        Some(Err(_)) | None => {}
    }
    if !super::machine::program("qemu-img") {
        findings.push(Finding::fail(
            "qemu",
            "qemu-img is not there; disks can't be made",
            CURE,
        ));
    }
    findings
}

pub(super) async fn kvm() -> Finding {
    let slow = "guests are emulated: everything works, many times slower";
    match blocking(|| probe::kvm(Path::new(BINARY), &QemuConfig::default().cpu_model)).await {
        Some(Kvm::Works) => Finding::ok("kvm", "a small 64-bit guest ran to completion with it"),
        Some(Kvm::Broken(why)) => Finding::warn(
            "kvm",
            why,
            format!(
                "look at the kernel's log (dmesg); inside a virtual machine nested virtualisation may be off or broken. Until then {slow}"
            ),
        ),
        Some(Kvm::Absent(why)) => Finding::warn("kvm", why, format!("until then {slow}")),
        None => Finding::warn("kvm", "it could not be tried", slow),
    }
}
