//! Moves of running desktops: those under way and those that ended, with their numbers.

use crate::{Result, Store, Tx, parse, parse_opt, word};
use lyceum_model::{DesktopId, Generation, HostId, MoveId, MoveWay, OperationId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// Ended moves that are kept.
const KEPT: i64 = 5_000;

/// Where a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// For its turn.
    Waiting,
    /// Its destination is being checked and made ready.
    Preparing,
    /// Its source was told.
    Moving,
    /// It runs on its destination.
    Done,
    /// It did not move; `message` says why.
    Failed,
    /// It was called off.
    Cancelled,
}

impl State {
    /// Whether it is over.
    pub fn is_over(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Cancelled)
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// Key.
    pub id: MoveId,
    /// Which desktop.
    pub desktop: DesktopId,
    /// The operation it belongs to.
    pub operation: OperationId,
    /// Where it runs.
    pub from: HostId,
    /// Where it is to run.
    pub to: HostId,
    /// Where it is.
    pub state: State,
    /// Somebody called it off.
    pub cancel: bool,
    /// What it arrives as; 0 until it begins.
    pub generation: Generation,
    /// The way that was asked for.
    pub wanted_way: Option<MoveWay>,
    /// The way that was chosen.
    pub way: Option<MoveWay>,
    /// Why that one.
    pub why: String,
    /// Why it is moved.
    pub reason: String,
    /// Why it failed.
    pub message: String,
    /// Bytes sent.
    pub bytes: Option<i64>,
    /// Pages sent.
    pub pages: Option<i64>,
    /// How long it stood still.
    pub stand_still_ms: Option<i64>,
    /// How long it took in all.
    pub total_ms: Option<i64>,
    /// Its memory before.
    pub pss_before_kib: Option<i64>,
    /// Its memory afterwards.
    pub pss_after_kib: Option<i64>,
    /// When it was ordered.
    pub created: UnixMillis,
    /// When it began.
    pub began: Option<UnixMillis>,
    /// When it was over.
    pub ended: Option<UnixMillis>,
}

fn row(row: &sqlx::any::AnyRow) -> Result<Move> {
    let text = |column: &str| -> Result<String> { Ok(row.try_get::<String, _>(column)?) };
    let number = |column: &str| -> Result<Option<i64>> { Ok(row.try_get(column)?) };
    Ok(Move {
        id: parse("moves.id", &text("id")?)?,
        desktop: parse("moves.desktop_id", &text("desktop_id")?)?,
        operation: parse("moves.operation_id", &text("operation_id")?)?,
        from: parse("moves.from_host", &text("from_host")?)?,
        to: parse("moves.to_host", &text("to_host")?)?,
        state: parse("moves.state", &text("state")?)?,
        cancel: crate::flag(row, "cancel")?,
        generation: Generation(number("generation")?.unwrap_or(0) as u64),
        wanted_way: parse_opt("moves.wanted_way", row.try_get("wanted_way")?)?,
        way: parse_opt("moves.way", row.try_get("way")?)?,
        why: text("why")?,
        reason: text("reason")?,
        message: text("message")?,
        bytes: number("bytes")?,
        pages: number("pages")?,
        stand_still_ms: number("stand_still_ms")?,
        total_ms: number("total_ms")?,
        pss_before_kib: number("pss_before_kib")?,
        pss_after_kib: number("pss_after_kib")?,
        created: row.try_get("created")?,
        began: number("began")?,
        ended: number("ended")?,
    })
}

/// Writes a row whole: insert, or replace the one with its id.
pub async fn put(tx: &mut Tx, m: &Move) -> Result<()> {
    sqlx::query(
        "INSERT INTO moves (id, desktop_id, operation_id, from_host, to_host, state, cancel, generation, wanted_way,
           way, why, reason, message, bytes, pages, stand_still_ms, total_ms, pss_before_kib, pss_after_kib,
           created, began, ended)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, cancel = excluded.cancel,
           generation = excluded.generation, way = excluded.way, why = excluded.why, message = excluded.message,
           bytes = excluded.bytes, pages = excluded.pages, stand_still_ms = excluded.stand_still_ms,
           total_ms = excluded.total_ms, pss_before_kib = excluded.pss_before_kib,
           pss_after_kib = excluded.pss_after_kib, began = excluded.began, ended = excluded.ended",
    )
    .bind(m.id.as_str())
    .bind(m.desktop.as_str())
    .bind(m.operation.as_str())
    .bind(m.from.as_str())
    .bind(m.to.as_str())
    .bind(word(&m.state))
    .bind(i16::from(m.cancel))
    .bind(m.generation.0 as i64)
    .bind(m.wanted_way.as_ref().map(word))
    .bind(m.way.as_ref().map(word))
    .bind(&m.why)
    .bind(&m.reason)
    .bind(&m.message)
    .bind(m.bytes)
    .bind(m.pages)
    .bind(m.stand_still_ms)
    .bind(m.total_ms)
    .bind(m.pss_before_kib)
    .bind(m.pss_after_kib)
    .bind(m.created)
    .bind(m.began)
    .bind(m.ended)
    .execute(tx.connection())
    .await?;
    if m.state.is_over() {
        sqlx::query(
            "DELETE FROM moves WHERE ended IS NOT NULL AND id NOT IN
               (SELECT id FROM moves WHERE ended IS NOT NULL ORDER BY created DESC, id DESC LIMIT $1)",
        )
        .bind(KEPT)
        .execute(tx.connection())
        .await?;
    }
    tx.touch("move", &m.id);
    tx.touch("operation", &m.operation);
    Ok(())
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &MoveId) -> Result<Option<Move>> {
    sqlx::query("SELECT * FROM moves WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|r| row(&r))
        .transpose()
}

/// One.
pub async fn get(store: &Store, id: &MoveId) -> Result<Option<Move>> {
    sqlx::query("SELECT * FROM moves WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|r| row(&r))
        .transpose()
}

const ACTIVE: &str =
    "SELECT * FROM moves WHERE state IN ('waiting', 'preparing', 'moving') ORDER BY created, id";

/// Those that are not over, oldest first.
pub async fn active(store: &Store) -> Result<Vec<Move>> {
    sqlx::query(ACTIVE)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(row)
        .collect()
}

/// The same inside a transaction.
pub async fn active_tx(tx: &mut Tx) -> Result<Vec<Move>> {
    sqlx::query(ACTIVE)
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(row)
        .collect()
}

/// All of an operation.
pub async fn of_operation(tx: &mut Tx, id: &OperationId) -> Result<Vec<Move>> {
    sqlx::query("SELECT * FROM moves WHERE operation_id = $1 ORDER BY created, id")
        .bind(id.as_str())
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(row)
        .collect()
}

/// Those that were done since then, the newest first, at most `limit`.
pub async fn done_since(store: &Store, at: UnixMillis, limit: i64) -> Result<Vec<Move>> {
    sqlx::query(
        "SELECT * FROM moves WHERE state = 'done' AND ended >= $1 ORDER BY ended DESC, id DESC LIMIT $2",
    )
    .bind(at)
    .bind(limit)
    .fetch_all(store.pool())
    .await?
    .iter()
    .map(row)
    .collect()
}

/// Those that were ordered since then, by operation.
pub async fn ordered_since(
    store: &Store,
    at: UnixMillis,
) -> Result<std::collections::HashMap<OperationId, Move>> {
    sqlx::query("SELECT * FROM moves WHERE created >= $1 ORDER BY created, id")
        .bind(at)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|r| row(r).map(|m| (m.operation.clone(), m)))
        .collect()
}

/// A place in the list of moves: those of one drain have one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// When it was ordered.
    pub created: UnixMillis,
    /// Which.
    pub id: String,
}

impl Place {
    /// Behind the newest.
    pub fn end() -> Place {
        Place {
            created: UnixMillis::MAX,
            id: String::new(),
        }
    }

    /// Of this move.
    pub fn of(m: &Move) -> Place {
        Place {
            created: m.created,
            id: m.id.to_string(),
        }
    }
}

/// The newest, at most `limit`, older than those at `before`; of one desktop, or of all.
pub async fn list(
    store: &Store,
    before: &Place,
    desktop: Option<&DesktopId>,
    limit: i64,
) -> Result<Vec<Move>> {
    sqlx::query(
        "SELECT * FROM moves WHERE (created < $1 OR (created = $2 AND id < $3)) AND ($4 = '' OR desktop_id = $5)
         ORDER BY created DESC, id DESC LIMIT $6",
    )
    .bind(before.created)
    .bind(before.created)
    .bind(&before.id)
    .bind(desktop.map_or("", |d| d.as_str()))
    .bind(desktop.map_or("", |d| d.as_str()))
    .bind(limit)
    .fetch_all(store.pool())
    .await?
    .iter()
    .map(row)
    .collect()
}
