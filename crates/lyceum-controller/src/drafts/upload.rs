//! A file on its way from a person through the controller to storage.
//!
//! The bytes are handed on as they come, never kept: the sender is only as fast as storage. While
//! they come, the row is told every [`BEAT`] that somebody still streams; when it is not
//! ([`BROKEN_AFTER_MS`]), the controller that did is gone and so is the upload.

use super::engine::{Next, StepError, failed, move_on, text_of, until_ended};
use super::work::{Upload, Work};
use crate::app::App;
use crate::error::ApiFailure;
use axum::http::StatusCode;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use lyceum_model::{DraftId, UnixMillis};
use lyceum_proto::storage::StorageFacts;
use lyceum_store::drafts::{self, Draft};
use lyceum_store::{StoreError, operations};
use lyceum_wire::client::with_query;
use lyceum_wire::{Client, ClientError};
use serde::de::IgnoredAny;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const BEAT: Duration = Duration::from_secs(2);
/// An upload nobody spoke for as long as this, in milliseconds, has broken off.
const BROKEN_AFTER_MS: UnixMillis = 30_000;
/// A sender who sends nothing for so long has gone.
const STALL: Duration = Duration::from_secs(60);

/// The reconciler's part: notices that nobody streams any more.
pub fn watch(app: &App, coming: &Upload) -> Result<Next, StepError> {
    if app.now() - coming.alive > BROKEN_AFTER_MS {
        return Err(StepError::Failed(format!(
            "the upload of {} broke off: upload it again",
            coming.name
        )));
    }
    Ok(Next::Wait(BEAT))
}

/// Refuses a file that can't fit, before any of it is read. It is kept on the slow tier until
/// it has become a disk on the fast one.
pub async fn check_room(storage: &Client, bytes: u64) -> Result<(), ApiFailure> {
    let facts: StorageFacts = storage.get("/v1/storage").await.map_err(refusal)?;
    for (tier, usage) in [("slow", facts.slow), ("fast", facts.fast)] {
        if bytes > usage.free_bytes {
            return Err(ApiFailure::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "tier_full",
                format!(
                    "the file has {} and the {tier} tier has {} free: make room on it, or convert the file to a compressed qcow2 first",
                    super::import::bytes_text(bytes),
                    super::import::bytes_text(usage.free_bytes)
                ),
            ));
        }
    }
    Ok(())
}

/// Streams the file of a draft whose work is this upload, then has it imported. It runs to its end, in a
/// task of its own, also when nobody waits for it any more.
pub async fn receive<S, E>(
    app: App,
    draft: DraftId,
    coming: Upload,
    body: S,
) -> Result<(), ApiFailure>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: std::fmt::Display + 'static,
{
    let result = stream(&app, &draft, &coming, body).await;
    let Some(row) = still_mine(&app, &draft, &coming).await? else {
        return Err(result.err().unwrap_or_else(|| {
            ApiFailure::new(
                StatusCode::CONFLICT,
                "cancelled",
                "the upload was called off",
            )
        }));
    };
    let Upload {
        job,
        name,
        iso_disk_bytes,
        ..
    } = coming;
    let next = match &result {
        Ok(()) => Some(Work::Import {
            job,
            name,
            iso_disk_bytes,
        }),
        Err(e) => row
            .work
            .as_deref()
            .and_then(|w| Work::parse(w).ok())
            .and_then(|w| failed(&w, &e.message)),
    };
    let detail = match &result {
        Ok(()) => "uploaded".to_owned(),
        Err(e) => e.message.clone(),
    };
    move_on(&app, &row, next.as_ref(), |d| {
        d.detail = detail;
        d.percent = None;
    })
    .await?;
    result
}

async fn stream<S, E>(
    app: &App,
    draft: &DraftId,
    coming: &Upload,
    body: S,
) -> Result<(), ApiFailure>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: std::fmt::Display + 'static,
{
    let storage = app
        .agents
        .storage()
        .await
        .map_err(|e| ApiFailure::unavailable(e.to_string()))?;
    let sent = Arc::new(AtomicU64::new(0));
    let broke = Arc::new(AtomicBool::new(false));
    let body = {
        let (sent, broke) = (sent.clone(), broke.clone());
        tokio_stream::StreamExt::timeout(body, STALL).map(move |piece| {
            let piece = match piece {
                Ok(Ok(bytes)) => {
                    sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    Ok(bytes)
                }
                Ok(Err(e)) => Err(std::io::Error::other(e.to_string())),
                Err(_) => Err(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    "nothing came any more",
                )),
            };
            broke.fetch_or(piece.is_err(), Ordering::Relaxed);
            piece
        })
    };
    let path = with_query(
        &format!("/v1/uploads/{}", coming.job),
        &[("name", &coming.name), ("bytes", &coming.bytes.to_string())],
    );
    let called_off = || {
        ApiFailure::new(
            StatusCode::CONFLICT,
            "cancelled",
            "the upload was called off",
        )
    };
    tokio::select! {
        result = storage.put_stream::<_, _, IgnoredAny>(&path, body) => match result {
            Ok(_) => Ok(()),
            Err(_) if broke.load(Ordering::Relaxed) => Err(ApiFailure::new(
                StatusCode::BAD_REQUEST,
                "broken_off",
                format!(
                    "the upload of {} broke off after {} of {} bytes: upload it again",
                    coming.name,
                    sent.load(Ordering::Relaxed),
                    coming.bytes
                ),
            )),
            Err(e) => Err(refusal(e)),
        },
        result = beat(app, draft, coming, &sent) => {
            result?;
            Err(called_off())
        }
        () = ended(app, draft) => Err(called_off()),
    }
}

/// Says again and again that the upload goes on; returns when the row is not about it any more.
async fn beat(
    app: &App,
    draft: &DraftId,
    coming: &Upload,
    sent: &AtomicU64,
) -> Result<(), StoreError> {
    loop {
        tokio::time::sleep(BEAT).await;
        let Some(row) = still_mine(app, draft, coming).await? else {
            return Ok(());
        };
        let alive = Work::Upload(Upload {
            alive: app.now(),
            ..coming.clone()
        });
        let percent = sent.load(Ordering::Relaxed) as f64 * 100.0 / coming.bytes.max(1) as f64;
        let percent = percent.clamp(0.0, 100.0).floor();
        let mut tx = app.store.begin_write().await?;
        let new = Draft {
            work: Some(text_of(&alive)?),
            percent: Some(percent),
            ..row.clone()
        };
        if drafts::advance(&mut tx, &row, &new).await? {
            if let Some(operation) = &row.operation {
                operations::set_step(
                    &mut tx,
                    operation,
                    &format!("{} ({percent:.0} %)", row.detail),
                    "{}",
                )
                .await?;
            }
            tx.commit().await?;
        }
    }
}

/// Returns when the upload's operation is called off.
async fn ended(app: &App, draft: &DraftId) {
    match drafts::get(&app.store, draft).await {
        Ok(Some(Draft {
            operation: Some(operation),
            ..
        })) => until_ended(app, &operation).await,
        _ => std::future::pending().await,
    }
}

/// The row, while its work is this upload.
async fn still_mine(
    app: &App,
    draft: &DraftId,
    coming: &Upload,
) -> Result<Option<Draft>, StoreError> {
    Ok(drafts::get(&app.store, draft).await?.filter(|row| {
        matches!(
            row.work.as_deref().and_then(|w| Work::parse(w).ok()),
            Some(Work::Upload(Upload { job, .. })) if job == coming.job
        )
    }))
}

/// What storage said, to a person.
pub fn refusal(e: ClientError) -> ApiFailure {
    use lyceum_proto::code;
    match &e {
        ClientError::Refused { body, .. } => {
            let message = body.message.clone();
            match body.code.as_str() {
                code::TIER_FULL => {
                    ApiFailure::new(StatusCode::INSUFFICIENT_STORAGE, "tier_full", message)
                }
                code::INVALID => ApiFailure::invalid(message),
                code::DAMAGED => {
                    ApiFailure::new(StatusCode::UNPROCESSABLE_ENTITY, "damaged", message)
                }
                code::IN_USE => ApiFailure::in_use(message),
                code::STATE => ApiFailure::state(message),
                code::NOT_FOUND => ApiFailure::new(StatusCode::NOT_FOUND, "not_found", message),
                _ => ApiFailure::internal(e),
            }
        }
        _ => ApiFailure::unavailable(format!("{e}. Try again in a moment")),
    }
}
