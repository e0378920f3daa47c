//! Taps, opened for QEMU: it gets the open device, and needs no rights of its own.

use crate::util::io_error;
use lyceum_hypervisor::HypervisorError;
use std::fs::File;
use std::os::fd::AsRawFd;

/// `struct ifreq`: a name of at most 15 bytes, then what the request is about.
const NAME_MAX: usize = 15;
const REQUEST: usize = 40;
const FLAGS: usize = 16;

mod ioctl {
    // TUNSETIFF says that it takes an int; it takes a pointer.
    nix::ioctl_write_int!(set_iff, b'T', 202);
}

/// Opens a tap that is there.
pub(crate) fn open(name: &str) -> Result<File, HypervisorError> {
    let what = || format!("plugging the network card into {name}");
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(HypervisorError::State(format!(
            "{name:?} is not the name of a network device"
        )));
    }
    // Opening one that is not there would make one, without rules and on no bridge.
    if nix::net::if_::if_nametoindex(name).is_err() {
        return Err(HypervisorError::State(format!(
            "the network device {name} is gone: the host agent makes it anew at the next start"
        )));
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(io_error(what()))?;
    let mut request = [0u8; REQUEST];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
    request[FLAGS..FLAGS + 2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one struct ifreq during the call, which these 40 bytes are.
    unsafe { ioctl::set_iff(file.as_raw_fd(), request.as_mut_ptr() as u64) }
        .map_err(|e| io_error(what())(e.into()))?;
    Ok(file)
}
