//! The way to a desktop's picture.

use crate::app::App;
use crate::auth::{Actor, Origin};
use crate::console;
use crate::error::{ApiFailure, Json, Path, Query};
use axum::extract::{Request, State};
use axum::response::Response;
use lyceum_api::ApiError;
use lyceum_api::desktops::{ConsoleQuery, ConsoleTicket, NativeViewer, SpiceViewer, ViewerWays};
use lyceum_api::wording::wordings;
use lyceum_model::DesktopId;
use lyceum_store::desktops::{Desktop, Owner};
use utoipa_axum::{router::OpenApiRouter, routes};

const NO_PORT: &str = "this classroom has no port for SPICE clients: set spice_listen in the controller's configuration";
const OFF: &str = "SPICE clients are not switched on for this desktop's course: its teacher can do that, and then it has to be started again";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(ticket))
        .routes(routes!(ways))
        .routes(routes!(native))
        .routes(routes!(spice))
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

/// With which programs outside of the page it can be looked at now, and why not.
#[utoipa::path(get, path = "/desktops/{id}/viewers", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = ViewerWays), (status = "default", body = ApiError)))]
async fn ways(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Json<ViewerWays>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    let spice_reason = match no_spice(&app, &d).await? {
        Some(why) => Some(why),
        None => console::spice::not_there(&app, &actor, &d).await,
    };
    Ok(Json(ViewerWays {
        vnc: app.native_port.get().is_some(),
        spice: spice_reason.is_none(),
        wordings: wordings(spice_reason.as_deref()),
        spice_reason,
    }))
}

// Why the set-up rules SPICE out for this desktop.
async fn no_spice(app: &App, d: &Desktop) -> Result<Option<String>, ApiFailure> {
    if app.spice_port.get().is_none() {
        return Ok(Some(NO_PORT.to_owned()));
    }
    let course = match &d.owner {
        Owner::Course { course, .. } => lyceum_store::courses::get(&app.store, course).await?,
        Owner::Draft { .. } => None,
    };
    let off = !course.is_some_and(|course| course.spice);
    Ok(off.then(|| OFF.to_owned()))
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

// One at a time: who opens it last has it. SPICE has no way to watch only.
/// A file for `remote-viewer` at the address that this request comes from, with a one-time password. Its course must
/// allow SPICE.
#[utoipa::path(post, path = "/desktops/{id}/spice-viewer", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = SpiceViewer), (status = "default", body = ApiError)))]
async fn spice(
    State(app): State<App>,
    actor: Actor,
    origin: Origin,
    Path(id): Path<DesktopId>,
    headers: axum::http::HeaderMap,
) -> Result<Json<SpiceViewer>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    if let Some(why) = no_spice(&app, &d).await? {
        return Err(ApiFailure::state(why));
    }
    let port = *app
        .spice_port
        .get()
        .ok_or_else(|| ApiFailure::state(NO_PORT))?;
    let host = match origin {
        Origin::Socket => "127.0.0.1".to_owned(),
        Origin::Network(_) => {
            let said = headers.get(axum::http::header::HOST);
            console::spice::file::host_of(said.and_then(|v| v.to_str().ok()).unwrap_or_default())?
        }
    };
    let title = d.hostname.to_string();
    let grant = console::Grant::new(d.id.clone(), actor.login(), false, app.now());
    let own = app.config.tls.is_own();
    let reach = console::spice::sessions::Reach {
        host,
        subject: own.then(|| format!("CN={}", lyceum_wire::Peer::controller())),
    };
    let pass = console::spice::let_in(&app, &actor, origin, grant, reach.clone()).await?;
    let file = console::spice::file::ViewerFile {
        host: &reach.host,
        port,
        password: &pass.password,
        title: &title,
        authority: reach.subject.as_deref().map(|s| (app.ca.pem(), s)),
    };
    Ok(Json(SpiceViewer {
        file_name: format!("{title}.vv"),
        file: file.text(),
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
    request: Request,
) -> Result<Response, ApiFailure> {
    let mut parts = request.into_parts().0;
    let upgrade = console::Upgrade::of(&mut parts)
        .ok_or_else(|| ApiFailure::malformed("this address is for WebSockets only"))?;
    let grant = app
        .tickets
        .redeem(&ticket, actor.login(), app.now())
        .ok_or_else(|| {
            ApiFailure::forbidden("this ticket is not valid any more: open the console again")
        })?;
    Ok(console::upgrade(app, actor, grant, upgrade))
}
