//! Random clusters, and a second opinion on plans: the rules written down once more, plainly.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use lyceum_placement::*;
use proptest::prelude::*;
use std::collections::HashMap;

pub const NOW: i64 = 1_800_000_000_000;

pub fn host(id: &str, seats: Option<u32>, memory: u64) -> Host {
    Host {
        id: id.into(),
        memory_mib: memory,
        seats,
        cpu_cores: Some(8.0),
        cpu_percent: Some(10.0),
        watts: Some(130.0),
        ..Host::default()
    }
}

pub fn desktop(id: impl Into<String>, host: &str, memory: u64) -> Desktop {
    Desktop {
        id: id.into(),
        host: Some(host.into()),
        memory_mib: memory,
        cpu_percent: Some(5.0),
        ..Desktop::default()
    }
}

/// Hosts of 20 seats and 64 GiB with so many desktops of 2 GiB each.
pub fn classroom(counts: &[u32]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut n = 0;
    for (i, count) in counts.iter().enumerate() {
        let id = format!("kvm{}", i + 1);
        snapshot.hosts.push(host(&id, Some(20), 65536));
        for _ in 0..*count {
            n += 1;
            snapshot.desktops.push(desktop(format!("d{n}"), &id, 2048));
        }
    }
    snapshot
}

pub fn counts(snapshot: &Snapshot) -> Vec<u32> {
    snapshot
        .hosts
        .iter()
        .map(|h| {
            snapshot
                .desktops
                .iter()
                .filter(|d| d.host.as_ref() == Some(&h.id))
                .count() as u32
        })
        .collect()
}

/// Carries a plan out step by step on a model of its own and says what is wrong with it.
pub fn verify(snapshot: &Snapshot, policy: &PlanPolicy, plan: &Plan) -> Result<(), String> {
    let hosts: HashMap<&str, &Host> = snapshot.hosts.iter().map(|h| (h.id.as_str(), h)).collect();
    let desktops: HashMap<&str, &Desktop> = snapshot
        .desktops
        .iter()
        .map(|d| (d.id.as_str(), d))
        .collect();
    let mut place: HashMap<&str, (String, u64)> = HashMap::new();
    for d in &snapshot.desktops {
        if let Some(h) = &d.host {
            place.insert(&d.id, (h.clone(), d.private_mib.unwrap_or(d.memory_mib)));
        }
    }
    let after_move = |d: &Desktop| match d.way() {
        MovesBy::Delta => d.private_mib.unwrap_or(d.memory_mib),
        MovesBy::Migration => d.memory_mib,
    };
    for step in &plan.moves {
        let d = desktops
            .get(step.desktop.as_str())
            .ok_or("an unknown desktop moves")?;
        let to = hosts
            .get(step.to.as_str())
            .ok_or("an unknown host is a target")?;
        let from = hosts
            .get(step.from.as_str())
            .ok_or("an unknown host is a source")?;
        let say = |what: &str| {
            Err(format!(
                "{} {} -> {}: {what}",
                step.desktop, step.from, step.to
            ))
        };
        let (is, _) = place
            .get(step.desktop.as_str())
            .ok_or("it does not run")?
            .clone();
        if is != step.from || step.from == step.to {
            return say("it is not there");
        }
        if step.reason.is_empty() {
            return say("no reason");
        }
        if d.pinned || d.movable == Some(false) || d.moving_to.is_some() {
            return say("it must stay");
        }
        if to.power != Power::On || to.standing != Standing::Active || to.reserve {
            return say("the target takes nothing");
        }
        for h in [to, from] {
            if h.measured_at
                .is_some_and(|at| NOW - at > 180_000 || at > NOW + 60_000)
            {
                return say("stale");
            }
        }
        if from.standing == Standing::Maintenance {
            return say("the source is in maintenance");
        }
        if d.cpu_model.is_some() && to.cpu_model.is_some() && d.cpu_model != to.cpu_model {
            return say("CPU model");
        }
        if let (Some(r), Some(held)) = (&d.release, &to.releases)
            && !held.contains(r)
        {
            return say("release");
        }
        let arriving = || {
            snapshot
                .desktops
                .iter()
                .filter(|x| x.moving_to.as_ref() == Some(&to.id) && x.host.as_ref() != Some(&to.id))
        };
        let there: Vec<(&&str, &(String, u64))> =
            place.iter().filter(|(_, (h, _))| *h == to.id).collect();
        let count = there.len() + arriving().count();
        if to.seats.is_some_and(|s| count as u32 >= s) {
            return say("no seat");
        }
        let used: u64 = there.iter().map(|(_, (_, cost))| cost).sum::<u64>()
            + arriving().map(after_move).sum::<u64>();
        if used + after_move(d) > to.memory_mib - to.reserved_mib {
            return say("no memory");
        }
        if policy.spread_owner == Spread::Require && d.owner.is_some() {
            let kin = |h: &str| {
                place
                    .iter()
                    .filter(|(id, (at, _))| {
                        at == h && **id != d.id && desktops[**id].owner == d.owner
                    })
                    .count()
                    + snapshot
                        .desktops
                        .iter()
                        .filter(|x| {
                            x.moving_to.as_deref() == Some(h)
                                && x.host.as_deref() != Some(h)
                                && x.id != d.id
                                && x.owner == d.owner
                        })
                        .count()
            };
            if kin(&to.id) > kin(&step.from) {
                return say("more kin there");
            }
        }
        if policy.spread_course == Spread::Require && d.course.is_some() {
            let classmates = |h: &str| {
                snapshot
                    .desktops
                    .iter()
                    .filter(|x| x.id != d.id && x.course == d.course)
                    .filter(|x| {
                        place.get(x.id.as_str()).is_some_and(|(at, _)| at == h)
                            || (x.moving_to.as_deref() == Some(h) && x.host.as_deref() != Some(h))
                    })
                    .count()
            };
            if classmates(&to.id) > classmates(&step.from) {
                return say("more of the same course there");
            }
        }
        let (_, now) = place.get(d.id.as_str()).ok_or("it does not run")?;
        match &step.price {
            None => return say("nobody knows what it costs"),
            Some(p) if p.memory_mib != after_move(d) || p.way != d.way() => {
                return say("another way, or other memory there than it is said to take");
            }
            Some(p) if p.more_mib != after_move(d).saturating_sub(*now) => {
                return say("what it shares no more is not what it is said to be");
            }
            Some(_) => {}
        }
        place.insert(&d.id, (step.to.clone(), after_move(d)));
    }
    for id in &plan.power_off {
        if place.values().any(|(h, _)| h == id)
            || snapshot
                .desktops
                .iter()
                .any(|d| d.moving_to.as_ref() == Some(id))
        {
            return Err(format!("{id} is switched off with desktops on it"));
        }
        let h = hosts
            .get(id.as_str())
            .ok_or("an unknown host is switched off")?;
        if h.power != Power::On || h.reserve || h.switchable == Some(false) {
            return Err(format!("{id} must not be switched off"));
        }
    }
    for id in &plan.power_on {
        if hosts.get(id.as_str()).is_none_or(|h| h.power != Power::Off) {
            return Err(format!("{id} can't be switched on"));
        }
    }
    Ok(())
}

prop_compose! {
    fn any_host()(
        power in prop_oneof![8 => Just(Power::On), 2 => Just(Power::Off)],
        memory in 4u64..48,
        reserved in 0u64..2048,
        seats in prop_oneof![Just(None), (0u32..24).prop_map(Some)],
        cpu in proptest::option::weighted(0.9, 0.0f64..100.0),
        samples in prop_oneof![4 => Just(vec![]), 1 => proptest::collection::vec(0.0f64..100.0, 10)],
        model in prop_oneof![6 => Just(None), 1 => Just(Some("a")), 1 => Just(Some("b"))],
        releases in prop_oneof![6 => Just(None), 1 => Just(Some(vec!["r1".to_string()]))],
        standing in prop_oneof![10 => Just(Standing::Active), 1 => Just(Standing::Draining), 1 => Just(Standing::Maintenance)],
        odd in 0u32..24,
        since in proptest::option::weighted(0.2, 0i64..7_200_000),
        watts in 50u32..300,
    ) -> Host {
        Host {
            id: String::new(),
            power,
            memory_mib: memory * 1024,
            reserved_mib: reserved,
            cpu_cores: Some(8.0),
            seats,
            cpu_percent: cpu,
            cpu_samples: samples,
            watts: Some(f64::from(watts)),
            cpu_model: model.map(str::to_owned),
            releases,
            standing,
            reserve: odd == 0,
            group: (odd % 2 == 0).then(|| "left".to_owned()),
            switchable: (odd == 1).then_some(false),
            since: since.map(|s| NOW - s),
            measured_at: match odd { 2 => Some(NOW - 900_000), 3 => Some(NOW + 900_000), _ => None },
        }
    }
}

prop_compose! {
    fn any_desktop()(
        at in 0usize..64,
        memory in prop_oneof![3 => (1u64..9).prop_map(|n| n * 512), 1 => 300u64..6000],
        private in proptest::option::weighted(0.3, 16u64..200),
        migrates in proptest::bool::weighted(0.2),
        travels in proptest::option::weighted(0.3, 0.0f64..900.0),
        vcpus in 1u32..5,
        cpu in 0.0f64..100.0,
        odd in 0u32..30,
        owner in proptest::option::of(0u32..12),
        model in prop_oneof![8 => Just(None), 1 => Just(Some("a")), 1 => Just(Some("b"))],
        release in prop_oneof![3 => Just(None), 1 => Just(Some("r1")), 1 => Just(Some("r2"))],
        course in proptest::option::of(0u32..4),
        to in 0usize..64,
    ) -> (Desktop, usize, Option<usize>) {
        (Desktop {
            id: String::new(),
            host: None,
            memory_mib: memory,
            private_mib: private,
            moves_by: migrates.then_some(MovesBy::Migration),
            move_mib: travels,
            vcpus: Some(vcpus),
            cpu_percent: Some(cpu),
            movable: (odd == 0).then_some(false),
            pinned: odd == 1,
            owner: owner.map(|o| format!("s{o}")),
            course: course.map(|c| format!("c{c}")),
            release: release.map(str::to_owned),
            cpu_model: model.map(str::to_owned),
            moving_to: None,
        }, at, (odd == 2).then_some(to))
    }
}

/// Any cluster at all, most of them with something odd; some hosts may hold more than they should.
pub fn any_cluster() -> impl Strategy<Value = Snapshot> {
    (
        proptest::collection::vec(any_host(), 0..8),
        proptest::collection::vec(any_desktop(), 0..40),
    )
        .prop_map(|(mut hosts, desktops)| {
            for (i, h) in hosts.iter_mut().enumerate() {
                h.id = format!("h{i}");
            }
            let on: Vec<String> = hosts
                .iter()
                .filter(|h| h.power == Power::On)
                .map(|h| h.id.clone())
                .collect();
            let mut snapshot = Snapshot {
                hosts,
                ..Snapshot::default()
            };
            if on.is_empty() {
                return snapshot;
            }
            for (i, (mut d, at, to)) in desktops.into_iter().enumerate() {
                d.id = format!("d{i}");
                d.host = Some(on[at % on.len()].clone());
                d.moving_to = to.map(|t| on[t % on.len()].clone());
                d.private_mib = d.private_mib.map(|p| p.min(d.memory_mib));
                snapshot.desktops.push(d);
            }
            snapshot
        })
}

pub fn any_policy() -> impl Strategy<Value = PlanPolicy> {
    (
        proptest::sample::select(&Mode::ALL[1..]),
        0u32..30,
        0u32..10,
        0u32..4,
        proptest::sample::select(&[Spread::Off, Spread::Prefer, Spread::Require][..]),
        proptest::sample::select(&[Spread::Off, Spread::Off, Spread::Prefer, Spread::Require][..]),
        proptest::sample::select(&[BalanceBy::Auto, BalanceBy::Seats, BalanceBy::Memory][..]),
    )
        .prop_map(
            |(mode, off, gap, min_hosts, spread_owner, spread_course, balance_by)| PlanPolicy {
                off_threshold_seats: off,
                on_threshold_seats: off.saturating_sub(gap),
                min_hosts,
                spread_owner,
                spread_course,
                balance_by,
                ..PlanPolicy::of(mode)
            },
        )
}
