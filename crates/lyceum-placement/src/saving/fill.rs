//! Packing when room is scarce: hosts are filled one by one, each with the subset of what is left
//! that fills it best (subset sums over sizes, few large desktops before many small ones).

use crate::world::World;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

/// Memory is counted in no more units than this per host.
const UNITS: u64 = 8192;

/// Packs everything that can move into `keep`. On failure the world is of no more use.
pub(crate) fn fill(world: &mut World, keep: &[usize], emptied: &HashSet<usize>) -> bool {
    let movable: Vec<usize> = keep
        .iter()
        .chain(emptied)
        .flat_map(|h| &world.hosts[*h].members)
        .copied()
        .filter(|d| world.desktops[*d].fixed.is_none())
        .collect();
    // Where each was: those that stay cost no move, and take what they take now.
    let mut home: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    for d in movable {
        if let Some(h) = world.desktops[d].host {
            home.insert(d, (h, world.desktops[d].cost));
            world.leave(d);
        }
    }
    let unit = home
        .keys()
        .map(|d| world.desktops[*d].cost_in)
        .fold(0, gcd)
        .max(1);
    let mut left: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for d in home.keys() {
        left.entry(world.desktops[*d].cost_in).or_default().push(*d);
    }
    let mut hosts = keep.to_vec();
    hosts.sort_by_key(|h| {
        (
            Reverse(world.hosts[*h].usable - world.hosts[*h].used.min(world.hosts[*h].usable)),
            *h,
        )
    });
    for h in hosts {
        let host = &world.hosts[h];
        let free = host.usable.saturating_sub(host.used);
        let seats = host
            .seats
            .map_or(usize::MAX, |s| s.saturating_sub(host.count) as usize);
        let scale = unit.max(free.div_ceil(UNITS)).max(1);
        for (size, count) in subset(&left, free, scale, seats) {
            let Some(same) = left.get_mut(&size) else {
                continue;
            };
            // Those that were here come first: they don't move.
            same.sort_by_key(|d| (home.get(d).is_some_and(|(was, _)| *was == h), Reverse(*d)));
            let mut skipped = Vec::new();
            let mut taken = 0;
            while taken < count {
                let Some(d) = same.pop() else { break };
                let (was, cost) = home.get(&d).copied().unwrap_or((h, size));
                if world.fits(d, h, Some(was)).is_err() {
                    skipped.push(d);
                    continue;
                }
                if was == h {
                    world.put_back(d, h, cost);
                } else {
                    world.arrive(d, h);
                }
                taken += 1;
            }
            same.extend(skipped);
            if same.is_empty() {
                left.remove(&size);
            }
        }
    }
    // What no subset took may still fit somewhere.
    let rest: Vec<usize> = left.into_values().rev().flatten().collect();
    rest.into_iter().all(|d| {
        let was = home.get(&d).map(|(was, _)| *was);
        let to = keep
            .iter()
            .copied()
            .filter(|h| world.fits(d, *h, was).is_ok())
            .min_by_key(|h| (world.hosts[*h].usable - world.hosts[*h].used, *h));
        if let Some(to) = to {
            world.arrive(d, to);
        }
        to.is_some()
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How many of each size fill `free` best, with as few desktops as that takes and no more than `seats`.
fn subset(
    left: &BTreeMap<u64, Vec<usize>>,
    free: u64,
    scale: u64,
    seats: usize,
) -> Vec<(u64, usize)> {
    let cells = (free / scale) as usize;
    let sizes: Vec<(u64, usize, usize)> = left
        .iter()
        .rev()
        .map(|(size, all)| (*size, size.div_ceil(scale) as usize, all.len()))
        .filter(|(_, units, _)| *units <= cells)
        .collect();
    // fewest[s]: desktops in the smallest subset of the sizes so far that sums to s.
    let mut fewest = vec![u32::MAX; cells + 1];
    fewest[0] = 0;
    let mut used: Vec<Vec<u16>> = Vec::with_capacity(sizes.len());
    for (_, units, count) in &sizes {
        let mut taken = vec![0u16; cells + 1];
        let units = (*units).max(1);
        for s in units..=cells {
            let before = s - units;
            // Sums only reached without this size are left alone: large sizes come first.
            if fewest[before] != u32::MAX
                && usize::from(taken[before]) < *count
                && taken[before] < u16::MAX
                && fewest[before] + 1 < fewest[s]
            {
                fewest[s] = fewest[before] + 1;
                taken[s] = taken[before] + 1;
            }
        }
        used.push(taken);
    }
    let Some(mut sum) = (0..=cells)
        .rev()
        .find(|s| fewest[*s] != u32::MAX && fewest[*s] as usize <= seats)
    else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for ((size, units, _), taken) in sizes.iter().zip(&used).rev() {
        let n = usize::from(taken[sum]);
        if n > 0 {
            out.push((*size, n));
            sum -= n * (*units).max(1);
        }
    }
    out
}
