//! Reads iCalendar files (RFC 5545) as schools' systems export them: events that recur weekly or
//! daily, with exceptions, single events, and whole days off.
//!
//! It is strict: what is not understood is not guessed. A file that is broken is refused with the line;
//! an event that is whole but cannot be taken over becomes a [`Problem`] with its line, beside
//! those that can. Nothing is expanded, so a rule of a billion repetitions costs what one of two does.

mod event;
mod line;
mod rule;
mod value;
mod windows;

use crate::lesson::{Lesson, Span};
use crate::zone::Zone;
use serde::{Deserialize, Serialize};

/// Largest file, bytes.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most events in a file.
pub const MAX_EVENTS: usize = 5000;
/// Most lessons that come out of a file.
pub const MAX_LESSONS: usize = 10_000;
/// Most dates in all its lists of exceptions and additions.
pub const MAX_DATES: usize = 50_000;

/// A file that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct IcsError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub why: String,
}

/// An event that is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// What the event is called.
    pub summary: String,
    /// Why not.
    pub why: String,
}

/// A lesson out of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Line at which its event begins.
    pub line: usize,
    /// The event's own name, the same in every export; with the day when an event makes several lessons.
    pub uid: String,
    /// What it is called there; mostly the course.
    pub summary: String,
    /// The lesson; its id is `uid`, its course is `summary`.
    pub lesson: Lesson,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calendar {
    /// Lessons.
    pub lessons: Vec<Found>,
    /// Events of whole days: holidays, mostly.
    pub days: Vec<Span>,
    /// What is not taken over.
    pub problems: Vec<Problem>,
}

/// Reads a file. Times without a zone are on the clock `school`.
///
/// # Errors
/// The file is broken or too large.
pub fn read(text: &str, school: &Zone) -> Result<Calendar, IcsError> {
    if text.len() > MAX_BYTES {
        return Err(IcsError {
            line: 1,
            why: format!(
                "the file has {} bytes; at most {MAX_BYTES} are read: export a shorter time",
                text.len()
            ),
        });
    }
    let lines = line::lines(text)?;
    let components = event::components(lines)?;
    Ok(event::Reading::new(school, &components).calendar(&components.events))
}
