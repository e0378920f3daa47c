//! `lyceum timetable`: lessons, terms and holidays, and what the timetable does by itself.

use crate::context::Context;
use crate::exit::{self, Exit};
use crate::format::{dash, short, word};
use crate::resolve;
use crate::table::{Table, plain};
use clap::{Args, Subcommand, ValueEnum};
use lyceum_api::timetable::{
    CalendarFile, CourseTimetable, FileResult, Lesson, LessonEnd, LessonExceptionPut, LessonPut,
    Occurrence, SchoolDays, SchoolDaysKind, SchoolDaysPut, Timetable, TimetableNow, TimetableRules,
    TimetableRulesPatch, Week,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest calendar file, bytes; what the controller takes.
const LIMIT: u64 = 4 * 1024 * 1024;

/// The timetable.
#[derive(Debug, Subcommand)]
pub enum TimetableCommand {
    /// What takes place in a week
    Show {
        /// First day, like 2026-11-23; without it this week's Monday
        first: Option<String>,
        /// How many days
        #[arg(long, default_value_t = 7)]
        days: u16,
        /// Only this course
        #[arg(long)]
        course: Option<String>,
        /// Only this room
        #[arg(long)]
        room: Option<String>,
    },
    /// What is on, what comes next, and what is wanted of the hosts
    Now,
    /// Lessons with their ids
    Lessons {
        /// Only this course
        #[arg(long)]
        course: Option<String>,
    },
    /// Add a lesson: "mon 08:10-10:00", or once: "2026-12-24 08:10-10:00"
    Add {
        /// Course
        course: String,
        /// When
        when: String,
        /// Where
        #[arg(long)]
        room: Option<String>,
        /// What is written beside the course's title
        #[arg(long, default_value = "")]
        title: String,
        /// 2: every other week, counted from the week of --from
        #[arg(long, value_name = "N")]
        every_weeks: Option<u8>,
        /// Not before this day
        #[arg(long, value_name = "DAY")]
        from: Option<String>,
        /// Not after this day
        #[arg(long, value_name = "DAY")]
        until: Option<String>,
        /// On another clock than the school's
        #[arg(long)]
        zone: Option<String>,
    },
    /// Delete a lesson
    Remove {
        /// Its id, or the end of it
        lesson: String,
    },
    /// Cancel a lesson on one day
    Cancel {
        /// Its id, or the end of it
        lesson: String,
        /// The day
        day: String,
    },
    /// Move a lesson of one day: "2026-12-24 13:00-14:00"
    Move {
        /// Its id, or the end of it
        lesson: String,
        /// The day on which it would be
        day: String,
        /// When it is instead
        when: String,
        /// Where it is instead
        #[arg(long)]
        room: Option<String>,
    },
    /// Have a lesson take place on a day as always
    Restore {
        /// Its id, or the end of it
        lesson: String,
        /// The day
        day: String,
    },
    /// Terms and holidays
    #[command(subcommand)]
    Days(DaysCommand),
    /// Take over a calendar file (.ics)
    Import(ImportArgs),
    /// What the timetable does for a course; change what is given
    Course {
        /// Course
        course: String,
        /// Whether its desktops are started before the bell
        #[arg(long, value_name = "true|false")]
        starts: Option<bool>,
        /// What is done with them at the end
        #[arg(long)]
        at_end: Option<AtEnd>,
        /// How long those who are still connected keep theirs
        #[arg(long, value_name = "N")]
        grace_minutes: Option<u32>,
    },
    /// What the timetable does for the whole school; change what is given
    Rules(Box<RulesArgs>),
}

/// Terms and holidays.
#[derive(Debug, Subcommand)]
pub enum DaysCommand {
    /// All of them
    List,
    /// Add some
    Add {
        /// Which
        kind: DaysKind,
        /// What they are called
        name: String,
        /// First day
        first: String,
        /// Last day, in it; without it only the first
        last: Option<String>,
    },
    /// Delete some
    Remove {
        /// Their id, the end of it, or their name
        days: String,
    },
}

/// See [`SchoolDaysKind`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DaysKind {
    /// When there is school
    Term,
    /// When there is none
    Holiday,
}

/// See [`LessonEnd`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AtEnd {
    /// Saved with their windows open
    Suspend,
    /// As new the next time
    Reset,
    /// Stopped
    Stop,
    /// They go on
    Keep,
}

/// What to take over.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; - for standard input
    pub file: PathBuf,
    /// All its lessons are of this course; without it each is of the course with the title of its event
    #[arg(long)]
    pub course: Option<String>,
    /// An event's title that means a course
    #[arg(long = "map", value_name = "TITLE=COURSE")]
    pub maps: Vec<String>,
    /// Events of whole days become holidays
    #[arg(long)]
    pub holidays: bool,
    /// Delete lessons of these courses that an earlier file brought and this one does not have
    #[arg(long)]
    pub replace: bool,
    /// Take over the rest when some events can't be
    #[arg(long)]
    pub skip_problems: bool,
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// What can be changed.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// The school's time zone, like Asia/Taipei
    #[arg(long)]
    zone: Option<String>,
    /// Whether it starts and ends desktops at all
    #[arg(long, value_name = "true|false")]
    acts: Option<bool>,
    /// Desktops are started at least this long before the bell
    #[arg(long, value_name = "N")]
    lead_floor_minutes: Option<u32>,
    /// And at most this long
    #[arg(long, value_name = "N")]
    lead_ceiling_minutes: Option<u32>,
    /// Of what the slowest of the course's last starts took
    #[arg(long, value_name = "PERCENT")]
    lead_percent: Option<u32>,
    /// Hosts are wanted this long before desktops are started
    #[arg(long, value_name = "N")]
    hosts_before_minutes: Option<u32>,
    /// Class hours begin this long before a bell
    #[arg(long, value_name = "N")]
    class_before_minutes: Option<u32>,
    /// And end this long after a lesson
    #[arg(long, value_name = "N")]
    class_after_minutes: Option<u32>,
    /// A break that is not longer is in them
    #[arg(long, value_name = "N")]
    class_bridge_minutes: Option<u32>,
    /// How desktops are allocated in class hours; none: as the allocation's settings say
    #[arg(long, value_name = "MODE")]
    class_mode: Option<String>,
    /// And in other hours
    #[arg(long, value_name = "MODE")]
    other_mode: Option<String>,
}

/// `DAY BEGIN-END`.
fn when(text: &str) -> anyhow::Result<(&str, &str, &str)> {
    text.split_once(' ')
        .and_then(|(day, times)| {
            let (begin, end) = times.trim().split_once('-')?;
            Some((day, begin, end))
        })
        .ok_or_else(|| {
            Exit::usage(format!(
                "{text:?} is no time of a lesson: write \"mon 08:10-10:00\" or \"2026-12-24 08:10-10:00\""
            ))
        })
}

async fn all(ctx: &Context) -> anyhow::Result<Timetable> {
    Ok(ctx.client.get("timetable").await?)
}

async fn lesson(ctx: &Context, text: &str) -> anyhow::Result<Lesson> {
    let lessons = all(ctx).await?.lessons;
    resolve::pick(
        "lesson",
        text,
        lessons,
        |l| l.id.as_str(),
        |l| l.id.as_str(),
    )
}

/// Runs the command.
pub async fn run(ctx: &Context, command: TimetableCommand) -> anyhow::Result<()> {
    match command {
        TimetableCommand::Show {
            first,
            days,
            course,
            room,
        } => {
            let mut query = format!("timetable/week?days={days}");
            if let Some(first) = first {
                query.push_str(&format!("&first={}", crate::client::segment(&first)));
            }
            if let Some(course) = course {
                let course = resolve::course(&ctx.client, &course).await?;
                query.push_str(&format!("&course={}", course.id));
            }
            if let Some(room) = room {
                query.push_str(&format!("&room={}", crate::client::segment(&room)));
            }
            let week: Week = ctx.client.get(&query).await?;
            ctx.show(&week, week_text)
        }
        TimetableCommand::Now => {
            let now: TimetableNow = ctx.client.get("timetable/now").await?;
            ctx.show(&now, now_text)
        }
        TimetableCommand::Lessons { course } => {
            let mut lessons = all(ctx).await?.lessons;
            if let Some(course) = course {
                let course = resolve::course(&ctx.client, &course).await?;
                lessons.retain(|l| l.course == course.id);
            }
            ctx.show_table(&lessons, "no lessons", |lessons| lessons_table(lessons))
        }
        TimetableCommand::Add {
            course,
            when: text,
            room,
            title,
            every_weeks,
            from,
            until,
            zone,
        } => {
            let (day, begin, end) = when(&text)?;
            let once = day.starts_with(|c: char| c.is_ascii_digit());
            let course = resolve::course(&ctx.client, &course).await?;
            let body = LessonPut {
                course: course.id,
                title,
                room,
                weekday: (!once).then(|| day.to_lowercase()),
                date: once.then(|| day.to_owned()),
                begin: begin.to_owned(),
                end: end.to_owned(),
                every_weeks,
                from,
                until,
                zone,
            };
            let lesson: Lesson = ctx.client.post("timetable/lessons", &body).await?;
            ctx.done(&lesson, &format!("lesson {} is added", short(&lesson.id)))
        }
        TimetableCommand::Remove { lesson: text } => {
            let lesson = lesson(ctx, &text).await?;
            let _: Value = ctx
                .client
                .delete(&format!("timetable/lessons/{}", lesson.id))
                .await?;
            ctx.done(&json!({}), "the lesson is deleted")
        }
        TimetableCommand::Cancel { lesson, day } => {
            let body = LessonExceptionPut {
                cancelled: true,
                ..LessonExceptionPut::default()
            };
            except(ctx, &lesson, &day, &body).await?;
            ctx.done(&json!({}), &format!("it does not take place on {day}"))
        }
        TimetableCommand::Move {
            lesson,
            day,
            when: text,
            room,
        } => {
            let (to, begin, end) = when(&text)?;
            let body = LessonExceptionPut {
                cancelled: false,
                to_date: Some(to.to_owned()),
                begin: Some(begin.to_owned()),
                end: Some(end.to_owned()),
                room,
            };
            except(ctx, &lesson, &day, &body).await?;
            ctx.done(&json!({}), &format!("it takes place on {text} instead"))
        }
        TimetableCommand::Restore { lesson: text, day } => {
            let lesson = lesson(ctx, &text).await?;
            let _: Value = ctx.client.delete(&exception(&lesson, &day)).await?;
            ctx.done(&json!({}), &format!("it takes place on {day} as always"))
        }
        TimetableCommand::Days(command) => days(ctx, command).await,
        TimetableCommand::Import(args) => import(ctx, args).await,
        TimetableCommand::Course {
            course,
            starts,
            at_end,
            grace_minutes,
        } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let path = format!("courses/{}/timetable", course.id);
            let mut rules: CourseTimetable = ctx.client.get(&path).await?;
            let before = rules;
            rules.starts = starts.unwrap_or(rules.starts);
            rules.at_end = at_end.map_or(rules.at_end, |end| match end {
                AtEnd::Suspend => LessonEnd::Suspend,
                AtEnd::Reset => LessonEnd::Reset,
                AtEnd::Stop => LessonEnd::Stop,
                AtEnd::Keep => LessonEnd::Keep,
            });
            rules.grace_minutes = grace_minutes.unwrap_or(rules.grace_minutes);
            if rules != before {
                rules = ctx.client.put(&path, &rules).await?;
            }
            ctx.show(&rules, fields)
        }
        TimetableCommand::Rules(args) => {
            let patch = TimetableRulesPatch {
                zone: args.zone,
                acts: args.acts,
                lead_floor_minutes: args.lead_floor_minutes,
                lead_ceiling_minutes: args.lead_ceiling_minutes,
                lead_percent: args.lead_percent,
                hosts_before_minutes: args.hosts_before_minutes,
                class_before_minutes: args.class_before_minutes,
                class_after_minutes: args.class_after_minutes,
                class_bridge_minutes: args.class_bridge_minutes,
                class_mode: args.class_mode,
                other_mode: args.other_mode,
            };
            let nothing = serde_json::to_value(&patch)?
                .as_object()
                .is_some_and(|o| o.values().all(Value::is_null));
            let rules: TimetableRules = if nothing {
                all(ctx).await?.rules
            } else {
                ctx.client.patch("timetable/rules", &patch).await?
            };
            ctx.show(&rules, fields)
        }
    }
}

fn exception(lesson: &Lesson, day: &str) -> String {
    let day = crate::client::segment(day);
    format!("timetable/lessons/{}/exceptions/{day}", lesson.id)
}

async fn except(
    ctx: &Context,
    text: &str,
    day: &str,
    body: &LessonExceptionPut,
) -> anyhow::Result<()> {
    let lesson = lesson(ctx, text).await?;
    let _: Lesson = ctx.client.put(&exception(&lesson, day), body).await?;
    Ok(())
}

async fn days(ctx: &Context, command: DaysCommand) -> anyhow::Result<()> {
    match command {
        DaysCommand::List => {
            let days = all(ctx).await?.days;
            ctx.show_table(&days, "no terms and no holidays", |days| {
                let mut table = Table::new(&["KIND", "NAME", "FIRST", "LAST", "ID"]);
                for d in days {
                    table.row([
                        word(&d.kind),
                        d.name.clone(),
                        d.first.clone(),
                        d.last.clone(),
                        short(&d.id),
                    ]);
                }
                table
            })
        }
        DaysCommand::Add {
            kind,
            name,
            first,
            last,
        } => {
            let body = SchoolDaysPut {
                kind: match kind {
                    DaysKind::Term => SchoolDaysKind::Term,
                    DaysKind::Holiday => SchoolDaysKind::Holiday,
                },
                name,
                last: last.unwrap_or_else(|| first.clone()),
                first,
            };
            let days: SchoolDays = ctx.client.post("timetable/days", &body).await?;
            ctx.done(
                &days,
                &format!("{} is added: {} to {}", days.name, days.first, days.last),
            )
        }
        DaysCommand::Remove { days: text } => {
            let days = all(ctx).await?.days;
            let days = resolve::pick(
                "term or holiday",
                &text,
                days,
                |d| d.id.as_str(),
                |d| &d.name,
            )?;
            let _: Value = ctx
                .client
                .delete(&format!("timetable/days/{}", days.id))
                .await?;
            ctx.done(&json!({}), &format!("{} is deleted", days.name))
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let open = || -> std::io::Result<Box<dyn Read>> {
        Ok(match file.to_str() {
            Some("-") => Box::new(std::io::stdin()),
            _ => Box::new(std::fs::File::open(file)?),
        })
    };
    let mut text = Vec::new();
    open()
        .and_then(|from| from.take(LIMIT + 1).read_to_end(&mut text))
        .map_err(|e| Exit::usage(format!("{} can't be read: {e}", file.display())))?;
    if text.len() as u64 > LIMIT {
        return Err(Exit::usage(format!(
            "{} is larger than 4 MiB; export a shorter time",
            file.display()
        )));
    }
    String::from_utf8(text).map_err(|_| {
        Exit::usage(format!(
            "{} is not UTF-8, as calendar files are",
            file.display()
        ))
    })
}

async fn import(ctx: &Context, args: ImportArgs) -> anyhow::Result<()> {
    let mut courses = BTreeMap::new();
    for map in &args.maps {
        let (title, course) = map
            .split_once('=')
            .ok_or_else(|| Exit::usage(format!("--map is TITLE=COURSE, not {map:?}")))?;
        let course = resolve::course(&ctx.client, course.trim()).await?;
        courses.insert(title.trim().to_owned(), course.id);
    }
    let body = CalendarFile {
        ics: read(&args.file)?,
        course: match &args.course {
            Some(text) => Some(resolve::course(&ctx.client, text).await?.id),
            None => None,
        },
        courses,
        holidays: args.holidays,
        replace: args.replace,
        skip_problems: args.skip_problems,
    };
    let preview: FileResult = ctx.client.post("timetable/import/preview", &body).await?;
    let refused = !preview.problems.is_empty() && !args.skip_problems;
    if args.dry_run || refused {
        ctx.show(&preview, |result| file_text(result, true))?;
        return if refused {
            Err(Exit::silent(exit::REFUSED))
        } else {
            Ok(())
        };
    }
    let result: FileResult = ctx.client.post("timetable/import", &body).await?;
    ctx.show(&result, |result| file_text(result, false))
}

fn file_text(result: &FileResult, dry: bool) -> String {
    let mut table = Table::new(&["LINE", "EVENT", "COURSE", "WHEN", "ROOM", "CHANGE"]);
    for l in &result.lessons {
        let day = l.weekday.as_ref().or(l.date.as_ref());
        table.row([
            l.line.to_string(),
            l.summary.clone(),
            l.course_name.clone().unwrap_or_else(|| "(none)".into()),
            format!("{} {}-{}", dash(day), l.begin, l.end),
            dash(l.room.as_ref()),
            match l.course_name {
                Some(_) => word(&l.change),
                None => "left out".into(),
            },
        ]);
    }
    let mut out = if table.is_empty() {
        String::new()
    } else {
        table.render() + "\n"
    };
    for h in &result.holidays {
        out.push_str(&format!(
            "holiday {}: {} to {}\n",
            plain(&h.name),
            h.first,
            h.last
        ));
    }
    for p in &result.problems {
        out.push_str(&format!(
            "line {}: {}: {}\n",
            p.line,
            plain(&p.summary),
            plain(&p.message)
        ));
    }
    for title in &result.unknown_courses {
        out.push_str(&format!(
            "no course is called {}: give --map \"{}=COURSE\"\n",
            plain(title),
            plain(title)
        ));
    }
    if result.removed > 0 {
        out.push_str(&format!("deleted: {}\n", result.removed));
    }
    out.push_str(if dry {
        "nothing was changed\n"
    } else {
        "done\n"
    });
    out
}

fn lessons_table(lessons: &[Lesson]) -> Table {
    let mut table = Table::new(&["COURSE", "WHEN", "ROOM", "FROM", "UNTIL", "DIFFERENT", "ID"]);
    for l in lessons {
        let every = match l.every_weeks {
            1 => String::new(),
            n => format!(" every {n} weeks"),
        };
        table.row([
            l.course_name.clone(),
            format!(
                "{} {}-{}{every}",
                dash(l.weekday.as_ref().or(l.date.as_ref())),
                l.begin,
                l.end
            ),
            dash(l.room.as_ref()),
            dash(l.from.as_ref()),
            dash(l.until.as_ref()),
            l.exceptions.len().to_string(),
            short(&l.id),
        ]);
    }
    table
}

fn occurrences(list: &[Occurrence]) -> Table {
    let mut table = Table::new(&["DAY", "FROM", "TO", "COURSE", "ROOM", "STATE", "LESSON"]);
    for o in list {
        let mut state = word(&o.state);
        if o.moved {
            state.push_str(", moved");
        }
        if o.clashes {
            state.push_str(", clashes");
        }
        if !o.note.is_empty() {
            state.push_str(&format!(": {}", o.note));
        }
        table.row([
            o.day.clone(),
            o.begin_clock.clone(),
            o.end_clock.clone(),
            o.course_name.clone(),
            dash(o.room.as_ref()),
            state,
            short(&o.lesson),
        ]);
    }
    table
}

fn week_text(week: &Week) -> String {
    let mut out = String::new();
    for d in week.days.iter().filter(|d| d.holiday.is_some()) {
        out.push_str(&format!(
            "{}: {}\n",
            d.date,
            plain(d.holiday.as_deref().unwrap_or_default())
        ));
    }
    let table = occurrences(&week.occurrences);
    out.push_str(&if table.is_empty() {
        "nothing takes place\n".to_owned()
    } else {
        table.render()
    });
    out.push_str(&format!("times are those of {}\n", week.zone));
    out
}

fn now_text(now: &TimetableNow) -> String {
    let mut out = format!(
        "{} hours, mode {}, seats wanted: {}\n",
        word(&now.hours),
        plain(&now.mode),
        now.seats_wanted
    );
    for (title, list) in [("now", &now.running), ("next", &now.next)] {
        if !list.is_empty() {
            out.push_str(&format!("\n{title}:\n{}", occurrences(list).render()));
        }
    }
    out
}

/// Every field there is, also those that come later.
fn fields<T: serde::Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{:<22} {}\n", name.replace('_', "-"), plain(&value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_apart() {
        assert_eq!(when("mon 08:10-10:00").unwrap(), ("mon", "08:10", "10:00"));
        assert_eq!(
            when("2026-12-24 8:10-10:00").unwrap(),
            ("2026-12-24", "8:10", "10:00")
        );
        assert!(when("monday").is_err());
        assert!(when("mon 08:10").is_err());
    }
}
