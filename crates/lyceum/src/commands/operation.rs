//! `lyceum operation`: work that takes time.

use crate::client::Client;
use crate::context::{Context, report};
use crate::format::{duration, moment, short, word};
use crate::resolve;
use crate::table::Table;
use clap::Subcommand;
use lyceum_api::Page;
use lyceum_api::operations::Operation;

/// Operations.
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// What runs and what ended lately
    List,
    /// How one stands, with everything that failed
    Show {
        /// Its id or the end of it
        operation: String,
    },
    /// Wait for it with a progress bar
    Watch {
        /// Its id or the end of it
        operation: String,
    },
    /// Call it off; what was reached stays
    Cancel {
        /// Its id or the end of it
        operation: String,
    },
}

/// The newest operations, at most a page of them.
pub async fn recent(client: &Client) -> anyhow::Result<Vec<Operation>> {
    let page: Page<Operation> = client.get("operations").await?;
    Ok(page.items)
}

/// Runs the command.
pub async fn run(ctx: &Context, command: OperationCommand) -> anyhow::Result<()> {
    match command {
        OperationCommand::List => {
            let operations = recent(&ctx.client).await?;
            ctx.show_table(&operations, "nothing was asked for yet", |operations| {
                let mut table =
                    Table::new(&["ID", "WHAT", "TO", "STATE", ">DONE", "TOOK", "BY", "BEGAN"]);
                for o in operations {
                    table.row([
                        short(&o.id),
                        o.kind.clone(),
                        o.target_name.clone(),
                        word(&o.state),
                        format!("{}/{}", o.done, o.total),
                        o.ended.map_or_else(
                            || "-".into(),
                            |e| duration(e.saturating_sub(o.created).max(0) as u64),
                        ),
                        o.requested_by.clone(),
                        moment(o.created),
                    ]);
                }
                table
            })
        }
        OperationCommand::Show { operation } => {
            let operation = resolve::operation(&ctx.client, &operation).await?;
            ctx.show(&operation, report)
        }
        OperationCommand::Watch { operation } => {
            let operation = resolve::operation(&ctx.client, &operation).await?;
            ctx.follow(&operation.id).await.map(drop)
        }
        OperationCommand::Cancel { operation } => {
            let operation = resolve::operation(&ctx.client, &operation).await?;
            let _: serde_json::Value = ctx
                .client
                .post(
                    &format!("operations/{}/cancel", operation.id),
                    &serde_json::json!({}),
                )
                .await?;
            let operation = ctx.wait(&operation.id).await?;
            ctx.show(&operation, report)
        }
    }
}
