//! The paper's way of keeping disks: volumes of LVM.
//!
//! A release's disk lies on an *origin* volume on the fast disks. A desktop's disk is a snapshot
//! of it whose store is on the slow disks, mounted below the slow tier, and seen by hosts as
//! one file. Two kinds:
//! - **classic**, as in the paper: each has a store of its own, which is watched and extended. A
//!   restore point is another snapshot that is given the differences.
//! - **thin**: all share a pool, the origin is *external* to it, restore points are snapshots of
//!   snapshots and cost nothing to take.
//!
//! Drafts and releases stay files on the fast tier, as with the `qcow2` driver.
//!
//! LVM is asked through its own programs, and answers are read strictly (`report`). Volumes and
//! groups are known by UUID and tag, never by the name of a device.

mod driver;
mod group;
pub mod mount;
mod points;
pub mod report;
mod room;
pub mod setup;
mod snapshot;
mod watch;

pub use group::{FAST_TAG, Group, POOL, SLOW_TAG, TIER_FAST, TIER_SLOW};
pub use snapshot::LvmDriver;

use lyceum_model::OverlayId;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How desktops' snapshots are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Snapshots {
    /// A store of its own for each.
    Classic,
    /// One pool for all, origins outside it.
    #[default]
    Thin,
}

/// Journalling of the file systems on volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ext4Data {
    /// Data is on the disk before what points to it.
    #[default]
    Ordered,
    /// The paper's: faster; after a power cut a file may hold what its blocks held before.
    Writeback,
}

/// How a tier's disks are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One after the other.
    #[default]
    Linear,
    /// The paper's RAID 0: fast, and one broken disk loses all.
    Striped,
    /// Everything twice.
    Mirror,
    /// One disk may break; three or more.
    Raid5,
    /// Two disks may break; five or more.
    Raid6,
    /// Striped mirrors; four or more.
    Raid10,
}

impl Layout {
    /// Fewest disks it makes sense with.
    pub fn least(self) -> usize {
        match self {
            Layout::Linear => 1,
            Layout::Striped | Layout::Mirror => 2,
            Layout::Raid5 => 3,
            Layout::Raid6 => 5,
            Layout::Raid10 => 4,
        }
    }

    /// Bytes a volume could have on disks with these bytes free.
    pub fn usable(self, free: &[u64]) -> u64 {
        let n = free.len() as u64;
        let least = free.iter().copied().min().unwrap_or(0);
        match self {
            Layout::Linear => free.iter().sum(),
            Layout::Striped => least * n,
            Layout::Mirror => {
                // The second largest: both copies need a disk with that much.
                let mut sorted = free.to_vec();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                sorted.get(1).copied().unwrap_or(0)
            }
            Layout::Raid5 => least * n.saturating_sub(1),
            Layout::Raid6 => least * n.saturating_sub(2),
            Layout::Raid10 => least * (n / 2),
        }
    }

    /// Options of `lvcreate`, on this many disks.
    fn lvcreate(self, disks: &str) -> Vec<String> {
        let n: u64 = disks.parse().unwrap_or(1);
        let with = |options: &[&str]| options.iter().map(|s| (*s).to_owned()).collect();
        let stripes = |kind: &str, n: u64| {
            vec![
                "--type".to_owned(),
                kind.to_owned(),
                "-i".to_owned(),
                n.to_string(),
            ]
        };
        match self {
            Layout::Linear => with(&["--type", "linear"]),
            // One disk can't be striped; the paper's size of a stripe is not known, 64k is LVM's.
            Layout::Striped if n < 2 => with(&["--type", "linear"]),
            Layout::Striped => stripes("striped", n),
            Layout::Mirror => with(&["--type", "raid1", "-m", "1"]),
            Layout::Raid5 => stripes("raid5", n.saturating_sub(1)),
            Layout::Raid6 => stripes("raid6", n.saturating_sub(2)),
            Layout::Raid10 => {
                let mut options = stripes("raid10", n / 2);
                options.extend(["-m".to_owned(), "1".to_owned()]);
                options
            }
        }
    }
}

/// Set-up of the driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LvmConfig {
    /// UUID of the volume group, as `vgs -o uuid` shows it.
    pub vg_uuid: String,
    /// Kind of the snapshots.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// Journalling of the file systems on them.
    #[serde(default)]
    pub ext4_data: Ext4Data,
    /// How the fast disks are put together.
    #[serde(default)]
    pub fast_layout: Layout,
    /// How the slow disks are put together.
    #[serde(default)]
    pub slow_layout: Layout,
    /// Bytes that are kept free in every snapshot's store, or in the pool. Desktops stand still
    /// when half of it is gone and nothing is left to extend with.
    #[serde(default = "headroom")]
    pub headroom_bytes: u64,
}

fn headroom() -> u64 {
    2 << 30
}

impl LvmConfig {
    /// With defaults for the rest: thin, ordered, disks one after the other, 2 GiB headroom.
    pub fn new(vg_uuid: impl Into<String>) -> Self {
        LvmConfig {
            vg_uuid: vg_uuid.into(),
            snapshots: Snapshots::default(),
            ext4_data: Ext4Data::default(),
            fast_layout: Layout::default(),
            slow_layout: Layout::default(),
            headroom_bytes: headroom(),
        }
    }
}

/// Who shows mounted volumes to hosts.
pub trait Show: Send + Sync {
    /// A desktop's volume is mounted at `path`; `fsid` tells it from its siblings, whose file
    /// systems are copies of the same.
    fn show(
        &self,
        overlay: &OverlayId,
        path: &Path,
        fsid: uuid::Uuid,
    ) -> Result<(), crate::DiskError>;
    /// It is going to be unmounted.
    fn hide(&self, overlay: &OverlayId, path: &Path) -> Result<(), crate::DiskError>;
}

/// Nobody: hosts are on the same machine.
pub struct ShowNobody;

impl Show for ShowNobody {
    fn show(&self, _: &OverlayId, _: &Path, _: uuid::Uuid) -> Result<(), crate::DiskError> {
        Ok(())
    }
    fn hide(&self, _: &OverlayId, _: &Path) -> Result<(), crate::DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_on_disks() {
        let disks = [10, 8, 8, 8];
        for (layout, usable) in [
            (Layout::Linear, 34),
            (Layout::Striped, 32),
            (Layout::Mirror, 8),
            (Layout::Raid5, 24),
            (Layout::Raid6, 16),
            (Layout::Raid10, 16),
        ] {
            assert_eq!(layout.usable(&disks), usable, "{layout:?}");
            assert_eq!(layout.usable(&[]), 0, "{layout:?}");
        }
        assert_eq!(
            Layout::Striped.lvcreate("5"),
            ["--type", "striped", "-i", "5"]
        );
        assert_eq!(Layout::Raid5.lvcreate("3"), ["--type", "raid5", "-i", "2"]);
        assert_eq!(Layout::Striped.lvcreate("1"), ["--type", "linear"]);
    }
}
