//! The school's timetable out of the store, and what it says now.
//!
//! | module | |
//! |---|---|
//! | [`rules`] | what it does, for the whole school |
//! | [`demand`] | the mode in force and the seats that lessons want, for whoever allocates hosts |
//! | [`file`] | what a calendar file would change |
//!
//! What it does by itself is in [`crate::reconcile::timetable`].

pub mod demand;
pub mod file;
pub mod rules;

pub use demand::{Demand, demand};

use crate::error::ApiFailure;
use lyceum_api::timetable::TimetableRules;
use lyceum_model::{CourseId, UnixMillis};
use lyceum_store::timetable::{self, CourseRules, DaysKind, LessonRow, SchoolDays};
use lyceum_store::{Store, StoreError};
use lyceum_timetable::{HoursRule, LeadRule, Occurrence, Timetable};
use std::collections::HashMap;

/// Who ordered what the timetable ordered.
pub const LOGIN: &str = "timetable";
/// So many of a course's last starts say how long the next one takes.
const STARTS: i64 = 5;

/// The timetable as it is now.
#[derive(Debug, Clone)]
pub struct School {
    /// What it does.
    pub rules: TimetableRules,
    /// When what takes place.
    pub table: Timetable,
    /// The lessons' rows.
    pub rows: Vec<LessonRow>,
    /// Terms and holidays.
    pub days: Vec<SchoolDays>,
    /// What courses said of themselves.
    courses: HashMap<CourseId, CourseRules>,
}

impl School {
    /// Reads it.
    pub async fn load(store: &Store) -> Result<School, ApiFailure> {
        let rules = rules::from_rows(&lyceum_store::settings::all(store).await?)?;
        let zone = rules::zone(&rules.zone)?;
        let rows = timetable::lessons(store).await?;
        let days = timetable::school_days(store).await?;
        let spans = |kind| {
            days.iter()
                .filter(|d| d.kind == kind)
                .map(|d| d.span.clone())
                .collect()
        };
        Ok(School {
            table: Timetable {
                zone,
                terms: spans(DaysKind::Term),
                holidays: spans(DaysKind::Holiday),
                lessons: rows.iter().map(|r| r.lesson.clone()).collect(),
            },
            rules,
            rows,
            courses: timetable::course_rules(store).await?.into_iter().collect(),
            days,
        })
    }

    /// What is done for a course.
    pub fn course(&self, id: &CourseId) -> CourseRules {
        self.courses.get(id).copied().unwrap_or_default()
    }

    /// What class hours are.
    pub fn hours_rule(&self) -> HoursRule {
        HoursRule {
            before_minutes: self.rules.class_before_minutes,
            after_minutes: self.rules.class_after_minutes,
            bridge_minutes: self.rules.class_bridge_minutes,
        }
    }

    /// How long before the bell desktops are started.
    pub fn lead_rule(&self) -> LeadRule {
        LeadRule {
            floor_minutes: self.rules.lead_floor_minutes,
            ceiling_minutes: self.rules.lead_ceiling_minutes,
            percent: self.rules.lead_percent,
        }
    }

    /// The longest that can be, milliseconds.
    pub fn longest_lead(&self) -> i64 {
        self.lead_rule().lead(&[i64::MAX])
    }

    /// The lead times of these occurrences' courses, milliseconds.
    pub async fn leads(
        &self,
        store: &Store,
        of: &[Occurrence],
    ) -> Result<HashMap<String, i64>, StoreError> {
        let mut leads = HashMap::new();
        for o in of {
            let Some(id) = course_of(o) else { continue };
            if !leads.contains_key(&o.course) {
                let last = timetable::last_starts(store, &id, STARTS).await?;
                leads.insert(o.course.clone(), self.lead_rule().lead(&last));
            }
        }
        Ok(leads)
    }
}

/// The course that an occurrence is of.
pub fn course_of(o: &Occurrence) -> Option<CourseId> {
    o.course.parse().ok()
}

/// Names an occurrence in the store. With its bell: one that is moved after it began begins anew.
pub fn key(o: &Occurrence) -> String {
    format!("{}/{}/{}", o.lesson, o.date, o.begin)
}

/// A time that is shown to people in a message, on the school's clock.
pub fn clock(table: &Timetable, at: UnixMillis) -> String {
    table.zone.civil(at).strftime("%H:%M").to_string()
}
