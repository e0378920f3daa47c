//! From a machine to changes, each with its reason and source.

use crate::knob::{BdiAttribute, CONGESTION, Direction, Knob, QueueAttribute, Value};
use crate::machine::{Machine, TierName};
use serde::{Deserialize, Serialize};

/// What shows whether a change helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Experiment {
    /// TCP throughput to another machine, both ways.
    Network,
    /// Reading and writing in the fast tier's folder.
    Fast,
    /// Reading and writing in the slow tier's folder.
    Slow,
    /// Flushed writes on the fast tier while the slow one is flooded.
    WriteBack,
    /// Reading and writing in a tier that is mounted by NFS.
    Mount,
    /// What hosts measure: nothing on this machine shows it.
    Elsewhere,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of what.
    pub knob: Knob,
    /// As it is.
    pub from: Value,
    /// As it would be.
    pub to: Value,
    /// Changes of one group are made, measured, and kept or taken back together.
    pub group: String,
    /// What shows whether it helps.
    pub experiment: Experiment,
    /// Why, for a person.
    pub reason: String,
    /// Where it comes from.
    pub source: String,
    /// The machine to which large packets must be proved to come through, before anything is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove_to: Option<String>,
}

/// Something that stays as it is, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What, for a person.
    pub what: String,
    /// As it is; empty: it is not there.
    pub now: String,
    /// Why it stays.
    pub reason: String,
}

/// What is to be changed and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
    /// All that was looked at and stays.
    pub left: Vec<Left>,
}

/// A value that one would want, whatever it is now.
pub(crate) struct Wish {
    pub(crate) knob: Knob,
    wanted: Value,
    /// For words: those that are worse.
    instead_of: &'static [&'static str],
    group: String,
    experiment: Experiment,
    reason: String,
    source: &'static str,
    prove_to: Option<String>,
}

const PAPER: &str = "the paper's network settings (reading +9 % there)";
const MIB: u64 = 1 << 20;
/// How long writes may wait for a slow tier that takes them at its own speed, seconds.
const WAIT_S: u64 = 5;
/// What a disk with a head takes when everything is in order, bytes per second.
const HDD: u64 = 150 * MIB;
/// Megabits from which a link counts as one of 10G.
const TEN_G: u64 = 10_000;
const JUMBO: u64 = 9000;
/// Connections that an NFS mount of a tier has.
pub(crate) const CONNECTIONS: u64 = 4;

/// All that one would want of a machine, in the order in which it is done.
pub(crate) fn wishes(machine: &Machine) -> Vec<Wish> {
    let mut wishes = Vec::new();
    network(machine, &mut wishes);
    disks(machine, &mut wishes);
    mounts(machine, &mut wishes);
    if machine.roles.storage {
        let threads = (4 * machine.cpus).clamp(32, 256);
        wishes.push(Wish {
            knob: Knob::NfsdThreads,
            wanted: Value::number(threads),
            instead_of: &[],
            group: "nfsd".into(),
            experiment: Experiment::Elsewhere,
            reason: "a thread waits for a disk with each request: with few of them the requests of a class queue before the server while disks are idle; threads in [nfs] of storage.toml keeps it over restarts of the server".into(),
            source: "nfsd(8); the storage agent's own default",
            prove_to: None,
        });
    }
    wishes
}

fn network(machine: &Machine, wishes: &mut Vec<Wish>) {
    // What is on its way during 5 ms: queues of a switch and of a busy machine.
    let on_the_way = machine.mbits() * 1_000_000 / 8 / 200;
    let most = on_the_way.max(8 * MIB).next_multiple_of(MIB);
    let source = if most > 8 * MIB {
        "bandwidth of the fastest link times 5 ms; the paper's 8 MiB are less than that"
    } else {
        PAPER
    };
    let mut buffer = |name: &str, wanted: Value, reason: &str, source: &'static str| {
        wishes.push(Wish {
            knob: Knob::sysctl(name),
            wanted,
            instead_of: &[],
            group: "buffers".into(),
            experiment: Experiment::Network,
            reason: reason.into(),
            source,
            prove_to: None,
        });
    };
    let room =
        "one connection fills a 10G link only when as much may be on its way as the link holds";
    let ask = "the most that a program may ask for";
    let begin = "what a socket begins with that does not ask";
    buffer("net.core.rmem_max", Value::number(most), ask, source);
    buffer("net.core.wmem_max", Value::number(most), ask, source);
    buffer(
        "net.core.rmem_default",
        Value::number(262_144),
        begin,
        PAPER,
    );
    buffer(
        "net.core.wmem_default",
        Value::number(262_144),
        begin,
        PAPER,
    );
    let beside = "what a socket may keep beside its data";
    buffer("net.core.optmem_max", Value::number(262_144), beside, PAPER);
    let windows = |middle| Value::numbers(&[4096, middle, most]);
    buffer("net.ipv4.tcp_rmem", windows(87_380), room, source);
    buffer("net.ipv4.tcp_wmem", windows(65_536), room, source);

    let better = ["bbr", "cubic"]
        .into_iter()
        .find(|name| machine.congestion.iter().any(|c| c == name));
    if let Some(name) = better {
        wishes.push(Wish {
            knob: Knob::sysctl(CONGESTION),
            wanted: Value::new(name),
            instead_of: if name == "bbr" {
                &["reno", "cubic"]
            } else {
                &["reno"]
            },
            group: "congestion".into(),
            experiment: Experiment::Network,
            reason: format!(
                "{name} does not halve its speed for a single lost packet; whether that matters on this network is what the measurement says"
            ),
            source: "the kernel's documentation of TCP; not in the paper",
            prove_to: None,
        });
    }
    for link in &machine.links {
        if link.most_mtu.is_some_and(|most| most >= JUMBO) {
            wishes.push(Wish {
                knob: Knob::Mtu {
                    interface: link.interface.clone(),
                },
                wanted: Value::number(JUMBO),
                instead_of: &[],
                group: format!("mtu {}", link.interface),
                experiment: Experiment::Network,
                reason: format!(
                    "a sixth of the packets; only if packets of {JUMBO} bytes come back from {} in one piece",
                    link.peer
                ),
                source: "common practice on storage networks; not in the paper",
                prove_to: Some(link.peer.clone()),
            });
        }
    }
}

fn disks(machine: &Machine, wishes: &mut Vec<Wish>) {
    for disk in &machine.disks {
        let (name, tier) = match disk.tier {
            TierName::Fast => ("fast", Experiment::Fast),
            TierName::Slow => ("slow", Experiment::Slow),
        };
        let queue = |attribute| Knob::Queue {
            disk: disk.name.clone(),
            attribute,
        };
        let offered = |name: &&str| disk.schedulers.iter().any(|s| s == name);
        // Words that only cost time there.
        let (order, instead_of, reason): (&[&str], &'static [&'static str], &str) = if disk
            .rotational
        {
            (
                &["mq-deadline", "bfq"],
                &["none"],
                "a head that moves serves requests faster in the order in which they lie, and reads before writes",
            )
        } else {
            (
                &["none", "mq-deadline"],
                &["bfq", "kyber"],
                "an SSD serves many requests at once by itself: sorting them costs time and gains nothing",
            )
        };
        if let Some(wanted) = order.iter().find(|name| offered(name)) {
            wishes.push(Wish {
                knob: queue(QueueAttribute::Scheduler),
                wanted: Value::new(wanted),
                instead_of,
                group: format!("scheduler {name}"),
                experiment: tier,
                reason: reason.into(),
                source: "the kernel's documentation of block schedulers",
                prove_to: None,
            });
        }
        let kib = if disk.rotational { 1024 } else { 512 };
        wishes.push(Wish {
            knob: queue(QueueAttribute::ReadAheadKb),
            wanted: Value::number(kib),
            instead_of: &[],
            group: format!("read-ahead {name}"),
            experiment: tier,
            reason: "releases are read from the beginning to the end when hosts fill up: fewer, larger requests".into(),
            source: "the kernel's default is 128 KiB, of a time of small memories",
            prove_to: None,
        });
    }
    if let Some(slow) = &machine.slow
        && slow.rotational
        && machine.roles.storage
    {
        // Of the memory that may hold waiting writes at all.
        let may_wait = machine.memory_bytes / 100 * machine.dirty_percent.clamp(1, 100);
        let share = WAIT_S * HDD * u64::from(slow.disks.max(1));
        let percent = (share * 100).div_ceil(may_wait.max(1)).clamp(1, 100);
        for (attribute, wanted) in [
            (BdiAttribute::MaxRatio, percent),
            (BdiAttribute::StrictLimit, 1),
        ] {
            wishes.push(Wish {
                knob: Knob::Bdi {
                    device: slow.device.clone(),
                    attribute,
                },
                wanted: Value::number(wanted),
                instead_of: &["0"],
                group: "write-back slow".into(),
                experiment: Experiment::WriteBack,
                reason: format!(
                    "about as much waits for the slow tier as its {} disk(s) write in {WAIT_S} s: more only makes a flush there, and everybody behind it, wait longer",
                    slow.disks
                ),
                source: "the kernel's documentation of /sys/class/bdi; not in the paper",
                prove_to: None,
            });
        }
    }
}

fn mounts(machine: &Machine, wishes: &mut Vec<Wish>) {
    for mount in &machine.mounts {
        wishes.push(Wish {
            knob: Knob::Bdi {
                device: mount.device.clone(),
                attribute: BdiAttribute::ReadAheadKb,
            },
            wanted: Value::number(4096),
            instead_of: &[],
            group: format!("read-ahead {}", mount.at),
            experiment: Experiment::Mount,
            reason: "with 128 KiB ahead a single reader waits for each answer of the file server: four of its largest answers are asked for ahead".into(),
            source: "before Linux 5.4 it was 15 answers of rsize bytes, then 128 KiB",
            prove_to: None,
        });
    }
}

/// The changes that this machine should get. The same machine, the same plan; once they are
/// made, there are none left.
pub fn plan(machine: &Machine) -> Plan {
    let mut plan = Plan::default();
    for wish in wishes(machine) {
        let what = wish.knob.to_string();
        let Some(now) = machine.values.get(&wish.knob) else {
            plan.left.push(Left {
                what,
                now: String::new(),
                reason: "this kernel, or this machine as it is now, does not have it".into(),
            });
            continue;
        };
        let direction = wish.knob.direction();
        let stays = |reason: &str| Left {
            what: what.clone(),
            now: now.to_string(),
            reason: reason.into(),
        };
        if direction == Direction::Choice && !wish.instead_of.contains(&now.as_str()) {
            plan.left
                .push(stays("it is not one of those that are worse"));
            continue;
        }
        match now.towards(&wish.wanted, direction) {
            Some(to) => plan.changes.push(Change {
                knob: wish.knob,
                from: now.clone(),
                to,
                group: wish.group,
                experiment: wish.experiment,
                reason: wish.reason,
                source: wish.source.into(),
                prove_to: wish.prove_to,
            }),
            None if now.as_numbers().is_none() => {
                plan.left
                    .push(stays("it is not a number that can be compared"));
            }
            None => plan.left.push(stays(match direction {
                Direction::Down => "the present bound is as tight",
                _ => "the present value is as high or higher, and is never lowered",
            })),
        }
    }
    for mount in &machine.mounts {
        let enough = mount.connections >= CONNECTIONS;
        plan.left.push(Left {
            what: format!("connections of {} (nconnect)", mount.at),
            now: mount.connections.to_string(),
            reason: if enough {
                "as many as there should be".into()
            } else {
                format!(
                    "only a new mount takes it: set connections = {CONNECTIONS} in [nfs] of the host's configuration, empty the host, and start it again"
                )
            },
        });
    }
    if machine.links.is_empty() {
        plan.left.push(Left {
            what: "MTU".into(),
            now: String::new(),
            reason: "large packets are tried only where another machine proves that they come through: name it with --peer".into(),
        });
    }
    // A link below 10G is full with what the kernel has by itself; the measurement says so too.
    if !machine.links.is_empty() && machine.mbits() < TEN_G {
        plan.left.push(Left {
            what: "link speed".into(),
            now: format!("{} Mbit/s", machine.mbits()),
            reason: "below 10G one connection fills the link without larger buffers: expect no gain from them".into(),
        });
    }
    plan
}
