//! How hosts are allocated: the settings, what is planned and why, and plans that somebody orders.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, JsonOrDefault, Path, Query};
use crate::reconcile::allocation::{self, Made, PlanError, wanted};
use crate::reconcile::samples::settings;
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::allocation::{
    Allocation, AllocationNow, LastLook, MoveCost, PlanDetails, PlanOrder, PlanRecord, PlanState,
    PlanStep, StepAction, StepState,
};
use lyceum_api::wording::{Wordings, wordings};
use lyceum_api::{ApiError, Page};
use lyceum_model::{DesktopId, HostId, OperationId, PlanId};
use lyceum_placement as placement;
use lyceum_store::desktops::{self, Filter, Names};
use lyceum_store::moves;
use lyceum_store::plans::{self as rows, Deed, Progress, State as Row};
use serde::Deserialize;
use std::collections::HashMap;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(now, put))
        .routes(routes!(list, make))
        .routes(routes!(get))
        .routes(routes!(run))
        .routes(routes!(stop))
}

/// Plans of a page.
const PAGE: i64 = 20;

impl From<PlanError> for ApiFailure {
    fn from(e: PlanError) -> Self {
        match e {
            PlanError::Store(e) => e.into(),
            PlanError::Order(why) => ApiFailure::internal(why),
            e @ PlanError::Invalid(_) => ApiFailure::state(e.to_string()),
        }
    }
}

/// What is wanted just now, with all settings.
#[utoipa::path(get, path = "/allocation", tag = "allocation",
    responses((status = 200, body = AllocationNow), (status = "default", body = ApiError)))]
async fn now(State(app): State<App>, actor: Actor) -> Result<Json<AllocationNow>, ApiFailure> {
    actor.require_admin()?;
    shown_now(&app).await.map(Json)
}

async fn shown_now(app: &App) -> Result<AllocationNow, ApiFailure> {
    let settings = settings(&app.store).await?;
    let now = app.now();
    let wanted = wanted::wanted(app, &settings).await?;
    let last_acted_at = rows::last_acted(&app.store).await?;
    let pause = i64::from(settings.policy.pause_minutes) * 60_000;
    let not_before = last_acted_at
        .map(|at| at + pause)
        .filter(|at| settings.automatic && (now..=now + pause).contains(at));
    let running = rows::running(&app.store).await?.map(|p| p.id);
    let newest = rows::newest_by_itself(&app.store).await?;
    // After a restart, and with other settings, it is looked at once.
    let every = i64::from(settings.every_minutes) * 60_000;
    let next_look = (settings.automatic && running.is_none()).then(|| {
        newest
            .as_ref()
            .map_or(now, |p| (p.at + every).clamp(now, now + every))
    });
    let last_look = newest.map(last_look).transpose()?;
    let told = last_look.iter().flat_map(|l| &l.why).map(|n| &n.why);
    Ok(AllocationNow {
        wordings: wordings(told.chain([&wanted.reason]).map(String::as_str)),
        next_look,
        last_look,
        mode: wanted.mode,
        mode_reason: wanted.reason,
        seats_needed: wanted.seats_needed,
        last_acted_at,
        not_before,
        running,
        settings,
    })
}

/// Change how hosts are allocated; what is left out gets its default.
#[utoipa::path(put, path = "/allocation", tag = "allocation", request_body = Allocation,
    responses((status = 200, body = AllocationNow), (status = "default", body = ApiError)))]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<Allocation>,
) -> Result<Json<AllocationNow>, ApiFailure> {
    actor.require_admin()?;
    check(&body)?;
    let before = settings(&app.store).await?;
    let value = serde_json::to_value(&body).map_err(ApiFailure::internal)?;
    let mut tx = app.store.begin_write().await?;
    lyceum_store::settings::set(&mut tx, "allocation", &value).await?;
    let detail = changes(&before, &body);
    audit::write(
        &mut tx,
        &actor,
        "allocation.change",
        "settings/allocation",
        detail,
    )
    .await?;
    tx.touch("plan", "settings");
    tx.commit().await?;
    shown_now(&app).await.map(Json)
}

/// Reasons that are told of the last look.
const TOLD: usize = 3;

fn last_look(p: rows::Plan) -> Result<LastLook, ApiFailure> {
    let plan: placement::Plan = serde_json::from_str(&p.plan).map_err(ApiFailure::internal)?;
    let mut why = plan.not_done;
    // What is about all of them says most.
    why.sort_by_key(|n| plan.before.hosts.iter().any(|h| h.id == n.what));
    why.truncate(TOLD);
    Ok(LastLook {
        at: p.at,
        plan: p.id,
        state: state(p.state),
        why,
    })
}

/// What was changed, for the audit log.
fn changes(before: &Allocation, after: &Allocation) -> String {
    let flat = |a: &Allocation| {
        let mut all = match serde_json::to_value(a) {
            Ok(serde_json::Value::Object(all)) => all,
            _ => Default::default(),
        };
        if let Some(serde_json::Value::Object(policy)) = all.remove("policy") {
            all.extend(policy);
        }
        all
    };
    let (before, after) = (flat(before), flat(after));
    after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| {
            let was = before.get(key).map(ToString::to_string).unwrap_or_default();
            format!("{key}: {was} → {value}")
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn check(a: &Allocation) -> Result<(), ApiFailure> {
    for (what, value, least, most) in [
        ("every_minutes", a.every_minutes, 1, 1440),
        ("average_minutes", a.average_minutes, 2, 60),
        ("wake_timeout_s", a.wake_timeout_s, 10, 3600),
        ("off_timeout_s", a.off_timeout_s, 10, 3600),
        ("settle_s", a.settle_s, 0, 86_400),
        ("keep_minutes_h", a.keep_minutes_h, 1, 168),
        ("keep_tens_days", a.keep_tens_days, 1, 400),
        ("pause_minutes", a.policy.pause_minutes, 0, 10_080),
        ("stale_after_s", a.policy.stale_after_s, 90, 3600),
        ("min_on_minutes", a.policy.min_on_minutes, 0, 10_080),
        ("min_off_minutes", a.policy.min_off_minutes, 0, 10_080),
    ] {
        if !(least..=most).contains(&value) {
            return Err(ApiFailure::invalid(format!(
                "{what} is {least} to {most}, not {value}"
            )));
        }
    }
    a.policy
        .check()
        .map_err(|e| ApiFailure::invalid(e.to_string()))
}

fn state(s: Row) -> PlanState {
    match s {
        Row::Shown => PlanState::Shown,
        Row::Idle => PlanState::Idle,
        Row::Running => PlanState::Running,
        Row::Done => PlanState::Done,
        Row::Failed => PlanState::Failed,
        Row::Stopped => PlanState::Stopped,
    }
}

/// What is shown beside plans: names of desktops, and what their moves cost.
struct Beside {
    names: HashMap<DesktopId, Names>,
    moves: HashMap<OperationId, moves::Move>,
}

impl Beside {
    async fn read(app: &App, plans: &[rows::Plan]) -> Result<Beside, ApiFailure> {
        let moved = plans
            .iter()
            .filter(|p| p.steps.iter().any(|s| s.operation.is_some()));
        Ok(Beside {
            names: desktops::names(&app.store, Filter::All).await?,
            moves: match moved.map(|p| p.at).min() {
                Some(at) => moves::ordered_since(&app.store, at).await?,
                None => HashMap::new(),
            },
        })
    }

    fn cost(&self, operation: Option<&OperationId>) -> Option<MoveCost> {
        let m = self.moves.get(operation?)?;
        let number = |v: Option<i64>| v.map(|v| v.max(0) as u64);
        (m.state == moves::State::Done).then(|| MoveCost {
            way: m.way,
            bytes: number(m.bytes),
            total_ms: number(m.total_ms),
            stand_still_ms: number(m.stand_still_ms),
            pss_after_kib: number(m.pss_after_kib),
        })
    }
}

fn shown(p: rows::Plan, beside: &Beside) -> Result<PlanRecord, ApiFailure> {
    let plan: placement::Plan = serde_json::from_str(&p.plan).map_err(ApiFailure::internal)?;
    let price = |desktop: Option<&DesktopId>, from: Option<&HostId>, to: &HostId| {
        let (desktop, from) = (desktop?, from?);
        plan.moves
            .iter()
            .find(|m| {
                m.desktop == desktop.as_str() && m.from == from.as_str() && m.to == to.as_str()
            })?
            .price
    };
    let steps: Vec<PlanStep> = p
        .steps
        .into_iter()
        .map(|s| {
            let (action, host, from, desktop) = match s.deed {
                Deed::On { host } => (StepAction::On, host, None, None),
                Deed::Off { host } => (StepAction::Off, host, None, None),
                Deed::Move { desktop, from, to } => {
                    (StepAction::Move, to, Some(from), desktop.parse().ok())
                }
            };
            let name = desktop.as_ref().and_then(|d| beside.names.get(d));
            PlanStep {
                price: price(desktop.as_ref(), from.as_ref(), &host),
                cost: beside.cost(s.operation.as_ref()),
                action,
                host,
                from,
                name: name.map_or_else(String::new, |n| format!("{}, {}", n.user, n.course)),
                desktop,
                reason: s.reason,
                state: match s.progress {
                    Progress::Waiting => StepState::Waiting,
                    Progress::Begun => StepState::Begun,
                    Progress::Done => StepState::Done,
                    Progress::Failed => StepState::Failed,
                    Progress::Skipped => StepState::Skipped,
                },
                message: s.message,
                operation: s.operation,
            }
        })
        .collect();
    let texts = steps.iter().flat_map(|s| [&s.reason, &s.message]);
    let texts = texts.chain(plan.not_done.iter().map(|n| &n.why));
    let wordings: Wordings = wordings(texts.chain([&p.message, &p.reason]).map(String::as_str));
    Ok(PlanRecord {
        id: p.id,
        at: p.at,
        mode: p.mode.parse().map_err(ApiFailure::internal)?,
        mode_reason: p.reason,
        ordered_by: p.ordered_by,
        state: state(p.state),
        message: p.message,
        steps,
        price: plan.price,
        not_done: plan.not_done,
        before: plan.before,
        after: plan.after,
        acted_at: p.acted_at,
        ended: p.ended,
        wordings,
    })
}

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `next` of the page before.
    before: Option<PlanId>,
}

/// The newest first.
#[utoipa::path(get, path = "/plans", tag = "allocation", params(("before" = Option<String>, Query)),
    responses((status = 200, body = Page<PlanRecord>), (status = "default", body = ApiError)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<PlanRecord>>, ApiFailure> {
    actor.require_admin()?;
    let found = rows::list(&app.store, query.before.as_ref(), PAGE).await?;
    let next = (found.len() as i64 == PAGE)
        .then(|| found.last().map(|p| p.id.to_string()))
        .flatten();
    let beside = Beside::read(&app, &found).await?;
    let items = found
        .into_iter()
        .map(|p| shown(p, &beside))
        .collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next }))
}

/// A plan with what went into it.
#[utoipa::path(get, path = "/plans/{id}", tag = "allocation", params(("id" = PlanId, Path)),
    responses((status = 200, body = PlanDetails), (status = "default", body = ApiError)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<PlanId>,
) -> Result<Json<PlanDetails>, ApiFailure> {
    actor.require_admin()?;
    let row = rows::get(&app.store, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("plan"))?;
    let beside = Beside::read(&app, std::slice::from_ref(&row)).await?;
    Ok(Json(PlanDetails {
        policy: serde_json::from_str(&row.policy).map_err(ApiFailure::internal)?,
        snapshot: serde_json::from_str(&row.snapshot).map_err(ApiFailure::internal)?,
        plan: shown(row, &beside)?,
    }))
}

/// Makes a plan now: to be looked at, or to be carried out at once. A person's order does not wait for the pause.
#[utoipa::path(post, path = "/plans", tag = "allocation", request_body = PlanOrder,
    responses((status = 201, body = PlanRecord), (status = "default", body = ApiError)))]
async fn make(
    State(app): State<App>,
    actor: Actor,
    JsonOrDefault(body): JsonOrDefault<PlanOrder>,
) -> Result<(StatusCode, Json<PlanRecord>), ApiFailure> {
    actor.require_admin()?;
    let settings = settings(&app.store).await?;
    let now = app.now();
    let wanted = wanted::wanted(&app, &settings).await?;
    let made: Made = allocation::make(&app, &settings, &wanted, body.mode, true, now)
        .await?
        .ordered_by(actor.login());
    if body.act {
        let mut tx = app.store.begin_write().await?;
        allocation::refuse_second(&mut tx).await?;
        let mode = body.mode.unwrap_or(wanted.mode);
        audit::write(&mut tx, &actor, "plan.run", "plan", mode.as_str()).await?;
        tx.commit().await?;
    }
    let row = allocation::record(&app, made, body.act)
        .await?
        .ok_or_else(|| {
            ApiFailure::state(
                "another plan is being carried out: wait until it is over, or stop it",
            )
        })?;
    let beside = Beside::read(&app, std::slice::from_ref(&row)).await?;
    Ok((StatusCode::CREATED, Json(shown(row, &beside)?)))
}

/// Has a plan carried out that was shown less than 10 minutes ago.
#[utoipa::path(post, path = "/plans/{id}/run", tag = "allocation", params(("id" = PlanId, Path)),
    responses((status = 202, body = PlanRecord), (status = "default", body = ApiError)))]
async fn run(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<PlanId>,
) -> Result<(StatusCode, Json<PlanRecord>), ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    allocation::carry_out(&mut tx, &id, actor.login(), app.now()).await?;
    audit::write(&mut tx, &actor, "plan.run", format!("plan/{id}"), "").await?;
    tx.commit().await?;
    one(&app, &id).await
}

/// Calls a plan off; the step that was begun comes to its end.
#[utoipa::path(post, path = "/plans/{id}/stop", tag = "allocation", params(("id" = PlanId, Path)),
    responses((status = 202, body = PlanRecord), (status = "default", body = ApiError)))]
async fn stop(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<PlanId>,
) -> Result<(StatusCode, Json<PlanRecord>), ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    allocation::stop(&mut tx, &id).await?;
    audit::write(&mut tx, &actor, "plan.stop", format!("plan/{id}"), "").await?;
    tx.commit().await?;
    one(&app, &id).await
}

async fn one(app: &App, id: &PlanId) -> Result<(StatusCode, Json<PlanRecord>), ApiFailure> {
    let row = rows::get(&app.store, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("plan"))?;
    let beside = Beside::read(app, std::slice::from_ref(&row)).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(row, &beside)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_and_changes_are_named() {
        let good = Allocation::default();
        assert!(check(&good).is_ok());
        for bad in [
            r#"{"every_minutes": 0}"#,
            r#"{"wake_timeout_s": 1}"#,
            r#"{"policy": {"stale_after_s": 1}}"#,
            r#"{"policy": {"cpu_low": 90}}"#,
            r#"{"policy": {"on_threshold_seats": 19}}"#,
        ] {
            let bad: Allocation = serde_json::from_str(bad).unwrap();
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        let mut other = good.clone();
        other.automatic = true;
        other.policy.min_hosts = 3;
        let said = changes(&good, &other);
        assert_eq!(said, "automatic: false → true, min_hosts: 1 → 3");
        assert_eq!(changes(&good, &good), "");
    }
}
