//! One console: a browser's WebSocket, and what is told beside the picture.

use super::viewers::Presence;
use super::{Grant, MESSAGE_MAX, supply};
use crate::app::App;
use crate::auth::Actor;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::response::Response;
use bytes::Bytes;
use futures::{Sink, Stream};
use lyceum_console::{ClientItem, End, Limits, Mode, Note, ToClient};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Asks for notes beside the picture, as text messages.
const WITH_NOTES: &str = "lyceum";

/// WebSocket close codes of our own, with their words; the page tells by them what to do.
pub mod close {
    /// Connect again.
    pub const ENDED: (u16, &str) = (4000, "the picture's stream ended");
    /// It may not be seen any more.
    pub const FORBIDDEN: (u16, &str) = (4003, "this desktop is not yours any more");
    /// It is off, and nobody wants it to run.
    pub const NOT_RUNNING: (u16, &str) = (4004, "the desktop does not run");
    /// It is gone for good.
    pub const DELETED: (u16, &str) = (4004, "the desktop was deleted");
    /// Too many look at it.
    pub const FULL: (u16, &str) = (4009, "too many people look at this desktop");
    /// The person did nothing for hours.
    pub const IDLE: (u16, &str) = (4008, "nothing was done here for a long time");
    /// The controller ends; connect again.
    pub const RESTART: (u16, &str) = (1012, "the controller restarts");
}

/// Answers a request for a WebSocket, and serves it.
pub fn upgrade(app: App, actor: Actor, grant: Grant, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols([WITH_NOTES, "binary"])
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        // Buffers of an idle connection: what a person does is small, and pictures are not collected.
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(1024 * 1024)
        .on_upgrade(move |socket| serve(app, actor, grant, socket))
}

async fn serve(app: App, actor: Actor, grant: Grant, socket: WebSocket) {
    let notes = socket.protocol().is_some_and(|p| p == WITH_NOTES);
    let mut page = Page { socket, notes };
    let name = actor.user().map_or("", |u| u.name.as_str());
    let (code, reason) = match app.viewers.enter(&grant.desktop, name, grant.view_only) {
        Some(presence) => {
            let mode = Mode {
                view_only: grant.view_only,
                let_in: false,
            };
            let end = watch(&app, &actor, &grant, &mut page, presence, mode).await;
            frame(end)
        }
        None => close::FULL,
    };
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    // The browser may be gone already.
    let closing = page.socket.send(Message::Close(Some(frame)));
    let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
}

/// Serves a client that was let in, until it ends.
pub(super) async fn watch<C, E>(
    app: &App,
    actor: &Actor,
    grant: &Grant,
    client: &mut C,
    presence: Presence,
    mode: Mode,
) -> End
where
    C: Stream<Item = Result<ClientItem, E>> + Sink<ToClient, Error = E> + Unpin,
{
    let (orders, servers) = mpsc::channel(2);
    let lost = Arc::new(Notify::new());
    let supply = supply::supply(app, actor, &grant.desktop, orders, lost.clone());
    let notes = viewers_notes(&presence);
    let gateway = lyceum_console::serve(client, servers, lost, notes, mode, Limits::default());
    tokio::pin!(gateway, supply);
    tokio::select! {
        end = &mut gateway => end,
        // It has said why; the gateway ends by it.
        () = &mut supply => gateway.await,
    }
}

fn viewers_notes(presence: &Presence) -> impl Stream<Item = String> + Unpin + '_ {
    let mut changes = presence.changes.clone();
    changes.mark_changed();
    Box::pin(futures::stream::unfold(
        changes,
        move |mut changes| async move {
            changes.changed().await.ok()?;
            let words = json!({ "viewers": presence.seen() }).to_string();
            Some((words, changes))
        },
    ))
}

fn frame(end: End) -> (u16, &'static str) {
    match end {
        End::Closed { code, reason } => (code, reason),
        End::Idle => close::IDLE,
        End::Gone | End::Stalled | End::Lifetime => close::ENDED,
        End::Client(_) => (1002, "this is not RFB 3.8"),
    }
}

/// A browser.
struct Page {
    socket: WebSocket,
    notes: bool,
}

impl Stream for Page {
    type Item = Result<ClientItem, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(Message::Binary(bytes))) => Ok(ClientItem::Bytes(bytes)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(ClientItem::Alive),
            Some(Ok(Message::Close(_) | Message::Text(_))) | None => return Poll::Ready(None),
            Some(Err(e)) => Err(e),
        };
        Poll::Ready(Some(item))
    }
}

impl Sink<ToClient> for Page {
    type Error = axum::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.socket).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: ToClient) -> Result<(), axum::Error> {
        let message = match item {
            ToClient::Bytes(bytes) => Message::Binary(bytes),
            ToClient::Ping => Message::Ping(Bytes::new()),
            ToClient::Note(_) if !self.notes => return Ok(()),
            ToClient::Note(Note::Waiting) => {
                Message::Text(json!({"link": "waiting"}).to_string().into())
            }
            ToClient::Note(Note::Live) => Message::Text(json!({"link": "live"}).to_string().into()),
            ToClient::Note(Note::Text(words)) => Message::Text(words.into()),
        };
        Pin::new(&mut self.socket).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
