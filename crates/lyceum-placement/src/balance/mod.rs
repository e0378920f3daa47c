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
        let before = draft.moves.len();
        if wanted.is_empty() {
            break;
        }
        crate::order::carry_out(draft, wanted);
        if draft.moves.len() == before {
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
