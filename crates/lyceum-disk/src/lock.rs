//! QEMU's image locks, seen from outside.
//!
//! QEMU marks what it does with an image by read locks on single bytes ("open file
//! description" locks): byte 100+n says "I use permission n", byte 200+n says "nobody else
//! may have permission n"; 0 is consistent read, 1 write, 2 unchanged write, 3 resize.
//! So one can see whether an image is written, and keep QEMU from writing it during a copy.

use crate::error::{Context, DiskError};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::path::Path;

const USES: i64 = 100;
const FORBIDS: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

fn byte(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

fn taken(file: &File, path: &Path, start: i64, length: i64) -> Result<bool, DiskError> {
    let mut probe = byte(libc::F_WRLCK, start, length);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe)).on("can't ask for locks of", path)?;
    Ok(probe.l_type != libc::F_UNLCK as libc::c_short)
}

/// Whether any QEMU program has the image open with its locks on.
pub fn in_use(path: &Path) -> Result<bool, DiskError> {
    let file = File::open(path).on("can't open", path)?;
    Ok(taken(&file, path, USES, 64)? || taken(&file, path, FORBIDS, 64)?)
}

/// While it lives, no QEMU can open the image for writing.
#[derive(Debug)]
pub struct ReadGuard {
    // The locks belong to the open file and end with it.
    _file: File,
}

/// Keeps an image still for a copy; [`DiskError::InUse`] when a machine writes it.
pub fn read_guard(path: &Path, name: &str) -> Result<ReadGuard, DiskError> {
    let file = File::open(path).on("can't open", path)?;
    for start in [USES + READ, FORBIDS + WRITE, FORBIDS + RESIZE] {
        fcntl(&file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, start, 1)))
            .on("can't lock", path)?;
    }
    // Asked after locking, so that a QEMU which starts meanwhile sees our locks or we see its.
    if taken_by_writer(&file, path)? {
        return Err(DiskError::InUse(format!(
            "{name} is being written by a running machine: shut that machine down first"
        )));
    }
    Ok(ReadGuard { _file: file })
}

fn taken_by_writer(file: &File, path: &Path) -> Result<bool, DiskError> {
    Ok(taken(file, path, USES + WRITE, 1)?
        || taken(file, path, USES + RESIZE, 1)?
        || taken(file, path, FORBIDS + READ, 1)?)
}
