//! `lyceum controller`, `lyceum host`, `lyceum storage`: the parts, each set up by a TOML file.
//! Keys that nobody knows are errors.

use crate::exit::{self, Exit};
use lyceum_controller::{ControllerConfig, PublicTls};
use lyceum_disk::remote::Remote;
use lyceum_host::HostConfig;
use lyceum_proto::join::AgentKind;
use lyceum_qemu::{QemuConfig, QemuHypervisor};
use lyceum_storage::StorageConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Set-up of a controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerFile {
    /// Where it keeps its CA, its store and its local socket.
    pub state_dir: PathBuf,
    /// `sqlite:PATH` or `postgres://...`; absent: SQLite in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_url: Option<String>,
    /// Where the page and the API are served.
    pub listen: SocketAddr,
    /// DNS names and addresses under which browsers reach it.
    #[serde(default)]
    pub names: Vec<String>,
    /// Where agents join and report.
    pub agent_listen: SocketAddr,
    /// `https://ADDRESS:PORT` of the above as agents reach it; absent: as it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_url: Option<String>,
    /// Where native VNC viewers connect; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_listen: Option<SocketAddr>,
    /// Where native SPICE clients connect; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spice_listen: Option<SocketAddr>,
    /// Programs with their arguments that bring hosts up, by name; `{host}` stands for the host's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub power_commands: BTreeMap<String, Vec<String>>,
    /// Courses' networks; absent: desktops get QEMU's user network, each alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<lyceum_controller::NetworkConfig>,
    /// Proxies whose `X-Forwarded-For` is believed; absent: nobody's is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<lyceum_net::Net>,
    /// For how long consoles stay open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleFile>,
    /// TLS towards browsers: absent: plain on loopback, else a certificate of the classroom's own CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFile>,
}

/// For how long consoles stay open. The page says when one was closed, and goes on at a click.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleFile {
    /// Minutes after which a console is closed in which its person does nothing. Who only watches need not do anything.
    #[serde(default = "idle_minutes")]
    pub idle_minutes: std::num::NonZeroU32,
    /// Hours after which any console is closed.
    #[serde(default = "longest_hours")]
    pub longest_hours: std::num::NonZeroU32,
}

fn idle_minutes() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::MIN.saturating_add(179)
}

fn longest_hours() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::MIN.saturating_add(11)
}

impl From<ConsoleFile> for lyceum_controller::ConsoleLimits {
    fn from(file: ConsoleFile) -> lyceum_controller::ConsoleLimits {
        let minutes = |n: u64| std::time::Duration::from_secs(60 * n);
        lyceum_controller::ConsoleLimits {
            idle: minutes(file.idle_minutes.get().into()),
            lifetime: minutes(60 * u64::from(file.longest_hours.get())),
            ..lyceum_controller::ConsoleLimits::default()
        }
    }
}

/// A certificate from elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Chain as PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// Private key as PEM.
    pub key: PathBuf,
}

impl From<ControllerFile> for ControllerConfig {
    fn from(file: ControllerFile) -> ControllerConfig {
        ControllerConfig {
            state_dir: file.state_dir,
            store_url: file.store_url,
            listen: file.listen,
            tls: file.tls.map_or(PublicTls::Auto, |tls| PublicTls::Files {
                certificate: tls.certificate,
                key: tls.key,
            }),
            names: file.names,
            agent_listen: file.agent_listen,
            agent_url: file.agent_url,
            native_listen: file.native_listen,
            spice_listen: file.spice_listen,
            power_commands: file.power_commands,
            network: file.network,
            trusted_proxies: file.trusted_proxies,
            console: file.console.map(Into::into).unwrap_or_default(),
            clock: Default::default(),
        }
    }
}

/// Set-up of a host agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// The agent.
    pub host: HostConfig,
    /// How machines are made.
    #[serde(default)]
    pub qemu: QemuConfig,
    /// The file server to mount the tiers from; absent: they are on this machine, or mounted by
    /// somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<Remote>,
}

/// How a part is started.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    /// Its configuration
    #[arg(long, value_name = "FILE", required = true)]
    pub config: Option<PathBuf>,
}

/// How an agent is started.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One-time token, at the first start (lyceum host token NAME on the controller)
    #[arg(
        long,
        value_name = "TOKEN",
        env = "LYCEUM_JOIN_TOKEN",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// https://ADDRESS:PORT where the controller reaches this agent; default: as it listens
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
}

impl AgentArgs {
    fn config(&self) -> anyhow::Result<&Path> {
        self.config.as_deref().ok_or_else(|| {
            Exit::usage("an agent needs --config FILE; docs/configuration.md shows one")
        })
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Exit::usage(format!(
            "the configuration {} can't be read: {e}",
            path.display()
        ))
    })?;
    toml::from_str(&text).map_err(|e| {
        Exit::usage(format!(
            "the configuration {} can't be used:\n{e}",
            path.display()
        ))
    })
}

/// Log lines on standard error; `LYCEUM_LOG` chooses which (as in `info,lyceum_host=debug`).
pub(crate) fn log() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("LYCEUM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// Cancelled by SIGTERM or Ctrl-C.
pub(crate) fn until_told() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let told = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
    });
    Ok(token)
}

/// The error as a person reads it, with its sources.
fn ended(part: &str, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    Exit::coded(
        exit::FAILED,
        format!("the {part} can't run: {:#}", anyhow::Error::new(error)),
    )
}

/// Runs a controller.
pub async fn controller(args: PartArgs) -> anyhow::Result<()> {
    let path = args.config.ok_or_else(|| {
        Exit::usage("a controller needs --config FILE; docs/configuration.md shows one")
    })?;
    let file: ControllerFile = load(&path)?;
    log();
    let token = until_told()?;
    lyceum_controller::run(file.into(), token.cancelled_owned())
        .await
        .map_err(|e| ended("controller", e))
}

async fn join(
    args: &AgentArgs,
    kind: AgentKind,
    name: lyceum_model::HostId,
    listen: SocketAddr,
    state: &Path,
) -> anyhow::Result<()> {
    let Some(token) = &args.join else {
        return Ok(());
    };
    let own_url = args
        .advertise
        .clone()
        .unwrap_or_else(|| format!("https://{listen}"));
    std::fs::create_dir_all(state).map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!("{} can't be made: {e}", state.display()),
        )
    })?;
    lyceum_wire::join::join(token, kind, name, &own_url, state)
        .await
        .map_err(|e| Exit::coded(exit::REFUSED, e.to_string()))?;
    Ok(())
}

/// Runs a host agent.
pub async fn host(args: AgentArgs) -> anyhow::Result<()> {
    let HostFile {
        host,
        mut qemu,
        nfs,
    } = load(args.config()?)?;
    host.check().map_err(|e| Exit::usage(e.to_string()))?;
    log();
    let token = until_told()?;
    if let Some(nfs) = nfs {
        let (fast, slow) = (host.fast.clone(), host.slow.clone());
        tokio::task::spawn_blocking(move || nfs.mount(&fast, &slow))
            .await?
            .map_err(|e| ended("host agent", e))?;
    }
    join(
        &args,
        AgentKind::Host,
        host.name.clone(),
        host.listen,
        &host.state_dir,
    )
    .await?;
    if qemu.user.is_none() {
        qemu.user.clone_from(&host.user);
    }
    let hypervisor: Arc<dyn lyceum_hypervisor::Hypervisor> = if host.simulated {
        let world = lyceum_hypervisor::sim::SimWorld::new();
        Arc::new(lyceum_hypervisor::sim::SimHypervisor::new(
            world,
            // As real machines do, they outlive the agent.
            lyceum_hypervisor::sim::SimConfig {
                persist: true,
                ..Default::default()
            },
        ))
    } else {
        let made = tokio::task::spawn_blocking(move || QemuHypervisor::new(qemu)).await?;
        Arc::new(made.map_err(|e| ended("host agent", e))?)
    };
    lyceum_host::run(host, hypervisor, token)
        .await
        .map_err(|e| ended("host agent", e))
}

/// Runs a storage agent.
pub async fn storage(args: AgentArgs) -> anyhow::Result<()> {
    let config: StorageConfig = load(args.config()?)?;
    log();
    let token = until_told()?;
    let name = "storage"
        .parse()
        .map_err(|e| Exit::coded(exit::FAILED, format!("{e}")))?;
    join(
        &args,
        AgentKind::Storage,
        name,
        config.listen,
        &config.state_dir,
    )
    .await?;
    lyceum_storage::run(config, token)
        .await
        .map_err(|e| ended("storage agent", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text = "state_dir = \"/x\"\nlisten = \"127.0.0.1:1\"\nagent_listen = \"127.0.0.1:2\"\n";
        std::fs::write(&path, text).unwrap();
        let file: ControllerFile = load(&path).unwrap();
        assert_eq!(file.names, Vec::<String>::new());
        std::fs::write(&path, format!("{text}listen = 1\n")).unwrap();
        assert!(
            load::<ControllerFile>(&path)
                .unwrap_err()
                .to_string()
                .contains("listen")
        );
    }

    #[test]
    fn what_the_supervisor_writes_can_be_read() {
        let file = HostFile {
            host: serde_json::from_value(serde_json::json!({
                "name": "host-1", "listen": "127.0.0.1:1", "state_dir": "/s", "run_dir": "/r",
                "fast": "/f", "slow": "/w", "memory_mib": 1,
            }))
            .unwrap(),
            qemu: QemuConfig::default(),
            nfs: None,
        };
        let again: HostFile = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(again.host, file.host);
        assert_eq!(again.qemu, file.qemu);
    }
}
