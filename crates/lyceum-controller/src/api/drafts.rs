//! Drafts: their upload, their machine, their seal.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::drafts::engine::text_of;
use crate::drafts::work::{self, SealStep, SealTerms, Upload, Work};
use crate::drafts::{self as workflow, upload};
use crate::error::{ApiFailure, Json, JsonOrDefault, Path, Query};
use crate::orders::{self, By, Scope, Target, Want};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use lyceum_api::desktops::{Accepted, ConsoleTicket};
use lyceum_api::images::{Draft, DraftAccepted, DraftState, SealOrder};
use lyceum_model::{DraftId, JobId, OperationId, Phase};
use lyceum_store::{Tx, desktops, drafts, images, operations};
use serde::Deserialize;
use std::collections::HashMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest note of a release, characters.
const NOTE: usize = 500;

/// What an ISO is installed to when nobody says how large, GiB.
const ISO_DISK_GIB: u32 = 20;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get, delete))
        .routes(routes!(receive))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(seal))
        .routes(routes!(ticket))
}

/// A draft as people see it.
pub(super) async fn shown(app: &App, row: drafts::Draft) -> Result<Draft, ApiFailure> {
    let machine = desktops::of_draft(&app.store, &row.id).await?;
    let (phase, host) = machine.map_or((Phase::Stopped, None), |m| (m.phase, m.host));
    Ok(Draft {
        id: row.id,
        image: row.image,
        state: match row.state {
            drafts::State::Empty => DraftState::Empty,
            drafts::State::Importing => DraftState::Importing,
            drafts::State::Ready => DraftState::Ready,
            drafts::State::Sealing => DraftState::Sealing,
        },
        wordings: lyceum_api::wording::wordings([row.detail.as_str()]),
        detail: row.detail,
        percent: row.percent,
        phase,
        host,
        from_release: row.from_release,
        size: row.size,
        iso: row.iso,
        owner: row.owner,
        created: row.created,
    })
}

async fn read(app: &App, id: &DraftId) -> Result<drafts::Draft, ApiFailure> {
    drafts::get(&app.store, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("draft"))
}

/// The row inside a transaction, with its image's name.
async fn read_tx(tx: &mut Tx, id: &DraftId) -> Result<(drafts::Draft, String), ApiFailure> {
    let row = drafts::get_tx(tx, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("draft"))?;
    let name = images::get_tx(tx, &row.image)
        .await?
        .map_or_else(|| row.image.to_string(), |i| i.name);
    Ok((row, name))
}

/// Refuses unless the draft can be opened and sealed.
fn require_ready(row: &drafts::Draft) -> Result<(), ApiFailure> {
    let why = match (row.state, &row.work) {
        (drafts::State::Ready, None) => return Ok(()),
        (drafts::State::Ready, Some(_)) => "the draft is being deleted",
        (drafts::State::Empty, _) => "the draft has no disk yet: upload one first",
        (drafts::State::Importing, _) => {
            "the draft's disk is still being made: wait until it is ready"
        }
        (drafts::State::Sealing, _) => {
            "the draft is being sealed: wait until it is a release, or call that off"
        }
    };
    Err(ApiFailure::state(why))
}

async fn accepted(
    app: &App,
    id: &DraftId,
    operation: Option<OperationId>,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    let draft = shown(app, read(app, id).await?).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(DraftAccepted { draft, operation }),
    ))
}

/// One draft.
#[utoipa::path(get, path = "/drafts/{id}", params(("id" = DraftId, Path)), responses((status = 200, body = Draft)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
) -> Result<Json<Draft>, ApiFailure> {
    actor.require_teacher()?;
    shown(&app, read(&app, &id).await?).await.map(Json)
}

/// Delete it with its disk and its machine, whatever it is doing.
#[utoipa::path(delete, path = "/drafts/{id}", params(("id" = DraftId, Path)),
    responses((status = 202, body = Accepted)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
) -> Result<(StatusCode, Json<Accepted>), ApiFailure> {
    actor.require_teacher()?;
    let mut tx = app.store.begin_write().await?;
    let (row, name) = read_tx(&mut tx, &id).await?;
    let now_doing = row
        .work
        .as_deref()
        .map(Work::parse)
        .transpose()
        .map_err(ApiFailure::internal)?;
    let Some(discard) = work::discard(now_doing.as_ref()) else {
        // It goes by itself already.
        let operation = row
            .operation
            .ok_or_else(|| ApiFailure::state("the draft is being closed already: wait a moment"))?;
        return Ok((StatusCode::ACCEPTED, Json(Accepted { operation })));
    };
    if let Some(old) = &row.operation {
        operations::settle_all(&mut tx, old, "cancelled", "the draft was deleted").await?;
        operations::end(
            &mut tx,
            old,
            "cancelled",
            "the draft was deleted",
            app.now(),
        )
        .await?;
    }
    let target = format!("draft/{id}");
    let operation = workflow::begin_operation(
        &mut tx,
        "draft.delete",
        &target,
        (&row.image, &name),
        actor.login(),
        app.now(),
    )
    .await?;
    let new = drafts::Draft {
        detail: "being deleted".into(),
        percent: None,
        work: Some(text_of(&discard)?),
        operation: Some(operation.clone()),
        ..row.clone()
    };
    drafts::advance(&mut tx, &row, &new).await?;
    audit::write(&mut tx, &actor, "draft.delete", target, name).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { operation })))
}

/// What comes with an upload.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    /// Name of the file, for people.
    name: String,
    /// For an ISO: GiB of the empty disk to install to; 20 when it is not given and the name ends with `.iso`.
    iso_disk_gib: Option<u32>,
}

/// The disk as a file: qcow2, raw, vmdk, vhdx, vdi or iso. Answers when it has come in; it is then
/// checked and converted.
#[utoipa::path(put, path = "/drafts/{id}/upload", params(("id" = DraftId, Path), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 202, body = DraftAccepted)))]
async fn receive(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    actor.require_teacher()?;
    let name = lyceum_model::name::title("the file's name", &query.name, 255)?;
    let is_iso = name.to_lowercase().ends_with(".iso");
    let gib = query.iso_disk_gib.or(is_iso.then_some(ISO_DISK_GIB));
    if let Some(gib) = gib.filter(|gib| !(1..=super::images::DISK_GIB).contains(gib)) {
        return Err(ApiFailure::invalid(format!(
            "a disk has 1 to {} GiB, not {gib}",
            super::images::DISK_GIB
        )));
    }
    let bytes = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok())
        .ok_or_else(|| {
            ApiFailure::new(
                StatusCode::LENGTH_REQUIRED,
                "length_required",
                "an upload says how long it is: send Content-Length",
            )
        })?;
    if bytes == 0 {
        return Err(ApiFailure::invalid("the file is empty: choose another one"));
    }
    may_upload(&read(&app, &id).await?)?;
    let storage = app
        .agents
        .storage()
        .await
        .map_err(|e| ApiFailure::unavailable(e.to_string()))?;
    upload::check_room(&storage, bytes).await?;

    let coming = Upload {
        job: JobId::new(),
        name,
        bytes,
        iso_disk_bytes: gib.map(|gib| u64::from(gib) << 30),
        alive: app.now(),
    };
    let mut tx = app.store.begin_write().await?;
    let (row, image) = read_tx(&mut tx, &id).await?;
    may_upload(&row)?;
    let target = format!("draft/{id}");
    let operation = workflow::begin_operation(
        &mut tx,
        "draft.import",
        &target,
        (&row.image, &image),
        actor.login(),
        app.now(),
    )
    .await?;
    let new = drafts::Draft {
        state: drafts::State::Importing,
        detail: format!("uploading {}", coming.name),
        percent: Some(0.0),
        work: Some(text_of(&Work::Upload(coming.clone()))?),
        operation: Some(operation.clone()),
        ..row.clone()
    };
    drafts::advance(&mut tx, &row, &new).await?;
    audit::write(
        &mut tx,
        &actor,
        "draft.upload",
        target,
        format!("{image}: {} ({bytes} bytes)", coming.name),
    )
    .await?;
    tx.commit().await?;

    // A task of its own: it has to say how it ended, also when the sender has gone.
    let receiving = upload::receive(app.clone(), id.clone(), coming, body.into_data_stream());
    tokio::spawn(receiving)
        .await
        .map_err(ApiFailure::internal)??;
    accepted(&app, &id, Some(operation)).await
}

fn may_upload(row: &drafts::Draft) -> Result<(), ApiFailure> {
    match (row.state, &row.work) {
        (drafts::State::Empty, None) => Ok(()),
        (drafts::State::Empty | drafts::State::Importing, _) => Err(ApiFailure::state(
            "the draft's disk is being made already: call that off first",
        )),
        (drafts::State::Ready | drafts::State::Sealing, _) => Err(ApiFailure::state(
            "the draft has a disk already: delete the draft and open another one for the upload",
        )),
    }
}

/// Open it: start its machine.
#[utoipa::path(post, path = "/drafts/{id}/start", params(("id" = DraftId, Path)),
    responses((status = 202, body = DraftAccepted)))]
async fn start(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    // A draft is always booted from its disk.
    order(&app, &actor, &id, Want::Start { cold: false }).await
}

/// Shut its machine down.
#[utoipa::path(post, path = "/drafts/{id}/stop", params(("id" = DraftId, Path)),
    responses((status = 202, body = DraftAccepted)))]
async fn stop(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    order(&app, &actor, &id, Want::Stop).await
}

async fn order(
    app: &App,
    actor: &Actor,
    id: &DraftId,
    want: Want,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    actor.require_teacher()?;
    let settings = app.settings().await?;
    let now = app.now();
    let start = matches!(want, Want::Start { .. });
    let mut tx = app.store.begin_write().await?;
    let (row, name) = read_tx(&mut tx, id).await?;
    if start {
        require_ready(&row)?;
    }
    let all = desktops::all_tx(&mut tx).await?;
    let machine = all
        .iter()
        .find(|d| matches!(&d.owner, desktops::Owner::Draft { draft } if draft == id))
        .cloned();
    let mut machine = match machine {
        Some(machine) => machine,
        None if start => {
            orders::fresh::draft(id, row.size, &mut orders::fresh::Taken::of(&all), now)?
        }
        // It never ran.
        None => {
            drop(tx);
            return accepted(app, id, None).await;
        }
    };
    if machine.desired == lyceum_model::Desired::Absent {
        return Err(ApiFailure::state(
            "the draft is being closed: wait a moment",
        ));
    }
    if machine.host.is_none() {
        machine.size = row.size;
    }
    let target = format!("draft/{id}");
    let operation = orders::give(
        &mut tx,
        &settings,
        &By {
            login: actor.login().to_owned(),
        },
        Scope {
            target: target.clone(),
            target_name: name.clone(),
            course: None,
        },
        want,
        vec![Target {
            desktop: machine,
            name: name.clone(),
        }],
        &HashMap::new(),
        now,
    )
    .await?;
    tx.touch("draft", id);
    let action = if start { "draft.start" } else { "draft.stop" };
    audit::write(&mut tx, actor, action, target, name).await?;
    tx.commit().await?;
    accepted(app, id, Some(operation)).await
}

/// Seal it: it becomes the image's next release, and the draft is closed. Asking again while it is being
/// sealed gives the same operation.
#[utoipa::path(post, path = "/drafts/{id}/seal", params(("id" = DraftId, Path)), request_body = SealOrder,
    responses((status = 202, body = DraftAccepted)))]
async fn seal(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
    JsonOrDefault(order): JsonOrDefault<SealOrder>,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    actor.require_teacher()?;
    let note = order.note.trim().to_owned();
    if note.chars().count() > NOTE || note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(ApiFailure::invalid(format!(
            "the note is at most {NOTE} characters without control characters: shorten it"
        )));
    }
    if let Some(size) = order.size {
        size.check()?;
    }
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    let (row, name) = read_tx(&mut tx, &id).await?;
    let doing = row
        .work
        .as_deref()
        .map(Work::parse)
        .transpose()
        .map_err(ApiFailure::internal)?;
    if matches!(doing, Some(Work::Seal { .. })) {
        drop(tx);
        return accepted(&app, &id, row.operation).await;
    }
    require_ready(&row)?;
    let size = order.size.unwrap_or(row.size);
    let terms = SealTerms {
        size,
        note,
        by: actor.login().to_owned(),
        ready_timeout_ms: u64::from(settings.cold_timeout_s) * 1000,
    };
    let target = format!("draft/{id}");
    let operation = workflow::begin_operation(
        &mut tx,
        "draft.seal",
        &target,
        (&row.image, &name),
        actor.login(),
        app.now(),
    )
    .await?;
    let detail = format!(
        "{name}: {} vCPU, {} MiB; {}",
        size.vcpus, size.memory_mib, terms.note
    );
    let new = drafts::Draft {
        state: drafts::State::Sealing,
        detail: "being sealed".into(),
        percent: None,
        work: Some(text_of(&Work::seal(&terms, SealStep::StopMachine))?),
        operation: Some(operation.clone()),
        ..row.clone()
    };
    drafts::advance(&mut tx, &row, &new).await?;
    audit::write(&mut tx, &actor, "draft.seal", target, detail).await?;
    tx.commit().await?;
    accepted(&app, &id, Some(operation)).await
}

/// A ticket for the console of its machine.
#[utoipa::path(post, path = "/drafts/{id}/console-ticket", params(("id" = DraftId, Path)),
    responses((status = 200, body = ConsoleTicket)))]
async fn ticket(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DraftId>,
) -> Result<Json<ConsoleTicket>, ApiFailure> {
    actor.require_teacher()?;
    read(&app, &id).await?;
    let machine = desktops::of_draft(&app.store, &id)
        .await?
        .ok_or_else(|| ApiFailure::state("the draft is not open: start it first"))?;
    let (ticket, expires) = app
        .tickets
        .issue(machine.id, actor.login(), false, app.now())?;
    Ok(Json(ConsoleTicket { ticket, expires }))
}
