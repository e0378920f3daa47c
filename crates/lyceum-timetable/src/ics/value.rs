//! Dates, times, lengths.

use jiff::civil::{Date, DateTime, Time};

/// What a `DATE` or `DATE-TIME` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Moment {
    /// A whole day.
    Day(Date),
    /// On the clock of its parameter, or the school's.
    Wall(DateTime),
    /// Universal time.
    Utc(DateTime),
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

fn day(text: &str) -> Option<Date> {
    if text.len() != 8 || !text.is_ascii() {
        return None;
    }
    let (y, m, d) = (
        digits(&text[..4])?,
        digits(&text[4..6])?,
        digits(&text[6..])?,
    );
    Date::new(y as i16, m as i8, d as i8).ok()
}

/// `20261123`, `20261123T081000`, `20261123T001000Z`.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || {
        format!(
            "{:?} is no date or time of a calendar (like 20261123T081000)",
            text.chars().take(40).collect::<String>()
        )
    };
    let text = text.trim();
    let Some((date, time)) = text.split_once('T') else {
        return day(text).map(Moment::Day).ok_or_else(wrong);
    };
    let date = day(date).ok_or_else(wrong)?;
    let (time, utc) = match time.strip_suffix('Z') {
        Some(time) => (time, true),
        None => (time, false),
    };
    if time.len() != 6 || !time.is_ascii() {
        return Err(wrong());
    }
    let parts = [&time[..2], &time[2..4], &time[4..]].map(digits);
    let [Some(h), Some(m), Some(s)] = parts else {
        return Err(wrong());
    };
    // 60 is a leap second.
    let time = Time::new(h as i8, m as i8, s.min(59) as i8, 0).map_err(|_| wrong())?;
    let at = date.to_datetime(time);
    Ok(if utc {
        Moment::Utc(at)
    } else {
        Moment::Wall(at)
    })
}

/// `PT1H50M`, `P1D`, in minutes, rounded up.
pub(super) fn minutes(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "{:?} is no length of a lesson (like PT1H50M)",
            text.chars().take(40).collect::<String>()
        )
    };
    let rest = text.trim().strip_prefix('P').ok_or_else(wrong)?;
    let mut seconds: i64 = 0;
    let mut number = String::new();
    let mut time = false;
    for c in rest.chars() {
        let unit = match c {
            '0'..='9' if number.len() < 6 => {
                number.push(c);
                continue;
            }
            'T' if number.is_empty() && !time => {
                time = true;
                continue;
            }
            'W' if !time => 7 * 86_400,
            'D' if !time => 86_400,
            'H' if time => 3600,
            'M' if time => 60,
            'S' if time => 1,
            _ => return Err(wrong()),
        };
        seconds += digits(&number).ok_or_else(wrong)? * unit;
        number.clear();
    }
    if !number.is_empty() || seconds == 0 {
        return Err(wrong());
    }
    Ok((seconds + 59) / 60)
}
