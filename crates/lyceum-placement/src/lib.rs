//! Where a desktop goes, which desktops move, and which hosts are switched.
//!
//! **Invariant: this crate does no I/O** and has no clock: a plan is a function of
//! the snapshot, the policy and the time it is given, and the snapshot is recorded with
//! the decision. Controller, simulator, command line and the dry run on the page all call
//! [`plan`].
//!
//! ```text
//! snapshot ─► world ─► mode (balance, compute, saving, paper) ─► what goes where
//!                                                     │
//!                          order: an order in which every step fits ─► plan
//! ```

mod balance;
mod compute;
pub mod decide;
mod order;
mod paper;
mod place;
mod plan;
pub mod policy;
mod price;
mod saving;
pub mod snapshot;
pub mod start;
mod summary;
mod world;

pub use plan::{Move, NotDone, Plan, Start, plan};
pub use policy::{BalanceBy, Mode, PlanPolicy, Spread};
pub use price::{PlanPrice, Price};
pub use snapshot::{Desktop, Host, MovesBy, Power, Snapshot, Standing};
pub use start::{HostView, Policy, Refusal, Request, Verdict, place};
pub use summary::{HostSummary, Summary};

/// What can't be planned with, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct Invalid {
    /// The place, for example `desktops[3].host`.
    pub place: String,
    /// What is wrong with it and what to do.
    pub why: String,
}

impl Invalid {
    pub(crate) fn new(place: String, why: String) -> Self {
        Invalid { place, why }
    }
}
