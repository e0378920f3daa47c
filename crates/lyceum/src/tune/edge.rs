//! The machine itself: found, set, and put back. Everything is below a root, so that a folder
//! can stand for a machine.

use crate::exit::{self, Exit};
use lyceum_tune::machine::{Disk, Link, Machine, NfsMount, Roles, TierName, WriteBack};
use lyceum_tune::{Knob, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is known of a machine beside what its kernel says.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What it does in the classroom.
    pub roles: Roles,
    /// Its fast tier.
    pub fast: Option<PathBuf>,
    /// Its slow tier.
    pub slow: Option<PathBuf>,
    /// Other machines of the disk network.
    pub peers: Vec<IpAddr>,
}

/// A machine's files.
#[derive(Debug, Clone)]
pub struct Edge {
    root: PathBuf,
}

fn failed(message: String) -> anyhow::Error {
    Exit::coded(exit::FAILED, message)
}

impl Edge {
    /// Below `root`; `/` is this machine.
    pub fn new(root: &Path) -> Edge {
        Edge {
            root: root.to_owned(),
        }
    }

    /// A file below the root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn text(&self, below: &str) -> Option<String> {
        std::fs::read_to_string(self.path(below)).ok()
    }

    fn number(&self, below: &str) -> Option<u64> {
        Value::new(&self.text(below)?).as_number()
    }

    /// What a knob is set to; `None`: it is not there.
    pub fn get(&self, knob: &Knob) -> Option<Value> {
        Some(Value::new(&self.text(&knob.path()?)?))
    }

    /// What several are set to.
    pub fn values<'a>(&self, knobs: impl IntoIterator<Item = &'a Knob>) -> BTreeMap<Knob, Value> {
        knobs
            .into_iter()
            .filter_map(|knob| Some((knob.clone(), self.get(knob)?)))
            .collect()
    }

    /// Sets a knob, and makes sure that it is set: a kernel may take a value and keep another.
    pub fn set(&self, knob: &Knob, value: &Value) -> anyhow::Result<()> {
        let below = knob
            .path()
            .ok_or_else(|| failed(format!("{knob} is not a name that the kernel could have")))?;
        let path = self.path(&below);
        // Never made: what is not there is not a knob of this kernel.
        std::fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()))
            .map_err(|e| {
                failed(format!(
                    "{knob} can't be set to {value}: {}: {e}. Tuning needs root on the machine itself; in a container, or where the kernel is guarded, it can't be done",
                    path.display()
                ))
            })?;
        match self.get(knob) {
            Some(now) if now == *value => Ok(()),
            now => Err(failed(format!(
                "{knob} was set to {value}, and the kernel has {} instead: it does not take that value",
                now.map_or_else(|| "nothing".into(), |v| v.to_string())
            ))),
        }
    }

    /// The machine as it is.
    pub fn machine(&self, known: &Known) -> anyhow::Result<Machine> {
        let meminfo = self.text("proc/meminfo").unwrap_or_default();
        let memory_kib = meminfo
            .lines()
            .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))
            .and_then(|n| n.trim().parse::<u64>().ok())
            .ok_or_else(|| {
                failed(format!(
                    "{} does not say how much memory there is: is {} the root of a Linux system?",
                    self.path("proc/meminfo").display(),
                    self.root.display()
                ))
            })?;
        let words = |text: Option<String>| -> Vec<String> {
            let text = text.unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        let mut machine = Machine {
            roles: known.roles,
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: memory_kib << 10,
            dirty_percent: self.number("proc/sys/vm/dirty_ratio").unwrap_or(20),
            congestion: words(self.text("proc/sys/net/ipv4/tcp_available_congestion_control")),
            links: known
                .peers
                .iter()
                .filter_map(|peer| self.link(*peer))
                .collect(),
            ..Machine::default()
        };
        let mut tiers = Vec::new();
        for (name, dir) in [(TierName::Fast, &known.fast), (TierName::Slow, &known.slow)] {
            let Some(dir) = dir else { continue };
            match self.mount(dir) {
                Some(mount) if !machine.mounts.iter().any(|m| m.device == mount.device) => {
                    machine.mounts.push(mount);
                }
                Some(_) => {}
                None => tiers.push((name, self.below(dir)?)),
            }
        }
        let fast_device = tiers
            .iter()
            .find(|(name, _)| *name == TierName::Fast)
            .map(|(_, below)| below.device.clone());
        for (name, below) in tiers {
            if name == TierName::Slow && Some(&below.device) != fast_device.as_ref() {
                machine.slow = Some(WriteBack {
                    rotational: below.disks.iter().any(|d| self.rotational(d)),
                    disks: below.disks.len() as u32,
                    device: below.device,
                });
            }
            for disk in below.disks {
                match machine.disks.iter_mut().find(|d| d.name == disk) {
                    Some(known) => known.tier = TierName::Slow,
                    None => machine.disks.push(Disk {
                        tier: name,
                        rotational: self.rotational(&disk),
                        schedulers: words(
                            self.text(&format!("sys/block/{disk}/queue/scheduler"))
                                .map(|t| t.replace(['[', ']'], "")),
                        ),
                        name: disk,
                    }),
                }
            }
        }
        let knobs = machine.knobs();
        machine.values = self.values(&knobs);
        Ok(machine)
    }

    fn rotational(&self, disk: &str) -> bool {
        self.number(&format!("sys/block/{disk}/queue/rotational")) == Some(1)
    }

    /// The device that a folder is on, and the whole disks below it.
    fn below(&self, dir: &Path) -> anyhow::Result<Below> {
        let meta = std::fs::metadata(dir)
            .map_err(|e| failed(format!("the tier {} can't be used: {e}", dir.display())))?;
        let device = format!(
            "{}:{}",
            nix::sys::stat::major(meta.dev()),
            nix::sys::stat::minor(meta.dev())
        );
        let mut disks = BTreeSet::new();
        // Without an entry it is not on a disk: a file system in memory, or of many devices.
        if let Ok(path) = std::fs::canonicalize(self.path(&format!("sys/dev/block/{device}"))) {
            whole_disks(&path, &mut disks, 0);
        }
        Ok(Below { device, disks })
    }

    /// The NFS mount at a folder, if it is one.
    fn mount(&self, dir: &Path) -> Option<NfsMount> {
        let text = self.text("proc/self/mountinfo")?;
        let mut found = None;
        for line in text.lines() {
            let (before, after) = line.split_once(" - ")?;
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let (Some(device), Some(at)) = (before.get(2), before.get(4)) else {
                continue;
            };
            if Path::new(at) == dir {
                found = Some((*device, after));
            }
        }
        let (device, after) = found?;
        if !after.first()?.starts_with("nfs") {
            return None;
        }
        let connections = after
            .get(2)?
            .split(',')
            .find_map(|o| o.strip_prefix("nconnect=")?.parse().ok())
            .unwrap_or(1);
        Some(NfsMount {
            at: dir.display().to_string(),
            device: device.into(),
            connections,
        })
    }

    /// The interface that leads to another machine.
    fn link(&self, peer: IpAddr) -> Option<Link> {
        let route = ip(&["-j", "route", "get", &peer.to_string()])?;
        let interface = route[0]["dev"].as_str()?.to_owned();
        let details = ip(&["-j", "-d", "link", "show", "dev", &interface]);
        let most_mtu = details.and_then(|d| d[0]["max_mtu"].as_u64());
        Some(Link {
            mbits: self
                .text(&format!("sys/class/net/{interface}/speed"))
                .and_then(|t| t.trim().parse().ok()),
            // Loopback is as large as packets get.
            most_mtu: most_mtu.filter(|_| !peer.is_loopback()),
            peer: peer.to_string(),
            interface,
        })
    }
}

struct Below {
    device: String,
    disks: BTreeSet<String>,
}

fn ip(arguments: &[&str]) -> Option<serde_json::Value> {
    let output = Command::new("ip").args(arguments).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// Goes down from a partition, a volume or an array to the disks it is on.
fn whole_disks(device: &Path, found: &mut BTreeSet<String>, depth: u8) {
    if depth > 8 {
        return;
    }
    let slaves: Vec<PathBuf> = std::fs::read_dir(device.join("slaves"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::canonicalize(entry.path()).ok())
        .collect();
    for slave in &slaves {
        whole_disks(slave, found, depth + 1);
    }
    if !slaves.is_empty() {
        return;
    }
    let whole = match (device.join("partition").exists(), device.parent()) {
        (true, Some(disk)) => disk,
        _ => device,
    };
    found.extend(whole.file_name().map(|n| n.to_string_lossy().into_owned()));
}
