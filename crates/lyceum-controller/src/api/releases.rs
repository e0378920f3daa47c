//! Releases: offered, retired, offered again, deleted.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::drafts::{self as workflow, upload, usage};
use crate::error::{ApiFailure, Json, Path};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::images::Release;
use lyceum_model::ReleaseId;
use lyceum_store::releases;
use serde::de::IgnoredAny;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long hashing a release again may take.
const VERIFYING: Duration = Duration::from_secs(30 * 60);

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get, delete))
        .routes(routes!(retire))
        .routes(routes!(offer))
}

async fn one(app: &App, id: &ReleaseId) -> Result<Release, ApiFailure> {
    let row = releases::get(&app.store, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("release"))?;
    Ok(super::images::shown_release(
        row,
        &releases::users(&app.store).await?,
    ))
}

/// One release.
#[utoipa::path(get, path = "/releases/{id}", params(("id" = ReleaseId, Path)),
    responses((status = 200, body = Release)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ReleaseId>,
) -> Result<Json<Release>, ApiFailure> {
    actor.require_teacher()?;
    one(&app, &id).await.map(Json)
}

/// Retire it: courses that follow the newest release go back to the one before at their desktops' next start;
/// courses that pin it go on.
#[utoipa::path(post, path = "/releases/{id}/retire", params(("id" = ReleaseId, Path)),
    responses((status = 200, body = Release)))]
async fn retire(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ReleaseId>,
) -> Result<Json<Release>, ApiFailure> {
    actor.require_teacher()?;
    let mut tx = app.store.begin_write().await?;
    let row = releases::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("release"))?;
    match row.state {
        releases::State::Retired => drop(tx),
        releases::State::Damaged => {
            return Err(ApiFailure::state(
                "the release is damaged, so nothing starts from it already: delete it, or restore its files and offer it again",
            ));
        }
        releases::State::Offered => {
            set(
                &mut tx,
                &actor,
                &row,
                releases::State::Retired,
                "release.retire",
            )
            .await?;
            tx.commit().await?;
        }
    }
    one(&app, &id).await.map(Json)
}

/// Offer it again. A damaged one is hashed again first, and refused while it is damaged.
#[utoipa::path(post, path = "/releases/{id}/offer", params(("id" = ReleaseId, Path)),
    responses((status = 200, body = Release)))]
async fn offer(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ReleaseId>,
) -> Result<Json<Release>, ApiFailure> {
    actor.require_teacher()?;
    // A task of its own: hashing may take longer than anybody waits for an answer, and is finished then, too.
    let offering = async move { offer_now(&app, &actor, &id).await };
    tokio::spawn(offering)
        .await
        .map_err(ApiFailure::internal)?
        .map(Json)
}

async fn offer_now(app: &App, actor: &Actor, id: &ReleaseId) -> Result<Release, ApiFailure> {
    let row = releases::get(&app.store, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("release"))?;
    if row.state == releases::State::Damaged {
        let storage = app
            .agents
            .storage()
            .await
            .map_err(|e| ApiFailure::unavailable(e.to_string()))?;
        let verified: Result<IgnoredAny, _> = storage
            .timeout(VERIFYING)
            .post(&format!("/v1/releases/{id}/verify"), &serde_json::json!({}))
            .await;
        if let Err(e) = verified {
            if e.code() == Some(lyceum_proto::code::DAMAGED) {
                workflow::mark_damaged(app, id, &e.to_string()).await?;
            }
            return Err(upload::refusal(e));
        }
    }
    let mut tx = app.store.begin_write().await?;
    let row = releases::get_tx(&mut tx, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("release"))?;
    if row.state != releases::State::Offered {
        set(
            &mut tx,
            actor,
            &row,
            releases::State::Offered,
            "release.offer",
        )
        .await?;
        tx.commit().await?;
    } else {
        drop(tx);
    }
    one(app, id).await
}

async fn set(
    tx: &mut lyceum_store::Tx,
    actor: &Actor,
    row: &releases::Release,
    state: releases::State,
    action: &str,
) -> Result<(), ApiFailure> {
    releases::set_state(tx, &row.id, state, None).await?;
    tx.touch("image", &row.image);
    let detail = format!("version {} of image/{}", row.version, row.image);
    audit::write(tx, actor, action, format!("release/{}", row.id), detail).await
}

/// Delete it. Refused while a course or desktop uses it; the message names who.
#[utoipa::path(delete, path = "/releases/{id}", params(("id" = ReleaseId, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ReleaseId>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let row = releases::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("release"))?;
    let users = releases::users_tx(&mut tx).await?;
    let used = usage::words(
        users
            .iter()
            .filter(|(release, _)| *release == id)
            .map(|(_, user)| user),
    );
    if !used.is_empty() {
        return Err(ApiFailure::in_use(format!(
            "release {} can't be deleted, it is used by {}: let those use another release first (retiring it moves courses that follow the newest)",
            row.version,
            used.join("; ")
        )));
    }
    releases::delete(&mut tx, &id).await?;
    tx.touch("image", &row.image);
    let detail = format!("version {} of image/{}", row.version, row.image);
    audit::write(
        &mut tx,
        &actor,
        "release.delete",
        format!("release/{id}"),
        detail,
    )
    .await?;
    tx.commit().await?;
    remove_bytes(&app, &id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the files of a release away that the store forgot. When storage can't do it now, the reconciler
/// that clears up the tiers does it later.
pub(super) async fn remove_bytes(app: &App, id: &ReleaseId) {
    let removed = async {
        let storage = app.agents.storage().await?;
        storage
            .delete::<IgnoredAny>(&format!("/v1/releases/{id}"))
            .await?;
        Ok::<_, crate::agents::AgentError>(())
    };
    if let Err(e) = removed.await {
        tracing::warn!(release = %id, "the files of a deleted release are removed later: {e}");
    }
}
