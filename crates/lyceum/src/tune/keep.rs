//! What is kept on the machine: the list of changes, and the unit that makes them again at boot.
//!
//! They are not written to `/etc/sysctl.d`: that would put the same values back after a kernel
//! with higher ones of its own was installed. The unit asks again, and raises only.

use super::edge::Edge;
use crate::exit::{self, Exit};
use lyceum_tune::Ledger;
use std::path::{Path, PathBuf};

const LEDGER: &str = "var/lib/lyceum/tune.json";
const UNIT: &str = "etc/systemd/system/lyceum-tune.service";
const WANTED: &str = "etc/systemd/system/multi-user.target.wants/lyceum-tune.service";

/// The list, locked: one `lyceum tune` at a time.
pub struct Kept {
    path: PathBuf,
    /// What was changed.
    pub ledger: Ledger,
    _lock: nix::fcntl::Flock<std::fs::File>,
}

fn failed(what: &str, path: &Path, e: impl std::fmt::Display) -> anyhow::Error {
    Exit::coded(
        exit::FAILED,
        format!(
            "{what} {} failed: {e}; tuning needs root, and room there",
            path.display()
        ),
    )
}

/// Reads the list without changing anything; empty when there is none.
pub fn read(edge: &Edge) -> anyhow::Result<Ledger> {
    let path = edge.path(LEDGER);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!(
                    "{} is damaged ({e}): restore it from a backup. Without it nothing can be undone; a reboot with lyceum-tune.service disabled brings the kernel's own values back",
                    path.display()
                ),
            )
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Ledger::default()),
        Err(e) => Err(failed("reading", &path, e)),
    }
}

impl Kept {
    /// Opens the list to change it.
    pub fn open(edge: &Edge) -> anyhow::Result<Kept> {
        let path = edge.path(LEDGER);
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|e| failed("making", folder, e))?;
        let lock_path = path.with_extension("lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| failed("opening", &lock_path, e))?;
        let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|_| {
                Exit::coded(
                    exit::REFUSED,
                    "another lyceum tune is at work on this machine: wait until it is done",
                )
            })?;
        Ok(Kept {
            ledger: read(edge)?,
            path,
            _lock: lock,
        })
    }

    /// Writes the list; a machine that stops meanwhile has the old or the new one.
    pub fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.ledger)?;
        lyceum_disk::files::write_atomic(&self.path, &text, 0o644)
            .map_err(|e| failed("writing", &self.path, e))
    }

    /// Installs the unit when something is kept, and removes it when nothing is.
    pub fn boot(&self, edge: &Edge) -> anyhow::Result<()> {
        let (unit, wanted) = (edge.path(UNIT), edge.path(WANTED));
        if self.ledger.entries.is_empty() {
            for path in [&wanted, &unit] {
                match std::fs::remove_file(path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(failed("removing", path, e));
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        let program = std::env::current_exe()?;
        let text = format!(
            "# Written by `lyceum tune apply`; `lyceum tune undo` removes it.\n\
             [Unit]\n\
             Description=Lyceum: tuning that was measured and kept\n\
             After=systemd-sysctl.service systemd-udev-settle.service network.target local-fs.target remote-fs.target nfs-server.service\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             ExecStart=\"{}\" tune again\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            program.display()
        );
        let folder = wanted.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|e| failed("making", folder, e))?;
        lyceum_disk::files::write_atomic(&unit, text.as_bytes(), 0o644)
            .map_err(|e| failed("writing", &unit, e))?;
        match std::os::unix::fs::symlink("/etc/systemd/system/lyceum-tune.service", &wanted) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(failed("making", &wanted, e))
            }
            _ => Ok(()),
        }
    }
}
