//! `lyceum restore-point`: desktops and classes as they were.

use crate::context::Context;
use crate::exit::{self, Exit};
use crate::format::{bytes, dash, duration, moment, short, word};
use crate::resolve;
use crate::table::Table;
use clap::Subcommand;
use lyceum_api::desktops::{Accepted, Desktop};
use lyceum_api::restore_points::{
    CoursePoints, CourseRestore, PointBatch, PointSchedule, RestoreOrder, RestorePoint, TakePoint,
};

/// Restore points. What they are of is a course by its title, or one desktop as `Course/login` or by its id.
#[derive(Debug, Subcommand)]
pub enum RestorePointCommand {
    /// What there is to go back to
    List {
        /// Course, or desktop
        of: String,
    },
    /// Keep it as it is now, windows and all
    Take {
        /// Course, or desktop
        of: String,
        /// Words about it
        #[arg(long, default_value = "")]
        note: String,
        /// Of a course: only these people's (sign-in names)
        #[arg(long = "user", value_name = "LOGIN")]
        users: Vec<String>,
    },
    /// Go back; what is there now is kept, so that it can be undone
    Restore {
        /// Course, or desktop
        of: String,
        /// To which: the ID of the list or the end of it; otherwise the newest
        #[arg(long, value_name = "ID")]
        to: Option<String>,
        /// Of a course: only these people's (sign-in names)
        #[arg(long = "user", value_name = "LOGIN")]
        users: Vec<String>,
    },
    /// Undo the last restore; that can be undone too
    Undo {
        /// Course, or desktop
        of: String,
    },
    /// Delete
    Delete {
        /// Course, or desktop
        of: String,
        /// Which: the ID of the list or the end of it
        id: String,
    },
    /// Show or set when points of a course are taken by themselves
    Schedule {
        /// Which course
        course: String,
        /// Minutes between two while a class runs; 0: never
        #[arg(long, value_name = "MINUTES")]
        every: Option<u32>,
        /// So many of the newest are kept of each desktop
        #[arg(long, value_name = "N")]
        keep: Option<u32>,
        /// Of those before, one per hour, so many
        #[arg(long, value_name = "N")]
        hourly: Option<u32>,
        /// Whether students may restore their own desktops
        #[arg(long, value_name = "yes|no", value_parser = super::course::yes_or_no)]
        own_restore: Option<bool>,
    },
}

/// What the points are of.
enum Of {
    Desktop(Box<Desktop>),
    Course { path: String },
}

async fn find(ctx: &Context, text: &str) -> anyhow::Result<Of> {
    // A course's title may hold a slash; a desktop is never called like a course.
    if let Ok(course) = resolve::course(&ctx.client, text).await {
        return Ok(Of::Course {
            path: format!("courses/{}", course.id),
        });
    }
    let desktop = resolve::desktop(&ctx.client, text).await?;
    Ok(Of::Desktop(Box::new(desktop)))
}

fn of_desktop(desktop: &Desktop) -> String {
    format!("desktops/{}", desktop.id)
}

/// Runs the command.
pub async fn run(ctx: &Context, command: RestorePointCommand) -> anyhow::Result<()> {
    match command {
        RestorePointCommand::List { of } => match find(ctx, &of).await? {
            Of::Desktop(d) => {
                let points = points(ctx, &d).await?;
                ctx.show_table(&points, "there are none", |p| points_table(p))
            }
            Of::Course { path } => {
                let course: CoursePoints =
                    ctx.client.get(&format!("{path}/restore-points")).await?;
                ctx.show_table(&course, "there are none", |c| batches_table(&c.batches))
            }
        },
        RestorePointCommand::Take { of, note, users } => {
            let body = TakePoint {
                note,
                users: resolve::users(&ctx.client, &users).await?,
            };
            order(ctx, &base(ctx, &of).await?, "restore-points", &body).await
        }
        RestorePointCommand::Restore { of, to, users } => match find(ctx, &of).await? {
            Of::Desktop(d) => {
                let mut list = points(ctx, &d).await?;
                if to.is_none() {
                    list.retain(|p| {
                        p.origin != lyceum_api::restore_points::PointOrigin::Undo
                            && p.state == lyceum_api::restore_points::PointState::Ready
                    });
                }
                let point = choose(to, list, |p| p.id.as_str())?.id;
                order(ctx, &of_desktop(&d), "restore", &RestoreOrder { point }).await
            }
            Of::Course { path } => {
                let course: CoursePoints =
                    ctx.client.get(&format!("{path}/restore-points")).await?;
                let mut list = course.batches;
                if to.is_none() {
                    list.retain(|b| b.ready > 0);
                }
                let body = CourseRestore {
                    batch: choose(to, list, |b| b.batch.as_str())?.batch,
                    users: resolve::users(&ctx.client, &users).await?,
                };
                order(ctx, &path, "restore", &body).await
            }
        },
        RestorePointCommand::Undo { of } => {
            let base = base(ctx, &of).await?;
            order(ctx, &base, "undo-restore", &serde_json::json!({})).await
        }
        RestorePointCommand::Delete { of, id } => {
            let path = match find(ctx, &of).await? {
                Of::Desktop(d) => {
                    let list = points(ctx, &d).await?;
                    let point = choose(Some(id), list, |p| p.id.as_str())?;
                    format!("restore-points/{}", point.id)
                }
                Of::Course { path } => {
                    let course: CoursePoints =
                        ctx.client.get(&format!("{path}/restore-points")).await?;
                    let batch = choose(Some(id), course.batches, |b| b.batch.as_str())?;
                    format!("{path}/restore-points/{}", batch.batch)
                }
            };
            let _: serde_json::Value = ctx.client.delete(&path).await?;
            ctx.done(&serde_json::json!({}), "the restore point is deleted")
        }
        RestorePointCommand::Schedule {
            course,
            every,
            keep,
            hourly,
            own_restore,
        } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let path = format!("courses/{}/point-schedule", course.id);
            let now: PointSchedule = ctx.client.get(&path).await?;
            let wanted = PointSchedule {
                every_min: every.unwrap_or(now.every_min),
                keep_last: keep.unwrap_or(now.keep_last),
                keep_hourly: hourly.unwrap_or(now.keep_hourly),
                own_restore: own_restore.unwrap_or(now.own_restore),
            };
            let set = match wanted == now {
                true => now,
                false => ctx.client.put(&path, &wanted).await?,
            };
            ctx.show(&set, schedule_text)
        }
    }
}

fn schedule_text(s: &PointSchedule) -> String {
    let when = match s.every_min {
        0 => "none are taken by themselves".to_owned(),
        1 => "every minute while a class runs".to_owned(),
        n => format!("every {n} minutes while a class runs"),
    };
    format!(
        "taken    {when}\nkept     the last {} of each desktop, before that one per hour, {} of them\nstudents {}\n",
        s.keep_last,
        s.keep_hourly,
        if s.own_restore {
            "restore their own desktops"
        } else {
            "ask a teacher"
        }
    )
}

async fn base(ctx: &Context, of: &str) -> anyhow::Result<String> {
    Ok(match find(ctx, of).await? {
        Of::Desktop(d) => of_desktop(&d),
        Of::Course { path } => path,
    })
}

async fn points(ctx: &Context, desktop: &Desktop) -> anyhow::Result<Vec<RestorePoint>> {
    let path = format!("desktops/{}/restore-points", desktop.id);
    Ok(ctx.client.get(&path).await?)
}

async fn order(
    ctx: &Context,
    base: &str,
    what: &str,
    body: &impl serde::Serialize,
) -> anyhow::Result<()> {
    let accepted: Accepted = ctx.client.post(&format!("{base}/{what}"), body).await?;
    ctx.follow(&accepted.operation).await.map(drop)
}

/// The one that is named, or the first.
fn choose<T>(to: Option<String>, list: Vec<T>, id: impl Fn(&T) -> &str) -> anyhow::Result<T> {
    match to {
        Some(text) => resolve::pick("restore point", &text, list, &id, &id),
        None => list.into_iter().next().ok_or_else(|| {
            Exit::coded(
                exit::REFUSED,
                "there is no restore point to go back to: take one first".to_owned(),
            )
        }),
    }
}

fn points_table(points: &[RestorePoint]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "TAKEN",
        "WHY",
        "STATE",
        "HOLDS",
        ">SIZE",
        ">STOOD STILL",
        "NOTE",
    ]);
    for p in points {
        table.row([
            short(&p.id),
            moment(p.taken),
            word(&p.origin),
            word(&p.state),
            word(&p.holds),
            dash(p.bytes.map(bytes)),
            dash(p.stand_still_ms.map(duration)),
            note(&p.note, &p.message),
        ]);
    }
    table
}

fn batches_table(batches: &[PointBatch]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "TAKEN",
        "WHY",
        ">DESKTOPS",
        ">DISK ONLY",
        ">FAILED",
        ">SIZE",
        "NOTE",
    ]);
    for b in batches {
        table.row([
            short(&b.batch),
            moment(b.taken),
            word(&b.origin),
            b.ready.to_string(),
            b.disk_only.to_string(),
            b.failed.to_string(),
            bytes(b.bytes),
            note(&b.note, &b.message),
        ]);
    }
    table
}

fn note(note: &str, message: &str) -> String {
    match (note, message) {
        ("", message) => message.to_owned(),
        (note, "") => note.to_owned(),
        (note, message) => format!("{note}; {message}"),
    }
}
