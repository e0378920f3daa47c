//! The planner's snapshot, out of the store. Nothing else goes into a plan.

use super::prices::{LOOK_BACK_MS, Prices};
use super::{PlanError, not_done};
use crate::app::App;
use crate::orders::cluster::{SILENT_AFTER_MS, private_mib};
use crate::orders::moves::why_not;
use crate::power::{self, LEAVE_ALONE_MS};
use lyceum_api::allocation::Allocation;
use lyceum_model::{Desired, DesktopId, HostId, MoveWay, UnixMillis};
use lyceum_placement as placement;
use lyceum_placement::{NotDone, PlanPolicy, Snapshot, Standing};
use lyceum_proto::host::HostFacts;
use lyceum_store::agents::{self, Agent};
use lyceum_store::desktops::{self, Desktop, Owner};
use lyceum_store::moves::{self, Move};
use lyceum_store::plans;
use lyceum_store::power::{Power, State};
use lyceum_store::samples::{self, MINUTE, Sample};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Moves that are looked at, to know what the next ones cost.
const MOVES: i64 = 2_000;

/// The averages that are decided on.
#[derive(Clone, Copy)]
struct Averages {
    /// Samples before this are of no interest.
    from: UnixMillis,
    /// Fewer samples than this are no average.
    enough: usize,
}

impl Averages {
    fn of(settings: &Allocation, now: UnixMillis) -> Averages {
        let minutes = settings.average_minutes.clamp(2, 60);
        Averages {
            // The newest that there can be is of the minute before this one.
            from: now - (i64::from(minutes) + 1) * MINUTE,
            enough: minutes.div_ceil(2) as usize,
        }
    }
}

/// The classroom at one moment.
pub struct Cluster {
    /// What the planner sees.
    pub snapshot: Snapshot,
    /// What it can't know: why a host takes no part.
    pub remarks: Vec<NotDone>,
}

/// All that a snapshot is made of.
pub struct Rows {
    /// Hosts.
    pub agents: Vec<Agent>,
    /// Their power.
    pub power: Vec<Power>,
    /// Desktops.
    pub desktops: Vec<Desktop>,
    /// Desktops that plans leave where they are.
    pub pinned: HashSet<DesktopId>,
    /// One-minute samples of the last minutes, by subject, oldest first.
    pub samples: BTreeMap<String, Vec<Sample>>,
    /// Moves that were done, the newest first.
    pub moved: Vec<Move>,
    /// What moves may use of a link, megabits per second; 0: all of it.
    pub move_mbit_per_s: u32,
    /// Seats per host; 0: by memory.
    pub seats: u32,
    /// When a plan was last carried out.
    pub last_acted: Option<UnixMillis>,
}

impl Cluster {
    /// As the store has it.
    pub async fn read(
        app: &App,
        settings: &Allocation,
        now: UnixMillis,
    ) -> Result<Cluster, PlanError> {
        let store = &app.store;
        let mut by_subject: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for sample in samples::since(store, 1, Averages::of(settings, now).from).await? {
            // Of a clock that was set back since.
            if sample.at <= now {
                by_subject
                    .entry(sample.subject.clone())
                    .or_default()
                    .push(sample);
            }
        }
        let room = app.settings().await?;
        let rows = Rows {
            agents: agents::list(store, "host").await?,
            power: lyceum_store::power::all(store).await?,
            desktops: desktops::all(store).await?,
            pinned: lyceum_store::pins::all(store).await?,
            samples: by_subject,
            moved: moves::done_since(store, now - LOOK_BACK_MS, MOVES).await?,
            move_mbit_per_s: room.move_mbit_per_s,
            seats: room.seats_per_host,
            last_acted: plans::last_acted(store).await?,
        };
        let switchable = |row: &Power, facts: Option<&HostFacts>| {
            power::not_switchable(app, &power::setup(row), facts)
        };
        Ok(Cluster::of(&rows, switchable, settings, now))
    }

    /// Plans with it.
    pub fn plan(&self, policy: &PlanPolicy, now: UnixMillis) -> Result<placement::Plan, PlanError> {
        let mut plan = placement::plan(&self.snapshot, policy, now)?;
        for remark in &self.remarks {
            // The better reason takes the place of the general one.
            plan.not_done.retain(|n| n.what != remark.what);
            plan.not_done.push(remark.clone());
        }
        Ok(plan)
    }

    /// Out of these rows. `switchable`: why a host can't be switched.
    pub fn of(
        rows: &Rows,
        switchable: impl Fn(&Power, Option<&HostFacts>) -> Option<String>,
        settings: &Allocation,
        now: UnixMillis,
    ) -> Cluster {
        let prices = Prices::of(&rows.moved, rows.move_mbit_per_s);
        let mut cluster = Cluster {
            snapshot: Snapshot {
                last_acted_at: rows.last_acted,
                move_mbit_per_s: prices.mbit_per_s(),
                ..Snapshot::default()
            },
            remarks: Vec::new(),
        };
        // A desktop can only go where its machine is the same.
        let mut kinds: HashMap<&HostId, String> = HashMap::new();
        for agent in &rows.agents {
            let facts: Option<HostFacts> = agent
                .facts
                .as_deref()
                .and_then(|t| serde_json::from_str(t).ok());
            let Some(facts) = facts.filter(|f| f.load.memory_mib > 0) else {
                cluster.remarks.push(not_done(
                    agent.id.as_str(),
                    "left as it is: its agent has not said yet what it is",
                ));
                continue;
            };
            let row = rows.power.iter().find(|p| p.host == agent.id);
            let row = row
                .cloned()
                .unwrap_or_else(|| Power::new(agent.id.clone(), 0));
            kinds.insert(&agent.id, kind(&facts));
            let host = host(rows, agent, &facts, &row, &switchable, settings, now);
            if let Some(why) = host.1 {
                cluster.remarks.push(not_done(agent.id.as_str(), why));
            }
            cluster.snapshot.hosts.push(host.0);
        }
        let averages = Averages::of(settings, now);
        for d in &rows.desktops {
            if let Some(desktop) = desktop(rows, d, &kinds, &cluster.snapshot, averages, &prices) {
                cluster.snapshot.desktops.push(desktop);
            }
        }
        cluster
    }
}

/// What has to be the same on two hosts between which a desktop moves.
fn kind(facts: &HostFacts) -> String {
    let p = &facts.platform;
    format!(
        "{} {} {} {:?} {}",
        p.cpu_model,
        p.machine_type,
        p.qemu_version,
        p.accelerator,
        facts.tiers.as_deref().unwrap_or_default()
    )
}

fn of<'a>(rows: &'a Rows, subject: &str, averages: Averages) -> &'a [Sample] {
    let all = rows
        .samples
        .get(subject)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let first = all.partition_point(|s| s.at < averages.from);
    &all[first..]
}

fn host(
    rows: &Rows,
    agent: &Agent,
    facts: &HostFacts,
    row: &Power,
    switchable: &impl Fn(&Power, Option<&HostFacts>) -> Option<String>,
    settings: &Allocation,
    now: UnixMillis,
) -> (placement::Host, Option<String>) {
    let setup = power::setup(row);
    let averages = Averages::of(settings, now);
    let samples = of(rows, &format!("host/{}", agent.id), averages);
    let known = samples.len() >= averages.enough;
    let heard = agent.heard.is_some_and(|at| now - at <= SILENT_AFTER_MS);
    // Measured last by this controller's clock; right after it came up there is no sample yet.
    let measured = samples.last().map(|s| s.at + MINUTE);
    let stale_ms = i64::from(settings.policy.stale_after_s) * 1000;
    let just_came = heard
        && match row.heard_since {
            Some(at) => (0..stale_ms).contains(&(now - at)),
            // So new that nobody has noted it yet.
            None => row.failed_at.is_none() && measured.is_none(),
        };
    let measured_at = match measured {
        Some(at) if !just_came => at.min(now),
        _ if just_came => now,
        _ => agent.heard.unwrap_or(0).min(now - stale_ms - 1),
    };
    let recently = |ms: i64| {
        row.failed_at
            .is_some_and(|at| (0..ms).contains(&(now - at)))
    };
    let mut standing = match agent.state.as_str() {
        "draining" => Standing::Draining,
        _ if setup.maintenance => Standing::Maintenance,
        _ => Standing::Active,
    };
    let mut why = setup
        .maintenance
        .then(|| "left as it is: it is in maintenance".to_owned());
    let mut cant = switchable(row, Some(facts));
    match row.state {
        State::On if !heard => {
            standing = Standing::Maintenance;
            why = Some("left as it is: its agent is not heard".into());
        }
        State::On if recently(i64::from(settings.settle_s) * 1000) => {
            standing = Standing::Maintenance;
            why = Some(format!(
                "left as it is: {}; it is trusted again {} s after it came back",
                row.failure, settings.settle_s
            ));
        }
        State::Off if recently(LEAVE_ALONE_MS) => {
            why = Some(format!("not switched on: {}", row.failure));
            cant = Some(row.failure.clone());
        }
        _ => {}
    }
    let off = matches!(row.state, State::Off | State::Waking);
    let host = placement::Host {
        id: agent.id.to_string(),
        power: match row.state {
            State::On => placement::Power::On,
            State::Waking => placement::Power::Starting,
            State::Off => placement::Power::Off,
            State::GoingOff => placement::Power::Stopping,
        },
        memory_mib: facts.load.memory_mib,
        reserved_mib: 0,
        cpu_cores: facts
            .cores
            .or(Some(f64::from(facts.cpus)))
            .filter(|c| c.is_finite() && *c > 0.0),
        seats: (rows.seats > 0).then_some(rows.seats),
        cpu_percent: (known && !off).then(|| samples::mean(samples).cpu),
        cpu_samples: match known && !off {
            true => samples.iter().map(|s| s.values.cpu).collect(),
            false => Vec::new(),
        },
        watts: setup.watts,
        cpu_model: Some(kind(facts)),
        // Hosts get at all releases through the shared tiers.
        releases: None,
        standing,
        reserve: setup.reserve,
        group: setup.group.clone(),
        switchable: Some(cant.is_none()),
        since: (row.since > 0).then_some(row.since),
        measured_at: match off {
            true => None,
            false => Some(measured_at),
        },
    };
    (host, why)
}

fn desktop(
    rows: &Rows,
    d: &Desktop,
    kinds: &HashMap<&HostId, String>,
    snapshot: &Snapshot,
    averages: Averages,
    prices: &Prices,
) -> Option<placement::Desktop> {
    let host = d.host.as_ref()?;
    let there = d.phase.may_hold_disk() || (d.desired == Desired::Running && !d.gave_up);
    let on = snapshot.hosts.iter().find(|h| h.id == host.as_str())?;
    // What is said to be on a host that is off is nowhere.
    if !there || matches!(on.power, placement::Power::Off | placement::Power::Starting) {
        return None;
    }
    let samples = of(rows, &format!("desktop/{}", d.id), averages);
    let nominal = u64::from(d.size.memory_mib);
    let measured_kib = samples
        .last()
        .filter(|s| s.host == *host)
        .map(|s| s.values.memory_kib.max(0));
    let measured = measured_kib.map(|kib| (kib as u64).div_ceil(1024));
    // It shares none: it was booted cold, or came by live migration. Or so little that it is not worth a delta.
    let none = d.started_by.as_deref() == Some("cold") || prices.shares_nothing(d);
    let own = measured.filter(|_| !none).map(|mib| mib << 20);
    let cold = none
        || own.is_some_and(|own| MoveWay::choose(Some(own), d.size.memory_mib).0 == MoveWay::Live);
    let way = match cold {
        true => MoveWay::Live,
        false => MoveWay::Delta,
    };
    let private = measured.unwrap_or_else(|| u64::from(private_mib(d)));
    let moving_to = d
        .moving_to
        .as_ref()
        .filter(|to| snapshot.hosts.iter().any(|h| h.id == to.as_str()));
    let (owner, course) = match &d.owner {
        Owner::Course { course, user } => (Some(user.to_string()), Some(course.to_string())),
        Owner::Draft { .. } => (None, None),
    };
    Some(placement::Desktop {
        id: d.id.to_string(),
        host: Some(host.to_string()),
        memory_mib: nominal.max(1),
        private_mib: (!cold).then(|| private.clamp(1, nominal.max(1))),
        moves_by: Some(match cold {
            true => placement::MovesBy::Migration,
            false => placement::MovesBy::Delta,
        }),
        move_mib: prices.travels_mib(d, way, measured_kib),
        vcpus: Some(u32::from(d.size.vcpus.max(1))),
        cpu_percent: (samples.len() >= averages.enough).then(|| samples::mean(samples).cpu),
        movable: Some(why_not(d).is_none() || moving_to.is_some()),
        pinned: rows.pinned.contains(&d.id),
        owner,
        course,
        release: d.release.as_ref().map(ToString::to_string),
        cpu_model: kinds.get(host).cloned(),
        moving_to: moving_to.map(ToString::to_string),
    })
}

/// Desktops that are to run and do not yet, ordered since then: a class that starts.
pub fn starting(all: &[Desktop], since: UnixMillis) -> Vec<&DesktopId> {
    all.iter()
        .filter(|d| matches!(d.owner, Owner::Course { .. }))
        .filter(|d| d.desired == Desired::Running && !d.gave_up && d.ordered_at >= since)
        .filter(|d| {
            !matches!(
                d.phase,
                lyceum_model::Phase::Running | lyceum_model::Phase::Unknown
            )
        })
        .map(|d| &d.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::step::tests_support::desktop as row_of;
    use lyceum_model::{Accelerator, Phase, Platform};
    use lyceum_placement::{Mode, PlanPolicy};
    use lyceum_store::samples::Values;

    const NOW: UnixMillis = 1_000_000_000;

    fn agent(name: &str, heard: UnixMillis) -> Agent {
        // Its clock is of another century, and nobody looks.
        let facts = serde_json::json!({
            "version": "", "warnings": [], "cpus": 4, "can_power_off": true,
            "platform": Platform {
                qemu_version: "10".into(),
                machine_type: "m".into(),
                cpu_model: "c".into(),
                accelerator: Accelerator::Simulated,
            },
            "load": {"at": 77, "memory_mib": 8192, "available_mib": 8000, "desktops_pss_mib": 0,
                "cpu_percent": 99.0, "desktops_cpu_percent": 0.0, "memory_pressure": 0.0,
                "admits": true, "refuses_because": null},
        });
        assert!(serde_json::from_value::<HostFacts>(facts.clone()).is_ok());
        Agent {
            id: name.parse().unwrap(),
            kind: "host".into(),
            url: String::new(),
            state: "active".into(),
            joined: 0,
            heard: Some(heard),
            facts: Some(facts.to_string()),
        }
    }

    fn samples(
        subject: &str,
        minutes_ago: std::ops::Range<i64>,
        cpu: f64,
    ) -> (String, Vec<Sample>) {
        let host = subject.strip_prefix("host/").unwrap_or("kvm1");
        let all = minutes_ago
            .rev()
            .map(|m| Sample {
                subject: subject.into(),
                span: 1,
                at: NOW - (m + 1) * MINUTE,
                host: host.parse().unwrap(),
                values: Values {
                    cpu,
                    memory_kib: 100 * 1024,
                    ..Values::default()
                },
                count: 20,
            })
            .collect();
        (subject.to_owned(), all)
    }

    fn rows() -> Rows {
        let mut d = row_of();
        d.id = "d1".parse().unwrap();
        d.host = Some("kvm1".parse().unwrap());
        d.phase = Phase::Running;
        d.observed_generation = d.generation;
        d.desired = Desired::Running;
        Rows {
            agents: vec![agent("kvm1", NOW - 2_000), agent("kvm2", NOW - 2_000)],
            power: Vec::new(),
            desktops: vec![d],
            pinned: HashSet::new(),
            samples: BTreeMap::from([
                samples("host/kvm1", 0..10, 60.0),
                samples("host/kvm2", 0..10, 5.0),
                samples("desktop/d1", 0..10, 50.0),
            ]),
            moved: Vec::new(),
            move_mbit_per_s: 800,
            seats: 10,
            last_acted: None,
        }
    }

    fn cluster(rows: &Rows) -> Cluster {
        Cluster::of(rows, |_, _| None, &Allocation::default(), NOW)
    }

    fn why_of(rows: &Rows, host: &str, mode: Mode) -> String {
        let policy = PlanPolicy {
            overcommit: 8.0,
            ..PlanPolicy::of(mode)
        };
        let plan = cluster(rows).plan(&policy, NOW).unwrap();
        assert!(plan.is_empty(), "{plan:?}");
        plan.not_done
            .iter()
            .filter(|n| n.what == host)
            .map(|n| n.why.clone())
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn what_was_measured_is_averaged_and_clocks_of_hosts_do_not_matter() {
        let rows = rows();
        let snapshot = cluster(&rows).snapshot;
        snapshot.check().unwrap();
        let host = &snapshot.hosts[0];
        assert_eq!(host.cpu_percent, Some(60.0));
        assert_eq!(host.cpu_samples.len(), 10);
        assert_eq!(host.measured_at, Some(NOW));
        let desktop = &snapshot.desktops[0];
        assert_eq!(desktop.private_mib, Some(100));
        assert_eq!(desktop.cpu_percent, Some(50.0));
        assert_eq!(desktop.moves_by, Some(placement::MovesBy::Delta));
        // Nothing is known of what travels; the bandwidth is what was set.
        assert_eq!(desktop.move_mib, None);
        assert_eq!(snapshot.move_mbit_per_s, Some(800.0));
        // It takes nearly all of its memory: it shares none.
        let mut cold = rows;
        cold.desktops[0].size.memory_mib = 110;
        let snapshot = cluster(&cold).snapshot;
        assert_eq!(snapshot.desktops[0].private_mib, None);
        assert_eq!(
            snapshot.desktops[0].moves_by,
            Some(placement::MovesBy::Migration)
        );
    }

    #[test]
    fn shorter_averages_are_of_fewer_samples_and_pins_are_known() {
        let mut rows = rows();
        rows.samples.extend([
            samples("host/kvm1", 0..2, 90.0),
            samples("desktop/d1", 0..1, 80.0),
        ]);
        rows.pinned.insert("d1".parse().unwrap());
        let of = |minutes| {
            let settings = Allocation {
                average_minutes: minutes,
                ..Allocation::default()
            };
            Cluster::of(&rows, |_, _| None, &settings, NOW).snapshot
        };
        assert_eq!(of(10).hosts[0].cpu_percent, None);
        let short = of(2);
        assert_eq!(short.hosts[0].cpu_percent, Some(90.0));
        assert_eq!(short.hosts[1].cpu_samples.len(), 3);
        assert_eq!(short.desktops[0].cpu_percent, Some(80.0));
        assert!(short.desktops[0].pinned);
    }

    #[test]
    fn nothing_is_decided_on_stale_measurements() {
        let mut rows = rows();
        // Its agent answers and measures nothing any more.
        rows.samples.extend([
            samples("host/kvm1", 4..10, 95.0),
            samples("host/kvm2", 4..10, 1.0),
        ]);
        for mode in [Mode::MemoryBalance, Mode::ComputeBalance, Mode::PowerSaving] {
            let why = why_of(&rows, "kvm1", mode);
            assert!(why.contains("left as it is"), "{mode}: {why}");
        }
        // Too few are no average.
        rows.samples.extend([
            samples("host/kvm1", 0..3, 95.0),
            samples("host/kvm2", 0..3, 1.0),
        ]);
        assert_eq!(cluster(&rows).snapshot.hosts[0].cpu_percent, None);
        // Right after it came up there is none yet, and it is measured all the same.
        rows.samples.clear();
        let mut row = Power::new("kvm1".parse().unwrap(), NOW - 60_000);
        row.heard_since = Some(NOW - 60_000);
        rows.power = vec![row];
        assert_eq!(cluster(&rows).snapshot.hosts[0].measured_at, Some(NOW));
    }

    #[test]
    fn a_host_that_flaps_or_is_silent_takes_no_part_and_it_is_said_why() {
        let mut rows = rows();
        let mut row = Power::new("kvm1".parse().unwrap(), 0);
        row.failure = "its agent was not heard for a while".into();
        row.failed_at = Some(NOW - 30_000);
        rows.power = vec![row];
        let why = why_of(&rows, "kvm1", Mode::PowerSaving);
        assert!(why.contains("not heard for a while"), "{why}");
        rows.agents[0].heard = Some(NOW - 60_000);
        let why = why_of(&rows, "kvm1", Mode::PowerSaving);
        assert!(why.contains("not heard"), "{why}");
    }

    #[test]
    fn what_is_said_to_be_on_a_host_that_is_off_is_left_out() {
        let mut rows = rows();
        let mut row = Power::new("kvm1".parse().unwrap(), 0);
        row.become_(State::Off, NOW - 60_000);
        row.failed_at = Some(NOW - 60_000);
        row.failure = "it did not come up within 300 s".into();
        rows.power = vec![row];
        let snapshot = cluster(&rows).snapshot;
        snapshot.check().unwrap();
        assert!(snapshot.desktops.is_empty());
        assert_eq!(snapshot.hosts[0].power, placement::Power::Off);
        // It could not be switched on, so it is not tried again at once.
        assert_eq!(snapshot.hosts[0].switchable, Some(false));
        let tried = cluster(&rows).remarks;
        assert!(tried[0].why.contains("did not come up"), "{tried:?}");
    }
}
