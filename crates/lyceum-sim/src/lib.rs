//! Rehearsal: a whole school, weeks of it in seconds, on simulated hosts.
//!
//! The plans are those of the real planner ([`lyceum_placement::plan`]), and when one is made, what wakes hosts and what ends
//! a plan early is what the controller goes by ([`lyceum_placement::decide`]); what is simulated is
//! the school, by the real timetable ([`lyceum_timetable`]): who comes when, how long hosts take to boot, how long a move lasts, what breaks.
//! **Invariant: no I/O, no clock, no randomness** but the one that follows from the scenario's
//! seed, so that the same scenario gives the same report on every machine.
//!
//! ```text
//! scenario ─► sessions (made, or replayed) ─┐
//!                                           ├─► run, once per policy ─► report ─► table, JSON, page
//! scenario ─► timetable, hosts, failures ───┘
//! ```

mod controller;
mod lessons;
mod page;
mod random;
mod report;
mod run;
mod scenario;
mod sessions;

pub use controller::Rule;
pub use page::page;
pub use report::{Outcome, Point, Report};
pub use scenario::{Bad, Calendar, Course, Failures, Holiday, Hosts, Period, Scenario, SelfStudy};
pub use sessions::Session;

/// Plays a scenario with each of its policies, on the very same sessions and failures.
///
/// # Errors
/// What the scenario contradicts itself in, with its place.
pub fn rehearse(scenario: &Scenario, recorded: Option<Vec<Session>>) -> Result<Report, Bad> {
    scenario.check()?;
    let lessons = lessons::Lessons::of(scenario)?;
    let sessions = match recorded {
        Some(sessions) => sessions::checked(sessions, scenario)?,
        None => sessions::made(scenario, &lessons),
    };
    let outcomes = scenario
        .policies
        .iter()
        .map(|rule| run::run(scenario, &lessons, &sessions, *rule))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Report {
        name: scenario.name.clone(),
        weeks: scenario.weeks,
        hosts: scenario.hosts.count,
        students: scenario.students(),
        sessions: sessions.len(),
        outcomes,
    })
}
