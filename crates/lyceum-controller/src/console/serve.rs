//! One console: a browser's WebSocket, and what is told beside the picture.

use super::viewers::Presence;
use super::{Grant, supply};
use crate::app::App;
use crate::auth::Actor;
use axum::http::{HeaderValue, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use futures::{Sink, SinkExt, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use lyceum_console::websocket::{Heard, Say};
use lyceum_console::{ClientItem, End, Mode, Note, ToClient, WebSocket};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// How long a browser may take to answer that it is over.
const BYE: Duration = Duration::from_secs(2);
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
    /// It was open for long enough.
    pub const LIFETIME: (u16, &str) = (4010, "this console was open for as long as one may be");
    /// The controller ends; connect again.
    pub const RESTART: (u16, &str) = (1012, "the controller restarts");
}

/// A request that asks for a WebSocket.
pub struct Upgrade {
    key: String,
    notes: bool,
    binary: bool,
    stream: hyper::upgrade::OnUpgrade,
}

impl Upgrade {
    /// Out of a request; `None`: it asks for something else. HTTP/2 has another way, which is not offered to browsers, so they take this one.
    pub fn of(parts: &mut Parts) -> Option<Upgrade> {
        let words = |name: header::HeaderName| {
            let all = parts.headers.get_all(name);
            let text = all.iter().filter_map(|v| v.to_str().ok());
            text.flat_map(|v| v.split(',').map(|word| word.trim().to_owned()))
                .collect::<Vec<_>>()
        };
        let says = |name, what: &str| words(name).iter().any(|w| w.eq_ignore_ascii_case(what));
        let asked = parts.method == Method::GET
            && says(header::CONNECTION, "upgrade")
            && says(header::UPGRADE, "websocket")
            && says(header::SEC_WEBSOCKET_VERSION, "13");
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.and_then(|v| v.to_str().ok()).filter(|_| asked)?;
        Some(Upgrade {
            key: key.to_owned(),
            notes: says(header::SEC_WEBSOCKET_PROTOCOL, WITH_NOTES),
            binary: says(header::SEC_WEBSOCKET_PROTOCOL, "binary"),
            stream: parts.extensions.remove()?,
        })
    }
}

/// Answers a request for a WebSocket, and serves it.
pub fn upgrade(app: App, actor: Actor, grant: Grant, upgrade: Upgrade) -> Response {
    let accept = derive_accept_key(upgrade.key.as_bytes());
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    let protocol = match (upgrade.notes, upgrade.binary) {
        (true, _) => Some(WITH_NOTES),
        (false, true) => Some("binary"),
        (false, false) => None,
    };
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_static(protocol);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    tokio::spawn(async move {
        match upgrade.stream.await {
            Ok(stream) => {
                let page = Page {
                    socket: WebSocket::new(TokioIo::new(stream)),
                    notes: upgrade.notes,
                };
                serve(app, actor, grant, page).await;
            }
            Err(e) => tracing::debug!(desktop = %grant.desktop, "a console was not opened: {e}"),
        }
    });
    response
}

async fn serve(app: App, actor: Actor, grant: Grant, mut page: Page) {
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
    let bye = async {
        page.socket.send(Say::Close { code, reason }).await?;
        // It answers, and hangs up when it has read all: closed by this end first, what is on its way might be lost.
        while let Some(Ok(_)) = page.socket.next().await {}
        page.socket.close().await
    };
    // The browser may be gone already.
    let _ = tokio::time::timeout(BYE, bye).await;
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
    let gateway = lyceum_console::serve(client, servers, lost, notes, mode, app.config.console);
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
        End::Lifetime => close::LIFETIME,
        End::Gone | End::Stalled => close::ENDED,
        End::Client(_) => (1002, "this is not RFB 3.8"),
    }
}

/// A browser.
struct Page {
    socket: WebSocket<TokioIo<hyper::upgrade::Upgraded>>,
    notes: bool,
}

impl Stream for Page {
    type Item = std::io::Result<ClientItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(Heard::Bytes(bytes))) => Ok(ClientItem::Bytes(bytes)),
            Some(Ok(Heard::Alive)) => Ok(ClientItem::Alive),
            Some(Err(e)) => Err(e),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(item))
    }
}

impl Sink<ToClient> for Page {
    type Error = std::io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: ToClient) -> std::io::Result<()> {
        let say = match item {
            ToClient::Bytes(bytes) => Say::Bytes(bytes),
            ToClient::Ping => Say::Ping,
            ToClient::Note(_) if !self.notes => return Ok(()),
            ToClient::Note(Note::Waiting) => Say::Text(json!({"link": "waiting"}).to_string()),
            ToClient::Note(Note::Live) => Say::Text(json!({"link": "live"}).to_string()),
            ToClient::Note(Note::Text(words)) => Say::Text(words),
        };
        Pin::new(&mut self.socket).start_send(say)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
