//! Power saving: the fewest hosts that keep the wanted free seats, then the fewest moves, then
//! the cheapest.
//!
//! ```text
//! free seats ≤ on threshold          hosts are switched on, nothing else
//! otherwise                          from the volume bound upwards: can all desktops live on k hosts
//!                                    with the wanted seats free? the first k that can be reached, is
//! ```
//! What was reached is planned again until no host can be spared, so a plan's result is stable.

mod fill;
mod pack;

use crate::order;
use crate::plan::Draft;
use crate::snapshot::{Power, Standing};
use std::cmp::Reverse;

/// More than ever needed; each round switches off a host at least.
const ROUNDS: usize = 16;

pub(crate) fn run(draft: &mut Draft) {
    let policy = draft.world.policy;
    let open = draft.world.open();
    // What is on its way counts: nobody switches on a second host for the same seats.
    let coming = coming(draft);
    let free: u64 = open.iter().map(|h| draft.world.free_seats(*h)).sum::<u64>()
        + coming
            .iter()
            .map(|h| draft.world.all_seats(*h))
            .sum::<u64>();
    let short = policy.on_threshold_seats > 0 && free <= u64::from(policy.on_threshold_seats);
    if short || ((open.len() + coming.len()) as u64) < u64::from(policy.min_hosts) {
        switch_on(draft, free, usize::MAX);
        return;
    }
    // Nothing is moved or switched off while a host is on its way up or down.
    if power_action_under_way(draft) {
        return;
    }
    if let Some((h, minutes)) = just_switched_on(draft, &open) {
        draft.not_done(
            draft.world.host_name(h),
            format!(
                "cooling down: it was switched on {minutes} min ago; hosts are given {} min before the next is switched off",
                policy.min_on_minutes
            ),
        );
        return;
    }
    let mark = draft.mark();
    for _ in 0..ROUNDS {
        draft.forget_since(mark);
        if !consolidate(draft) {
            break;
        }
    }
}

/// Hosts that were told to switch on and will take part.
fn coming(draft: &Draft) -> Vec<usize> {
    (0..draft.world.hosts.len())
        .filter(|h| {
            let host = &draft.world.snapshot.hosts[*h];
            host.power == Power::Starting && host.standing == Standing::Active && !host.reserve
        })
        .collect()
}

/// Whether a host of the same group is being switched.
fn group_is_busy(draft: &Draft, h: usize) -> bool {
    let hosts = &draft.world.snapshot.hosts;
    hosts[h].group.is_some()
        && hosts.iter().any(|other| {
            other.group == hosts[h].group
                && matches!(other.power, Power::Starting | Power::Stopping)
        })
}

/// Whether a host is being switched: then no other is, until that is done. Says so.
pub(crate) fn power_action_under_way(draft: &mut Draft) -> bool {
    let under_way: Vec<usize> = (0..draft.world.hosts.len())
        .filter(|h| {
            matches!(
                draft.world.snapshot.hosts[*h].power,
                Power::Starting | Power::Stopping
            )
        })
        .collect();
    for h in &under_way {
        draft.not_done(
            "power",
            format!(
                "one power action at a time: {} is being switched just now",
                draft.world.host_name(*h)
            ),
        );
    }
    !under_way.is_empty()
}

/// Whether a host was switched on too short a time ago for any to be switched off.
fn just_switched_on(draft: &Draft, open: &[usize]) -> Option<(usize, i64)> {
    let least = i64::from(draft.world.policy.min_on_minutes);
    open.iter().copied().find_map(|h| {
        let minutes = minutes_since(draft, h)?;
        (minutes < least).then_some((h, minutes))
    })
}

/// Minutes since the host was switched. A time in the future is a clock that was set back: long ago.
fn minutes_since(draft: &Draft, h: usize) -> Option<i64> {
    let since = draft.world.snapshot.hosts[h].since?;
    let ms = draft.world.now.saturating_sub(since);
    (ms >= 0).then_some(ms / 60_000)
}

/// Why a host can't be switched off by a plan.
pub(crate) fn must_stay(draft: &Draft, h: usize) -> Option<String> {
    let world = &draft.world;
    let host = &world.snapshot.hosts[h];
    if host.switchable == Some(false) {
        return Some("it can't be switched from afar".into());
    }
    if let Some(minutes) = minutes_since(draft, h)
        && minutes < i64::from(world.policy.min_on_minutes)
    {
        return Some(format!(
            "cooling down: it was switched on {minutes} min ago"
        ));
    }
    if let Some((d, why)) = world.hosts[h]
        .members
        .iter()
        .filter_map(|d| Some((*d, world.desktops[*d].fixed?)))
        .min_by_key(|(d, _)| *d)
    {
        return Some(format!("{} is on it: {why}", world.desktop_name(d)));
    }
    if world.hosts[h].count as usize > world.hosts[h].members.len() {
        return Some("a desktop is on its way to it".into());
    }
    None
}

/// Switches hosts on, up to `most`, until more seats are free than the on threshold.
pub(crate) fn switch_on(draft: &mut Draft, free: u64, most: usize) {
    let policy = draft.world.policy;
    // Only for want of hosts, when no number of seats is asked for.
    let short = |free: u64| {
        let paper = policy.mode == crate::Mode::PowerSavingPaper;
        (paper || policy.on_threshold_seats > 0) && free <= u64::from(policy.on_threshold_seats)
    };
    let wanted = u64::from(policy.on_threshold_seats);
    let mut free = free;
    let mut on = (draft.world.open().len() + coming(draft).len()) as u64;
    let mut can: Vec<usize> = Vec::new();
    for h in 0..draft.world.hosts.len() {
        let host = &draft.world.snapshot.hosts[h];
        if host.power != Power::Off {
            continue;
        }
        let why = if host.standing != Standing::Active {
            Some("it is being drained or in maintenance".to_owned())
        } else if host.reserve {
            Some("it is held in reserve".to_owned())
        } else if host.switchable == Some(false) {
            Some("it can't be switched from afar".to_owned())
        } else if group_is_busy(draft, h) {
            Some(
                "one power action at a time: another host of its group is being switched"
                    .to_owned(),
            )
        } else {
            minutes_since(draft, h)
                .filter(|m| *m < i64::from(policy.min_off_minutes))
                .map(|m| format!("cooling down: it was switched off {m} min ago"))
        };
        match why {
            Some(why) => {
                draft.not_done(draft.world.host_name(h), format!("not switched on: {why}"))
            }
            None => can.push(h),
        }
    }
    while (short(free) || on < u64::from(policy.min_hosts)) && draft.on.len() < most {
        let seats = |h: &usize| draft.world.all_seats(*h);
        let watts = |h: &usize| draft.world.snapshot.hosts[*h].watts.unwrap_or(0.0);
        // The smallest that is enough by itself; else the largest.
        let enough = can
            .iter()
            .copied()
            .filter(|h| !short(free + seats(h)))
            .min_by(|a, b| {
                seats(a)
                    .cmp(&seats(b))
                    .then(watts(a).total_cmp(&watts(b)))
                    .then(a.cmp(b))
            });
        let next = enough.or_else(|| can.iter().copied().max_by_key(|h| (seats(h), Reverse(*h))));
        let Some(h) = next else {
            draft.not_done(
                "power",
                format!(
                    "{free} seats are free on {on} hosts; more than {wanted} and at least {} hosts are wanted, and no other host can be switched on",
                    policy.min_hosts
                ),
            );
            return;
        };
        can.retain(|x| *x != h);
        free += draft.world.all_seats(h);
        on += 1;
        draft.on.push(h);
    }
    for h in can {
        draft.not_done(
            draft.world.host_name(h),
            format!("stays off: {free} seats will be free, more than {wanted} are wanted"),
        );
    }
}

/// Frees and switches off as many hosts as possible. Says whether there were any.
fn consolidate(draft: &mut Draft) -> bool {
    let open = draft.world.open();
    let stays: Vec<Option<String>> = open.iter().map(|h| must_stay(draft, *h)).collect();
    let kept = stays.iter().filter(|s| s.is_some()).count();
    let least = kept.max(draft.world.policy.min_hosts as usize).max(
        // Whatever is off: somebody has to be there.
        1,
    );
    let free_to_go: Vec<usize> = open
        .iter()
        .zip(&stays)
        .filter(|(_, s)| s.is_none())
        .map(|(h, _)| *h)
        .collect();
    let bound = pack::bound(&draft.world, &open, &free_to_go).max(least);
    for k in bound..open.len() {
        for emptied in pack::ways(&draft.world, &open, &free_to_go, open.len() - k) {
            let mut trial = draft.clone();
            if carry_out(&mut trial, &open, emptied) {
                *draft = trial;
                return true;
            }
        }
    }
    say_why_hosts_stay(draft, &open, &stays);
    false
}

/// Empties hosts as worked out; only if every step of it can be done.
fn carry_out(draft: &mut Draft, open: &[usize], way: pack::Way) -> bool {
    let seats_left: u64 = way.free_seats;
    let wanted = way
        .places
        .into_iter()
        .map(|(d, to)| {
            let from = draft.world.desktops[d].host.unwrap_or(to);
            let reason = if way.emptied.contains(&from) {
                format!(
                    "{} is emptied and switched off; {seats_left} seats stay free on {} hosts",
                    draft.world.host_name(from),
                    open.len() - way.emptied.len()
                )
            } else {
                format!(
                    "makes room on {} for larger ones of a host that is switched off",
                    draft.world.host_name(from)
                )
            };
            order::Wanted {
                desktop: d,
                to,
                reason,
            }
        })
        .collect();
    if !order::carry_out(draft, wanted)
        || way.emptied.iter().any(|h| draft.world.hosts[*h].count > 0)
    {
        return false;
    }
    for h in &way.emptied {
        draft.world.hosts[*h].role = crate::world::Role::Closed("it is to be switched off".into());
    }
    draft.off.extend(way.emptied);
    true
}

fn say_why_hosts_stay(draft: &mut Draft, open: &[usize], stays: &[Option<String>]) {
    let policy = draft.world.policy;
    let free: u64 = open.iter().map(|h| draft.world.free_seats(*h)).sum();
    for (h, why) in open.iter().zip(stays) {
        let left = free.saturating_sub(draft.world.all_seats(*h));
        let why = if let Some(why) = why {
            format!("stays on: {why}")
        } else if open.len() <= policy.min_hosts.max(1) as usize {
            format!("stays on: at least {} stay on", policy.min_hosts.max(1))
        } else if left < policy.seats_to_keep() {
            format!(
                "stays on: without it {left} seats would be free, and {} are wanted",
                policy.seats_to_keep()
            )
        } else {
            "stays on: its desktops don't fit on the others".into()
        };
        draft.not_done(draft.world.host_name(*h), why);
    }
}
