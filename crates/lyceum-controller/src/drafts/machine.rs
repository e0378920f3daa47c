//! The machine a draft is open in: a row among the desktops, without person and course.
//! Here it is only said that it should not run; the desktops' reconciler sees to it.

use crate::app::App;
use lyceum_model::Desired;
use lyceum_store::drafts::Draft;
use lyceum_store::{StoreError, Tx, desktops};

/// Whether no machine holds the draft's disk, and none is on its way. Orders it to stop if it is meant to run.
pub async fn is_stopped(app: &App, draft: &Draft) -> Result<bool, StoreError> {
    let Some(row) = desktops::of_draft(&app.store, &draft.id).await? else {
        return Ok(true);
    };
    if matches!(row.desired, Desired::Running | Desired::Suspended) {
        let mut tx = app.store.begin_write().await?;
        want(&mut tx, app, draft, Desired::Stopped).await?;
        tx.commit().await?;
        return Ok(false);
    }
    // A host is taken from the row only after its agent said that nothing runs any more.
    Ok(row.host.is_none())
}

/// Whether the draft has no machine any more, not even a row. Orders it away if it has.
pub async fn is_gone(app: &App, draft: &Draft) -> Result<bool, StoreError> {
    let Some(row) = desktops::of_draft(&app.store, &draft.id).await? else {
        return Ok(true);
    };
    if row.desired != Desired::Absent {
        let mut tx = app.store.begin_write().await?;
        want(&mut tx, app, draft, Desired::Absent).await?;
        tx.commit().await?;
    }
    Ok(false)
}

/// Says what the machine should be, stopped or absent.
pub async fn want(
    tx: &mut Tx,
    app: &App,
    draft: &Draft,
    desired: Desired,
) -> Result<(), StoreError> {
    let rows = desktops::all_tx(tx).await?;
    for mut row in rows {
        let mine = matches!(&row.owner, desktops::Owner::Draft { draft: id } if *id == draft.id);
        if mine && row.desired != desired && row.desired != Desired::Absent {
            row.desired = desired;
            row.renew_generation();
            row.gave_up = false;
            row.ordered_at = app.now();
            row.notice = None;
            desktops::put(tx, &row).await?;
        }
    }
    Ok(())
}
