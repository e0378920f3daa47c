//! Showing the tiers to hosts by NFS.
//!
//! The kernel's server does the work. This module writes what it is to show
//! (`/etc/exports.d/lyceum.exports`) and how it listens (`/etc/nfs.conf.d/lyceum.conf`): NFS 4.2
//! and nothing older, on the addresses of the disk network only, for the hosts on it only.
//!
//! - File handles name a tier by the identity in its marker and a desktop's volume by one of its
//!   own, never by a device number: those change between boots, and snapshots are copies of one
//!   file system with one UUID.
//! - The server is started here, after everything is mounted, and not by the machine's boot: a
//!   host that asks too early waits, but one that gets the empty folder below a mount loses its
//!   files (`ESTALE`).
//! - Hosts write deltas and seals as root, so they are not mapped to somebody else
//!   (`no_root_squash`): hosts are parts of the classroom and reach no more than the tiers.

use crate::error::{Result, StorageError};
use lyceum_disk::lvm::{Show, mount};
use lyceum_disk::{DiskError, files, tool};
use lyceum_model::OverlayId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What may be mounted by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NfsConfig {
    /// This machine's addresses on the disk network; the server listens on no other.
    pub listen: Vec<IpAddr>,
    /// Hosts: addresses, or networks as `10.10.0.0/24`.
    pub clients: Vec<String>,
    /// When a write is acknowledged.
    #[serde(default)]
    pub mode: NfsMode,
    /// Threads of the server. A thread waits for a disk, so there are more than CPUs.
    #[serde(default = "threads")]
    pub threads: u32,
}

fn threads() -> u32 {
    32
}

/// When the server acknowledges a write that a host wants to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NfsMode {
    /// When it is on the disk.
    #[default]
    Safe,
    /// The paper's: at once. A power cut loses what was acknowledged, and nobody can tell.
    NfsAsync,
}

impl NfsConfig {
    /// Whether writes are acknowledged before they are stored.
    pub fn is_async(&self) -> bool {
        self.mode == NfsMode::NfsAsync
    }

    /// Finds what can't work, or would show the disks to everybody.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(StorageError::Start(format!("[nfs] {why}")));
        if self.listen.is_empty() || self.clients.is_empty() {
            return wrong(
                "needs listen (this machine's addresses on the disk network) and clients (the hosts' addresses there)".into(),
            );
        }
        if let Some(any) = self.listen.iter().find(|address| address.is_unspecified()) {
            return wrong(format!(
                "listen = {any} would show the disks on every network: give this machine's address on the disk network"
            ));
        }
        if self.threads == 0 {
            return wrong("threads must be 1 or more".into());
        }
        for client in &self.clients {
            if let Err(why) = check_client(client) {
                return wrong(format!("clients: {client:?} {why}"));
            }
        }
        let own: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
            .map_err(|e| StorageError::Start(format!("can't list this machine's addresses: {e}")))?
            .filter_map(|interface| address_of(interface.address?))
            .collect();
        for address in &self.listen {
            if !own.contains(address) {
                return wrong(format!(
                    "listen: {address} is no address of this machine: it has {}",
                    own.iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                ));
            }
        }
        Ok(())
    }
}

fn address_of(storage: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// An address or a network, and not all of them. Names are not taken: who answers for a name
/// decides who gets the disks.
fn check_client(text: &str) -> std::result::Result<(), String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| "is no address or network like 10.10.0.0/24".to_owned())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u32>) {
        None => Ok(()),
        Some(Ok(bits)) if (8..=most).contains(&bits) => Ok(()),
        Some(_) => Err(format!("has a prefix that is not 8 to {most} bits long")),
    }
}

/// A folder that hosts may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    path: PathBuf,
    fsid: uuid::Uuid,
    /// A file system of its own is mounted there; without it nothing is shown.
    mountpoint: bool,
}

impl Exported {
    /// A tier.
    pub fn tier(path: &Path, id: uuid::Uuid) -> Result<Exported> {
        Ok(Exported {
            path: path.to_owned(),
            fsid: id,
            mountpoint: mount::is_mounted(path)?,
        })
    }
}

const EXPORTS: &str = "/etc/exports.d/lyceum.exports";
const SERVER: &str = "/etc/nfs.conf.d/lyceum.conf";
const PACKAGE: &str = "nfs-kernel-server";
const UNIT: &str = "nfs-server.service";

/// What is shown.
pub struct Exports {
    config: NfsConfig,
    shown: Mutex<BTreeMap<PathBuf, Exported>>,
}

impl Exports {
    /// The tiers, to begin with. Nothing is applied yet.
    pub fn new(config: NfsConfig, tiers: [Exported; 2]) -> Result<Exports> {
        config.check()?;
        let shown = tiers
            .into_iter()
            .map(|tier| (tier.path.clone(), tier))
            .collect();
        Ok(Exports {
            config,
            shown: Mutex::new(shown),
        })
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Exported>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self, exported: &Exported) -> String {
        let when = match self.config.mode {
            NfsMode::Safe => "sync",
            NfsMode::NfsAsync => "async",
        };
        let mountpoint = if exported.mountpoint {
            ",mountpoint"
        } else {
            ""
        };
        format!(
            "rw,{when},no_subtree_check,no_root_squash,sec=sys,fsid={}{mountpoint}",
            exported.fsid
        )
    }

    /// The file of exports.
    fn render(&self, shown: &BTreeMap<PathBuf, Exported>) -> String {
        let mut text =
            String::from("# Written by the storage agent of Lyceum; changes are lost.\n");
        for exported in shown.values() {
            text.push_str(&quoted(&exported.path));
            let options = self.options(exported);
            for client in &self.config.clients {
                text.push_str(&format!(" {client}({options})"));
            }
            text.push('\n');
        }
        text
    }

    fn render_server(&self) -> String {
        let addresses: Vec<String> = self.config.listen.iter().map(ToString::to_string).collect();
        format!(
            "# Written by the storage agent of Lyceum; changes are lost.\n[nfsd]\nhost={}\nthreads={}\nudp=n\ntcp=y\nvers2=n\nvers3=n\nvers4=y\nvers4.0=n\nvers4.1=n\nvers4.2=y\n",
            addresses.join(","),
            self.config.threads
        )
    }

    /// Writes and applies everything, and starts the server if it does not run as it should.
    pub fn serve(&self) -> Result<()> {
        let changed = write_if_other(Path::new(SERVER), &self.render_server())?;
        {
            let shown = self.shown();
            write_if_other(Path::new(EXPORTS), &self.render(&shown))?;
        }
        let boots = tool::run("systemctl", "systemd", &["is-enabled", "--quiet", UNIT])?;
        if boots.success {
            tool::must(
                "can't leave the start of the NFS server to the storage agent",
                "systemctl",
                "systemd",
                &["disable", UNIT],
            )?;
            tracing::info!(
                "the NFS server is now started by the storage agent, when the tiers are mounted"
            );
        }
        tool::must("can't export the tiers", "exportfs", PACKAGE, &["-ra"])?;
        if changed || !runs() {
            tool::must(
                "can't start the NFS server",
                "systemctl",
                "systemd",
                &["restart", UNIT],
            )?;
        }
        if !runs() {
            return Err(StorageError::Start(format!(
                "the NFS server does not run: look at 'systemctl status {UNIT}'"
            )));
        }
        Ok(())
    }

    fn save(&self, shown: &BTreeMap<PathBuf, Exported>) -> std::result::Result<(), DiskError> {
        write_if_other(Path::new(EXPORTS), &self.render(shown)).map(drop)
    }
}

impl Show for Exports {
    fn show(
        &self,
        _: &OverlayId,
        path: &Path,
        fsid: uuid::Uuid,
    ) -> std::result::Result<(), DiskError> {
        let exported = Exported {
            path: path.to_owned(),
            fsid,
            mountpoint: true,
        };
        let mut shown = self.shown();
        if shown.get(path) == Some(&exported) {
            return Ok(());
        }
        shown.insert(path.to_owned(), exported.clone());
        self.save(&shown)?;
        let options = self.options(&exported);
        for client in &self.config.clients {
            tool::must(
                "can't export a desktop's volume",
                "exportfs",
                PACKAGE,
                &["-o", &options, &format!("{client}:{}", path.display())],
            )?;
        }
        Ok(())
    }

    fn hide(&self, _: &OverlayId, path: &Path) -> std::result::Result<(), DiskError> {
        let mut shown = self.shown();
        if shown.remove(path).is_none() {
            return Ok(());
        }
        self.save(&shown)?;
        for client in &self.config.clients {
            tool::must(
                "can't stop exporting a desktop's volume",
                "exportfs",
                PACKAGE,
                &["-u", &format!("{client}:{}", path.display())],
            )?;
        }
        // Files that the server keeps open for a client that has closed them.
        let _ = std::fs::write(
            "/proc/fs/nfsd/unlock_filesystem",
            path.as_os_str().as_encoded_bytes(),
        );
        Ok(())
    }
}

/// Whether the kernel's server has threads.
fn runs() -> bool {
    std::fs::read_to_string("/proc/fs/nfsd/threads")
        .is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|threads| threads > 0))
}

/// Whether it was written.
fn write_if_other(path: &Path, text: &str) -> std::result::Result<bool, DiskError> {
    use lyceum_disk::error::Context;
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).on("can't make the folder", folder)?;
    files::write_atomic(path, text.as_bytes(), 0o644)?;
    Ok(true)
}

/// A path as `exports(5)` reads it.
fn quoted(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| match c {
            ' ' | '"' | '\\' | '#' | '\t' | '\n' => format!("\\{:03o}", c as u32),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> NfsConfig {
        NfsConfig {
            listen: vec!["127.0.0.1".parse().unwrap()],
            clients: vec!["10.10.0.0/24".into(), "fd00::5".into()],
            mode: NfsMode::Safe,
            threads: 8,
        }
    }

    fn exports(config: NfsConfig) -> Exports {
        let tier = |path: &str, n| Exported {
            path: path.into(),
            fsid: uuid::Uuid::from_u128(n),
            mountpoint: n == 2,
        };
        Exports::new(config, [tier("/srv/fast", 1), tier("/srv/my slow", 2)]).unwrap()
    }

    #[test]
    fn exports_are_for_the_hosts_only_and_named_by_identity() {
        let exports = exports(config());
        let text = exports.render(&exports.shown());
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "/srv/fast 10.10.0.0/24(rw,sync,no_subtree_check,no_root_squash,sec=sys,fsid=00000000-0000-0000-0000-000000000001) fd00::5(rw,sync,no_subtree_check,no_root_squash,sec=sys,fsid=00000000-0000-0000-0000-000000000001)",
                "/srv/my\\040slow 10.10.0.0/24(rw,sync,no_subtree_check,no_root_squash,sec=sys,fsid=00000000-0000-0000-0000-000000000002,mountpoint) fd00::5(rw,sync,no_subtree_check,no_root_squash,sec=sys,fsid=00000000-0000-0000-0000-000000000002,mountpoint)",
            ]
        );
        assert!(exports.render_server().contains("host=127.0.0.1\n"));
        assert!(exports.render_server().contains("vers3=n\n"));
    }

    #[test]
    fn async_only_by_name() {
        let mut chosen = config();
        chosen.mode = NfsMode::NfsAsync;
        let exports = exports(chosen);
        assert!(exports.render(&exports.shown()).contains("(rw,async,"));
        let text = r#"{"listen":["127.0.0.1"],"clients":["10.0.0.1"],"mode":"nfs-async"}"#;
        assert!(serde_json::from_str::<NfsConfig>(text).unwrap().is_async());
    }

    #[test]
    fn what_would_show_the_disks_to_others_is_refused() {
        let with = |change: fn(&mut NfsConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        for (why, said) in [
            (
                with(|c| c.listen = vec!["0.0.0.0".parse().unwrap()]),
                "every network",
            ),
            (
                with(|c| c.listen = vec!["192.0.2.77".parse().unwrap()]),
                "no address of this machine",
            ),
            (with(|c| c.listen.clear()), "listen"),
            (with(|c| c.clients.clear()), "clients"),
            (with(|c| c.clients = vec!["*".into()]), "no address"),
            (
                with(|c| c.clients = vec!["host.example".into()]),
                "no address",
            ),
            (with(|c| c.clients = vec!["0.0.0.0/0".into()]), "prefix"),
            (
                with(|c| c.clients = vec!["10.0.0.1(rw)".into()]),
                "no address",
            ),
        ] {
            assert!(why.contains(said), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_client_can_smuggle_options(text in ".{0,40}") {
            if check_client(&text).is_ok() {
                prop_assert!(text.chars().all(|c| c.is_ascii_hexdigit() || ".:/".contains(c)), "{text}");
            }
        }
        #[test]
        fn a_path_stays_one_word(text in ".{1,40}") {
            let word = quoted(Path::new(&text));
            prop_assert!(!word.contains([' ', '"', '\t', '\n', '#']), "{word}");
        }
    }
}
