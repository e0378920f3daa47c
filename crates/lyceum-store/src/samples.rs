//! Measurements of hosts and desktops: averages over a minute, and over ten for what is older.
//!
//! Times are the controller's own: clocks of hosts are never compared with anything.

use crate::{Result, Store, Tx};
use lyceum_model::{HostId, UnixMillis};
use sqlx::Row;

/// A minute, milliseconds.
pub const MINUTE: UnixMillis = 60_000;

/// What is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Values {
    /// CPU in percent: of the whole host, or of a desktop's own virtual CPUs.
    pub cpu: f64,
    /// Memory as Pss, KiB.
    pub memory_kib: i64,
    /// Bytes per second read from disk.
    pub read_rate: Option<i64>,
    /// Bytes per second written to disk.
    pub written_rate: Option<i64>,
    /// Bytes per second received from the network.
    pub received_rate: Option<i64>,
    /// Bytes per second sent to the network.
    pub sent_rate: Option<i64>,
    /// Desktops that ran (1 for a desktop).
    pub desktops: i64,
}

/// An average.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `host/ID` or `desktop/ID`.
    pub subject: String,
    /// Minutes it is over: 1 or 10.
    pub span: i64,
    /// When they began; a multiple of them.
    pub at: UnixMillis,
    /// On which host it was measured.
    pub host: HostId,
    /// The averages.
    pub values: Values,
    /// How many measurements they are of.
    pub count: i64,
}

fn sample(row: &sqlx::any::AnyRow) -> Result<Sample> {
    Ok(Sample {
        subject: row.try_get("subject")?,
        span: row.try_get("span")?,
        at: row.try_get("at")?,
        host: crate::parse("samples.host_id", row.try_get("host_id")?)?,
        values: Values {
            cpu: row.try_get("cpu")?,
            memory_kib: row.try_get("memory_kib")?,
            read_rate: row.try_get("read_rate")?,
            written_rate: row.try_get("written_rate")?,
            received_rate: row.try_get("received_rate")?,
            sent_rate: row.try_get("sent_rate")?,
            desktops: row.try_get("desktops")?,
        },
        count: row.try_get("count")?,
    })
}

/// Writes one; a second one of the same subject and time is passed over.
pub async fn put(tx: &mut Tx, s: &Sample) -> Result<()> {
    let v = &s.values;
    sqlx::query(
        "INSERT INTO samples (subject, span, at, host_id, cpu, memory_kib, read_rate, written_rate,
           received_rate, sent_rate, desktops, count)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)
         ON CONFLICT (subject, span, at) DO NOTHING",
    )
    .bind(&s.subject)
    .bind(s.span)
    .bind(s.at)
    .bind(s.host.as_str())
    .bind(v.cpu)
    .bind(v.memory_kib)
    .bind(v.read_rate)
    .bind(v.written_rate)
    .bind(v.received_rate)
    .bind(v.sent_rate)
    .bind(v.desktops)
    .bind(s.count)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What there is of a subject from `from` on, oldest first, in one span.
pub async fn of(store: &Store, subject: &str, span: i64, from: UnixMillis) -> Result<Vec<Sample>> {
    sqlx::query("SELECT * FROM samples WHERE subject = $1 AND span = $2 AND at >= $3 ORDER BY at")
        .bind(subject)
        .bind(span)
        .bind(from)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(sample)
        .collect()
}

/// All of one span from `from` on, by subject, oldest first.
pub async fn since(store: &Store, span: i64, from: UnixMillis) -> Result<Vec<Sample>> {
    sqlx::query("SELECT * FROM samples WHERE span = $1 AND at >= $2 ORDER BY subject, at")
        .bind(span)
        .bind(from)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(sample)
        .collect()
}

/// The newest ten-minute average that was made.
pub async fn newest_ten(store: &Store) -> Result<Option<UnixMillis>> {
    Ok(
        sqlx::query_scalar("SELECT MAX(at) FROM samples WHERE span = 10")
            .fetch_one(store.pool())
            .await?,
    )
}

/// Makes the ten-minute averages that begin at `at` of the minutes that are there. Doing it again changes nothing.
pub async fn thin(tx: &mut Tx, at: UnixMillis) -> Result<()> {
    let rows = sqlx::query(
        "SELECT * FROM samples WHERE span = 1 AND at >= $1 AND at < $2 ORDER BY subject, at",
    )
    .bind(at)
    .bind(at + 10 * MINUTE)
    .fetch_all(tx.connection())
    .await?;
    let minutes: Vec<Sample> = rows.iter().map(sample).collect::<Result<_>>()?;
    for group in minutes.chunk_by(|a, b| a.subject == b.subject) {
        let Some(last) = group.last() else { continue };
        let ten = Sample {
            span: 10,
            at,
            values: mean(group),
            count: group.iter().map(|s| s.count).sum(),
            ..last.clone()
        };
        put(tx, &ten).await?;
    }
    Ok(())
}

/// The mean of averages over equally long times.
pub fn mean(of: &[Sample]) -> Values {
    let n = of.len().max(1) as f64;
    let rate = |get: fn(&Values) -> Option<i64>| {
        let known: Vec<i64> = of.iter().filter_map(|s| get(&s.values)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<i64>() / known.len() as i64)
    };
    Values {
        cpu: of.iter().map(|s| s.values.cpu).sum::<f64>() / n,
        memory_kib: (of.iter().map(|s| s.values.memory_kib as f64).sum::<f64>() / n) as i64,
        read_rate: rate(|v| v.read_rate),
        written_rate: rate(|v| v.written_rate),
        received_rate: rate(|v| v.received_rate),
        sent_rate: rate(|v| v.sent_rate),
        desktops: (of.iter().map(|s| s.values.desktops as f64).sum::<f64>() / n).round() as i64,
    }
}

/// Removes what is older: minutes before the first time, ten-minute averages before the second.
pub async fn forget(
    tx: &mut Tx,
    minutes_before: UnixMillis,
    tens_before: UnixMillis,
) -> Result<()> {
    for (span, before) in [(1, minutes_before), (10, tens_before)] {
        sqlx::query("DELETE FROM samples WHERE span = $1 AND at < $2")
            .bind(span as i64)
            .bind(before)
            .execute(tx.connection())
            .await?;
    }
    Ok(())
}
