//! Channels of SPICE: each a plain relay between the gateway and the machine's SPICE server. They are let go with the
//! [consoles](crate::console) before a machine stands still; the server lets go of the keys by itself then.

use crate::agent::Agent;
use crate::api::{ConsoleQuery, failed, machine};
use axum::extract::{Request, State};
use axum::response::Response;
use lyceum_model::DesktopId;
use lyceum_wire::ApiError;
use lyceum_wire::extract::{Path, Query};
use lyceum_wire::server::accept_upgrade;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// What the upgrade is called.
const SPICE: &str = "lyceum-spice";
/// What is on its way, each way, in bytes.
const BLOCK: usize = 16 * 1024;

/// A channel of the desktop's SPICE server.
pub(crate) async fn channel(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<DesktopId>,
    Query(query): Query<ConsoleQuery>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let machine = machine(&agent, &id)?;
    let generation = machine.request().generation;
    if query.generation.is_some_and(|asked| asked != generation.0) {
        return Err(ApiError::state(format!(
            "desktop {id} runs as its generation {generation} here: ask again"
        )));
    }
    let seat = agent.consoles.enter(&id).ok_or_else(|| {
        ApiError::state(format!(
            "desktop {id} is about to leave this host: ask again in a moment"
        ))
    })?;
    let spice = machine.spice().await.map_err(failed)?;
    let (response, stream) = accept_upgrade(&mut request, SPICE)?;
    let shutdown = agent.shutdown.clone();
    agent.spawn(async move {
        let end = seat.end();
        let mut last = None;
        match stream.await {
            Ok(gateway) => tokio::select! {
                () = relay(gateway, spice, &mut last) => {}
                () = end => {}
                () = shutdown.cancelled() => {}
            },
            Err(e) => tracing::debug!(desktop = %id, "a SPICE channel was not opened: {e}"),
        }
        seat.ended(last);
    });
    Ok(response)
}

// Until either side ends; SPICE closes no half of a channel.
async fn relay(
    gateway: impl AsyncRead + AsyncWrite,
    machine: impl AsyncRead + AsyncWrite,
    last: &mut Option<Instant>,
) {
    let (from_gateway, to_gateway) = tokio::io::split(gateway);
    let (from_machine, to_machine) = tokio::io::split(machine);
    tokio::select! {
        _ = copy(from_gateway, to_machine, || *last = Some(Instant::now())) => {}
        _ = copy(from_machine, to_gateway, || {}) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passed: impl FnMut(),
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let read = from.read(&mut block).await?;
        let Some(bytes) = block.get(..read).filter(|b| !b.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes).await?;
        to.flush().await?;
        passed();
    }
}
