//! `delta.json`. The file is `{"header":{...},"blake3":"..."}` in serde_json's
//! compact form; the hash is over the header's compact form, and a file that is
//! not byte for byte what would be written for what it says is refused.

use crate::error::damaged;
use crate::{DeltaError, PAGE};
use lyceum_model::{MachineSize, Platform, ReleaseId};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The newest format this program writes and reads.
pub const FORMAT: u32 = 1;

/// A header is never longer than this, in bytes.
pub(crate) const MAX_HEADER: u64 = 256 * 1024;
/// Most RAM blocks that a machine may have.
pub(crate) const MAX_BLOCKS: usize = 64;
/// A block is never larger than this: twice the largest machine.
const MAX_BLOCK_BYTES: u64 = 128 << 30;

/// What a delta says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format.
    pub format: u32,
    /// The release it is a delta to.
    pub release: ReleaseId,
    /// What it was made on, and what is needed to use it.
    pub platform: Platform,
    /// Size of the machine.
    pub size: MachineSize,
    /// The machine's VM generation id.
    pub vm_generation_id: uuid::Uuid,
    /// MAC address of the network card that is part of the device state.
    pub nic_mac: Option<String>,
    /// Pages of the release's RAM; it has one block.
    pub pages: PagePart,
    /// The other RAM blocks.
    pub blocks: PagePart,
    /// The device state.
    pub device_state: FilePart,
    /// The disk overlay, when it was copied.
    pub overlay: Option<FilePart>,
}

/// A file in which every byte counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Length in bytes.
    pub bytes: u64,
    /// Lower-case hex blake3 of the content.
    pub blake3: String,
}

/// A page file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagePart {
    /// The RAM blocks whose pages it holds; runs name them by their position here.
    pub blocks: Vec<BlockInfo>,
    /// Pages stored.
    pub slots: u64,
    /// Runs in the table at the file's end.
    pub runs: u64,
    /// Lower-case hex blake3 over the blake3 of each stored page, in their order.
    pub slots_blake3: String,
    /// Lower-case hex blake3 of the table.
    pub runs_blake3: String,
}

impl PagePart {
    /// Length of the file in bytes; `None` when that is beyond all sense.
    pub fn file_bytes(&self) -> Option<u64> {
        let body = self.slots.checked_mul(PAGE as u64)?;
        body.checked_add(self.runs.checked_mul(crate::pagefile::RUN_BYTES as u64)?)
    }
}

/// A RAM block of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockInfo {
    /// QEMU's name for it.
    pub name: String,
    /// Its length in bytes, a whole number of pages.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    header: Header,
    blake3: String,
}

#[derive(Deserialize)]
struct OnlyFormat {
    header: FormatField,
}
#[derive(Deserialize)]
struct FormatField {
    format: u64,
}

impl Header {
    /// Whether a machine can go on from it. `false`: it keeps the disk alone. No machine's device state is empty.
    pub fn holds_memory(&self) -> bool {
        self.device_state.bytes > 0
    }

    /// The bytes of `delta.json`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, DeltaError> {
        let text = |e: serde_json::Error| DeltaError::Invalid(e.to_string());
        let blake3 = blake3::hash(&serde_json::to_vec(self).map_err(text)?)
            .to_hex()
            .to_string();
        serde_json::to_vec(&Envelope {
            header: self.clone(),
            blake3,
        })
        .map_err(text)
    }

    /// Parses and checks everything that can be checked without the other files.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Header, DeltaError> {
        let envelope: Envelope = match serde_json::from_slice(bytes) {
            Ok(e) => e,
            Err(e) => {
                // A newer format may well have other fields: say that, not "damaged".
                return Err(match serde_json::from_slice::<OnlyFormat>(bytes) {
                    Ok(f) if f.header.format > u64::from(FORMAT) => DeltaError::Format {
                        found: f.header.format,
                        known: FORMAT,
                    },
                    _ => damaged(path, e.to_string()),
                });
            }
        };
        if envelope.header.to_bytes()? != bytes {
            return Err(damaged(path, "the checksum is wrong"));
        }
        let header = envelope.header;
        if header.format != FORMAT {
            return Err(DeltaError::Format {
                found: header.format.into(),
                known: FORMAT,
            });
        }
        header
            .size
            .check()
            .map_err(|e| damaged(path, e.to_string()))?;
        for part in [&header.pages, &header.blocks] {
            check_blocks(path, &part.blocks)?;
        }
        let ram = u64::from(header.size.memory_mib) << 20;
        if header.pages.blocks.len() != 1 || header.pages.blocks[0].bytes != ram {
            return Err(damaged(
                path,
                "the RAM block is not as large as the machine's memory",
            ));
        }
        Ok(header)
    }
}

pub(crate) fn check_blocks(path: &Path, blocks: &[BlockInfo]) -> Result<(), DeltaError> {
    if blocks.len() > MAX_BLOCKS {
        return Err(damaged(path, "it names too many RAM blocks"));
    }
    for (at, block) in blocks.iter().enumerate() {
        if block.name.is_empty() || block.name.len() > 256 {
            return Err(damaged(
                path,
                "the name of a RAM block is empty or too long",
            ));
        }
        if block.bytes == 0 || block.bytes % PAGE as u64 != 0 || block.bytes > MAX_BLOCK_BYTES {
            return Err(damaged(
                path,
                format!("RAM block {:?} has an impossible size", block.name),
            ));
        }
        if blocks[..at].iter().any(|b| b.name == block.name) {
            return Err(damaged(
                path,
                format!("RAM block {:?} is named twice", block.name),
            ));
        }
    }
    Ok(())
}
