//! Types on a desktop's keyboard through its console, as a person would: no more of RFB than that takes.

use crate::context::Context;
use crate::exit::{self, Exit};
use futures::{SinkExt, StreamExt};
use lyceum_api::desktops::ConsoleTicket;
use lyceum_model::DesktopId;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Between two keys: a PS/2 keyboard holds few, and a desktop that has little CPU reads them late.
const BETWEEN_KEYS: Duration = Duration::from_millis(60);
/// The console has to say something within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keysym of the return key.
pub const RETURN: u32 = 0xff0d;

/// An open console of one desktop.
pub struct Typist {
    socket: WebSocketStream<reqwest::Upgraded>,
    heard: Vec<u8>,
}

fn trouble(why: impl std::fmt::Display) -> anyhow::Error {
    Exit::coded(
        exit::FAILED,
        format!("the console of a desktop can't be used: {why}"),
    )
}

impl Typist {
    /// Opens the console and shakes hands.
    pub async fn open(ctx: &Context, desktop: &DesktopId) -> anyhow::Result<Typist> {
        let path = format!("desktops/{desktop}/console-ticket");
        let ticket: ConsoleTicket = ctx.client.post(&path, &serde_json::json!({})).await?;
        let stream = ctx
            .client
            .web_socket(&format!("console/{}", ticket.ticket))
            .await?;
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let mut typist = Typist {
            socket,
            heard: Vec::new(),
        };
        let version = typist.read(12).await?;
        typist.send(&version).await?;
        let kinds = typist.read(1).await?;
        let kinds = typist
            .read(usize::from(kinds.first().copied().unwrap_or(0)))
            .await?;
        if !kinds.contains(&1) {
            return Err(trouble("it asks for a password"));
        }
        typist.send(&[1]).await?;
        if typist.read(4).await? != [0; 4] {
            return Err(trouble("it let nobody in"));
        }
        // Shared with whoever looks on.
        typist.send(&[1]).await?;
        let init = typist.read(24).await?;
        let name = init
            .get(20..24)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_be_bytes);
        typist.read(name as usize).await?;
        Ok(typist)
    }

    async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let message = Message::binary(bytes.to_vec());
        self.socket.send(message).await.map_err(trouble)
    }

    async fn read(&mut self, bytes: usize) -> anyhow::Result<Vec<u8>> {
        while self.heard.len() < bytes {
            let next = tokio::time::timeout(PATIENCE, self.socket.next())
                .await
                .map_err(|_| trouble("it says nothing"))?;
            match next {
                Some(Ok(Message::Binary(more))) => self.heard.extend_from_slice(&more),
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map(|f| f.reason.to_string()).unwrap_or_default();
                    return Err(trouble(format!("it was closed: {why}")));
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(trouble(e)),
                None => return Err(trouble("it was closed")),
            }
        }
        Ok(self.heard.drain(..bytes).collect())
    }

    /// Presses and lets go a key.
    pub async fn key(&mut self, keysym: u32) -> anyhow::Result<()> {
        for down in [1, 0] {
            let mut event = vec![4, down, 0, 0];
            event.extend(keysym.to_be_bytes());
            self.send(&event).await?;
            tokio::time::sleep(BETWEEN_KEYS / 2).await;
        }
        Ok(())
    }

    /// Types text that needs no shift key.
    pub async fn text(&mut self, text: &str) -> anyhow::Result<()> {
        for letter in text.chars() {
            // Keysyms of these are their code points.
            self.key(u32::from(letter)).await?;
        }
        Ok(())
    }
}
