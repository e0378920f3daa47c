//! Better for the same number of moves: which desktops move, and where to, is chosen again as long
//! as that makes the balance better, and moves that hardly matter are dropped.

use super::mixed::Search;
use crate::world::World;

/// Changes that are looked at before it is left as it is: a bound on time, not on quality, which
/// clusters of some thousand desktops don't reach.
const LOOKS: usize = 12_000_000;

/// One desktop ends somewhere else than it does now.
type Change = (usize, usize);

pub(super) fn run(search: &mut Search, start: &World) -> bool {
    let mut any = false;
    let mut looks = 0usize;
    loop {
        let moved: Vec<usize> = (0..start.desktops.len())
            .filter(|d| search.world.desktops[*d].host != start.desktops[*d].host)
            .collect();
        let before = looks;
        let mut changed = false;
        for d in &moved {
            changed |= choose_again(search, start, *d, &moved, &mut looks);
            if looks > LOOKS {
                return any || changed;
            }
        }
        any |= changed;
        if !changed || looks == before {
            return any;
        }
    }
}

/// Moves that gain less than a move has to are taken back.
pub(super) fn drop_small(search: &mut Search, start: &World) -> bool {
    let mut any = false;
    for d in 0..start.desktops.len() {
        let (Some(home), Some(now)) = (start.desktops[d].host, search.world.desktops[d].host)
        else {
            continue;
        };
        if home == now {
            continue;
        }
        let loss = -search.gain(&[(d, home)]);
        if search.worth(loss, 1) {
            continue;
        }
        any |= apply(search, start, &[(d, home)]);
    }
    any
}

fn choose_again(
    search: &mut Search,
    start: &World,
    d: usize,
    moved: &[usize],
    looks: &mut usize,
) -> bool {
    let (Some(home), Some(now)) = (start.desktops[d].host, search.world.desktops[d].host) else {
        return false;
    };
    if home == now {
        return false;
    }
    let mut found: Vec<(f64, Vec<Change>)> = Vec::new();
    let mut look = |search: &Search, changes: &[Change]| {
        *looks += 1;
        let gain = search.gain(changes);
        if gain > 1e-9 {
            found.push((gain, changes.to_vec()));
        }
    };
    let open = search.open.clone();
    // It goes somewhere else.
    for c in &open {
        if *c != home && *c != now {
            look(search, &[(d, *c)]);
        }
    }
    // It goes where another goes, and that one where this one went.
    for e in moved {
        let there = search.world.desktops[*e].host;
        if let Some(there) = there
            && there != now
            && there != home
            && start.desktops[*e].host != Some(now)
            && start.desktops[*e].host != Some(there)
        {
            look(search, &[(d, there), (*e, now)]);
        }
    }
    // It stays, and another goes instead: from the same host to anywhere, or from anywhere to the same host.
    for h in &open {
        let targets: &[usize] = if *h == home {
            &open
        } else {
            std::slice::from_ref(&now)
        };
        for size in &search.sizes[*h] {
            let instead = size
                .members
                .iter()
                .find(|e| start.desktops[**e].host == Some(*h) && **e != d);
            if let Some(e) = instead {
                for c in targets.iter().filter(|c| *c != h) {
                    look(search, &[(d, home), (*e, *c)]);
                }
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found
        .into_iter()
        .take(6)
        .any(|(_, changes)| apply(search, start, &changes))
}

/// Makes the changes if all of them fit in the end; says whether.
fn apply(search: &mut Search, start: &World, changes: &[Change]) -> bool {
    let was: Vec<(usize, usize, u64)> = changes
        .iter()
        .filter_map(|(d, _)| {
            let desktop = &search.world.desktops[*d];
            Some((*d, desktop.host?, desktop.cost))
        })
        .collect();
    for (d, _, _) in &was {
        search.world.leave(*d);
    }
    let mut done = 0;
    for (d, to) in changes {
        let home = start.desktops[*d].host;
        if search.world.fits(*d, *to, home).is_err() {
            break;
        }
        if home == Some(*to) {
            search.world.put_back(*d, *to, start.desktops[*d].cost);
        } else {
            search.world.arrive(*d, *to);
        }
        done += 1;
    }
    let ok = done == changes.len();
    if !ok {
        for (d, _) in &changes[..done] {
            search.world.leave(*d);
        }
        for (d, h, cost) in &was {
            search.world.put_back(*d, *h, *cost);
        }
        return false;
    }
    let mut touched: Vec<usize> = was.iter().map(|(_, h, _)| *h).collect();
    touched.extend(changes.iter().map(|(_, h)| *h));
    touched.sort_unstable();
    touched.dedup();
    for h in touched {
        search.sort_out(h);
    }
    search.note(start);
    true
}
