//! Which hosts to empty, and where their desktops go.
//!
//! Hosts with the fewest desktops are emptied: every desktop that stays is a move less. Where room
//! or constraints are against that, neighbours of that choice are tried. Desktops of emptied
//! hosts are spread evenly if they fit that way, else packed; what still doesn't fit
//! makes room by sending smaller ones on; and if that is not enough either, hosts are filled one by one
//! by subset sums.

use super::fill;
use crate::world::World;
use std::cmp::Reverse;
use std::collections::HashSet;

/// A way to empty hosts.
pub(crate) struct Way {
    pub emptied: Vec<usize>,
    /// Desktops that move, and where to.
    pub places: Vec<(usize, usize)>,
    /// Seats that stay free.
    pub free_seats: u64,
}

/// Choices of hosts that are tried for one number of hosts.
const CHOICES: usize = 24;

/// No fewer hosts than this can hold all desktops with the wanted seats free: volume and seats alone.
pub(crate) fn bound(world: &World, open: &[usize], free_to_go: &[usize]) -> usize {
    let desktops = || open.iter().flat_map(|h| &world.hosts[*h].members);
    let memory: u64 = desktops()
        .map(|d| {
            let desktop = &world.desktops[*d];
            desktop.cost.min(desktop.cost_in)
        })
        .sum();
    let wanted = world.policy.seats_to_keep();
    let all_seats = open.iter().all(|h| world.hosts[*h].seats.is_some());
    let none_seats = open.iter().all(|h| world.hosts[*h].seats.is_none());
    let by = |need: u64, size: &dyn Fn(usize) -> u64| {
        let mut left = need;
        let mut hosts: Vec<usize> = open.to_vec();
        // Those that stay anyway are used first, then the largest.
        hosts.sort_by_key(|h| (free_to_go.contains(h), Reverse(size(*h))));
        let mut k = 0;
        for h in hosts {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(size(h));
            k += 1;
        }
        k
    };
    let extra = if none_seats {
        wanted * world.seat_mib
    } else {
        0
    };
    let by_memory = by(memory + extra, &|h| world.hosts[h].usable);
    let by_seats = if all_seats {
        by(desktops().count() as u64 + wanted, &|h| {
            u64::from(world.hosts[h].seats.unwrap_or(0))
        })
    } else {
        0
    };
    by_memory.max(by_seats).max(1)
}

/// Ways to do with `n` hosts less, the best first: fewest moves, least that travels, most watts saved.
pub(crate) fn ways(world: &World, open: &[usize], free_to_go: &[usize], n: usize) -> Vec<Way> {
    if free_to_go.len() < n {
        return Vec::new();
    }
    let mut found: Vec<Way> = Vec::new();
    for emptied in choices(world, open, free_to_go, n) {
        found.extend(pack(world, open, emptied));
    }
    let copied = |way: &Way| -> u64 {
        way.places
            .iter()
            .map(|(d, _)| world.desktops[*d].travels_kib)
            .sum()
    };
    let watts = |way: &Way| -> f64 {
        way.emptied
            .iter()
            .filter_map(|h| world.snapshot.hosts[*h].watts)
            .sum()
    };
    found.sort_by(|a, b| {
        a.places
            .len()
            .cmp(&b.places.len())
            .then(copied(a).cmp(&copied(b)))
            .then(watts(b).total_cmp(&watts(a)))
            .then(a.emptied.cmp(&b.emptied))
    });
    found.truncate(4);
    found
}

/// Whether what stays on has room for all by volume and seats.
fn roomy(world: &World, open: &[usize], emptied: &HashSet<usize>) -> bool {
    let keep = || open.iter().filter(|h| !emptied.contains(h));
    let free: u64 = keep()
        .map(|h| world.hosts[*h].usable.saturating_sub(world.hosts[*h].used))
        .sum();
    let comes = || emptied.iter().flat_map(|h| &world.hosts[*h].members);
    let needs: u64 = comes().map(|d| world.desktops[*d].cost_in).sum();
    let seats: u64 = keep()
        .map(|h| match world.hosts[*h].seats {
            Some(_) => world.free_seats(*h),
            None => u64::MAX / 4096,
        })
        .fold(0, u64::saturating_add);
    let all = keep()
        .map(|h| world.all_seats(*h))
        .fold(0, u64::saturating_add);
    needs <= free && comes().count() as u64 <= seats && all >= world.policy.seats_to_keep()
}

/// Sets of hosts to empty, the most promising first.
fn choices(world: &World, open: &[usize], free_to_go: &[usize], n: usize) -> Vec<HashSet<usize>> {
    let host = |h: usize| &world.hosts[h];
    let watts = |h: usize| world.snapshot.hosts[h].watts.unwrap_or(0.0);
    type Key<'a> = &'a dyn Fn(usize) -> (f64, f64, f64);
    let travels = |h: usize| -> f64 {
        let all = host(h).members.iter();
        all.map(|d| world.desktops[*d].travels_kib as f64).sum()
    };
    let orders: [Key; 5] = [
        // Fewest moves, and of those the cheapest.
        &|h| (f64::from(host(h).count), travels(h), -watts(h)),
        &|h| (f64::from(host(h).count), -watts(h), host(h).used as f64),
        &|h| {
            let count = f64::from(host(h).count);
            (count / host(h).usable.max(1) as f64, -watts(h), 0.0)
        },
        &|h| (host(h).usable as f64, f64::from(host(h).count), -watts(h)),
        &|h| (host(h).used as f64, f64::from(host(h).count), -watts(h)),
    ];
    let mut seen: HashSet<Vec<usize>> = HashSet::new();
    let mut out = Vec::new();
    let mut add = |set: HashSet<usize>, out: &mut Vec<HashSet<usize>>| {
        let mut key: Vec<usize> = set.iter().copied().collect();
        key.sort_unstable();
        if out.len() < CHOICES && roomy(world, open, &set) && seen.insert(key) {
            out.push(set);
        }
    };
    let mut sorted = Vec::new();
    for order in orders {
        let mut hosts = free_to_go.to_vec();
        hosts.sort_by(|a, b| {
            let (x, y) = (order(*a), order(*b));
            x.0.total_cmp(&y.0)
                .then(x.1.total_cmp(&y.1))
                .then(x.2.total_cmp(&y.2))
                .then(a.cmp(b))
        });
        let mut set: HashSet<usize> = hosts[..n].iter().copied().collect();
        make_roomy(world, open, free_to_go, &mut set);
        add(set, &mut out);
        sorted.push(hosts);
    }
    // Neighbours of the first choice: one of its last for one of those after it.
    let hosts = &sorted[0];
    for out_by in 0..n.min(4) {
        for in_by in 0..(hosts.len() - n).min(6) {
            let mut set: HashSet<usize> = hosts[..n].iter().copied().collect();
            set.remove(&hosts[n - 1 - out_by]);
            set.insert(hosts[n + in_by]);
            make_roomy(world, open, free_to_go, &mut set);
            add(set, &mut out);
        }
    }
    out
}

/// Exchanges large emptied hosts for smaller ones until the rest has room, or nothing helps.
fn make_roomy(world: &World, open: &[usize], free_to_go: &[usize], set: &mut HashSet<usize>) {
    for _ in 0..open.len() {
        if roomy(world, open, set) {
            return;
        }
        let size = |h: usize| {
            let host = &world.hosts[h];
            (
                host.usable / 64 + u64::from(host.seats.unwrap_or(0)) * 16,
                host.usable,
            )
        };
        let mut best: Option<(f64, usize, usize)> = None;
        for out in set.iter().copied() {
            for into in free_to_go.iter().copied().filter(|h| !set.contains(h)) {
                if size(out) <= size(into) {
                    continue;
                }
                let gain = (size(out).0 - size(into).0).max(1) as f64;
                let price = f64::from(world.hosts[into].count) - f64::from(world.hosts[out].count);
                let ratio = price / gain;
                let better = best.is_none_or(|(r, o, i)| {
                    ratio.total_cmp(&r).then((out, into).cmp(&(o, i))).is_lt()
                });
                if better {
                    best = Some((ratio, out, into));
                }
            }
        }
        let Some((_, out, into)) = best else { return };
        set.remove(&out);
        set.insert(into);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Each to the host with the least load.
    Even,
    /// Each to the host it fills best.
    Tight,
}

/// Places for the desktops of the emptied hosts.
fn pack(world: &World, open: &[usize], emptied: HashSet<usize>) -> Option<Way> {
    let keep: Vec<usize> = open
        .iter()
        .copied()
        .filter(|h| !emptied.contains(h))
        .collect();
    let wanted = world.policy.seats_to_keep();
    let mut comes: Vec<usize> = emptied
        .iter()
        .flat_map(|h| &world.hosts[*h].members)
        .copied()
        .collect();
    comes.sort_by_key(|d| (Reverse(world.desktops[*d].cost_in), *d));
    let enough = |trial: &World| keep.iter().map(|h| trial.free_seats(*h)).sum::<u64>() >= wanted;
    for style in [Style::Even, Style::Tight] {
        let mut trial = world.clone();
        let mut left = Vec::new();
        for d in &comes {
            match choose(&trial, *d, &keep, style) {
                Some(h) => trial.shift(*d, h),
                None => left.push(*d),
            }
        }
        let mut all = true;
        for d in left {
            if !make_room(&mut trial, world, d, &keep) {
                all = false;
                break;
            }
        }
        if all && enough(&trial) {
            return Some(way(world, &trial, emptied, &keep));
        }
    }
    let mut trial = world.clone();
    (fill::fill(&mut trial, &keep, &emptied) && enough(&trial))
        .then(|| way(world, &trial, emptied, &keep))
}

fn way(world: &World, trial: &World, emptied: HashSet<usize>, keep: &[usize]) -> Way {
    let ends = crate::balance::keep_those_that_can_stay(world, trial);
    let mut emptied: Vec<usize> = emptied.into_iter().collect();
    // Empty ones first, then those that are emptied soonest: each is switched off by itself.
    emptied.sort_by_key(|h| (world.hosts[*h].count, *h));
    let mut places: Vec<(usize, usize)> = ends
        .into_iter()
        .enumerate()
        .filter_map(|(d, to)| {
            let to = to?;
            (world.desktops[d].host != Some(to)).then_some((d, to))
        })
        .collect();
    let turn = |d: usize| {
        let from = world.desktops[d].host;
        emptied
            .iter()
            .position(|h| Some(*h) == from)
            .map_or(0, |p| p + 1)
    };
    places.sort_by_key(|(d, _)| (turn(*d), Reverse(world.desktops[*d].cost_in), *d));
    Way {
        free_seats: keep.iter().map(|h| trial.free_seats(*h)).sum(),
        emptied,
        places,
    }
}

fn choose(trial: &World, d: usize, keep: &[usize], style: Style) -> Option<usize> {
    keep.iter()
        .copied()
        .filter(|h| trial.can_move(d, *h).is_ok())
        .min_by(|a, b| {
            let by_style = match style {
                Style::Even => trial.load(*a).total_cmp(&trial.load(*b)),
                Style::Tight => {
                    let free = |h: &usize| trial.hosts[*h].usable - trial.hosts[*h].used;
                    free(a).cmp(&free(b))
                }
            };
            let by_kin = trial.dislike(d, *a).cmp(&trial.dislike(d, *b));
            match style {
                Style::Even => by_kin.then(by_style),
                Style::Tight => by_style.then(by_kin),
            }
            .then(a.cmp(b))
        })
}

/// Places a desktop that fits nowhere: one that is smaller goes on to another host, or two do.
fn make_room(trial: &mut World, start: &World, d: usize, keep: &[usize]) -> bool {
    if let Some(h) = choose(trial, d, keep, Style::Tight) {
        trial.shift(d, h);
        return true;
    }
    for most in [1, 2] {
        for h in keep.iter().copied() {
            if trial.suits(d, h).is_err() {
                continue;
            }
            let mut members: Vec<usize> = trial.hosts[h]
                .members
                .iter()
                .copied()
                .filter(|y| {
                    trial.desktops[*y].fixed.is_none()
                        && trial.desktops[*y].cost < trial.desktops[d].cost_in
                })
                .collect();
            // What moves anyway first; then the smallest that is enough.
            members.sort_by_key(|y| {
                (
                    start.desktops[*y].host == Some(h),
                    trial.desktops[*y].cost,
                    *y,
                )
            });
            if send_on(trial, d, h, &members, keep, most) {
                return true;
            }
        }
    }
    false
}

/// Tries to bring `d` to `h` by sending up to `most` of `members` elsewhere; puts all back if not.
fn send_on(
    trial: &mut World,
    d: usize,
    h: usize,
    members: &[usize],
    keep: &[usize],
    most: usize,
) -> bool {
    for (i, y) in members.iter().enumerate() {
        let Some(to) = keep
            .iter()
            .copied()
            .filter(|t| *t != h && trial.can_move(*y, *t).is_ok())
            .min_by_key(|t| (trial.hosts[*t].usable - trial.hosts[*t].used, *t))
        else {
            continue;
        };
        let (cost, cpu) = (
            trial.desktops[*y].cost,
            (trial.hosts[h].cpu, trial.hosts[to].cpu),
        );
        trial.shift(*y, to);
        if trial.can_move(d, h).is_ok() {
            trial.shift(d, h);
            return true;
        }
        if most > 1 && send_on(trial, d, h, &members[i + 1..], keep, most - 1) {
            return true;
        }
        trial.leave(*y);
        trial.put_back(*y, h, cost);
        (trial.hosts[h].cpu, trial.hosts[to].cpu) = cpu;
    }
    false
}
