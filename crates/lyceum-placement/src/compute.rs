//! Compute balance: heavy desktops stay and get room, the light ones beside them go to idle hosts.
//!
//! A host is *overloaded* when its ten-minute average is above the high mark and, where the
//! one-minute samples are there, most of them are: a peak is none. Its *heavy* desktops are those above
//! the high mark. On a host without spare time that mark can't be reached by many at once: they
//! hold each other back. So there, desktops that use about as much as the busiest one count as
//! heavy too, and when no light one is left to send away and they ask for more cores than the host has,
//! some of them go to idle hosts themselves.

use crate::plan::Draft;
use crate::world::World;

/// Above this a host has no time to spare, percent.
const NO_TIME_TO_SPARE: f64 = 90.0;
/// A desktop that uses this much of what the busiest beside it uses is held back like it.
const ABOUT_AS_MUCH: f64 = 0.75;
/// A heavy desktop goes only where it finds at least this much more of what it asks for.
const WORTH_MOVING_HEAVY: f64 = 1.5;

/// More rounds than ever needed: each sends desktops to hosts that are idle.
const ROUNDS: usize = 8;

pub(crate) fn run(draft: &mut Draft) {
    // What a move changes may bring the next to light; only what holds at the end is told.
    let mark = draft.mark();
    for _ in 0..ROUNDS {
        draft.forget_since(mark);
        let before = draft.moves.len();
        round(draft);
        if draft.moves.len() == before {
            break;
        }
    }
}

fn round(draft: &mut Draft) {
    let open = draft.world.open();
    let policy = draft.world.policy;
    for h in &open {
        if draft.world.hosts[*h].cpu.is_none() || draft.world.snapshot.hosts[*h].cpu_cores.is_none()
        {
            draft.not_done(
                draft.world.host_name(*h),
                "its CPU use or number of cores is not known, so nothing is decided about it",
            );
        }
    }
    let mut busy: Vec<usize> = Vec::new();
    for h in open.iter().copied() {
        let Some(cpu) = cpu(&draft.world, h) else {
            continue;
        };
        if cpu <= policy.cpu_high {
            continue;
        }
        let name = draft.world.host_name(h);
        if !lasts(draft, h) {
            draft.not_done(
                name,
                format!(
                    "its average of {cpu:.0} % is a peak: fewer than {:.0} % of its samples are above {:.0} %",
                    policy.cpu_lasting * 100.0,
                    policy.cpu_high
                ),
            );
        } else if heavy(&draft.world, h).is_empty() {
            draft.not_done(
                name,
                format!(
                    "it is at {cpu:.0} %, but none of its desktops is above {:.0} %: there is nobody to make room for",
                    policy.cpu_high
                ),
            );
        } else {
            busy.push(h);
        }
    }
    if busy.is_empty() {
        if draft.moves.is_empty() {
            draft.not_done(
                "balance",
                format!(
                    "below the threshold: no host is above {:.0} % for long with a heavy desktop on it",
                    policy.cpu_high
                ),
            );
        }
        return;
    }
    // Only hosts that are idle before anything moves take desktops.
    let idle: Vec<usize> = open
        .iter()
        .copied()
        .filter(|h| cpu(&draft.world, *h).is_some_and(|cpu| cpu < policy.cpu_low))
        .collect();
    busy.sort_by(|a, b| {
        cpu(&draft.world, *b)
            .unwrap_or(0.0)
            .total_cmp(&cpu(&draft.world, *a).unwrap_or(0.0))
            .then(a.cmp(b))
    });
    // How many cores the desktops on each host ask for.
    let mut asked: Vec<f64> = (0..draft.world.hosts.len())
        .map(|h| asked_cores(&draft.world, h))
        .collect();
    for h in busy {
        if idle.is_empty() {
            draft.not_done(
                draft.world.host_name(h),
                format!(
                    "no host is below {:.0} % and could take desktops",
                    policy.cpu_low
                ),
            );
            continue;
        }
        relieve(draft, h, &idle, &mut asked);
    }
}

/// What is known of a host's CPU, percent.
fn cpu(world: &World, h: usize) -> Option<f64> {
    world.snapshot.hosts[h].cpu_cores?;
    world.hosts[h].cpu
}

fn cores(world: &World, h: usize) -> f64 {
    world.snapshot.hosts[h].cpu_cores.unwrap_or(1.0)
}

/// Whether the overload is more than a peak. Where something moved, the samples say nothing more.
fn lasts(draft: &Draft, h: usize) -> bool {
    let world = &draft.world;
    let samples = &world.snapshot.hosts[h].cpu_samples;
    let touched = draft
        .moves
        .iter()
        .any(|(_, from, to, _)| *from == h || *to == h);
    if samples.is_empty() || touched {
        return true;
    }
    let above = samples
        .iter()
        .filter(|s| **s > world.policy.cpu_high)
        .count();
    above as f64 >= world.policy.cpu_lasting * samples.len() as f64
}

/// The heavy desktops of a host.
fn heavy(world: &World, h: usize) -> Vec<usize> {
    let high = world.policy.cpu_high;
    let members = &world.hosts[h].members;
    let percent = |d: &usize| world.snapshot.desktops[*d].cpu_percent.unwrap_or(0.0);
    let busiest = members.iter().map(percent).fold(0.0, f64::max);
    let full = cpu(world, h).is_some_and(|cpu| cpu >= NO_TIME_TO_SPARE);
    let asking: f64 = members
        .iter()
        .filter(|d| percent(d) >= busiest * ABOUT_AS_MUCH)
        .map(|d| vcpus(world, *d))
        .sum();
    // Without spare time the scheduler gives all that ask for more the same.
    let held_back = full && asking > cores(world, h) && busiest > 0.0;
    let mut all: Vec<usize> = members
        .iter()
        .copied()
        .filter(|d| percent(d) > high || (held_back && percent(d) >= busiest * ABOUT_AS_MUCH))
        .collect();
    all.sort_unstable();
    all
}

fn vcpus(world: &World, d: usize) -> f64 {
    f64::from(world.snapshot.desktops[d].vcpus.unwrap_or(1))
}

/// Cores that a host's desktops ask for: heavy ones all they have, the others what they use.
fn asked_cores(world: &World, h: usize) -> f64 {
    let heavy = heavy(world, h);
    world.hosts[h]
        .members
        .iter()
        .map(|d| {
            if heavy.contains(d) {
                vcpus(world, *d)
            } else {
                world.desktops[*d].cores
            }
        })
        .sum()
}

fn relieve(draft: &mut Draft, h: usize, idle: &[usize], asked: &mut [f64]) {
    let policy = draft.world.policy;
    let heavy = heavy(&draft.world, h);
    let mut light: Vec<usize> = draft.world.hosts[h]
        .members
        .iter()
        .copied()
        .filter(|d| !heavy.contains(d))
        .collect();
    let travels = |d: usize| draft.world.desktops[d].travels_kib;
    // The busiest of the light ones first: fewest moves for the relief; of those the cheapest.
    light.sort_by(|a, b| {
        draft.world.desktops[*b]
            .cores
            .total_cmp(&draft.world.desktops[*a].cores)
            .then(travels(*a).cmp(&travels(*b)))
            .then(a.cmp(b))
    });
    let mut too_little = 0usize;
    for d in light {
        if cpu(&draft.world, h).unwrap_or(0.0) <= policy.cpu_high {
            return;
        }
        let name = draft.world.desktop_name(d);
        let share = draft.world.cpu_share(d, h);
        if share < policy.cpu_min_gain {
            too_little += 1;
            continue;
        }
        if let Some(why) = draft.world.desktops[d].fixed {
            draft.not_done(name, format!("it is light and could make room, but {why}"));
            continue;
        }
        let would = |draft: &Draft, to: usize| {
            cpu(&draft.world, to).unwrap_or(100.0) + draft.world.cpu_share(d, to)
        };
        let target = idle
            .iter()
            .copied()
            .filter(|to| draft.world.can_move(d, *to).is_ok())
            .min_by(|a, b| {
                draft
                    .world
                    .dislike(d, *a)
                    .cmp(&draft.world.dislike(d, *b))
                    .then(would(draft, *a).total_cmp(&would(draft, *b)))
                    .then(a.cmp(b))
            });
        match target {
            None => {
                let why = draft.no_place(d);
                draft.not_done(name, format!("no idle host can take it: {why}"));
            }
            Some(to) if would(draft, to) > policy.cpu_high => draft.not_done(
                name,
                format!(
                    "target would pass the high mark: {} would be at {:.0} %",
                    draft.world.host_name(to),
                    would(draft, to)
                ),
            ),
            Some(to) => {
                let used = draft.world.desktops[d].cores;
                let reason = format!(
                    "{} is at {:.0} % with {} heavy desktops; this one is light and gives them {share:.0} % of the host, {} will be at {:.0} %",
                    draft.world.host_name(h),
                    cpu(&draft.world, h).unwrap_or(0.0),
                    heavy.len(),
                    draft.world.host_name(to),
                    would(draft, to)
                );
                asked[h] -= used;
                asked[to] += used;
                draft.step(d, to, reason);
            }
        }
    }
    if too_little > 0 {
        draft.not_done(
            draft.world.host_name(h),
            format!(
                "moving {too_little} more light desktops would gain less than {} % each",
                policy.cpu_min_gain
            ),
        );
    }
    spread_heavy(draft, h, &heavy, idle, asked);
}

/// Sends heavy desktops away when they ask for more cores than their host has.
fn spread_heavy(draft: &mut Draft, h: usize, heavy: &[usize], idle: &[usize], asked: &mut [f64]) {
    let pressure = |asked: &[f64], world: &World, h: usize| asked[h] / cores(world, h);
    for d in heavy.iter().copied().rev() {
        let here = pressure(asked, &draft.world, h);
        if here <= 1.0 {
            return;
        }
        let name = draft.world.desktop_name(d);
        if let Some(why) = draft.world.desktops[d].fixed {
            draft.not_done(
                name,
                format!("it is heavy and its host has too few cores, but {why}"),
            );
            continue;
        }
        let needs = vcpus(&draft.world, d);
        let would =
            |draft: &Draft, asked: &[f64], to: usize| (asked[to] + needs) / cores(&draft.world, to);
        let target = idle
            .iter()
            .copied()
            .filter(|to| draft.world.can_move(d, *to).is_ok())
            .min_by(|a, b| {
                would(draft, asked, *a)
                    .total_cmp(&would(draft, asked, *b))
                    .then(a.cmp(b))
            });
        let Some(to) = target else {
            let why = draft.no_place(d);
            draft.not_done(name, format!("no idle host can take it: {why}"));
            continue;
        };
        let there = would(draft, asked, to).max(1.0);
        if here < there * WORTH_MOVING_HEAVY {
            draft.not_done(
                draft.world.host_name(h),
                format!(
                    "its heavy desktops ask for {here:.1} times its cores; another on {} would make that {there:.1} times there: too little to gain",
                    draft.world.host_name(to)
                ),
            );
            return;
        }
        let reason = format!(
            "the heavy desktops of {} ask for {here:.1} times its cores; {} is idle and will be asked for {:.1} times its own",
            draft.world.host_name(h),
            draft.world.host_name(to),
            would(draft, asked, to)
        );
        asked[h] -= needs;
        asked[to] += needs;
        draft.step(d, to, reason);
    }
}
