//! Processor, memory, disks, clock, limits, helper programs.

use super::Finding;
use crate::format::{bytes, mib};
use std::path::{Path, PathBuf};

/// A classroom with one small desktop fits in so much, MiB.
const MEMORY_FAIL: u64 = 1024;
/// A class fits in so much, MiB.
const MEMORY_WARN: u64 = 6 * 1024;
const GIB: u64 = 1 << 30;

/// Memory of the machine or of the container it is, MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// In all.
    pub total: u64,
    /// Without swapping anything out.
    pub available: u64,
}

fn meminfo(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .split_ascii_whitespace()
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .map(|kib| kib / 1024)
    };
    Some(Memory {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
    })
}

/// The limit of the control group this runs in, MiB.
fn cgroup_limit() -> Option<u64> {
    let group = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = group.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut dir = PathBuf::from("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let mut least = None;
    loop {
        if let Ok(text) = std::fs::read_to_string(dir.join("memory.max"))
            && let Ok(limit) = text.trim().parse::<u64>()
        {
            let limit = limit >> 20;
            least = Some(least.map_or(limit, |least: u64| least.min(limit)));
        }
        if !dir.pop() || !dir.starts_with("/sys/fs/cgroup") {
            return least;
        }
    }
}

/// Memory that there is.
pub fn memory_mib() -> Option<Memory> {
    let memory = meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(match cgroup_limit() {
        Some(limit) => Memory {
            total: memory.total.min(limit),
            available: memory.available.min(limit),
        },
        None => memory,
    })
}

pub(super) fn processor() -> Finding {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    match std::env::consts::ARCH {
        "x86_64" => Finding::ok("processor", format!("x86-64, {cpus} CPUs")),
        other => Finding::fail(
            "processor",
            format!("this is {other}"),
            "desktops are x86-64 machines; use such a machine",
        ),
    }
}

pub(super) fn memory() -> Vec<Finding> {
    let mut findings = Vec::new();
    match memory_mib() {
        None => findings.push(Finding::fail(
            "memory",
            "/proc/meminfo can't be read",
            "mount /proc",
        )),
        Some(Memory { total, available }) => {
            let found = format!("{} available of {}", mib(available), mib(total));
            findings.push(if available < MEMORY_FAIL {
                Finding::fail("memory", found, "end other programs or add memory: a single desktop and the classroom's parts need about 1 GiB")
            } else if available < MEMORY_WARN {
                Finding::warn("memory", found, "enough for some desktops; a class of 60 forked ones wants about 6 GiB")
            } else {
                Finding::ok("memory", found)
            });
        }
    }
    if let Some(limit) = cgroup_limit()
        && meminfo(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
            .is_some_and(|m| limit < m.total)
    {
        findings.push(Finding::warn("memory", format!("a control group limits this to {}", mib(limit)), "raise the limit (MemoryMax= of the service, --memory of the container) if the class is larger"));
    }
    if std::fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .is_ok_and(|text| text.trim() == "2")
    {
        findings.push(Finding::fail(
            "memory",
            "vm.overcommit_memory is 2: the kernel counts every desktop's nominal memory",
            "sysctl vm.overcommit_memory=0; forked desktops share most of their memory",
        ));
    }
    if !Path::new("/proc/pressure/memory").exists() {
        findings.push(Finding::warn(
            "pressure",
            "the kernel tells no memory pressure (PSI)",
            "boot with psi=1; without it a host stops admitting desktops by available memory alone",
        ));
    }
    findings
}

/// Kind of a file system as people call it.
fn file_system(path: &Path) -> Option<&'static str> {
    let stat = nix::sys::statfs::statfs(path).ok()?;
    Some(match stat.filesystem_type().0 as u64 & 0xffff_ffff {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x2fc1_2fc1 => "zfs",
        0x6573_5546 => "fuse",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        _ => "another",
    })
}

/// The directory itself, or the nearest one above that exists.
fn existing(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    while !path.exists() && path.pop() {}
    path
}

/// Whether the disk behind a path turns, as the kernel says; `None` where it has no say.
fn rotational(path: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let dev = std::fs::metadata(path).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let dir = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition has its queue one directory above.
    [
        dir.join("queue/rotational"),
        dir.join("../queue/rotational"),
    ]
    .iter()
    .find_map(|file| std::fs::read_to_string(file).ok())
    .map(|text| text.trim() == "1")
}

fn tier(check: &'static str, dir: &Path) -> Vec<Finding> {
    let at = existing(dir);
    let shown = dir.display();
    let space = match nix::sys::statvfs::statvfs(&at) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(e) => {
            return vec![Finding::fail(
                check,
                format!("{shown}: {e}"),
                "choose a directory on a working disk with --state",
            )];
        }
    };
    let kind = file_system(&at).unwrap_or("another");
    let disk = match rotational(&at) {
        Some(true) => ", a turning disk",
        Some(false) => ", not a turning disk",
        None => "",
    };
    let found = format!("{} free on {kind}{disk} ({shown})", bytes(space));
    let mut findings = vec![if space < 2 * GIB {
        Finding::fail(
            check,
            found,
            "make room or choose another directory with --state: an image and its memory take 2 GiB",
        )
    } else if space < 10 * GIB {
        Finding::warn(
            check,
            found,
            "room for a few images; 10 GiB and more are comfortable",
        )
    } else {
        Finding::ok(check, found)
    }];
    match kind {
        "tmpfs" => findings.push(Finding::warn(
            check,
            format!("{shown} is in memory (tmpfs)"),
            "desktops and images are gone after a reboot; choose a disk with --state",
        )),
        "fuse" | "cifs" => findings.push(Finding::warn(
            check,
            format!("{shown} is on {kind}, which may lack locks and flushes that keep disks whole"),
            "choose a local disk or NFS 4.2",
        )),
        _ => {}
    }
    if nix::unistd::access(&at, nix::unistd::AccessFlags::W_OK).is_err() {
        findings.push(Finding::fail(
            check,
            format!("{} can't be written to by this user", at.display()),
            "run this as its owner, or choose another directory with --state",
        ));
    }
    findings
}

pub(super) fn disks(fast: &Path, slow: &Path) -> Vec<Finding> {
    use std::os::unix::fs::MetadataExt;
    let mut findings = tier("fast tier", fast);
    findings.extend(tier("slow tier", slow));
    let device = |path: &Path| std::fs::metadata(existing(path)).map(|m| m.dev()).ok();
    if device(fast) == device(slow) {
        findings.push(Finding::ok(
            "tiers",
            "both are on one file system: fine on one machine, two disks are better for a school",
        ));
    }
    findings
}

pub(super) fn clock() -> Finding {
    // The classroom's certificates are valid from the moment they are made; a clock that is set
    // back afterwards makes them "not yet valid", and one far ahead makes them expire.
    let now = jiff::Timestamp::now();
    let built: Option<jiff::Timestamp> = "2026-01-01T00:00:00Z".parse().ok();
    let shown = crate::format::moment(now.as_millisecond());
    if built.is_some_and(|built| now < built) {
        return Finding::fail(
            "clock",
            format!("it says {shown}, which is before this program was made"),
            "set the clock (timedatectl set-ntp true); certificates and sign-ins depend on it",
        );
    }
    let mut state = unsafe { std::mem::zeroed::<libc::timex>() };
    // SAFETY: adjtimex with modes 0 only reads, into a struct of ours.
    match unsafe { libc::adjtimex(&mut state) } {
        libc::TIME_ERROR => Finding::warn(
            "clock",
            format!("{shown}, kept right by nothing"),
            "with more than one machine run a time service (systemd-timesyncd or chrony); the parts' certificates and logs depend on it",
        ),
        -1 => Finding::warn(
            "clock",
            format!("{shown}; whether anything keeps it right can't be told"),
            "with more than one machine make sure that a time service runs",
        ),
        _ => Finding::ok("clock", format!("{shown}, kept right by a time service")),
    }
}

pub(super) fn limits() -> Vec<Finding> {
    use nix::sys::resource::{Resource, getrlimit};
    let mut findings = Vec::new();
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        findings.push(if hard < 4096 {
            Finding::warn(
                "limits",
                format!("at most {hard} open files"),
                "raise it (ulimit -Hn, LimitNOFILE= of the service): each desktop takes about 30",
            )
        } else {
            Finding::ok("limits", format!("{hard} open files"))
        });
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NPROC)
        && soft < 1024
    {
        findings.push(Finding::warn(
            "limits",
            format!("at most {soft} processes and threads"),
            "raise it (ulimit -u, TasksMax= of the service): each desktop takes about 8",
        ));
    }
    findings
}

/// Whether a program is in PATH or where administrators' programs are.
pub(super) fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| nix::unistd::access(&dir.join(name), nix::unistd::AccessFlags::X_OK).is_ok())
}

pub(super) fn helpers() -> Vec<Finding> {
    let missing: Vec<&str> = [
        ("mmdebstrap", "mmdebstrap"),
        ("mke2fs", "e2fsprogs"),
        ("sfdisk", "fdisk"),
        ("grub-mkimage", "grub-pc-bin"),
        ("cpio", "cpio"),
        ("zstd", "zstd"),
    ]
    .iter()
    .filter(|(name, _)| !program(name))
    .map(|(_, package)| *package)
    .collect();
    vec![match missing.is_empty() {
        true => Finding::ok("helpers", "everything for making images is there"),
        false => Finding::warn(
            "helpers",
            "images can't be made here, only imported",
            format!("apt-get install {}", missing.join(" ")),
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let text =
            "MemTotal:       24576000 kB\nMemFree:         1000 kB\nMemAvailable:   12288000 kB\n";
        assert_eq!(
            meminfo(text),
            Some(Memory {
                total: 24000,
                available: 12000
            })
        );
        assert_eq!(meminfo("MemTotal: x kB"), None);
        assert!(memory_mib().is_some_and(|m| m.total >= m.available));
    }

    #[test]
    fn a_directory_to_come_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b/c")), dir.path());
        assert!(!tier("fast tier", &dir.path().join("a")).is_empty());
    }
}
