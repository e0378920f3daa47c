//! A browser's side of a console, as far as tests need it.

use crate::world::Classroom;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};

/// What carries it.
pub type Pipe = Box<dyn Both>;
pub trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Both for S {}

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const ASK: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 160, 0, 120];

pub fn key(k: u8) -> [u8; 8] {
    [4, 1, 0, 0, 0, 0, 0, k]
}

/// What a simulated machine shows after a key: one colour, changed by each key in its own way.
pub fn after([r, g, b]: [u8; 3], k: u8) -> [u8; 3] {
    let [_, kr, kg, kb] = u32::from(k).wrapping_mul(2_654_435_761).to_be_bytes();
    [r ^ kr, g.wrapping_add(kg | 1), b ^ kb]
}

pub struct Viewer {
    socket: WebSocketStream<Pipe>,
    pub buffer: Vec<u8>,
    pub notes: Vec<Value>,
}

pub async fn connect(room: &Classroom, ticket: &str) -> Result<Viewer, Error> {
    let stream = UnixStream::connect(room.socket()).await.unwrap();
    let mut request = format!("ws://localhost/api/v1/console/{ticket}")
        .into_client_request()
        .unwrap();
    let protocol = "lyceum".parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    shake(request, Box::new(stream)).await
}

/// A console on this stream.
pub async fn shake(request: Request<()>, stream: Pipe) -> Result<Viewer, Error> {
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(Viewer {
        socket,
        buffer: Vec::new(),
        notes: Vec::new(),
    })
}

pub fn ticket(room: &Classroom, desktop: &str, view_only: bool) -> String {
    let path = format!("desktops/{desktop}/console-ticket?view_only={view_only}");
    let answer = room.send("POST", &path, json!({})).expect("a ticket");
    answer["ticket"].as_str().unwrap().to_owned()
}

impl Viewer {
    pub fn open(room: &Classroom, desktop: &str, view_only: bool) -> Viewer {
        let ticket = ticket(room, desktop, view_only);
        room.run(async {
            let mut viewer = connect(room, &ticket).await.expect("a console");
            viewer.begin().await;
            viewer
        })
    }

    /// Shakes hands and asks for the first picture.
    pub async fn begin(&mut self) {
        assert_eq!(self.read(12).await, b"RFB 003.008\n");
        self.send(b"RFB 003.008\n").await;
        assert_eq!(self.read(2).await, [1, 1]);
        self.send(&[1]).await;
        assert_eq!(self.read(4).await, [0; 4]);
        self.send(&[1]).await;
        let init = self.read(24).await;
        assert_eq!(init[..4], [0, 160, 0, 120]);
        let name = u32::from_be_bytes(init[20..].try_into().unwrap());
        self.read(name as usize).await;
        self.send(&ASK).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let message = Message::binary(bytes.to_vec());
        self.socket.send(message).await.expect("it is open");
    }

    /// The next message, or the code it was closed with.
    pub async fn hear(&mut self) -> Result<(), u16> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next());
        match next.await.expect("something comes") {
            Some(Ok(Message::Binary(bytes))) => self.buffer.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => {
                self.notes.push(serde_json::from_str(&text).expect("JSON"));
            }
            Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |f| f.code.into())),
            Some(Ok(_)) => {}
            Some(Err(e)) => panic!("{e}"),
            None => return Err(0),
        }
        Ok(())
    }

    pub async fn read(&mut self, bytes: usize) -> Vec<u8> {
        while self.buffer.len() < bytes {
            self.hear().await.expect("it stays open");
        }
        self.buffer.drain(..bytes).collect()
    }

    /// The next picture's colour; the one after is asked for.
    pub async fn colour(&mut self) -> [u8; 3] {
        let head = self.read(16).await;
        assert_eq!(head[..4], [0, 0, 0, 1], "an update with one rectangle");
        assert_eq!(head[12..], [0; 4], "raw");
        let pixels = self.read(160 * 120 * 4).await;
        self.send(&ASK).await;
        [pixels[2], pixels[1], pixels[0]]
    }

    /// Pictures until it shows this.
    pub async fn until(&mut self, colour: [u8; 3]) {
        while self.colour().await != colour {}
    }

    pub async fn noted(&mut self, note: Value) {
        while !self.notes.contains(&note) {
            self.hear().await.expect("it stays open");
        }
        self.notes.retain(|n| *n != note);
    }

    /// The code it is closed with; what comes before does not matter.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.hear().await {
                return code;
            }
        }
    }

    /// As [`send`](Self::send), where it may be closed.
    pub async fn try_send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.socket.send(Message::binary(bytes.to_vec())).await
    }

    /// Until nobody is there any more, in whatever way.
    pub async fn gone(&mut self) {
        let ended = async { while let Some(Ok(_)) = self.socket.next().await {} };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("it ends");
    }
}
