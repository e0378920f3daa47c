//! Components, and lessons out of events.

use super::line::Line;
use super::rule::{Rhythm, rhythm};
use super::value::{Moment, minutes, moment};
use super::{Calendar, Found, IcsError, MAX_DATES, MAX_EVENTS, MAX_LESSONS, Problem, windows};
use crate::clock::{Clock, Weekday};
use crate::lesson::{Exception, Lesson, Span, When};
use crate::zone::{Zone, days_between, plus_days};
use jiff::civil::{Date, DateTime};
use std::collections::{BTreeMap, HashMap, HashSet};

/// An event's lines.
pub(super) struct Event {
    number: usize,
    lines: Vec<Line>,
}

/// What of a file matters.
pub(super) struct Components {
    pub events: Vec<Event>,
    /// Names of zones, and where they say they are.
    places: HashMap<String, String>,
}

/// Sorts lines into components.
pub(super) fn components(lines: Vec<Line>) -> Result<Components, IcsError> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut out = Components {
        events: Vec::new(),
        places: HashMap::new(),
    };
    let (mut zone, mut place) = (None, None);
    let mut calendars = 0;
    let last = lines.last().map_or(1, |l| l.number);
    for line in lines {
        match line.name.as_str() {
            "BEGIN" => {
                let kind = line.value.trim().to_ascii_uppercase();
                if open.is_empty() && kind != "VCALENDAR" {
                    return Err(line.error("a calendar begins with BEGIN:VCALENDAR"));
                }
                if open.len() >= 8 {
                    return Err(line.error("its parts are nested too deeply"));
                }
                match (open.len(), kind.as_str()) {
                    (0, _) => calendars += 1,
                    (1, "VEVENT") => {
                        if out.events.len() >= MAX_EVENTS {
                            return Err(line.error(format!(
                                "there are more than {MAX_EVENTS} events: export a shorter time"
                            )));
                        }
                        out.events.push(Event {
                            number: line.number,
                            lines: Vec::new(),
                        });
                    }
                    (1, "VTIMEZONE") => (zone, place) = (None, None),
                    _ => {}
                }
                open.push((line.number, kind));
            }
            "END" => {
                let kind = line.value.trim().to_ascii_uppercase();
                match open.pop() {
                    Some((_, begun)) if begun == kind => {}
                    Some((number, begun)) => {
                        return Err(line.error(format!(
                            "END:{} comes where the {begun} of line {number} should end",
                            kind.chars().take(40).collect::<String>()
                        )));
                    }
                    None => return Err(line.error("something ends here that has not begun")),
                }
                if kind == "VTIMEZONE"
                    && let (Some(zone), Some(place)) = (zone.take(), place.take())
                {
                    out.places.insert(zone, place);
                }
            }
            _ => match open.as_slice() {
                [] => {
                    return Err(line.error("a calendar begins with BEGIN:VCALENDAR"));
                }
                [_, (_, kind)] if kind == "VEVENT" => {
                    if let Some(event) = out.events.last_mut() {
                        event.lines.push(line);
                    }
                }
                [_, (_, kind)] if kind == "VTIMEZONE" => match line.name.as_str() {
                    "TZID" => zone = Some(line.value.trim().to_owned()),
                    "X-LIC-LOCATION" => place = Some(line.value.trim().to_owned()),
                    _ => {}
                },
                // Alarms and the like.
                _ => {}
            },
        }
    }
    if let Some((number, kind)) = open.last() {
        return Err(IcsError {
            line: last,
            why: format!("the file ends before the {kind} of line {number} does: is it whole?"),
        });
    }
    if calendars == 0 {
        return Err(IcsError {
            line: 1,
            why: "this is no calendar: it does not begin with BEGIN:VCALENDAR".into(),
        });
    }
    Ok(out)
}

/// What an event says, before exceptions are joined to what they are exceptions of.
struct Said {
    number: usize,
    uid: String,
    summary: String,
    room: Option<String>,
    start: DateTime,
    minutes: u16,
    zone: Option<Zone>,
    rhythm: Option<Rhythm>,
    not_on: Vec<Date>,
    also: Vec<DateTime>,
    cancelled: bool,
    /// The day of the occurrence that this one stands for.
    instead: Option<Instead>,
}

#[derive(Clone, Copy)]
enum Instead {
    Day(Date),
    Wall(DateTime),
    /// An instant.
    At(i64),
}

enum Kind {
    Lesson(Box<Said>),
    Days(Span),
    Nothing,
}

/// A file that is being read.
pub(super) struct Reading<'a> {
    school: &'a Zone,
    places: &'a HashMap<String, String>,
    dates: usize,
    out: Calendar,
}

impl<'a> Reading<'a> {
    pub fn new(school: &'a Zone, components: &'a Components) -> Self {
        Reading {
            school,
            places: &components.places,
            dates: 0,
            out: Calendar::default(),
        }
    }

    pub fn calendar(mut self, events: &[Event]) -> Calendar {
        let mut said = Vec::new();
        for event in events {
            let summary = event
                .get("SUMMARY")
                .map(|l| limited(&l.text(), 200))
                .unwrap_or_default();
            match self.event(event, &summary) {
                Ok(Kind::Lesson(lesson)) => said.push(*lesson),
                Ok(Kind::Days(span)) => self.out.days.push(span),
                Ok(Kind::Nothing) => {}
                Err((line, why)) => self.out.problems.push(Problem { line, summary, why }),
            }
        }
        let (exceptions, masters): (Vec<Said>, Vec<Said>) =
            said.into_iter().partition(|s| s.instead.is_some());
        let mut of_uid: HashMap<String, Vec<Said>> = HashMap::new();
        for exception in exceptions {
            of_uid
                .entry(exception.uid.clone())
                .or_default()
                .push(exception);
        }
        for master in masters {
            let exceptions = of_uid.remove(&master.uid).unwrap_or_default();
            self.lessons(master, exceptions);
        }
        // What they are exceptions of is not in the file: they stand for themselves.
        let mut alone: Vec<Said> = of_uid.into_values().flatten().collect();
        alone.sort_by_key(|s| s.number);
        for mut single in alone {
            if !single.cancelled {
                single.uid = format!("{}/{}", single.uid, single.start.date());
                single.instead = None;
                self.lessons(single, Vec::new());
            }
        }
        self.out.lessons.sort_by_key(|l| l.line);
        self.out.problems.sort_by_key(|p| p.line);
        self.out
    }

    fn event(&mut self, event: &Event, summary: &str) -> Result<Kind, (usize, String)> {
        let start = event.get("DTSTART").ok_or((
            event.number,
            "it does not say when it begins (DTSTART)".into(),
        ))?;
        let cancelled = event
            .get("STATUS")
            .is_some_and(|l| l.value.trim().eq_ignore_ascii_case("CANCELLED"));
        let instead = event.get("RECURRENCE-ID");
        for (name, what) in [("EXRULE", "a rule of exceptions")] {
            if let Some(line) = event.get(name) {
                return Err((
                    line.number,
                    format!("it has {what}, which is not taken over"),
                ));
            }
        }
        if event.all("RRULE").count() > 1 {
            return Err((event.number, "it has more than one rule".into()));
        }
        let (begins, zone) = match self.moment(start, &start.value)? {
            (Moment::Day(first), _) => {
                return self.days(event, summary, first, cancelled);
            }
            (Moment::Wall(at), zone) => (at, zone),
            (Moment::Utc(at), _) => (at, Some(Zone::utc())),
        };
        // Those who cancel a whole event leave it in the file like that.
        if cancelled && instead.is_none() {
            return Ok(Kind::Nothing);
        }
        let clock = zone.as_ref().unwrap_or(self.school).clone();
        let lasts = match (event.get("DTEND"), event.get("DURATION")) {
            (Some(end), _) => {
                let ends = self.wall(end, &end.value, &clock)?;
                // On the wall clock, as lessons are.
                let seconds = begins.duration_until(ends).as_secs();
                ((seconds + 59) / 60, end.number)
            }
            (None, Some(line)) => (
                minutes(&line.value).map_err(|why| (line.number, why))?,
                line.number,
            ),
            (None, None) => {
                return Err((
                    event.number,
                    "it does not say when it ends (DTEND or DURATION)".into(),
                ));
            }
        };
        let minutes = u16::try_from(lasts.0)
            .ok()
            .filter(|m| (1..=1440).contains(m))
            .ok_or((
                lasts.1,
                format!("it lasts {} minutes; a lesson lasts 1 to 1440", lasts.0),
            ))?;
        let rhythm = event
            .get("RRULE")
            .map(|l| rhythm(&l.value, begins, &clock).map_err(|why| (l.number, why)))
            .transpose()?;
        let mut not_on = Vec::new();
        for line in event.all("EXDATE") {
            for value in line.value.split(',') {
                self.count(line)?;
                not_on.push(match self.moment(line, value)? {
                    (Moment::Day(date), _) => date,
                    _ => self.wall(line, value, &clock)?.date(),
                });
            }
        }
        let mut also = Vec::new();
        for line in event.all("RDATE") {
            if line
                .parameter("VALUE")
                .is_some_and(|v| v.eq_ignore_ascii_case("PERIOD"))
            {
                return Err((line.number, "its additional dates are periods".into()));
            }
            for value in line.value.split(',') {
                self.count(line)?;
                also.push(match self.moment(line, value)? {
                    (Moment::Day(date), _) => date.to_datetime(begins.time()),
                    _ => self.wall(line, value, &clock)?,
                });
            }
        }
        let instead = match instead {
            None => None,
            Some(line) if line.parameter("RANGE").is_some() => {
                return Err((
                    line.number,
                    "it changes all that come after (RANGE), which is not taken over".into(),
                ));
            }
            Some(line) => Some(match self.moment(line, &line.value)? {
                (Moment::Day(date), _) => Instead::Day(date),
                (Moment::Utc(at), _) => Instead::At(Zone::utc().instant(at)),
                (Moment::Wall(at), Some(zone)) => Instead::At(zone.instant(at)),
                (Moment::Wall(at), None) => Instead::Wall(at),
            }),
        };
        let uid = event
            .get("UID")
            .map(|l| limited(&l.text(), 200))
            .filter(|uid| !uid.is_empty())
            // Without a name of its own it is known by what it says.
            .unwrap_or_else(|| format!("{summary}/{begins}"));
        Ok(Kind::Lesson(Box::new(Said {
            number: event.number,
            uid,
            summary: summary.to_owned(),
            room: event
                .get("LOCATION")
                .map(|l| limited(&l.text(), 80))
                .filter(|room| !room.is_empty()),
            start: begins,
            minutes,
            // The school's own clock is not worth a word.
            zone: zone.filter(|z| z != self.school),
            rhythm,
            not_on,
            also,
            cancelled,
            instead,
        })))
    }

    fn count(&mut self, line: &Line) -> Result<(), (usize, String)> {
        self.dates += 1;
        if self.dates > MAX_DATES {
            return Err((
                line.number,
                format!("the file has more than {MAX_DATES} dates in lists"),
            ));
        }
        Ok(())
    }

    /// A holiday.
    fn days(
        &self,
        event: &Event,
        summary: &str,
        first: Date,
        cancelled: bool,
    ) -> Result<Kind, (usize, String)> {
        if cancelled {
            return Ok(Kind::Nothing);
        }
        if let Some(line) = event.get("RRULE").or(event.get("RDATE")) {
            return Err((
                line.number,
                "it is a whole day that recurs: enter it as a holiday for each year".into(),
            ));
        }
        let last = match (event.get("DTEND"), event.get("DURATION")) {
            (Some(end), _) => match self.moment(end, &end.value)?.0 {
                // The end is not in it.
                Moment::Day(end) => plus_days(end, -1).max(first),
                _ => {
                    return Err((
                        end.number,
                        "it begins with a day and ends with a time".into(),
                    ));
                }
            },
            (None, Some(line)) => {
                let length = minutes(&line.value).map_err(|why| (line.number, why))?;
                plus_days(first, (length / 1440 - 1).max(0))
            }
            (None, None) => first,
        };
        if days_between(first, last) > 400 {
            return Err((event.number, "it lasts longer than a year".into()));
        }
        Ok(Kind::Days(Span {
            name: summary.to_owned(),
            first,
            last,
        }))
    }

    /// A value with the zone of its line.
    fn moment(&self, line: &Line, value: &str) -> Result<(Moment, Option<Zone>), (usize, String)> {
        let moment = moment(value).map_err(|why| (line.number, why))?;
        let zone = match (moment, line.parameter("TZID")) {
            (Moment::Wall(_), Some(name)) => {
                Some(self.zone(name).map_err(|why| (line.number, why))?)
            }
            _ => None,
        };
        Ok((moment, zone))
    }

    /// A value as the wall clock `on` shows it.
    fn wall(&self, line: &Line, value: &str, on: &Zone) -> Result<DateTime, (usize, String)> {
        Ok(match self.moment(line, value)? {
            (Moment::Day(_), _) => {
                return Err((line.number, "it names a day where a time has to be".into()));
            }
            (Moment::Wall(at), None) => at,
            (Moment::Wall(at), Some(zone)) if zone == *on => at,
            (Moment::Wall(at), Some(zone)) => on.civil(zone.instant(at)),
            (Moment::Utc(at), _) => on.civil(Zone::utc().instant(at)),
        })
    }

    fn zone(&self, name: &str) -> Result<Zone, String> {
        let name = name.trim();
        // Some programs put a path of their own before it.
        let tail = |parts: usize| {
            let mut all: Vec<&str> = name.rsplit('/').take(parts).collect();
            all.reverse();
            all.join("/")
        };
        Zone::named(name)
            .or_else(|_| Zone::named(windows::iana(name).unwrap_or("?")))
            .or_else(|_| Zone::named(self.places.get(name).map_or("?", String::as_str)))
            .or_else(|e| {
                if !name.starts_with('/') {
                    return Err(e);
                }
                Zone::named(&tail(3)).or_else(|_| Zone::named(&tail(2)))
            })
            .map_err(|_| {
                format!(
                    "there is no time zone {:?}",
                    name.chars().take(80).collect::<String>()
                )
            })
    }

    fn lessons(&mut self, said: Said, exceptions: Vec<Said>) {
        let many = said.also.len() + said.rhythm.as_ref().map_or(1, |r| r.days.len());
        if self.out.lessons.len() + many > MAX_LESSONS {
            self.problem(
                &said,
                format!("the file makes more than {MAX_LESSONS} lessons: export a shorter time"),
            );
            return;
        }
        let clock = said.zone.as_ref().unwrap_or(self.school).clone();
        let mut changes: BTreeMap<Date, Exception> = said
            .not_on
            .iter()
            .map(|date| (*date, Exception::Cancelled))
            .collect();
        for e in &exceptions {
            let on = e.zone.as_ref().unwrap_or(self.school);
            let date = match e.instead {
                Some(Instead::Day(date)) => date,
                Some(Instead::Wall(at)) => at.date(),
                Some(Instead::At(at)) => clock.date(at),
                None => continue,
            };
            let change = if e.cancelled {
                Exception::Cancelled
            } else {
                let begin = if *on == clock {
                    e.start
                } else {
                    clock.civil(on.instant(e.start))
                };
                Exception::Moved {
                    date: begin.date(),
                    begin: Clock::of_time(begin.time()),
                    minutes: e.minutes,
                    room: e.room.clone().filter(|r| said.room.as_ref() != Some(r)),
                }
            };
            changes.insert(date, change);
        }
        let one = |uid: String, at: DateTime, when: When, exceptions| Found {
            line: said.number,
            uid: uid.clone(),
            summary: said.summary.clone(),
            lesson: Lesson {
                id: uid,
                course: said.summary.clone(),
                room: said.room.clone(),
                title: String::new(),
                when,
                begin: Clock::of_time(at.time()),
                minutes: said.minutes,
                zone: said.zone.clone(),
                exceptions,
            },
        };
        let mut made = Vec::new();
        match &said.rhythm {
            Some(rhythm) => {
                for weekday in &rhythm.days {
                    let exceptions: BTreeMap<Date, Exception> = changes
                        .iter()
                        .filter(|(date, _)| Weekday::of(**date) == *weekday)
                        .map(|(date, change)| (*date, change.clone()))
                        .collect();
                    let when = When::Weekly {
                        weekday: *weekday,
                        every_weeks: rhythm.every_weeks,
                        from: Some(said.start.date()),
                        until: rhythm.until.map(|until| until.max(said.start.date())),
                    };
                    let uid = match rhythm.days.len() {
                        1 => said.uid.clone(),
                        _ => format!("{}/{weekday}", said.uid),
                    };
                    let mut lesson = one(uid, said.start, when, exceptions).lesson;
                    lesson.exceptions.retain({
                        let plain = Lesson {
                            exceptions: BTreeMap::new(),
                            ..lesson.clone()
                        };
                        move |date, _| plain.names(*date)
                    });
                    made.push(Found {
                        line: said.number,
                        uid: lesson.id.clone(),
                        summary: said.summary.clone(),
                        lesson,
                    });
                }
            }
            None => {
                let date = said.start.date();
                match changes.get(&date) {
                    Some(Exception::Cancelled) => {}
                    Some(Exception::Moved { date, begin, .. }) => made.push(one(
                        said.uid.clone(),
                        date.to_datetime(begin.time()),
                        When::Once { date: *date },
                        BTreeMap::new(),
                    )),
                    None => made.push(one(
                        said.uid.clone(),
                        said.start,
                        When::Once { date },
                        BTreeMap::new(),
                    )),
                }
            }
        }
        let mut known: HashSet<String> = made.iter().map(|m: &Found| m.uid.clone()).collect();
        let by_rule = made.len();
        for at in &said.also {
            let (date, uid) = (at.date(), format!("{}/{}", said.uid, at.date()));
            // A date that the rule has anyway is not there twice.
            let there = at.time() == said.start.time()
                && made.iter().take(by_rule).any(|m| m.lesson.names(date));
            if !there
                && known.insert(uid.clone())
                && !matches!(changes.get(&date), Some(Exception::Cancelled))
            {
                made.push(one(uid, *at, When::Once { date }, BTreeMap::new()));
            }
        }
        for found in made {
            match found.lesson.check() {
                Ok(()) => self.out.lessons.push(found),
                Err(e) => self.out.problems.push(Problem {
                    line: said.number,
                    summary: said.summary.clone(),
                    why: e.0,
                }),
            }
        }
    }

    fn problem(&mut self, said: &Said, why: String) {
        self.out.problems.push(Problem {
            line: said.number,
            summary: said.summary.clone(),
            why,
        });
    }
}

impl Event {
    fn get(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|l| l.name == name)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |l| l.name == name)
    }
}

fn limited(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
