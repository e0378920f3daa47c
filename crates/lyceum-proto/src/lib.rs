//! What the controller says to its agents and they to it: JSON over HTTP/1.1 over
//! mutual TLS. Every request is idempotent: it names its object, and saying it again
//! changes nothing. Every long work is a job that is asked for once and then watched.
//!
//! **Invariant: this crate does no I/O**; it is the vocabulary only.

pub mod host;
pub mod join;
pub mod moves;
pub mod storage;

use serde::{Deserialize, Serialize};

/// The one form of an error between the parts, and of the public API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// A word for programs, for example `stale_generation`; see the `code` module.
    pub code: String,
    /// What failed, why, and what to do, for a person.
    pub message: String,
}

/// Codes that callers act on.
pub mod code {
    /// The generation is older than one this agent has seen. HTTP 409.
    pub const STALE_GENERATION: &str = "stale_generation";
    /// There is no such thing. HTTP 404.
    pub const NOT_FOUND: &str = "not_found";
    /// The thing is in use; the message names by whom. HTTP 409.
    pub const IN_USE: &str = "in_use";
    /// The request was understood and is not possible. HTTP 422.
    pub const INVALID: &str = "invalid";
    /// A tier has no room for it. HTTP 507.
    pub const TIER_FULL: &str = "tier_full";
    /// Content is damaged or not what its name says. HTTP 422.
    pub const DAMAGED: &str = "damaged";
    /// It is not in a state for that. HTTP 409.
    pub const STATE: &str = "state";
    /// Something broke. HTTP 500.
    pub const INTERNAL: &str = "internal";
}
