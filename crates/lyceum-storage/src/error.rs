//! What goes wrong in the storage agent, and how it is said to the controller.

use axum::response::{IntoResponse, Response};
use lyceum_disk::DiskError;
use lyceum_proto::code;
use lyceum_wire::{ApiError, WireError};

/// Each message says what failed, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The agent can't start.
    #[error("{0}")]
    Start(String),
    /// A disk, or a file of it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Certificates or the server.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Said to the controller as it is.
    #[error(transparent)]
    Answer(#[from] ApiError),
}

pub(crate) type Result<T> = std::result::Result<T, StorageError>;

impl StorageError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        StorageError::Answer(ApiError::new(code, message))
    }
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(code::NOT_FOUND, message)
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(code::INVALID, message)
    }
    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(code::STATE, message)
    }
    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new(code::IN_USE, message)
    }
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(code::DAMAGED, message)
    }
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, message)
    }

    /// In the form that goes over the wire.
    pub fn into_api(self) -> ApiError {
        let message = self.to_string();
        let code = match self {
            StorageError::Answer(answer) => return answer,
            StorageError::Disk(error) => match error {
                DiskError::Refused(_) | DiskError::Invalid(_) => code::INVALID,
                DiskError::Full { .. } => code::TIER_FULL,
                DiskError::InUse(_) => code::IN_USE,
                DiskError::NotFound(_) => code::NOT_FOUND,
                DiskError::Damaged(_) => code::DAMAGED,
                // Mostly this agent is being stopped; whoever asked tries again.
                DiskError::Cancelled => lyceum_wire::error::wire_code::UNAVAILABLE,
                DiskError::Io { .. } | DiskError::Tool(_) => code::INTERNAL,
            },
            StorageError::Start(_) | StorageError::Wire(_) => code::INTERNAL,
        };
        ApiError::new(code, message)
    }
}

impl IntoResponse for StorageError {
    fn into_response(self) -> Response {
        self.into_api().into_response()
    }
}
