//! Courses: what their desktops start from, how big they are, what is kept.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path};
use crate::orders::{self, By, Scope, Target, Want};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lyceum_api::courses::{self as api, CourseCreate, CoursePatch, CourseRole};
use lyceum_api::desktops::Accepted;
use lyceum_model::{
    CourseId, ImageId, MachineSize, Phase, Platform, ReleaseId, ReleaseManifest, UserId, name,
};
use lyceum_proto::host::HostFacts;
use lyceum_store::courses::{self, Course, CourseLine, MemberRole};
use lyceum_store::desktops::{self, Desktop, Owner};
use lyceum_store::releases::{self, State as ReleaseState};
use lyceum_store::{Tx, images};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Size of a desktop when neither the course nor a sealed release says one.
const UNSEALED: MachineSize = MachineSize {
    vcpus: 1,
    memory_mib: 1024,
};
/// Longest title, characters.
const TITLE: usize = 120;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, patch, delete))
}

/// A role in a course for the page.
pub fn shown_role(role: MemberRole) -> CourseRole {
    match role {
        MemberRole::Student => CourseRole::Student,
        MemberRole::Teacher => CourseRole::Teacher,
    }
}

/// Courses as somebody sees them.
async fn lines(
    app: &App,
    actor: &Actor,
    only: Option<&CourseId>,
) -> Result<Vec<api::Course>, ApiFailure> {
    let (lines, rosters) = (app.reads.courses().await?, app.reads.rosters().await?);
    let platforms = platforms(app).await?;
    let mut out = Vec::new();
    for line in lines.iter() {
        let id = &line.course.id;
        let role = actor
            .user_id()
            .and_then(|user| rosters.get(id)?.get(user))
            .copied();
        if only.is_none_or(|only| only == id) && (role.is_some() || actor.is_admin()) {
            out.push(shown(line, role, &platforms)?);
        }
    }
    Ok(out)
}

/// What the hosts that joined said they are.
async fn platforms(app: &App) -> Result<Vec<Platform>, ApiFailure> {
    let agents = app.memory.agents(&app.store).await?;
    Ok(agents
        .iter()
        .filter(|a| a.kind == "host")
        .filter_map(|a| a.facts.as_deref())
        .filter_map(|facts| serde_json::from_str::<HostFacts>(facts).ok())
        .map(|facts| facts.platform)
        .collect())
}

/// Why desktops of this size boot cold; `None`: some host can fork them, or no host is known yet
/// and nothing in the release speaks against it.
fn cold_reason(
    manifest: &ReleaseManifest,
    size: MachineSize,
    platforms: &[Platform],
) -> Option<String> {
    let own = manifest.memory.as_ref().map(|m| m.platform.clone());
    let mut reason = None;
    for platform in platforms
        .iter()
        .chain(own.iter().filter(|_| platforms.is_empty()))
    {
        reason = Some(manifest.why_cold(size, platform)?);
    }
    if reason.is_none() && own.is_none() {
        // No memory at all: the platform asked for does not matter.
        reason = manifest
            .cold_reason
            .clone()
            .or_else(|| Some("the release has no sealed memory".into()));
    }
    reason
}

fn shown(
    line: &CourseLine,
    role: Option<MemberRole>,
    platforms: &[Platform],
) -> Result<api::Course, ApiFailure> {
    let course = line.course.clone();
    let manifest: Option<ReleaseManifest> = line
        .release
        .as_ref()
        .map(|r| serde_json::from_str(&r.manifest))
        .transpose()
        .map_err(|e| ApiFailure::internal(format!("a release's manifest can't be read: {e}")))?;
    let sealed = manifest
        .as_ref()
        .and_then(|m| m.memory.as_ref())
        .map(|m| m.size);
    let size = course.size.or(sealed).unwrap_or(UNSEALED);
    let cold_reason = manifest.and_then(|m| cold_reason(&m, size, platforms));
    Ok(api::Course {
        wordings: lyceum_api::wording::wordings(cold_reason.as_deref()),
        id: course.id,
        name: course.name,
        image: course.image,
        image_name: line.image_name.clone(),
        release_version: line.release.as_ref().map(|r| r.version.max(0) as u32),
        follow_newest: course.release.is_none(),
        release: line.release.as_ref().map(|r| r.id.clone()),
        size,
        persistence: course.persistence,
        outside: course.outside,
        spice: course.spice,
        my_role: role.map(shown_role),
        students: line.students.max(0) as u32,
        running: line.running.max(0) as u32,
        cold_reason,
        created: course.created,
    })
}

async fn one(app: &App, actor: &Actor, id: &CourseId) -> Result<api::Course, ApiFailure> {
    lines(app, actor, Some(id))
        .await?
        .pop()
        .ok_or_else(|| ApiFailure::not_found("course"))
}

/// One's own courses; admins see all.
#[utoipa::path(get, path = "/courses", responses((status = 200, body = Vec<api::Course>)))]
async fn list(State(app): State<App>, actor: Actor) -> Result<Json<Vec<api::Course>>, ApiFailure> {
    lines(&app, &actor, None).await.map(Json)
}

/// A course of one's own; admins see any.
#[utoipa::path(get, path = "/courses/{id}", params(("id" = CourseId, Path)), responses((status = 200, body = api::Course)))]
async fn get(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Json<api::Course>, ApiFailure> {
    one(&app, &actor, &id).await.map(Json)
}

/// Make a course. Who makes it becomes its teacher.
#[utoipa::path(post, path = "/courses", request_body = CourseCreate, responses((status = 201, body = api::Course)))]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<CourseCreate>,
) -> Result<(StatusCode, Json<api::Course>), ApiFailure> {
    actor.require_teacher()?;
    let course = Course {
        id: CourseId::new(),
        name: name::title("the course's title", &body.name, TITLE)?,
        image: body.image,
        release: body.release,
        size: body.size.map(MachineSize::check).transpose()?,
        persistence: body.persistence,
        outside: body.outside,
        spice: body.spice,
        deleting: false,
        created: app.now(),
    };
    let mut tx = app.store.begin_write().await?;
    if images::get_tx(&mut tx, &course.image).await?.is_none() {
        return Err(ApiFailure::invalid(
            "there is no such image: see the list of images",
        ));
    }
    if let Some(release) = &course.release {
        pinnable(&mut tx, &course.image, release, None).await?;
    }
    courses::put(&mut tx, &course).await?;
    if let Some(maker) = actor.user_id() {
        courses::put_member(&mut tx, &course.id, maker, MemberRole::Teacher).await?;
    }
    audit::write(
        &mut tx,
        &actor,
        "course.create",
        format!("course/{}", course.id),
        &course.name,
    )
    .await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        Json(one(&app, &actor, &course.id).await?),
    ))
}

/// Whether a course of this image may pin this release. `pinned`: the one it has.
async fn pinnable(
    tx: &mut Tx,
    image: &ImageId,
    id: &ReleaseId,
    pinned: Option<&ReleaseId>,
) -> Result<(), ApiFailure> {
    let release = releases::get_tx(tx, id)
        .await?
        .filter(|r| r.image == *image)
        .ok_or_else(|| ApiFailure::invalid("the course's image has no such release"))?;
    match release.state {
        ReleaseState::Offered => Ok(()),
        ReleaseState::Retired if pinned == Some(id) => Ok(()),
        ReleaseState::Retired => Err(ApiFailure::state(format!(
            "version {} is retired: offer it again first",
            release.version
        ))),
        ReleaseState::Damaged => Err(ApiFailure::state(format!(
            "version {} is damaged, nothing can start from it: choose another",
            release.version
        ))),
    }
}

/// Change a course. Desktops that run keep what they started with.
#[utoipa::path(patch, path = "/courses/{id}", params(("id" = CourseId, Path)), request_body = CoursePatch,
    responses((status = 200, body = api::Course)))]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<CoursePatch>,
) -> Result<Json<api::Course>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let mut tx = app.store.begin_write().await?;
    let mut course = courses::get_tx(&mut tx, &id)
        .await?
        .filter(|c| !c.deleting)
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let mut detail = Vec::new();
    if let Some(text) = &body.name {
        course.name = name::title("the course's title", text, TITLE)?;
        detail.push(format!("name {}", course.name));
    }
    match (&body.release, body.follow_newest) {
        (Some(_), Some(true)) => {
            return Err(ApiFailure::invalid(
                "a course either pins a release or follows the newest: give only one of release and follow_newest",
            ));
        }
        (Some(release), _) => {
            pinnable(&mut tx, &course.image, release, course.release.as_ref()).await?;
            detail.push(format!("release {release}"));
            course.release = Some(release.clone());
        }
        (None, Some(true)) => {
            detail.push("follows the newest release".into());
            course.release = None;
        }
        (None, Some(false)) if course.release.is_none() => {
            let newest = releases::newest_offered_tx(&mut tx, &course.image)
                .await?
                .ok_or_else(|| {
                    ApiFailure::state("the image has no release yet that could be pinned")
                })?;
            detail.push(format!("release {}", newest.id));
            course.release = Some(newest.id);
        }
        (None, _) => {}
    }
    if let Some(size) = body.size {
        course.size = Some(size.check()?);
        detail.push(format!("size {} vCPU, {} MiB", size.vcpus, size.memory_mib));
    }
    if let Some(persistence) = body.persistence {
        course.persistence = persistence;
        detail.push(format!("persistence {persistence:?}"));
    }
    if let Some(outside) = body.outside {
        course.outside = outside;
        detail.push(format!("outside {outside}"));
    }
    if let Some(spice) = body.spice {
        course.spice = spice;
        detail.push(format!("spice {spice}"));
    }
    if !detail.is_empty() {
        courses::put(&mut tx, &course).await?;
        audit::write(
            &mut tx,
            &actor,
            "course.change",
            format!("course/{id}"),
            detail.join("; "),
        )
        .await?;
        tx.commit().await?;
    }
    one(&app, &actor, &id).await.map(Json)
}

/// Delete a course and the desktops in it. Refused while any of them runs. `204`: it is gone;
/// `202`: nobody sees it any more, and the operation tells when its last desktop is gone.
#[utoipa::path(delete, path = "/courses/{id}", params(("id" = CourseId, Path)),
    responses((status = 204), (status = 202, body = Accepted)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Response, ApiFailure> {
    actor.require_admin()?;
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    let mut course = courses::get_tx(&mut tx, &id)
        .await?
        .filter(|c| !c.deleting)
        .ok_or_else(|| ApiFailure::not_found("course"))?;
    let names = courses::members_tx(&mut tx, &id).await?;
    let own: Vec<Desktop> = of_course(&mut tx, &id).await?;
    let busy = own
        .iter()
        .filter(|d| {
            matches!(
                d.phase,
                Phase::Starting | Phase::Running | Phase::Suspending | Phase::Stopping
            )
        })
        .count();
    if busy > 0 {
        return Err(ApiFailure::in_use(format!(
            "{busy} desktops of the course {} still run: stop the class first",
            course.name
        )));
    }
    course.deleting = true;
    courses::put(&mut tx, &course).await?;
    let count = own.len();
    let targets = own
        .into_iter()
        .map(|desktop| Target {
            name: names
                .iter()
                .find(|m| matches!(&desktop.owner, Owner::Course { user, .. } if *user == m.user))
                .map(|m| m.name.clone())
                .unwrap_or_default(),
            desktop,
        })
        .collect::<Vec<_>>();
    let mut operation = None;
    if count > 0 {
        let by = By {
            login: actor.login().to_owned(),
        };
        let scope = Scope {
            target: format!("course/{id}"),
            target_name: course.name.clone(),
            course: None,
        };
        let facts = Default::default();
        let id = orders::give(
            &mut tx,
            &settings,
            &by,
            scope,
            Want::Delete,
            targets,
            &facts,
            app.now(),
        )
        .await?;
        operation = Some(id);
    } else {
        courses::reap(&mut tx).await?;
    }
    let detail = format!("{}, desktops: {count}", course.name);
    audit::write(
        &mut tx,
        &actor,
        "course.delete",
        format!("course/{id}"),
        detail,
    )
    .await?;
    tx.commit().await?;
    Ok(match operation {
        Some(operation) => (StatusCode::ACCEPTED, Json(Accepted { operation })).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn of_course(tx: &mut Tx, course: &CourseId) -> Result<Vec<Desktop>, ApiFailure> {
    Ok(desktops::all_tx(tx)
        .await?
        .into_iter()
        .filter(|d| matches!(&d.owner, Owner::Course { course: c, .. } if c == course))
        .collect())
}

/// Takes people off a roster, and orders their desktops away. They have lost access with this
/// transaction, however long the clearing up takes.
pub async fn take_off(
    tx: &mut Tx,
    app: &App,
    settings: &lyceum_api::Settings,
    actor: &Actor,
    course: &CourseId,
    people: &[(UserId, String)],
) -> Result<(), ApiFailure> {
    for (user, _) in people {
        courses::remove_member(tx, course, user).await?;
    }
    for desktop in of_course(tx, course).await? {
        let Owner::Course { user, .. } = &desktop.owner else {
            continue;
        };
        let Some((_, name)) = people.iter().find(|(id, _)| id == user) else {
            continue;
        };
        let by = By {
            login: actor.login().to_owned(),
        };
        let scope = orders::desktop_scope(&desktop, name);
        let targets = vec![Target {
            desktop,
            name: name.clone(),
        }];
        let facts = Default::default();
        orders::give(
            tx,
            settings,
            &by,
            scope,
            Want::Delete,
            targets,
            &facts,
            app.now(),
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_model::release::FileEntry;
    use lyceum_model::{Accelerator, SealedMemory};

    const SIZE: MachineSize = MachineSize {
        vcpus: 1,
        memory_mib: 768,
    };

    fn platform(version: &str) -> Platform {
        Platform {
            qemu_version: version.into(),
            machine_type: "pc".into(),
            cpu_model: "qemu64".into(),
            accelerator: Accelerator::Tcg,
        }
    }

    fn manifest(memory: bool) -> ReleaseManifest {
        let file = FileEntry {
            bytes: 1,
            blake3: "0".into(),
        };
        ReleaseManifest {
            format: 1,
            sealed_at: 0,
            disk: file.clone(),
            virtual_bytes: 1,
            memory: memory.then(|| SealedMemory {
                size: SIZE,
                platform: platform("10.0.2"),
                ram: file.clone(),
                device_state: file,
                guest_helper: true,
            }),
            cold_reason: (!memory).then(|| "never ready".into()),
        }
    }

    #[test]
    fn a_course_forks_when_some_host_can() {
        let release = manifest(true);
        let (same, other) = (platform("10.0.2"), platform("10.1.0"));
        assert_eq!(cold_reason(&release, SIZE, &[]), None);
        assert_eq!(
            cold_reason(&release, SIZE, std::slice::from_ref(&same)),
            None
        );
        assert_eq!(cold_reason(&release, SIZE, &[other.clone(), same]), None);
        assert!(
            cold_reason(&release, SIZE, &[other])
                .unwrap()
                .contains("platform")
        );
        let bigger = MachineSize { vcpus: 2, ..SIZE };
        assert!(
            cold_reason(&release, bigger, &[])
                .unwrap()
                .contains("2 vCPU")
        );
        assert_eq!(
            cold_reason(&manifest(false), SIZE, &[]).unwrap(),
            "never ready"
        );
        assert_eq!(
            cold_reason(&manifest(false), SIZE, &[platform("1")]).unwrap(),
            "never ready"
        );
    }
}
