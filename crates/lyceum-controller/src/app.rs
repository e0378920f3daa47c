//! What every handler and reconciler holds.

use crate::agents::Agents;
use crate::auth::{Authenticator, LocalPasswords, Memory, SignInLimits};
use crate::config::ControllerConfig;
use crate::error::ApiFailure;
use crate::live::Live;
use crate::reads::Reads;
use lyceum_api::Settings;
use lyceum_model::UnixMillis;
use lyceum_store::Store;
use lyceum_wire::ClassroomCa;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// The controller's parts. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
pub struct Inner {
    /// Set-up.
    pub config: ControllerConfig,
    /// The store.
    pub store: Store,
    /// The classroom's CA.
    pub ca: ClassroomCa,
    /// Clients of the agents.
    pub agents: Agents,
    /// What agents said last.
    pub live: Live,
    /// Sessions and settings that were read lately.
    pub memory: Memory,
    /// Courses, rosters and desktops that were read lately.
    pub reads: Reads,
    /// Who checks passwords; the first with a person's `source` does.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Hashes passwords.
    pub passwords: Arc<LocalPasswords>,
    /// How often somebody may try to sign in.
    pub limits: SignInLimits,
    /// What hosts draw, where they measure it.
    pub watts: crate::power::measure::Watts,
    /// Console tickets that were not used yet.
    pub tickets: crate::console::Tickets,
    /// One-time passwords for native viewers.
    pub native: crate::console::native::NativePasswords,
    /// What hosts and the gateway did last about courses' networks.
    pub networks: crate::network::Networks,
    /// Where native viewers connect; set when it listens.
    pub native_port: OnceLock<u16>,
    /// Passwords and sessions of SPICE clients.
    pub spice: crate::console::spice::sessions::SpiceSessions,
    /// Where SPICE clients connect; set when it listens.
    pub spice_port: OnceLock<u16>,
    /// Who looks at which desktop.
    pub viewers: crate::console::Viewers,
    /// Cancelled when the controller ends. Streams and WebSockets watch it.
    pub shutdown: CancellationToken,
    /// `https://ADDRESS:PORT` where agents join; set when it listens.
    pub agent_url: OnceLock<String>,
}

impl Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Why a controller can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory.
    #[error("{what} {path}: {source}; check that it exists and belongs to this program's user")]
    File {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: std::path::PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Two controllers, one state directory.
    #[error(
        "another controller runs with the state directory {0}: end it first, or give this one its own"
    )]
    Running(std::path::PathBuf),
    /// An address.
    #[error("{address} can't be listened on: {source}; is something else there already?")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The store.
    #[error("the store can't be opened: {0}")]
    Store(#[from] lyceum_store::StoreError),
    /// Keys and certificates.
    #[error(transparent)]
    Wire(#[from] lyceum_wire::WireError),
    /// TLS towards browsers.
    #[error("TLS for the page can't be set up: {0}")]
    Tls(String),
    /// The first way in.
    #[error("the first admin's one-time link can't be made: {0}")]
    FirstAdmin(String),
    /// Passwords.
    #[error("passwords can't be hashed: {0}")]
    Passwords(String),
}

impl App {
    /// Opens the store and the CA. Nothing listens yet.
    pub async fn open(config: ControllerConfig) -> Result<App, StartError> {
        let store = Store::open(&config.store_url()).await?;
        let ca = ClassroomCa::open_or_create(&config.state_dir)?;
        let identity = Arc::new(ca.controller_identity(&[])?);
        let passwords =
            Arc::new(LocalPasswords::new().map_err(|e| StartError::Passwords(e.message))?);
        Ok(App(Arc::new(Inner {
            agents: Agents::new(store.clone(), identity),
            live: Live::default(),
            memory: Memory::new(&store),
            reads: Reads::new(&store),
            authenticators: vec![passwords.clone()],
            passwords,
            limits: SignInLimits::default(),
            watts: Default::default(),
            tickets: crate::console::Tickets::default(),
            native: crate::console::native::NativePasswords::default(),
            networks: Default::default(),
            native_port: OnceLock::new(),
            spice: Default::default(),
            spice_port: OnceLock::new(),
            viewers: crate::console::Viewers::default(),
            shutdown: CancellationToken::new(),
            agent_url: OnceLock::new(),
            config,
            store,
            ca,
        })))
    }

    /// The controller's clock.
    pub fn now(&self) -> UnixMillis {
        self.config.clock.now()
    }

    /// The settings as they are now.
    pub async fn settings(&self) -> Result<Settings, ApiFailure> {
        self.memory.settings(&self.store).await
    }
}
