//! Copies between a WebSocket and a desktop's RFB stream.

use super::Grant;
use crate::app::App;
use crate::auth::Actor;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use lyceum_model::Phase;
use lyceum_store::desktops;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes copied at a time, and so what one direction of a connection holds.
const BUFFER: usize = 32 * 1024;
/// The longest message a browser may send. noVNC's are small; pasted text goes another way.
pub const MESSAGE_MAX: usize = 256 * 1024;
/// Between two looks whether it may still be seen.
const CHECK: Duration = Duration::from_secs(5);
/// A browser that takes nothing for this long is not there any more.
const STALLED: Duration = Duration::from_secs(60);

/// WebSocket close codes of our own; the page tells by them what to do.
mod close {
    /// The desktop's stream ended: it was reset, moved or stopped. Connect again.
    pub const ENDED: u16 = 4000;
    /// It may not be seen any more.
    pub const FORBIDDEN: u16 = 4003;
    /// It does not run.
    pub const NOT_RUNNING: u16 = 4004;
    /// The host can't be reached.
    pub const UNREACHABLE: u16 = 4005;
    /// The controller ends; connect again.
    pub const RESTART: u16 = 1012;
}

/// Serves one console until either side ends.
pub async fn serve(app: App, actor: Actor, grant: Grant, mut socket: WebSocket) {
    let (code, reason) = match open(&app, &grant).await {
        Ok(stream) => copy(&app, &actor, &grant, &mut socket, stream).await,
        Err(refused) => refused,
    };
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    // The browser may be gone already.
    let _ = tokio::time::timeout(
        Duration::from_secs(2),
        socket.send(Message::Close(Some(frame))),
    )
    .await;
}

type Ended = (u16, &'static str);

async fn open(app: &App, grant: &Grant) -> Result<lyceum_wire::RawStream, Ended> {
    let row = desktops::get(&app.store, &grant.desktop)
        .await
        .ok()
        .flatten()
        .filter(|d| {
            matches!(
                d.phase,
                Phase::Running | Phase::Starting | Phase::Suspending
            )
        })
        .ok_or((close::NOT_RUNNING, "the desktop does not run"))?;
    let host = row
        .host
        .ok_or((close::NOT_RUNNING, "the desktop does not run"))?;
    let client = app
        .agents
        .host(&host)
        .await
        .map_err(|_| (close::UNREACHABLE, "its host is not known"))?;
    client
        .timeout(Duration::from_secs(10))
        .upgrade(&format!("/v1/desktops/{}/console", grant.desktop), "rfb")
        .await
        .map_err(|e| {
            tracing::info!(desktop = %grant.desktop, "console: {e}");
            (close::UNREACHABLE, "its host gave no picture")
        })
}

async fn copy(
    app: &App,
    actor: &Actor,
    grant: &Grant,
    socket: &mut WebSocket,
    stream: lyceum_wire::RawStream,
) -> Ended {
    let (mut from_host, mut to_host) = tokio::io::split(stream);
    let (mut to_page, mut from_page) = socket.split();
    let down = async {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        loop {
            buffer.reserve(BUFFER);
            match from_host.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return (close::ENDED, "the desktop's stream ended"),
                Ok(_) => {}
            }
            let sent = to_page.send(Message::Binary(buffer.split().freeze()));
            match tokio::time::timeout(STALLED, sent).await {
                Ok(Ok(())) => {}
                _ => return (close::ENDED, "the browser does not read"),
            }
        }
    };
    let up = async {
        while let Some(message) = from_page.next().await {
            let bytes = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_)) | Err(_) => break,
                Ok(Message::Text(_)) => return (1003, "only binary messages are understood"),
            };
            if to_host.write_all(&bytes).await.is_err() || to_host.flush().await.is_err() {
                return (close::ENDED, "the desktop's stream ended");
            }
        }
        (1000, "the browser closed")
    };
    let rights = async {
        loop {
            tokio::time::sleep(CHECK).await;
            match desktops::get(&app.store, &grant.desktop).await {
                Ok(Some(row)) => {
                    if !still_signed_in(app, actor).await
                        || actor.require_desktop(app, &row).await.is_err()
                    {
                        return (close::FORBIDDEN, "this desktop is not yours any more");
                    }
                }
                Ok(None) => return (close::NOT_RUNNING, "the desktop was deleted"),
                // The store will be back; the picture need not suffer.
                Err(_) => {}
            }
        }
    };
    tokio::select! {
        end = down => end,
        end = up => end,
        end = rights => end,
        () = app.shutdown.cancelled() => (close::RESTART, "the controller restarts"),
    }
}

async fn still_signed_in(app: &App, actor: &Actor) -> bool {
    let (Some(id), Some(user)) = (actor.session_id(), actor.user_id()) else {
        return true;
    };
    // When the store can't be read, the picture need not suffer.
    lyceum_store::sessions::of_user(&app.store, user)
        .await
        .map_or(true, |all| all.iter().any(|s| s.id == *id))
}
