//! Takes restore points and brings desktops back to them. One task per point that is to be taken and per
//! desktop that is to go back; where each is stands in its row.
//!
//! ```text
//!  take      Taking ── captured, or its disk kept ──► Ready ── dropped ──► Dropping ── files gone ──► (no row)
//!              └── it can't be ──► Failed                 └── its bytes are not what they were ──► Damaged
//!
//!  restore   Waiting ── the point checked, ──► Ready ── what is there now captured, ──► (the desktop's own
//!                │      its disk made            │      the row is what it was           reconciler goes on)
//!                └───── refused, called off ─────┴──► the desktop stays as it was
//! ```
//!
//! Everything that can go wrong with a point goes wrong before the desktop is touched: its bytes are
//! read and its disk is made while the machine runs on. Names are in the store before anything is written
//! under them, so that what a killed process leaves half made is swept away, or written again.

use super::act::StepError;
use crate::agents::AgentError;
use crate::app::App;
use crate::orders::restore_points::{self as orders, How, Keep, Not};
use lyceum_model::{DeltaId, DesktopId, HostId, OverlayId, PointId};
use lyceum_proto::code;
use lyceum_proto::host::{SaveRequest, SavedDelta, VerifyDelta};
use lyceum_proto::moves::DesktopMemory;
use lyceum_proto::storage::{DiskPoint, OverlayContent, OverlayFacts, OverlayRequest, Room};
use lyceum_store::desktops::{self, Desktop};
use lyceum_store::operations::Operation;
use lyceum_store::restore_points::{self, Holds, Origin, Point, Restore, State, Step};
use lyceum_store::{agents, operations};
use serde::de::IgnoredAny;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const ROUND: Duration = Duration::from_secs(5);
/// Between two looks at a desktop with which something else is going on, or whose host says nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// For so long it is tried again when it was asked for; what a schedule takes is tried for less.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_SCHEDULED: Duration = Duration::from_secs(20);
/// Captures and copies at once: they are a file server's work, which does not get quicker by more.
const AT_ONCE: usize = 4;
/// What a capture needs beside written pages and the disk: video memory, device state.
const BESIDE_BYTES: u64 = 24 << 20;

/// Runs for ever.
pub async fn run(app: App) {
    let at_work: Arc<Mutex<HashSet<String>>> = Arc::default();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut changes = app.store.changes();
    loop {
        if let Err(e) = close_lost(&app).await {
            tracing::error!("operations about restore points: {e}");
        }
        match todo(&app).await {
            Ok(list) => {
                for work in list {
                    let key = work.key();
                    let new = at_work
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(key.clone());
                    if new {
                        let (app, at_work, slots) = (app.clone(), at_work.clone(), slots.clone());
                        tasks.spawn(async move {
                            work.one(&app, &slots).await;
                            at_work
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .remove(&key);
                        });
                    }
                }
            }
            Err(e) => tracing::error!("restore points could not be read: {e}"),
        }
        while tasks.try_join_next().is_some() {}
        let _ = tokio::time::timeout(ROUND, async {
            while changes
                .recv()
                .await
                .is_ok_and(|c| c.kind != "restore_point" && c.kind != "restore")
            {}
        })
        .await;
    }
}

/// Items of operations whose desktop was deleted, with all its rows, before its turn came.
async fn close_lost(app: &App) -> Result<(), StepError> {
    let ours = |o: &Operation| {
        let word = o.kind.rsplit('.').next().unwrap_or_default();
        [orders::TAKE, orders::RESTORE, orders::UNDO].contains(&word)
    };
    for operation in operations::running(&app.store).await? {
        if !ours(&operation) {
            continue;
        }
        let items = operations::items(&app.store, &operation.id).await?;
        let pending = items.into_iter().filter(|item| item.state == "pending");
        for item in pending {
            let Some(desktop) = crate::orders::desktop_of_target(&item.target) else {
                continue;
            };
            if desktops::get(&app.store, &desktop).await?.is_some() {
                continue;
            }
            let mut tx = app.store.begin_write().await?;
            let (id, why) = (&operation.id, "it was deleted");
            operations::settle_item(&mut tx, id, &item.target, "failed", why).await?;
            crate::orders::finish_if_settled(&mut tx, id, app.now()).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

enum Work {
    Take(PointId),
    Restore(DesktopId),
    Drop(PointId),
}

async fn todo(app: &App) -> Result<Vec<Work>, StepError> {
    let taking = restore_points::in_state(&app.store, State::Taking).await?;
    let dropping = restore_points::in_state(&app.store, State::Dropping).await?;
    let restores = restore_points::restores(&app.store).await?;
    let taking = taking.into_iter().filter(|p| p.origin != Origin::Undo);
    Ok(restores
        .into_iter()
        .map(|r| Work::Restore(r.desktop))
        .chain(taking.map(|p| Work::Take(p.id)))
        .chain(dropping.into_iter().map(|p| Work::Drop(p.id)))
        .collect())
}

/// What came of one look.
enum Progress {
    Over,
    Again,
    /// Not now; why, when it is given up.
    Later(String),
}

impl Work {
    fn key(&self) -> String {
        match self {
            Work::Take(id) => format!("take/{id}"),
            Work::Restore(id) => format!("restore/{id}"),
            Work::Drop(id) => format!("drop/{id}"),
        }
    }

    async fn one(&self, app: &App, slots: &Semaphore) {
        // Waiting for its turn is no part of the patience with others.
        let mut first = None;
        loop {
            let Ok(slot) = slots.acquire().await else {
                return;
            };
            let began = *first.get_or_insert_with(Instant::now);
            let progress = match self {
                Work::Take(id) => take(app, id, began.elapsed()).await,
                Work::Restore(id) => restore(app, id).await,
                Work::Drop(id) => drop_point(app, id).await,
            };
            let why = match progress {
                Ok(Progress::Over) => return,
                Ok(Progress::Again) => continue,
                Ok(Progress::Later(why)) => why,
                Err(e) => {
                    tracing::warn!(work = self.key(), "{e}");
                    e.to_string()
                }
            };
            if began.elapsed() > PATIENCE {
                match self.give_up(app, &why).await {
                    Ok(()) => return,
                    Err(e) => tracing::error!(work = self.key(), "{e}"),
                }
            }
            drop(slot);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn give_up(&self, app: &App, why: &str) -> Result<(), StepError> {
        match self {
            Work::Take(id) => fail_point(app, id, why).await,
            Work::Restore(id) => match restore_points::restore_of(&app.store, id).await? {
                Some(r) => fail_restore(app, &r, why).await,
                None => Ok(()),
            },
            // At the next round again.
            Work::Drop(_) => Ok(()),
        }
    }
}

async fn take(app: &App, id: &PointId, waited: Duration) -> Result<Progress, StepError> {
    let Some(seen) = restore_points::get(&app.store, id)
        .await?
        .filter(|p| p.state == State::Taking)
    else {
        return Ok(Progress::Over);
    };
    let Some(d) = desktops::get(&app.store, &seen.desktop).await? else {
        // Its rows went with it.
        return Ok(Progress::Over);
    };
    let patient = seen.origin != Origin::Scheduled || waited < PATIENCE_SCHEDULED;
    let taken = match orders::how(&d) {
        Err(Not::Ever(why)) => Err(StepFailure::Final(why.to_owned())),
        Err(Not::Yet(why)) => Err(StepFailure::Later(why.to_owned())),
        Ok(How::Capture(host)) => {
            let seen = match &seen.delta {
                Some(delta) => Some((seen.clone(), delta.clone())),
                None => name_delta(app, &seen).await?,
            };
            let Some((_, delta)) = seen else {
                return Ok(Progress::Again);
            };
            capture(app, &d, &host, &delta).await?.map(Taken::Captured)
        }
        Ok(How::Disk(overlay)) => {
            let answer: Result<DiskPoint, _> = app
                .agents
                .storage()
                .await?
                .timeout(Duration::from_secs(120))
                .put(&format!("/v1/overlays/{overlay}/points/{id}"), &())
                .await;
            match answer.map_err(AgentError::from) {
                Ok(point) => Ok(Taken::Disk(overlay, point.bytes_on_disk)),
                Err(e) if e.is_silence() => Err(StepFailure::Later(e.to_string())),
                Err(e) => Err(StepFailure::Final(e.to_string())),
            }
        }
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(StepFailure::Later(why)) if patient => return Ok(Progress::Later(why)),
        Err(StepFailure::Later(why) | StepFailure::Final(why)) => {
            fail_point(app, id, &why).await?;
            return Ok(Progress::Over);
        }
    };
    let mut tx = app.store.begin_write().await?;
    if let Some(mut p) = restore_points::get_tx(&mut tx, id)
        .await?
        .filter(|p| p.state == State::Taking)
    {
        p.state = State::Ready;
        match taken {
            Taken::Captured(saved) => orders::captured(&mut p, &saved),
            Taken::Disk(overlay, bytes) => {
                p.holds = Holds::Disk;
                // It may have run, and been about to be captured, when it was its turn first.
                p.delta = None;
                p.overlay = Some(overlay);
                p.bytes = Some(bytes as i64);
            }
        }
        p.was = d.desired;
        p.release.clone_from(&d.release);
        p.size = d.size;
        p.machine_id.clone_from(&d.machine_id);
        p.taken = app.now();
        restore_points::put(&mut tx, &p).await?;
        if let Some(order) = &p.order {
            let target = format!("desktop/{}", p.desktop);
            operations::settle_item(&mut tx, order, &target, "done", "").await?;
            crate::orders::finish_if_settled(&mut tx, order, app.now()).await?;
        }
    }
    tx.commit().await?;
    Ok(Progress::Over)
}

/// What there is of a point.
enum Taken {
    Captured(SavedDelta),
    /// Kept by the disk driver; its bytes.
    Disk(OverlayId, u64),
}

/// Why something did not come about.
enum StepFailure {
    Later(String),
    Final(String),
}

/// Writes the name under which it is going to be captured; `None`: it is not to be taken any more.
async fn name_delta(app: &App, seen: &Point) -> Result<Option<(Point, DeltaId)>, StepError> {
    let delta = DeltaId::new();
    let mut tx = app.store.begin_write().await?;
    let Some(mut p) = restore_points::get_tx(&mut tx, &seen.id)
        .await?
        .filter(|p| p.state == State::Taking)
    else {
        return Ok(None);
    };
    p.delta = Some(delta.clone());
    restore_points::put(&mut tx, &p).await?;
    tx.commit().await?;
    Ok(Some((p, delta)))
}

/// Captures a running desktop under this name. Again under the same name: the same capture.
async fn capture(
    app: &App,
    d: &Desktop,
    host: &HostId,
    delta: &DeltaId,
) -> Result<Result<SavedDelta, StepFailure>, StepError> {
    if let Err(why) = room_for(app, d, host).await? {
        return Ok(Err(StepFailure::Final(why)));
    }
    let answer: Result<SavedDelta, _> = app
        .agents
        .host(host)
        .await?
        .timeout(Duration::from_secs(120))
        .post(
            &format!("/v1/desktops/{}/capture", d.id),
            &SaveRequest {
                generation: d.generation,
                delta: delta.clone(),
            },
        )
        .await;
    Ok(match answer.map_err(AgentError::from) {
        Ok(saved) => Ok(saved),
        Err(e) if e.is_silence() => Err(StepFailure::Later(e.to_string())),
        // It is being saved for something else.
        Err(e) if e.code() == Some(code::IN_USE) => Err(StepFailure::Later(e.to_string())),
        // It is another one by now: its row will say so.
        Err(e) if matches!(e.code(), Some(code::STATE | code::STALE_GENERATION)) => {
            let now = desktops::get(&app.store, &d.id).await?;
            match now.is_some_and(|now| now == *d) {
                true => Err(StepFailure::Final(e.to_string())),
                false => Err(StepFailure::Later(e.to_string())),
            }
        }
        Err(e) => Err(StepFailure::Final(e.to_string())),
    })
}

/// Makes sure of room on the slow tier before a capture: points that a schedule took go first, the oldest
/// of them at first. The inner error is for people.
async fn room_for(app: &App, d: &Desktop, host: &HostId) -> Result<Result<(), String>, StepError> {
    let storage = app.agents.storage().await?;
    let room: Room = storage.get("/v1/room").await.map_err(AgentError::from)?;
    // Counting a machine's pages costs it nothing, but the common case needs no count.
    let most = (u64::from(d.size.memory_mib) << 20) * 2;
    // But the disk of one that was booted cold may be of any size.
    if room.slow_bytes > most && !orders::cold(d) {
        return Ok(Ok(()));
    }
    let memory: Result<DesktopMemory, _> = app
        .agents
        .host(host)
        .await?
        .get(&format!("/v1/desktops/{}/memory", d.id))
        .await;
    let own = match memory.map_err(AgentError::from) {
        Ok(memory) => memory.own_bytes.unwrap_or(0),
        Err(e) if e.is_silence() => return Err(e.into()),
        // The capture itself will say what is wrong with it.
        Err(_) => 0,
    };
    let mut disk = 0;
    if let Some(overlay) = &d.overlay {
        let facts: OverlayFacts = storage
            .get(&format!("/v1/overlays/{overlay}"))
            .await
            .map_err(AgentError::from)?;
        disk = facts.bytes_on_disk;
    }
    let need = own + disk + BESIDE_BYTES;
    let mut free = room.slow_bytes;
    while free < need {
        if !drop_oldest_scheduled(app).await? {
            return Ok(Err(format!(
                "there is no room for it on the slow tier: it needs about {} MiB, and {} MiB are free. Delete restore points that nobody needs, or add space",
                need.div_ceil(1 << 20),
                free >> 20
            )));
        }
        let room: Room = storage.get("/v1/room").await.map_err(AgentError::from)?;
        free = room.slow_bytes;
    }
    Ok(Ok(()))
}

/// `false`: there is none.
async fn drop_oldest_scheduled(app: &App) -> Result<bool, StepError> {
    let oldest = restore_points::in_state(&app.store, State::Ready)
        .await?
        .into_iter()
        .filter(|p| p.origin == Origin::Scheduled);
    for point in oldest {
        let mut tx = app.store.begin_write().await?;
        if orders::in_use(&mut tx, &point.id).await? {
            continue;
        }
        orders::drop_row(&mut tx, &point.id).await?;
        tx.commit().await?;
        tracing::info!(point = %point.id, desktop = %point.desktop, "dropped to make room");
        drop_point(app, &point.id).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Deletes what belongs to a point, then its row.
async fn drop_point(app: &App, id: &PointId) -> Result<Progress, StepError> {
    let Some(point) = restore_points::get(&app.store, id)
        .await?
        .filter(|p| p.state == State::Dropping)
    else {
        return Ok(Progress::Over);
    };
    let desktop = desktops::get(&app.store, &point.desktop).await?;
    let storage = app.agents.storage().await?;
    let delete = async |path: String| -> Result<(), StepError> {
        let gone: Result<IgnoredAny, _> = storage.delete(&path).await;
        match gone.map_err(AgentError::from) {
            Err(e) if e.code() != Some(code::NOT_FOUND) => Err(e.into()),
            _ => Ok(()),
        }
    };
    // A desktop that just came back to it may be reading it still; the sweep takes it when it does not.
    let read = |delta: &DeltaId| {
        let of = |d: &Desktop| d.delta.as_ref() == Some(delta);
        desktop.as_ref().is_some_and(of)
    };
    if let Some(delta) = point.delta.as_ref().filter(|delta| !read(delta))
        && point.holds != Holds::Kept
    {
        delete(format!("/v1/deltas/{delta}")).await?;
    }
    // One that was cut off while its disk was being kept does not know the overlay yet.
    let overlay = match (&point.overlay, &desktop) {
        (Some(overlay), _) if point.holds == Holds::Disk => Some(overlay),
        (None, Some(d)) if point.delta.is_none() => d.overlay.as_ref(),
        _ => None,
    };
    if let Some(overlay) = overlay {
        delete(format!("/v1/overlays/{overlay}/points/{id}")).await?;
    }
    let mut tx = app.store.begin_write().await?;
    restore_points::delete(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Progress::Over)
}

async fn fail_point(app: &App, id: &PointId, why: &str) -> Result<(), StepError> {
    let mut tx = app.store.begin_write().await?;
    if let Some(mut p) = restore_points::get_tx(&mut tx, id)
        .await?
        .filter(|p| p.state == State::Taking)
    {
        tracing::warn!(point = %id, desktop = %p.desktop, "it could not be taken: {why}");
        p.state = State::Failed;
        // What may be half written under that name belongs to nobody from now on.
        p.delta = None;
        p.message = why.to_owned();
        restore_points::put(&mut tx, &p).await?;
        if let Some(order) = &p.order {
            let target = format!("desktop/{}", p.desktop);
            operations::settle_item(&mut tx, order, &target, "failed", why).await?;
            crate::orders::finish_if_settled(&mut tx, order, app.now()).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn fail_restore(app: &App, seen: &Restore, why: &str) -> Result<(), StepError> {
    let mut tx = app.store.begin_write().await?;
    if let Some(r) = restore_points::restore_of_tx(&mut tx, &seen.desktop)
        .await?
        .filter(|r| r.operation == seen.operation)
    {
        tracing::warn!(desktop = %r.desktop, "it was not restored: {why}");
        let why = format!("{why}. The desktop stays as it was");
        orders::end(&mut tx, &r, "failed", &why, app.now()).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn restore(app: &App, id: &DesktopId) -> Result<Progress, StepError> {
    let Some(r) = restore_points::restore_of(&app.store, id).await? else {
        return Ok(Progress::Over);
    };
    let point = restore_points::get(&app.store, &r.point).await?;
    let d = desktops::get(&app.store, id).await?;
    let (Some(point), Some(d)) = (point, d) else {
        fail_restore(app, &r, "the restore point is not there any more").await?;
        return Ok(Progress::Over);
    };
    if let Err(e) = orders::usable(&point) {
        fail_restore(app, &r, &e.to_string()).await?;
        return Ok(Progress::Over);
    }
    match r.step {
        Step::Waiting => prepare(app, &r, &point, &d).await,
        Step::Ready => swap(app, &r, &point, &d).await,
    }
}

/// Checks the point's bytes and makes the disk of them; the desktop goes on meanwhile.
async fn prepare(
    app: &App,
    r: &Restore,
    point: &Point,
    d: &Desktop,
) -> Result<Progress, StepError> {
    let content = match (point.holds, &point.delta, &point.overlay) {
        (Holds::Memory | Holds::Disk, Some(delta), _) => Some(OverlayContent::Delta {
            delta: delta.clone(),
        }),
        (Holds::Disk, _, Some(of)) => Some(OverlayContent::Point {
            of: of.clone(),
            point: point.id.clone(),
        }),
        _ => None,
    };
    let checked = async {
        if let (Some(delta), Some(release)) = (&point.delta, &point.release) {
            let host = someone(app, d).await?;
            let request = VerifyDelta {
                release: release.clone(),
                size: point.size,
            };
            let _: IgnoredAny = app
                .agents
                .host(&host)
                .await?
                .timeout(Duration::from_secs(120))
                .post(&format!("/v1/deltas/{delta}/verify"), &request)
                .await?;
        }
        if let (Some(content), Some(release)) = (content, &point.release) {
            let request = OverlayRequest {
                release: release.clone(),
                content,
            };
            let _: IgnoredAny = app
                .agents
                .storage()
                .await?
                .timeout(Duration::from_secs(120))
                .put(&format!("/v1/overlays/{}", r.overlay), &request)
                .await?;
        }
        Ok::<(), AgentError>(())
    };
    if let Err(e) = checked.await {
        if e.is_silence() {
            return Ok(Progress::Later(e.to_string()));
        }
        let bad = matches!(e.code(), Some(code::DAMAGED | code::NOT_FOUND));
        let why = match bad {
            true => format!("the restore point is damaged: {e}"),
            false => e.to_string(),
        };
        if bad {
            mark_damaged(app, &point.id, &e.to_string()).await?;
        }
        fail_restore(app, r, &why).await?;
        return Ok(Progress::Over);
    }
    let mut tx = app.store.begin_write().await?;
    if let Some(mut now) = restore_points::restore_of_tx(&mut tx, &r.desktop).await?
        && now == *r
    {
        now.step = Step::Ready;
        restore_points::put_restore(&mut tx, &now).await?;
    }
    tx.commit().await?;
    Ok(Progress::Again)
}

/// A host that can look at a delta: the desktop's own, or else any.
async fn someone(app: &App, d: &Desktop) -> Result<HostId, AgentError> {
    if let Some(host) = &d.host {
        return Ok(host.clone());
    }
    let hosts = agents::list(&app.store, "host").await?;
    hosts
        .into_iter()
        .filter(|a| a.state == "active")
        .max_by_key(|a| a.heard)
        .map(|a| a.id)
        .ok_or(AgentError::NotJoined {
            kind: "host",
            id: "that takes desktops".into(),
        })
}

async fn mark_damaged(app: &App, id: &PointId, why: &str) -> Result<(), StepError> {
    let mut tx = app.store.begin_write().await?;
    if let Some(mut p) = restore_points::get_tx(&mut tx, id)
        .await?
        .filter(|p| p.state == State::Ready)
    {
        p.state = State::Damaged;
        p.message = why.to_owned();
        restore_points::put(&mut tx, &p).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Keeps what is there now, and makes the row what the point says.
async fn swap(app: &App, r: &Restore, point: &Point, d: &Desktop) -> Result<Progress, StepError> {
    let keep = match orders::keep(d) {
        Err(Not::Yet(why)) => return Ok(Progress::Later(why.to_owned())),
        Err(Not::Ever(why)) => {
            fail_restore(app, r, why).await?;
            return Ok(Progress::Over);
        }
        Ok(keep) => keep,
    };
    let mut captured = None;
    if let Keep::Capture(host) = &keep {
        // Always under a new name: one from before may be older than what its person did since.
        let undo = restore_points::get(&app.store, &r.undo).await?;
        let named = match undo {
            Some(undo) => name_delta(app, &undo).await?,
            None => None,
        };
        let Some((_, delta)) = named else {
            return Ok(Progress::Again);
        };
        match capture(app, d, host, &delta).await? {
            Ok(saved) => captured = Some(saved),
            Err(StepFailure::Later(why)) => return Ok(Progress::Later(why)),
            Err(StepFailure::Final(why)) => {
                let why = format!("what is there now could not be kept: {why}");
                fail_restore(app, r, &why).await?;
                return Ok(Progress::Over);
            }
        }
    }
    let settings = app.settings().await?;
    let now = app.now();
    let mut tx = app.store.begin_write().await?;
    let current = restore_points::restore_of_tx(&mut tx, &r.desktop).await?;
    let undo = restore_points::get_tx(&mut tx, &r.undo).await?;
    let row = desktops::get_tx(&mut tx, &r.desktop).await?;
    let (Some(current), Some(mut undo), Some(mut row)) = (current, undo, row) else {
        // Called off, or deleted.
        return Ok(Progress::Again);
    };
    if current != *r
        || row.generation != d.generation
        || orders::keep(&row).ok() != Some(keep.clone())
    {
        return Ok(Progress::Again);
    }
    orders::kept(&mut undo, &row, &keep, captured.as_ref(), now);
    restore_points::put(&mut tx, &undo).await?;
    // From here on the newest order is this one.
    restore_points::delete_restore(&mut tx, &r.desktop).await?;
    let placed = async {
        orders::bring_back(&mut tx, &mut row, r, point, now).await?;
        if row.desired == lyceum_model::Desired::Running && row.host.is_none() {
            crate::orders::place_again(&mut tx, &settings, &mut row, now).await?;
        }
        Ok::<(), crate::error::ApiFailure>(())
    };
    if let Err(refusal) = placed.await {
        drop(tx);
        fail_restore(app, r, &refusal.to_string()).await?;
        return Ok(Progress::Over);
    }
    if point.origin == Origin::Undo || point.holds == Holds::Kept {
        // It is the desktop now.
        restore_points::delete(&mut tx, &point.id).await?;
    }
    desktops::put(&mut tx, &row).await?;
    let mut undos = restore_points::of_course_tx(&mut tx, &undo.course).await?;
    undos.retain(|p| p.origin == Origin::Undo && p.state == State::Ready && p.desktop == row.id);
    for old in undos.iter().skip(orders::UNDO_STEPS) {
        orders::drop_row(&mut tx, &old.id).await?;
    }
    tx.commit().await?;
    Ok(Progress::Over)
}
