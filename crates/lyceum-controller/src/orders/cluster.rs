//! The cluster as the planner sees it, out of the store.

use crate::error::ApiFailure;
use lyceum_model::{Desired, DesktopId, HostId, Phase, UnixMillis, UserId};
use lyceum_placement::{HostView, Policy, Request};
use lyceum_proto::host::HostFacts;
use lyceum_store::desktops::{Desktop, Owner, Source};
use lyceum_store::power::State;
use lyceum_store::{Tx, agents, desktops, power};
use std::collections::{BTreeMap, HashMap, HashSet};

/// An agent that was not heard for this long is not given anything, in milliseconds.
pub const SILENT_AFTER_MS: UnixMillis = 15_000;

/// The limits out of the settings.
pub fn policy(settings: &lyceum_api::Settings) -> Policy {
    Policy {
        overcommit: settings.overcommit,
        seats: settings.seats_per_host,
    }
}

/// What a start needs at once for itself. Measured: a fork of a 768 MiB desktop
/// writes about 6 % of its pages until it is idle, a resume brings its delta
/// with it; a cold boot touches all.
pub fn private_mib(d: &Desktop) -> u32 {
    match d.source {
        Source::Fork => (d.size.memory_mib / 8).max(32),
        Source::Resume | Source::HandOut => (d.size.memory_mib / 6).max(48),
        Source::Cold => d.size.memory_mib,
    }
}

/// One desktop's request.
pub fn request(d: &Desktop) -> Request {
    Request {
        desktop: d.id.clone(),
        memory_mib: d.size.memory_mib,
        private_mib: private_mib(d),
        owner: person(d).cloned(),
        ..Request::default()
    }
}

/// Whose desktop it is; an open draft is nobody's.
fn person(d: &Desktop) -> Option<&UserId> {
    match &d.owner {
        Owner::Course { user, .. } => Some(user),
        Owner::Draft { .. } => None,
    }
}

/// Every host with what is on it and on its way to it. `changed` are rows that this transaction changed and
/// has not written yet.
pub async fn view(
    tx: &mut Tx,
    changed: &[&Desktop],
    now: UnixMillis,
) -> Result<Vec<HostView>, ApiFailure> {
    let mut rows: HashMap<DesktopId, Desktop> = desktops::all_tx(tx)
        .await?
        .into_iter()
        .map(|d| (d.id.clone(), d))
        .collect();
    for d in changed {
        rows.insert(d.id.clone(), (*d).clone());
    }
    let mut by_host: HashMap<&HostId, Vec<&Desktop>> = HashMap::new();
    for d in rows.values() {
        if let Some(host) = &d.host {
            by_host.entry(host).or_default().push(d);
        }
        // It is going to be there.
        if let Some(host) = &d.moving_to {
            by_host.entry(host).or_default().push(d);
        }
    }
    let hosts = agents::list_tx(tx, "host").await?;
    let power = power::all_tx(tx).await?;
    // Only of those who ask for a place does it matter where else they are.
    let asking: HashSet<&UserId> = changed.iter().filter_map(|d| person(d)).collect();
    Ok(hosts
        .iter()
        .map(|agent| {
            let facts: Option<HostFacts> = agent
                .facts
                .as_deref()
                .and_then(|text| serde_json::from_str(text).ok());
            let state = power
                .iter()
                .find(|p| p.host == agent.id)
                .map_or(State::On, |p| p.state);
            let silent = agent.heard.is_none_or(|at| now - at > SILENT_AFTER_MS);
            let mine = by_host
                .get(&agent.id)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let closed = match (&facts, silent) {
                _ if agent.state == "draining" => Some("it is being drained".into()),
                _ if state != State::On => Some(
                    match state {
                        State::GoingOff => "it is being switched off",
                        State::Waking => "it is coming up",
                        State::On | State::Off => "it is switched off",
                    }
                    .into(),
                ),
                (_, true) | (None, _) => Some("its agent is not heard".into()),
                (Some(f), _) if !f.load.admits => Some(
                    f.load
                        .refuses_because
                        .clone()
                        .unwrap_or_else(|| "its memory is under pressure".into()),
                ),
                _ => None,
            };
            let load = facts.map(|f| f.load);
            // What was promised to desktops that have not taken it yet.
            let promised: u64 = mine
                .iter()
                .filter(|d| {
                    d.desired == Desired::Running
                        && (d.phase != Phase::Running || d.host.as_ref() != Some(&agent.id))
                })
                .map(|d| u64::from(private_mib(d)))
                .sum();
            let memory = load.as_ref().map_or(0, |l| l.memory_mib);
            let free = load
                .as_ref()
                .map_or(0, |l| {
                    memory
                        .saturating_sub(l.desktops_pss_mib)
                        .min(l.available_mib)
                })
                .saturating_sub(promised);
            HostView {
                id: agent.id.clone(),
                closed,
                memory_mib: memory,
                free_mib: free,
                nominal_mib: mine.iter().map(|d| u64::from(d.size.memory_mib)).sum(),
                desktops: mine.len() as u32,
                people: mine
                    .iter()
                    .filter_map(|d| person(d))
                    .filter(|p| asking.contains(p))
                    .fold(BTreeMap::new(), |mut people, user| {
                        *people.entry(user.clone()).or_insert(0) += 1;
                        people
                    }),
                ..HostView::default()
            }
        })
        .collect())
}

/// The snapshot that is recorded with a decision: the hosts, and why each of the others was not taken.
pub fn snapshot_with(hosts_json: &str, others: &[(HostId, String)]) -> String {
    let others = serde_json::to_string(others).unwrap_or_default();
    format!("{{\"hosts\":{hosts_json},\"others\":{others}}}")
}
