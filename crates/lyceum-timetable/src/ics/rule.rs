//! `RRULE`, as far as timetables have it: weekly, or every day of the week.

use super::value::{Moment, moment};
use crate::clock::Weekday;
use crate::zone::{Zone, monday, plus_days};
use jiff::civil::{Date, DateTime};

/// A weekly rhythm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rhythm {
    /// In the order of the week.
    pub days: Vec<Weekday>,
    pub every_weeks: u8,
    /// The last day on which it can be; `None`: for ever.
    pub until: Option<Date>,
}

const NAMES: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

/// Reads a rule of an event whose first occurrence is at `start` on the clock `zone`.
pub(super) fn rhythm(text: &str, start: DateTime, zone: &Zone) -> Result<Rhythm, String> {
    let mut weekly = None;
    let (mut interval, mut count, mut until) = (1u64, None, None);
    let mut days: Vec<Weekday> = Vec::new();
    let mut week_from_sunday = false;
    for part in text.trim().trim_end_matches(';').split(';') {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("the rule's part {:?} has no value", short(part)))?;
        let number =
            || {
                value.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| {
                    format!("{key} is {:?}, which is no number above 0", short(value))
                })
            };
        match key.to_ascii_uppercase().as_str() {
            "FREQ" => {
                weekly = Some(match value.to_ascii_uppercase().as_str() {
                    "WEEKLY" => true,
                    "DAILY" => false,
                    _ => {
                        return Err(format!(
                            "it recurs {}; only weekly and daily events are taken over",
                            short(value)
                        ));
                    }
                });
            }
            "INTERVAL" => interval = number()?,
            "COUNT" => count = Some(number()?),
            "UNTIL" => until = Some(moment(value)?),
            "BYDAY" => {
                for name in value.split(',') {
                    let day = NAMES
                        .iter()
                        .position(|n| n.eq_ignore_ascii_case(name.trim()))
                        .ok_or_else(|| format!("BYDAY names {:?}, which is no day", short(name)))?;
                    days.push(Weekday::ALL[day]);
                }
            }
            "WKST" => {
                week_from_sunday = match value.to_ascii_uppercase().as_str() {
                    "MO" => false,
                    "SU" => true,
                    _ => return Err(format!("its weeks begin on {}", short(value))),
                }
            }
            other => {
                return Err(format!(
                    "its rule has {}, which is not taken over",
                    short(other)
                ));
            }
        }
    }
    let own = Weekday::of(start.date());
    match weekly {
        Some(true) if days.is_empty() => days.push(own),
        Some(false) if days.is_empty() => days.extend(Weekday::ALL),
        Some(_) => {}
        None => return Err("its rule does not say how often (FREQ)".into()),
    }
    days.sort();
    days.dedup();
    if weekly == Some(false) && interval > 1 {
        return Err("it recurs every few days, which is no weekly lesson".into());
    }
    let every_weeks = u8::try_from(interval)
        .ok()
        .filter(|n| *n <= 52)
        .ok_or_else(|| {
            format!("it comes every {interval} weeks; at most every 52 are taken over")
        })?;
    let Some(first) = days.iter().position(|day| *day == own) else {
        return Err("it begins on a day that its rule does not name".into());
    };
    if every_weeks > 1 && week_from_sunday && days.len() > 1 && days.contains(&Weekday::Sun) {
        return Err(
            "its weeks begin on Sunday and it is on Sundays and other days of every few weeks"
                .into(),
        );
    }
    let by_count = count.and_then(|count| last_of(count, start.date(), &days, first, every_weeks));
    let by_date = until.map(|until| match until {
        Moment::Day(date) => date,
        Moment::Wall(at) => not_after(start, at),
        Moment::Utc(at) => not_after(start, zone.civil(Zone::utc().instant(at))),
    });
    Ok(Rhythm {
        days,
        every_weeks,
        until: match (by_count, by_date) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
    })
}

/// The last day on which the bell is not after `end`.
fn not_after(start: DateTime, end: DateTime) -> Date {
    if start.time() <= end.time() {
        end.date()
    } else {
        plus_days(end.date(), -1)
    }
}

/// The day of the last of `count` occurrences; `None` when that is beyond the calendar.
fn last_of(count: u64, start: Date, days: &[Weekday], first: usize, every: u8) -> Option<Date> {
    let place = (first as u64).checked_add(count - 1)?;
    let (weeks, day) = (place / days.len() as u64, place % days.len() as u64);
    let weeks = weeks
        .checked_mul(u64::from(every))
        .filter(|w| *w < 400_000)?;
    let day = days.get(day as usize)?;
    Some(plus_days(
        monday(start),
        weeks as i64 * 7 + i64::from(day.index()),
    ))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
