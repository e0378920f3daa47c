//! Overlays and deltas: what desktops write, on the slow tier.

use crate::agent::Agent;
use crate::error::{Result, StorageError};
use lyceum_delta::Delta;
use lyceum_disk::files;
use lyceum_model::disk::layout;
use lyceum_model::{DeltaId, DiskRef, OverlayId};
use lyceum_proto::storage::{OverlayContent, OverlayRequest};
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
            StorageError::damaged(format!("{e}; capture the desktop again and hand out that"))
        }),
        Err(_) => Ok(()),
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
            let path = inner.dirs.overlay(&id);
            if files::remove(&path)? {
                files::sync_parent(&path)?;
            }
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
            Ok(())
        })
        .await
    }
}
