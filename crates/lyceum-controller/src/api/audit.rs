//! The audit log, to read.

use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Query};
use axum::extract::State;
use lyceum_api::Page;
use lyceum_api::accounts::AuditEntry;
use lyceum_store::audit;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const PAGE: i64 = 100;
const MOST: i64 = 1000;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A page of it.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// `next` of the page before.
    before: Option<String>,
    /// Lines, at most 1000; 100 when left out.
    limit: Option<i64>,
}

/// The audit log, newest first.
#[utoipa::path(get, path = "/audit", params(AuditQuery), responses((status = 200, body = Page<AuditEntry>)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiFailure> {
    actor.require_admin()?;
    let before = match query.before.as_deref() {
        None | Some("") => i64::MAX,
        Some(text) => text
            .parse()
            .map_err(|_| ApiFailure::malformed("before is not the next of a page"))?,
    };
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MOST).contains(&limit) {
        return Err(ApiFailure::invalid(format!(
            "limit is 1 to {MOST}, not {limit}"
        )));
    }
    let rows = audit::list(&app.store, before, limit).await?;
    let next = (rows.len() as i64 == limit)
        .then(|| rows.last().map(|r| r.id.to_string()))
        .flatten();
    Ok(Json(Page {
        items: rows
            .into_iter()
            .map(|r| AuditEntry {
                id: r.id,
                at: r.at,
                actor: r.actor,
                action: r.action,
                target: r.target,
                detail: r.detail,
                address: r.address,
            })
            .collect(),
        next,
    }))
}
