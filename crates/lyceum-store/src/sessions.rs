//! Signed-in browsers and programs. Only the hash of a session's secret is kept.

use crate::{Result, Store, Tx, flag, parse, users};
use lyceum_model::{SessionId, UnixMillis, UserId};
use sqlx::Row;

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// Hex of the secret's hash.
    pub secret_hash: String,
    /// Whose.
    pub user: UserId,
    /// When it began.
    pub created: UnixMillis,
    /// When it was last used, to the minute.
    pub last_seen: UnixMillis,
    /// The browser, as it named itself.
    pub client: String,
    /// From where.
    pub address: String,
    /// Made by a one-time link: a password may be set without giving the old one.
    pub may_set_password: bool,
}

fn session(row: &sqlx::any::AnyRow) -> Result<Session> {
    Ok(Session {
        id: parse("sessions.id", row.try_get("session_id")?)?,
        secret_hash: row.try_get("secret_hash")?,
        user: parse("sessions.user_id", row.try_get("user_id")?)?,
        created: row.try_get("session_created")?,
        last_seen: row.try_get("last_seen")?,
        client: row.try_get("client")?,
        address: row.try_get("address")?,
        may_set_password: flag(row, "may_set_password")?,
    })
}

const COLUMNS: &str = "s.id AS session_id, s.secret_hash, s.user_id, s.created AS session_created,
    s.last_seen, s.client, s.address, s.may_set_password";

/// The session with this secret and its person.
pub async fn find(store: &Store, secret_hash: &str) -> Result<Option<(Session, users::User)>> {
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS}, u.* FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.secret_hash = $1"
    )))
    .bind(secret_hash)
    .fetch_optional(store.pool())
    .await?
    .map(|row| Ok((session(&row)?, users::user(&row)?)))
    .transpose()
}

/// All of a person, the last used first.
pub async fn of_user(store: &Store, user: &UserId) -> Result<Vec<Session>> {
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sessions s WHERE s.user_id = $1 ORDER BY s.last_seen DESC, s.id"
    )))
    .bind(user.as_str())
    .fetch_all(store.pool())
    .await?
    .iter()
    .map(session)
    .collect()
}

/// A new one.
pub async fn insert(tx: &mut Tx, new: &Session) -> Result<()> {
    sqlx::query(
        "INSERT INTO sessions (id, secret_hash, user_id, created, last_seen, client, address, may_set_password)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.id.as_str())
    .bind(&new.secret_hash)
    .bind(new.user.as_str())
    .bind(new.created)
    .bind(new.last_seen)
    .bind(&new.client)
    .bind(&new.address)
    .bind(i16::from(new.may_set_password))
    .execute(tx.connection())
    .await?;
    tx.touch("session", &new.id);
    Ok(())
}

/// It was used. Not announced: nothing anybody waits for.
pub async fn seen(tx: &mut Tx, id: &SessionId, now: UnixMillis) -> Result<()> {
    sqlx::query("UPDATE sessions SET last_seen = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(now)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// The right to set a password without the old one is used up.
pub async fn password_set(tx: &mut Tx, id: &SessionId) -> Result<()> {
    sqlx::query("UPDATE sessions SET may_set_password = 0 WHERE id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("session", id);
    Ok(())
}

/// Ends one of a person. Answers whether there was one.
pub async fn delete(tx: &mut Tx, user: &UserId, id: &SessionId) -> Result<bool> {
    let done = sqlx::query("DELETE FROM sessions WHERE id = $1 AND user_id = $2")
        .bind(id.as_str())
        .bind(user.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("session", id);
    Ok(done.rows_affected() > 0)
}

/// Ends all of a person but, maybe, one.
pub async fn delete_others(tx: &mut Tx, user: &UserId, keep: Option<&SessionId>) -> Result<u64> {
    let done = sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id <> $2")
        .bind(user.as_str())
        .bind(keep.map_or("", SessionId::as_str))
        .execute(tx.connection())
        .await?;
    tx.touch("user", user);
    Ok(done.rows_affected())
}

/// Ends those that were not used since then.
pub async fn delete_idle(tx: &mut Tx, before: UnixMillis) -> Result<u64> {
    let done = sqlx::query("DELETE FROM sessions WHERE last_seen < $1")
        .bind(before)
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Whether it goes on.
pub async fn exists(tx: &mut Tx, id: &SessionId) -> Result<bool> {
    let row = sqlx::query("SELECT id FROM sessions WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?;
    Ok(row.is_some())
}

/// Ends all of a person but the `keep` last used.
pub async fn keep_newest(tx: &mut Tx, user: &UserId, keep: usize) -> Result<()> {
    let done = sqlx::query(
        "DELETE FROM sessions WHERE user_id = $1 AND id NOT IN
           (SELECT id FROM sessions WHERE user_id = $1 ORDER BY last_seen DESC, id DESC LIMIT $2)",
    )
    .bind(user.as_str())
    .bind(keep as i64)
    .execute(tx.connection())
    .await?;
    if done.rows_affected() > 0 {
        tx.touch("user", user);
    }
    Ok(())
}
