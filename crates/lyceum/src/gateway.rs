//! `lyceum gateway`: the way out of courses' networks, and the doors to the ports for native viewers.
//!
//! It runs on the controller's machine as root, asks the controller through its local socket what should
//! be, brings it about and says how that went. The controller itself needs no rights. When the
//! controller is away, everything stays as it is and is kept so; when this program ends, too.

use crate::client::{CallError, Client};
use crate::context::Context;
use crate::exit::{self, Exit};
use crate::parts::{log, until_told};
use lyceum_api::networks::{GatewayOrder, GatewayReport};
use lyceum_edge::{GatewayEdge, Machine};
use lyceum_net::GatewayNetwork;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two attempts to reach the controller.
const AGAIN: Duration = Duration::from_secs(1);
/// What was put right and could not be told yet, at most.
const UNTOLD_MAX: usize = 20;

/// How the gateway is run.
#[derive(Debug, clap::Args)]
pub struct GatewayArgs {
    /// Directory for the configuration of the DHCP and DNS servers; may be emptied by a reboot
    #[arg(long, value_name = "DIR", default_value = "/run/lyceum-gateway")]
    pub run_dir: PathBuf,
    /// Milliseconds between two looks whether somebody changed something by hand
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub look_ms: u64,
    /// Take everything away that the gateway made, and end
    #[arg(long)]
    pub remove: bool,
}

/// Runs until it is told to end.
pub async fn run(ctx: &Context, args: GatewayArgs) -> anyhow::Result<()> {
    log();
    let token = until_told()?;
    let edge = GatewayEdge::new(Machine::this(), &args.run_dir)
        .await
        .map_err(|e| Exit::coded(exit::FAILED, e.to_string()))?;
    let mut gateway = Gateway {
        edge,
        revision: None,
        problem: None,
        unlike: None,
        repaired: Vec::new(),
        look: Duration::from_millis(args.look_ms),
        looked: Instant::now(),
    };
    if args.remove {
        let order: GatewayOrder = ctx.client.get("network/gateway").await?;
        if let Some(network) = read(&order)? {
            gateway.edge.apply(&network).await?;
        }
        return gateway.edge.remove().await.map_err(Into::into);
    }
    tracing::info!("the gateway is up");
    while !token.is_cancelled() {
        let turn = gateway.turn(&ctx.client);
        let pause = tokio::select! {
            () = token.cancelled() => return Ok(()),
            pause = turn => pause?,
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}

fn read(order: &GatewayOrder) -> anyhow::Result<Option<GatewayNetwork>> {
    serde_json::from_value(order.network.clone()).map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!("what the controller says of networks can't be read ({e}): use the same version of both"),
        )
    })
}

struct Gateway {
    edge: GatewayEdge,
    /// In force.
    revision: Option<String>,
    /// Why the newest is not.
    problem: Option<String>,
    /// Why it can't be looked at, or put right, what was in force.
    unlike: Option<String>,
    repaired: Vec<String>,
    /// Between two looks whether somebody changed something, and two words to the controller.
    look: Duration,
    looked: Instant,
}

impl Gateway {
    /// One question to the controller, and what follows from the answer; how long to wait before the next.
    async fn turn(&mut self, client: &Client) -> anyhow::Result<Duration> {
        let path = match &self.revision {
            // It answers as soon as there is something else.
            Some(known) => format!(
                "network/gateway?after={known}&wait_ms={}",
                self.look.as_millis()
            ),
            None => "network/gateway".to_owned(),
        };
        let asked: Result<GatewayOrder, CallError> = client.get(&path).await;
        let order = match asked {
            Ok(order) => Some(order),
            Err(e @ CallError::Unreachable { .. }) => {
                tracing::debug!("{e}");
                None
            }
            // It begins, ends, or can't reach its store. What is in force stays so.
            Err(
                e @ CallError::Refused {
                    status: 429 | 500..,
                    ..
                },
            ) => {
                tracing::warn!("{e}");
                None
            }
            Err(e) => return Err(e.into()),
        };
        let mut news = false;
        if let Some(order) = &order
            && (self.revision.as_ref() != Some(&order.revision) || self.problem.is_some())
        {
            let network = read(order)?.ok_or_else(|| {
                Exit::usage("the controller has no [network] in its configuration, so there is nothing for a gateway to do: docs/networks.md shows one")
            })?;
            let began = Instant::now();
            let done = self.edge.apply(&network).await;
            news = true;
            self.problem = done.as_ref().err().map(ToString::to_string);
            match done {
                Ok(()) => {
                    tracing::info!(
                        courses = network.courses.len(),
                        doors = network.doors.len(),
                        ms = began.elapsed().as_millis() as u64,
                        "courses' networks and doors are as they should be"
                    );
                    self.revision = Some(order.revision.clone());
                }
                Err(e) => tracing::error!("{e}"),
            }
        }
        if self.looked.elapsed() >= self.look || self.unlike.is_some() {
            self.looked = Instant::now();
            news = true;
            match self.edge.repair().await {
                Ok(repaired) => {
                    self.unlike = None;
                    for what in &repaired.0 {
                        tracing::warn!(
                            "somebody changed the gateway, and it was put right: {what}"
                        );
                    }
                    let room = UNTOLD_MAX.saturating_sub(self.repaired.len());
                    self.repaired.extend(repaired.0.into_iter().take(room));
                }
                Err(e) => {
                    tracing::error!("{e}");
                    self.unlike = Some(e.to_string());
                }
            }
        }
        if news && order.is_some() {
            let report = GatewayReport {
                revision: self.revision.clone().unwrap_or_default(),
                problem: self.problem.clone().or_else(|| self.unlike.clone()),
                repaired: self.repaired.clone(),
            };
            let told: Result<serde::de::IgnoredAny, _> =
                client.put("network/gateway", &report).await;
            match told {
                Ok(_) => self.repaired.clear(),
                Err(e) => tracing::debug!("{e}"),
            }
        }
        Ok(match (&order, &self.problem, &self.unlike) {
            (Some(_), None, None) => Duration::ZERO,
            _ => AGAIN,
        })
    }
}
