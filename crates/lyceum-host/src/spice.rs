//! Channels of SPICE: each a plain relay between the gateway and the machine's SPICE server. They are let go with the
//! [consoles](crate::console) before a machine stands still; the server lets go of the keys by itself then.
//!
//! A machine's end is not closed while the machine is [taking the channel up](lyceum_spice::taken_up), whoever wants it closed.

use crate::agent::Agent;
use crate::api::{ConsoleQuery, failed, machine};
use axum::extract::{Request, State};
use axum::response::Response;
use lyceum_model::DesktopId;
use lyceum_spice::taken_up::TakenUp;
use lyceum_wire::ApiError;
use lyceum_wire::extract::{Path, Query};
use lyceum_wire::server::accept_upgrade;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// What the upgrade is called.
const SPICE: &str = "lyceum-spice";
/// What is on its way, each way, in bytes.
const BLOCK: usize = 16 * 1024;
/// How long a machine may take to take a channel up.
const TAKE_UP: Duration = Duration::from_secs(5);
/// Its worker still says a word or two after the last that is known.
const SETTLE: Duration = Duration::from_millis(200);

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
            Ok(gateway) => {
                let end = async {
                    tokio::select! {
                        () = end => {}
                        () = shutdown.cancelled() => {}
                    }
                };
                relay(gateway, spice, end, TAKE_UP, &mut last).await;
            }
            Err(e) => tracing::debug!(desktop = %id, "a SPICE channel was not opened: {e}"),
        }
        seat.ended(last);
    });
    Ok(response)
}

// Until either side ends, or is to; SPICE closes no half of a channel.
async fn relay(
    gateway: impl AsyncRead + AsyncWrite,
    machine: impl AsyncRead + AsyncWrite,
    end: impl Future<Output = ()>,
    take_up: Duration,
    last: &mut Option<Instant>,
) {
    let (from_gateway, to_gateway) = tokio::io::split(gateway);
    let (mut from_machine, mut to_machine) = tokio::io::split(machine);
    let channel = Channel::default();
    let up = copy(from_gateway, &mut to_machine, |bytes| {
        channel.said(bytes);
        *last = Some(Instant::now());
    });
    let down = copy(&mut from_machine, to_gateway, |bytes| {
        channel.answered(bytes);
    });
    tokio::select! {
        _ = up => {}
        _ = down => {}
        () = end => {}
    }
    channel.settled(&mut from_machine, take_up).await;
}

/// Whether the machine's end of a channel can be closed without harm to the machine.
#[derive(Default)]
struct Channel(Mutex<(TakenUp, Option<Instant>)>);

impl Channel {
    // A poisoned lock only means that another thread panicked while it held plain data.
    fn lock(&self) -> MutexGuard<'_, (TakenUp, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self, bytes: &[u8]) {
        self.lock().0.from_client(bytes);
    }

    fn answered(&self, bytes: &[u8]) {
        let (taken_up, at) = &mut *self.lock();
        if at.is_none() {
            let before = taken_up.is_under_way();
            taken_up.from_server(bytes);
            if before && !taken_up.is_under_way() {
                *at = Some(Instant::now());
            }
        }
    }

    // Until it can be closed. What the machine says until then is for nobody.
    async fn settled(&self, machine: &mut (impl AsyncRead + Unpin), at_most: Duration) {
        let heard = async {
            let mut block = vec![0; BLOCK];
            while self.lock().0.is_under_way() {
                match machine.read(&mut block).await {
                    Ok(read @ 1..) => self.answered(block.get(..read).unwrap_or_default()),
                    _ => return,
                }
            }
            let at = self.lock().1;
            if let Some(at) = at {
                tokio::time::sleep_until(at + SETTLE).await;
            }
        };
        if tokio::time::timeout(at_most, heard).await.is_err() {
            tracing::debug!("a SPICE channel is closed that its machine did not take up in time");
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passing: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let read = from.read(&mut block).await?;
        let Some(bytes) = block.get(..read).filter(|b| !b.is_empty()) else {
            return Ok(());
        };
        passing(bytes);
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_spice::link::{Hello, TICKET, caps, channel, result};

    const TOO_SOON: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(600);

    fn link(kind: u8) -> Vec<u8> {
        let hello = Hello {
            connection: 0,
            channel: kind,
            id: 0,
            common: vec![caps::OURS],
            own: vec![],
        };
        let mut bytes = hello.bytes();
        bytes.extend([0; 4 + TICKET]);
        bytes
    }

    // A reply without anything in it, and the result.
    fn linked() -> Vec<u8> {
        let mut bytes = lyceum_spice::link::Header { size: 0 }.bytes().to_vec();
        bytes.extend(result::OK.to_le_bytes());
        bytes
    }

    #[tokio::test]
    async fn a_channel_is_closed_only_when_its_machine_has_taken_it_up() {
        for left_by_gateway in [true, false] {
            let (gateway, mut client) = tokio::io::duplex(4096);
            let (machine, mut server) = tokio::io::duplex(4096);
            let (leave, told) = tokio::sync::oneshot::channel::<()>();
            let relayed = tokio::spawn(async move {
                let end = async {
                    let _ = told.await;
                };
                relay(gateway, machine, end, PATIENCE, &mut None).await;
            });
            let said = link(channel::DISPLAY);
            client.write_all(&said).await.expect("said");
            let mut heard = vec![0; said.len()];
            server.read_exact(&mut heard).await.expect("passed on");
            server.write_all(&linked()).await.expect("linked");
            let mut heard = vec![0; linked().len()];
            client.read_exact(&mut heard).await.expect("passed on");
            if left_by_gateway {
                drop(client);
            } else {
                leave.send(()).expect("it runs");
            }
            // The worker looks at its client again and again; it must be there.
            let looked = tokio::time::timeout(TOO_SOON, server.read(&mut heard)).await;
            assert!(looked.is_err(), "closed too soon");
            for message in [[3, 0, 0, 0, 0, 0], [102, 0, 0, 0, 0, 0]] {
                assert!(!relayed.is_finished());
                server.write_all(&message).await.expect("open");
            }
            assert_eq!(server.read(&mut heard).await.expect("closed"), 0);
            relayed.await.expect("ended");
        }
    }

    #[tokio::test]
    async fn a_machine_that_says_nothing_is_waited_for_no_longer_than_that() {
        let (gateway, mut client) = tokio::io::duplex(4096);
        let (machine, _server) = tokio::io::duplex(4096);
        client
            .write_all(&link(channel::CURSOR))
            .await
            .expect("said");
        let end = tokio::time::sleep(Duration::from_millis(1));
        let mut last = None;
        let ended = relay(gateway, machine, end, TOO_SOON, &mut last);
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        ended.expect("it is not waited for without end");
    }
}
