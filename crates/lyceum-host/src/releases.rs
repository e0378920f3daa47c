//! A release's bytes are what its id says, or it is not used. Every file is hashed
//! once per host; what was found is kept with the files' identity (device, inode,
//! size, times) and holds until one of those changes.

use crate::HostError;
use lyceum_model::disk::layout;
use lyceum_model::release::FileEntry;
use lyceum_model::{ReleaseId, ReleaseManifest};
use lyceum_proto::{ErrorBody, code};
use lyceum_wire::write_atomically;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest manifest in bytes.
const MANIFEST_MAX: u64 = 64 * 1024;
const CACHE_FILE: &str = "verified-releases.json";

/// What changes when a file is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    dev: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Stamp> {
        let m = std::fs::metadata(path)?;
        Ok(Stamp {
            dev: m.dev(),
            inode: m.ino(),
            size: m.size(),
            mtime: (m.mtime(), m.mtime_nsec()),
            ctime: (m.ctime(), m.ctime_nsec()),
        })
    }
}

/// Stamps of all files of a release, the manifest's first; `None` for one that is not there.
type Stamps = Vec<Option<Stamp>>;
type Outcome = Result<Arc<ReleaseManifest>, ErrorBody>;

#[derive(Default)]
struct Entry {
    /// Held while the release is being hashed.
    flight: tokio::sync::Mutex<()>,
    found: Mutex<Option<(Stamps, Outcome)>>,
}

/// Verifies releases, each once.
pub struct Releases {
    /// Where it is noted what was verified.
    notes: PathBuf,
    entries: Mutex<BTreeMap<ReleaseId, Arc<Entry>>>,
    /// Read at the start: verified before it.
    kept: Mutex<BTreeMap<ReleaseId, Stamps>>,
    /// How often files were hashed, for tests.
    #[cfg(test)]
    hashed: std::sync::atomic::AtomicUsize,
}

fn paths(folder: &Path) -> [PathBuf; 4] {
    [
        layout::RELEASE_MANIFEST,
        layout::RELEASE_DISK,
        layout::RELEASE_RAM,
        layout::RELEASE_DEVICE_STATE,
    ]
    .map(|name| folder.join(name))
}

fn stamps(folder: &Path) -> Stamps {
    paths(folder).iter().map(|p| Stamp::of(p).ok()).collect()
}

impl Releases {
    /// With what was verified before.
    pub fn open(state_dir: &Path) -> Result<Releases, HostError> {
        Releases::open_as(state_dir, CACHE_FILE)
    }

    /// Those of another place, noted in another file.
    pub fn open_as(state_dir: &Path, notes: &str) -> Result<Releases, HostError> {
        let path = state_dir.join(notes);
        let kept = match std::fs::read(&path) {
            // Unreadable: everything is verified again, which is always right.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(HostError::file("reading", &path, e)),
        };
        Ok(Releases {
            notes: path,
            entries: Mutex::new(BTreeMap::new()),
            kept: Mutex::new(kept),
            #[cfg(test)]
            hashed: Default::default(),
        })
    }

    /// The release's manifest, once every byte is known to be right. Callers at the same
    /// time share one verification; when nothing changed since the last one it costs four `stat`s.
    pub async fn verified(self: &Arc<Self>, id: &ReleaseId, folder: PathBuf) -> Outcome {
        let entry = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.entry(id.clone()).or_default().clone()
        };
        let _flight = entry.flight.lock().await;
        let (this, id, in_flight) = (self.clone(), id.clone(), entry.clone());
        tokio::task::spawn_blocking(move || this.check(&id, &folder, &in_flight))
            .await
            .unwrap_or_else(|e| {
                Err(ErrorBody {
                    code: code::INTERNAL.into(),
                    message: format!("verifying the release broke off: {e}"),
                })
            })
    }

    fn check(&self, id: &ReleaseId, folder: &Path, entry: &Entry) -> Outcome {
        let now = stamps(folder);
        let mut found = entry.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, outcome)) = &*found
            && *then == now
        {
            return outcome.clone();
        }
        let known = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.get(id) == Some(&now)
        };
        let outcome = read_manifest(id, folder).and_then(|manifest| {
            if !known {
                #[cfg(test)]
                self.hashed
                    .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                check_files(id, folder, &manifest)?;
            }
            Ok(Arc::new(manifest))
        });
        // Changed while it was hashed: whatever was found is about something else.
        let unchanged = stamps(folder) == now;
        if !unchanged {
            *found = None;
            return Err(damaged(id, "its files are being changed".into()));
        }
        match &outcome {
            Ok(_) if !known => self.keep(id, &now),
            Err(e) => tracing::error!(release = %id, "{e}"),
            Ok(_) => {}
        }
        // Errors of reading may pass; what is wrong with the bytes does not.
        *found = match &outcome {
            Err(e) if e.code != code::DAMAGED => None,
            _ => Some((now, outcome.clone())),
        };
        outcome
    }

    fn keep(&self, id: &ReleaseId, stamps: &Stamps) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(id.clone(), stamps.clone());
        let path = &self.notes;
        let written = serde_json::to_vec(&*kept)
            .map_err(std::io::Error::from)
            .and_then(|text| write_atomically(path, &text, 0o600));
        if let Err(e) = written {
            tracing::warn!(
                "{}: {e}; releases are verified again after a restart",
                path.display()
            );
        }
    }
}

fn damaged(id: &ReleaseId, why: String) -> ErrorBody {
    ErrorBody {
        code: code::DAMAGED.into(),
        message: format!(
            "release {id} is damaged: {why}; restore its files from a backup, or seal a new release"
        ),
    }
}

pub(crate) fn read_manifest(id: &ReleaseId, folder: &Path) -> Result<ReleaseManifest, ErrorBody> {
    let path = folder.join(layout::RELEASE_MANIFEST);
    let unreadable = |e: std::io::Error| ErrorBody {
        code: match e.kind() {
            std::io::ErrorKind::NotFound => code::NOT_FOUND.into(),
            _ => code::INTERNAL.into(),
        },
        message: format!("release {id} can't be read at {}: {e}", path.display()),
    };
    let mut text = Vec::new();
    std::fs::File::open(&path)
        .and_then(|f| f.take(MANIFEST_MAX).read_to_end(&mut text))
        .map_err(unreadable)?;
    let manifest: ReleaseManifest = serde_json::from_slice(&text)
        .map_err(|e| damaged(id, format!("its manifest can't be understood ({e})")))?;
    if manifest.format != ReleaseManifest::FORMAT {
        return Err(damaged(
            id,
            format!("its manifest has format {}", manifest.format),
        ));
    }
    let canonical = manifest
        .canonical_json()
        .map_err(|e| damaged(id, e.to_string()))?;
    if blake3::hash(&canonical).to_hex().as_str() != id.as_str() {
        return Err(damaged(
            id,
            "its manifest is not the one it was made with".into(),
        ));
    }
    Ok(manifest)
}

fn check_files(id: &ReleaseId, folder: &Path, manifest: &ReleaseManifest) -> Result<(), ErrorBody> {
    let [_, disk, ram, device_state] = paths(folder);
    check_file(id, &disk, &manifest.disk)?;
    if let Some(memory) = &manifest.memory {
        check_file(id, &ram, &memory.ram)?;
        check_file(id, &device_state, &memory.device_state)?;
    }
    Ok(())
}

fn check_file(id: &ReleaseId, path: &Path, entry: &FileEntry) -> Result<(), ErrorBody> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Read, not mapped: a file that is cut short meanwhile must be an error, not a signal.
    let hash = || -> std::io::Result<(u64, blake3::Hash)> {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 4 * 1024 * 1024];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((bytes, hasher.finalize())),
                n => {
                    hasher.update_rayon(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
    };
    match hash() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(damaged(id, format!("its file {name} is missing")))
        }
        Err(e) => Err(ErrorBody {
            code: code::INTERNAL.into(),
            message: format!("release {id} can't be read at {}: {e}", path.display()),
        }),
        Ok((bytes, _)) if bytes != entry.bytes => Err(damaged(
            id,
            format!("its file {name} has {bytes} bytes, not {}", entry.bytes),
        )),
        Ok((_, hash)) if hash.to_hex().as_str() != entry.blake3 => {
            Err(damaged(id, format!("its file {name} was changed")))
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::write_release;
    use std::sync::atomic::Ordering;

    #[tokio::test]
    async fn hashed_once_for_all_and_again_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (id, folder) = write_release(dir.path());
        let releases = Arc::new(Releases::open(dir.path()).unwrap());
        let many = (0..20).map(|_| releases.verified(&id, folder.clone()));
        for outcome in futures::future::join_all(many).await {
            outcome.unwrap();
        }
        assert_eq!(releases.hashed.load(Ordering::SeqCst), 1);

        // Kept over a restart.
        let releases = Arc::new(Releases::open(dir.path()).unwrap());
        releases.verified(&id, folder.clone()).await.unwrap();
        assert_eq!(releases.hashed.load(Ordering::SeqCst), 0);

        // One byte, same length.
        let ram = folder.join(layout::RELEASE_RAM);
        let mut bytes = std::fs::read(&ram).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&ram, &bytes).unwrap();
        for _ in 0..2 {
            let e = releases.verified(&id, folder.clone()).await.unwrap_err();
            assert_eq!(e.code, code::DAMAGED);
            assert!(e.message.contains("ram was changed"), "{e}");
        }
        assert_eq!(releases.hashed.load(Ordering::SeqCst), 1);
        bytes[3] ^= 1;
        std::fs::write(&ram, &bytes).unwrap();
        releases.verified(&id, folder.clone()).await.unwrap();

        std::fs::write(&ram, &bytes[1..]).unwrap();
        let e = releases.verified(&id, folder.clone()).await.unwrap_err();
        assert!(e.message.contains("bytes, not"), "{e}");
        std::fs::remove_file(&ram).unwrap();
        let e = releases.verified(&id, folder.clone()).await.unwrap_err();
        assert!(e.message.contains("missing"), "{e}");
        std::fs::remove_dir_all(&folder).unwrap();
        let e = releases.verified(&id, folder).await.unwrap_err();
        assert_eq!(e.code, code::NOT_FOUND);
    }

    #[tokio::test]
    async fn the_manifest_is_the_ids() {
        let dir = tempfile::tempdir().unwrap();
        let (id, folder) = write_release(dir.path());
        let releases = Arc::new(Releases::open(dir.path()).unwrap());
        let path = folder.join(layout::RELEASE_MANIFEST);
        let whole = std::fs::read_to_string(&path).unwrap();
        for text in [
            whole.replace("\"virtual_bytes\":", "\"virtual_bytes\":1"),
            whole.replace("\"format\":1", "\"format\":2"),
            "{}".into(),
            String::new(),
        ] {
            std::fs::write(&path, text).unwrap();
            let e = releases.verified(&id, folder.clone()).await.unwrap_err();
            assert_eq!(e.code, code::DAMAGED, "{e}");
        }
    }
}
