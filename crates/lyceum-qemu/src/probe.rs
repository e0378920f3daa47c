//! Whether QEMU and KVM really work on this host.
//!
//! A `/dev/kvm` that opens proves nothing: a small 64-bit guest is run with it to completion.

use crate::probe_guest::{DONE, EXIT_PORT, WRONG, boot_sector};
use crate::util::io_error;
use lyceum_hypervisor::HypervisorError;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Grows when what is tried changes: a verdict that was kept is of this version or is not used.
pub const VERSION: u32 = 2;

/// How long the trivial guest may take. With a KVM that works it takes a tenth of a second.
pub const KVM_PATIENCE: Duration = Duration::from_secs(5);

/// How often it must run before KVM is trusted.
const KVM_TRIES: usize = 4;

/// QEMU's exit status when the guest wrote this to the exit port.
const fn exit_status(byte: u8) -> i32 {
    ((byte as i32) << 1) | 1
}

/// Devices that a desktop needs, with the packages that bring them on Debian.
pub const DEVICES: [(&str, &str); 8] = [
    ("VGA", "qemu-system-x86"),
    ("virtio-serial-pci", "qemu-system-x86"),
    ("virtserialport", "qemu-system-x86"),
    ("virtio-blk-pci", "qemu-system-x86"),
    ("virtio-tablet-pci", "qemu-system-x86"),
    ("virtio-rng-pci", "qemu-system-x86"),
    ("virtio-net-pci", "qemu-system-x86"),
    ("vmgenid", "qemu-system-x86"),
];

/// QEMU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl Version {
    fn parse(text: &str) -> Option<Version> {
        let word = text
            .split_whitespace()
            .skip_while(|w| *w != "version")
            .nth(1)?;
        let mut numbers = word.split('.').map(|n| {
            let digits: String = n.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        let mut next = || numbers.next().flatten();
        Some(Version {
            major: next()?,
            minor: next()?,
            micro: next()?,
        })
    }
}

/// Whether KVM can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// A guest ran to completion.
    Works,
    /// `/dev/kvm` is there, a guest does not run to completion.
    Broken(String),
    /// There is no `/dev/kvm` that could be opened.
    Absent(String),
}

/// Runs `binary --version`.
pub fn version(binary: &Path) -> Result<Version, HypervisorError> {
    let output = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(io_error(format!(
            "running {} --version (is the package qemu-system-x86 installed?)",
            binary.display()
        )))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).ok_or_else(|| {
        HypervisorError::State(format!(
            "{} --version says {:?}",
            binary.display(),
            text.chars().take(80).collect::<String>()
        ))
    })
}

/// Devices out of [`DEVICES`] that this QEMU has not, with the package each is in.
pub fn missing_devices(
    binary: &Path,
) -> Result<Vec<(&'static str, &'static str)>, HypervisorError> {
    let output = Command::new(binary)
        .args(["-machine", "none", "-device", "help"])
        .stdin(Stdio::null())
        .output()
        .map_err(io_error(format!("running {}", binary.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let has = |name: &str| text.contains(&format!("name \"{name}\""));
    Ok(DEVICES
        .iter()
        .copied()
        .filter(|(name, _)| !has(name))
        .collect())
}

/// Whether QEMU's module for SPICE is installed: on Debian the package `qemu-system-modules-spice`.
pub fn has_spice(binary: &Path) -> Result<bool, HypervisorError> {
    let output = Command::new(binary)
        .args(["-spice", "help"])
        .stdin(Stdio::null())
        .output()
        .map_err(io_error(format!("running {}", binary.display())))?;
    // It ends with 1 whether it helped or not.
    Ok(String::from_utf8_lossy(&output.stdout).contains("unix="))
}

/// Runs a trivial guest with KVM and the CPU of the desktops, several times: the firmware boots a sector
/// that goes over to 64 bits, uses memory, SSE and the timer, and reports back. Each takes at most
/// [`KVM_PATIENCE`], whatever KVM does, and the first that fails is the last.
pub fn kvm(binary: &Path, cpu_model: &str) -> Kvm {
    if let Err(e) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        return Kvm::Absent(match e.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no /dev/kvm: switch virtualisation on in the firmware, or nested virtualisation on its host".into()
            }
            std::io::ErrorKind::PermissionDenied => {
                "/dev/kvm may not be opened: add the user to the group kvm".into()
            }
            _ => format!("/dev/kvm can't be opened: {e}"),
        });
    }
    // More than once: a broken nested KVM was seen to run one such guest in eight.
    for _ in 0..KVM_TRIES {
        if let Err(why) = run_trivial_guest(binary, "kvm", cpu_model, KVM_PATIENCE) {
            return Kvm::Broken(format!(
                "/dev/kvm opens, but a small 64-bit guest does not run with it: {why}"
            ));
        }
    }
    Kvm::Works
}

/// The guest runs on any accelerator; so the probe itself can be tested where KVM does not work.
pub fn run_trivial_guest(
    binary: &Path,
    accelerator: &str,
    cpu_model: &str,
    patience: Duration,
) -> Result<(), String> {
    let path = std::env::temp_dir().join(format!(
        "lyceum-probe-{}-{}",
        std::process::id(),
        getrandom::u32().unwrap_or(0)
    ));
    let made = std::fs::File::create_new(&path).and_then(|mut f| f.write_all(&boot_sector()));
    let result = made
        .map_err(|e| format!("{}: {e}", path.display()))
        .and_then(|()| {
            let mut child = Command::new(binary)
                .args([
                    "-nodefaults",
                    "-no-user-config",
                    "-machine",
                    "pc",
                    "-m",
                    "32",
                    "-display",
                    "none",
                ])
                // With the CPU of the desktops, and nothing left out of it: a nested KVM was seen to run
                // a boot sector reliably and to lack what every 64-bit guest needs.
                .args(["-cpu", &format!("{cpu_model},enforce")])
                .args([
                    "-accel",
                    accelerator,
                    "-no-reboot",
                    "-device",
                    &format!("isa-debug-exit,iobase={EXIT_PORT},iosize=1"),
                ])
                .arg("-drive")
                .arg(format!(
                    "if=ide,format=raw,readonly=off,snapshot=on,file={}",
                    path.display()
                ))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|e| format!("{} can't be started: {e}", binary.display()))?;
            let result = wait(&mut child, patience);
            let _ = child.kill();
            let _ = child.wait();
            result
        });
    let _ = std::fs::remove_file(&path);
    result
}

fn wait(child: &mut Child, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(exit_status(DONE)) => return Ok(()),
            Ok(Some(status)) if status.code() == Some(exit_status(WRONG)) => {
                return Err("its memory did not hold what was written to it".into());
            }
            // An exception is a triple fault, so a reset, so the end.
            Ok(Some(status)) if status.code() == Some(0) => {
                return Err("it crashed".into());
            }
            Ok(Some(status)) => {
                let mut text = String::new();
                if let Some(errors) = child.stderr.take() {
                    let _ = errors.take(4096).read_to_string(&mut text);
                }
                let last: String = text
                    .lines()
                    .last()
                    .unwrap_or("it said nothing")
                    .chars()
                    .take(200)
                    .collect();
                return Err(format!("QEMU ended ({status}): {last}"));
            }
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => return Err(format!("it hung for {} s", patience.as_secs())),
            Err(e) => return Err(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(
            Version::parse(text),
            Some(Version {
                major: 10,
                minor: 0,
                micro: 2
            })
        );
        assert_eq!(
            Version::parse("version 11.1.0-rc2").map(|v| v.to_string()),
            Some("11.1.0".into())
        );
        assert_eq!(Version::parse("QEMU"), None);
        assert_eq!(Version::parse("version x.y"), None);
    }
}
