//! Mounting the file systems on volumes, and making them stand still.

use super::Ext4Data;
use crate::DiskError;
use crate::error::Context;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an unmount waits for the NFS server to let go of files that no client holds.
const LET_GO: Duration = Duration::from_secs(10);

/// Mounts the ext4 on `device`. Programs, devices and set-user bits on it mean nothing.
pub fn mount(
    device: &Path,
    at: &Path,
    data: Ext4Data,
    read_only: bool,
    discard: bool,
) -> Result<(), DiskError> {
    let mut flags =
        MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // A file system that is not sure of itself stops, instead of making it worse.
    let mut options = "errors=remount-ro".to_owned();
    if read_only {
        // Nothing is replayed, so nothing is said of the journal: ext4 refuses both together.
        flags |= MsFlags::MS_RDONLY;
        options.push_str(",noload");
    } else {
        options.push_str(match data {
            Ext4Data::Ordered => ",data=ordered",
            Ext4Data::Writeback => ",data=writeback",
        });
    }
    if discard {
        options.push_str(",discard");
    }
    nix::mount::mount(
        Some(device),
        at,
        Some("ext4"),
        flags,
        Some(options.as_str()),
    )
    .on("can't mount a volume at", at)
}

/// Takes a file system away; fine when it is not there. [`DiskError::InUse`] when somebody has
/// a file of it open.
pub fn unmount(at: &Path) -> Result<(), DiskError> {
    let began = Instant::now();
    loop {
        match nix::mount::umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if began.elapsed() < LET_GO => {
                // The kernel's NFS server closes files a moment after the last client did.
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(Errno::EBUSY) => {
                return Err(DiskError::InUse(format!(
                    "{} is in use: a host still has a file of it open; stop the desktop, and if its host is gone, wait until the NFS server has given it up (up to two minutes)",
                    at.display()
                )));
            }
            Err(e) => return Err(e).on("can't unmount", at),
        }
    }
}

/// Where something is mounted, and what, by the kernel's own list.
pub fn mounted() -> Result<Vec<(PathBuf, String)>, DiskError> {
    let path = Path::new("/proc/self/mounts");
    let text = std::fs::read_to_string(path).on("can't read", path)?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (device, at) = (words.next()?, words.next()?);
            Some((PathBuf::from(unescape(at)), unescape(device)))
        })
        .collect())
}

/// Whether a file system is mounted at this very place.
pub fn is_mounted(at: &Path) -> Result<bool, DiskError> {
    Ok(mounted()?.iter().any(|(path, _)| path == at))
}

/// Spaces and the like are written as `\040`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

// _IOWR('X', 119, int) and _IOWR('X', 120, int).
const FIFREEZE: nix::libc::c_ulong = 0xC004_5877;
const FITHAW: nix::libc::c_ulong = 0xC004_5878;

fn frozen(at: &Path, request: nix::libc::c_ulong, already: Errno) -> Result<(), DiskError> {
    use std::os::unix::fs::MetadataExt;
    let folder = File::open(at).on("can't open", at)?;
    // The open folder keeps what is mounted there; without a mount it is the tier itself, which
    // must not stand still for one desktop.
    let own = folder.metadata().on("can't look at", at)?.dev();
    let above = at.parent().unwrap_or(Path::new("/"));
    if own == std::fs::metadata(above).on("can't look at", above)?.dev() {
        return Ok(());
    }
    // SAFETY: the descriptor is open for the whole call; both requests take an int that they ignore.
    let done = unsafe { nix::libc::ioctl(folder.as_raw_fd(), request as _, 0) };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        Err(e) if e == already => Ok(()),
        Err(e) => Err(e).on("can't stop or continue the writes to", at),
    }
}

/// Makes all writes wait, after what was written before is on the disk. Fine when it stands
/// still already.
pub fn freeze(at: &Path) -> Result<(), DiskError> {
    frozen(at, FIFREEZE, Errno::EBUSY)
}

/// Lets writes go on; fine when they do.
pub fn thaw(at: &Path) -> Result<(), DiskError> {
    frozen(at, FITHAW, Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_in_the_list_of_mounts() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\9"), r"/a\9");
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
