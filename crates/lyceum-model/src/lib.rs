//! The words of Lyceum as types: identifiers, sizes, the life of a desktop, and
//! what a sealed release consists of.
//!
//! **Invariant: this crate does no I/O**, has no clock and no randomness of its
//! own but [`uuid`] for new identifiers. Everything in it can be tested by
//! calling it.

pub mod blocks;
pub mod disk;
pub mod id;
pub mod lifecycle;
pub mod machine;
pub mod moves;
pub mod name;
pub mod release;

pub use disk::{DiskRef, Durability, StoredRef, Tier};
pub use id::*;
pub use lifecycle::{Desired, Phase};
pub use machine::{Accelerator, MachineSize, Platform};
pub use moves::MoveWay;
pub use name::{Hostname, NameError};
pub use release::{ReleaseManifest, SealedMemory};

use serde::{Deserialize, Serialize};

/// How often a desktop has been given to a host. The store hands it out; an
/// agent never acts on one older than the newest it has seen (invariant 2).
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    pub fn next(self) -> Self {
        Generation(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is kept of a desktop when its person is done with it.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// Stop drops the delta: the next start is as new.
    Throwaway,
    /// Stop keeps the disk overlay, suspend keeps the whole delta.
    Persistent,
}

/// Milliseconds since 1970-01-01 UTC. The store, the wire and the page use it
/// alike; a time zone is only ever added where a person reads it.
pub type UnixMillis = i64;
