//! A WebSocket (RFC 6455) at the server's end, after its handshake, as a carrier of a stream of bytes.
//!
//! What a console needs of WebSockets is little, and a thousand idle ones should cost little: nothing is
//! collected, so there is no longest message and no buffer. A frame's bytes are given on as they come, whatever message they
//! belong to; what is sent goes out with its frame's head in one call, without being copied. Extensions are not
//! agreed upon, so there is no compression: pictures are compressed already.

use crate::gateway::poll_block;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, Stream};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// What waits to be written until no more is taken, in bytes.
const HIGH: usize = 64 * 1024;
/// Slices given to the system at once.
const SLICES: usize = 32;
/// Room for parts that is kept for the next ones.
const KEPT: usize = 4;
/// Longest payload of a frame that is not data.
const CONTROL_MAX: usize = 125;

const CONTINUED: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What is heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next bytes of the stream.
    Bytes(Bytes),
    /// A sign of life.
    Alive,
}

/// What is said.
#[derive(Debug, PartialEq, Eq)]
pub enum Say {
    /// The next bytes of the stream. Those that follow each other may go in one message.
    Bytes(Bytes),
    /// A text message beside it.
    Text(String),
    /// A question for a sign of life.
    Ping,
    /// The end.
    Close {
        /// Close code.
        code: u16,
        /// Why; cut after 123 bytes.
        reason: &'static str,
    },
}

// What the next bytes are.
#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    Data { left: u64 },
    Control { kind: u8, left: usize },
    Over,
}

#[derive(Debug)]
enum Part {
    Head { bytes: [u8; 10], from: u8, to: u8 },
    Payload(Bytes),
}

impl Part {
    // The fewest bytes that say so.
    fn head(kind: u8, length: usize) -> Part {
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | kind;
        let to = if length <= CONTROL_MAX {
            bytes[1] = length as u8;
            2
        } else if let Ok(short) = u16::try_from(length) {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&short.to_be_bytes());
            4
        } else {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        };
        Part::Head { bytes, from: 0, to }
    }

    fn rest(&self) -> &[u8] {
        match self {
            Part::Head { bytes, from, to } => bytes
                .get(usize::from(*from)..usize::from(*to))
                .unwrap_or_default(),
            Part::Payload(bytes) => bytes,
        }
    }

    fn advance(&mut self, by: usize) {
        match self {
            // At most ten.
            Part::Head { from, .. } => *from += by as u8,
            Part::Payload(bytes) => drop(bytes.split_to(by)),
        }
    }
}

// The last frame that is to be sent, as long as it may become longer.
#[derive(Debug, Clone, Copy)]
struct Open {
    parts: usize,
    bytes: usize,
}

/// See the [module](self). Ends (`None`) when the client says so or hangs up; what is not
/// understood is an error, after which nothing more is heard.
#[derive(Debug)]
pub struct WebSocket<S> {
    stream: S,
    state: State,
    // Head of a frame, until it is whole: 14 bytes at most.
    head: [u8; 14],
    head_there: usize,
    mask: [u8; 4],
    // How far the mask was used.
    turned: usize,
    // In the middle of a message.
    in_message: bool,
    control: Vec<u8>,
    unread: BytesMut,
    out: VecDeque<Part>,
    out_bytes: usize,
    open: Option<Open>,
    // An answer to a ping is in `out`.
    ponging: bool,
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<S> WebSocket<S> {
    /// On a stream whose handshake is done.
    pub fn new(stream: S) -> Self {
        WebSocket {
            stream,
            state: State::Head,
            head: [0; 14],
            head_there: 0,
            mask: [0; 4],
            turned: 0,
            in_message: false,
            control: Vec::new(),
            unread: BytesMut::new(),
            out: VecDeque::new(),
            out_bytes: 0,
            open: None,
            ponging: false,
        }
    }

    fn push(&mut self, part: Part) {
        self.out_bytes += part.rest().len();
        self.out.push_back(part);
    }

    fn frame(&mut self, kind: u8, payload: Bytes) {
        self.push(Part::head(kind, payload.len()));
        self.push(Part::Payload(payload));
        self.open = None;
    }

    // Into the frame before, when nothing of it was sent yet: fewer messages for a browser to look at.
    fn data(&mut self, payload: Bytes) {
        let length = payload.len();
        match self.open {
            Some(open) => {
                let at = self.out.len().checked_sub(open.parts + 1);
                let bytes = open.bytes + length;
                if let Some(head) = at.and_then(|at| self.out.get_mut(at)) {
                    let before = head.rest().len();
                    *head = Part::head(BINARY, bytes);
                    self.out_bytes += head.rest().len() - before;
                }
                self.open = Some(Open {
                    parts: open.parts + 1,
                    bytes,
                });
                self.push(Part::Payload(payload));
            }
            None => {
                self.frame(BINARY, payload);
                self.open = Some(Open {
                    parts: 1,
                    bytes: length,
                });
            }
        }
    }

    // Takes the next frame's head, or as much of it as is there; whether it is whole.
    fn take_head(&mut self) -> io::Result<bool> {
        loop {
            let need = match (self.head_there, self.head[1] & 0x7f) {
                (0 | 1, _) => 2,
                (_, 126) => 8,
                (_, 127) => 14,
                (_, _) => 6,
            };
            let now = (need - self.head_there).min(self.unread.len());
            self.head[self.head_there..self.head_there + now].copy_from_slice(&self.unread[..now]);
            self.unread.advance(now);
            self.head_there += now;
            if self.head_there < need {
                return Ok(false);
            }
            if self.head[1] & 0x80 == 0 {
                return Err(wrong("a frame without a mask"));
            }
            if need > 2 {
                break;
            }
        }
        let whole = std::mem::take(&mut self.head_there);
        let [first, second, ..] = self.head;
        let kind = first & 0x0f;
        let last = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(wrong("a frame of an extension that was not agreed upon"));
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let left = match second & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        };
        if left >> 63 != 0 {
            return Err(wrong("a frame of impossible length"));
        }
        self.mask.copy_from_slice(&self.head[whole - 4..whole]);
        self.turned = 0;
        self.state = match kind {
            CLOSE | PING | PONG => {
                if !last || left > CONTROL_MAX as u64 {
                    return Err(wrong("a long or divided frame that is not data"));
                }
                self.control.clear();
                State::Control {
                    kind,
                    left: left as usize,
                }
            }
            BINARY | CONTINUED => {
                if (kind == CONTINUED) != self.in_message {
                    return Err(wrong("a frame that does not belong to its message"));
                }
                self.in_message = !last;
                State::Data { left }
            }
            TEXT => return Err(wrong("text where bytes should be")),
            _ => return Err(wrong("a frame of an unknown kind")),
        };
        Ok(true)
    }

    fn unmasked(&mut self, most: u64) -> BytesMut {
        let now = most.min(self.unread.len() as u64) as usize;
        // Mostly it is all there is.
        let mut bytes = match now == self.unread.len() {
            true => std::mem::take(&mut self.unread),
            false => self.unread.split_to(now),
        };
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte ^= self.mask[(self.turned + i) & 3];
        }
        self.turned = (self.turned + now) & 3;
        bytes
    }

    // The next that was heard, out of what was read; nothing: more has to be read.
    fn next_heard(&mut self) -> io::Result<Option<Heard>> {
        loop {
            match self.state {
                State::Head => {
                    if !self.take_head()? {
                        return Ok(None);
                    }
                    if let State::Data { left: 0 } = self.state {
                        self.state = State::Head;
                        return Ok(Some(Heard::Alive));
                    }
                }
                State::Data { left } => {
                    if self.unread.is_empty() {
                        return Ok(None);
                    }
                    let bytes = self.unmasked(left);
                    let left = left - bytes.len() as u64;
                    self.state = match left {
                        0 => State::Head,
                        left => State::Data { left },
                    };
                    return Ok(Some(Heard::Bytes(bytes.freeze())));
                }
                State::Control { kind, left } => {
                    let bytes = self.unmasked(left as u64);
                    self.control.extend_from_slice(&bytes);
                    let left = left - bytes.len();
                    if left > 0 {
                        self.state = State::Control { kind, left };
                        return Ok(None);
                    }
                    self.state = State::Head;
                    if kind == CLOSE {
                        self.state = State::Over;
                        return Ok(None);
                    }
                    let payload = std::mem::take(&mut self.control);
                    // Who asks faster than it reads is answered once.
                    if kind == PING && !self.ponging {
                        self.ponging = true;
                        self.frame(PONG, payload.into());
                    }
                    return Ok(Some(Heard::Alive));
                }
                State::Over => return Ok(None),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    // Writes what waits; ready when all of it is with the system.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            self.open = None;
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut many = 0;
            for (slice, part) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(part.rest());
                many += 1;
            }
            let slices = slices.get(..many).unwrap_or_default();
            let mut written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out_bytes = self.out_bytes.saturating_sub(written);
            while let Some(part) = self.out.front_mut() {
                let length = part.rest().len();
                if length > written {
                    part.advance(written);
                    break;
                }
                written -= length;
                self.out.pop_front();
            }
        }
        self.ponging = false;
        self.out_bytes = 0;
        if self.out.capacity() > KEPT {
            // An idle connection keeps next to no memory.
            self.out = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Heard>>> {
        loop {
            let heard = self.next_heard()?;
            if self.ponging {
                // Nobody else may have something to send.
                let _ = self.poll_write_out(cx)?;
            }
            if heard.is_some() {
                return Poll::Ready(Ok(heard));
            }
            if let State::Over = self.state {
                return Poll::Ready(Ok(None));
            }
            let read = ready!(poll_block(&mut self.stream, cx))?;
            if read.is_empty() {
                return Poll::Ready(Ok(None));
            }
            // All that was there before was taken.
            self.unread = BytesMut::from(read);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WebSocket<S> {
    type Item = io::Result<Heard>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Heard>>> {
        let heard = match self.state {
            State::Over => Ok(None),
            _ => ready!(self.poll_heard(cx)),
        };
        if !matches!(heard, Ok(Some(_))) {
            self.state = State::Over;
            self.unread = BytesMut::new();
        }
        Poll::Ready(heard.transpose())
    }
}

impl<S: AsyncWrite + Unpin> Sink<Say> for WebSocket<S> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out_bytes < HIGH {
            return Poll::Ready(Ok(()));
        }
        self.poll_write_out(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, say: Say) -> io::Result<()> {
        match say {
            Say::Bytes(bytes) => self.data(bytes),
            Say::Text(text) => self.frame(TEXT, text.into()),
            Say::Ping => self.frame(PING, Bytes::new()),
            Say::Close { code, reason } => {
                let mut payload = code.to_be_bytes().to_vec();
                let mut end = reason.len().min(CONTROL_MAX - 2);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
                self.frame(CLOSE, payload.into());
            }
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
