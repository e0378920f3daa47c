//! Who did what to whom, written in the transaction of the change itself: there is no change
//! without its line, and no line without its change.

use crate::auth::Actor;
use crate::error::ApiFailure;
use lyceum_store::Tx;
use lyceum_store::audit::{self, Entry};

/// Longest detail that is kept, characters.
const DETAIL: usize = 2000;

/// Writes a line. `target`: kind and id, for example `course/0197...`. Never a secret in `detail`.
pub async fn write(
    tx: &mut Tx,
    actor: &Actor,
    action: &str,
    target: impl std::fmt::Display,
    detail: impl std::fmt::Display,
) -> Result<(), ApiFailure> {
    write_as(tx, actor.login(), &actor.address(), action, target, detail).await
}

/// The same for somebody who is not signed in yet, or `system`.
pub async fn write_as(
    tx: &mut Tx,
    actor: &str,
    address: &str,
    action: &str,
    target: impl std::fmt::Display,
    detail: impl std::fmt::Display,
) -> Result<(), ApiFailure> {
    audit::insert(
        tx,
        &Entry {
            id: 0,
            at: jiff::Timestamp::now().as_millisecond(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            target: target.to_string(),
            detail: detail.to_string().chars().take(DETAIL).collect(),
            address: address.to_owned(),
        },
    )
    .await?;
    Ok(())
}
