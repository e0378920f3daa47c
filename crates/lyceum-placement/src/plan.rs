//! A plan, and how one is made.

use crate::snapshot::{Power, Snapshot};
use crate::summary::{Summary, summary};
use crate::world::World;
use crate::{
    Invalid, Mode, PlanPolicy, PlanPrice, Price, balance, compute, order, paper, place, saving,
};
use lyceum_model::UnixMillis;
use serde::{Deserialize, Serialize};

/// One desktop goes from one host to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Which desktop.
    pub desktop: String,
    /// Where it is.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Why, in words.
    pub reason: String,
    /// What it is expected to cost; a plan that is older than this number has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

/// One waiting desktop gets a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Which desktop.
    pub desktop: String,
    /// Where it starts.
    pub host: String,
    /// Why there, in words.
    pub reason: String,
}

/// Something that somebody could expect of the plan and that is not in it.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotDone {
    /// About what: a host, a desktop, or a move as `desktop: from -> to`.
    pub what: String,
    /// Why not, in words.
    pub why: String,
}

/// What is to be done, in this order: hosts on, then starts and moves one by one in the order
/// given, then hosts off. Every step fits after the ones before it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Moves, in an order in which they can be done one by one.
    pub moves: Vec<Move>,
    /// What the moves are expected to cost together; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PlanPrice>,
    /// Places for desktops that waited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Start>,
    /// Hosts to switch on, one of each group at a time.
    pub power_on: Vec<String>,
    /// Hosts to switch off once they are empty, one of each group at a time.
    pub power_off: Vec<String>,
    /// What was not done, and why.
    pub not_done: Vec<NotDone>,
    /// The cluster as it is.
    pub before: Summary,
    /// The cluster as it will be.
    pub after: Summary,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
            && self.starts.is_empty()
            && self.power_on.is_empty()
            && self.power_off.is_empty()
    }
}

/// Makes a plan. The same input gives the same plan, on every machine.
///
/// `now` is compared with the times in the snapshot: how old measurements are, when a plan was
/// last carried out, since when hosts are on or off.
///
/// # Errors
/// A snapshot or policy that contradicts itself, with the place of what is wrong.
pub fn plan(snapshot: &Snapshot, policy: &PlanPolicy, now: UnixMillis) -> Result<Plan, Invalid> {
    snapshot.check()?;
    policy.check()?;
    let mut draft = Draft::new(snapshot, policy, now);
    let before = summary(&draft);
    if snapshot.hosts.is_empty() {
        draft.not_done("cluster", "it has no hosts");
    } else if let Some(minutes) = paused(snapshot, policy, now) {
        draft.not_done(
            policy.mode.as_str(),
            format!(
                "a plan was carried out {minutes} min ago; the next comes {} min after it, or when a person orders it",
                policy.pause_minutes
            ),
        );
    } else {
        draft.tell_who_takes_no_part();
        match policy.mode {
            Mode::Start => place::run(&mut draft),
            Mode::MemoryBalance => draft.until_stable(balance::run),
            Mode::ComputeBalance => draft.until_stable(compute::run),
            Mode::PowerSaving => draft.until_stable(saving::run),
            Mode::MemoryBalancePaper => paper::memory_balance(&mut draft),
            Mode::PowerSavingPaper => paper::power_saving(&mut draft),
        }
    }
    let plan = draft.finish(before);
    Ok(if plan.is_empty() && plan.not_done.is_empty() {
        Plan {
            not_done: vec![NotDone {
                what: policy.mode.as_str().into(),
                why: "there is nothing to do: no host takes part".into(),
            }],
            ..plan
        }
    } else {
        plan
    })
}

/// Minutes since the last plan when that is too soon.
fn paused(snapshot: &Snapshot, policy: &PlanPolicy, now: UnixMillis) -> Option<i64> {
    // Starting is no mode of its own: whoever waits for a desktop doesn't wait for a pause.
    if policy.ordered || policy.mode == Mode::Start {
        return None;
    }
    let since = now.saturating_sub(snapshot.last_acted_at?);
    // A last time in the future is a clock that was set back; waiting for it could take for ever.
    (0..i64::from(policy.pause_minutes) * 60_000)
        .contains(&since)
        .then_some(since / 60_000)
}

/// A plan in the making. `world` is as it will be after what is in it already.
#[derive(Clone)]
pub(crate) struct Draft<'a> {
    pub world: World<'a>,
    pub moves: Vec<(usize, usize, usize, String)>,
    pub starts: Vec<(usize, usize, String)>,
    pub on: Vec<usize>,
    pub off: Vec<usize>,
    refused: Vec<NotDone>,
}

impl<'a> Draft<'a> {
    fn new(snapshot: &'a Snapshot, policy: &'a PlanPolicy, now: UnixMillis) -> Self {
        Draft {
            world: World::new(snapshot, policy, now),
            moves: Vec::new(),
            starts: Vec::new(),
            on: Vec::new(),
            off: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Says that something is not done.
    pub fn not_done(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let entry = NotDone {
            what: what.into(),
            why: why.into(),
        };
        if !self.refused.contains(&entry) {
            self.refused.push(entry);
        }
    }

    /// Where the list of what is not done ends just now.
    pub fn mark(&self) -> usize {
        self.refused.len()
    }

    /// Forgets what was said not to be done since then.
    pub fn forget_since(&mut self, mark: usize) {
        self.refused.truncate(mark);
    }

    /// Whether a host is, or will be, on.
    pub fn is_on(&self, h: usize) -> bool {
        if self.off.contains(&h) {
            return false;
        }
        self.on.contains(&h) || self.world.snapshot.hosts[h].power == Power::On
    }

    /// Takes over what another draft says is not done.
    pub fn take_reasons(&mut self, other: &mut Draft) {
        self.refused = std::mem::take(&mut other.refused);
    }

    /// Moves a desktop now, which the caller knows to fit.
    pub fn step(&mut self, d: usize, to: usize, reason: String) {
        if let Some(from) = self.world.desktops[d].host {
            self.world.shift(d, to);
            self.moves.push((d, from, to, reason));
        }
    }

    fn tell_who_takes_no_part(&mut self) {
        for h in 0..self.world.hosts.len() {
            if let crate::world::Role::Closed(why) = &self.world.hosts[h].role {
                let why = format!("left as it is: {why}");
                self.not_done(self.world.host_name(h), why);
            }
        }
    }

    /// Drains, then runs a mode; again while either found something to move, for what one moves may
    /// make room for the other.
    fn until_stable(&mut self, mode: fn(&mut Draft)) {
        const ROUNDS: usize = 8;
        let mark = self.mark();
        for _ in 0..ROUNDS {
            let before = self.moves.len();
            self.forget_since(mark);
            self.drain();
            mode(self);
            if self.moves.len() == before {
                break;
            }
        }
    }

    /// Empties hosts that are being drained, as far as that goes.
    fn drain(&mut self) {
        let draining: Vec<usize> = (0..self.world.hosts.len())
            .filter(|h| self.world.hosts[*h].role == crate::world::Role::Draining)
            .collect();
        for h in draining {
            let mut members = self.world.hosts[h].members.clone();
            // The largest first: they are the hardest to place.
            members.sort_by_key(|d| (std::cmp::Reverse(self.world.desktops[*d].cost_in), *d));
            for d in members {
                let name = self.world.desktop_name(d);
                if let Some(why) = self.world.desktops[d].fixed {
                    self.not_done(
                        name,
                        format!("{} is being drained, but {why}", self.world.host_name(h)),
                    );
                    continue;
                }
                match order::most_room(&self.world, d, |_| true) {
                    Some(to) => {
                        let reason = format!("{} is being drained", self.world.host_name(h));
                        self.step(d, to, reason);
                    }
                    None => {
                        let why = self.no_place(d);
                        self.not_done(
                            name,
                            format!(
                                "{} is being drained, but no other host can take it: {why}",
                                self.world.host_name(h)
                            ),
                        );
                    }
                }
            }
        }
    }

    /// Why no host can take a desktop, host by host; cut when there are many.
    pub fn no_place(&self, d: usize) -> String {
        const TOLD: usize = 4;
        let whys: Vec<String> = (0..self.world.hosts.len())
            .filter(|h| self.world.desktops[d].host != Some(*h))
            .filter_map(|h| {
                let why = self.world.can_move(d, h).err()?;
                Some(format!("{}: {why}", self.world.host_name(h)))
            })
            .collect();
        match whys.len() {
            0 => "there is no other host".into(),
            n if n > TOLD => format!("{}; and {} more", whys[..TOLD].join("; "), n - TOLD),
            _ => whys.join("; "),
        }
    }

    fn finish(self, before: Summary) -> Plan {
        let after = summary(&self);
        let world = &self.world;
        let names = |hosts: &[usize]| {
            hosts
                .iter()
                .map(|h| world.host_name(*h).to_owned())
                .collect()
        };
        let mut moved = std::collections::HashSet::new();
        let moves: Vec<Move> = self
            .moves
            .iter()
            .map(|(d, from, to, reason)| {
                let desktop = &world.snapshot.desktops[*d];
                // By way of a third host what it shared is lost once.
                let now_mib = match moved.insert(*d) {
                    true => desktop.cost_mib(),
                    false => desktop.cost_after_move_mib(),
                };
                Move {
                    desktop: world.desktop_name(*d).to_owned(),
                    from: world.host_name(*from).to_owned(),
                    to: world.host_name(*to).to_owned(),
                    reason: reason.clone(),
                    price: Some(Price::of(desktop, now_mib, world.snapshot.move_mbit_per_s)),
                }
            })
            .collect();
        Plan {
            power_on: names(&self.on),
            power_off: names(&self.off),
            price: PlanPrice::sum(moves.iter().filter_map(|m| m.price.as_ref())),
            moves,
            starts: self
                .starts
                .iter()
                .map(|(d, h, reason)| Start {
                    desktop: world.desktop_name(*d).to_owned(),
                    host: world.host_name(*h).to_owned(),
                    reason: reason.clone(),
                })
                .collect(),
            not_done: self.refused,
            before,
            after,
        }
    }
}

impl Snapshot {
    /// The cluster after a plan was carried out at `now`: what a rehearsal goes on with.
    pub fn after(&self, plan: &Plan, now: UnixMillis) -> Snapshot {
        let mut next = self.clone();
        let host_at: std::collections::HashMap<&str, usize> = self
            .hosts
            .iter()
            .enumerate()
            .map(|(i, h)| (h.id.as_str(), i))
            .collect();
        let desktop_at: std::collections::HashMap<&str, usize> = self
            .desktops
            .iter()
            .enumerate()
            .map(|(i, d)| (d.id.as_str(), i))
            .collect();
        for (ids, power) in [(&plan.power_on, Power::On), (&plan.power_off, Power::Off)] {
            for id in ids {
                if let Some(h) = host_at.get(id.as_str()) {
                    next.hosts[*h].power = power;
                    next.hosts[*h].since = Some(now);
                    next.hosts[*h].cpu_percent = (power == Power::On).then_some(0.0);
                    next.hosts[*h].cpu_samples.clear();
                    next.hosts[*h].measured_at = None;
                }
            }
        }
        for step in &plan.moves {
            let Some(d) = desktop_at.get(step.desktop.as_str()) else {
                continue;
            };
            let desktop = &mut next.desktops[*d];
            for (id, sign) in [(&step.from, -1.0), (&step.to, 1.0)] {
                if let Some(h) = host_at.get(id.as_str()) {
                    let host = &mut next.hosts[*h];
                    if let (Some(cpu), Some(cores)) = (host.cpu_percent, host.cpu_cores) {
                        let share = desktop.cores_used() / cores * 100.0 * sign;
                        host.cpu_percent = Some((cpu + share).max(0.0));
                    }
                    // What was sampled is no longer what is there.
                    host.cpu_samples.clear();
                }
            }
            if desktop.way() == crate::MovesBy::Migration {
                // What was measured of it was measured while it shared memory.
                if desktop.private_mib.take().is_some() {
                    desktop.move_mib = None;
                }
            }
            desktop.host = Some(step.to.clone());
        }
        for start in &plan.starts {
            if let Some(d) = desktop_at.get(start.desktop.as_str()) {
                next.desktops[*d].host = Some(start.host.clone());
            }
        }
        if !plan.is_empty() {
            next.last_acted_at = Some(now);
        }
        next
    }
}
