//! Real QEMU with the tiny image. One program, so that the release is sealed once.

mod cold;
mod common;
mod faults;
mod fork;
mod save;
