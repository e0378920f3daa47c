//! The default driver: qcow2 files.
//!
//! An overlay's header names its backing file by the absolute path that the storage agent
//! knows. Nothing in Lyceum relies on that name: host agents open base and overlay as two
//! explicit nodes, because their mounts of the tiers may be elsewhere and because the two
//! need different caching. It is there for a person with `qemu-img` on the file server, and to
//! tell which release an overlay belongs to. A relative name would silently mean another
//! file once one tier is mounted elsewhere or the overlay is copied into a delta.
//!
//! Clusters of overlays are 128 KiB with extended L2 entries: a subcluster is then 4 KiB, a
//! page of the guest and a block of the file system, so that a first write copies nothing
//! from the release.

use crate::Cancel;
use crate::driver::{DiskDriver, DiskUsage, Owner, TierDirs};
use crate::error::{Context, DiskError};
use crate::files::{self, TempPath, copy_sparse, create_new};
use crate::inspect::{Qcow2Facts, qcow2_facts};
use crate::lock;
use crate::qemu_img::QemuImg;
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, DraftId, OverlayId, ReleaseId};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Options of a disk that stands alone. Extended L2 entries gain nothing there.
pub(crate) const STANDALONE_OPTIONS: &str = "cluster_size=64k,lazy_refcounts=off,compat=1.1";
const OVERLAY_OPTIONS: &str = "extended_l2=on,cluster_size=128k,lazy_refcounts=off";

/// qcow2 files on the two tiers.
pub struct Qcow2Driver {
    dirs: TierDirs,
    qemu_img: QemuImg,
    owner: Option<Owner>,
    /// What an empty overlay of a release consists of: making one is then one small write
    /// and an fsync instead of a process.
    templates: Mutex<HashMap<ReleaseId, Arc<Template>>>,
}

/// An empty overlay: its length and the parts of it that are not zero.
struct Template {
    length: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

const PIECE: usize = 4096;

impl Template {
    fn read(path: &Path) -> Result<Self, DiskError> {
        let bytes = fs::read(path).on("can't read", path)?;
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                pieces.push(((index * PIECE) as u64, piece.to_vec()));
            }
        }
        Ok(Template {
            length: bytes.len() as u64,
            pieces,
        })
    }

    fn write(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        file.set_len(self.length).on("can't write", path)?;
        for (offset, bytes) in &self.pieces {
            file.write_all_at(bytes, *offset).on("can't write", path)?;
        }
        file.sync_all().on("can't sync", path)
    }
}

impl Qcow2Driver {
    /// Over tiers that exist. `owner`: who QEMU runs as, when that is not this process's user.
    pub fn new(dirs: TierDirs, qemu_img: QemuImg, owner: Option<Owner>) -> Self {
        Qcow2Driver {
            dirs,
            qemu_img,
            owner,
            templates: Mutex::new(HashMap::new()),
        }
    }

    fn path(&self, disk: &DiskRef) -> PathBuf {
        match disk {
            DiskRef::Qcow2Overlay { overlay, .. } => self.dirs.overlay(overlay),
            DiskRef::Qcow2Draft { draft } => self.dirs.draft(draft),
        }
    }

    fn release_disk(&self, release: &ReleaseId) -> PathBuf {
        self.dirs.release(release).join(layout::RELEASE_DISK)
    }

    fn facts(&self, path: &Path) -> Result<Qcow2Facts, DiskError> {
        let file = File::open(path).on("can't open", path)?;
        qcow2_facts(&file).map_err(|why| {
            DiskError::Damaged(format!(
                "{} is damaged: {why}. Reset the desktop, or restore the file",
                path.display()
            ))
        })
    }

    fn need_release(&self, release: &ReleaseId) -> Result<PathBuf, DiskError> {
        let disk = self.release_disk(release);
        if disk.exists() {
            return Ok(disk);
        }
        self.forget_release(release);
        Err(DiskError::NotFound(format!(
            "release {release} is not on the fast tier: choose another release of the image"
        )))
    }

    fn template(&self, release: &ReleaseId) -> Result<Arc<Template>, DiskError> {
        let base = self.need_release(release)?;
        let lock = || {
            self.templates
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(template) = lock().get(release) {
            return Ok(template.clone());
        }
        let virtual_bytes = self.facts(&base)?.virtual_bytes;
        let folder = self.dirs.overlay(&OverlayId::new());
        let temp = TempPath::new_in(folder.parent().unwrap_or(Path::new("/")));
        // -u: the base is not opened; its format and size are given.
        self.qemu_img.trusted(&[
            "create".into(),
            "-q".into(),
            "-u".into(),
            "-f".into(),
            "qcow2".into(),
            "-F".into(),
            "qcow2".into(),
            "-b".into(),
            base.into_os_string(),
            "-o".into(),
            OVERLAY_OPTIONS.into(),
            temp.path().as_os_str().to_owned(),
            virtual_bytes.to_string().into(),
        ])?;
        let template = Arc::new(Template::read(temp.path())?);
        lock().insert(release.clone(), template.clone());
        Ok(template)
    }

    /// Whether the header names this release's disk.
    fn lies_over(facts: &Qcow2Facts, release: &ReleaseId) -> bool {
        let ending = layout::release(release).join(layout::RELEASE_DISK);
        facts
            .backing
            .as_deref()
            .is_some_and(|name| Path::new(name).ends_with(&ending))
    }

    /// Makes a disk under a temporary name and puts it in place, durable, with the rights it needs.
    fn place(
        &self,
        to: &Path,
        fill: impl FnOnce(&File, &Path) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let temp = TempPath::new_in(to.parent().unwrap_or(Path::new("/")));
        let mode = if self.owner.is_some() { 0o660 } else { 0o600 };
        let file = create_new(temp.path(), mode)?;
        if let Some(owner) = self.owner {
            owner.take(temp.path())?;
        }
        fill(&file, temp.path())?;
        temp.persist(to)
    }

    /// An overlay that exists already: fine if it is of this release.
    fn existing(&self, path: &Path, release: &ReleaseId) -> Result<bool, DiskError> {
        if !path.exists() {
            return Ok(false);
        }
        if Self::lies_over(&self.facts(path)?, release) {
            return Ok(true);
        }
        Err(DiskError::Invalid(format!(
            "the overlay {} exists and lies over another release than {release}: delete it first",
            path.file_stem().unwrap_or_default().to_string_lossy()
        )))
    }
}

impl DiskDriver for Qcow2Driver {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn clone_release(
        &self,
        release: &ReleaseId,
        overlay: &OverlayId,
    ) -> Result<DiskRef, DiskError> {
        let path = self.dirs.overlay(overlay);
        let template = self.template(release)?;
        if !self.existing(&path, release)? {
            self.place(&path, |file, at| template.write(file, at))?;
        }
        Ok(DiskRef::Qcow2Overlay {
            overlay: overlay.clone(),
            release: release.clone(),
        })
    }

    fn clone_delta(
        &self,
        release: &ReleaseId,
        delta: &DeltaId,
        overlay: &OverlayId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        self.need_release(release)?;
        let path = self.dirs.overlay(overlay);
        let from = self.dirs.delta(delta).join(layout::DELTA_OVERLAY);
        if !self.existing(&path, release)? {
            if !from.exists() {
                return Err(DiskError::NotFound(format!(
                    "delta {delta} holds no disk: capture the desktop again"
                )));
            }
            if !Self::lies_over(&self.facts(&from)?, release) {
                return Err(DiskError::Invalid(format!(
                    "delta {delta} belongs to another release than {release}: capture a desktop of this release"
                )));
            }
            let _still = lock::read_guard(&from, &format!("the disk of delta {delta}"))?;
            self.place(&path, |file, at| copy_sparse(&from, file, at, cancel))?;
        }
        Ok(DiskRef::Qcow2Overlay {
            overlay: overlay.clone(),
            release: release.clone(),
        })
    }

    fn create(&self, draft: &DraftId, virtual_bytes: u64) -> Result<DiskRef, DiskError> {
        if virtual_bytes == 0 || !virtual_bytes.is_multiple_of(512) {
            return Err(DiskError::Invalid(format!(
                "a disk can't be {virtual_bytes} bytes large: use a multiple of 512, for example whole GiB"
            )));
        }
        let path = self.dirs.draft(draft);
        self.place(&path, |file, at| {
            self.qemu_img.trusted(&[
                "create".into(),
                "-q".into(),
                "-f".into(),
                "qcow2".into(),
                "-o".into(),
                STANDALONE_OPTIONS.into(),
                at.as_os_str().to_owned(),
                virtual_bytes.to_string().into(),
            ])?;
            file.sync_all().on("can't sync", at)
        })?;
        Ok(DiskRef::Qcow2Draft {
            draft: draft.clone(),
        })
    }

    fn draft_of_release(
        &self,
        release: &ReleaseId,
        draft: &DraftId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        let from = self.need_release(release)?;
        self.place(&self.dirs.draft(draft), |file, at| {
            copy_sparse(&from, file, at, cancel)
        })?;
        Ok(DiskRef::Qcow2Draft {
            draft: draft.clone(),
        })
    }

    fn reset(&self, disk: &DiskRef) -> Result<(), DiskError> {
        let DiskRef::Qcow2Overlay { overlay, release } = disk else {
            return Err(DiskError::Invalid(
                "a draft's disk lies over nothing it could be reset to: make it again from a release".into(),
            ));
        };
        let path = self.path(disk);
        let template = self.template(release)?;
        if path.exists() && lock::in_use(&path)? {
            return Err(DiskError::InUse(format!(
                "overlay {overlay} is open in a running machine: stop the desktop first"
            )));
        }
        self.place(&path, |file, at| template.write(file, at))
    }

    fn delete(&self, disk: &DiskRef) -> Result<bool, DiskError> {
        let path = self.path(disk);
        let gone = files::remove(&path)?;
        if gone {
            files::sync_parent(&path)?;
        }
        Ok(gone)
    }

    fn usage(&self, disk: &DiskRef) -> Result<DiskUsage, DiskError> {
        let path = self.path(disk);
        if !path.exists() {
            return Err(DiskError::NotFound(format!("there is no disk {disk:?}")));
        }
        Ok(DiskUsage {
            virtual_bytes: self.facts(&path)?.virtual_bytes,
            bytes_on_disk: files::bytes_on_disk(&path),
        })
    }

    fn grow(&self, disk: &DiskRef, virtual_bytes: u64) -> Result<(), DiskError> {
        if matches!(disk, DiskRef::Qcow2Overlay { .. }) {
            return Err(DiskError::Invalid(
                "a desktop's disk has the size of its release: grow a draft and seal it".into(),
            ));
        }
        let now = self.usage(disk)?.virtual_bytes;
        if virtual_bytes < now || !virtual_bytes.is_multiple_of(512) {
            return Err(DiskError::Invalid(format!(
                "a disk of {now} bytes can't become {virtual_bytes}: it only grows, in steps of 512 bytes"
            )));
        }
        if virtual_bytes == now {
            return Ok(());
        }
        let path = self.path(disk);
        if lock::in_use(&path)? {
            return Err(DiskError::InUse(
                "the disk is open in a running machine: shut it down first".into(),
            ));
        }
        self.qemu_img.trusted(&[
            "resize".into(),
            "-q".into(),
            "-f".into(),
            "qcow2".into(),
            path.clone().into_os_string(),
            virtual_bytes.to_string().into(),
        ])?;
        File::open(&path)
            .and_then(|f| f.sync_all())
            .on("can't sync", &path)
    }

    fn forget_release(&self, release: &ReleaseId) {
        self.templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(release);
    }
}
