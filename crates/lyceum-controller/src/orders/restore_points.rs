//! Orders about restore points: take, restore, undo. As with every order, only rows are
//! written; `reconcile::restore_points` brings it about.
//!
//! What a point holds depends on what the desktop was doing:
//!
//! | the desktop | a point that is taken | what is kept before a restore |
//! |---|---|---|
//! | runs as a fork | its memory, windows and disk | the same |
//! | runs, booted cold | its disk | its overlay, set aside |
//! | is suspended | none: it stays as it is anyway | its overlay and saved memory, set aside |
//! | is stopped and persistent | its disk | its overlay, set aside |
//! | is stopped and throw-away | none: there is nothing | that there was nothing |

use super::{By, Scope, Target, new_identity, supersede};
use crate::error::ApiFailure;
use crate::reconcile::step::{self, Step};
use lyceum_model::{
    CourseId, Desired, HostId, OperationId, OverlayId, Persistence, Phase, PointId, UnixMillis,
};
use lyceum_proto::host::SavedDelta;
use lyceum_store::desktops::{self, Desktop, Owner, Source};
use lyceum_store::operations::{self, Item, Operation};
use lyceum_store::restore_points::{self, Holds, Origin, Point, Restore, State};
use lyceum_store::{StoreError, Tx};
use std::collections::HashSet;

/// Ending of the kind of an operation that takes points.
pub const TAKE: &str = "take-point";
/// The same of one that restores.
pub const RESTORE: &str = "restore";
/// The same of one that undoes that.
pub const UNDO: &str = "undo-restore";
/// So many states before a restore are kept of a desktop.
pub const UNDO_STEPS: usize = 5;

/// Why something can't be done with a desktop now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Not {
    /// Something is going on with it: look again.
    Yet(&'static str),
    /// It can't.
    Ever(&'static str),
}

/// How a point can be taken of a desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Its machine on this host is captured and goes on. What there is of it says its host.
    Capture(HostId),
    /// The disk driver keeps this overlay as it is.
    Disk(OverlayId),
}

/// How what is there now is kept before a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Its machine on this host is captured.
    Capture(HostId),
    /// Its overlay and saved memory are set aside; what it was to be.
    SetAside(Desired),
    /// There is nothing.
    Nothing,
}

fn at_rest(d: &Desktop) -> Result<(), Not> {
    if d.desired == Desired::Absent {
        return Err(Not::Ever("it is being deleted"));
    }
    if d.phase == Phase::Unknown {
        return Err(Not::Ever(
            "nothing is heard of its host, so it may still run there: see to the host first",
        ));
    }
    if d.moving_to.is_some() {
        return Err(Not::Yet("it is being moved"));
    }
    match step::next(d) {
        Step::Reached | Step::GaveUp | Step::GiveUp(_) => Ok(()),
        _ => Err(Not::Yet("another order about it is under way")),
    }
}

fn runs(d: &Desktop) -> Option<&HostId> {
    d.host
        .as_ref()
        .filter(|_| d.phase == Phase::Running && d.observed_generation == d.generation)
}

/// Whether all of its memory is its own.
pub fn cold(d: &Desktop) -> bool {
    d.started_by.as_deref() == Some("cold")
}

/// How a point of it can be taken now.
pub fn how(d: &Desktop) -> Result<How, Not> {
    at_rest(d)?;
    match (runs(d), &d.overlay) {
        (Some(host), _) => Ok(How::Capture(host.clone())),
        (None, _) if d.delta.is_some() => Err(Not::Ever(
            "it is suspended and stays as it is until it is started: start it first",
        )),
        (None, Some(overlay)) if d.host.is_none() && d.persistence == Persistence::Persistent => {
            Ok(How::Disk(overlay.clone()))
        }
        _ => Err(Not::Ever(
            "it does not run, and nothing is kept of a throw-away desktop that does not run: start it first",
        )),
    }
}

/// How what is there now is kept before a restore.
pub fn keep(d: &Desktop) -> Result<Keep, Not> {
    at_rest(d)?;
    Ok(match (runs(d), &d.overlay) {
        (Some(host), _) if !cold(d) => Keep::Capture(host.clone()),
        (runs, Some(_)) => Keep::SetAside(match runs {
            Some(_) => Desired::Running,
            None if d.delta.is_some() => Desired::Suspended,
            None => Desired::Stopped,
        }),
        (_, None) => Keep::Nothing,
    })
}

fn course_of(d: &Desktop) -> Result<&CourseId, ApiFailure> {
    match &d.owner {
        Owner::Course { course, .. } => Ok(course),
        Owner::Draft { .. } => Err(ApiFailure::not_found("desktop")),
    }
}

/// A row for a point that is to be taken.
pub fn new_point(
    d: &Desktop,
    origin: Origin,
    batch: &str,
    order: Option<&OperationId>,
    note: &str,
    now: UnixMillis,
) -> Result<Point, ApiFailure> {
    Ok(Point {
        id: PointId::new(),
        desktop: d.id.clone(),
        course: course_of(d)?.clone(),
        batch: batch.to_owned(),
        order: order.cloned(),
        origin,
        state: State::Taking,
        holds: Holds::Nothing,
        was: d.desired,
        delta: None,
        overlay: None,
        release: d.release.clone(),
        size: d.size,
        machine_id: d.machine_id.clone(),
        bytes: None,
        stand_still_ms: None,
        total_ms: None,
        note: note.to_owned(),
        message: String::new(),
        taken: now,
    })
}

fn operation(
    id: &OperationId,
    word: &str,
    by: &By,
    scope: Scope,
    step: &str,
    now: UnixMillis,
) -> Operation {
    let of = scope.target.split('/').next().unwrap_or("desktop");
    Operation {
        id: id.clone(),
        kind: format!("{of}.{word}"),
        target: scope.target,
        target_name: scope.target_name,
        course: scope.course,
        requested_by: by.login.clone(),
        state: "running".into(),
        step: step.into(),
        data: "{}".into(),
        created: now,
        ended: None,
    }
}

fn item(target: &Target) -> Item {
    Item {
        target: format!("desktop/{}", target.desktop.id),
        name: target.name.clone(),
        state: "pending".into(),
        message: String::new(),
    }
}

/// Takes a point of each. Of a class those are left out of which none can be taken.
pub async fn take(
    tx: &mut Tx,
    by: &By,
    scope: Scope,
    targets: Vec<Target>,
    note: &str,
    now: UnixMillis,
) -> Result<OperationId, ApiFailure> {
    let class = scope.target.starts_with("course/");
    let id = OperationId::new();
    let mut items = Vec::new();
    for target in &targets {
        match how(&target.desktop) {
            Err(Not::Ever(_)) if class => continue,
            Err(Not::Ever(why)) => {
                return Err(ApiFailure::state(format!(
                    "no restore point can be taken of it: {why}"
                )));
            }
            Ok(_) | Err(Not::Yet(_)) => {}
        }
        let d = &target.desktop;
        restore_points::put(
            tx,
            &new_point(d, Origin::Asked, id.as_str(), Some(&id), note, now)?,
        )
        .await?;
        items.push(item(target));
    }
    if items.is_empty() {
        return Err(ApiFailure::state(
            "no desktop of this course runs, so there is nothing to take a restore point of: start them first",
        ));
    }
    operations::insert(tx, &operation(&id, TAKE, by, scope, "taking", now), &items).await?;
    Ok(id)
}

/// Brings each desktop back to its point. `word`: [`RESTORE`] or [`UNDO`].
pub async fn restore(
    tx: &mut Tx,
    by: &By,
    scope: Scope,
    word: &str,
    pairs: Vec<(Target, Point)>,
    now: UnixMillis,
) -> Result<OperationId, ApiFailure> {
    let id = OperationId::new();
    let under_way: HashSet<_> = restore_points::restores_tx(tx)
        .await?
        .into_iter()
        .map(|r| r.desktop)
        .collect();
    let mut items = Vec::new();
    for (target, point) in &pairs {
        let d = &target.desktop;
        if under_way.contains(&d.id) {
            return Err(ApiFailure::state(format!(
                "the desktop of {} is being restored already: wait until that is over, or call it off",
                target.name
            )));
        }
        if d.desired == Desired::Absent {
            return Err(ApiFailure::state(
                "this desktop is being deleted, and its restore points with it",
            ));
        }
        usable(point)?;
        let undo = new_point(d, Origin::Undo, id.as_str(), None, "", now)?;
        let restore = Restore {
            desktop: d.id.clone(),
            operation: id.clone(),
            point: point.id.clone(),
            undo: undo.id.clone(),
            overlay: OverlayId::new(),
            step: restore_points::Step::Waiting,
            created: now,
        };
        restore_points::put(tx, &undo).await?;
        restore_points::put_restore(tx, &restore).await?;
        items.push(item(target));
    }
    operations::insert(
        tx,
        &operation(&id, word, by, scope, "restoring", now),
        &items,
    )
    .await?;
    Ok(id)
}

/// Whether a point can be restored, as far as its row says.
pub fn usable(point: &Point) -> Result<(), ApiFailure> {
    let why = match point.state {
        State::Ready => return Ok(()),
        State::Taking => "is still being taken: wait until it is ready".to_owned(),
        State::Failed => format!("could not be taken: {}", point.message),
        State::Damaged => format!("is damaged: {}. Choose another one", point.message),
        State::Dropping => "is being deleted: choose another one".to_owned(),
    };
    Err(ApiFailure::state(format!("this restore point {why}")))
}

/// Makes the row what the point says; the caller writes it. The desktop's machine, if any, is of an older
/// generation from then on, and is ended by its host.
pub async fn bring_back(
    tx: &mut Tx,
    d: &mut Desktop,
    restore: &Restore,
    point: &Point,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    supersede(tx, d, now).await?;
    d.order = Some(restore.operation.clone());
    d.ordered_at = now;
    d.gave_up = false;
    d.renew = false;
    d.hand_out_delta = None;
    d.saving_delta = None;
    d.cold_reason = None;
    d.release = point.release.clone();
    d.size = point.size;
    // A machine that comes back a second time must not use the same random numbers again: it is told
    // so by a new VM generation id.
    new_identity(d);
    d.machine_id.clone_from(&point.machine_id);
    let boots = Some("cold".to_owned());
    match point.holds {
        Holds::Memory => {
            d.desired = Desired::Running;
            d.source = Source::Resume;
            d.overlay = Some(restore.overlay.clone());
            d.delta.clone_from(&point.delta);
            // Only a machine that came up may be said to have been started.
            d.started_by = None;
        }
        Holds::Disk => {
            d.desired = Desired::Running;
            d.source = Source::Cold;
            d.overlay = Some(restore.overlay.clone());
            d.delta = None;
            d.started_by = boots;
            d.cold_reason = Some("its disk was restored, so it is booted".into());
        }
        Holds::Kept => {
            d.overlay.clone_from(&point.overlay);
            d.delta.clone_from(&point.delta);
            if d.delta.is_some() {
                d.desired = Desired::Running;
                d.source = Source::Resume;
                d.started_by = None;
            } else {
                d.desired = match point.was {
                    Desired::Running => Desired::Running,
                    _ => Desired::Stopped,
                };
                d.source = Source::Cold;
                d.started_by = boots;
                d.cold_reason = Some("its own disk was brought back, so it is booted".into());
            }
        }
        Holds::Nothing => {
            d.desired = Desired::Stopped;
            d.source = Source::Fork;
            d.overlay = None;
            d.delta = None;
            d.started_by = None;
        }
    }
    super::clear_observed(d, "going back to a restore point", now);
    d.renew_generation();
    Ok(())
}

/// Notes in a point what was captured for it.
pub fn captured(point: &mut Point, saved: &SavedDelta) {
    point.delta = Some(saved.delta.clone());
    point.overlay = None;
    point.bytes = Some((saved.memory_bytes + saved.overlay_bytes) as i64);
    point.stand_still_ms = Some(saved.stand_still_ms as i64);
    point.total_ms = Some(saved.total_ms as i64);
    point.holds = Holds::Memory;
    point.message = String::new();
    if saved.disk_only {
        point.holds = Holds::Disk;
        point.message = match &saved.not_flushed {
            None => "It was booted cold, so this is its disk, without its windows.".into(),
            Some(why) => format!(
                "It was booted cold, so this is its disk, without its windows, and as a power cut would leave it: {why}"
            ),
        };
    }
}

/// What the undo point of a restore keeps. `saved`: what was captured of the desktop.
pub fn kept(
    undo: &mut Point,
    d: &Desktop,
    keep: &Keep,
    saved: Option<&SavedDelta>,
    now: UnixMillis,
) {
    undo.state = State::Ready;
    undo.taken = now;
    undo.was = d.desired;
    undo.release.clone_from(&d.release);
    undo.size = d.size;
    undo.machine_id.clone_from(&d.machine_id);
    undo.delta = None;
    undo.overlay = None;
    if let Some(saved) = saved {
        return captured(undo, saved);
    }
    match keep {
        // It is captured by then.
        Keep::Capture(_) | Keep::Nothing => undo.holds = Holds::Nothing,
        Keep::SetAside(was) => {
            undo.holds = Holds::Kept;
            undo.was = *was;
            undo.overlay.clone_from(&d.overlay);
            undo.delta.clone_from(&d.delta);
            if *was == Desired::Running {
                undo.message =
                    "It was booted cold: its disk is kept as a power cut would leave it.".into();
            }
        }
    }
}

/// A newer order about the desktop calls its restore off; it stays as it was.
pub(super) async fn call_off(tx: &mut Tx, d: &Desktop, now: UnixMillis) -> Result<(), ApiFailure> {
    if let Some(restore) = restore_points::restore_of_tx(tx, &d.id).await? {
        end(tx, &restore, "cancelled", "replaced by a newer order", now).await?;
    }
    Ok(())
}

/// A restore that does not come about: the desktop stays as it is.
pub async fn end(
    tx: &mut Tx,
    restore: &Restore,
    state: &str,
    why: &str,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    restore_points::delete_restore(tx, &restore.desktop).await?;
    drop_row(tx, &restore.undo).await?;
    let target = format!("desktop/{}", restore.desktop);
    operations::settle_item(tx, &restore.operation, &target, state, why).await?;
    super::finish_if_settled(tx, &restore.operation, now).await
}

/// From now on nobody sees the point; the reconciler deletes what belongs to it, then the row.
pub async fn drop_row(tx: &mut Tx, id: &PointId) -> Result<(), StoreError> {
    if let Some(mut point) = restore_points::get_tx(tx, id).await? {
        point.state = State::Dropping;
        restore_points::put(tx, &point).await?;
    }
    Ok(())
}

/// Whether a restore under way needs the point.
pub async fn in_use(tx: &mut Tx, id: &PointId) -> Result<bool, StoreError> {
    Ok(restore_points::restores_tx(tx)
        .await?
        .iter()
        .any(|r| r.point == *id || r.undo == *id))
}

/// The next class begins: what was kept to undo restores of the last one is dropped.
pub(super) async fn class_begins(tx: &mut Tx, course: &CourseId) -> Result<(), ApiFailure> {
    let runs = desktops::all_tx(tx).await?.iter().any(|d| {
        d.desired == Desired::Running
            && matches!(&d.owner, Owner::Course { course: c, .. } if c == course)
    });
    if runs {
        return Ok(());
    }
    for point in restore_points::of_course_tx(tx, course).await? {
        if point.origin == Origin::Undo
            && point.state == State::Ready
            && !in_use(tx, &point.id).await?
        {
            drop_row(tx, &point.id).await?;
        }
    }
    Ok(())
}

/// Calls an operation about restore points off; `false`: it is about something else. What was taken stays,
/// and a desktop that is on its way up from a point comes up.
pub(super) async fn cancel(
    tx: &mut Tx,
    id: &OperationId,
    now: UnixMillis,
) -> Result<bool, ApiFailure> {
    let Some(operation) = operations::get_tx(tx, id).await? else {
        return Ok(false);
    };
    let word = operation.kind.rsplit('.').next().unwrap_or_default();
    if ![TAKE, RESTORE, UNDO].contains(&word) {
        return Ok(false);
    }
    for point in restore_points::of_order_tx(tx, id).await? {
        if point.state == State::Taking {
            drop_row(tx, &point.id).await?;
        }
    }
    for restore in restore_points::restores_tx(tx).await? {
        if restore.operation == *id {
            restore_points::delete_restore(tx, &restore.desktop).await?;
            drop_row(tx, &restore.undo).await?;
            let target = format!("desktop/{}", restore.desktop);
            operations::settle_item(tx, id, &target, "cancelled", "called off").await?;
        }
    }
    if word != TAKE {
        operations::settle_all(tx, id, "done", "").await?;
    }
    operations::settle_all(tx, id, "cancelled", "called off").await?;
    operations::end(tx, id, "cancelled", "", now).await?;
    Ok(true)
}

#[cfg(test)]
#[path = "restore_points_tests.rs"]
mod tests;
