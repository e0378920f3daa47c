//! Configuration of a host agent.

use crate::HostError;
use lyceum_model::HostId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Longest path of the run directory: below it lie Unix sockets, whose paths the
/// kernel limits to 107 bytes.
const RUN_DIR_MAX: usize = 50;

/// All that a host agent is told. As TOML, unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Its name in the classroom.
    pub name: HostId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it keeps: identity, generations, seals. Of this agent alone.
    pub state_dir: PathBuf,
    /// Run directories of the machines; at most 50 bytes long. May be emptied by a reboot.
    pub run_dir: PathBuf,
    /// Mount point of the fast tier.
    pub fast: PathBuf,
    /// Mount point of the slow tier.
    pub slow: PathBuf,
    /// Where releases are kept on a disk of this host; absent: nowhere, they are read from the
    /// file server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<crate::ReplicaConfig>,
    /// Memory that desktops may use, in MiB; absent: that of the machine less 2 GiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// When to stop admitting desktops.
    #[serde(default)]
    pub marks: Marks,
    /// How many desktops are on their way at once, forks and cold boots each; absent: twice the CPUs.
    #[serde(default)]
    pub starts: Option<usize>,
    /// Milliseconds a desktop may take that is booted cold because it could not be forked.
    #[serde(default = "cold_ready_ms")]
    pub cold_ready_ms: u64,
    /// How many desktops it sends away at once.
    #[serde(default = "moves")]
    pub moves: usize,
    /// An address of its own on which other hosts send their desktops; absent: where it listens.
    #[serde(default)]
    pub migration: Option<SocketAddr>,
    /// Milliseconds between two samples of the load.
    #[serde(default = "sample_ms")]
    pub sample_ms: u64,
    /// Program and arguments that switch this machine off; absent: it can't be switched off from afar.
    #[serde(default)]
    pub power_off: Option<Vec<String>>,
    /// User that machines run as and that owns their run directories; absent: the agent's own.
    #[serde(default)]
    pub user: Option<String>,
    /// How it takes part in courses' networks; absent: desktops get QEMU's user network, and each is alone.
    #[serde(default)]
    pub network: Option<crate::NetworkConfig>,
    /// Machines are simulated: for trying out a classroom without guests.
    #[serde(default)]
    pub simulated: bool,
}

fn cold_ready_ms() -> u64 {
    600_000
}

fn moves() -> usize {
    2
}

fn sample_ms() -> u64 {
    3000
}

/// Marks above which a host admits no further desktops, and the one at which it refuses them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Marks {
    /// Desktops' memory in use (sum of Pss), in percent of `memory_mib`.
    pub desktops_percent: u64,
    /// Memory that must be available on the machine, in MiB.
    pub available_mib: u64,
    /// Share of time in which some task waited for memory (10 s average), in percent.
    pub pressure_percent: f64,
    /// Below this much available memory, in MiB, a start is refused whoever asks for it.
    pub refuse_mib: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Marks {
            desktops_percent: 90,
            available_mib: 1024,
            pressure_percent: 20.0,
            refuse_mib: 256,
        }
    }
}

impl HostConfig {
    /// Reads a TOML file.
    pub fn load(path: &Path) -> Result<HostConfig, HostError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| HostError::Config(format!("can't read {}: {e}", path.display())))?;
        let config: HostConfig = toml::from_str(&text)
            .map_err(|e| HostError::Config(format!("{}: {e}", path.display())))?;
        config.check()?;
        Ok(config)
    }

    /// Finds what can't work before anything is started.
    pub fn check(&self) -> Result<(), HostError> {
        for (what, path) in [
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("fast", &self.fast),
            ("slow", &self.slow),
        ] {
            if !path.is_absolute() {
                return Err(HostError::Config(format!(
                    "{what} is {}: give an absolute path",
                    path.display()
                )));
            }
        }
        if let Some(replica) = &self.replica
            && (!replica.dir.is_absolute() || replica.mib == 0)
        {
            return Err(HostError::Config(format!(
                "[host.replica] has dir = {:?} and mib = {}: give an absolute path on an SSD of this host, and how much of it may be used",
                replica.dir.display().to_string(),
                replica.mib
            )));
        }
        let length = self.run_dir.as_os_str().len();
        if length > RUN_DIR_MAX {
            return Err(HostError::Config(format!(
                "run_dir is {length} bytes long, {RUN_DIR_MAX} are the most, because sockets lie in it: choose a shorter path"
            )));
        }
        if self.sample_ms == 0 || self.starts == Some(0) || self.moves == 0 {
            return Err(HostError::Config(
                "sample_ms, starts and moves must be 1 or more".into(),
            ));
        }
        if self
            .power_off
            .as_ref()
            .is_some_and(|c| c.first().is_none_or(String::is_empty))
        {
            return Err(HostError::Config(
                "power_off is empty: give a program and its arguments, or leave it out".into(),
            ));
        }
        Ok(())
    }

    /// Run directory of a desktop's machine.
    pub(crate) fn desktop_run_dir(&self, desktop: &lyceum_model::DesktopId) -> PathBuf {
        self.desktops_run_dir().join(desktop.as_str())
    }

    pub(crate) fn desktops_run_dir(&self) -> PathBuf {
        self.run_dir.join("d")
    }

    /// Run directory of a machine that is being sealed.
    pub(crate) fn seal_run_dir(&self, draft: &lyceum_model::DraftId) -> PathBuf {
        self.run_dir.join("s").join(draft.as_str())
    }

    /// Run directory of the trial fork of a seal.
    pub(crate) fn trial_run_dir(&self, draft: &lyceum_model::DraftId) -> PathBuf {
        self.run_dir.join("t").join(draft.as_str())
    }

    /// Configured number of starts at once.
    pub(crate) fn starts_at_once(&self) -> usize {
        self.starts.unwrap_or_else(|| 2 * cpus() as usize)
    }
}

/// Logical CPUs of this machine.
pub(crate) fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}
