//! The timetable, and what it answers.

use crate::lesson::{Bad, Exception, Lesson, Span, When};
use crate::zone::{Zone, days_between, plus_days};
use crate::{DAY, HORIZON_DAYS, MINUTE};
use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// When which course meets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timetable {
    /// The school's clock.
    pub zone: Zone,
    /// When there is school; none: always.
    pub terms: Vec<Span>,
    /// When there is none.
    pub holidays: Vec<Span>,
    /// The lessons.
    pub lessons: Vec<Lesson>,
}

/// One lesson on one day.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Occurrence {
    /// [`Lesson::id`].
    pub lesson: String,
    /// Whose.
    pub course: String,
    /// Where.
    pub room: Option<String>,
    /// What is written on it.
    pub title: String,
    /// The day that its rule names: names this occurrence within the lesson, also when it was moved.
    pub date: Date,
    /// The bell, milliseconds since 1970 UTC.
    pub begin: i64,
    /// The end, in the same; later than the bell.
    pub end: i64,
    /// Whether it takes place elsewhere or at another time than its rule says.
    pub moved: bool,
}

/// Two occurrences that can't both be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The place of the earlier one in the list.
    pub first: usize,
    /// The place of the later one.
    pub second: usize,
    /// It is the same room; otherwise the same course.
    pub room: bool,
}

impl Timetable {
    /// Nothing, on this clock.
    pub fn new(zone: Zone) -> Timetable {
        Timetable {
            zone,
            terms: Vec::new(),
            holidays: Vec::new(),
            lessons: Vec::new(),
        }
    }

    /// Whether it fits together.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), Bad> {
        for span in self.terms.iter().chain(&self.holidays) {
            if span.last < span.first {
                return Err(Bad(format!(
                    "{:?} ends before it begins",
                    span.name.chars().take(80).collect::<String>()
                )));
            }
        }
        let mut ids = HashSet::new();
        for lesson in &self.lessons {
            lesson.check()?;
            if !ids.insert(&lesson.id) {
                return Err(Bad(format!("two lessons are called {:?}", lesson.id)));
            }
        }
        Ok(())
    }

    /// Whether weekly lessons take place on a day.
    pub fn school_day(&self, date: Date) -> bool {
        (self.terms.is_empty() || self.terms.iter().any(|t| t.contains(date)))
            && !self.holidays.iter().any(|h| h.contains(date))
    }

    /// The holiday that a day is in.
    pub fn holiday(&self, date: Date) -> Option<&Span> {
        self.holidays.iter().find(|h| h.contains(date))
    }

    /// What takes place at any instant from `from` to before `to`, by their bells. A time longer than
    /// [`HORIZON_DAYS`] is cut there.
    pub fn between(&self, from: i64, to: i64) -> Vec<Occurrence> {
        self.of(|_| true, from, to)
    }

    fn of(&self, wanted: impl Fn(&Lesson) -> bool, from: i64, to: i64) -> Vec<Occurrence> {
        let to = to.min(from.saturating_add(HORIZON_DAYS * DAY));
        let mut found = Vec::new();
        for lesson in self.lessons.iter().filter(|l| wanted(l)) {
            let zone = lesson.zone.as_ref().unwrap_or(&self.zone);
            // A lesson lasts at most a day, and so begins at most a day before.
            let first = plus_days(zone.date(from), -1);
            let last = plus_days(zone.date(to), 1);
            for date in lesson.dates(first, last) {
                let planned = match lesson.when {
                    When::Once { .. } => true,
                    When::Weekly { .. } => {
                        self.school_day(date) && !lesson.exceptions.contains_key(&date)
                    }
                };
                if planned {
                    found.extend(self.one(lesson, zone, date, None));
                }
            }
            for (date, exception) in &lesson.exceptions {
                let Exception::Moved { date: to_date, .. } = exception else {
                    continue;
                };
                if first <= *to_date && *to_date <= last && lesson.names(*date) {
                    found.extend(self.one(lesson, zone, *date, Some(exception)));
                }
            }
        }
        found.retain(|o| o.begin < to && o.end > from);
        found.sort_by(|a, b| {
            (a.begin, a.end, &a.lesson, a.date).cmp(&(b.begin, b.end, &b.lesson, b.date))
        });
        found
    }

    /// `None`: the clocks leave out all of it.
    fn one(
        &self,
        lesson: &Lesson,
        zone: &Zone,
        date: Date,
        moved: Option<&Exception>,
    ) -> Option<Occurrence> {
        let (day, clock, minutes, room) = match moved {
            Some(Exception::Moved {
                date,
                begin,
                minutes,
                room,
            }) => (*date, *begin, *minutes, room.as_ref()),
            _ => (date, lesson.begin, lesson.minutes, None),
        };
        let wall = day.to_datetime(clock.time());
        let begin = zone.instant(wall);
        let end = zone.instant(wall.saturating_add(i64::from(minutes).minutes()));
        (begin < end).then(|| Occurrence {
            lesson: lesson.id.clone(),
            course: lesson.course.clone(),
            room: room.or(lesson.room.as_ref()).cloned(),
            title: lesson.title.clone(),
            date,
            begin,
            end,
            moved: moved.is_some(),
        })
    }

    /// What runs at an instant.
    pub fn running(&self, now: i64) -> Vec<Occurrence> {
        self.between(now, now.saturating_add(1))
    }

    /// The next occurrence of a course that begins after an instant, if there is one within
    /// [`HORIZON_DAYS`]. `None` for the course: of any.
    pub fn next_bell(&self, course: Option<&str>, after: i64) -> Option<Occurrence> {
        const WINDOW: i64 = 8 * DAY;
        let mut from = after;
        while from < after.saturating_add(HORIZON_DAYS * DAY) {
            let to = from.saturating_add(WINDOW);
            let next = self
                .of(|l| course.is_none_or(|c| c == l.course), from, to)
                .into_iter()
                .find(|o| o.begin > after);
            if next.is_some() || to == from {
                return next;
            }
            from = to;
        }
        None
    }

    /// What has to be made ready at an instant: what runs, and what begins within its lead time, given
    /// in milliseconds for each, at most `longest`.
    pub fn due(
        &self,
        now: i64,
        longest: i64,
        lead: impl Fn(&Occurrence) -> i64,
    ) -> Vec<Occurrence> {
        let mut due = self.between(now, now.saturating_add(longest.max(0)).saturating_add(1));
        due.retain(|o| o.begin.saturating_sub(lead(o)) <= now);
        due
    }

    /// The time from a day's first instant to the first instant after another day.
    pub fn days(&self, first: Date, last: Date) -> (i64, i64) {
        (
            self.zone.midnight(first),
            self.zone.midnight(plus_days(last, 1)),
        )
    }

    /// How many days there are from a first to a last one, both counted.
    pub fn count_days(first: Date, last: Date) -> i64 {
        days_between(first, last) + 1
    }
}

impl Occurrence {
    /// Whether it is on at an instant.
    pub fn is_on(&self, now: i64) -> bool {
        self.begin <= now && now < self.end
    }

    /// How long it lasts, whole minutes.
    pub fn minutes(&self) -> i64 {
        (self.end - self.begin) / MINUTE
    }
}

/// Which of these, sorted by their bells, meet in the same room or are of the same course, at
/// the same time.
pub fn clashes(sorted: &[Occurrence]) -> Vec<Clash> {
    let mut found = Vec::new();
    for (i, a) in sorted.iter().enumerate() {
        for (j, b) in sorted.iter().enumerate().skip(i + 1) {
            if b.begin >= a.end {
                break;
            }
            let room = a.room.is_some() && a.room == b.room;
            if room || a.course == b.course {
                found.push(Clash {
                    first: i,
                    second: j,
                    room,
                });
            }
        }
    }
    found
}
