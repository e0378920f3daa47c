//! People who can sign in.

use crate::{Result, Store, Tx, conflict, flag, parse, word};
use lyceum_model::{UnixMillis, UserId};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// What somebody is in the whole classroom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Works on own desktops.
    Student,
    /// Makes courses and images, runs own courses.
    Teacher,
    /// Everything.
    Admin,
}

/// A person.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Which.
    pub id: UserId,
    /// Sign-in name as [`lyceum_model::name::login`] makes it.
    pub login: String,
    /// Name as shown.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Who checks the password: `local`, or the name of a directory.
    pub source: String,
    /// PHC string; `None`: no password was set. Only of `local` people.
    pub password_hash: Option<String>,
    /// Can't sign in.
    pub disabled: bool,
    /// Closed; the row goes when the last desktop is gone.
    pub deleting: bool,
    /// When the account was made.
    pub created: UnixMillis,
}

pub(crate) fn user(row: &sqlx::any::AnyRow) -> Result<User> {
    Ok(User {
        id: parse("users.id", row.try_get("id")?)?,
        login: row.try_get("login")?,
        name: row.try_get("name")?,
        role: parse("users.role", row.try_get("role")?)?,
        source: row.try_get("source")?,
        password_hash: row.try_get("password_hash")?,
        disabled: flag(row, "disabled")?,
        deleting: flag(row, "deleting")?,
        created: row.try_get("created")?,
    })
}

/// One.
pub async fn get(store: &Store, id: &UserId) -> Result<Option<User>> {
    sqlx::query("SELECT * FROM users WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| user(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &UserId) -> Result<Option<User>> {
    sqlx::query("SELECT * FROM users WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| user(&row))
        .transpose()
}

/// The one with this sign-in name; it must be in the form of [`lyceum_model::name::login`].
pub async fn by_login(store: &Store, login: &str) -> Result<Option<User>> {
    sqlx::query("SELECT * FROM users WHERE login = $1")
        .bind(login)
        .fetch_optional(store.pool())
        .await?
        .map(|row| user(&row))
        .transpose()
}

/// The same inside a transaction.
pub async fn by_login_tx(tx: &mut Tx, login: &str) -> Result<Option<User>> {
    sqlx::query("SELECT * FROM users WHERE login = $1")
        .bind(login)
        .fetch_optional(tx.connection())
        .await?
        .map(|row| user(&row))
        .transpose()
}

/// Everybody whose account is not being deleted, by sign-in name.
pub async fn list(store: &Store) -> Result<Vec<User>> {
    sqlx::query("SELECT * FROM users WHERE deleting = 0 ORDER BY login")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(user)
        .collect()
}

/// The same inside a transaction.
pub async fn list_tx(tx: &mut Tx) -> Result<Vec<User>> {
    sqlx::query("SELECT * FROM users WHERE deleting = 0 ORDER BY login")
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(user)
        .collect()
}

/// A new one. [`Conflict`](crate::StoreError::Conflict) when the sign-in name is taken.
pub async fn insert(tx: &mut Tx, new: &User) -> Result<()> {
    sqlx::query(
        "INSERT INTO users (id, login, name, role, password_hash, source, disabled, deleting, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(new.id.as_str())
    .bind(&new.login)
    .bind(&new.name)
    .bind(word(&new.role))
    .bind(new.password_hash.clone())
    .bind(&new.source)
    .bind(i16::from(new.disabled))
    .bind(i16::from(new.deleting))
    .bind(new.created)
    .execute(tx.connection())
    .await
    .map_err(|e| {
        conflict(
            e,
            format!("there already is somebody with the sign-in name {}: choose another", new.login),
        )
    })?;
    tx.touch("user", &new.id);
    Ok(())
}

/// Writes name, role and whether somebody may sign in.
pub async fn update(tx: &mut Tx, user: &User) -> Result<()> {
    sqlx::query("UPDATE users SET name = $2, role = $3, disabled = $4 WHERE id = $1")
        .bind(user.id.as_str())
        .bind(&user.name)
        .bind(word(&user.role))
        .bind(i16::from(user.disabled))
        .execute(tx.connection())
        .await?;
    tx.touch("user", &user.id);
    Ok(())
}

/// Sets the password's hash (PHC string).
pub async fn set_password(tx: &mut Tx, id: &UserId, hash: &str) -> Result<()> {
    sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(hash)
        .execute(tx.connection())
        .await?;
    tx.touch("user", id);
    Ok(())
}

/// How many could act as admin.
pub async fn count_admins(tx: &mut Tx) -> Result<i64> {
    let (count,): (i64,) = sqlx::query_as(
        "SELECT COUNT(*) FROM users WHERE role = 'admin' AND disabled = 0 AND deleting = 0",
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(count)
}

/// Closes an account: no sign-in, no session, on no roster; the sign-in name is free again
/// at once. The row itself goes with [`reap`] when no desktop is left.
pub async fn close(tx: &mut Tx, id: &UserId) -> Result<()> {
    // '#' is no character of a sign-in name, so this one can't collide.
    sqlx::query(
        "UPDATE users SET disabled = 1, deleting = 1, password_hash = NULL, login = '#' || id WHERE id = $1",
    )
    .bind(id.as_str())
    .execute(tx.connection())
    .await?;
    for sql in [
        "DELETE FROM sessions WHERE user_id = $1",
        "DELETE FROM members WHERE user_id = $1",
        "DELETE FROM one_time WHERE purpose = 'sign_in' AND subject = $1",
    ] {
        sqlx::query(sql)
            .bind(id.as_str())
            .execute(tx.connection())
            .await?;
    }
    tx.touch("user", id);
    Ok(())
}

/// Deletes closed accounts that no desktop belongs to any more. Answers how many.
pub async fn reap(tx: &mut Tx) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM users WHERE deleting = 1
           AND NOT EXISTS (SELECT 1 FROM desktops WHERE desktops.user_id = users.id)",
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}
