//! `lyceum session`: where one is signed in.

use crate::context::Context;
use crate::exit::Exit;
use crate::format::{moment, short};
use crate::resolve;
use crate::table::Table;
use clap::Subcommand;
use lyceum_api::accounts::Session;

/// Sessions of the signed-in person.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Every session
    List,
    /// End one, or all others
    Revoke {
        /// Its id or the end of it
        #[arg(required_unless_present = "others")]
        session: Option<String>,
        /// Every session but this one
        #[arg(long, conflicts_with = "session")]
        others: bool,
    },
}

/// Runs the command.
pub async fn run(ctx: &Context, command: SessionCommand) -> anyhow::Result<()> {
    let sessions: Vec<Session> = ctx.client.get("sessions").await?;
    match command {
        SessionCommand::List => ctx.show_table(&sessions, "no sessions", |sessions| {
            let mut table = Table::new(&["ID", "FROM", "WITH", "SINCE", "LAST USED", ""]);
            for s in sessions {
                table.row([
                    short(&s.id),
                    s.address.clone(),
                    s.client.clone(),
                    moment(s.created),
                    moment(s.last_seen),
                    if s.current { "this one" } else { "" }.into(),
                ]);
            }
            table
        }),
        SessionCommand::Revoke { session, others } => {
            let chosen: Vec<Session> = match (session, others) {
                (Some(text), _) => vec![resolve::pick(
                    "session",
                    &text,
                    sessions,
                    |s| s.id.as_str(),
                    |s| s.id.as_str(),
                )?],
                (None, true) => sessions.into_iter().filter(|s| !s.current).collect(),
                (None, false) => return Err(Exit::usage("name a session, or give --others")),
            };
            for session in &chosen {
                let _: serde_json::Value = ctx
                    .client
                    .delete(&format!("sessions/{}", session.id))
                    .await?;
            }
            ctx.done(&chosen, &format!("{} ended", chosen.len()))
        }
    }
}
