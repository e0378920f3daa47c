//! Takes away overlays and deltas that no row names. A name is in the store
//! before anything is written under it, so what no row names is left over: of a
//! reset, a dropped desktop, a controller that was killed. It must be left over in two looks in a row;
//! the first may have been taken between a file server's answer and a change of the store.

use crate::agents::AgentError;
use crate::app::App;
use crate::reconcile::hand_out::{self, HandOutData};
use lyceum_model::{DeltaId, OverlayId};
use lyceum_proto::storage::Inventory;
use lyceum_store::{desktops, operations, restore_points};
use serde::de::IgnoredAny;
use std::collections::HashSet;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(10);

/// Runs for ever.
pub async fn run(app: App) {
    let mut suspects = HashSet::new();
    loop {
        tokio::time::sleep(ROUND).await;
        match round(&app, &suspects).await {
            Ok(next) => suspects = next,
            Err(e) => tracing::debug!("sweep: {e}"),
        }
    }
}

/// Deletes what was suspect before and still is; answers what is suspect now.
async fn round(app: &App, before: &HashSet<String>) -> Result<HashSet<String>, AgentError> {
    let storage = app.agents.storage().await?;
    let inventory: Inventory = storage.get("/v1/inventory").await?;
    let mut overlays: HashSet<OverlayId> = HashSet::new();
    let mut deltas: HashSet<DeltaId> = HashSet::new();
    for d in desktops::all(&app.store).await? {
        overlays.extend(d.overlay);
        deltas.extend(
            [d.delta, d.saving_delta, d.hand_out_delta]
                .into_iter()
                .flatten(),
        );
    }
    for p in restore_points::all(&app.store).await? {
        overlays.extend(p.overlay);
        deltas.extend(p.delta);
    }
    overlays.extend(
        restore_points::restores(&app.store)
            .await?
            .into_iter()
            .map(|r| r.overlay),
    );
    for operation in operations::running(&app.store)
        .await?
        .iter()
        .filter(|o| o.kind == hand_out::KIND)
    {
        if let Ok(data) = serde_json::from_str::<HandOutData>(&operation.data) {
            deltas.insert(data.delta);
        }
    }
    let left = inventory
        .overlays
        .iter()
        .filter(|(id, _)| !overlays.contains(id))
        .map(|(id, _)| format!("overlays/{id}"))
        .chain(
            inventory
                .deltas
                .iter()
                .filter(|(id, _)| !deltas.contains(id))
                .map(|(id, _)| format!("deltas/{id}")),
        );
    let mut suspects = HashSet::new();
    for path in left {
        if before.contains(&path) {
            match storage.delete::<IgnoredAny>(&format!("/v1/{path}")).await {
                Ok(_) => tracing::info!("{path} belonged to nobody and was deleted"),
                Err(e) => tracing::warn!("{path} belongs to nobody and could not be deleted: {e}"),
            }
        } else {
            suspects.insert(path);
        }
    }
    Ok(suspects)
}
