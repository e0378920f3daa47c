//! Hosts and storage.

use crate::wording::Wordings;
use lyceum_model as model;
use lyceum_model::{Accelerator, HostId, UnixMillis, disk::TierUsage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a host takes desktops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It takes desktops.
    Active,
    /// It takes no new ones.
    Draining,
}

/// A KVM server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its name.
    pub id: HostId,
    /// Where its agent is.
    pub url: String,
    /// Whether it takes desktops.
    pub state: HostState,
    /// Whether its agent is heard.
    pub online: bool,
    /// When it was last heard.
    pub last_heard: Option<UnixMillis>,
    /// Words for the page, for example that KVM does not work.
    pub warnings: Vec<String>,
    /// What executes guest instructions.
    pub accelerator: Option<Accelerator>,
    /// QEMU's version.
    pub qemu_version: Option<String>,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory for desktops, MiB.
    pub memory_mib: u64,
    /// Nominal memory of its desktops, MiB.
    pub nominal_mib: u64,
    /// Nominal memory it admits, MiB: real memory times the over-commit.
    pub nominal_limit_mib: u64,
    /// Sum of Pss of its desktops, MiB.
    pub desktops_pss_mib: u64,
    /// Memory available on the machine, MiB.
    pub available_mib: u64,
    /// CPU of the machine, percent.
    pub cpu_percent: f64,
    /// CPU of its desktops, percent of the machine.
    pub desktops_cpu_percent: f64,
    /// Memory pressure, percent.
    pub memory_pressure: f64,
    /// Desktops on it.
    pub desktops: u32,
    /// Whether it admits more, and if not why.
    pub refuses_because: Option<String>,
    /// What is known of its power.
    #[serde(default)]
    pub power: crate::allocation::HostPower,
    /// Releases on a disk of its own, when it keeps some there.
    #[serde(default)]
    pub replica: Option<HostReplica>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// The last minutes, oldest first, one point per 5 s, at most 120.
    pub recent: Vec<HostSample>,
}

/// Releases that a host keeps on a disk of its own, so that they are not read from the file server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostReplica {
    /// How many are complete.
    pub releases: u32,
    /// What they take.
    pub used_bytes: u64,
    /// What they may take.
    pub limit_bytes: u64,
    /// How much of the one that is being copied is there, percent.
    pub filling_percent: Option<f64>,
    /// Why it is not as it should be; desktops use the file server's then.
    pub trouble: Option<String>,
}

/// One point of a host's chart.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct HostSample {
    /// When.
    pub at: UnixMillis,
    /// CPU of the machine, percent.
    pub cpu_percent: f64,
    /// Pss of its desktops, MiB.
    pub desktops_pss_mib: u64,
    /// Desktops.
    pub desktops: u32,
}

/// Change a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostPatch {
    /// Whether it takes desktops.
    pub state: Option<HostState>,
}

/// What joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// A KVM server.
    Host,
    /// The file server.
    Storage,
}

/// Make a join token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenCreate {
    /// What joins.
    pub kind: AgentKind,
    /// Its name.
    pub name: HostId,
}

/// A one-time join token: `lyceum host --join TOKEN` or `lyceum storage --join TOKEN`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// The token.
    pub token: String,
    /// Until when it works.
    pub expires: UnixMillis,
}

/// The file server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Storage {
    /// Whether its agent is heard.
    pub online: bool,
    /// Name of the disk driver.
    pub driver: String,
    /// Fast tier.
    pub fast: Option<TierUsage>,
    /// Slow tier.
    pub slow: Option<TierUsage>,
    /// Both tiers are one file system.
    pub same_device: bool,
    /// What a power cut of the file server may cost: `safe`, `data=writeback` or `nfs-async`.
    pub durability: String,
    /// How many desktops more there is room for, if they write what those did that are there.
    #[serde(default)]
    pub desktops_left: Option<u64>,
    /// Bytes written to the fast tier's disks today (UTC).
    pub fast_written_today: u64,
    /// Bytes written to the slow tier's disks today (UTC).
    pub slow_written_today: u64,
    /// Words for the page.
    pub warnings: Vec<String>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// `GET health`: whether the parts are there. Anybody may ask; it names nothing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` while an agent is not heard.
    pub status: String,
    /// Version of the controller.
    pub version: String,
    /// The controller's clock.
    pub now: model::UnixMillis,
    /// Hosts that are heard.
    pub hosts_online: u32,
    /// Whether storage is heard.
    pub storage_online: bool,
}
