//! Class hours and other hours.

use crate::timetable::Timetable;
use crate::{DAY, MINUTE};
use serde::{Deserialize, Serialize};

/// What counts as class hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoursRule {
    /// They begin this long before a bell, minutes.
    pub before_minutes: u32,
    /// They end this long after a lesson's end, minutes.
    pub after_minutes: u32,
    /// A break of the same day that is not longer than this is in them, minutes.
    pub bridge_minutes: u32,
}

impl Default for HoursRule {
    fn default() -> Self {
        HoursRule {
            before_minutes: 30,
            after_minutes: 0,
            bridge_minutes: 180,
        }
    }
}

/// Which hours these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hours {
    /// Lessons are on or near.
    Class,
    /// None are.
    Other,
}

impl Timetable {
    /// Which hours these are, and until when; `None`: for more than a week.
    pub fn hours(&self, rule: HoursRule, now: i64) -> (Hours, Option<i64>) {
        let from = now.saturating_sub(2 * DAY);
        let spans = self.class_hours(rule, from, now.saturating_add(8 * DAY));
        match spans.iter().find(|(_, end)| *end > now) {
            Some((begin, end)) if *begin <= now => (Hours::Class, Some(*end)),
            Some((begin, _)) => (Hours::Other, Some(*begin)),
            None => (Hours::Other, None),
        }
    }

    /// The class hours that the lessons in a time make, as beginnings and ends, in order, apart.
    pub fn class_hours(&self, rule: HoursRule, from: i64, to: i64) -> Vec<(i64, i64)> {
        let before = i64::from(rule.before_minutes) * MINUTE;
        let after = i64::from(rule.after_minutes) * MINUTE;
        let bridge = i64::from(rule.bridge_minutes) * MINUTE;
        let mut spans: Vec<(i64, i64)> = Vec::new();
        for o in self.between(from, to) {
            let (begin, end) = (o.begin.saturating_sub(before), o.end.saturating_add(after));
            match spans.last_mut() {
                Some((_, last))
                    if begin <= *last
                        || (begin - *last <= bridge
                            && self.zone.date(*last) == self.zone.date(begin)) =>
                {
                    *last = (*last).max(end);
                }
                _ => spans.push((begin, end)),
            }
        }
        spans
    }
}
