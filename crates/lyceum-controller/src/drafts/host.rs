//! Which host seals a draft: a pure choice out of what the hosts said last.

use lyceum_model::{HostId, MachineSize, UnixMillis};
use lyceum_proto::host::HostFacts;
use lyceum_store::agents::Agent;

/// An agent that was not heard for this long is not given anything, in milliseconds.
pub const SILENT_AFTER_MS: UnixMillis = 15_000;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Host(HostId),
    /// None now; it may change by itself. Why, for the page.
    Later(String),
    /// None, and waiting will not help. Why and what to do.
    Never(String),
}

/// The active host that is heard, admits desktops and has most memory available; of equal
/// ones the first by name. The machine is booted cold, so it needs all of its memory.
pub fn choose(hosts: &[Agent], size: MachineSize, now: UnixMillis) -> Choice {
    let need = u64::from(size.memory_mib);
    let mut best: Option<(u64, &HostId)> = None;
    let mut reasons = Vec::new();
    let mut too_small = 0;
    for agent in hosts {
        let facts: Option<HostFacts> = agent
            .facts
            .as_deref()
            .and_then(|t| serde_json::from_str(t).ok());
        let silent = agent.heard.is_none_or(|at| now - at > SILENT_AFTER_MS);
        let why = match facts.map(|f| f.load) {
            _ if agent.state != "active" => "takes no new desktops".to_owned(),
            Some(load) if load.memory_mib < need => {
                too_small += 1;
                format!("has {} MiB for desktops", load.memory_mib)
            }
            _ if silent => "is not heard".to_owned(),
            None => "has not said yet what it is".to_owned(),
            Some(load) if !load.admits => load
                .refuses_because
                .unwrap_or_else(|| "takes no desktops right now".into()),
            Some(load) if load.available_mib < need => {
                format!("has only {} MiB available right now", load.available_mib)
            }
            Some(load) => {
                if best.is_none_or(|(most, _)| load.available_mib > most) {
                    best = Some((load.available_mib, &agent.id));
                }
                continue;
            }
        };
        reasons.push(format!("{} {why}", agent.id));
    }
    match best {
        Some((_, id)) => Choice::Host(id.clone()),
        None if hosts.is_empty() => Choice::Later("no host has joined yet".into()),
        None if too_small == hosts.len() => Choice::Never(format!(
            "no host has the {need} MiB that the draft's machine needs: {}; seal it with less memory, or add a host",
            reasons.join(", ")
        )),
        None => Choice::Later(format!("no host can seal it now: {}", reasons.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_model::{Accelerator, Platform};
    use lyceum_proto::host::HostLoad;

    fn host(name: &str, available: u64, edit: impl FnOnce(&mut Agent, &mut HostFacts)) -> Agent {
        let mut facts = HostFacts {
            version: "0".into(),
            platform: Platform {
                qemu_version: "10.0.2".into(),
                machine_type: "m".into(),
                cpu_model: "c".into(),
                accelerator: Accelerator::Simulated,
            },
            warnings: Vec::new(),
            cpus: 2,
            migration_url: None,
            tiers: None,
            replica: None,
            network: None,
            can_power_off: false,
            spice: false,
            cores: None,
            load: HostLoad {
                at: 0,
                memory_mib: 8_000,
                available_mib: available,
                desktops_pss_mib: 0,
                cpu_percent: 0.0,
                desktops_cpu_percent: 0.0,
                memory_pressure: 0.0,
                admits: true,
                refuses_because: None,
                traffic: Default::default(),
            },
        };
        let mut agent = Agent {
            id: name.parse().unwrap(),
            kind: "host".into(),
            url: String::new(),
            state: "active".into(),
            joined: 0,
            heard: Some(100_000),
            facts: None,
        };
        edit(&mut agent, &mut facts);
        agent.facts = Some(serde_json::to_string(&facts).unwrap());
        agent
    }

    const SIZE: MachineSize = MachineSize {
        vcpus: 1,
        memory_mib: 768,
    };

    #[test]
    fn the_one_with_most_memory_that_is_heard_active_and_admits() {
        let hosts = [
            host("a", 9_000, |a, _| a.state = "draining".into()),
            host("b", 8_000, |a, _| {
                a.heard = Some(100_000 - SILENT_AFTER_MS - 2)
            }),
            host("c", 7_000, |_, f| f.load.admits = false),
            host("d", 1_000, |_, _| {}),
            host("e", 2_000, |_, _| {}),
            host("f", 2_000, |_, _| {}),
        ];
        assert_eq!(
            choose(&hosts, SIZE, 100_001),
            Choice::Host("e".parse().unwrap())
        );
        match choose(&hosts[..3], SIZE, 100_001) {
            Choice::Later(why) => {
                for part in ["a takes no new", "b is not heard", "c takes no desktops"] {
                    assert!(why.contains(part), "{why}");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn too_small_hosts_are_a_reason_to_give_up_and_busy_ones_to_wait() {
        let size = MachineSize {
            memory_mib: 8_001,
            ..SIZE
        };
        let hosts = [host("a", 500, |_, _| {})];
        assert!(
            matches!(choose(&hosts, size, 100_000), Choice::Never(why) if why.contains("8001 MiB"))
        );
        assert!(
            matches!(choose(&hosts, SIZE, 100_000), Choice::Later(why) if why.contains("500 MiB"))
        );
        assert!(matches!(choose(&[], SIZE, 0), Choice::Later(_)));
    }
}
