//! What holds for any cluster.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
use common::*;
use lyceum_placement::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every step of every plan fits, and planning again on its result moves nothing.
    #[test]
    fn every_step_fits_and_the_result_is_stable(snapshot in any_cluster(), policy in any_policy()) {
        let first = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &first).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&plan(&snapshot, &policy, NOW).unwrap(), &first);
        // The paper's power saving follows its steps wherever they lead. A host that is switched on
        // may be what a host that is being drained waited for.
        let drains = snapshot.hosts.iter().any(|h| h.standing == Standing::Draining);
        if policy.mode != Mode::PowerSavingPaper && (!drains || first.power_on.is_empty()) {
            let mut next = snapshot.after(&first, NOW);
            next.last_acted_at = None;
            let again = plan(&next, &policy, NOW).unwrap();
            prop_assert!(again.is_empty(), "{first:#?}\n{again:#?}");
        }
        // An empty plan says why it is empty.
        prop_assert!(!first.is_empty() || !first.not_done.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Equal sizes: counts are even, with exactly Σ max(0, now − wanted) moves.
    #[test]
    fn equal_sizes_take_the_fewest_moves(counts in proptest::collection::vec(0u32..30, 2..12)) {
        let mut snapshot = classroom(&counts);
        for h in &mut snapshot.hosts {
            h.seats = Some(30);
        }
        let policy = PlanPolicy::of(Mode::MemoryBalance);
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &plan).map_err(TestCaseError::fail)?;
        let after = common::counts(&snapshot.after(&plan, NOW));
        prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1);
        let n: u32 = counts.iter().sum();
        let (q, r) = (n / counts.len() as u32, n as usize % counts.len());
        let mut sorted = counts.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let fewest: u32 = sorted.iter().enumerate()
            .map(|(i, c)| c.saturating_sub(q + u32::from(i < r))).sum();
        prop_assert_eq!(plan.moves.len() as u32, fewest);
    }

    /// Equal sizes on hosts that differ: against all distributions there are.
    #[test]
    fn equal_sizes_on_unequal_hosts_match_the_oracle(
        counts in proptest::collection::vec(0u32..5, 3),
        memory in proptest::collection::vec(10u64..40, 3),
    ) {
        let mut snapshot = classroom(&counts);
        for (h, m) in snapshot.hosts.iter_mut().zip(&memory) {
            h.memory_mib = m * 1024;
            h.seats = None;
        }
        let policy = PlanPolicy::of(Mode::MemoryBalance);
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        let n: u32 = counts.iter().sum();
        let total: u64 = memory.iter().sum();
        let mean = f64::from(n) * 2.0 / total as f64;
        let cost = |c: &[u32]| -> f64 {
            c.iter().zip(&memory).map(|(c, m)| (f64::from(*c) * 2.0 / *m as f64 - mean).powi(2)).sum()
        };
        let mut best = (f64::INFINITY, u32::MAX);
        for a in 0..=n {
            for b in 0..=n - a {
                let c = [a, b, n - a - b];
                if c.iter().zip(&memory).any(|(c, m)| u64::from(*c) * 2 > *m) { continue; }
                let moves: u32 = counts.iter().zip(&c).map(|(now, then)| now.saturating_sub(*then)).sum();
                let cost = cost(&c);
                if cost < best.0 - 1e-9 || (cost < best.0 + 1e-9 && moves < best.1) {
                    best = (cost, moves);
                }
            }
        }
        prop_assume!(counts.iter().zip(&memory).all(|(c, m)| u64::from(*c) * 2 <= *m));
        let after = common::counts(&snapshot.after(&plan, NOW));
        prop_assert!(cost(&after) < best.0 + 1e-9);
        prop_assert_eq!(plan.moves.len() as u32, best.1);
    }
}
