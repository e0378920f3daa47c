//! Where a classroom on one machine keeps things and where its parts listen.
//!
//! ```text
//!   STATE/lock            held while it runs
//!   STATE/up.json         addresses of the parts, chosen at the first start
//!   STATE/controller/     store, CA, local socket
//!   STATE/storage/        the storage agent's identity
//!   STATE/host-1/ ...     identity and generations of each host agent
//!   STATE/fast, slow      the two tiers
//!   STATE/logs/           one log per part
//!   RUN/1 ...             sockets and run directories of machines; RUN is short, see `run_dir`
//! ```

use crate::exit::{self, Exit};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Port of the agents and of the controller towards them, each on an address of its own.
pub const AGENT_PORT: u16 = 8471;
/// Where the page is when nobody says.
pub const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8470);
/// Longest run directory of a host agent, bytes: sockets lie below it, whose paths the kernel limits.
const RUN_DIR_MAX: usize = 50;

/// Addresses of the parts. Agents are known to the controller by theirs, so they stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// The page and the API.
    pub page: SocketAddr,
    /// Where native viewers connect; in files of earlier versions there is none.
    #[serde(default = "any_port")]
    pub native: SocketAddr,
    /// Where SPICE clients connect; in files of earlier versions there is none.
    #[serde(default = "any_port")]
    pub spice: SocketAddr,
    /// Where agents join.
    pub controller: SocketAddr,
    /// The storage agent.
    pub storage: SocketAddr,
    /// The host agents.
    pub hosts: Vec<SocketAddr>,
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The loopback address 127.77.0.N.
fn own(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, 0, n)
}

impl Addresses {
    /// The usual ones: 127.77.0.1 for the controller's agent port, .5 for storage, .11, .12, ... for hosts.
    pub fn usual(page: SocketAddr, agent_port: u16, hosts: u8) -> Addresses {
        let at = |n: u8| SocketAddr::from((own(n), agent_port));
        Addresses {
            page,
            // Not the next port: on every address it would be in the agents' way.
            native: SocketAddr::new(page.ip(), page.port().checked_add(3).unwrap_or(0)),
            spice: SocketAddr::new(page.ip(), page.port().checked_add(4).unwrap_or(0)),
            controller: at(1),
            storage: at(5),
            hosts: (0..hosts).map(|n| at(11 + n)).collect(),
        }
    }

    /// The same addresses with ports that are free right now.
    pub fn with_free_ports(mut self) -> std::io::Result<Addresses> {
        // All are held until all are chosen, so that no two are the same.
        let mut held = Vec::new();
        let parts = [
            &mut self.page,
            &mut self.native,
            &mut self.spice,
            &mut self.controller,
            &mut self.storage,
        ];
        for address in parts.into_iter().chain(self.hosts.iter_mut()) {
            let listener = TcpListener::bind((address.ip(), 0))?;
            *address = listener.local_addr()?;
            held.push(listener);
        }
        Ok(self)
    }

    /// Every address with what listens there, for messages.
    pub fn all(&self) -> Vec<(String, SocketAddr)> {
        let mut all = vec![
            ("the page".to_owned(), self.page),
            ("the port of native viewers".to_owned(), self.native),
            ("the port of SPICE clients".to_owned(), self.spice),
            ("the controller's agent port".to_owned(), self.controller),
            ("storage".to_owned(), self.storage),
        ];
        for (n, address) in self.hosts.iter().enumerate() {
            all.push((host_name(n), *address));
        }
        all
    }

    /// The first address that can't be listened on, with the reason. Parts of a classroom that was
    /// killed take a moment to go: they are waited for.
    pub async fn taken(&self, patience: Duration) -> Option<(String, SocketAddr, std::io::Error)> {
        let until = Instant::now() + patience;
        for (what, address) in self.all() {
            loop {
                // As servers bind: connections of a former run in TIME_WAIT don't count.
                let bound = socket_that_may_bind(address);
                match bound {
                    Ok(()) => break,
                    Err(e)
                        if e.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until =>
                    {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(e) => return Some((what, address, e)),
                }
            }
        }
        None
    }
}

fn socket_that_may_bind(address: SocketAddr) -> std::io::Result<()> {
    // std sets SO_REUSEADDR on Unix.
    TcpListener::bind(address).map(drop)
}

/// Name of the Nth host, from 0.
pub fn host_name(n: usize) -> String {
    format!("host-{}", n + 1)
}

/// The directories.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Absolute.
    pub state: PathBuf,
}

impl Layout {
    /// Makes the state directory (private to this user) and what lies in it.
    pub fn make(state: &Path) -> anyhow::Result<Layout> {
        use std::os::unix::fs::DirBuilderExt;
        let trouble = |path: &Path, e: std::io::Error| {
            Exit::coded(
                exit::FAILED,
                format!(
                    "the directory {} can't be made: {e}; choose another with --state, or run this as the user who owns it",
                    path.display()
                ),
            )
        };
        let make = |path: &Path, mode: u32| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .map_err(|e| trouble(path, e))
        };
        make(state, 0o700)?;
        let state = state.canonicalize().map_err(|e| trouble(state, e))?;
        let layout = Layout { state };
        for dir in ["controller", "storage", "logs"] {
            make(&layout.state.join(dir), 0o700)?;
        }
        for dir in ["fast", "slow"] {
            make(&layout.state.join(dir), 0o755)?;
        }
        Ok(layout)
    }

    /// Tells this classroom from others on the machine.
    pub fn tag(&self) -> String {
        format!("{:08x}", path_hash(&self.state))
    }

    /// A path below the state directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.state.join(name)
    }

    /// A short directory for sockets and machines: below the state directory when its path is
    /// short enough, else in the system's or the user's runtime directory under a name made of
    /// the state directory's path. Private to this user.
    pub fn run_dir(&self) -> anyhow::Result<PathBuf> {
        let here = self.path("run");
        let candidates: Vec<PathBuf> = if fits(&here) {
            vec![here]
        } else {
            let name = format!("lyceum-{}", self.tag());
            let mut bases = Vec::new();
            if nix::unistd::geteuid().is_root() {
                bases.push(PathBuf::from("/run"));
            }
            if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
                bases.push(PathBuf::from(dir));
            }
            bases.push(PathBuf::from("/tmp"));
            bases
                .into_iter()
                .map(|base| base.join(&name))
                .filter(|p| fits(p))
                .collect()
        };
        for dir in &candidates {
            if private_dir(dir) {
                return Ok(dir.clone());
            }
        }
        Err(Exit::coded(
            exit::FAILED,
            format!(
                "the state directory's path ({}) is too long for the sockets below it, and no shorter run directory can be made; choose a shorter path with --state",
                self.state.display()
            ),
        ))
    }

    /// Addresses of an earlier start.
    pub fn load_addresses(&self) -> anyhow::Result<Option<Addresses>> {
        let path = self.path("up.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
                Exit::coded(exit::FAILED, format!("{} is damaged: {e}; restore it, or remove it together with the agents' directories to join them anew", path.display()))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Exit::coded(exit::FAILED, format!("{} can't be read: {e}", path.display()))),
        }
    }

    /// Keeps the addresses.
    pub fn save_addresses(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let path = self.path("up.json");
        let text = serde_json::to_vec_pretty(addresses)?;
        lyceum_wire::write_atomically(&path, &text, 0o600).map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!("{} can't be written: {e}", path.display()),
            )
        })
    }
}

fn fits(dir: &Path) -> bool {
    // "/N" for the host comes behind it.
    dir.as_os_str().len() + 3 <= RUN_DIR_MAX
}

/// FNV-1a; tells the classrooms of one machine apart, nothing more.
fn path_hash(path: &Path) -> u32 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
}

/// Makes the directory, or takes it when it is this user's and nobody else may write to it:
/// in /tmp somebody may have made it before.
fn private_dir(dir: &Path) -> bool {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    match std::fs::DirBuilder::new().mode(0o711).create(dir) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => std::fs::symlink_metadata(dir)
            .is_ok_and(|m| {
                m.is_dir() && m.uid() == nix::unistd::geteuid().as_raw() && m.mode() & 0o022 == 0
            }),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_an_address_of_its_own() {
        let addresses = Addresses::usual(PAGE, AGENT_PORT, 3);
        let mut all: Vec<SocketAddr> = addresses.all().into_iter().map(|(_, a)| a).collect();
        assert_eq!(all.len(), 8);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 8);
        assert!(all.iter().all(|a| a.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let free = Addresses::usual(PAGE, AGENT_PORT, 2)
            .with_free_ports()
            .unwrap();
        assert!(free.taken(Duration::ZERO).await.is_none());
        let holder = TcpListener::bind(free.storage).unwrap();
        let (what, address, error) = free.taken(Duration::ZERO).await.unwrap();
        assert_eq!((what.as_str(), address), ("storage", free.storage));
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        drop(holder);
    }

    #[test]
    fn addresses_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::make(&dir.path().join("state")).unwrap();
        assert_eq!(layout.load_addresses().unwrap(), None);
        let addresses = Addresses::usual(PAGE, 1, 3);
        layout.save_addresses(&addresses).unwrap();
        assert_eq!(layout.load_addresses().unwrap(), Some(addresses));
        std::fs::write(layout.path("up.json"), "{").unwrap();
        assert!(
            layout
                .load_addresses()
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }

    #[test]
    fn a_long_path_gets_a_short_run_directory() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir
            .path()
            .join("a-name-that-is-far-too-long-for-any-unix-socket/state");
        let layout = Layout::make(&long).unwrap();
        let run = layout.run_dir().unwrap();
        assert!(fits(&run), "{}", run.display());
        // Again: the same.
        assert_eq!(layout.run_dir().unwrap(), run);
        std::fs::remove_dir(&run).unwrap();
    }
}
