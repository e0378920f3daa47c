//! The cluster as it was when a plan was made. A plan is a function of this, so it is
//! recorded with the plan, and a file of it is all that `lyceum plan` needs.

use crate::Invalid;
use lyceum_model::UnixMillis;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It runs desktops.
    #[default]
    On,
    /// It is off.
    Off,
    /// It was told to switch on and is not there yet.
    Starting,
    /// It was told to switch off and is not gone yet.
    Stopping,
}

/// What people decided about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It takes part.
    #[default]
    Active,
    /// Its desktops are to leave, and it takes no more.
    Draining,
    /// It is being worked on: nothing goes there, and nothing is moved away by itself.
    Maintenance,
}

/// How a running desktop gets to another host.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovesBy {
    /// Only what it changed travels, and it goes on sharing its release's memory.
    Delta,
    /// The hypervisor's own live migration: afterwards it shares nothing and takes its full size.
    Migration,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Its name, unique.
    pub id: String,
    /// Whether it runs.
    pub power: Power,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Of that, what desktops don't get, MiB.
    pub reserved_mib: u64,
    /// Cores that desktops may use; a part of one where the host is limited. Not known: `null`.
    pub cpu_cores: Option<f64>,
    /// Most desktops on it; `null`: as many as its memory holds.
    pub seats: Option<u32>,
    /// CPU use of the whole host in percent, average of 10 minutes. Not known: `null`.
    pub cpu_percent: Option<f64>,
    /// The one-minute samples behind that average, oldest first; may be left out.
    pub cpu_samples: Vec<f64>,
    /// What it draws while it is on, watts. Not known: `null`.
    pub watts: Option<f64>,
    /// CPU model desktops see on it. `null`: the classroom's common one.
    pub cpu_model: Option<String>,
    /// Releases it holds; `null`: it can get at all of them.
    pub releases: Option<Vec<String>>,
    /// What people decided about it.
    pub standing: Standing,
    /// Kept on and empty as a spare: plans put nothing on it and don't switch it off.
    pub reserve: bool,
    /// Hosts of one group are switched one at a time (they hang on one fuse, say).
    pub group: Option<String>,
    /// Whether it can be switched from afar; `null`: yes.
    pub switchable: Option<bool>,
    /// Since when it is on, or off. Not known: `null`.
    pub since: Option<UnixMillis>,
    /// When it was last measured; `null`: just now.
    pub measured_at: Option<UnixMillis>,
}

/// A desktop that runs, or waits to be started when it has no host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Desktop {
    /// Its name, unique.
    pub id: String,
    /// Where it runs; `null`: it waits for a place.
    pub host: Option<String>,
    /// Its nominal memory, MiB.
    pub memory_mib: u64,
    /// What it takes for itself while it shares its release's memory, MiB; `null`: it shares nothing.
    pub private_mib: Option<u64>,
    /// How it moves; `null`: as a delta when it shares memory, else by migration.
    pub moves_by: Option<MovesBy>,
    /// What travels when it is moved that way, as far as that was measured, MiB. `null`: as a delta what
    /// it takes for itself, by migration all of its memory.
    pub move_mib: Option<f64>,
    /// Virtual CPUs; `null`: one.
    pub vcpus: Option<u32>,
    /// CPU use in percent of its own virtual CPUs, average of 10 minutes. Not known: `null`.
    pub cpu_percent: Option<f64>,
    /// Whether it can be moved at all; `null`: yes.
    pub movable: Option<bool>,
    /// Somebody wants it to stay where it is.
    pub pinned: bool,
    /// Whose it is.
    pub owner: Option<String>,
    /// Of which course.
    pub course: Option<String>,
    /// The release it is a fork of.
    pub release: Option<String>,
    /// The CPU model it was started with; `null`: runs on all.
    pub cpu_model: Option<String>,
    /// Where it is being moved to just now.
    pub moving_to: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// Hosts, on or off.
    pub hosts: Vec<Host>,
    /// Desktops that run or wait to run.
    pub desktops: Vec<Desktop>,
    /// When a plan was last carried out.
    pub last_acted_at: Option<UnixMillis>,
    /// What a move may use of a link, megabits per second. Not known: `null`, and no times are told.
    pub move_mbit_per_s: Option<f64>,
}

/// No machine has more memory than this, MiB; sums of it can't overflow.
const MEMORY_LIMIT_MIB: u64 = 1 << 40;

impl Host {
    /// Memory for desktops, MiB.
    pub fn usable_mib(&self) -> u64 {
        self.memory_mib.saturating_sub(self.reserved_mib)
    }
}

impl Desktop {
    /// What it takes on its present host, MiB.
    pub fn cost_mib(&self) -> u64 {
        self.private_mib.unwrap_or(self.memory_mib)
    }

    /// How it moves.
    pub fn way(&self) -> MovesBy {
        match (self.moves_by, self.private_mib) {
            (Some(way), _) => way,
            (None, Some(_)) => MovesBy::Delta,
            (None, None) => MovesBy::Migration,
        }
    }

    /// What it takes on the host it is moved to, MiB.
    pub fn cost_after_move_mib(&self) -> u64 {
        match self.way() {
            MovesBy::Delta => self.cost_mib(),
            MovesBy::Migration => self.memory_mib,
        }
    }

    /// What travels when it is moved, MiB.
    pub fn travels_mib(&self) -> f64 {
        // Memory is far below 2^53.
        self.move_mib.unwrap_or(match self.way() {
            MovesBy::Delta => self.cost_mib() as f64,
            MovesBy::Migration => self.memory_mib as f64,
        })
    }

    /// CPU it uses, in cores; 0 when that is not known.
    pub fn cores_used(&self) -> f64 {
        self.cpu_percent.unwrap_or(0.0) / 100.0 * f64::from(self.vcpus.unwrap_or(1))
    }
}

impl Snapshot {
    /// Whether it can be planned with. The first thing that is wrong is named with its place,
    /// for example `hosts[2].cpu_percent`.
    pub fn check(&self) -> Result<(), Invalid> {
        number(self.move_mbit_per_s, || "move_mbit_per_s".into())?;
        if self.move_mbit_per_s == Some(0.0) {
            return Err(Invalid::new(
                "move_mbit_per_s".into(),
                "is 0, so no move would ever end; give the bandwidth, or null".into(),
            ));
        }
        let mut hosts = HashSet::new();
        for (i, host) in self.hosts.iter().enumerate() {
            let at = |field: &str| format!("hosts[{i}].{field}");
            name(&host.id, || at("id"))?;
            if !hosts.insert(host.id.as_str()) {
                return Err(Invalid::new(
                    at("id"),
                    format!("there are two hosts {:?}; give each its own id", host.id),
                ));
            }
            memory(host.memory_mib, || at("memory_mib"))?;
            if host.reserved_mib > host.memory_mib {
                return Err(Invalid::new(
                    at("reserved_mib"),
                    format!(
                        "{} MiB are reserved and the host has {}; reserve less",
                        host.reserved_mib, host.memory_mib
                    ),
                ));
            }
            number(host.cpu_percent, || at("cpu_percent"))?;
            number(host.watts, || at("watts"))?;
            number(host.cpu_cores, || at("cpu_cores"))?;
            if host.cpu_cores == Some(0.0) {
                return Err(Invalid::new(
                    at("cpu_cores"),
                    "is 0; give the number of cores, or null".into(),
                ));
            }
            for (k, sample) in host.cpu_samples.iter().enumerate() {
                number(Some(*sample), || at(&format!("cpu_samples[{k}]")))?;
            }
        }
        let mut desktops = HashSet::new();
        for (i, desktop) in self.desktops.iter().enumerate() {
            let at = |field: &str| format!("desktops[{i}].{field}");
            name(&desktop.id, || at("id"))?;
            if !desktops.insert(desktop.id.as_str()) {
                return Err(Invalid::new(
                    at("id"),
                    format!(
                        "there are two desktops {:?}; give each its own id",
                        desktop.id
                    ),
                ));
            }
            memory(desktop.memory_mib, || at("memory_mib"))?;
            if desktop.private_mib.is_some_and(|p| p > desktop.memory_mib) {
                return Err(Invalid::new(
                    at("private_mib"),
                    format!(
                        "is more than the desktop's memory of {} MiB",
                        desktop.memory_mib
                    ),
                ));
            }
            if desktop.vcpus == Some(0) {
                return Err(Invalid::new(at("vcpus"), "is 0; give 1 or more".into()));
            }
            number(desktop.cpu_percent, || at("cpu_percent"))?;
            number(desktop.move_mib, || at("move_mib"))?;
            for (field, host) in [("host", &desktop.host), ("moving_to", &desktop.moving_to)] {
                if let Some(host) = host
                    && !hosts.contains(host.as_str())
                {
                    return Err(Invalid::new(
                        at(field),
                        format!("there is no host {host:?} among the hosts"),
                    ));
                }
            }
            if desktop.host.is_none() && desktop.moving_to.is_some() {
                return Err(Invalid::new(
                    at("moving_to"),
                    "is given, but the desktop has no host to move away from".into(),
                ));
            }
        }
        self.nothing_runs_on_a_host_that_is_off()
    }

    fn nothing_runs_on_a_host_that_is_off(&self) -> Result<(), Invalid> {
        let off: HashSet<&str> = self
            .hosts
            .iter()
            .filter(|h| matches!(h.power, Power::Off | Power::Starting))
            .map(|h| h.id.as_str())
            .collect();
        for (i, desktop) in self.desktops.iter().enumerate() {
            if let Some(host) = &desktop.host
                && off.contains(host.as_str())
            {
                return Err(Invalid::new(
                    format!("desktops[{i}].host"),
                    format!("{host:?} is not on, so nothing can run there; correct one of the two"),
                ));
            }
        }
        Ok(())
    }
}

fn name(text: &str, place: impl Fn() -> String) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(
            place(),
            "is missing or empty; give a name".into(),
        ));
    }
    if text.len() > 256 || text.chars().any(char::is_control) {
        return Err(Invalid::new(
            place(),
            "is longer than 256 bytes or has control characters; give a plain name".into(),
        ));
    }
    Ok(())
}

fn memory(mib: u64, place: impl Fn() -> String) -> Result<(), Invalid> {
    if (1..=MEMORY_LIMIT_MIB).contains(&mib) {
        Ok(())
    } else {
        Err(Invalid::new(
            place(),
            format!("is {mib}; give 1 to {MEMORY_LIMIT_MIB} MiB"),
        ))
    }
}

/// A measured number: there or not, but never negative, infinite or not a number.
pub(crate) fn number(value: Option<f64>, place: impl Fn() -> String) -> Result<(), Invalid> {
    match value {
        Some(v) if !v.is_finite() || v < 0.0 => Err(Invalid::new(
            place(),
            format!("is {v}; give a number of 0 or more, or null when it is not known"),
        )),
        _ => Ok(()),
    }
}
