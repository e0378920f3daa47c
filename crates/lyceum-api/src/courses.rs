//! Courses and rosters.

use crate::accounts::Role;
use crate::wording::Wordings;
use lyceum_model::{CourseId, ImageId, MachineSize, Persistence, ReleaseId, UnixMillis, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody is in a course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CourseRole {
    /// Has a desktop.
    Student,
    /// Runs the course; may have a desktop too.
    Teacher,
}

/// A course as the signed-in person sees it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Course {
    /// Which.
    pub id: CourseId,
    /// Title.
    pub name: String,
    /// The golden image.
    pub image: ImageId,
    /// Its name.
    pub image_name: String,
    /// The release new desktops start from; `None`: the image has none yet.
    pub release: Option<ReleaseId>,
    /// Version of that release.
    pub release_version: Option<u32>,
    /// Whether `release` follows the image's newest offered one.
    pub follow_newest: bool,
    /// Size of a desktop.
    pub size: MachineSize,
    /// What is kept.
    pub persistence: Persistence,
    /// Whether desktops reach the outside.
    pub outside: bool,
    /// Whether its desktops can be looked at with `remote-viewer` (SPICE), from their next start on.
    pub spice: bool,
    /// What the signed-in person is in it; admins who are not members see `None`.
    pub my_role: Option<CourseRole>,
    /// How many students.
    pub students: u32,
    /// Desktops that run now.
    pub running: u32,
    /// Why desktops of this course boot cold instead of being forked; `None` when they fork.
    pub cold_reason: Option<String>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// When it was made.
    pub created: UnixMillis,
}

/// Make a course. The maker becomes its teacher.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CourseCreate {
    /// Title.
    pub name: String,
    /// The golden image.
    pub image: ImageId,
    /// A fixed release; `None`: follow the newest offered one.
    pub release: Option<ReleaseId>,
    /// Size; `None`: as the release was sealed, which is what can be forked.
    pub size: Option<MachineSize>,
    /// What is kept.
    pub persistence: Persistence,
    /// Whether desktops reach the outside; default no.
    #[serde(default)]
    pub outside: bool,
    /// Whether its desktops can be looked at with `remote-viewer` (SPICE); default no: it costs memory.
    #[serde(default)]
    pub spice: bool,
}

/// Change a course. Running desktops keep what they started with.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CoursePatch {
    /// Title.
    pub name: Option<String>,
    /// Pin this release (also the way to roll back).
    pub release: Option<ReleaseId>,
    /// Follow the newest offered release again.
    pub follow_newest: Option<bool>,
    /// Size.
    pub size: Option<MachineSize>,
    /// What is kept.
    pub persistence: Option<Persistence>,
    /// Whether desktops reach the outside.
    pub outside: Option<bool>,
    /// Whether its desktops can be looked at with `remote-viewer` (SPICE).
    pub spice: Option<bool>,
}

/// Somebody on a roster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Sign-in name.
    pub login: String,
    /// Name as shown.
    pub name: String,
    /// Role in the course.
    pub role: CourseRole,
}

/// Put somebody on the roster.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberPut {
    /// Role in the course.
    pub role: CourseRole,
}

/// A roster as CSV: a header line with `login`, and optionally `name`, `role` (`student` or `teacher`).
/// Used for the preview (changes nothing) and for the real thing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RosterCsv {
    /// The text of the file, at most 1 MiB; comma, semicolon or tab separated.
    pub csv: String,
    /// Take students off the roster who are not in the file. Teachers stay.
    #[serde(default)]
    pub remove_missing: bool,
    /// Make accounts for people who have none; they get one-time links.
    #[serde(default)]
    pub create_accounts: bool,
}

/// What a roster file changes or changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct RosterChange {
    /// Accounts that are made.
    pub create: Vec<RosterRow>,
    /// People who come onto the roster.
    pub add: Vec<RosterRow>,
    /// People whose role in the course changes.
    pub change: Vec<RosterRow>,
    /// People who leave the roster.
    pub remove: Vec<RosterRow>,
    /// How many stay as they are.
    pub unchanged: u32,
    /// Lines that can't be used; with any of these nothing is applied.
    pub problems: Vec<RosterProblem>,
    /// How the problems' texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// One-time links of new accounts; only in the answer of the real thing.
    pub links: Vec<RosterLink>,
}

/// Somebody in a roster file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RosterRow {
    /// Sign-in name.
    pub login: String,
    /// Name as shown.
    pub name: String,
    /// Role in the course.
    pub role: CourseRole,
}

/// A line of a roster file that can't be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RosterProblem {
    /// Line number, from 1.
    pub line: u64,
    /// What is wrong and what to do.
    pub message: String,
}

/// The way in for a new account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RosterLink {
    /// Sign-in name.
    pub login: String,
    /// Path of the one-time link.
    pub path: String,
}

/// A role filter of `GET users`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct UserQuery {
    /// Only this role.
    pub role: Option<Role>,
    /// Part of the name or sign-in name.
    pub search: Option<String>,
}
