//! What each policy has the planner do, and when.

use crate::run::Run;
use crate::scenario::{Bad, Scenario};
use lyceum_placement::decide::{self, Demand, Next, SOON_MINUTES};
use lyceum_placement::{Mode, PlanPolicy, Power, Standing};
use serde::{Deserialize, Serialize};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// All hosts are always on; nothing moves.
    None,
    /// The paper's: in class hours all hosts are on and counts are balanced every hour, in other
    /// hours its power saving runs every half hour.
    Paper,
    /// Ours, as the controller does it with the mode `power-saving`: hosts are woken for the classes that come, desktops
    /// are started before the bell, and what is not needed is emptied and switched off at any hour.
    Ours,
}

impl Rule {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::None => "none",
            Rule::Paper => "paper",
            Rule::Ours => "ours",
        }
    }
}

/// The setting `every_minutes`.
const LOOK_EVERY: u32 = 5;

pub(crate) fn decide(run: &mut Run, rule: Rule) -> Result<(), Bad> {
    match rule {
        Rule::None => Ok(()),
        Rule::Paper => paper(run),
        Rule::Ours => ours(run),
    }
}

fn paper(run: &mut Run) -> Result<(), Bad> {
    if run.lessons.class_hours(run.minute) {
        let off: Vec<String> = run
            .snapshot
            .hosts
            .iter()
            .filter(|h| h.power == Power::Off && h.standing == Standing::Active)
            .map(|h| h.id.clone())
            .collect();
        run.switch_on(&off);
        if run.minute.is_multiple_of(60) && !run.busy() {
            let policy = PlanPolicy::of(Mode::MemoryBalancePaper);
            let plan = run.plan(&policy)?;
            run.begin(plan, &policy);
        }
    } else if run.minute.is_multiple_of(30) && !run.busy() {
        let (off, on) = run.scenario.paper_thresholds;
        let policy = PlanPolicy {
            off_threshold_seats: off,
            on_threshold_seats: on,
            // The paper knows no such times.
            min_on_minutes: 0,
            min_off_minutes: 0,
            ..PlanPolicy::of(Mode::PowerSavingPaper)
        };
        let plan = run.plan(&policy)?;
        run.begin(plan, &policy);
    }
    Ok(())
}

/// What the settings would say.
pub(crate) fn settings(scenario: &Scenario) -> PlanPolicy {
    PlanPolicy {
        off_threshold_seats: scenario.spare_seats,
        on_threshold_seats: scenario.spare_seats / 2,
        min_on_minutes: 15,
        ..PlanPolicy::of(Mode::PowerSaving)
    }
}

/// What the timetable would say: seats for the classes that come and were not started yet.
pub(crate) fn demand(run: &Run) -> Demand {
    let scenario = run.scenario;
    let seats = |within: u32| -> u32 {
        let classes = run.classes(run.minute, run.minute + within);
        classes.iter().map(|(_, students)| students).sum()
    };
    // Hosts that are ordered now are up before the desktops of the bell are started, with time for
    // another one where one does not come up.
    let lead = scenario.start_before_minutes + 2 * scenario.hosts.boot_minutes + 4;
    let soon = seats(lead);
    Demand {
        mode: Mode::PowerSaving,
        seats_needed: soon,
        seats_kept: seats(SOON_MINUTES).max(soon),
    }
}

/// The controller's own decisions.
fn ours(run: &mut Run) -> Result<(), Bad> {
    if run.busy() {
        return Ok(());
    }
    let (policy, demand) = (settings(run.scenario), demand(run));
    let due = run.minute.is_multiple_of(LOOK_EVERY);
    match decide::decide(&policy, &demand, due, |policy| run.plan(policy))? {
        Next::Wait => {}
        Next::Wake(policy, plan) | Next::Plan(policy, plan) => run.begin(plan, &policy),
    }
    Ok(())
}
