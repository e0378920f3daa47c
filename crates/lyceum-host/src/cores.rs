//! The processors that this agent's control group may use, and how much of them it did use.

use std::path::{Path, PathBuf};

/// A limit, and what was used of it so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cores {
    /// How many; a part of one is possible.
    pub limit: f64,
    /// CPU time used under that limit, microseconds.
    pub used_us: u64,
}

/// The tightest limit around this process; `None`: nothing limits it.
pub(crate) fn cores() -> Option<Cores> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    cores_in(Path::new("/sys/fs/cgroup"), &groups)
}

/// `groups`: the text of `/proc/PID/cgroup`.
fn cores_in(root: &Path, groups: &str) -> Option<Cores> {
    let mut found: Vec<Cores> = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let first = match controllers {
            "" => false,
            c if c.split(',').any(|c| c == "cpu") => true,
            _ => continue,
        };
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            found.extend(if first {
                one_v1(root, &group)
            } else {
                one_v2(&root.join(&group))
            });
            if !group.pop() {
                break;
            }
        }
    }
    found.into_iter().min_by(|a, b| a.limit.total_cmp(&b.limit))
}

fn text(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: PathBuf) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

fn limit(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

fn one_v2(dir: &Path) -> Option<Cores> {
    let max = text(dir.join("cpu.max"))?;
    let (quota, period) = max.trim().split_once(' ')?;
    // "max" is no number: no limit.
    let limit = limit(quota.parse().ok()?, period.parse().ok()?)?;
    let used_us = text(dir.join("cpu.stat"))?
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())?;
    Some(Cores { limit, used_us })
}

fn one_v1(root: &Path, group: &Path) -> Option<Cores> {
    let dir = root.join("cpu").join(group);
    // -1 is no number: no limit.
    let limit = limit(
        number(dir.join("cpu.cfs_quota_us"))?,
        number(dir.join("cpu.cfs_period_us"))?,
    )?;
    let used = number(root.join("cpuacct").join(group).join("cpuacct.usage"))?;
    Some(Cores {
        limit,
        used_us: used / 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_tightest_limit_counts_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(cores_in(root, "0::/a/b\n"), None);
        write(root, "a/cpu.max", "150000 100000\n");
        write(root, "a/cpu.stat", "usage_usec 77\nuser_usec 1\n");
        write(root, "a/b/cpu.max", "max 100000\n");
        write(root, "a/b/cpu.stat", "usage_usec 5\n");
        let seen = cores_in(root, "0::/a/b\n").unwrap();
        assert_eq!((seen.limit, seen.used_us), (1.5, 77));
        write(root, "cpu/c/cpu.cfs_quota_us", "50000\n");
        write(root, "cpu/c/cpu.cfs_period_us", "100000\n");
        write(root, "cpuacct/c/cpuacct.usage", "9000\n");
        let seen = cores_in(root, "0::/a/b\n3:cpu,cpuacct:/c\nnonsense\n").unwrap();
        assert_eq!((seen.limit, seen.used_us), (0.5, 9));
        write(root, "cpu/c/cpu.cfs_quota_us", "-1\n");
        assert_eq!(cores_in(root, "3:cpu:/c\n"), None);
    }
}
