//! Hosts on and off: how each is switched, and orders to switch one by hand. Energy.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path, Query};
use crate::power;
use crate::reconcile::power::{want, why_not_off};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::ApiError;
use lyceum_api::allocation::{EnergyDay, PowerPut, PowerShown};
use lyceum_model::HostId;
use lyceum_proto::host::HostFacts;
use lyceum_store::power::{self as rows, Power, State as Row, Wanted};
use lyceum_store::{Tx, agents, energy};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get, put))
        .routes(routes!(on))
        .routes(routes!(off))
        .routes(routes!(energy_by_day))
}

/// Longest password, bytes: what boards take is far less.
const PASSWORD_MAX: usize = 256;

async fn host(tx: &mut Tx, id: &HostId) -> Result<(Power, Option<HostFacts>), ApiFailure> {
    let agent = agents::get_tx(tx, id)
        .await?
        .filter(|a| a.kind == "host")
        .ok_or_else(|| ApiFailure::not_found("host"))?;
    let facts = agent.facts.and_then(|t| serde_json::from_str(&t).ok());
    let row = rows::get_tx(tx, id)
        .await?
        .unwrap_or_else(|| Power::new(id.clone(), 0));
    Ok((row, facts))
}

fn shown(app: &App, row: &Power, facts: Option<&HostFacts>) -> PowerShown {
    PowerShown {
        setup: power::setup(row),
        has_password: power::password_file(app, &row.host).exists(),
        commands: app.config.power_commands.keys().cloned().collect(),
        power: power::shown(app, Some(row), facts),
    }
}

/// How a host is switched.
#[utoipa::path(get, path = "/hosts/{id}/power", tag = "hosts", params(("id" = HostId, Path)),
    responses((status = 200, body = PowerShown), (status = "default", body = ApiError)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
) -> Result<Json<PowerShown>, ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let (row, facts) = host(&mut tx, &id).await?;
    Ok(Json(shown(&app, &row, facts.as_ref())))
}

/// Sets how a host is switched. Passwords are kept in a file of the controller's and never given back.
#[utoipa::path(put, path = "/hosts/{id}/power", tag = "hosts", params(("id" = HostId, Path)), request_body = PowerPut,
    responses((status = 200, body = PowerShown), (status = "default", body = ApiError)))]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
    Json(body): Json<PowerPut>,
) -> Result<Json<PowerShown>, ApiFailure> {
    actor.require_admin()?;
    power::check(&app, &body.setup).map_err(ApiFailure::invalid)?;
    if let Some(password) = &body.password
        && (password.len() > PASSWORD_MAX || password.chars().any(char::is_control))
    {
        return Err(ApiFailure::invalid(
            "the password is at most 256 bytes without control characters",
        ));
    }
    let mut tx = app.store.begin_write().await?;
    let (mut row, facts) = host(&mut tx, &id).await?;
    row.setup = serde_json::to_string(&body.setup).map_err(ApiFailure::internal)?;
    rows::put(&mut tx, &row).await?;
    let detail = match body.password {
        Some(_) => format!("{} with a new password", row.setup),
        None => row.setup.clone(),
    };
    audit::write(
        &mut tx,
        &actor,
        "host.power.setup",
        format!("host/{id}"),
        detail,
    )
    .await?;
    if let Some(password) = &body.password {
        power::keep_password(&app, &id, password).map_err(ApiFailure::internal)?;
    }
    tx.commit().await?;
    Ok(Json(shown(&app, &row, facts.as_ref())))
}

/// Brings a host up.
#[utoipa::path(post, path = "/hosts/{id}/power/on", tag = "hosts", params(("id" = HostId, Path)),
    responses((status = 202, body = PowerShown), (status = "default", body = ApiError)))]
async fn on(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
) -> Result<(StatusCode, Json<PowerShown>), ApiFailure> {
    switch(app, actor, id, Wanted::On).await
}

/// Switches a host off; refused while a desktop is on it or on its way to it.
#[utoipa::path(post, path = "/hosts/{id}/power/off", tag = "hosts", params(("id" = HostId, Path)),
    responses((status = 202, body = PowerShown), (status = "default", body = ApiError)))]
async fn off(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
) -> Result<(StatusCode, Json<PowerShown>), ApiFailure> {
    switch(app, actor, id, Wanted::Off).await
}

async fn switch(
    app: App,
    actor: Actor,
    id: HostId,
    wanted: Wanted,
) -> Result<(StatusCode, Json<PowerShown>), ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let (row, facts) = host(&mut tx, &id).await?;
    let refusal = match (wanted, row.state) {
        (Wanted::On, Row::On | Row::Waking) => Some("it is on, or coming up, already".to_owned()),
        (Wanted::Off, Row::Off | Row::GoingOff) => {
            Some("it is off, or going off, already".to_owned())
        }
        (Wanted::On, Row::GoingOff) => {
            Some("it is just going off: wait until it is off".to_owned())
        }
        (Wanted::Off, Row::Waking) => Some("it is just coming up: wait until it is on".to_owned()),
        (Wanted::On, Row::Off) => power::not_switchable(&app, &power::setup(&row), facts.as_ref()),
        (Wanted::Off, Row::On) => why_not_off(&app, &mut tx, &row).await?,
    };
    if let Some(why) = refusal {
        return Err(ApiFailure::state(format!(
            "the host can't be switched: {why}"
        )));
    }
    want(&mut tx, &id, wanted, None).await?;
    let action = match wanted {
        Wanted::On => "host.power.on",
        Wanted::Off => "host.power.off",
    };
    audit::write(&mut tx, &actor, action, format!("host/{id}"), "").await?;
    let (row, facts) = host(&mut tx, &id).await?;
    tx.commit().await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(shown(&app, &row, facts.as_ref())),
    ))
}

/// How far back.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct EnergyQuery {
    /// Days, at most 400; 30 when left out.
    days: Option<u32>,
}

const DAY_MS: i64 = 86_400_000;

/// Energy by day, estimated from the watts that hosts are said to draw; oldest first.
#[utoipa::path(get, path = "/energy", tag = "hosts", params(EnergyQuery),
    responses((status = 200, body = Vec<EnergyDay>), (status = "default", body = ApiError)))]
async fn energy_by_day(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<EnergyQuery>,
) -> Result<Json<Vec<EnergyDay>>, ApiFailure> {
    actor.require_teacher()?;
    let days = i64::from(query.days.unwrap_or(30).clamp(1, 400));
    let from = app.now().div_euclid(DAY_MS) * DAY_MS - (days - 1) * DAY_MS;
    let mut by_day: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    for e in energy::since(&app.store, from).await? {
        let day = by_day.entry(e.day).or_default();
        day.0 += e.drawn_ws;
        day.1 += e.always_ws;
    }
    let kwh = |ws: f64| (ws / 3_600.0).round() / 1000.0;
    Ok(Json(
        by_day
            .into_iter()
            .map(|(day, (drawn, always))| EnergyDay {
                day,
                drawn_kwh: kwh(drawn),
                always_on_kwh: kwh(always),
            })
            .collect(),
    ))
}
