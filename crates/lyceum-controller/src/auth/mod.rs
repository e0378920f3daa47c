//! Who asks, and what they may: the only place where rights are decided.
//!
//! A handler takes an [`Actor`] and calls one of its `require_*` methods. What somebody may
//! not even see answers like what is not there.

mod limits;
mod memory;
mod password;
pub mod secret;

pub use limits::SignInLimits;
pub use memory::{Known, Memory};
pub use password::{Authenticator, LocalPasswords, Verdict, check_new_password};

use crate::app::App;
use crate::error::ApiFailure;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use lyceum_model::{CourseId, SessionId, UserId};
use lyceum_store::courses::{Course, MemberRole};
use lyceum_store::desktops::{Desktop, Owner};
use lyceum_store::users::{Role, User};
use std::net::IpAddr;
use std::sync::Arc;

/// Name of the session's cookie.
pub const COOKIE: &str = "lyceum_session";
/// Name of the header that changing requests of a cookie session carry.
pub const CSRF_HEADER: &str = "x-lyceum-csrf";

/// Where a request came from; every listener puts it among the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The local socket: whoever may open it runs the classroom.
    Socket,
    /// The network.
    Network(IpAddr),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Socket => f.write_str("local socket"),
            Origin::Network(ip) => write!(f, "{}", ip.to_canonical()),
        }
    }
}

/// Somebody who is signed in, or the local command line.
#[derive(Debug, Clone)]
pub struct Actor {
    who: Who,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Who {
    Local,
    Person(Arc<Known>),
}

/// Why somebody may use a desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is one's own.
    Own,
    /// One runs its course, or everything.
    Staff,
}

impl Actor {
    /// The local command line.
    pub fn local() -> Actor {
        Actor {
            who: Who::Local,
            origin: Origin::Socket,
        }
    }

    pub(crate) fn person(known: Arc<Known>, origin: Origin) -> Actor {
        Actor {
            who: Who::Person(known),
            origin,
        }
    }

    /// Sign-in name for audit and `requested_by`; `local` for the command line on the controller.
    pub fn login(&self) -> &str {
        match &self.who {
            Who::Local => "local",
            Who::Person(known) => &known.user.login,
        }
    }

    /// From where.
    pub fn address(&self) -> String {
        self.origin.to_string()
    }

    /// The person's row; `None` for the local command line.
    pub fn user(&self) -> Option<&User> {
        match &self.who {
            Who::Local => None,
            Who::Person(known) => Some(&known.user),
        }
    }

    /// The person; `None` for the local command line.
    pub fn user_id(&self) -> Option<&UserId> {
        self.user().map(|u| &u.id)
    }

    /// The session; `None` for the local command line.
    pub fn session(&self) -> Option<&lyceum_store::sessions::Session> {
        match &self.who {
            Who::Local => None,
            Who::Person(known) => Some(&known.session),
        }
    }

    /// The session's id; `None` for the local command line.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.session().map(|s| &s.id)
    }

    /// Role in the whole classroom.
    pub fn role(&self) -> Role {
        self.user().map_or(Role::Admin, |u| u.role)
    }

    /// Whether the actor may do everything.
    pub fn is_admin(&self) -> bool {
        self.role() == Role::Admin
    }

    /// Whether the actor is a teacher or more.
    pub fn is_teacher(&self) -> bool {
        matches!(self.role(), Role::Teacher | Role::Admin)
    }

    /// Admins only.
    pub fn require_admin(&self) -> Result<(), ApiFailure> {
        if self.is_admin() {
            return Ok(());
        }
        Err(ApiFailure::forbidden("only admins may do this"))
    }

    /// Teachers and admins only.
    pub fn require_teacher(&self) -> Result<(), ApiFailure> {
        if self.is_teacher() {
            return Ok(());
        }
        Err(ApiFailure::forbidden(
            "only teachers and admins may do this",
        ))
    }

    /// A person, not the local command line.
    pub fn require_person(&self) -> Result<&Known, ApiFailure> {
        match &self.who {
            Who::Person(known) => Ok(known),
            Who::Local => Err(ApiFailure::invalid(
                "the local command line has no account, so this is nothing for it: name a person instead",
            )),
        }
    }

    /// What the actor is in a course; `None`: not on its roster.
    pub async fn course_role(
        &self,
        app: &App,
        course: &CourseId,
    ) -> Result<Option<MemberRole>, ApiFailure> {
        let Some(user) = self.user_id() else {
            return Ok(None);
        };
        let rosters = app.reads.rosters().await?;
        Ok(rosters.get(course).and_then(|r| r.get(user)).copied())
    }

    /// Teachers of this course and admins. Members who are not get 403, everybody else 404.
    pub async fn require_course_staff(
        &self,
        app: &App,
        id: &CourseId,
    ) -> Result<Course, ApiFailure> {
        let course = self.require_course(app, id).await?;
        if self.is_admin() || self.course_role(app, id).await? == Some(MemberRole::Teacher) {
            return Ok(course);
        }
        Err(ApiFailure::forbidden(
            "only teachers of the course and admins may do this",
        ))
    }

    /// Everybody on the roster, and admins. A course that is being deleted is there for nobody.
    pub async fn require_course(&self, app: &App, id: &CourseId) -> Result<Course, ApiFailure> {
        if !self.is_admin() && self.course_role(app, id).await?.is_none() {
            return Err(ApiFailure::not_found("course"));
        }
        let courses = app.reads.courses().await?;
        courses
            .iter()
            .map(|line| &line.course)
            .find(|c| c.id == *id)
            .cloned()
            .ok_or_else(|| ApiFailure::not_found("course"))
    }

    /// Its owner who is still on the roster, staff of its course, admins. The machine of a
    /// draft: teachers.
    pub async fn require_desktop(
        &self,
        app: &App,
        desktop: &Desktop,
    ) -> Result<Access, ApiFailure> {
        if self.is_admin() {
            return Ok(Access::Staff);
        }
        match &desktop.owner {
            Owner::Course { course, user } => match self.course_role(app, course).await? {
                Some(MemberRole::Teacher) => return Ok(Access::Staff),
                Some(MemberRole::Student) if self.user_id() == Some(user) => {
                    return Ok(Access::Own);
                }
                _ => {}
            },
            Owner::Draft { .. } if self.is_teacher() => return Ok(Access::Staff),
            Owner::Draft { .. } => {}
        }
        Err(ApiFailure::not_found("desktop"))
    }
}

impl FromRequestParts<App> for Actor {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Actor, ApiFailure> {
        let origin = origin(parts)?;
        if origin == Origin::Socket {
            return Ok(Actor::local());
        }
        let given = credentials(&parts.headers).ok_or_else(ApiFailure::unauthenticated)?;
        let known = app
            .memory
            .session(app, given.secret())
            .await?
            .ok_or_else(ApiFailure::unauthenticated)?;
        if let Credentials::Cookie(secret) = given
            && changes_something(&parts.method)
        {
            let token = parts.headers.get(CSRF_HEADER).map(|v| v.as_bytes());
            if !token.is_some_and(|token| secret::same(token, secret::csrf(secret).as_bytes())) {
                return Err(ApiFailure::new(
                    axum::http::StatusCode::FORBIDDEN,
                    "csrf",
                    "the header X-Lyceum-CSRF is missing or not this session's: reload the page",
                ));
            }
        }
        if app.config.network.is_some()
            && let Origin::Network(from) = origin
        {
            app.networks.seen(&known.session.id, from, app.now());
        }
        Ok(Actor::person(known, origin))
    }
}

/// Where the request came from.
pub fn origin(parts: &Parts) -> Result<Origin, ApiFailure> {
    parts
        .extensions
        .get::<Origin>()
        .copied()
        .ok_or_else(|| ApiFailure::internal("a listener does not say where its requests come from"))
}

impl FromRequestParts<App> for Origin {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Origin, ApiFailure> {
        origin(parts)
    }
}

/// Whether requests with this method change something.
pub fn changes_something(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

enum Credentials<'a> {
    Cookie(&'a str),
    // No browser sends this by itself, so it needs no CSRF token.
    Bearer(&'a str),
}

impl Credentials<'_> {
    fn secret(&self) -> &str {
        match self {
            Credentials::Cookie(secret) | Credentials::Bearer(secret) => secret,
        }
    }
}

fn credentials(headers: &HeaderMap) -> Option<Credentials<'_>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| Credentials::Bearer(secret.trim()));
    }
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| Credentials::Cookie(value))
}

/// The session secret that a request carries, if any: for signing out.
pub fn presented_secret(headers: &HeaderMap) -> Option<&str> {
    match credentials(headers)? {
        Credentials::Cookie(secret) | Credentials::Bearer(secret) => Some(secret),
    }
}
