//! What is rehearsed.

use crate::controller::Rule;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// What a scenario contradicts itself in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct Bad {
    /// Where, for example `courses[2].periods[0]`.
    pub place: String,
    /// What is wrong with it and what to do.
    pub why: String,
}

impl Bad {
    pub(crate) fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Bad {
            place: place.into(),
            why: why.into(),
        }
    }
}

/// A school for some weeks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// How long, weeks.
    pub weeks: u32,
    /// The same seed gives the same school.
    pub seed: u64,
    /// What is compared.
    pub policies: Vec<Rule>,
    /// The hosts, all alike.
    pub hosts: Hosts,
    /// The courses.
    pub courses: Vec<Course>,
    /// Its days.
    pub calendar: Calendar,
    /// Who comes outside of class.
    pub self_study: SelfStudy,
    /// What breaks.
    pub failures: Failures,
    /// Seats that are kept free for whoever comes unannounced; fewer than half of it switches a host on.
    pub spare_seats: u32,
    /// Desktops are started this long before the bell, minutes.
    pub start_before_minutes: u32,
    /// The paper's thresholds: off, on.
    pub paper_thresholds: (u32, u32),
}

/// The hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hosts {
    /// How many.
    pub count: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Of that, not for desktops, MiB.
    pub reserved_mib: u64,
    /// Most desktops on one.
    pub seats: u32,
    /// Cores.
    pub cpu_cores: f64,
    /// Drawn while on, watts.
    pub watts: f64,
    /// Drawn while off, watts.
    pub watts_off: f64,
    /// From the order until it takes desktops, minutes.
    pub boot_minutes: u32,
    /// One desktop's start, seconds.
    pub start_seconds: f64,
    /// Desktops that one host starts at the same time.
    pub starts_at_once: u32,
    /// One move, seconds.
    pub move_seconds: f64,
    /// Moves that run at the same time in the whole classroom.
    pub moves_at_once: u32,
    /// Memory of a desktop, MiB.
    pub desktop_mib: u64,
    /// Of that, what it takes for itself while it shares its release's memory, MiB.
    pub desktop_private_mib: u64,
}

/// A course.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// Its name.
    pub name: String,
    /// Students on its roster.
    pub students: u32,
    /// When it meets, for example `mon 08:10-10:00`.
    pub periods: Vec<Period>,
}

/// A school's days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calendar {
    /// The time zone, for example `Europe/Berlin`.
    pub zone: String,
    /// The day on which the scenario begins, a Monday.
    pub first_day: Date,
    /// Days without lessons.
    pub holidays: Vec<Holiday>,
    /// The text of an iCalendar file with more lessons; an event's title is the name of its course.
    pub ics: String,
}

/// Days without lessons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holiday {
    /// What they are called.
    pub name: String,
    /// First day.
    pub first: Date,
    /// Last day, in it.
    pub last: Date,
}

impl Default for Calendar {
    /// A time without holidays and without clock changes.
    fn default() -> Self {
        Calendar {
            zone: "UTC".into(),
            first_day: jiff::civil::date(2024, 1, 1),
            holidays: Vec::new(),
            ics: String::new(),
        }
    }
}

/// When a course meets, every week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    /// The bell, minutes since Monday 00:00.
    pub begin: u32,
    /// The end, minutes since Monday 00:00.
    pub end: u32,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
pub(crate) const DAY: u32 = 24 * 60;
pub(crate) const WEEK: u32 = 7 * DAY;

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no period; write for example \"mon 08:10-10:00\"");
        let (day, times) = text.split_once(' ').ok_or_else(wrong)?;
        let (begin, end) = times.split_once('-').ok_or_else(wrong)?;
        let day = DAYS.iter().position(|d| *d == day).ok_or_else(wrong)? as u32;
        let minute = |clock: &str| -> Option<u32> {
            let (h, m) = clock.split_once(':')?;
            let (h, m): (u32, u32) = (h.parse().ok()?, m.parse().ok()?);
            (h < 24 && m < 60).then_some(day * DAY + h * 60 + m)
        };
        let period = Period {
            begin: minute(begin).ok_or_else(wrong)?,
            end: minute(end).ok_or_else(wrong)?,
        };
        if period.begin < period.end {
            Ok(period)
        } else {
            Err(format!("{text:?} ends before it begins"))
        }
    }
}

impl From<Period> for String {
    fn from(p: Period) -> String {
        let clock = |m: u32| format!("{:02}:{:02}", m % DAY / 60, m % 60);
        let day = DAYS[(p.begin / DAY) as usize % 7];
        format!("{day} {}-{}", clock(p.begin), clock(p.end))
    }
}

/// Who comes outside of class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfStudy {
    /// Sessions that begin per hour on a school day between 8 and 22 o'clock.
    pub per_hour: f64,
    /// The same at night and at the weekend.
    pub per_hour_quiet: f64,
    /// Median of how long they last, minutes; some last very long.
    pub median_minutes: f64,
}

/// What breaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failures {
    /// Hours a host runs between two failures, on average; 0: never fails.
    pub hours_between: f64,
    /// How long it is away then, minutes.
    pub repair_minutes: u32,
    /// How often a host that is switched on does not come up.
    pub no_boot: f64,
}

impl Default for Hosts {
    fn default() -> Self {
        Hosts {
            count: 40,
            memory_mib: 65_536,
            reserved_mib: 4096,
            seats: 30,
            cpu_cores: 16.0,
            watts: 130.0,
            watts_off: 3.0,
            boot_minutes: 3,
            start_seconds: 1.0,
            starts_at_once: 2,
            move_seconds: 2.0,
            moves_at_once: 4,
            desktop_mib: 2048,
            desktop_private_mib: 256,
        }
    }
}

impl Default for SelfStudy {
    fn default() -> Self {
        SelfStudy {
            per_hour: 25.0,
            per_hour_quiet: 2.0,
            median_minutes: 50.0,
        }
    }
}

impl Default for Failures {
    fn default() -> Self {
        Failures {
            hours_between: 2000.0,
            repair_minutes: 120,
            no_boot: 0.01,
        }
    }
}

impl Default for Scenario {
    /// A school of 1,000 students with 40 hosts, one week.
    fn default() -> Self {
        let mut courses = Vec::new();
        // Twenty courses of fifty in four double periods a day. How many meet at once differs over
        // the week as it does in a school: up to sixteen, 800 students.
        const BELLS: [(u32, u32); 4] = [(490, 600), (610, 720), (790, 900), (910, 1020)];
        const AT_ONCE: [[u32; 4]; 5] = [
            [8, 14, 12, 8],
            [10, 16, 12, 6],
            [8, 12, 6, 2],
            [10, 14, 12, 8],
            [8, 10, 6, 2],
        ];
        for c in 0..20u32 {
            let mut periods = Vec::new();
            for (day, slots) in (0u32..).zip(AT_ONCE) {
                for ((slot, at_once), (begin, end)) in (0u32..).zip(slots).zip(BELLS) {
                    // Multiplying by 7 makes every 20 courses a permutation: exactly so many meet.
                    if (c * 7 + (day * 4 + slot) * 3) % 20 < at_once {
                        periods.push(Period {
                            begin: day * DAY + begin,
                            end: day * DAY + end,
                        });
                    }
                }
            }
            courses.push(Course {
                name: format!("course {}", c + 1),
                students: 50,
                periods,
            });
        }
        Scenario {
            name: "a school week".into(),
            weeks: 1,
            seed: 1,
            policies: vec![Rule::None, Rule::Paper, Rule::Ours],
            hosts: Hosts::default(),
            courses,
            calendar: Calendar::default(),
            self_study: SelfStudy::default(),
            failures: Failures::default(),
            spare_seats: 30,
            start_before_minutes: 5,
            paper_thresholds: (18, 6),
        }
    }
}

impl Scenario {
    /// Students of all courses.
    pub fn students(&self) -> u32 {
        self.courses
            .iter()
            .map(|c| c.students)
            .fold(0, u32::saturating_add)
    }

    /// Minutes in all.
    pub(crate) fn minutes(&self) -> u32 {
        self.weeks * WEEK
    }

    /// Whether it can be played.
    pub fn check(&self) -> Result<(), Bad> {
        let h = &self.hosts;
        if !(1..=520).contains(&self.weeks) {
            return Err(Bad::new("weeks", "give 1 to 520"));
        }
        if !(1..=5000).contains(&h.count) {
            return Err(Bad::new("hosts.count", "give 1 to 5000"));
        }
        if self.students() > 200_000 {
            return Err(Bad::new("courses", "no more than 200,000 students"));
        }
        if self.policies.is_empty() {
            return Err(Bad::new("policies", "name at least one"));
        }
        if h.reserved_mib >= h.memory_mib || h.memory_mib > 1 << 40 {
            return Err(Bad::new(
                "hosts.memory_mib",
                "must be more than hosts.reserved_mib and at most 2^40",
            ));
        }
        if h.desktop_mib == 0 || h.desktop_private_mib > h.desktop_mib {
            return Err(Bad::new(
                "hosts.desktop_private_mib",
                "must be at most hosts.desktop_mib, and that at least 1",
            ));
        }
        if h.starts_at_once == 0 || h.moves_at_once == 0 || h.boot_minutes > 600 {
            return Err(Bad::new(
                "hosts",
                "starts_at_once and moves_at_once are 1 or more, boot_minutes 600 or less",
            ));
        }
        let (off, on) = self.paper_thresholds;
        if on > off {
            return Err(Bad::new(
                "paper_thresholds",
                "the first (off) must not be below the second (on)",
            ));
        }
        for (place, value, least, most) in [
            ("hosts.cpu_cores", h.cpu_cores, 0.1, 1e5),
            ("hosts.watts", h.watts, 0.0, 1e6),
            ("hosts.watts_off", h.watts_off, 0.0, 1e6),
            ("hosts.start_seconds", h.start_seconds, 0.0, 3600.0),
            ("hosts.move_seconds", h.move_seconds, 0.0, 3600.0),
            (
                "self_study.per_hour",
                self.self_study.per_hour,
                0.0,
                30_000.0,
            ),
            (
                "self_study.per_hour_quiet",
                self.self_study.per_hour_quiet,
                0.0,
                30_000.0,
            ),
            (
                "self_study.median_minutes",
                self.self_study.median_minutes,
                1.0,
                10_000.0,
            ),
            (
                "failures.hours_between",
                self.failures.hours_between,
                0.0,
                1e9,
            ),
            ("failures.no_boot", self.failures.no_boot, 0.0, 0.9),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Bad::new(
                    place,
                    format!("is {value}; give {least} to {most}"),
                ));
            }
        }
        Ok(())
    }
}
