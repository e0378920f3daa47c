//! The router. The table of requests is at the top of [`lyceum_proto::storage`].

use crate::agent::Agent;
use crate::error::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{delete, get, post, put};
use lyceum_model::{DeltaId, DiskRef, DraftId, JobId, OverlayId, PointId, ReleaseId, StoredRef};
use lyceum_proto::storage::{
    DiskPoint, DraftRequest, ImportRequest, ImportStatus, Inventory, OverlayFacts, OverlayRequest,
    PublishRequest, Published, Room, StorageFacts,
};
use lyceum_wire::extract::{Json, Path, Query};
use serde::Deserialize;

/// No request of this agent is longer, but for uploads, which are not JSON.
const JSON_LIMIT: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    name: String,
    bytes: u64,
}

impl Agent {
    /// The requests, for any server.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/storage", get(facts))
            .route("/v1/room", get(room))
            .route("/v1/inventory", get(inventory))
            .route(
                "/v1/overlays/{id}",
                get(get_overlay).put(put_overlay).delete(delete_overlay),
            )
            .route("/v1/overlays/{id}/reset", post(reset_overlay))
            .route("/v1/overlays/{id}/export", get(export_overlay))
            .route("/v1/overlays/{id}/points", get(get_points))
            .route(
                "/v1/overlays/{id}/points/{point}",
                put(put_point).delete(delete_point),
            )
            .route(
                "/v1/overlays/{id}/points/{point}/restore",
                post(restore_point),
            )
            .route("/v1/deltas/{id}", delete(delete_delta))
            .route("/v1/uploads/{id}", put(put_upload).delete(delete_upload))
            .route(
                "/v1/imports/{id}",
                put(put_import).get(get_import).delete(delete_import),
            )
            .route("/v1/drafts/{id}", put(put_draft).delete(delete_draft))
            .route("/v1/staging/{id}", put(put_staging).delete(delete_staging))
            .route("/v1/staging/{id}/publish", post(publish))
            .route("/v1/releases/{id}", delete(delete_release))
            .route("/v1/releases/{id}/verify", post(verify))
            .route("/v1/releases/{id}/prepare", post(prepare))
            .layer(DefaultBodyLimit::max(JSON_LIMIT))
            .with_state(self.clone())
    }
}

async fn facts(State(agent): State<Agent>) -> Result<Json<StorageFacts>> {
    agent.look(|inner| inner.facts()).await.map(Json)
}

async fn room(State(agent): State<Agent>) -> Result<Json<Room>> {
    agent.look(|inner| inner.room()).await.map(Json)
}

async fn inventory(State(agent): State<Agent>) -> Result<Json<Inventory>> {
    agent.look(|inner| inner.inventory()).await.map(Json)
}

async fn put_overlay(
    State(agent): State<Agent>,
    Path(id): Path<OverlayId>,
    Json(request): Json<OverlayRequest>,
) -> Result<Json<DiskRef>> {
    agent.make_overlay(id, request).await.map(Json)
}

async fn get_overlay(
    State(agent): State<Agent>,
    Path(id): Path<OverlayId>,
) -> Result<Json<OverlayFacts>> {
    agent.overlay(id).await.map(Json)
}

async fn reset_overlay(State(agent): State<Agent>, Path(id): Path<OverlayId>) -> Result<()> {
    agent.reset_overlay(id).await
}

async fn export_overlay(
    State(agent): State<Agent>,
    Path(id): Path<OverlayId>,
) -> Result<impl axum::response::IntoResponse> {
    use axum::http::header;
    let (file, length) = agent.export_overlay(id).await?;
    let stream =
        tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 1 << 18);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(stream)))
}

async fn get_points(
    State(agent): State<Agent>,
    Path(id): Path<OverlayId>,
) -> Result<Json<Vec<DiskPoint>>> {
    agent.points(id).await.map(Json)
}

async fn put_point(
    State(agent): State<Agent>,
    Path((id, point)): Path<(OverlayId, PointId)>,
) -> Result<Json<DiskPoint>> {
    agent.take_point(id, point).await.map(Json)
}

async fn delete_point(
    State(agent): State<Agent>,
    Path((id, point)): Path<(OverlayId, PointId)>,
) -> Result<()> {
    agent.delete_point(id, point).await
}

async fn restore_point(
    State(agent): State<Agent>,
    Path((id, point)): Path<(OverlayId, PointId)>,
) -> Result<()> {
    agent.restore_point(id, point).await
}

async fn prepare(State(agent): State<Agent>, Path(id): Path<ReleaseId>) -> Result<()> {
    agent.prepare(id).await
}

async fn delete_overlay(State(agent): State<Agent>, Path(id): Path<OverlayId>) -> Result<()> {
    agent.delete_overlay(id).await
}

async fn delete_delta(State(agent): State<Agent>, Path(id): Path<DeltaId>) -> Result<()> {
    agent.delete_delta(id).await
}

async fn put_upload(
    State(agent): State<Agent>,
    Path(job): Path<JobId>,
    Query(query): Query<UploadQuery>,
    body: Body,
) -> Result<()> {
    agent.upload(job, query.name, query.bytes, body).await
}

async fn delete_upload(State(agent): State<Agent>, Path(job): Path<JobId>) -> Result<()> {
    agent.delete_upload(job).await
}

async fn put_import(
    State(agent): State<Agent>,
    Path(job): Path<JobId>,
    Json(request): Json<ImportRequest>,
) -> Result<Json<ImportStatus>> {
    agent.import(job, request).await.map(Json)
}

async fn get_import(
    State(agent): State<Agent>,
    Path(job): Path<JobId>,
) -> Result<Json<ImportStatus>> {
    agent.import_status(&job).map(Json)
}

async fn delete_import(State(agent): State<Agent>, Path(job): Path<JobId>) -> Result<()> {
    agent.delete_import(job).await
}

async fn put_draft(
    State(agent): State<Agent>,
    Path(draft): Path<DraftId>,
    Json(request): Json<DraftRequest>,
) -> Result<Json<DiskRef>> {
    agent.make_draft(draft, request).await.map(Json)
}

async fn delete_draft(State(agent): State<Agent>, Path(draft): Path<DraftId>) -> Result<()> {
    agent.delete_draft(draft).await
}

async fn put_staging(
    State(agent): State<Agent>,
    Path(draft): Path<DraftId>,
) -> Result<Json<StoredRef>> {
    agent.make_staging(draft).await.map(Json)
}

async fn delete_staging(State(agent): State<Agent>, Path(draft): Path<DraftId>) -> Result<()> {
    agent.delete_staging(draft).await
}

async fn publish(
    State(agent): State<Agent>,
    Path(draft): Path<DraftId>,
    Json(request): Json<PublishRequest>,
) -> Result<Json<Published>> {
    agent.publish(draft, request).await.map(Json)
}

async fn delete_release(State(agent): State<Agent>, Path(id): Path<ReleaseId>) -> Result<()> {
    agent.delete_release(id).await
}

async fn verify(State(agent): State<Agent>, Path(id): Path<ReleaseId>) -> Result<Json<Published>> {
    agent.verify(id).await.map(Json)
}
