//! The host agent: runs desktops on this machine as the controller says, watches
//! them, and never starts what is out of date.
//!
//! - [`api`]: the requests. - [`desktop`]: one actor per desktop. - [`queue`]: its policy, pure.
//! - [`start`]: from a request to what the hypervisor is told. - [`tiers`]: paths.
//! - [`releases`]: bytes are verified before they are used; [`replica`]: on a disk of this host. - [`seal`]: sealing jobs.
//! - [`moves`]: running desktops go from host to host. - [`network`]: courses' networks.
//! - [`observe`]: what is said to the controller. - [`load`]: how the host is doing.
//! - [`power`]: switches the machine off. - [`cores`], [`traffic`]: what the kernel says.
//! - [`console`]: the way to a machine's picture.
//! - [`known`]: what survives a restart. - [`adopt`]: machines that outlived the agent.
//!
//! **Invariants.** An older generation than one seen is never started, also after a
//! restart. There is one machine per desktop at most. Machines outlive the agent:
//! nothing here ends one because the agent ends or begins.

mod adopt;
mod agent;
mod api;
mod cgroup;
mod config;
mod console;
mod cores;
mod desktop;
mod known;
mod load;
mod moves;
mod network;
mod notes;
mod observe;
mod power;
mod queue;
mod releases;
mod replica;
mod seal;
mod spice;
mod start;
#[cfg(test)]
mod testing;
mod tiers;
mod traffic;

pub use config::{HostConfig, Marks};
pub use network::NetworkConfig;
pub use replica::ReplicaConfig;
pub use tiers::TIER_MARKER;

use agent::Agent;
use known::KnownStore;
use lyceum_hypervisor::Hypervisor;
use lyceum_wire::{Access, Identity, PeerKind, Renewing};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long work that must not be interrupted may take at a shutdown.
const FINISH: Duration = Duration::from_secs(60);

/// Why a host agent can't run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration can't work.
    #[error("the host agent's configuration: {0}")]
    Config(String),
    /// A file of its own could not be used.
    #[error("{what} {path} failed: {source}; check its owner and the space on its disk")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file of its own holds nonsense.
    #[error(
        "{path} is damaged ({why}); restore it from a backup: without it this host could start what is out of date"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A machine of an interrupted seal can't be ended.
    #[error(
        "the machine in {path} was left by a seal and can't be ended: {why}; end its process, then start the agent again"
    )]
    Leftover {
        /// Its run directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another agent uses the same state directory.
    #[error("another host agent uses {0}: each agent needs a state_dir of its own")]
    Busy(PathBuf),
    /// It has no certificate.
    #[error(
        "this host has not joined a classroom: make a token with `lyceum host add` on the controller and start the agent with it once"
    )]
    NotJoined,
    /// The tiers are not there.
    #[error("{0}")]
    Tiers(String),
    /// It can't listen.
    #[error("can't listen on {address}: {source}; is something else running there?")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Wire(#[from] lyceum_wire::WireError),
}

impl HostError {
    pub(crate) fn file(what: &'static str, path: &Path, source: std::io::Error) -> HostError {
        HostError::File {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// Runs the agent until `shutdown` is cancelled. It must have [joined](lyceum_wire::join::join)
/// into `config.state_dir`. Machines are left running and found again by the next start.
///
/// Dropping the future is as good as killing the process.
pub async fn run(
    config: HostConfig,
    hypervisor: Arc<dyn Hypervisor>,
    shutdown: CancellationToken,
) -> Result<(), HostError> {
    let identity = Identity::load(&config.state_dir)?.ok_or(HostError::NotJoined)?;
    let address = config.listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| HostError::Listen { address, source })?;
    run_on(config, hypervisor, identity, listener, shutdown).await
}

/// The same on a listener and with an identity that are there already.
pub async fn run_on(
    config: HostConfig,
    hypervisor: Arc<dyn Hypervisor>,
    identity: Identity,
    listener: tokio::net::TcpListener,
    shutdown: CancellationToken,
) -> Result<(), HostError> {
    config.check()?;
    let state_dir = config.state_dir.clone();
    for dir in [&state_dir, &state_dir.join("notes")] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| HostError::file("making", dir, e))?;
    }
    let _lock = lock(&state_dir)?;
    make_run_dir(&config.run_dir)?;
    make_run_dir(&config.desktops_run_dir())?;
    let kill = CancellationToken::new();
    let _killed_when_dropped = kill.clone().drop_guard();
    let memory_mib = config.memory_mib.unwrap_or_else(load::default_memory_mib);
    let identity = Renewing::new(identity, state_dir.clone());
    let migration = match config.migration {
        Some(address) => Some(
            tokio::net::TcpListener::bind(address)
                .await
                .map_err(|source| HostError::Listen { address, source })?,
        ),
        None => None,
    };
    let migration_url = migration
        .as_ref()
        .and_then(|l| l.local_addr().ok())
        .map(|a| format!("https://{a}"));
    let replica = match &config.replica {
        Some(replica) => Some(Arc::new(replica::Replica::open(replica, &state_dir).await?)),
        None => None,
    };
    let network = network::Network::open(config.network.as_ref(), &state_dir)?;
    let agent = Agent::new(
        config,
        hypervisor,
        releases::Releases::open(&state_dir)?,
        replica,
        KnownStore::open(state_dir.join("desktops"))?,
        seal::Seals::open(state_dir.join("seals"))?,
        identity.clone(),
        migration_url,
        network,
        memory_mib,
        shutdown.clone(),
        kill.clone(),
    );
    agent
        .tiers
        .check()
        .map_err(|e| HostError::Tiers(e.message))?;
    if let Some(replica) = agent.replica.clone() {
        let (shutdown, kill) = (agent.shutdown.clone(), agent.kill.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = kill.cancelled() => {}
            }
            replica.stop();
        });
    }
    seal::recover(&agent).await?;
    adopt::all(&agent).await?;
    agent.network.forget_gone(&agent);
    agent.spawn(agent.network.clone().run(agent.clone()));
    load::Sampler::new().sample(&agent).await;
    {
        let (agent, sampled) = (agent.clone(), agent.clone());
        agent.spawn(load::run(sampled));
    }
    tracing::info!(name = %agent.config.name, "the host agent is up");
    agent.spawn(identity.clone().run(shutdown.clone()));
    let mut access = vec![PeerKind::Controller];
    match migration {
        // Other hosts are heard on their own address only.
        Some(listener) => {
            let (router, identity) = (api::arrivals(agent.clone()), identity.clone());
            let stop = shutdown.clone();
            agent.spawn(async move {
                let access = Access::Only(vec![PeerKind::Host]);
                let served =
                    lyceum_wire::serve_renewing(listener, router, &identity, access, stop).await;
                if let Err(e) = served {
                    tracing::error!("desktops can't be taken in from other hosts: {e}");
                }
            });
        }
        None => access.push(PeerKind::Host),
    }
    let served = lyceum_wire::serve_renewing(
        listener,
        api::router(agent.clone()),
        &identity,
        Access::Only(access),
        shutdown,
    )
    .await;
    agent.tasks.close();
    finish(&agent).await;
    served.map_err(HostError::from)
}

/// Lets what must not be interrupted come to its end.
async fn finish(agent: &Agent) {
    agent.shutdown.cancel();
    if tokio::time::timeout(FINISH, agent.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "not everything came to its end in time; it is cleared up at the next start"
        );
    }
    agent.kill.cancel();
    agent.tasks.wait().await;
}

/// One agent per state directory, as long as the file is open.
fn lock(state_dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, HostError> {
    let path = state_dir.join("agent.lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| HostError::file("opening", &path, e))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(
        |(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => HostError::Busy(state_dir.to_owned()),
            errno => HostError::file("locking", &path, errno.into()),
        },
    )
}

/// A directory that the machines' user can pass but not list.
pub(crate) fn make_run_dir(path: &Path) -> Result<(), HostError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(|e| HostError::file("making", path, e))
}
