//! What each mode does, and what it says when it does nothing.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

mod common;
use common::*;
use lyceum_placement::*;

fn plan_of(snapshot: &Snapshot, policy: &PlanPolicy) -> Plan {
    let plan = plan(snapshot, policy, NOW).unwrap();
    verify(snapshot, policy, &plan).unwrap();
    plan
}

fn says(plan: &Plan, what: &str, why: &str) {
    assert!(
        plan.not_done
            .iter()
            .any(|n| n.what.contains(what) && n.why.contains(why)),
        "{what}: {why} is not in {:#?}",
        plan.not_done
    );
}

/// Three hosts; the first is busy with one heavy desktop and nine light ones.
fn busy() -> Snapshot {
    let mut snapshot = classroom(&[10, 2, 2]);
    for (h, cpu) in snapshot.hosts.iter_mut().zip([92.0, 10.0, 10.0]) {
        h.cpu_percent = Some(cpu);
        h.cpu_samples = vec![cpu; 10];
    }
    for d in &mut snapshot.desktops {
        d.cpu_percent = Some(20.0);
        d.vcpus = Some(1);
    }
    snapshot.desktops[0].cpu_percent = Some(98.0);
    snapshot
}

#[test]
fn heavy_desktops_stay_and_light_ones_leave() {
    let snapshot = busy();
    let plan = plan_of(&snapshot, &PlanPolicy::of(Mode::ComputeBalance));
    assert!(!plan.moves.is_empty());
    assert!(
        plan.moves
            .iter()
            .all(|m| m.from == "kvm1" && m.desktop != "d1")
    );
    assert!(plan.after.hosts[0].cpu_percent.unwrap() <= 80.0);
    // No more than it takes.
    assert_eq!(plan.moves.len(), 5, "{:#?}", plan.moves);
}

#[test]
fn compute_balance_says_why_not() {
    let policy = PlanPolicy::of(Mode::ComputeBalance);
    let mut peak = busy();
    peak.hosts[0].cpu_samples = vec![99.0, 99.0, 99.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0];
    says(&plan_of(&peak, &policy), "kvm1", "peak");

    let mut none_heavy = busy();
    none_heavy.hosts[0].cpu_percent = Some(85.0);
    none_heavy.desktops[0].cpu_percent = Some(50.0);
    says(
        &plan_of(&none_heavy, &policy),
        "kvm1",
        "nobody to make room for",
    );

    let mut calm = busy();
    calm.hosts[0].cpu_percent = Some(79.0);
    says(&plan_of(&calm, &policy), "balance", "below the threshold");

    let mut all_busy = busy();
    all_busy.hosts[1].cpu_percent = Some(50.0);
    all_busy.hosts[2].cpu_percent = Some(50.0);
    says(
        &plan_of(&all_busy, &policy),
        "kvm1",
        "no host is below 30 %",
    );

    let mut small_targets = busy();
    for h in &mut small_targets.hosts[1..] {
        h.cpu_cores = Some(0.25);
        h.cpu_percent = Some(25.0);
    }
    let plan = plan_of(&small_targets, &policy);
    assert!(plan.moves.is_empty(), "{:#?}", plan.moves);
    says(
        &plan,
        "d2",
        "target would pass the high mark: kvm2 would be at 105 %",
    );

    let mut idle_light = busy();
    for d in &mut idle_light.desktops[1..] {
        d.cpu_percent = Some(1.0);
    }
    says(&plan_of(&idle_light, &policy), "kvm1", "gain less than 1 %");

    let mut unknown = busy();
    unknown.hosts[0].cpu_percent = None;
    let plan = plan_of(&unknown, &policy);
    assert!(plan.moves.is_empty());
    says(&plan, "kvm1", "not known");
}

#[test]
fn nothing_is_decided_on_stale_measurements_or_clocks_that_disagree() {
    for at in [NOW - 181_000, NOW + 61_000] {
        for mode in &Mode::ALL[1..] {
            let mut snapshot = classroom(&[15, 0, 0]);
            for h in &mut snapshot.hosts {
                h.measured_at = Some(at);
            }
            let plan = plan_of(&snapshot, &PlanPolicy::of(*mode));
            assert!(plan.is_empty(), "{mode}: {plan:#?}");
            says(
                &plan,
                "kvm1",
                if at < NOW {
                    "181 s old"
                } else {
                    "clocks disagree"
                },
            );
        }
    }
}

#[test]
fn a_pause_is_kept_unless_a_person_orders_it() {
    for mode in &Mode::ALL[1..] {
        let mut snapshot = classroom(&[15, 2, 5]);
        snapshot.hosts[0].cpu_percent = Some(90.0);
        snapshot.desktops[0].cpu_percent = Some(99.0);
        snapshot.last_acted_at = Some(NOW - 29 * 60_000);
        let mut policy = PlanPolicy::of(*mode);
        let plan = plan_of(&snapshot, &policy);
        assert!(plan.is_empty());
        says(&plan, mode.as_str(), "29 min ago");
        policy.ordered = true;
        let ordered = plan_of(&snapshot, &policy);
        snapshot.last_acted_at = Some(NOW - 30 * 60_000);
        policy.ordered = false;
        assert_eq!(plan_of(&snapshot, &policy), ordered);
        // A last time in the future is a clock that was set back.
        snapshot.last_acted_at = Some(NOW + 3_600_000);
        assert_eq!(plan_of(&snapshot, &policy).moves, ordered.moves);
    }
}

#[test]
fn power_saving_says_why_each_host_stays() {
    let policy = PlanPolicy::of(Mode::PowerSaving);
    let plan = plan_of(&classroom(&[11, 6, 6]), &policy);
    assert!(plan.is_empty());
    says(&plan, "kvm1", "17 seats would be free, and 18 are wanted");

    let mut pinned = classroom(&[11, 4, 5]);
    pinned.desktops[11].pinned = true;
    let plan = plan_of(&pinned, &policy);
    says(&plan, "kvm2", "d12 is on it: it is pinned");
    assert_eq!(plan.power_off, ["kvm3"]);

    let mut fresh = classroom(&[11, 4, 5]);
    fresh.hosts[0].since = Some(NOW - 60_000);
    let plan = plan_of(&fresh, &policy);
    assert!(plan.is_empty());
    says(&plan, "kvm1", "cooling down");

    let least = PlanPolicy {
        min_hosts: 3,
        ..policy.clone()
    };
    says(
        &plan_of(&classroom(&[11, 4, 5]), &least),
        "kvm1",
        "at least 3 stay on",
    );

    let mut switching = classroom(&[11, 4, 5, 0]);
    switching.hosts[3].power = Power::Starting;
    let plan = plan_of(&switching, &policy);
    assert!(plan.is_empty());
    says(&plan, "power", "one power action at a time");
}

#[test]
fn hosts_are_switched_on_when_seats_run_short() {
    let policy = PlanPolicy::of(Mode::PowerSaving);
    let mut snapshot = classroom(&[20, 14, 0, 0]);
    for h in &mut snapshot.hosts[2..] {
        h.power = Power::Off;
    }
    let plan = plan_of(&snapshot, &policy);
    assert_eq!(plan.power_on, ["kvm3"]);
    says(&plan, "kvm4", "stays off: 26 seats");
    // One that was switched off a moment ago is given time; then it's the other's turn.
    snapshot.hosts[2].since = Some(NOW - 60_000);
    let plan = plan_of(&snapshot, &policy);
    assert_eq!(plan.power_on, ["kvm4"]);
    says(&plan, "kvm3", "cooling down");
    // A host that flaps does not make the cluster flap.
    let after = snapshot.after(&plan, NOW);
    assert!(
        plan_of(
            &Snapshot {
                last_acted_at: None,
                ..after
            },
            &policy
        )
        .is_empty()
    );
}

#[test]
fn a_desktop_that_loses_its_shared_memory_needs_its_full_size() {
    let mut snapshot = classroom(&[3, 0]);
    snapshot.hosts[1].memory_mib = 2560;
    for h in &mut snapshot.hosts {
        h.seats = None;
    }
    for d in &mut snapshot.desktops {
        d.private_mib = Some(100);
        d.moves_by = Some(MovesBy::Migration);
    }
    let policy = PlanPolicy::of(Mode::MemoryBalance);
    let policy = PlanPolicy {
        balance_by: BalanceBy::Seats,
        ..policy
    };
    assert_eq!(plan_of(&snapshot, &policy).moves.len(), 1);
    snapshot.hosts[1].memory_mib = 2047;
    let plan = plan_of(&snapshot, &policy);
    assert!(plan.moves.is_empty());
    for d in &mut snapshot.desktops {
        d.moves_by = None;
    }
    assert_eq!(plan_of(&snapshot, &policy).moves.len(), 1);
}

#[test]
fn a_full_exchange_goes_by_way_of_a_third_host_or_not_at_all() {
    // Both hosts are full; the desktops can only change places, and only the even sizes gain by it.
    let exchange = |spare: u64| {
        let mut snapshot = Snapshot::default();
        for (id, memory) in [("a", 12_288), ("b", 12_288), ("c", spare)] {
            snapshot.hosts.push(host(id, None, memory));
        }
        for (id, at, size) in [
            ("a1", "a", 6144),
            ("a2", "a", 6144),
            ("b1", "b", 2048),
            ("b2", "b", 2048),
        ] {
            snapshot.desktops.push(desktop(id, at, size));
        }
        snapshot.hosts[0].seats = Some(2);
        snapshot.hosts[1].seats = Some(2);
        snapshot
    };
    let policy = PlanPolicy::of(Mode::MemoryBalance);
    let mut with = exchange(8192);
    with.hosts[2].standing = Standing::Active;
    assert!(!plan_of(&with, &policy).moves.is_empty());
    let without = exchange(1024);
    let plan = plan_of(&without, &policy);
    assert!(plan.moves.is_empty(), "{:#?}", plan.moves);
    says(
        &plan,
        "-> ",
        "no other host has room to make the exchange in steps",
    );
}

#[test]
fn waiting_desktops_get_places_apart_from_their_kin() {
    let mut snapshot = classroom(&[1, 1, 4]);
    for (i, owner) in ["s1", "s1", "s1", "s2"].into_iter().enumerate() {
        let mut d = desktop(format!("w{i}"), "", 2048);
        d.host = None;
        d.owner = Some(owner.into());
        snapshot.desktops.push(d);
    }
    let plan = plan_of(&snapshot, &PlanPolicy::of(Mode::Start));
    let places: Vec<&str> = plan.starts.iter().map(|s| s.host.as_str()).collect();
    assert_eq!(places, ["kvm1", "kvm2", "kvm3", "kvm1"]);
    let mut giant = snapshot.clone();
    giant.desktops.last_mut().unwrap().memory_mib = 1 << 30;
    says(
        &plan_of(&giant, &PlanPolicy::of(Mode::Start)),
        "w3",
        "MiB are needed",
    );
}

#[test]
fn odd_clusters_are_answered() {
    for mode in Mode::ALL {
        let policy = PlanPolicy::of(mode);
        says(
            &plan_of(&Snapshot::default(), &policy),
            "cluster",
            "no hosts",
        );
        plan_of(&classroom(&[0]), &policy);
        plan_of(&classroom(&[20]), &policy);
        plan_of(&classroom(&[20, 20, 20]), &policy);
        // More than fits, and larger than any host.
        plan_of(&classroom(&[60, 0]), &policy);
        let mut giant = classroom(&[3, 1]);
        giant.desktops[0].memory_mib = 1 << 40;
        plan_of(&giant, &policy);
    }
}

#[test]
fn contradictions_are_errors_with_their_place() {
    let policy = PlanPolicy::of(Mode::ComputeBalance);
    let error = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = classroom(&[2, 1]);
        change(&mut snapshot);
        plan(&snapshot, &policy, NOW).unwrap_err().place
    };
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        assert_eq!(
            error(&|s| s.hosts[1].cpu_percent = Some(bad)),
            "hosts[1].cpu_percent"
        );
        assert_eq!(
            error(&|s| s.desktops[2].cpu_percent = Some(bad)),
            "desktops[2].cpu_percent"
        );
        assert_eq!(error(&|s| s.hosts[0].watts = Some(bad)), "hosts[0].watts");
        assert_eq!(
            error(&|s| s.hosts[0].cpu_samples = vec![1.0, bad]),
            "hosts[0].cpu_samples[1]"
        );
    }
    assert_eq!(error(&|s| s.hosts[1].id = "kvm1".into()), "hosts[1].id");
    assert_eq!(error(&|s| s.desktops[1].id = "d1".into()), "desktops[1].id");
    assert_eq!(
        error(&|s| s.desktops[1].host = Some("x".into())),
        "desktops[1].host"
    );
    assert_eq!(
        error(&|s| s.desktops[1].moving_to = Some("x".into())),
        "desktops[1].moving_to"
    );
    assert_eq!(
        error(&|s| s.hosts[0].power = Power::Off),
        "desktops[0].host"
    );
    assert_eq!(
        error(&|s| s.hosts[0].memory_mib = u64::MAX),
        "hosts[0].memory_mib"
    );
    let policy = PlanPolicy {
        cpu_high: f64::NAN,
        ..PlanPolicy::default()
    };
    assert_eq!(
        plan(&classroom(&[1]), &policy, NOW).unwrap_err().place,
        "policy.cpu_high"
    );
}

#[test]
fn a_course_is_kept_apart_as_far_as_the_policy_says() {
    // kvm1 has four desktops, two of each course; the two that go could both be of one.
    let mut snapshot = classroom(&[4, 0, 0]);
    for (d, course) in snapshot.desktops.iter_mut().zip(["a", "a", "b", "b"]) {
        d.course = Some(course.into());
    }
    let per_host = |spread| {
        let policy = PlanPolicy {
            spread_course: spread,
            ..PlanPolicy::of(Mode::MemoryBalance)
        };
        let after = snapshot.after(&plan_of(&snapshot, &policy), NOW);
        assert!(counts(&after).iter().all(|n| *n <= 2));
        let most = |h: &Host| {
            ["a", "b"]
                .map(|c| {
                    let of = |d: &&Desktop| {
                        d.host.as_ref() == Some(&h.id) && d.course.as_deref() == Some(c)
                    };
                    after.desktops.iter().filter(of).count()
                })
                .into_iter()
                .max()
        };
        after.hosts.iter().filter_map(most).max().unwrap()
    };
    assert_eq!(per_host(Spread::Prefer), 1);
    assert_eq!(per_host(Spread::Require), 1);
    // Where nothing else is to be had it is said why.
    let mut two = classroom(&[2, 1]);
    for d in &mut two.desktops {
        d.course = Some("a".into());
    }
    two.desktops[2].movable = Some(false);
    two.hosts[0].standing = Standing::Draining;
    let policy = PlanPolicy {
        spread_course: Spread::Require,
        ..PlanPolicy::of(Mode::MemoryBalance)
    };
    let plan = plan_of(&two, &policy);
    // One may go: there are as many of its course there as where it comes from. The other not.
    assert_eq!(plan.moves.len(), 1, "{plan:#?}");
    says(&plan, "d2", "more desktops of the same course are there");
}

#[test]
fn hosts_of_one_group_are_switched_one_at_a_time_and_those_in_reserve_stay_as_they_are() {
    let policy = PlanPolicy::of(Mode::PowerSaving);
    let mut snapshot = classroom(&[20, 14, 0, 0, 0]);
    for h in &mut snapshot.hosts[2..] {
        h.power = Power::Off;
        h.group = Some("fuse".into());
    }
    snapshot.hosts[2].power = Power::Starting;
    // What comes already is enough; without it the next of its group has to wait for it.
    assert!(plan_of(&snapshot, &policy).is_empty());
    snapshot.hosts[2].standing = Standing::Maintenance;
    let plan = plan_of(&snapshot, &policy);
    assert!(plan.power_on.is_empty(), "{plan:#?}");
    says(&plan, "kvm4", "one power action at a time");
    snapshot.hosts[4].group = None;
    assert_eq!(plan_of(&snapshot, &policy).power_on, ["kvm5"]);
    // A reserve is neither filled, nor switched off, nor switched on.
    snapshot.hosts[4].reserve = true;
    says(&plan_of(&snapshot, &policy), "kvm5", "held in reserve");
    let mut spare = classroom(&[11, 4, 0]);
    spare.hosts[2].reserve = true;
    for mode in [Mode::PowerSaving, Mode::MemoryBalance] {
        let plan = plan_of(&spare, &PlanPolicy::of(mode));
        assert!(plan.power_off.iter().all(|h| h != "kvm3"), "{plan:#?}");
        assert!(plan.moves.iter().all(|m| m.to != "kvm3"), "{plan:#?}");
        says(&plan, "kvm3", "held in reserve");
    }
}
