//! Plans: what was proposed, out of what, why and why not, and how far it was carried out.

use crate::{Result, Store, Tx, flag, parse, word};
use lyceum_model::{HostId, OperationId, PlanId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// Plans that are kept.
const KEPT: i64 = 500;

/// Where a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was only asked for, to be looked at.
    Shown,
    /// There was nothing to do.
    Idle,
    /// It is being carried out.
    Running,
    /// All of it was done.
    Done,
    /// Some of it could not be done.
    Failed,
    /// It was called off, or something else was more important.
    Stopped,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Deed {
    /// A host comes up.
    On {
        /// Which.
        host: HostId,
    },
    /// A desktop goes to another host.
    Move {
        /// Which.
        desktop: String,
        /// Where it is.
        from: HostId,
        /// Where it goes.
        to: HostId,
    },
    /// A host is switched off.
    Off {
        /// Which.
        host: HostId,
    },
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// For its turn.
    Waiting,
    /// It was begun.
    Begun,
    /// It is done.
    Done,
    /// It could not be done.
    Failed,
    /// It was left out.
    Skipped,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    #[serde(flatten)]
    pub deed: Deed,
    /// Why.
    pub reason: String,
    /// How far it is.
    pub progress: Progress,
    /// Why it failed or was left out.
    #[serde(default)]
    pub message: String,
    /// The operation of a move that was begun.
    #[serde(default)]
    pub operation: Option<OperationId>,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Key.
    pub id: PlanId,
    /// When it was made.
    pub at: UnixMillis,
    /// What for.
    pub mode: String,
    /// Why this mode, in words.
    pub reason: String,
    /// Who ordered it; `None`: it came by itself.
    pub ordered_by: Option<String>,
    /// Where it is.
    pub state: State,
    /// How it ended, in words.
    pub message: String,
    /// Somebody called it off.
    pub stop: bool,
    /// JSON of the policy.
    pub policy: String,
    /// JSON of the snapshot.
    pub snapshot: String,
    /// JSON of the plan.
    pub plan: String,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// When its first step was taken.
    pub acted_at: Option<UnixMillis>,
    /// When it last got further.
    pub changed: UnixMillis,
    /// When it was over.
    pub ended: Option<UnixMillis>,
}

fn plan(row: &sqlx::any::AnyRow) -> Result<Plan> {
    let steps: String = row.try_get("steps")?;
    Ok(Plan {
        id: parse("plans.id", row.try_get("id")?)?,
        at: row.try_get("at")?,
        mode: row.try_get("mode")?,
        reason: row.try_get("reason")?,
        ordered_by: row.try_get("ordered_by")?,
        state: parse("plans.state", row.try_get("state")?)?,
        message: row.try_get("message")?,
        stop: flag(row, "stop")?,
        policy: row.try_get("policy")?,
        snapshot: row.try_get("snapshot")?,
        plan: row.try_get("plan")?,
        steps: serde_json::from_str(&steps).map_err(|_| crate::StoreError::Unreadable {
            what: "plans.steps",
            value: steps,
        })?,
        acted_at: row.try_get("acted_at")?,
        changed: row.try_get("changed")?,
        ended: row.try_get("ended")?,
    })
}

/// Writes a row whole. Of those that are over the newest are kept.
pub async fn put(tx: &mut Tx, p: &Plan) -> Result<()> {
    sqlx::query(
        "INSERT INTO plans (id, at, mode, reason, ordered_by, state, message, stop, policy, snapshot, plan, steps,
           acted_at, changed, ended)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15)
         ON CONFLICT (id) DO UPDATE SET at = excluded.at, mode = excluded.mode, reason = excluded.reason,
           ordered_by = excluded.ordered_by, state = excluded.state,
           message = excluded.message, stop = excluded.stop, policy = excluded.policy,
           snapshot = excluded.snapshot, plan = excluded.plan, steps = excluded.steps,
           acted_at = excluded.acted_at, changed = excluded.changed, ended = excluded.ended",
    )
    .bind(p.id.as_str())
    .bind(p.at)
    .bind(&p.mode)
    .bind(&p.reason)
    .bind(p.ordered_by.clone())
    .bind(word(&p.state))
    .bind(&p.message)
    .bind(i16::from(p.stop))
    .bind(&p.policy)
    .bind(&p.snapshot)
    .bind(&p.plan)
    .bind(serde_json::to_string(&p.steps).unwrap_or_else(|_| "[]".into()))
    .bind(p.acted_at)
    .bind(p.changed)
    .bind(p.ended)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "DELETE FROM plans WHERE state <> 'running' AND id NOT IN
           (SELECT id FROM plans ORDER BY at DESC, id DESC LIMIT $1)",
    )
    .bind(KEPT)
    .execute(tx.connection())
    .await?;
    tx.touch("plan", &p.id);
    Ok(())
}

/// One.
pub async fn get(store: &Store, id: &PlanId) -> Result<Option<Plan>> {
    sqlx::query("SELECT * FROM plans WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| plan(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &PlanId) -> Result<Option<Plan>> {
    sqlx::query("SELECT * FROM plans WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| plan(&row))
        .transpose()
}

/// The one that is being carried out; there is one at most.
pub async fn running(store: &Store) -> Result<Option<Plan>> {
    sqlx::query("SELECT * FROM plans WHERE state = 'running' ORDER BY at LIMIT 1")
        .fetch_optional(store.pool())
        .await?
        .map(|row| plan(&row))
        .transpose()
}

/// The same inside a transaction.
pub async fn running_tx(tx: &mut Tx) -> Result<Option<Plan>> {
    sqlx::query("SELECT * FROM plans WHERE state = 'running' ORDER BY at LIMIT 1")
        .fetch_optional(tx.connection())
        .await?
        .map(|row| plan(&row))
        .transpose()
}

/// The newest, inside a transaction.
pub async fn newest_tx(tx: &mut Tx) -> Result<Option<Plan>> {
    sqlx::query("SELECT * FROM plans ORDER BY at DESC, id DESC LIMIT 1")
        .fetch_optional(tx.connection())
        .await?
        .map(|row| plan(&row))
        .transpose()
}

/// When a plan was last begun to be carried out.
pub async fn last_acted(store: &Store) -> Result<Option<UnixMillis>> {
    Ok(sqlx::query_scalar("SELECT MAX(acted_at) FROM plans")
        .fetch_one(store.pool())
        .await?)
}

/// The newest that nobody ordered.
pub async fn newest_by_itself(store: &Store) -> Result<Option<Plan>> {
    sqlx::query("SELECT * FROM plans WHERE ordered_by IS NULL ORDER BY at DESC, id DESC LIMIT 1")
        .fetch_optional(store.pool())
        .await?
        .map(|row| plan(&row))
        .transpose()
}

/// The newest, at most `limit`, with an id before `before`.
pub async fn list(store: &Store, before: Option<&PlanId>, limit: i64) -> Result<Vec<Plan>> {
    // Ids of plans sort by the time they were made.
    sqlx::query("SELECT * FROM plans WHERE $1 = '' OR id < $1 ORDER BY id DESC LIMIT $2")
        .bind(before.map_or("", |id| id.as_str()))
        .bind(limit)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(plan)
        .collect()
}
