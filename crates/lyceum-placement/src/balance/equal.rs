//! Equal sizes: how many desktops each host should have has a closed form, and reaching it
//! takes exactly as many moves as there are desktops too many.
//!
//! The imbalance is a sum over hosts of a convex function of their count, so handing out seats
//! one by one where the next costs least ends at the optimum. Among hosts where it costs the same,
//! those are given it first that have the desktop already: that makes Σ min(now, wanted) as
//! large, and so the moves Σ max(0, now − wanted) as few, as any optimum allows.

use super::By;
use crate::order::Wanted;
use crate::world::World;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

/// The next seat of a host.
#[derive(Debug, PartialEq)]
struct Next {
    cost: f64,
    /// Whether the desktop for it has to come from elsewhere.
    comes: bool,
    host: usize,
}

impl Eq for Next {}
impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cost
            .total_cmp(&other.cost)
            .then(self.comes.cmp(&other.comes))
            .then(self.host.cmp(&other.host))
    }
}
impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How many desktops each of these hosts should have.
pub(crate) fn counts(world: &World, open: &[usize], by: By) -> Vec<u32> {
    let size = open
        .iter()
        .flat_map(|h| &world.hosts[*h].members)
        .map(|d| world.desktops[*d].cost_in)
        .max()
        .unwrap_or(1)
        .max(1);
    let now: Vec<u32> = open.iter().map(|h| world.hosts[*h].count).collect();
    let total: u64 = now.iter().map(|n| u64::from(*n)).sum();
    // What can't move stays, also where it is too much.
    let low: Vec<u32> = open
        .iter()
        .map(|h| {
            let host = &world.hosts[*h];
            let movable = host
                .members
                .iter()
                .filter(|d| world.desktops[**d].fixed.is_none())
                .count();
            host.count - movable as u32
        })
        .collect();
    let mut high: Vec<u32> = open
        .iter()
        .enumerate()
        .map(|(i, h)| {
            let host = &world.hosts[*h];
            let memory = match by {
                By::Memory => u32::try_from(host.usable / size).unwrap_or(u32::MAX),
                // Sizes differ: memory is looked at move by move.
                By::Seats => u32::MAX,
            };
            memory.min(host.seats.unwrap_or(u32::MAX)).max(low[i])
        })
        .collect();
    if high.iter().map(|n| u64::from(*n)).sum::<u64>() < total {
        // More desktops than there should be: what is too much stays where it is.
        for (high, now) in high.iter_mut().zip(&now) {
            *high = (*high).max(*now);
        }
    }
    let share: Vec<f64> = open
        .iter()
        .map(|h| match by {
            By::Seats => 1.0,
            By::Memory => size as f64 / world.hosts[*h].usable.max(1) as f64,
        })
        .collect();
    let mean = match by {
        By::Seats => 0.0,
        By::Memory => {
            let usable: u64 = open.iter().map(|h| world.hosts[*h].usable).sum();
            (total * size) as f64 / usable.max(1) as f64
        }
    };
    // What the (n+1)th desktop adds to the square of the distance from the mean.
    let cost = |i: usize, n: u32| share[i] * ((2.0 * f64::from(n) + 1.0) * share[i] - 2.0 * mean);
    let mut counts = low.clone();
    let mut left = total - low.iter().map(|n| u64::from(*n)).sum::<u64>().min(total);
    let next = |i: usize, n: u32| {
        Reverse(Next {
            cost: cost(i, n),
            comes: n >= now[i],
            host: i,
        })
    };
    let mut heap: BinaryHeap<Reverse<Next>> = (0..open.len())
        .filter(|i| counts[*i] < high[*i])
        .map(|i| next(i, counts[i]))
        .collect();
    while left > 0 {
        let Some(Reverse(Next { host: i, .. })) = heap.pop() else {
            break;
        };
        counts[i] += 1;
        left -= 1;
        if counts[i] < high[i] {
            heap.push(next(i, counts[i]));
        }
    }
    counts
}

/// The moves that lead there.
pub(crate) fn targets(world: &World, open: &[usize], by: By) -> Vec<Wanted> {
    let counts = counts(world, open, by);
    let mut gives: Vec<(usize, u32)> = Vec::new();
    // Hosts that take, by how many more they take: those that lack most come first.
    let mut takes: BTreeMap<(Reverse<u32>, usize), ()> = BTreeMap::new();
    let mut wants = vec![0u32; world.hosts.len()];
    for (h, count) in open.iter().zip(&counts) {
        let now = world.hosts[*h].count;
        if now > *count {
            gives.push((*h, now - count));
        } else if *count > now {
            takes.insert((Reverse(count - now), *h), ());
            wants[*h] = *count;
        }
    }
    gives.sort_by_key(|(h, n)| (Reverse(*n), *h));
    let mut wanted = Vec::new();
    // Plays the moves, so that one person's desktops spread over the targets.
    let mut trial = world.clone();
    for (from, surplus) in gives {
        let mut members: Vec<usize> = trial.hosts[from]
            .members
            .iter()
            .copied()
            .filter(|d| trial.desktops[*d].fixed.is_none())
            .collect();
        members.sort_by_key(|d| (trial.desktops[*d].travels_kib, *d));
        let mut left = surplus;
        for pass in [Kin::Apart, Kin::Any] {
            let mut candidates = members.clone();
            while left > 0 && !candidates.is_empty() {
                // First those that have most kin here just now, then the cheapest to move.
                let (mut at, mut most) = (0, 0);
                for (i, d) in candidates.iter().enumerate() {
                    let kin = trial.dislike(*d, from);
                    if kin > most {
                        (at, most) = (i, kin);
                    }
                }
                let d = &candidates.remove(at);
                if trial.desktops[*d].host != Some(from) {
                    continue;
                }
                let to = takes.keys().map(|(_, h)| *h).find(|h| {
                    (pass == Kin::Any || trial.dislike(*d, *h) == 0)
                        && trial.can_move(*d, *h).is_ok()
                });
                let Some(to) = to else { continue };
                let lacks = wants[to] - trial.hosts[to].count;
                takes.remove(&(Reverse(lacks), to));
                if lacks > 1 {
                    takes.insert((Reverse(lacks - 1), to), ());
                }
                wanted.push(Wanted {
                    desktop: *d,
                    to,
                    reason: format!(
                        "{} has {} desktops and {} has {}; {} each is even",
                        trial.host_name(from),
                        trial.hosts[from].count,
                        trial.host_name(to),
                        trial.hosts[to].count,
                        even(&counts)
                    ),
                });
                trial.shift(*d, to);
                left -= 1;
            }
        }
    }
    wanted
}

#[derive(Clone, Copy, PartialEq)]
enum Kin {
    Apart,
    Any,
}

/// The wanted counts for people: `7 or 8`.
fn even(counts: &[u32]) -> String {
    let low = counts.iter().min().copied().unwrap_or(0);
    let high = counts.iter().max().copied().unwrap_or(0);
    match high - low {
        0 => format!("{low}"),
        1 => format!("{low} or {high}"),
        _ => format!("{low} to {high}"),
    }
}
