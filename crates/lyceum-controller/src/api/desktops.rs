//! Desktops: what they are, and orders about them, one by one or a class at a time.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, JsonOrDefault, Path, Query};
use crate::live::LiveDesktop;
use crate::orders::{self, By, Scope, Target, Want};
use crate::reconcile::hand_out::{self, HandOutData};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::ApiError;
use lyceum_api::desktops::{
    Accepted, ClipboardText, CourseOrder, Desktop, DesktopCreate, DesktopHistory, DesktopQuery,
    HandOut, Placement, StartOrder,
};
use lyceum_api::wording::wordings;
use lyceum_model::{CourseId, DeltaId, Desired, DesktopId, OperationId, Phase, UserId};
use lyceum_proto::host::Clipboard;
use lyceum_store::desktops::{self as rows, Filter, Names, Owner};
use lyceum_store::operations::{self, Item, Operation};
use std::collections::{HashMap, HashSet};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(suspend))
        .routes(routes!(reset))
        .routes(routes!(history))
        .routes(routes!(get_clipboard, put_clipboard))
        .routes(routes!(course_start))
        .routes(routes!(course_stop))
        .routes(routes!(course_suspend))
        .routes(routes!(course_reset))
        .routes(routes!(course_hand_out))
}

/// The longest clipboard text, in bytes.
const CLIPBOARD_MAX: usize = 32 * 1024;

fn shown(
    d: rows::Desktop,
    names: Option<&Names>,
    live: Option<&LiveDesktop>,
    staff: bool,
    pinned: bool,
) -> Option<Desktop> {
    let Owner::Course { course, user } = d.owner else {
        return None;
    };
    let live = live.copied().unwrap_or_default();
    let names = names.cloned().unwrap_or_default();
    Some(Desktop {
        id: d.id,
        course,
        course_name: names.course,
        user,
        user_name: names.user,
        desired: d.desired,
        phase: d.phase,
        host: d.host.filter(|_| staff),
        pinned: pinned && staff,
        release: d.release,
        size: d.size,
        persistence: d.persistence,
        started_by: d.started_by,
        address: d.guest_address,
        usable_ms: d.usable_ms.map(|v| v.max(0) as u64),
        pss_kib: live.pss_kib,
        cpu_percent: live.cpu_percent,
        read_bytes: live.read_bytes,
        delta_bytes: d.delta_bytes.map(|v| v.max(0) as u64),
        suspend_ms: d.suspend_ms.map(|v| v.max(0) as u64),
        wordings: wordings(
            [Some(&d.detail), d.cold_reason.as_ref(), d.notice.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str),
        ),
        detail: d.detail,
        cold_reason: d.cold_reason,
        notice: d.notice,
        changed: d.changed,
    })
}

/// Own desktops; staff may ask for a course's or all.
#[utoipa::path(get, path = "/desktops", tag = "desktops", params(DesktopQuery),
    responses((status = 200, body = Vec<Desktop>), (status = "default", body = ApiError)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<DesktopQuery>,
) -> Result<Json<Vec<Desktop>>, ApiFailure> {
    let staff = query.course.is_some() || query.all == Some(true);
    if let Some(course) = &query.course {
        actor.require_course_staff(&app, course).await?;
    } else if staff {
        actor.require_teacher()?;
    }
    let all = app.reads.desktops().await?;
    let mine = match &query.course {
        None if staff && !actor.is_admin() => courses_i_run(&app, &actor, &all.rows).await,
        _ => HashSet::new(),
    };
    let wanted = |d: &&rows::Desktop| match (&d.owner, &query.course) {
        (Owner::Draft { .. }, _) => false,
        (Owner::Course { course, .. }, Some(asked)) => course == asked,
        (Owner::Course { course, .. }, None) if staff => actor.is_admin() || mine.contains(course),
        (Owner::Course { user, .. }, None) => actor.user_id() == Some(user),
    };
    let found: Vec<&rows::Desktop> = all.rows.iter().filter(wanted).collect();
    let live = app.live.desktops();
    let mut out = Vec::with_capacity(found.len());
    for d in found {
        // Who was taken off a roster has lost the desktop although its row is still being cleared up.
        if !staff && actor.require_desktop(&app, d).await.is_err() {
            continue;
        }
        let (names, live) = (all.names.get(&d.id), live.get(&d.id));
        let pinned = all.pinned.contains(&d.id);
        out.extend(shown(d.clone(), names, live, staff, pinned));
    }
    Ok(Json(out))
}

async fn courses_i_run(app: &App, actor: &Actor, all: &[rows::Desktop]) -> HashSet<CourseId> {
    let courses: HashSet<CourseId> = all
        .iter()
        .filter_map(|d| match &d.owner {
            Owner::Course { course, .. } => Some(course.clone()),
            Owner::Draft { .. } => None,
        })
        .collect();
    let mut mine = HashSet::new();
    for course in courses {
        if actor.require_course_staff(app, &course).await.is_ok() {
            mine.insert(course);
        }
    }
    mine
}

/// A desktop that the actor may see; what one may not see is not there.
pub(crate) async fn mine(
    app: &App,
    actor: &Actor,
    id: &DesktopId,
) -> Result<rows::Desktop, ApiFailure> {
    let d = rows::get(&app.store, id)
        .await?
        .filter(|d| matches!(d.owner, Owner::Course { .. }))
        .ok_or_else(|| ApiFailure::not_found("desktop"))?;
    actor.require_desktop(app, &d).await?;
    Ok(d)
}

async fn is_staff(app: &App, actor: &Actor, d: &rows::Desktop) -> bool {
    match &d.owner {
        Owner::Course { course, .. } => actor.require_course_staff(app, course).await.is_ok(),
        Owner::Draft { .. } => false,
    }
}

/// One desktop.
#[utoipa::path(get, path = "/desktops/{id}", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = Desktop), (status = "default", body = ApiError)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Json<Desktop>, ApiFailure> {
    let d = mine(&app, &actor, &id).await?;
    let staff = is_staff(&app, &actor, &d).await;
    let names = rows::names(&app.store, Filter::One(&id)).await?;
    let live = app.live.desktops();
    let pinned = lyceum_store::pins::is_pinned(&app.store, &id).await?;
    shown(d, names.get(&id), live.get(&id), staff, pinned)
        .map(Json)
        .ok_or_else(|| ApiFailure::not_found("desktop"))
}

/// Makes sure that somebody on the roster has a desktop; it is not started.
#[utoipa::path(post, path = "/desktops", tag = "desktops", request_body = DesktopCreate,
    responses((status = 201, body = Desktop), (status = "default", body = ApiError)))]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<DesktopCreate>,
) -> Result<(StatusCode, Json<Desktop>), ApiFailure> {
    // A student may make the own one; nobody but staff another's.
    actor.require_course(&app, &body.course).await?;
    if actor.user_id() != Some(&body.user) {
        actor.require_course_staff(&app, &body.course).await?;
    }
    let facts = orders::course_facts(&app.store, &body.course)
        .await?
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let person = people(&app, &body.course, Some(std::slice::from_ref(&body.user))).await?;
    let mut tx = app.store.begin_write().await?;
    let targets = orders::ensure(&mut tx, &facts, &person, app.now()).await?;
    let Some(target) = targets.into_iter().next() else {
        return Err(ApiFailure::not_found("member of the course"));
    };
    let id = target.desktop.id.clone();
    audit::write(
        &mut tx,
        &actor,
        "desktop.create",
        &format!("desktop/{id}"),
        &target.name,
    )
    .await?;
    tx.commit().await?;
    let names = rows::names(&app.store, Filter::One(&id)).await?;
    shown(target.desktop, names.get(&id), None, false, false)
        .map(|d| (StatusCode::CREATED, Json(d)))
        .ok_or_else(|| ApiFailure::not_found("desktop"))
}

/// People of the roster with a desktop: the students, or those named, teachers too.
async fn people(
    app: &App,
    course: &CourseId,
    only: Option<&[UserId]>,
) -> Result<Vec<(UserId, String, String)>, ApiFailure> {
    let mut list = rows::roster(&app.store, course, "student").await?;
    let Some(only) = only else { return Ok(list) };
    list.extend(rows::roster(&app.store, course, "teacher").await?);
    let wanted: HashSet<&UserId> = only.iter().collect();
    list.retain(|(id, _, _)| wanted.contains(id));
    if list.len() < wanted.len() {
        return Err(ApiFailure::invalid(
            "somebody named is not on the roster of the course: put them on it first",
        ));
    }
    Ok(list)
}

async fn order_one(
    app: App,
    actor: Actor,
    id: DesktopId,
    want: Want,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let seen = mine(&app, &actor, &id).await?;
    let names = rows::names(&app.store, Filter::One(&id))
        .await?
        .remove(&id)
        .unwrap_or_default();
    let Owner::Course { course, .. } = &seen.owner else {
        return Err(ApiFailure::not_found("desktop"));
    };
    let facts = orders::facts_of(&app.store, [course]).await?;
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    let desktop = rows::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("desktop"))?;
    if desktop.desired == Desired::Absent && want != Want::Delete {
        return Err(ApiFailure::state(
            "this desktop is being deleted: a new one can be made when it is gone",
        ));
    }
    let by = By {
        login: actor.login().to_owned(),
    };
    audit::write(
        &mut tx,
        &actor,
        &format!("desktop.{}", word(&want)),
        &format!("desktop/{id}"),
        &names.user,
    )
    .await?;
    let operation = orders::give(
        &mut tx,
        &settings,
        &by,
        orders::desktop_scope(&desktop, &names.user),
        want,
        vec![Target {
            desktop,
            name: names.user.clone(),
        }],
        &facts,
        app.now(),
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { operation })))
}

fn word(want: &Want) -> &'static str {
    match want {
        Want::Start { cold: false } => "start",
        Want::Start { cold: true } => "start-cold",
        Want::Reset => "reset",
        Want::Suspend => "suspend",
        Want::Stop => "stop",
        Want::Delete => "delete",
    }
}

/// Starts it: resumed when suspended, forked when new.
#[utoipa::path(post, path = "/desktops/{id}/start", tag = "desktops", params(("id" = DesktopId, Path)),
    request_body = StartOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn start(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    JsonOrDefault(body): JsonOrDefault<StartOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_one(app, actor, id, Want::Start { cold: body.cold }).await
}

/// Ends it. A throw-away desktop is gone with that; a persistent one keeps its disk.
#[utoipa::path(post, path = "/desktops/{id}/stop", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn stop(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_one(app, actor, id, Want::Stop).await
}

/// Saves it with its windows open and ends its machine.
#[utoipa::path(post, path = "/desktops/{id}/suspend", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn suspend(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_one(app, actor, id, Want::Suspend).await
}

/// As new, and running.
#[utoipa::path(post, path = "/desktops/{id}/reset", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn reset(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_one(app, actor, id, Want::Reset).await
}

/// Deletes it with everything that belongs to it.
#[utoipa::path(delete, path = "/desktops/{id}", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let d = mine(&app, &actor, &id).await?;
    if let Owner::Course { course, .. } = &d.owner {
        actor.require_course_staff(&app, course).await?;
    }
    order_one(app, actor, id, Want::Delete).await
}

/// Where it was placed, and why.
#[utoipa::path(get, path = "/desktops/{id}/history", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = DesktopHistory), (status = "default", body = ApiError)))]
async fn history(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Json<DesktopHistory>, ApiFailure> {
    let d = mine(&app, &actor, &id).await?;
    if let Owner::Course { course, .. } = &d.owner {
        actor.require_course_staff(&app, course).await?;
    }
    let placements = rows::placements(&app.store, &id)
        .await?
        .into_iter()
        .map(|p| Placement {
            at: p.at,
            host: p.host,
            reason: p.reason,
            snapshot: serde_json::from_str(&p.snapshot).unwrap_or(serde_json::Value::Null),
        })
        .collect();
    Ok(Json(DesktopHistory { placements }))
}

async fn on_its_host(
    app: &App,
    actor: &Actor,
    id: &DesktopId,
) -> Result<lyceum_wire::Client, ApiFailure> {
    let d = mine(app, actor, id).await?;
    match (&d.host, d.phase) {
        (Some(host), Phase::Running) => app
            .agents
            .host(host)
            .await
            .map_err(|e| ApiFailure::unavailable(e.to_string())),
        _ => Err(ApiFailure::state(
            "the desktop does not run: start it first",
        )),
    }
}

fn clipboard_error(e: lyceum_wire::ClientError) -> ApiFailure {
    ApiFailure::unavailable(format!("the desktop's clipboard can't be reached: {e}"))
}

/// Text of its clipboard.
#[utoipa::path(get, path = "/desktops/{id}/clipboard", tag = "desktops", params(("id" = DesktopId, Path)),
    responses((status = 200, body = ClipboardText), (status = "default", body = ApiError)))]
async fn get_clipboard(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
) -> Result<Json<ClipboardText>, ApiFailure> {
    let host = on_its_host(&app, &actor, &id).await?;
    let Clipboard { text } = host
        .get(&format!("/v1/desktops/{id}/clipboard"))
        .await
        .map_err(clipboard_error)?;
    Ok(Json(ClipboardText { text }))
}

/// Puts text into its clipboard.
#[utoipa::path(put, path = "/desktops/{id}/clipboard", tag = "desktops", params(("id" = DesktopId, Path)),
    request_body = ClipboardText, responses((status = 204), (status = "default", body = ApiError)))]
async fn put_clipboard(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    Json(body): Json<ClipboardText>,
) -> Result<StatusCode, ApiFailure> {
    if body.text.len() > CLIPBOARD_MAX {
        return Err(ApiFailure::invalid(
            "the text is longer than 32 KiB: copy a smaller piece",
        ));
    }
    let host = on_its_host(&app, &actor, &id).await?;
    let _: serde::de::IgnoredAny = host
        .put(
            &format!("/v1/desktops/{id}/clipboard"),
            &Clipboard { text: body.text },
        )
        .await
        .map_err(clipboard_error)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn order_class(
    app: App,
    actor: Actor,
    id: CourseId,
    body: CourseOrder,
    want: Want,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let facts = orders::course_facts(&app.store, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let everybody = people(&app, &id, body.users.as_deref()).await?;
    let settings = app.settings().await?;
    let name = facts.name.clone();
    let mut tx = app.store.begin_write().await?;
    let starts = matches!(want, Want::Start { .. } | Want::Reset);
    let mut targets = if starts {
        orders::ensure(&mut tx, &facts, &everybody, app.now()).await?
    } else {
        existing(&mut tx, &id, &everybody).await?
    };
    // A class-wide suspend is about those who have something to suspend.
    if want == Want::Suspend {
        targets.retain(|t| t.desktop.desired == Desired::Running);
    }
    if targets.is_empty() {
        return Err(ApiFailure::state(if starts {
            "nobody is on the roster of this course: put students on it first"
        } else {
            "no desktop of this course is in a state for that"
        }));
    }
    let detail = format!("{} desktops", targets.len());
    audit::write(
        &mut tx,
        &actor,
        &format!("course.{}", word(&want)),
        &format!("course/{id}"),
        &detail,
    )
    .await?;
    let scope = Scope {
        target: format!("course/{id}"),
        target_name: name,
        course: Some(id.clone()),
    };
    let by = By {
        login: actor.login().to_owned(),
    };
    let all = HashMap::from([(id, facts)]);
    let operation = orders::give(
        &mut tx,
        &settings,
        &by,
        scope,
        want,
        targets,
        &all,
        app.now(),
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { operation })))
}

/// Desktops of these people that are there.
async fn existing(
    tx: &mut lyceum_store::Tx,
    course: &CourseId,
    people: &[(UserId, String, String)],
) -> Result<Vec<Target>, ApiFailure> {
    let names: HashMap<&UserId, &String> = people.iter().map(|(id, _, name)| (id, name)).collect();
    Ok(rows::all_tx(tx)
        .await?
        .into_iter()
        .filter(|d| d.desired != Desired::Absent)
        .filter_map(|desktop| match &desktop.owner {
            Owner::Course { course: c, user } if c == course => {
                let name = names.get(user).map(|n| (*n).clone())?;
                Some(Target { desktop, name })
            }
            _ => None,
        })
        .collect())
}

/// Starts the class, or some of it.
#[utoipa::path(post, path = "/courses/{id}/start", tag = "courses", params(("id" = CourseId, Path)),
    request_body = CourseOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_start(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    JsonOrDefault(body): JsonOrDefault<CourseOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    let want = Want::Start { cold: body.cold };
    order_class(app, actor, id, body, want).await
}

/// Stops the class.
#[utoipa::path(post, path = "/courses/{id}/stop", tag = "courses", params(("id" = CourseId, Path)),
    request_body = CourseOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_stop(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    JsonOrDefault(body): JsonOrDefault<CourseOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_class(app, actor, id, body, Want::Stop).await
}

/// Suspends the class.
#[utoipa::path(post, path = "/courses/{id}/suspend", tag = "courses", params(("id" = CourseId, Path)),
    request_body = CourseOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_suspend(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    JsonOrDefault(body): JsonOrDefault<CourseOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_class(app, actor, id, body, Want::Suspend).await
}

/// Resets the class.
#[utoipa::path(post, path = "/courses/{id}/reset", tag = "courses", params(("id" = CourseId, Path)),
    request_body = CourseOrder, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_reset(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    JsonOrDefault(body): JsonOrDefault<CourseOrder>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    order_class(app, actor, id, body, Want::Reset).await
}

/// Makes a running desktop, windows open, the start of everybody's in the course.
#[utoipa::path(post, path = "/courses/{id}/hand-out", tag = "courses", params(("id" = CourseId, Path)),
    request_body = HandOut, responses((status = 202, body = Accepted), (status = "default", body = ApiError)))]
async fn course_hand_out(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<HandOut>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let source = mine(&app, &actor, &body.desktop).await?;
    let Owner::Course { course, user } = &source.owner else {
        return Err(ApiFailure::not_found("desktop"));
    };
    if *course != id {
        return Err(ApiFailure::invalid(
            "the desktop to hand out belongs to another course",
        ));
    }
    // What a student has open is the student's; only the teacher's own goes to everybody.
    let teachers = rows::roster(&app.store, &id, "teacher").await?;
    if !teachers.iter().any(|(t, _, _)| t == user) {
        return Err(ApiFailure::forbidden(
            "only the desktop of a teacher of the course can be handed out",
        ));
    }
    if source.phase != Phase::Running {
        return Err(ApiFailure::state(
            "the desktop to hand out does not run: start it first",
        ));
    }
    if source.started_by.as_deref() == Some("cold") {
        return Err(ApiFailure::state(
            "the desktop to hand out was booted cold, so it has no memory in common with the others: reset it, then order again",
        ));
    }
    let facts = orders::course_facts(&app.store, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let mut everybody = people(&app, &id, body.users.as_deref()).await?;
    everybody.retain(|(u, _, _)| u != user);
    if everybody.is_empty() {
        return Err(ApiFailure::state(
            "there is nobody to hand it out to: put students on the roster first",
        ));
    }
    let now = app.now();
    let mut tx = app.store.begin_write().await?;
    let targets = orders::ensure(&mut tx, &facts, &everybody, now).await?;
    let operation = OperationId::new();
    let data = HandOutData {
        source: source.id.clone(),
        delta: DeltaId::new(),
        targets: targets.iter().map(|t| t.desktop.id.clone()).collect(),
        started: false,
    };
    let items: Vec<Item> = targets
        .iter()
        .map(|t| Item {
            target: format!("desktop/{}", t.desktop.id),
            name: t.name.clone(),
            state: "pending".into(),
            message: String::new(),
        })
        .collect();
    let target = format!("course/{id}");
    audit::write(
        &mut tx,
        &actor,
        hand_out::KIND,
        &target,
        &format!("{} to {} desktops", source.id, items.len()),
    )
    .await?;
    operations::insert(
        &mut tx,
        &Operation {
            id: operation.clone(),
            kind: hand_out::KIND.into(),
            target,
            target_name: facts.name.clone(),
            course: Some(id),
            requested_by: actor.login().to_owned(),
            state: "running".into(),
            step: "capturing".into(),
            data: serde_json::to_string(&data).map_err(ApiFailure::internal)?,
            created: now,
            ended: None,
        },
        &items,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { operation })))
}
