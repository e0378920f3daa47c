//! Desktops.

use crate::wording::Wordings;
use lyceum_model::{
    CourseId, Desired, DesktopId, HostId, MachineSize, OperationId, Persistence, Phase, ReleaseId,
    UnixMillis, UserId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A desktop.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Desktop {
    /// Which.
    pub id: DesktopId,
    /// Its course.
    pub course: CourseId,
    /// The course's title.
    pub course_name: String,
    /// Whose.
    pub user: UserId,
    /// The person's name.
    pub user_name: String,
    /// What it should be.
    pub desired: Desired,
    /// What it is.
    pub phase: Phase,
    /// The step it is at, or why it failed, in words.
    pub detail: String,
    /// Host it is on, for staff; students get `None`.
    pub host: Option<HostId>,
    /// Plans leave it where it is; said to staff.
    #[serde(default)]
    pub pinned: bool,
    /// The release it started from.
    pub release: Option<ReleaseId>,
    /// Size.
    pub size: MachineSize,
    /// What is kept.
    pub persistence: Persistence,
    /// `fork`, `resume`, `hand_out` or `cold`: how it was last started.
    pub started_by: Option<String>,
    /// Why it booted cold.
    pub cold_reason: Option<String>,
    /// Address in its network.
    pub address: Option<String>,
    /// Milliseconds from the order until it was usable, last start.
    pub usable_ms: Option<u64>,
    /// Proportional memory, KiB, last sample.
    pub pss_kib: u64,
    /// CPU in percent of one CPU, last sample.
    pub cpu_percent: f64,
    /// Bytes that its machine caused to be read from disk since it started, last sample; what the
    /// host had in memory already does not count.
    pub read_bytes: u64,
    /// Bytes of the saved delta when suspended.
    pub delta_bytes: Option<u64>,
    /// How long the last suspend took in all, milliseconds.
    pub suspend_ms: Option<u64>,
    /// Something that happened to it that its person should know, for example that its host was
    /// lost and it was started again; until the next order.
    pub notice: Option<String>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// When `phase` last changed.
    pub changed: UnixMillis,
}

/// Make sure a person has a desktop in a course (staff; students get theirs by being on the roster).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DesktopCreate {
    /// Course.
    pub course: CourseId,
    /// Whose; on the roster.
    pub user: UserId,
}

/// What `GET desktops` returns: without parameters one's own; staff may ask for a course or all.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DesktopQuery {
    /// All desktops of this course (its staff only).
    pub course: Option<CourseId>,
    /// All desktops (admins) or all of one's courses (teachers).
    pub all: Option<bool>,
}

/// The answer to an order about one or many desktops: `202`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The operation to watch or cancel.
    pub operation: OperationId,
}

/// Body of the course-wide orders; empty means everybody on the roster.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CourseOrder {
    /// Only these people.
    pub users: Option<Vec<UserId>>,
    /// For `start`: do not fork but boot cold linked clones (for comparison).
    #[serde(default)]
    pub cold: bool,
}

/// Body of the one-desktop `start`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartOrder {
    /// Boot the own overlay instead of forking or resuming; a saved memory is dropped.
    #[serde(default)]
    pub cold: bool,
}

/// Hand out a running desktop.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandOut {
    /// The running desktop that everybody starts from.
    pub desktop: DesktopId,
    /// Only these people; `None`: every student of the course.
    pub users: Option<Vec<UserId>>,
}

/// How one wants to look at a desktop.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ConsoleQuery {
    /// Only watch: keys, clicks and clipboard of this viewer go nowhere.
    pub view_only: Option<bool>,
}

/// A ticket for the console WebSocket `GET /api/v1/console/{ticket}`; works once, for 30 s.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConsoleTicket {
    /// The secret.
    pub ticket: String,
    /// Until when.
    pub expires: UnixMillis,
}

/// With which programs outside of the page a desktop can be looked at now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ViewerWays {
    /// With VNC viewers; `false`: the controller has no port for them.
    pub vnc: bool,
    /// With `remote-viewer` (SPICE).
    pub spice: bool,
    /// Why it can't be with `remote-viewer`.
    pub spice_reason: Option<String>,
    /// How that can be put into another language.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// What a native VNC viewer connects with; works once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NativeViewer {
    /// Port of the controller, at the address of the page.
    pub port: u16,
    /// Name to sign in with.
    pub user: String,
    /// The one-time password.
    pub password: String,
    /// Until when.
    pub expires: UnixMillis,
}

/// What `remote-viewer` is started with; works once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SpiceViewer {
    /// Name for the file.
    pub file_name: String,
    /// The file, with the one-time password in it: kind `.vv`, media type `application/x-virt-viewer`.
    pub file: String,
    /// Until when it may be opened.
    pub expires: UnixMillis,
}

/// Text of the clipboard.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClipboardText {
    /// At most 32 KiB.
    pub text: String,
}

/// A decision about a desktop: where it was placed and why, from which picture of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    /// When.
    pub at: UnixMillis,
    /// The host that was chosen; `None`: refused.
    pub host: Option<HostId>,
    /// Why.
    pub reason: String,
    /// Every host that was considered, with what was known of it and why it was not taken.
    #[schema(value_type = Object)]
    pub snapshot: serde_json::Value,
}

/// What happened to a desktop.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DesktopHistory {
    /// Placements, newest first, at most 50.
    pub placements: Vec<Placement>,
}
