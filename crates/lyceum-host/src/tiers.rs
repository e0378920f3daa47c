//! References of the protocol → paths on this host's mounts. The only place where it is done.

use crate::config::HostConfig;
use lyceum_hypervisor::{DiskFiles, SealedFiles};
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, DraftId, Durability, ReleaseId};
use lyceum_proto::{ErrorBody, code};
use std::path::{Path, PathBuf};

/// File that the storage agent writes into the root of each tier; without it the
/// directory is a mount point with nothing mounted on it.
pub const TIER_MARKER: &str = ".lyceum-tier";

/// This host's mounts of the tiers.
#[derive(Debug, Clone)]
pub struct Tiers {
    fast: PathBuf,
    slow: PathBuf,
}

fn error(code: &str, message: String) -> ErrorBody {
    ErrorBody {
        code: code.into(),
        message,
    }
}

impl Tiers {
    /// Those of the configuration.
    pub fn new(config: &HostConfig) -> Tiers {
        Tiers {
            fast: config.fast.clone(),
            slow: config.slow.clone(),
        }
    }

    /// Whether both are there. Cheap; asked before every start, because mounts can go away.
    pub fn check(&self) -> Result<(), ErrorBody> {
        for (name, root) in [("fast", &self.fast), ("slow", &self.slow)] {
            let marker = root.join(TIER_MARKER);
            let found = std::fs::symlink_metadata(&marker).is_ok_and(|m| m.is_file());
            if !found {
                return Err(error(
                    code::INVALID,
                    format!(
                        "{} is not the {name} tier: the file {TIER_MARKER} that the storage agent writes there is missing; mount the tier, or start the storage agent first",
                        root.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Folder of a release.
    pub fn release(&self, release: &ReleaseId) -> PathBuf {
        self.fast.join(layout::release(release))
    }

    /// Sealed memory of a release.
    pub fn sealed(&self, release: &ReleaseId) -> SealedFiles {
        let folder = self.release(release);
        SealedFiles {
            release: release.clone(),
            ram: folder.join(layout::RELEASE_RAM),
            device_state: folder.join(layout::RELEASE_DEVICE_STATE),
        }
    }

    /// Folder of a delta.
    pub fn delta(&self, delta: &DeltaId) -> PathBuf {
        self.slow.join(layout::delta(delta))
    }

    /// Folder of a seal in progress.
    pub fn staging(&self, draft: &DraftId) -> PathBuf {
        self.fast.join(layout::staging(draft))
    }

    /// Disk of a draft.
    pub fn draft(&self, draft: &DraftId) -> PathBuf {
        self.fast.join(layout::draft(draft))
    }

    /// Files of a desktop's disk. Fails when its file is not there.
    pub fn disk(
        &self,
        disk: &DiskRef,
        durability: Durability,
        cdrom: Option<&DraftId>,
    ) -> Result<DiskFiles, ErrorBody> {
        let (top, base) = match disk {
            DiskRef::Qcow2Overlay { overlay, release } => (
                self.slow.join(layout::overlay(overlay)),
                Some(self.release(release).join(layout::RELEASE_DISK)),
            ),
            // It stands alone: what it shares with its release is shared on the file server.
            DiskRef::LvmVolume { overlay, .. } => (
                self.slow
                    .join(layout::volume(overlay))
                    .join(layout::VOLUME_DISK),
                None,
            ),
            DiskRef::Qcow2Draft { draft } => (self.draft(draft), None),
        };
        let cdrom = cdrom.map(|draft| self.fast.join(layout::draft_iso(draft)));
        for path in [Some(&top), base.as_ref(), cdrom.as_ref()]
            .into_iter()
            .flatten()
        {
            must_exist(path)?;
        }
        Ok(DiskFiles {
            top,
            base,
            durability,
            cdrom,
        })
    }
}

fn must_exist(path: &Path) -> Result<(), ErrorBody> {
    match std::fs::metadata(path) {
        Ok(m) if m.is_file() => Ok(()),
        Ok(_) => Err(error(
            code::INVALID,
            format!("{} is not a file", path.display()),
        )),
        Err(e) => Err(error(
            code::NOT_FOUND,
            format!("can't use {}: {e}", path.display()),
        )),
    }
}
