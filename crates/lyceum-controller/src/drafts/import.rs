//! Steps that make a draft's disk, and those that remove it.

use super::engine::{Next, Outcome, StepError, end, end_operation, move_on, note};
use super::machine;
use super::work::{ImportEnd, Leftover, Work};
use crate::app::App;
use lyceum_model::{HostId, JobId};
use lyceum_proto::code;
use lyceum_proto::storage::{DraftRequest, ImportOutcome, ImportRequest, ImportStatus, Published};
use lyceum_store::drafts::{self, Draft, State};
use lyceum_store::releases;
use lyceum_wire::{Client, ClientError};
use serde::de::IgnoredAny;
use std::time::Duration;

/// How long storage may take to copy a disk, or to hash a release.
pub(super) const COPYING: Duration = Duration::from_secs(2 * 3600);
/// How often a job is asked how it is doing.
const POLL: Duration = Duration::from_millis(300);

/// Makes the disk from a release, or an empty one.
pub async fn make(app: &App, draft: &Draft, request: &DraftRequest) -> Result<Next, StepError> {
    let (doing, detail) = match request {
        DraftRequest::Release { release, .. } => {
            let name = match releases::get(&app.store, release).await? {
                Some(r) => format!("release {}", r.version),
                None => format!("release {release}"),
            };
            (format!("copying {name}"), format!("copied from {name}"))
        }
        DraftRequest::Empty { virtual_bytes } => {
            let size = bytes_text(*virtual_bytes);
            (
                format!("making an empty disk of {size}"),
                format!("an empty disk of {size}"),
            )
        }
    };
    note(app, draft, &doing, None).await?;
    let storage = app.agents.storage().await?.timeout(COPYING);
    let _: IgnoredAny = storage
        .put(&format!("/v1/drafts/{}", draft.id), request)
        .await?;
    let finish = Work::Finish {
        job: None,
        end: ImportEnd::Ready { iso: false, detail },
    };
    move_on(app, draft, Some(&finish), |_| {}).await?;
    Ok(Next::Again)
}

/// Has storage make a disk of the upload.
pub async fn import(
    app: &App,
    draft: &Draft,
    job: &JobId,
    name: &str,
    iso_disk_bytes: Option<u64>,
) -> Result<Next, StepError> {
    let storage = app.agents.storage().await?;
    let path = format!("/v1/imports/{job}");
    let status: ImportStatus = match storage.get(&path).await {
        Ok(status) => status,
        // It was not asked for yet, or storage was started anew.
        Err(e) if e.code() == Some(code::NOT_FOUND) => {
            let request = ImportRequest {
                upload: job.clone(),
                draft: draft.id.clone(),
                iso_disk_bytes,
            };
            let _: IgnoredAny = storage.put(&path, &request).await?;
            return Ok(Next::Wait(POLL));
        }
        Err(e) => return Err(e.into()),
    };
    let end = match status.outcome {
        None => {
            note(app, draft, &status.step, Some(status.percent)).await?;
            return Ok(Next::Wait(POLL));
        }
        Some(ImportOutcome::Imported {
            format,
            virtual_bytes,
            iso,
        }) => {
            let size = bytes_text(virtual_bytes);
            let detail = if iso {
                format!("{name} is in the drive; install it to the empty disk of {size}")
            } else {
                format!("imported from {name} ({format}, {size})")
            };
            ImportEnd::Ready { iso, detail }
        }
        Some(ImportOutcome::Refused { message }) => ImportEnd::Failed { message },
    };
    move_on(
        app,
        draft,
        Some(&Work::Finish {
            job: Some(job.clone()),
            end,
        }),
        |_| {},
    )
    .await?;
    Ok(Next::Again)
}

/// Forgets what made the disk; removes the disk, too, if it did not come out whole.
pub async fn finish(
    app: &App,
    draft: &Draft,
    job: Option<&JobId>,
    how: &ImportEnd,
) -> Result<Next, StepError> {
    let storage = app.agents.storage().await?;
    forget_job(&storage, job).await?;
    match how {
        ImportEnd::Ready { iso, detail } => {
            end(
                app,
                draft,
                State::Ready,
                detail,
                Outcome::Done(detail),
                |d| d.iso = *iso,
            )
            .await
        }
        ImportEnd::Failed { message } => {
            gone(&storage, &format!("/v1/drafts/{}", draft.id)).await?;
            end(
                app,
                draft,
                State::Empty,
                message,
                Outcome::Failed(message),
                |d| d.iso = false,
            )
            .await
        }
        ImportEnd::Cancelled => {
            gone(&storage, &format!("/v1/drafts/{}", draft.id)).await?;
            end(
                app,
                draft,
                State::Empty,
                "called off",
                Outcome::Cancelled,
                |d| d.iso = false,
            )
            .await
        }
    }
}

/// Removes the draft with all it has.
pub async fn discard(
    app: &App,
    draft: &Draft,
    job: Option<&JobId>,
    host: Option<&HostId>,
    published: Option<&Leftover>,
) -> Result<Next, StepError> {
    if !machine::is_gone(app, draft).await? {
        note(
            app,
            draft,
            "being deleted: its machine is being ended",
            None,
        )
        .await?;
        return Ok(Next::Wait(POLL));
    }
    note(app, draft, "being deleted", None).await?;
    if let Some(host) = host {
        // As after a failed seal: nothing is removed under a QEMU that may still write it.
        gone(
            &app.agents.host(host).await?,
            &format!("/v1/seals/{}", draft.id),
        )
        .await?;
    }
    let storage = app.agents.storage().await?;
    forget_job(&storage, job).await?;
    gone(&storage, &format!("/v1/staging/{}", draft.id)).await?;
    forget_release(app, &storage, draft, published).await?;
    gone(&storage, &format!("/v1/drafts/{}", draft.id)).await?;
    let mut tx = app.store.begin_write().await?;
    if drafts::delete(&mut tx, draft).await? {
        end_operation(app, &mut tx, draft, Outcome::Done("the draft is deleted")).await?;
        tx.commit().await?;
    }
    Ok(Next::Again)
}

/// Removes what was published and is not to be offered. The staging folder is gone already.
pub(super) async fn forget_release(
    app: &App,
    storage: &Client,
    draft: &Draft,
    published: Option<&Leftover>,
) -> Result<(), StepError> {
    let release = match published {
        None => return Ok(()),
        Some(Leftover::Release { release }) => release.clone(),
        // Without a staging folder nothing is made any more; storage only tells what it made before.
        Some(Leftover::Asked { request }) => {
            let storage = storage.timeout(COPYING);
            let path = format!("/v1/staging/{}/publish", draft.id);
            match storage.post::<_, Published>(&path, request).await {
                Ok(published) => published.release,
                Err(e) if matches!(e.code(), Some(code::STATE | code::NOT_FOUND)) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    };
    // What the store offers is never taken away here.
    if releases::get(&app.store, &release).await?.is_none() {
        gone(storage, &format!("/v1/releases/{release}")).await?;
    }
    Ok(())
}

async fn forget_job(storage: &Client, job: Option<&JobId>) -> Result<(), ClientError> {
    if let Some(job) = job {
        gone(storage, &format!("/v1/imports/{job}")).await?;
        gone(storage, &format!("/v1/uploads/{job}")).await?;
    }
    Ok(())
}

/// Deletes something on an agent; that it was not there is fine.
pub(super) async fn gone(agent: &Client, path: &str) -> Result<(), ClientError> {
    match agent
        .timeout(Duration::from_secs(300))
        .delete::<IgnoredAny>(path)
        .await
    {
        Err(e) if e.code() != Some(code::NOT_FOUND) => Err(e),
        _ => Ok(()),
    }
}

/// A size for people.
pub(super) fn bytes_text(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}
