//! A running desktop moves from one host to another. The controller prepares the destination
//! (`PUT /v1/desktops/{id}` with [`StartMode::Arrive`](crate::host::StartMode)), then
//! tells the source; the rest the two agents do among themselves.
//!
//! | request | meaning |
//! |---|---|
//! | `GET /v1/desktops/{id}/memory` | [`DesktopMemory`]: what it has of its own, to choose the way |
//! | `POST /v1/desktops/{id}/move` | [`MoveRequest`] to the source; answers [`Moved`] when it is over. An error: it did not move; the message says where it is. The same again is the same move |
//! | `POST /v1/desktops/{id}/move/cancel` | [`CancelMove`] to the source: goes on where it is, if it has not been handed over yet |
//! | `GET /v1/desktops/{id}/arrival?generation=N` | source to destination: upgrade (`Upgrade: lyceum-move`), then frames |
//!
//! A frame is a tag (`P` or `M`), its length (u32, big endian) and that many bytes: a piece of what
//! the source's machine sends, or a [`Message`] as JSON.

use lyceum_model::{Generation, HostId, MoveWay};
use serde::{Deserialize, Serialize};

/// Name of the protocol in the `Upgrade` header.
pub const PROTOCOL: &str = "lyceum-move";
/// Longest frame of a message, in bytes.
pub const MESSAGE_MAX: u32 = 64 * 1024;
/// Longest frame of a piece, in bytes.
pub const PIECE_MAX: u32 = 1024 * 1024;

/// What a desktop has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesktopMemory {
    /// Bytes of its own; `None`: it shares no memory with a release.
    pub own_bytes: Option<u64>,
    /// Proportional set size, KiB, right now.
    pub pss_kib: u64,
}

/// Move it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// It runs here under this one.
    pub generation: Generation,
    /// It is waited for there under this one.
    pub arrives_as: Generation,
    /// Where.
    pub to: HostId,
    /// `https://ADDRESS:PORT` on which that host's agent takes desktops.
    pub url: String,
    /// How.
    pub way: MoveWay,
    /// Most that all moves away from this host may use together, megabits per second.
    pub mbit_per_s: Option<u32>,
    /// How long it may take until it is handed over, in milliseconds.
    pub time_limit_ms: u64,
}

/// It moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes sent.
    pub bytes: u64,
    /// Pages sent.
    pub pages: u64,
    /// How long it stood still, milliseconds.
    pub stand_still_ms: u64,
    /// How long it took in all, milliseconds.
    pub total_ms: u64,
}

/// Call a move off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelMove {
    /// Which: what it was to arrive as.
    pub arrives_as: Generation,
}

/// What source and destination say to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Destination: a machine waits.
    Ready,
    /// Source: that was everything. How the desktop was usable goes along.
    Sent {
        /// Address that the guest told.
        address: Option<String>,
        /// SSH host key that the guest told.
        ssh_host_key: Option<String>,
        /// Whether the guest's helper answers.
        guest_helper: bool,
    },
    /// Destination: everything came and was verified; the machine could go on.
    Loaded,
    /// Source: the disk's lock is free, take it and go on.
    Go,
    /// Destination: it goes on here.
    Running,
    /// Destination: it does not, and never will.
    Failed {
        /// Why.
        why: String,
    },
}
