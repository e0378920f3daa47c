//! Plans against exact answers: everything there is, tried.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

mod common;
use common::*;
use lyceum_placement::*;

fn cluster(memory: &[u64], desktops: &[(u64, usize)]) -> Option<Snapshot> {
    let mut snapshot = Snapshot {
        hosts: memory
            .iter()
            .enumerate()
            .map(|(i, m)| host(&format!("h{i}"), None, m * 1024))
            .collect(),
        ..Snapshot::default()
    };
    let mut free: Vec<u64> = memory.to_vec();
    for (i, (size, at)) in desktops.iter().enumerate() {
        let at = at % memory.len();
        free[at] = free[at].checked_sub(*size)?;
        snapshot
            .desktops
            .push(desktop(format!("d{i}"), &format!("h{at}"), size * 1024));
    }
    Some(snapshot)
}

/// Calls `see` with every way to place the desktops that fits.
fn every_way(memory: &[u64], sizes: &[u64], see: &mut dyn FnMut(&[usize], &[u64])) {
    fn go(
        memory: &[u64],
        sizes: &[u64],
        at: &mut Vec<usize>,
        used: &mut Vec<u64>,
        see: &mut dyn FnMut(&[usize], &[u64]),
    ) {
        if at.len() == sizes.len() {
            see(at, used);
            return;
        }
        let size = sizes[at.len()];
        for h in 0..memory.len() {
            if used[h] + size <= memory[h] {
                used[h] += size;
                at.push(h);
                go(memory, sizes, at, used, see);
                at.pop();
                used[h] -= size;
            }
        }
    }
    go(
        memory,
        sizes,
        &mut Vec::new(),
        &mut vec![0; memory.len()],
        see,
    );
}

fn home(desktops: &[(u64, usize)], hosts: usize) -> Vec<usize> {
    desktops.iter().map(|(_, at)| at % hosts).collect()
}

fn moves(from: &[usize], to: &[usize]) -> usize {
    from.iter().zip(to).filter(|(a, b)| a != b).count()
}

/// The same pseudo random numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
    fn desktops(&mut self, most: u64, hosts: u64) -> Vec<(u64, usize)> {
        (0..self.below(most) + 1)
            .map(|_| (1 + self.below(6), self.below(hosts) as usize))
            .collect()
    }
}

const CASES: usize = 400;

/// Power saving: the fewest hosts there are, and for these hardly ever more than the fewest moves.
#[test]
fn power_saving_finds_the_fewest_hosts_and_moves() {
    let mut random = Random(7);
    let (mut cases, mut right, mut ours, mut fewest) = (0, 0, 0, 0);
    while cases < CASES {
        let memory: Vec<u64> = (0..2 + random.below(3))
            .map(|_| 8 + random.below(16))
            .collect();
        let desktops = random.desktops(7, memory.len() as u64);
        let Some(snapshot) = cluster(&memory, &desktops) else {
            continue;
        };
        cases += 1;
        let policy = PlanPolicy {
            off_threshold_seats: 0,
            on_threshold_seats: 0,
            ..PlanPolicy::of(Mode::PowerSaving)
        };
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &plan).unwrap();
        let sizes: Vec<u64> = desktops.iter().map(|(s, _)| *s).collect();
        let home = home(&desktops, memory.len());
        let mut best = (usize::MAX, usize::MAX);
        every_way(&memory, &sizes, &mut |at, used| {
            // One host stays on in any case.
            let hosts = used.iter().filter(|u| **u > 0).count().max(1);
            best = best.min((hosts, moves(&home, at)));
        });
        assert!(plan.after.hosts_on <= best.0 + 1);
        if plan.after.hosts_on == best.0 {
            right += 1;
            ours += plan.moves.len();
            fewest += best.1;
        }
    }
    println!("fewest hosts in {right} of {cases}, {ours} moves, {fewest} are the fewest");
    assert!(right * 100 >= cases * 95, "{right} of {cases}");
    assert!(
        ours * 100 <= fewest * 105,
        "{ours} moves, {fewest} are the fewest"
    );
}

/// Memory balance of mixed sizes: what its moves reach is seldom to be had better for as many.
#[test]
fn memory_balance_is_seldom_beaten_with_as_many_moves() {
    let mut random = Random(11);
    let memory = [32, 32, 32];
    let (mut cases, mut best_of_all, mut behind, mut made) = (0, 0, 0.0, 0);
    while cases < CASES {
        let desktops = random.desktops(8, 3);
        let Some(snapshot) = cluster(&memory, &desktops) else {
            continue;
        };
        cases += 1;
        let policy = PlanPolicy::of(Mode::MemoryBalance);
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &plan).unwrap();
        assert!(plan.after.spread_percent <= plan.before.spread_percent + 0.01);
        let sizes: Vec<u64> = desktops.iter().map(|(s, _)| *s).collect();
        let home = home(&desktops, 3);
        let mut best = f64::INFINITY;
        every_way(&memory, &sizes, &mut |at, used| {
            if moves(&home, at) <= plan.moves.len() {
                let mean = used.iter().sum::<u64>() as f64 / 3.0;
                let spread = used.iter().map(|u| (*u as f64 - mean).powi(2)).sum::<f64>() / 3.0;
                best = best.min(spread.sqrt() / 32.0 * 100.0);
            }
        });
        best_of_all += usize::from(plan.after.spread_percent <= best + 0.01);
        behind += plan.after.spread_percent - best;
        made += plan.moves.len();
    }
    let behind = behind / cases as f64;
    println!(
        "{made} moves, the best for as many in {best_of_all} of {cases}, {behind:.3} % points behind in the mean"
    );
    assert!(best_of_all * 100 >= cases * 85, "{best_of_all} of {cases}");
    assert!(behind < 0.3, "{behind}");
}

/// Larger than can be tried out: the volume bound says that no plan has fewer hosts.
#[test]
fn power_saving_reaches_the_volume_bound() {
    let mut random = Random(13);
    let mut at_bound = 0;
    const CLUSTERS: usize = 40;
    for _ in 0..CLUSTERS {
        let hosts = 5 + random.below(20) as usize;
        let memory = vec![64; hosts];
        let mut free = memory.clone();
        let mut desktops = Vec::new();
        for _ in 0..hosts * 8 {
            let (size, at) = (1 + random.below(8), random.below(hosts as u64) as usize);
            if free[at] >= size {
                free[at] -= size;
                desktops.push((size, at));
            }
        }
        let snapshot = cluster(&memory, &desktops).unwrap();
        let policy = PlanPolicy {
            off_threshold_seats: 0,
            on_threshold_seats: 0,
            ..PlanPolicy::of(Mode::PowerSaving)
        };
        let plan = plan(&snapshot, &policy, NOW).unwrap();
        verify(&snapshot, &policy, &plan).unwrap();
        let volume: u64 = desktops.iter().map(|(s, _)| s).sum();
        let bound = volume.div_ceil(64) as usize;
        assert!(plan.after.hosts_on <= bound + 1);
        at_bound += usize::from(plan.after.hosts_on == bound);
    }
    assert!(at_bound * 100 >= CLUSTERS * 95, "{at_bound} of {CLUSTERS}");
}
