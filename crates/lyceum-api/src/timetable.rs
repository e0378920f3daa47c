//! The timetable: lessons, terms and holidays, and what follows from them.
//!
//! Days are written `2026-11-23`, times of day `08:10`. A lesson that ends at or before the time of day
//! at which it begins ends on the next day.

use crate::wording::Wordings;
use lyceum_model::{CourseId, LessonId, OperationId, SchoolDaysId, UnixMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// What the timetable does, for the whole school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimetableRules {
    /// The school's time zone, for example `Asia/Taipei`.
    pub zone: String,
    /// Whether it starts and ends desktops at all.
    pub acts: bool,
    /// Desktops are started at least this long before the bell, minutes.
    pub lead_floor_minutes: u32,
    /// And at most this long, minutes.
    pub lead_ceiling_minutes: u32,
    /// Between the two: of what the slowest of the course's last starts took, percent.
    pub lead_percent: u32,
    /// Hosts are wanted this long before desktops are started, minutes.
    pub hosts_before_minutes: u32,
    /// Class hours begin this long before a bell, minutes.
    pub class_before_minutes: u32,
    /// They end this long after a lesson, minutes.
    pub class_after_minutes: u32,
    /// A break of the same day that is not longer is in them, minutes.
    pub class_bridge_minutes: u32,
    /// How desktops are allocated in class hours: a mode of the planner, or `none`.
    pub class_mode: String,
    /// And in other hours.
    pub other_mode: String,
}

/// Body of `PATCH timetable/rules`: what is given is changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // As in `TimetableRules`.
pub struct TimetableRulesPatch {
    pub zone: Option<String>,
    pub acts: Option<bool>,
    pub lead_floor_minutes: Option<u32>,
    pub lead_ceiling_minutes: Option<u32>,
    pub lead_percent: Option<u32>,
    pub hosts_before_minutes: Option<u32>,
    pub class_before_minutes: Option<u32>,
    pub class_after_minutes: Option<u32>,
    pub class_bridge_minutes: Option<u32>,
    pub class_mode: Option<String>,
    pub other_mode: Option<String>,
}

/// What is done with a course's desktops at the end of a lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LessonEnd {
    /// They are saved with their windows open.
    Suspend,
    /// They are as new the next time.
    Reset,
    /// They are stopped.
    Stop,
    /// They go on.
    Keep,
}

/// What the timetable does for one course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CourseTimetable {
    /// Its desktops are started so that they are usable at the bell.
    pub starts: bool,
    /// What is done with them at the end.
    pub at_end: LessonEnd,
    /// How long those who are still connected keep theirs, minutes.
    pub grace_minutes: u32,
}

/// A course in the timetable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimetableCourse {
    /// Which.
    pub course: CourseId,
    /// Title.
    pub name: String,
    /// Whether the one who asks may change its lessons.
    pub may_edit: bool,
    /// What the timetable does for it.
    pub rules: CourseTimetable,
}

/// A lesson: weekly, with `weekday`, or once, with `date`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lesson {
    /// Which.
    pub id: LessonId,
    /// Whose.
    pub course: CourseId,
    /// The course's title.
    pub course_name: String,
    /// What is written beside it.
    pub title: String,
    /// Where.
    pub room: Option<String>,
    /// `mon` to `sun`, when it is weekly.
    pub weekday: Option<String>,
    /// The day, when it takes place once.
    pub date: Option<String>,
    /// The bell.
    pub begin: String,
    /// The end.
    pub end: String,
    /// 1: every week; 2: every other, counted from the week of `from`.
    pub every_weeks: u8,
    /// Not before this day.
    pub from: Option<String>,
    /// Not after this day.
    pub until: Option<String>,
    /// Another clock than the school's.
    pub zone: Option<String>,
    /// Whether it came from a calendar file.
    pub imported: bool,
    /// Whether the one who asks may change it.
    pub may_edit: bool,
    /// What is different, by day.
    pub exceptions: Vec<LessonException>,
}

/// Body of `POST timetable/lessons` and `PUT timetable/lessons/{id}`. Exactly one of `weekday` and `date`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LessonPut {
    /// Whose.
    pub course: CourseId,
    /// What is written beside the course's title.
    #[serde(default)]
    pub title: String,
    /// Where.
    #[serde(default)]
    pub room: Option<String>,
    /// `mon` to `sun`.
    #[serde(default)]
    pub weekday: Option<String>,
    /// A day.
    #[serde(default)]
    pub date: Option<String>,
    /// The bell.
    pub begin: String,
    /// The end.
    pub end: String,
    /// 1 to 52; absent: 1.
    #[serde(default)]
    pub every_weeks: Option<u8>,
    /// Not before this day.
    #[serde(default)]
    pub from: Option<String>,
    /// Not after this day.
    #[serde(default)]
    pub until: Option<String>,
    /// Another clock than the school's.
    #[serde(default)]
    pub zone: Option<String>,
}

/// What is different about one occurrence of a weekly lesson.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LessonException {
    /// The day on which it would have been.
    pub date: String,
    /// It does not take place.
    pub cancelled: bool,
    /// It is on this day instead.
    pub to_date: Option<String>,
    /// From then.
    pub begin: Option<String>,
    /// Until then.
    pub end: Option<String>,
    /// There; absent: where it always is.
    pub room: Option<String>,
}

/// Body of `PUT timetable/lessons/{id}/exceptions/{date}`: cancelled, or all of `to_date`, `begin` and `end`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LessonExceptionPut {
    /// It does not take place.
    #[serde(default)]
    pub cancelled: bool,
    /// It is on this day instead.
    #[serde(default)]
    pub to_date: Option<String>,
    /// From then.
    #[serde(default)]
    pub begin: Option<String>,
    /// Until then.
    #[serde(default)]
    pub end: Option<String>,
    /// There.
    #[serde(default)]
    pub room: Option<String>,
}

/// What days mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchoolDaysKind {
    /// Weekly lessons take place only in terms, when there are any.
    Term,
    /// And not in holidays.
    Holiday,
}

/// A term or a holiday.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SchoolDays {
    /// Which.
    pub id: SchoolDaysId,
    /// What.
    pub kind: SchoolDaysKind,
    /// What it is called.
    pub name: String,
    /// First day.
    pub first: String,
    /// Last day, in it.
    pub last: String,
}

/// Body of `POST timetable/days` and `PUT timetable/days/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SchoolDaysPut {
    /// What.
    pub kind: SchoolDaysKind,
    /// What it is called.
    pub name: String,
    /// First day.
    pub first: String,
    /// Last day, in it.
    pub last: String,
}

/// `GET timetable`: what it consists of, as far as it concerns the one who asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timetable {
    /// What it does.
    pub rules: TimetableRules,
    /// Terms and holidays, by their first days.
    pub days: Vec<SchoolDays>,
    /// Courses, by title.
    pub courses: Vec<TimetableCourse>,
    /// Their lessons.
    pub lessons: Vec<Lesson>,
    /// The modes that `class_mode` and `other_mode` can name.
    pub modes: Vec<String>,
}

/// What of `GET timetable/week`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WeekQuery {
    /// The first day; absent: this week's Monday.
    pub first: Option<String>,
    /// How many days, 1 to 400; absent: 7.
    pub days: Option<u16>,
    /// Only this course.
    pub course: Option<CourseId>,
    /// Only this room.
    pub room: Option<String>,
}

/// How far an occurrence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OccurrenceState {
    /// It comes.
    Planned,
    /// Its desktops are being started.
    Preparing,
    /// It is on.
    On,
    /// It is over, and some desktops are still being ended or in use.
    Ending,
    /// It is over.
    Done,
    /// It is over, and nothing was started for it.
    Missed,
}

/// One lesson on one day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Occurrence {
    /// Its lesson.
    pub lesson: LessonId,
    /// Whose.
    pub course: CourseId,
    /// The course's title.
    pub course_name: String,
    /// What is written beside it.
    pub title: String,
    /// Where.
    pub room: Option<String>,
    /// The day that its rule names.
    pub date: String,
    /// The day on which it begins, on the school's clock.
    pub day: String,
    /// The time of day at which it begins, on the school's clock.
    pub begin_clock: String,
    /// The time of day at which it ends.
    pub end_clock: String,
    /// The bell, milliseconds since 1970 UTC.
    pub begin: UnixMillis,
    /// The end.
    pub end: UnixMillis,
    /// Whether it is not when or where its rule says.
    pub moved: bool,
    /// Another lesson is in the same room, or of the same course, at the same time.
    pub clashes: bool,
    /// How far it is.
    pub state: OccurrenceState,
    /// Why something was not done, or waits.
    pub note: String,
    /// How the note can be put into another language.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// The order that started its desktops.
    pub start_operation: Option<OperationId>,
}

/// A day of a week.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WeekDay {
    /// Which.
    pub date: String,
    /// Whether weekly lessons take place.
    pub school: bool,
    /// The holiday it is in.
    pub holiday: Option<String>,
}

/// `GET timetable/week`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Week {
    /// The school's time zone.
    pub zone: String,
    /// Its days.
    pub days: Vec<WeekDay>,
    /// What takes place, by bells.
    pub occurrences: Vec<Occurrence>,
    /// The rooms there are.
    pub rooms: Vec<String>,
}

/// Which hours it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoursKind {
    /// Lessons are on or near.
    Class,
    /// None are.
    Other,
}

/// `GET timetable/now`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimetableNow {
    /// The controller's clock.
    pub at: UnixMillis,
    /// Which hours it is.
    pub hours: HoursKind,
    /// Until when; absent: for more than a week.
    pub until: Option<UnixMillis>,
    /// The mode in force.
    pub mode: String,
    /// Seats that lessons want, from hosts being woken for them until their ends.
    pub seats_wanted: u32,
    /// Until when.
    pub seats_until: Option<UnixMillis>,
    /// What is on, of the courses of the one who asks.
    pub running: Vec<Occurrence>,
    /// The next bell of each of these courses that has one.
    pub next: Vec<Occurrence>,
}

/// Body of `POST timetable/import/preview` and `POST timetable/import`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalendarFile {
    /// The text of an iCalendar file.
    pub ics: String,
    /// All its lessons are of this course; absent: each is of the course with the title of its event.
    #[serde(default)]
    pub course: Option<CourseId>,
    /// Which course an event's title means, where it is none.
    #[serde(default)]
    pub courses: BTreeMap<String, CourseId>,
    /// Whether events of whole days become holidays; for admins.
    #[serde(default)]
    pub holidays: bool,
    /// Whether lessons of these courses that an earlier file brought and this one does not have are deleted.
    #[serde(default)]
    pub replace: bool,
    /// Whether the rest is taken over when some events can't be.
    #[serde(default)]
    pub skip_problems: bool,
}

/// What a file does to a lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// It is new.
    New,
    /// It is there, and changes.
    Changed,
    /// It is there as it is.
    Same,
}

/// A lesson in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileLesson {
    /// The line at which its event begins.
    pub line: u32,
    /// What the event is called.
    pub summary: String,
    /// The course it goes to; absent: none was found, so it is left out.
    pub course_name: Option<String>,
    /// Where.
    pub room: Option<String>,
    /// `mon` to `sun`, when it is weekly.
    pub weekday: Option<String>,
    /// The day, when it takes place once.
    pub date: Option<String>,
    /// The bell.
    pub begin: String,
    /// The end.
    pub end: String,
    /// 1: every week.
    pub every_weeks: u8,
    /// Not before this day.
    pub from: Option<String>,
    /// Not after this day.
    pub until: Option<String>,
    /// How many of its days are different.
    pub exceptions: u32,
    /// What happens to it.
    pub change: FileChange,
}

/// An event that is not taken over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileProblem {
    /// Line in the file.
    pub line: u32,
    /// What the event is called.
    pub summary: String,
    /// Why not.
    pub message: String,
}

/// What a file changes, or has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileResult {
    /// Lessons.
    pub lessons: Vec<FileLesson>,
    /// Days off that are new.
    pub holidays: Vec<SchoolDaysPut>,
    /// What is not taken over.
    pub problems: Vec<FileProblem>,
    /// Titles of events that are no course's.
    pub unknown_courses: Vec<String>,
    /// How many lessons are deleted.
    pub removed: u32,
    /// How the problems can be put into another language.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}
