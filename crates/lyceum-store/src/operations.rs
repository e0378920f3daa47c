//! Operations: what a person asked for, with one item per desktop (or step), so
//! that progress and failures survive a restart of the controller.

use crate::{Result, Store, Tx};
use lyceum_model::{CourseId, OperationId, UnixMillis};
use sqlx::Row;

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Which.
    pub id: OperationId,
    /// What, for example `course.start`.
    pub kind: String,
    /// To what: kind and id.
    pub target: String,
    /// Its name, for people.
    pub target_name: String,
    /// The course it belongs to, for the right to see it.
    pub course: Option<CourseId>,
    /// Sign-in name of who asked.
    pub requested_by: String,
    /// `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// What it is doing.
    pub step: String,
    /// JSON that its workflow needs.
    pub data: String,
    /// When it began.
    pub created: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
}

/// One item of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Kind and id, for example `desktop/0197...`.
    pub target: String,
    /// Its name, for people.
    pub name: String,
    /// `pending`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// Why it failed.
    pub message: String,
}

fn operation(row: &sqlx::any::AnyRow) -> Result<Operation> {
    Ok(Operation {
        id: crate::parse("operations.id", row.try_get("id")?)?,
        kind: row.try_get("kind")?,
        target: row.try_get("target")?,
        target_name: row.try_get("target_name")?,
        course: crate::parse_opt("operations.course_id", row.try_get("course_id")?)?,
        requested_by: row.try_get("requested_by")?,
        state: row.try_get("state")?,
        step: row.try_get("step")?,
        data: row.try_get("data")?,
        created: row.try_get("created")?,
        ended: row.try_get("ended")?,
    })
}

fn item(row: &sqlx::any::AnyRow) -> Result<Item> {
    Ok(Item {
        target: row.try_get("target")?,
        name: row.try_get("name")?,
        state: row.try_get("state")?,
        message: row.try_get("message")?,
    })
}

/// Writes a new one with its items.
pub async fn insert(tx: &mut Tx, new: &Operation, items: &[Item]) -> Result<()> {
    sqlx::query(
        "INSERT INTO operations (id, kind, target, target_name, course_id, requested_by, state, step, data, created, ended)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(new.id.as_str())
    .bind(&new.kind)
    .bind(&new.target)
    .bind(&new.target_name)
    .bind(new.course.as_ref().map(|c| c.as_str().to_owned()))
    .bind(&new.requested_by)
    .bind(&new.state)
    .bind(&new.step)
    .bind(&new.data)
    .bind(new.created)
    .bind(new.ended)
    .execute(tx.connection())
    .await?;
    for item in items {
        sqlx::query(
            "INSERT INTO operation_items (operation_id, target, name, state, message) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(new.id.as_str())
        .bind(&item.target)
        .bind(&item.name)
        .bind(&item.state)
        .bind(&item.message)
        .execute(tx.connection())
        .await?;
    }
    tx.touch("operation", &new.id);
    Ok(())
}

/// One.
pub async fn get(store: &Store, id: &OperationId) -> Result<Option<Operation>> {
    sqlx::query("SELECT * FROM operations WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| operation(&row))
        .transpose()
}

/// Those that are under way, oldest first.
pub async fn running(store: &Store) -> Result<Vec<Operation>> {
    sqlx::query("SELECT * FROM operations WHERE state = 'running' ORDER BY created")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(operation)
        .collect()
}

/// The same inside a transaction.
pub async fn running_tx(tx: &mut Tx) -> Result<Vec<Operation>> {
    sqlx::query("SELECT * FROM operations WHERE state = 'running' ORDER BY created")
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(operation)
        .collect()
}

/// The newest, at most `limit`, older than `before`.
pub async fn list(store: &Store, before: UnixMillis, limit: i64) -> Result<Vec<Operation>> {
    sqlx::query("SELECT * FROM operations WHERE created < $1 ORDER BY created DESC LIMIT $2")
        .bind(before)
        .bind(limit)
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(operation)
        .collect()
}

/// Its items.
pub async fn items(store: &Store, id: &OperationId) -> Result<Vec<Item>> {
    sqlx::query("SELECT * FROM operation_items WHERE operation_id = $1 ORDER BY target")
        .bind(id.as_str())
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(item)
        .collect()
}

/// Sets an item's state, if it is still pending.
pub async fn settle_item(
    tx: &mut Tx,
    id: &OperationId,
    target: &str,
    state: &str,
    message: &str,
) -> Result<()> {
    sqlx::query(
        "UPDATE operation_items SET state = $3, message = $4
         WHERE operation_id = $1 AND target = $2 AND state = 'pending'",
    )
    .bind(id.as_str())
    .bind(target)
    .bind(state)
    .bind(message)
    .execute(tx.connection())
    .await?;
    tx.touch("operation", id);
    Ok(())
}

/// Adds items to a running operation (a hand-out learns whom it is for after the capture).
pub async fn set_step(tx: &mut Tx, id: &OperationId, step: &str, data: &str) -> Result<()> {
    sqlx::query("UPDATE operations SET step = $2, data = $3 WHERE id = $1 AND state = 'running'")
        .bind(id.as_str())
        .bind(step)
        .bind(data)
        .execute(tx.connection())
        .await?;
    tx.touch("operation", id);
    Ok(())
}

/// Ends it, if it is still running. Answers whether it was.
pub async fn end(
    tx: &mut Tx,
    id: &OperationId,
    state: &str,
    step: &str,
    now: UnixMillis,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE operations SET state = $2, step = $3, ended = $4 WHERE id = $1 AND state = 'running'",
    )
    .bind(id.as_str())
    .bind(state)
    .bind(step)
    .bind(now)
    .execute(tx.connection())
    .await?;
    tx.touch("operation", id);
    Ok(done.rows_affected() > 0)
}

/// How many of its items are pending, failed, done.
pub async fn counts(tx: &mut Tx, id: &OperationId) -> Result<(i64, i64, i64)> {
    let rows = sqlx::query(
        "SELECT state, COUNT(*) AS n FROM operation_items WHERE operation_id = $1 GROUP BY state",
    )
    .bind(id.as_str())
    .fetch_all(tx.connection())
    .await?;
    let mut out = (0, 0, 0);
    for row in rows {
        let n: i64 = row.try_get("n")?;
        match row.try_get::<String, _>("state")?.as_str() {
            "pending" => out.0 = n,
            "failed" => out.1 = n,
            "done" => out.2 = n,
            _ => {}
        }
    }
    Ok(out)
}

/// The message of an operation's only item, when it has one and that is in this state; else nothing.
pub async fn only_message(tx: &mut Tx, id: &OperationId, state: &str) -> Result<String> {
    let rows =
        sqlx::query("SELECT state, message FROM operation_items WHERE operation_id = $1 LIMIT 2")
            .bind(id.as_str())
            .fetch_all(tx.connection())
            .await?;
    match rows.as_slice() {
        [row] if row.try_get::<String, _>("state")? == state => Ok(row.try_get("message")?),
        _ => Ok(String::new()),
    }
}

/// Sets the state of every item that is still pending.
pub async fn settle_all(tx: &mut Tx, id: &OperationId, state: &str, message: &str) -> Result<()> {
    sqlx::query(
        "UPDATE operation_items SET state = $2, message = $3 WHERE operation_id = $1 AND state = 'pending'",
    )
    .bind(id.as_str())
    .bind(state)
    .bind(message)
    .execute(tx.connection())
    .await?;
    tx.touch("operation", id);
    Ok(())
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &OperationId) -> Result<Option<Operation>> {
    sqlx::query("SELECT * FROM operations WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| operation(&row))
        .transpose()
}
