//! Durable changes of files, and copying large sparse ones.
//!
//! A file or folder appears under its name only when it is complete: it is written under
//! a name that begins with [`TEMP_PREFIX`] in the same folder, fsynced, renamed, and the
//! folder is fsynced. After a crash [`clear_temps`] removes what was half made.

use crate::cancel::Cancel;
use crate::error::{Context, DiskError, is_full};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Begins the name of everything that is not complete yet. Identifiers never begin with a dot.
pub const TEMP_PREFIX: &str = ".tmp-";

/// A file or folder that is removed unless it was [`Self::persist`]ed.
#[derive(Debug)]
pub struct TempPath {
    path: Option<PathBuf>,
}

impl TempPath {
    /// A fresh temporary name in `folder`; nothing is made.
    pub fn new_in(folder: &Path) -> Self {
        let name = format!("{TEMP_PREFIX}{}", uuid::Uuid::now_v7().simple());
        TempPath {
            path: Some(folder.join(name)),
        }
    }

    /// A fresh temporary folder in `folder`, mode 0700.
    pub fn folder_in(folder: &Path) -> Result<Self, DiskError> {
        let temp = Self::new_in(folder);
        fs::create_dir(temp.path()).on("can't make the folder", temp.path())?;
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o700))
            .on("can't set the rights of", temp.path())?;
        Ok(temp)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Gives it its name, replacing a file of that name, and makes that durable. The
    /// content must have been fsynced before.
    pub fn persist(mut self, to: &Path) -> Result<(), DiskError> {
        fs::rename(self.path(), to).on("can't rename to", to)?;
        self.path = None;
        sync_parent(to)
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = remove(&path)
        {
            // A restart removes it; nothing refers to it.
            tracing::warn!(path = %path.display(), %error, "can't remove a temporary file now");
        }
    }
}

/// Makes a new file for writing; fails when it exists. `mode` is exact, whatever the umask.
pub fn create_new(path: &Path, mode: u32) -> Result<File, DiskError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .on("can't make the file", path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .on("can't set the rights of", path)?;
    Ok(file)
}

/// Makes folder entries of `folder` durable.
pub fn sync_folder(folder: &Path) -> Result<(), DiskError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .on("can't sync the folder", folder)
}

/// Makes the folder entry of `path` durable.
pub fn sync_parent(path: &Path) -> Result<(), DiskError> {
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Writes a small file as a whole or not at all.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let temp = TempPath::new_in(folder);
    let mut file = create_new(temp.path(), mode)?;
    file.write_all(bytes).on("can't write", temp.path())?;
    file.sync_all().on("can't sync", temp.path())?;
    temp.persist(path)
}

/// Removes a file or a whole folder; `false` when it was not there.
pub fn remove(path: &Path) -> Result<bool, DiskError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).on("can't look at", path),
    };
    let done = if meta.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).on("can't remove", path),
    }
}

/// Removes a folder so that it is never seen half removed: it loses its name first.
pub fn remove_atomic(path: &Path) -> Result<bool, DiskError> {
    let temp = TempPath::new_in(path.parent().unwrap_or(Path::new("/")));
    match fs::rename(path, temp.path()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).on("can't remove", path),
    }
    sync_parent(path)?;
    drop(temp);
    Ok(true)
}

/// Removes everything half made in `folder`; how many.
pub fn clear_temps(folder: &Path) -> Result<usize, DiskError> {
    let mut cleared = 0;
    for name in names(folder)? {
        if name.starts_with(TEMP_PREFIX) && remove(&folder.join(&name))? {
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// Names in a folder, sorted; names that are not UTF-8 are left out. No folder: no names.
pub fn names(folder: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).on("can't list", folder),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.on("can't list", folder)?;
        if let Ok(name) = entry.file_name().into_string() {
            out.push(name);
        }
    }
    out.sort();
    Ok(out)
}

/// Bytes that a file, or everything in a folder, takes on disk. What vanishes meanwhile counts 0.
pub fn bytes_on_disk(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = meta.blocks().saturating_mul(512);
    if !meta.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else {
        return own;
    };
    entries
        .flatten()
        .map(|entry| bytes_on_disk(&entry.path()))
        .fold(own, u64::saturating_add)
}

/// Size of a path's file system and what an unprivileged writer may still take of it, in bytes.
pub fn space(path: &Path) -> Result<(u64, u64), DiskError> {
    let stat = nix::sys::statvfs::statvfs(path).on("can't ask for the free space of", path)?;
    let unit = stat.fragment_size();
    Ok((
        stat.blocks().saturating_mul(unit),
        stat.blocks_available().saturating_mul(unit),
    ))
}

/// Takes room for a file that will be `bytes` long, so that "full" is said before the
/// work and not in its middle. File systems that can't do that are left to fail later.
pub fn reserve(file: &File, path: &Path, bytes: u64) -> Result<(), DiskError> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let Ok(length) = i64::try_from(bytes) else {
        return Err(DiskError::Full {
            what: format!("can't write {}", path.display()),
        });
    };
    if length == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        Err(e) => Err(e).on("can't take room for", path),
    }
}

nix::ioctl_write_int_bad!(
    /// Shares the blocks of another file (reflink).
    ficlone,
    nix::libc::FICLONE
);

/// Where a file holds data and not a hole, from `from` on: `start..end`; `None` when only
/// holes follow.
pub fn next_data(file: &File, from: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    use nix::unistd::{Whence, lseek};
    if from >= length {
        return Ok(None);
    }
    let offset =
        |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let start = match lseek(file, offset(from)?, Whence::SeekData) {
        Ok(start) => start.unsigned_abs(),
        Err(nix::errno::Errno::ENXIO) => return Ok(None),
        // A file system without holes: all is data.
        Err(nix::errno::Errno::EINVAL) => return Ok(Some((from, length))),
        Err(e) => return Err(e.into()),
    };
    if start >= length {
        return Ok(None);
    }
    let end = lseek(file, offset(start)?, Whence::SeekHole)?.unsigned_abs();
    Ok(Some((start, end.min(length))))
}

/// How much is copied between two looks at the cancel flag.
const COPY_STEP: u64 = 16 << 20;

/// Copies a file, sharing blocks where the file system can, else leaving holes out.
/// `to` is new and empty; it is fsynced.
pub fn copy_sparse(
    from: &Path,
    to: &File,
    to_path: &Path,
    cancel: &Cancel,
) -> Result<(), DiskError> {
    let source = File::open(from).on("can't open", from)?;
    // SAFETY: both descriptors are open for the whole call and FICLONE takes no pointer.
    if unsafe { ficlone(to.as_raw_fd(), source.as_raw_fd()) }.is_ok() {
        return to.sync_all().on("can't sync", to_path);
    }
    let length = source.metadata().on("can't look at", from)?.len();
    to.set_len(length).on("can't write", to_path)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(&source, at, length).on("can't read", from)? {
        copy_range(&source, to, start, end, cancel).map_err(|e| match e {
            CopyError::Cancelled => DiskError::Cancelled,
            CopyError::Io(source) if is_full(&source) => DiskError::Full {
                what: format!("can't copy to {}", to_path.display()),
            },
            CopyError::Io(source) => DiskError::Io {
                what: "can't copy to",
                path: to_path.to_owned(),
                source,
            },
        })?;
        at = end;
    }
    to.sync_all().on("can't sync", to_path)
}

enum CopyError {
    Cancelled,
    Io(io::Error),
}

fn copy_range(
    source: &File,
    to: &File,
    mut at: u64,
    end: u64,
    cancel: &Cancel,
) -> Result<(), CopyError> {
    use nix::errno::Errno;
    let mut in_kernel = true;
    let mut buffer = Vec::new();
    while at < end {
        if cancel.is_cancelled() {
            return Err(CopyError::Cancelled);
        }
        let want = usize::try_from((end - at).min(COPY_STEP)).unwrap_or(1 << 20);
        if in_kernel {
            match kernel_copy(source, to, at, want) {
                // The source became shorter than it said.
                Ok(0) => return Err(CopyError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => at += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    in_kernel = false;
                }
                Err(e) => return Err(CopyError::Io(e.into())),
            }
        } else {
            buffer.resize(want.min(1 << 20), 0);
            let n = source.read_at(&mut buffer, at).map_err(CopyError::Io)?;
            if n == 0 {
                return Err(CopyError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            to.write_all_at(&buffer[..n], at).map_err(CopyError::Io)?;
            at += n as u64;
        }
    }
    Ok(())
}

/// Copies within the kernel, from and to the same offset; how much.
fn kernel_copy(source: &File, to: &File, at: u64, want: usize) -> nix::Result<u64> {
    let start = i64::try_from(at).map_err(|_| nix::errno::Errno::EINVAL)?;
    let (mut off_in, mut off_out) = (start, start);
    // SAFETY: both descriptors are open for the whole call, and the offsets are our own.
    let copied = unsafe {
        nix::libc::copy_file_range(
            source.as_raw_fd(),
            &mut off_in,
            to.as_raw_fd(),
            &mut off_out,
            want,
            0,
        )
    };
    nix::errno::Errno::result(copied).map(|n| n.unsigned_abs() as u64)
}

/// Keeps a file locked as long as the value lives, against another process of this program.
/// `None` when another one has it.
pub fn exclusive(path: &Path) -> Result<Option<Flock<File>>, DiskError> {
    let file = File::open(path).on("can't open", path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).on("can't lock", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_copy_has_the_same_bytes_and_no_more_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        let file = create_new(&from, 0o600).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"in the middle", (32 << 20) + 5).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        let to = folder.path().join("to");
        let out = create_new(&to, 0o600).unwrap();
        copy_sparse(&from, &out, &to, &Cancel::new()).unwrap();
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        assert!(bytes_on_disk(&to) < 1 << 20, "{}", bytes_on_disk(&to));
    }

    #[test]
    fn a_cancelled_copy_stops() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::write(&from, vec![1u8; 1 << 20]).unwrap();
        let to = folder.path().join("to");
        let out = create_new(&to, 0o600).unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        let done = copy_sparse(&from, &out, &to, &cancel);
        // A file system with reflinks is done before it can be cancelled.
        assert!(done.is_ok() || matches!(done, Err(DiskError::Cancelled)));
    }

    #[test]
    fn a_temporary_path_goes_away_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = {
            let temp = TempPath::folder_in(folder.path()).unwrap();
            fs::write(temp.path().join("x"), "x").unwrap();
            temp.path().to_owned()
        };
        assert!(!path.exists());
        let temp = TempPath::folder_in(folder.path()).unwrap();
        temp.persist(&folder.path().join("kept")).unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["kept"]);
        fs::create_dir(folder.path().join(".tmp-old")).unwrap();
        assert_eq!(clear_temps(folder.path()).unwrap(), 1);
        assert_eq!(names(folder.path()).unwrap(), ["kept"]);
    }
}
