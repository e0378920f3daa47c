//! Golden images, and opening a draft of one.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::drafts::engine::text_of;
use crate::drafts::work::Work;
use crate::drafts::{self as workflow, usage};
use crate::error::{ApiFailure, Json, Path};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::images::{
    Draft, DraftAccepted, DraftCreate, DraftSource, Image, ImageCreate, ImagePatch, Release,
    ReleaseState,
};
use lyceum_model::{DraftId, ImageId, MachineSize, ReleaseId};
use lyceum_proto::storage::DraftRequest;
use lyceum_store::releases::{self, User};
use lyceum_store::{drafts, images};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest description, characters.
const DESCRIPTION: usize = 2000;
/// What a draft is opened with when nobody says a size and there is no release to take it from.
const DEFAULT_SIZE: MachineSize = MachineSize {
    vcpus: 1,
    memory_mib: 768,
};
/// Largest empty disk, GiB.
pub(super) const DISK_GIB: u32 = 2048;

fn disk_bytes(gib: u32) -> Result<u64, ApiFailure> {
    if !(1..=DISK_GIB).contains(&gib) {
        return Err(ApiFailure::invalid(format!(
            "a disk has 1 to {DISK_GIB} GiB, not {gib}"
        )));
    }
    Ok(u64::from(gib) << 30)
}

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, patch, delete))
        .routes(routes!(open_draft))
}

/// A release as people see it.
pub(super) fn shown_release(row: releases::Release, users: &[(ReleaseId, User)]) -> Release {
    let cold_reason = match &row.manifest.memory {
        Some(memory) => row.manifest.why_cold(memory.size, &memory.platform),
        None => row
            .manifest
            .cold_reason
            .clone()
            .or_else(|| Some("it has no sealed memory".into())),
    };
    Release {
        used_by: usage::words(
            users
                .iter()
                .filter(|(id, _)| *id == row.id)
                .map(|(_, user)| user),
        ),
        id: row.id,
        image: row.image,
        version: row.version,
        state: match row.state {
            releases::State::Offered => ReleaseState::Offered,
            releases::State::Retired => ReleaseState::Retired,
            releases::State::Damaged => ReleaseState::Damaged,
        },
        size: row.manifest.memory.as_ref().map(|m| m.size),
        cold_reason,
        damage: row.damage,
        virtual_bytes: row.manifest.virtual_bytes,
        bytes_on_disk: row.bytes_on_disk,
        note: row.note,
        sealed_by: row.sealed_by,
        sealed_at: row.sealed_at,
    }
}

async fn shown(
    app: &App,
    image: images::Image,
    releases: Vec<releases::Release>,
    users: &[(ReleaseId, User)],
    draft: Option<drafts::Draft>,
) -> Result<Image, ApiFailure> {
    let draft: Option<Draft> = match draft {
        Some(draft) => Some(super::drafts::shown(app, draft).await?),
        None => None,
    };
    Ok(Image {
        id: image.id,
        name: image.name,
        description: image.description,
        releases: releases
            .into_iter()
            .map(|r| shown_release(r, users))
            .collect(),
        draft,
        created: image.created,
    })
}

async fn one(app: &App, id: &ImageId) -> Result<Image, ApiFailure> {
    let image = images::get(&app.store, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("image"))?;
    let releases = releases::of_image(&app.store, id).await?;
    let draft = drafts::of_image(&app.store, id).await?;
    shown(
        app,
        image,
        releases,
        &releases::users(&app.store).await?,
        draft,
    )
    .await
}

fn description(text: &str) -> Result<String, ApiFailure> {
    let text = text.trim();
    if text.chars().count() > DESCRIPTION {
        return Err(ApiFailure::invalid(format!(
            "the description is longer than {DESCRIPTION} characters: shorten it"
        )));
    }
    if let Some(c) = text
        .chars()
        .find(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    {
        return Err(ApiFailure::invalid(format!(
            "the description holds the character {c:?}: leave it out"
        )));
    }
    Ok(text.to_owned())
}

/// All images with their releases and drafts, by name.
#[utoipa::path(get, path = "/images", responses((status = 200, body = Vec<Image>)))]
async fn list(State(app): State<App>, actor: Actor) -> Result<Json<Vec<Image>>, ApiFailure> {
    actor.require_teacher()?;
    let users = releases::users(&app.store).await?;
    let mut all_releases = releases::all(&app.store).await?;
    let mut all_drafts = drafts::all(&app.store).await?;
    let mut out = Vec::new();
    for image in images::all(&app.store).await? {
        let (mine, rest) = all_releases.into_iter().partition(|r| r.image == image.id);
        all_releases = rest;
        let at = all_drafts.iter().position(|d| d.image == image.id);
        let draft = at.map(|at| all_drafts.swap_remove(at));
        out.push(shown(&app, image, mine, &users, draft).await?);
    }
    Ok(Json(out))
}

/// Make an image. It has nothing in it yet: open a draft next.
#[utoipa::path(post, path = "/images", request_body = ImageCreate, responses((status = 201, body = Image)))]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Json(new): Json<ImageCreate>,
) -> Result<(StatusCode, Json<Image>), ApiFailure> {
    actor.require_teacher()?;
    let row = images::Image {
        id: ImageId::new(),
        name: lyceum_model::name::title("the image's name", &new.name, 80)?,
        description: description(&new.description)?,
        created: app.now(),
    };
    let mut tx = app.store.begin_write().await?;
    images::insert(&mut tx, &row).await?;
    audit::write(
        &mut tx,
        &actor,
        "image.create",
        format!("image/{}", row.id),
        &row.name,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(one(&app, &row.id).await?)))
}

/// One image.
#[utoipa::path(get, path = "/images/{id}", params(("id" = ImageId, Path)), responses((status = 200, body = Image)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ImageId>,
) -> Result<Json<Image>, ApiFailure> {
    actor.require_teacher()?;
    one(&app, &id).await.map(Json)
}

/// Another name or description.
#[utoipa::path(patch, path = "/images/{id}", params(("id" = ImageId, Path)), request_body = ImagePatch,
    responses((status = 200, body = Image)))]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ImageId>,
    Json(patch): Json<ImagePatch>,
) -> Result<Json<Image>, ApiFailure> {
    actor.require_teacher()?;
    let name = patch
        .name
        .map(|n| lyceum_model::name::title("the image's name", &n, 80))
        .transpose()?;
    let text = patch.description.map(|d| description(&d)).transpose()?;
    let mut tx = app.store.begin_write().await?;
    let row = images::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("image"))?;
    let (name, text) = (
        name.unwrap_or(row.name.clone()),
        text.unwrap_or(row.description.clone()),
    );
    if name != row.name || text != row.description {
        images::update(&mut tx, &id, &name, &text).await?;
        audit::write(
            &mut tx,
            &actor,
            "image.change",
            format!("image/{id}"),
            format!("{} → {name}", row.name),
        )
        .await?;
        tx.commit().await?;
    } else {
        drop(tx);
    }
    one(&app, &id).await.map(Json)
}

/// Delete an image with its releases. Refused while anything uses it; the message names who.
#[utoipa::path(delete, path = "/images/{id}", params(("id" = ImageId, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ImageId>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let row = images::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("image"))?;
    let mine = releases::of_image_tx(&mut tx, &id).await?;
    let mut used: Vec<String> = images::courses_tx(&mut tx, &id)
        .await?
        .into_iter()
        .map(|course| format!("course {course:?}"))
        .collect();
    if let Some(draft) = drafts::of_image_tx(&mut tx, &id).await? {
        used.push(format!("its open draft, opened by {}", draft.owner));
    }
    // Courses were named already, with or without a release.
    let users = releases::users_tx(&mut tx).await?;
    let others = users.iter().filter(|(release, user)| {
        mine.iter().any(|r| r.id == *release)
            && matches!(
                user,
                User::Desktop { .. } | User::Points { .. } | User::Draft { .. }
            )
    });
    used.extend(usage::words(others.map(|(_, user)| user)));
    if !used.is_empty() {
        return Err(ApiFailure::in_use(format!(
            "image {:?} can't be deleted, it is used by {}: give those another image or delete them first",
            row.name,
            used.join("; ")
        )));
    }
    for release in &mine {
        releases::delete(&mut tx, &release.id).await?;
    }
    images::delete(&mut tx, &id).await?;
    let detail = format!("{}, {} releases", row.name, mine.len());
    audit::write(
        &mut tx,
        &actor,
        "image.delete",
        format!("image/{id}"),
        detail,
    )
    .await?;
    tx.commit().await?;
    for release in &mine {
        super::releases::remove_bytes(&app, &release.id).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Open a draft: from a release, for an upload, or with an empty disk. An image has at most one.
#[utoipa::path(post, path = "/images/{id}/draft", params(("id" = ImageId, Path)), request_body = DraftCreate,
    responses((status = 202, body = DraftAccepted)))]
async fn open_draft(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<ImageId>,
    Json(order): Json<DraftCreate>,
) -> Result<(StatusCode, Json<DraftAccepted>), ApiFailure> {
    actor.require_teacher()?;
    if let Some(size) = order.size {
        size.check()?;
    }
    let mut tx = app.store.begin_write().await?;
    let image = images::get_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("image"))?;
    if let Some(open) = drafts::of_image_tx(&mut tx, &id).await? {
        return Err(ApiFailure::state(format!(
            "image {:?} has an open draft, opened by {}: seal or delete that one first",
            image.name, open.owner
        )));
    }
    let mut row = drafts::Draft {
        id: DraftId::new(),
        image: id,
        state: drafts::State::Importing,
        detail: String::new(),
        percent: None,
        from_release: None,
        size: order.size.unwrap_or(DEFAULT_SIZE),
        iso: false,
        owner: actor.login().to_owned(),
        work: None,
        operation: None,
        created: app.now(),
    };
    let (work, from) = match order.source {
        DraftSource::Release { release, disk_gib } => {
            let virtual_bytes = disk_gib.map(disk_bytes).transpose()?;
            let source = releases::get_tx(&mut tx, &release)
                .await?
                .ok_or_else(|| ApiFailure::not_found("release"))?;
            if source.state == releases::State::Damaged {
                return Err(ApiFailure::state(format!(
                    "release {} is damaged ({}): copy another one",
                    source.version,
                    source.damage.unwrap_or_default()
                )));
            }
            if let (None, Some(memory)) = (order.size, &source.manifest.memory) {
                row.size = memory.size;
            }
            row.from_release = Some(release.clone());
            let larger = disk_gib.map_or_else(String::new, |gib| format!(", {gib} GiB"));
            let from = format!("from release {} ({release}){larger}", source.version);
            let request = DraftRequest::Release {
                release,
                virtual_bytes,
            };
            (Some(Work::Make { request }), from)
        }
        DraftSource::Empty { disk_gib } => {
            let request = DraftRequest::Empty {
                virtual_bytes: disk_bytes(disk_gib)?,
            };
            (
                Some(Work::Make { request }),
                format!("an empty disk of {disk_gib} GiB"),
            )
        }
        DraftSource::Upload {} => (None, "for an upload".to_owned()),
    };
    match &work {
        Some(work) => {
            let target = format!("draft/{}", row.id);
            let operation = workflow::begin_operation(
                &mut tx,
                "draft.import",
                &target,
                (&row.image, &image.name),
                actor.login(),
                row.created,
            )
            .await?;
            row.operation = Some(operation);
            row.work = Some(text_of(work)?);
        }
        None => row.state = drafts::State::Empty,
    }
    drafts::insert(&mut tx, &row).await?;
    audit::write(
        &mut tx,
        &actor,
        "draft.open",
        format!("draft/{}", row.id),
        format!("{}: {from}", image.name),
    )
    .await?;
    tx.commit().await?;
    let operation = row.operation.clone();
    let draft = super::drafts::shown(&app, row).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(DraftAccepted { draft, operation }),
    ))
}
