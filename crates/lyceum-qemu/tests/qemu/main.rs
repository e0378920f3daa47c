//! Real QEMU with the tiny image. One program, so that the release is sealed once.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod cold;
mod common;
mod faults;
mod fork;
mod moves;
mod save;
mod tap;
