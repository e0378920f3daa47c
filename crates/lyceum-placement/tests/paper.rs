//! The tables of the paper as golden plans.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
use common::*;
use lyceum_placement::*;

fn moves(plan: &Plan) -> Vec<String> {
    plan.moves
        .iter()
        .map(|m| format!("{} {}>{}", m.desktop, m.from, m.to))
        .collect()
}

#[test]
fn tables_1_and_2_eleven_four_five() {
    let snapshot = classroom(&[11, 4, 5]);
    for mode in [Mode::PowerSavingPaper, Mode::PowerSaving] {
        let policy = PlanPolicy::of(mode);
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &plan).unwrap();
        assert_eq!(
            moves(&plan),
            [
                "d12 kvm2>kvm3",
                "d13 kvm2>kvm3",
                "d14 kvm2>kvm3",
                "d15 kvm2>kvm3"
            ],
            "{mode}"
        );
        assert_eq!(
            (plan.power_off, plan.power_on),
            (vec!["kvm2".to_string()], vec![])
        );
        assert_eq!((plan.before.free_seats, plan.after.free_seats), (40, 20));
        assert_eq!((plan.before.watts, plan.after.watts), (390.0, 260.0));
        let after: Vec<u32> = plan.after.hosts.iter().map(|h| h.desktops).collect();
        assert_eq!(after, [11, 0, 9]);
    }
}

#[test]
fn table_3_fifteen_two_five() {
    let snapshot = classroom(&[15, 2, 5]);
    for mode in [Mode::MemoryBalancePaper, Mode::MemoryBalance] {
        let policy = PlanPolicy::of(mode);
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &plan).unwrap();
        assert_eq!(plan.moves.len(), 7, "{mode}");
        assert_eq!(counts(&snapshot.after(&plan, NOW)), [8, 7, 7], "{mode}");
    }
}

/// Table 4: five desktops compute at once on one of three hosts. The paper ended with three and two
/// together; here every one that gets a host of its own leaves.
#[test]
fn table_4_five_desktops_compute_on_one_of_three() {
    let mut snapshot = classroom(&[5, 0, 0]);
    for (h, cpu) in snapshot.hosts.iter_mut().zip([100.0, 3.0, 3.0]) {
        h.cpu_cores = Some(1.0);
        h.cpu_percent = Some(cpu);
        h.cpu_samples = vec![cpu; 10];
    }
    for d in &mut snapshot.desktops {
        d.cpu_percent = Some(19.5);
    }
    let policy = PlanPolicy::of(Mode::ComputeBalance);
    let plan = plan(&snapshot, &policy, NOW).unwrap();
    verify(&snapshot, &policy, &plan).unwrap();
    let counts = counts(&snapshot.after(&plan, NOW));
    // Time of one alone: 1. With n on one core each takes n.
    let mean = counts.iter().map(|n| f64::from(n * n)).sum::<f64>() / 5.0;
    assert!(mean <= 0.64 * 5.0, "{counts:?}: mean {mean}");
}

#[test]
fn the_papers_rule_stops_at_its_thresholds() {
    let policy = PlanPolicy::of(Mode::PowerSavingPaper);
    // 17 free without the third: stays.
    let plan_of = |counts: &[u32]| plan(&classroom(counts), &policy, NOW).unwrap();
    let plan = plan_of(&[11, 6, 6]);
    assert!(plan.is_empty(), "{plan:?}");
    assert!(plan.not_done.iter().any(|n| n.why.contains("17 seats")));
    // An empty host stays while the seats are wanted, and goes when they are not.
    assert!(plan_of(&[20, 3, 0]).power_off.is_empty());
    assert_eq!(plan_of(&[20, 2, 0]).power_off, ["kvm3"]);
    // Few free seats: one host is switched on.
    let mut full = classroom(&[20, 14, 0]);
    full.hosts[2].power = Power::Off;
    let plan = lyceum_placement::plan(&full, &policy, NOW).unwrap();
    assert_eq!(plan.power_on, ["kvm3"]);
    assert_eq!((plan.before.free_seats, plan.after.free_seats), (6, 26));
}
