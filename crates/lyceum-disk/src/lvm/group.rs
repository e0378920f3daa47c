//! One volume group, known by its UUID, and the names of what Lyceum keeps in it.
//!
//! | volume | is |
//! |---|---|
//! | `tier-fast`, `tier-slow` | the file systems of the tiers |
//! | `r.RELEASE` | origin: the release's disk on an ext4, read-only |
//! | `d.OVERLAY` | a desktop's snapshot of it |
//! | `p.POINT` | a restore point; tags say of which desktop and when it was taken |
//! | `pool` | thin: what desktops write |
//! | `t.*`, `old.*` | half made, half removed: cleared at the next start |
//!
//! Identifiers keep their letters; `-` becomes `.`, because the device mapper doubles it and its
//! names are short. A physical volume's tier is a tag on it.

use super::report::{self, Lv, Pv};
use super::{Layout, mount};
use crate::{DiskError, tool};
use lyceum_model::Tier;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tag of physical volumes on SSD.
pub const FAST_TAG: &str = "lyceum.fast";
/// Tag of physical volumes on HDD.
pub const SLOW_TAG: &str = "lyceum.slow";
/// The pool of thin snapshots.
pub const POOL: &str = "pool";
/// File system of the fast tier.
pub const TIER_FAST: &str = "tier-fast";
/// File system of the slow tier.
pub const TIER_SLOW: &str = "tier-slow";

/// The tag of a tier's physical volumes.
pub fn tag(tier: Tier) -> &'static str {
    match tier {
        Tier::Fast => FAST_TAG,
        Tier::Slow => SLOW_TAG,
    }
}

/// An open volume group.
#[derive(Debug)]
pub struct Group {
    uuid: String,
    name: String,
    /// Bytes of an extent.
    pub extent: u64,
    /// One change at a time: two that look at the room and then take it would take it twice.
    change: Mutex<()>,
    /// What stands still.
    frozen: Arc<Mutex<BTreeMap<PathBuf, Still>>>,
}

/// How far a file system is that is to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Still {
    /// What was written before is being stored, which on a full pool takes until it is extended.
    Going,
    /// It does.
    Stands,
}

impl Group {
    /// Finds the group by its UUID, whatever its disks are called today.
    pub fn open(uuid: &str) -> Result<Group, DiskError> {
        let groups = report::groups()?;
        let found = groups.iter().find(|group| group.uuid == uuid);
        let Some(group) = found else {
            return Err(DiskError::NotFound(format!(
                "the volume group {uuid} is not on this machine: connect its disks, or give the agent the UUID that 'vgs -o name,uuid' shows"
            )));
        };
        if groups
            .iter()
            .filter(|other| other.name == group.name)
            .count()
            > 1
        {
            return Err(DiskError::Invalid(format!(
                "two volume groups are called {}: rename the other one (vgrename UUID NEW_NAME)",
                group.name
            )));
        }
        if group.missing > 0 {
            tracing::warn!(
                group = group.name,
                missing = group.missing,
                "disks of the volume group are missing: replace them (see 'pvs' and lvmraid(7))"
            );
        }
        Ok(Group {
            uuid: group.uuid.clone(),
            name: group.name.clone(),
            extent: group.extent,
            change: Mutex::new(()),
            frozen: Arc::default(),
        })
    }

    /// Its UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Its name at this moment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `GROUP/VOLUME`.
    pub fn path(&self, volume: &str) -> String {
        format!("{}/{volume}", self.name)
    }

    /// The device of an active volume.
    pub fn device(&self, volume: &str) -> PathBuf {
        let escape = |name: &str| name.replace('-', "--");
        PathBuf::from(format!(
            "/dev/mapper/{}-{}",
            escape(&self.name),
            escape(volume)
        ))
    }

    /// All its volumes.
    pub fn volumes(&self) -> Result<Vec<Lv>, DiskError> {
        report::volumes(&self.name)
    }

    /// One volume, if it is there.
    pub fn volume(&self, name: &str) -> Result<Option<Lv>, DiskError> {
        Ok(self.volumes()?.into_iter().find(|lv| lv.name == name))
    }

    /// The physical volumes of a tier.
    pub fn physical(&self, tier: Tier) -> Result<Vec<Pv>, DiskError> {
        let tag = tag(tier);
        Ok(report::physical()?
            .into_iter()
            .filter(|pv| pv.group == self.name && pv.tags.iter().any(|t| t == tag))
            .collect())
    }

    /// Bytes that nothing has taken on a tier, as a volume of this layout could use them.
    pub fn free(&self, tier: Tier, layout: Layout) -> Result<u64, DiskError> {
        let free: Vec<u64> = self.physical(tier)?.iter().map(|pv| pv.free).collect();
        Ok(layout.usable(&free) / self.extent * self.extent)
    }

    fn frozen(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Still>> {
        lock(&self.frozen)
    }

    /// One change; changes wait for each other.
    ///
    /// LVM stops the file systems on an origin and on all its snapshots for a moment, which
    /// fails when one of them stands still already: those go on for as long as the change takes.
    pub fn change(&self, what: &str, program: &str, arguments: &[&str]) -> Result<(), DiskError> {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let still: Vec<PathBuf> = self
            .frozen()
            .iter()
            .filter(|(_, still)| **still == Still::Stands)
            .map(|(path, _)| path.clone())
            .collect();
        for path in &still {
            mount::thaw(path)?;
        }
        let done = tool::must(what, program, "lvm2", arguments).map(drop);
        for path in still {
            // Unless it was let go meanwhile.
            if let Some(entry) = self.frozen().get_mut(&path) {
                *entry = Still::Going;
                self.begin_freeze(path);
            }
        }
        done
    }

    /// Makes the writes to a mounted volume wait, or go on. Does not wait for what is being
    /// written: on a full pool only an extension, which others make, ends that.
    pub fn freeze(&self, at: &Path, on: bool) -> Result<(), DiskError> {
        let mut frozen = self.frozen();
        if on {
            if !frozen.contains_key(at) {
                frozen.insert(at.to_owned(), Still::Going);
                self.begin_freeze(at.to_owned());
            }
            return Ok(());
        }
        match frozen.remove(at) {
            // Its thread sees that it is not wanted any more.
            Some(Still::Going) => Ok(()),
            // Also what an earlier start of the agent left standing.
            Some(Still::Stands) | None => mount::thaw(at),
        }
    }

    fn begin_freeze(&self, at: PathBuf) {
        let frozen = self.frozen.clone();
        std::thread::spawn(move || {
            let done = mount::freeze(&at);
            let mut frozen = lock(&frozen);
            match (done, frozen.get_mut(&at)) {
                (Ok(()), Some(entry)) => *entry = Still::Stands,
                (Ok(()), None) => {
                    if let Err(error) = mount::thaw(&at) {
                        tracing::error!(at = %at.display(), %error, "it stands still and should not");
                    }
                }
                (Err(error), _) => {
                    // Tried again at the next look.
                    frozen.remove(&at);
                    tracing::error!(at = %at.display(), %error, "its writes can't be stopped");
                }
            }
        });
    }

    /// Makes a plain volume of at least `bytes` on a tier.
    pub fn create(
        &self,
        name: &str,
        bytes: u64,
        tier: Tier,
        layout: Layout,
    ) -> Result<(), DiskError> {
        let disks = self.physical(tier)?.len();
        let size = format!("{bytes}b");
        let count = disks.to_string();
        let tag = format!("@{}", tag(tier));
        let mut arguments = vec!["--yes", "-Wy", "--zero", "y", "-n", name, "-L", &size];
        let options = layout.lvcreate(&count);
        arguments.extend(options.iter().map(String::as_str));
        arguments.extend([self.name.as_str(), tag.as_str()]);
        self.change("can't make a volume", "lvcreate", &arguments)
    }

    /// Renames a volume.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.change("can't rename a volume", "lvrename", &[&self.name, from, to])
    }

    /// Removes a volume; fine when it is not there.
    ///
    /// LVM takes the snapshots of an origin with it; callers see to it that there are none.
    pub fn remove(&self, name: &str) -> Result<(), DiskError> {
        match self.change(
            "can't remove a volume",
            "lvremove",
            &["--yes", &self.path(name)],
        ) {
            Ok(()) => Ok(()),
            Err(error) => match self.volume(name) {
                Ok(None) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Makes a volume, a snapshot's store or a pool's data larger, on a tier's disks.
    pub fn extend(&self, name: &str, by: u64, tier: Tier) -> Result<(), DiskError> {
        let size = format!("+{by}b");
        let tag = format!("@{}", tag(tier));
        self.change(
            "can't extend a volume",
            "lvextend",
            &["--yes", "-L", &size, &self.path(name), &tag],
        )
    }

    /// Activates all its volumes, or one.
    pub fn activate(&self, volume: Option<&str>) -> Result<(), DiskError> {
        match volume {
            Some(name) => self.change(
                "can't activate a volume",
                "lvchange",
                // -K: thin snapshots are marked to be left alone at boot.
                &["-ay", "-K", &self.path(name)],
            ),
            None => self.change(
                "can't activate the volume group",
                "vgchange",
                &["-ay", &self.name],
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An identifier as part of a volume's name.
pub fn encode(id: &str) -> String {
    id.replace('-', ".")
}

/// What [`encode`] was given.
pub fn decode(name: &str) -> String {
    name.replace('.', "-")
}
