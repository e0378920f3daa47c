//! A time of day and a day of the week, as people write them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A time of day, to the minute: `08:10`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Clock(u16);

impl Clock {
    /// Midnight.
    pub const MIDNIGHT: Clock = Clock(0);

    /// Of minutes since midnight; `None`: there is no such minute.
    pub fn of_minute(minute: u16) -> Option<Clock> {
        (minute < 1440).then_some(Clock(minute))
    }

    /// Minutes since midnight, 0 to 1439.
    pub fn minute(self) -> u16 {
        self.0
    }

    /// Minutes from here to `end`, which is on the next day when it is not later than this; 1 to 1440.
    pub fn until(self, end: Clock) -> u16 {
        if end.0 > self.0 {
            end.0 - self.0
        } else {
            1440 - self.0 + end.0
        }
    }

    /// The time of day some minutes later.
    pub fn plus(self, minutes: u16) -> Clock {
        Clock(((u32::from(self.0) + u32::from(minutes)) % 1440) as u16)
    }

    pub(crate) fn time(self) -> jiff::civil::Time {
        jiff::civil::Time::new((self.0 / 60) as i8, (self.0 % 60) as i8, 0, 0)
            .unwrap_or(jiff::civil::Time::midnight())
    }

    pub(crate) fn of_time(time: jiff::civil::Time) -> Clock {
        Clock(time.hour() as u16 * 60 + time.minute() as u16)
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl FromStr for Clock {
    type Err = String;
    fn from_str(text: &str) -> Result<Clock, String> {
        let two = |part: &str| -> Option<u16> {
            (part.len() <= 2 && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())?
        };
        text.split_once(':')
            .and_then(|(h, m)| Some((two(h)?, two(m)?)))
            .filter(|(h, m)| *h < 24 && *m < 60)
            .map(|(h, m)| Clock(h * 60 + m))
            .ok_or_else(|| {
                let text: String = text.chars().take(40).collect();
                format!("{text:?} is no time of day: write for example 08:10")
            })
    }
}

impl TryFrom<String> for Clock {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Clock> for String {
    fn from(clock: Clock) -> String {
        clock.to_string()
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // They are what they are called.
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All, from Monday on.
    pub const ALL: [Weekday; 7] = [
        Weekday::Mon,
        Weekday::Tue,
        Weekday::Wed,
        Weekday::Thu,
        Weekday::Fri,
        Weekday::Sat,
        Weekday::Sun,
    ];

    /// 0 is Monday.
    pub fn index(self) -> u8 {
        self as u8
    }

    /// Of a day.
    pub fn of(date: jiff::civil::Date) -> Weekday {
        Weekday::ALL[date.weekday().to_monday_zero_offset() as usize % 7]
    }

    /// `mon`, `tue`, ...
    pub fn as_str(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self.index() as usize]
    }
}

impl fmt::Display for Weekday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Weekday {
    type Err = String;
    fn from_str(text: &str) -> Result<Weekday, String> {
        Weekday::ALL
            .into_iter()
            .find(|day| day.as_str() == text)
            .ok_or_else(|| {
                let text: String = text.chars().take(40).collect();
                format!("{text:?} is no day: write mon, tue, wed, thu, fri, sat or sun")
            })
    }
}
