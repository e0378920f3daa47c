//! Sizes that differ: steepest descent over single moves and exchanges.
//!
//! The imbalance is Σ (load − mean)², as a share of each host's memory. Each step takes what
//! gains most per move; steps that gain less than the policy asks for are not taken. What moved
//! twice is joined, and among desktops of one kind those stay that can.
//!
//! Choosing again what moves makes the end more even, and there one more move may be worth it that was not
//! before. Nobody asked for that one: where the plan has more moves than the plain descent, or ends less
//! even, the best end on the way counts that has neither.

use super::{ABOUT_NOTHING, By, repick};
use crate::order::Wanted;
use crate::world::World;
use std::cmp::Reverse;
use std::collections::HashMap;

/// With more hosts than this only the fullest and the emptiest are looked at.
const ALL_PAIRS: usize = 64;
/// A single move gains at least this part of the square of a mean desktop's share of a host.
const LEAST_OF_A_DESKTOP: f64 = 1.99;
const ENDS: usize = 24;
/// Desktops of one size that are tried for one place before the next size is.
const TRIES: usize = 8;
/// Rounds of choosing again.
const PASSES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    gain: f64,
    moves: u32,
    out: usize,
    back: Option<usize>,
    from: usize,
    to: usize,
}

impl Step {
    fn worth(&self) -> f64 {
        self.gain / f64::from(self.moves)
    }
}

/// Desktops of one size on one host.
pub(super) struct Size {
    out: u64,
    into: u64,
    pub(super) members: Vec<usize>,
}

/// The best step between two hosts, and the versions of them it was found for.
type Known = (u32, u32, Option<Step>);

/// Where a search may end: no single step from there is worth its moves.
struct End<'a> {
    moves: usize,
    sum: f64,
    world: World<'a>,
}

pub(super) struct Search<'a> {
    pub(super) world: World<'a>,
    by: By,
    pub(super) open: Vec<usize>,
    mean: f64,
    pub(super) sizes: Vec<Vec<Size>>,
    version: Vec<u32>,
    cache: HashMap<(usize, usize, bool), Known>,
    /// The least that a single move has to gain, where it doesn't gain `least_spread`.
    least: f64,
    /// The least that a single move has to take off the standard deviation.
    least_spread: f64,
    /// The imbalance as it is, and each host's part of it.
    sum: f64,
    parts: Vec<f64>,
    /// The most even end so far with no more moves than the plain descent.
    fallback: Option<End<'a>>,
}

/// The moves to a balanced cluster.
pub(crate) fn targets(world: &World, open: &[usize], by: By) -> Vec<Wanted> {
    let mut search = Search::new(world.clone(), open, by);
    search.descend();
    let plain = End {
        moves: search.moves(world),
        sum: search.sum,
        world: search.world.clone(),
    };
    let (moves, sum) = (plain.moves, plain.sum);
    search.fallback = Some(plain);
    // With very many hosts no single choice matters, and there are too many.
    let passes = if open.len() <= 2 * ALL_PAIRS {
        PASSES
    } else {
        0
    };
    for _ in 0..passes {
        let again = repick::run(&mut search, world);
        let less = repick::drop_small(&mut search, world);
        if !again && !less {
            break;
        }
        search.descend();
    }
    if (search.moves(world) > moves || search.sum > sum + ABOUT_NOTHING)
        && let Some(fallback) = search.fallback.take()
    {
        search.world = fallback.world;
    }
    let end = keep_those_that_can_stay(world, &search.world);
    let mut wanted: Vec<Wanted> = Vec::new();
    for (d, to) in end.into_iter().enumerate() {
        let Some(from) = world.desktops[d].host else {
            continue;
        };
        if let Some(to) = to
            && to != from
        {
            wanted.push(Wanted {
                desktop: d,
                to,
                reason: match by {
                    By::Memory => format!(
                        "{} uses {:.1} % of its memory and {} uses {:.1} %; {:.1} % is even",
                        world.host_name(from),
                        world.load(from) * 100.0,
                        world.host_name(to),
                        world.load(to) * 100.0,
                        search.mean * 100.0,
                    ),
                    By::Seats => format!(
                        "{} has {} desktops and {} has {}; {:.1} is even",
                        world.host_name(from),
                        world.hosts[from].count,
                        world.host_name(to),
                        world.hosts[to].count,
                        search.mean,
                    ),
                },
            });
        }
    }
    // The largest first: they do most, also when somebody stops in the middle.
    wanted.sort_by_key(|w| (Reverse(world.desktops[w.desktop].cost_in), w.desktop));
    wanted
}

impl<'a> Search<'a> {
    fn new(world: World<'a>, open: &[usize], by: By) -> Self {
        let used: f64 = open.iter().map(|h| world.hosts[*h].used as f64).sum();
        let usable: f64 = open.iter().map(|h| world.hosts[*h].usable as f64).sum();
        let count: f64 = open.iter().map(|h| f64::from(world.hosts[*h].count)).sum();
        let desktops: Vec<u64> = open
            .iter()
            .flat_map(|h| &world.hosts[*h].members)
            .map(|d| world.desktops[*d].cost_in)
            .collect();
        let hosts = open.len().max(1) as f64;
        let (mean, least, least_spread) = match by {
            By::Memory => {
                let share = desktops.iter().sum::<u64>() as f64
                    / desktops.len().max(1) as f64
                    / (usable / hosts).max(1.0);
                (
                    used / usable.max(1.0),
                    LEAST_OF_A_DESKTOP * share * share,
                    world.policy.balance_min_gain / 100.0,
                )
            }
            // One desktop nearer to even on both ends.
            By::Seats => (count / hosts, 1.0, f64::INFINITY),
        };
        let mut search = Search {
            mean,
            by,
            sizes: (0..world.hosts.len()).map(|_| Vec::new()).collect(),
            version: vec![0; world.hosts.len()],
            cache: HashMap::new(),
            open: open.to_vec(),
            least,
            least_spread,
            sum: 0.0,
            parts: vec![0.0; world.hosts.len()],
            fallback: None,
            world,
        };
        for h in open {
            search.sort_out(*h);
        }
        search
    }

    /// How many desktops end elsewhere than they began.
    fn moves(&self, start: &World) -> usize {
        keep_those_that_can_stay(start, &self.world)
            .iter()
            .zip(&start.desktops)
            .filter(|(end, begin)| **end != begin.host)
            .count()
    }

    /// Something was chosen again: it may be a better end than the one that is kept.
    pub(super) fn note(&mut self, start: &World) {
        let Some(moves) = self
            .fallback
            .as_ref()
            .filter(|kept| self.sum < kept.sum - ABOUT_NOTHING)
            .map(|kept| kept.moves)
        else {
            return;
        };
        if self.moves(start) > moves || self.best().is_some() {
            return;
        }
        self.fallback = Some(End {
            moves,
            sum: self.sum,
            world: self.world.clone(),
        });
    }

    /// Whether that much less imbalance is worth so many moves.
    pub(super) fn worth(&self, gain: f64, moves: u32) -> bool {
        let n = self.open.len().max(1) as f64;
        let each = gain / f64::from(moves);
        let spread = |sum: f64| (sum.max(0.0) / n).sqrt();
        each >= self.least || spread(self.sum) - spread(self.sum - each) >= self.least_spread
    }

    /// What the imbalance loses when these desktops are elsewhere.
    pub(super) fn gain(&self, changes: &[(usize, usize)]) -> f64 {
        // At most two desktops change: four hosts.
        let mut hosts: [(usize, f64); 4] = [(usize::MAX, 0.0); 4];
        let mut add = |h: usize, weight: f64| {
            for slot in &mut hosts {
                if slot.0 == h || slot.0 == usize::MAX {
                    *slot = (h, slot.1 + weight);
                    return;
                }
            }
        };
        for (d, to) in changes {
            let desktop = &self.world.desktops[*d];
            let (out, into) = match self.by {
                By::Memory => (desktop.cost as f64, desktop.cost_in as f64),
                By::Seats => (1.0, 1.0),
            };
            if let Some(from) = desktop.host {
                add(from, -out);
            }
            add(*to, into);
        }
        hosts
            .iter()
            .filter(|(h, _)| *h != usize::MAX)
            .map(|(h, weight)| self.part(*h, self.used(*h)) - self.part(*h, self.used(*h) + weight))
            .sum()
    }

    /// Groups a host's desktops by size, after it changed.
    pub(super) fn sort_out(&mut self, h: usize) {
        let mut members: Vec<usize> = self.world.hosts[h]
            .members
            .iter()
            .copied()
            .filter(|d| self.world.desktops[*d].fixed.is_none())
            .collect();
        let key = |d: &usize| {
            let desktop = &self.world.desktops[*d];
            match self.by {
                By::Memory => (desktop.cost, desktop.cost_in),
                By::Seats => (1, 1),
            }
        };
        // Of one size those that have most kin here come first, then the cheapest to move.
        members.sort_by_cached_key(|d| {
            let kin = Reverse(self.world.dislike(*d, h));
            (key(d), kin, self.world.desktops[*d].travels_kib, *d)
        });
        let sizes = members
            .chunk_by(|a, b| key(a) == key(b))
            .map(|chunk| Size {
                out: key(&chunk[0]).0,
                into: key(&chunk[0]).1,
                members: chunk.to_vec(),
            })
            .collect();
        self.sizes[h] = sizes;
        self.version[h] += 1;
        // What the host added before and adds now; all of it anew would be slow with many hosts.
        let part = self.part(h, self.used(h));
        self.sum += part - self.parts[h];
        self.parts[h] = part;
    }

    /// The imbalance that a host adds when it carries this much.
    fn part(&self, h: usize, used: f64) -> f64 {
        let whole = match self.by {
            By::Memory => self.world.hosts[h].usable.max(1) as f64,
            By::Seats => 1.0,
        };
        (used / whole - self.mean).powi(2)
    }

    fn used(&self, h: usize) -> f64 {
        match self.by {
            By::Memory => self.world.hosts[h].used as f64,
            By::Seats => f64::from(self.world.hosts[h].count),
        }
    }

    fn load(&self, h: usize) -> f64 {
        match self.by {
            By::Memory => self.world.load(h),
            By::Seats => f64::from(self.world.hosts[h].count),
        }
    }

    fn descend(&mut self) {
        let limit = 4 * self.world.desktops.len() + 64;
        for _ in 0..limit {
            let Some(step) = self.best() else { break };
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        self.world.leave(step.out);
        if let Some(back) = step.back {
            self.world.leave(back);
            self.world.arrive(back, step.from);
        }
        self.world.arrive(step.out, step.to);
        self.sort_out(step.from);
        self.sort_out(step.to);
    }

    /// Which hosts are looked at: those above the mean and those below, the farthest first.
    fn ends(&self) -> (Vec<usize>, Vec<usize>) {
        let mut hosts = self.open.clone();
        hosts.sort_by(|a, b| self.load(*b).total_cmp(&self.load(*a)).then(a.cmp(b)));
        if hosts.len() <= ALL_PAIRS {
            let low = hosts.iter().rev().copied().collect();
            return (hosts, low);
        }
        (
            hosts.iter().copied().take(ENDS).collect(),
            hosts.iter().rev().copied().take(ENDS).collect(),
        )
    }

    fn best(&mut self) -> Option<Step> {
        let (high, low) = self.ends();
        let mut best: Option<Step> = None;
        for exchange in [false, true] {
            // Where hosts are many, exchanges are for the end: they cost two moves each.
            if exchange && best.is_some() && self.open.len() > ALL_PAIRS {
                break;
            }
            for a in &high {
                for b in &low {
                    if self.load(*a) <= self.load(*b) {
                        continue;
                    }
                    let step = self.pair(*a, *b, exchange);
                    if let Some(step) = step
                        && self.worth(step.gain, step.moves)
                        && best.is_none_or(|best| step.worth() > best.worth())
                    {
                        best = Some(step);
                    }
                }
            }
        }
        best
    }

    /// The best step between two hosts, remembered until one of them changes.
    fn pair(&mut self, a: usize, b: usize, exchange: bool) -> Option<Step> {
        let versions = (self.version[a], self.version[b]);
        if let Some((va, vb, step)) = self.cache.get(&(a, b, exchange))
            && (*va, *vb) == versions
        {
            return *step;
        }
        let step = if exchange {
            self.exchange(a, b)
        } else {
            self.single(a, b)
        };
        self.cache
            .insert((a, b, exchange), (versions.0, versions.1, step));
        step
    }

    fn single(&self, a: usize, b: usize) -> Option<Step> {
        let now = self.part(a, self.used(a)) + self.part(b, self.used(b));
        let mut best: Option<Step> = None;
        for size in &self.sizes[a] {
            let then = self.part(a, self.used(a) - size.out as f64)
                + self.part(b, self.used(b) + size.into as f64);
            let gain = now - then;
            if gain <= 0.0 || best.is_some_and(|best| gain <= best.gain) {
                continue;
            }
            let fit = size
                .members
                .iter()
                .filter(|d| self.world.can_move(**d, b).is_ok())
                .take(TRIES)
                // The first of them: they are in order.
                .min_by_key(|d| self.world.dislike(**d, b));
            if let Some(d) = fit {
                best = Some(Step {
                    gain,
                    moves: 1,
                    out: *d,
                    back: None,
                    from: a,
                    to: b,
                });
            }
        }
        best
    }

    fn exchange(&mut self, a: usize, b: usize) -> Option<Step> {
        let now = self.part(a, self.used(a)) + self.part(b, self.used(b));
        let mut found: Vec<(f64, usize, usize)> = Vec::new();
        for (i, x) in self.sizes[a].iter().enumerate() {
            for (k, y) in self.sizes[b].iter().enumerate() {
                if x.out <= y.into && x.into <= y.out {
                    continue;
                }
                let then = self.part(a, self.used(a) - x.out as f64 + y.into as f64)
                    + self.part(b, self.used(b) + x.into as f64 - y.out as f64);
                let gain = now - then;
                if gain > 0.0 {
                    found.push((gain, i, k));
                }
            }
        }
        found.sort_by(|l, r| r.0.total_cmp(&l.0).then((l.1, l.2).cmp(&(r.1, r.2))));
        for (gain, i, k) in found.into_iter().take(TRIES) {
            let (out, back) = (self.sizes[a][i].members[0], self.sizes[b][k].members[0]);
            if self.can_exchange(out, a, back, b) {
                return Some(Step {
                    gain,
                    moves: 2,
                    out,
                    back: Some(back),
                    from: a,
                    to: b,
                });
            }
        }
        None
    }

    fn can_exchange(&mut self, out: usize, a: usize, back: usize, b: usize) -> bool {
        let (x, y) = (
            self.world.desktops[out].cost,
            self.world.desktops[back].cost,
        );
        self.world.leave(out);
        self.world.leave(back);
        let ok =
            self.world.fits(out, b, Some(a)).is_ok() && self.world.fits(back, a, Some(b)).is_ok();
        self.world.put_back(back, b, y);
        self.world.put_back(out, a, x);
        ok
    }
}

/// Where every desktop ends. Desktops that nothing tells apart but their name take each other's
/// places when that lets one of them stay.
pub(crate) fn keep_those_that_can_stay(start: &World, end: &World) -> Vec<Option<usize>> {
    let mut places: Vec<Option<usize>> = end.desktops.iter().map(|d| d.host).collect();
    // Of each kind: who left a host, and who came to it.
    let mut left: HashMap<(usize, String), Vec<usize>> = HashMap::new();
    let kind = |d: usize| {
        let desktop = &start.snapshot.desktops[d];
        format!(
            "{:?}",
            (
                start.desktops[d].cost,
                start.desktops[d].cost_in,
                desktop.memory_mib,
                // Whose people have several is not just any desktop.
                start.has_kin(d).then_some(&desktop.owner),
                &desktop.course,
                &desktop.release,
                &desktop.cpu_model
            )
        )
    };
    let moved: Vec<usize> = (0..places.len())
        .filter(|d| places[*d] != start.desktops[*d].host)
        .collect();
    for d in &moved {
        if let Some(from) = start.desktops[*d].host {
            left.entry((from, kind(*d))).or_default().push(*d);
        }
    }
    for d in moved {
        // `d` comes to a host that one of its kind leaves: that one stays, `d` goes where it went.
        while let (Some(to), Some(from)) = (places[d], start.desktops[d].host) {
            if to == from {
                break;
            }
            let Some(stays) = left.get_mut(&(to, kind(d))).and_then(|all| {
                while all
                    .last()
                    .is_some_and(|s| places[*s] == start.desktops[*s].host)
                {
                    all.pop();
                }
                all.pop()
            }) else {
                break;
            };
            let went = places[stays];
            places[stays] = Some(to);
            places[d] = went;
        }
    }
    places
}
