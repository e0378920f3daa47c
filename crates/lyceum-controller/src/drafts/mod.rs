//! The life of golden images: a draft's disk is made, the draft is opened and changed,
//! sealed, and becomes a release that courses start from.
//!
//! What is to be done about a draft is a step in its row ([`work`]). A reconciler carries the
//! step out and writes the next one, and takes no input but the store and what agents say, so that it
//! can be killed at any instant. Every step can be carried out again from its beginning:
//!
//! - Agents are asked for things by name; asking again changes nothing.
//! - A step is written **before** what it asks for, so that whatever exists on the
//!   tiers belongs to a row that knows it ([`tidy`] rests on that).
//! - A row moves on only from the step that was read; of two who carry out the
//!   same step one writes and the other reads again.
//!
//! [`host`] chooses who seals; [`machine`] is the machine a draft is open in; [`usage`] says
//! who uses a release.

pub mod engine;
pub mod host;
pub mod import;
pub mod machine;
pub mod seal;
pub mod tidy;
pub mod upload;
pub mod usage;
pub mod work;

pub use engine::spawn;

use crate::app::App;
use lyceum_model::{ImageId, OperationId, ReleaseId, UnixMillis};
use lyceum_store::operations::{self, Item, Operation};
use lyceum_store::{Tx, audit, releases};

/// An agent found that a release's bytes are not what they were: nothing starts from it any
/// more. `message` names the file. Again for the same release: nothing changes.
pub async fn mark_damaged(
    app: &App,
    id: &ReleaseId,
    message: &str,
) -> Result<(), lyceum_store::StoreError> {
    tracing::error!(release = %id, "a release is damaged and is not used any more: {message}");
    let mut tx = app.store.begin_write().await?;
    let Some(release) = releases::get_tx(&mut tx, id).await? else {
        return Ok(());
    };
    if release.state == releases::State::Damaged && release.damage.as_deref() == Some(message) {
        return Ok(());
    }
    releases::set_state(&mut tx, id, releases::State::Damaged, Some(message)).await?;
    tx.touch("image", &release.image);
    note(
        &mut tx,
        app.now(),
        "system",
        "release.damaged",
        &format!("release/{id}"),
        message,
    )
    .await?;
    tx.commit().await
}

/// A line of the audit log about what a workflow did on somebody's order.
async fn note(
    tx: &mut Tx,
    at: UnixMillis,
    actor: &str,
    action: &str,
    target: &str,
    detail: &str,
) -> Result<(), lyceum_store::StoreError> {
    let entry = audit::Entry {
        id: 0,
        at,
        actor: actor.to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        detail: detail.to_owned(),
        address: String::new(),
    };
    audit::insert(tx, &entry).await
}

/// A new operation about a draft, with the image as its one item.
pub async fn begin_operation(
    tx: &mut Tx,
    kind: &str,
    target: &str,
    image: (&ImageId, &str),
    by: &str,
    now: UnixMillis,
) -> Result<OperationId, lyceum_store::StoreError> {
    let id = OperationId::new();
    operations::insert(
        tx,
        &Operation {
            id: id.clone(),
            kind: kind.to_owned(),
            target: target.to_owned(),
            target_name: image.1.to_owned(),
            course: None,
            requested_by: by.to_owned(),
            state: "running".to_owned(),
            step: String::new(),
            data: "{}".to_owned(),
            created: now,
            ended: None,
        },
        &[Item {
            target: format!("image/{}", image.0),
            name: image.1.to_owned(),
            state: "pending".to_owned(),
            message: String::new(),
        }],
    )
    .await?;
    Ok(id)
}
