//! Moves of running desktops between hosts.

use crate::wording::Wordings;
use lyceum_model::{DesktopId, HostId, MoveWay, OperationId, UnixMillis};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of `POST desktops/{id}/move`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveOrder {
    /// Where to; absent: where it fits best.
    pub to: Option<HostId>,
    /// How; absent: by measurement.
    pub way: Option<MoveWay>,
}

/// Where a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// For its turn.
    Waiting,
    /// Its destination is being made ready.
    Preparing,
    /// Under way.
    Moving,
    /// It runs on its destination.
    Done,
    /// It goes on where it was.
    Failed,
    /// It was called off, and goes on where it was.
    Cancelled,
}

/// A move, with its numbers when it is over.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Move {
    /// Which desktop.
    pub desktop: DesktopId,
    /// Whose, and of which course, for people.
    pub name: String,
    /// The operation it belongs to, with which it is called off.
    pub operation: OperationId,
    /// Where it ran.
    pub from: HostId,
    /// Where it is to run.
    pub to: HostId,
    /// Where it is.
    pub state: MoveState,
    /// The way that was chosen.
    pub way: Option<MoveWay>,
    /// Why that one.
    pub why: String,
    /// Why it is moved, and why there.
    pub reason: String,
    /// Why it failed.
    pub message: String,
    /// Bytes sent.
    pub bytes: Option<u64>,
    /// Pages sent.
    pub pages: Option<u64>,
    /// How long it stood still, milliseconds.
    pub stand_still_ms: Option<u64>,
    /// How long it took in all, milliseconds.
    pub total_ms: Option<u64>,
    /// Proportional memory before, KiB.
    pub pss_before_kib: Option<u64>,
    /// Proportional memory right afterwards, KiB.
    pub pss_after_kib: Option<u64>,
    /// When it was ordered.
    pub created: UnixMillis,
    /// When it was over.
    pub ended: Option<UnixMillis>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}
