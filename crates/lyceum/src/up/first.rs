//! What a new classroom begins with: an image, a course, and a way in. All of it through the
//! API, as a person would do it, and each step only when its result is not there yet, so that
//! an interrupted first start goes on at the next one.

use super::layout::Layout;
use crate::commands::import;
use crate::context::{Context, print, report};
use crate::exit::{self, Exit};
use lyceum_api::accounts::{Role, User, UserCreate};
use lyceum_api::courses::{Course, CourseCreate, CourseRole, MemberPut};
use lyceum_api::images::{DraftState, Image};
use lyceum_api::operations::{Operation, OperationState};
use lyceum_model::{ImageId, MachineSize, Persistence};
use std::path::Path;

/// Name of the first image.
const IMAGE: &str = "Demo";
/// Title of the first course.
const COURSE: &str = "First steps in programming";
/// Its students, with names as schools have them.
const STUDENTS: [(&str, &str); 3] = [
    ("student1", "王小明"),
    ("student2", "林怡君"),
    ("student3", "Ada Byron"),
];
/// Written when all of it is there: from then on a person may delete any of it.
const DONE: &str = "demo-done";

/// Makes image and course, unless that was done before.
pub async fn content(
    ctx: &Context,
    layout: &Layout,
    file: &Path,
    size: MachineSize,
) -> anyhow::Result<()> {
    if layout.path(DONE).exists() {
        return Ok(());
    }
    match demo_image(ctx, file, size).await {
        Ok(image) => {
            course(ctx, image).await?;
            std::fs::write(layout.path(DONE), "").map_err(|e| {
                Exit::coded(
                    exit::FAILED,
                    format!("{} can't be written: {e}", layout.path(DONE).display()),
                )
            })
        }
        // The classroom is of use without it: one can import images on the page.
        Err(error) => {
            eprintln!("the image {IMAGE} could not be made: {error}");
            eprintln!("the classroom starts without it; it is tried again at the next start");
            Ok(())
        }
    }
}

async fn find(ctx: &Context) -> anyhow::Result<Option<Image>> {
    let images: Vec<Image> = ctx.client.get("images").await?;
    Ok(images.into_iter().find(|i| i.name == IMAGE))
}

/// The image with at least one release.
async fn demo_image(ctx: &Context, file: &Path, size: MachineSize) -> anyhow::Result<ImageId> {
    let say = |text: &str| {
        print(&format!("image {IMAGE}: {text}\n")).ok();
    };
    let found = find(ctx).await?;
    if let Some(image) = &found
        && !image.releases.is_empty()
    {
        return Ok(image.id.clone());
    }
    let draft = match found.and_then(|image| image.draft) {
        // Interrupted after the upload.
        Some(draft) if draft.state == DraftState::Ready => draft,
        other => {
            // Interrupted before: what there is is thrown away, nobody else can have made it.
            if let Some(draft) = other {
                let gone: serde_json::Value =
                    ctx.client.delete(&format!("drafts/{}", draft.id)).await?;
                crate::commands::course::follow_if_any(ctx, gone).await?;
            }
            import::upload(
                ctx,
                file,
                IMAGE,
                "Debian desktop for a first programming lesson",
                Some(size),
                None,
                &say,
            )
            .await?
        }
    };
    say("sealing it: it boots once, then its memory is kept for every desktop to start from");
    let operation = import::seal(ctx, &draft, "as built").await?;
    let operation = told(ctx, &operation, &say).await?;
    if operation.state != OperationState::Done {
        return Err(Exit::coded(exit::FAILED, report(&operation)));
    }
    let image = find(ctx)
        .await?
        .ok_or_else(|| Exit::coded(exit::FAILED, "it was sealed and is gone again"))?;
    if let Some(why) = image.releases.first().and_then(|r| r.cold_reason.as_ref()) {
        say(&format!(
            "desktops will boot cold instead of being forked: {why}"
        ));
    }
    Ok(image.id)
}

/// Waits for an operation and says each step when nobody sees a progress bar.
async fn told(
    ctx: &Context,
    id: &lyceum_model::OperationId,
    say: &dyn Fn(&str),
) -> anyhow::Result<Operation> {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        return ctx.wait(id).await;
    }
    let mut step = String::new();
    loop {
        let operation: Operation = ctx.client.get(&format!("operations/{id}")).await?;
        if operation.state != OperationState::Running {
            return Ok(operation);
        }
        if operation.step != step {
            say(&operation.step);
            step = operation.step;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}

/// A course with a few students.
async fn course(ctx: &Context, image: ImageId) -> anyhow::Result<()> {
    let courses: Vec<Course> = ctx.client.get("courses").await?;
    let course = match courses.into_iter().find(|c| c.name == COURSE) {
        Some(course) => course,
        None => {
            let body = CourseCreate {
                name: COURSE.into(),
                image,
                release: None,
                size: None,
                persistence: Persistence::Throwaway,
                outside: false,
                spice: false,
            };
            ctx.client.post("courses", &body).await?
        }
    };
    let users: Vec<User> = ctx.client.get("users").await?;
    for (login, name) in STUDENTS {
        let user = match users.iter().find(|u| u.login == login) {
            Some(user) => user.clone(),
            None => {
                let body = UserCreate {
                    login: login.into(),
                    name: name.into(),
                    role: Role::Student,
                    password: None,
                };
                ctx.client.post("users", &body).await?
            }
        };
        put(ctx, &course, &user, CourseRole::Student).await?;
    }
    // Whoever signs in first finds a desktop to look at.
    if let Some(admin) = users.iter().find(|u| u.role == Role::Admin) {
        put(ctx, &course, admin, CourseRole::Teacher).await?;
    }
    print(&format!(
        "course {COURSE:?} is made, with {} students\n",
        STUDENTS.len()
    ))
}

async fn put(ctx: &Context, course: &Course, user: &User, role: CourseRole) -> anyhow::Result<()> {
    let _: serde_json::Value = ctx
        .client
        .put(
            &format!("courses/{}/members/{}", course.id, user.id),
            &MemberPut { role },
        )
        .await?;
    Ok(())
}

/// The link that signs the first administrator in, as the controller left it in a file that only
/// this user can read; `None` when an administrator has a password already.
pub fn way_in(layout: &Layout, url: &str) -> anyhow::Result<Option<String>> {
    let file = layout
        .path("controller")
        .join(lyceum_controller::config::FIRST_SIGN_IN);
    match std::fs::read_to_string(&file) {
        Ok(path) => Ok(Some(format!("{url}{}", path.trim()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Exit::coded(
            exit::FAILED,
            format!("{} can't be read: {e}", file.display()),
        )),
    }
}
