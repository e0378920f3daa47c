//! Sign-in, people, rosters and the audit log.

use lyceum_model::{SessionId, UnixMillis, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody is in the whole classroom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Works on own desktops.
    Student,
    /// Makes courses and images, runs own courses.
    Teacher,
    /// Everything.
    Admin,
}

/// Sign in. Answers [`Me`] and sets the cookie `lyceum_session` (HttpOnly, SameSite=Strict).
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// Sign-in name.
    pub login: String,
    /// Password.
    pub password: String,
}

/// Use a one-time link: sets the password and signs in.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OneTimeSignIn {
    /// The secret out of the link `/#/welcome/SECRET`.
    pub secret: String,
    /// The password to set, at least 8 characters; `None` signs in without setting one.
    pub new_password: Option<String>,
}

/// The signed-in person.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The person.
    pub user: User,
    /// This session.
    pub session: SessionId,
    /// Name of the classroom.
    pub classroom_name: String,
    /// Send as header `X-Lyceum-CSRF` with every request that changes something.
    pub csrf: String,
}

/// Change one's own password; every other session of the person ends.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The present one; may be absent right after a one-time sign-in.
    pub old_password: Option<String>,
    /// The new one, at least 8 characters.
    pub new_password: String,
}

/// A session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// When it began.
    pub created: UnixMillis,
    /// When it was last used, to the minute.
    pub last_seen: UnixMillis,
    /// The browser, as it named itself.
    pub client: String,
    /// From where.
    pub address: String,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Which.
    pub id: UserId,
    /// Sign-in name.
    pub login: String,
    /// Name as shown.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Can't sign in while true.
    pub disabled: bool,
    /// Whether a password was set.
    pub has_password: bool,
    /// When the account was made.
    pub created: UnixMillis,
}

/// Make a person.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// Sign-in name.
    pub login: String,
    /// Name as shown.
    pub name: String,
    /// Role.
    pub role: Role,
    /// A first password; without one, a one-time link is the way in.
    pub password: Option<String>,
}

/// Change a person.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// Name as shown.
    pub name: Option<String>,
    /// Role.
    pub role: Option<Role>,
    /// Ends all sessions when set.
    pub disabled: Option<bool>,
}

/// A link that signs somebody in once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OneTimeLink {
    /// Path below the page's address, for example `/#/welcome/SECRET`.
    pub path: String,
    /// Until when it works.
    pub expires: UnixMillis,
}

/// A line of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Number, growing.
    pub id: i64,
    /// When.
    pub at: UnixMillis,
    /// Who: sign-in name, or `system`, or `local` for the command line on the controller.
    pub actor: String,
    /// What, for example `desktop.reset`.
    pub action: String,
    /// To whom or what: kind and id.
    pub target: String,
    /// More, as text.
    pub detail: String,
    /// From where.
    pub address: String,
}
