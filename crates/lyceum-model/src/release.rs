//! What a sealed release consists of. The release's id is the blake3 hash of the
//! manifest's canonical JSON, and the manifest holds the hash of each file: so
//! the id stands for every byte.

use crate::{MachineSize, Platform, UnixMillis};
use serde::{Deserialize, Serialize};

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// Lower-case hex blake3 of the whole content.
    pub blake3: String,
}

/// Memory of the sealed, running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedMemory {
    /// Size of the machine it was sealed with; a fork has just this size.
    pub size: MachineSize,
    /// What sealed it; a fork needs the same.
    pub platform: Platform,
    /// The RAM file.
    pub ram: FileEntry,
    /// The device state file.
    pub device_state: FileEntry,
    /// Whether Lyceum's guest helper answered. Without it identity can't be
    /// renewed before somebody reaches the desktop, so such a release is not forked.
    pub guest_helper: bool,
}

/// The manifest of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseManifest {
    /// Version of this format; 1.
    pub format: u32,
    /// When it was sealed.
    pub sealed_at: UnixMillis,
    /// The sealed disk.
    pub disk: FileEntry,
    /// Size of the disk as the guest sees it, in bytes.
    pub virtual_bytes: u64,
    /// Sealed memory, absent when the guest can only be booted cold.
    pub memory: Option<SealedMemory>,
    /// Why there is no sealed memory, for the page; `None` when there is.
    pub cold_reason: Option<String>,
}

impl ReleaseManifest {
    /// The newest format this program writes and reads.
    pub const FORMAT: u32 = 1;

    /// The bytes that are hashed for the release's id. Struct order is fixed and
    /// there are no maps, so serde_json's compact form is canonical.
    pub fn canonical_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Why a desktop of this size on this platform can't be forked from it;
    /// `None` when it can.
    pub fn why_cold(&self, size: MachineSize, platform: &Platform) -> Option<String> {
        let Some(memory) = &self.memory else {
            return Some(
                self.cold_reason
                    .clone()
                    .unwrap_or_else(|| "the release has no sealed memory".into()),
            );
        };
        if !memory.guest_helper {
            return Some(
                "the guest has no Lyceum helper, so its identity can't be renewed in a fork".into(),
            );
        }
        if memory.size != size {
            return Some(format!(
                "the release was sealed with {} vCPU and {} MiB, the desktop has {} vCPU and {} MiB",
                memory.size.vcpus, memory.size.memory_mib, size.vcpus, size.memory_mib
            ));
        }
        memory
            .platform
            .difference(platform)
            .map(|d| format!("the release was sealed on another platform: {d}"))
    }
}
