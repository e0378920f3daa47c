//! The timetable: lessons, terms and holidays, what is done for a course's lessons, and what was done.

use crate::{Result, Store, StoreError, Tx, flag, parse, parse_opt, word};
use lyceum_model::{CourseId, LessonId, OperationId, SchoolDaysId, UnixMillis, UserId};
use lyceum_timetable::{Lesson, Span};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// A lesson's row.
#[derive(Debug, Clone, PartialEq)]
pub struct LessonRow {
    /// Which.
    pub id: LessonId,
    /// Whose.
    pub course: CourseId,
    /// The event of a calendar file that it came from; `None`: made by hand.
    pub uid: Option<String>,
    /// When; its `id` and `course` are those of the row.
    pub lesson: Lesson,
    /// When the row was made.
    pub created: UnixMillis,
}

/// What days mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaysKind {
    /// There is school.
    Term,
    /// There is none.
    Holiday,
}

/// A term or a holiday.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchoolDays {
    /// Which.
    pub id: SchoolDaysId,
    /// What.
    pub kind: DaysKind,
    /// From when to when.
    pub span: Span,
}

/// What is done with a course's desktops at the end of a lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    /// They are saved with their windows open.
    Suspend,
    /// They are as new the next time.
    Reset,
    /// They are stopped.
    Stop,
    /// They go on.
    Keep,
}

/// What the timetable does for a course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CourseRules {
    /// Desktops are started before the bell.
    pub starts: bool,
    /// What is done at the end.
    pub at_end: AtEnd,
    /// How long those who are still connected keep theirs, minutes.
    pub grace_minutes: u32,
}

impl Default for CourseRules {
    fn default() -> Self {
        CourseRules {
            starts: true,
            at_end: AtEnd::Suspend,
            grace_minutes: 5,
        }
    }
}

/// What was done for an occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OccurrenceRow {
    /// Names it: lesson, day, bell.
    pub id: String,
    /// Its lesson.
    pub lesson: LessonId,
    /// Whose.
    pub course: CourseId,
    /// The bell.
    pub begins: UnixMillis,
    /// The end.
    pub ends: UnixMillis,
    /// When its desktops began to be started; `None`: its time has passed without that.
    pub prepared: Option<UnixMillis>,
    /// When nothing was to be done about it any more.
    pub ended: Option<UnixMillis>,
    /// The first order that started desktops.
    pub start_operation: Option<OperationId>,
    /// The last order that ended some.
    pub end_operation: Option<OperationId>,
    /// Why something was not done, or waits.
    pub note: String,
}

fn lesson(row: &sqlx::any::AnyRow) -> Result<LessonRow> {
    let (id, course): (String, String) = (row.try_get("id")?, row.try_get("course_id")?);
    let text: String = row.try_get("data")?;
    let mut lesson: Lesson = serde_json::from_str(&text).map_err(|_| StoreError::Unreadable {
        what: "lessons.data",
        value: text,
    })?;
    lesson.id.clone_from(&id);
    lesson.course.clone_from(&course);
    Ok(LessonRow {
        id: parse("lessons.id", &id)?,
        course: parse("lessons.course_id", &course)?,
        uid: row.try_get("uid")?,
        lesson,
        created: row.try_get("created")?,
    })
}

const LESSONS: &str = "SELECT l.* FROM lessons l JOIN courses c ON c.id = l.course_id
    WHERE c.deleting = 0 ORDER BY l.created, l.id";

/// All, of courses that are not being deleted, oldest first.
pub async fn lessons(store: &Store) -> Result<Vec<LessonRow>> {
    sqlx::query(LESSONS)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(lesson)
        .collect()
}

/// The same inside a transaction.
pub async fn lessons_tx(tx: &mut Tx) -> Result<Vec<LessonRow>> {
    sqlx::query(LESSONS)
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(lesson)
        .collect()
}

/// One.
pub async fn lesson_tx(tx: &mut Tx, id: &LessonId) -> Result<Option<LessonRow>> {
    sqlx::query("SELECT * FROM lessons WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| lesson(&row))
        .transpose()
}

/// Writes one, new or changed.
pub async fn put_lesson(tx: &mut Tx, row: &LessonRow) -> Result<()> {
    let data = serde_json::to_string(&row.lesson).map_err(|e| StoreError::Unreadable {
        what: "lessons.data",
        value: e.to_string(),
    })?;
    sqlx::query(
        "INSERT INTO lessons (id, course_id, uid, data, created) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET course_id = excluded.course_id, uid = excluded.uid, data = excluded.data",
    )
    .bind(row.id.as_str())
    .bind(row.course.as_str())
    .bind(row.uid.clone())
    .bind(data)
    .bind(row.created)
    .execute(tx.connection())
    .await?;
    tx.touch("timetable", &row.course);
    Ok(())
}

/// Deletes one. Answers whether it was there.
pub async fn delete_lesson(tx: &mut Tx, id: &LessonId) -> Result<bool> {
    let done = sqlx::query("DELETE FROM lessons WHERE id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("timetable", id);
    Ok(done.rows_affected() > 0)
}

const DAYS: &str = "SELECT * FROM school_days ORDER BY first_day, last_day, id";

fn days(row: &sqlx::any::AnyRow) -> Result<SchoolDays> {
    let day = |what: &'static str, column: &str| -> Result<_> {
        let text: String = row.try_get(column)?;
        text.parse()
            .map_err(|_| StoreError::Unreadable { what, value: text })
    };
    Ok(SchoolDays {
        id: parse("school_days.id", row.try_get("id")?)?,
        kind: parse("school_days.kind", row.try_get("kind")?)?,
        span: Span {
            name: row.try_get("name")?,
            first: day("school_days.first_day", "first_day")?,
            last: day("school_days.last_day", "last_day")?,
        },
    })
}

/// Terms and holidays, by their first days.
pub async fn school_days(store: &Store) -> Result<Vec<SchoolDays>> {
    sqlx::query(DAYS)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(days)
        .collect()
}

/// The same inside a transaction.
pub async fn school_days_tx(tx: &mut Tx) -> Result<Vec<SchoolDays>> {
    sqlx::query(DAYS)
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(days)
        .collect()
}

/// Writes some, new or changed.
pub async fn put_school_days(tx: &mut Tx, d: &SchoolDays) -> Result<()> {
    sqlx::query(
        "INSERT INTO school_days (id, kind, name, first_day, last_day) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, name = excluded.name,
           first_day = excluded.first_day, last_day = excluded.last_day",
    )
    .bind(d.id.as_str())
    .bind(word(&d.kind))
    .bind(&d.span.name)
    .bind(d.span.first.to_string())
    .bind(d.span.last.to_string())
    .execute(tx.connection())
    .await?;
    tx.touch("timetable", &d.id);
    Ok(())
}

/// Deletes some. Answers whether they were there.
pub async fn delete_school_days(tx: &mut Tx, id: &SchoolDaysId) -> Result<bool> {
    let done = sqlx::query("DELETE FROM school_days WHERE id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("timetable", id);
    Ok(done.rows_affected() > 0)
}

/// What courses said of themselves; others have the default.
pub async fn course_rules(store: &Store) -> Result<Vec<(CourseId, CourseRules)>> {
    sqlx::query("SELECT * FROM course_timetables")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            let grace: i64 = row.try_get("grace_minutes")?;
            Ok((
                parse("course_timetables.course_id", row.try_get("course_id")?)?,
                CourseRules {
                    starts: flag(row, "starts")?,
                    at_end: parse("course_timetables.at_end", row.try_get("at_end")?)?,
                    grace_minutes: grace.clamp(0, 1 << 20) as u32,
                },
            ))
        })
        .collect()
}

/// Writes a course's.
pub async fn put_course_rules(tx: &mut Tx, course: &CourseId, rules: CourseRules) -> Result<()> {
    sqlx::query(
        "INSERT INTO course_timetables (course_id, starts, at_end, grace_minutes) VALUES ($1, $2, $3, $4)
         ON CONFLICT (course_id) DO UPDATE SET starts = excluded.starts, at_end = excluded.at_end,
           grace_minutes = excluded.grace_minutes",
    )
    .bind(course.as_str())
    .bind(i16::from(rules.starts))
    .bind(word(&rules.at_end))
    .bind(i64::from(rules.grace_minutes))
    .execute(tx.connection())
    .await?;
    tx.touch("timetable", course);
    Ok(())
}

fn occurrence(row: &sqlx::any::AnyRow) -> Result<OccurrenceRow> {
    Ok(OccurrenceRow {
        id: row.try_get("id")?,
        lesson: parse("occurrences.lesson_id", row.try_get("lesson_id")?)?,
        course: parse("occurrences.course_id", row.try_get("course_id")?)?,
        begins: row.try_get("begins")?,
        ends: row.try_get("ends")?,
        prepared: row.try_get("prepared")?,
        ended: row.try_get("ended")?,
        start_operation: parse_opt(
            "occurrences.start_operation",
            row.try_get("start_operation")?,
        )?,
        end_operation: parse_opt("occurrences.end_operation", row.try_get("end_operation")?)?,
        note: row.try_get("note")?,
    })
}

/// Those that are noted and whose lessons are in a time.
pub async fn occurrences(
    store: &Store,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<OccurrenceRow>> {
    sqlx::query("SELECT * FROM occurrences WHERE begins < $2 AND ends > $1 ORDER BY begins, id")
        .bind(from)
        .bind(to)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(occurrence)
        .collect()
}

/// Those about which something is still to be done.
pub async fn open_occurrences(store: &Store) -> Result<Vec<OccurrenceRow>> {
    sqlx::query("SELECT * FROM occurrences WHERE ended IS NULL ORDER BY begins, id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(occurrence)
        .collect()
}

/// One.
pub async fn occurrence_tx(tx: &mut Tx, id: &str) -> Result<Option<OccurrenceRow>> {
    sqlx::query("SELECT * FROM occurrences WHERE id = $1")
        .bind(id.to_owned())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| occurrence(&row))
        .transpose()
}

/// Writes one, new or changed.
pub async fn put_occurrence(tx: &mut Tx, o: &OccurrenceRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO occurrences
           (id, lesson_id, course_id, begins, ends, prepared, ended, start_operation, end_operation, note)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (id) DO UPDATE SET ends = excluded.ends, prepared = excluded.prepared, ended = excluded.ended,
           start_operation = excluded.start_operation, end_operation = excluded.end_operation, note = excluded.note",
    )
    .bind(&o.id)
    .bind(o.lesson.as_str())
    .bind(o.course.as_str())
    .bind(o.begins)
    .bind(o.ends)
    .bind(o.prepared)
    .bind(o.ended)
    .bind(o.start_operation.clone().map(String::from))
    .bind(o.end_operation.clone().map(String::from))
    .bind(&o.note)
    .execute(tx.connection())
    .await?;
    tx.touch("timetable", &o.course);
    Ok(())
}

/// Whose desktops were started for it.
pub async fn occurrence_people_tx(tx: &mut Tx, id: &str) -> Result<Vec<UserId>> {
    sqlx::query("SELECT user_id FROM occurrence_people WHERE occurrence_id = $1")
        .bind(id.to_owned())
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(|row| parse("occurrence_people.user_id", row.try_get("user_id")?))
        .collect()
}

/// The same outside of a transaction.
pub async fn occurrence_people(store: &Store, id: &str) -> Result<Vec<UserId>> {
    sqlx::query("SELECT user_id FROM occurrence_people WHERE occurrence_id = $1")
        .bind(id.to_owned())
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| parse("occurrence_people.user_id", row.try_get("user_id")?))
        .collect()
}

/// Notes that somebody's desktop was started for it.
pub async fn put_occurrence_person(
    tx: &mut Tx,
    id: &str,
    user: &UserId,
    at: UnixMillis,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO occurrence_people (occurrence_id, user_id, at) VALUES ($1, $2, $3)
         ON CONFLICT (occurrence_id, user_id) DO NOTHING",
    )
    .bind(id.to_owned())
    .bind(user.as_str())
    .bind(at)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Forgets those that ended before this. Answers how many.
pub async fn forget_occurrences(tx: &mut Tx, before: UnixMillis) -> Result<u64> {
    Ok(
        sqlx::query("DELETE FROM occurrences WHERE ends < $1 AND ended IS NOT NULL")
            .bind(before)
            .execute(tx.connection())
            .await?
            .rows_affected(),
    )
}

/// How long a course's last starts took from the order until the last desktop was usable, in
/// milliseconds, newest first. Who ordered them does not matter.
pub async fn last_starts(store: &Store, course: &CourseId, most: i64) -> Result<Vec<i64>> {
    let rows: Vec<(i64,)> = sqlx::query_as(
        "SELECT ended - created AS took FROM operations
         WHERE kind = 'course.start' AND target = $1 AND state = 'done' AND ended IS NOT NULL
         ORDER BY created DESC, id DESC LIMIT $2",
    )
    .bind(format!("course/{course}"))
    .bind(most)
    .fetch_all(store.pool())
    .await?;
    Ok(rows.into_iter().map(|(took,)| took).collect())
}
