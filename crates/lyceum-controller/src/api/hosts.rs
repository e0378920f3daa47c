//! Hosts and the file server.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path};
use crate::orders::cluster::SILENT_AFTER_MS;
use axum::extract::State;
use lyceum_api::ApiError;
use lyceum_api::hosts::{Host, HostPatch, HostReplica, HostState, Storage};
use lyceum_api::wording::wordings;
use lyceum_model::HostId;
use lyceum_proto::host::{HostFacts, ReplicaFacts, ReplicaFilling};
use lyceum_proto::storage::{StorageFacts, WrittenDay};
use lyceum_store::agents::Agent;
use lyceum_store::desktops::Desktop;
use lyceum_store::power::Power;
use lyceum_store::{agents, desktops, power};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(patch))
        .routes(routes!(storage))
}

fn shown(app: &App, agent: Agent, all: &[Desktop], power: &[Power], overcommit: f64) -> Host {
    let now = app.now();
    let facts: Option<HostFacts> = agent
        .facts
        .as_deref()
        .and_then(|t| serde_json::from_str(t).ok());
    let online = agent.heard.is_some_and(|at| now - at <= SILENT_AFTER_MS);
    let load = app
        .live
        .host(&agent.id)
        .map(|o| o.load)
        .or_else(|| facts.as_ref().map(|f| f.load.clone()));
    let mine: Vec<&Desktop> = all
        .iter()
        .filter(|d| d.host.as_ref() == Some(&agent.id))
        .collect();
    let memory_mib = load.as_ref().map_or(0, |l| l.memory_mib);
    let warnings = facts
        .as_ref()
        .map(|f| f.warnings.clone())
        .unwrap_or_default();
    let refuses_because = load.as_ref().and_then(|l| l.refuses_because.clone());
    let power = crate::power::shown(
        app,
        power.iter().find(|p| p.host == agent.id),
        facts.as_ref(),
    );
    let replica = facts.as_ref().and_then(|f| f.replica.as_ref()).map(replica);
    let texts = warnings.iter().chain(&refuses_because);
    let texts = texts.chain([&power.failure]).chain(&power.not_switchable);
    let texts = texts.chain(replica.as_ref().and_then(|r| r.trouble.as_ref()));
    Host {
        wordings: wordings(texts.map(String::as_str)),
        power,
        url: agent.url,
        state: if agent.state == "draining" {
            HostState::Draining
        } else {
            HostState::Active
        },
        online,
        last_heard: agent.heard,
        warnings,
        accelerator: facts.as_ref().map(|f| f.platform.accelerator),
        replica,
        qemu_version: facts.as_ref().map(|f| f.platform.qemu_version.clone()),
        cpus: facts.as_ref().map_or(0, |f| f.cpus),
        memory_mib,
        nominal_mib: mine.iter().map(|d| u64::from(d.size.memory_mib)).sum(),
        nominal_limit_mib: (memory_mib as f64 * overcommit) as u64,
        desktops_pss_mib: load.as_ref().map_or(0, |l| l.desktops_pss_mib),
        available_mib: load.as_ref().map_or(0, |l| l.available_mib),
        cpu_percent: load.as_ref().map_or(0.0, |l| l.cpu_percent),
        desktops_cpu_percent: load.as_ref().map_or(0.0, |l| l.desktops_cpu_percent),
        memory_pressure: load.as_ref().map_or(0.0, |l| l.memory_pressure),
        desktops: mine.len() as u32,
        refuses_because,
        recent: app.live.recent(&agent.id),
        id: agent.id,
    }
}

fn replica(facts: &ReplicaFacts) -> HostReplica {
    let percent = |f: &ReplicaFilling| f.done_bytes as f64 * 100.0 / f.total_bytes.max(1) as f64;
    HostReplica {
        releases: facts.releases.len() as u32,
        used_bytes: facts.used_bytes,
        limit_bytes: facts.limit_bytes,
        filling_percent: facts.filling.as_ref().map(percent),
        trouble: facts.trouble.clone(),
    }
}

/// All hosts.
#[utoipa::path(get, path = "/hosts", tag = "hosts",
    responses((status = 200, body = Vec<Host>), (status = "default", body = ApiError)))]
async fn list(State(app): State<App>, actor: Actor) -> Result<Json<Vec<Host>>, ApiFailure> {
    actor.require_teacher()?;
    let settings = app.settings().await?;
    let all = desktops::all(&app.store).await?;
    let hosts = agents::list(&app.store, "host").await?;
    let power = power::all(&app.store).await?;
    Ok(Json(
        hosts
            .into_iter()
            .map(|a| shown(&app, a, &all, &power, settings.overcommit))
            .collect(),
    ))
}

/// Drains a host, or lets it take desktops again.
#[utoipa::path(patch, path = "/hosts/{id}", tag = "hosts", params(("id" = HostId, Path)), request_body = HostPatch,
    responses((status = 200, body = Host), (status = "default", body = ApiError)))]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
    Json(body): Json<HostPatch>,
) -> Result<Json<Host>, ApiFailure> {
    actor.require_admin()?;
    let find = async || -> Result<Agent, ApiFailure> {
        agents::get(&app.store, &id)
            .await?
            .filter(|a| a.kind == "host")
            .ok_or_else(|| ApiFailure::not_found("host"))
    };
    find().await?;
    if let Some(state) = body.state {
        let word = match state {
            HostState::Active => "active",
            HostState::Draining => "draining",
        };
        let mut tx = app.store.begin_write().await?;
        agents::set_state(&mut tx, &id, word).await?;
        audit::write(&mut tx, &actor, "host.state", &format!("host/{id}"), word).await?;
        tx.commit().await?;
    }
    let settings = app.settings().await?;
    let all = desktops::all(&app.store).await?;
    let power = power::all(&app.store).await?;
    Ok(Json(shown(
        &app,
        find().await?,
        &all,
        &power,
        settings.overcommit,
    )))
}

const DAY_MS: i64 = 86_400_000;

/// What the file server's own watch has to say.
fn strain(facts: &StorageFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if !facts.paused.is_empty() {
        warnings.push(format!(
            "{} desktops stand still, because the slow tier has nothing left to extend their disks with: delete what is not needed, or add a disk; they then go on, and nothing is lost",
            facts.paused.len()
        ));
    }
    if !facts.lost.is_empty() {
        warnings.push(format!(
            "the disks of {} desktops are lost, because their snapshots became full: reset those desktops, or restore restore points",
            facts.lost.len()
        ));
    }
    if !matches!(facts.durability.as_str(), "" | "safe") {
        warnings.push(format!(
            "the file server runs with {}: a power cut may lose what desktops have stored (docs/durability.md)",
            facts.durability
        ));
    }
    warnings
}

/// The file server.
#[utoipa::path(get, path = "/storage", tag = "hosts",
    responses((status = 200, body = Storage), (status = "default", body = ApiError)))]
async fn storage(State(app): State<App>, actor: Actor) -> Result<Json<Storage>, ApiFailure> {
    actor.require_teacher()?;
    let now = app.now();
    let agent = agents::list(&app.store, "storage")
        .await?
        .into_iter()
        .min_by_key(|a| a.joined);
    let online = agent
        .as_ref()
        .and_then(|a| a.heard)
        .is_some_and(|at| now - at <= SILENT_AFTER_MS);
    let facts: Option<StorageFacts> = agent
        .and_then(|a| a.facts)
        .and_then(|text| serde_json::from_str(&text).ok());
    let mut warnings = Vec::new();
    if let Some(facts) = &facts {
        if facts.same_device {
            warnings.push("both tiers are on one disk: fine to try it, but what desktops write then slows down what all of them read".to_owned());
        }
        for (name, tier) in [("fast", &facts.fast), ("slow", &facts.slow)] {
            if tier.free_bytes < tier.total_bytes / 10 {
                warnings.push(format!(
                    "the {name} tier is almost full: delete releases or desktops that nobody needs"
                ));
            }
        }
        warnings.extend(strain(facts));
    }
    let today = |days: fn(&StorageFacts) -> &Vec<WrittenDay>| {
        let last = facts.as_ref().and_then(|f| days(f).last());
        last.filter(|day| now - day.day < DAY_MS)
            .map_or(0, |day| day.bytes)
    };
    Ok(Json(Storage {
        online,
        durability: facts
            .as_ref()
            .map(|f| f.durability.clone())
            .unwrap_or_default(),
        desktops_left: facts.as_ref().and_then(|f| f.desktops_left),
        fast_written_today: today(|f| &f.fast_written),
        slow_written_today: today(|f| &f.slow_written),
        driver: facts.as_ref().map(|f| f.driver.clone()).unwrap_or_default(),
        fast: facts.as_ref().map(|f| f.fast),
        slow: facts.as_ref().map(|f| f.slow),
        same_device: facts.as_ref().is_some_and(|f| f.same_device),
        wordings: wordings(warnings.iter().map(String::as_str)),
        warnings,
    }))
}
