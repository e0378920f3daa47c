//! Orders: what a person wants of one or many desktops, written into the store
//! in one transaction. Nothing here talks to an agent; the reconcilers do the rest.
//!
//! An order is all or nothing: places for every desktop are found first, and when
//! they are not to be had the order is refused and nothing was changed.

pub mod cluster;
pub mod fresh;
pub mod moves;
pub mod restore_points;

use crate::error::ApiFailure;
use lyceum_model::{
    CourseId, Desired, DesktopId, MachineSize, OperationId, Persistence, Phase, ReleaseId,
    ReleaseManifest, UnixMillis, UserId,
};
use lyceum_placement::{Request, place};
use lyceum_store::desktops::{self, Desktop, Missing, Owner, Placement, Source};
use lyceum_store::operations::{self, Item, Operation};
use lyceum_store::{Store, Tx};

/// Who orders, for the operation and the audit log.
#[derive(Debug, Clone)]
pub struct By {
    /// Sign-in name.
    pub login: String,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Running: resumed if it is suspended, forked if it is new, booted cold if it has only its disk or
    /// `cold` says so.
    Start {
        /// Do not fork.
        cold: bool,
    },
    /// As new and running.
    Reset,
    /// Its delta on the slow tier.
    Suspend,
    /// No machine.
    Stop,
    /// Gone.
    Delete,
}

impl Want {
    fn word(&self) -> &'static str {
        match self {
            Want::Start { .. } => "start",
            Want::Reset => "reset",
            Want::Suspend => "suspend",
            Want::Stop => "stop",
            Want::Delete => "delete",
        }
    }
}

/// What an order is about.
#[derive(Debug, Clone)]
pub struct Scope {
    /// `course/ID` or `desktop/ID`.
    pub target: String,
    /// Its name, for people.
    pub target_name: String,
    /// The course, for the right to see the operation.
    pub course: Option<CourseId>,
}

/// What new desktops of a course are made with.
#[derive(Debug, Clone)]
pub struct CourseFacts {
    /// Which.
    pub id: CourseId,
    /// Title.
    pub name: String,
    /// Release for the next start.
    pub release: Option<(ReleaseId, ReleaseManifest)>,
    /// Why there is none, when there is none.
    pub missing: Missing,
    /// Size of a desktop.
    pub size: MachineSize,
    /// What is kept.
    pub persistence: Persistence,
    /// Whether desktops reach the outside.
    pub outside: bool,
}

/// A desktop that an order is about, with the name of its person.
pub struct Target {
    /// The row, as it is in this transaction.
    pub desktop: Desktop,
    /// The person's name, for messages.
    pub name: String,
}

/// Gives the order and returns its operation. `targets` were read or made in `tx`.
#[allow(clippy::too_many_arguments)] // Each is a thing of its own; a struct would only rename them.
pub async fn give(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    by: &By,
    scope: Scope,
    want: Want,
    mut targets: Vec<Target>,
    facts: &std::collections::HashMap<CourseId, CourseFacts>,
    now: UnixMillis,
) -> Result<OperationId, ApiFailure> {
    if let (Want::Start { .. }, Some(course)) = (&want, &scope.course)
        && scope.target.starts_with("course/")
    {
        restore_points::class_begins(tx, course).await?;
    }
    let operation = OperationId::new();
    let mut to_place = Vec::new();
    let mut states = Vec::with_capacity(targets.len());
    for (index, target) in targets.iter_mut().enumerate() {
        let d = &mut target.desktop;
        let course = match &d.owner {
            Owner::Course { course, .. } => facts.get(course),
            Owner::Draft { .. } => None,
        };
        supersede(tx, d, now).await?;
        let placing = apply(d, &want, course, now)?;
        d.order = Some(operation.clone());
        d.ordered_at = now;
        if placing {
            to_place.push(index);
        }
        states.push(if reached(d) { "done" } else { "pending" });
    }
    assign(tx, settings, &mut targets, &to_place, now).await?;
    let all_done = states.iter().all(|s| *s == "done");
    let items: Vec<Item> = targets
        .iter()
        .zip(&states)
        .map(|(t, state)| Item {
            target: format!("desktop/{}", t.desktop.id),
            name: t.name.clone(),
            state: (*state).to_owned(),
            message: String::new(),
        })
        .collect();
    let kind = format!(
        "{}.{}",
        scope.target.split('/').next().unwrap_or("desktop"),
        want.word()
    );
    operations::insert(
        tx,
        &Operation {
            id: operation.clone(),
            kind,
            target: scope.target,
            target_name: scope.target_name,
            course: scope.course,
            requested_by: by.login.clone(),
            state: if all_done { "done" } else { "running" }.to_owned(),
            step: String::new(),
            data: "{}".to_owned(),
            created: now,
            ended: all_done.then_some(now),
        },
        &items,
    )
    .await?;
    for target in &targets {
        desktops::put(tx, &target.desktop).await?;
    }
    Ok(operation)
}

/// A newer order replaces an older one: what the older still waited for is called off.
async fn supersede(tx: &mut Tx, d: &Desktop, now: UnixMillis) -> Result<(), ApiFailure> {
    restore_points::call_off(tx, d, now).await?;
    if let Some(old) = &d.order {
        operations::settle_item(
            tx,
            old,
            &format!("desktop/{}", d.id),
            "cancelled",
            "replaced by a newer order",
        )
        .await?;
        finish_if_settled(tx, old, now).await?;
    }
    Ok(())
}

/// Ends an operation of which nothing is pending any more.
pub async fn finish_if_settled(
    tx: &mut Tx,
    id: &OperationId,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    let (pending, failed, done): (i64, i64, i64) = sqlx_counts(tx, id).await?;
    if pending > 0 {
        return Ok(());
    }
    let state = match (failed, done) {
        (f, _) if f > 0 => "failed",
        (_, 0) => "cancelled",
        _ => "done",
    };
    let step = operations::only_message(tx, id, "done").await?;
    operations::end(tx, id, state, &step, now).await?;
    Ok(())
}

async fn sqlx_counts(tx: &mut Tx, id: &OperationId) -> Result<(i64, i64, i64), ApiFailure> {
    operations::counts(tx, id).await.map_err(Into::into)
}

/// Whether the row is as its order wants it.
pub fn reached(d: &Desktop) -> bool {
    matches!(
        crate::reconcile::step::next(d),
        crate::reconcile::step::Step::Reached
    )
}

/// Changes one row for an order. Answers whether it needs a place on a host.
fn apply(
    d: &mut Desktop,
    want: &Want,
    course: Option<&CourseFacts>,
    now: UnixMillis,
) -> Result<bool, ApiFailure> {
    let alive = d.host.is_some()
        && !d.gave_up
        && d.desired == Desired::Running
        && !matches!(d.phase, Phase::Failed);
    d.gave_up = false;
    match want {
        Want::Start { cold: false } if alive => {}
        Want::Start { cold } => {
            begin(d, *cold, course)?;
            clear_observed(d, "waiting", now);
            return Ok(d.host.is_none());
        }
        Want::Reset => {
            fresh_from(d, course)?;
            d.source = Source::Fork;
            d.renew = true;
            d.hand_out_delta = None;
            d.desired = Desired::Running;
            new_identity(d);
            clear_observed(d, "starting again as new", now);
            d.renew_generation();
            return Ok(d.host.is_none());
        }
        Want::Suspend => {
            if d.desired == Desired::Suspended || d.desired == Desired::Stopped {
                // Nothing runs, or it is on its way already.
            } else if d.host.is_none() && d.delta.is_none() {
                return Err(ApiFailure::state(
                    "the desktop does not run, so there is nothing to suspend: start it first",
                ));
            } else {
                d.desired = Desired::Suspended;
                d.notice = None;
            }
        }
        Want::Stop | Want::Delete => {
            let desired = if *want == Want::Stop {
                Desired::Stopped
            } else {
                Desired::Absent
            };
            if d.desired != desired && d.desired != Desired::Absent {
                d.renew_generation();
                d.notice = None;
            }
            if d.desired != Desired::Absent {
                d.desired = desired;
            }
        }
    }
    Ok(false)
}

fn clear_observed(d: &mut Desktop, detail: &str, now: UnixMillis) {
    d.notice = None;
    d.detail = detail.to_owned();
    d.restarts = 0;
    d.restarts_since = now;
}

/// Makes a stopped, suspended or failed desktop ready to start.
fn begin(d: &mut Desktop, cold: bool, course: Option<&CourseFacts>) -> Result<(), ApiFailure> {
    d.notice = None;
    let draft = matches!(d.owner, Owner::Draft { .. });
    if draft {
        d.source = Source::Cold;
        d.renew = false;
    } else if d.delta.is_some() && !cold {
        d.source = Source::Resume;
        d.renew = false;
    } else if d.overlay.is_some() && (d.persistence == Persistence::Persistent || d.delta.is_some())
    {
        // Its disk has gone on since the release was sealed; sealed memory does not fit it any more.
        d.source = Source::Cold;
        d.renew = false;
        d.delta = None;
        d.cold_reason = Some(if cold {
            "a cold boot of its own disk was asked for".into()
        } else {
            "it was shut down, so its own disk is booted".into()
        });
    } else {
        fresh_from(d, course)?;
        d.source = if cold { Source::Cold } else { Source::Fork };
        d.cold_reason = cold.then(|| "a cold boot was asked for".into());
        d.renew = true;
        d.started_by = None;
    }
    if d.source != Source::Resume {
        new_identity(d);
    }
    d.desired = Desired::Running;
    d.renew_generation();
    Ok(())
}

/// Takes over what the course says now: release, size, persistence.
fn fresh_from(d: &mut Desktop, course: Option<&CourseFacts>) -> Result<(), ApiFailure> {
    let Some(course) = course else {
        return Err(ApiFailure::state(
            "a draft has no release to start from as new: discard it instead",
        ));
    };
    let Some((release, _)) = &course.release else {
        let name = &course.name;
        return Err(ApiFailure::state(match course.missing {
            Missing::Never => format!(
                "the image of the course {name:?} has no release yet: seal a draft of it first"
            ),
            Missing::Damaged => format!(
                "every release of the image of the course {name:?} that could be used is damaged: restore its files and offer it again, or seal a new one"
            ),
            Missing::PinnedDamaged => format!(
                "the release that the course {name:?} pins is damaged: restore its files and offer it again, or choose another for the course"
            ),
        }));
    };
    d.release = Some(release.clone());
    d.size = course.size;
    d.persistence = course.persistence;
    d.outside = course.outside;
    Ok(())
}

fn new_identity(d: &mut Desktop) {
    d.machine_id = fresh::machine_id();
    d.vm_generation_id = fresh::vm_generation_id();
}

/// Finds places for the desktops at these indices, or refuses all.
async fn assign(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    targets: &mut [Target],
    indices: &[usize],
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    if indices.is_empty() {
        return Ok(());
    }
    let policy = cluster::policy(settings);
    let rows: Vec<&Desktop> = targets.iter().map(|t| &t.desktop).collect();
    let hosts = cluster::view(tx, &rows, now).await?;
    let requests: Vec<Request> = indices
        .iter()
        .map(|i| cluster::request(&targets[*i].desktop))
        .collect();
    let plan = place(&hosts, &requests, policy).map_err(|refusal| {
        ApiFailure::no_room(format!(
            "{refusal}. Nothing was started: stop other desktops, or add a host"
        ))
    })?;
    let snapshot = serde_json::to_string(&hosts).unwrap_or_default();
    for (index, verdict) in indices.iter().zip(plan) {
        let d = &mut targets[*index].desktop;
        d.host = Some(verdict.host.clone());
        desktops::record_placement(
            tx,
            &Placement {
                desktop: d.id.clone(),
                at: now,
                host: Some(verdict.host),
                reason: verdict.reason,
                snapshot: cluster::snapshot_with(&snapshot, &verdict.others),
            },
        )
        .await?;
    }
    Ok(())
}

/// Finds a place for one desktop that lost its own, for the reconciler.
pub async fn place_again(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    d: &mut Desktop,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    let mut targets = [Target {
        desktop: d.clone(),
        name: String::new(),
    }];
    assign(tx, settings, &mut targets, &[0], now).await?;
    let [target] = targets;
    *d = target.desktop;
    Ok(())
}

/// Starts every given desktop from another one's captured delta (see `reconcile::hand_out`).
pub async fn hand_out_to(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    operation: &OperationId,
    source: &Desktop,
    delta: &lyceum_model::DeltaId,
    mut targets: Vec<Target>,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    let mut to_place = Vec::new();
    for (index, target) in targets.iter_mut().enumerate() {
        let d = &mut target.desktop;
        if d.order.as_ref() != Some(operation) {
            supersede(tx, d, now).await?;
        }
        d.order = Some(operation.clone());
        d.ordered_at = now;
        d.gave_up = false;
        // The delta fits the release and the size of the desktop it was taken from.
        d.release = source.release.clone();
        d.size = source.size;
        d.source = Source::HandOut;
        d.renew = true;
        d.hand_out_delta = Some(delta.clone());
        d.desired = Desired::Running;
        d.cold_reason = None;
        new_identity(d);
        clear_observed(d, "being handed out", now);
        d.renew_generation();
        if d.host.is_none() {
            to_place.push(index);
        }
    }
    assign(tx, settings, &mut targets, &to_place, now).await?;
    for target in &targets {
        desktops::put(tx, &target.desktop).await?;
    }
    Ok(())
}

/// Makes sure that each of these people has a desktop in the course.
pub async fn ensure(
    tx: &mut Tx,
    course: &CourseFacts,
    people: &[(UserId, String, String)],
    now: UnixMillis,
) -> Result<Vec<Target>, ApiFailure> {
    let all = desktops::all_tx(tx).await?;
    let mut taken = fresh::Taken::of(&all);
    let mut out = Vec::with_capacity(people.len());
    for (user, login, name) in people {
        let have = all.iter().find(|d| {
            matches!(&d.owner, Owner::Course { course: c, user: u } if *c == course.id && u == user)
        });
        let desktop = match have {
            Some(d) if d.desired == Desired::Absent => {
                return Err(ApiFailure::state(format!(
                    "the old desktop of {name} is still being removed: try again in a moment"
                )));
            }
            Some(d) => d.clone(),
            None => {
                let d = fresh::desktop(course, user, login, &mut taken, now)?;
                desktops::put(tx, &d).await?;
                d
            }
        };
        out.push(Target {
            desktop,
            name: name.clone(),
        });
    }
    Ok(out)
}

/// What a course says now about its desktops. `None`: no such course.
pub async fn course_facts(store: &Store, id: &CourseId) -> Result<Option<CourseFacts>, ApiFailure> {
    let Some(row) = lyceum_store::desktops::course_for_start(store, id).await? else {
        return Ok(None);
    };
    let release = row
        .release
        .map(|(id, manifest)| {
            serde_json::from_str::<ReleaseManifest>(&manifest)
                .map(|m| (id, m))
                .map_err(|e| {
                    ApiFailure::internal(format!(
                        "the manifest of a release in the store can't be read: {e}"
                    ))
                })
        })
        .transpose()?;
    let sealed = release
        .as_ref()
        .and_then(|(_, m)| m.memory.as_ref())
        .map(|m| m.size);
    let size = row.size.or(sealed).unwrap_or(MachineSize {
        vcpus: 1,
        memory_mib: 1024,
    });
    Ok(Some(CourseFacts {
        id: id.clone(),
        name: row.name,
        release,
        missing: row.missing,
        size,
        persistence: row.persistence,
        outside: row.outside,
    }))
}

/// Facts of the courses of these desktops.
pub async fn facts_of(
    store: &Store,
    ids: impl IntoIterator<Item = &CourseId>,
) -> Result<std::collections::HashMap<CourseId, CourseFacts>, ApiFailure> {
    let mut out = std::collections::HashMap::new();
    for id in ids {
        if !out.contains_key(id)
            && let Some(facts) = course_facts(store, id).await?
        {
            out.insert(id.clone(), facts);
        }
    }
    Ok(out)
}

/// Calls an operation off. What was reached stays; a desktop that is still on its way up is stopped, one
/// that was to be suspended goes on.
pub async fn cancel(tx: &mut Tx, id: &OperationId, now: UnixMillis) -> Result<(), ApiFailure> {
    if restore_points::cancel(tx, id, now).await? {
        return Ok(());
    }
    for mut d in desktops::all_tx(tx).await? {
        if d.order.as_ref() != Some(id) || reached(&d) || d.gave_up {
            continue;
        }
        match d.desired {
            Desired::Running => {
                d.desired = if d.source == Source::Resume
                    && d.delta.is_some()
                    && d.phase == Phase::Suspended
                {
                    Desired::Suspended
                } else {
                    Desired::Stopped
                };
                d.renew_generation();
                if d.desired == Desired::Suspended {
                    d.host = None;
                    d.observed_generation = d.generation;
                }
            }
            Desired::Suspended if d.phase == Phase::Running => d.desired = Desired::Running,
            Desired::Suspended | Desired::Stopped | Desired::Absent => {}
        }
        d.notice = Some("The order was called off.".into());
        operations::settle_item(
            tx,
            id,
            &format!("desktop/{}", d.id),
            "cancelled",
            "called off",
        )
        .await?;
        desktops::put(tx, &d).await?;
    }
    moves::cancel(tx, id).await?;
    operations::settle_all(tx, id, "cancelled", "called off").await?;
    operations::end(tx, id, "cancelled", "", now).await?;
    Ok(())
}

/// A desktop that its course's staff or its person ordered by id.
pub fn desktop_scope(d: &Desktop, name: &str) -> Scope {
    Scope {
        target: format!("desktop/{}", d.id),
        target_name: name.to_owned(),
        course: match &d.owner {
            Owner::Course { course, .. } => Some(course.clone()),
            Owner::Draft { .. } => None,
        },
    }
}

/// The id in a target text like `desktop/ID`.
pub fn desktop_of_target(target: &str) -> Option<DesktopId> {
    target
        .strip_prefix("desktop/")
        .and_then(|id| id.parse().ok())
}
