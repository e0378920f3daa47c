//! A tier: a folder with a marker file at its root.

use crate::error::{Result, StorageError};
use lyceum_disk::error::Context;
use lyceum_disk::{DiskError, files, inspect::size};
use lyceum_model::Tier as Kind;
use lyceum_model::disk::TierUsage;
use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the marker at the root of a tier.
pub const MARKER: &str = ".lyceum-tier";

/// What the marker says. It is there so that an unmounted file system or a swapped
/// configuration is noticed before anything is written to the wrong place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Random, of this tier only.
    pub id: uuid::Uuid,
    /// Which of the two it is.
    pub kind: Kind,
}

/// An open tier. No other storage agent can open it meanwhile.
pub struct Tier {
    root: PathBuf,
    kind: Kind,
    reserve: u64,
    _lock: Flock<File>,
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Fast => "fast",
        Kind::Slow => "slow",
    }
}

/// Folders below the root and their rights. Where only the agent reads, nobody else gets
/// in. The others can be passed through by the hosts' QEMU but not listed.
fn folders(kind: Kind) -> &'static [(&'static str, u32)] {
    match kind {
        Kind::Fast => &[
            ("releases", 0o755),
            ("staging", 0o711),
            ("drafts", 0o711),
            ("imports", 0o700),
            ("published", 0o700),
            ("work", 0o700),
        ],
        Kind::Slow => &[
            ("overlays", 0o711),
            ("volumes", 0o711),
            ("points", 0o700),
            ("deltas", 0o711),
            ("uploads", 0o700),
        ],
    }
}

impl Tier {
    /// Makes or adopts the tier at `root`, clears what was half made, and locks it.
    /// `remembered` is the id that this agent knows the tier by, from an earlier start.
    pub fn open(
        root: &Path,
        kind: Kind,
        reserve: u64,
        remembered: Option<uuid::Uuid>,
    ) -> Result<(Self, Marker)> {
        let marker = Self::marker(root, kind, remembered)?;
        let lock = files::exclusive(&root.join(MARKER))?.ok_or_else(|| {
            StorageError::Start(format!(
                "another storage agent is using the {} tier {}: stop it first",
                word(kind),
                root.display()
            ))
        })?;
        for (name, mode) in folders(kind) {
            let path = root.join(name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).on("can't make the folder", &path)?,
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
                .on("can't set the rights of", &path)?;
            if *name == "volumes" {
                // Those half made may be mounted; the driver clears them.
                continue;
            }
            let cleared = files::clear_temps(&path)?;
            if cleared > 0 {
                tracing::info!(folder = %path.display(), cleared, "cleared what was half made");
            }
        }
        files::sync_folder(root)?;
        let tier = Tier {
            root: root.to_owned(),
            kind,
            reserve,
            _lock: lock,
        };
        Ok((tier, marker))
    }

    fn marker(root: &Path, kind: Kind, remembered: Option<uuid::Uuid>) -> Result<Marker> {
        let path = root.join(MARKER);
        let word = word(kind);
        match fs::read(&path) {
            Ok(bytes) => {
                let marker: Marker = serde_json::from_slice(&bytes).map_err(|e| {
                    StorageError::Start(format!(
                        "{} is damaged ({e}): restore it, or move the tier's files away and begin with an empty folder",
                        path.display()
                    ))
                })?;
                if marker.kind != kind {
                    return Err(StorageError::Start(format!(
                        "{} is not the {word} tier but the other one: the two folders are swapped in the configuration",
                        root.display()
                    )));
                }
                if remembered.is_some_and(|id| id != marker.id) {
                    return Err(StorageError::Start(format!(
                        "{} holds another {word} tier than this agent had before: mount the right one, or give the agent a new state folder",
                        root.display()
                    )));
                }
                return Ok(marker);
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).on("can't read", &path)?,
        }
        if remembered.is_some() {
            return Err(StorageError::Start(format!(
                "the {word} tier is not at {}: mount its file system first (its marker {MARKER} is missing)",
                root.display()
            )));
        }
        fs::create_dir_all(root).on("can't make the folder", root)?;
        let foreign = files::names(root)?
            .into_iter()
            .find(|name| name != "lost+found" && !name.starts_with(files::TEMP_PREFIX));
        if let Some(name) = foreign {
            return Err(StorageError::Start(format!(
                "{} is not empty ({name:?} is there) and is no tier of Lyceum: use an empty folder as the {word} tier",
                root.display()
            )));
        }
        let marker = Marker {
            id: uuid::Uuid::new_v4(),
            kind,
        };
        let json = serde_json::to_vec(&marker)
            .map_err(|e| StorageError::internal(format!("can't write the tier's marker: {e}")))?;
        files::write_atomic(&path, &json, 0o644)?;
        Ok(marker)
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes that may still be taken, after the reserve.
    pub fn free(&self) -> std::result::Result<u64, DiskError> {
        Ok(files::space(&self.root)?.1.saturating_sub(self.reserve))
    }

    /// [`DiskError::Full`] unless `bytes` more fit; `what` as "can't make the draft".
    pub fn need(&self, bytes: u64, what: &str) -> std::result::Result<(), DiskError> {
        let free = self.free()?;
        if bytes <= free && free > 0 {
            return Ok(());
        }
        Err(DiskError::Full {
            what: format!(
                "{what}: it needs {} on the {} tier, where {} are free beyond the reserve of {}",
                size(bytes),
                word(self.kind),
                size(free),
                size(self.reserve)
            ),
        })
    }

    /// Largest disk that the tier could hold if it held nothing else.
    pub fn largest(&self) -> std::result::Result<u64, DiskError> {
        Ok(files::space(&self.root)?.0.saturating_sub(self.reserve))
    }

    /// Size and use.
    pub fn usage(&self) -> std::result::Result<TierUsage, DiskError> {
        let (total_bytes, available) = files::space(&self.root)?;
        let used_bytes = folders(self.kind)
            .iter()
            // What is mounted there is no file of this file system.
            .filter(|(name, _)| *name != "volumes")
            .map(|(name, _)| files::bytes_on_disk(&self.root.join(name)))
            .fold(0, u64::saturating_add);
        Ok(TierUsage {
            total_bytes,
            free_bytes: available.saturating_sub(self.reserve),
            used_bytes,
        })
    }

    /// Number of the file system it is on.
    pub fn device(&self) -> std::result::Result<u64, DiskError> {
        let meta = fs::metadata(&self.root).on("can't look at", &self.root)?;
        Ok(meta.dev())
    }
}
