//! Releases: immutable, and named by what they hold.

use crate::agent::{Agent, Inner, json};
use crate::drafts::staging_key;
use crate::error::{Result, StorageError};
use crate::hash::{block_list, hash_file};
use lyceum_disk::error::Context;
use lyceum_disk::inspect::qcow2_facts;
use lyceum_disk::{Cancel, files, lock};
use lyceum_model::blocks;
use lyceum_model::disk::layout::{
    RELEASE_DEVICE_STATE, RELEASE_DISK, RELEASE_MANIFEST, RELEASE_RAM,
};
use lyceum_model::release::FileEntry;
use lyceum_model::{DraftId, ReleaseId, ReleaseManifest};
use lyceum_proto::storage::{PublishRequest, Published};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A manifest is a few hundred bytes.
const MAX_MANIFEST: u64 = 64 << 10;

/// Written before the staging folder becomes the release, so that the same request after
/// a crash gets the same answer although the folder is gone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishRecord {
    request: PublishRequest,
    published: Published,
}

fn release_key(id: &ReleaseId) -> String {
    format!("release/{id}")
}

fn record_path(inner: &Inner, draft: &DraftId) -> std::path::PathBuf {
    inner
        .dirs
        .fast
        .join("published")
        .join(format!("{draft}.json"))
}

impl Agent {
    pub(crate) async fn publish(
        &self,
        draft: DraftId,
        request: PublishRequest,
    ) -> Result<Published> {
        let hold = self
            .inner
            .objects
            .hold(staging_key(&draft), "is being published")
            .await;
        let objects = self.inner.objects.clone();
        let runtime = tokio::runtime::Handle::current();
        self.work(hold, move |inner, cancel| {
            if !inner.dirs.staging(&draft).exists() {
                return inner.published_before(&draft, &request);
            }
            let manifest = inner.describe(&draft, &request, cancel)?;
            let bytes = canonical(&manifest)?;
            let release = release_id(&bytes)?;
            // From here on nobody deletes the release that this becomes.
            let _release =
                runtime.block_on(objects.hold(release_key(&release), "is being published"));
            inner.become_release(&draft, &request, release, manifest, &bytes, cancel)
        })
        .await
    }

    pub(crate) async fn verify(&self, id: ReleaseId) -> Result<Published> {
        let hold = self
            .inner
            .objects
            .hold(release_key(&id), "is being verified")
            .await;
        self.work(hold, move |inner, cancel| inner.verify(&id, cancel))
            .await
    }

    pub(crate) async fn prepare(&self, id: ReleaseId) -> Result<()> {
        let hold = self
            .inner
            .objects
            .hold(release_key(&id), "is being prepared for a class")
            .await;
        self.work(hold, move |inner, cancel| {
            Ok(inner.driver.prepare_release(&id, cancel)?)
        })
        .await
    }

    pub(crate) async fn delete_release(&self, id: ReleaseId) -> Result<()> {
        let hold = self
            .inner
            .objects
            .try_hold(release_key(&id), "is being removed")
            .map_err(|what| {
                StorageError::in_use(format!("release {id} {what}: wait until that is over"))
            })?;
        self.work(hold, move |inner, _| {
            inner.driver.forget_release(&id)?;
            files::remove_atomic(&inner.dirs.release(&id))?;
            Ok(())
        })
        .await
    }
}

fn canonical(manifest: &ReleaseManifest) -> Result<Vec<u8>> {
    manifest
        .canonical_json()
        .map_err(|e| StorageError::internal(format!("can't write the manifest: {e}")))
}

fn release_id(manifest: &[u8]) -> Result<ReleaseId> {
    blake3::hash(manifest)
        .to_hex()
        .parse()
        .map_err(|e| StorageError::internal(format!("a hash is no release id: {e}")))
}

impl Inner {
    /// Makes the files of a staging folder durable and unchangeable, and hashes them.
    fn describe(
        &self,
        draft: &DraftId,
        request: &PublishRequest,
        cancel: &Cancel,
    ) -> Result<ReleaseManifest> {
        let folder = self.dirs.staging(draft);
        let disk = folder.join(RELEASE_DISK);
        let mut wanted = vec![RELEASE_DISK];
        if request.memory.is_some() {
            wanted.extend([RELEASE_RAM, RELEASE_DEVICE_STATE]);
        } else if request.cold_reason.is_none() {
            return Err(StorageError::invalid(
                "a release without memory needs a reason for the page: say why it can only be booted cold",
            ));
        }
        for name in &wanted {
            let path = folder.join(name);
            if !fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
                return Err(StorageError::state(format!(
                    "draft {draft} can't be published: {name} is missing in its staging folder. Seal it again"
                )));
            }
        }
        let _still = lock::read_guard(&disk, &format!("the staged disk of draft {draft}"))?;
        let mut entries = Vec::new();
        for name in &wanted {
            entries.push(seal_file(&folder.join(name), cancel)?);
        }
        // Sockets, logs and other leftovers of the seal are no part of the release.
        for name in files::names(&folder)? {
            if !wanted.contains(&name.as_str()) {
                files::remove(&folder.join(&name))?;
            }
        }
        let virtual_bytes = standalone_disk(&disk)?;
        let mut entries = entries.into_iter();
        let mut next = || {
            entries
                .next()
                .ok_or_else(|| StorageError::internal("a file of the release was not hashed"))
        };
        Ok(ReleaseManifest {
            format: ReleaseManifest::FORMAT,
            sealed_at: request.sealed_at,
            disk: next()?,
            virtual_bytes,
            memory: match request.memory.clone() {
                Some(facts) => Some(facts.with_files(next()?, next()?)),
                None => None,
            },
            cold_reason: request.cold_reason.clone(),
        })
    }

    fn become_release(
        &self,
        draft: &DraftId,
        request: &PublishRequest,
        release: ReleaseId,
        manifest: ReleaseManifest,
        manifest_bytes: &[u8],
        cancel: &Cancel,
    ) -> Result<Published> {
        let staging = self.dirs.staging(draft);
        let to = self.dirs.release(&release);
        files::write_atomic(&staging.join(RELEASE_MANIFEST), manifest_bytes, 0o444)?;
        // For hosts that have a release like it already. They do without it, so it may fail.
        for name in [RELEASE_DISK, RELEASE_RAM] {
            let path = staging.join(name);
            if !path.exists() {
                continue;
            }
            let list = staging.join(format!("{name}{}", blocks::SUFFIX));
            let written = block_list(&path, cancel)
                .and_then(|blocks| files::write_atomic(&list, &blocks.to_bytes(), 0o444));
            if let Err(error) = written {
                cancel.check()?;
                tracing::warn!(%release, "without {}: {error}; hosts copy the file whole", list.display());
            }
        }
        if self.owner.is_some() {
            let own = (nix::unistd::Uid::effective(), nix::unistd::Gid::effective());
            std::os::unix::fs::chown(&staging, Some(own.0.as_raw()), Some(own.1.as_raw()))
                .on("can't change the owner of", &staging)?;
        }
        fs::set_permissions(&staging, Permissions::from_mode(0o755))
            .on("can't set the rights of", &staging)?;
        files::sync_folder(&staging)?;
        let published = Published {
            release: release.clone(),
            manifest,
            bytes_on_disk: files::bytes_on_disk(&staging),
        };
        let record = PublishRecord {
            request: request.clone(),
            published,
        };
        cancel.check()?;
        files::write_atomic(&record_path(self, draft), &json(&record)?, 0o600)?;
        if to.exists() {
            // The same content is the same release.
            files::remove_atomic(&staging)?;
        } else {
            fs::rename(&staging, &to).on("can't rename to", &to)?;
            files::sync_parent(&to)?;
            files::sync_parent(&staging)?;
        }
        tracing::info!(%release, %draft, "published");
        Ok(record.published)
    }

    /// The staging folder is gone: fine if this very request made it a release.
    fn published_before(&self, draft: &DraftId, request: &PublishRequest) -> Result<Published> {
        let record = fs::read(record_path(self, draft))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<PublishRecord>(&bytes).ok());
        match record {
            Some(record)
                if record.request == *request
                    && self.dirs.release(&record.published.release).exists() =>
            {
                Ok(record.published)
            }
            _ => Err(StorageError::state(format!(
                "draft {draft} can't be published: there is no staging folder. Seal it first"
            ))),
        }
    }

    fn verify(&self, id: &ReleaseId, cancel: &Cancel) -> Result<Published> {
        let folder = self.dirs.release(id);
        if !folder.exists() {
            return Err(StorageError::not_found(format!(
                "release {id} is not on the fast tier"
            )));
        }
        let damaged = |name: &str, why: &str| {
            StorageError::damaged(format!(
                "release {id} is damaged: {name} {why}. Do not start desktops from it: retire it and seal the draft again, or restore the file from a backup"
            ))
        };
        let path = folder.join(RELEASE_MANIFEST);
        let length = fs::metadata(&path).map(|m| m.len()).unwrap_or(0);
        if length == 0 || length > MAX_MANIFEST {
            return Err(damaged(
                RELEASE_MANIFEST,
                "is missing or has a wrong length",
            ));
        }
        let bytes = fs::read(&path).on("can't read", &path)?;
        if release_id(&bytes)? != *id {
            return Err(damaged(RELEASE_MANIFEST, "was changed"));
        }
        let manifest: ReleaseManifest = serde_json::from_slice(&bytes).map_err(|e| {
            damaged(
                RELEASE_MANIFEST,
                &format!("is of another version of Lyceum ({e})"),
            )
        })?;
        let mut wanted = vec![(RELEASE_DISK, &manifest.disk)];
        if let Some(memory) = &manifest.memory {
            wanted.push((RELEASE_RAM, &memory.ram));
            wanted.push((RELEASE_DEVICE_STATE, &memory.device_state));
        }
        for (name, entry) in wanted {
            let path = folder.join(name);
            match fs::symlink_metadata(&path) {
                Ok(meta) if !meta.is_file() => return Err(damaged(name, "is no plain file")),
                Ok(meta) if meta.len() != entry.bytes => {
                    return Err(damaged(name, "has another length"));
                }
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Err(damaged(name, "is missing"));
                }
                Err(e) => return Err(e).on("can't look at", &path)?,
            }
            if hash_file(&path, cancel)? != *entry {
                return Err(damaged(name, "was changed"));
            }
        }
        Ok(Published {
            release: id.clone(),
            manifest,
            bytes_on_disk: files::bytes_on_disk(&folder),
        })
    }
}

/// Durable, owned by the agent, readable for everybody and writable for nobody; its hash.
fn seal_file(path: &Path, cancel: &Cancel) -> Result<FileEntry> {
    let own = (nix::unistd::Uid::effective(), nix::unistd::Gid::effective());
    let file = File::open(path).on("can't open", path)?;
    std::os::unix::fs::fchown(&file, Some(own.0.as_raw()), Some(own.1.as_raw()))
        .on("can't change the owner of", path)?;
    file.set_permissions(Permissions::from_mode(0o444))
        .on("can't set the rights of", path)?;
    file.sync_all().on("can't sync", path)?;
    Ok(hash_file(path, cancel)?)
}

/// Size of a disk that must refer to nothing outside itself.
fn standalone_disk(path: &Path) -> Result<u64> {
    let file = File::open(path).on("can't open", path)?;
    let facts = qcow2_facts(&file).map_err(|why| {
        StorageError::damaged(format!(
            "the staged disk is damaged: {why}. Seal the draft again"
        ))
    })?;
    if facts.backing.is_some() || facts.external_data || facts.encrypted {
        return Err(StorageError::damaged(
            "the staged disk refers to another file, so it can't be a release. Seal the draft again",
        ));
    }
    Ok(facts.virtual_bytes)
}
