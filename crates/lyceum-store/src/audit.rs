//! Who did what to whom. Lines are written in the transaction of the change they tell of.

use crate::{Result, Store, Tx};
use lyceum_model::UnixMillis;
use sqlx::Row;
use std::sync::atomic::{AtomicI64, Ordering};

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number, growing.
    pub id: i64,
    /// When.
    pub at: UnixMillis,
    /// Sign-in name, `system`, or `local`.
    pub actor: String,
    /// What, for example `desktop.reset`.
    pub action: String,
    /// Kind and id, for example `course/0197...`.
    pub target: String,
    /// More, as text.
    pub detail: String,
    /// From where.
    pub address: String,
}

// Microseconds since 1970, pushed on when two lines meet: numbers grow without asking the
// database for the last one, and stay below 2^53, which is what a browser's numbers hold.
fn next_id(now: UnixMillis) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let wish = now.saturating_mul(1000);
    let last = LAST
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            Some(wish.max(last + 1))
        })
        .unwrap_or(0);
    wish.max(last + 1)
}

/// Writes a line; its `id` is given here.
pub async fn insert(tx: &mut Tx, entry: &Entry) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit (id, at, actor, action, target, detail, address) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(next_id(entry.at))
    .bind(entry.at)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.target)
    .bind(&entry.detail)
    .bind(&entry.address)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The newest, at most `limit`, with numbers below `before`.
pub async fn list(store: &Store, before: i64, limit: i64) -> Result<Vec<Entry>> {
    sqlx::query("SELECT * FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2")
        .bind(before)
        .bind(limit)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            Ok(Entry {
                id: row.try_get("id")?,
                at: row.try_get("at")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                target: row.try_get("target")?,
                detail: row.try_get("detail")?,
                address: row.try_get("address")?,
            })
        })
        .collect()
}
