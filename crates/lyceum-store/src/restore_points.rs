//! Restore points, the ways back to them that are under way, and the courses' schedules.

use crate::{Result, Store, Tx, flag, parse, parse_opt, word};
use lyceum_model::{
    CourseId, DeltaId, Desired, DesktopId, MachineSize, OperationId, OverlayId, PointId, ReleaseId,
    UnixMillis,
};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

/// Why there is a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Somebody asked for it.
    Asked,
    /// The course's schedule.
    Scheduled,
    /// As the desktop was before a restore.
    Undo,
}

/// Where a point is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be taken, or being taken.
    Taking,
    /// It can be restored.
    Ready,
    /// It could not be taken; the message says why.
    Failed,
    /// Its bytes are not what they were; nothing is restored from it.
    Damaged,
    /// Being deleted; nobody sees it any more.
    Dropping,
}

/// What a point consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Memory, windows and disk: a delta with its own copy of the disk.
    Memory,
    /// The disk alone: kept by the disk driver as a point of the overlay, or in a delta without memory.
    Disk,
    /// The desktop's own overlay and saved memory, set aside; restoring it uses it up.
    Kept,
    /// Nothing: it was as new.
    Nothing,
}

/// A restore point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Key.
    pub id: PointId,
    /// Of which desktop.
    pub desktop: DesktopId,
    /// Of which course.
    pub course: CourseId,
    /// What was taken together has the same.
    pub batch: String,
    /// The operation that takes it.
    pub order: Option<OperationId>,
    /// Why there is one.
    pub origin: Origin,
    /// State.
    pub state: State,
    /// What it consists of; while it is being taken: not known yet.
    pub holds: Holds,
    /// What the desktop was to be then.
    pub was: Desired,
    /// Its memory, or the name under which that is being written.
    pub delta: Option<DeltaId>,
    /// The overlay that it is a point of, or that was set aside.
    pub overlay: Option<OverlayId>,
    /// The release under the desktop.
    pub release: Option<ReleaseId>,
    /// The desktop's size.
    pub size: MachineSize,
    /// The guest's machine id.
    pub machine_id: String,
    /// What it takes on the slow tier.
    pub bytes: Option<i64>,
    /// How long the desktop stood still for it.
    pub stand_still_ms: Option<i64>,
    /// How long it took in all.
    pub total_ms: Option<i64>,
    /// Somebody's words about it.
    pub note: String,
    /// Why it failed or is damaged, or what else to know.
    pub message: String,
    /// When it was taken.
    pub taken: UnixMillis,
}

/// Where a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nothing is done yet.
    Waiting,
    /// The point was checked and its disk is made; the desktop is as it was.
    Ready,
}

/// A desktop's way back to a point, until its row says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Restore {
    /// Which desktop.
    pub desktop: DesktopId,
    /// For which operation.
    pub operation: OperationId,
    /// Back to which point.
    pub point: PointId,
    /// The point that is to keep what is there now.
    pub undo: PointId,
    /// The desktop's next overlay.
    pub overlay: OverlayId,
    /// Where it is.
    pub step: Step,
    /// When it was ordered.
    pub created: UnixMillis,
}

/// When points of a course's desktops are taken by themselves, and who may restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Of which course.
    pub course: CourseId,
    /// Minutes between two; 0: none are taken.
    pub every_min: u32,
    /// So many of the newest are kept.
    pub keep_last: u32,
    /// Of those before, one per hour is kept, so many.
    pub keep_hourly: u32,
    /// Whether students may restore their own desktops.
    pub own_restore: bool,
    /// When they were last to be taken, or the class began; 0: no class runs.
    pub last_run: UnixMillis,
}

impl Schedule {
    /// What a course has that says nothing else.
    pub fn none(course: CourseId) -> Schedule {
        Schedule {
            course,
            every_min: 0,
            keep_last: 6,
            keep_hourly: 4,
            own_restore: false,
            last_run: 0,
        }
    }
}

fn point(row: &AnyRow) -> Result<Point> {
    let text = |column: &str| -> Result<String> { Ok(row.try_get(column)?) };
    let maybe = |column: &str| -> Result<Option<String>> { Ok(row.try_get(column)?) };
    Ok(Point {
        id: parse("restore_points.id", &text("id")?)?,
        desktop: parse("restore_points.desktop_id", &text("desktop_id")?)?,
        course: parse("restore_points.course_id", &text("course_id")?)?,
        batch: text("batch")?,
        order: parse_opt("restore_points.order_id", maybe("order_id")?)?,
        origin: parse("restore_points.origin", &text("origin")?)?,
        state: parse("restore_points.state", &text("state")?)?,
        holds: parse("restore_points.holds", &text("holds")?)?,
        was: parse("restore_points.was", &text("was")?)?,
        delta: parse_opt("restore_points.delta_id", maybe("delta_id")?)?,
        overlay: parse_opt("restore_points.overlay_id", maybe("overlay_id")?)?,
        release: parse_opt("restore_points.release_id", maybe("release_id")?)?,
        size: MachineSize {
            vcpus: row.try_get::<i64, _>("vcpus")? as u16,
            memory_mib: row.try_get::<i64, _>("memory_mib")? as u32,
        },
        machine_id: text("machine_id")?,
        bytes: row.try_get("bytes")?,
        stand_still_ms: row.try_get("stand_still_ms")?,
        total_ms: row.try_get("total_ms")?,
        note: text("note")?,
        message: text("message")?,
        taken: row.try_get("taken")?,
    })
}

fn restore(row: &AnyRow) -> Result<Restore> {
    let text = |column: &str| -> Result<String> { Ok(row.try_get(column)?) };
    Ok(Restore {
        desktop: parse("restores.desktop_id", &text("desktop_id")?)?,
        operation: parse("restores.operation_id", &text("operation_id")?)?,
        point: parse("restores.point_id", &text("point_id")?)?,
        undo: parse("restores.undo_id", &text("undo_id")?)?,
        overlay: parse("restores.overlay_id", &text("overlay_id")?)?,
        step: parse("restores.state", &text("state")?)?,
        created: row.try_get("created")?,
    })
}

fn schedule_of(row: &AnyRow) -> Result<Schedule> {
    let number = |column: &str| -> Result<u32> {
        Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
    };
    Ok(Schedule {
        course: parse(
            "point_schedules.course_id",
            &row.try_get::<String, _>("course_id")?,
        )?,
        every_min: number("every_min")?,
        keep_last: number("keep_last")?,
        keep_hourly: number("keep_hourly")?,
        own_restore: flag(row, "own_restore")?,
        last_run: row.try_get("last_run")?,
    })
}

/// One.
pub async fn get(store: &Store, id: &PointId) -> Result<Option<Point>> {
    sqlx::query("SELECT * FROM restore_points WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| point(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &PointId) -> Result<Option<Point>> {
    sqlx::query("SELECT * FROM restore_points WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| point(&row))
        .transpose()
}

const NEWEST_FIRST: &str = "ORDER BY taken DESC, id DESC";

/// All of a desktop, the newest first.
pub async fn of_desktop(store: &Store, id: &DesktopId) -> Result<Vec<Point>> {
    let sql = format!("SELECT * FROM restore_points WHERE desktop_id = $1 {NEWEST_FIRST}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.as_str())
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(point)
        .collect()
}

/// All of a course, the newest first.
pub async fn of_course_tx(tx: &mut Tx, id: &CourseId) -> Result<Vec<Point>> {
    let sql = format!("SELECT * FROM restore_points WHERE course_id = $1 {NEWEST_FIRST}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.as_str())
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(point)
        .collect()
}

/// The same outside of a transaction.
pub async fn of_course(store: &Store, id: &CourseId) -> Result<Vec<Point>> {
    let sql = format!("SELECT * FROM restore_points WHERE course_id = $1 {NEWEST_FIRST}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.as_str())
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(point)
        .collect()
}

/// All, the newest first.
pub async fn all(store: &Store) -> Result<Vec<Point>> {
    let sql = format!("SELECT * FROM restore_points {NEWEST_FIRST}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(point)
        .collect()
}

/// Those in this state, the oldest first.
pub async fn in_state(store: &Store, state: State) -> Result<Vec<Point>> {
    sqlx::query("SELECT * FROM restore_points WHERE state = $1 ORDER BY taken, id")
        .bind(word(&state))
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(point)
        .collect()
}

/// Those that an operation takes.
pub async fn of_order_tx(tx: &mut Tx, id: &OperationId) -> Result<Vec<Point>> {
    sqlx::query("SELECT * FROM restore_points WHERE order_id = $1 ORDER BY id")
        .bind(id.as_str())
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(point)
        .collect()
}

/// Writes a point whole: insert, or replace the one with its id.
pub async fn put(tx: &mut Tx, p: &Point) -> Result<()> {
    sqlx::query(
        "INSERT INTO restore_points (id, desktop_id, course_id, batch, order_id, origin, state, holds, was, delta_id,
           overlay_id, release_id, vcpus, memory_mib, machine_id, bytes, stand_still_ms, total_ms, note, message, taken)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21)
         ON CONFLICT (id) DO UPDATE SET order_id = excluded.order_id, origin = excluded.origin, state = excluded.state,
           holds = excluded.holds, was = excluded.was, delta_id = excluded.delta_id, overlay_id = excluded.overlay_id,
           release_id = excluded.release_id, vcpus = excluded.vcpus, memory_mib = excluded.memory_mib,
           machine_id = excluded.machine_id, bytes = excluded.bytes, stand_still_ms = excluded.stand_still_ms,
           total_ms = excluded.total_ms, note = excluded.note, message = excluded.message, taken = excluded.taken",
    )
    .bind(p.id.as_str())
    .bind(p.desktop.as_str())
    .bind(p.course.as_str())
    .bind(&p.batch)
    .bind(p.order.clone().map(String::from))
    .bind(word(&p.origin))
    .bind(word(&p.state))
    .bind(word(&p.holds))
    .bind(word(&p.was))
    .bind(p.delta.clone().map(String::from))
    .bind(p.overlay.clone().map(String::from))
    .bind(p.release.clone().map(String::from))
    .bind(i64::from(p.size.vcpus))
    .bind(i64::from(p.size.memory_mib))
    .bind(&p.machine_id)
    .bind(p.bytes)
    .bind(p.stand_still_ms)
    .bind(p.total_ms)
    .bind(&p.note)
    .bind(&p.message)
    .bind(p.taken)
    .execute(tx.connection())
    .await?;
    tx.touch("restore_point", &p.id);
    Ok(())
}

/// The row is gone; its files must be, or belong to somebody else by now.
pub async fn delete(tx: &mut Tx, id: &PointId) -> Result<()> {
    sqlx::query("DELETE FROM restore_points WHERE id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("restore_point", id);
    Ok(())
}

/// Everything of a desktop that is deleted. What the rows named is left over then, and swept away.
pub(crate) async fn forget_desktop(tx: &mut Tx, id: &DesktopId) -> Result<()> {
    for sql in [
        "DELETE FROM restores WHERE desktop_id = $1",
        "DELETE FROM restore_points WHERE desktop_id = $1",
    ] {
        sqlx::query(sql)
            .bind(id.as_str())
            .execute(tx.connection())
            .await?;
    }
    Ok(())
}

/// Restores under way, the oldest first.
pub async fn restores(store: &Store) -> Result<Vec<Restore>> {
    sqlx::query("SELECT * FROM restores ORDER BY created, desktop_id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(restore)
        .collect()
}

/// The same inside a transaction.
pub async fn restores_tx(tx: &mut Tx) -> Result<Vec<Restore>> {
    sqlx::query("SELECT * FROM restores ORDER BY created, desktop_id")
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(restore)
        .collect()
}

/// A desktop's restore under way.
pub async fn restore_of(store: &Store, id: &DesktopId) -> Result<Option<Restore>> {
    sqlx::query("SELECT * FROM restores WHERE desktop_id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| restore(&row))
        .transpose()
}

/// The same inside a transaction.
pub async fn restore_of_tx(tx: &mut Tx, id: &DesktopId) -> Result<Option<Restore>> {
    sqlx::query("SELECT * FROM restores WHERE desktop_id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| restore(&row))
        .transpose()
}

/// Writes a restore: a new one, or where it is.
pub async fn put_restore(tx: &mut Tx, r: &Restore) -> Result<()> {
    sqlx::query(
        "INSERT INTO restores (desktop_id, operation_id, point_id, undo_id, overlay_id, state, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (desktop_id) DO UPDATE SET operation_id = excluded.operation_id, point_id = excluded.point_id,
           undo_id = excluded.undo_id, overlay_id = excluded.overlay_id, state = excluded.state,
           created = excluded.created",
    )
    .bind(r.desktop.as_str())
    .bind(r.operation.as_str())
    .bind(r.point.as_str())
    .bind(r.undo.as_str())
    .bind(r.overlay.as_str())
    .bind(word(&r.step))
    .bind(r.created)
    .execute(tx.connection())
    .await?;
    tx.touch("restore", &r.desktop);
    Ok(())
}

/// It is over, or called off.
pub async fn delete_restore(tx: &mut Tx, id: &DesktopId) -> Result<()> {
    sqlx::query("DELETE FROM restores WHERE desktop_id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("restore", id);
    Ok(())
}

/// What a course says; a course that says nothing has none.
pub async fn schedule(store: &Store, id: &CourseId) -> Result<Schedule> {
    let row = sqlx::query("SELECT * FROM point_schedules WHERE course_id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?;
    match row {
        Some(row) => schedule_of(&row),
        None => Ok(Schedule::none(id.clone())),
    }
}

/// The same inside a transaction.
pub async fn schedule_tx(tx: &mut Tx, id: &CourseId) -> Result<Schedule> {
    let row = sqlx::query("SELECT * FROM point_schedules WHERE course_id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?;
    match row {
        Some(row) => schedule_of(&row),
        None => Ok(Schedule::none(id.clone())),
    }
}

/// Those of all courses that say something.
pub async fn schedules(store: &Store) -> Result<Vec<Schedule>> {
    sqlx::query("SELECT * FROM point_schedules ORDER BY course_id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(schedule_of)
        .collect()
}

/// Writes what a course says.
pub async fn put_schedule(tx: &mut Tx, s: &Schedule) -> Result<()> {
    sqlx::query(
        "INSERT INTO point_schedules (course_id, every_min, keep_last, keep_hourly, own_restore, last_run)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (course_id) DO UPDATE SET every_min = excluded.every_min, keep_last = excluded.keep_last,
           keep_hourly = excluded.keep_hourly, own_restore = excluded.own_restore, last_run = excluded.last_run",
    )
    .bind(s.course.as_str())
    .bind(i64::from(s.every_min))
    .bind(i64::from(s.keep_last))
    .bind(i64::from(s.keep_hourly))
    .bind(i16::from(s.own_restore))
    .bind(s.last_run)
    .execute(tx.connection())
    .await?;
    tx.touch("course", &s.course);
    Ok(())
}
