//! `lyceum course`: courses and orders about a whole class.

use super::roster::{self, RosterCommand};
use super::{SizeArgs, size_text};
use crate::context::Context;
use crate::exit::Exit;
use crate::format::{dash, word};
use crate::resolve;
use crate::table::{Table, plain};
use clap::{Args, Subcommand, ValueEnum};
use lyceum_api::courses::{Course, CourseCreate, CoursePatch};
use lyceum_api::desktops::{Accepted, CourseOrder, HandOut};
use lyceum_model::Persistence;

/// What is kept of a desktop.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PersistenceArg {
    /// As new at every start
    Throwaway,
    /// Keeps what was changed
    Persistent,
}

impl From<PersistenceArg> for Persistence {
    fn from(p: PersistenceArg) -> Persistence {
        match p {
            PersistenceArg::Throwaway => Persistence::Throwaway,
            PersistenceArg::Persistent => Persistence::Persistent,
        }
    }
}

/// Courses. A course is named by its title, its id or the end of it.
#[derive(Debug, Subcommand)]
pub enum CourseCommand {
    /// Every course one may see
    List,
    /// One course with its roster and desktops
    Show {
        /// Which
        course: String,
    },
    /// Make a course
    Create {
        /// Title
        name: String,
        /// Golden image
        #[arg(long)]
        image: String,
        /// Pin this release (Image@2) instead of following the newest one
        #[arg(long)]
        release: Option<String>,
        /// Size of a desktop; default: as the release was sealed, which is what can be forked
        #[command(flatten)]
        size: SizeArgs,
        /// What is kept of a desktop
        #[arg(long, default_value = "throwaway")]
        persistence: PersistenceArg,
        /// Let desktops reach the outside
        #[arg(long)]
        outside: bool,
        /// Let desktops be looked at with remote-viewer (SPICE) too; each needs some 15 MB more
        #[arg(long)]
        spice: bool,
    },
    /// Change a course; running desktops keep what they started with
    Set {
        /// Which
        course: String,
        /// Title
        #[arg(long)]
        name: Option<String>,
        /// Pin this release (Image@2); also the way to roll back
        #[arg(long, conflicts_with = "follow_newest")]
        release: Option<String>,
        /// Follow the newest offered release again
        #[arg(long)]
        follow_newest: bool,
        /// Size of a desktop
        #[command(flatten)]
        size: SizeArgs,
        /// What is kept of a desktop
        #[arg(long)]
        persistence: Option<PersistenceArg>,
        /// Whether desktops reach the outside
        #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
        outside: Option<bool>,
        /// Whether desktops can be looked at with remote-viewer (SPICE), from their next start on
        #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
        spice: Option<bool>,
    },
    /// Delete a course with its desktops
    Delete {
        /// Which
        course: String,
    },
    /// Start the whole class
    Start {
        /// Who
        #[command(flatten)]
        who: Who,
        /// Boot cold linked clones instead of forking, for comparison
        #[arg(long)]
        cold: bool,
    },
    /// Stop the whole class
    Stop(Who),
    /// Suspend the whole class
    Suspend(Who),
    /// Make the whole class's desktops as new
    Reset(Who),
    /// A running desktop, windows open, becomes the start of every student's
    HandOut {
        /// The desktop (Course/login)
        #[arg(long)]
        desktop: String,
        /// Who
        #[command(flatten)]
        who: Who,
    },
    /// Who is in a course
    #[command(subcommand)]
    Roster(RosterCommand),
}

/// A course, and perhaps only some of its people.
#[derive(Debug, Args)]
pub struct Who {
    /// Which course
    course: String,
    /// Only these people (sign-in names)
    #[arg(long = "user", value_name = "LOGIN")]
    users: Vec<String>,
}

/// For options that take yes or no.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("say yes or no".into()),
    }
}

/// Runs the command.
pub async fn run(ctx: &Context, command: CourseCommand) -> anyhow::Result<()> {
    match command {
        CourseCommand::List => {
            let courses: Vec<Course> = ctx.client.get("courses").await?;
            ctx.show_table(&courses, "no courses", |courses| {
                let mut table = Table::new(&[
                    "COURSE",
                    "IMAGE",
                    ">RELEASE",
                    "SIZE",
                    "KEPT",
                    ">STUDENTS",
                    ">RUNNING",
                    "NOTE",
                ]);
                for c in courses {
                    table.row([
                        c.name.clone(),
                        c.image_name.clone(),
                        release_text(c),
                        size_text(c.size),
                        word(&c.persistence),
                        c.students.to_string(),
                        c.running.to_string(),
                        c.cold_reason
                            .as_ref()
                            .map_or_else(String::new, |why| format!("boots cold: {why}")),
                    ]);
                }
                table
            })
        }
        CourseCommand::Show { course } => {
            let course = resolve::course(&ctx.client, &course).await?;
            ctx.show(&course, details)
        }
        CourseCommand::Create {
            name,
            image,
            release,
            size,
            persistence,
            outside,
            spice,
        } => {
            let release = match release {
                Some(text) => Some(resolve::release(&ctx.client, &text).await?.id),
                None => None,
            };
            let image = resolve::image(&ctx.client, &image).await?;
            let sealed = image.releases.first().and_then(|r| r.size);
            let body = CourseCreate {
                name,
                image: image.id,
                release,
                size: size.over(sealed)?,
                persistence: persistence.into(),
                outside,
                spice,
            };
            let course: Course = ctx.client.post("courses", &body).await?;
            ctx.done(&course, &format!("course {} is made", course.name))
        }
        CourseCommand::Set {
            course,
            name,
            release,
            follow_newest,
            size,
            persistence,
            outside,
            spice,
        } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let patch = CoursePatch {
                name,
                release: match release {
                    Some(text) => Some(resolve::release(&ctx.client, &text).await?.id),
                    None => None,
                },
                follow_newest: follow_newest.then_some(true),
                size: size.over(Some(course.size))?,
                persistence: persistence.map(Persistence::from),
                outside,
                spice,
            };
            if serde_json::to_value(&patch)?
                .as_object()
                .is_some_and(|o| o.values().all(serde_json::Value::is_null))
            {
                return Err(Exit::usage(
                    "nothing to change; see: lyceum course set --help",
                ));
            }
            let course: Course = ctx
                .client
                .patch(&format!("courses/{}", course.id), &patch)
                .await?;
            ctx.show(&course, details)
        }
        CourseCommand::Delete { course } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let answer: serde_json::Value =
                ctx.client.delete(&format!("courses/{}", course.id)).await?;
            follow_if_any(ctx, answer).await?;
            ctx.done(&course, &format!("course {} is deleted", course.name))
        }
        CourseCommand::Start { who, cold } => order(ctx, who, "start", cold).await,
        CourseCommand::Stop(who) => order(ctx, who, "stop", false).await,
        CourseCommand::Suspend(who) => order(ctx, who, "suspend", false).await,
        CourseCommand::Reset(who) => order(ctx, who, "reset", false).await,
        CourseCommand::HandOut { desktop, who } => {
            let course = resolve::course(&ctx.client, &who.course).await?;
            let body = HandOut {
                desktop: resolve::desktop(&ctx.client, &desktop).await?.id,
                users: resolve::users(&ctx.client, &who.users).await?,
            };
            let accepted: Accepted = ctx
                .client
                .post(&format!("courses/{}/hand-out", course.id), &body)
                .await?;
            ctx.follow(&accepted.operation).await.map(drop)
        }
        CourseCommand::Roster(command) => roster::run(ctx, command).await,
    }
}

async fn order(ctx: &Context, who: Who, what: &str, cold: bool) -> anyhow::Result<()> {
    let course = resolve::course(&ctx.client, &who.course).await?;
    let body = CourseOrder {
        users: resolve::users(&ctx.client, &who.users).await?,
        cold,
    };
    let accepted: Accepted = ctx
        .client
        .post(&format!("courses/{}/{what}", course.id), &body)
        .await?;
    ctx.follow(&accepted.operation).await.map(drop)
}

/// Waits for the operation of an answer that may or may not name one.
pub async fn follow_if_any(ctx: &Context, answer: serde_json::Value) -> anyhow::Result<()> {
    if let Ok(accepted) = serde_json::from_value::<Accepted>(answer)
        && !ctx.no_wait
    {
        let operation = ctx.wait(&accepted.operation).await?;
        if !operation.failures.is_empty() {
            return Err(Exit::coded(
                crate::exit::FAILED,
                crate::context::report(&operation),
            ));
        }
    }
    Ok(())
}

fn release_text(c: &Course) -> String {
    match c.release_version {
        Some(version) if c.follow_newest => format!("{version}, newest"),
        Some(version) => format!("{version}, pinned"),
        None => "none".into(),
    }
}

fn details(c: &Course) -> String {
    let mut lines = vec![
        ("id", c.id.to_string()),
        ("course", c.name.clone()),
        ("image", c.image_name.clone()),
        ("release", release_text(c)),
        ("size", size_text(c.size)),
        ("kept", word(&c.persistence)),
        (
            "outside",
            if c.outside { "reached" } else { "not reached" }.into(),
        ),
        ("spice", if c.spice { "on" } else { "off" }.into()),
        ("own role", dash(c.my_role.as_ref().map(word))),
        ("students", c.students.to_string()),
        ("running", c.running.to_string()),
    ];
    if let Some(why) = &c.cold_reason {
        lines.push(("boots cold", why.clone()));
    }
    lines
        .iter()
        .map(|(k, v)| format!("{k:<11} {}\n", plain(v)))
        .collect()
}
