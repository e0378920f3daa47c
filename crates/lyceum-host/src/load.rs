//! How this host is doing: what the kernel says of the machine, and what the
//! machines of the desktops use.

use crate::agent::Agent;
use crate::config::Marks;
use crate::observe::{Shown, now};
use lyceum_hypervisor::NicLink;
use lyceum_model::DesktopId;
use lyceum_proto::host::{HostLoad, Traffic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Memory left to the machine itself when nothing is configured, MiB.
const OWN_MIB: u64 = 2048;

/// The longest that desktops are not looked at because others start.
const PUT_OFF: Duration = Duration::from_secs(15);

/// Load before the first sample; nothing is admitted on it.
pub(crate) fn unmeasured(memory_mib: u64) -> HostLoad {
    HostLoad {
        at: 0,
        memory_mib,
        available_mib: 0,
        desktops_pss_mib: 0,
        cpu_percent: 0.0,
        desktops_cpu_percent: 0.0,
        memory_pressure: 0.0,
        admits: false,
        refuses_because: Some("its load has not been measured yet".into()),
        traffic: Traffic::default(),
    }
}

/// A value of `/proc/meminfo`, in MiB.
fn meminfo_mib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(key))?;
    let kib: u64 = line
        .strip_prefix(key)?
        .strip_prefix(':')?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(kib / 1024)
}

/// Memory of this machine that desktops may use when nothing is configured, in MiB.
pub(crate) fn default_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo_mib(&text, "MemTotal").unwrap_or(0);
    let total = crate::cgroup::room().map_or(machine, |room| room.limit_mib.min(machine));
    total.saturating_sub(OWN_MIB).max(total / 2)
}

/// Memory the kernel calls available, in MiB, on the machine or in this agent's control group, whichever is
/// less; `None`: it does not say.
pub(crate) fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = meminfo_mib(&text, "MemAvailable")?;
    Some(crate::cgroup::room().map_or(machine, |room| room.available_mib.min(machine)))
}

/// `some avg10` of `/proc/pressure/memory`; kernels without it report none.
fn pressure(text: &str) -> f64 {
    text.lines()
        .find(|l| l.starts_with("some "))
        .and_then(|l| l.split_whitespace().find_map(|w| w.strip_prefix("avg10=")))
        .and_then(|v| v.parse().ok())
        .unwrap_or(0.0)
}

/// Busy and total ticks of all CPUs, from `/proc/stat`.
fn cpu_ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find(|l| l.starts_with("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        // Guest time (the last two) is counted in user time already.
        .take(8)
        .map_while(|t| t.parse().ok())
        .collect();
    let total: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((total - idle, total))
}

/// Why no further desktop is admitted, in words; `None`: it is.
fn refuses(load: &HostLoad, marks: &Marks) -> Option<String> {
    let limit = load.memory_mib * marks.desktops_percent / 100;
    if load.desktops_pss_mib > limit {
        return Some(format!(
            "its desktops use {} MiB of memory, the mark is {limit} MiB",
            load.desktops_pss_mib
        ));
    }
    if load.available_mib < marks.available_mib {
        return Some(format!(
            "only {} MiB of its memory are available, the mark is {} MiB",
            load.available_mib, marks.available_mib
        ));
    }
    if load.memory_pressure > marks.pressure_percent {
        return Some(format!(
            "its tasks wait for memory {} % of the time, the mark is {} %",
            load.memory_pressure, marks.pressure_percent
        ));
    }
    None
}

/// Keeps what a rate is computed from.
pub(crate) struct Sampler {
    /// As looked at last.
    shown: BTreeMap<DesktopId, Shown>,
    walked: Instant,
    cpu: Option<(u64, u64)>,
    /// CPU time used under the control group's limit, and when.
    limited: Option<(Instant, u64)>,
    desktops: BTreeMap<DesktopId, (Instant, u64)>,
}

impl Sampler {
    pub(crate) fn new() -> Sampler {
        Sampler {
            shown: BTreeMap::new(),
            walked: Instant::now(),
            cpu: None,
            limited: None,
            desktops: BTreeMap::new(),
        }
    }

    /// Takes one sample and publishes it.
    pub(crate) async fn sample(&mut self, agent: &Agent) {
        // Walking every machine's pages takes CPU that a class that is starting needs. What
        // the kernel says of the whole machine is looked at in any case.
        let put_off = agent.starts_are_full() && self.walked.elapsed() < PUT_OFF;
        if !put_off {
            self.walk(agent).await;
        }
        let shown = &self.shown;
        let ticks = read("/proc/stat").await.and_then(|t| cpu_ticks(&t));
        let cpu_percent = match (self.cpu, ticks) {
            (Some((busy0, total0)), Some((busy, total))) if total > total0 => {
                busy.saturating_sub(busy0) as f64 * 100.0 / (total - total0) as f64
            }
            _ => 0.0,
        };
        self.cpu = ticks;
        // Where a control group limits this host, that is the whole of it.
        let cores = crate::cores::cores();
        let at = Instant::now();
        let cpu_percent = match (self.limited, cores) {
            (Some((then, used)), Some(now)) if at > then => {
                let passed_us = at.duration_since(then).as_secs_f64() * 1e6;
                now.used_us.saturating_sub(used) as f64 * 100.0 / (passed_us * now.limit)
            }
            _ => cpu_percent,
        };
        self.limited = cores.map(|c| (at, c.used_us));
        let cores = cores.map_or(f64::from(crate::config::cpus()), |c| c.limit);
        let sum_kib: u64 = shown.values().map(|s| s.pss_kib).sum();
        let sum_cpu: f64 = shown.values().map(|s| s.cpu_percent).sum();
        let mut load = HostLoad {
            at: now(),
            memory_mib: agent.memory_mib,
            // A kernel that does not say is taken at the configuration's word.
            available_mib: available_mib().unwrap_or(agent.memory_mib),
            desktops_pss_mib: sum_kib / 1024,
            cpu_percent: round(cpu_percent),
            desktops_cpu_percent: round(sum_cpu / cores),
            memory_pressure: pressure(&read("/proc/pressure/memory").await.unwrap_or_default()),
            admits: true,
            refuses_because: None,
            traffic: crate::traffic::of_this_machine().await,
        };
        load.refuses_because = refuses(&load, &agent.config.marks);
        load.admits = load.refuses_because.is_none();
        agent.observatory.sampled(load, shown);
    }

    /// Looks at every machine.
    async fn walk(&mut self, agent: &Agent) {
        self.shown.clear();
        let mut before = std::mem::take(&mut self.desktops);
        for (id, instance) in agent.instances() {
            // One that is just ending has no usage.
            let Ok(usage) = instance.usage().await else {
                continue;
            };
            let at = Instant::now();
            let percent = match before.remove(&id) {
                Some((then, cpu_ms)) if usage.cpu_ms >= cpu_ms => {
                    let passed = at.duration_since(then).as_secs_f64() * 1000.0;
                    (usage.cpu_ms - cpu_ms) as f64 * 100.0 / passed.max(1.0)
                }
                _ => 0.0,
            };
            self.desktops.insert(id.clone(), (at, usage.cpu_ms));
            let (received, sent) = match instance.request().nic.map(|nic| nic.link) {
                Some(NicLink::Tap { name, .. }) => crate::traffic::of_tap(&name).await,
                // QEMU counts no bytes of its user network.
                Some(NicLink::User { .. }) | None => None,
            }
            .unzip();
            let traffic = Traffic {
                read: Some(usage.read_bytes),
                written: Some(usage.written_bytes),
                received,
                sent,
            };
            let shown = Shown {
                pss_kib: usage.pss_kib,
                cpu_percent: round(percent),
                traffic,
            };
            self.shown.insert(id, shown);
        }
        self.walked = Instant::now();
    }
}

fn round(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

async fn read(path: &str) -> Option<String> {
    tokio::fs::read_to_string(path).await.ok()
}

/// Samples until the agent shuts down.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut sampler = Sampler::new();
    let mut tick = tokio::time::interval(Duration::from_millis(agent.config.sample_ms));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => sampler.sample(&agent).await,
            () = agent.shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let memory = "MemTotal:       24576000 kB\nMemAvailable:    2048000 kB\n";
        assert_eq!(meminfo_mib(memory, "MemAvailable"), Some(2000));
        assert_eq!(meminfo_mib("garbage", "MemTotal"), None);
        let psi = "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0 avg300=0 total=1\n";
        assert!((pressure(psi) - 12.5).abs() < 1e-9);
        assert!(pressure("") < 1e-9);
        let stat = "cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1 1 1\n";
        assert_eq!(cpu_ticks(stat), Some((20, 100)));
    }

    #[test]
    fn each_mark_refuses_with_its_reason() {
        let mut load = unmeasured(1000);
        load.available_mib = 5000;
        let marks = Marks::default();
        assert_eq!(refuses(&load, &marks), None);
        load.desktops_pss_mib = 901;
        assert!(refuses(&load, &marks).is_some_and(|r| r.contains("901 MiB")));
        load.desktops_pss_mib = 0;
        load.available_mib = 10;
        assert!(refuses(&load, &marks).is_some_and(|r| r.contains("available")));
        load.available_mib = 5000;
        load.memory_pressure = 50.0;
        assert!(refuses(&load, &marks).is_some_and(|r| r.contains("wait for memory")));
    }
}
