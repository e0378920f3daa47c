//! References of the protocol → paths on this host's mounts. The only place where it is done.

use crate::config::HostConfig;
use lyceum_hypervisor::{DiskFiles, SealedFiles};
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, DraftId, Durability, ReleaseId};
use lyceum_proto::{ErrorBody, code};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// File that the storage agent writes into the root of each tier; without it the
/// directory is a mount point with nothing mounted on it.
pub const TIER_MARKER: &str = ".lyceum-tier";

/// What a silent file server keeps a check from answering; it is given up then, and says so.
const SILENT: Duration = Duration::from_secs(5);
/// Identities of the tiers that this host began with, in its state directory.
const REMEMBERED: &str = "tiers.json";

/// This host's mounts of the tiers.
#[derive(Debug, Clone)]
pub struct Tiers {
    fast: PathBuf,
    slow: PathBuf,
    /// Disks that desktops have here belong to these tiers and to no others.
    remembered_at: PathBuf,
    /// A check is hanging: no further one is begun.
    hanging: Arc<AtomicBool>,
}

/// What the markers of both tiers say: an identity, drawn when the tier was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identities {
    fast: String,
    slow: String,
}

/// A marker is far shorter.
const MAX_MARKER: u64 = 4096;

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
            remembered_at: config.state_dir.join(REMEMBERED),
            hanging: Arc::default(),
        }
    }

    /// Whether both are there, and are those that this host had before. Cheap; asked before
    /// every start, because mounts can go away.
    pub fn check(&self) -> Result<(), ErrorBody> {
        let silent = || {
            error(
                code::INVALID,
                format!(
                    "the file server does not answer at {} or {}: desktops that run wait for it and go on; start others when it is back",
                    self.fast.display(),
                    self.slow.display()
                ),
            )
        };
        if self.hanging.load(Ordering::Acquire) {
            return Err(silent());
        }
        // Whoever looks at a mount whose server is silent waits for it, and can't be called back.
        let (sender, answer) = std::sync::mpsc::channel();
        let own = self.clone();
        std::thread::spawn(move || {
            let found = own.look();
            let _ = sender.send(found);
            own.hanging.store(false, Ordering::Release);
        });
        match answer.recv_timeout(SILENT) {
            Ok(found) => found,
            Err(_) => {
                self.hanging.store(true, Ordering::Release);
                // It may have answered between the two, and cleared the mark too early.
                if let Ok(found) = answer.try_recv() {
                    self.hanging.store(false, Ordering::Release);
                    return found;
                }
                Err(silent())
            }
        }
    }

    fn look(&self) -> Result<(), ErrorBody> {
        let found = Identities {
            fast: identity("fast", &self.fast)?,
            slow: identity("slow", &self.slow)?,
        };
        let remembered: Identities = match std::fs::read(&self.remembered_at) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                error(
                    code::INTERNAL,
                    format!(
                        "{} is damaged ({e}): remove it when the right tiers are mounted",
                        self.remembered_at.display()
                    ),
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.remember(&found)?;
                found.clone()
            }
            Err(e) => {
                return Err(error(
                    code::INTERNAL,
                    format!("can't read {}: {e}", self.remembered_at.display()),
                ));
            }
        };
        if remembered == found {
            return Ok(());
        }
        Err(error(
            code::INVALID,
            format!(
                "{} and {} are other tiers than this host had before: mount the right ones, or, if the file server was exchanged, remove {}",
                self.fast.display(),
                self.slow.display(),
                self.remembered_at.display()
            ),
        ))
    }

    fn remember(&self, found: &Identities) -> Result<(), ErrorBody> {
        serde_json::to_vec(found)
            .map_err(std::io::Error::from)
            .and_then(|bytes| lyceum_wire::write_atomically(&self.remembered_at, &bytes, 0o600))
            .map_err(|e| {
                error(
                    code::INTERNAL,
                    format!("can't write {}: {e}", self.remembered_at.display()),
                )
            })
    }

    /// What tells these tiers from others: what their markers say. `None`: they say nothing.
    pub fn identity(&self) -> Option<String> {
        let read = |root: &Path| std::fs::read(root.join(TIER_MARKER)).ok();
        let (fast, slow) = (read(&self.fast)?, read(&self.slow)?);
        let mut hasher = blake3::Hasher::new();
        for marker in [&fast, &slow] {
            hasher.update(&(marker.len() as u64).to_le_bytes());
            hasher.update(marker);
        }
        Some(hasher.finalize().to_hex()[..32].to_owned())
    }

    /// Folder of a release.
    pub fn release(&self, release: &ReleaseId) -> PathBuf {
        self.fast.join(layout::release(release))
    }

    /// Sealed memory of a release on the file server's tier.
    pub fn sealed(&self, release: &ReleaseId) -> SealedFiles {
        sealed(release, self.release(release))
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
            release: disk.release().cloned(),
            durability,
            cdrom,
        })
    }
}

/// Sealed memory of a release in its folder.
pub fn sealed(release: &ReleaseId, folder: PathBuf) -> SealedFiles {
    SealedFiles {
        release: release.clone(),
        ram: folder.join(layout::RELEASE_RAM),
        device_state: folder.join(layout::RELEASE_DEVICE_STATE),
    }
}

/// What the marker at the root of a tier says.
fn identity(name: &str, root: &Path) -> Result<String, ErrorBody> {
    use std::io::Read;
    let marker = root.join(TIER_MARKER);
    let mut text = String::new();
    let read = std::fs::File::open(&marker)
        .and_then(|file| file.take(MAX_MARKER).read_to_string(&mut text));
    let why = match read {
        Ok(_) if text.trim().is_empty() => "is empty".to_owned(),
        Ok(_) => return Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "is missing".to_owned(),
        Err(e) => format!("can't be read ({e})"),
    };
    Err(error(
        code::INVALID,
        format!(
            "{} is not the {name} tier: the file {TIER_MARKER} that the storage agent writes there {why}; mount the tier, or start the storage agent first",
            root.display()
        ),
    ))
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
