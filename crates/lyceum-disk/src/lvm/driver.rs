//! The driver: what is asked of it, done with volumes.

use super::LvmDriver;
use super::group::{POOL, TIER_FAST, TIER_SLOW};
use super::mount;
use super::snapshot::{RELEASE_TAG, disk_volume, lost, no_disk, origin_volume, overlay_of, tag};
use crate::driver::{DiskDriver, DiskUsage, Point, Strained, Tended};
use crate::error::Context;
use crate::files::{copy_sparse, create_new};
use crate::inspect::qcow2_facts;
use crate::{Cancel, DiskError, lock};
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, DraftId, OverlayId, PointId, ReleaseId, Tier};
use std::fs::{self, File};
use std::path::Path;

impl DiskDriver for LvmDriver {
    fn name(&self) -> &'static str {
        "lvm"
    }

    fn open(&self) -> Result<(), DiskError> {
        self.drafts.open()?;
        self.group.activate(None)?;
        self.clear()?;
        if self.thin() {
            self.open_pool()?;
        }
        self.limit_dirty();
        for lv in self.group.volumes()? {
            let Some(overlay) = overlay_of(&lv) else {
                continue;
            };
            if mount::is_mounted(&self.place(&overlay))? {
                // It may stand still since before this agent was started; the first look decides.
                self.strained().paused.push(overlay.clone());
            }
            if let Err(error) = self.attach(&overlay, &lv) {
                // One broken desktop does not keep the others from starting.
                tracing::error!(%overlay, %error, "its volume can't be mounted");
            }
        }
        Ok(())
    }

    fn prepare_release(&self, release: &ReleaseId, cancel: &Cancel) -> Result<(), DiskError> {
        self.prepare(release, cancel)
    }

    fn clone_release(
        &self,
        release: &ReleaseId,
        overlay: &OverlayId,
    ) -> Result<DiskRef, DiskError> {
        self.clone_with(release, overlay, &Cancel::new(), None)
    }

    fn clone_delta(
        &self,
        release: &ReleaseId,
        delta: &DeltaId,
        overlay: &OverlayId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        let from = self.dirs.delta(delta).join(layout::DELTA_OVERLAY);
        if !from.exists() {
            return Err(DiskError::NotFound(format!(
                "delta {delta} holds no disk: capture the desktop again"
            )));
        }
        let file = File::open(&from).on("can't open", &from)?;
        match qcow2_facts(&file) {
            Ok(facts) if facts.backing.is_none() => {}
            Ok(_) => {
                return Err(DiskError::Invalid(format!(
                    "delta {delta} was captured from a disk of another kind: capture the desktop again"
                )));
            }
            Err(why) => {
                return Err(DiskError::Damaged(format!(
                    "the disk of delta {delta} is damaged: {why}. Capture the desktop again"
                )));
            }
        }
        let _still = lock::read_guard(&from, &format!("the disk of delta {delta}"))?;
        self.clone_with(release, overlay, cancel, Some(&from))
    }

    fn clone_point(
        &self,
        of: &OverlayId,
        point: &PointId,
        release: &ReleaseId,
        overlay: &OverlayId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        self.copy_point(of, point, release, overlay, cancel)
    }

    fn create(&self, draft: &DraftId, virtual_bytes: u64) -> Result<DiskRef, DiskError> {
        self.drafts.create(draft, virtual_bytes)
    }

    fn draft_of_release(
        &self,
        release: &ReleaseId,
        draft: &DraftId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        self.drafts.draft_of_release(release, draft, cancel)
    }

    fn find(&self, overlay: &OverlayId) -> Result<DiskRef, DiskError> {
        let lv = self
            .group
            .volume(&disk_volume(overlay))?
            .ok_or_else(|| no_disk(overlay))?;
        match tag(&lv, RELEASE_TAG).and_then(|id| id.parse().ok()) {
            Some(release) => Ok(DiskRef::LvmVolume {
                overlay: overlay.clone(),
                release,
            }),
            None => Err(DiskError::Damaged(format!(
                "the volume of {overlay} has lost the tag that names its release: reset the desktop"
            ))),
        }
    }

    fn reset(&self, disk: &DiskRef) -> Result<(), DiskError> {
        let DiskRef::LvmVolume { overlay, release } = disk else {
            return self.drafts.reset(disk);
        };
        self.not_in_use(overlay)?;
        self.prepare_release(release, &Cancel::new())?;
        self.detach(overlay)?;
        // What it held is not wanted any more, so its room is free for the new one.
        self.group.remove(&disk_volume(overlay))?;
        self.clone_release(release, overlay).map(drop)
    }

    fn delete(&self, disk: &DiskRef) -> Result<bool, DiskError> {
        match disk {
            DiskRef::LvmVolume { overlay, .. } => self.delete_overlay(overlay),
            other => self.drafts.delete(other),
        }
    }

    fn delete_overlay(&self, overlay: &OverlayId) -> Result<bool, DiskError> {
        let name = disk_volume(overlay);
        for point in self.points(overlay)? {
            self.delete_point(overlay, &point.point)?;
        }
        if self.group.volume(&name)?.is_none() {
            return Ok(false);
        }
        self.detach(overlay)?;
        self.group.remove(&name)?;
        let at = self.place(overlay);
        fs::remove_dir(&at).on("can't remove the folder", &at)?;
        Ok(true)
    }

    fn usage(&self, disk: &DiskRef) -> Result<DiskUsage, DiskError> {
        if !matches!(disk, DiskRef::LvmVolume { .. }) {
            return self.drafts.usage(disk);
        }
        let (overlay, _, lv) = self.volume(disk)?;
        if lv.invalid {
            return Err(lost(&overlay));
        }
        let path = self.file(&overlay);
        let file = File::open(&path).on("can't open", &path)?;
        let facts = qcow2_facts(&file).map_err(|why| {
            DiskError::Damaged(format!(
                "the disk {overlay} is damaged: {why}. Reset the desktop, or restore a restore point"
            ))
        })?;
        Ok(DiskUsage {
            virtual_bytes: facts.virtual_bytes,
            bytes_on_disk: lv.used(),
        })
    }

    fn overlays(&self) -> Result<Vec<(OverlayId, u64)>, DiskError> {
        Ok(self
            .group
            .volumes()?
            .iter()
            .filter_map(|lv| Some((overlay_of(lv)?, lv.used())))
            .collect())
    }

    fn grow(&self, disk: &DiskRef, virtual_bytes: u64) -> Result<(), DiskError> {
        if matches!(disk, DiskRef::LvmVolume { .. }) {
            return Err(DiskError::Invalid(
                "a desktop's disk has the size of its release: grow a draft and seal it".into(),
            ));
        }
        self.drafts.grow(disk, virtual_bytes)
    }

    fn take_point(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<Point, DiskError> {
        let volumes = self.group.volumes()?;
        self.need_room(&volumes, &format!("can't keep the restore point {point}"))?;
        self.take(disk, point, cancel)
    }

    fn points(&self, overlay: &OverlayId) -> Result<Vec<Point>, DiskError> {
        self.list(overlay)
    }

    fn restore_point(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<(), DiskError> {
        self.restore(disk, point, cancel)
    }

    fn delete_point(&self, overlay: &OverlayId, point: &PointId) -> Result<bool, DiskError> {
        self.forget_point(overlay, point)
    }

    fn export(&self, disk: &DiskRef, to: &Path, cancel: &Cancel) -> Result<(), DiskError> {
        let DiskRef::LvmVolume { overlay, .. } = disk else {
            return self.drafts.export(disk, to, cancel);
        };
        let from = self.file(overlay);
        if !from.exists() {
            return Err(no_disk(overlay));
        }
        let _still = lock::read_guard(&from, &format!("the disk {overlay}"))?;
        // It stands alone already.
        let file = create_new(to, 0o600)?;
        copy_sparse(&from, &file, to, cancel)
    }

    fn forget_release(&self, release: &ReleaseId) -> Result<(), DiskError> {
        self.drafts.forget_release(release)?;
        let volumes = self.group.volumes()?;
        let name = origin_volume(release);
        let Some(origin) = volumes.iter().find(|lv| lv.name == name) else {
            return Ok(());
        };
        // LVM would remove them with it.
        let over = volumes
            .iter()
            .filter(|lv| {
                tag(lv, RELEASE_TAG) == Some(release.as_str())
                    || lv.origin.as_deref() == Some(origin.name.as_str())
            })
            .count();
        if over > 0 {
            return Err(DiskError::InUse(format!(
                "{over} volumes of desktops and restore points lie over release {release}: delete or reset those desktops first"
            )));
        }
        self.group.remove(&name)
    }

    fn beside(&self, tier: Tier) -> Result<(u64, u64), DiskError> {
        let volumes = self.group.volumes()?;
        let size = |name: &str| {
            let found = volumes.iter().find(|lv| lv.name == name);
            found.map_or(0, |lv| lv.size)
        };
        let disks = self.group.physical(tier)?;
        let (layout, fs) = match tier {
            Tier::Fast => (self.config.fast_layout, size(TIER_FAST)),
            Tier::Slow => (self.config.slow_layout, size(TIER_SLOW)),
        };
        let all: Vec<u64> = disks.iter().map(|pv| pv.size).collect();
        let mut free = self.group.free(tier, layout)?;
        if tier == Tier::Slow
            && let Some(pool) = volumes.iter().find(|lv| lv.name == POOL)
        {
            free += pool.size.saturating_sub(pool.used());
        }
        Ok((layout.usable(&all).saturating_sub(fs), free))
    }

    fn tend(&self) -> Result<Vec<Tended>, DiskError> {
        self.watch()
    }

    fn strained(&self) -> Strained {
        LvmDriver::strained(self).clone()
    }
}
