//! Why a delta could not be written or used.

use std::path::{Path, PathBuf};

/// Why a delta could not be written or used.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file is shorter or longer than it was written, or missing.
    #[error(
        "{} is {found} bytes long where {expected} were written: the delta was cut short or changed, start the desktop anew",
        path.display()
    )]
    Length {
        /// Which file.
        path: PathBuf,
        /// As written.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// Content that isn't what was written.
    #[error("{} is damaged ({why}): start the desktop anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer program.
    #[error("the delta has format {found}, this program reads {known}: update Lyceum on this host")]
    Format {
        /// As found.
        found: u64,
        /// The newest that is known.
        known: u32,
    },
    /// Of another release.
    #[error("the delta belongs to release {found}, not to {expected}")]
    OtherRelease {
        /// The delta's.
        found: String,
        /// The one it was to be used with.
        expected: String,
    },
    /// From another QEMU, machine type, CPU model or accelerator.
    #[error(
        "the delta comes from another platform: {0}; use a host like the one it was made on, or start the desktop anew"
    )]
    OtherPlatform(String),
    /// Of a machine with another size.
    #[error("the delta is of a machine with {found}, the desktop has {expected}")]
    OtherSize {
        /// The delta's.
        found: String,
        /// The desktop's.
        expected: String,
    },
    /// A caller's mistake: data that is no whole number of pages, a block that wasn't declared.
    #[error("cannot be written into a delta: {0}")]
    Invalid(String),
}

impl DeltaError {
    /// Whether the delta itself is unusable here, so that trying again is of no use.
    pub fn is_bad_delta(&self) -> bool {
        match self {
            DeltaError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            DeltaError::Invalid(_) => false,
            DeltaError::Length { .. }
            | DeltaError::Damaged { .. }
            | DeltaError::Format { .. }
            | DeltaError::OtherRelease { .. }
            | DeltaError::OtherPlatform(_)
            | DeltaError::OtherSize { .. } => true,
        }
    }
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DeltaError {
    let path = path.to_owned();
    move |source| DeltaError::Io { path, source }
}

pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> DeltaError {
    DeltaError::Damaged {
        path: path.to_owned(),
        why: why.into(),
    }
}
