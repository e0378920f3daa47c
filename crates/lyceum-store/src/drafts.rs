//! Drafts: golden images that are open for change. What a draft is doing is a step of
//! a workflow, kept as text in `work`; whoever carries it on changes the row only if the
//! step is still the one that was read ([`advance`]).

use crate::{Result, Store, Tx, conflict, flag, parse, parse_opt, word};
use lyceum_model::{DraftId, ImageId, MachineSize, OperationId, ReleaseId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// Where a draft is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has no disk.
    Empty,
    /// An upload or copy is under way.
    Importing,
    /// It can be opened, changed and sealed.
    Ready,
    /// It is being sealed.
    Sealing,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Key.
    pub id: DraftId,
    /// Of which image.
    pub image: ImageId,
    /// State.
    pub state: State,
    /// What it is doing or why the last work failed, in words.
    pub detail: String,
    /// 0 to 100 while importing.
    pub percent: Option<f64>,
    /// The release it was copied from.
    pub from_release: Option<ReleaseId>,
    /// Size it is opened and sealed with.
    pub size: MachineSize,
    /// It has an installation ISO in its drive.
    pub iso: bool,
    /// Sign-in name of who opened it.
    pub owner: String,
    /// The step that is to be carried out next, as its workflow wrote it.
    pub work: Option<String>,
    /// The operation that shows the work.
    pub operation: Option<OperationId>,
    /// When the row was made.
    pub created: UnixMillis,
}

fn draft(row: &sqlx::any::AnyRow) -> Result<Draft> {
    Ok(Draft {
        id: parse("drafts.id", row.try_get("id")?)?,
        image: parse("drafts.image_id", row.try_get("image_id")?)?,
        state: parse("drafts.state", row.try_get("state")?)?,
        detail: row.try_get("detail")?,
        percent: row.try_get("percent")?,
        from_release: parse_opt("drafts.from_release", row.try_get("from_release")?)?,
        size: MachineSize {
            vcpus: row.try_get::<i64, _>("vcpus")? as u16,
            memory_mib: row.try_get::<i64, _>("memory_mib")? as u32,
        },
        iso: flag(row, "iso")?,
        owner: row.try_get("owner")?,
        work: row.try_get("work")?,
        operation: parse_opt("drafts.operation_id", row.try_get("operation_id")?)?,
        created: row.try_get("created")?,
    })
}

/// All.
pub async fn all(store: &Store) -> Result<Vec<Draft>> {
    sqlx::query("SELECT * FROM drafts ORDER BY created, id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(draft)
        .collect()
}

/// One.
pub async fn get(store: &Store, id: &DraftId) -> Result<Option<Draft>> {
    sqlx::query("SELECT * FROM drafts WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| draft(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &DraftId) -> Result<Option<Draft>> {
    sqlx::query("SELECT * FROM drafts WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| draft(&row))
        .transpose()
}

/// The open draft of an image.
pub async fn of_image(store: &Store, image: &ImageId) -> Result<Option<Draft>> {
    sqlx::query("SELECT * FROM drafts WHERE image_id = $1")
        .bind(image.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| draft(&row))
        .transpose()
}

/// The same inside a transaction.
pub async fn of_image_tx(tx: &mut Tx, image: &ImageId) -> Result<Option<Draft>> {
    sqlx::query("SELECT * FROM drafts WHERE image_id = $1")
        .bind(image.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| draft(&row))
        .transpose()
}

/// A new one. [`Conflict`](crate::StoreError::Conflict) when the image has one already.
pub async fn insert(tx: &mut Tx, new: &Draft) -> Result<()> {
    sqlx::query(
        "INSERT INTO drafts (id, image_id, state, detail, percent, from_release, vcpus, memory_mib, iso, owner, work,
           operation_id, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(new.id.as_str())
    .bind(new.image.as_str())
    .bind(word(&new.state))
    .bind(&new.detail)
    .bind(new.percent)
    .bind(new.from_release.as_ref().map(|r| r.as_str().to_owned()))
    .bind(i64::from(new.size.vcpus))
    .bind(i64::from(new.size.memory_mib))
    .bind(i16::from(new.iso))
    .bind(&new.owner)
    .bind(new.work.clone())
    .bind(new.operation.as_ref().map(|o| o.as_str().to_owned()))
    .bind(new.created)
    .execute(tx.connection())
    .await
    .map_err(|e| conflict(e, "the image has an open draft already: seal or delete that one first"))?;
    touch(tx, new);
    Ok(())
}

/// Writes everything of `new` that can change, if the row's work still is what `read` says.
/// Answers whether it was; nothing is changed otherwise.
pub async fn advance(tx: &mut Tx, read: &Draft, new: &Draft) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE drafts SET state = $3, detail = $4, percent = $5, from_release = $6, vcpus = $7, memory_mib = $8,
           iso = $9, work = $10, operation_id = $11
         WHERE id = $1 AND COALESCE(work, '') = $2",
    )
    .bind(read.id.as_str())
    .bind(read.work.clone().unwrap_or_default())
    .bind(word(&new.state))
    .bind(&new.detail)
    .bind(new.percent)
    .bind(new.from_release.as_ref().map(|r| r.as_str().to_owned()))
    .bind(i64::from(new.size.vcpus))
    .bind(i64::from(new.size.memory_mib))
    .bind(i16::from(new.iso))
    .bind(new.work.clone())
    .bind(new.operation.as_ref().map(|o| o.as_str().to_owned()))
    .execute(tx.connection())
    .await?;
    touch(tx, new);
    Ok(done.rows_affected() > 0)
}

/// Gone, if the row's work still is what `read` says. Answers whether it was.
pub async fn delete(tx: &mut Tx, read: &Draft) -> Result<bool> {
    let done = sqlx::query("DELETE FROM drafts WHERE id = $1 AND COALESCE(work, '') = $2")
        .bind(read.id.as_str())
        .bind(read.work.clone().unwrap_or_default())
        .execute(tx.connection())
        .await?;
    touch(tx, read);
    Ok(done.rows_affected() > 0)
}

fn touch(tx: &mut Tx, draft: &Draft) {
    tx.touch("draft", &draft.id);
    tx.touch("image", &draft.image);
}
