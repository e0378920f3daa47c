//! `lyceum host`: the machines that run desktops, and joining new ones.

use crate::context::Context;
use crate::exit::Exit;
use crate::format::{bytes, dash, mib, moment, word};
use crate::resolve;
use crate::table::{Table, plain};
use clap::{Subcommand, ValueEnum};
use lyceum_api::allocation::{PowerPut, PowerSetup, PowerShown, PowerState};
use lyceum_api::desktops::Accepted;
use lyceum_api::hosts::{AgentKind, Host, HostReplica, JoinToken, JoinTokenCreate};

/// What joins.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum KindArg {
    /// Runs desktops
    Host,
    /// Keeps images and disks
    Storage,
}

/// Hosts.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Every host with its load
    List,
    /// All that is known of one
    Show {
        /// Its name
        host: String,
    },
    /// Let it take no new desktops, and move those away that run there
    Drain {
        /// Its name
        host: String,
    },
    /// Let it take desktops again
    #[command(alias = "activate")]
    Resume {
        /// Its name
        host: String,
    },
    /// Switch it on
    On {
        /// Its name
        host: String,
    },
    /// Switch it off; refused while a desktop is on it
    Off {
        /// Its name
        host: String,
    },
    /// How it is switched and what it draws
    Power {
        /// Its name
        host: String,
        /// Set it to what this file says (JSON, as shown with --json under setup); - reads standard input
        #[arg(long, value_name = "FILE")]
        setup: Option<std::path::PathBuf>,
        /// File with the password of its board's controller
        #[arg(long, value_name = "FILE", requires = "setup")]
        password_file: Option<std::path::PathBuf>,
    },
    /// Make a one-time token with which a machine joins
    Token {
        /// The name it gets
        name: String,
        /// What joins
        #[arg(long, default_value = "host")]
        kind: KindArg,
    },
}

/// Runs the command.
pub async fn run(ctx: &Context, command: HostCommand) -> anyhow::Result<()> {
    match command {
        HostCommand::List => {
            let hosts: Vec<Host> = ctx.client.get("hosts").await?;
            ctx.show_table(
                &hosts,
                "no host has joined yet; make a token: lyceum host token NAME",
                |h| table(h),
            )
        }
        HostCommand::Show { host } => {
            let host = find(ctx, &host).await?;
            ctx.show(&host, details)
        }
        HostCommand::Drain { host } => {
            let host = find(ctx, &host).await?;
            let accepted: Accepted = ctx
                .client
                .post(&format!("hosts/{}/drain", host.id), &serde_json::json!({}))
                .await?;
            ctx.follow(&accepted.operation).await?;
            Ok(())
        }
        HostCommand::Resume { host } => {
            let host = find(ctx, &host).await?;
            let path = format!("hosts/{}/resume", host.id);
            let () = ctx.client.post(&path, &serde_json::json!({})).await?;
            let host = find(ctx, host.id.as_str()).await?;
            ctx.done(&host, &format!("{} is {}", host.id, word(&host.state)))
        }
        HostCommand::On { host } => switch(ctx, &host, "on").await,
        HostCommand::Off { host } => switch(ctx, &host, "off").await,
        HostCommand::Power {
            host,
            setup,
            password_file,
        } => {
            let host = find(ctx, &host).await?;
            let path = format!("hosts/{}/power", host.id);
            let shown: PowerShown = match setup {
                None => ctx.client.get(&path).await?,
                Some(file) => {
                    let read = |path: &std::path::Path| {
                        let text = match path.as_os_str() == "-" {
                            true => std::io::read_to_string(std::io::stdin()),
                            false => std::fs::read_to_string(path),
                        };
                        text.map_err(|e| {
                            Exit::usage(format!("{} can't be read: {e}", path.display()))
                        })
                    };
                    let setup: PowerSetup = serde_json::from_str(&read(&file)?)
                        .map_err(|e| Exit::usage(format!("{}: {e}", file.display())))?;
                    let password = match password_file {
                        Some(file) => Some(read(&file)?.trim_end_matches('\n').to_owned()),
                        None => None,
                    };
                    ctx.client.put(&path, &PowerPut { setup, password }).await?
                }
            };
            ctx.show(&shown, power)
        }
        HostCommand::Token { name, kind } => {
            let (kind, program) = match kind {
                KindArg::Host => (AgentKind::Host, "host"),
                KindArg::Storage => (AgentKind::Storage, "storage"),
            };
            let name = name
                .parse()
                .map_err(|e: lyceum_model::id::IdError| Exit::usage(e.to_string()))?;
            let token: JoinToken = ctx
                .client
                .post("join-tokens", &JoinTokenCreate { kind, name })
                .await?;
            ctx.show(&token, |token| {
                format!(
                    "on the machine that joins, until {}:\n\n    lyceum {program} --join {}\n\n",
                    moment(token.expires),
                    token.token
                )
            })
        }
    }
}

async fn switch(ctx: &Context, host: &str, what: &str) -> anyhow::Result<()> {
    let host = find(ctx, host).await?;
    let path = format!("hosts/{}/power/{what}", host.id);
    let shown: PowerShown = ctx.client.post(&path, &serde_json::json!({})).await?;
    ctx.done(&shown, &format!("{} is being switched {what}", host.id))
}

fn power(shown: &PowerShown) -> String {
    let p = &shown.power;
    let mut lines = vec![
        ("power", word(&p.state)),
        (
            "method",
            shown.setup.method.as_ref().map_or_else(
                || "none".into(),
                |m| serde_json::to_string(m).unwrap_or_default(),
            ),
        ),
        (
            "password",
            if shown.has_password { "kept" } else { "none" }.into(),
        ),
        ("watts", dash(p.watts)),
        ("watts off", dash(shown.setup.watts_off)),
        ("group", dash(p.group.as_ref())),
        ("reserve", p.reserve.to_string()),
        ("maintenance", p.maintenance.to_string()),
    ];
    if let Some(why) = &p.not_switchable {
        lines.push(("not switched", why.clone()));
    }
    if !p.failure.is_empty() {
        lines.push(("failed", p.failure.clone()));
    }
    lines
        .iter()
        .map(|(k, v)| format!("{k:<12} {}\n", plain(v)))
        .collect()
}

pub(super) async fn find(ctx: &Context, name: &str) -> anyhow::Result<Host> {
    let hosts: Vec<Host> = ctx.client.get("hosts").await?;
    resolve::pick("host", name, hosts, |h| h.id.as_str(), |h| h.id.as_str())
}

/// Hosts as a table.
pub fn table(hosts: &[Host]) -> Table {
    let mut table = Table::new(&[
        "HOST",
        "STATE",
        "WITH",
        ">DESKTOPS",
        ">CPU",
        ">USED",
        ">NOMINAL",
        ">ADMITS",
        ">AVAILABLE",
        "NOTE",
    ]);
    for h in hosts {
        let note = match &h.refuses_because {
            Some(why) => format!("takes no more: {why}"),
            None => h.warnings.join("; "),
        };
        table.row([
            h.id.to_string(),
            match h.power.state {
                PowerState::On if h.online => word(&h.state),
                PowerState::On => "not heard".into(),
                other => word(&other).replace('_', " "),
            },
            dash(h.accelerator.as_ref().map(word)),
            h.desktops.to_string(),
            format!("{:.0} %", h.cpu_percent),
            mib(h.desktops_pss_mib),
            mib(h.nominal_mib),
            mib(h.nominal_limit_mib),
            mib(h.available_mib),
            note,
        ]);
    }
    table
}

/// Releases that it keeps on a disk of its own.
fn own_disk(r: &HostReplica) -> String {
    let mut text = format!(
        "{} releases, {} of {}",
        r.releases,
        bytes(r.used_bytes),
        bytes(r.limit_bytes)
    );
    if let Some(percent) = r.filling_percent {
        text.push_str(&format!("; copying, {percent:.0} %"));
    }
    if let Some(trouble) = &r.trouble {
        text.push_str(&format!("; {trouble}"));
    }
    text
}

fn details(h: &Host) -> String {
    let mut lines = vec![
        ("host", h.id.to_string()),
        ("address", h.url.clone()),
        (
            "state",
            if h.online {
                word(&h.state)
            } else {
                "not heard".into()
            },
        ),
        (
            "last heard",
            h.last_heard.map_or_else(|| "never".into(), moment),
        ),
        ("runs with", dash(h.accelerator.as_ref().map(word))),
        ("QEMU", dash(h.qemu_version.as_ref())),
        ("CPUs", h.cpus.to_string()),
        ("memory", mib(h.memory_mib)),
        ("available", mib(h.available_mib)),
        ("desktops", h.desktops.to_string()),
        (
            "nominal",
            format!(
                "{} of at most {}",
                mib(h.nominal_mib),
                mib(h.nominal_limit_mib)
            ),
        ),
        ("really used", mib(h.desktops_pss_mib)),
        (
            "CPU",
            format!(
                "{:.0} %, of it desktops {:.0} %",
                h.cpu_percent, h.desktops_cpu_percent
            ),
        ),
        ("pressure", format!("{:.1} %", h.memory_pressure)),
    ];
    if let Some(replica) = &h.replica {
        lines.push(("own disk", own_disk(replica)));
    }
    if let Some(why) = &h.refuses_because {
        lines.push(("takes none", why.clone()));
    }
    for warning in &h.warnings {
        lines.push(("warning", warning.clone()));
    }
    lines
        .iter()
        .map(|(k, v)| format!("{k:<12} {}\n", plain(v)))
        .collect()
}
