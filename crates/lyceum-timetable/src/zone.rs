//! A place's clock.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// There is no such time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone {0:?}: write for example Asia/Taipei or Europe/Berlin")]
pub struct UnknownZone(pub String);

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// `Asia/Taipei`, `UTC`, ...
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str) -> Result<Zone, UnknownZone> {
        let unknown = || UnknownZone(name.chars().take(80).collect());
        let plain = name.len() <= 64
            && !name.contains("..")
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+-/".contains(&b));
        if !plain {
            return Err(unknown());
        }
        let zone = TimeZone::get(name).map_err(|_| unknown())?;
        Ok(Zone {
            // As the database writes it: names are found in any case.
            name: zone.iana_name().unwrap_or(name).to_owned(),
            zone,
        })
    }

    /// Universal time.
    pub fn utc() -> Zone {
        Zone {
            name: "UTC".into(),
            zone: TimeZone::UTC,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a wall clock shows at an instant.
    pub fn civil(&self, at: i64) -> DateTime {
        self.zone.to_datetime(timestamp(at))
    }

    /// The day it is at an instant.
    pub fn date(&self, at: i64) -> Date {
        self.civil(at).date()
    }

    /// The instant at which a wall clock shows a time, in milliseconds since 1970 UTC. It keeps the order:
    /// a time that is not earlier on the wall clock is not an earlier instant. So a time that
    /// is left out when clocks go forward is the instant of the change, and of one that comes
    /// twice when they go back it is the first.
    pub fn instant(&self, at: DateTime) -> i64 {
        let of = |offset: jiff::tz::Offset| {
            offset
                .to_timestamp(at)
                .map_or_else(|_| edge(at), Timestamp::as_millisecond)
        };
        match self.zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => of(offset),
            AmbiguousOffset::Fold { before, .. } => of(before),
            AmbiguousOffset::Gap { before, .. } => {
                // With the old offset it is the change itself, or later.
                let later = of(before);
                self.zone
                    .preceding(timestamp(later.saturating_add(1000)))
                    .next()
                    .map_or(later, |change| change.timestamp().as_millisecond())
            }
        }
    }

    /// The first instant of a day.
    pub fn midnight(&self, date: Date) -> i64 {
        self.instant(date.at(0, 0, 0, 0))
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;
    fn try_from(name: String) -> Result<Zone, UnknownZone> {
        Zone::named(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name
    }
}

/// An instant; those that no calendar has become its first or last.
fn timestamp(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(if at < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

fn edge(at: DateTime) -> i64 {
    if at.year() < 0 {
        Timestamp::MIN.as_millisecond()
    } else {
        Timestamp::MAX.as_millisecond()
    }
}

/// Some days later, or the calendar's end.
pub(crate) fn plus_days(date: Date, days: i64) -> Date {
    date.saturating_add(days.clamp(-4_000_000, 4_000_000).days())
}

/// Days from one to another.
pub(crate) fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_hours() / 24
}

/// The Monday of a day's week.
pub(crate) fn monday(date: Date) -> Date {
    plus_days(date, -i64::from(date.weekday().to_monday_zero_offset()))
}
