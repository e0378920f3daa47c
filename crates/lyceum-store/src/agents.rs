//! Host and storage agents that joined the classroom.

use crate::{Result, Store, Tx};
use lyceum_model::{HostId, UnixMillis};
use sqlx::Row;

/// An agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Name.
    pub id: HostId,
    /// `host` or `storage`.
    pub kind: String,
    /// Where it is.
    pub url: String,
    /// `active` or `draining`.
    pub state: String,
    /// When it joined.
    pub joined: UnixMillis,
    /// When it was last heard.
    pub heard: Option<UnixMillis>,
    /// What it said of itself last: JSON of `HostFacts` or `StorageFacts`.
    pub facts: Option<String>,
}

fn agent(row: &sqlx::any::AnyRow) -> Result<Agent> {
    Ok(Agent {
        id: crate::parse("agents.id", row.try_get("id")?)?,
        kind: row.try_get("kind")?,
        url: row.try_get("url")?,
        state: row.try_get("state")?,
        joined: row.try_get("joined")?,
        heard: row.try_get("heard")?,
        facts: row.try_get("facts")?,
    })
}

/// All of a kind, by name.
pub async fn list(store: &Store, kind: &str) -> Result<Vec<Agent>> {
    sqlx::query("SELECT * FROM agents WHERE kind = $1 ORDER BY id")
        .bind(kind)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(agent)
        .collect()
}

/// The same inside a transaction.
pub async fn list_tx(tx: &mut Tx, kind: &str) -> Result<Vec<Agent>> {
    sqlx::query("SELECT * FROM agents WHERE kind = $1 ORDER BY id")
        .bind(kind)
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(agent)
        .collect()
}

/// One.
pub async fn get(store: &Store, id: &HostId) -> Result<Option<Agent>> {
    sqlx::query("SELECT * FROM agents WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| agent(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &HostId) -> Result<Option<Agent>> {
    sqlx::query("SELECT * FROM agents WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| agent(&row))
        .transpose()
}

/// An agent joined, or joined again with another address.
pub async fn join(tx: &mut Tx, id: &HostId, kind: &str, url: &str, now: UnixMillis) -> Result<()> {
    sqlx::query(
        "INSERT INTO agents (id, kind, url, state, joined) VALUES ($1, $2, $3, 'active', $4)
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, url = excluded.url, joined = excluded.joined",
    )
    .bind(id.as_str())
    .bind(kind)
    .bind(url)
    .bind(now)
    .execute(tx.connection())
    .await?;
    tx.touch("host", id);
    Ok(())
}

/// The agent was heard.
pub async fn heard(tx: &mut Tx, id: &HostId, facts: &str, now: UnixMillis) -> Result<()> {
    sqlx::query("UPDATE agents SET heard = $2, facts = $3 WHERE id = $1")
        .bind(id.as_str())
        .bind(now)
        .bind(facts)
        .execute(tx.connection())
        .await?;
    tx.touch("host", id);
    Ok(())
}

/// Takes desktops or not.
pub async fn set_state(tx: &mut Tx, id: &HostId, state: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE agents SET state = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(state)
        .execute(tx.connection())
        .await?;
    tx.touch("host", id);
    Ok(done.rows_affected() > 0)
}
