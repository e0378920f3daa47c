//! A plan that is being carried out: hosts on, then its moves one by one, then hosts off. When the rest of it is left is
//! decided as the controller decides it; what a step does, and how long it takes, is made up here.

use super::{Live, Run};
use crate::controller::{self, Rule};
use lyceum_placement::decide::{UnderWay, enough};
use lyceum_placement::{Plan, PlanPolicy, Power, Standing};

impl Run<'_> {
    /// Whether a plan is being carried out.
    pub fn busy(&self) -> bool {
        !self.coming.is_empty() || !self.queue.is_empty() || !self.then_off.is_empty()
    }

    /// Begins to carry a plan out.
    pub fn begin(&mut self, plan: Plan, by: &PlanPolicy) {
        if plan.is_empty() {
            return;
        }
        self.snapshot.last_acted_at = Some(self.now());
        self.by = Some(by.clone());
        self.switch_on(&plan.power_on);
        self.coming = plan.power_on;
        self.queue = plan.moves.into();
        self.then_off = plan.power_off;
        for host in &mut self.snapshot.hosts {
            // Nothing new is started where things are to leave.
            if self.then_off.contains(&host.id) {
                host.standing = Standing::Draining;
            }
        }
    }

    /// Switches hosts on.
    pub fn switch_on(&mut self, ids: &[String]) {
        for (h, host) in self.snapshot.hosts.iter_mut().enumerate() {
            if ids.contains(&host.id) && host.power == Power::Off {
                host.power = Power::Starting;
                self.machines[h].up_at = self.minute + self.scenario.hosts.boot_minutes;
                self.out.switched_on += 1;
            }
        }
    }

    /// Gives the rest of a plan up: what was done stays, what was to be switched off stays on.
    pub(super) fn give_up(&mut self) {
        self.out.plans_given_up += 1;
        self.coming.clear();
        self.queue.clear();
        for id in std::mem::take(&mut self.then_off) {
            if let Some(host) = self.snapshot.hosts.iter_mut().find(|h| h.id == id)
                && host.standing == Standing::Draining
            {
                host.standing = Standing::Active;
            }
        }
    }

    /// Whether no more of the plan is begun, as the controller sees it.
    fn enough(&self) -> bool {
        let Some(by) = self.by.as_ref().filter(|_| self.out.policy == Rule::Ours) else {
            return false;
        };
        let now = f64::from(self.minute);
        let starting = |l: &&Live| l.began <= now && now < l.ready;
        let under_way = UnderWay {
            mode: by.mode,
            policy: Some(by),
            ordered: false,
            takes_away: !self.queue.is_empty() || !self.then_off.is_empty(),
            starting: self.live.iter().filter(starting).count(),
        };
        let (settings, demand) = (
            controller::settings(self.scenario),
            controller::demand(self),
        );
        enough(&under_way, &settings, &demand).is_some()
    }

    /// Goes on with a plan for a minute: its moves in order, then its hosts off.
    pub(super) fn carry_on(&mut self) {
        if !self.busy() {
            return;
        }
        if self.enough() {
            self.give_up();
            return;
        }
        // One that does not come up is nobody's to wait for.
        let hosts = &self.snapshot.hosts;
        self.coming.retain(|id| {
            hosts
                .iter()
                .any(|h| h.id == *id && h.power == Power::Starting)
        });
        if !self.coming.is_empty() {
            return;
        }
        let h = &self.scenario.hosts;
        let per_minute =
            (60.0 / h.move_seconds.max(0.05)).floor().max(1.0) as u32 * h.moves_at_once;
        for _ in 0..per_minute {
            let Some(step) = self.queue.front() else {
                break;
            };
            let Some(i) = self
                .snapshot
                .desktops
                .iter()
                .position(|d| d.id == step.desktop)
            else {
                self.queue.pop_front();
                continue;
            };
            // Looked at again at its turn: the school went on in the meantime.
            let target = self.snapshot.hosts.iter().find(|h| h.id == step.to);
            let there = |id: &str| {
                self.snapshot
                    .desktops
                    .iter()
                    .filter(|d| d.host.as_deref() == Some(id))
                    .count() as u32
            };
            let fits = self.snapshot.desktops[i].host.as_ref() == Some(&step.from)
                && target.is_some_and(|t| {
                    t.power == Power::On
                        // A plan's steps may go by way of a host that it switches off in the end.
                        && (t.standing == Standing::Active || self.then_off.contains(&t.id))
                        && t.seats.is_none_or(|seats| there(&t.id) < seats)
                });
            if !fits {
                self.give_up();
                return;
            }
            let Some(step) = self.queue.pop_front() else {
                break;
            };
            self.snapshot.desktops[i].host = Some(step.to);
            self.out.moves += 1;
            if self.live[i].session.is_some() {
                self.out.disturbed_minutes += 1;
            }
        }
        if self.queue.is_empty() {
            let now = self.now();
            for id in std::mem::take(&mut self.then_off) {
                let empty = self
                    .snapshot
                    .desktops
                    .iter()
                    .all(|d| d.host.as_ref() != Some(&id));
                let Some(host) = self.snapshot.hosts.iter_mut().find(|h| h.id == id) else {
                    continue;
                };
                if host.standing == Standing::Draining {
                    host.standing = Standing::Active;
                    if empty && host.power == Power::On {
                        host.power = Power::Off;
                        host.since = Some(now);
                        self.out.switched_off += 1;
                    }
                }
            }
        }
    }
}
