//! What the parts of Lyceum say to each other about disks. Nobody outside a
//! storage driver may assume that a disk is a file: callers hand on a
//! [`DiskRef`] as they got it.

use crate::{DeltaId, DraftId, OverlayId, ReleaseId};
use serde::{Deserialize, Serialize};

/// Where something is kept.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// SSD: releases; read mostly, shared.
    Fast,
    /// HDD: what desktops write.
    Slow,
}

/// A disk as the storage agent names it to the host agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DiskRef {
    /// A qcow2 overlay on the slow tier whose backing node is the release's disk.
    Qcow2Overlay {
        /// Which overlay.
        overlay: OverlayId,
        /// What lies under it.
        release: ReleaseId,
    },
    /// A desktop's volume on the slow tier: a snapshot of the release's volume with a
    /// standalone qcow2 disk in it.
    LvmVolume {
        /// Which; an overlay in all but how it is kept.
        overlay: OverlayId,
        /// What it is a snapshot of.
        release: ReleaseId,
    },
    /// The standalone qcow2 disk of a draft.
    Qcow2Draft {
        /// Whose disk.
        draft: DraftId,
    },
}

impl DiskRef {
    /// The overlay, for a desktop's disk.
    pub fn overlay(&self) -> Option<&OverlayId> {
        match self {
            DiskRef::Qcow2Overlay { overlay, .. } | DiskRef::LvmVolume { overlay, .. } => {
                Some(overlay)
            }
            DiskRef::Qcow2Draft { .. } => None,
        }
    }

    /// The release that lies under it, for a desktop's disk.
    pub fn release(&self) -> Option<&ReleaseId> {
        match self {
            DiskRef::Qcow2Overlay { release, .. } | DiskRef::LvmVolume { release, .. } => {
                Some(release)
            }
            DiskRef::Qcow2Draft { .. } => None,
        }
    }
}

/// Something that an agent writes to or reads from a tier as a folder of files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StoredRef {
    /// A sealed release on the fast tier.
    Release {
        /// Which.
        release: ReleaseId,
    },
    /// A delta on the slow tier.
    Delta {
        /// Which.
        delta: DeltaId,
    },
    /// What a seal in progress writes, on the fast tier.
    Staging {
        /// The draft that is being sealed.
        draft: DraftId,
    },
}

/// What a desktop's flushed writes survive.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// What the guest flushed is on stable storage (invariant 5).
    #[default]
    Safe,
    /// Host-side write-back and flushes ignored: for desktops that are thrown
    /// away anyway. A crash of the host loses what was written.
    Throwaway,
}

/// Folder and file names below the two tier directories. Storage and host agents
/// see the same tiers (one directory, or an NFS mount of it), so the layout is
/// part of the protocol and stands here once.
pub mod layout {
    use crate::{DeltaId, DraftId, OverlayId, ReleaseId};
    use std::path::PathBuf;

    /// Sealed disk of a release, inside its folder.
    pub const RELEASE_DISK: &str = "disk.qcow2";
    /// Sealed memory of a release, inside its folder.
    pub const RELEASE_RAM: &str = "ram";
    /// Sealed device state of a release, inside its folder.
    pub const RELEASE_DEVICE_STATE: &str = "device-state";
    /// The manifest of a release, inside its folder.
    pub const RELEASE_MANIFEST: &str = "manifest.json";

    /// Copy of the desktop's overlay, inside the folder of a delta.
    pub const DELTA_OVERLAY: &str = "overlay.qcow2";

    /// Fast tier: folder of a release.
    pub fn release(id: &ReleaseId) -> PathBuf {
        PathBuf::from("releases").join(id.as_str())
    }
    /// Fast tier: folder that a seal fills; becomes the release by a rename.
    pub fn staging(id: &DraftId) -> PathBuf {
        PathBuf::from("staging").join(id.as_str())
    }
    /// Fast tier: disk of a draft.
    pub fn draft(id: &DraftId) -> PathBuf {
        PathBuf::from("drafts").join(format!("{id}.qcow2"))
    }
    /// Fast tier: ISO to install a draft from; the host agent opens it as a CD.
    pub fn draft_iso(id: &DraftId) -> PathBuf {
        PathBuf::from("drafts").join(format!("{id}.iso"))
    }
    /// Slow tier: overlay of a desktop.
    pub fn overlay(id: &OverlayId) -> PathBuf {
        PathBuf::from("overlays").join(format!("{id}.qcow2"))
    }
    /// Slow tier: where a desktop's volume is mounted.
    pub fn volume(id: &OverlayId) -> PathBuf {
        PathBuf::from("volumes").join(id.as_str())
    }
    /// The disk inside a desktop's volume.
    pub const VOLUME_DISK: &str = "disk.qcow2";
    /// Slow tier: folder of the restore points of a desktop's disk.
    pub fn points(id: &OverlayId) -> PathBuf {
        PathBuf::from("points").join(id.as_str())
    }
    /// Slow tier: folder of a delta.
    pub fn delta(id: &DeltaId) -> PathBuf {
        PathBuf::from("deltas").join(id.as_str())
    }
    /// Ending of a delta's name while a host writes it.
    pub const PARTIAL: &str = ".partial";
    /// Slow tier: the same while it is being written.
    pub fn partial_delta(id: &DeltaId) -> PathBuf {
        PathBuf::from("deltas").join(format!("{id}{PARTIAL}"))
    }
}

/// How much of a tier is used.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierUsage {
    /// Bytes the tier's file system holds.
    pub total_bytes: u64,
    /// Bytes free for Lyceum on it, after the reserve.
    pub free_bytes: u64,
    /// Bytes that Lyceum's own files take on it.
    pub used_bytes: u64,
}
