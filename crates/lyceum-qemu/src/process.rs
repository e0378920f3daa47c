//! A QEMU process, ours or one that an earlier run of the agent left: recognised
//! beyond doubt, watched, ended.

use crate::util::io_error;
use lyceum_hypervisor::{HypervisorError, Usage};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// What the kernel says of a process in `/proc/PID/stat`: enough to never mistake
/// another one, which got the same number later, for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub pid: u32,
    /// Start time in clock ticks after the boot of the host.
    pub started: u64,
}

impl Mark {
    pub(crate) fn parse(stat: &str) -> Option<Mark> {
        let pid = stat.split(' ').next()?.parse().ok()?;
        // The name stands in parentheses and may hold anything, also parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Mark {
            pid,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn of(pid: u32) -> Option<Mark> {
        Mark::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Differs after every boot of the host, so that marks of an earlier one mean nothing.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// A process that is watched through its pidfd. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub mark: Mark,
    fd: Arc<AsyncFd<PidFd>>,
}

#[derive(Debug)]
struct PidFd(OwnedFd);

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Process {
    /// The process with this mark; `None` when it is gone.
    pub(crate) fn open(mark: Mark) -> Result<Option<Process>, HypervisorError> {
        // SAFETY: a system call without pointers; a new descriptor comes back, owned by nobody.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_pidfd_open,
                mark.pid as libc::pid_t,
                libc::PIDFD_NONBLOCK,
            )
        };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(None),
                _ => Err(io_error(format!("watching process {}", mark.pid))(error)),
            };
        }
        // SAFETY: it was just made by the kernel for us.
        let fd = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
        // Looked at after the pidfd is held: from here on the number can't be given to another one unnoticed.
        if Mark::of(mark.pid).as_ref() != Some(&mark) {
            return Ok(None);
        }
        // SAFETY: the descriptor is owned by what is handed over, and open as long as that lives.
        let fd =
            unsafe { AsyncFd::register_with_interest(PidFd(fd), tokio::io::Interest::READABLE) };
        let fd = fd.map_err(|e| io_error("watching a process")(e.into()))?;
        Ok(Some(Process {
            mark,
            fd: Arc::new(fd),
        }))
    }

    /// Returns once the process is gone; with its exit status when it was our child
    /// and nobody else asked before.
    pub(crate) async fn ended(&self) -> Option<Exit> {
        // An error of the reactor means the runtime is being shut down: nobody is left to be told.
        let _ = self.fd.readable().await;
        self.reap()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.signal(0).is_ok() && !self.is_zombie()
    }

    fn is_zombie(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.mark.pid))
            .ok()
            .and_then(|s| {
                s.rsplit_once(')')
                    .map(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
            })
            .unwrap_or(true)
    }

    fn reap(&self) -> Option<Exit> {
        let mut info: libc::siginfo_t = nothing();
        // SAFETY: `info` is valid for writing; the descriptor is open.
        let done = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                self.fd.as_raw_fd() as libc::id_t,
                &mut info,
                libc::WEXITED | libc::WNOHANG,
            )
        };
        // Not our child, or reaped already.
        // SAFETY: waitid filled it in for a child.
        if done != 0 || unsafe { info.si_pid() } == 0 {
            return None;
        }
        // SAFETY: as above.
        let status = unsafe { info.si_status() };
        Some(match info.si_code {
            libc::CLD_EXITED => Exit::Code(status),
            _ => Exit::Signal(status),
        })
    }

    /// A descriptor of ours for the open file through which the process has `path` open for writing:
    /// locks set with it are the process's.
    pub(crate) fn open_file(&self, path: &Path) -> Result<OwnedFd, HypervisorError> {
        use std::os::unix::fs::MetadataExt;
        let what = || format!("finding {} among the files of QEMU", path.display());
        let wanted = fs::metadata(path).map_err(io_error(what()))?;
        let dir = format!("/proc/{}/fd", self.mark.pid);
        for entry in fs::read_dir(&dir).map_err(io_error(what()))? {
            let entry = entry.map_err(io_error(what()))?;
            let same = fs::metadata(entry.path())
                .is_ok_and(|m| (m.dev(), m.ino()) == (wanted.dev(), wanted.ino()));
            let number = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<i32>().ok());
            let (true, Some(number)) = (same, number) else {
                continue;
            };
            // SAFETY: a system call without pointers; a new descriptor comes back, owned by nobody.
            let raw =
                unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.fd.as_raw_fd(), number, 0) };
            if raw < 0 {
                return Err(io_error(what())(io::Error::last_os_error()));
            }
            // SAFETY: it was just made by the kernel for us.
            let fd = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
            // SAFETY: a system call on an open descriptor.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            if flags >= 0 && flags & libc::O_ACCMODE == libc::O_RDWR {
                return Ok(fd);
            }
        }
        Err(HypervisorError::State(format!(
            "QEMU does not have {} open for writing",
            path.display()
        )))
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open, no siginfo is passed.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<(), HypervisorError> {
        match self.signal(libc::SIGKILL) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                return Err(io_error(format!("ending process {}", self.mark.pid))(e));
            }
            _ => {}
        }
        let limit = Duration::from_secs(20);
        match tokio::time::timeout(limit, self.ended()).await {
            Ok(_) => Ok(()),
            // Stuck in the kernel, for example on a file server that is away.
            Err(_) => Err(HypervisorError::Timeout {
                what: format!("ending process {} (waiting for storage?)", self.mark.pid),
                seconds: limit.as_secs(),
            }),
        }
    }

    /// Memory and CPU time.
    pub(crate) fn usage(&self) -> Result<Usage, HypervisorError> {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", self.mark.pid);
            fs::read_to_string(&path).map_err(io_error(path))
        };
        let (rollup, stat, io) = (read("smaps_rollup")?, read("stat")?, read("io")?);
        if Mark::parse(&stat).as_ref() != Some(&self.mark) {
            return Err(HypervisorError::State("the machine has ended".into()));
        }
        let number = |text: &str, key: &str| -> u64 {
            text.lines()
                .find_map(|l| l.strip_prefix(key))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        let ticks: u64 = stat
            .rsplit_once(')')
            .map(|(_, rest)| {
                let fields = rest.split_whitespace().skip(11).take(2);
                fields.filter_map(|f| f.parse::<u64>().ok()).sum()
            })
            .unwrap_or(0);
        // SAFETY: no pointers; a constant of the system.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
        Ok(Usage {
            pss_kib: number(&rollup, "Pss:"),
            rss_kib: number(&rollup, "Rss:"),
            cpu_ms: ticks * 1000 / per_second,
            read_bytes: number(&io, "read_bytes:"),
            written_bytes: number(&io, "write_bytes:"),
        })
    }

    /// Whether its command line has this argument.
    pub(crate) fn has_argument(&self, argument: &str) -> bool {
        fs::read(
            Path::new("/proc")
                .join(self.mark.pid.to_string())
                .join("cmdline"),
        )
        .is_ok_and(|line| line.split(|b| *b == 0).any(|a| a == argument.as_bytes()))
    }
}

fn nothing() -> libc::siginfo_t {
    // SAFETY: plain old data, for which all zero is a valid value.
    unsafe { std::mem::zeroed() }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "ended with status {code}"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_whatever_the_name() {
        let own = Mark::of(std::process::id()).expect("own stat");
        assert_eq!(own.pid, std::process::id());
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 777 1 1";
        assert_eq!(
            Mark::parse(stat),
            Some(Mark {
                pid: 42,
                started: 777
            })
        );
        for bad in ["", "42", "42 (x", "x (a) S", "42 (a) S 1"] {
            assert_eq!(Mark::parse(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_process_with_another_start_time_is_not_it() {
        let own = Mark::of(std::process::id()).expect("own stat");
        assert!(Process::open(own.clone()).expect("open").is_some());
        let earlier = Mark {
            started: own.started - 1,
            ..own
        };
        assert!(Process::open(earlier).expect("open").is_none());
    }

    #[tokio::test]
    async fn the_end_of_a_child_is_seen_with_its_status() {
        let child = std::process::Command::new("sh")
            .args(["-c", "read x; exit 3"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("spawn");
        let process = Process::open(Mark::of(child.id()).expect("stat"))
            .expect("open")
            .expect("alive");
        assert!(process.is_alive());
        drop(child);
        assert_eq!(process.ended().await, Some(Exit::Code(3)));
        assert!(!process.is_alive());
        assert!(Process::open(process.mark.clone()).expect("open").is_none());
    }
}
