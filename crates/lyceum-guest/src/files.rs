//! Files written so that they are whole, old or new.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts a file with these contents and permissions in the place of whatever is at `path`.
///
/// Not synced: it runs at every fork, and a fork that loses power is made anew.
pub fn replace(path: impl AsRef<Path>, contents: &[u8], mode: u32) -> io::Result<()> {
    let path = path.as_ref();
    let mut new = path.as_os_str().to_owned();
    new.push(".lyceum-new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(contents)?;
    drop(file);
    match fs::rename(&new, path) {
        // A file that something is mounted over (machine-id, resolv.conf in containers) can only be written in place.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let _ = fs::remove_file(&new);
            fs::write(path, contents)
        }
        other => other,
    }
}

/// Removes a file. It is no error when there is none.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
