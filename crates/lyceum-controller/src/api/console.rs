//! The way to a desktop's picture.

use crate::app::App;
use crate::auth::Actor;
use crate::console;
use crate::error::{ApiFailure, Json, Path};
use axum::extract::{State, WebSocketUpgrade};
use axum::response::Response;
use lyceum_api::ApiError;
use lyceum_api::desktops::ConsoleTicket;
use lyceum_model::DesktopId;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(ticket))
        .routes(routes!(connect))
}

/// A ticket for the desktop's console.
#[utoipa::path(post, path = "/desktops/{id}/console-ticket", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = ConsoleTicket), (status = "default", body = ApiError)))]
async fn ticket(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Json<ConsoleTicket>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    let (ticket, expires) = app.tickets.issue(d.id, actor.login(), app.now())?;
    Ok(Json(ConsoleTicket { ticket, expires }))
}

/// The console: a WebSocket that carries RFB in binary messages. The ticket works once.
#[utoipa::path(get, path = "/console/{ticket}", tag = "desktops", params(("ticket" = String, Path)),
    responses((status = 101, description = "WebSocket"), (status = "default", body = ApiError)))]
async fn connect(
    State(app): State<App>,
    actor: Actor,
    Path(ticket): Path<String>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let upgrade =
        upgrade.map_err(|_| ApiFailure::malformed("this address is for WebSockets only"))?;
    let grant = app
        .tickets
        .redeem(&ticket, actor.login(), app.now())
        .ok_or_else(|| {
            ApiFailure::forbidden("this ticket is not valid any more: open the console again")
        })?;
    Ok(upgrade
        .protocols(["binary"])
        .max_message_size(console::MESSAGE_MAX)
        .max_frame_size(console::MESSAGE_MAX)
        .on_upgrade(move |socket| console::serve(app, actor, grant, socket)))
}
