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

/// The wall clock: Unix time in milliseconds, 0 before 1970.
pub fn clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
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

/// Restricts what new files may be: `umask(2)`.
pub fn set_umask(mask: u32) {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::umask(mask) };
}

/// A socket for IP packets of one card, that hears only UDP to port 68 and does not block.
pub fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let protocol = (libc::ETH_P_IP as u16).to_be();
    // Made for no protocol: it hears nothing until its filter is in place and it is bound.
    // SAFETY: no pointers; the new descriptor is ours alone.
    let socket = unsafe {
        let fd = check(libc::socket(libc::AF_PACKET, kind, 0))?;
        OwnedFd::from_raw_fd(fd)
    };
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(0x30, 0, 0, 9),      // the protocol
        op(0x15, 0, 6, 17),     // is UDP?
        op(0x28, 0, 0, 6),      // the fragment's place
        op(0x45, 4, 0, 0x1fff), // is the first?
        op(0xb1, 0, 0, 0),      // the header's length
        op(0x48, 0, 0, 2),      // the port
        op(0x15, 0, 1, 68),     // is the client's?
        op(0x06, 0, 0, 0xffff), // take it
        op(0x06, 0, 0, 0),      // or not
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: `filter` describes `program`; both live through the call, and the kernel copies them.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const filter).cast(),
            length,
        )
    })?;
    let address = link_address(index, [0; 6], protocol);
    // SAFETY: `address` is a sockaddr_ll of that length.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            LINK_ADDRESS,
        )
    })?;
    Ok(socket)
}

const LINK_ADDRESS: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn link_address(index: u32, mac: [u8; 6], protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as libc::c_int;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&mac);
    address
}

/// Sends an IP packet through a card to the Ethernet address `to`.
pub fn send_packet(
    socket: BorrowedFd<'_>,
    index: u32,
    to: [u8; 6],
    packet: &[u8],
) -> io::Result<()> {
    let address = link_address(index, to, (libc::ETH_P_IP as u16).to_be());
    // SAFETY: pointers and lengths describe the slice and the address.
    check_len(unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            LINK_ADDRESS,
        )
    })?;
    Ok(())
}

/// Receives an IP packet; returns its length and the Ethernet address it came from.
pub fn receive_packet(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, [u8; 6])> {
    let mut address = link_address(0, [0; 6], 0);
    let mut length = LINK_ADDRESS;
    // SAFETY: pointers and lengths describe the buffer and the address.
    let received = check_len(unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut address).cast(),
            &mut length,
        )
    })?;
    let [a, b, c, d, e, f, _, _] = address.sll_addr;
    Ok((received, [a, b, c, d, e, f]))
}
