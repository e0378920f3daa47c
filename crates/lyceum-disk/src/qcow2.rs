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
use crate::driver::{DiskDriver, DiskUsage, Owner, Point, Strained, Tended, TierDirs};
use crate::error::{Context, DiskError};
use crate::files::{self, TempPath, copy_sparse, create_new};
use crate::inspect::{Qcow2Facts, qcow2_facts};
use crate::lock;
use crate::qemu_img::QemuImg;
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, DraftId, OverlayId, PointId, ReleaseId, Tier};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
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

    fn path(&self, disk: &DiskRef) -> Result<PathBuf, DiskError> {
        match disk {
            DiskRef::Qcow2Overlay { overlay, .. } => Ok(self.dirs.overlay(overlay)),
            DiskRef::Qcow2Draft { draft } => Ok(self.dirs.draft(draft)),
            DiskRef::LvmVolume { overlay, .. } => Err(DiskError::Invalid(format!(
                "the disk {overlay} is a volume, and this storage agent keeps disks as qcow2 files: set driver = \"lvm\", or reset the desktop"
            ))),
        }
    }

    fn point_path(&self, overlay: &OverlayId, point: &PointId) -> PathBuf {
        self.dirs.points(overlay).join(format!("{point}.qcow2"))
    }

    /// The paths of an overlay and of the release under it; the overlay exists.
    fn overlay_path(&self, disk: &DiskRef) -> Result<(PathBuf, PathBuf), DiskError> {
        let (Some(overlay), Some(release)) = (disk.overlay(), disk.release()) else {
            return Err(DiskError::Invalid(
                "restore points are kept of desktops' disks, not of drafts: seal the draft instead"
                    .into(),
            ));
        };
        let path = self.path(disk)?;
        if !self.existing(&path, release)? {
            return Err(no_disk(overlay));
        }
        Ok((path, self.release_disk(release)))
    }

    fn point(&self, path: &Path, point: PointId) -> Result<Point, DiskError> {
        let meta = fs::metadata(path).on("can't look at", path)?;
        Ok(Point {
            point,
            taken: meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000,
            bytes_on_disk: files::bytes_on_disk(path),
        })
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
        self.forget_release(release)?;
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

fn no_disk(overlay: &OverlayId) -> DiskError {
    DiskError::NotFound(format!(
        "there is no disk {overlay}: reset the desktop to get a new one"
    ))
}

fn no_point(point: &PointId) -> DiskError {
    DiskError::NotFound(format!(
        "there is no restore point {point}: choose one that is listed"
    ))
}

fn other_release(point: &PointId, release: &ReleaseId) -> DiskError {
    DiskError::Invalid(format!(
        "the restore point {point} belongs to another release than {release}: it can be restored once the desktop is back on that release"
    ))
}

/// A disk as a QEMU block node: format fixed, the file below it the only one that is opened
/// but for `backing`.
fn node(path: &Path, backing: Option<&Path>) -> Result<OsString, DiskError> {
    let name = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            DiskError::Invalid(format!(
                "{} is no text: give the tiers paths without unusual bytes",
                path.display()
            ))
        })
    };
    let backing = match backing {
        Some(base) => serde_json::json!({
            "driver": "qcow2", "backing": null,
            "file": { "driver": "file", "filename": name(base)? },
        }),
        None => serde_json::Value::Null,
    };
    let node = serde_json::json!({
        "driver": "qcow2", "backing": backing,
        "file": { "driver": "file", "filename": name(path)? },
    });
    Ok(format!("json:{node}").into())
}

impl DiskDriver for Qcow2Driver {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn open(&self) -> Result<(), DiskError> {
        let all = self.dirs.slow.join("points");
        for name in files::names(&all)? {
            files::clear_temps(&all.join(name))?;
        }
        Ok(())
    }

    fn prepare_release(&self, release: &ReleaseId, _cancel: &Cancel) -> Result<(), DiskError> {
        self.template(release).map(drop)
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

    fn clone_point(
        &self,
        of: &OverlayId,
        point: &PointId,
        release: &ReleaseId,
        overlay: &OverlayId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        self.need_release(release)?;
        let path = self.dirs.overlay(overlay);
        if !self.existing(&path, release)? {
            let from = self.point_path(of, point);
            if !from.exists() {
                return Err(no_point(point));
            }
            if !Self::lies_over(&self.facts(&from)?, release) {
                return Err(other_release(point, release));
            }
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
        let path = self.path(disk)?;
        let template = self.template(release)?;
        if path.exists() && lock::in_use(&path)? {
            return Err(DiskError::InUse(format!(
                "overlay {overlay} is open in a running machine: stop the desktop first"
            )));
        }
        self.place(&path, |file, at| template.write(file, at))
    }

    fn find(&self, overlay: &OverlayId) -> Result<DiskRef, DiskError> {
        let path = self.dirs.overlay(overlay);
        if !path.exists() {
            return Err(no_disk(overlay));
        }
        let release = self.facts(&path)?.backing.as_deref().and_then(|name| {
            Path::new(name)
                .parent()?
                .file_name()?
                .to_str()?
                .parse()
                .ok()
        });
        match release {
            Some(release) => Ok(DiskRef::Qcow2Overlay {
                overlay: overlay.clone(),
                release,
            }),
            None => Err(DiskError::Damaged(format!(
                "the disk {overlay} names no release that it lies over: reset the desktop, or restore the file"
            ))),
        }
    }

    fn delete(&self, disk: &DiskRef) -> Result<bool, DiskError> {
        if let Some(overlay) = disk.overlay() {
            return self.delete_overlay(overlay);
        }
        let path = self.path(disk)?;
        let gone = files::remove(&path)?;
        if gone {
            files::sync_parent(&path)?;
        }
        Ok(gone)
    }

    fn delete_overlay(&self, overlay: &OverlayId) -> Result<bool, DiskError> {
        // The points first: without the disk nobody would look for them.
        files::remove_atomic(&self.dirs.points(overlay))?;
        let path = self.dirs.overlay(overlay);
        let gone = files::remove(&path)?;
        if gone {
            files::sync_parent(&path)?;
        }
        Ok(gone)
    }

    fn overlays(&self) -> Result<Vec<(OverlayId, u64)>, DiskError> {
        let names = files::names(&self.dirs.slow.join("overlays"))?;
        let ids = names
            .iter()
            .filter_map(|name| name.strip_suffix(".qcow2")?.parse().ok());
        Ok(ids
            .map(|id: OverlayId| {
                let own = files::bytes_on_disk(&self.dirs.overlay(&id));
                let points = files::bytes_on_disk(&self.dirs.points(&id));
                (id, own.saturating_add(points))
            })
            .collect())
    }

    fn usage(&self, disk: &DiskRef) -> Result<DiskUsage, DiskError> {
        let path = self.path(disk)?;
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
        let path = self.path(disk)?;
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

    fn take_point(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<Point, DiskError> {
        let (path, _) = self.overlay_path(disk)?;
        let overlay = disk.overlay().ok_or_else(|| no_point(point))?;
        let to = self.point_path(overlay, point);
        if !to.exists() {
            let _still = lock::read_guard(&path, &format!("the disk {overlay}"))?;
            let folder = self.dirs.points(overlay);
            match fs::create_dir(&folder) {
                Ok(()) => files::sync_parent(&folder)?,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).on("can't make the folder", &folder),
            }
            self.place(&to, |file, at| copy_sparse(&path, file, at, cancel))?;
        }
        self.point(&to, point.clone())
    }

    fn points(&self, overlay: &OverlayId) -> Result<Vec<Point>, DiskError> {
        let mut points = Vec::new();
        for name in files::names(&self.dirs.points(overlay))? {
            if let Some(Ok(id)) = name.strip_suffix(".qcow2").map(str::parse::<PointId>) {
                points.push(self.point(&self.point_path(overlay, &id), id)?);
            }
        }
        points.sort_by(|a, b| (a.taken, &a.point).cmp(&(b.taken, &b.point)));
        Ok(points)
    }

    fn restore_point(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<(), DiskError> {
        let (Some(overlay), Some(release)) = (disk.overlay(), disk.release()) else {
            return Err(no_point(point));
        };
        let (path, from) = (self.path(disk)?, self.point_path(overlay, point));
        if !from.exists() {
            return Err(no_point(point));
        }
        if !Self::lies_over(&self.facts(&from)?, release) {
            return Err(other_release(point, release));
        }
        if path.exists() && lock::in_use(&path)? {
            return Err(DiskError::InUse(format!(
                "the disk {overlay} is open in a running machine: stop the desktop first"
            )));
        }
        self.place(&path, |file, at| copy_sparse(&from, file, at, cancel))
    }

    fn delete_point(&self, overlay: &OverlayId, point: &PointId) -> Result<bool, DiskError> {
        let path = self.point_path(overlay, point);
        let gone = files::remove(&path)?;
        if gone {
            files::sync_parent(&path)?;
        }
        Ok(gone)
    }

    fn export(&self, disk: &DiskRef, to: &Path, cancel: &Cancel) -> Result<(), DiskError> {
        let path = self.path(disk)?;
        if !path.exists() {
            return Err(DiskError::NotFound(format!("there is no disk {disk:?}")));
        }
        let base = match disk.release() {
            Some(release) => Some(self.need_release(release)?),
            None => None,
        };
        let _still = lock::read_guard(&path, "the disk")?;
        cancel.check()?;
        let arguments = [
            "convert".into(),
            "-O".into(),
            "qcow2".into(),
            "-o".into(),
            STANDALONE_OPTIONS.into(),
            node(&path, base.as_deref())?,
            to.as_os_str().to_owned(),
        ];
        self.qemu_img.cancellable(&arguments, cancel)
    }

    fn forget_release(&self, release: &ReleaseId) -> Result<(), DiskError> {
        self.templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(release);
        Ok(())
    }

    fn beside(&self, _: Tier) -> Result<(u64, u64), DiskError> {
        Ok((0, 0))
    }

    fn tend(&self) -> Result<Vec<Tended>, DiskError> {
        // Overlays share their file system's room, which the agent watches as a whole.
        Ok(Vec::new())
    }

    fn strained(&self) -> Strained {
        Strained::default()
    }
}
