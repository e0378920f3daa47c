//! Hosts that may use only a part of this machine's processors: a control group each, which the agent is put into
//! before it begins, and so all its machines. Both versions of control groups.

use super::layout::Layout;
use crate::exit::{self, Exit};
use std::path::{Path, PathBuf};

/// Microseconds that a share is given out for.
const PERIOD_US: u64 = 100_000;

/// The control groups of one host: a process belongs to it when its id is written into all of these files.
#[derive(Debug, Clone)]
pub struct Limit {
    procs: Vec<PathBuf>,
}

impl Limit {
    /// Files that a process writes its id into.
    pub fn procs(&self) -> &[PathBuf] {
        &self.procs
    }
}

/// The group of a host, limited to so many processors.
pub fn make(layout: &Layout, host: &str, cpus: f64) -> anyhow::Result<Limit> {
    let group = format!("lyceum-{}", layout.tag());
    make_in(Path::new("/sys/fs/cgroup"), &group, host, cpus).map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!(
                "{host} can't be limited to {cpus} processors: {e}; limiting needs root and control groups that can be written, or leave --host-cpus out"
            ),
        )
    })
}

/// Why a file of a control group could not be used.
fn named(path: &Path, e: &std::io::Error) -> std::io::Error {
    std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text).map_err(|e| named(path, &e))
}

fn dir(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path).map_err(|e| named(path, &e))
}

fn make_in(root: &Path, group: &str, host: &str, cpus: f64) -> std::io::Result<Limit> {
    let quota = (cpus * PERIOD_US as f64).round() as u64;
    if root.join("cgroup.controllers").exists() {
        // Version 2: a controller is there in a group when all groups around it hand it on.
        write(&root.join("cgroup.subtree_control"), "+cpu")?;
        let all = root.join(group);
        dir(&all)?;
        write(&all.join("cgroup.subtree_control"), "+cpu")?;
        let own = all.join(host);
        dir(&own)?;
        write(&own.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        return Ok(Limit {
            procs: vec![own.join("cgroup.procs")],
        });
    }
    let mut procs = Vec::new();
    // What was used is counted in a tree of its own, on some systems.
    for tree in ["cpu", "cpuacct"] {
        let own = root.join(tree).join(group).join(host);
        dir(&own)?;
        if tree == "cpu" {
            write(&own.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
            write(&own.join("cpu.cfs_quota_us"), &quota.to_string())?;
        }
        procs.push(own.join("cgroup.procs"));
    }
    Ok(Limit { procs })
}

/// Removes the groups of a classroom, once nothing runs in them. What is still there is left.
pub fn remove(layout: &Layout) {
    let group = format!("lyceum-{}", layout.tag());
    for tree in ["", "cpu", "cpuacct"] {
        let all = Path::new("/sys/fs/cgroup").join(tree).join(&group);
        let hosts = std::fs::read_dir(&all).into_iter().flatten().flatten();
        for host in hosts.filter(|e| e.path().is_dir()) {
            let _ = std::fs::remove_dir(host.path());
        }
        let _ = std::fs::remove_dir(&all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_limit_is_written_in_either_version() {
        let old = tempfile::tempdir().unwrap();
        let limit = make_in(old.path(), "g", "host-1", 0.35).unwrap();
        assert_eq!(
            limit.procs(),
            [
                old.path().join("cpu/g/host-1/cgroup.procs"),
                old.path().join("cpuacct/g/host-1/cgroup.procs")
            ]
        );
        let own = old.path().join("cpu/g/host-1");
        assert_eq!(text(own.join("cpu.cfs_quota_us")), "35000");
        assert_eq!(text(own.join("cpu.cfs_period_us")), "100000");

        let new = tempfile::tempdir().unwrap();
        std::fs::write(new.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let limit = make_in(new.path(), "g", "host-2", 1.5).unwrap();
        assert_eq!(limit.procs(), [new.path().join("g/host-2/cgroup.procs")]);
        assert_eq!(text(new.path().join("g/host-2/cpu.max")), "150000 100000");
        assert_eq!(text(new.path().join("g/cgroup.subtree_control")), "+cpu");

        let none = make_in(Path::new("/proc/nothing"), "g", "h", 1.0).unwrap_err();
        assert!(none.to_string().contains("/proc/nothing"), "{none}");
    }
}
