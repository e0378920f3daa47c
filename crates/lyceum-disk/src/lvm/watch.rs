//! Looking at what fills up, and the pool of thin snapshots.

use super::LvmDriver;
use super::Snapshots;
use super::group::POOL;
use super::report::{Lv, share};
use super::room::{Store, step};
use super::snapshot::overlay_of;
use crate::driver::Tended;
use crate::{DiskError, tool};
use lyceum_model::{OverlayId, Tier};
use std::fs;

/// A pool's metadata can't be larger (LVM's own limit is 15.81 GiB).
const MOST_METADATA: u64 = 15 << 30;
/// Chunks of the pool: what is allocated, and copied from the origin, at a first write.
const POOL_CHUNK: &str = "64k";
const POOL_CHUNK_BYTES: u64 = 64 << 10;
/// How long a full pool keeps writes waiting before it fails them: for ever.
const NO_SPACE_TIMEOUT: &str = "/sys/module/dm_thin_pool/parameters/no_space_timeout";

/// A pool's metadata is extended when less than a third of it is left.
const METADATA_SHARE: u64 = 3;

/// Whether a line of `dmsetup status`, without the group's name, is one of a store that may have
/// to be extended, or that can't be read. Units are sectors, and a pool's own chunks.
fn wants_room(line: &str, headroom: u64) -> bool {
    let Some((name, status)) = line.split_once(": ") else {
        return false;
    };
    let mut words = status.split_whitespace().skip(2);
    let fraction = |word: Option<&str>| -> Option<(u64, u64)> {
        let (used, all) = word?.split_once('/')?;
        Some((used.parse().ok()?, all.parse().ok()?))
    };
    match words.next() {
        Some("snapshot") if name.starts_with("d.") => match fraction(words.next()) {
            Some((used, all)) => all.saturating_sub(used).saturating_mul(512) < headroom,
            // "Invalid", "Overflow", or something new.
            None => true,
        },
        Some("thin-pool") => {
            // Transaction, metadata, data; then words, of which only "rw" is well.
            let (metadata, data) = (fraction(words.nth(1)), fraction(words.next()));
            let well = words.any(|word| word == "rw");
            match (metadata, data) {
                (Some((used, all)), Some((chunks, total))) => {
                    let left = total
                        .saturating_sub(chunks)
                        .saturating_mul(POOL_CHUNK_BYTES);
                    !well || left < headroom || all.saturating_sub(used) < all / METADATA_SHARE
                }
                _ => true,
            }
        }
        _ => false,
    }
}

pub(super) fn no_pool() -> DiskError {
    DiskError::Damaged(
        "the thin pool is gone from the volume group: restore the group's metadata (vgcfgrestore --list)".into(),
    )
}

impl LvmDriver {
    /// Makes the pool if it is not there yet: data on the slow disks, metadata on the fast ones.
    pub(super) fn open_pool(&self) -> Result<(), DiskError> {
        let group = &self.group;
        let volumes = group.volumes()?;
        if !volumes.iter().any(|lv| lv.name == POOL) {
            let free = group.free(Tier::Slow, self.config.slow_layout)?;
            let size = self.config.headroom_bytes.saturating_mul(2).min(free / 2);
            let size = size / group.extent * group.extent;
            if size == 0 {
                return Err(DiskError::Full {
                    what: "can't make the pool of the snapshots on the slow disks".into(),
                });
            }
            // Names that a next start clears when this one is interrupted.
            let (data, metadata) = ("t.pool", "t.pool.meta");
            group.create(data, size, Tier::Slow, self.config.slow_layout)?;
            let wanted = (size / 256).max(16 << 20);
            group.create(metadata, wanted, Tier::Fast, self.config.fast_layout)?;
            group.change(
                "can't make the pool of the snapshots",
                "lvconvert",
                &[
                    "--yes",
                    "--type",
                    "thin-pool",
                    "--chunksize",
                    POOL_CHUNK,
                    "--zero",
                    "y",
                    "--poolmetadata",
                    &group.path(metadata),
                    &group.path(data),
                ],
            )?;
            group.rename(data, POOL)?;
        }
        // The watch comes first; should it come too late, writes wait and are not lost.
        if let Err(error) = fs::write(NO_SPACE_TIMEOUT, "0") {
            tracing::warn!(%error, "can't make a full pool wait for ever: its writes fail after a minute");
        }
        Ok(())
    }

    /// What is in memory on its way to the disks must fit into the half of the headroom that is
    /// kept for it.
    pub(super) fn limit_dirty(&self) {
        let most = self.config.headroom_bytes / 4;
        for (file, bytes) in [
            ("/proc/sys/vm/dirty_background_bytes", most / 2),
            ("/proc/sys/vm/dirty_bytes", most),
        ] {
            let now: u64 = fs::read_to_string(file)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            // 0: a share of the memory holds instead, which may be far more.
            if (now == 0 || now > bytes)
                && let Err(error) = fs::write(file, bytes.to_string())
            {
                tracing::warn!(file, %error, "can't limit what is written behind; a snapshot that fills up quickly may be lost");
            }
        }
    }

    /// Whether the kernel's own figures leave nothing to do. It is asked every second, and LVM's
    /// programs look at all disks each time; this one does not.
    fn calm(&self) -> Result<bool, DiskError> {
        {
            let strained = LvmDriver::strained(self);
            if !strained.paused.is_empty() || !strained.lost.is_empty() {
                return Ok(false);
            }
        }
        let text = tool::must(
            "can't ask how full the snapshots are",
            "dmsetup",
            "dmsetup",
            &["status"],
        )?;
        let prefix = self.group.device("");
        let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
        Ok(!text
            .lines()
            .filter_map(|line| line.strip_prefix(&*prefix))
            .any(|line| wants_room(line, self.config.headroom_bytes)))
    }

    pub(super) fn watch(&self) -> Result<Vec<Tended>, DiskError> {
        if self.calm()? {
            return Ok(Vec::new());
        }
        let volumes = self.group.volumes()?;
        let mut done = Vec::new();
        match self.config.snapshots {
            Snapshots::Classic => self.watch_classic(&volumes, &mut done)?,
            Snapshots::Thin => self.watch_pool(&volumes, &mut done)?,
        }
        Ok(done)
    }

    fn is_paused(&self, overlay: &OverlayId) -> bool {
        self.strained().paused.contains(overlay)
    }

    fn watch_classic(&self, volumes: &[Lv], done: &mut Vec<Tended>) -> Result<(), DiskError> {
        let mut free = self.group.free(Tier::Slow, self.config.slow_layout)?;
        let mut desktops: Vec<(OverlayId, &Lv)> = volumes
            .iter()
            .filter_map(|lv| Some((overlay_of(lv)?, lv)))
            .collect();
        // Who has least left is served first.
        desktops.sort_by_key(|(_, lv)| lv.size.saturating_sub(lv.used()));
        for (overlay, lv) in desktops {
            if lv.invalid {
                let mut strained = self.strained();
                if !strained.lost.contains(&overlay) {
                    strained.lost.push(overlay.clone());
                    done.push(Tended::Lost(overlay));
                }
                continue;
            }
            // Marked by a look that began before it was made anew.
            self.strained().lost.retain(|id| *id != overlay);
            let origin = lv
                .origin
                .as_ref()
                .and_then(|name| volumes.iter().find(|other| other.name == *name));
            // Everything changed, and the table that says where.
            let most = origin.map_or(u64::MAX, |origin| {
                origin.size / 100 * 102 + 4 * self.group.extent
            });
            let store = Store {
                size: lv.size,
                used: lv.used(),
                most,
            };
            free = self.act(&overlay, &lv.name, store, free, done)?;
        }
        Ok(())
    }

    /// Extends, stops or continues one desktop; what is free then.
    fn act(
        &self,
        overlay: &OverlayId,
        name: &str,
        store: Store,
        free: u64,
        done: &mut Vec<Tended>,
    ) -> Result<u64, DiskError> {
        let (extent, headroom) = (self.group.extent, self.config.headroom_bytes);
        let writable = !self.is_paused(overlay);
        let mut next = step(store, free, extent, headroom, writable);
        let mut left = free;
        if next.extend > 0 {
            match self.group.extend(name, next.extend, Tier::Slow) {
                Ok(()) => {
                    left = free - next.extend;
                    done.push(Tended::Extended {
                        what: overlay.to_string(),
                        bytes: store.size + next.extend,
                    });
                }
                // Free in all, but not in the shape that is needed.
                Err(DiskError::Full { .. }) => {
                    left = 0;
                    next = step(store, 0, extent, headroom, writable);
                }
                Err(error) => {
                    // It may just have been deleted.
                    if self.group.volume(name)?.is_none() {
                        return Ok(free);
                    }
                    tracing::error!(%overlay, %error, "its snapshot can't be extended");
                    next = step(store, 0, extent, headroom, writable);
                }
            }
        }
        self.let_write(overlay, next.writable, done)?;
        Ok(left)
    }

    fn let_write(
        &self,
        overlay: &OverlayId,
        writable: bool,
        done: &mut Vec<Tended>,
    ) -> Result<(), DiskError> {
        let paused = self.is_paused(overlay);
        let at = self.place(overlay);
        if !writable {
            // Also when it is marked already: after a start of the agent the mark is a guess.
            self.group.freeze(&at, true)?;
        }
        if writable != paused {
            return Ok(());
        }
        if writable {
            self.group.freeze(&at, false)?;
            self.strained().paused.retain(|id| id != overlay);
            done.push(Tended::Resumed(overlay.clone()));
        } else {
            self.strained().paused.push(overlay.clone());
            done.push(Tended::Paused(overlay.clone()));
        }
        Ok(())
    }

    fn watch_pool(&self, volumes: &[Lv], done: &mut Vec<Tended>) -> Result<(), DiskError> {
        let Some(pool) = volumes.iter().find(|lv| lv.name == POOL) else {
            return Err(no_pool());
        };
        let group = &self.group;
        let desktops: Vec<OverlayId> = volumes.iter().filter_map(overlay_of).collect();
        let writable = !desktops.iter().any(|overlay| self.is_paused(overlay));

        let data = Store {
            size: pool.size,
            used: pool.used(),
            most: u64::MAX,
        };
        let free = group.free(Tier::Slow, self.config.slow_layout)?;
        let headroom = self.config.headroom_bytes;
        let mut data_step = step(data, free, group.extent, headroom, writable);
        if data_step.extend > 0 {
            match group.extend(POOL, data_step.extend, Tier::Slow) {
                Ok(()) => done.push(Tended::Extended {
                    what: "the pool".into(),
                    bytes: data.size + data_step.extend,
                }),
                Err(error) => {
                    tracing::error!(%error, "the pool can't be extended");
                    data_step = step(data, 0, group.extent, headroom, writable);
                }
            }
        }

        let size = pool.metadata_size.unwrap_or(0);
        let metadata = Store {
            size,
            used: share(size, pool.metadata_percent.unwrap_or(0.0)),
            most: MOST_METADATA,
        };
        let free = group.free(Tier::Fast, self.config.fast_layout)?;
        // A third of it: a chunk needs some 64 bytes, so even a small pool's lasts for a while.
        let mut metadata_step = step(
            metadata,
            free,
            group.extent,
            size / METADATA_SHARE,
            writable,
        );
        if metadata_step.extend > 0 {
            let by = format!("+{}b", metadata_step.extend);
            let made = group.change(
                "can't extend the pool's metadata",
                "lvextend",
                &[
                    "--yes",
                    "--poolmetadatasize",
                    &by,
                    &group.path(POOL),
                    "@lyceum.fast",
                ],
            );
            match made {
                Ok(()) => done.push(Tended::Extended {
                    what: "the pool's metadata".into(),
                    bytes: size + metadata_step.extend,
                }),
                Err(error) => {
                    tracing::error!(%error, "the pool's metadata can't be extended");
                    metadata_step =
                        step(metadata, 0, group.extent, size / METADATA_SHARE, writable);
                }
            }
        }
        for overlay in desktops {
            let writable = data_step.writable && metadata_step.writable;
            self.let_write(&overlay, writable, done)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn the_kernel_s_figures_are_read() {
        // 80 MiB, of which 8 KiB are taken.
        let snapshot = "d.x: 0 786432 snapshot 16/163840 16";
        assert!(!wants_room(snapshot, 64 * MB));
        assert!(wants_room(snapshot, 81 * MB));
        assert!(wants_room("d.x: 0 786432 snapshot Invalid", MB));
        // A restore point is never written again.
        assert!(!wants_room(
            "p.x: 0 786432 snapshot 163840/163840 16",
            64 * MB
        ));
        assert!(!wants_room("r.abc: 0 786432 snapshot-origin", 64 * MB));
        let pool = "pool-tpool: 0 524288 thin-pool 1 414/4096 96/4096 - rw discard_passdown queue_if_no_space - 1024 ";
        assert!(!wants_room(pool, 64 * MB));
        assert!(wants_room(pool, 251 * MB));
        assert!(wants_room(&pool.replace("414/", "3000/"), 64 * MB));
        assert!(wants_room(&pool.replace(" rw ", " out_of_data_space "), MB));
        assert!(wants_room("pool-tpool: 0 524288 thin-pool Fail", MB));
        assert!(!wants_room("tier--fast: 0 1024 linear", MB));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".{0,120}", headroom: u64) {
            let _ = wants_room(&line, headroom);
        }
    }
}
