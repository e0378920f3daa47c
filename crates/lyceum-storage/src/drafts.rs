//! Drafts, and the staging folder that a seal fills.

use crate::agent::Agent;
use crate::error::{Result, StorageError};
use lyceum_disk::error::Context;
use lyceum_disk::files::{self, TempPath};
use lyceum_disk::lock;
use lyceum_model::disk::layout;
use lyceum_model::{DiskRef, DraftId, StoredRef};
use lyceum_proto::storage::DraftRequest;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// What an empty disk takes, generously.
const EMPTY_DRAFT: u64 = 16 << 20;

pub(crate) fn draft_key(id: &DraftId) -> String {
    format!("draft/{id}")
}

pub(crate) fn staging_key(id: &DraftId) -> String {
    format!("staging/{id}")
}

impl Agent {
    pub(crate) async fn make_draft(
        &self,
        draft: DraftId,
        request: DraftRequest,
    ) -> Result<DiskRef> {
        let hold = self
            .inner
            .objects
            .hold(draft_key(&draft), "is being made")
            .await;
        self.work(hold, move |inner, cancel| {
            let driver = &inner.driver;
            let what = format!("can't make the disk of draft {draft}");
            let there = inner.dirs.draft(&draft).exists();
            if there && !matches!(request, DraftRequest::Release { virtual_bytes: Some(_), .. }) {
                return Ok(DiskRef::Qcow2Draft { draft });
            }
            let sense = |virtual_bytes: u64| {
                let largest = inner.fast.largest()?;
                if virtual_bytes > largest {
                    return Err(StorageError::invalid(format!(
                        "{what}: {} is more than the fast tier could ever hold ({}). Choose a smaller disk, or add space",
                        lyceum_disk::inspect::size(virtual_bytes),
                        lyceum_disk::inspect::size(largest)
                    )));
                }
                Ok(())
            };
            match request {
                DraftRequest::Release { release, virtual_bytes } => {
                    virtual_bytes.map(sense).transpose()?;
                    let disk = if there {
                        DiskRef::Qcow2Draft { draft }
                    } else {
                        let from = inner.dirs.release(&release).join(layout::RELEASE_DISK);
                        inner.fast.need(files::bytes_on_disk(&from).max(EMPTY_DRAFT), &what)?;
                        driver.draft_of_release(&release, &draft, cancel)?
                    };
                    // Also when it was cut off between the two.
                    if let Some(wanted) = virtual_bytes
                        && let Err(error) = driver.grow(&disk, wanted)
                    {
                        if !there {
                            driver.delete(&disk)?;
                        }
                        return Err(error.into());
                    }
                    Ok(disk)
                }
                DraftRequest::Empty { virtual_bytes } => {
                    inner.fast.need(EMPTY_DRAFT, &what)?;
                    sense(virtual_bytes)?;
                    Ok(driver.create(&draft, virtual_bytes)?)
                }
            }
        })
        .await
    }

    pub(crate) async fn delete_draft(&self, draft: DraftId) -> Result<()> {
        self.inner.objects.cancel(&draft_key(&draft));
        let hold = self
            .inner
            .objects
            .hold(draft_key(&draft), "is being removed")
            .await;
        self.work(hold, move |inner, _| {
            // The disk first: an ISO without a disk is no draft that could be opened.
            let record = inner
                .dirs
                .fast
                .join("published")
                .join(format!("{draft}.json"));
            for path in [
                inner.dirs.draft(&draft),
                inner.dirs.draft_iso(&draft),
                record,
            ] {
                if files::remove(&path)? {
                    files::sync_parent(&path)?;
                }
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn make_staging(&self, draft: DraftId) -> Result<StoredRef> {
        let hold = self
            .inner
            .objects
            .hold(staging_key(&draft), "is being made")
            .await;
        self.work(hold, move |inner, cancel| {
            let to = inner.dirs.staging(&draft);
            if to.exists() {
                return Ok(StoredRef::Staging { draft });
            }
            let from = inner.dirs.draft(&draft);
            if !from.exists() {
                return Err(StorageError::not_found(format!(
                    "draft {draft} has no disk: make it from a release or import an image first"
                )));
            }
            inner.fast.need(
                files::bytes_on_disk(&from),
                &format!("can't stage draft {draft}"),
            )?;
            // A disk that is being written would be copied torn.
            let _still = lock::read_guard(&from, &format!("the disk of draft {draft}"))?;
            let folder = TempPath::folder_in(&inner.dirs.fast.join("staging"))?;
            let disk = folder.path().join(layout::RELEASE_DISK);
            let mode = if inner.owner.is_some() { 0o660 } else { 0o600 };
            let file = files::create_new(&disk, mode)?;
            inner.give(&disk)?;
            files::copy_sparse(&from, &file, &disk, cancel)?;
            files::sync_folder(folder.path())?;
            inner.give(folder.path())?;
            let mode = if inner.owner.is_some() { 0o770 } else { 0o700 };
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode))
                .on("can't set the rights of", folder.path())?;
            folder.persist(&to)?;
            Ok(StoredRef::Staging { draft })
        })
        .await
    }

    pub(crate) async fn delete_staging(&self, draft: DraftId) -> Result<()> {
        self.inner.objects.cancel(&staging_key(&draft));
        let hold = self
            .inner
            .objects
            .hold(staging_key(&draft), "is being removed")
            .await;
        self.work(hold, move |inner, _| {
            files::remove_atomic(&inner.dirs.staging(&draft))?;
            Ok(())
        })
        .await
    }
}
