//! The asynchronous edge: carries bytes between a client and whichever server there is.
//!
//! What is not read by one side is not read from the other, and a client that does not read is
//! not asked for. So a connection holds a bounded amount of memory, and next to none when it is idle.

use crate::protocol::ProtocolError;
use crate::session::{Mode, Session};
use bytes::{Bytes, BytesMut};
use futures::{Sink, Stream};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio_util::io::poll_read_buf;

/// Bytes read at once. The block belongs to the thread, not to the connection.
const BLOCK: usize = 64 * 1024;
/// From so many on they are passed on where they were read; fewer are copied out, so that what waits for a slow client never
/// keeps a block that is mostly empty.
const KEPT: usize = BLOCK / 4;
/// Rounds until others get their turn.
const ROUNDS: usize = 32;

/// What a client sends.
#[derive(Debug)]
pub enum ClientItem {
    /// Bytes of its RFB stream.
    Bytes(Bytes),
    /// A sign of life.
    Alive,
}

/// What a client is sent.
#[derive(Debug)]
pub enum ToClient {
    /// Bytes of its RFB stream.
    Bytes(Bytes),
    /// Something beside the stream; clients that have no place for it leave it out.
    Note(Note),
    /// It is asked for a sign of life.
    Ping,
}

/// What is said beside the RFB stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// There is no server: the picture stands still.
    Waiting,
    /// A server shows its picture.
    Live,
    /// Words of the caller.
    Text(String),
}

/// What is told of the servers behind a client's connection.
#[derive(Debug)]
pub enum Server<S> {
    /// Go on with this one.
    Attach {
        /// A fresh connection to it.
        stream: S,
        /// It goes on with the machine that the last one ran, as it was.
        same: bool,
        /// Bytes of the last connection that its server is known to have read.
        taken: Option<u64>,
    },
    /// There is none for the moment.
    Detach,
    /// It is over.
    Close {
        /// Close code of the WebSocket.
        code: u16,
        /// Why.
        reason: &'static str,
    },
}

/// For how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A client that takes nothing for so long is not there.
    pub stalled: Duration,
    /// A client that was not heard for so long is asked for a sign of life.
    pub ping: Duration,
    /// A client that gives none for so long is not there.
    pub dead: Duration,
    /// A client that may do something but does nothing for so long is sent away.
    pub idle: Duration,
    /// The longest that a connection lasts.
    pub lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            stalled: Duration::from_secs(60),
            ping: Duration::from_secs(30),
            dead: Duration::from_secs(90),
            idle: Duration::from_secs(3 * 3600),
            lifetime: Duration::from_secs(12 * 3600),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client went away.
    Gone,
    /// The client can't be understood.
    Client(ProtocolError),
    /// The client does not read, or gives no sign of life.
    Stalled,
    /// The client did nothing for too long.
    Idle,
    /// It lasted long enough.
    Lifetime,
    /// The caller said so.
    Closed {
        /// Close code of the WebSocket.
        code: u16,
        /// Why.
        reason: &'static str,
    },
}

/// Serves one client until it ends. `servers` tells which server there is; `lost` is notified when one
/// ended, or has to be connected to anew, without being told so. `notes` are passed on.
///
/// The client's connection is not closed by this: how that is done is the caller's.
pub async fn serve<C, E, S, N>(
    client: &mut C,
    servers: mpsc::Receiver<Server<S>>,
    lost: Arc<Notify>,
    notes: N,
    mode: Mode,
    limits: Limits,
) -> End
where
    C: Stream<Item = Result<ClientItem, E>> + Sink<ToClient, Error = E> + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    N: Stream<Item = String> + Unpin,
{
    let now = now();
    Pump {
        client,
        servers,
        lost,
        notes: Some(notes),
        stream: None,
        session: Session::new(mode),
        view_only: mode.view_only,
        limits,
        began: now,
        heard: now,
        pinged: now,
        acted: (0, now),
        lagging: None,
        to_flush: false,
        server_to_flush: false,
        ping_due: false,
        told_live: None,
        words: None,
        timer: Box::pin(tokio::time::sleep(limits.ping)),
    }
    .await
}

struct Pump<'a, C, S, N> {
    client: &'a mut C,
    servers: mpsc::Receiver<Server<S>>,
    lost: Arc<Notify>,
    notes: Option<N>,
    stream: Option<S>,
    session: Session,
    view_only: bool,
    limits: Limits,
    began: Instant,
    heard: Instant,
    pinged: Instant,
    // What the person did so far, and when the last of it.
    acted: (u64, Instant),
    lagging: Option<Instant>,
    to_flush: bool,
    server_to_flush: bool,
    ping_due: bool,
    told_live: Option<bool>,
    words: Option<String>,
    timer: Pin<Box<tokio::time::Sleep>>,
}

// Who has said that there is nothing more for now.
#[derive(Default)]
struct Quiet {
    caller: bool,
    client: bool,
    server: bool,
}

// The clock of the timers, which tests may hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

thread_local! {
    static READ: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

// Reads into the thread's block and takes out what came; no memory is held by a connection that waits.
// Nothing means the end.
pub(crate) fn poll_block(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<Bytes>> {
    READ.with_borrow_mut(|block| {
        block.clear();
        // The old one again, once everything that was read into it is gone.
        block.reserve(BLOCK);
        let read = ready!(poll_read_buf(Pin::new(stream), cx, block))?;
        Poll::Ready(Ok(match read {
            few @ ..KEPT => Bytes::copy_from_slice(block.get(..few).unwrap_or_default()),
            _ => block.split().freeze(),
        }))
    })
}

impl<C, E, S, N> Future for Pump<'_, C, S, N>
where
    C: Stream<Item = Result<ClientItem, E>> + Sink<ToClient, Error = E> + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    N: Stream<Item = String> + Unpin,
{
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        let mut now = self::now();
        // Who has nothing more to say wakes this up again, and is not asked twice until then.
        let mut quiet = Quiet::default();
        for _ in 0..ROUNDS {
            let mut went_on = match this.hear(cx, now, &mut quiet) {
                Ok(went_on) => went_on,
                Err(end) => return Poll::Ready(end),
            };
            went_on |= this.hear_server(cx, &mut quiet);
            let more_at = this.session.advance(now);
            went_on |= this.tell_server(cx);
            went_on |= match this.tell_client(cx, now) {
                Ok(went_on) => went_on,
                Err(end) => return Poll::Ready(end),
            };
            if went_on {
                continue;
            }
            match this.times(now) {
                Ok(next) => {
                    let next = more_at.map_or(next, |at| at.min(next)).into();
                    // One that comes too early only looks again; setting it anew with every message costs more.
                    if this.timer.deadline() > next || this.timer.is_elapsed() {
                        this.timer.as_mut().reset(next);
                    }
                }
                Err(end) => return Poll::Ready(end),
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            now = self::now();
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<C, E, S, N> Pump<'_, C, S, N>
where
    C: Stream<Item = Result<ClientItem, E>> + Sink<ToClient, Error = E> + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    N: Stream<Item = String> + Unpin,
{
    // Orders, notes, and what the client says.
    fn hear(&mut self, cx: &mut Context<'_>, now: Instant, quiet: &mut Quiet) -> Result<bool, End> {
        let mut went_on = false;
        if !quiet.caller {
            went_on |= self.hear_caller(cx, quiet)?;
            quiet.caller = true;
        }
        for _ in 0..ROUNDS {
            if quiet.client {
                break;
            }
            match Pin::new(&mut *self.client).poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => {
                    went_on = true;
                    self.heard = now;
                    if let ClientItem::Bytes(bytes) = item {
                        self.session.from_client(&bytes).map_err(End::Client)?;
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Err(End::Gone),
                Poll::Pending => quiet.client = true,
            }
        }
        if self.acted.0 != self.session.inputs() {
            self.acted = (self.session.inputs(), now);
        }
        Ok(went_on)
    }

    // Orders and notes, all there are.
    fn hear_caller(&mut self, cx: &mut Context<'_>, quiet: &mut Quiet) -> Result<bool, End> {
        let mut went_on = false;
        while let Poll::Ready(order) = self.servers.poll_recv(cx) {
            went_on = true;
            quiet.server = false;
            match order {
                Some(Server::Attach {
                    stream,
                    same,
                    taken,
                }) => {
                    self.session.attach(same, taken);
                    self.stream = Some(stream);
                }
                Some(Server::Detach) => {
                    self.session.detach();
                    self.stream = None;
                }
                Some(Server::Close { code, reason }) => return Err(End::Closed { code, reason }),
                None => {
                    return Err(End::Closed {
                        code: 1011,
                        reason: "nobody looks for its server any more",
                    });
                }
            }
        }
        while let Some(notes) = &mut self.notes {
            match Pin::new(notes).poll_next(cx) {
                Poll::Ready(Some(words)) => {
                    self.words = Some(words);
                    went_on = true;
                }
                Poll::Ready(None) => self.notes = None,
                Poll::Pending => break,
            }
        }
        Ok(went_on)
    }

    fn lose(&mut self) {
        self.session.detach();
        self.stream = None;
        self.lost.notify_one();
    }

    fn hear_server(&mut self, cx: &mut Context<'_>, quiet: &mut Quiet) -> bool {
        let mut went_on = false;
        if self.session.wants_another_server() {
            self.lose();
            return true;
        }
        while !quiet.server
            && self.session.wants_server()
            && let Some(stream) = &mut self.stream
        {
            match poll_block(stream, cx) {
                Poll::Pending => {
                    quiet.server = true;
                    break;
                }
                Poll::Ready(Ok(chunk)) if !chunk.is_empty() => {
                    if self.session.from_server(chunk).is_err() {
                        self.lose();
                    }
                }
                Poll::Ready(_) => self.lose(),
            }
            went_on = true;
        }
        went_on
    }

    fn tell_server(&mut self, cx: &mut Context<'_>) -> bool {
        let mut went_on = false;
        while let Some(stream) = &mut self.stream {
            let bytes = self.session.to_server();
            if bytes.is_empty() {
                break;
            }
            match Pin::new(stream).poll_write(cx, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.session.wrote(written);
                    self.server_to_flush = true;
                }
                Poll::Ready(_) => self.lose(),
            }
            went_on = true;
        }
        if self.server_to_flush
            && let Some(stream) = &mut self.stream
        {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.server_to_flush = false,
                Poll::Ready(Err(_)) => {
                    self.lose();
                    went_on = true;
                }
            }
        }
        went_on
    }

    fn next_for_client(&mut self) -> Option<ToClient> {
        let live = !self.session.is_waiting();
        if self.told_live != Some(live) {
            self.told_live = Some(live);
            let note = if live { Note::Live } else { Note::Waiting };
            return Some(ToClient::Note(note));
        }
        if let Some(words) = self.words.take() {
            return Some(ToClient::Note(Note::Text(words)));
        }
        if std::mem::take(&mut self.ping_due) {
            return Some(ToClient::Ping);
        }
        self.session.to_client().map(ToClient::Bytes)
    }

    fn tell_client(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        let mut went_on = false;
        loop {
            match Pin::new(&mut *self.client).poll_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Err(End::Gone),
                Poll::Ready(Ok(())) => {}
            }
            let Some(item) = self.next_for_client() else {
                break;
            };
            went_on = true;
            self.lagging = None;
            self.to_flush = true;
            Pin::new(&mut *self.client)
                .start_send(item)
                .map_err(|_| End::Gone)?;
        }
        if self.to_flush {
            match Pin::new(&mut *self.client).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.to_flush = false;
                    self.lagging = None;
                    if self.session.to_client_is_empty() {
                        self.session.client_drained();
                    }
                    went_on = true;
                }
                Poll::Ready(Err(_)) => return Err(End::Gone),
                Poll::Pending => {
                    self.lagging.get_or_insert(now);
                }
            }
        }
        Ok(went_on)
    }

    // Ends what lasted too long; answers when to look again.
    fn times(&mut self, now: Instant) -> Result<Instant, End> {
        let limits = &self.limits;
        let mut next = now + limits.ping;
        let mut due = |since: Instant, limit: Duration| {
            let at = since + limit;
            next = next.min(at.max(now));
            at <= now
        };
        if due(self.began, limits.lifetime) {
            return Err(End::Lifetime);
        }
        if !self.view_only && due(self.acted.1, limits.idle) {
            return Err(End::Idle);
        }
        if due(self.heard, limits.dead) || self.lagging.is_some_and(|at| due(at, limits.stalled)) {
            return Err(End::Stalled);
        }
        if due(self.heard.max(self.pinged), limits.ping) {
            self.pinged = now;
            self.ping_due = true;
            next = now;
        }
        Ok(next)
    }
}

/// A client that speaks RFB and nothing beside it, on any stream.
#[derive(Debug)]
pub struct Plain<S> {
    stream: S,
    unsent: Bytes,
}

impl<S> Plain<S> {
    /// A client on this stream.
    pub fn new(stream: S) -> Self {
        Plain {
            stream,
            unsent: Bytes::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> Stream for Plain<S> {
    type Item = std::io::Result<ClientItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(poll_block(&mut self.stream, cx)) {
            Ok(bytes) if bytes.is_empty() => Poll::Ready(None),
            other => Poll::Ready(Some(other.map(ClientItem::Bytes))),
        }
    }
}

impl<S: AsyncWrite + Unpin> Sink<ToClient> for Plain<S> {
    type Error = std::io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        while !this.unsent.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            drop(this.unsent.split_to(written));
        }
        this.unsent = Bytes::new();
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, item: ToClient) -> std::io::Result<()> {
        if let ToClient::Bytes(bytes) = item {
            self.unsent = bytes;
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.as_mut().poll_ready(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
