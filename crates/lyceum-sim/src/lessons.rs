//! When courses meet, by the same timetable that the controller goes by.

use crate::scenario::{Bad, Calendar, DAY, Scenario, WEEK};
use lyceum_timetable::ics;
use lyceum_timetable::{Clock, HoursRule, Lesson, MINUTE, Span, Timetable, Weekday, When, Zone};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// One lesson on one day; minutes since the scenario began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// By its place in the scenario.
    pub course: usize,
    /// By its place among the course's periods, and after them its lessons in the calendar file.
    pub period: usize,
    pub bell: u32,
    pub end: u32,
}

/// All lessons of a scenario.
pub(crate) struct Lessons {
    /// Week by week, within it by course and period.
    pub meetings: Vec<Meeting>,
    weeks: Vec<Range<usize>>,
    of: HashMap<(usize, usize), Vec<usize>>,
    /// From half an hour before the first bell of a day to its last lesson's end, in order.
    hours: Vec<(u32, u32)>,
}

impl Lessons {
    pub fn of(scenario: &Scenario) -> Result<Lessons, Bad> {
        let table = timetable(scenario)?;
        let first = scenario.calendar.first_day;
        let start = table.zone.midnight(first);
        let minute = |at: i64| ((at - start) / MINUTE).clamp(0, i64::from(u32::MAX)) as u32;
        let rule = HoursRule {
            before_minutes: 30,
            after_minutes: 0,
            bridge_minutes: DAY,
        };
        let mut lessons = Lessons {
            meetings: Vec::new(),
            weeks: Vec::new(),
            of: HashMap::new(),
            hours: Vec::new(),
        };
        for week in 0..i64::from(scenario.weeks) {
            let from = start + week * i64::from(WEEK) * MINUTE;
            let to = from + i64::from(WEEK) * MINUTE;
            let begin = lessons.meetings.len();
            for o in table.between(from, to) {
                // One that is still on from the week before is there already.
                if o.begin < from {
                    continue;
                }
                let place = o.lesson.split_once('/').and_then(|(course, period)| {
                    Some((course.parse().ok()?, period.parse().ok()?))
                });
                if let Some((course, period)) = place {
                    lessons.meetings.push(Meeting {
                        course,
                        period,
                        bell: minute(o.begin),
                        end: minute(o.end),
                    });
                }
            }
            // Whoever comes is drawn in this order, and not in that of the bells.
            lessons.meetings[begin..].sort_by_key(|m| (m.course, m.period, m.bell));
            lessons.weeks.push(begin..lessons.meetings.len());
            let hours = table.class_hours(rule, from, to);
            lessons
                .hours
                .extend(hours.into_iter().map(|(a, b)| (minute(a), minute(b))));
        }
        for (i, m) in lessons.meetings.iter().enumerate() {
            lessons.of.entry((m.course, m.period)).or_default().push(i);
        }
        Ok(lessons)
    }

    /// The places of a week's lessons.
    pub fn week(&self, week: u32) -> Range<usize> {
        self.weeks.get(week as usize).cloned().unwrap_or(0..0)
    }

    /// The lesson of a period whose bell is next to a time.
    pub fn nearest(&self, course: usize, period: usize, at: f64) -> Option<usize> {
        let distance = |i: &usize| (f64::from(self.meetings[*i].bell) - at).abs();
        self.of
            .get(&(course, period))?
            .iter()
            .copied()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// Whether it is between half an hour before the first bell of a day and its last lesson's end.
    pub fn class_hours(&self, minute: u32) -> bool {
        let after = self.hours.partition_point(|(begin, _)| *begin <= minute);
        self.hours[..after]
            .last()
            .is_some_and(|(_, end)| minute < *end)
    }
}

/// How many periods and lessons in the calendar file each course has.
pub(crate) fn counts(scenario: &Scenario) -> Result<Vec<usize>, Bad> {
    let mut counts: Vec<usize> = scenario.courses.iter().map(|c| c.periods.len()).collect();
    for (course, _, _) in in_file(scenario)? {
        counts[course] += 1;
    }
    Ok(counts)
}

fn zone(calendar: &Calendar) -> Result<Zone, Bad> {
    Zone::named(&calendar.zone).map_err(|e| Bad::new("calendar.zone", e.to_string()))
}

/// Lessons in the calendar file: course, line, lesson.
fn in_file(scenario: &Scenario) -> Result<Vec<(usize, usize, Lesson)>, Bad> {
    let bad = |line: usize, why: String| Bad::new("calendar.ics", format!("line {line}: {why}"));
    if scenario.calendar.ics.is_empty() {
        return Ok(Vec::new());
    }
    let zone = zone(&scenario.calendar)?;
    let found = ics::read(&scenario.calendar.ics, &zone).map_err(|e| bad(e.line, e.why))?;
    if let Some(problem) = found.problems.into_iter().next() {
        return Err(bad(problem.line, problem.why));
    }
    found
        .lessons
        .into_iter()
        .map(|f| {
            let name = f.summary.to_lowercase();
            let course = scenario
                .courses
                .iter()
                .position(|c| c.name.to_lowercase() == name)
                .ok_or_else(|| {
                    bad(
                        f.line,
                        format!("no course is called {:?}: add it to courses", f.summary),
                    )
                })?;
            Ok((course, f.line, f.lesson))
        })
        .collect()
}

/// The scenario's timetable. A lesson's id is `COURSE/PERIOD`.
fn timetable(scenario: &Scenario) -> Result<Timetable, Bad> {
    let calendar = &scenario.calendar;
    let mut table = Timetable::new(zone(calendar)?);
    if Weekday::of(calendar.first_day) != Weekday::Mon {
        return Err(Bad::new("calendar.first_day", "must be a Monday"));
    }
    for (i, span) in calendar.holidays.iter().enumerate() {
        if span.last < span.first {
            let place = format!("calendar.holidays[{i}].last");
            return Err(Bad::new(place, "must not be before the first day"));
        }
    }
    table.holidays = calendar
        .holidays
        .iter()
        .map(|h| Span {
            name: h.name.clone(),
            first: h.first,
            last: h.last,
        })
        .collect();
    for (c, course) in scenario.courses.iter().enumerate() {
        for (p, period) in course.periods.iter().enumerate() {
            let place = || Bad::new(format!("courses[{c}].periods[{p}]"), "is no time of a week");
            let weekday = Weekday::ALL
                .get((period.begin / DAY) as usize)
                .ok_or_else(place)?;
            let begin = Clock::of_minute((period.begin % DAY) as u16).ok_or_else(place)?;
            let minutes = period
                .end
                .checked_sub(period.begin)
                .filter(|m| (1..=DAY).contains(m))
                .ok_or_else(place)?;
            table.lessons.push(Lesson {
                id: format!("{c}/{p}"),
                course: c.to_string(),
                room: None,
                title: String::new(),
                when: When::Weekly {
                    weekday: *weekday,
                    every_weeks: 1,
                    from: None,
                    until: None,
                },
                begin,
                minutes: minutes as u16,
                zone: None,
                exceptions: BTreeMap::new(),
            });
        }
    }
    let mut next: Vec<usize> = scenario.courses.iter().map(|c| c.periods.len()).collect();
    for (course, _, lesson) in in_file(scenario)? {
        table.lessons.push(Lesson {
            id: format!("{course}/{}", next[course]),
            course: course.to_string(),
            ..lesson
        });
        next[course] += 1;
    }
    Ok(table)
}
