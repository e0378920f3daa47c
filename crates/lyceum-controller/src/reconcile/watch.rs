//! Listens to every host and writes what it observes into the store: one task
//! per host, a long poll each. Also hears the file server from time to time.

use super::observe::{self, Heard};
use crate::agents::AgentError;
use crate::app::App;
use lyceum_model::{DesktopId, Generation, HostId};
use lyceum_proto::host::{HostFacts, Observed, StopRequest};
use lyceum_proto::storage::StorageFacts;
use lyceum_store::{agents, desktops};
use serde::de::IgnoredAny;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a host may wait with its answer when nothing changes.
const POLL: Duration = Duration::from_secs(5);
/// What a host says of its load is written this often.
const FACTS_EVERY: Duration = Duration::from_secs(4);
/// A host that is not heard for this long makes its desktops unknown.
const SILENCE: Duration = Duration::from_secs(10);

/// Runs for ever.
pub async fn run(app: App) {
    let mut tasks: HashMap<HostId, tokio::task::AbortHandle> = HashMap::new();
    let mut known: HashSet<String> = HashSet::new();
    let mut set = JoinSet::new();
    let mut changes = app.store.changes();
    loop {
        for kind in ["host", "storage"] {
            match agents::list(&app.store, kind).await {
                Ok(list) => {
                    for agent in list {
                        known.insert(agent.id.to_string());
                        let running = tasks.get(&agent.id).is_some_and(|t| !t.is_finished());
                        if kind == "host" && !running {
                            let task = set.spawn(listen(app.clone(), agent.id.clone()));
                            tasks.insert(agent.id, task);
                        }
                    }
                }
                Err(e) => tracing::error!("the agents could not be read: {e}"),
            }
        }
        hear_storage(&app).await;
        // One that joins is listened to at once. What is heard of the others changes their rows too:
        // that is no reason to look.
        let _ = tokio::time::timeout(Duration::from_secs(5), async {
            while let Ok(change) = changes.recv().await {
                if change.kind == "host" && !known.contains(&change.id) {
                    break;
                }
            }
        })
        .await;
    }
}

async fn hear_storage(app: &App) {
    let Ok(list) = agents::list(&app.store, "storage").await else {
        return;
    };
    let Some(agent) = list.into_iter().min_by_key(|a| a.joined) else {
        return;
    };
    let facts: Result<StorageFacts, AgentError> = async {
        Ok(app
            .agents
            .storage()
            .await?
            .timeout(Duration::from_secs(5))
            .get("/v1/storage")
            .await?)
    }
    .await;
    match facts {
        Ok(facts) => {
            let written = async {
                write_facts(app, &agent.id, &facts).await?;
                note_strain(app, &facts).await
            };
            if let Err(e) = written.await {
                tracing::error!("{e}");
            }
        }
        Err(e) => tracing::debug!("the file server: {e}"),
    }
}

/// Notes what the file server says of desktops' disks.
async fn note_strain(app: &App, facts: &StorageFacts) -> lyceum_store::Result<()> {
    let now = app.now();
    let rows = desktops::all(&app.store).await?;
    let any = |row: &desktops::Desktop| observe::strained(row, facts, now).is_some();
    if !rows.iter().any(any) {
        return Ok(());
    }
    // Decide again on the rows as they are under the write lock.
    let mut tx = app.store.begin_write().await?;
    for row in desktops::all_tx(&mut tx).await? {
        if let Some(row) = observe::strained(&row, facts, now) {
            desktops::put(&mut tx, &row).await?;
        }
    }
    tx.commit().await
}

async fn write_facts<T: serde::Serialize>(
    app: &App,
    id: &HostId,
    facts: &T,
) -> lyceum_store::Result<()> {
    let text = serde_json::to_string(facts).unwrap_or_default();
    let mut tx = app.store.begin_write().await?;
    agents::heard(&mut tx, id, &text, app.now()).await?;
    tx.commit().await
}

/// What is remembered of a host between two polls.
struct Ear {
    facts: Option<HostFacts>,
    facts_written: Option<Instant>,
    last_heard: Instant,
    boot: u64,
    revision: u64,
}

async fn listen(app: App, id: HostId) {
    let mut ear = Ear {
        facts: None,
        facts_written: None,
        last_heard: Instant::now(),
        boot: 0,
        revision: 0,
    };
    loop {
        match poll(&app, &id, &mut ear).await {
            Ok(()) => ear.last_heard = Instant::now(),
            Err(e) => {
                tracing::debug!(host = %id, "{e}");
                ear.facts = None;
                ear.revision = 0;
                if ear.last_heard.elapsed() > SILENCE
                    && let Err(e) = mark_silent(&app, &id).await
                {
                    tracing::error!(host = %id, "{e}");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

async fn poll(app: &App, id: &HostId, ear: &mut Ear) -> Result<(), AgentError> {
    let client = app
        .agents
        .host(id)
        .await?
        .timeout(POLL + Duration::from_secs(5));
    if ear.facts.is_none() {
        ear.facts = Some(client.get("/v1/host").await?);
        ear.facts_written = None;
    }
    let asked_at = app.now();
    let path = format!(
        "/v1/watch?after={}&wait_ms={}",
        ear.revision,
        POLL.as_millis()
    );
    let observed: Observed = client.get(&path).await?;
    if observed.boot != ear.boot {
        // Another start of the agent: perhaps another version, too.
        ear.boot = observed.boot;
        ear.facts = Some(client.get("/v1/host").await?);
        ear.facts_written = None;
    }
    ear.revision = observed.revision;
    if let Some(facts) = &mut ear.facts {
        facts.load = observed.load.clone();
        if ear
            .facts_written
            .is_none_or(|at| at.elapsed() >= FACTS_EVERY)
        {
            if facts.replica.is_some() || facts.network.is_some() {
                // How far a copy is changes all the time, and a network may break and be put right.
                let fresh: HostFacts = client.get("/v1/host").await?;
                (facts.replica, facts.network) = (fresh.replica, fresh.network);
            }
            write_facts(app, id, facts).await?;
            ear.facts_written = Some(Instant::now());
        }
    }
    app.live.put(id, observed.clone());
    for stray in record(app, id, &observed, asked_at).await? {
        end_stray(app, id, stray).await;
    }
    Ok(())
}

/// Writes what changed, in one transaction; answers the strays.
async fn record(
    app: &App,
    id: &HostId,
    observed: &Observed,
    asked_at: i64,
) -> Result<Vec<(DesktopId, Generation)>, AgentError> {
    let now = app.now();
    let rows: HashMap<DesktopId, desktops::Desktop> = desktops::all(&app.store)
        .await?
        .into_iter()
        .map(|d| (d.id.clone(), d))
        .collect();
    let mut strays = Vec::new();
    let mut changed = Vec::new();
    for seen in &observed.desktops {
        match observe::heard(id, rows.get(&seen.desktop), seen, now) {
            Heard::Same => {}
            Heard::Row(_) => changed.push(seen.desktop.clone()),
            Heard::Stray => {
                let newest = rows
                    .get(&seen.desktop)
                    .map_or(seen.generation.next(), |d| d.generation);
                strays.push((seen.desktop.clone(), newest.max(seen.generation)));
            }
        }
    }
    let missing: Vec<DesktopId> = rows
        .values()
        .filter(|row| !observed.desktops.iter().any(|seen| seen.desktop == row.id))
        .filter(|row| observe::vanished(id, row, asked_at, now).is_some())
        .map(|row| row.id.clone())
        .collect();
    if changed.is_empty() && missing.is_empty() {
        return Ok(strays);
    }
    // Decide again on the rows as they are under the write lock.
    let mut tx = app.store.begin_write().await?;
    for desktop in changed {
        let row = desktops::get_tx(&mut tx, &desktop).await?;
        let seen = observed.desktops.iter().find(|s| s.desktop == desktop);
        if let Some(seen) = seen
            && let Heard::Row(row) = observe::heard(id, row.as_ref(), seen, now)
        {
            desktops::put(&mut tx, &row).await?;
        }
    }
    for desktop in missing {
        if let Some(row) = desktops::get_tx(&mut tx, &desktop).await?
            && let Some(row) = observe::vanished(id, &row, asked_at, now)
        {
            desktops::put(&mut tx, &row).await?;
        }
    }
    tx.commit().await?;
    Ok(strays)
}

async fn end_stray(app: &App, id: &HostId, (desktop, generation): (DesktopId, Generation)) {
    tracing::warn!(host = %id, %desktop, "runs there and should not: ending it");
    let result: Result<IgnoredAny, AgentError> = async {
        Ok(app
            .agents
            .host(id)
            .await?
            .post(
                &format!("/v1/desktops/{desktop}/stop"),
                &StopRequest {
                    generation,
                    patience_ms: 0,
                },
            )
            .await?)
    }
    .await;
    if let Err(e) = result {
        tracing::warn!(host = %id, %desktop, "{e}");
    }
}

async fn mark_silent(app: &App, id: &HostId) -> lyceum_store::Result<()> {
    let now = app.now();
    let rows = desktops::all(&app.store).await?;
    if !rows
        .iter()
        .any(|row| observe::silent(id, row, now).is_some())
    {
        return Ok(());
    }
    let mut tx = app.store.begin_write().await?;
    for row in desktops::all_tx(&mut tx).await? {
        if let Some(row) = observe::silent(id, &row, now) {
            desktops::put(&mut tx, &row).await?;
        }
    }
    tx.commit().await
}
