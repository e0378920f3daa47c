//! `lyceum status`: the classroom at a glance.

use crate::context::Context;
use crate::format::{bytes, word};
use crate::table::{Table, plain};
use lyceum_api::courses::Course;
use lyceum_api::hosts::{Health, Host, Storage};
use lyceum_api::operations::{Operation, OperationState};
use serde::Serialize;

/// All of it.
#[derive(Serialize)]
struct Status {
    health: Health,
    hosts: Vec<Host>,
    storage: Option<Storage>,
    courses: Vec<Course>,
    running: Vec<Operation>,
}

/// Runs the command.
pub async fn run(ctx: &Context) -> anyhow::Result<()> {
    let client = &ctx.client;
    let status = Status {
        health: client.get("health").await?,
        hosts: client.get("hosts").await?,
        storage: match client.get("storage").await {
            Ok(storage) => Some(storage),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        },
        courses: client.get("courses").await?,
        running: super::operation::recent(client)
            .await?
            .into_iter()
            .filter(|o| o.state == OperationState::Running)
            .collect(),
    };
    ctx.show(&status, text)
}

fn text(s: &Status) -> String {
    let mut out = format!(
        "{}, version {}: {} hosts heard, storage {}\n\n",
        s.health.status,
        s.health.version,
        s.health.hosts_online,
        if s.health.storage_online {
            "heard"
        } else {
            "not heard"
        },
    );
    if !s.hosts.is_empty() {
        out.push_str(&super::host::table(&s.hosts).render());
        out.push('\n');
    }
    if let Some(storage) = &s.storage {
        let mut table = Table::new(&["TIER", ">FREE", ">USED BY LYCEUM", ">SIZE"]);
        for (name, tier) in [("fast", &storage.fast), ("slow", &storage.slow)] {
            if let Some(tier) = tier {
                table.row([
                    name.to_owned(),
                    bytes(tier.free_bytes),
                    bytes(tier.used_bytes),
                    bytes(tier.total_bytes),
                ]);
            }
        }
        out.push_str(&table.render());
        out.push_str(&format!(
            "disks: {}, durability {}; written today: fast {}, slow {}\n",
            plain(&storage.driver),
            plain(&storage.durability),
            bytes(storage.fast_written_today),
            bytes(storage.slow_written_today)
        ));
        for warning in &storage.warnings {
            out.push_str(&format!("{}\n", plain(warning)));
        }
        out.push('\n');
    }
    if !s.courses.is_empty() {
        let mut table = Table::new(&["COURSE", "IMAGE", ">STUDENTS", ">RUNNING"]);
        for c in &s.courses {
            table.row([
                c.name.clone(),
                c.image_name.clone(),
                c.students.to_string(),
                c.running.to_string(),
            ]);
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    for o in &s.running {
        out.push_str(&plain(&format!(
            "{} {}: {} of {}, {} ({})",
            o.kind,
            o.target_name,
            o.done,
            o.total,
            o.step,
            word(&o.state)
        )));
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

/// Where the page is, as the classroom's supervisor wrote it down, or the address that is used.
pub async fn page_address(ctx: &Context) -> anyhow::Result<String> {
    let place = ctx.client.place();
    if place.starts_with("http") {
        return Ok(place.to_owned());
    }
    Ok(crate::up::page_of(std::path::Path::new(place)).unwrap_or_default())
}
