//! What each policy has the planner do, and when.

use crate::run::Run;
use crate::scenario::Bad;
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
    /// Ours: hosts are woken for the classes that come, desktops are started before the bell, and
    /// what is not needed is emptied and switched off at any hour.
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

/// Classes this far ahead keep hosts on that are on already, minutes.
const HORIZON: u32 = 75;

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
            let plan = run.plan(&PlanPolicy::of(Mode::MemoryBalancePaper))?;
            run.begin(plan);
        }
    } else if run.minute.is_multiple_of(30) && !run.busy() {
        let (off, on) = run.scenario.paper_thresholds;
        let plan = run.plan(&PlanPolicy {
            off_threshold_seats: off,
            on_threshold_seats: on,
            // The paper knows no such times.
            min_on_minutes: 0,
            min_off_minutes: 0,
            ..PlanPolicy::of(Mode::PowerSavingPaper)
        })?;
        run.begin(plan);
    }
    Ok(())
}

fn ours(run: &mut Run) -> Result<(), Bad> {
    let scenario = run.scenario;
    let seats = |run: &Run, within: u32| -> u32 {
        run.classes(run.minute, run.minute + within)
            .iter()
            .map(|(_, students)| students)
            .sum()
    };
    // Hosts that are ordered now are up before the desktops of the bell are started, with time for
    // another one where one does not come up.
    let lead = scenario.start_before_minutes + 2 * scenario.hosts.boot_minutes + 4;
    let soon = seats(run, lead);
    let wake = PlanPolicy {
        on_threshold_seats: soon + scenario.spare_seats / 2,
        off_threshold_seats: soon + scenario.spare_seats,
        ordered: true,
        min_off_minutes: 0,
        ..PlanPolicy::of(Mode::PowerSaving)
    };
    let free: u32 = run
        .snapshot
        .hosts
        .iter()
        .filter(|h| h.power != Power::Off && h.standing == Standing::Active)
        .map(|h| h.seats.unwrap_or(0))
        .sum::<u32>()
        .saturating_sub(run.snapshot.desktops.len() as u32);
    if free <= wake.on_threshold_seats {
        let plan = run.plan(&wake)?;
        run.switch_on(&plan.power_on);
        return Ok(());
    }
    if run.busy() || !run.minute.is_multiple_of(5) {
        return Ok(());
    }
    let compute = run.plan(&PlanPolicy::of(Mode::ComputeBalance))?;
    if !compute.moves.is_empty() {
        run.begin(compute);
        return Ok(());
    }
    let plan = run.plan(&PlanPolicy {
        off_threshold_seats: seats(run, HORIZON).max(soon) + scenario.spare_seats,
        on_threshold_seats: wake.on_threshold_seats,
        min_on_minutes: 15,
        ..PlanPolicy::of(Mode::PowerSaving)
    })?;
    run.begin(plan);
    Ok(())
}
