//! Courses' networks, examinations, and the gateway.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path, Query};
use crate::network;
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::networks::{self as api, CourseNetworkPatch, Exam, GatewayOrder, GatewayReport};
use lyceum_model::{CourseId, UnixMillis};
use lyceum_net::Destination;
use lyceum_net::wanted::Uplink;
use lyceum_store::courses::{self, Course};
use lyceum_store::networks::{self, CourseNetwork};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Destinations of a course.
const ALLOWED_MAX: usize = 200;
/// Longest examination, milliseconds: whoever forgets to end one finds the way out open again.
const EXAM_MAX_MS: UnixMillis = 24 * 3600 * 1000;
/// The longest that the gateway's question may wait for an answer, milliseconds.
const WAIT_MAX_MS: u64 = 30_000;
/// Changes that come together are one.
const TOGETHER: Duration = Duration::from_millis(20);

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_network, patch_network))
        .routes(routes!(begin_exam, end_exam))
        .routes(routes!(overview))
        .routes(routes!(gateway_order, gateway_report))
}

fn shown(app: &App, course: &Course, n: Option<&CourseNetwork>) -> api::CourseNetwork {
    let listed = n.is_some_and(|n| n.listed);
    let problem = problem(app);
    api::CourseNetwork {
        internet: match (course.outside, listed) {
            (true, _) => api::Internet::On,
            (false, true) => api::Internet::List,
            (false, false) => api::Internet::Off,
        },
        allowed: n.map(|n| n.allowed.clone()).unwrap_or_default(),
        among_themselves: n.is_some_and(|n| n.among_themselves),
        exam_until: n
            .and_then(|n| n.exam_until)
            .filter(|until| *until > app.now()),
        segment: n.map(|n| n.number),
        enforced: enforced(app),
        wordings: lyceum_api::wording::wordings(problem.as_deref()),
        problem,
    }
}

fn enforced(app: &App) -> bool {
    app.config
        .network
        .as_ref()
        .is_some_and(|n| n.gateway.is_some())
}

/// What is wrong with the gateway.
fn problem(app: &App) -> Option<String> {
    app.config.network.as_ref()?;
    match app.networks.report() {
        Some((report, at)) if app.now() - at < network::SILENT_AFTER_MS => report.problem,
        _ => Some(
            "the gateway does not say that it is there: run `lyceum gateway` on the controller's machine, as root"
                .into(),
        ),
    }
}

/// How far out a course's desktops reach, and each other.
#[utoipa::path(get, path = "/courses/{id}/network", params(("id" = CourseId, Path)), responses((status = 200, body = api::CourseNetwork)))]
async fn get_network(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Json<api::CourseNetwork>, ApiFailure> {
    let course = actor.require_course_staff(&app, &id).await?;
    let n = networks::get(&app.store, &id).await?;
    Ok(Json(shown(&app, &course, n.as_ref())))
}

/// Change that. It holds for desktops that run, too, from now on, where there is a gateway.
#[utoipa::path(patch, path = "/courses/{id}/network", params(("id" = CourseId, Path)), request_body = CourseNetworkPatch,
    responses((status = 200, body = api::CourseNetwork)))]
async fn patch_network(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<CourseNetworkPatch>,
) -> Result<Json<api::CourseNetwork>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let allowed = body.allowed.map(checked).transpose()?;
    let mut tx = app.store.begin_write().await?;
    let mut course = courses::get_tx(&mut tx, &id)
        .await?
        .filter(|c| !c.deleting)
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let mut n = networks::get_or_make(&mut tx, &id).await?;
    let mut detail = Vec::new();
    if let Some(internet) = body.internet {
        (course.outside, n.listed) = match internet {
            api::Internet::On => (true, false),
            api::Internet::Off => (false, false),
            api::Internet::List => (false, true),
        };
        detail.push(format!("internet {internet:?}").to_lowercase());
    }
    if let Some(allowed) = allowed {
        detail.push(format!("allowed {}", allowed.join(" ")));
        n.allowed = allowed;
    }
    if let Some(among) = body.among_themselves {
        detail.push(format!("among themselves {among}"));
        n.among_themselves = among;
    }
    if !detail.is_empty() {
        courses::put(&mut tx, &course).await?;
        networks::put(&mut tx, &n).await?;
        let target = format!("course/{id}");
        audit::write(&mut tx, &actor, "course.network", target, detail.join("; ")).await?;
    }
    tx.commit().await?;
    Ok(Json(shown(&app, &course, Some(&n))))
}

/// As they are kept: each checked, sorted, once.
fn checked(given: Vec<String>) -> Result<Vec<String>, ApiFailure> {
    if given.len() > ALLOWED_MAX {
        return Err(ApiFailure::invalid(format!(
            "a course has at most {ALLOWED_MAX} allowed destinations: take a network instead of single addresses"
        )));
    }
    let all: Result<BTreeSet<Destination>, _> = given
        .iter()
        .filter(|text| !text.trim().is_empty())
        .map(|text| text.parse())
        .collect();
    let all = all.map_err(|e| ApiFailure::invalid(e.to_string()))?;
    Ok(all.iter().map(ToString::to_string).collect())
}

/// Begin an examination, or change when it ends: only the allowed destinations stay open, and no
/// desktop reaches another. What is open to other places is cut.
#[utoipa::path(put, path = "/courses/{id}/exam", params(("id" = CourseId, Path)), request_body = Exam,
    responses((status = 200, body = api::CourseNetwork)))]
async fn begin_exam(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<Exam>,
) -> Result<Json<api::CourseNetwork>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    if !enforced(&app) {
        return Err(ApiFailure::state(
            "examinations need a gateway, which this classroom has not: see docs/networks.md, or close the way out of the course before its desktops are started",
        ));
    }
    let now = app.now();
    if body.until <= now || body.until - now > EXAM_MAX_MS {
        return Err(ApiFailure::invalid(
            "an examination ends after now, and within 24 hours",
        ));
    }
    set_exam(&app, &actor, &id, Some(body.until))
        .await
        .map(Json)
}

/// End an examination.
#[utoipa::path(delete, path = "/courses/{id}/exam", params(("id" = CourseId, Path)), responses((status = 204)))]
async fn end_exam(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    set_exam(&app, &actor, &id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_exam(
    app: &App,
    actor: &Actor,
    id: &CourseId,
    until: Option<UnixMillis>,
) -> Result<api::CourseNetwork, ApiFailure> {
    let mut tx = app.store.begin_write().await?;
    let course = courses::get_tx(&mut tx, id)
        .await?
        .filter(|c| !c.deleting)
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let mut n = networks::get_or_make(&mut tx, id).await?;
    if n.exam_until != until {
        n.exam_until = until;
        networks::put(&mut tx, &n).await?;
        let (action, detail) = match until {
            Some(until) => (
                "course.exam",
                format!("until {until}; allowed {}", n.allowed.join(" ")),
            ),
            None => ("course.exam_end", String::new()),
        };
        audit::write(&mut tx, actor, action, format!("course/{id}"), detail).await?;
    }
    tx.commit().await?;
    Ok(shown(app, &course, Some(&n)))
}

/// The classroom's network at a glance.
#[utoipa::path(get, path = "/network", responses((status = 200, body = api::Network)))]
async fn overview(State(app): State<App>, actor: Actor) -> Result<Json<api::Network>, ApiFailure> {
    actor.require_teacher()?;
    let report = app.networks.report();
    let order = order(&app).await?;
    let problem = problem(&app);
    let (repaired, repaired_at) = app.networks.repaired().unzip();
    let hosts: Vec<api::NetworkHost> = network::hosts(&app)
        .await?
        .into_iter()
        .map(|(id, facts)| api::NetworkHost {
            kind: match facts.as_ref().map(|f| &f.uplink) {
                None => "user",
                Some(Uplink::Vxlan { .. }) => "vxlan",
                Some(Uplink::Lan { .. }) => "lan",
            }
            .into(),
            repaired: facts
                .as_ref()
                .and_then(|f| Some(f.repaired.as_ref()?.what.clone())),
            repaired_at: facts.as_ref().and_then(|f| Some(f.repaired.as_ref()?.at)),
            problem: facts
                .and_then(|f| f.problem)
                .or_else(|| app.networks.problem(&id)),
            id,
        })
        .collect();
    let texts = hosts.iter().flat_map(|h| [&h.problem, &h.repaired]);
    let texts = texts.chain([&problem, &repaired]).flatten();
    Ok(Json(api::Network {
        wordings: lyceum_api::wording::wordings(texts.map(String::as_str)),
        gateway: app
            .config
            .network
            .as_ref()
            .and_then(|n| n.gateway)
            .map(|a| a.to_string()),
        heard: report.as_ref().map(|(_, at)| *at),
        problem,
        repaired,
        repaired_at,
        current: report.is_some_and(|(r, _)| r.revision == order.revision),
        doors: network::doors(&app).await?.len() as u32,
        hosts,
    }))
}

async fn order(app: &App) -> Result<GatewayOrder, ApiFailure> {
    let network = network::gateway(app).await?;
    let network = serde_json::to_value(network).map_err(ApiFailure::internal)?;
    let hash = blake3::hash(network.to_string().as_bytes());
    Ok(GatewayOrder {
        revision: hash.to_hex()[..32].to_owned(),
        network,
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct After {
    /// The revision that is known: answered when there is another one, or when the time is over.
    after: Option<String>,
    /// How long to wait for that, milliseconds.
    #[serde(default)]
    wait_ms: u64,
}

/// What the gateway is to bring about. For `lyceum gateway`, through the local socket.
#[utoipa::path(get, path = "/network/gateway", params(After), responses((status = 200, body = GatewayOrder)))]
async fn gateway_order(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<After>,
) -> Result<Json<GatewayOrder>, ApiFailure> {
    actor.require_admin()?;
    let end = tokio::time::Instant::now() + Duration::from_millis(query.wait_ms.min(WAIT_MAX_MS));
    loop {
        let mut changes = app.store.changes();
        let order = order(&app).await?;
        if query.after.as_ref() != Some(&order.revision) {
            return Ok(Json(order));
        }
        // Examinations end without a change of the store.
        let second = tokio::time::Instant::now() + Duration::from_secs(1);
        let changed = async {
            while let Ok(change) = changes.recv().await {
                if matches!(
                    change.kind,
                    "desktop" | "session" | "user" | "course" | "network" | "host"
                ) {
                    tokio::time::sleep(TOGETHER).await;
                    return;
                }
            }
        };
        tokio::select! {
            () = app.shutdown.cancelled() => return Ok(Json(order)),
            () = tokio::time::sleep_until(end) => return Ok(Json(order)),
            () = tokio::time::sleep_until(second) => {}
            () = app.networks.moved.notified() => {}
            () = changed => {}
        }
    }
}

/// What the gateway did.
#[utoipa::path(put, path = "/network/gateway", request_body = GatewayReport, responses((status = 204)))]
async fn gateway_report(
    State(app): State<App>,
    actor: Actor,
    Json(report): Json<GatewayReport>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_admin()?;
    if !report.repaired.is_empty() {
        let mut tx = app.store.begin_write().await?;
        for what in report.repaired.iter().take(20) {
            audit::write(&mut tx, &actor, "network.repaired", "network/gateway", what).await?;
        }
        tx.commit().await?;
    }
    app.networks.reported(report, app.now());
    Ok(StatusCode::NO_CONTENT)
}
