//! A hand-out has two parts: the teacher's running desktop is captured, then
//! every student's desktop starts from that delta. This reconciler brings the
//! first part about and writes the orders of the second; from then on the desktops' own
//! reconciler goes on. The operation's `data` holds where it is.
//!
//! ```text
//!   Capture ── delta complete ──► Started ── every desktop settled ──► (the operation ends)
//!      └── refused, or no place ──► failed
//! ```

use crate::agents::AgentError;
use crate::app::App;
use crate::orders;
use lyceum_model::{DeltaId, DesktopId, OperationId};
use lyceum_proto::host::{SaveRequest, SavedDelta};
use lyceum_store::operations::Operation;
use lyceum_store::{desktops, operations};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Kind of the operation.
pub const KIND: &str = "course.hand-out";

/// What the operation has to know after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandOutData {
    /// The desktop that is handed out.
    pub source: DesktopId,
    /// The delta's name.
    pub delta: DeltaId,
    /// The desktops that get it.
    pub targets: Vec<DesktopId>,
    /// Whether the targets were started.
    pub started: bool,
}

/// Runs for ever.
pub async fn run(app: App) {
    let mut changes = app.store.changes();
    loop {
        match operations::running(&app.store).await {
            Ok(list) => {
                for operation in list.into_iter().filter(|o| o.kind == KIND) {
                    if let Err(e) = advance(&app, &operation).await {
                        tracing::warn!(operation = %operation.id, "{e}");
                    }
                }
            }
            Err(e) => tracing::error!("{e}"),
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), async {
            while changes.recv().await.is_ok_and(|c| c.kind != "operation") {}
        })
        .await;
    }
}

async fn advance(app: &App, operation: &Operation) -> Result<(), super::act::StepError> {
    let Ok(data) = serde_json::from_str::<HandOutData>(&operation.data) else {
        return fail(
            app,
            &operation.id,
            "what it was about can't be read any more: order it again",
        )
        .await;
    };
    if data.started {
        return Ok(());
    }
    let source = desktops::get(&app.store, &data.source).await?;
    let Some((source, host)) = source.and_then(|d| d.host.clone().map(|h| (d, h))) else {
        return fail(
            app,
            &operation.id,
            "the desktop to hand out does not run any more: start it and order again",
        )
        .await;
    };
    let client = app.agents.host(&host).await?;
    let answer: Result<SavedDelta, _> = client
        .timeout(Duration::from_secs(120))
        .post(
            &format!("/v1/desktops/{}/capture", source.id),
            &SaveRequest {
                generation: source.generation,
                delta: data.delta.clone(),
            },
        )
        .await;
    match answer.map_err(AgentError::from) {
        Ok(saved) if saved.disk_only => {
            let why = "the desktop to hand out was booted cold, so it has no memory in common with the others: reset it, then order again";
            return fail(app, &operation.id, why).await;
        }
        Ok(_) => {}
        Err(e) if e.is_silence() => return Err(e.into()),
        Err(e) => {
            return fail(
                app,
                &operation.id,
                &format!("the desktop could not be captured: {e}"),
            )
            .await;
        }
    }
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    // Called off in the meantime? Then the sweep takes the delta away.
    if operations::get_tx(&mut tx, &operation.id)
        .await?
        .is_none_or(|o| o.state != "running")
    {
        return Ok(());
    }
    let mut targets = Vec::new();
    for id in &data.targets {
        match desktops::get_tx(&mut tx, id).await? {
            Some(desktop) => targets.push(orders::Target {
                desktop,
                name: String::new(),
            }),
            None => {
                operations::settle_item(
                    &mut tx,
                    &operation.id,
                    &format!("desktop/{id}"),
                    "failed",
                    "it was deleted",
                )
                .await?;
            }
        }
    }
    let given = orders::hand_out_to(
        &mut tx,
        &settings,
        &operation.id,
        &source,
        &data.delta,
        targets,
        app.now(),
    )
    .await;
    if let Err(refusal) = given {
        drop(tx);
        return fail(app, &operation.id, &refusal.to_string()).await;
    }
    let data = HandOutData {
        started: true,
        ..data
    };
    let text = serde_json::to_string(&data).unwrap_or_default();
    operations::set_step(&mut tx, &operation.id, "starting", &text).await?;
    tx.commit().await?;
    Ok(())
}

async fn fail(app: &App, id: &OperationId, why: &str) -> Result<(), super::act::StepError> {
    let mut tx = app.store.begin_write().await?;
    operations::settle_all(&mut tx, id, "failed", why).await?;
    operations::end(&mut tx, id, "failed", why, app.now()).await?;
    tx.commit().await?;
    Ok(())
}
