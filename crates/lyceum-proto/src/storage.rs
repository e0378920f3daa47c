//! The storage agent.
//!
//! | request | meaning |
//! |---|---|
//! | `GET /v1/storage` | [`StorageFacts`] |
//! | `GET /v1/room` | [`Room`]: what may still be taken, and nothing that takes long to count |
//! | `GET /v1/inventory` | [`Inventory`]: everything on the tiers, for the reconciler that clears up |
//! | `PUT /v1/overlays/{id}` | [`OverlayRequest`] → [`lyceum_model::DiskRef`]; again with the same request: the same answer |
//! | `GET /v1/overlays/{id}` | [`OverlayFacts`] |
//! | `POST /v1/overlays/{id}/reset` | as new; its restore points stay |
//! | `GET /v1/overlays/{id}/export` | the disk as one qcow2 that needs nothing else, streamed |
//! | `GET /v1/overlays/{id}/points` | list of [`DiskPoint`], the oldest first |
//! | `PUT /v1/overlays/{id}/points/{point}` | keep the disk as it is now → [`DiskPoint`] |
//! | `POST /v1/overlays/{id}/points/{point}/restore` | make the disk what it was |
//! | `DELETE /v1/overlays/{id}/points/{point}` | forget that |
//! | `POST /v1/releases/{id}/prepare` | make what clones of it lie over, ahead of the class |
//! | `DELETE /v1/overlays/{id}`, `/v1/deltas/{id}`, `/v1/drafts/{id}`, `/v1/releases/{id}`, `/v1/staging/{draft}`, `/v1/uploads/{job}` | gone; also when it was not there |
//! | `PUT /v1/uploads/{job}?name=NAME&bytes=N` | body: the file, streamed; 507 before the first byte when it can't fit |
//! | `PUT /v1/imports/{job}` | [`ImportRequest`]: a job: inspect the upload and make a draft's disk of it |
//! | `GET /v1/imports/{job}` | [`ImportStatus`] |
//! | `DELETE /v1/imports/{job}` | cancel and clear up, or forget when it is over |
//! | `PUT /v1/drafts/{id}` | [`DraftRequest`]: make a draft's disk from a release or empty |
//! | `PUT /v1/staging/{draft}` | make the staging folder with a copy of the draft's disk |
//! | `POST /v1/staging/{draft}/publish` | [`PublishRequest`] → [`Published`]: hash, write the manifest, rename to the release |
//! | `POST /v1/releases/{id}/verify` | hash everything again; 422 `damaged` with the file's name |

use lyceum_model::{
    DeltaId, DiskRef, DraftId, JobId, OverlayId, PointId, ReleaseId, ReleaseManifest, SealedMemory,
    UnixMillis, disk::TierUsage,
};
use serde::{Deserialize, Serialize};

/// What the storage agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StorageFacts {
    /// Version of the agent.
    pub version: String,
    /// Name of the disk driver, for example `qcow2`.
    pub driver: String,
    /// Fast tier.
    pub fast: TierUsage,
    /// Slow tier.
    pub slow: TierUsage,
    /// Both tiers are on the same file system (true on a demo machine).
    pub same_device: bool,
    /// Identity of the fast tier, as in the marker at its root.
    #[serde(default)]
    pub fast_id: Option<uuid::Uuid>,
    /// Identity of the slow tier.
    #[serde(default)]
    pub slow_id: Option<uuid::Uuid>,
    /// What a power cut of the file server may cost: `safe`, `data=writeback` or `nfs-async`
    /// (docs/durability.md).
    #[serde(default)]
    pub durability: String,
    /// How many desktops more there is room for, going by those that are there.
    #[serde(default)]
    pub desktops_left: Option<u64>,
    /// Desktops whose writes wait, because nothing is left to extend their disk with.
    #[serde(default)]
    pub paused: Vec<OverlayId>,
    /// Desktops whose disk is lost.
    #[serde(default)]
    pub lost: Vec<OverlayId>,
    /// Bytes written to the fast tier's disks per day, the newest last.
    #[serde(default)]
    pub fast_written: Vec<WrittenDay>,
    /// Bytes written to the slow tier's disks per day, the newest last.
    #[serde(default)]
    pub slow_written: Vec<WrittenDay>,
}

/// What was written to a tier's disks on one day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenDay {
    /// Its first millisecond.
    pub day: UnixMillis,
    /// Bytes.
    pub bytes: u64,
}

/// A desktop's disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverlayFacts {
    /// As hosts are told.
    pub disk: DiskRef,
    /// As the guest sees it.
    pub virtual_bytes: u64,
    /// What it takes on its tier.
    pub bytes_on_disk: u64,
}

/// A restore point of a desktop's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPoint {
    /// Which.
    pub point: PointId,
    /// When it was taken.
    pub taken: UnixMillis,
    /// What it takes on its tier.
    pub bytes_on_disk: u64,
}

/// Room that is left, after the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes on the slow tier, where deltas and restore points are.
    pub slow_bytes: u64,
}

/// All that exists on the tiers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Releases.
    pub releases: Vec<ReleaseId>,
    /// Draft disks.
    pub drafts: Vec<DraftId>,
    /// Staging folders.
    pub staging: Vec<DraftId>,
    /// Overlays with their bytes on disk.
    pub overlays: Vec<(OverlayId, u64)>,
    /// Deltas with their bytes on disk, half-written ones included.
    pub deltas: Vec<(DeltaId, u64)>,
    /// Uploads.
    pub uploads: Vec<JobId>,
}

/// Make an overlay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayRequest {
    /// What it lies over.
    pub release: ReleaseId,
    /// What it starts with.
    pub content: OverlayContent,
}

/// What an overlay starts with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum OverlayContent {
    /// Nothing: as new.
    Empty,
    /// A copy of the overlay inside a captured delta (hand-out, restore).
    Delta {
        /// Which.
        delta: DeltaId,
    },
    /// A copy of what was kept of a desktop's disk as a restore point.
    Point {
        /// The overlay that it was taken of.
        of: OverlayId,
        /// Which.
        point: PointId,
    },
}

/// Import an upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The upload.
    pub upload: JobId,
    /// The draft whose disk it becomes.
    pub draft: DraftId,
    /// For an ISO: size of the empty disk to install to, in bytes.
    pub iso_disk_bytes: Option<u64>,
}

/// How an import is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportStatus {
    /// Which job.
    pub job: JobId,
    /// What it is doing, for the page.
    pub step: String,
    /// 0 to 100.
    pub percent: f64,
    /// Whether and how it ended.
    pub outcome: Option<ImportOutcome>,
}

/// How an import ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ImportOutcome {
    /// The draft's disk is there.
    Imported {
        /// What the upload was, for example `vmdk`.
        format: String,
        /// Size as the guest sees it.
        virtual_bytes: u64,
        /// An ISO to install from is kept beside the draft's disk.
        iso: bool,
    },
    /// Nothing is left behind.
    Refused {
        /// What failed, why, what to do.
        message: String,
    },
}

/// Make a draft's disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum DraftRequest {
    /// A copy of a release's disk.
    Release {
        /// Which.
        release: ReleaseId,
        /// Made so large, in bytes; never smaller than the release's. `None`: as large as that.
        #[serde(default)]
        virtual_bytes: Option<u64>,
    },
    /// An empty disk.
    Empty {
        /// Size in bytes.
        virtual_bytes: u64,
    },
}

/// Turn a complete staging folder into a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// When it was sealed.
    pub sealed_at: UnixMillis,
    /// What its memory is; the hashes and lengths are filled in by the storage agent. `None`: cold only.
    pub memory: Option<SealedMemoryFacts>,
    /// Why there is no memory.
    pub cold_reason: Option<String>,
}

/// [`SealedMemory`] before its files were hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedMemoryFacts {
    /// Size of the machine.
    pub size: lyceum_model::MachineSize,
    /// What sealed it.
    pub platform: lyceum_model::Platform,
    /// Whether the guest helper answered.
    pub guest_helper: bool,
}

impl SealedMemoryFacts {
    /// With the files' hashes.
    pub fn with_files(
        self,
        ram: lyceum_model::release::FileEntry,
        device_state: lyceum_model::release::FileEntry,
    ) -> SealedMemory {
        SealedMemory {
            size: self.size,
            platform: self.platform,
            ram,
            device_state,
            guest_helper: self.guest_helper,
        }
    }
}

/// A new release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Its id: the hash of the manifest.
    pub release: ReleaseId,
    /// The manifest.
    pub manifest: ReleaseManifest,
    /// Bytes on disk of all its files.
    pub bytes_on_disk: u64,
}
