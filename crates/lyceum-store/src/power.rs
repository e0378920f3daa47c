//! Whether hosts are on, what switches them, and what is to be switched.
//!
//! ```text
//!        wanted on           heard
//!  Off ────────────► Waking ───────► On ◄── heard although it was off: somebody pressed its button
//!   ▲                  │             │
//!   │◄─ did not come ──┘             │ wanted off, and nothing is on it or on its way to it
//!   │                                ▼
//!   └──────── not heard ───────── GoingOff ──── still heard after its time ──► On
//! ```

use crate::{Result, Store, Tx, parse, parse_opt, word};
use lyceum_model::{HostId, PlanId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It runs, or should: its agent may not be heard.
    #[default]
    On,
    /// It was told to come up.
    Waking,
    /// It is off.
    Off,
    /// It is to end, and takes nothing any more.
    GoingOff,
}

/// What is to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It is to come up.
    On,
    /// It is to be switched off once nothing is on it.
    Off,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Power {
    /// Which host.
    pub host: HostId,
    /// Whether it runs.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// What is to become of it.
    pub wanted: Option<Wanted>,
    /// The plan that wants it.
    pub plan: Option<PlanId>,
    /// When it was last told.
    pub told: Option<UnixMillis>,
    /// How often, since `since`.
    pub tries: i64,
    /// Why it could not be switched the last time; empty when it could.
    pub failure: String,
    /// When that was.
    pub failed_at: Option<UnixMillis>,
    /// Since when its agent is heard without a gap.
    pub heard_since: Option<UnixMillis>,
    /// JSON of how it is switched and what it draws.
    pub setup: String,
}

impl Power {
    /// Of a host that nothing is known of: it is on.
    pub fn new(host: HostId, since: UnixMillis) -> Power {
        Power {
            host,
            state: State::On,
            since,
            wanted: None,
            plan: None,
            told: None,
            tries: 0,
            failure: String::new(),
            failed_at: None,
            heard_since: None,
            setup: "{}".into(),
        }
    }

    /// Goes over into a state now.
    pub fn become_(&mut self, state: State, now: UnixMillis) {
        self.state = state;
        self.since = now;
        self.told = None;
        self.tries = 0;
    }
}

fn power(row: &sqlx::any::AnyRow) -> Result<Power> {
    Ok(Power {
        host: parse("host_power.host_id", row.try_get("host_id")?)?,
        state: parse("host_power.state", row.try_get("state")?)?,
        since: row.try_get("since")?,
        wanted: parse_opt("host_power.wanted", row.try_get("wanted")?)?,
        plan: parse_opt("host_power.plan_id", row.try_get("plan_id")?)?,
        told: row.try_get("told")?,
        tries: row.try_get("tries")?,
        failure: row.try_get("failure")?,
        failed_at: row.try_get("failed_at")?,
        heard_since: row.try_get("heard_since")?,
        setup: row.try_get("setup")?,
    })
}

/// All that are known.
pub async fn all(store: &Store) -> Result<Vec<Power>> {
    sqlx::query("SELECT * FROM host_power ORDER BY host_id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(power)
        .collect()
}

/// The same inside a transaction.
pub async fn all_tx(tx: &mut Tx) -> Result<Vec<Power>> {
    sqlx::query("SELECT * FROM host_power ORDER BY host_id")
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(power)
        .collect()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, host: &HostId) -> Result<Option<Power>> {
    sqlx::query("SELECT * FROM host_power WHERE host_id = $1")
        .bind(host.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| power(&row))
        .transpose()
}

/// Writes a row whole.
pub async fn put(tx: &mut Tx, p: &Power) -> Result<()> {
    sqlx::query(
        "INSERT INTO host_power (host_id, state, since, wanted, plan_id, told, tries, failure, failed_at,
           heard_since, setup)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)
         ON CONFLICT (host_id) DO UPDATE SET state = excluded.state, since = excluded.since,
           wanted = excluded.wanted, plan_id = excluded.plan_id, told = excluded.told, tries = excluded.tries,
           failure = excluded.failure, failed_at = excluded.failed_at, heard_since = excluded.heard_since,
           setup = excluded.setup",
    )
    .bind(p.host.as_str())
    .bind(word(&p.state))
    .bind(p.since)
    .bind(p.wanted.as_ref().map(word))
    .bind(p.plan.as_ref().map(|id| id.as_str().to_owned()))
    .bind(p.told)
    .bind(p.tries)
    .bind(&p.failure)
    .bind(p.failed_at)
    .bind(p.heard_since)
    .bind(&p.setup)
    .execute(tx.connection())
    .await?;
    tx.touch("host", &p.host);
    Ok(())
}
