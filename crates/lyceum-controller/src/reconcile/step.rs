//! What to do next about one desktop: a pure function of its row.
//!
//! ```text
//!  desired     the row                                       step
//!  ─────────   ──────────────────────────────────────────    ─────────────
//!  running     no host                                       Place
//!              renew                                         Renew
//!              its host was not told this generation         Run
//!              starting, suspending, unknown                 Wait
//!              failed, or stopped by itself                  Recover
//!              running                                       Reached
//!  suspended   running                                       Suspend
//!              a complete delta and no host                  Reached
//!              starting, suspending, unknown                 Wait
//!  stopped     on a host                                     Stop
//!              something is kept that should not be          Drop
//!              nothing                                       Reached
//!  absent      as stopped, then                              Forget
//! ```

use lyceum_model::{Desired, Persistence, Phase};
use lyceum_store::desktops::{Desktop, Owner, Source};

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do: it is as it should be.
    Reached,
    /// Nothing to do: the reconciler gave up until the next order.
    GaveUp,
    /// Somebody else is at work; a change of the row will tell.
    Wait,
    /// Choose a host.
    Place,
    /// Give it a new overlay name and forget what was saved.
    Renew,
    /// Make sure of its disk and tell its host to run it.
    Run,
    /// Tell its host to write the delta.
    Suspend,
    /// Tell its host to end it.
    Stop,
    /// Forget saved memory, and the disk too if it is to be thrown away.
    Drop,
    /// Its machine ended by itself or never came up.
    Recover,
    /// Take the row away.
    Forget,
    /// It can't be done; say why.
    GiveUp(String),
}

/// How often a desktop may end by itself within [`RESTART_WINDOW_MS`] before the reconciler gives up.
pub const RESTARTS: i64 = 3;
/// See [`RESTARTS`].
pub const RESTART_WINDOW_MS: i64 = 10 * 60 * 1000;

/// What is next.
pub fn next(d: &Desktop) -> Step {
    let told = d.observed_generation == d.generation;
    match d.desired {
        Desired::Running if d.gave_up => Step::GaveUp,
        Desired::Running => match (&d.host, d.renew, told) {
            (None, _, _) => Step::Place,
            (Some(_), true, _) => Step::Renew,
            (Some(_), false, false) => Step::Run,
            (Some(_), false, true) => match d.phase {
                Phase::Running => Step::Reached,
                Phase::Starting | Phase::Suspending | Phase::Stopping | Phase::Unknown => {
                    Step::Wait
                }
                Phase::Failed | Phase::Stopped | Phase::Suspended => Step::Recover,
            },
        },
        Desired::Suspended if d.gave_up => Step::GaveUp,
        Desired::Suspended => match (&d.host, d.phase) {
            (None, _) if d.delta.is_some() => Step::Reached,
            (None, _) => Step::GiveUp("it does not run, so there is nothing to suspend".into()),
            // Where it is to be suspended shows when it has moved.
            (Some(_), _) if d.moving_to.is_some() => Step::Wait,
            (Some(_), Phase::Running) if told => Step::Suspend,
            (Some(_), Phase::Failed | Phase::Stopped | Phase::Suspended) if told => Step::GiveUp(
                format!("it ended before it could be suspended: {}", d.detail),
            ),
            // Not told yet: the start that was ordered before goes first.
            (Some(_), _) if !told => Step::Run,
            (Some(_), _) => Step::Wait,
        },
        Desired::Stopped | Desired::Absent => {
            let absent = d.desired == Desired::Absent;
            let throw = absent
                || d.persistence == Persistence::Throwaway
                    && matches!(d.owner, Owner::Course { .. });
            if d.host.is_some() {
                Step::Stop
            } else if d.delta.is_some()
                || d.saving_delta.is_some()
                || d.hand_out_delta.is_some()
                || throw && d.overlay.is_some()
            {
                Step::Drop
            } else if absent {
                Step::Forget
            } else {
                Step::Reached
            }
        }
    }
}

/// How a desktop whose machine ended by itself goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where the next start comes from.
    pub source: Source,
    /// Whether it is as new.
    pub renew: bool,
    /// What its person is told.
    pub notice: String,
}

/// Decides a recovery, or why there is none.
pub fn recover(d: &Desktop, now: i64) -> Result<Recovery, String> {
    if d.source == Source::Resume && d.started_by.as_deref() != Some("resume") && d.delta.is_some()
    {
        return Err(format!(
            "{}. What was saved is still there: try again, boot its disk instead, or reset it",
            d.detail
        ));
    }
    if matches!(d.owner, Owner::Draft { .. }) {
        return Err(format!(
            "{}. The draft's disk is kept: start it again",
            d.detail
        ));
    }
    let restarts = if now - d.restarts_since > RESTART_WINDOW_MS {
        0
    } else {
        d.restarts
    };
    if restarts >= RESTARTS {
        return Err(format!("{} (tried {} times)", d.detail, restarts + 1));
    }
    let was_usable = d.started_by.is_some();
    Ok(match (d.persistence, was_usable) {
        (Persistence::Persistent, true) => Recovery {
            source: Source::Cold,
            renew: false,
            notice: format!(
                "It ended unexpectedly ({}) and was booted again from its disk.",
                d.detail
            ),
        },
        (Persistence::Throwaway, true) => Recovery {
            source: Source::Fork,
            renew: true,
            notice: format!(
                "It ended unexpectedly ({}) and was started again as new.",
                d.detail
            ),
        },
        // It never came up: its overlay may have been written to, so it is not used again.
        (_, false) => Recovery {
            source: match d.source {
                Source::Resume => Source::Fork,
                other => other,
            },
            renew: true,
            notice: String::new(),
        },
    })
}

#[cfg(test)]
#[path = "step_tests.rs"]
pub(crate) mod tests_support;
