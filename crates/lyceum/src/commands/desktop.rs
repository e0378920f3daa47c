//! `lyceum desktop`: orders about single desktops.

use crate::context::Context;
use crate::exit::{self, Exit};
use crate::format::{bytes, dash, duration, moment, short, word};
use crate::resolve;
use crate::table::{Table, plain};
use anyhow::Context as _;
use clap::Subcommand;
use lyceum_api::Page;
use lyceum_api::desktops::{
    Accepted, Desktop, DesktopCreate, DesktopHistory, SpiceViewer, StartOrder,
};
use lyceum_api::moves::{Move, MoveOrder};
use lyceum_model::MoveWay;

/// How a desktop is moved.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum WayArg {
    /// Only what it changed; it goes on sharing memory
    Delta,
    /// QEMU's live migration
    Live,
}

/// Desktops. A desktop is named `Course/login`, or by its id or the end of it.
#[derive(Debug, Subcommand)]
pub enum DesktopCommand {
    /// Every desktop, or those of a course
    List {
        /// Only this course
        #[arg(long)]
        course: Option<String>,
        /// Only one's own
        #[arg(long, conflicts_with = "course")]
        mine: bool,
    },
    /// All that is known of one
    Show {
        /// Which
        desktop: String,
    },
    /// Make sure that a person on the roster has one
    Create {
        /// Course
        course: String,
        /// Sign-in name
        login: String,
    },
    /// Start or resume
    Start {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
        /// Boot the own disk instead of forking or resuming; a saved memory is dropped
        #[arg(long)]
        cold: bool,
    },
    /// Stop; a throw-away desktop is as new afterwards
    Stop {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
    },
    /// Keep it as it is, with its windows, and end its machine
    Suspend {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
    },
    /// As new
    Reset {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
    },
    /// Delete with everything that belongs to it
    Delete {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
    },
    /// Move it to another host while it runs
    Move {
        /// Which
        desktop: String,
        /// Where to; otherwise where it fits best
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
        /// How; otherwise by measurement
        #[arg(long)]
        way: Option<WayArg>,
    },
    /// Have plans leave it on the host it is on
    Pin {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
    },
    /// Let plans move it again
    Unpin {
        /// Which
        #[arg(required = true)]
        desktops: Vec<String>,
    },
    /// Moves under way and those that ended, with their numbers
    Moves,
    /// Where it was placed and why
    History {
        /// Which
        desktop: String,
    },
    /// Write the disk of a desktop that is shut down into a qcow2 file that needs nothing else
    Export {
        /// Which
        desktop: String,
        /// The new file
        file: std::path::PathBuf,
    },
    /// A file that opens its screen in remote-viewer (SPICE), once and within two minutes
    Spice {
        /// Which
        desktop: String,
        /// Where to write it; otherwise HOSTNAME.vv
        #[arg(long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// The page's address that opens its screen
    Console {
        /// Which
        desktop: String,
    },
}

/// Runs the command.
pub async fn run(ctx: &Context, command: DesktopCommand) -> anyhow::Result<()> {
    match command {
        DesktopCommand::List { course, mine } => {
            let path = match (course, mine) {
                (Some(course), _) => format!(
                    "desktops?course={}",
                    resolve::course(&ctx.client, &course).await?.id
                ),
                (None, true) => "desktops".to_owned(),
                (None, false) => "desktops?all=true".to_owned(),
            };
            let desktops: Vec<Desktop> = ctx.client.get(&path).await?;
            ctx.show_table(&desktops, "no desktops", |d| table(d))
        }
        DesktopCommand::Show { desktop } => {
            let desktop = resolve::desktop(&ctx.client, &desktop).await?;
            ctx.show(&desktop, details)
        }
        DesktopCommand::Create { course, login } => {
            let body = DesktopCreate {
                course: resolve::course(&ctx.client, &course).await?.id,
                user: resolve::user(&ctx.client, &login).await?.id,
            };
            let desktop: Desktop = ctx.client.post("desktops", &body).await?;
            ctx.done(&desktop, &format!("desktop {}", desktop.id))
        }
        DesktopCommand::Start { desktops, cold } => {
            order(ctx, &desktops, "start", &StartOrder { cold }).await
        }
        DesktopCommand::Stop { desktops } => {
            order(ctx, &desktops, "stop", &serde_json::json!({})).await
        }
        DesktopCommand::Suspend { desktops } => {
            order(ctx, &desktops, "suspend", &serde_json::json!({})).await
        }
        DesktopCommand::Reset { desktops } => {
            order(ctx, &desktops, "reset", &serde_json::json!({})).await
        }
        DesktopCommand::Delete { desktops } => {
            for text in &desktops {
                let desktop = resolve::desktop(&ctx.client, text).await?;
                let accepted: Accepted = ctx
                    .client
                    .delete(&format!("desktops/{}", desktop.id))
                    .await?;
                ctx.follow(&accepted.operation).await?;
            }
            Ok(())
        }
        DesktopCommand::Move { desktop, to, way } => {
            let desktop = resolve::desktop(&ctx.client, &desktop).await?;
            let to = match to {
                Some(name) => Some(super::host::find(ctx, &name).await?.id),
                None => None,
            };
            let way = way.map(|way| match way {
                WayArg::Delta => MoveWay::Delta,
                WayArg::Live => MoveWay::Live,
            });
            let accepted: Accepted = ctx
                .client
                .post(
                    &format!("desktops/{}/move", desktop.id),
                    &MoveOrder { to, way },
                )
                .await?;
            ctx.follow(&accepted.operation).await?;
            Ok(())
        }
        DesktopCommand::Pin { desktops } => {
            for desktop in desktops {
                let desktop = resolve::desktop(&ctx.client, &desktop).await?;
                let path = format!("desktops/{}/pin", desktop.id);
                let () = ctx.client.put(&path, &serde_json::json!({})).await?;
                ctx.done(&desktop, "pinned: plans leave it where it is")?;
            }
            Ok(())
        }
        DesktopCommand::Unpin { desktops } => {
            for desktop in desktops {
                let desktop = resolve::desktop(&ctx.client, &desktop).await?;
                let () = ctx
                    .client
                    .delete(&format!("desktops/{}/pin", desktop.id))
                    .await?;
                ctx.done(&desktop, "not pinned any more")?;
            }
            Ok(())
        }
        DesktopCommand::Moves => {
            let page: Page<Move> = ctx.client.get("moves").await?;
            ctx.show_table(&page.items, "nothing was moved yet", |m| moves_table(m))
        }
        DesktopCommand::History { desktop } => {
            let desktop = resolve::desktop(&ctx.client, &desktop).await?;
            let history: DesktopHistory = ctx
                .client
                .get(&format!("desktops/{}/history", desktop.id))
                .await?;
            ctx.show_table(&history, "it was never placed", |history| {
                let mut table = Table::new(&["WHEN", "HOST", "WHY"]);
                for p in &history.placements {
                    table.row([
                        moment(p.at),
                        p.host
                            .as_ref()
                            .map_or_else(|| "refused".into(), ToString::to_string),
                        p.reason.clone(),
                    ]);
                }
                table
            })
        }
        DesktopCommand::Spice { desktop, output } => {
            let desktop = resolve::desktop(&ctx.client, &desktop).await?;
            let path = format!("desktops/{}/spice-viewer", desktop.id);
            let viewer: SpiceViewer = ctx.client.post(&path, &serde_json::json!({})).await?;
            let to = output.unwrap_or_else(|| viewer.file_name.clone().into());
            write_secret(&to, &viewer.file).with_context(|| format!("writing {}", to.display()))?;
            let words = format!(
                "{0} is written: remote-viewer {0} (within two minutes, once)",
                to.display()
            );
            ctx.done(
                &serde_json::json!({"file": to, "expires": viewer.expires}),
                &words,
            )
        }
        DesktopCommand::Export { desktop, file } => {
            let desktop = resolve::desktop(&ctx.client, &desktop).await?;
            let path = format!("desktops/{}/disk", desktop.id);
            let size = export(ctx, &path, &file).await?;
            let words = format!("{} is written, {}", file.display(), bytes(size));
            ctx.done(&serde_json::json!({"file": file, "bytes": size}), &words)
        }
        DesktopCommand::Console { desktop } => {
            let desktop = resolve::desktop(&ctx.client, &desktop).await?;
            let path = format!("/#/console/{}", desktop.id);
            let base = super::status::page_address(ctx).await?;
            let link = format!("{base}{path}");
            ctx.show(&serde_json::json!({ "url": link }), |_| format!("{link}\n"))
        }
    }
}

/// Fetches a disk into a new file, which is not left half written.
async fn export(ctx: &Context, path: &str, file: &std::path::Path) -> anyhow::Result<u64> {
    let mut response = ctx.client.download(path).await?;
    let whole = response.content_length();
    let mut out = secret_file(file).with_context(|| format!("making {}", file.display()))?;
    let written = async {
        use std::io::Write;
        let mut size = 0;
        while let Some(piece) = response.chunk().await? {
            out.write_all(&piece)?;
            size += piece.len() as u64;
        }
        anyhow::ensure!(
            whole.is_none_or(|whole| whole == size),
            "the disk ended early, after {size} bytes: try again"
        );
        out.sync_all()?;
        Ok(size)
    };
    let written = written.await;
    if written.is_err() {
        let _ = std::fs::remove_file(file);
    }
    written.with_context(|| format!("writing {}", file.display()))
}

// For nobody else's eyes, and never over what is there: somebody else's link may be.
fn write_secret(to: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    secret_file(to)?.write_all(text.as_bytes())
}

fn secret_file(to: &std::path::Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
}

/// Sends all orders first and waits then, so that the work goes on side by side.
async fn order(
    ctx: &Context,
    desktops: &[String],
    what: &str,
    body: &impl serde::Serialize,
) -> anyhow::Result<()> {
    let mut targets = Vec::new();
    for text in desktops {
        targets.push(match what {
            "start" => resolve::desktop_to_start(&ctx.client, text).await?,
            _ => resolve::desktop(&ctx.client, text).await?,
        });
    }
    let mut accepted = Vec::new();
    for desktop in &targets {
        let answer: Accepted = ctx
            .client
            .post(&format!("desktops/{}/{what}", desktop.id), body)
            .await?;
        accepted.push(answer.operation);
    }
    let mut failed = false;
    for operation in &accepted {
        // A failed one has been reported; the others are still waited for.
        if let Err(error) = ctx.follow(operation).await {
            match error.downcast_ref::<Exit>() {
                Some(exit) if exit.code == exit::FAILED && exit.message.is_empty() => failed = true,
                _ => return Err(error),
            }
        }
    }
    if failed {
        Err(Exit::silent(exit::FAILED))
    } else {
        Ok(())
    }
}

fn moves_table(moves: &[Move]) -> Table {
    let mut table = Table::new(&[
        "WHEN",
        "DESKTOP",
        "FROM",
        "TO",
        "STATE",
        "WAY",
        ">SENT",
        ">STOOD STILL",
        ">IN ALL",
        ">MEMORY",
        ">AFTER",
        "NOTE",
    ]);
    for m in moves {
        let size = |v: Option<u64>| v.map_or_else(|| "-".into(), bytes);
        let time = |v: Option<u64>| v.map_or_else(|| "-".into(), duration);
        table.row([
            moment(m.created),
            m.name.clone(),
            m.from.to_string(),
            m.to.to_string(),
            word(&m.state),
            dash(m.way.as_ref().map(word)),
            size(m.bytes),
            time(m.stand_still_ms),
            time(m.total_ms),
            size(m.pss_before_kib.map(|k| k * 1024)),
            size(m.pss_after_kib.map(|k| k * 1024)),
            if m.message.is_empty() {
                m.reason.clone()
            } else {
                m.message.clone()
            },
        ]);
    }
    table
}

/// Desktops as a table.
pub fn table(desktops: &[Desktop]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "COURSE",
        "PERSON",
        "STATE",
        "BY",
        ">USABLE AFTER",
        "HOST",
        "ADDRESS",
        ">MEMORY",
        ">CPU",
        "NOTE",
    ]);
    for d in desktops {
        let note = match (&d.notice, d.detail.as_str()) {
            (Some(notice), _) => notice.clone(),
            (None, detail) => detail.to_owned(),
        };
        table.row([
            short(&d.id),
            d.course_name.clone(),
            d.user_name.clone(),
            word(&d.phase),
            dash(d.started_by.as_ref().map(|by| by.replace('_', " "))),
            d.usable_ms.map_or_else(|| "-".into(), duration),
            dash(d.host.as_ref()),
            dash(d.address.as_ref()),
            if d.pss_kib > 0 {
                bytes(d.pss_kib * 1024)
            } else {
                "-".into()
            },
            if d.pss_kib > 0 {
                format!("{:.0} %", d.cpu_percent)
            } else {
                "-".into()
            },
            note,
        ]);
    }
    table
}

fn details(d: &Desktop) -> String {
    let mut lines = vec![
        ("id", d.id.to_string()),
        ("course", d.course_name.clone()),
        ("person", d.user_name.clone()),
        (
            "state",
            format!("{} (wanted: {})", word(&d.phase), word(&d.desired)),
        ),
        ("since", moment(d.changed)),
        ("size", super::size_text(d.size)),
        ("kind", word(&d.persistence)),
        ("host", dash(d.host.as_ref())),
        ("address", dash(d.address.as_ref())),
        ("started by", dash(d.started_by.as_ref())),
        (
            "usable after",
            d.usable_ms.map_or_else(|| "-".into(), duration),
        ),
        ("memory used", bytes(d.pss_kib * 1024)),
    ];
    if let Some(reason) = &d.cold_reason {
        lines.push(("booted cold", reason.clone()));
    }
    if let Some(n) = d.delta_bytes {
        lines.push(("saved", bytes(n)));
    }
    if let Some(ms) = d.suspend_ms {
        lines.push(("suspended in", duration(ms)));
    }
    if let Some(notice) = &d.notice {
        lines.push(("notice", notice.clone()));
    }
    if d.pinned {
        lines.push(("pinned", "plans leave it where it is".to_owned()));
    }
    if !d.detail.is_empty() {
        lines.push(("detail", d.detail.clone()));
    }
    lines
        .iter()
        .map(|(k, v)| format!("{k:<13} {}\n", plain(v)))
        .collect()
}
