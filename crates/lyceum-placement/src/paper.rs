//! The paper's own steps, so that they can be compared with the other modes: they look at
//! counts of desktops and at nothing else, one host after the other. Constraints that would
//! break something hold here too.

use crate::plan::Draft;
use crate::saving;
use std::cmp::Reverse;

/// One desktop at a time from the host with the most to the host with the fewest, until no two
/// differ by more than one.
pub(crate) fn memory_balance(draft: &mut Draft) {
    let open = draft.world.open();
    loop {
        let count = |draft: &Draft, h: &usize| draft.world.hosts[*h].count;
        let Some(from) = open
            .iter()
            .copied()
            .max_by_key(|h| (count(draft, h), Reverse(*h)))
        else {
            break;
        };
        let Some(to) = open.iter().copied().min_by_key(|h| (count(draft, h), *h)) else {
            break;
        };
        if count(draft, &from) <= count(draft, &to) + 1 {
            break;
        }
        let fits = movable(draft, from)
            .into_iter()
            .find(|d| draft.world.can_move(*d, to).is_ok());
        let Some(d) = fits else {
            draft.not_done(
                draft.world.host_name(from),
                format!(
                    "it has the most desktops, and {}, which has the fewest, can take none of them",
                    draft.world.host_name(to)
                ),
            );
            break;
        };
        let reason = format!(
            "{} has the most desktops ({}), {} the fewest ({})",
            draft.world.host_name(from),
            count(draft, &from),
            draft.world.host_name(to),
            count(draft, &to)
        );
        draft.step(d, to, reason);
    }
    if draft.moves.is_empty() {
        draft.not_done("balance", "there is nothing to gain: counts are even");
    }
}

fn movable(draft: &Draft, h: usize) -> Vec<usize> {
    let mut members: Vec<usize> = draft.world.hosts[h]
        .members
        .iter()
        .copied()
        .filter(|d| draft.world.desktops[*d].fixed.is_none())
        .collect();
    members.sort_unstable();
    members
}

/// The ten steps of the paper's power saving.
pub(crate) fn power_saving(draft: &mut Draft) {
    let policy = draft.world.policy;
    let off_threshold = u64::from(policy.off_threshold_seats);
    let on_threshold = u64::from(policy.on_threshold_seats);
    if saving::power_action_under_way(draft) {
        return;
    }
    // 3. Hosts without desktops are to be switched off,
    let open = draft.world.open();
    let mut off: Vec<usize> = open
        .iter()
        .copied()
        .filter(|h| draft.world.hosts[*h].count == 0 && saving::must_stay(draft, *h).is_none())
        .collect();
    let free = |draft: &Draft, off: &[usize]| -> u64 {
        open.iter()
            .filter(|h| !off.contains(h))
            .map(|h| draft.world.free_seats(*h))
            .sum()
    };
    let least = policy.min_hosts as usize;
    // 4. but not so many that too few seats stay free.
    while free(draft, &off) < off_threshold || open.len() - off.len() < least {
        let Some(h) = off.pop() else { break };
        draft.not_done(
            draft.world.host_name(h),
            format!("it is empty but stays on: {off_threshold} free seats are wanted"),
        );
    }
    // 5. Too few even so: one host is switched on, and that is all.
    if free(draft, &off) <= on_threshold {
        saving::switch_on(draft, free(draft, &off), 1);
        return;
    }
    // 6, 7, 8. While a host can be emptied: the one with the fewest desktops, into those with the next fewest.
    loop {
        let stays: Vec<usize> = open.iter().copied().filter(|h| !off.contains(h)).collect();
        if stays.len() <= least.max(1) {
            if draft.moves.is_empty() {
                draft.not_done("power", format!("at least {} hosts stay on", least.max(1)));
            }
            break;
        }
        let Some(from) = stays
            .iter()
            .copied()
            .filter(|h| saving::must_stay(draft, *h).is_none())
            .min_by_key(|h| (draft.world.hosts[*h].count, *h))
        else {
            draft.not_done("power", "no host can be switched off");
            break;
        };
        let left = free(draft, &off).saturating_sub(draft.world.all_seats(from));
        if left < off_threshold {
            draft.not_done(
                draft.world.host_name(from),
                format!("without it {left} seats would be free, and {off_threshold} are wanted"),
            );
            break;
        }
        let mut trial = draft.clone();
        let emptied = movable(&trial, from).into_iter().all(|d| {
            let to = stays
                .iter()
                .copied()
                .filter(|h| *h != from && trial.world.can_move(d, *h).is_ok())
                // The next fewest as they were: it is filled before the one after it.
                .min_by_key(|h| (draft.world.hosts[*h].count, *h));
            if let Some(to) = to {
                let reason = format!(
                    "{} has the fewest desktops and is switched off; {} has the next fewest",
                    trial.world.host_name(from),
                    trial.world.host_name(to)
                );
                trial.step(d, to, reason);
            }
            to.is_some()
        });
        if !emptied {
            draft.not_done(
                draft.world.host_name(from),
                "it has the fewest desktops, but the others can't take them all",
            );
            break;
        }
        *draft = trial;
        off.push(from);
    }
    // 10. The list is switched off.
    draft.off.extend(off);
}
