//! Uploads: a stranger's bytes, kept in a folder that only the agent enters.

use crate::agent::{Agent, gone};
use crate::error::{Result, StorageError};
use axum::body::Body;
use futures::StreamExt;
use lyceum_disk::error::{Context, is_full};
use lyceum_disk::files::{self, TempPath};
use lyceum_disk::inspect::size;
use lyceum_disk::{Cancel, DiskError};
use lyceum_model::JobId;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The upload itself, inside its folder.
const DATA: &str = "data";
/// What its owner called it.
const META: &str = "meta.json";
/// A body that stands still for so long is given up.
const STALLED: Duration = Duration::from_secs(60);
/// How often free space is looked at, in bytes received.
const LOOK: u64 = 64 << 20;
/// How long the rest of a refused upload is read, so that its sender gets to see the refusal.
const DRAIN: Duration = Duration::from_secs(10);

/// What is kept beside the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadMeta {
    pub name: String,
    pub bytes: u64,
}

pub(crate) fn upload_key(job: &JobId) -> String {
    format!("upload/{job}")
}

/// A finished upload: the file and what it is called.
pub(crate) fn find(slow: &Path, job: &JobId) -> Result<(PathBuf, UploadMeta)> {
    let folder = slow.join("uploads").join(job.as_str());
    let missing =
        || StorageError::not_found(format!("there is no upload {job}: upload the image first"));
    let meta = std::fs::read(folder.join(META)).map_err(|_| missing())?;
    let meta = serde_json::from_slice(&meta).map_err(|_| missing())?;
    Ok((folder.join(DATA), meta))
}

impl Agent {
    pub(crate) async fn upload(
        &self,
        job: JobId,
        name: String,
        bytes: u64,
        body: Body,
    ) -> Result<()> {
        let mut body = body.into_data_stream();
        let done = self.receive(&job, name, bytes, &mut body).await;
        if done.is_err() {
            // The answer goes out at once; who still sends would take a closed connection
            // for a broken one and never read why.
            tokio::spawn(tokio::time::timeout(DRAIN, async move {
                while let Some(Ok(_)) = body.next().await {}
            }));
        }
        done
    }

    async fn receive(
        &self,
        job: &JobId,
        name: String,
        bytes: u64,
        body: &mut axum::body::BodyDataStream,
    ) -> Result<()> {
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            return Err(StorageError::invalid(
                "the upload's name is empty, too long or holds control characters: give it the file's name, for example debian.qcow2",
            ));
        }
        if bytes == 0 {
            return Err(StorageError::invalid(format!(
                "{name:?} is empty: check the file that is uploaded"
            )));
        }
        if self.inner.imports.reads(job) {
            return Err(StorageError::in_use(format!(
                "upload {job} is being imported: use a new id, or cancel the import first"
            )));
        }
        let hold = self
            .inner
            .objects
            .try_hold(upload_key(job), "is being uploaded")
            .map_err(|what| {
                StorageError::in_use(format!(
                    "upload {job} {what}: wait until that is over, or cancel it"
                ))
            })?;
        let inner = self.inner.clone();
        let meta = UploadMeta { name, bytes };
        let (temp, mut file) = self
            .look({
                let meta = meta.clone();
                move |inner| {
                    inner.slow.need(
                        meta.bytes,
                        &format!("can't take the upload {:?}", meta.name),
                    )?;
                    let temp = TempPath::folder_in(&inner.dirs.slow.join("uploads"))?;
                    let path = temp.path().join(DATA);
                    // Everybody may read it who gets into the folder: the process that
                    // converts it later has no rights of its own.
                    let file = files::create_new(&path, 0o644)?;
                    files::reserve(&file, &path, meta.bytes)?;
                    let json = crate::agent::json(&meta)?;
                    files::write_atomic(&temp.path().join(META), &json, 0o600)?;
                    Ok((temp, tokio::fs::File::from_std(file)))
                }
            })
            .await?;
        let path = temp.path().join(DATA);
        let received = self
            .stream(&meta, &path, &mut file, body, &hold.cancel)
            .await;
        if let Err(error) = received {
            drop(file);
            let _ = tokio::task::spawn_blocking(move || drop(temp)).await;
            return Err(error);
        }
        let to = inner.dirs.slow.join("uploads").join(job.as_str());
        let file = file.into_std().await;
        tokio::task::spawn_blocking(move || {
            file.sync_all().on("can't sync", &path)?;
            files::sync_folder(temp.path())?;
            // A second upload for the same job takes the place of the first.
            files::remove_atomic(&to)?;
            temp.persist(&to)?;
            drop(hold);
            Ok(())
        })
        .await
        .map_err(gone)?
    }

    async fn stream(
        &self,
        meta: &UploadMeta,
        path: &Path,
        file: &mut tokio::fs::File,
        body: &mut axum::body::BodyDataStream,
        cancel: &Cancel,
    ) -> Result<()> {
        let (mut received, mut looked) = (0u64, 0u64);
        loop {
            cancel.check()?;
            let piece = match tokio::time::timeout(STALLED, body.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    return Err(StorageError::invalid(format!(
                        "the upload of {:?} broke off after {}: {error}. Upload it again",
                        meta.name,
                        size(received)
                    )));
                }
                Err(_) => {
                    return Err(StorageError::invalid(format!(
                        "the upload of {:?} stood still for {} s after {}: check the connection and upload it again",
                        meta.name,
                        STALLED.as_secs(),
                        size(received)
                    )));
                }
            };
            received = received.saturating_add(piece.len() as u64);
            if received > meta.bytes {
                return Err(StorageError::invalid(format!(
                    "the upload of {:?} is longer than the {} that were announced: it changed while it was read. Upload it again",
                    meta.name,
                    size(meta.bytes)
                )));
            }
            let write = async {
                file.write_all(&piece).await?;
                if received - looked >= LOOK {
                    file.flush().await?;
                }
                Ok::<_, std::io::Error>(())
            };
            write.await.map_err(|e| full_or_io(e, path))?;
            if received - looked >= LOOK {
                looked = received;
                // Its own room is taken; this is about what desktops write meanwhile.
                self.look(|inner| Ok(inner.slow.need(1, "can't go on with the upload")?))
                    .await?;
            }
        }
        file.flush().await.map_err(|e| full_or_io(e, path))?;
        if received < meta.bytes {
            return Err(StorageError::invalid(format!(
                "the upload of {:?} ended after {} of {}: upload it again",
                meta.name,
                size(received),
                size(meta.bytes)
            )));
        }
        Ok(())
    }

    pub(crate) async fn delete_upload(&self, job: JobId) -> Result<()> {
        let objects = &self.inner.objects;
        // An upload in progress is given up; an import that reads it is not disturbed.
        if self.inner.imports.reads(&job) {
            return Err(StorageError::in_use(format!(
                "upload {job} is being imported: cancel the import first"
            )));
        }
        objects.cancel(&upload_key(&job));
        let hold = objects.hold(upload_key(&job), "is being removed").await;
        self.work(hold, move |inner, _| {
            files::remove_atomic(&inner.dirs.slow.join("uploads").join(job.as_str()))?;
            Ok(())
        })
        .await
    }
}

fn full_or_io(source: std::io::Error, path: &Path) -> DiskError {
    if is_full(&source) {
        return DiskError::Full {
            what: "can't go on with the upload".into(),
        };
    }
    DiskError::Io {
        what: "can't write",
        path: path.to_owned(),
        source,
    }
}
