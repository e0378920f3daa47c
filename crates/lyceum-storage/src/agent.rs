//! The agent's shared state and its start.

use crate::config::{Driver, StorageConfig};
use crate::error::{Result, StorageError};
use crate::imports::Imports;
use crate::nfs::{Exported, Exports};
use crate::objects::{Hold, Objects};
use crate::tier::{Marker, Tier};
use crate::wear::{Source, Wear};
use lyceum_disk::driver::Owner;
use lyceum_disk::lvm::{Ext4Data, Group, LvmDriver, Show, ShowNobody, setup};
use lyceum_disk::qemu_img::QemuImg;
use lyceum_disk::{Cancel, DiskDriver, Qcow2Driver, TierDirs, files, sandbox};
use lyceum_model::disk::TierUsage;
use lyceum_model::{Tier as Kind, disk};
use lyceum_proto::storage::{Inventory, Room, StorageFacts};
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
    pub wear: Wear,
    /// What a power cut of this machine may cost, as a name of docs/durability.md.
    pub durability: &'static str,
    pub fast_id: uuid::Uuid,
    pub slow_id: uuid::Uuid,
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
        let group = match &config.lvm {
            Some(lvm) => {
                let group = Group::open(&lvm.vg_uuid)?;
                group.activate(None)?;
                let (fast, slow) = (&config.fast_dir, &config.slow_dir);
                setup::mount_tiers(&group, fast, slow, lvm.ext4_data)?;
                Some(Arc::new(group))
            }
            None => None,
        };
        let tiers = open_tiers(&config)?;
        // Absolute, because overlays name their release's disk by its path.
        let dirs = TierDirs {
            fast: absolute(tiers.fast.root())?,
            slow: absolute(tiers.slow.root())?,
        };
        let exports = match &config.nfs {
            Some(nfs) => Some(Arc::new(Exports::new(
                nfs.clone(),
                [
                    Exported::tier(&dirs.fast, tiers.fast_marker.id)?,
                    Exported::tier(&dirs.slow, tiers.slow_marker.id)?,
                ],
            )?)),
            None => None,
        };
        let qemu_img = QemuImg::new(config.qemu_img.clone());
        match sandbox::probe(&dirs.fast.join("work"), qemu_img.program()) {
            Ok(version) => tracing::info!(%version, "images can be imported"),
            Err(error) => tracing::warn!(%error, "images can't be imported on this machine"),
        }
        let driver = driver(&config, &dirs, group.as_ref(), exports.clone(), &qemu_img)?;
        driver.open()?;
        // Hosts wait while the server is not there; they must not find it half furnished.
        if let Some(exports) = &exports {
            exports.serve()?;
        }
        let source = |tier: Kind, dir: &Path| match &group {
            Some(group) => Source::group(group, tier),
            None => Source::folder(dir),
        };
        let wear = Wear::open(
            &config.state_dir,
            source(Kind::Fast, &dirs.fast),
            source(Kind::Slow, &dirs.slow),
        );
        Ok(Inner {
            driver,
            durability: durability(&config),
            dirs,
            fast: tiers.fast,
            slow: tiers.slow,
            fast_id: tiers.fast_marker.id,
            slow_id: tiers.slow_marker.id,
            qemu_img,
            owner: config.disk_owner,
            objects: Objects::default(),
            imports: Imports::default(),
            wear,
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
        let overlays = self.driver.overlays()?;
        let slow = self.with_beside(Kind::Slow, self.slow.usage()?)?;
        let strained = self.driver.strained();
        let (fast_written, slow_written) = self.wear.days();
        Ok(StorageFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            driver: self.driver.name().into(),
            fast: self.with_beside(Kind::Fast, self.fast.usage()?)?,
            desktops_left: desktops_left(&overlays, slow.free_bytes),
            slow,
            same_device: self.fast.device()? == self.slow.device()?,
            fast_id: Some(self.fast_id),
            slow_id: Some(self.slow_id),
            durability: self.durability.into(),
            paused: strained.paused,
            lost: strained.lost,
            fast_written,
            slow_written,
        })
    }

    /// With what the driver keeps outside the tier's file system.
    fn with_beside(&self, tier: Kind, mut usage: TierUsage) -> Result<TierUsage> {
        let (total, free) = self.driver.beside(tier)?;
        usage.total_bytes = usage.total_bytes.saturating_add(total);
        usage.free_bytes = usage.free_bytes.saturating_add(free);
        usage.used_bytes = usage.used_bytes.saturating_add(total.saturating_sub(free));
        Ok(usage)
    }

    pub fn room(&self) -> Result<Room> {
        Ok(Room {
            slow_bytes: self.slow.free()?,
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
            overlays: self.driver.overlays()?,
            deltas: deltas(slow)?,
            uploads: ids(&slow.join("uploads"), "")?,
        })
    }
}

/// Those that are whole and those that a host is writing, or was when it was killed.
fn deltas(slow: &Path) -> Result<Vec<(lyceum_model::DeltaId, u64)>> {
    let folder = slow.join("deltas");
    let mut found = ids(&folder, "")?;
    found.extend(ids(&folder, disk::layout::PARTIAL)?);
    found.sort();
    found.dedup();
    Ok(found
        .into_iter()
        .map(|id| {
            let whole = files::bytes_on_disk(&slow.join(disk::layout::delta(&id)));
            let partial = files::bytes_on_disk(&slow.join(disk::layout::partial_delta(&id)));
            (id, whole.saturating_add(partial))
        })
        .collect())
}

/// How many desktops more there is room for if they write what those did that are there; with
/// none to go by, nothing is said.
fn desktops_left(overlays: &[(lyceum_model::OverlayId, u64)], free: u64) -> Option<u64> {
    let bytes: u64 = overlays.iter().map(|(_, bytes)| *bytes).sum();
    let each = bytes.checked_div(overlays.len() as u64)?;
    // A desktop that only just began has written nothing yet.
    Some(free / each.max(64 << 20))
}

struct Tiers {
    fast: Tier,
    fast_marker: Marker,
    slow: Tier,
    slow_marker: Marker,
}

fn open_tiers(config: &StorageConfig) -> Result<Tiers> {
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
    Ok(Tiers {
        fast,
        fast_marker,
        slow,
        slow_marker,
    })
}

fn driver(
    config: &StorageConfig,
    dirs: &TierDirs,
    group: Option<&Arc<Group>>,
    exports: Option<Arc<Exports>>,
    qemu_img: &QemuImg,
) -> Result<Arc<dyn DiskDriver>> {
    let (dirs, qemu_img) = (dirs.clone(), qemu_img.clone());
    match (config.driver, group, &config.lvm) {
        (Driver::Qcow2, _, _) => Ok(Arc::new(Qcow2Driver::new(
            dirs,
            qemu_img,
            config.disk_owner,
        ))),
        (Driver::Lvm, Some(group), Some(lvm)) => {
            let show: Arc<dyn Show> = match exports {
                Some(exports) => exports,
                None => Arc::new(ShowNobody),
            };
            Ok(Arc::new(LvmDriver::new(
                dirs,
                lvm.clone(),
                group.clone(),
                qemu_img,
                config.disk_owner,
                show,
            )?))
        }
        (Driver::Lvm, _, _) => Err(StorageError::Start(
            "driver = \"lvm\" needs a volume group: add [lvm] with vg_uuid, or let 'lyceum storage init' write it".into(),
        )),
    }
}

/// The weakest of what is chosen.
fn durability(config: &StorageConfig) -> &'static str {
    let later = config.nfs.as_ref().is_some_and(|nfs| nfs.is_async());
    let writeback = config
        .lvm
        .as_ref()
        .is_some_and(|lvm| lvm.ext4_data == Ext4Data::Writeback);
    match (later, writeback) {
        (true, _) => "nfs-async",
        (false, true) => "data=writeback",
        (false, false) => "safe",
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
