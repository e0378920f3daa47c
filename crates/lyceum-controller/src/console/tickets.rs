//! Tickets that open a console: once, for half a minute, for one person and one desktop.

use crate::auth::secret;
use crate::error::ApiFailure;
use lyceum_model::{DesktopId, UnixMillis};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How long a ticket works, milliseconds.
pub const TICKET_MS: UnixMillis = 30_000;
/// Tickets that may wait at once; more means that somebody makes them without using them.
const WAITING_MAX: usize = 10_000;
/// The same of one person.
const PERSON_MAX: usize = 100;

/// What a ticket opens, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The desktop.
    pub desktop: DesktopId,
    /// Sign-in name of the person.
    pub login: String,
    /// Whether it is for watching only.
    pub view_only: bool,
    expires: UnixMillis,
}

impl Grant {
    /// For this person and desktop, from now on for as long as a ticket works.
    pub fn new(desktop: DesktopId, login: &str, view_only: bool, now: UnixMillis) -> Grant {
        Grant {
            desktop,
            login: login.to_owned(),
            view_only,
            expires: now + TICKET_MS,
        }
    }
}

/// Tickets that were given out and not used yet. They live in memory only: after a restart of the
/// controller the page asks for a new one.
#[derive(Debug, Clone, Default)]
pub struct Tickets(Arc<Mutex<HashMap<String, Grant>>>);

impl Tickets {
    /// A new ticket, and until when it works.
    pub fn issue(
        &self,
        desktop: DesktopId,
        login: &str,
        view_only: bool,
        now: UnixMillis,
    ) -> Result<(String, UnixMillis), ApiFailure> {
        let text = secret::new()?;
        let grant = Grant::new(desktop, login, view_only, now);
        let expires = grant.expires;
        let mut map = self.0.lock().unwrap_or_else(|p| p.into_inner());
        map.retain(|_, grant| grant.expires > now);
        let own = map.values().filter(|grant| grant.login == login).count();
        if map.len() >= WAITING_MAX || own >= PERSON_MAX {
            return Err(ApiFailure::too_many(
                "too many consoles are being opened: wait a moment",
                30,
            ));
        }
        map.insert(secret::hash(&text), grant);
        Ok((text, expires))
    }

    /// Uses a ticket up. Nothing for a forged, used or expired one, or another person's.
    pub fn redeem(&self, ticket: &str, login: &str, now: UnixMillis) -> Option<Grant> {
        let mut map = self.0.lock().unwrap_or_else(|p| p.into_inner());
        let hash = secret::hash(ticket);
        // A ticket in the wrong hands is used up as well.
        map.remove(&hash)
            .filter(|grant| grant.expires > now && grant.login == login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_works_once_in_time_and_for_its_person() {
        let tickets = Tickets::default();
        let d: DesktopId = "d1".parse().expect("id");
        let issue = || {
            tickets
                .issue(d.clone(), "ann", true, 1000)
                .expect("ticket")
                .0
        };
        let ticket = issue();
        assert!(tickets.redeem("forged", "ann", 1000).is_none());
        assert_eq!(
            tickets
                .redeem(&ticket, "ann", 1001)
                .map(|g| (g.desktop, g.view_only)),
            Some((d.clone(), true))
        );
        assert!(tickets.redeem(&ticket, "ann", 1001).is_none(), "used twice");
        let ticket = issue();
        assert!(
            tickets.redeem(&ticket, "ben", 1001).is_none(),
            "another person's"
        );
        assert!(
            tickets.redeem(&ticket, "ann", 1001).is_none(),
            "used up by the attempt"
        );
        let ticket = issue();
        assert!(
            tickets.redeem(&ticket, "ann", 1000 + TICKET_MS).is_none(),
            "expired"
        );
    }

    #[test]
    fn nobody_can_collect_tickets() {
        let tickets = Tickets::default();
        let d: DesktopId = "d1".parse().expect("id");
        let made = (0..1000)
            .filter(|_| tickets.issue(d.clone(), "ann", false, 1000).is_ok())
            .count();
        assert_eq!(made, PERSON_MAX);
        assert!(tickets.issue(d.clone(), "ben", false, 1000).is_ok());
        let later = 1000 + TICKET_MS;
        assert!(tickets.issue(d, "ann", false, later).is_ok());
    }
}
