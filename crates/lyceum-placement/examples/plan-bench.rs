//! How long plans take and how good they are, on clusters made from a fixed seed.
//!
//! `cargo run --release -p lyceum-placement --example plan-bench` prints one JSON object;
//! with `-- --compare DIR` also writes clusters for other balancers there (see scripts/bench-plan).
//! This is a program beside the crate: the crate itself does no I/O.
#![allow(missing_docs, clippy::expect_used)]

use lyceum_placement::*;
use std::fmt::Write as _;
use std::time::Instant;

/// A small generator of pseudo random numbers: the same clusters on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Desktops of these sizes on hosts of one size; low numbers get more of them.
fn cluster(random: &mut Random, hosts: u64, desktops: u64, memory: u64, sizes: &[u64]) -> Snapshot {
    let mut snapshot = Snapshot {
        hosts: (0..hosts)
            .map(|i| Host {
                id: format!("h{i:04}"),
                memory_mib: memory,
                watts: Some(130.0),
                ..Host::default()
            })
            .collect(),
        ..Snapshot::default()
    };
    let mut used = vec![0; hosts as usize];
    for i in 0..desktops {
        let size = sizes[random.below(sizes.len() as u64) as usize];
        // Skewed: the smaller of two draws. When that host is full, the next with room.
        let mut at = random.below(hosts).min(random.below(hosts)) as usize;
        for _ in 0..hosts {
            if used[at] + size <= memory {
                break;
            }
            at = (at + 1) % hosts as usize;
        }
        used[at] += size;
        snapshot.desktops.push(Desktop {
            id: format!("d{i:05}"),
            host: Some(format!("h{at:04}")),
            memory_mib: size,
            ..Desktop::default()
        });
    }
    snapshot
}

const MIXED: &[u64] = &[1024, 1536, 2048, 3072, 4096, 6144, 8192];

fn policy(mode: Mode) -> PlanPolicy {
    PlanPolicy {
        off_threshold_seats: 0,
        on_threshold_seats: 0,
        ..PlanPolicy::of(mode)
    }
}

fn spread(snapshot: &Snapshot) -> f64 {
    let loads: Vec<f64> = snapshot
        .hosts
        .iter()
        .map(|h| {
            let used: u64 = snapshot
                .desktops
                .iter()
                .filter(|d| d.host.as_ref() == Some(&h.id))
                .map(|d| d.memory_mib)
                .sum();
            used as f64 / h.memory_mib as f64 * 100.0
        })
        .collect();
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    (loads.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / loads.len() as f64).sqrt()
}

fn timed(snapshot: &Snapshot, mode: Mode) -> (Plan, f64) {
    let begin = Instant::now();
    let plan = plan(snapshot, &policy(mode), 0).expect("the clusters are right");
    (plan, begin.elapsed().as_secs_f64() * 1000.0)
}

fn row(name: &str, snapshot: &Snapshot, mode: Mode) -> String {
    let mut times: Vec<f64> = Vec::new();
    let mut last = None;
    for _ in 0..3 {
        let (plan, ms) = timed(snapshot, mode);
        times.push(ms);
        last = Some(plan);
    }
    let plan = last.expect("planned three times");
    times.sort_by(f64::total_cmp);
    format!(
        "{{\"case\":\"{name}\",\"mode\":\"{mode}\",\"hosts\":{},\"desktops\":{},\"moves\":{},\"hosts_on\":{},\"spread_before\":{:.3},\"spread_after\":{:.3},\"median_ms\":{:.1}}}",
        snapshot.hosts.len(),
        snapshot.desktops.len(),
        plan.moves.len(),
        plan.after.hosts_on,
        spread(snapshot),
        spread(&snapshot.after(&plan, 0)),
        times[1],
    )
}

/// The cluster as ganeti's tools read it: groups, nodes, instances, tags, policies.
fn ganeti(snapshot: &Snapshot) -> String {
    let mut out = String::from("default|uuid-default|preferred||\n\n");
    for h in &snapshot.hosts {
        let used: u64 = snapshot
            .desktops
            .iter()
            .filter(|d| d.host.as_ref() == Some(&h.id))
            .map(|d| d.memory_mib)
            .sum();
        let _ = writeln!(
            out,
            "{}|{}|0|{}|102400|102400|128|N|uuid-default|1||N|0|0|1.0",
            h.id,
            h.memory_mib,
            h.memory_mib - used
        );
    }
    out.push('\n');
    for d in &snapshot.desktops {
        let _ = writeln!(
            out,
            "{}|{}|0|{}|running|Y|{}||ext||1|-",
            d.id,
            d.memory_mib,
            // In proportion to memory, so that balancing processors is balancing memory.
            d.memory_mib / 512,
            d.host.as_deref().unwrap_or_default()
        );
    }
    out.push_str("\n\n");
    out
}

fn compare(dir: &str, n: u64) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut out = String::new();
    for i in 0..n {
        let mut random = Random(1000 + i);
        let hosts = 4 + random.below(17);
        let desktops = hosts * (4 + random.below(7));
        let snapshot = cluster(&mut random, hosts, desktops, 65536, MIXED);
        let (balance, balance_ms) = timed(&snapshot, Mode::MemoryBalance);
        let (saving, saving_ms) = timed(&snapshot, Mode::PowerSaving);
        std::fs::write(format!("{dir}/{i:03}.ganeti"), ganeti(&snapshot))?;
        let volume: u64 = snapshot.desktops.iter().map(|d| d.memory_mib).sum();
        let moves: Vec<String> = balance
            .moves
            .iter()
            .map(|m| format!("{} {}", m.desktop, m.to))
            .collect();
        let places: Vec<String> = snapshot
            .desktops
            .iter()
            .map(|d| {
                format!(
                    "{} {} {}",
                    d.id,
                    d.memory_mib,
                    d.host.as_deref().unwrap_or_default()
                )
            })
            .collect();
        let _ = writeln!(
            out,
            "{{\"case\":{i},\"hosts\":{hosts},\"desktops\":{desktops},\"memory_mib\":65536,\"before\":{:.4},\"spread\":{:.4},\"moves\":{},\"ms\":{balance_ms:.2},\"saving_hosts\":{},\"saving_bound\":{},\"saving_moves\":{},\"saving_ms\":{saving_ms:.2},\"places\":{places:?},\"plan\":{moves:?}}}",
            spread(&snapshot),
            spread(&snapshot.after(&balance, 0)),
            balance.moves.len(),
            saving.after.hosts_on,
            volume.div_ceil(65536),
            saving.moves.len(),
        );
    }
    std::fs::write(format!("{dir}/ours.jsonl"), out)
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir, n] = args.as_slice()
        && flag == "--compare"
    {
        return compare(dir, n.parse().unwrap_or(200));
    }
    let mut rows = Vec::new();
    let mut random = Random(1);
    let equal = cluster(&mut random, 1000, 20_000, 131_072, &[2048]);
    rows.push(row(
        "equal sizes, 1000 x 20000",
        &equal,
        Mode::MemoryBalance,
    ));
    let equal = cluster(&mut random, 40, 1600, 131_072, &[2048]);
    rows.push(row("equal sizes, 40 x 1600", &equal, Mode::MemoryBalance));
    let mixed = cluster(&mut random, 1000, 20_000, 131_072, MIXED);
    rows.push(row(
        "mixed sizes, 1000 x 20000",
        &mixed,
        Mode::MemoryBalance,
    ));
    for (hosts, desktops) in [(20, 200), (50, 700), (100, 1500)] {
        let mixed = cluster(&mut random, hosts, desktops, 131_072, MIXED);
        let name = format!("mixed sizes, {hosts} x {desktops}");
        rows.push(row(&name, &mixed, Mode::MemoryBalance));
        rows.push(row(&name, &mixed, Mode::PowerSaving));
        let volume: u64 = mixed.desktops.iter().map(|d| d.memory_mib).sum();
        rows.push(format!(
            "{{\"case\":\"{name}\",\"volume_bound_hosts\":{}}}",
            volume.div_ceil(131_072)
        ));
    }
    println!("[\n  {}\n]", rows.join(",\n  "));
    Ok(())
}
