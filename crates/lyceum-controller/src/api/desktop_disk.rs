//! A desktop's disk as a file, to be taken elsewhere.

use super::desktops::mine;
use crate::agents::AgentError;
use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Path};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use lyceum_api::ApiError;
use lyceum_model::{DesktopId, Phase};
use lyceum_proto::code;
use lyceum_store::desktops::Owner;
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(export))
}

/// Until the first byte: the file server makes one file of the desktop's disk and its release's first.
const MAKING: Duration = Duration::from_secs(2 * 3600);

/// Its disk as one qcow2 file that needs nothing else. It must be shut down.
#[utoipa::path(get, path = "/desktops/{id}/disk", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, description = "the file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ApiError)))]
async fn export(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Response, ApiFailure> {
    let d = mine(&app, &actor, &id).await?;
    if let Owner::Course { course, .. } = &d.owner {
        actor.require_course_staff(&app, course).await?;
    }
    if d.host.is_some() || d.phase != Phase::Stopped || d.delta.is_some() {
        return Err(ApiFailure::state(
            "the desktop runs or is suspended, so its disk is in the middle of something: shut it down first",
        ));
    }
    let Some(overlay) = &d.overlay else {
        return Err(ApiFailure::state(
            "the desktop has no disk of its own now: what a throw-away desktop wrote is gone when it stops",
        ));
    };
    let silent = |e: AgentError| ApiFailure::unavailable(format!("the disk can't be had: {e}"));
    let storage = app.agents.storage().await.map_err(silent)?;
    let (length, bytes) = storage
        .timeout(MAKING)
        .get_stream(&format!("/v1/overlays/{overlay}/export"))
        .await
        .map_err(AgentError::from)
        .map_err(|e| match e.code() {
            Some(code::IN_USE) => ApiFailure::in_use(e.to_string()),
            Some(code::TIER_FULL) => ApiFailure::no_room(e.to_string()),
            _ => silent(e),
        })?;
    let mut tx = app.store.begin_write().await?;
    audit::write(
        &mut tx,
        &actor,
        "desktop.export",
        format!("desktop/{id}"),
        &d.hostname,
    )
    .await?;
    tx.commit().await?;
    let name = format!("attachment; filename=\"{}.qcow2\"", d.hostname);
    let mut response = (
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_DISPOSITION, name),
        ],
        Body::from_stream(bytes),
    )
        .into_response();
    if let Some(length) = length {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(response)
}
