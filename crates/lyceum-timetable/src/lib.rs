//! The timetable: when which course meets, in which room, and what follows from it.
//!
//! A [`Timetable`] is a school's clock ([`Zone`]), its terms and holidays, and [`Lesson`]s that recur
//! weekly or take place once, with their exceptions. It answers what runs now, when a course's next
//! bell is, what takes place in a time, what has to be ready now, and whether these are class hours.
//! [`ics::read`] makes lessons and holidays out of what schools export.
//!
//! **Invariant: no I/O, no clock.** "Now" is always given, in milliseconds since 1970 UTC. The rules of
//! the world's time zones come from the system's database, or from the one that is built in
//! where the system has none.
//!
//! Lessons live on the wall clock: one at 08:10 is at 08:10 in summer and in winter. Where the wall
//! clock jumps, what was earlier stays earlier: see [`Zone::instant`].

pub mod clock;
pub mod hours;
pub mod ics;
mod lead;
mod lesson;
mod timetable;
mod zone;

pub use clock::{Clock, Weekday};
pub use hours::{Hours, HoursRule};
pub use lead::LeadRule;
pub use lesson::{Bad, Exception, Lesson, Span, When};
pub use timetable::{Clash, Occurrence, Timetable, clashes};
pub use zone::{UnknownZone, Zone};

/// Milliseconds of a minute.
pub const MINUTE: i64 = 60_000;
/// Milliseconds of 24 hours.
pub const DAY: i64 = 24 * 60 * MINUTE;
/// Longest time that is looked through for occurrences, days.
pub const HORIZON_DAYS: i64 = 800;
