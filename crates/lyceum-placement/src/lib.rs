//! Where a desktop goes.
//!
//! **Invariant: this crate does no I/O** and has no clock: a plan is a function of
//! the snapshot it is given, and the snapshot is recorded with the decision.

pub mod start;

pub use start::{HostView, Policy, Refusal, Request, Verdict, place};
