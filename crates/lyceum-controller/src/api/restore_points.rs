//! Restore points of desktops and of classes.

use crate::app::App;
use crate::audit;
use crate::auth::{Access, Actor};
use crate::error::{ApiFailure, Json, JsonOrDefault, Path};
use crate::orders::restore_points::{self as orders, RESTORE, TAKE, UNDO};
use crate::orders::{By, Scope, Target, desktop_scope};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::ApiError;
use lyceum_api::desktops::Accepted;
use lyceum_api::restore_points::{
    CoursePoints, CourseRestore, PointBatch, PointHolds, PointOrigin, PointSchedule, PointState,
    RestoreOrder, RestorePoint, TakePoint,
};
use lyceum_api::wording::wordings;
use lyceum_model::{CourseId, Desired, DesktopId, PointId, UserId};
use lyceum_store::Tx;
use lyceum_store::desktops::{self, Desktop, Filter, Owner};
use lyceum_store::restore_points::{self as rows, Holds, Origin, Point};
use std::collections::{HashMap, HashSet};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, take))
        .routes(routes!(restore))
        .routes(routes!(undo))
        .routes(routes!(delete))
        .routes(routes!(course_list, course_take))
        .routes(routes!(course_restore))
        .routes(routes!(course_undo))
        .routes(routes!(course_delete))
        .routes(routes!(get_schedule, put_schedule))
}

/// Longest note, in characters.
const NOTE_MAX: usize = 200;

fn origin(origin: Origin) -> PointOrigin {
    match origin {
        Origin::Asked => PointOrigin::Asked,
        Origin::Scheduled => PointOrigin::Scheduled,
        Origin::Undo => PointOrigin::Undo,
    }
}

/// `None`: nobody sees it.
fn state(p: &Point) -> Option<PointState> {
    match p.state {
        // It is not there before the restore has begun.
        rows::State::Taking if p.origin == Origin::Undo => None,
        rows::State::Taking => Some(PointState::Taking),
        rows::State::Ready => Some(PointState::Ready),
        rows::State::Failed => Some(PointState::Failed),
        rows::State::Damaged => Some(PointState::Damaged),
        rows::State::Dropping => None,
    }
}

fn shown(p: Point, user_name: &str) -> Option<RestorePoint> {
    let number = |v: Option<i64>| v.map(|v| v.max(0) as u64);
    Some(RestorePoint {
        state: state(&p)?,
        origin: origin(p.origin),
        holds: match p.holds {
            Holds::Memory => PointHolds::Memory,
            Holds::Disk => PointHolds::Disk,
            Holds::Kept => PointHolds::Kept,
            Holds::Nothing => PointHolds::Nothing,
        },
        id: p.id,
        desktop: p.desktop,
        course: p.course,
        user_name: user_name.to_owned(),
        batch: p.batch,
        note: p.note,
        wordings: wordings([p.message.as_str()]),
        message: p.message,
        release: p.release,
        bytes: number(p.bytes),
        stand_still_ms: number(p.stand_still_ms),
        total_ms: number(p.total_ms),
        taken: p.taken,
    })
}

fn course_of(d: &Desktop) -> Result<&CourseId, ApiFailure> {
    match &d.owner {
        Owner::Course { course, .. } => Ok(course),
        Owner::Draft { .. } => Err(ApiFailure::not_found("desktop")),
    }
}

/// Whether the actor may see the points of this desktop and go back to them: staff of its course, or its
/// person where the course says so.
async fn sees(app: &App, actor: &Actor, d: &Desktop) -> Result<bool, ApiFailure> {
    let staff = actor.require_desktop(app, d).await? == Access::Staff;
    Ok(staff || rows::schedule(&app.store, course_of(d)?).await?.own_restore)
}

async fn may_restore(app: &App, actor: &Actor, id: &DesktopId) -> Result<Desktop, ApiFailure> {
    let d = super::desktops::mine(app, actor, id).await?;
    if !sees(app, actor, &d).await? {
        return Err(ApiFailure::forbidden(
            "in this course only teachers restore desktops: ask yours",
        ));
    }
    Ok(d)
}

async fn is_staff(app: &App, actor: &Actor, id: &DesktopId) -> Result<Desktop, ApiFailure> {
    let d = super::desktops::mine(app, actor, id).await?;
    actor.require_course_staff(app, course_of(&d)?).await?;
    Ok(d)
}

async fn user_name(app: &App, id: &DesktopId) -> Result<String, ApiFailure> {
    Ok(desktops::names(&app.store, Filter::One(id))
        .await?
        .remove(id)
        .unwrap_or_default()
        .user)
}

fn check_note(note: &str) -> Result<String, ApiFailure> {
    let note = note.trim();
    if note.chars().count() > NOTE_MAX || note.chars().any(char::is_control) {
        return Err(ApiFailure::invalid(
            "a note is one line of at most 200 characters",
        ));
    }
    Ok(note.to_owned())
}

/// A desktop's restore points, the newest first.
#[utoipa::path(get, path = "/desktops/{id}/restore-points", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = Vec<RestorePoint>), (status = "default", body = ApiError)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Json<Vec<RestorePoint>>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    // What its person may not go back to is not there.
    if !sees(&app, &actor, &d).await? {
        return Ok(Json(Vec::new()));
    }
    let name = user_name(&app, &id).await?;
    let points = rows::of_desktop(&app.store, &id).await?;
    Ok(Json(
        points.into_iter().filter_map(|p| shown(p, &name)).collect(),
    ))
}

async fn order(
    app: &App,
    actor: &Actor,
    id: &DesktopId,
    word: &str,
    what: impl AsyncFnOnce(&mut Tx, By, Target) -> Result<Accepted, ApiFailure>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let name = user_name(app, id).await?;
    let by = By {
        login: actor.login().to_owned(),
    };
    let mut tx = app.store.begin_write().await?;
    let desktop = desktops::get_tx(&mut tx, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("desktop"))?;
    audit::write(
        &mut tx,
        actor,
        &format!("desktop.{word}"),
        &format!("desktop/{id}"),
        &name,
    )
    .await?;
    let target = Target { desktop, name };
    let accepted = what(&mut tx, by, target).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Keeps a desktop as it is: running with its windows, or the disk of a persistent one that is stopped.
#[utoipa::path(post, path = "/desktops/{id}/restore-points", tag = "desktops", params(("id" = DesktopId, Path)),
    request_body = TakePoint, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn take(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    JsonOrDefault(body): JsonOrDefault<TakePoint>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    is_staff(&app, &actor, &id).await?;
    let note = check_note(&body.note)?;
    order(&app, &actor, &id, TAKE, async |tx, by, target| {
        let scope = desktop_scope(&target.desktop, &target.name);
        let operation = orders::take(tx, &by, scope, vec![target], &note, app.now()).await?;
        Ok(Accepted { operation })
    })
    .await
}

/// Brings a desktop back to one of its points. What is there now is kept, so that it can be undone.
#[utoipa::path(post, path = "/desktops/{id}/restore", tag = "desktops", params(("id" = DesktopId, Path)),
    request_body = RestoreOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn restore(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    Json(body): Json<RestoreOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    may_restore(&app, &actor, &id).await?;
    order(&app, &actor, &id, RESTORE, async |tx, by, target| {
        let point = rows::get_tx(tx, &body.point)
            .await?
            .filter(|p| p.desktop == id && state(p).is_some())
            .ok_or_else(|| ApiFailure::not_found("restore point of this desktop"))?;
        let scope = desktop_scope(&target.desktop, &target.name);
        let pairs = vec![(target, point)];
        let operation = orders::restore(tx, &by, scope, RESTORE, pairs, app.now()).await?;
        Ok(Accepted { operation })
    })
    .await
}

/// The newest state before a restore, by desktop.
fn undo_points(points: Vec<Point>) -> HashMap<DesktopId, Point> {
    let mut newest = HashMap::new();
    for p in points {
        if p.origin == Origin::Undo && p.state == rows::State::Ready {
            newest.entry(p.desktop.clone()).or_insert(p);
        }
    }
    newest
}

fn nothing_to_undo() -> ApiFailure {
    ApiFailure::state(
        "there is no restore to undo: what was before one is kept until the next class",
    )
}

/// Undoes a desktop's last restore. That can be undone too.
#[utoipa::path(post, path = "/desktops/{id}/undo-restore", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn undo(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let d = may_restore(&app, &actor, &id).await?;
    let course = course_of(&d)?.clone();
    order(&app, &actor, &id, UNDO, async |tx, by, target| {
        let mut undo = undo_points(rows::of_course_tx(tx, &course).await?);
        let point = undo.remove(&id).ok_or_else(nothing_to_undo)?;
        let scope = desktop_scope(&target.desktop, &target.name);
        let pairs = vec![(target, point)];
        let operation = orders::restore(tx, &by, scope, UNDO, pairs, app.now()).await?;
        Ok(Accepted { operation })
    })
    .await
}

/// Deletes a restore point.
#[utoipa::path(delete, path = "/restore-points/{id}", params(("id" = PointId, Path)),
    responses((status = 204), (status = "default", body = ApiError)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<PointId>,
) -> Result<StatusCode, ApiFailure> {
    let gone = || ApiFailure::not_found("restore point");
    let seen = rows::get(&app.store, &id)
        .await?
        .filter(|p| state(p).is_some())
        .ok_or_else(gone)?;
    // Who may not know of the desktop may not know of its points.
    is_staff(&app, &actor, &seen.desktop)
        .await
        .map_err(|e| match e.status {
            StatusCode::NOT_FOUND => gone(),
            _ => e,
        })?;
    let mut tx = app.store.begin_write().await?;
    let point = rows::get_tx(&mut tx, &id)
        .await?
        .filter(|p| state(p).is_some())
        .ok_or_else(gone)?;
    drop_points(&mut tx, std::slice::from_ref(&point)).await?;
    let target = format!("desktop/{}", point.desktop);
    audit::write(
        &mut tx,
        &actor,
        "restore-point.delete",
        &target,
        &id.to_string(),
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn drop_points(tx: &mut Tx, points: &[Point]) -> Result<(), ApiFailure> {
    for p in points {
        if p.state == rows::State::Taking {
            return Err(ApiFailure::state(
                "it is still being taken: wait until that is over, or call its operation off",
            ));
        }
        if orders::in_use(tx, &p.id).await? {
            return Err(ApiFailure::in_use(
                "a desktop is being restored from it: wait until that is over",
            ));
        }
        orders::drop_row(tx, &p.id).await?;
    }
    Ok(())
}

/// What there is to go back to in a course, the newest first.
#[utoipa::path(get, path = "/courses/{id}/restore-points", tag = "courses", params(("id" = CourseId, Path)),
    responses((status = 200, body = CoursePoints), (status = "default", body = ApiError)))]
async fn course_list(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Json<CoursePoints>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let points = rows::of_course(&app.store, &id).await?;
    let here: HashSet<DesktopId> = points.iter().map(|p| p.desktop.clone()).collect();
    let restores = rows::restores(&app.store).await?;
    let restoring = restores.iter().filter(|r| here.contains(&r.desktop));
    let restoring = restoring.count() as u32;
    let batches = batches(&points);
    Ok(Json(CoursePoints {
        wordings: wordings(batches.iter().map(|b| b.message.as_str())),
        batches,
        undo: undo_points(points).len() as u32,
        restoring,
    }))
}

/// Points by what was taken together, in the order they come; what was kept before a restore is no batch.
fn batches(points: &[Point]) -> Vec<PointBatch> {
    let mut out: Vec<PointBatch> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for p in points.iter().filter(|p| p.origin != Origin::Undo) {
        let Some(state) = state(p) else { continue };
        let index = *at.entry(p.batch.as_str()).or_insert_with(|| {
            out.push(PointBatch {
                batch: p.batch.clone(),
                origin: origin(p.origin),
                note: p.note.clone(),
                taken: p.taken,
                ready: 0,
                disk_only: 0,
                taking: 0,
                failed: 0,
                message: String::new(),
                bytes: 0,
            });
            out.len() - 1
        });
        let batch = &mut out[index];
        match state {
            PointState::Ready => {
                batch.ready += 1;
                batch.disk_only += u32::from(p.holds == Holds::Disk);
            }
            PointState::Taking => batch.taking += 1,
            PointState::Failed | PointState::Damaged => {
                batch.failed += 1;
                batch.message.clone_from(&p.message);
            }
        }
        batch.bytes += p.bytes.unwrap_or(0).max(0) as u64;
    }
    out
}

/// The course's desktops that are there, of everybody or of those named.
async fn targets(
    tx: &mut Tx,
    course: &CourseId,
    users: Option<&[UserId]>,
    names: &HashMap<DesktopId, desktops::Names>,
) -> Result<Vec<Target>, ApiFailure> {
    let all = desktops::all_tx(tx).await?;
    Ok(all
        .into_iter()
        .filter(|d| d.desired != Desired::Absent)
        .filter(|d| match &d.owner {
            Owner::Course { course: c, user } => {
                c == course && users.is_none_or(|users| users.contains(user))
            }
            Owner::Draft { .. } => false,
        })
        .map(|desktop| Target {
            name: names
                .get(&desktop.id)
                .map(|n| n.user.clone())
                .unwrap_or_default(),
            desktop,
        })
        .collect())
}

async fn course_order(
    app: &App,
    actor: &Actor,
    id: &CourseId,
    word: &str,
    users: Option<&[UserId]>,
    what: impl AsyncFnOnce(&mut Tx, By, Scope, Vec<Target>) -> Result<Accepted, ApiFailure>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let course = actor.require_course_staff(app, id).await?;
    let names = desktops::names(&app.store, Filter::Course(id)).await?;
    let by = By {
        login: actor.login().to_owned(),
    };
    let target = format!("course/{id}");
    let mut tx = app.store.begin_write().await?;
    let targets = targets(&mut tx, id, users, &names).await?;
    let detail = format!("{} desktops", targets.len());
    audit::write(&mut tx, actor, &format!("course.{word}"), &target, &detail).await?;
    let scope = Scope {
        target,
        target_name: course.name,
        course: Some(id.clone()),
    };
    let accepted = what(&mut tx, by, scope, targets).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Keeps every desktop of the class of which a point can be taken.
#[utoipa::path(post, path = "/courses/{id}/restore-points", tag = "courses", params(("id" = CourseId, Path)),
    request_body = TakePoint, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_take(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    JsonOrDefault(body): JsonOrDefault<TakePoint>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let note = check_note(&body.note)?;
    let users = body.users.as_deref();
    course_order(
        &app,
        &actor,
        &id,
        TAKE,
        users,
        async |tx, by, scope, targets| {
            let operation = orders::take(tx, &by, scope, targets, &note, app.now()).await?;
            Ok(Accepted { operation })
        },
    )
    .await
}

/// Each desktop with its point among these.
fn pairs(targets: Vec<Target>, mut points: HashMap<DesktopId, Point>) -> Vec<(Target, Point)> {
    targets
        .into_iter()
        .filter_map(|target| {
            let point = points.remove(&target.desktop.id)?;
            Some((target, point))
        })
        .collect()
}

/// Brings the class back: each desktop to its point of those that were taken together. Desktops that have
/// none of that time stay as they are.
#[utoipa::path(post, path = "/courses/{id}/restore", tag = "courses", params(("id" = CourseId, Path)),
    request_body = CourseRestore, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_restore(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<CourseRestore>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let users = body.users.as_deref();
    course_order(&app, &actor, &id, RESTORE, users, async |tx, by, scope, targets| {
        let points = rows::of_course_tx(tx, &id).await?;
        let points = points
            .into_iter()
            .filter(|p| p.batch == body.batch && p.origin != Origin::Undo)
            .filter(|p| p.state == rows::State::Ready)
            .map(|p| (p.desktop.clone(), p))
            .collect();
        let pairs = pairs(targets, points);
        if pairs.is_empty() {
            return Err(ApiFailure::state(
                "no desktop of this course has a restore point of that time: choose another one that is listed",
            ));
        }
        let operation = orders::restore(tx, &by, scope, RESTORE, pairs, app.now()).await?;
        Ok(Accepted { operation })
    })
    .await
}

/// Undoes the last restore of each desktop of the class that was restored since the class began.
#[utoipa::path(post, path = "/courses/{id}/undo-restore", tag = "courses", params(("id" = CourseId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_undo(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    course_order(
        &app,
        &actor,
        &id,
        UNDO,
        None,
        async |tx, by, scope, targets| {
            let pairs = pairs(targets, undo_points(rows::of_course_tx(tx, &id).await?));
            if pairs.is_empty() {
                return Err(nothing_to_undo());
            }
            let operation = orders::restore(tx, &by, scope, UNDO, pairs, app.now()).await?;
            Ok(Accepted { operation })
        },
    )
    .await
}

/// Deletes what was taken together.
#[utoipa::path(delete, path = "/courses/{id}/restore-points/{batch}", tag = "courses",
    params(("id" = CourseId, Path), ("batch" = String, Path)),
    responses((status = 204), (status = "default", body = ApiError)))]
async fn course_delete(
    State(app): State<App>,
    actor: Actor,
    Path((id, batch)): Path<(CourseId, String)>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let mut tx = app.store.begin_write().await?;
    let mut points = rows::of_course_tx(&mut tx, &id).await?;
    points.retain(|p| p.batch == batch && p.origin != Origin::Undo && state(p).is_some());
    if points.is_empty() {
        return Err(ApiFailure::not_found("restore point"));
    }
    drop_points(&mut tx, &points).await?;
    let target = format!("course/{id}");
    let detail = format!("{} desktops", points.len());
    audit::write(&mut tx, &actor, "restore-point.delete", &target, &detail).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn schedule_shown(s: &rows::Schedule) -> PointSchedule {
    PointSchedule {
        every_min: s.every_min,
        keep_last: s.keep_last,
        keep_hourly: s.keep_hourly,
        own_restore: s.own_restore,
    }
}

/// When points are taken by themselves, and who may restore.
#[utoipa::path(get, path = "/courses/{id}/point-schedule", tag = "courses", params(("id" = CourseId, Path)),
    responses((status = 200, body = PointSchedule), (status = "default", body = ApiError)))]
async fn get_schedule(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Json<PointSchedule>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    Ok(Json(schedule_shown(
        &rows::schedule(&app.store, &id).await?,
    )))
}

/// Sets that.
#[utoipa::path(put, path = "/courses/{id}/point-schedule", tag = "courses", params(("id" = CourseId, Path)),
    request_body = PointSchedule, responses((status = 200, body = PointSchedule), (status = "default", body = ApiError)))]
async fn put_schedule(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<PointSchedule>,
) -> Result<Json<PointSchedule>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    if body.every_min > 1440 || !(1..=100).contains(&body.keep_last) || body.keep_hourly > 100 {
        return Err(ApiFailure::invalid(
            "points are taken every 1 to 1440 minutes (0: never), 1 to 100 of them are kept, and at most 100 hourly ones",
        ));
    }
    let mut tx = app.store.begin_write().await?;
    let mut s = rows::schedule_tx(&mut tx, &id).await?;
    s.every_min = body.every_min;
    s.keep_last = body.keep_last;
    s.keep_hourly = body.keep_hourly;
    s.own_restore = body.own_restore;
    rows::put_schedule(&mut tx, &s).await?;
    let detail = match s.every_min {
        0 => "never".to_owned(),
        n => format!("every {n} minutes"),
    };
    audit::write(
        &mut tx,
        &actor,
        "course.point-schedule",
        &format!("course/{id}"),
        &detail,
    )
    .await?;
    tx.commit().await?;
    Ok(Json(schedule_shown(&s)))
}
