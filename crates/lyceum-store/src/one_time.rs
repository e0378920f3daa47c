//! Secrets that work once: sign-in links and join tokens. Only their hash is kept.

use crate::{Result, Tx};
use lyceum_model::UnixMillis;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Signs somebody in; the subject is the user's id.
    SignIn,
    /// Lets an agent join; the subject is `KIND/NAME`.
    Join,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Purpose::SignIn => "sign_in",
            Purpose::Join => "join",
        }
    }
}

/// A new secret. Older ones for the same subject stop working: the newest link is the one that counts.
pub async fn insert(
    tx: &mut Tx,
    purpose: Purpose,
    secret_hash: &str,
    subject: &str,
    now: UnixMillis,
    expires: UnixMillis,
) -> Result<()> {
    revoke(tx, purpose, subject).await?;
    sqlx::query(
        "INSERT INTO one_time (secret_hash, purpose, subject, created, expires) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(secret_hash)
    .bind(purpose.word())
    .bind(subject)
    .bind(now)
    .bind(expires)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Unused secrets for a subject stop working.
pub async fn revoke(tx: &mut Tx, purpose: Purpose, subject: &str) -> Result<()> {
    sqlx::query("DELETE FROM one_time WHERE purpose = $1 AND subject = $2 AND used IS NULL")
        .bind(purpose.word())
        .bind(subject)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Uses a secret up and answers what it was for; `None`: there is none, it was used, or its time
/// is over. Of two who try at once, one gets it: it is a single statement.
///
/// `by`: who takes it, and may take it again until its time is over, should the answer have been lost.
/// `None`: nobody may.
pub async fn take(
    tx: &mut Tx,
    purpose: Purpose,
    secret_hash: &str,
    by: Option<&str>,
    now: UnixMillis,
) -> Result<Option<String>> {
    let row: Option<(String,)> = sqlx::query_as(
        "UPDATE one_time SET used = $3, used_by = $4
         WHERE secret_hash = $1 AND purpose = $2 AND expires > $3 AND (used IS NULL OR used_by = $4)
         RETURNING subject",
    )
    .bind(secret_hash)
    .bind(purpose.word())
    .bind(now)
    .bind(by)
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|r| r.0))
}

/// Forgets those whose time was over before then.
pub async fn delete_expired(tx: &mut Tx, before: UnixMillis) -> Result<u64> {
    let done = sqlx::query("DELETE FROM one_time WHERE expires < $1")
        .bind(before)
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected())
}
