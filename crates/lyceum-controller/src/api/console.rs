//! The way to a desktop's picture.

use crate::app::App;
use crate::auth::{Actor, Origin};
use crate::console;
use crate::error::{ApiFailure, Json, Path, Query};
use axum::extract::{State, WebSocketUpgrade};
use axum::response::Response;
use lyceum_api::ApiError;
use lyceum_api::desktops::{ConsoleQuery, ConsoleTicket, NativeViewer};
use lyceum_model::DesktopId;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(ticket))
        .routes(routes!(native))
        .routes(routes!(connect))
}

/// A ticket for the desktop's console.
#[utoipa::path(post, path = "/desktops/{id}/console-ticket", tag = "desktops", params(("id" = DesktopId, Path), ConsoleQuery),
    responses((status = 200, body = ConsoleTicket), (status = "default", body = ApiError)))]
async fn ticket(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    Query(query): Query<ConsoleQuery>,
) -> Result<Json<ConsoleTicket>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    let view_only = query.view_only.unwrap_or(false);
    let (ticket, expires) = app
        .tickets
        .issue(d.id, actor.login(), view_only, app.now())?;
    Ok(Json(ConsoleTicket { ticket, expires }))
}

// RFB with VeNCrypt, X509Plain: TLS, name and password. Nobody else reaches the port.
/// A one-time password for a native VNC viewer at the address that this request comes from.
#[utoipa::path(post, path = "/desktops/{id}/native-viewer", tag = "desktops", params(("id" = DesktopId, Path), ConsoleQuery),
    responses((status = 200, body = NativeViewer), (status = "default", body = ApiError)))]
async fn native(
    State(app): State<App>,
    actor: Actor,
    origin: Origin,
    Path(id): Path<DesktopId>,
    Query(query): Query<ConsoleQuery>,
) -> Result<Json<NativeViewer>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    let port = *app.native_port.get().ok_or_else(|| {
        ApiFailure::state(
            "this classroom has no port for native viewers: set native_listen in the controller's configuration",
        )
    })?;
    let now = app.now();
    let view_only = query.view_only.unwrap_or(false);
    let grant = console::Grant::new(d.id, actor.login(), view_only, now);
    let pass = app.native.issue(&actor, origin, grant, now)?;
    Ok(Json(NativeViewer {
        port,
        user: pass.user,
        password: pass.password,
        expires: pass.expires,
    }))
}

// With the subprotocol `lyceum` there are text messages beside the binary ones, JSON: `{"link":"waiting"}`
// while the picture stands still because the desktop is being reset, resumed or moved, `{"link":"live"}` when
// it goes on, and `{"viewers":[{"name","view_only","you"}]}` whenever somebody comes or goes.
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
    Ok(console::upgrade(app, actor, grant, upgrade))
}
