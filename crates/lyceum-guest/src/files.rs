//! Small files, written at little cost.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Gives the file at `path` these contents; makes it with these permissions when there is none.
///
/// A short file is changed in place: its one block is either old or new, whatever happens. Renaming a new file over the
/// old one would make ext4 write it to the disk at once, which is most of what a new identity costs. Nor is it synced: a
/// fork that loses power is made anew.
pub fn replace(path: impl AsRef<Path>, contents: &[u8], mode: u32) -> io::Result<()> {
    let path = path.as_ref();
    let open = |new: bool| {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(new)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
    };
    let mut file = match open(false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(true)?,
        // A link to somebody else's file, such as a name service's: ours takes the place of the link.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            fs::remove_file(path)?;
            open(true)?
        }
        other => other?,
    };
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)
}

/// Removes a file. It is no error when there is none.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
