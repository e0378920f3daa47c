//! What every way of keeping disks must be able to do.

use crate::{Cancel, DiskError};
use lyceum_model::{
    DeltaId, DiskRef, DraftId, OverlayId, PointId, ReleaseId, Tier, UnixMillis, disk::layout,
};
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
    /// Where a desktop's volume is mounted.
    pub fn volume(&self, id: &OverlayId) -> PathBuf {
        self.slow.join(layout::volume(id))
    }
    /// Folder of the restore points of a desktop's disk.
    pub fn points(&self, id: &OverlayId) -> PathBuf {
        self.slow.join(layout::points(id))
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

/// A restore point of a desktop's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Which.
    pub point: PointId,
    /// When it was taken.
    pub taken: UnixMillis,
    /// What it takes on its tier.
    pub bytes_on_disk: u64,
}

/// What a driver did by itself to keep desktops from running out of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tended {
    /// A disk, or the pool of several, got more room before it was full.
    Extended {
        /// What, as a person knows it: an overlay's id, or the pool.
        what: String,
        /// How large it is now, in bytes.
        bytes: u64,
    },
    /// Nothing is left to extend it with: its writes wait. Nothing is lost.
    Paused(OverlayId),
    /// There is room again: its writes go on.
    Resumed(OverlayId),
    /// Its content is lost: reset it.
    Lost(OverlayId),
}

/// Desktops' disks by what the driver's watch knows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strained {
    /// Their writes wait for room.
    pub paused: Vec<OverlayId>,
    /// Their content is lost.
    pub lost: Vec<OverlayId>,
}

/// A way of keeping disks. Every call is safe to repeat, and one that fails leaves nothing
/// behind. All of them block.
///
/// Callers know a disk by its [`DiskRef`] or id and never by a path: what a driver keeps may be
/// a file, a volume, or an image on a cluster.
pub trait DiskDriver: Send + Sync {
    /// Its name, for example `qcow2`.
    fn name(&self) -> &'static str;

    /// Puts in place what is there after a start of the machine, and clears what was half made.
    fn open(&self) -> Result<(), DiskError>;

    /// Makes what clones of a release lie over, so that the first clone is as quick as the next.
    fn prepare_release(&self, release: &ReleaseId, cancel: &Cancel) -> Result<(), DiskError>;

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

    /// A desktop's disk that starts with what was kept of `of`, which need not be the same
    /// desktop's and stays what it is. An overlay that is there already is left as it is.
    fn clone_point(
        &self,
        of: &OverlayId,
        point: &PointId,
        release: &ReleaseId,
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

    /// A desktop's disk that exists.
    fn find(&self, overlay: &OverlayId) -> Result<DiskRef, DiskError>;

    /// Makes an overlay as new; its restore points stay. [`DiskError::InUse`] while a machine
    /// has it open.
    fn reset(&self, disk: &DiskRef) -> Result<(), DiskError>;

    /// Removes a draft's disk, or a desktop's disk with its restore points; `false` when it was
    /// not there.
    fn delete(&self, disk: &DiskRef) -> Result<bool, DiskError>;

    /// The same for a desktop's disk of which only the id is known.
    fn delete_overlay(&self, overlay: &OverlayId) -> Result<bool, DiskError>;

    /// How large it is.
    fn usage(&self, disk: &DiskRef) -> Result<DiskUsage, DiskError>;

    /// Every desktop's disk, with what it takes on its tier.
    fn overlays(&self) -> Result<Vec<(OverlayId, u64)>, DiskError>;

    /// Makes a draft's disk larger; smaller is refused. [`DiskError::InUse`] while a machine
    /// has it open.
    fn grow(&self, disk: &DiskRef, virtual_bytes: u64) -> Result<(), DiskError>;

    /// Keeps a desktop's disk as it is now. [`DiskError::InUse`] while a machine writes it.
    fn take_point(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<Point, DiskError>;

    /// What was kept of a desktop's disk, the oldest first.
    fn points(&self, overlay: &OverlayId) -> Result<Vec<Point>, DiskError>;

    /// Makes a desktop's disk what it was; the point stays, others too. [`DiskError::InUse`]
    /// while a machine has it open.
    fn restore_point(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<(), DiskError>;

    /// Forgets a restore point; `false` when it was not there.
    fn delete_point(&self, overlay: &OverlayId, point: &PointId) -> Result<bool, DiskError>;

    /// Writes a disk as one qcow2 that needs nothing else into the new file `to`.
    /// [`DiskError::InUse`] while a machine writes it.
    fn export(&self, disk: &DiskRef, to: &Path, cancel: &Cancel) -> Result<(), DiskError>;

    /// Removes what was made for the clones of a release that is being deleted;
    /// [`DiskError::InUse`] while desktops' disks lie over it and could not do without.
    fn forget_release(&self, release: &ReleaseId) -> Result<(), DiskError>;

    /// Bytes that the driver keeps outside the file system of a tier: in all, and free.
    fn beside(&self, tier: Tier) -> Result<(u64, u64), DiskError>;

    /// Looks at what fills up and gives it room in time; called every second or so.
    fn tend(&self) -> Result<Vec<Tended>, DiskError>;

    /// Which desktops' disks are in trouble, as of the last [`Self::tend`].
    fn strained(&self) -> Strained;
}
