//! How a controller is set up. What can be changed while it runs is not here but in
//! [`lyceum_api::Settings`], in the store.

use lyceum_net::Net;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Name of the local socket in the state directory.
pub const SOCKET: &str = "controller.sock";
/// Name of the file that holds the way in for the first admin.
pub const FIRST_SIGN_IN: &str = "first-sign-in";

/// The controller's clock: the machine's, which a rehearsal of other times sets ahead.
#[derive(Debug, Clone, Default)]
pub struct Clock(std::sync::Arc<std::sync::atomic::AtomicI64>);

impl Clock {
    /// Now, milliseconds since 1970 UTC.
    pub fn now(&self) -> lyceum_model::UnixMillis {
        let ahead = self.0.load(std::sync::atomic::Ordering::SeqCst);
        jiff::Timestamp::now().as_millisecond() + ahead
    }

    /// Sets it so far ahead of the machine's, milliseconds.
    pub fn set_ahead(&self, ms: i64) {
        self.0.store(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Set-up of a controller.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// Where it keeps its CA, its SQLite store, its socket; private to its user.
    pub state_dir: PathBuf,
    /// `sqlite:PATH` or `postgres://...`; `None`: SQLite in the state directory.
    pub store_url: Option<String>,
    /// Where the page and the API are served. Port 0: any free one.
    pub listen: SocketAddr,
    /// How.
    pub tls: PublicTls,
    /// DNS names and addresses under which browsers reach it, without port. IP addresses and
    /// `localhost` always work.
    pub names: Vec<String>,
    /// Where agents join. Port 0: any free one.
    pub agent_listen: SocketAddr,
    /// `https://ADDRESS:PORT` of the above as agents reach it; `None`: as it listens.
    pub agent_url: Option<String>,
    /// Programs with their arguments that bring hosts up, by a name that the page knows; `{host}` in an argument
    /// is the host's name. They are here and not in the settings because they run as this program's user.
    pub power_commands: std::collections::BTreeMap<String, Vec<String>>,
    /// Where native VNC viewers connect; `None`: there is no such port. Port 0: any free one.
    pub native_listen: Option<SocketAddr>,
    /// Where native SPICE clients connect; `None`: there is no such port. Port 0: any free one.
    pub spice_listen: Option<SocketAddr>,
    /// Courses' networks; `None`: desktops get QEMU's user network, each alone, and every port is open to all.
    pub network: Option<NetworkConfig>,
    /// Proxies of the school: of their requests the header `X-Forwarded-For` says where they come from. Nobody
    /// else's is looked at.
    pub trusted_proxies: Vec<Net>,
    /// For how long consoles stay open.
    pub console: lyceum_console::Limits,
    /// What time it is.
    pub clock: Clock,
}

/// Set-up of courses' networks. `lyceum gateway` on the controller's machine brings them about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// The gateway's address in the network between the machines; absent: courses have no segments, but the
    /// doors to the ports for native viewers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// IPv4 range of all segments: /22 each.
    #[serde(default = "segments")]
    pub segments: Net,
    /// Networks that desktops never reach: those of the classroom's machines.
    #[serde(default)]
    pub protected: Vec<Net>,
    /// Name servers outside; absent: those of the controller's machine.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
}

fn segments() -> Net {
    let first = IpAddr::from([10, 128, 0, 0]);
    Net::new(first, 9).unwrap_or_else(|| Net::single(first))
}

impl PublicTls {
    /// Whether the certificate is of the classroom's own CA, where there is one.
    pub fn is_own(&self) -> bool {
        match self {
            PublicTls::Auto | PublicTls::Own => true,
            PublicTls::Files { .. } => false,
        }
    }
}

/// TLS towards browsers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PublicTls {
    /// Plain HTTP on loopback, else a certificate of the classroom's own CA.
    #[default]
    Auto,
    /// A certificate of the classroom's own CA.
    Own,
    /// Certificate chain and private key as PEM files.
    Files {
        /// The chain, the server's own certificate first.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

impl ControllerConfig {
    /// A controller for one machine: everything on loopback.
    pub fn local(state_dir: PathBuf, listen: SocketAddr, agent_listen: SocketAddr) -> Self {
        ControllerConfig {
            state_dir,
            store_url: None,
            listen,
            tls: PublicTls::Auto,
            names: Vec::new(),
            agent_listen,
            agent_url: None,
            power_commands: Default::default(),
            native_listen: None,
            spice_listen: None,
            network: None,
            trusted_proxies: Vec::new(),
            console: lyceum_console::Limits::default(),
            clock: Clock::default(),
        }
    }

    /// The store's address.
    pub fn store_url(&self) -> String {
        self.store_url
            .clone()
            .unwrap_or_else(|| format!("sqlite:{}", self.state_dir.join("lyceum.db").display()))
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join(SOCKET)
    }

    /// Whether browsers speak TLS with it.
    pub fn serves_tls(&self) -> bool {
        match self.tls {
            PublicTls::Auto => !self.listen.ip().is_loopback(),
            PublicTls::Own | PublicTls::Files { .. } => true,
        }
    }
}
