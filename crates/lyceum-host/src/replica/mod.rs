//! A replica of releases on this host's own SSD: read from there, they cost the file server
//! nothing but their first copy.
//!
//! ```text
//!   DIR/partial/ID  --- every file's hash is the manifest's, durable --->  DIR/releases/ID
//!        ^ a copy that was broken off is gone on with                           |
//!        |                                                                      v
//!        +------------- damaged: removed, and copied again <--------------- desktops
//! ```
//!
//! - **A release is either complete or not there.** It gets its name by one rename after every
//!   byte was verified; before a desktop uses it, it is verified again like those of the tier.
//! - Blocks that another complete release here has are taken from it ([`copy`]).
//! - What nobody needed for longest goes when there is no room, and anything that was not needed
//!   for a month. What desktops here run on stays, and what was needed in the last hour does not
//!   make room for something that nobody prepared.
//! - Nothing of it is needed: whenever a replica is not there, the tier of the file server is.

mod copy;
#[cfg(test)]
mod tests;

use crate::HostError;
use crate::releases::{Releases, read_manifest};
use lyceum_model::disk::layout;
use lyceum_model::{ReleaseId, ReleaseManifest};
use lyceum_proto::host::{ReplicaFacts, ReplicaFilling};
use lyceum_proto::{ErrorBody, code};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Where replicas are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaConfig {
    /// Folder on an SSD of this host, of this agent alone.
    pub dir: PathBuf,
    /// The most it takes of that disk, MiB.
    pub mib: u64,
    /// Days after which a release that nobody needed goes.
    #[serde(default = "days")]
    pub days: u64,
}

fn days() -> u64 {
    30
}

/// Its time of change is when the release was last needed.
const NEEDED: &str = "needed";
/// What was verified here, in the agent's state directory.
const VERIFIED: &str = "verified-replicas.json";
/// Left free on the disk, whatever the configuration says.
const RESERVE: u64 = 256 << 20;
/// What was needed within this time stays for what nobody prepared.
const RECENT: Duration = Duration::from_secs(3600);

/// Who wants a release here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A class is going to begin.
    Prepared,
    /// A desktop was started from the file server's tier.
    Used,
}

#[derive(Default)]
struct Filling {
    release: Mutex<Option<ReleaseId>>,
    done: AtomicU64,
    total: AtomicU64,
}

#[derive(Default)]
struct Counters {
    from_server: AtomicU64,
    from_here: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    damaged: AtomicU64,
}

/// The replicas of a host.
pub(crate) struct Replica {
    config: ReplicaConfig,
    releases: Arc<Releases>,
    /// Held while a release is copied: one after the other, so that each is there soonest.
    flight: Mutex<()>,
    filling: Filling,
    counters: Counters,
    trouble: Mutex<Option<String>>,
    /// Asked for and not begun, so that a class of forks asks once.
    asked: Mutex<HashSet<ReleaseId>>,
    /// Ends a copy where it is; it is gone on with later.
    stop: AtomicBool,
    _lock: nix::fcntl::Flock<std::fs::File>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trouble(message: String) -> ErrorBody {
    ErrorBody {
        code: code::INTERNAL.into(),
        message,
    }
}

impl Replica {
    /// Those in the configured folder.
    pub(crate) async fn open(
        config: &ReplicaConfig,
        state_dir: &Path,
    ) -> Result<Replica, HostError> {
        for folder in ["releases", "partial"] {
            let folder = config.dir.join(folder);
            std::fs::create_dir_all(&folder).map_err(|e| HostError::file("making", &folder, e))?;
        }
        let path = config.dir.join("agent.lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| HostError::file("opening", &path, e))?;
        let lock = locked(file).await.ok_or_else(|| {
            HostError::Config(format!(
                "[host.replica] dir: another host agent uses {}: give each its own folder",
                config.dir.display()
            ))
        })?;
        let replica = Replica {
            releases: Arc::new(Releases::open_as(state_dir, VERIFIED)?),
            config: config.clone(),
            flight: Mutex::default(),
            filling: Filling::default(),
            counters: Counters::default(),
            trouble: Mutex::default(),
            asked: Mutex::default(),
            stop: AtomicBool::new(false),
            _lock: lock,
        };
        replica.clear_up();
        Ok(replica)
    }

    /// Ends a copy where it is.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn path(&self, id: &ReleaseId) -> PathBuf {
        self.config.dir.join("releases").join(id.as_str())
    }

    fn partial(&self, id: &ReleaseId) -> PathBuf {
        self.config.dir.join("partial").join(id.as_str())
    }

    /// What was half copied and is complete by now, or was being removed.
    fn clear_up(&self) {
        for (id, folder) in folders(&self.config.dir.join("partial")) {
            if id.is_none_or(|id| self.path(&id).exists()) {
                discard(&folder);
            }
        }
        for (id, folder) in folders(&self.config.dir.join("releases")) {
            if id.is_none() {
                discard(&folder);
            }
        }
    }

    /// Complete releases.
    pub(crate) fn complete(&self) -> Vec<ReleaseId> {
        folders(&self.config.dir.join("releases"))
            .into_iter()
            .filter_map(|(id, _)| id)
            .collect()
    }

    /// The release's folder and manifest, if it is complete and every byte is right; what is not
    /// goes, and is copied again when it is needed next.
    pub(crate) async fn verified(&self, id: &ReleaseId) -> Option<(PathBuf, Arc<ReleaseManifest>)> {
        let folder = self.path(id);
        if !folder.is_dir() {
            self.counters.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        match self.releases.verified(id, folder.clone()).await {
            Ok(manifest) => {
                touch(&folder);
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                Some((folder, manifest))
            }
            Err(e) => {
                self.counters.misses.fetch_add(1, Ordering::Relaxed);
                tracing::error!(release = %id, "this host's replica is not used: {e}");
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                *lock(&self.trouble) = Some(format!(
                    "its copy of release {id} was damaged and removed: look at the health of the disk under {}",
                    self.config.dir.display()
                ));
                self.remove(&folder);
                None
            }
        }
    }

    /// Takes a folder away: under another name at once, so that nobody finds half of it.
    fn remove(&self, folder: &Path) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let gone = self
            .config
            .dir
            .join("partial")
            .join(format!(".gone-{name}-{}", uuid::Uuid::new_v4().simple()));
        match std::fs::rename(folder, &gone) {
            Ok(()) => discard(&gone),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("{} can't be removed: {e}", folder.display()),
        }
    }

    /// Whether somebody has to fill it: `false` when it is there, or somebody does already.
    pub(crate) fn wants(&self, id: &ReleaseId) -> bool {
        !self.path(id).exists() && lock(&self.asked).insert(id.clone())
    }

    /// Copies a release that lies in `from`; blocks for as long as that takes. `running`: what
    /// desktops here run on.
    pub(crate) fn fill(
        &self,
        id: &ReleaseId,
        from: &Path,
        need: Need,
        running: &HashSet<ReleaseId>,
    ) -> Result<(), ErrorBody> {
        let _flight = lock(&self.flight);
        let result = if self.path(id).exists() {
            touch(&self.path(id));
            Ok(())
        } else {
            *lock(&self.filling.release) = Some(id.clone());
            let result = self.copy(id, from, need, running);
            *lock(&self.filling.release) = None;
            *lock(&self.trouble) = match &result {
                Err(e) if !self.stop.load(Ordering::Relaxed) => Some(e.message.clone()),
                _ => None,
            };
            result
        };
        lock(&self.asked).remove(id);
        result
    }

    fn copy(
        &self,
        id: &ReleaseId,
        from: &Path,
        need: Need,
        running: &HashSet<ReleaseId>,
    ) -> Result<(), ErrorBody> {
        let manifest = read_manifest(id, from)?;
        let partial = self.partial(id);
        let mut files = vec![(layout::RELEASE_DISK, &manifest.disk)];
        if let Some(memory) = &manifest.memory {
            files.push((layout::RELEASE_RAM, &memory.ram));
            files.push((layout::RELEASE_DEVICE_STATE, &memory.device_state));
        }
        let takes: u64 = files
            .iter()
            .map(|(name, entry)| on_disk(&from.join(name)).min(entry.bytes))
            .sum();
        self.make_room(id, takes.saturating_sub(used(&partial)), need, running)?;
        std::fs::create_dir_all(&partial)
            .map_err(|e| {
                trouble(format!(
                    "the folder {} can't be made on this host's own disk: {e}; desktops use the file server's",
                    partial.display()
                ))
            })?;
        self.filling.done.store(0, Ordering::Relaxed);
        let total = files.iter().map(|(_, entry)| entry.bytes).sum();
        self.filling.total.store(total, Ordering::Relaxed);
        let others = self.complete().into_iter().map(|id| self.path(&id));
        let known = copy::Known::of(others);
        for (name, entry) in files {
            let job = copy::Job {
                name,
                entry,
                from: &from.join(name),
                to: &partial.join(name),
                stop: &self.stop,
                done: &self.filling.done,
            };
            let copied = job.run(&known).map_err(|why| {
                trouble(format!(
                    "release {id} can't be copied to this host's own disk: {why}; desktops use the file server's"
                ))
            })?;
            let count = |counter: &AtomicU64, bytes| counter.fetch_add(bytes, Ordering::Relaxed);
            count(&self.counters.from_server, copied.from_server);
            count(&self.counters.from_here, copied.from_here);
        }
        self.publish(id, from, &partial).map_err(|e| {
            trouble(format!(
                "release {id} can't be completed on this host's own disk: {e}; desktops use the file server's"
            ))
        })?;
        let counters = &self.counters;
        tracing::info!(
            release = %id,
            from_server = counters.from_server.load(Ordering::Relaxed),
            from_here = counters.from_here.load(Ordering::Relaxed),
            "copied to this host's own disk"
        );
        Ok(())
    }

    /// Every file is whole and durable: gives the folder its name.
    fn publish(&self, id: &ReleaseId, from: &Path, partial: &Path) -> std::io::Result<()> {
        let manifest = partial.join(layout::RELEASE_MANIFEST);
        std::fs::copy(from.join(layout::RELEASE_MANIFEST), &manifest)?;
        std::fs::File::open(&manifest)?.sync_all()?;
        std::fs::write(partial.join(NEEDED), b"")?;
        std::fs::File::open(partial)?.sync_all()?;
        let to = self.path(id);
        std::fs::rename(partial, &to)?;
        std::fs::File::open(self.config.dir.join("releases"))?.sync_all()
    }

    /// Removes what was needed longest ago until so many bytes fit.
    fn make_room(
        &self,
        id: &ReleaseId,
        bytes: u64,
        need: Need,
        running: &HashSet<ReleaseId>,
    ) -> Result<(), ErrorBody> {
        let now = SystemTime::now();
        let age = |at: &SystemTime| now.duration_since(*at).unwrap_or_default();
        let mut there: Vec<(SystemTime, ReleaseId, u64)> = self
            .complete()
            .into_iter()
            .map(|id| (needed(&self.path(&id)), used(&self.path(&id)), id))
            .map(|(at, bytes, id)| (at, id, bytes))
            .collect();
        there.sort();
        let limit = self.config.mib.saturating_mul(1 << 20);
        let partials: u64 = folders(&self.config.dir.join("partial"))
            .iter()
            .map(|(_, folder)| used(folder))
            .sum();
        let mut total: u64 = there.iter().map(|(_, _, bytes)| bytes).sum::<u64>() + partials;
        let old = Duration::from_secs(self.config.days.saturating_mul(86_400));
        let mut stays = 0;
        for (at, other, bytes_there) in there {
            let fits = total + bytes <= limit && free(&self.config.dir) >= bytes + RESERVE;
            if fits && age(&at) <= old {
                break;
            }
            if running.contains(&other) || (need == Need::Used && age(&at) < RECENT) {
                stays += bytes_there;
                continue;
            }
            tracing::info!(release = %other, needed_s = age(&at).as_secs(), "its copy on this host makes room");
            self.remove(&self.path(&other));
            self.counters.evicted.fetch_add(1, Ordering::Relaxed);
            total -= bytes_there;
        }
        // Half a copy of something else is worth less than a whole one.
        if total + bytes > limit || free(&self.config.dir) < bytes + RESERVE {
            for (other, folder) in folders(&self.config.dir.join("partial")) {
                if other.as_ref() != Some(id) {
                    total = total.saturating_sub(used(&folder));
                    discard(&folder);
                }
            }
        }
        if total + bytes <= limit && free(&self.config.dir) >= bytes + RESERVE {
            return Ok(());
        }
        Err(trouble(format!(
            "release {id} takes {} MiB, and {} has no room for it (limit {} MiB, {} MiB free on the disk, {} MiB of releases in use stay): raise mib in [host.replica], or give it another disk; desktops use the file server's",
            bytes >> 20,
            self.config.dir.display(),
            self.config.mib,
            free(&self.config.dir) >> 20,
            stays >> 20,
        )))
    }

    /// For the controller.
    pub(crate) fn facts(&self) -> ReplicaFacts {
        let complete = self.complete();
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let filling = lock(&self.filling.release).clone();
        ReplicaFacts {
            used_bytes: complete.iter().map(|id| used(&self.path(id))).sum(),
            limit_bytes: self.config.mib.saturating_mul(1 << 20),
            releases: complete,
            filling: filling.map(|release| ReplicaFilling {
                release,
                done_bytes: get(&self.filling.done),
                total_bytes: get(&self.filling.total),
            }),
            from_server_bytes: get(&self.counters.from_server),
            from_here_bytes: get(&self.counters.from_here),
            hits: get(&self.counters.hits),
            misses: get(&self.counters.misses),
            evicted: get(&self.counters.evicted),
            damaged: get(&self.counters.damaged),
            trouble: lock(&self.trouble).clone(),
        }
    }
}

/// One that is about to end has a block left to copy.
async fn locked(mut file: std::fs::File) -> Option<nix::fcntl::Flock<std::fs::File>> {
    for _ in 0..100 {
        let exclusive = nix::fcntl::FlockArg::LockExclusiveNonblock;
        match nix::fcntl::Flock::lock(file, exclusive) {
            Ok(lock) => return Some(lock),
            Err((again, _)) => file = again,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Folders with the release that each is of; `None`: its name is of none.
fn folders(of: &Path) -> Vec<(Option<ReleaseId>, PathBuf)> {
    std::fs::read_dir(of)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let id = entry.file_name().to_str().and_then(|n| n.parse().ok());
            (id, entry.path())
        })
        .collect()
}

fn discard(folder: &Path) {
    if let Err(e) = std::fs::remove_dir_all(folder)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("{} can't be removed: {e}", folder.display());
    }
}

fn touch(folder: &Path) {
    if let Ok(file) = std::fs::File::create(folder.join(NEEDED)) {
        let _ = file.set_modified(SystemTime::now());
    }
}

fn needed(folder: &Path) -> SystemTime {
    std::fs::metadata(folder.join(NEEDED))
        .and_then(|m| m.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn on_disk(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.blocks() * 512)
}

/// What the files of a folder take.
fn used(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| on_disk(&entry.path())).sum()
}

fn free(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(0, |s| s.blocks_available() * s.fragment_size())
}
