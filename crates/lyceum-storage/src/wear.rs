//! Bytes written to each tier's disks per day: how fast an SSD wears out.
//!
//! The kernel counts what every disk is given, from its boot on. The counters are looked at every
//! minute, and what was added is put to the day's account, which survives restarts of agent and
//! machine. Other programs' writes to the same disks count too: the disk wears out by them as well.

use lyceum_disk::lvm::Group;
use lyceum_disk::{files, lvm::report};
use lyceum_model::Tier;
use lyceum_proto::storage::WrittenDay;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const FILE: &str = "wear.json";
/// How many days are kept.
const KEPT: usize = 400;
const DAY_MS: i64 = 86_400_000;
/// The kernel's unit, whatever the disk's is.
const SECTOR: u64 = 512;

/// Whose writes are counted.
#[derive(Debug)]
pub enum Source {
    /// The device below a folder.
    Folder(PathBuf),
    /// The physical volumes of a tier, by the group's name and the tier's tag.
    Group(String, &'static str),
}

impl Source {
    /// The device below a folder.
    pub fn folder(path: &Path) -> Source {
        Source::Folder(path.to_owned())
    }

    /// A tier's disks.
    pub fn group(group: &Group, tier: Tier) -> Source {
        let tag = match tier {
            Tier::Fast => lyceum_disk::lvm::FAST_TAG,
            Tier::Slow => lyceum_disk::lvm::SLOW_TAG,
        };
        Source::Group(group.name().to_owned(), tag)
    }

    /// Bytes written since boot, by disk. A name stands for a disk only until the next boot.
    fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        match self {
            Source::Folder(path) => {
                if let Ok(meta) = std::fs::metadata(path) {
                    let (major, minor) = (
                        nix::sys::stat::major(meta.dev()),
                        nix::sys::stat::minor(meta.dev()),
                    );
                    let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
                    if let Some(bytes) = written(&stat) {
                        counters.insert(format!("{major}:{minor}"), bytes);
                    }
                }
            }
            Source::Group(group, tag) => {
                for pv in report::physical().unwrap_or_default() {
                    let ours = pv.group == *group && pv.tags.iter().any(|t| t == tag);
                    let device = std::fs::canonicalize(&pv.device);
                    if let (true, Ok(device)) = (ours, device)
                        && let Some(name) = device.file_name()
                        && let Some(bytes) =
                            written(&Path::new("/sys/class/block").join(name).join("stat"))
                    {
                        counters.insert(pv.uuid, bytes);
                    }
                }
            }
        }
        counters
    }
}

/// The seventh number: sectors written.
fn written(stat: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(stat).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    sectors.checked_mul(SECTOR)
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    /// Day number since 1970 → bytes.
    days: BTreeMap<i64, u64>,
    /// Counters at the last look.
    last: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Counters begin anew with every boot.
    boot: String,
    fast: Account,
    slow: Account,
}

/// The accounts of both tiers.
pub struct Wear {
    path: PathBuf,
    fast: Source,
    slow: Source,
    kept: Mutex<Kept>,
}

impl Wear {
    /// Goes on with what an earlier start of the agent kept; what can't be read begins anew.
    pub fn open(state_dir: &Path, fast: Source, slow: Source) -> Wear {
        let path = state_dir.join(FILE);
        let kept = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let wear = Wear {
            path,
            fast,
            slow,
            kept: Mutex::new(kept),
        };
        wear.look();
        wear
    }

    /// Puts what was written since the last look to today's account.
    pub fn look(&self) {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let today = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0))
            / DAY_MS;
        let (fast, slow) = (self.fast.counters(), self.slow.counters());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept.boot == boot;
        add(&mut kept.fast, fast, same, today);
        add(&mut kept.slow, slow, same, today);
        kept.boot = boot;
        let saved = serde_json::to_vec(&*kept)
            .map_err(|e| e.to_string())
            .and_then(|bytes| {
                files::write_atomic(&self.path, &bytes, 0o600).map_err(|e| e.to_string())
            });
        if let Err(error) = saved {
            tracing::warn!(%error, "what was written to the tiers can't be kept");
        }
    }

    /// Both tiers' days, the newest last.
    pub fn days(&self) -> (Vec<WrittenDay>, Vec<WrittenDay>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |account: &Account| {
            account
                .days
                .iter()
                .map(|(day, bytes)| WrittenDay {
                    day: day * DAY_MS,
                    bytes: *bytes,
                })
                .collect()
        };
        (list(&kept.fast), list(&kept.slow))
    }
}

fn add(account: &mut Account, now: BTreeMap<String, u64>, same_boot: bool, today: i64) {
    let mut bytes = 0u64;
    for (disk, counter) in &now {
        let before = account.last.get(disk).filter(|_| same_boot);
        bytes = bytes.saturating_add(match before {
            // A disk that was taken out and put in again begins at 0.
            Some(before) if before <= counter => counter - before,
            Some(_) => *counter,
            // What came before the first look of all is not ours to count; after a boot it is.
            None if same_boot || account.last.is_empty() => 0,
            None => *counter,
        });
    }
    account.last = now;
    *account.days.entry(today).or_default() += bytes;
    while account.days.len() > KEPT {
        account.days.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(counters: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counters
            .iter()
            .map(|(d, n)| ((*d).to_owned(), *n))
            .collect()
    }

    #[test]
    fn days_add_up_over_boots_and_exchanged_disks() {
        let mut account = Account::default();
        add(&mut account, now(&[("a", 1000)]), false, 1);
        assert_eq!(account.days[&1], 0);
        add(&mut account, now(&[("a", 1500), ("b", 70)]), true, 1);
        assert_eq!(account.days[&1], 500);
        add(&mut account, now(&[("a", 1600), ("b", 80)]), true, 2);
        assert_eq!(account.days[&2], 110);
        // A boot: the counters began anew.
        add(&mut account, now(&[("a", 40), ("b", 2)]), false, 2);
        assert_eq!(account.days[&2], 152);
        add(&mut account, now(&[("a", 10)]), true, 3);
        assert_eq!(account.days[&3], 10);
        for day in 0..1000 {
            add(&mut account, now(&[("a", 10)]), true, day);
        }
        assert_eq!(account.days.len(), KEPT);
    }

    #[test]
    fn the_kernel_s_counter_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let stat = folder.path().join("stat");
        std::fs::write(&stat, "  1 2 3 4 5 6 700 8 9\n").unwrap();
        assert_eq!(written(&stat), Some(358_400));
        std::fs::write(&stat, "nonsense").unwrap();
        assert_eq!(written(&stat), None);
        let wear = Wear::open(
            folder.path(),
            Source::folder(folder.path()),
            Source::folder(folder.path()),
        );
        wear.look();
        assert!(folder.path().join(FILE).exists());
        assert_eq!(wear.days().0.len(), 1);
    }
}
