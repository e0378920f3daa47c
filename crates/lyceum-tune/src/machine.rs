//! A machine as it was found: what is set, and what the choice of better values needs to know.

use crate::knob::{Knob, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a machine does in the classroom; one may do both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles {
    /// It runs desktops.
    pub host: bool,
    /// It is the file server.
    pub storage: bool,
}

/// A tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierName {
    /// Releases.
    Fast,
    /// What desktops write.
    Slow,
}

/// A disk under a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `sda`.
    pub name: String,
    /// Of which tier; of both: the slow one.
    pub tier: TierName,
    /// Whether it has a head that moves.
    pub rotational: bool,
    /// Schedulers that it can have.
    pub schedulers: Vec<String>,
}

/// What the slow tier's file system is on; its writes wait there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBack {
    /// Number of the device, `254:3`.
    pub device: String,
    /// Whether a head moves below it.
    pub rotational: bool,
    /// How many disks are below it.
    pub disks: u32,
}

/// An interface that leads to another machine of the disk network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// `eth1`.
    pub interface: String,
    /// Whom it leads to; the proof of large packets is asked of that machine.
    pub peer: String,
    /// Megabits per second, when the driver says it.
    pub mbits: Option<u64>,
    /// The largest packet that the driver takes.
    pub most_mtu: Option<u64>,
}

/// A tier mounted by NFS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsMount {
    /// Where.
    pub at: String,
    /// Number of its device, `0:52`.
    pub device: String,
    /// Connections to the server (`nconnect`).
    pub connections: u64,
}

/// A machine as it was found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// What it does.
    pub roles: Roles,
    /// CPUs.
    pub cpus: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// `vm.dirty_ratio`: percent of the memory that may hold writes that wait.
    pub dirty_percent: u64,
    /// Congestion controls that the kernel has loaded.
    pub congestion: Vec<String>,
    /// Disks under the tiers.
    pub disks: Vec<Disk>,
    /// What is under the slow tier; `None`: it is not on a disk of this machine, or shares it with the fast one.
    pub slow: Option<WriteBack>,
    /// Interfaces of the disk network.
    pub links: Vec<Link>,
    /// The tiers, where they come by NFS.
    pub mounts: Vec<NfsMount>,
    /// What every knob that is there is set to.
    #[serde(with = "pairs")]
    pub values: BTreeMap<Knob, Value>,
}

impl Machine {
    /// Knobs whose values the plan asks for.
    pub fn knobs(&self) -> Vec<Knob> {
        crate::plan::wishes(self)
            .into_iter()
            .map(|wish| wish.knob)
            .collect()
    }

    /// The fastest link, megabits per second.
    pub(crate) fn mbits(&self) -> u64 {
        self.links.iter().filter_map(|l| l.mbits).max().unwrap_or(0)
    }
}

/// JSON has texts for keys only.
mod pairs {
    use super::{BTreeMap, Knob, Value};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(map: &BTreeMap<Knob, Value>, s: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Knob, Value>, D::Error> {
        Ok(Vec::<(Knob, Value)>::deserialize(d)?.into_iter().collect())
    }
}
