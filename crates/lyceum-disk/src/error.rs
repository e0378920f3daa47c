//! What can go wrong with a disk, in words for a person.

use std::io;
use std::path::{Path, PathBuf};

/// Each message says what failed, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image is dangerous, broken or unknown; nothing was made of it.
    #[error("{0}")]
    Refused(String),
    /// No room.
    #[error("{what}: the tier has no room left: delete what is not needed, or add space")]
    Full {
        /// What could not be done.
        what: String,
    },
    /// A running machine has it open.
    #[error("{0}")]
    InUse(String),
    /// There is no such disk.
    #[error("{0}")]
    NotFound(String),
    /// The content is not what its name says.
    #[error("{0}")]
    Damaged(String),
    /// The request makes no sense for this disk.
    #[error("{0}")]
    Invalid(String),
    /// Somebody asked for that.
    #[error("cancelled; nothing is left behind")]
    Cancelled,
    /// A file could not be read or written.
    #[error("{what} {path}: {source}: check the tier's file system and rights", path = path.display())]
    Io {
        /// What was tried, as `can't VERB`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{0}")]
    Tool(String),
}

/// Whether the system means "no room": disk full or quota.
pub fn is_full(error: &io::Error) -> bool {
    use nix::libc;
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC) | Some(libc::EDQUOT)
    )
}

/// Gives a system error its context; "no space left" becomes [`DiskError::Full`].
pub trait Context<T> {
    /// `what` reads as `can't VERB`.
    fn on(self, what: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> Context<T> for io::Result<T> {
    fn on(self, what: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| {
            if is_full(&source) {
                DiskError::Full {
                    what: format!("{what} {}", path.display()),
                }
            } else {
                DiskError::Io {
                    what,
                    path: path.to_owned(),
                    source,
                }
            }
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn on(self, what: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(io::Error::from).on(what, path)
    }
}
