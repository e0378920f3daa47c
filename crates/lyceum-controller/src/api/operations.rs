//! Work under way, and work that ended.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path, Query};
use crate::orders;
use axum::extract::State;
use lyceum_api::operations::{Operation, OperationFailure, OperationState};
use lyceum_api::wording::wordings;
use lyceum_api::{ApiError, Page};
use lyceum_model::OperationId;
use lyceum_store::operations as rows;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(cancel))
}

/// Rows of a page.
const PAGE: i64 = 50;

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `next` of the page before.
    before: Option<i64>,
}

async fn shown(app: &App, o: rows::Operation) -> Result<Operation, ApiFailure> {
    let items = rows::items(&app.store, &o.id).await?;
    let done = items.iter().filter(|i| i.state == "done").count() as u32;
    let mut failures: Vec<OperationFailure> = items
        .iter()
        .filter(|i| i.state == "failed")
        .map(|i| OperationFailure {
            target: i.target.clone(),
            name: i.name.clone(),
            message: i.message.clone(),
        })
        .collect();
    let state = match o.state.as_str() {
        "running" => OperationState::Running,
        "done" => OperationState::Done,
        "cancelled" => OperationState::Cancelled,
        _ => OperationState::Failed,
    };
    // A workflow without items fails with its last step as the reason.
    if state == OperationState::Failed && failures.is_empty() {
        failures.push(OperationFailure {
            target: o.target.clone(),
            name: o.target_name.clone(),
            message: o.step.clone(),
        });
    }
    Ok(Operation {
        id: o.id,
        kind: o.kind,
        target: o.target,
        target_name: o.target_name,
        requested_by: o.requested_by,
        state,
        total: items.len().max(1) as u32,
        done: if items.is_empty() && state == OperationState::Done {
            1
        } else {
            done
        },
        wordings: wordings(
            failures
                .iter()
                .map(|f| f.message.as_str())
                .chain([o.step.as_str()]),
        ),
        step: o.step,
        failures,
        created: o.created,
        ended: o.ended,
    })
}

/// Who may see an operation: who asked for it, the staff of its course, admins; drafts' are the teachers'.
async fn visible(app: &App, actor: &Actor, o: &rows::Operation) -> bool {
    if actor.require_admin().is_ok() || actor.login() == o.requested_by {
        return true;
    }
    match &o.course {
        Some(course) => actor.require_course_staff(app, course).await.is_ok(),
        None => o.kind.starts_with("draft.") && actor.require_teacher().is_ok(),
    }
}

async fn mine(app: &App, actor: &Actor, id: &OperationId) -> Result<rows::Operation, ApiFailure> {
    match rows::get(&app.store, id).await? {
        Some(o) if visible(app, actor, &o).await => Ok(o),
        _ => Err(ApiFailure::not_found("operation")),
    }
}

/// The newest first.
#[utoipa::path(get, path = "/operations", tag = "operations", params(ListQuery),
    responses((status = 200, body = Page<Operation>), (status = "default", body = ApiError)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Operation>>, ApiFailure> {
    actor.require_teacher()?;
    let found = rows::list(&app.store, query.before.unwrap_or(i64::MAX), PAGE).await?;
    let next = (found.len() as i64 == PAGE)
        .then(|| found.last().map(|o| o.created.to_string()))
        .flatten();
    let mut items = Vec::new();
    for o in found {
        if visible(&app, &actor, &o).await {
            items.push(shown(&app, o).await?);
        }
    }
    Ok(Json(Page { items, next }))
}

/// One.
#[utoipa::path(get, path = "/operations/{id}", tag = "operations", params(("id" = OperationId, Path)),
    responses((status = 200, body = Operation), (status = "default", body = ApiError)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<OperationId>,
) -> Result<Json<Operation>, ApiFailure> {
    let o = mine(&app, &actor, &id).await?;
    Ok(Json(shown(&app, o).await?))
}

/// Calls it off. What was reached stays. Calling off what has ended changes nothing.
#[utoipa::path(post, path = "/operations/{id}/cancel", tag = "operations", params(("id" = OperationId, Path)),
    responses((status = 200, body = Operation), (status = "default", body = ApiError)))]
async fn cancel(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<OperationId>,
) -> Result<Json<Operation>, ApiFailure> {
    let o = mine(&app, &actor, &id).await?;
    if o.state == "running" {
        let mut tx = app.store.begin_write().await?;
        orders::cancel(&mut tx, &id, app.now()).await?;
        audit::write(
            &mut tx,
            &actor,
            "operation.cancel",
            &format!("operation/{id}"),
            &o.kind,
        )
        .await?;
        tx.commit().await?;
    }
    let o = mine(&app, &actor, &id).await?;
    Ok(Json(shown(&app, o).await?))
}
