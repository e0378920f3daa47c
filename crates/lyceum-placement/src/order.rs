//! An order in which every move fits after the ones before it.
//!
//! Each pending move is done as soon as its target has room. When none has, moves wait for each
//! other in a circle: one of them is sent to a third host for the time being, which opens the
//! circle. Where there is no such host, a move is given up with its reason. Each move is checked
//! against the world at its own turn, so whatever comes out can be carried out.

use crate::plan::Draft;
use crate::world::World;
use std::cmp::Reverse;

/// A move that is wanted: where the desktop comes from is where it is.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub desktop: usize,
    pub to: usize,
    pub reason: String,
}

/// The host with the most room, in seats' share and memory, among those that can take the
/// desktop and that `may` allows; kin is avoided first.
pub(crate) fn most_room(world: &World, d: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
    (0..world.hosts.len())
        .filter(|h| world.desktops[d].host != Some(*h) && may(*h))
        .filter(|h| world.can_move(d, *h).is_ok())
        .min_by(|a, b| {
            world
                .dislike(d, *a)
                .cmp(&world.dislike(d, *b))
                .then(world.load(*a).total_cmp(&world.load(*b)))
                .then(a.cmp(b))
        })
}

/// Does the wanted moves in an order that works. Says whether all were done.
pub(crate) fn carry_out(draft: &mut Draft, wanted: Vec<Wanted>) -> bool {
    let mut pending = wanted;
    let mut detoured: Vec<usize> = Vec::new();
    let mut all = true;
    while !pending.is_empty() {
        let before = pending.len();
        let mut rest = Vec::with_capacity(before);
        for want in pending {
            if draft.world.can_move(want.desktop, want.to).is_ok() {
                draft.step(want.desktop, want.to, want.reason);
            } else {
                rest.push(want);
            }
        }
        pending = rest;
        if pending.len() < before || pending.is_empty() {
            continue;
        }
        if let Some((index, via)) = detour(&mut draft.world, &pending, &detoured) {
            let want = &pending[index];
            let reason = format!(
                "makes room on {}, goes on to {} after that",
                draft
                    .world
                    .host_name(draft.world.desktops[want.desktop].host.unwrap_or(via)),
                draft.world.host_name(want.to)
            );
            let d = want.desktop;
            draft.step(d, via, reason);
            detoured.push(d);
            continue;
        }
        // The hardest to place goes first; what is left may fit then.
        let Some(index) = (0..pending.len()).max_by_key(|i| {
            (
                draft.world.desktops[pending[*i].desktop].cost_in,
                Reverse(*i),
            )
        }) else {
            break;
        };
        let want = pending.remove(index);
        all = false;
        let world = &draft.world;
        let why = match world.can_move(want.desktop, want.to) {
            Err(why) => format!(
                "{}, and no other host has room to make the exchange in steps",
                why
            ),
            Ok(()) => "it was given up".into(),
        };
        let what = format!(
            "{}: {} -> {}",
            world.desktop_name(want.desktop),
            world.desktops[want.desktop]
                .host
                .map_or("-", |h| world.host_name(h)),
            world.host_name(want.to)
        );
        draft.not_done(what, format!("{}: {why}", world.host_name(want.to)));
    }
    all
}

/// A pending move whose desktop can wait on a third host so that another pending move fits.
fn detour(world: &mut World, pending: &[Wanted], detoured: &[usize]) -> Option<(usize, usize)> {
    let mut order: Vec<usize> = (0..pending.len()).collect();
    order.sort_by_key(|i| (world.desktops[pending[*i].desktop].travels_kib, *i));
    for i in order {
        let d = pending[i].desktop;
        let Some(from) = world.desktops[d].host else {
            continue;
        };
        if detoured.contains(&d) {
            continue;
        }
        // Tried in place: taken off, looked, put back.
        let cost = world.desktops[d].cost;
        world.leave(d);
        let opens = pending.iter().enumerate().any(|(k, other)| {
            k != i && other.to == from && world.can_move(other.desktop, from).is_ok()
        });
        world.put_back(d, from, cost);
        if !opens {
            continue;
        }
        let to = pending[i].to;
        if let Some(via) = most_room(world, d, |h| h != to && h != from) {
            return Some((i, via));
        }
    }
    None
}
