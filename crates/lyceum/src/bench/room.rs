//! Which hosts take a bench's desktops, and the classroom as it was afterwards.

use super::say;
use crate::context::Context;
use crate::exit::{self, Exit};
use lyceum_api::desktops::{Accepted, Desktop};
use lyceum_api::hosts::{Host, HostState};
use lyceum_model::HostId;
use std::time::{Duration, Instant};

/// Hosts that could take desktops when the bench began.
pub struct Room {
    /// In the order of their names.
    pub hosts: Vec<HostId>,
}

impl Room {
    /// A classroom in which nobody works: its hosts are closed and opened by the bench.
    pub async fn find(ctx: &Context, least: usize) -> anyhow::Result<Room> {
        let desktops: Vec<Desktop> = ctx.client.get("desktops?all=true").await?;
        let busy = desktops.iter().filter(|d| d.host.is_some()).count();
        if busy > 0 {
            return Err(Exit::coded(
                exit::REFUSED,
                format!(
                    "{busy} desktops are running, and this bench closes hosts and moves what is on them: stop them first, or start a classroom for it"
                ),
            ));
        }
        let hosts: Vec<Host> = ctx.client.get("hosts").await?;
        let mut hosts: Vec<HostId> = hosts
            .into_iter()
            .filter(|h| h.online && h.state == HostState::Active)
            .map(|h| h.id)
            .collect();
        hosts.sort();
        if hosts.len() < least {
            return Err(Exit::coded(
                exit::REFUSED,
                format!(
                    "{least} hosts have to take desktops for this, {} do; see: lyceum host list",
                    hosts.len()
                ),
            ));
        }
        Ok(Room { hosts })
    }

    /// Only these of them take desktops from now on.
    pub async fn only(&self, ctx: &Context, open: &[HostId]) -> anyhow::Result<()> {
        for host in &self.hosts {
            if open.contains(host) {
                resume(ctx, host).await?;
            } else {
                drain(ctx, host).await?;
            }
        }
        Ok(())
    }

    /// All take desktops again. Trouble is told.
    pub async fn open(&self, ctx: &Context) {
        for host in &self.hosts {
            if let Err(error) = resume(ctx, host).await {
                say(&format!(
                    "{host} takes no desktops yet ({error}): lyceum host resume {host}"
                ));
            }
        }
    }
}

async fn resume(ctx: &Context, host: &HostId) -> anyhow::Result<()> {
    let path = format!("hosts/{host}/resume");
    let () = ctx.client.post(&path, &serde_json::json!({})).await?;
    Ok(())
}

/// Closes a host and waits until nothing is on it; how long that took.
pub async fn drain(ctx: &Context, host: &HostId) -> anyhow::Result<(Accepted, f64)> {
    let began = Instant::now();
    let path = format!("hosts/{host}/drain");
    let accepted: Accepted = ctx.client.post(&path, &serde_json::json!({})).await?;
    let timed =
        super::class::watch(ctx, &accepted.operation, began, Duration::from_millis(10)).await?;
    let seconds = began.elapsed().as_secs_f64();
    match timed.operation.state {
        lyceum_api::operations::OperationState::Done => Ok((accepted, seconds)),
        _ => Err(Exit::coded(
            exit::FAILED,
            crate::context::report(&timed.operation),
        )),
    }
}
