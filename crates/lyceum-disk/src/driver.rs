//! What every way of keeping disks must be able to do.

use crate::{Cancel, DiskError};
use lyceum_model::{DeltaId, DiskRef, DraftId, OverlayId, ReleaseId, disk::layout};
use std::path::{Path, PathBuf};

/// Where the two tiers are mounted on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierDirs {
    /// SSD: releases, drafts, staging.
    pub fast: PathBuf,
    /// HDD: overlays, deltas, uploads.
    pub slow: PathBuf,
}

impl TierDirs {
    /// Folder of a release.
    pub fn release(&self, id: &ReleaseId) -> PathBuf {
        self.fast.join(layout::release(id))
    }
    /// Folder that a seal fills.
    pub fn staging(&self, id: &DraftId) -> PathBuf {
        self.fast.join(layout::staging(id))
    }
    /// Disk of a draft.
    pub fn draft(&self, id: &DraftId) -> PathBuf {
        self.fast.join(layout::draft(id))
    }
    /// ISO beside a draft's disk.
    pub fn draft_iso(&self, id: &DraftId) -> PathBuf {
        self.fast.join(layout::draft_iso(id))
    }
    /// Overlay of a desktop.
    pub fn overlay(&self, id: &OverlayId) -> PathBuf {
        self.slow.join(layout::overlay(id))
    }
    /// Folder of a delta.
    pub fn delta(&self, id: &DeltaId) -> PathBuf {
        self.slow.join(layout::delta(id))
    }
}

/// How large a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// As the guest sees it.
    pub virtual_bytes: u64,
    /// What it takes on its tier.
    pub bytes_on_disk: u64,
}

/// Who owns the files that QEMU writes, when QEMU runs as another user than the storage agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// Gives a file or folder to this owner.
    pub fn take(&self, path: &Path) -> Result<(), DiskError> {
        use crate::error::Context;
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .on("can't change the owner of", path)
    }
}

/// A way of keeping disks. Every call is safe to repeat, and one that fails leaves nothing
/// behind. All of them block.
///
/// Export (a disk as one file of a common format) is added with the first caller that needs it.
pub trait DiskDriver: Send + Sync {
    /// Its name, for example `qcow2`.
    fn name(&self) -> &'static str;

    /// A desktop's disk over a release, with nothing written yet; durable when it returns.
    /// An overlay that is there already and lies over the same release is left as it is.
    fn clone_release(&self, release: &ReleaseId, overlay: &OverlayId)
    -> Result<DiskRef, DiskError>;

    /// A desktop's disk that starts with the overlay inside a captured delta of the same release.
    fn clone_delta(
        &self,
        release: &ReleaseId,
        delta: &DeltaId,
        overlay: &OverlayId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError>;

    /// An empty disk for a draft.
    fn create(&self, draft: &DraftId, virtual_bytes: u64) -> Result<DiskRef, DiskError>;

    /// A draft's disk with a release's content.
    fn draft_of_release(
        &self,
        release: &ReleaseId,
        draft: &DraftId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError>;

    /// Makes an overlay as new. [`DiskError::InUse`] while a machine has it open.
    fn reset(&self, disk: &DiskRef) -> Result<(), DiskError>;

    /// Removes the disk; `false` when it was not there.
    fn delete(&self, disk: &DiskRef) -> Result<bool, DiskError>;

    /// How large it is.
    fn usage(&self, disk: &DiskRef) -> Result<DiskUsage, DiskError>;

    /// Makes a draft's disk larger; smaller is refused. [`DiskError::InUse`] while a machine
    /// has it open.
    fn grow(&self, disk: &DiskRef, virtual_bytes: u64) -> Result<(), DiskError>;

    /// Forgets what is cached about a release that is being deleted.
    fn forget_release(&self, release: &ReleaseId);
}
