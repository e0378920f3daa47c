//! Overlays and deltas: what desktops write, on the slow tier.

use crate::agent::Agent;
use crate::error::{Result, StorageError};
use lyceum_delta::Delta;
use lyceum_disk::Point;
use lyceum_disk::error::Context;
use lyceum_disk::files::{self, TempPath};
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, OverlayId, PointId};
use lyceum_proto::storage::{DiskPoint, OverlayContent, OverlayFacts, OverlayRequest};
use std::fs::File;
use std::path::Path;

/// An empty overlay and the first things a desktop writes.
const EMPTY_OVERLAY: u64 = 1 << 20;

fn overlay_key(id: &OverlayId) -> String {
    format!("overlay/{id}")
}

/// A desktop's disk is not made of a damaged copy. A delta whose header can't be read is not
/// judged here: the host that is to start from it reads the header first, and refuses.
fn verify(delta: &Path, overlay: &Path) -> Result<()> {
    match Delta::read_header(delta) {
        Ok(header) => Delta::verify_overlay(&header, overlay).map_err(|e| {
            StorageError::damaged(format!("{e}; capture the desktop again and use that"))
        }),
        Err(_) => Ok(()),
    }
}

fn told(point: Point) -> DiskPoint {
    DiskPoint {
        point: point.point,
        taken: point.taken,
        bytes_on_disk: point.bytes_on_disk,
    }
}

impl Agent {
    pub(crate) async fn make_overlay(
        &self,
        id: OverlayId,
        request: OverlayRequest,
    ) -> Result<DiskRef> {
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "is being made")
            .await;
        self.work(hold, move |inner, cancel| {
            let what = format!("can't make the overlay {id}");
            match &request.content {
                OverlayContent::Empty => {
                    inner.slow.need(EMPTY_OVERLAY, &what)?;
                    Ok(inner.driver.clone_release(&request.release, &id)?)
                }
                OverlayContent::Delta { delta } => {
                    let from = inner.dirs.delta(delta).join(layout::DELTA_OVERLAY);
                    inner
                        .slow
                        .need(files::bytes_on_disk(&from).max(EMPTY_OVERLAY), &what)?;
                    verify(&inner.dirs.delta(delta), &from)?;
                    Ok(inner
                        .driver
                        .clone_delta(&request.release, delta, &id, cancel)?)
                }
                OverlayContent::Point { of, point } => {
                    let bytes = inner
                        .driver
                        .points(of)?
                        .iter()
                        .find(|p| p.point == *point)
                        .map_or(0, |p| p.bytes_on_disk);
                    inner.slow.need(bytes.max(EMPTY_OVERLAY), &what)?;
                    Ok(inner
                        .driver
                        .clone_point(of, point, &request.release, &id, cancel)?)
                }
            }
        })
        .await
    }

    pub(crate) async fn delete_overlay(&self, id: OverlayId) -> Result<()> {
        self.inner.objects.cancel(&overlay_key(&id));
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "is being removed")
            .await;
        self.work(hold, move |inner, _| {
            inner.driver.delete_overlay(&id)?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn overlay(&self, id: OverlayId) -> Result<OverlayFacts> {
        self.look(move |inner| {
            let disk = inner.driver.find(&id)?;
            let usage = inner.driver.usage(&disk)?;
            Ok(OverlayFacts {
                disk,
                virtual_bytes: usage.virtual_bytes,
                bytes_on_disk: usage.bytes_on_disk,
            })
        })
        .await
    }

    pub(crate) async fn reset_overlay(&self, id: OverlayId) -> Result<()> {
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "is being reset")
            .await;
        self.work(hold, move |inner, _| {
            let disk = inner.driver.find(&id)?;
            Ok(inner.driver.reset(&disk)?)
        })
        .await
    }

    /// The disk as one qcow2: an open file that has no name any more, and its length.
    pub(crate) async fn export_overlay(&self, id: OverlayId) -> Result<(File, u64)> {
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "is being exported")
            .await;
        self.work(hold, move |inner, cancel| {
            let disk = inner.driver.find(&id)?;
            let what = format!("can't export the disk {id}");
            let base = disk.release().map_or(0, |release| {
                files::bytes_on_disk(&inner.dirs.release(release).join(layout::RELEASE_DISK))
            });
            let own = inner.driver.usage(&disk)?.bytes_on_disk;
            inner.slow.need(own.saturating_add(base), &what)?;
            let temp = TempPath::new_in(&inner.dirs.slow.join("uploads"));
            inner.driver.export(&disk, temp.path(), cancel)?;
            let file = File::open(temp.path()).on("can't open", temp.path())?;
            let length = file.metadata().on("can't look at", temp.path())?.len();
            Ok((file, length))
        })
        .await
    }

    pub(crate) async fn points(&self, id: OverlayId) -> Result<Vec<DiskPoint>> {
        self.look(move |inner| Ok(inner.driver.points(&id)?.into_iter().map(told).collect()))
            .await
    }

    pub(crate) async fn take_point(&self, id: OverlayId, point: PointId) -> Result<DiskPoint> {
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "is being kept as a restore point")
            .await;
        self.work(hold, move |inner, cancel| {
            let disk = inner.driver.find(&id)?;
            let bytes = inner.driver.usage(&disk)?.bytes_on_disk;
            let what = format!("can't keep the restore point {point}");
            // Volumes have their room elsewhere, and the driver looks after it.
            if matches!(disk, DiskRef::Qcow2Overlay { .. }) {
                inner.slow.need(bytes.max(EMPTY_OVERLAY), &what)?;
            }
            Ok(told(inner.driver.take_point(&disk, &point, cancel)?))
        })
        .await
    }

    pub(crate) async fn restore_point(&self, id: OverlayId, point: PointId) -> Result<()> {
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "is being restored")
            .await;
        self.work(hold, move |inner, cancel| {
            let disk = inner.driver.find(&id)?;
            Ok(inner.driver.restore_point(&disk, &point, cancel)?)
        })
        .await
    }

    pub(crate) async fn delete_point(&self, id: OverlayId, point: PointId) -> Result<()> {
        let hold = self
            .inner
            .objects
            .hold(overlay_key(&id), "loses a restore point")
            .await;
        self.work(hold, move |inner, _| {
            inner.driver.delete_point(&id, &point)?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn delete_delta(&self, id: DeltaId) -> Result<()> {
        let hold = self
            .inner
            .objects
            .hold(format!("delta/{id}"), "is being removed")
            .await;
        self.work(hold, move |inner, _| {
            files::remove_atomic(&inner.dirs.delta(&id))?;
            // What a host left when it was killed while it wrote.
            files::remove_atomic(&inner.dirs.slow.join(layout::partial_delta(&id)))?;
            Ok(())
        })
        .await
    }
}
