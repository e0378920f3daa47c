//! The edge of the desktop reconciler: carries out one [`Step`].

use super::step::{self, Step};
use crate::agents::AgentError;
use crate::app::App;
use crate::error::ApiFailure;
use crate::orders;
use lyceum_model::{
    DeltaId, Desired, DesktopId, DiskRef, Durability, OverlayId, Persistence, Phase,
};
use lyceum_proto::code;
use lyceum_proto::host::{
    IdentityRequest, NicRequest, ObservedDesktop, RunRequest, SaveRequest, StartMode, StopRequest,
};
use lyceum_proto::storage::{OverlayContent, OverlayFacts, OverlayRequest};
use lyceum_store::desktops::{self, Desktop, Owner, Source};
use lyceum_store::{StoreError, Tx, operations};
use serde::de::IgnoredAny;
use std::time::Duration;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Look again at once.
    Again,
    /// Nothing more to do until something changes.
    Rest,
}

/// Why a step is to be tried again later.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Something of the orders.
    #[error("{0}")]
    Order(String),
}

impl From<ApiFailure> for StepError {
    fn from(e: ApiFailure) -> Self {
        StepError::Order(e.to_string())
    }
}

/// How long a draft may take to shut down by itself.
const DRAFT_PATIENCE_MS: u64 = 90_000;
/// The same for a persistent desktop that is stopped.
const PERSISTENT_PATIENCE_MS: u64 = 30_000;

/// Looks at the desktop and carries out its next step.
pub async fn step(app: &App, id: &DesktopId) -> Result<Progress, StepError> {
    let Some(d) = desktops::get(&app.store, id).await? else {
        return Ok(Progress::Rest);
    };
    match step::next(&d) {
        Step::Reached => {
            // How a guest that had to be shut down went.
            let how = match d.phase {
                Phase::Stopped => d.detail.as_str(),
                _ => "",
            };
            settle(app, &d, "done", how).await?;
            Ok(Progress::Rest)
        }
        Step::GaveUp => {
            settle(app, &d, "failed", &d.detail).await?;
            Ok(Progress::Rest)
        }
        Step::Wait => Ok(Progress::Rest),
        Step::Place => place(app, &d).await,
        Step::Renew => {
            change(app, &d, |d, _| {
                d.overlay = Some(OverlayId::new());
                d.renew = false;
                d.delta = None;
                d.saving_delta = None;
                d.started_by = None;
            })
            .await
        }
        Step::Run => run(app, &d).await,
        Step::Suspend => suspend(app, &d).await,
        Step::Stop => stop(app, &d).await,
        Step::Drop => {
            change(app, &d, |d, _| {
                d.delta = None;
                d.saving_delta = None;
                d.hand_out_delta = None;
                d.delta_bytes = None;
                let throw = d.persistence == Persistence::Throwaway
                    && matches!(d.owner, Owner::Course { .. });
                if throw || d.desired == Desired::Absent {
                    d.overlay = None;
                    d.started_by = None;
                }
            })
            .await
        }
        Step::Recover => recover(app, &d).await,
        Step::Forget => {
            settle(app, &d, "done", "").await?;
            let mut tx = app.store.begin_write().await?;
            if desktops::get_tx(&mut tx, &d.id)
                .await?
                .is_some_and(|now| step::next(&now) == Step::Forget)
            {
                desktops::delete(&mut tx, &d.id).await?;
            }
            tx.commit().await?;
            Ok(Progress::Rest)
        }
        Step::GiveUp(why) => give_up(app, &d, &why).await,
    }
}

/// Changes the row if it still asks for the step that was decided upon: between reading and writing
/// somebody may have given a new order.
async fn change(
    app: &App,
    seen: &Desktop,
    edit: impl FnOnce(&mut Desktop, i64),
) -> Result<Progress, StepError> {
    let mut tx = app.store.begin_write().await?;
    if let Some(mut d) = same(&mut tx, seen).await? {
        edit(&mut d, app.now());
        desktops::put(&mut tx, &d).await?;
    }
    tx.commit().await?;
    Ok(Progress::Again)
}

async fn same(tx: &mut Tx, seen: &Desktop) -> Result<Option<Desktop>, StepError> {
    Ok(desktops::get_tx(tx, &seen.id).await?.filter(|d| {
        d.generation == seen.generation
            && d.desired == seen.desired
            && step::next(d) == step::next(seen)
    }))
}

/// Tells the operation what became of this desktop.
async fn settle(app: &App, d: &Desktop, state: &str, message: &str) -> Result<(), StepError> {
    let Some(order) = &d.order else { return Ok(()) };
    if operations::get(&app.store, order)
        .await?
        .is_none_or(|o| o.state != "running")
    {
        return Ok(());
    }
    let mut tx = app.store.begin_write().await?;
    // The row may have changed its order since.
    if desktops::get_tx(&mut tx, &d.id)
        .await?
        .is_some_and(|now| now.order == d.order && step::next(&now) == step::next(d))
    {
        operations::settle_item(&mut tx, order, &format!("desktop/{}", d.id), state, message)
            .await?;
        orders::finish_if_settled(&mut tx, order, app.now()).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn give_up(app: &App, seen: &Desktop, why: &str) -> Result<Progress, StepError> {
    tracing::warn!(desktop = %seen.id, "given up: {why}");
    change(app, seen, |d, now| {
        d.gave_up = true;
        d.detail = why.to_owned();
        if !d.phase.may_hold_disk() {
            d.host = None;
            if d.phase != Phase::Failed && d.desired == Desired::Running {
                d.phase = Phase::Failed;
                d.changed = now;
            }
        }
    })
    .await
}

async fn place(app: &App, seen: &Desktop) -> Result<Progress, StepError> {
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    let Some(mut d) = same(&mut tx, seen).await? else {
        return Ok(Progress::Again);
    };
    match orders::place_again(&mut tx, &settings, &mut d, app.now()).await {
        Ok(()) => {
            desktops::put(&mut tx, &d).await?;
            tx.commit().await?;
            Ok(Progress::Again)
        }
        Err(refusal) => {
            drop(tx);
            give_up(app, seen, &refusal.to_string()).await
        }
    }
}

async fn run(app: &App, seen: &Desktop) -> Result<Progress, StepError> {
    let settings = app.settings().await?;
    let disk = match make_disk(app, seen).await {
        Ok(disk) => disk,
        Err(StepError::Agent(e)) if !e.is_silence() => {
            return give_up(app, seen, &format!("its disk could not be made: {e}")).await;
        }
        Err(e) => return Err(e),
    };
    let request = match run_request(app, seen, disk, &settings).await? {
        Ok(request) => request,
        Err(why) => return give_up(app, seen, &why).await,
    };
    let Some(host) = seen.host.clone() else {
        return Ok(Progress::Again);
    };
    let client = app.agents.host(&host).await?;
    // Before the host is told: from here on it may hold the disk, whatever becomes of the answer.
    let answer: Result<IgnoredAny, _> = client
        .put(&format!("/v1/desktops/{}", seen.id), &request)
        .await;
    match answer {
        Ok(_) => {
            change(app, seen, |d, now| {
                d.observed_generation = d.generation;
                d.phase = Phase::Starting;
                d.detail = "starting".into();
                d.changed = now;
            })
            .await
        }
        Err(e) => {
            let e = AgentError::from(e);
            if e.is_silence() {
                return Err(e.into());
            }
            if e.code() == Some(code::STALE_GENERATION) {
                // The host knows a newer one than the store: a restored backup of the store. Go past it.
                return change(app, seen, |d, _| d.renew_generation()).await;
            }
            if e.code() == Some(code::DAMAGED)
                && let Some(release) = &seen.release
                && let Err(e) = crate::drafts::mark_damaged(app, release, &e.to_string()).await
            {
                tracing::error!(%release, "it is damaged, and that could not be noted: {e}");
            }
            give_up(app, seen, &e.to_string()).await
        }
    }
}

/// Makes sure that the desktop's disk exists.
async fn make_disk(app: &App, d: &Desktop) -> Result<DiskRef, StepError> {
    if let Owner::Draft { draft } = &d.owner {
        return Ok(DiskRef::Qcow2Draft {
            draft: draft.clone(),
        });
    }
    let (Some(overlay), Some(release)) = (&d.overlay, &d.release) else {
        return Err(StepError::Order(
            "it has neither an overlay nor a release".into(),
        ));
    };
    let own =
        matches!(d.source, Source::Resume) || d.source == Source::Cold && d.started_by.is_some();
    let storage = app.agents.storage().await?;
    if own {
        // What kind of disk it is only the storage agent knows.
        let found: OverlayFacts = storage
            .get(&format!("/v1/overlays/{overlay}"))
            .await
            .map_err(AgentError::from)?;
        return Ok(found.disk);
    }
    let content = match (&d.source, &d.hand_out_delta) {
        (Source::HandOut, Some(delta)) => OverlayContent::Delta {
            delta: delta.clone(),
        },
        _ => OverlayContent::Empty,
    };
    Ok(storage
        .put(
            &format!("/v1/overlays/{overlay}"),
            &OverlayRequest {
                release: release.clone(),
                content,
            },
        )
        .await
        .map_err(AgentError::from)?)
}

/// What its host is told; the inner error is final.
async fn run_request(
    app: &App,
    d: &Desktop,
    disk: DiskRef,
    settings: &lyceum_api::Settings,
) -> Result<Result<RunRequest, String>, StepError> {
    let release = d.release.clone();
    let no_release = || "it has no release to start from".to_owned();
    let start = match (d.source, &d.owner) {
        (_, Owner::Draft { draft }) => StartMode::Cold {
            reason: None,
            cdrom: desktops::draft_has_iso(&app.store, draft)
                .await?
                .then(|| draft.clone()),
        },
        (Source::Fork, _) => match release {
            Some(release) => StartMode::Fork { release },
            None => return Ok(Err(no_release())),
        },
        (Source::Resume, _) => match (release, d.delta.clone()) {
            (Some(release), Some(delta)) => StartMode::Resume { release, delta },
            _ => return Ok(Err("nothing is saved of it".into())),
        },
        (Source::HandOut, _) => match (release, d.hand_out_delta.clone()) {
            (Some(release), Some(delta)) => StartMode::HandOut { release, delta },
            _ => return Ok(Err("what was to be handed out is not there any more".into())),
        },
        (Source::Cold, _) => StartMode::Cold {
            reason: d.cold_reason.clone(),
            cdrom: None,
        },
    };
    let cold = matches!(start, StartMode::Cold { .. });
    // A fork may fall back to a cold boot on its host, which then needs the longer time.
    let seconds = if cold {
        settings.cold_timeout_s
    } else {
        settings.fork_timeout_s
    };
    let request = request_for(d, disk, start, u64::from(seconds) * 1000);
    let spice = serves_spice(app, d).await?;
    let plug = match &d.host {
        Some(host) => crate::network::plug(app, d, host).await?,
        None => None,
    };
    Ok(request.map(|mut request| {
        if let Some(nic) = &mut request.nic {
            nic.plug = plug;
        }
        RunRequest { spice, ..request }
    }))
}

/// Whether the desktop is to serve SPICE as well.
pub(super) async fn serves_spice(app: &App, d: &Desktop) -> Result<bool, StepError> {
    Ok(match &d.owner {
        Owner::Course { course, .. } => lyceum_store::courses::get(&app.store, course)
            .await?
            .is_some_and(|course| course.spice),
        Owner::Draft { .. } => false,
    })
}

/// The request for a desktop that starts like this, or why there is none.
pub(super) fn request_for(
    d: &Desktop,
    disk: DiskRef,
    start: StartMode,
    ready_timeout_ms: u64,
) -> Result<RunRequest, String> {
    let draft = matches!(d.owner, Owner::Draft { .. });
    let parsed = (d.address.parse(), d.vm_generation_id.parse());
    let (Ok(address), Ok(vm_generation_id)) = parsed else {
        return Err("its row in the store holds no valid address or machine id".into());
    };
    Ok(RunRequest {
        generation: d.generation,
        size: d.size,
        disk,
        durability: match d.persistence {
            Persistence::Throwaway => Durability::Throwaway,
            Persistence::Persistent => Durability::Safe,
        },
        start,
        identity: (!draft).then(|| IdentityRequest {
            hostname: d.hostname.clone(),
            machine_id: d.machine_id.clone(),
        }),
        nic: Some(NicRequest {
            mac: d.mac.clone(),
            address,
            outside: d.outside,
            plug: None,
        }),
        spice: false,
        vm_generation_id,
        ready_timeout_ms,
    })
}

async fn suspend(app: &App, seen: &Desktop) -> Result<Progress, StepError> {
    let Some(host) = seen.host.clone() else {
        return Ok(Progress::Again);
    };
    // The name is in the store before anything is written under it.
    let delta = match &seen.saving_delta {
        Some(delta) => delta.clone(),
        None => {
            let delta = DeltaId::new();
            let name = delta.clone();
            change(app, seen, |d, _| d.saving_delta = Some(name)).await?;
            return Ok(Progress::Again);
        }
    };
    let client = app.agents.host(&host).await?;
    let request = SaveRequest {
        generation: seen.generation,
        delta,
    };
    let answer: Result<IgnoredAny, _> = client
        .timeout(Duration::from_secs(120))
        .post(&format!("/v1/desktops/{}/suspend", seen.id), &request)
        .await;
    match answer.map_err(AgentError::from) {
        // What was saved is in the host's next words.
        Ok(_) => Ok(Progress::Rest),
        Err(e) if e.is_silence() => Err(e.into()),
        Err(e) => {
            // It goes on running; the order failed, and that is what the store says now.
            let why = e.to_string();
            change(app, seen, |d, _| {
                d.gave_up = true;
                d.saving_delta = None;
                d.detail = format!("it could not be suspended and goes on: {why}");
            })
            .await
        }
    }
}

async fn stop(app: &App, seen: &Desktop) -> Result<Progress, StepError> {
    let Some(host) = seen.host.clone() else {
        return Ok(Progress::Again);
    };
    let keeps_disk =
        matches!(seen.owner, Owner::Draft { .. }) || seen.persistence == Persistence::Persistent;
    let patience_ms = match (seen.desired, keeps_disk, &seen.owner) {
        (Desired::Absent, _, _) | (_, false, _) => 0,
        (_, true, Owner::Draft { .. }) => DRAFT_PATIENCE_MS,
        (_, true, Owner::Course { .. }) => PERSISTENT_PATIENCE_MS,
    };
    let client = app.agents.host(&host).await?;
    let answer: Result<ObservedDesktop, _> = client
        .timeout(Duration::from_millis(patience_ms + 30_000))
        .post(
            &format!("/v1/desktops/{}/stop", seen.id),
            &StopRequest {
                generation: seen.generation,
                patience_ms,
            },
        )
        .await;
    let how = match answer.map_err(AgentError::from) {
        Ok(ended) if patience_ms > 0 => ended.detail,
        Ok(_) => String::new(),
        Err(e) if e.code() == Some(code::NOT_FOUND) => String::new(),
        Err(e) => return Err(e.into()),
    };
    change(app, seen, |d, now| {
        d.host = None;
        d.phase = Phase::Stopped;
        d.detail = how;
        d.observed_generation = d.generation;
        d.guest_address = None;
        d.changed = now;
    })
    .await
}

async fn recover(app: &App, seen: &Desktop) -> Result<Progress, StepError> {
    // Shut down from inside the guest: that is an order of its person too.
    if seen.phase == Phase::Stopped {
        return change(app, seen, |d, _| {
            d.desired = Desired::Stopped;
            d.renew_generation();
            d.notice = Some("It was shut down from inside.".into());
        })
        .await;
    }
    match step::recover(seen, app.now()) {
        Err(why) => give_up(app, seen, &why).await,
        Ok(recovery) => {
            tracing::warn!(desktop = %seen.id, "ended by itself, starting again: {}", seen.detail);
            change(app, seen, |d, now| {
                if now - d.restarts_since > step::RESTART_WINDOW_MS {
                    d.restarts = 0;
                    d.restarts_since = now;
                }
                d.restarts += 1;
                d.source = recovery.source;
                d.renew = recovery.renew;
                d.renew_generation();
                d.machine_id = orders::fresh::machine_id();
                d.vm_generation_id = orders::fresh::vm_generation_id();
                if recovery.source == Source::Cold {
                    d.cold_reason = Some("it ended unexpectedly, so its own disk is booted".into());
                }
                if !recovery.notice.is_empty() {
                    d.notice = Some(recovery.notice);
                }
                // Another host may do better; the one it failed on is not ruled out.
                d.host = None;
            })
            .await
        }
    }
}
