//! Moves running desktops. One task per move that is not over; where it is stands in its row.
//!
//! ```text
//!  Waiting ── its turn: a generation is handed out ──► Preparing ── the destination waits ──► Moving
//!     │                                                   │ refused                             │
//!     └── called off, or it does not run any more ──┐     ▼                 it did not move ◄───┤
//!                                                   └─► Failed, Cancelled ◄─────┘               │
//!                                                       Done ◄── the destination runs it ───────┘
//! ```
//!
//! The two agents do the move itself and decide by the disk's lock which of them goes on; here it is only
//! found out. While it is under way the row says where it runs (`host_id`) and where it is waited for
//! (`moving_to`, under `handed_out`). **The destination's word that it runs under that generation is the
//! end of the move**, whoever hears it first: this reconciler, or the one that listens to hosts, also
//! after a restart. Silence of the source proves nothing: the move stays *moving* until one of the two
//! hosts has said how it ended.

use super::act::StepError;
use crate::agents::AgentError;
use crate::app::App;
use crate::orders::moves::{DRAIN, add, why_not};
use crate::orders::{self, desktop_of_target};
use lyceum_model::{Desired, HostId, MoveId, MoveWay, Phase};
use lyceum_proto::host::{HostFacts, Observed, RunRequest, StartMode, StopRequest};
use lyceum_proto::moves::{CancelMove, DesktopMemory, MoveRequest, Moved};
use lyceum_proto::storage::OverlayFacts;
use lyceum_store::desktops::{self, Desktop};
use lyceum_store::moves::{self, Move, State};
use lyceum_store::operations::Operation;
use lyceum_store::{Tx, agents, operations};
use serde::de::IgnoredAny;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

const ROUND: Duration = Duration::from_secs(2);
/// Between two looks at a move whose end is not known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What the agents need beyond the time limit: a slot, QEMU's start, the last word.
const GRACE: Duration = Duration::from_secs(150);
/// A destination that says nothing for this long while it is made ready is given up.
const PREPARE_MS: i64 = 60_000;

/// Runs for ever.
pub async fn run(app: App) {
    let at_work: Arc<Mutex<HashSet<MoveId>>> = Arc::default();
    let mut tasks = JoinSet::new();
    let mut changes = app.store.changes();
    loop {
        if let Err(e) = drains(&app).await {
            tracing::warn!("hosts could not be emptied: {e}");
        }
        match moves::active(&app.store).await {
            Ok(active) => {
                for m in active {
                    let new = at_work
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(m.id.clone());
                    if new {
                        let (app, at_work) = (app.clone(), at_work.clone());
                        tasks.spawn(async move {
                            one(&app, &m.id).await;
                            at_work
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .remove(&m.id);
                        });
                    }
                }
            }
            Err(e) => tracing::error!("moves could not be read: {e}"),
        }
        while tasks.try_join_next().is_some() {}
        let _ = tokio::time::timeout(ROUND, async {
            while changes
                .recv()
                .await
                .is_ok_and(|c| c.kind != "move" && c.kind != "operation")
            {}
        })
        .await;
    }
}

async fn one(app: &App, id: &MoveId) {
    loop {
        match advance(app, id).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => {
                tracing::warn!(r#move = %id, "{e}");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// One step. Whether there is another one to do now.
async fn advance(app: &App, id: &MoveId) -> Result<bool, StepError> {
    let Some(m) = moves::get(&app.store, id).await? else {
        return Ok(false);
    };
    match m.state {
        State::Waiting => begin(app, &m).await,
        State::Preparing => prepare(app, &m).await.map(|()| true),
        State::Moving => follow(app, &m).await.map(|()| true),
        State::Done | State::Failed | State::Cancelled => Ok(false),
    }
}

/// Its turn: hands a generation out. `false`: not yet.
async fn begin(app: &App, seen: &Move) -> Result<bool, StepError> {
    let at_once = app.settings().await?.moves_per_host as usize;
    let mut tx = app.store.begin_write().await?;
    let Some(mut m) = moves::get_tx(&mut tx, &seen.id).await? else {
        return Ok(false);
    };
    if m.state != State::Waiting {
        return Ok(true);
    }
    let d = desktops::get_tx(&mut tx, &m.desktop).await?;
    let refusal = match &d {
        _ if m.cancel => Some("it was called off".to_owned()),
        Some(d) if d.host.as_ref() != Some(&m.from) => Some("it is not there any more".to_owned()),
        Some(d) => why_not(d).map(str::to_owned),
        None => Some("it was deleted".to_owned()),
    };
    let (Some(mut d), None) = (d, &refusal) else {
        end(app, &mut tx, m, refusal.unwrap_or_default()).await?;
        tx.commit().await?;
        return Ok(true);
    };
    let under_way: Vec<Move> = moves::active_tx(&mut tx)
        .await?
        .into_iter()
        .filter(|o| o.state != State::Waiting)
        .collect();
    let full =
        |of: fn(&Move) -> &HostId| under_way.iter().filter(|o| of(o) == of(&m)).count() >= at_once;
    if full(|o| &o.from) || full(|o| &o.to) {
        return Ok(false);
    }
    d.handed_out = d.next_generation();
    d.moving_to = Some(m.to.clone());
    m.generation = d.handed_out;
    m.state = State::Preparing;
    m.began = Some(app.now());
    desktops::put(&mut tx, &d).await?;
    moves::put(&mut tx, &m).await?;
    tx.commit().await?;
    Ok(true)
}

/// The desktop as the move began with it; `None`: it was ordered otherwise since.
async fn same(app: &App, m: &Move) -> Result<Option<Desktop>, StepError> {
    Ok(desktops::get(&app.store, &m.desktop).await?.filter(|d| {
        d.moving_to.as_ref() == Some(&m.to)
            && d.handed_out == m.generation
            && d.host.as_ref() == Some(&m.from)
    }))
}

async fn facts(app: &App, host: &HostId) -> Result<(HostFacts, String), StepError> {
    let agent = agents::get(&app.store, host).await?;
    let url = agent.as_ref().map(|a| a.url.clone()).unwrap_or_default();
    let facts = agent
        .and_then(|a| a.facts)
        .and_then(|text| serde_json::from_str::<HostFacts>(&text).ok())
        .ok_or_else(|| StepError::Order(format!("{host} has not said what it is yet")))?;
    Ok((facts, url))
}

/// Chooses the way and makes the destination ready.
async fn prepare(app: &App, m: &Move) -> Result<(), StepError> {
    let Some(d) = same(app, m).await? else {
        return fail(app, m, "another order came in between").await;
    };
    if m.cancel {
        return fail(app, m, "it was called off").await;
    }
    let late = m.began.is_some_and(|at| app.now() - at > PREPARE_MS);
    let memory: Result<DesktopMemory, _> = app
        .agents
        .host(&m.from)
        .await?
        .get(&format!("/v1/desktops/{}/memory", d.id))
        .await;
    let memory = match memory.map_err(AgentError::from) {
        Ok(memory) => memory,
        Err(e) if e.is_silence() && !late => return Err(e.into()),
        Err(e) => return fail(app, m, &e.to_string()).await,
    };
    let (way, why) = match m.wanted_way {
        Some(MoveWay::Delta) if memory.own_bytes.is_none() => {
            return fail(
                app,
                m,
                "it shares no memory with a release, so it can't be moved as a delta: move it live",
            )
            .await;
        }
        Some(way) => (way, "it was asked for".to_owned()),
        None => MoveWay::choose(memory.own_bytes, d.size.memory_mib),
    };
    let request = match arrival(app, m, &d, &memory, way).await? {
        Ok(request) => request,
        Err(why) => return fail(app, m, &why).await,
    };
    // Before the destination is told: from here on a machine may wait there.
    let answer: Result<IgnoredAny, _> = app
        .agents
        .host(&m.to)
        .await?
        .timeout(Duration::from_secs(60))
        .put(&format!("/v1/desktops/{}", d.id), &request)
        .await;
    match answer.map_err(AgentError::from) {
        Ok(_) => {}
        Err(e) if e.is_silence() && !late => return Err(e.into()),
        Err(e) => return fail(app, m, &e.to_string()).await,
    }
    let mut tx = app.store.begin_write().await?;
    if let Some(mut m) = moves::get_tx(&mut tx, &m.id).await?
        && m.state == State::Preparing
    {
        m.state = State::Moving;
        m.way = Some(way);
        m.why = why;
        m.pss_before_kib = Some(memory.pss_kib as i64);
        moves::put(&mut tx, &m).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// What the destination is told; the inner error is final.
async fn arrival(
    app: &App,
    m: &Move,
    d: &Desktop,
    memory: &DesktopMemory,
    way: MoveWay,
) -> Result<Result<RunRequest, String>, StepError> {
    let (Some(overlay), Some(release)) = (&d.overlay, &d.release) else {
        return Ok(Err("it has neither an overlay nor a release".into()));
    };
    let found: OverlayFacts = app
        .agents
        .storage()
        .await?
        .get(&format!("/v1/overlays/{overlay}"))
        .await
        .map_err(AgentError::from)?;
    let settings = app.settings().await?;
    let (from, _) = facts(app, &m.from).await?;
    let own_mib = memory.own_bytes.map_or(0, |b| b >> 20);
    let start = StartMode::Arrive {
        release: release.clone(),
        from: m.from.clone(),
        way,
        platform: from.platform,
        tiers: from.tiers,
        need_mib: match way {
            MoveWay::Delta => own_mib + 32,
            MoveWay::Live => u64::from(d.size.memory_mib) + 64,
        },
    };
    let mut request = match super::act::request_for(d, found.disk, start, 0) {
        Ok(request) => request,
        Err(why) => return Ok(Err(why)),
    };
    request.generation = m.generation;
    let there = crate::network::plug(app, d, &m.to).await?;
    if there.is_some() != crate::network::plug(app, d, &m.from).await?.is_some() {
        return Ok(Err(format!(
            "only one of {} and {} takes part in courses' networks: a running desktop needs the same on both",
            m.from, m.to
        )));
    }
    if let Some(nic) = &mut request.nic {
        nic.plug = there;
    }
    request.spice = super::act::serves_spice(app, d).await?;
    request.ready_timeout_ms = limit(&settings).as_millis() as u64 + 30_000;
    Ok(Ok(request))
}

fn limit(settings: &lyceum_api::Settings) -> Duration {
    Duration::from_secs(u64::from(settings.move_timeout_s))
}

/// Tells the source, and finds out how it ended.
async fn follow(app: &App, m: &Move) -> Result<(), StepError> {
    let settings = app.settings().await?;
    let (to, url) = facts(app, &m.to).await?;
    let row = desktops::get(&app.store, &m.desktop).await?;
    let Some(d) = row else {
        return fail(app, m, "it was deleted").await;
    };
    if arrived(&d, m) {
        return done(app, m, None).await;
    }
    let request = MoveRequest {
        // While it moves its generation there is the one before what was handed out, or older.
        generation: d
            .generation
            .min(lyceum_model::Generation(m.generation.0.saturating_sub(1))),
        arrives_as: m.generation,
        to: m.to.clone(),
        url: to.migration_url.unwrap_or(url),
        way: m.way.unwrap_or(MoveWay::Delta),
        mbit_per_s: (settings.move_mbit_per_s > 0).then_some(settings.move_mbit_per_s),
        time_limit_ms: limit(&settings).as_millis() as u64,
    };
    let source = app.agents.host(&m.from).await?;
    let path = format!("/v1/desktops/{}/move", m.desktop);
    let told = source.timeout(limit(&settings) + GRACE);
    let ask = async {
        let answer: Result<Moved, _> = told.post(&path, &request).await;
        answer.map_err(AgentError::from)
    };
    let answer = tokio::select! {
        answer = ask => answer,
        never = call_off_when_asked(app, m, &source) => match never {},
    };
    match answer {
        Ok(moved) => done(app, m, Some(moved)).await,
        Err(e) => match there(app, m).await {
            // Its last word got lost.
            Ok(Some(Phase::Running)) => done(app, m, None).await,
            // The source says that it goes on, or has ended; or it says nothing, and nothing can arrive any more.
            Ok(seen) if !e.is_silence() || !seen.is_some_and(Phase::may_hold_disk) => {
                fail(app, m, &e.to_string()).await
            }
            _ if !e.is_silence() => fail(app, m, &e.to_string()).await,
            Ok(_) | Err(_) => Err(e.into()),
        },
    }
}

/// What the destination says of it under the move's generation.
async fn there(app: &App, m: &Move) -> Result<Option<Phase>, AgentError> {
    let client = app.agents.host(&m.to).await?;
    let observed: Observed = client.get("/v1/watch?after=0&wait_ms=0").await?;
    Ok(observed
        .desktops
        .iter()
        .find(|s| s.desktop == m.desktop && s.generation == m.generation)
        .map(|s| s.phase))
}

/// Tells the source when the move is called off or another order took its place.
async fn call_off_when_asked(
    app: &App,
    m: &Move,
    source: &lyceum_wire::Client,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let cancel = matches!(moves::get(&app.store, &m.id).await, Ok(Some(m)) if m.cancel);
        let other = matches!(same(app, m).await, Ok(None));
        if cancel || other {
            let answer: Result<IgnoredAny, _> = source
                .post(
                    &format!("/v1/desktops/{}/move/cancel", m.desktop),
                    &CancelMove {
                        arrives_as: m.generation,
                    },
                )
                .await;
            if let Err(e) = answer {
                tracing::debug!(r#move = %m.id, "{e}");
            }
        }
    }
}

fn arrived(d: &Desktop, m: &Move) -> bool {
    d.host.as_ref() == Some(&m.to) && d.generation == m.generation
}

/// The row of a desktop that runs where it was moved to.
pub fn runs_there(d: &Desktop, to: &HostId, now: i64) -> Desktop {
    let mut new = d.clone();
    new.host = Some(to.clone());
    new.generation = d.handed_out;
    new.observed_generation = d.handed_out;
    new.moving_to = None;
    new.phase = Phase::Running;
    new.detail = String::new();
    new.changed = now;
    new
}

async fn done(app: &App, seen: &Move, moved: Option<Moved>) -> Result<(), StepError> {
    let now = app.now();
    let mut tx = app.store.begin_write().await?;
    let Some(mut m) = moves::get_tx(&mut tx, &seen.id).await? else {
        return Ok(());
    };
    if m.state.is_over() {
        return Ok(());
    }
    if let Some(d) = desktops::get_tx(&mut tx, &m.desktop).await?
        && d.moving_to.as_ref() == Some(&m.to)
        && d.handed_out == m.generation
    {
        desktops::put(&mut tx, &runs_there(&d, &m.to, now)).await?;
    }
    m.state = State::Done;
    m.ended = Some(now);
    if let Some(moved) = moved {
        m.bytes = Some(moved.bytes as i64);
        m.pages = Some(moved.pages as i64);
        m.stand_still_ms = Some(moved.stand_still_ms as i64);
        m.total_ms = Some(moved.total_ms as i64);
    }
    moves::put(&mut tx, &m).await?;
    settle(&mut tx, &m, "done", "", now).await?;
    tx.commit().await?;
    // Shown only; its host may be busy.
    let memory: Result<DesktopMemory, AgentError> = async {
        let client = app.agents.host(&m.to).await?;
        Ok(client
            .get(&format!("/v1/desktops/{}/memory", m.desktop))
            .await?)
    }
    .await;
    if let Ok(memory) = memory {
        let mut tx = app.store.begin_write().await?;
        m.pss_after_kib = Some(memory.pss_kib as i64);
        moves::put(&mut tx, &m).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// It did not move. What waits for it is ended.
async fn fail(app: &App, m: &Move, why: &str) -> Result<(), StepError> {
    tracing::warn!(desktop = %m.desktop, from = %m.from, to = %m.to, "not moved: {why}");
    // Nothing is to arrive under this generation any more.
    let told: Result<IgnoredAny, AgentError> = async {
        let client = app.agents.host(&m.to).await?;
        Ok(client
            .timeout(Duration::from_secs(10))
            .post(
                &format!("/v1/desktops/{}/stop", m.desktop),
                &StopRequest {
                    generation: m.generation,
                    patience_ms: 0,
                },
            )
            .await?)
    }
    .await;
    if let Err(e) = told {
        tracing::debug!(r#move = %m.id, "{e}");
    }
    let mut tx = app.store.begin_write().await?;
    if let Some(m) = moves::get_tx(&mut tx, &m.id).await?
        && !m.state.is_over()
    {
        end(app, &mut tx, m, why.to_owned()).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn end(app: &App, tx: &mut Tx, mut m: Move, why: String) -> Result<(), StepError> {
    let now = app.now();
    if let Some(mut d) = desktops::get_tx(tx, &m.desktop).await?
        && d.moving_to.as_ref() == Some(&m.to)
        && d.handed_out == m.generation
    {
        d.moving_to = None;
        desktops::put(tx, &d).await?;
    }
    m.state = if m.cancel {
        State::Cancelled
    } else {
        State::Failed
    };
    m.ended = Some(now);
    m.message = why;
    moves::put(tx, &m).await?;
    let state = if m.cancel { "cancelled" } else { "failed" };
    settle(tx, &m, state, &m.message, now).await?;
    Ok(())
}

async fn settle(
    tx: &mut Tx,
    m: &Move,
    state: &str,
    message: &str,
    now: i64,
) -> Result<(), StepError> {
    let target = format!("desktop/{}", m.desktop);
    operations::settle_item(tx, &m.operation, &target, state, message).await?;
    orders::finish_if_settled(tx, &m.operation, now).await?;
    Ok(())
}

/// Hosts that are to be emptied: every desktop that runs there gets its move.
async fn drains(app: &App) -> Result<(), StepError> {
    for operation in operations::running(&app.store).await? {
        if operation.kind == DRAIN {
            drain(app, &operation).await?;
        }
    }
    Ok(())
}

async fn drain(app: &App, operation: &Operation) -> Result<(), StepError> {
    let Some(host) = operation
        .target
        .strip_prefix("host/")
        .and_then(|h| h.parse::<HostId>().ok())
    else {
        return Ok(());
    };
    let (settings, now) = (app.settings().await?, app.now());
    for item in operations::items(&app.store, &operation.id).await? {
        let Some(id) = desktop_of_target(&item.target).filter(|_| item.state == "pending") else {
            continue;
        };
        let mut tx = app.store.begin_write().await?;
        if operations::get_tx(&mut tx, &operation.id)
            .await?
            .is_none_or(|o| o.state != "running")
        {
            return Ok(());
        }
        if moves::active_tx(&mut tx)
            .await?
            .iter()
            .any(|m| m.desktop == id)
        {
            continue;
        }
        let d = desktops::get_tx(&mut tx, &id).await?;
        let (state, message) = match d.filter(|d| d.host.as_ref() == Some(&host)) {
            None => ("done", String::new()),
            // It is on its way up, or away.
            Some(d)
                if !matches!(d.phase, Phase::Running | Phase::Failed)
                    || d.desired != Desired::Running =>
            {
                continue;
            }
            Some(d) => {
                let reason = format!("{host} is being emptied");
                match add(
                    &mut tx,
                    &settings,
                    &operation.id,
                    &d,
                    None,
                    None,
                    &reason,
                    now,
                )
                .await
                {
                    Ok(_) => {
                        tx.commit().await?;
                        continue;
                    }
                    Err(refusal) => ("failed", refusal.to_string()),
                }
            }
        };
        operations::settle_item(&mut tx, &operation.id, &item.target, state, &message).await?;
        orders::finish_if_settled(&mut tx, &operation.id, now).await?;
        tx.commit().await?;
    }
    Ok(())
}
