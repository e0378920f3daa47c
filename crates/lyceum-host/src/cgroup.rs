//! Memory limits of the control groups that this agent and its machines run in: the kernel kills at those,
//! however much memory the machine itself has left.

use std::path::{Path, PathBuf};

/// What a control group leaves, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The smallest limit of the group and those around it.
    pub limit_mib: u64,
    /// The least that is left below one of these limits, what the kernel can take back counted as left.
    pub available_mib: u64,
}

/// Names of the files in either version of control groups.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: the file cache that was not used lately.
    reclaimable: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const V2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file",
};

/// Of this process; `None`: nothing limits it.
pub(crate) fn room() -> Option<Room> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    room_in(Path::new("/sys/fs/cgroup"), &groups)
}

/// `groups`: the text of `/proc/PID/cgroup`.
fn room_in(root: &Path, groups: &str) -> Option<Room> {
    let mut rooms = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (base, names) = match controllers {
            "" => (root.to_owned(), &V2),
            c if c.split(',').any(|c| c == "memory") => (root.join("memory"), &V1),
            _ => continue,
        };
        // The group itself and all around it; in a container the outermost is what is mounted.
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            rooms.extend(one(&base.join(&group), names));
            if !group.pop() {
                break;
            }
        }
    }
    Some(Room {
        limit_mib: rooms.iter().map(|r| r.limit_mib).min()?,
        available_mib: rooms.iter().map(|r| r.available_mib).min()?,
    })
}

fn one(dir: &Path, names: &Names) -> Option<Room> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    // "max" is no number, and the first version's "none" is about 2^63.
    let limit = number(names.limit).filter(|limit| *limit < 1 << 60)?;
    let usage = number(names.usage)?;
    let reclaimable = read("memory.stat")
        .and_then(|stat| {
            stat.lines()
                .find_map(|line| line.strip_prefix(names.reclaimable)?.trim().parse().ok())
        })
        .unwrap_or(0);
    Some(Room {
        limit_mib: limit >> 20,
        available_mib: limit.saturating_sub(usage.saturating_sub(reclaimable)) >> 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let dir = root.join(path);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, content) in files {
            std::fs::write(dir.join(name), content).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let mib = |n: u64| (n << 20).to_string();
        assert_eq!(room_in(root.path(), "0::/a/b\n"), None);
        let (max, usage) = (mib(1000), mib(900));
        group(
            root.path(),
            "a",
            &[
                ("memory.max", &max),
                ("memory.current", &usage),
                (
                    "memory.stat",
                    &format!("anon 1\ninactive_file {}\n", mib(300)),
                ),
            ],
        );
        group(
            root.path(),
            "a/b",
            &[("memory.max", "max\n"), ("memory.current", "1")],
        );
        let all = Room {
            limit_mib: 1000,
            available_mib: 400,
        };
        assert_eq!(room_in(root.path(), "0::/a/b\n"), Some(all));
        group(
            root.path(),
            "a/b",
            &[("memory.max", &mib(500)), ("memory.current", &mib(50))],
        );
        let inner = Room {
            limit_mib: 500,
            available_mib: 400,
        };
        assert_eq!(room_in(root.path(), "0::/a/b\n"), Some(inner));
        // The first version, and lines of other controllers and of nothing at all.
        group(
            root.path(),
            "memory/x",
            &[
                ("memory.limit_in_bytes", &mib(200)),
                ("memory.usage_in_bytes", &mib(300)),
            ],
        );
        let text = "7:cpu,cpuacct:/x\ngarbage\n4:memory:/x\n";
        let over = Room {
            limit_mib: 200,
            available_mib: 0,
        };
        assert_eq!(room_in(root.path(), text), Some(over));
        group(
            root.path(),
            "memory/x",
            &[("memory.limit_in_bytes", "9223372036854771712")],
        );
        assert_eq!(room_in(root.path(), text), None);
    }
}
