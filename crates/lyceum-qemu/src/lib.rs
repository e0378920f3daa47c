//! The hypervisor interface over real QEMU: start, fork, seal, suspend, resume,
//! capture and hand-out of virtual machines.
//!
//! | module | does |
//! |---|---|
//! | [`machine`] | what is asked for -> QEMU's arguments; pure |
//! | [`launch`](crate) | run directory, open files, the process |
//! | [`qmp`] | QEMU's control socket |
//! | [`guest`] | Lyceum's helper inside the guest |
//! | `start` | the way from a process to a usable desktop |
//! | `save`, `seal` | deltas and sealed releases |
//! | `travel`, `arrive` | a running machine goes from one host to another |
//! | `adopt` | finds machines again after the agent was restarted |
//! | [`probe`] | whether QEMU and KVM really work here |
//!
//! **Invariants.** QEMU gets open files, never the right to open them: with a
//! user of its own ([`QemuConfig::user`]) it can write nothing but its own run
//! directory and its own overlay. What a guest or QEMU says is bounded and
//! checked. A desktop that was not given its identity is never reported as usable.

mod adopt;
mod arrive;
mod config;
pub mod guest;
mod hypervisor;
mod instance;
mod launch;
mod lines;
pub mod machine;
pub mod pages;
pub mod probe;
mod probe_guest;
mod process;
pub mod qmp;
pub mod rfb;
mod save;
mod seal;
mod start;
mod tap;
mod travel;
mod util;

pub use config::{AcceleratorChoice, QemuConfig};
pub use hypervisor::QemuHypervisor;
