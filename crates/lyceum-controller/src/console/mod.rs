//! The console gateway: a browser's WebSocket on one side, the desktop's RFB
//! stream on its host on the other.
//!
//! A ticket opens it once, within 30 s, for the person it was made for. Bytes are
//! copied through fixed buffers; a side that does not read makes the other wait,
//! so a slow client costs no memory. What may be seen is asked again every few seconds:
//! who loses a desktop loses its picture.

mod relay;

pub use relay::{MESSAGE_MAX, serve};

use crate::auth::secret;
use crate::error::ApiFailure;
use lyceum_model::{DesktopId, UnixMillis};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How long a ticket works, milliseconds.
pub const TICKET_MS: UnixMillis = 30_000;
/// Tickets that may wait at once; more means that somebody makes them without using them.
const WAITING_MAX: usize = 10_000;

/// What a ticket opens, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The desktop.
    pub desktop: DesktopId,
    /// Sign-in name of the person.
    pub login: String,
    expires: UnixMillis,
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
        now: UnixMillis,
    ) -> Result<(String, UnixMillis), ApiFailure> {
        let text = secret::new()?;
        let expires = now + TICKET_MS;
        let mut map = self.0.lock().unwrap_or_else(|p| p.into_inner());
        map.retain(|_, grant| grant.expires > now);
        if map.len() >= WAITING_MAX {
            return Err(ApiFailure::too_many(
                "too many consoles are being opened: wait a moment",
                30,
            ));
        }
        map.insert(
            secret::hash(&text),
            Grant {
                desktop,
                login: login.to_owned(),
                expires,
            },
        );
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
        let issue = || tickets.issue(d.clone(), "ann", 1000).expect("ticket").0;
        let ticket = issue();
        assert!(tickets.redeem("forged", "ann", 1000).is_none());
        assert_eq!(
            tickets.redeem(&ticket, "ann", 1001).map(|g| g.desktop),
            Some(d.clone())
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
}
