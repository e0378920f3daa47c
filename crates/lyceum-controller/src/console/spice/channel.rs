//! A client's connections. What goes through them is passed on unread, but for the main channel's message
//! boundaries: there the client is told to come again when its desktop is somewhere else.

use super::sessions::{Beside, Live, Main};
use super::{Client, PROTOCOL};
use crate::app::App;
use crate::console::close;
use crate::console::supply::{Closed, Place, RETRY, Watch, place};
use lyceum_spice::link::{Hello, channel as kind, result};
use lyceum_spice::main_channel::{MINI_HEADER, Messages, switch_host};
use lyceum_spice::shake;
use lyceum_wire::RawStream;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

/// What is on its way, each way, in bytes.
const BLOCK: usize = 16 * 1024;
/// How long QEMU may take to link a channel.
const LINK: Duration = Duration::from_secs(10);
/// How long a client that was told to come again may take to hang up.
const HANG_UP: Duration = Duration::from_secs(10);
/// A channel whose machine closed it while the main one goes on is closed after this: mostly the main one is about
/// to be closed as well.
const ALONE: Duration = Duration::from_secs(5);
/// A message that was begun is ended with so much of nothing, and no more.
const FILL_MAX: usize = 1 << 20;

/// Serves a main channel, and with its end ends its session, unless the client was told to come again.
pub(super) async fn main(app: &App, main: Main, mut client: Client, hello: Hello) {
    // However this ends, the channels beside it end with it.
    let _end = main.live.end.clone().drop_guard();
    let over = Over(app, &main);
    let name = main.actor.user().map_or("", |u| u.name.as_str());
    let Some(_presence) = app.viewers.enter(&main.grant.desktop, name, false) else {
        let _ = shake::answer(&mut client, result::ERROR).await;
        return;
    };
    let mut watch = Watch::new(app, &main.actor, &main.grant.desktop);
    let why = tokio::select! {
        why = serve(app, &main, &mut watch, client, hello) => why,
        () = main.end.cancelled() => "another client took it over",
        () = app.shutdown.cancelled() => close::RESTART.1,
    };
    drop(over);
    tracing::debug!(desktop = %main.grant.desktop, why, "a SPICE client left");
}

struct Over<'a>(&'a App, &'a Main);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.spice.over(self.1.number, &self.1.live);
    }
}

async fn serve(
    app: &App,
    main: &Main,
    watch: &mut Watch<'_>,
    mut client: Client,
    mut hello: Hello,
) -> &'static str {
    // To the machine it is always a new session, whatever the client was linked to before.
    hello.connection = 0;
    let machine = tokio::select! {
        machine = linked(watch, &hello) => machine,
        // It has nothing to say before it is let in.
        () = nothing_more(&mut client) => return "it went away",
    };
    let (place, machine) = match machine {
        Ok(linked) => linked,
        Err((_, why)) => {
            let _ = shake::answer(&mut client, result::ERROR).await;
            return why;
        }
    };
    if shake::answer(&mut client, result::OK).await.is_err() {
        return "it went away";
    }
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let mut messages = Messages::default();
    let outcome = {
        let relayed = relay(
            &main.live,
            &place,
            machine,
            &mut from_client,
            &mut to_client,
            &mut messages,
        );
        tokio::select! {
            gone = relayed => Ok(gone),
            closed = elsewhere(app, watch, main, &place) => closed.map_or(Ok(Gone::Machine), Err),
        }
    };
    match outcome {
        Ok(Gone::Client) => return "it went away",
        Err((_, why)) => return why,
        Ok(Gone::Machine) => {}
    }
    // The client's connections stay open and say nothing until the desktop can be seen again.
    main.live.lost.store(true, Ordering::Relaxed);
    tokio::select! {
        usable = usable(watch) => if let Err((_, why)) = usable { return why },
        () = nothing_more(&mut from_client) => return "it went away",
    }
    let Some(port) = app.spice_port.get() else {
        return "there is no port to come again to";
    };
    if messages.missing() > FILL_MAX {
        return "its machine went away within a message";
    }
    app.spice.comes_again(main.number, app.now());
    let mut last = vec![0; messages.missing()];
    last.extend(switch_host(
        &main.reach.host,
        *port,
        main.reach.subject.as_deref(),
    ));
    let told = async {
        to_client.write_all(&last).await?;
        to_client.flush().await
    };
    // It hangs up by itself, on all channels, and comes again.
    let hung_up = async {
        if told.await.is_ok() {
            nothing_more(&mut from_client).await;
        }
    };
    let _ = tokio::time::timeout(HANG_UP, hung_up).await;
    "it was told to come again"
}

enum Gone {
    Client,
    Machine,
}

// A linked main channel at wherever the desktop can be seen.
async fn linked(watch: &mut Watch<'_>, hello: &Hello) -> Result<(Place, RawStream), Closed> {
    loop {
        let (place, mut machine) = opened(watch).await?;
        match tokio::time::timeout(LINK, shake::connect(&mut machine, hello, "", &[])).await {
            Ok(Ok(())) => return Ok((place, machine)),
            Ok(Err(e)) => tracing::debug!("a SPICE machine could not be linked to: {e}"),
            Err(_) => tracing::debug!("a SPICE machine did not link in time"),
        }
        tokio::time::sleep(RETRY[2]).await;
    }
}

// Until the desktop can be seen somewhere.
async fn usable(watch: &mut Watch<'_>) -> Result<(), Closed> {
    opened(watch).await.map(drop)
}

async fn opened(watch: &mut Watch<'_>) -> Result<(Place, RawStream), Closed> {
    let mut tries = 0;
    loop {
        let row = watch.look(true).await?;
        match row.as_ref().and_then(place) {
            Some(place) => match watch.open(&place, "spice", PROTOCOL).await {
                Some(Ok(stream)) => return Ok((place, stream)),
                Some(Err(e)) => {
                    tracing::debug!(host = %place.host, "SPICE: {e}");
                    let wait = tokio::time::sleep(RETRY[tries.min(RETRY.len() - 1)]);
                    tries += 1;
                    tokio::select! {
                        () = wait => {}
                        () = watch.changed() => {}
                    }
                }
                None => {}
            },
            None => watch.changed().await,
        }
    }
}

// Until the desktop is somewhere else (nothing), or may not be seen any more.
async fn elsewhere(app: &App, watch: &mut Watch<'_>, main: &Main, here: &Place) -> Option<Closed> {
    let limits = app.config.console;
    loop {
        match watch.look(true).await {
            Err(closed) => return Some(closed),
            Ok(Some(row)) if place(&row).is_some_and(|there| there != *here) => return None,
            Ok(_) => {}
        }
        if main.live.idle() > limits.idle {
            return Some(close::IDLE);
        }
        if main.began.elapsed() > limits.lifetime {
            return Some(close::LIFETIME);
        }
        watch.changed().await;
    }
}

async fn relay(
    live: &Live,
    place: &Place,
    machine: RawStream,
    from_client: &mut ReadHalf<Client>,
    to_client: &mut WriteHalf<Client>,
    messages: &mut Messages,
) -> Gone {
    let (mut from_machine, mut to_machine) = tokio::io::split(machine);
    let down = async {
        let mut block = vec![0; BLOCK];
        loop {
            let bytes = match from_machine.read(&mut block).await {
                Ok(read @ 1..) => block.get(..read).unwrap_or_default(),
                _ => return Gone::Machine,
            };
            messages.feed(bytes);
            while let Some(piece) = messages.next_piece() {
                if let Some(session) = piece.session() {
                    // Only the first counts, and there is only one.
                    let _ = live.linked.set((place.clone(), session));
                }
                if to_client.write_all(piece.bytes()).await.is_err() {
                    return Gone::Client;
                }
            }
            if to_client.flush().await.is_err() {
                return Gone::Client;
            }
        }
    };
    let up = async { up(from_client, &mut to_machine, || {}).await };
    tokio::select! {
        gone = down => gone,
        gone = up => gone,
    }
}

async fn up(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    passed: impl Fn(),
) -> Gone {
    let mut block = vec![0; BLOCK];
    loop {
        let bytes = match from.read(&mut block).await {
            Ok(read @ 1..) => block.get(..read).unwrap_or_default(),
            _ => return Gone::Client,
        };
        let written = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        if written.await.is_err() {
            return Gone::Machine;
        }
        passed();
    }
}

// Until the client hangs up. What it says meanwhile was meant for a machine that is gone.
async fn nothing_more(from: &mut (impl AsyncRead + Unpin)) {
    let mut block = [0; 1024];
    while matches!(from.read(&mut block).await, Ok(1..)) {}
}

/// Serves a channel beside a main one, for as long as that lives.
pub(super) async fn beside(app: &App, beside: Beside, mut client: Client, hello: Hello) {
    let live = beside.live.clone();
    let Ok(_room) = live.channels.clone().try_acquire_owned() else {
        let _ = shake::answer(&mut client, result::ERROR).await;
        return;
    };
    let served = tokio::select! {
        served = serve_beside(app, &beside, client, hello) => served,
        () = live.end.cancelled() => Ok(()),
        () = beside.end.cancelled() => Ok(()),
        () = app.shutdown.cancelled() => Ok(()),
    };
    if let Err(e) = served {
        tracing::debug!(desktop = %beside.grant.desktop, "a SPICE channel ended: {e}");
    }
}

// The first message of a display's client, with its header.
async fn display_init(client: &mut Client) -> io::Result<Vec<u8>> {
    let mut message = vec![0; MINI_HEADER];
    client.read_exact(&mut message).await?;
    let size = match message.as_slice() {
        [a, b, size, 0, 0, 0] if u16::from_le_bytes([*a, *b]) == kind::DISPLAY_INIT => *size,
        _ => return Err(io::Error::other("a display that does not begin as one")),
    };
    message.resize(MINI_HEADER + usize::from(size), 0);
    client.read_exact(&mut message[MINI_HEADER..]).await?;
    Ok(message)
}

async fn serve_beside(
    app: &App,
    beside: &Beside,
    mut client: Client,
    mut hello: Hello,
) -> io::Result<()> {
    let live = &beside.live;
    let input = hello.channel == kind::INPUTS;
    let display = hello.channel == kind::DISPLAY;
    // libspice-server 0.15 crashes, and its machine with it, when a display's client hangs up before its first message. So
    // the machine hears of the channel together with that message.
    let mut first = Vec::new();
    if display {
        shake::answer(&mut client, result::OK)
            .await
            .map_err(io::Error::other)?;
        first = tokio::time::timeout(LINK, display_init(&mut client)).await??;
    }
    let opened = async {
        let (place, session) = live.linked.get().ok_or(result::BAD_CONNECTION_ID)?;
        hello.connection = *session;
        let mut watch = Watch::new(app, &beside.actor, &beside.grant.desktop);
        let mut machine = match watch.open(place, "spice", PROTOCOL).await {
            Some(Ok(machine)) => machine,
            // Its main channel is going to be told.
            Some(Err(_)) | None => return Err(result::ERROR),
        };
        match tokio::time::timeout(LINK, shake::connect(&mut machine, &hello, "", &first)).await {
            Ok(Ok(())) => Ok(machine),
            Ok(Err(lyceum_spice::SpiceError::Refused(code))) => Err(code),
            Ok(Err(_)) | Err(_) => Err(result::ERROR),
        }
    };
    let opened: Result<RawStream, u32> = opened.await;
    let machine = match opened {
        Ok(machine) => machine,
        Err(code) => {
            if !display {
                let _ = shake::answer(&mut client, code).await;
            }
            return Err(io::Error::other(format!("it was not linked: {code}")));
        }
    };
    if !display {
        shake::answer(&mut client, result::OK)
            .await
            .map_err(io::Error::other)?;
    }
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_machine, mut to_machine) = tokio::io::split(machine);
    let gone = {
        let passed = || {
            if input {
                live.did();
            }
        };
        let down = async {
            // The ends are told apart: a client that hung up is not waited for.
            match up(&mut from_machine, &mut to_client, || {}).await {
                Gone::Client => Gone::Machine,
                Gone::Machine => Gone::Client,
            }
        };
        tokio::select! {
            gone = up(&mut from_client, &mut to_machine, passed) => gone,
            gone = down => gone,
        }
    };
    if matches!(gone, Gone::Client) {
        return Ok(());
    }
    // The client's end is held until the main channel tells it to come again.
    let held = async {
        let alone = Instant::now() + ALONE;
        tokio::time::sleep_until(alone).await;
        if live.is_lost() {
            live.end.cancelled().await;
        }
    };
    tokio::select! {
        () = held => {}
        () = nothing_more(&mut from_client) => {}
    }
    Ok(())
}
