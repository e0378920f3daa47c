//! Restore points: desktops as they were, to go back to.

use crate::wording::Wordings;
use lyceum_model::{CourseId, DesktopId, PointId, ReleaseId, UnixMillis, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why there is a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PointOrigin {
    /// Somebody asked for it.
    Asked,
    /// The course's schedule.
    Scheduled,
    /// As the desktop was before a restore, to undo that.
    Undo,
}

/// Where a point is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PointState {
    /// Being taken.
    Taking,
    /// It can be restored.
    Ready,
    /// It could not be taken.
    Failed,
    /// Its bytes are not what they were.
    Damaged,
}

/// What a point consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PointHolds {
    /// Memory, windows and disk.
    Memory,
    /// The disk: the desktop is booted from it.
    Disk,
    /// The desktop's own disk, and its saved memory if it was suspended, set aside; restoring uses it up.
    Kept,
    /// Nothing: it was stopped and as new.
    Nothing,
}

/// A restore point.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RestorePoint {
    /// Which.
    pub id: PointId,
    /// Of which desktop.
    pub desktop: DesktopId,
    /// Of which course.
    pub course: CourseId,
    /// The person's name.
    pub user_name: String,
    /// What was taken together has the same.
    pub batch: String,
    /// Why there is one.
    pub origin: PointOrigin,
    /// State.
    pub state: PointState,
    /// What it consists of.
    pub holds: PointHolds,
    /// Somebody's words about it.
    pub note: String,
    /// Why it failed or is damaged, or what else there is to know.
    pub message: String,
    /// The release under it.
    pub release: Option<ReleaseId>,
    /// What it takes on the slow tier; `None`: nothing of its own, or not known yet.
    pub bytes: Option<u64>,
    /// How long the desktop stood still for it, milliseconds.
    pub stand_still_ms: Option<u64>,
    /// How long it took in all, milliseconds.
    pub total_ms: Option<u64>,
    /// When it was taken.
    pub taken: UnixMillis,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// Body of `POST desktops/{id}/restore-points` and `POST courses/{id}/restore-points`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakePoint {
    /// Words about it, at most 200 characters.
    #[serde(default)]
    pub note: String,
    /// Of a course: only these people's.
    #[serde(default)]
    pub users: Option<Vec<UserId>>,
}

/// Body of `POST desktops/{id}/restore`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreOrder {
    /// Back to which of the desktop's points.
    pub point: PointId,
}

/// Body of `POST courses/{id}/restore`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CourseRestore {
    /// Back to which points: those that were taken together as this.
    pub batch: String,
    /// Only these people's.
    #[serde(default)]
    pub users: Option<Vec<UserId>>,
}

/// Points of a course that were taken together.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PointBatch {
    /// Its name for orders.
    pub batch: String,
    /// Why there is one.
    pub origin: PointOrigin,
    /// Somebody's words about it.
    pub note: String,
    /// When the last of it was taken.
    pub taken: UnixMillis,
    /// Desktops that can go back to it.
    pub ready: u32,
    /// Of those, how many have their disk in it and not their windows: they are booted when they go back.
    pub disk_only: u32,
    /// Desktops of which it is still being taken.
    pub taking: u32,
    /// Desktops of which it could not be taken, or is damaged.
    pub failed: u32,
    /// Why, of one of those.
    pub message: String,
    /// What it takes on the slow tier.
    pub bytes: u64,
}

/// What there is to go back to in a course.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CoursePoints {
    /// The newest first.
    pub batches: Vec<PointBatch>,
    /// Desktops whose last restore can be undone.
    pub undo: u32,
    /// Desktops that are being restored now, and are as they were until it is their turn.
    pub restoring: u32,
    /// How the texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// When points of a course's desktops are taken by themselves, and who may restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PointSchedule {
    /// Minutes between two while a class runs, 1 to 1440; 0: none are taken.
    pub every_min: u32,
    /// So many of the newest are kept of each desktop, 1 to 100.
    pub keep_last: u32,
    /// Of those before, one per hour is kept, so many, 0 to 100.
    pub keep_hourly: u32,
    /// Whether students may see and restore the points of their own desktops.
    pub own_restore: bool,
}
