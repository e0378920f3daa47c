//! The file server for real: LVM and NFS on Debian's stock kernel, inside a guest, with the real
//! storage agent and throttled disks. `make test-storage` runs all of it; it needs
//! `make fileserver-image`, and takes some minutes in software emulation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod guest;
mod hosts;
mod power;
mod server;
mod tuning;
mod volumes;
