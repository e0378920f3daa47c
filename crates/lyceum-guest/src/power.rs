//! Shutting the guest down in its own way: services are stopped and file systems unmounted by its own init.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `poweroff` may be: systemd, sysvinit, OpenRC and busybox all have one, each for its own init.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The guest's own program for it.
#[must_use]
pub fn program() -> Option<PathBuf> {
    PLACES
        .iter()
        .map(|place| Path::new(place).join("poweroff"))
        .find(|path| path.exists())
}

/// Runs it, without waiting: it may take long, and ends this program on the way.
pub fn off(program: PathBuf) {
    let run = move || {
        let status = Command::new(&program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("lyceum-guest: {} failed: {status}", program.display()),
            Err(error) => eprintln!("lyceum-guest: can't run {}: {error}", program.display()),
        }
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(run);
    if let Err(error) = thread {
        eprintln!("lyceum-guest: can't start a thread: {error}");
    }
}
