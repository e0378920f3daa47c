//! The storage agent: releases and drafts on the fast tier, what desktops write on the
//! slow tier.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | where the tiers are and what is kept free |
//! | `tier` | making, adopting and locking a tier; its use |
//! | [`nfs`] | showing the tiers to hosts |
//! | `watch`, `wear` | what fills up is extended in time; what is written per day |
//! | `objects` | one piece of work per object at a time, and cancelling it |
//! | `overlays`, `drafts`, `uploads`, `imports`, `releases` | the requests, by what they are about |
//! | `api` | the router; the table is at the top of [`lyceum_proto::storage`] |
//!
//! **Invariants.** Every object appears under its name only when it is complete and
//! durable: temporary name, fsync, rename. So the folders are the whole state; what a kill
//! leaves half made has a temporary name and is cleared at the next start. Every request
//! may be repeated. A connection that breaks does not break the work: the work goes on and
//! the repeated request finds it done.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod agent;
mod api;
pub mod config;
mod drafts;
mod error;
mod hash;
mod imports;
pub mod nfs;
mod objects;
mod overlays;
mod releases;
mod tier;
mod uploads;
mod watch;
mod wear;

pub use agent::Agent;
pub use config::StorageConfig;
pub use error::StorageError;
pub use hash::hash_file;

use lyceum_wire::{Access, Identity, PeerKind, Renewing};
use tokio_util::sync::CancellationToken;

/// Runs the storage agent until `shutdown` is cancelled; running work is then cancelled,
/// and begun imports go on at the next start.
pub async fn run(config: StorageConfig, shutdown: CancellationToken) -> Result<(), StorageError> {
    let identity = Identity::load(&config.state_dir)?.ok_or_else(|| {
        StorageError::Start(format!(
            "{} holds no identity: this storage agent is not part of a classroom yet. Make a join token on the controller and join with it",
            config.state_dir.display()
        ))
    })?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(|e| {
            StorageError::Start(format!(
                "can't listen on {}: {e}. Stop what listens there, or choose another address",
                config.listen
            ))
        })?;
    let identity = Renewing::new(identity, config.state_dir.clone());
    let agent = Agent::open(config).await?;
    let watch = tokio::spawn(agent.clone().watch(shutdown.clone()));
    let renewing = tokio::spawn(identity.clone().run(shutdown.clone()));
    let served = lyceum_wire::serve_renewing(
        listener,
        agent.router(),
        &identity,
        Access::Only(vec![PeerKind::Controller]),
        shutdown,
    )
    .await;
    renewing.abort();
    agent.close().await;
    // Its last look is being finished; a store must not be half extended.
    let _ = watch.await;
    Ok(served?)
}
