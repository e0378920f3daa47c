//! The requests of [`lyceum_proto::host`].

use crate::agent::Agent;
use crate::desktop::{Command, Desktop};
use crate::{seal, start};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use lyceum_hypervisor::{HypervisorError, Instance};
use lyceum_model::{DesktopId, DraftId, ReleaseId};
use lyceum_proto::host::{
    Clipboard, HostFacts, Observed, ObservedDesktop, RunRequest, SaveRequest, SavedDelta,
    SealRequest, SealStatus, StopRequest,
};
use lyceum_wire::ApiError;
use lyceum_wire::extract::{Json, Path, Query};
use lyceum_wire::server::accept_upgrade;
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
/// What is on its way to a viewer or a machine that does not read, each way, in bytes.
const CONSOLE_BUFFER: usize = 64 * 1024;

pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/host", get(host))
        .route("/v1/watch", get(watch))
        .route("/v1/desktops/{id}", put(run))
        .route("/v1/desktops/{id}/suspend", post(suspend))
        .route("/v1/desktops/{id}/capture", post(capture))
        .route("/v1/desktops/{id}/stop", post(stop))
        .route("/v1/desktops/{id}/console", get(console))
        .route(
            "/v1/desktops/{id}/clipboard",
            get(clipboard).put(set_clipboard),
        )
        .route("/v1/seals/{draft}", put(seal).delete(end_seal))
        .route("/v1/releases/{id}/prepare", post(prepare))
        .with_state(agent)
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
    agent.can_be_asked(&id)?;
    let desktop = agent.desktop_or_new(&id);
    // Before it is accepted, so that the answer says what is wrong; costs little once it is known.
    if let Some(release) = start::release_of(&request)
        && !agent.is_known(&id, request.generation)
    {
        agent.tiers.check()?;
        agent.has_memory()?;
        let folder = agent.tiers.release(release);
        agent.releases.verified(release, folder).await?;
    }
    desktop
        .ask(|reply| Command::Run(Box::new(request), asked, reply))
        .await
        .map(Json)
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

fn machine(agent: &Agent, id: &DesktopId) -> Result<Arc<dyn Instance>, ApiError> {
    known(agent, id)?.instance().ok_or_else(|| {
        ApiError::state(format!(
            "desktop {id} does not run on this host: start it first"
        ))
    })
}

async fn console(
    State(agent): Agents,
    Path(id): Path<DesktopId>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let machine = machine(&agent, &id)?;
    let (response, stream) = accept_upgrade(&mut request, "rfb")?;
    let mut vnc = machine.vnc().await.map_err(failed)?;
    let shutdown = agent.shutdown.clone();
    agent.spawn(async move {
        let copy = async {
            let mut viewer = stream.await.map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional_with_sizes(
                &mut viewer,
                &mut vnc,
                CONSOLE_BUFFER,
                CONSOLE_BUFFER,
            )
            .await
        };
        tokio::select! {
            ended = copy => if let Err(e) = ended {
                tracing::debug!(desktop = %id, "console ended: {e}");
            },
            () = shutdown.cancelled() => {}
        }
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
    seal::begin(&agent, draft, request).await.map(Json)
}

async fn end_seal(State(agent): Agents, Path(draft): Path<DraftId>) -> Answer<()> {
    seal::cancel(&agent, &draft).await.map(Json)
}

async fn prepare(State(agent): Agents, Path(release): Path<ReleaseId>) -> Answer<()> {
    agent.tiers.check()?;
    let folder = agent.tiers.release(&release);
    agent.releases.verified(&release, folder).await?;
    Ok(Json(()))
}

fn failed(e: HypervisorError) -> ApiError {
    match e {
        HypervisorError::State(_) | HypervisorError::Guest(_) => ApiError::state(e.to_string()),
        e => ApiError::internal(e.to_string()),
    }
}
