//! What the driver is made of: the origin of a release, snapshots of it, and where they are mounted.

use super::group::{Group, POOL, decode, encode};
use super::report::Lv;
use super::{Layout, LvmConfig, Show, Snapshots, mount};
use crate::driver::{Owner, Strained, TierDirs};
use crate::error::Context;
use crate::files::{self, TempPath, copy_sparse, create_new};
use crate::inspect::qcow2_facts;
use crate::qemu_img::QemuImg;
use crate::{Cancel, DiskError, Qcow2Driver, lock, tool};
use lyceum_model::disk::layout;
use lyceum_model::{DiskRef, OverlayId, ReleaseId, Tier};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a classic snapshot copies when a byte of it is written first. Smaller ones make the
/// table longer that the kernel keeps in memory, larger ones copy more for nothing.
const CHUNK: &str = "16k";
/// Half made.
const TEMP: &str = "t.";
/// Half removed.
const OLD: &str = "old.";

/// Snapshots of LVM volumes for desktops, qcow2 files for drafts.
pub struct LvmDriver {
    pub(super) dirs: TierDirs,
    pub(super) config: LvmConfig,
    pub(super) group: Arc<Group>,
    pub(super) owner: Option<Owner>,
    pub(super) strained: Mutex<Strained>,
    pub(super) drafts: Qcow2Driver,
    show: Arc<dyn Show>,
    /// One origin is made at a time.
    preparing: Mutex<()>,
}

pub(super) fn disk_volume(overlay: &OverlayId) -> String {
    format!("d.{}", encode(overlay.as_str()))
}

pub(super) fn origin_volume(release: &ReleaseId) -> String {
    format!("r.{}", encode(release.as_str()))
}

/// The overlay that a desktop's volume belongs to.
pub(super) fn overlay_of(lv: &Lv) -> Option<OverlayId> {
    decode(lv.name.strip_prefix("d.")?).parse().ok()
}

/// The value of a tag `KEY=VALUE`.
pub(super) fn tag<'a>(lv: &'a Lv, key: &str) -> Option<&'a str> {
    lv.tags
        .iter()
        .find_map(|tag| tag.strip_prefix(key)?.strip_prefix('='))
}

pub(super) const RELEASE_TAG: &str = "lyceum.release";
const FSID_TAG: &str = "lyceum.fsid";

/// A volume that goes away unless it is kept, with its mount.
pub(super) struct TempVolume<'a> {
    group: &'a Group,
    name: Option<String>,
    at: Option<PathBuf>,
}

impl<'a> TempVolume<'a> {
    pub(super) fn new(group: &'a Group, name: String) -> Self {
        TempVolume {
            group,
            name: Some(name),
            at: None,
        }
    }

    /// Nothing is removed any more; the mount is.
    pub(super) fn keep(mut self) -> Result<(), DiskError> {
        self.unmount()?;
        self.name = None;
        Ok(())
    }

    pub(super) fn unmount(&mut self) -> Result<(), DiskError> {
        if let Some(at) = self.at.take() {
            mount::unmount(&at)?;
            fs::remove_dir(&at).on("can't remove the folder", &at)?;
        }
        Ok(())
    }
}

impl Drop for TempVolume<'_> {
    fn drop(&mut self) {
        let unmounted = self.unmount();
        if let Some(name) = self.name.take()
            && let Err(error) = unmounted.and_then(|()| self.group.remove(&name))
        {
            // The next start clears it.
            tracing::warn!(name, %error, "can't remove a half made volume now");
        }
    }
}

impl LvmDriver {
    /// Over tiers that exist, in a group that is open.
    pub fn new(
        dirs: TierDirs,
        config: LvmConfig,
        group: Arc<Group>,
        qemu_img: QemuImg,
        owner: Option<Owner>,
        show: Arc<dyn Show>,
    ) -> Result<Self, DiskError> {
        if config.snapshots == Snapshots::Classic
            && !matches!(config.slow_layout, Layout::Linear | Layout::Striped)
        {
            return Err(DiskError::Invalid(
                "the store of a classic snapshot can be linear or striped only: choose thin snapshots to keep what desktops write on mirrored or RAID disks".into(),
            ));
        }
        Ok(LvmDriver {
            drafts: Qcow2Driver::new(dirs.clone(), qemu_img, owner),
            dirs,
            config,
            group,
            owner,
            strained: Mutex::default(),
            show,
            preparing: Mutex::new(()),
        })
    }

    /// Where a desktop's volume is mounted.
    pub(super) fn place(&self, overlay: &OverlayId) -> PathBuf {
        self.dirs.volume(overlay)
    }

    pub(super) fn file(&self, overlay: &OverlayId) -> PathBuf {
        self.place(overlay).join(layout::VOLUME_DISK)
    }

    pub(super) fn thin(&self) -> bool {
        self.config.snapshots == Snapshots::Thin
    }

    /// A folder of its own to mount something at for a moment.
    pub(super) fn mount_temp(
        &self,
        volume: &mut TempVolume<'_>,
        name: &str,
        read_only: bool,
    ) -> Result<PathBuf, DiskError> {
        let folder = self.dirs.slow.join("volumes");
        let at = TempPath::new_in(&folder).path().to_owned();
        fs::create_dir(&at).on("can't make the folder", &at)?;
        if let Err(error) = mount::mount(
            &self.group.device(name),
            &at,
            self.config.ext4_data,
            read_only,
            false,
        ) {
            let _ = fs::remove_dir(&at);
            return Err(error);
        }
        volume.at = Some(at.clone());
        Ok(at)
    }

    /// The store that a new classic snapshot begins with.
    fn first_store(&self) -> u64 {
        let bytes = self.config.headroom_bytes / 4 * 5;
        bytes.div_ceil(self.group.extent) * self.group.extent
    }

    /// Says in time that there is no room for another desktop's writes.
    pub(super) fn need_room(&self, volumes: &[Lv], what: &str) -> Result<(), DiskError> {
        let headroom = self.config.headroom_bytes;
        let free = || self.group.free(Tier::Slow, self.config.slow_layout);
        if !self.thin() {
            let (first, free) = (self.first_store(), free()?);
            if free >= first {
                return Ok(());
            }
            return Err(DiskError::Full {
                what: format!(
                    "{what}: a snapshot begins with a store of {}, and the slow disks have {} free",
                    crate::inspect::size(first),
                    crate::inspect::size(free)
                ),
            });
        }
        let pool = volumes
            .iter()
            .find(|lv| lv.name == POOL)
            .ok_or_else(super::watch::no_pool)?;
        // Before the mark at which desktops stand still, for which another one would only add.
        let metadata_full = pool.metadata_percent.unwrap_or(0.0) > 80.0;
        let mut left = pool.size.saturating_sub(pool.used());
        if left < headroom {
            left = left.saturating_add(free()?);
        }
        if left >= headroom && !metadata_full {
            return Ok(());
        }
        Err(DiskError::Full {
            what: format!(
                "{what}: {} are left in the pool and for it, and {} must be{}",
                crate::inspect::size(left),
                crate::inspect::size(headroom),
                if metadata_full {
                    "; its metadata is nearly full"
                } else {
                    ""
                },
            ),
        })
    }

    /// A new snapshot of a release's origin, under a name of its own; its identity for NFS.
    pub(super) fn snapshot(
        &self,
        name: &str,
        release: &ReleaseId,
        more_tags: &[String],
    ) -> Result<uuid::Uuid, DiskError> {
        let fsid = uuid::Uuid::new_v4();
        let mut tags = vec![
            format!("{RELEASE_TAG}={release}"),
            format!("{FSID_TAG}={fsid}"),
        ];
        tags.extend(more_tags.iter().cloned());
        let origin = self.group.path(&origin_volume(release));
        let pool = self.group.path(POOL);
        let size = format!("{}b", self.first_store());
        let disks;
        let mut arguments = vec!["--yes", "-n", name];
        for tag in &tags {
            arguments.extend(["--addtag", tag.as_str()]);
        }
        if self.thin() {
            arguments.extend(["--type", "thin", "-kn", "--thinpool", &pool, &origin]);
        } else {
            arguments.extend(["-s", "-c", CHUNK, "-L", &size]);
            if self.config.slow_layout == Layout::Striped {
                disks = self.group.physical(Tier::Slow)?.len().to_string();
                if disks != "1" {
                    arguments.extend(["-i", &disks]);
                }
            }
            arguments.extend([origin.as_str(), "@lyceum.slow"]);
        }
        self.group
            .change("can't make a snapshot", "lvcreate", &arguments)?;
        Ok(fsid)
    }

    /// Mounts a desktop's volume and shows it, if that is not done.
    pub(super) fn attach(&self, overlay: &OverlayId, lv: &Lv) -> Result<(), DiskError> {
        if lv.invalid {
            return Err(lost(overlay));
        }
        if !lv.active {
            self.group.activate(Some(&lv.name))?;
        }
        let fsid = tag(lv, FSID_TAG).and_then(|id| id.parse().ok());
        self.attach_active(overlay, &lv.name, fsid.unwrap_or_default())
    }

    /// The same for a volume that is known to be active.
    fn attach_active(
        &self,
        overlay: &OverlayId,
        name: &str,
        fsid: uuid::Uuid,
    ) -> Result<(), DiskError> {
        let at = self.place(overlay);
        match fs::create_dir(&at) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).on("can't make the folder", &at),
        }
        fs::set_permissions(&at, fs::Permissions::from_mode(0o711))
            .on("can't set the rights of", &at)?;
        if !mount::is_mounted(&at)? {
            mount::mount(
                &self.group.device(name),
                &at,
                self.config.ext4_data,
                false,
                self.thin(),
            )?;
        }
        self.show.show(overlay, &at, fsid)
    }

    /// Hides and unmounts a desktop's volume, if it is mounted. The volume stays.
    pub(super) fn detach(&self, overlay: &OverlayId) -> Result<(), DiskError> {
        if mount::is_mounted(&self.place(overlay))? {
            self.detach_mounted(overlay)?;
        }
        // Also of one that is lost, which nobody mounts.
        let mut strained = self.strained();
        strained.paused.retain(|id| id != overlay);
        strained.lost.retain(|id| id != overlay);
        Ok(())
    }

    fn detach_mounted(&self, overlay: &OverlayId) -> Result<(), DiskError> {
        let at = self.place(overlay);
        self.group.freeze(&at, false)?;
        // A host that has read the disk may keep it open at the server, with the promise that
        // nobody else writes it (a delegation). Opening it for writing takes that back; it must
        // be done while the host can still answer, so before the volume is hidden.
        drop(
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.file(overlay)),
        );
        self.show.hide(overlay, &at)?;
        let done = mount::unmount(&at);
        if done.is_err()
            && let Ok(Some(lv)) = self.group.volume(&disk_volume(overlay))
        {
            // It goes on being used.
            self.attach(overlay, &lv)?;
        }
        done
    }

    pub(super) fn strained(&self) -> std::sync::MutexGuard<'_, Strained> {
        self.strained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desktop's volume and what it lies over.
    pub(super) fn volume(&self, disk: &DiskRef) -> Result<(OverlayId, ReleaseId, Lv), DiskError> {
        let DiskRef::LvmVolume { overlay, release } = disk else {
            return Err(DiskError::Invalid(
                "this storage agent keeps desktops' disks on volumes (driver = \"lvm\"), and this disk is a file: reset the desktop, or set driver = \"qcow2\"".into(),
            ));
        };
        let lv = self
            .group
            .volume(&disk_volume(overlay))?
            .ok_or_else(|| no_disk(overlay))?;
        Ok((overlay.clone(), release.clone(), lv))
    }

    /// [`DiskError::InUse`] while a machine has the disk open.
    pub(super) fn not_in_use(&self, overlay: &OverlayId) -> Result<(), DiskError> {
        let file = self.file(overlay);
        if file.exists() && lock::in_use(&file)? {
            return Err(DiskError::InUse(format!(
                "the disk {overlay} is open in a running machine: stop the desktop first"
            )));
        }
        Ok(())
    }

    /// Makes the origin of a release's snapshots, if it is not there.
    pub(super) fn prepare(&self, release: &ReleaseId, cancel: &Cancel) -> Result<(), DiskError> {
        let _one = self
            .preparing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let name = origin_volume(release);
        if self.group.volume(&name)?.is_some() {
            return Ok(());
        }
        let from = self.dirs.release(release).join(layout::RELEASE_DISK);
        if !from.exists() {
            return Err(DiskError::NotFound(format!(
                "release {release} is not on the fast tier: choose another release of the image"
            )));
        }
        let file = File::open(&from).on("can't open", &from)?;
        let facts = qcow2_facts(&file)
            .map_err(|why| DiskError::Damaged(format!("release {release} is damaged: {why}")))?;
        // The whole disk, the tables of qcow2, and ext4's own: the guest never finds it full.
        let bytes = facts.virtual_bytes + facts.virtual_bytes / 64 + (96 << 20);
        let temp_name = format!("{TEMP}{name}");
        let mut temp = TempVolume::new(&self.group, temp_name.clone());
        self.group
            .create(&temp_name, bytes, Tier::Fast, self.config.fast_layout)?;
        let device = self.group.device(&temp_name);
        let device_text = device.to_string_lossy().into_owned();
        // One large file: few inodes. Nothing is left to be initialised in every snapshot.
        tool::must(
            "can't make a file system for the release",
            "mke2fs",
            "e2fsprogs",
            &[
                "-q",
                "-F",
                "-t",
                "ext4",
                "-m",
                "0",
                "-T",
                "largefile4",
                "-J",
                "size=16",
                "-E",
                "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                &device_text,
            ],
        )?;
        let at = self.mount_temp(&mut temp, &temp_name, false)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o711))
            .on("can't set the rights of", &at)?;
        let to = at.join(layout::VOLUME_DISK);
        let mode = if self.owner.is_some() { 0o660 } else { 0o600 };
        let disk = create_new(&to, mode)?;
        if let Some(owner) = self.owner {
            owner.take(&to)?;
        }
        copy_sparse(&from, &disk, &to, cancel)?;
        drop(disk);
        files::sync_folder(&at)?;
        temp.unmount()?;
        let path = self.group.path(&temp_name);
        let what = "can't make the release's volume read-only";
        if self.thin() {
            // An external origin is used by its snapshots alone, also after the next boot.
            self.group
                .change(what, "lvchange", &["--yes", "-pr", "-ky", &path])?;
            self.group.change(what, "lvchange", &["-an", &path])?;
        } else {
            self.group
                .change(what, "lvchange", &["--yes", "-pr", &path])?;
        }
        self.group.rename(&temp_name, &name)?;
        temp.keep()
    }

    /// Makes a clone, fills it while nobody sees it, and gives it its name.
    pub(super) fn clone_with(
        &self,
        release: &ReleaseId,
        overlay: &OverlayId,
        cancel: &Cancel,
        fill: Option<&Path>,
    ) -> Result<DiskRef, DiskError> {
        let name = disk_volume(overlay);
        // Asked once: every question is a program that looks at all disks.
        let volumes = self.group.volumes()?;
        if let Some(lv) = volumes.iter().find(|lv| lv.name == name) {
            if tag(lv, RELEASE_TAG) != Some(release.as_str()) {
                return Err(DiskError::Invalid(format!(
                    "the volume of {overlay} exists and lies over another release than {release}: delete it first"
                )));
            }
            self.attach(overlay, lv)?;
        } else {
            let origin = origin_volume(release);
            if !volumes.iter().any(|lv| lv.name == origin) {
                self.prepare(release, cancel)?;
            }
            self.need_room(&volumes, &format!("can't make the disk {overlay}"))?;
            let temp_name = format!("{TEMP}{name}");
            let mut temp = TempVolume::new(&self.group, name.clone());
            let fsid = match fill {
                None => self.snapshot(&name, release, &[])?,
                Some(from) => {
                    temp.name = Some(temp_name.clone());
                    let fsid = self.snapshot(&temp_name, release, &[])?;
                    let at = self.mount_temp(&mut temp, &temp_name, false)?;
                    super::points::copy_differences(from, &at.join(layout::VOLUME_DISK), cancel)?;
                    temp.unmount()?;
                    self.group.rename(&temp_name, &name)?;
                    temp.name = Some(name.clone());
                    fsid
                }
            };
            if let Err(error) = self.attach_active(overlay, &name, fsid) {
                self.detach(overlay)?;
                return Err(error);
            }
            temp.keep()?;
        }
        Ok(DiskRef::LvmVolume {
            overlay: overlay.clone(),
            release: release.clone(),
        })
    }

    /// Puts a volume that is ready in the place of a desktop's, whatever happens between.
    pub(super) fn swap(
        &self,
        overlay: &OverlayId,
        temp: TempVolume<'_>,
        temp_name: &str,
    ) -> Result<(), DiskError> {
        let name = disk_volume(overlay);
        let old = format!("{OLD}{}", encode(overlay.as_str()));
        self.detach(overlay)?;
        if self.group.volume(&name)?.is_some() {
            self.group.rename(&name, &old)?;
        }
        self.group.rename(temp_name, &name)?;
        temp.keep()?;
        self.group.remove(&old)?;
        let lv = self.group.volume(&name)?.ok_or_else(|| no_disk(overlay))?;
        self.attach(overlay, &lv)
    }

    /// Ends what a kill interrupted.
    pub(super) fn clear(&self) -> Result<(), DiskError> {
        let folder = self.dirs.slow.join("volumes");
        for name in files::names(&folder)? {
            if name.starts_with(files::TEMP_PREFIX) {
                mount::unmount(&folder.join(&name))?;
                files::remove(&folder.join(&name))?;
            }
        }
        let volumes = self.group.volumes()?;
        for lv in &volumes {
            if lv.name.starts_with(TEMP) {
                tracing::info!(name = lv.name, "removing a half made volume");
                self.group.remove(&lv.name)?;
            } else if let Some(overlay) = lv.name.strip_prefix(OLD) {
                let name = format!("d.{overlay}");
                if volumes.iter().any(|other| other.name == name) {
                    self.group.remove(&lv.name)?;
                } else {
                    self.group.rename(&lv.name, &name)?;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn no_disk(overlay: &OverlayId) -> DiskError {
    DiskError::NotFound(format!(
        "there is no volume of {overlay}: reset the desktop to get a new one"
    ))
}

pub(super) fn lost(overlay: &OverlayId) -> DiskError {
    DiskError::Damaged(format!(
        "the snapshot of {overlay} became full and its content is lost: reset the desktop, or restore a restore point"
    ))
}
