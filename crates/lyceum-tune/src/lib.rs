//! Tuning of hosts and file servers, the part that thinks: from a described machine to changes
//! with a reason and a source each, from measurements to a verdict, and from what was kept back
//! to what was before.
//!
//! - [`knob`]: what can be set, and where it is read and written. - [`machine`]: a machine as it
//!   was found. - [`plan()`]: the changes. - [`verdict`]: whether a change helped.
//! - [`ledger`]: what was changed, and how it is undone.
//!
//! Architecture invariant: this crate does no I/O, and knows neither fio nor iperf3.
//!
//! **What always holds.** Capacities (buffers, windows, threads, read-ahead, packet size) are only
//! ever raised: where the kernel's own value is higher, it stays. The one kind of value that is
//! made smaller is a *bound*, the share of memory in which writes for the slow tier may wait,
//! because there less is the point. What is undone is exactly what was before.

pub mod knob;
pub mod ledger;
pub mod machine;
mod plan;
pub mod verdict;

pub use knob::{Knob, Value};
pub use ledger::{Entry, Ledger};
pub use machine::Machine;
pub use plan::{Change, Experiment, Left, Plan, plan};
