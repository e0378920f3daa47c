//! Energy that hosts drew and would have drawn, by day: estimated from watts and the time they were on.

use crate::{Result, Store, Tx};
use lyceum_model::{HostId, UnixMillis};
use sqlx::Row;

/// Of one host on one day.
#[derive(Debug, Clone, PartialEq)]
pub struct Energy {
    /// Begin of the day, UTC.
    pub day: UnixMillis,
    /// Which.
    pub host: HostId,
    /// Drawn, watt seconds.
    pub drawn_ws: f64,
    /// What it would have drawn had it been on all the time, watt seconds.
    pub always_ws: f64,
    /// How long it was on.
    pub on_ms: i64,
}

/// Adds to a day.
pub async fn add(tx: &mut Tx, e: &Energy) -> Result<()> {
    sqlx::query(
        "INSERT INTO energy (day, host_id, drawn_ws, always_ws, on_ms) VALUES ($1,$2,$3,$4,$5)
         ON CONFLICT (day, host_id) DO UPDATE SET drawn_ws = energy.drawn_ws + excluded.drawn_ws,
           always_ws = energy.always_ws + excluded.always_ws, on_ms = energy.on_ms + excluded.on_ms",
    )
    .bind(e.day)
    .bind(e.host.as_str())
    .bind(e.drawn_ws)
    .bind(e.always_ws)
    .bind(e.on_ms)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// From a day on, oldest first.
pub async fn since(store: &Store, day: UnixMillis) -> Result<Vec<Energy>> {
    sqlx::query("SELECT * FROM energy WHERE day >= $1 ORDER BY day, host_id")
        .bind(day)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            Ok(Energy {
                day: row.try_get("day")?,
                host: crate::parse("energy.host_id", row.try_get("host_id")?)?,
                drawn_ws: row.try_get("drawn_ws")?,
                always_ws: row.try_get("always_ws")?,
                on_ms: row.try_get("on_ms")?,
            })
        })
        .collect()
}
