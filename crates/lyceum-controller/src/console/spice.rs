//! The port for native SPICE clients (`remote-viewer`): TLS and a one-time password, and only for addresses from which
//! somebody has just asked for it. To all others it says not a word.
//!
//! - [`sessions`]: passwords, and what they opened. - [`channel`]: a client's connections, and how a client is kept
//!   when its desktop goes elsewhere. - [`file`]: what `remote-viewer` is started with.
//!
//! A session has one main channel and others beside it, each a connection of its own with the same password. The password
//! is used up by the main channel; the others come with it from the same address, while the main one lives.

mod channel;
pub mod file;
pub mod sessions;

use super::native::address;
use super::supply::{Watch, place};
use super::{Grant, native::NativePass};
use crate::app::App;
use crate::auth::{Actor, Origin};
use crate::error::ApiFailure;
use lyceum_proto::host::HostFacts;
use lyceum_spice::link::{channel as kind, result};
use lyceum_spice::shake;
use lyceum_spice::ticket::TicketKey;
use lyceum_store::agents;
use lyceum_store::desktops::{self, Desktop};
use sessions::{Perhaps, Reach};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

/// Connections that are shaking hands at once, and for how long each may.
const SHAKING: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Upgrade at the host's agent.
const PROTOCOL: &str = "lyceum-spice";

/// A client's connection.
type Client = TlsStream<TcpStream>;

/// A password for a SPICE client at the address that the request came from, after a look at whether the machine speaks
/// SPICE at all. `reach`: how the client is going to reach this controller.
pub async fn let_in(
    app: &App,
    actor: &Actor,
    origin: Origin,
    grant: Grant,
    reach: Reach,
) -> Result<NativePass, ApiFailure> {
    let row = desktops::get(&app.store, &grant.desktop).await?;
    let row = row.ok_or_else(|| ApiFailure::not_found("desktop"))?;
    if let Some(why) = not_there(app, actor, &row).await {
        return Err(ApiFailure::state(why));
    }
    app.spice
        .issue(actor, address(origin), grant, reach, app.now())
}

/// Why the desktop's machine can't be reached by SPICE now; `None`: it can.
pub async fn not_there(app: &App, actor: &Actor, desktop: &Desktop) -> Option<String> {
    let mut watch = Watch::new(app, actor, &desktop.id);
    let row = match watch.look(true).await {
        Ok(row) => row,
        Err((_, why)) => return Some(why.to_owned()),
    };
    let Some(there) = row.as_ref().and_then(place) else {
        return Some("the desktop is not up yet: try again when it runs".to_owned());
    };
    let facts = agents::get(&app.store, &there.host).await.ok().flatten();
    let facts = facts.and_then(|agent| serde_json::from_str::<HostFacts>(&agent.facts?).ok());
    // Hosts of an earlier version do not say so; they are asked.
    if facts.is_some_and(|f| !f.spice && f.version == env!("CARGO_PKG_VERSION")) {
        return Some(
            "the host of this desktop lacks QEMU's module for SPICE, the package qemu-system-modules-spice"
                .to_owned(),
        );
    }
    match watch.open(&there, "spice", PROTOCOL).await {
        Some(Ok(_)) => None,
        Some(Err(e)) => Some(e.to_string()),
        None => Some("the desktop is changing: try again".to_owned()),
    }
}

/// Serves SPICE clients until the controller ends.
pub async fn listen(app: App, listener: TcpListener, tls: TlsAcceptor) {
    let key = match tokio::task::spawn_blocking(TicketKey::new).await {
        Ok(Ok(key)) => Arc::new(key),
        failed => {
            tracing::error!(?failed, "there is no port for SPICE clients");
            return;
        }
    };
    let shaking = Arc::new(Semaphore::new(SHAKING));
    let clients = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = app.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // Mostly too many open files: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let from = from.ip().to_canonical();
        // Whoever is not expected learns nothing, not even what this is.
        let Some(place) = app.spice.expects(from, app.now()) else {
            tracing::debug!(%from, "a SPICE client that nobody expects");
            continue;
        };
        let Ok(slot) = shaking.clone().try_acquire_owned() else {
            continue;
        };
        let (app, tls, key) = (app.clone(), tls.clone(), key.clone());
        clients.spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE, shake_hands(stream, &tls, &key));
            let shaken = shaken.await;
            drop((slot, place));
            match shaken {
                Ok(Ok((stream, asked))) => serve(&app, stream, asked, from).await,
                Ok(Err(e)) => tracing::debug!(%from, "a SPICE client was not understood: {e}"),
                Err(_) => tracing::debug!(%from, "a SPICE client did not shake hands in time"),
            }
        });
    }
    drop(listener);
    clients.close();
    clients.wait().await;
}

async fn shake_hands(
    stream: TcpStream,
    tls: &TlsAcceptor,
    key: &TicketKey,
) -> Result<(Client, shake::Asked), lyceum_spice::SpiceError> {
    stream.set_nodelay(true)?;
    let mut stream = tls.accept(stream).await?;
    let asked = shake::accept(&mut stream, key).await?;
    Ok((stream, asked))
}

async fn serve(app: &App, mut stream: Client, asked: shake::Asked, from: IpAddr) {
    let password = asked.password.as_deref().unwrap_or_default();
    let hello = asked.hello;
    let main = hello.channel == kind::MAIN;
    match app.spice.enter(password, from, main, app.now()) {
        Perhaps::Main(main) => channel::main(app, main, stream, hello).await,
        Perhaps::Beside(beside) => channel::beside(app, beside, stream, hello).await,
        Perhaps::No => {
            tracing::debug!(%from, "a SPICE client showed a wrong or used password");
            let _ = shake::answer(&mut stream, result::PERMISSION_DENIED).await;
        }
    }
}
