//! `lyceum settings`: of the whole classroom.

use crate::context::Context;
use crate::exit::Exit;
use crate::table::plain;
use clap::{Args, Subcommand};
use lyceum_api::{Settings, SettingsPatch};

/// Settings of the classroom.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// All of them
    Show,
    /// Change some
    Set(SetArgs),
}

/// What can be changed.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Name of the classroom, shown on the page
    #[arg(long)]
    classroom_name: Option<String>,
    /// Nominal memory a host admits, as a multiple of its real memory
    #[arg(long)]
    overcommit: Option<f64>,
    /// Seats per host; 0: by memory only
    #[arg(long)]
    seats_per_host: Option<u32>,
    /// Desktops started at once on one host
    #[arg(long)]
    starts_at_once: Option<u32>,
    /// Seconds a fork or resume may take
    #[arg(long)]
    fork_timeout_s: Option<u32>,
    /// Seconds a cold boot may take
    #[arg(long)]
    cold_timeout_s: Option<u32>,
    /// Minutes a session lives without being used
    #[arg(long)]
    session_idle_minutes: Option<u32>,
    /// Desktops moved at once away from one host, or to one
    #[arg(long)]
    moves_per_host: Option<u32>,
    /// Most that moves away from one host use together, megabits per second; 0: no limit
    #[arg(long)]
    move_mbit_per_s: Option<u32>,
    /// Seconds a move may take until the desktop is handed over
    #[arg(long)]
    move_timeout_s: Option<u32>,
}

/// Runs the command.
pub async fn run(ctx: &Context, command: SettingsCommand) -> anyhow::Result<()> {
    let settings: Settings = match command {
        SettingsCommand::Show => ctx.client.get("settings").await?,
        SettingsCommand::Set(args) => {
            let patch = SettingsPatch {
                classroom_name: args.classroom_name,
                overcommit: args.overcommit,
                seats_per_host: args.seats_per_host,
                starts_at_once: args.starts_at_once,
                fork_timeout_s: args.fork_timeout_s,
                cold_timeout_s: args.cold_timeout_s,
                session_idle_minutes: args.session_idle_minutes,
                moves_per_host: args.moves_per_host,
                move_mbit_per_s: args.move_mbit_per_s,
                move_timeout_s: args.move_timeout_s,
            };
            if patch == SettingsPatch::default() {
                return Err(Exit::usage(
                    "nothing to change; see: lyceum settings set --help",
                ));
            }
            ctx.client.patch("settings", &patch).await?
        }
    };
    ctx.show(&settings, |s| {
        // Every field there is, also those that come later.
        let value = serde_json::to_value(s).unwrap_or_default();
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                format!("{:<22} {}\n", name.replace('_', "-"), plain(&value))
            })
            .collect()
    })
}
