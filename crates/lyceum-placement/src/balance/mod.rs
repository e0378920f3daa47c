//! Memory balance: every open host carries the same share.
//!
//! Desktops of one size have a closed form with provably fewest moves ([`equal`]); sizes that
//! differ are balanced by local search ([`mixed`]). Whatever could not be carried out in steps
//! is planned again from where that led to, until there is nothing left to gain: so a plan's
//! result is always stable.

mod equal;
mod mixed;
mod repick;

pub(crate) use mixed::keep_those_that_can_stay;

use crate::plan::Draft;
use crate::policy::BalanceBy;
use crate::world::World;

/// More rounds than ever needed; each makes the balance strictly better.
const ROUNDS: usize = 12;

/// Two sums that differ by less are the same.
const ABOUT_NOTHING: f64 = 1e-12;

/// What is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The number of desktops.
    Seats,
    /// The share of memory.
    Memory,
}

pub(crate) fn run(draft: &mut Draft) {
    let open = draft.world.open();
    if open.len() < 2 {
        draft.not_done(
            "balance",
            "there is nothing to gain: fewer than two hosts take part",
        );
        return;
    }
    let mark = draft.mark();
    for _ in 0..ROUNDS {
        draft.forget_since(mark);
        let by = by(&draft.world, &open);
        let closed = same_size(&draft.world, &open, by) && draft.world.all_suit_all(&open);
        let wanted = if closed {
            equal::targets(&draft.world, &open, by)
        } else {
            mixed::targets(&draft.world, &open, by)
        };
        if wanted.is_empty() {
            break;
        }
        let before = (!closed).then(|| draft.clone());
        let moves = draft.moves.len();
        let all = crate::order::carry_out(draft, wanted);
        if draft.moves.len() == moves {
            break;
        }
        // What is left of a balance of which a part can't be done may be no better than nothing, and
        // would be moved to and fro for ever.
        if let Some(mut before) = before.filter(|_| !all)
            && unevenness(&draft.world, &open, by)
                >= unevenness(&before.world, &open, by) - ABOUT_NOTHING
        {
            before.take_reasons(draft);
            *draft = before;
            break;
        }
    }
    if draft.moves.is_empty() {
        let spread: Vec<f64> = open.iter().map(|h| draft.world.load(*h) * 100.0).collect();
        let low = spread.iter().copied().fold(f64::INFINITY, f64::min);
        let high = spread.iter().copied().fold(0.0, f64::max);
        draft.not_done(
            "balance",
            format!(
                "there is nothing to gain: hosts use {low:.1} to {high:.1} % of their memory, and no move makes that more even"
            ),
        );
    }
}

/// How far the hosts are from carrying the same.
fn unevenness(world: &World, open: &[usize], by: By) -> f64 {
    let load = |h: &usize| match by {
        By::Seats => f64::from(world.hosts[*h].count),
        By::Memory => world.load(*h),
    };
    let mean = match by {
        By::Seats => open.iter().map(load).sum::<f64>() / open.len().max(1) as f64,
        By::Memory => {
            let used: f64 = open.iter().map(|h| world.hosts[*h].used as f64).sum();
            let usable: f64 = open.iter().map(|h| world.hosts[*h].usable as f64).sum();
            used / usable.max(1.0)
        }
    };
    open.iter().map(|h| (load(h) - mean).powi(2)).sum()
}

/// What is made equal.
fn by(world: &World, open: &[usize]) -> By {
    match world.policy.balance_by {
        BalanceBy::Seats => By::Seats,
        BalanceBy::Memory => By::Memory,
        BalanceBy::Auto => {
            let seats = open.iter().all(|h| world.hosts[*h].seats.is_some());
            if seats && same_size(world, open, By::Memory) {
                By::Seats
            } else {
                By::Memory
            }
        }
    }
}

/// Whether every desktop on these hosts weighs the same, before and after a move.
fn same_size(world: &World, open: &[usize], by: By) -> bool {
    if by == By::Seats {
        return true;
    }
    let mut sizes = open
        .iter()
        .flat_map(|h| &world.hosts[*h].members)
        .flat_map(|d| [world.desktops[*d].cost, world.desktops[*d].cost_in]);
    let Some(first) = sizes.next() else {
        return true;
    };
    sizes.all(|size| size == first)
        // What is on its way has a size of its own.
        && open.iter().all(|h| {
            let host = &world.hosts[*h];
            host.count as usize == host.members.len()
        })
}
