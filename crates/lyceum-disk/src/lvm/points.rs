//! Restore points of desktops' volumes.
//!
//! Thin: a snapshot of the snapshot. Classic snapshots can't be snapshotted again, so the point is
//! another snapshot of the same origin, and gets the blocks of the disk that differ. Either way a
//! point is a volume that could be a desktop's.

use super::LvmDriver;
use super::group::{decode, encode};
use super::report::Lv;
use super::snapshot::{RELEASE_TAG, TempVolume, disk_volume, lost, tag};
use super::{Snapshots, mount};
use crate::driver::Point;
use crate::error::Context;
use crate::{Cancel, DiskError, lock};
use lyceum_model::disk::layout;
use lyceum_model::{DiskRef, OverlayId, PointId, ReleaseId, UnixMillis};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const OVERLAY_TAG: &str = "lyceum.overlay";
const TAKEN_TAG: &str = "lyceum.taken";

fn point_volume(point: &PointId) -> String {
    format!("p.{}", encode(point.as_str()))
}

fn now() -> UnixMillis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn read_point(lv: &Lv, overlay: &OverlayId) -> Option<Point> {
    if tag(lv, OVERLAY_TAG) != Some(overlay.as_str()) {
        return None;
    }
    Some(Point {
        point: decode(lv.name.strip_prefix("p.")?).parse().ok()?,
        taken: tag(lv, TAKEN_TAG)?.parse().ok()?,
        bytes_on_disk: lv.used(),
    })
}

fn no_point(point: &PointId) -> DiskError {
    DiskError::NotFound(format!(
        "there is no restore point {point}: choose one that is listed"
    ))
}

/// A volume mounted for reading, until it is dropped.
struct Reading {
    at: PathBuf,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if mount::unmount(&self.at).is_ok() {
            let _ = fs::remove_dir(&self.at);
        }
    }
}

impl LvmDriver {
    pub(super) fn take(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<Point, DiskError> {
        let (overlay, release, lv) = self.volume(disk)?;
        let name = point_volume(point);
        if let Some(found) = self.group.volume(&name)? {
            return read_point(&found, &overlay).ok_or_else(|| {
                DiskError::Invalid(format!(
                    "the restore point {point} exists and is another desktop's: choose another name"
                ))
            });
        }
        if lv.invalid {
            return Err(lost(&overlay));
        }
        let file = self.file(&overlay);
        let _still = lock::read_guard(&file, &format!("the disk {overlay}"))?;
        let taken = now();
        let tags = [
            format!("{OVERLAY_TAG}={overlay}"),
            format!("{TAKEN_TAG}={taken}"),
        ];
        match self.config.snapshots {
            Snapshots::Thin => {
                let release_tag = format!("{RELEASE_TAG}={release}");
                self.group.change(
                    "can't make a restore point",
                    "lvcreate",
                    &[
                        "--yes",
                        "-s",
                        "-ky",
                        "-n",
                        &name,
                        "--addtag",
                        &tags[0],
                        "--addtag",
                        &tags[1],
                        "--addtag",
                        &release_tag,
                        &self.group.path(&lv.name),
                    ],
                )?;
            }
            Snapshots::Classic => {
                let temp_name = format!("t.{name}");
                let mut temp = TempVolume::new(&self.group, temp_name.clone());
                self.snapshot(&temp_name, &release, &tags)?;
                let at = self.mount_temp(&mut temp, &temp_name, false)?;
                copy_differences(&file, &at.join(layout::VOLUME_DISK), cancel)?;
                temp.unmount()?;
                self.group.rename(&temp_name, &name)?;
                temp.keep()?;
            }
        }
        self.group
            .volume(&name)?
            .and_then(|lv| read_point(&lv, &overlay))
            .ok_or_else(|| no_point(point))
    }

    pub(super) fn list(&self, overlay: &OverlayId) -> Result<Vec<Point>, DiskError> {
        let mut points: Vec<Point> = self
            .group
            .volumes()?
            .iter()
            .filter_map(|lv| read_point(lv, overlay))
            .collect();
        points.sort_by(|a, b| (a.taken, &a.point).cmp(&(b.taken, &b.point)));
        Ok(points)
    }

    pub(super) fn restore(
        &self,
        disk: &DiskRef,
        point: &PointId,
        cancel: &Cancel,
    ) -> Result<(), DiskError> {
        let DiskRef::LvmVolume { overlay, release } = disk else {
            return Err(no_point(point));
        };
        let from = self.usable(overlay, point, release)?;
        self.not_in_use(overlay)?;
        let temp_name = format!("t.{}", disk_volume(overlay));
        let mut temp = TempVolume::new(&self.group, temp_name.clone());
        match self.config.snapshots {
            Snapshots::Thin => self.copy_of(&from, &temp_name, release)?,
            Snapshots::Classic => {
                self.snapshot(&temp_name, release, &[])?;
                let reading = self.reading(&from)?;
                let at = self.mount_temp(&mut temp, &temp_name, false)?;
                copy_differences(
                    &reading.at.join(layout::VOLUME_DISK),
                    &at.join(layout::VOLUME_DISK),
                    cancel,
                )?;
                temp.unmount()?;
            }
        }
        self.swap(overlay, temp, &temp_name)
    }

    /// The volume of a point of this overlay over this release.
    fn usable(
        &self,
        of: &OverlayId,
        point: &PointId,
        release: &ReleaseId,
    ) -> Result<Lv, DiskError> {
        let from = self
            .group
            .volume(&point_volume(point))?
            .filter(|lv| tag(lv, OVERLAY_TAG) == Some(of.as_str()))
            .ok_or_else(|| no_point(point))?;
        if from.invalid {
            return Err(lost(of));
        }
        if tag(&from, RELEASE_TAG) != Some(release.as_str()) {
            return Err(DiskError::Invalid(format!(
                "the restore point {point} belongs to another release than {release}: it can be restored once the desktop is back on that release"
            )));
        }
        Ok(from)
    }

    /// A new clone of the release that gets the blocks in which the point differs.
    pub(super) fn copy_point(
        &self,
        of: &OverlayId,
        point: &PointId,
        release: &ReleaseId,
        overlay: &OverlayId,
        cancel: &Cancel,
    ) -> Result<DiskRef, DiskError> {
        let from = self.usable(of, point, release)?;
        let reading = self.reading(&from)?;
        let disk = reading.at.join(layout::VOLUME_DISK);
        self.clone_with(release, overlay, cancel, Some(&disk))
    }

    /// A writable thin snapshot of a thin volume, with tags of its own.
    fn copy_of(&self, from: &Lv, name: &str, release: &ReleaseId) -> Result<(), DiskError> {
        let tags = [
            format!("{RELEASE_TAG}={release}"),
            format!("lyceum.fsid={}", uuid::Uuid::new_v4()),
        ];
        self.group.change(
            "can't restore",
            "lvcreate",
            &[
                "--yes",
                "-s",
                "-kn",
                "-n",
                name,
                "--addtag",
                &tags[0],
                "--addtag",
                &tags[1],
                &self.group.path(&from.name),
            ],
        )
    }

    fn reading(&self, lv: &Lv) -> Result<Reading, DiskError> {
        if !lv.active {
            self.group.activate(Some(&lv.name))?;
        }
        let folder = self.dirs.slow.join("volumes");
        let at = crate::files::TempPath::new_in(&folder).path().to_owned();
        fs::create_dir(&at).on("can't make the folder", &at)?;
        let reading = Reading { at };
        mount::mount(
            &self.group.device(&lv.name),
            &reading.at,
            self.config.ext4_data,
            true,
            false,
        )?;
        Ok(reading)
    }

    pub(super) fn forget_point(
        &self,
        overlay: &OverlayId,
        point: &PointId,
    ) -> Result<bool, DiskError> {
        let name = point_volume(point);
        match self.group.volume(&name)? {
            Some(lv) if tag(&lv, OVERLAY_TAG) == Some(overlay.as_str()) => {
                self.group.remove(&name)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// What is compared: a page of the guest, a block of the file system.
const BLOCK: usize = 4096;
/// How much is read at once.
const STEP: usize = 1 << 20;

/// Makes the file `to` what `from` is, writing only the blocks that differ: a snapshot stores
/// nothing for the rest. Durable when it returns.
pub fn copy_differences(from: &Path, to: &Path, cancel: &Cancel) -> Result<(), DiskError> {
    let source = File::open(from).on("can't open", from)?;
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .open(to)
        .on("can't open", to)?;
    let length = source.metadata().on("can't look at", from)?.len();
    if target.metadata().on("can't look at", to)?.len() != length {
        target.set_len(length).on("can't write", to)?;
    }
    let (mut want, mut have) = (vec![0; STEP], vec![0; STEP]);
    let mut at = 0u64;
    while at < length {
        cancel.check()?;
        let n = usize::try_from(length - at).unwrap_or(STEP).min(STEP);
        source
            .read_exact_at(&mut want[..n], at)
            .on("can't read", from)?;
        target
            .read_exact_at(&mut have[..n], at)
            .on("can't read", to)?;
        let mut block = 0;
        while block < n {
            // Neighbours that differ are written together.
            let differs = |b: usize| {
                let end = (b + BLOCK).min(n);
                b < n && want[b..end] != have[b..end]
            };
            let mut end = block;
            while differs(end) {
                end = (end + BLOCK).min(n);
            }
            if end > block {
                target
                    .write_all_at(&want[block..end], at + block as u64)
                    .on("can't write", to)?;
            }
            block = end + BLOCK;
        }
        at += n as u64;
    }
    target.sync_all().on("can't sync", to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_copy_of_differences_is_a_copy(
            from in 0usize..3_000_000,
            to in 0usize..3_000_000,
            spots in proptest::collection::vec((0usize..3_000_000, any::<u8>()), 0..20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (a, b) = (folder.path().join("a"), folder.path().join("b"));
            let mut bytes = vec![7u8; from];
            for (at, value) in spots {
                if let Some(byte) = bytes.get_mut(at) { *byte = value }
            }
            fs::write(&a, &bytes).unwrap();
            fs::write(&b, vec![7u8; to]).unwrap();
            copy_differences(&a, &b, &Cancel::new()).unwrap();
            prop_assert!(fs::read(&b).unwrap() == bytes);
        }
    }

    #[test]
    fn equal_blocks_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let zeros = File::create(&b).unwrap();
        zeros.set_len(8 << 20).unwrap();
        let source = File::create(&a).unwrap();
        source.set_len(8 << 20).unwrap();
        source.write_all_at(b"x", 5 << 20).unwrap();
        copy_differences(&a, &b, &Cancel::new()).unwrap();
        assert!(crate::files::bytes_on_disk(&b) <= 64 << 10);
    }
}
