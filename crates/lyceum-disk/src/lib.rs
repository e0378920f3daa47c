//! Disks: making, cloning and resetting them through a driver, and the checks that
//! an image goes through before anything else reads it.
//!
//! * [`DiskDriver`] is the seam between the storage agent and the way disks are kept;
//!   [`Qcow2Driver`] is the default, [`lvm::LvmDriver`] the paper's way. Nobody outside a driver knows a path: a disk is a
//!   [`lyceum_model::DiskRef`].
//! * [`inspect`] reads the headers of an uploaded image with bounded parsers of its own,
//!   [`sandbox`] runs `qemu-img` where there is nothing to steal, and [`import`] puts
//!   the two together.
//! * [`survey`] looks at a machine's disks, [`lvm::setup`] makes tiers of them, [`tool`] runs
//!   the system's programs.
//! * [`files`] holds what every durable change of a file is made of: temporary name,
//!   fsync, rename.
//!
//! Everything here blocks; callers in async code use `spawn_blocking`.
//!
//! **Invariant: no code path lets a program find out an image's format by itself.** The
//! format is always named, and a backing file of an upload is never opened.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod cancel;
pub mod driver;
pub mod error;
pub mod files;
pub mod import;
pub mod inspect;
pub mod lock;
pub mod lvm;
mod qcow2;
pub mod qemu_img;
pub mod remote;
pub mod sandbox;
pub mod survey;
pub mod tool;

pub use cancel::Cancel;
pub use driver::{DiskDriver, DiskUsage, Point, Strained, Tended, TierDirs};
pub use error::DiskError;
pub use qcow2::Qcow2Driver;
