//! Running desktops go from host to host, straight between the two agents.
//!
//! ```text
//!        SOURCE                                                  DESTINATION
//!  Running │ the first look at its pages begins                     │ Waiting: QEMU is there, has no lock
//!          │ ── upgrade lyceum-move, generation ──────────────────► │ who asks, and for what: checked
//!          │ ◄──────────────────────────────────────────── Ready ── │
//!  Sending │ ── pieces (the desktop runs) ────────────────────────► │ Receiving
//!  Still   │ ── pieces (it stands still, its disk is given up) ───► │
//!          │ ── Sent ─────────────────────────────────────────────► │ verified, device state loaded
//!          │ ◄─────────────────────────────────────────── Loaded ── │ Loaded: may not go on yet
//!  ════════╪═ hand-over: the source lets the disk's lock go ════════╪════════════════════════════
//!  Handed  │ ── Go ───────────────────────────────────────────────► │ takes the lock, then goes on
//!          │ ◄────────────────────────────────────────── Running ── │ Running
//!  Gone    │ ends its machine
//! ```
//!
//! **Who may go on when something breaks:**
//!
//! | broken | source | destination |
//! |---|---|---|
//! | before the hand-over | goes on: it holds the lock | hears nothing more, ends its machine |
//! | after it, `Go` was lost | takes the lock back and goes on | no `Go`, or too late for the lock: ends its machine |
//! | after it, `Running` was lost | finds the lock taken: ends its machine | runs |
//! | after it, and the destination dies | takes the lock; goes on if the disk is as it left it, else ends: the desktop failed and is started again | – |
//! | the source dies | its QEMU with it, or the next agent does the same as above | as above |
//! | the lock can't be asked (file server away) | stands still and asks again: *unknown* | holds it or not |
//!
//! So the lock decides, which lies where damage could be done, and not a message. The controller is not
//! needed for it and may be away; it gave the destination a newer generation, and by that knows later which of
//! two reports is the desktop. It is a decision of its own: `docs/adr/0008-the-disk-lock-decides-a-move.md`.

use crate::agent::Agent;
use lyceum_hypervisor::{HypervisorError, Instance, InstanceState, TakenBack, Usable};
use lyceum_model::{DesktopId, Generation, HostId, MoveWay};
use lyceum_proto::moves::{MESSAGE_MAX, Message, MoveRequest, Moved, PIECE_MAX, PROTOCOL};
use lyceum_wire::{ApiError, Client, Peer, PeerKind, RawStream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The longest that either side waits for a word of the other.
const SILENCE: Duration = Duration::from_secs(20);
/// The longest that QEMU may take to end what it was doing for a move that is over.
const WIND_UP: Duration = Duration::from_secs(90);
/// Between two questions to a lock that gave no answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long a machine that was ordered may take until it waits.
const LAUNCH: Duration = Duration::from_secs(60);
/// Pieces on their way between a machine and the network.
const PIECES: usize = 4;
/// Pieces of a delta that may wait until the machine over there is ready: its start and the first look at
/// the pages here take about as long as each other.
const AHEAD: usize = 32;

/// What a host keeps about moves.
pub(crate) struct Moves {
    slots: Arc<Semaphore>,
    /// From when on the next byte may be sent.
    link: Mutex<Instant>,
    /// Who may send a desktop here, and as which generation.
    expected: Mutex<HashMap<DesktopId, Expected>>,
}

/// A desktop that is waited for.
struct Expected {
    generation: Generation,
    from: HostId,
    /// Memory that it will need, MiB.
    mib: u64,
    /// Its machine waits no longer than this.
    until: Instant,
}

impl Moves {
    pub(crate) fn new(at_once: usize) -> Moves {
        Moves {
            slots: Arc::new(Semaphore::new(at_once)),
            link: Mutex::new(Instant::now()),
            expected: Mutex::default(),
        }
    }

    /// Those that are waited for still: a machine that waited in vain has ended, and its memory is free.
    fn expected(&self) -> std::sync::MutexGuard<'_, HashMap<DesktopId, Expected>> {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        expected.retain(|_, e| e.until > now);
        expected
    }

    /// From now on, for so long, this host may send this desktop; it will need `mib` of memory.
    pub(crate) fn expect(
        &self,
        id: &DesktopId,
        generation: Generation,
        from: HostId,
        mib: u64,
        wait: Duration,
    ) {
        // A time that can't be counted is far enough away.
        let until = Instant::now().checked_add(wait + LAUNCH);
        let until = until.unwrap_or_else(|| Instant::now() + LAUNCH * 60);
        let new = Expected {
            generation,
            from,
            mib,
            until,
        };
        self.expected().insert(id.clone(), new);
    }

    /// It is not waited for any more, up to this generation: it is there, or its move is over.
    pub(crate) fn not_expected(&self, id: &DesktopId, generation: Generation) {
        let mut expected = self.expected();
        if expected.get(id).is_some_and(|e| e.generation <= generation) {
            expected.remove(id);
        }
    }

    /// Memory of what is on its way here, MiB.
    pub(crate) fn on_their_way_mib(&self) -> u64 {
        let expected = self.expected();
        expected
            .values()
            .fold(0, |sum, e| sum.saturating_add(e.mib))
    }

    /// Waits until so many bytes may be sent, with all other moves of this host counted.
    async fn may_send(&self, bytes: usize, mbit_per_s: Option<u32>) {
        let Some(rate) = mbit_per_s.filter(|r| *r > 0) else {
            return;
        };
        let at = self.reserve(bytes, rate, Instant::now());
        tokio::time::sleep_until(at.into()).await;
    }

    /// When so many bytes may be sent: after all that other moves have reserved.
    fn reserve(&self, bytes: usize, mbit_per_s: u32, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / (f64::from(mbit_per_s) * 1e6));
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*link).max(now);
        *link = at + takes;
        at
    }
}

/// A move that did not come to its end.
pub(crate) struct Failure {
    pub(crate) error: ApiError,
    pub(crate) fate: Fate,
}

/// What became of the machine here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    GoesOn,
    /// It is not the desktop any more, nobody is: it is to be ended and has failed.
    Lost,
}

enum Frame {
    Message(Message),
    Piece(Vec<u8>),
}

async fn read<R: AsyncRead + Unpin>(from: &mut R, limit: Duration) -> Result<Frame, String> {
    let read = async {
        let tag = from.read_u8().await.map_err(|e| broke(&e))?;
        let length = from.read_u32().await.map_err(|e| broke(&e))?;
        let most = match tag {
            b'P' => PIECE_MAX,
            b'M' => MESSAGE_MAX,
            _ => return Err("the other host says what is not understood".to_owned()),
        };
        if length > most {
            return Err("the other host says too much at once".to_owned());
        }
        let mut bytes = vec![0; length as usize];
        from.read_exact(&mut bytes).await.map_err(|e| broke(&e))?;
        match tag {
            b'P' => Ok(Frame::Piece(bytes)),
            _ => serde_json::from_slice(&bytes)
                .map(Frame::Message)
                .map_err(|e| format!("the other host says what is not understood: {e}")),
        }
    };
    match tokio::time::timeout(limit, read).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "nothing was heard of the other host for {} s",
            limit.as_secs()
        )),
    }
}

fn broke(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "the connection to the other host was closed".into(),
        _ => format!("the connection to the other host broke: {e}"),
    }
}

async fn write<W: AsyncWrite + Unpin>(to: &mut W, tag: u8, bytes: &[u8]) -> Result<(), String> {
    let write = async {
        let mut frame = Vec::with_capacity(bytes.len() + 5);
        frame.push(tag);
        frame.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(bytes);
        to.write_all(&frame).await?;
        to.flush().await
    };
    match tokio::time::timeout(SILENCE, write).await {
        Ok(result) => result.map_err(|e| broke(&e)),
        Err(_) => Err(format!(
            "the other host took nothing for {} s",
            SILENCE.as_secs()
        )),
    }
}

async fn say<W: AsyncWrite + Unpin>(to: &mut W, message: &Message) -> Result<(), String> {
    let bytes = serde_json::to_vec(message).map_err(|e| e.to_string())?;
    write(to, b'M', &bytes).await
}

/// Waits for one certain word.
async fn hear<R: AsyncRead + Unpin>(
    from: &mut R,
    wanted: &Message,
    limit: Duration,
) -> Result<(), String> {
    match read(from, limit).await? {
        Frame::Message(said) if said == *wanted => Ok(()),
        Frame::Message(Message::Failed { why }) => Err(why),
        _ => Err("the other host says what does not belong here".into()),
    }
}

/// Sends a desktop away. Its machine is not ended here: that is for the caller, who owns it.
pub(crate) async fn send(
    agent: Arc<Agent>,
    id: DesktopId,
    instance: Arc<dyn Instance>,
    request: MoveRequest,
    cancel: CancellationToken,
) -> Result<Moved, Failure> {
    let began = Instant::now();
    let way = Way {
        agent: &agent,
        id: &id,
        instance: &*instance,
        request: &request,
        cancel: &cancel,
        shut: Arc::default(),
    };
    let (why, sent) = match way.attempt(began).await {
        Ok(moved) => return Ok(moved),
        Err(Broke { why, sent }) => (why, sent),
    };
    let failure = |text: String, fate| {
        let error = ApiError::state(text);
        Err(Failure { error, fate })
    };
    loop {
        match instance.take_back().await {
            Ok(TakenBack::GoesOn) => {
                return failure(
                    format!(
                        "desktop {id} could not be moved to {} and goes on where it was: {why}",
                        request.to
                    ),
                    Fate::GoesOn,
                );
            }
            // Its last word was lost, and that is all.
            Ok(TakenBack::Elsewhere) => {
                tracing::info!(desktop = %id, "it runs on {}, although that was not heard: {why}", request.to);
                return Ok(sent.unwrap_or(Moved {
                    bytes: 0,
                    pages: 0,
                    stand_still_ms: 0,
                    total_ms: began.elapsed().as_millis() as u64,
                }));
            }
            Ok(TakenBack::Outdated) => {
                return failure(
                    format!(
                        "desktop {id} went on on {} and ended there: {why}",
                        request.to
                    ),
                    Fate::Lost,
                );
            }
            Err(e) => {
                if let InstanceState::Ended { reason, .. } = &*instance.watch().borrow() {
                    return failure(
                        format!("desktop {id} ended while it was being moved: {reason}"),
                        Fate::Lost,
                    );
                }
                tracing::warn!(desktop = %id, "whether it goes on here is not known yet: {e}");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

/// What broke a move, and what is known of it if it was handed over.
struct Broke {
    why: String,
    sent: Option<Moved>,
}

impl From<String> for Broke {
    fn from(why: String) -> Broke {
        Broke { why, sent: None }
    }
}

struct Way<'a> {
    agent: &'a Agent,
    id: &'a DesktopId,
    instance: &'a dyn Instance,
    request: &'a MoveRequest,
    cancel: &'a CancellationToken,
    shut: Arc<Mutex<Option<crate::console::Shut>>>,
}

impl Way<'_> {
    async fn attempt(&self, began: Instant) -> Result<Moved, Broke> {
        let limit = Duration::from_millis(self.request.time_limit_ms);
        let called_off = async {
            tokio::select! {
                () = self.cancel.cancelled() => "it was called off".to_owned(),
                () = tokio::time::sleep(limit) => format!(
                    "it was not over within {:.0} s: try again when it does less, or allow more time or bandwidth",
                    limit.as_secs_f64()
                ),
            }
        };
        let mut called_off = std::pin::pin!(called_off);
        let _slot = tokio::select! {
            biased;
            why = &mut called_off => return Err(why.into()),
            slot = self.agent.moves.slots.clone().acquire_owned() => {
                slot.map_err(|_| "the agent is shutting down".to_owned())?
            }
        };
        let begin = async {
            let client = Client::new(
                &self.agent.identity.current(),
                &self.request.url,
                &Peer::new(PeerKind::Host, self.request.to.clone()),
            )
            .map_err(|e| e.to_string())?;
            let path = format!(
                "/v1/desktops/{}/arrival?generation={}",
                self.id, self.request.arrives_as
            );
            let mut stream = client
                .timeout(LAUNCH + SILENCE)
                .upgrade(&path, PROTOCOL)
                .await
                .map_err(|e| e.to_string())?;
            hear(&mut stream, &Message::Ready, SILENCE).await?;
            Ok::<_, String>(stream)
        };
        let mut begin = std::pin::pin!(begin);
        let mut stream: Option<RawStream> = None;
        let ahead = match self.request.way {
            MoveWay::Delta => AHEAD,
            // QEMU stops its machine when it thinks that little is left, whoever is ready for it.
            MoveWay::Live => {
                stream = Some(tokio::select! {
                    biased;
                    why = &mut called_off => return Err(why.into()),
                    begun = &mut begin => begun?,
                });
                PIECES
            }
        };
        let (out, mut pieces) = mpsc::channel(ahead);
        let (ready, is_ready) = tokio::sync::watch::channel(stream.is_some());
        let rate = self.request.mbit_per_s;
        let bytes_per_second = rate.filter(|r| *r > 0).map(|r| u64::from(r) * 125_000);
        // Its consoles end in order while it can still hear them, and stay shut until it is decided.
        let shut = self.shut.clone();
        let (consoles, id) = (self.agent.consoles.clone(), self.id.clone());
        let before_still = async move {
            // Nobody is ready for it any more: it does not stand still.
            let mut is_ready = is_ready;
            if is_ready.wait_for(|ready| *ready).await.is_err() {
                return;
            }
            let guard = consoles.let_go(&id).await;
            *shut.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        };
        let mut sending = self.instance.send(
            self.request.way,
            bytes_per_second,
            Box::pin(before_still),
            out,
        );
        let carry = async {
            let stream = match &mut stream {
                Some(stream) => stream,
                none => none.insert((&mut begin).await?),
            };
            ready.send_replace(true);
            let is_ready = began.elapsed();
            while let Some(piece) = pieces.recv().await {
                self.agent.moves.may_send(piece.len(), rate).await;
                write(stream, b'P', &piece).await?;
            }
            Ok::<_, String>(is_ready)
        };
        let mut sent = None;
        let carried = {
            let mut carry = std::pin::pin!(carry);
            loop {
                tokio::select! {
                    biased;
                    why = &mut called_off => break Err(why),
                    result = &mut sending, if sent.is_none() => sent = Some(result),
                    carried = &mut carry => break carried,
                }
            }
        };
        // From here on QEMU's part only ends. It is not dropped: what it still writes must not come
        // after what is decided below.
        drop(pieces);
        drop(ready);
        let sent = match sent {
            Some(sent) => sent,
            None => match tokio::time::timeout(WIND_UP, sending).await {
                Ok(sent) => sent,
                Err(_) => Err(HypervisorError::State(
                    "QEMU does not come to its end".into(),
                )),
            },
        };
        // It was not even begun.
        let Some(mut stream) = stream else {
            return Err(carried.err().unwrap_or_default().into());
        };
        if let Err(why) = carried {
            // It may have said why it closed the connection.
            let said = hear(&mut stream, &Message::Ready, Duration::from_secs(1)).await;
            return Err(match said {
                Err(said) if !said.contains("other host") => said,
                _ => why,
            }
            .into());
        }
        let all_sent = began.elapsed();
        let sent = sent.map_err(|e| e.to_string())?;
        let usable = sent.usable;
        say(
            &mut stream,
            &Message::Sent {
                address: usable.address,
                ssh_host_key: usable.ssh_host_key,
                guest_helper: usable.guest_helper,
            },
        )
        .await?;
        tokio::select! {
            biased;
            why = &mut called_off => return Err(why.into()),
            loaded = hear(&mut stream, &Message::Loaded, SILENCE * 6) => loaded?,
        }
        // Nobody can call it off any more.
        let so_far = |began: Instant| Moved {
            bytes: sent.bytes,
            pages: sent.pages,
            stand_still_ms: sent
                .stood_still
                .map_or(0, |at| at.elapsed().as_millis() as u64),
            total_ms: began.elapsed().as_millis() as u64,
        };
        let loaded = began.elapsed();
        self.instance.hand_over().await.map_err(|e| e.to_string())?;
        let gone = async {
            say(&mut stream, &Message::Go).await?;
            hear(&mut stream, &Message::Running, SILENCE).await
        };
        let gone = gone.await;
        let moved = so_far(began);
        tracing::debug!(
            desktop = %self.id, ready = ?carried.unwrap_or_default(), ?all_sent, ?loaded,
            still_ms = moved.stand_still_ms, total_ms = moved.total_ms, "moved"
        );
        match gone {
            Ok(()) => Ok(moved),
            Err(why) => Err(Broke {
                why,
                sent: Some(moved),
            }),
        }
    }
}

/// Whether this peer may send this desktop here.
pub(crate) fn may_arrive(
    agent: &Agent,
    id: &DesktopId,
    generation: Generation,
    peer: &Peer,
) -> Result<(), ApiError> {
    let expected = agent.moves.expected();
    match expected.get(id) {
        Some(e) if e.generation == generation && e.from == peer.name => Ok(()),
        _ => Err(ApiError::state(format!(
            "desktop {id} is not waited for as generation {generation} from {}: it may have taken too long",
            peer.name
        ))),
    }
}

/// The machine that waits for it, once it is there.
pub(crate) async fn waiting(
    agent: &Agent,
    id: &DesktopId,
    generation: Generation,
) -> Result<Arc<dyn Instance>, ApiError> {
    let gone = || ApiError::state(format!("no machine waits for desktop {id} here any more"));
    let desktop = agent.desktop(id).ok_or_else(gone)?;
    desktop
        .machine_of(generation, LAUNCH)
        .await
        .ok_or_else(gone)
}

/// Takes a desktop in. A machine into which nothing usable came is ended.
pub(crate) async fn arrive(
    agent: Arc<Agent>,
    id: DesktopId,
    generation: Generation,
    instance: Arc<dyn Instance>,
    stream: impl Future<Output = Result<RawStream, impl std::fmt::Display>>,
) {
    let result = async {
        let mut stream = stream.await.map_err(|e| e.to_string())?;
        let taken = take_in(&*instance, &mut stream).await;
        if let Err(why) = &taken {
            let why = why.clone();
            let _ = say(&mut stream, &Message::Failed { why }).await;
        }
        let _ = stream.shutdown().await;
        taken
    };
    let result: Result<(), String> = result.await;
    agent.moves.not_expected(&id, generation);
    let Err(why) = result else { return };
    if matches!(&*instance.watch().borrow(), InstanceState::Running { .. }) {
        // It was taken over; only the source was not told. The lock tells it.
        tracing::info!(desktop = %id, "it arrived; that could not be said: {why}");
        return;
    }
    tracing::warn!(desktop = %id, "it did not arrive: {why}");
    if let Err(e) = instance.end(Duration::ZERO).await {
        tracing::error!(desktop = %id, "the machine that waited could not be ended: {e}");
    }
}

async fn take_in(instance: &dyn Instance, stream: &mut RawStream) -> Result<(), String> {
    say(stream, &Message::Ready).await?;
    let (to, input) = mpsc::channel(PIECES);
    let mut receiving = instance.receive(input);
    let carry = async {
        loop {
            match read(stream, SILENCE).await? {
                Frame::Piece(piece) => {
                    if to.send(piece).await.is_err() {
                        // The machine says why.
                        return Ok(None);
                    }
                }
                Frame::Message(Message::Sent {
                    address,
                    ssh_host_key,
                    guest_helper,
                }) => {
                    drop(to);
                    return Ok(Some(Usable {
                        address,
                        ssh_host_key,
                        guest_helper,
                        ..Usable::default()
                    }));
                }
                Frame::Message(_) => {
                    return Err("the other host says what does not belong here".to_owned());
                }
            }
        }
    };
    let (received, carried) = {
        let mut carry = std::pin::pin!(carry);
        tokio::select! {
            received = &mut receiving => {
                received.map_err(|e| e.to_string())?;
                (Ok(()), carry.await)
            }
            carried = &mut carry => match carried {
                Ok(usable) => (receiving.await, Ok(usable)),
                Err(why) => return Err(why),
            },
        }
    };
    received.map_err(|e| e.to_string())?;
    let usable = carried?.ok_or("the machine took less than was sent")?;
    say(stream, &Message::Loaded).await?;
    hear(stream, &Message::Go, SILENCE * 2).await?;
    instance
        .take_over(usable)
        .await
        .map_err(|e| e.to_string())?;
    say(stream, &Message::Running).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_moves_of_a_host_share_its_link() {
        let moves = Moves::new(2);
        let now = Instant::now() + Duration::from_secs(1);
        // 100 Mbit/s: a piece of 1.25 MB takes a tenth of a second, whoever sends it.
        let piece = 1_250_000;
        let at = |n: u32| now + Duration::from_millis(100) * n;
        for n in 0..5 {
            assert_eq!(moves.reserve(piece, 100, now), at(n));
        }
        // What was not used is not saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!(moves.reserve(piece, 100, later), later);
        assert_eq!(
            moves.reserve(piece, 100, later),
            later + Duration::from_millis(100)
        );
    }

    #[test]
    fn memory_is_kept_for_what_is_waited_for_and_no_longer() {
        let moves = Moves::new(2);
        let (a, b): (DesktopId, DesktopId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let from: HostId = "kvm1".parse().unwrap();
        let wait = Duration::from_secs(60);
        moves.expect(&a, Generation(3), from.clone(), 100, wait);
        moves.expect(&b, Generation(5), from.clone(), u64::MAX, wait);
        assert_eq!(moves.on_their_way_mib(), u64::MAX);
        // An older order is over; this one is not.
        moves.not_expected(&b, Generation(4));
        assert_eq!(moves.on_their_way_mib(), u64::MAX);
        moves.not_expected(&b, Generation(5));
        assert_eq!(moves.on_their_way_mib(), 100);
        // Nobody said that it is over, and its machine has given up.
        if let Some(e) = moves.expected().get_mut(&a) {
            e.until = Instant::now();
        }
        assert_eq!(moves.on_their_way_mib(), 0);
        moves.expect(&a, Generation(6), from, 1, Duration::MAX - LAUNCH);
        assert_eq!(moves.on_their_way_mib(), 1);
    }
}
