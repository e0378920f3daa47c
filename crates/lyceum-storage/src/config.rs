//! What a storage agent is told.

use crate::nfs::NfsConfig;
use lyceum_disk::driver::Owner;
use lyceum_disk::lvm::LvmConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Configuration of the storage agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Address and port for the controller's requests.
    pub listen: SocketAddr,
    /// Folder for the agent's own identity and what it remembers about its tiers.
    pub state_dir: PathBuf,
    /// Root of the fast tier.
    pub fast_dir: PathBuf,
    /// Root of the slow tier.
    pub slow_dir: PathBuf,
    /// Bytes that are kept free on each tier: running desktops write to their overlays
    /// without asking, so the agent refuses new things before the tier is full.
    #[serde(default = "default_reserve")]
    pub reserve_bytes: u64,
    /// `qemu-img`; a name is looked for in `PATH`.
    #[serde(default = "default_qemu_img")]
    pub qemu_img: PathBuf,
    /// Who QEMU runs as on the hosts, when that is another user than the agent's: gets the
    /// disks that QEMU writes.
    #[serde(default)]
    pub disk_owner: Option<Owner>,
    /// How desktops' disks are kept.
    #[serde(default)]
    pub driver: Driver,
    /// The volume group that the tiers are in; absent: they are folders, on whatever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lvm: Option<LvmConfig>,
    /// Showing the tiers to hosts; absent: they are on this machine, or somebody else does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsConfig>,
}

/// How desktops' disks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// qcow2 files over the release's.
    #[default]
    Qcow2,
    /// Snapshots of volumes; needs `lvm`.
    Lvm,
}

fn default_reserve() -> u64 {
    2 << 30
}

fn default_qemu_img() -> PathBuf {
    PathBuf::from("qemu-img")
}

impl StorageConfig {
    /// With defaults for the rest: 2 GiB reserve, `qemu-img` from `PATH`, disks owned by
    /// the agent's user.
    pub fn new(
        listen: SocketAddr,
        state_dir: impl Into<PathBuf>,
        fast_dir: impl Into<PathBuf>,
        slow_dir: impl Into<PathBuf>,
    ) -> Self {
        StorageConfig {
            listen,
            state_dir: state_dir.into(),
            fast_dir: fast_dir.into(),
            slow_dir: slow_dir.into(),
            reserve_bytes: default_reserve(),
            qemu_img: default_qemu_img(),
            disk_owner: None,
            driver: Driver::default(),
            lvm: None,
            nfs: None,
        }
    }
}
