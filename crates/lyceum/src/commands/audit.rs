//! `lyceum audit`: who did what to whom.

use crate::client::segment;
use crate::context::Context;
use crate::format::moment;
use crate::table::Table;
use lyceum_api::Page;
use lyceum_api::accounts::AuditEntry;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// How many lines
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
    limit: usize,
    /// Only older ones than this number
    #[arg(long)]
    before: Option<String>,
}

/// Runs the command.
pub async fn run(ctx: &Context, args: AuditArgs) -> anyhow::Result<()> {
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut before = args.before;
    while entries.len() < args.limit {
        let path = match &before {
            Some(before) => format!("audit?before={}", segment(before)),
            None => "audit".to_owned(),
        };
        let page: Page<AuditEntry> = ctx.client.get(&path).await?;
        entries.extend(page.items);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    entries.truncate(args.limit);
    ctx.show_table(&entries, "nothing was done yet", |entries| {
        let mut table = Table::new(&[">NO", "WHEN", "WHO", "WHAT", "TO", "MORE", "FROM"]);
        for e in entries {
            table.row([
                e.id.to_string(),
                moment(e.at),
                e.actor.clone(),
                e.action.clone(),
                e.target.clone(),
                e.detail.clone(),
                e.address.clone(),
            ]);
        }
        table
    })
}
