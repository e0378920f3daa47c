//! Steps that make a release of a draft.
//!
//! The draft's own disk is only ever read: a host boots, seals and tries a copy of it in the
//! draft's staging folder. So whatever goes wrong, the draft is as it was.

use super::engine::{
    Next, Outcome, StepError, end, end_operation, failed, move_on, move_on_tx, note,
};
use super::host::{Choice, choose};
use super::import::{COPYING, forget_release, gone};
use super::machine;
use super::work::{SealStep, SealTerms, Work};
use crate::app::App;
use lyceum_model::{Desired, HostId};
use lyceum_proto::host::{Observed, SealOutcome, SealRequest, SealStatus};
use lyceum_proto::storage::{PublishRequest, Published, SealedMemoryFacts};
use lyceum_store::drafts::{self, Draft, State};
use lyceum_store::releases::NewRelease;
use lyceum_store::{agents, operations, releases};
use serde::de::IgnoredAny;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(300);
/// How often a seal is begun anew whose host lost it (its agent was started anew in the middle).
const TRIES: u32 = 3;

/// One step.
pub async fn step(
    app: &App,
    draft: &Draft,
    order: &SealTerms,
    step: &SealStep,
) -> Result<Next, StepError> {
    match step {
        SealStep::StopMachine => stop_machine(app, draft, order).await,
        SealStep::Clear { host, tries } => clear(app, draft, order, host.as_ref(), *tries).await,
        SealStep::Stage { tries } => stage(app, draft, order, *tries).await,
        SealStep::Choose { tries } => ask(app, draft, order, *tries).await,
        SealStep::Watch { host, tries } => watch(app, draft, order, host, *tries).await,
        SealStep::Publish { host, request } => publish(app, draft, order, host, request).await,
        SealStep::Record { host, published } => record(app, draft, order, host, published).await,
        SealStep::Close { host, version, .. } => close(app, draft, host, *version).await,
        SealStep::Cleanup {
            host,
            published,
            failure,
        } => {
            if let Some(host) = host {
                note(app, draft, "clearing up after the seal", None).await?;
                // Its QEMU may still write what is removed next, so this is waited for.
                gone(
                    &app.agents.host(host).await?,
                    &format!("/v1/seals/{}", draft.id),
                )
                .await?;
            }
            let storage = app.agents.storage().await?;
            gone(&storage, &format!("/v1/staging/{}", draft.id)).await?;
            forget_release(app, &storage, draft, published.as_ref()).await?;
            let (detail, outcome) = match failure {
                Some(why) => (format!("the seal failed: {why}"), Outcome::Failed(why)),
                None => ("the seal was called off".to_owned(), Outcome::Cancelled),
            };
            end(app, draft, State::Ready, &detail, outcome, |_| {}).await
        }
    }
}

async fn next(
    app: &App,
    draft: &Draft,
    order: &SealTerms,
    step: SealStep,
) -> Result<Option<Draft>, StepError> {
    Ok(move_on(app, draft, Some(&Work::seal(order, step)), |_| {}).await?)
}

async fn stop_machine(app: &App, draft: &Draft, order: &SealTerms) -> Result<Next, StepError> {
    if !machine::is_stopped(app, draft).await? {
        note(app, draft, "shutting down the draft's machine", None).await?;
        return Ok(Next::Wait(POLL));
    }
    next(
        app,
        draft,
        order,
        SealStep::Clear {
            host: None,
            tries: 1,
        },
    )
    .await?;
    Ok(Next::Again)
}

async fn clear(
    app: &App,
    draft: &Draft,
    order: &SealTerms,
    host: Option<&HostId>,
    tries: u32,
) -> Result<Next, StepError> {
    if let Some(host) = host {
        gone(
            &app.agents.host(host).await?,
            &format!("/v1/seals/{}", draft.id),
        )
        .await?;
    }
    gone(
        &app.agents.storage().await?,
        &format!("/v1/staging/{}", draft.id),
    )
    .await?;
    next(app, draft, order, SealStep::Stage { tries }).await?;
    Ok(Next::Again)
}

async fn stage(app: &App, draft: &Draft, order: &SealTerms, tries: u32) -> Result<Next, StepError> {
    note(app, draft, "copying the disk", None).await?;
    let storage = app.agents.storage().await?.timeout(COPYING);
    let _: IgnoredAny = storage
        .put(&format!("/v1/staging/{}", draft.id), &serde_json::json!({}))
        .await?;
    next(app, draft, order, SealStep::Choose { tries }).await?;
    Ok(Next::Again)
}

async fn ask(app: &App, draft: &Draft, order: &SealTerms, tries: u32) -> Result<Next, StepError> {
    let hosts = agents::list(&app.store, "host").await?;
    let host = match choose(&hosts, order.size, app.now()) {
        Choice::Host(host) => host,
        Choice::Later(why) => return Err(StepError::Later(why)),
        Choice::Never(why) => return Err(StepError::Failed(why)),
    };
    // The host is written down before it is told. If nobody gets to tell it, its agent does not
    // know the seal, which is just like a seal that was lost.
    let watching = SealStep::Watch {
        host: host.clone(),
        tries,
    };
    let Some(draft) = next(app, draft, order, watching.clone()).await? else {
        return Ok(Next::Again);
    };
    let request = SealRequest {
        size: order.size,
        ready_timeout_ms: order.ready_timeout_ms,
    };
    let told = async {
        let client = app.agents.host(&host).await?;
        let _: IgnoredAny = client
            .put(&format!("/v1/seals/{}", draft.id), &request)
            .await?;
        Ok::<_, StepError>(())
    };
    match told.await {
        Ok(()) | Err(StepError::Later(_)) => {}
        Err(StepError::Failed(why)) => {
            let why = format!("{host} did not begin: {why}");
            let undo = failed(&Work::seal(order, watching), &why);
            move_on(app, &draft, undo.as_ref(), |d| d.detail = why).await?;
        }
        Err(e) => return Err(e),
    }
    Ok(Next::Again)
}

async fn watch(
    app: &App,
    draft: &Draft,
    order: &SealTerms,
    host: &HostId,
    tries: u32,
) -> Result<Next, StepError> {
    let client = app.agents.host(host).await?;
    let observed: Observed = client.get("/v1/watch?after=0&wait_ms=0").await?;
    let Some(SealStatus { step, outcome, .. }) =
        observed.seals.into_iter().find(|s| s.draft == draft.id)
    else {
        if tries >= TRIES {
            return Err(StepError::Failed(format!(
                "{host} lost the seal {TRIES} times in the middle: see the log of its agent, or drain that host and seal again"
            )));
        }
        next(
            app,
            draft,
            order,
            SealStep::Clear {
                host: Some(host.clone()),
                tries: tries + 1,
            },
        )
        .await?;
        return Ok(Next::Again);
    };
    let request = match outcome {
        None => {
            note(app, draft, &format!("{step}, on {host}"), None).await?;
            return Ok(Next::Wait(POLL));
        }
        Some(SealOutcome::Failed { message }) => return Err(StepError::Failed(message)),
        Some(SealOutcome::Sealed {
            platform,
            guest_helper,
            ..
        }) => PublishRequest {
            sealed_at: app.now(),
            memory: Some(SealedMemoryFacts {
                size: order.size,
                platform,
                guest_helper,
            }),
            cold_reason: None,
        },
        Some(SealOutcome::ColdOnly { reason }) => PublishRequest {
            sealed_at: app.now(),
            memory: None,
            cold_reason: Some(reason),
        },
    };
    next(
        app,
        draft,
        order,
        SealStep::Publish {
            host: host.clone(),
            request,
        },
    )
    .await?;
    Ok(Next::Again)
}

async fn publish(
    app: &App,
    draft: &Draft,
    order: &SealTerms,
    host: &HostId,
    request: &PublishRequest,
) -> Result<Next, StepError> {
    note(app, draft, "hashing the release", None).await?;
    let storage = app.agents.storage().await?.timeout(COPYING);
    let published: Published = storage
        .post(&format!("/v1/staging/{}/publish", draft.id), request)
        .await?;
    let record = SealStep::Record {
        host: host.clone(),
        published: Box::new(published),
    };
    next(app, draft, order, record).await?;
    Ok(Next::Again)
}

async fn record(
    app: &App,
    draft: &Draft,
    order: &SealTerms,
    host: &HostId,
    published: &Published,
) -> Result<Next, StepError> {
    let mut tx = app.store.begin_write().await?;
    // Asked in the transaction that offers the release: called off or offered, never both.
    if let Some(id) = &draft.operation
        && operations::get_tx(&mut tx, id)
            .await?
            .is_none_or(|o| o.state != "running")
    {
        return Ok(Next::Again);
    }
    if let Some(there) = releases::get_tx(&mut tx, &published.release).await? {
        return Err(StepError::Failed(format!(
            "storage gave it the name of release {}, which is there already: seal it again",
            there.id
        )));
    }
    let version = releases::insert(
        &mut tx,
        &NewRelease {
            id: &published.release,
            image: &draft.image,
            manifest: &published.manifest,
            bytes_on_disk: published.bytes_on_disk,
            note: &order.note,
            sealed_by: &order.by,
            sealed_at: published.manifest.sealed_at,
        },
    )
    .await?;
    let step = SealStep::Close {
        host: host.clone(),
        release: published.release.clone(),
        version,
    };
    let moved = move_on_tx(&mut tx, draft, Some(&Work::seal(order, step)), |d| {
        d.detail = format!("release {version} is offered; closing the draft");
    })
    .await?;
    if moved.is_some() {
        let detail = format!("version {version} of image/{}: {}", draft.image, order.note);
        let target = format!("release/{}", published.release);
        super::note(
            &mut tx,
            app.now(),
            &order.by,
            "release.offer",
            &target,
            &detail,
        )
        .await?;
        machine::want(&mut tx, app, draft, Desired::Absent).await?;
        tx.commit().await?;
    }
    Ok(Next::Again)
}

async fn close(app: &App, draft: &Draft, host: &HostId, version: u32) -> Result<Next, StepError> {
    // The job is over; that its agent forgets it is only neat.
    if let Ok(client) = app.agents.host(host).await
        && let Err(e) = gone(&client, &format!("/v1/seals/{}", draft.id)).await
    {
        tracing::info!(draft = %draft.id, "{host} was not told to forget a seal: {e}");
    }
    if !machine::is_gone(app, draft).await? {
        return Ok(Next::Wait(POLL));
    }
    let storage = app.agents.storage().await?;
    gone(&storage, &format!("/v1/staging/{}", draft.id)).await?;
    gone(&storage, &format!("/v1/drafts/{}", draft.id)).await?;
    let mut tx = app.store.begin_write().await?;
    if drafts::delete(&mut tx, draft).await? {
        let detail = format!("release {version} is offered");
        end_operation(app, &mut tx, draft, Outcome::Done(&detail)).await?;
        tx.commit().await?;
    }
    Ok(Next::Again)
}
