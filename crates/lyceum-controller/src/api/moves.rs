//! Moves of running desktops between hosts, and hosts that are emptied.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, JsonOrDefault, Path, Query};
use crate::orders::{self, By};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::desktops::Accepted;
use lyceum_api::moves::{Move, MoveOrder, MoveState};
use lyceum_api::wording::wordings;
use lyceum_api::{ApiError, Page};
use lyceum_model::{DesktopId, HostId};
use lyceum_store::agents;
use lyceum_store::desktops::{self, Filter, Names, Owner};
use lyceum_store::moves as rows;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(move_desktop))
        .routes(routes!(pin, unpin))
        .routes(routes!(drain))
        .routes(routes!(resume))
}

/// Rows of a page.
const PAGE: i64 = 100;

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `next` of the page before.
    before: Option<String>,
    /// Only of this desktop.
    desktop: Option<DesktopId>,
}

fn shown(m: rows::Move, names: Option<&Names>) -> Move {
    let number = |v: Option<i64>| v.map(|v| v.max(0) as u64);
    Move {
        name: names
            .map(|n| format!("{}, {}", n.user, n.course))
            .unwrap_or_default(),
        desktop: m.desktop,
        operation: m.operation,
        from: m.from,
        to: m.to,
        state: match m.state {
            rows::State::Waiting => MoveState::Waiting,
            rows::State::Preparing => MoveState::Preparing,
            rows::State::Moving => MoveState::Moving,
            rows::State::Done => MoveState::Done,
            rows::State::Failed => MoveState::Failed,
            rows::State::Cancelled => MoveState::Cancelled,
        },
        wordings: wordings([&m.why, &m.reason, &m.message].map(String::as_str)),
        way: m.way,
        why: m.why,
        reason: m.reason,
        message: m.message,
        bytes: number(m.bytes),
        pages: number(m.pages),
        stand_still_ms: number(m.stand_still_ms),
        total_ms: number(m.total_ms),
        pss_before_kib: number(m.pss_before_kib),
        pss_after_kib: number(m.pss_after_kib),
        created: m.created,
        ended: m.ended,
    }
}

/// A place in the list as it is written in `next`: `TIME.MOVE`.
fn place(text: &str) -> Option<rows::Place> {
    let (created, id) = text.split_once('.').unwrap_or((text, ""));
    Some(rows::Place {
        created: created.parse().ok()?,
        id: id.to_owned(),
    })
}

/// The newest first, of desktops whose courses one runs.
#[utoipa::path(get, path = "/moves", tag = "moves", params(ListQuery),
    responses((status = 200, body = Page<Move>), (status = "default", body = ApiError)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Move>>, ApiFailure> {
    actor.require_teacher()?;
    let before = match &query.before {
        None => rows::Place::end(),
        Some(text) => place(text).ok_or_else(|| {
            ApiFailure::invalid("before is what stood under next: leave it out to begin anew")
        })?,
    };
    let found = rows::list(&app.store, &before, query.desktop.as_ref(), PAGE).await?;
    let next = (found.len() as i64 == PAGE)
        .then(|| found.last().map(|m| format!("{}.{}", m.created, m.id)))
        .flatten();
    let all = app.reads.desktops().await?;
    let mut items = Vec::new();
    for m in found {
        let row = all.rows.iter().find(|d| d.id == m.desktop);
        let sees = match row.map(|d| &d.owner) {
            _ if actor.is_admin() => true,
            Some(Owner::Course { course, .. }) => {
                actor.require_course_staff(&app, course).await.is_ok()
            }
            _ => false,
        };
        if sees {
            let names = all.names.get(&m.desktop);
            items.push(shown(m, names));
        }
    }
    Ok(Json(Page { items, next }))
}

/// Moves a running desktop to another host; its person hardly notices.
#[utoipa::path(post, path = "/desktops/{id}/move", tag = "desktops", params(("id" = DesktopId, Path)),
    request_body = MoveOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn move_desktop(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    JsonOrDefault(body): JsonOrDefault<MoveOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let seen = super::desktops::mine(&app, &actor, &id).await?;
    if let Owner::Course { course, .. } = &seen.owner {
        actor.require_course_staff(&app, course).await?;
    }
    let names = desktops::names(&app.store, Filter::One(&id))
        .await?
        .remove(&id)
        .unwrap_or_default();
    let settings = app.settings().await?;
    let by = By {
        login: actor.login().to_owned(),
    };
    let mut tx = app.store.begin_write().await?;
    let d = desktops::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("desktop"))?;
    let operation = orders::moves::give(
        &mut tx,
        &settings,
        &by,
        &d,
        &names.user,
        body.to.as_ref(),
        body.way,
        &format!("{} asked for it", by.login),
        app.now(),
    )
    .await?;
    let detail = match &body.to {
        Some(to) => format!("{} to {to}", names.user),
        None => names.user.clone(),
    };
    audit::write(
        &mut tx,
        &actor,
        "desktop.move",
        &format!("desktop/{id}"),
        &detail,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { operation })))
}

async fn set_pin(
    app: App,
    actor: Actor,
    id: DesktopId,
    pinned: bool,
) -> Result<StatusCode, ApiFailure> {
    let seen = super::desktops::mine(&app, &actor, &id).await?;
    if let Owner::Course { course, .. } = &seen.owner {
        actor.require_course_staff(&app, course).await?;
    }
    let names = desktops::names(&app.store, Filter::One(&id))
        .await?
        .remove(&id)
        .unwrap_or_default();
    let mut tx = app.store.begin_write().await?;
    // It may have been deleted since.
    if desktops::get_tx(&mut tx, &id).await?.is_none() {
        return Err(ApiFailure::not_found("desktop"));
    }
    lyceum_store::pins::set(&mut tx, &id, pinned).await?;
    let what = if pinned {
        "desktop.pin"
    } else {
        "desktop.unpin"
    };
    audit::write(&mut tx, &actor, what, &format!("desktop/{id}"), &names.user).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

// Somebody who moves it, or empties its host, by hand still does.
/// Has plans leave the desktop on the host it is on.
#[utoipa::path(put, path = "/desktops/{id}/pin", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 204), (status = "default", body = ApiError)))]
async fn pin(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<StatusCode, ApiFailure> {
    set_pin(app, actor, id, true).await
}

/// Lets plans move the desktop again.
#[utoipa::path(delete, path = "/desktops/{id}/pin", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 204), (status = "default", body = ApiError)))]
async fn unpin(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<StatusCode, ApiFailure> {
    set_pin(app, actor, id, false).await
}

async fn must_be_host(app: &App, id: &HostId) -> Result<(), ApiFailure> {
    agents::get(&app.store, id)
        .await?
        .filter(|a| a.kind == "host")
        .map(drop)
        .ok_or_else(|| ApiFailure::not_found("host"))
}

/// Gives a host no more desktops and moves those away that run there.
#[utoipa::path(post, path = "/hosts/{id}/drain", tag = "hosts", params(("id" = HostId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn drain(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    actor.require_admin()?;
    must_be_host(&app, &id).await?;
    let all = app.reads.desktops().await?;
    let name = |d: &DesktopId| all.names.get(d).map(|n| n.user.clone()).unwrap_or_default();
    let by = By {
        login: actor.login().to_owned(),
    };
    let mut tx = app.store.begin_write().await?;
    let operation = orders::moves::drain(&mut tx, &by, &id, name, app.now()).await?;
    audit::write(&mut tx, &actor, "host.drain", &format!("host/{id}"), "").await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { operation })))
}

/// Lets a host take desktops again.
#[utoipa::path(post, path = "/hosts/{id}/resume", tag = "hosts", params(("id" = HostId, Path)),
    responses((status = 204), (status = "default", body = ApiError)))]
async fn resume(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_admin()?;
    must_be_host(&app, &id).await?;
    let mut tx = app.store.begin_write().await?;
    orders::moves::resume(&mut tx, &id, app.now()).await?;
    audit::write(&mut tx, &actor, "host.resume", &format!("host/{id}"), "").await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
