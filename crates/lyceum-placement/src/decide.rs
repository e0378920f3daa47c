//! What is done next, and whether what was begun goes on. The controller's reconciler asks it with what is in the
//! store, the rehearsal with its made-up school: both act by the same rules.
//!
//! ```text
//!  a plan is being carried out? ── yes ──► enough()? ── a reason ──► the rest is left
//!        │ no
//!        ▼
//!  decide(): classes want more seats than will be free? ── yes ──► hosts on, at once
//!        │ no
//!        ▼
//!  time to look (every few minutes)? ── yes ──► a plan for the mode in force, which may have nothing to do
//! ```

use crate::{Mode, Plan, PlanPolicy};

/// Hosts that are on stay on for lessons that begin within this time, minutes.
pub const SOON_MINUTES: u32 = 75;

/// What is wanted of the hosts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The mode in force.
    pub mode: Mode,
    /// Free seats that classes want soon, on top of those that are kept free for whoever comes.
    pub seats_needed: u32,
    /// Free seats for which hosts that are on are kept on: these, and those of classes that come within
    /// [`SOON_MINUTES`].
    pub seats_kept: u32,
}

impl Demand {
    /// The settings' policy with the seats that classes want on top of those that are kept free anyway.
    pub fn seats(&self, policy: &PlanPolicy) -> PlanPolicy {
        PlanPolicy {
            off_threshold_seats: policy
                .off_threshold_seats
                .saturating_add(self.seats_needed.max(self.seats_kept)),
            on_threshold_seats: match (policy.on_threshold_seats, self.seats_needed) {
                (0, 0) => 0,
                // More than are wanted have to be free, so one less is where it is short.
                (0, n) => n - 1,
                (on, n) => on.saturating_add(n),
            },
            ..policy.clone()
        }
    }
}

/// What is done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Nothing: it is not the time to look.
    Wait,
    /// Hosts are switched on for classes. It did not wait for the pause after the last plan.
    Wake(PlanPolicy, Plan),
    /// A plan for the mode in force; it may be empty.
    Plan(PlanPolicy, Plan),
}

/// Decides while no plan is being carried out. `due`: it is time to look; `plan` makes a plan of what there is now.
///
/// # Errors
/// What `plan` fails with.
pub fn decide<E>(
    policy: &PlanPolicy,
    demand: &Demand,
    due: bool,
    mut plan: impl FnMut(&PlanPolicy) -> Result<Plan, E>,
) -> Result<Next, E> {
    let seats = demand.seats(policy);
    if demand.seats_needed > 0 {
        let policy = PlanPolicy {
            mode: Mode::PowerSaving,
            ordered: true,
            min_off_minutes: 0,
            ..seats.clone()
        };
        let mut wake = plan(&policy)?;
        if !wake.power_on.is_empty() {
            // Only that: what is on is left where it is.
            wake.moves.clear();
            wake.power_off.clear();
            return Ok(Next::Wake(policy, wake));
        }
    }
    if !due {
        return Ok(Next::Wait);
    }
    let policy = PlanPolicy {
        mode: demand.mode,
        ordered: false,
        ..seats
    };
    let plan = plan(&policy)?;
    Ok(Next::Plan(policy, plan))
}

/// A plan that is being carried out.
#[derive(Debug, Clone, Copy)]
pub struct UnderWay<'a> {
    /// Its mode.
    pub mode: Mode,
    /// The policy it was made with, if that is known.
    pub policy: Option<&'a PlanPolicy>,
    /// A person ordered it.
    pub ordered: bool,
    /// A move or a switching off of it is not over yet.
    pub takes_away: bool,
    /// Desktops that are being started, and were not when it was made.
    pub starting: usize,
}

/// Why no more of a plan is begun; `None`: it goes on. Only saving power gives way: to desktops that are being started,
/// and to more seats or another mode that are wanted by now, unless a person ordered it.
pub fn enough(under_way: &UnderWay<'_>, policy: &PlanPolicy, demand: &Demand) -> Option<String> {
    let saves = matches!(under_way.mode, Mode::PowerSaving | Mode::PowerSavingPaper);
    if !saves || !under_way.takes_away {
        return None;
    }
    if under_way.starting > 0 {
        return Some(format!(
            "{} desktops are being started, and they come first",
            under_way.starting
        ));
    }
    if under_way.ordered {
        return None;
    }
    if demand.mode != under_way.mode {
        return Some(format!("{} is wanted by now", demand.mode));
    }
    let kept = demand.seats(policy).off_threshold_seats;
    under_way
        .policy
        .is_some_and(|made_with| kept > made_with.off_threshold_seats)
        .then(|| "more seats are wanted by now".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const NO_DEMAND: Demand = Demand {
        mode: Mode::MemoryBalance,
        seats_needed: 0,
        seats_kept: 0,
    };

    fn settings() -> PlanPolicy {
        PlanPolicy {
            off_threshold_seats: 18,
            on_threshold_seats: 6,
            ..PlanPolicy::of(Mode::MemoryBalance)
        }
    }

    /// Asks with a planner that answers with this; what it was asked.
    fn asked(demand: &Demand, due: bool, answer: &Plan) -> (Next, Vec<PlanPolicy>) {
        let mut asked = Vec::new();
        let next = decide(&settings(), demand, due, |policy| {
            asked.push(policy.clone());
            Ok::<_, Infallible>(answer.clone())
        });
        let Ok(next) = next;
        (next, asked)
    }

    #[test]
    fn classes_that_want_seats_wake_hosts_at_any_time_and_move_nothing() {
        let demand = Demand {
            seats_needed: 40,
            seats_kept: 60,
            ..NO_DEMAND
        };
        let answer = Plan {
            power_on: vec!["kvm2".into()],
            power_off: vec!["kvm3".into()],
            ..Plan::default()
        };
        let (next, asked) = asked(&demand, false, &answer);
        let Next::Wake(policy, plan) = next else {
            panic!("{next:?}")
        };
        assert_eq!(plan.power_on, ["kvm2"]);
        assert!(plan.power_off.is_empty());
        assert_eq!(asked.len(), 1);
        assert!(policy.ordered && policy.min_off_minutes == 0);
        assert_eq!(
            (policy.on_threshold_seats, policy.off_threshold_seats),
            (46, 78)
        );
    }

    #[test]
    fn a_plan_is_made_when_it_is_time_to_look_and_by_the_mode_in_force() {
        let none = Plan::default();
        assert_eq!(asked(&NO_DEMAND, false, &none).0, Next::Wait);
        let demand = Demand {
            seats_needed: 3,
            ..NO_DEMAND
        };
        // Nothing to wake, so the mode's turn comes.
        let (next, asked) = asked(&demand, true, &none);
        let modes: Vec<_> = asked.iter().map(|p| (p.mode, p.ordered)).collect();
        assert_eq!(
            modes,
            [(Mode::PowerSaving, true), (Mode::MemoryBalance, false)]
        );
        assert!(matches!(next, Next::Plan(p, _) if p.mode == Mode::MemoryBalance));
    }

    #[test]
    fn saving_power_gives_way_and_nothing_else_does() {
        let demand = Demand {
            mode: Mode::PowerSaving,
            ..NO_DEMAND
        };
        let made_with = demand.seats(&settings());
        let saving = UnderWay {
            mode: Mode::PowerSaving,
            policy: Some(&made_with),
            ordered: false,
            takes_away: true,
            starting: 0,
        };
        let why = |under_way: UnderWay<'_>, demand: Demand| {
            enough(&under_way, &settings(), &demand).unwrap_or_default()
        };
        assert_eq!(why(saving, demand), "");
        let starting = UnderWay {
            starting: 2,
            ..saving
        };
        assert!(why(starting, demand).contains("2 desktops"));
        let more = Demand {
            seats_kept: 1,
            ..demand
        };
        assert!(why(saving, more).contains("more seats"));
        assert!(why(saving, NO_DEMAND).contains("memory-balance"));
        // A person's order stands, but who waits for a desktop comes first.
        let ordered = UnderWay {
            ordered: true,
            ..saving
        };
        assert_eq!(why(ordered, more), "");
        let both = UnderWay {
            ordered: true,
            ..starting
        };
        assert!(!why(both, demand).is_empty());
        // Nothing is taken away any more, or it is another mode's.
        let last = UnderWay {
            takes_away: false,
            ..starting
        };
        assert_eq!(why(last, demand), "");
        let balance = UnderWay {
            mode: Mode::MemoryBalance,
            ..starting
        };
        assert_eq!(why(balance, demand), "");
    }
}
