//! The requests of [`lyceum_proto::host`].

use crate::agent::Agent;
use crate::desktop::{Command, Desktop};
use crate::{moves, seal, start};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use lyceum_hypervisor::{DeltaFault, HypervisorError, Instance};
use lyceum_model::{DeltaId, DesktopId, DraftId, Generation, ReleaseId};
use lyceum_proto::code;
use lyceum_proto::host::{
    Clipboard, HostFacts, NetworkFacts, NetworkRequest, Observed, ObservedDesktop, RunRequest,
    SaveRequest, SavedDelta, SealRequest, SealStatus, StartMode, StopRequest, VerifyDelta,
};
use lyceum_proto::moves::{CancelMove, DesktopMemory, MoveRequest, Moved, PROTOCOL};
use lyceum_wire::extract::{Json, Path, Query};
use lyceum_wire::server::accept_upgrade;
use lyceum_wire::{ApiError, Peer, PeerKind};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Agents = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, ApiError>;

/// The longest a watch may wait.
const WATCH_MAX: Duration = Duration::from_secs(60);
/// The longest patience with a guest that shuts down.
const PATIENCE_MAX_MS: u64 = 300_000;
/// Longest text of a clipboard in bytes.
const CLIPBOARD_MAX: usize = 32 * 1024;
/// The protocol of a console: see `lyceum_console::relay`.
const CONSOLE: &str = "lyceum-console";

pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/host", get(host))
        .route("/v1/watch", get(watch))
        .route("/v1/desktops/{id}", put(run))
        .route("/v1/desktops/{id}/suspend", post(suspend))
        .route("/v1/desktops/{id}/capture", post(capture))
        .route("/v1/desktops/{id}/stop", post(stop))
        .route("/v1/desktops/{id}/console", get(console))
        .route("/v1/desktops/{id}/spice", get(crate::spice::channel))
        .route(
            "/v1/desktops/{id}/clipboard",
            get(clipboard).put(set_clipboard),
        )
        .route("/v1/seals/{draft}", put(seal).delete(end_seal))
        .route("/v1/deltas/{id}/verify", post(verify_delta))
        .route("/v1/releases/{id}/prepare", post(prepare))
        .route("/v1/network", put(network))
        .route("/v1/desktops/{id}/memory", get(memory))
        .route("/v1/desktops/{id}/move", post(move_away))
        .route("/v1/desktops/{id}/move/cancel", post(cancel_move))
        .merge(crate::power::routes())
        .layer(axum::middleware::from_fn(controller_only))
        .with_state(agent.clone())
        .merge(arrivals(agent))
}

/// The one request that other hosts may make.
pub(crate) fn arrivals(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/desktops/{id}/arrival", get(arrival))
        .with_state(agent)
}

async fn controller_only(request: Request, next: axum::middleware::Next) -> Response {
    match request.extensions().get::<Peer>() {
        Some(peer) if peer.kind == PeerKind::Controller => next.run(request).await,
        _ => ApiError::forbidden("only the controller may ask for that").into_response(),
    }
}

async fn network(
    State(agent): Agents,
    Json(request): Json<NetworkRequest>,
) -> Answer<Option<NetworkFacts>> {
    let told = agent.network.tell(request).await;
    told.map_err(|e| ApiError::new(&e.code, e.message))?;
    Ok(Json(agent.network.facts()))
}

async fn memory(State(agent): Agents, Path(id): Path<DesktopId>) -> Answer<DesktopMemory> {
    let machine = machine(&agent, &id)?;
    let own_bytes = machine.own_bytes().await.map_err(failed)?;
    let pss_kib = machine.usage().await.map_err(failed)?.pss_kib;
    Ok(Json(DesktopMemory { own_bytes, pss_kib }))
}

async fn move_away(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(request): Json<MoveRequest>,
) -> Answer<Moved> {
    if request.arrives_as <= request.generation || request.time_limit_ms == 0 {
        return Err(ApiError::invalid(
            "a desktop arrives as a newer generation, and within a time that is not 0",
        ));
    }
    let desktop = known(&agent, &id)?;
    let moved = desktop.ask(|reply| Command::Move(request, reply));
    moved.await.map(Json)
}

async fn cancel_move(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(request): Json<CancelMove>,
) -> Answer<()> {
    let desktop = known(&agent, &id)?;
    let done = desktop.ask(|reply| Command::CancelMove(request.arrives_as, reply));
    done.await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArrivalQuery {
    generation: u64,
}

async fn arrival(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Query(query): Query<ArrivalQuery>,
    axum::Extension(peer): axum::Extension<Peer>,
    mut request: Request,
) -> Result<Response, ApiError> {
    if peer.kind != PeerKind::Host {
        return Err(ApiError::forbidden("only another host may send a desktop"));
    }
    let generation = Generation(query.generation);
    moves::may_arrive(&agent, &id, generation, &peer)?;
    let machine = moves::waiting(&agent, &id, generation).await?;
    let (response, stream) = accept_upgrade(&mut request, PROTOCOL)?;
    let work = moves::arrive(agent.clone(), id, generation, machine, stream);
    agent.spawn(work);
    Ok(response)
}

async fn host(State(agent): Agents) -> Json<HostFacts> {
    Json(agent.facts())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn watch(State(agent): Agents, Query(query): Query<WatchQuery>) -> Json<Observed> {
    let wait = Duration::from_millis(query.wait_ms).min(WATCH_MAX);
    tokio::select! {
        observed = agent.observatory.watch(query.after, wait) => Json(observed),
        () = agent.shutdown.cancelled() => Json(agent.observatory.observed()),
    }
}

async fn run(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(request): Json<RunRequest>,
) -> Answer<ObservedDesktop> {
    let asked = Instant::now();
    start::check(&request)?;
    let _taken_in = agent.going_off.may_take_in().await?;
    agent.can_be_asked(&id)?;
    let desktop = agent.desktop_or_new(&id);
    // Before it is accepted, so that the answer says what is wrong; costs little once it is known.
    if let Some(release) = start::release_of(&request)
        && !agent.is_known(&id, request.generation)
    {
        agent.tiers.check()?;
        match &request.start {
            StartMode::Arrive {
                from,
                need_mib,
                platform,
                tiers,
                ..
            } => {
                start::can_arrive(&agent, platform, tiers.as_deref())?;
                agent.has_memory_for(*need_mib)?;
                let wait = Duration::from_millis(request.ready_timeout_ms);
                agent
                    .moves
                    .expect(&id, request.generation, from.clone(), *need_mib, wait);
            }
            _ => agent.has_memory()?,
        }
        if let Err(e) = agent.release(release).await {
            agent.moves.not_expected(&id, request.generation);
            return Err(e.into());
        }
    }
    let generation = request.generation;
    let taken = desktop
        .ask(|reply| Command::Run(Box::new(request), asked, reply))
        .await;
    if taken.is_err() {
        agent.moves.not_expected(&id, generation);
    }
    taken.map(Json)
}

async fn suspend(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(request): Json<SaveRequest>,
) -> Answer<SavedDelta> {
    let desktop = known(&agent, &id)?;
    let saved = desktop.ask(|reply| Command::Save(request, true, reply));
    saved.await.map(Json)
}

async fn capture(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(request): Json<SaveRequest>,
) -> Answer<SavedDelta> {
    let desktop = known(&agent, &id)?;
    let saved = desktop.ask(|reply| Command::Save(request, false, reply));
    saved.await.map(Json)
}

async fn stop(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(mut request): Json<StopRequest>,
) -> Answer<ObservedDesktop> {
    agent.can_be_asked(&id)?;
    request.patience_ms = request.patience_ms.min(PATIENCE_MAX_MS);
    agent.moves.not_expected(&id, request.generation);
    let desktop = agent.desktop_or_new(&id);
    let stopped = desktop.ask(|reply| Command::Stop(request, reply));
    stopped.await.map(Json)
}

fn known(agent: &Agent, id: &DesktopId) -> Result<Desktop, ApiError> {
    agent.can_be_asked(id)?;
    agent
        .desktop(id)
        .ok_or_else(|| ApiError::not_found(format!("desktop {id} is not known on this host")))
}

pub(crate) fn machine(agent: &Agent, id: &DesktopId) -> Result<Arc<dyn Instance>, ApiError> {
    known(agent, id)?.instance().ok_or_else(|| {
        ApiError::state(format!(
            "desktop {id} does not run on this host: start it first"
        ))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsoleQuery {
    pub(crate) generation: Option<u64>,
}

async fn console(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Query(query): Query<ConsoleQuery>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let machine = machine(&agent, &id)?;
    // Another one's picture is not what was asked for: it may be empty still.
    let generation = machine.request().generation;
    if query.generation.is_some_and(|asked| asked != generation.0) {
        return Err(ApiError::state(format!(
            "desktop {id} runs as its generation {generation} here: ask again"
        )));
    }
    let seat = agent.consoles.enter(&id).ok_or_else(|| {
        ApiError::state(format!(
            "desktop {id} is about to leave this host: ask again in a moment"
        ))
    })?;
    let (response, stream) = accept_upgrade(&mut request, CONSOLE)?;
    let vnc = machine.vnc().await.map_err(failed)?;
    let shutdown = agent.shutdown.clone();
    agent.spawn(async move {
        let end = seat.end();
        let end = async move {
            tokio::select! {
                () = end => {}
                () = shutdown.cancelled() => {}
            }
        };
        let relayed = async {
            let gateway = stream.await.map_err(std::io::Error::other)?;
            lyceum_console::relay::relay(gateway, vnc, end).await
        };
        if let Err(e) = relayed.await {
            tracing::debug!(desktop = %id, "console ended: {e}");
        }
        // QEMU closed its end, so it has let go of the keys, and its keyboard's queue goes along with it.
        seat.ended(None);
    });
    Ok(response)
}

async fn clipboard(State(agent): Agents, Path(id): Path<DesktopId>) -> Answer<Clipboard> {
    let mut text = machine(&agent, &id)?.clipboard().await.map_err(failed)?;
    if text.len() > CLIPBOARD_MAX {
        // The guest is not to be believed.
        let mut end = CLIPBOARD_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    Ok(Json(Clipboard { text }))
}

async fn set_clipboard(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    Json(clipboard): Json<Clipboard>,
) -> Answer<()> {
    if clipboard.text.len() > CLIPBOARD_MAX {
        return Err(ApiError::invalid(format!(
            "the text has {} bytes, {CLIPBOARD_MAX} are the most: copy less",
            clipboard.text.len()
        )));
    }
    let machine = machine(&agent, &id)?;
    machine
        .set_clipboard(&clipboard.text)
        .await
        .map_err(failed)?;
    Ok(Json(()))
}

async fn seal(
    State(agent): Agents,
    Path(draft): Path<DraftId>,
    Json(request): Json<SealRequest>,
) -> Answer<SealStatus> {
    let _taken_in = agent.going_off.may_take_in().await?;
    seal::begin(&agent, draft, request).await.map(Json)
}

async fn end_seal(State(agent): Agents, Path(draft): Path<DraftId>) -> Answer<()> {
    seal::cancel(&agent, &draft).await.map(Json)
}

async fn verify_delta(
    State(agent): Agents,
    Path(id): Path<DeltaId>,
    Json(request): Json<VerifyDelta>,
) -> Answer<()> {
    agent.tiers.check()?;
    let (delta, sealed) = (agent.tiers.delta(&id), agent.tiers.sealed(&request.release));
    match agent
        .hypervisor
        .verify_delta(&delta, &sealed, request.size)
        .await
    {
        Ok(()) => Ok(Json(())),
        Err(DeltaFault::Damaged(why)) => Err(ApiError::new(code::DAMAGED, why)),
        Err(DeltaFault::Unfit(why)) => Err(ApiError::invalid(why)),
        Err(DeltaFault::Other(e)) => Err(failed(e)),
    }
}

async fn prepare(State(agent): Agents, Path(release): Path<ReleaseId>) -> Answer<()> {
    agent.tiers.check()?;
    // Goes on when nobody waits for the answer any more.
    let filling = {
        let (agent, release) = (agent.clone(), release.clone());
        agent.tasks.clone().spawn(async move {
            agent
                .replicate(&release, crate::replica::Need::Prepared)
                .await;
        })
    };
    let _ = filling.await;
    agent.release(&release).await?;
    Ok(Json(()))
}

pub(crate) fn failed(e: HypervisorError) -> ApiError {
    match e {
        HypervisorError::State(_) | HypervisorError::Guest(_) => ApiError::state(e.to_string()),
        e => ApiError::internal(e.to_string()),
    }
}
