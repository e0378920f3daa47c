//! One supervisor per state directory.

use crate::exit::{self, Exit};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Held as long as this lives; the kernel drops it with the process, however that ends.
pub struct Lock(#[allow(dead_code)] Flock<File>);

/// Takes the lock, or says who has it.
pub fn take(state: &Path) -> anyhow::Result<Lock> {
    let path = state.join("lock");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!("{} can't be opened: {e}", path.display()),
            )
        })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // The number only serves the message below.
            let _ = lock.set_len(0);
            let _ = lock.rewind();
            let _ = write!(*lock, "{}", std::process::id());
            Ok(Lock(lock))
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            Err(Exit::coded(
                exit::FAILED,
                format!(
                    "this classroom runs already (process {}, state in {}); stop that one first (Ctrl-C, or kill {0}), or start another with --state DIR --free-ports",
                    pid.trim(),
                    state.display()
                ),
            ))
        }
        Err((_, errno)) => Err(Exit::coded(
            exit::FAILED,
            format!("{} can't be locked: {errno}", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_second_supervisor_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = super::take(dir.path()).unwrap();
        let error = super::take(dir.path()).err().unwrap().to_string();
        assert!(error.contains("runs already"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        super::take(dir.path()).unwrap();
    }
}
