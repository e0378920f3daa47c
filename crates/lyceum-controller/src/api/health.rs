//! Whether the parts are there. Anybody may ask, so it names nothing.

use crate::app::App;
use crate::error::{ApiFailure, Json};
use axum::extract::State;
use lyceum_api::hosts::Health;
use lyceum_model::{HostId, UnixMillis};
use lyceum_store::agents::Agent;
use lyceum_store::power;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// An agent that was not heard for so long counts as gone, milliseconds.
pub const SILENT_AFTER: UnixMillis = 20_000;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_health))
}

/// Whether the parts are there.
#[utoipa::path(get, path = "/health", responses((status = 200, body = Health)))]
async fn get_health(State(app): State<App>) -> Result<Json<Health>, ApiFailure> {
    let now = app.now();
    let agents = app.memory.agents(&app.store).await?;
    let of = |kind: &'static str| agents.iter().filter(move |a| a.kind == kind);
    let heard = |a: &&Agent| a.heard.is_some_and(|at| now - at <= SILENT_AFTER);
    let hosts_online = of("host").filter(heard).count();
    let storage_online = of("storage").any(|a| heard(&a));
    // Nobody misses a host that was switched off.
    let off: Vec<HostId> = match hosts_online == of("host").count() {
        true => Vec::new(),
        false => power::all(&app.store)
            .await?
            .into_iter()
            .filter(|p| p.state != power::State::On)
            .map(|p| p.host)
            .collect(),
    };
    let missed = of("host").any(|a| !heard(&a) && !off.contains(&a.id));
    let whole = !missed && hosts_online > 0 && storage_online;
    Ok(Json(Health {
        status: if whole { "ok" } else { "degraded" }.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        now,
        hosts_online: hosts_online as u32,
        storage_online,
    }))
}
