//! What the timetable consists of.

use crate::clock::{Clock, Weekday};
use crate::zone::{Zone, days_between, monday, plus_days};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Bad(pub String);

/// When a lesson takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum When {
    /// On a day of the week, in terms and outside of holidays.
    Weekly {
        /// The day.
        weekday: Weekday,
        /// 1: every week; 2: every other week, counted from the week of `from`; at most 52.
        every_weeks: u8,
        /// Not before this day.
        from: Option<Date>,
        /// Not after this day.
        until: Option<Date>,
    },
    /// Once. Somebody wants just that, so terms and holidays do not matter.
    Once {
        /// The day.
        date: Date,
    },
}

/// What is different about one occurrence of a weekly lesson.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Exception {
    /// It does not take place.
    Cancelled,
    /// It takes place then and there instead, also in holidays.
    Moved {
        /// The day.
        date: Date,
        /// The bell.
        begin: Clock,
        /// How long it lasts, minutes.
        minutes: u16,
        /// Where; `None`: where it always is.
        room: Option<String>,
    },
}

/// A lesson: one bell in the week of a course, or one that is extra.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// Names it; unique in the timetable.
    pub id: String,
    /// Whose.
    pub course: String,
    /// Where.
    pub room: Option<String>,
    /// What is written on it beside the course's name.
    pub title: String,
    /// Which days.
    pub when: When,
    /// The bell.
    pub begin: Clock,
    /// How long it lasts on the wall clock, 1 to 1440 minutes.
    pub minutes: u16,
    /// The clock that `begin` is on; `None`: the school's.
    pub zone: Option<Zone>,
    /// What is different, by the day on which it would have been.
    pub exceptions: BTreeMap<Date, Exception>,
}

/// Days from a first to a last one: a term, a holiday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// First day.
    pub first: Date,
    /// Last day, in it.
    pub last: Date,
}

impl Span {
    /// Whether a day is in it.
    pub fn contains(&self, date: Date) -> bool {
        self.first <= date && date <= self.last
    }
}

impl Lesson {
    /// Its end on the wall clock.
    pub fn end(&self) -> Clock {
        self.begin.plus(self.minutes)
    }

    /// Whether it can be in a timetable.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn check(&self) -> Result<(), Bad> {
        let long = |minutes: u16| {
            if (1..=1440).contains(&minutes) {
                Ok(())
            } else {
                Err(Bad(format!(
                    "a lesson lasts 1 to 1440 minutes, not {minutes}"
                )))
            }
        };
        long(self.minutes)?;
        match self.when {
            When::Weekly {
                every_weeks,
                from,
                until,
                ..
            } => {
                if !(1..=52).contains(&every_weeks) {
                    return Err(Bad(format!(
                        "a lesson comes every 1 to 52 weeks, not {every_weeks}"
                    )));
                }
                if every_weeks > 1 && from.is_none() {
                    return Err(Bad(
                        "a lesson that does not come every week needs a first day, from which its weeks are counted"
                            .into(),
                    ));
                }
                if from.zip(until).is_some_and(|(from, until)| until < from) {
                    return Err(Bad("the last day is before the first".into()));
                }
            }
            When::Once { .. } if !self.exceptions.is_empty() => {
                return Err(Bad(
                    "a lesson that takes place once has no exceptions: change or delete it instead"
                        .into(),
                ));
            }
            When::Once { .. } => {}
        }
        for exception in self.exceptions.values() {
            if let Exception::Moved { minutes, .. } = exception {
                long(*minutes)?;
            }
        }
        Ok(())
    }

    /// Whether its rule names this day; terms, holidays and exceptions do not count.
    pub fn names(&self, date: Date) -> bool {
        match self.when {
            When::Once { date: only } => only == date,
            When::Weekly { weekday, .. } => {
                Weekday::of(date) == weekday && self.dates(date, date).next().is_some()
            }
        }
    }

    /// The days that its rule names, from a first to a last one.
    pub(crate) fn dates(&self, first: Date, last: Date) -> impl Iterator<Item = Date> + use<> {
        let (start, step, last) = match self.when {
            When::Once { date } => (
                date,
                0,
                if date >= first {
                    last.min(date)
                } else {
                    Date::MIN
                },
            ),
            When::Weekly {
                weekday,
                every_weeks,
                from,
                until,
            } => {
                let step = i64::from(every_weeks.max(1)) * 7;
                let begin = from.map_or(first, |from| from.max(first));
                let anchor = plus_days(monday(from.unwrap_or(first)), i64::from(weekday.index()));
                // The first day of its rhythm that is not before the beginning.
                let behind = days_between(anchor, begin);
                let steps = if behind > 0 {
                    (behind + step - 1) / step
                } else {
                    0
                };
                let mut start = plus_days(anchor, steps * step);
                if start < begin {
                    start = plus_days(start, step);
                }
                (start, step, until.map_or(last, |until| until.min(last)))
            }
        };
        let mut next = Some(start);
        std::iter::from_fn(move || {
            let date = next.filter(|date| *date <= last)?;
            next = (step > 0)
                .then(|| plus_days(date, step))
                .filter(|d| *d > date);
            Some(date)
        })
    }
}
