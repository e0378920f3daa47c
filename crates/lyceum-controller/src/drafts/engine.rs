//! Carries out the steps of all drafts: one task per draft that has work.

use super::work::{ImportEnd, Work};
use super::{import, seal, tidy, upload};
use crate::agents::AgentError;
use crate::app::App;
use lyceum_model::{DraftId, OperationId};
use lyceum_store::drafts::{self, Draft, State};
use lyceum_store::{StoreError, operations};
use lyceum_wire::ClientError;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

/// How often the store is looked at when nothing was announced.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long to wait before a step is tried again that could not be carried out.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// What comes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The row moved on: read it again.
    Again,
    /// Nothing yet: look again after this long.
    Wait(Duration),
}

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It is worth trying again: an agent is not heard, or something else must happen first.
    #[error("{0}")]
    Later(String),
    /// It will not work: what failed, why, what to do.
    #[error("{0}")]
    Failed(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AgentError> for StepError {
    fn from(e: AgentError) -> Self {
        match e {
            AgentError::Store(e) => StepError::Store(e),
            AgentError::NoStorage | AgentError::NotJoined { .. } => StepError::Later(e.to_string()),
            AgentError::Call(e) => e.into(),
        }
    }
}

impl From<ClientError> for StepError {
    fn from(e: ClientError) -> Self {
        match &e {
            ClientError::Unreachable { .. } | ClientError::Timeout { .. } => {
                StepError::Later(e.to_string())
            }
            ClientError::Refused { status: 503, .. } => StepError::Later(e.to_string()),
            _ => StepError::Failed(e.to_string()),
        }
    }
}

/// Starts the reconciler of drafts and the one that clears up the tiers; dropping the set ends them.
pub fn spawn(app: &App) -> JoinSet<()> {
    let mut set = JoinSet::new();
    let own = app.clone();
    set.spawn(async move { reconcile(&own).await });
    let own = app.clone();
    set.spawn(async move { tidy::run(&own).await });
    set
}

/// Sees to it that every draft with work has somebody who carries it on.
pub async fn reconcile(app: &App) {
    let mut changes = app.store.changes();
    // Dropped with this future: then nothing of it goes on.
    let mut tasks = JoinSet::new();
    let mut running: HashMap<DraftId, tokio::task::AbortHandle> = HashMap::new();
    loop {
        running.retain(|_, task| !task.is_finished());
        while tasks.try_join_next().is_some() {}
        match drafts::all(&app.store).await {
            Ok(all) => {
                for draft in all.into_iter().filter(|d| d.work.is_some()) {
                    running.entry(draft.id.clone()).or_insert_with(|| {
                        let app = app.clone();
                        tasks.spawn(async move { drive(&app, &draft.id).await })
                    });
                }
            }
            Err(e) => tracing::warn!("drafts could not be read: {e}"),
        }
        let changed = async {
            loop {
                match changes.recv().await {
                    Ok(change) if change.kind == "draft" => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = changed => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Carries on one draft until it has no work.
pub async fn drive(app: &App, id: &DraftId) {
    loop {
        let (draft, work) = match read(app, id).await {
            Ok(Some(read)) => read,
            Ok(None) => return,
            Err(StepError::Store(e)) => {
                tracing::warn!(draft = %id, "a draft could not be read: {e}");
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
            // A newer program wrote it. It is left as it is; there is nothing safe to do.
            Err(e) => {
                tracing::error!(draft = %id, "the step of a draft can't be understood: {e}");
                tokio::time::sleep(Duration::from_secs(60)).await;
                continue;
            }
        };
        let one = async {
            let next = match step(app, &draft, &work).await {
                Ok(next) => next,
                Err(e) => after_error(app, &draft, &work, e).await,
            };
            if let Next::Wait(time) = next {
                tokio::time::sleep(time).await;
            }
        };
        // What a person calls off is left where it is; the next round undoes it.
        tokio::select! {
            () = one => {}
            () = called_off(app, &draft, &work) => {}
        }
    }
}

async fn read(app: &App, id: &DraftId) -> Result<Option<(Draft, Work)>, StepError> {
    let Some(draft) = drafts::get(&app.store, id).await? else {
        return Ok(None);
    };
    let Some(text) = &draft.work else {
        return Ok(None);
    };
    let work = Work::parse(text).map_err(|e| StepError::Failed(format!("{e}: {text}")))?;
    Ok(Some((draft, work)))
}

/// One step.
pub async fn step(app: &App, draft: &Draft, work: &Work) -> Result<Next, StepError> {
    if let Some(undo) = work.called_off()
        && !is_running(app, draft).await?
    {
        move_on(app, draft, Some(&undo), |d| {
            d.detail = "being called off".into()
        })
        .await?;
        return Ok(Next::Again);
    }
    match work {
        Work::Make { request } => import::make(app, draft, request).await,
        Work::Upload(coming) => upload::watch(app, coming),
        Work::Import {
            job,
            name,
            iso_disk_bytes,
        } => import::import(app, draft, job, name, *iso_disk_bytes).await,
        Work::Finish { job, end } => import::finish(app, draft, job.as_ref(), end).await,
        Work::Seal { order, step } => seal::step(app, draft, order, step).await,
        Work::Discard {
            job,
            host,
            published,
        } => import::discard(app, draft, job.as_ref(), host.as_ref(), published.as_ref()).await,
    }
}

async fn after_error(app: &App, draft: &Draft, work: &Work, error: StepError) -> Next {
    let done = match error {
        StepError::Store(e) => Err(e),
        StepError::Later(why) => note(app, draft, &format!("waiting: {why}"), draft.percent).await,
        StepError::Failed(why) => match failed(work, &why) {
            Some(undo) => {
                return match move_on(app, draft, Some(&undo), |d| d.detail = why).await {
                    Ok(_) => Next::Again,
                    Err(e) => {
                        tracing::warn!(draft = %draft.id, "a draft could not be written: {e}");
                        Next::Wait(TRY_AGAIN)
                    }
                };
            }
            // An undoing step: it is tried until it works.
            None => {
                note(
                    app,
                    draft,
                    &format!("clearing up, and trying again: {why}"),
                    draft.percent,
                )
                .await
            }
        },
    };
    if let Err(e) = done {
        tracing::warn!(draft = %draft.id, "a step of a draft was not carried out: {e}");
    }
    Next::Wait(TRY_AGAIN)
}

/// What to do instead when a step can't be done; `None` when it undoes already.
pub(super) fn failed(work: &Work, why: &str) -> Option<Work> {
    let end = || ImportEnd::Failed {
        message: why.to_owned(),
    };
    match work {
        Work::Make { .. } => Some(Work::Finish {
            job: None,
            end: end(),
        }),
        Work::Upload(_) | Work::Import { .. } => Some(Work::Finish {
            job: work.job().cloned(),
            end: end(),
        }),
        Work::Seal { order, step } => Some(Work::seal(order, step.cleanup(Some(why.to_owned()))?)),
        Work::Finish { .. } | Work::Discard { .. } => None,
    }
}

async fn is_running(app: &App, draft: &Draft) -> Result<bool, StoreError> {
    Ok(match &draft.operation {
        Some(id) => operations::get(&app.store, id)
            .await?
            .is_some_and(|o| o.state == "running"),
        None => true,
    })
}

/// Returns when the work's operation is called off; never when it can't be any more.
async fn called_off(app: &App, draft: &Draft, work: &Work) {
    match &draft.operation {
        Some(operation) if work.called_off().is_some() => until_ended(app, operation).await,
        _ => std::future::pending().await,
    }
}

/// Returns when an operation is not running any more.
pub(super) async fn until_ended(app: &App, id: &OperationId) {
    let mut changes = app.store.changes();
    loop {
        match operations::get(&app.store, id).await {
            Ok(Some(operation)) if operation.state == "running" => {}
            Ok(_) => return,
            Err(e) => tracing::warn!(operation = %id, "an operation could not be read: {e}"),
        }
        let changed = async {
            loop {
                match changes.recv().await {
                    Ok(change) if change.kind == "operation" && change.id == id.as_str() => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // Another controller on the same store may have called it off.
        let _ = tokio::time::timeout(LOOK_EVERY, changed).await;
    }
}

/// Writes the next step, unless somebody else did already. Answers the row as it is now if this one wrote it.
pub(super) async fn move_on(
    app: &App,
    read: &Draft,
    work: Option<&Work>,
    edit: impl FnOnce(&mut Draft),
) -> Result<Option<Draft>, StoreError> {
    let mut tx = app.store.begin_write().await?;
    let moved = move_on_tx(&mut tx, read, work, edit).await?;
    if let Some(draft) = &moved {
        if let Some(operation) = &draft.operation
            && draft.detail != read.detail
        {
            operations::set_step(&mut tx, operation, &draft.detail, "{}").await?;
        }
        tx.commit().await?;
    }
    Ok(moved)
}

/// The same as a part of a larger change. On `None` drop the transaction.
pub(super) async fn move_on_tx(
    tx: &mut lyceum_store::Tx,
    read: &Draft,
    work: Option<&Work>,
    edit: impl FnOnce(&mut Draft),
) -> Result<Option<Draft>, StoreError> {
    let mut new = read.clone();
    new.work = work.map(text_of).transpose()?;
    edit(&mut new);
    Ok(drafts::advance(tx, read, &new).await?.then_some(new))
}

/// A step as the store keeps it.
pub fn text_of(work: &Work) -> Result<String, StoreError> {
    work.to_text().map_err(|e| StoreError::Unreadable {
        what: "drafts.work",
        value: e.to_string(),
    })
}

/// Says on the page what the step is doing; writes nothing when it says so already.
pub(super) async fn note(
    app: &App,
    draft: &Draft,
    detail: &str,
    percent: Option<f64>,
) -> Result<(), StoreError> {
    let percent = percent.map(|p| p.clamp(0.0, 100.0).floor());
    if draft.detail == detail && draft.percent == percent {
        return Ok(());
    }
    let mut tx = app.store.begin_write().await?;
    let new = Draft {
        detail: detail.to_owned(),
        percent,
        ..draft.clone()
    };
    if drafts::advance(&mut tx, draft, &new).await? {
        if let Some(operation) = &draft.operation {
            let step = match percent {
                Some(p) => format!("{detail} ({p:.0} %)"),
                None => detail.to_owned(),
            };
            operations::set_step(&mut tx, operation, &step, "{}").await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Ends the work on a draft: the row stays, its operation ends.
pub(super) async fn end(
    app: &App,
    read: &Draft,
    state: State,
    detail: &str,
    outcome: Outcome<'_>,
    edit: impl FnOnce(&mut Draft),
) -> Result<Next, StepError> {
    let mut tx = app.store.begin_write().await?;
    let moved = move_on_tx(&mut tx, read, None, |d| {
        d.state = state;
        d.detail = detail.to_owned();
        d.percent = None;
        d.operation = None;
        edit(d);
    })
    .await?;
    if moved.is_some() {
        end_operation(app, &mut tx, read, outcome).await?;
        tx.commit().await?;
    }
    Ok(Next::Again)
}

/// How an operation ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome<'a> {
    /// With what was reached.
    Done(&'a str),
    /// With the reason.
    Failed(&'a str),
    /// By a person.
    Cancelled,
}

/// Ends the draft's operation, if it is running still.
pub(super) async fn end_operation(
    app: &App,
    tx: &mut lyceum_store::Tx,
    draft: &Draft,
    outcome: Outcome<'_>,
) -> Result<(), StoreError> {
    let Some(id) = &draft.operation else {
        return Ok(());
    };
    let (state, step, message) = match outcome {
        Outcome::Done(step) => ("done", step, ""),
        Outcome::Failed(why) => ("failed", "", why),
        Outcome::Cancelled => ("cancelled", "", "called off"),
    };
    operations::settle_item(tx, id, &format!("image/{}", draft.image), state, message).await?;
    operations::end(tx, id, state, step, app.now()).await?;
    Ok(())
}
