//! Taking over a calendar file.

use super::timetable::{LESSONS, Seen};
use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json};
use crate::timetable::file::{MyCourse, Plan, plan};
use crate::timetable::{School, rules};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use lyceum_api::timetable::{CalendarFile, FileResult};
use lyceum_model::SchoolDaysId;
use lyceum_store::timetable::{self as rows, DaysKind, SchoolDays};
use lyceum_timetable::ics::MAX_BYTES;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// Longest body, bytes: the longest file as JSON, where ends of lines take two characters more.
const BODY: usize = MAX_BYTES + MAX_BYTES / 2;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(preview).layer(DefaultBodyLimit::max(BODY)))
        .routes(routes!(apply).layer(DefaultBodyLimit::max(BODY)))
}

/// The courses that a file may change, if whoever asks may take over such a file at all.
async fn mine(app: &App, actor: &Actor, body: &CalendarFile) -> Result<Vec<MyCourse>, ApiFailure> {
    match &body.course {
        Some(course) => {
            actor.require_course_staff(app, course).await?;
        }
        None => actor.require_teacher()?,
    }
    if body.holidays {
        actor.require_admin()?;
    }
    let mut mine: Vec<MyCourse> = Seen::by(app, actor)
        .await?
        .editable()
        .map(|(id, name)| MyCourse {
            id: id.clone(),
            name: name.to_owned(),
        })
        .collect();
    // Of two courses of one title always the same one.
    mine.sort_by(|a, b| b.id.cmp(&a.id));
    Ok(mine)
}

fn planned(
    app: &App,
    body: &CalendarFile,
    mine: &[MyCourse],
    school: &School,
) -> Result<Plan, ApiFailure> {
    if body.ics.len() > MAX_BYTES {
        return Err(ApiFailure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the calendar file is larger than 4 MiB: export a shorter time",
        ));
    }
    let zone = rules::zone(&school.rules.zone)?;
    plan(body, &zone, mine, &school.rows, &school.days, app.now())
        .map_err(|e| ApiFailure::invalid(format!("the calendar file can't be read: {e}")))
}

/// What a calendar file would change. Changes nothing.
#[utoipa::path(post, path = "/timetable/import/preview", request_body = CalendarFile, responses((status = 200, body = FileResult)))]
async fn preview(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<CalendarFile>,
) -> Result<Json<FileResult>, ApiFailure> {
    let mine = mine(&app, &actor, &body).await?;
    let school = School::load(&app.store).await?;
    Ok(Json(planned(&app, &body, &mine, &school)?.result))
}

/// Take over a calendar file: all of it or, when something in it can't be and `skip_problems` is not
/// said, nothing. Events of courses that were not found are left out.
#[utoipa::path(post, path = "/timetable/import", request_body = CalendarFile, responses((status = 200, body = FileResult)))]
async fn apply(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<CalendarFile>,
) -> Result<Json<FileResult>, ApiFailure> {
    let mine = mine(&app, &actor, &body).await?;
    let mut school = School::load(&app.store).await?;
    let mut tx = app.store.begin_write().await?;
    // Nobody else writes meanwhile, so what is read here is what is compared.
    school.rows = rows::lessons_tx(&mut tx).await?;
    school.days = rows::school_days_tx(&mut tx).await?;
    let plan = planned(&app, &body, &mine, &school)?;
    if let Some(first) = plan.result.problems.first().filter(|_| !body.skip_problems) {
        return Err(ApiFailure::invalid(format!(
            "{} events can't be taken over, the first in line {}: {}. Nothing was changed: mend the file, or leave them out",
            plan.result.problems.len(),
            first.line,
            first.message
        )));
    }
    if school.rows.len() + plan.put.len() > LESSONS {
        return Err(ApiFailure::state(format!(
            "there would be more than {LESSONS} lessons: delete old ones first"
        )));
    }
    for row in &plan.put {
        rows::put_lesson(&mut tx, row).await?;
    }
    for id in &plan.delete {
        rows::delete_lesson(&mut tx, id).await?;
    }
    for span in &plan.holidays {
        let days = SchoolDays {
            id: SchoolDaysId::new(),
            kind: DaysKind::Holiday,
            span: span.clone(),
        };
        rows::put_school_days(&mut tx, &days).await?;
    }
    audit::write(
        &mut tx,
        &actor,
        "timetable.import",
        "timetable/file",
        format!(
            "lessons: {} new or changed, {} deleted; holidays: {}",
            plan.put.len(),
            plan.delete.len(),
            plan.holidays.len()
        ),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(plan.result))
}
