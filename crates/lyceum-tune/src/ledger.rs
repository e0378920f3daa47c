//! What was changed, so that it can be undone exactly and made again after a reboot.

use crate::knob::{Direction, Knob, Value};
use crate::plan::Change;
use crate::verdict::Measured;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A change that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Of what.
    pub knob: Knob,
    /// As it was.
    pub before: Value,
    /// As it was set.
    pub set: Value,
    /// Which changes belong together.
    pub group: String,
    /// Why.
    pub reason: String,
    /// Where it comes from.
    pub source: String,
    /// What it gained; empty: it was not measured.
    #[serde(default)]
    pub measured: Vec<Measured>,
}

/// Changes that were tried and taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// Which.
    pub group: String,
    /// What they were.
    pub changes: Vec<String>,
    /// Why they were taken back.
    pub why: String,
    /// What was measured.
    #[serde(default)]
    pub measured: Vec<Measured>,
}

/// All that was changed on a machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Kept, in the order in which it was done.
    pub entries: Vec<Entry>,
    /// Tried and taken back.
    #[serde(default)]
    pub tried: Vec<Tried>,
}

/// How to undo everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Undo {
    /// What to write, in this order.
    pub writes: Vec<(Knob, Value)>,
    /// Changed by somebody else since: the knob, what it is now, what it was before us.
    pub foreign: Vec<(Knob, Value, Value)>,
    /// No longer there.
    pub gone: Vec<Knob>,
}

impl Ledger {
    /// Notes a change before it is made. What was before the *first* change of a knob stays
    /// what it goes back to.
    pub fn note(&mut self, change: &Change) {
        let known = self.entries.iter_mut().find(|e| e.knob == change.knob);
        match known {
            Some(entry) => {
                // Somebody put another value there in the meantime: theirs is what was before.
                if change.from != entry.set && change.from != entry.before {
                    entry.before = change.from.clone();
                }
                entry.set = change.to.clone();
                entry.group.clone_from(&change.group);
                entry.reason.clone_from(&change.reason);
                entry.source.clone_from(&change.source);
                entry.measured.clear();
            }
            None => self.entries.push(Entry {
                knob: change.knob.clone(),
                before: change.from.clone(),
                set: change.to.clone(),
                group: change.group.clone(),
                reason: change.reason.clone(),
                source: change.source.clone(),
                measured: Vec::new(),
            }),
        }
        self.tried.retain(|t| t.group != change.group);
    }

    /// What a group gained.
    pub fn measured(&mut self, group: &str, measured: &[Measured]) {
        for entry in self.entries.iter_mut().filter(|e| e.group == group) {
            entry.measured = measured.to_vec();
        }
    }

    /// A group was taken back: it is no longer kept, but what came of it is.
    pub fn taken_back(&mut self, tried: Tried) {
        self.entries.retain(|e| e.group != tried.group);
        self.tried.retain(|t| t.group != tried.group);
        self.tried.push(tried);
    }

    /// How to undo everything, going by what is set now. What somebody else set since is left
    /// alone, unless it is `forced`.
    pub fn undo(&self, now: &BTreeMap<Knob, Value>, forced: bool) -> Undo {
        let mut undo = Undo::default();
        for entry in self.entries.iter().rev() {
            match now.get(&entry.knob) {
                None => undo.gone.push(entry.knob.clone()),
                Some(value) if *value == entry.before => {}
                Some(value) if *value == entry.set || forced => {
                    undo.writes.push((entry.knob.clone(), entry.before.clone()));
                }
                Some(value) => {
                    undo.foreign
                        .push((entry.knob.clone(), value.clone(), entry.before.clone()))
                }
            }
        }
        undo
    }

    /// After a reboot: what to write so that everything kept is there again, by the same rule as
    /// ever: where a newer kernel's own value is higher by now, it stays. What the machine came up
    /// with is what an undo goes back to from now on.
    pub fn again(&mut self, now: &BTreeMap<Knob, Value>) -> Vec<(Knob, Value)> {
        let mut writes = Vec::new();
        for entry in &mut self.entries {
            let Some(value) = now.get(&entry.knob) else {
                continue;
            };
            if *value == entry.set {
                continue;
            }
            entry.before = value.clone();
            let direction = entry.knob.direction();
            let turned = match (value.towards(&entry.set, direction), direction) {
                // Numbers of a list may each be higher on one side.
                (Some(to), Direction::Up) => {
                    entry.set = to.clone();
                    Some(to)
                }
                (turned, _) => turned,
            };
            writes.extend(turned.map(|to| (entry.knob.clone(), to)));
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Disk, Link, Machine, NfsMount, Roles, TierName, WriteBack};
    use crate::plan;
    use proptest::prelude::*;

    /// A kernel: writing sets, and that is all.
    fn make(machine: &mut Machine, ledger: &mut Ledger) {
        for change in plan(machine).changes {
            ledger.note(&change);
            machine.values.insert(change.knob, change.to);
        }
    }

    fn machines() -> impl Strategy<Value = Machine> {
        let schedulers =
            proptest::sample::subsequence(vec!["none", "mq-deadline", "kyber", "bfq"], 0..=4);
        let congestion = proptest::sample::subsequence(vec!["reno", "cubic", "bbr"], 0..=3);
        (
            (any::<bool>(), any::<bool>(), 1u64..512, 1u64..1 << 42),
            (0u64..=110, any::<bool>(), any::<bool>(), 0u32..20),
            (schedulers, congestion),
            (
                proptest::option::of(0u64..400_000),
                proptest::option::of(0u64..70_000),
                0u64..20,
            ),
            proptest::collection::vec(
                prop_oneof![
                    (0u64..1 << 26).prop_map(Value::number),
                    proptest::collection::vec(0u64..1 << 26, 2..5).prop_map(|n| Value::numbers(&n)),
                    "[a-z-]{0,8}".prop_map(|w| Value::new(&w)),
                    Just(Value::new("none")),
                    Just(Value::new("cubic")),
                ],
                40,
            ),
            any::<u64>(),
        )
            .prop_map(
                |(
                    (host, storage, cpus, memory_bytes),
                    (dirty_percent, rotational, has_slow, disks),
                    (schedulers, congestion),
                    (mbits, most_mtu, connections),
                    values,
                    missing,
                )| {
                    let words = |list: Vec<&str>| list.into_iter().map(String::from).collect();
                    let mut machine = Machine {
                        roles: Roles { host, storage },
                        cpus,
                        memory_bytes,
                        dirty_percent,
                        congestion: words(congestion),
                        disks: vec![Disk {
                            name: "sda".into(),
                            tier: TierName::Slow,
                            rotational,
                            schedulers: words(schedulers),
                        }],
                        slow: has_slow.then(|| WriteBack {
                            device: "8:0".into(),
                            rotational,
                            disks,
                        }),
                        links: vec![Link {
                            interface: "eth1".into(),
                            peer: "10.0.0.1".into(),
                            mbits,
                            most_mtu,
                        }],
                        mounts: vec![NfsMount {
                            at: "/srv/fast".into(),
                            device: "0:52".into(),
                            connections,
                        }],
                        ..Machine::default()
                    };
                    let knobs = machine.knobs();
                    machine.values = knobs
                        .into_iter()
                        .zip(values)
                        .enumerate()
                        .filter(|(n, _)| missing >> (n % 64) & 1 == 0)
                        .map(|(_, pair)| pair)
                        .collect();
                    machine
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn capacities_never_sink_and_bounds_never_grow(machine in machines()) {
            for change in plan(&machine).changes {
                prop_assert_eq!(&machine.values[&change.knob], &change.from);
                prop_assert_ne!(&change.from, &change.to);
                prop_assert!(!change.reason.is_empty() && !change.source.is_empty());
                let pairs = || {
                    let (from, to) = (change.from.as_numbers().unwrap(), change.to.as_numbers().unwrap());
                    assert_eq!(from.len(), to.len());
                    from.into_iter().zip(to)
                };
                match change.knob.direction() {
                    Direction::Up => prop_assert!(pairs().all(|(from, to)| to >= from)),
                    Direction::Down => prop_assert!(pairs().all(|(from, to)| to <= from && to >= 1)),
                    Direction::Choice => {}
                }
            }
        }

        #[test]
        fn what_is_undone_is_what_was(machine in machines()) {
            let before = machine.values.clone();
            let (mut machine, mut ledger) = (machine, Ledger::default());
            make(&mut machine, &mut ledger);
            prop_assert_eq!(&plan(&machine).changes, &vec![], "a second plan changes nothing");
            make(&mut machine, &mut ledger);
            let undo = ledger.undo(&machine.values, false);
            prop_assert!(undo.foreign.is_empty() && undo.gone.is_empty());
            machine.values.extend(undo.writes);
            prop_assert_eq!(machine.values, before);
        }

        #[test]
        fn half_an_apply_is_undone_too(machine in machines(), done in 0usize..12) {
            // The process ended after noting a change, before or after making it.
            let before = machine.values.clone();
            let (mut machine, mut ledger) = (machine, Ledger::default());
            for (n, change) in plan(&machine).changes.into_iter().enumerate() {
                ledger.note(&change);
                if n < done {
                    machine.values.insert(change.knob, change.to);
                }
            }
            let undo = ledger.undo(&machine.values, false);
            machine.values.extend(undo.writes);
            prop_assert_eq!(machine.values, before);
        }

        #[test]
        fn after_a_reboot_it_is_there_again_and_the_newer_kernel_wins(machine in machines(), higher in 0u64..1 << 30) {
            let (mut machine, mut ledger) = (machine, Ledger::default());
            let fresh = machine.values.clone();
            make(&mut machine, &mut ledger);
            let tuned = machine.values.clone();
            // The same kernel: everything as it was tuned.
            machine.values = fresh.clone();
            let writes = ledger.again(&machine.values);
            machine.values.extend(writes);
            prop_assert_eq!(&machine.values, &tuned);
            // A kernel with defaults of its own.
            let newer: BTreeMap<Knob, Value> = fresh.iter().map(|(knob, value)| {
                let value = match value.as_numbers() {
                    Some(numbers) if knob.direction() == Direction::Up =>
                        Value::numbers(&numbers.iter().map(|n| n + higher).collect::<Vec<_>>()),
                    _ => value.clone(),
                };
                (knob.clone(), value)
            }).collect();
            machine.values = newer.clone();
            let writes = ledger.again(&machine.values);
            for (knob, to) in &writes {
                if knob.direction() == Direction::Up {
                    let (was, to) = (newer[knob].as_numbers().unwrap(), to.as_numbers().unwrap());
                    prop_assert!(to.iter().zip(&was).all(|(t, w)| t >= w), "{} {:?} {:?}", knob, to, was);
                }
            }
            machine.values.extend(writes);
            let undo = ledger.undo(&machine.values, false);
            machine.values.extend(undo.writes);
            prop_assert_eq!(machine.values, newer);
        }
    }

    fn buffers(rmem_max: &str, tcp_rmem: &str) -> Machine {
        let mut machine = Machine {
            cpus: 4,
            memory_bytes: 64 << 30,
            dirty_percent: 20,
            ..Machine::default()
        };
        for (name, value) in [
            ("net.core.rmem_max", rmem_max),
            ("net.ipv4.tcp_rmem", tcp_rmem),
        ] {
            machine.values.insert(Knob::sysctl(name), Value::new(value));
        }
        machine
    }

    #[test]
    fn the_papers_values_and_the_kernels() {
        // Of the paper's time.
        let old = plan(&buffers("212992", "4096\t87380\t6291456"));
        let to: Vec<&str> = old.changes.iter().map(|c| c.to.as_str()).collect();
        assert_eq!(to, ["8388608", "4096 87380 8388608"]);
        // Linux 6.18: a window of 32 MiB is not lowered to 8, the 4 MiB of rmem_max are raised.
        let new = plan(&buffers("4194304", "4096\t131072\t33554432"));
        let to: Vec<&str> = new.changes.iter().map(|c| c.to.as_str()).collect();
        assert_eq!(to, ["8388608"]);
        let left = new.left.iter().find(|l| l.what == "net.ipv4.tcp_rmem");
        assert!(left.unwrap().reason.contains("never lowered"));
    }

    #[test]
    fn a_slow_tier_of_heads_is_bounded_and_one_of_chips_is_not() {
        let mut machine = buffers("8388608", "4096 131072 33554432");
        machine.roles.storage = true;
        let knob = Knob::Bdi {
            device: "8:0".into(),
            attribute: crate::knob::BdiAttribute::MaxRatio,
        };
        machine.values.insert(knob.clone(), Value::number(100));
        for (rotational, disks, wanted) in [
            (true, 1, Some("6")),
            (true, 5, Some("29")),
            (false, 5, None),
        ] {
            machine.slow = Some(WriteBack {
                device: "8:0".into(),
                rotational,
                disks,
            });
            let plan = plan(&machine);
            let change = plan.changes.iter().find(|c| c.knob == knob);
            assert_eq!(change.map(|c| c.to.as_str()), wanted);
        }
    }

    #[test]
    fn what_somebody_else_set_is_left_alone_unless_forced() {
        let mut machine = buffers("212992", "4096 87380 6291456");
        let mut ledger = Ledger::default();
        make(&mut machine, &mut ledger);
        let knob = Knob::sysctl("net.core.rmem_max");
        machine.values.insert(knob.clone(), Value::new("9999999"));
        let undo = ledger.undo(&machine.values, false);
        assert_eq!(undo.writes.len(), 1);
        assert_eq!(undo.foreign[0].0, knob);
        assert_eq!(ledger.undo(&machine.values, true).writes.len(), 2);
        machine.values.remove(&knob);
        assert_eq!(ledger.undo(&machine.values, false).gone, [knob]);
        // And it can be kept as text.
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    }
}
