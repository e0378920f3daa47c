//! The end of the day: every running desktop is suspended, so that it comes back as it was.

use crate::context::{Context, print, report};
use lyceum_api::courses::Course;
use lyceum_api::desktops::{Accepted, CourseOrder, Desktop};
use lyceum_api::images::Image;
use lyceum_api::operations::OperationState;
use lyceum_model::Phase;
use std::time::Duration;

/// How long suspending may take in all. What runs on after that is left running.
const PATIENCE: Duration = Duration::from_secs(180);

/// Suspends what runs. Trouble is told, never an error: stopping goes on.
pub async fn desktops(ctx: &Context) {
    match tokio::time::timeout(PATIENCE, suspend(ctx)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!(
            "desktops could not be suspended: {error}; those that run are left running and are found again at the next start"
        ),
        Err(_) => eprintln!(
            "suspending took longer than {} s; desktops that still run are left running and are found again at the next start",
            PATIENCE.as_secs()
        ),
    }
}

async fn suspend(ctx: &Context) -> anyhow::Result<()> {
    let images: Vec<Image> = ctx.client.get("images").await?;
    for draft in images.into_iter().filter_map(|image| image.draft) {
        if matches!(draft.phase, Phase::Starting | Phase::Running) {
            print("shutting down an open draft\n")?;
            let _: serde_json::Value = ctx
                .client
                .post(&format!("drafts/{}/stop", draft.id), &serde_json::json!({}))
                .await?;
        }
    }
    let desktops: Vec<Desktop> = ctx.client.get("desktops?all=true").await?;
    let runs = |d: &&Desktop| matches!(d.phase, Phase::Starting | Phase::Running);
    let count = desktops.iter().filter(runs).count();
    if count == 0 {
        return Ok(());
    }
    print(&format!("suspending {count} desktops\n"))?;
    let courses: Vec<Course> = ctx.client.get("courses").await?;
    for course in courses {
        let users: Vec<_> = desktops
            .iter()
            .filter(runs)
            .filter(|d| d.course == course.id)
            .map(|d| d.user.clone())
            .collect();
        if users.is_empty() {
            continue;
        }
        let order = CourseOrder {
            users: Some(users),
            cold: false,
        };
        let accepted: Accepted = ctx
            .client
            .post(&format!("courses/{}/suspend", course.id), &order)
            .await?;
        let operation = ctx.wait(&accepted.operation).await?;
        if operation.state != OperationState::Done {
            eprint!("{}", report(&operation));
            eprintln!("what could not be suspended runs on, and is found again at the next start");
        }
    }
    Ok(())
}
