//! The public REST API of the classroom as types, one module per resource. The
//! controller serves them, the command line and the benches use them, and the
//! page's TypeScript types are made from `openapi.json`, which is made from them.
//!
//! Everything lives below `/api/v1`. Times are milliseconds since 1970 UTC.
//! Requests with fields nobody knows are refused. Every error has one form:
//! [`ApiError`].
//!
//! | who | requests |
//! |---|---|
//! | anybody | `POST session`, `POST session/one-time`, `GET health` |
//! | signed in | `GET session`, `DELETE session`, `GET sessions`, `DELETE sessions/{id}`, `POST password`, `GET desktops`, `GET courses`, `GET timetable`, `GET timetable/{week,now}`, `GET events` (server-sent) |
//! | own desktop, or staff of its course | `GET desktops/{id}`, `GET desktops/{id}/viewers`, `POST desktops/{id}/{start,stop,suspend,reset}`, `POST desktops/{id}/{console-ticket,native-viewer,spice-viewer}`, `GET console/{ticket}` (WebSocket), `GET`/`PUT desktops/{id}/clipboard`; where the course says so `GET desktops/{id}/restore-points`, `POST desktops/{id}/{restore,undo-restore}` |
//! | course staff | `POST desktops`, `DELETE desktops/{id}`, `GET desktops/{id}/history`, `GET desktops/{id}/samples`, `POST courses/{id}/{start,stop,suspend,reset}`, `POST courses/{id}/hand-out`, `POST desktops/{id}/restore-points`, `DELETE restore-points/{id}`, `GET`/`POST courses/{id}/restore-points`, `DELETE courses/{id}/restore-points/{batch}`, `POST courses/{id}/{restore,undo-restore}`, `GET`/`PUT courses/{id}/point-schedule`, `GET courses/{id}/roster`, `POST courses/{id}/roster/preview`, `PUT courses/{id}/roster`, `PUT`/`DELETE courses/{id}/members/{user}`, `PATCH courses/{id}`, `GET`/`PATCH courses/{id}/network`, `PUT`/`DELETE courses/{id}/exam`, `GET`/`PUT courses/{id}/timetable`, `POST timetable/lessons`, `PUT`/`DELETE timetable/lessons/{id}`, `PUT`/`DELETE timetable/lessons/{id}/exceptions/{date}`, `POST timetable/import`, `POST timetable/import/preview`, `GET operations`, `GET operations/{id}`, `POST operations/{id}/cancel` |
//! | teachers | `POST courses`, `GET images`, `GET images/{id}`, `POST images`, `PATCH images/{id}`, `POST images/{id}/draft`, `GET`/`DELETE drafts/{id}`, `POST drafts/{id}/{start,stop,seal,console-ticket}`, `PUT drafts/{id}/upload`, `GET releases/{id}`, `POST releases/{id}/{retire,offer}`, `GET hosts`, `GET hosts/{id}/samples`, `GET energy`, `GET storage`, `GET network`, `GET users` |
//! | admins | `POST users`, `PATCH`/`DELETE users/{id}`, `POST users/{id}/one-time-link`, `DELETE courses/{id}`, `DELETE images/{id}`, `DELETE releases/{id}`, `PATCH hosts/{id}`, `GET`/`PUT hosts/{id}/power`, `POST hosts/{id}/power/{on,off}`, `GET`/`PUT allocation`, `GET`/`POST plans`, `GET plans/{id}`, `POST plans/{id}/{run,stop}`, `GET samples/sessions`, `POST join-tokens`, `GET`/`PUT network/gateway`, `PATCH timetable/rules`, `POST timetable/days`, `PUT`/`DELETE timetable/days/{id}`, `GET audit`, `GET`/`PATCH settings` |

pub mod accounts;
pub mod allocation;
pub mod courses;
pub mod desktops;
pub mod hosts;
pub mod images;
pub mod moves;
pub mod networks;
pub mod operations;
pub mod restore_points;
pub mod timetable;
pub mod wording;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wording::Wordings;

/// The one form of an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// A word for programs, for example `not_found`, `forbidden`, `no_room`, `in_use`.
    pub code: String,
    /// What failed, why, and what to do, for a person.
    pub message: String,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// A page of rows, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass as `before` to get the next page; absent on the last.
    pub next: Option<String>,
}

/// One server-sent event: something of this kind changed; fetch it again. The SSE event name is
/// `change`, its data this as JSON. `reset` as the kind means: fetch everything again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeEvent {
    /// `desktop`, `course`, `image`, `draft`, `release`, `host`, `operation`, `user`, `settings` or `reset`.
    pub kind: String,
    /// Which one.
    pub id: String,
}

/// Settings of the whole classroom that an admin can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Name of the classroom, shown on the page.
    pub classroom_name: String,
    /// Nominal memory that a host admits, as a multiple of its real memory. Forks share most of theirs.
    pub overcommit: f64,
    /// Seats per host; 0: by memory only.
    pub seats_per_host: u32,
    /// Desktops that are started at once on one host.
    pub starts_at_once: u32,
    /// How long a desktop may take until it is usable, seconds; a fork or resume.
    pub fork_timeout_s: u32,
    /// The same for a cold boot.
    pub cold_timeout_s: u32,
    /// How long a session lives without being used, minutes.
    pub session_idle_minutes: u32,
    /// Desktops that are moved at once away from one host, or to one.
    pub moves_per_host: u32,
    /// Most that moves away from one host may use together, megabits per second; 0: no limit.
    pub move_mbit_per_s: u32,
    /// How long a move may take until the desktop is handed over, seconds.
    pub move_timeout_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            classroom_name: "Lyceum".into(),
            overcommit: 8.0,
            seats_per_host: 0,
            starts_at_once: 4,
            fork_timeout_s: 60,
            cold_timeout_s: 600,
            session_idle_minutes: 12 * 60,
            moves_per_host: 2,
            move_mbit_per_s: 0,
            move_timeout_s: 120,
        }
    }
}

/// Body of [`Settings`] changes: only the fields that are given change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`Settings`].
    pub classroom_name: Option<String>,
    /// See [`Settings`]; 1 to 64.
    pub overcommit: Option<f64>,
    /// See [`Settings`].
    pub seats_per_host: Option<u32>,
    /// See [`Settings`]; 1 to 64.
    pub starts_at_once: Option<u32>,
    /// See [`Settings`].
    pub fork_timeout_s: Option<u32>,
    /// See [`Settings`].
    pub cold_timeout_s: Option<u32>,
    /// See [`Settings`].
    pub session_idle_minutes: Option<u32>,
    /// See [`Settings`]; 1 to 32.
    pub moves_per_host: Option<u32>,
    /// See [`Settings`].
    pub move_mbit_per_s: Option<u32>,
    /// See [`Settings`]; 5 to 3600.
    pub move_timeout_s: Option<u32>,
}
