//! Golden images, drafts and releases.
//!
//! image → draft (open for change) → *seal* → release (offered) → in use by courses → retired.

use crate::wording::Wordings;
use lyceum_model::{
    DraftId, HostId, ImageId, MachineSize, OperationId, Phase, ReleaseId, UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A golden image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Which.
    pub id: ImageId,
    /// Name.
    pub name: String,
    /// What is in it.
    pub description: String,
    /// Its releases, newest first.
    pub releases: Vec<Release>,
    /// Its open draft.
    pub draft: Option<Draft>,
    /// When it was made.
    pub created: UnixMillis,
}

/// Make an image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// Name, unique.
    pub name: String,
    /// What is in it.
    #[serde(default)]
    pub description: String,
}

/// Change an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePatch {
    /// Name.
    pub name: Option<String>,
    /// What is in it.
    pub description: Option<String>,
}

/// Where a release is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// New desktops may start from it.
    Offered,
    /// No new courses; courses that pin it go on.
    Retired,
    /// Its bytes are not what they were; nothing starts from it.
    Damaged,
}

/// One sealed version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Hash of its manifest.
    pub id: ReleaseId,
    /// Of which image.
    pub image: ImageId,
    /// 1, 2, 3, ... within the image.
    pub version: u32,
    /// State.
    pub state: ReleaseState,
    /// Size it was sealed with; a fork has just this. `None`: no sealed memory.
    pub size: Option<MachineSize>,
    /// Why it can only be booted cold.
    pub cold_reason: Option<String>,
    /// Which file is damaged and how, when `state` is `damaged`.
    #[serde(default)]
    pub damage: Option<String>,
    /// Size of the disk as the guest sees it.
    pub virtual_bytes: u64,
    /// Bytes on the fast tier.
    pub bytes_on_disk: u64,
    /// Who uses it, in words: courses and desktops.
    pub used_by: Vec<String>,
    /// Note of the person who sealed it.
    pub note: String,
    /// Who sealed it.
    pub sealed_by: String,
    /// When.
    pub sealed_at: UnixMillis,
}

/// Where a draft is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DraftState {
    /// It has no disk yet: upload one, or it is being made.
    Empty,
    /// An upload or copy is under way.
    Importing,
    /// It can be opened, changed and sealed.
    Ready,
    /// It is being sealed.
    Sealing,
}

/// A golden image that is open for change.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Draft {
    /// Which.
    pub id: DraftId,
    /// Of which image.
    pub image: ImageId,
    /// State.
    pub state: DraftState,
    /// What it is doing or why the last work failed, in words.
    pub detail: String,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// 0 to 100 while importing.
    pub percent: Option<f64>,
    /// The machine it is open in: what it is doing.
    pub phase: Phase,
    /// The host it is open on.
    pub host: Option<HostId>,
    /// The release it was copied from.
    pub from_release: Option<ReleaseId>,
    /// Size it is opened and sealed with.
    pub size: MachineSize,
    /// It has an installation ISO in its drive.
    pub iso: bool,
    /// Who opened it.
    pub owner: String,
    /// When.
    pub created: UnixMillis,
}

/// Where a draft's disk comes from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum DraftSource {
    /// A copy of a release of this or another image.
    Release {
        /// Which.
        release: ReleaseId,
        /// Made so large, GiB; never smaller than the release's disk. The guest sees a larger disk: its partitions
        /// and file systems are enlarged in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk_gib: Option<u32>,
    },
    /// A file that is uploaded next with `PUT drafts/{id}/upload?name=NAME[&iso_disk_gib=N]`
    /// (body: the file; qcow2, raw, vmdk, vhdx, vdi or iso).
    Upload {},
    /// An empty disk.
    Empty {
        /// GiB.
        disk_gib: u32,
    },
}

/// Open a draft.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DraftCreate {
    /// Where its disk comes from.
    pub source: DraftSource,
    /// Size to open and seal with; default 2 vCPU... as the source release, else 1 vCPU and 768 MiB.
    pub size: Option<MachineSize>,
}

/// Seal a draft.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealOrder {
    /// What changed, for people.
    #[serde(default)]
    pub note: String,
    /// Another size than the draft's.
    pub size: Option<MachineSize>,
}

/// The answer of an order about a draft: `202`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DraftAccepted {
    /// The draft.
    pub draft: Draft,
    /// The operation to watch, when it takes time.
    pub operation: Option<OperationId>,
}
