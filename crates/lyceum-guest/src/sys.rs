//! The few system calls the helper needs that the standard library does not offer.
//!
//! All `unsafe` of the program is in this file. Each function is safe to call: descriptors are borrowed or owned by type
//! and lengths come from slices.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// An epoll instance.
///
/// Registrations are edge triggered: a virtio-serial port without a host reports a hang-up for as long as the host is
/// away, which would be a busy loop with any level-triggered wait.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Makes an empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Reports everything that happens on `fd` as `token`, edge triggered. Closing `fd` ends it.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event {
            events: flags as u32,
            u64: token,
        };
        let (set, fd) = (self.0.as_raw_fd(), fd.as_fd().as_raw_fd());
        // SAFETY: `event` lives through the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    /// Waits for events, at most for `timeout` (`None`: without end), and returns the tokens of the descriptors that have
    /// any. An empty list means time is up or a signal came.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<u64>> {
        const AT_ONCE: usize = 16;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE];
        // Rounded up, so that a wait never ends just before its deadline and spins.
        let millis = timeout.map_or(-1, |t| {
            i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        // SAFETY: the pointer and the count describe the same array.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                AT_ONCE as i32,
                millis,
            )
        };
        let count = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(events[..count].iter().map(|event| event.u64).collect())
    }
}

/// A counter that wakes the main loop from another thread.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Makes a waker that is not set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is ours alone.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sets it. It can only fail when it is set already.
    pub fn wake(&self) {
        let _ = write(self.0.as_fd(), &1u64.to_ne_bytes());
    }

    /// Clears it.
    pub fn clear(&self) {
        let _ = read(self.0.as_fd(), &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `read(2)`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    check_len(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// `write(2)`.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    check_len(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// A process as a descriptor that becomes readable when the process ends.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor with close-on-exec set.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    check(fd as libc::c_int)?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// A routing netlink socket. `link_events`: subscribed to links coming and going, and not blocking.
pub fn netlink(link_events: bool) -> io::Result<OwnedFd> {
    let mut kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    if link_events {
        kind |= libc::SOCK_NONBLOCK;
    }
    // SAFETY: no pointers; the new descriptor is ours alone.
    let socket = unsafe {
        let fd = check(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE))?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: all-zero is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = if link_events {
        libc::RTMGRP_LINK as u32
    } else {
        0
    };
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_nl of that length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// Receives one datagram of a netlink socket.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    check_len(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

/// Sets the wall clock. Unix time in milliseconds.
pub fn set_clock(unix_ms: u64) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: (unix_ms / 1000) as libc::time_t,
        tv_nsec: ((unix_ms % 1000) * 1_000_000) as libc::c_long,
    };
    // SAFETY: `time` lives through the call.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) })?;
    Ok(())
}

/// Sets the kernel's host name.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are those of the string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })?;
    Ok(())
}

/// Mixes `seed` into the kernel's random generator, counts it as fully random, and makes the generator use it at once.
pub fn credit_seed(random: BorrowedFd<'_>, seed: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    let size = i32::try_from(seed.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // struct rand_pool_info: bits of entropy, bytes, the bytes.
    let mut info = Vec::with_capacity(8 + seed.len());
    info.extend_from_slice(&(size * 8).to_ne_bytes());
    info.extend_from_slice(&size.to_ne_bytes());
    info.extend_from_slice(seed);
    // SAFETY: `info` is a rand_pool_info with as many bytes as it says.
    let added = check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, info.as_ptr()) });
    info.fill(0);
    added?;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) })?;
    Ok(())
}

/// Writes everything the guest has in memory for its disks.
pub fn sync_all() {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::sync() }
}

/// The user and group numbers and the home directory of an account.
pub fn account(name: &str) -> io::Result<Option<(u32, u32, String)>> {
    // Read directly: a static program must not pull in glibc's loadable name services.
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    Ok(passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [user, _, uid, gid, _, home, ..] if *user == name => {
                Some((uid.parse().ok()?, gid.parse().ok()?, (*home).to_owned()))
            }
            _ => None,
        }
    }))
}

/// Kills a process by descriptor, so that a reused number can never be hit.
pub fn kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo means "as kill(2)".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            none,
            0,
        )
    };
    check(result as libc::c_int)?;
    Ok(())
}

/// Restricts what new files may be: `umask(2)`.
pub fn set_umask(mask: u32) {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::umask(mask) };
}
