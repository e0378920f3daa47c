//! The agent's shared state and its start.

use crate::config::StorageConfig;
use crate::error::{Result, StorageError};
use crate::imports::Imports;
use crate::objects::{Hold, Objects};
use crate::tier::Tier;
use lyceum_disk::driver::Owner;
use lyceum_disk::qemu_img::QemuImg;
use lyceum_disk::{Cancel, DiskDriver, Qcow2Driver, TierDirs, files, sandbox};
use lyceum_model::disk::layout;
use lyceum_model::{Tier as Kind, disk};
use lyceum_proto::storage::{Inventory, StorageFacts};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// A running storage agent without its server. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub dirs: TierDirs,
    pub fast: Tier,
    pub slow: Tier,
    pub driver: Arc<dyn DiskDriver>,
    pub qemu_img: QemuImg,
    pub owner: Option<Owner>,
    pub objects: Objects,
    pub imports: Imports,
}

/// What the agent remembers of its tiers.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    fast: Option<uuid::Uuid>,
    slow: Option<uuid::Uuid>,
}

const TIERS_FILE: &str = "tiers.json";

impl Agent {
    /// Opens the tiers, clears what was half made, and takes up unfinished imports.
    pub async fn open(config: StorageConfig) -> Result<Self> {
        let inner = tokio::task::spawn_blocking(move || Inner::open(config))
            .await
            .map_err(gone)??;
        let agent = Agent {
            inner: Arc::new(inner),
        };
        agent.resume_imports().await?;
        Ok(agent)
    }

    /// Cancels running work and waits for the imports to stop; they go on at the next start.
    pub async fn close(&self) {
        self.inner.objects.cancel_all();
        self.inner.imports.stop().await;
    }

    /// Does blocking work on an object that is held. It goes on to its end when the caller
    /// goes away, and keeps the hold until then.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        hold: Hold,
        work: impl FnOnce(&Inner, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            let done = work(&inner, &hold.cancel);
            drop(hold);
            done
        })
        .await
        .map_err(gone)?
    }

    /// Blocking work on nothing in particular.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(gone)?
    }
}

pub(crate) fn gone(error: tokio::task::JoinError) -> StorageError {
    StorageError::internal(format!(
        "the work ended unexpectedly ({error}): see the storage agent's log, and try again"
    ))
}

impl Inner {
    fn open(config: StorageConfig) -> Result<Self> {
        std::fs::create_dir_all(&config.state_dir).map_err(|e| {
            StorageError::Start(format!(
                "can't make the state folder {}: {e}. Check its rights",
                config.state_dir.display()
            ))
        })?;
        let remembered_at = config.state_dir.join(TIERS_FILE);
        let remembered = remembered(&remembered_at)?;
        let (fast, fast_marker) = Tier::open(
            &config.fast_dir,
            Kind::Fast,
            config.reserve_bytes,
            remembered.fast,
        )?;
        let (slow, slow_marker) = Tier::open(
            &config.slow_dir,
            Kind::Slow,
            config.reserve_bytes,
            remembered.slow,
        )?;
        if remembered.fast.is_none() || remembered.slow.is_none() {
            let now = Remembered {
                fast: Some(fast_marker.id),
                slow: Some(slow_marker.id),
            };
            files::write_atomic(&remembered_at, &json(&now)?, 0o600)?;
        }
        // Absolute, because overlays name their release's disk by its path.
        let dirs = TierDirs {
            fast: absolute(fast.root())?,
            slow: absolute(slow.root())?,
        };
        let qemu_img = QemuImg::new(config.qemu_img);
        match sandbox::probe(&dirs.fast.join("work"), qemu_img.program()) {
            Ok(version) => tracing::info!(%version, "images can be imported"),
            Err(error) => tracing::warn!(%error, "images can't be imported on this machine"),
        }
        Ok(Inner {
            driver: Arc::new(Qcow2Driver::new(
                dirs.clone(),
                qemu_img.clone(),
                config.disk_owner,
            )),
            dirs,
            fast,
            slow,
            qemu_img,
            owner: config.disk_owner,
            objects: Objects::default(),
            imports: Imports::default(),
        })
    }

    /// Gives something that QEMU writes to the user it runs as.
    pub fn give(&self, path: &Path) -> Result<()> {
        if let Some(owner) = self.owner {
            owner.take(path)?;
        }
        Ok(())
    }

    pub fn facts(&self) -> Result<StorageFacts> {
        Ok(StorageFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            driver: self.driver.name().into(),
            fast: self.fast.usage()?,
            slow: self.slow.usage()?,
            same_device: self.fast.device()? == self.slow.device()?,
        })
    }

    pub fn inventory(&self) -> Result<Inventory> {
        let (fast, slow) = (&self.dirs.fast, &self.dirs.slow);
        let mut drafts: Vec<_> = ids(&fast.join("drafts"), ".qcow2")?;
        drafts.extend(ids(&fast.join("drafts"), ".iso")?);
        drafts.sort();
        drafts.dedup();
        Ok(Inventory {
            releases: ids(&fast.join("releases"), "")?,
            drafts,
            staging: ids(&fast.join("staging"), "")?,
            overlays: ids(&slow.join("overlays"), ".qcow2")?
                .into_iter()
                .map(|id| {
                    let bytes = files::bytes_on_disk(&slow.join(layout::overlay(&id)));
                    (id, bytes)
                })
                .collect(),
            deltas: ids(&slow.join("deltas"), "")?
                .into_iter()
                .map(|id| {
                    let bytes = files::bytes_on_disk(&slow.join(disk::layout::delta(&id)));
                    (id, bytes)
                })
                .collect(),
            uploads: ids(&slow.join("uploads"), "")?,
        })
    }
}

/// Names in a folder that are ids followed by `ending`; others are not ours and are left alone.
pub(crate) fn ids<T: FromStr>(folder: &Path, ending: &str) -> Result<Vec<T>> {
    Ok(files::names(folder)?
        .iter()
        .filter_map(|name| name.strip_suffix(ending)?.parse().ok())
        .collect())
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| StorageError::internal(format!("can't write a record: {e}")))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| {
        StorageError::Start(format!(
            "can't find {}: {e}. Check its rights",
            path.display()
        ))
    })
}

fn remembered(path: &Path) -> Result<Remembered> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            StorageError::Start(format!(
                "{} is damaged ({e}): remove it; the tiers are then adopted by their markers",
                path.display()
            ))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Remembered::default()),
        Err(e) => Err(StorageError::Start(format!(
            "can't read {}: {e}. Check its rights",
            path.display()
        ))),
    }
}
