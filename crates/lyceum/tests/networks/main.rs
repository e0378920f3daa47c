//! Courses' networks and doors as a school has them: the real programs, each on a machine of its own (a network
//! namespace), and nothing said to them but what a person could say.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod doors;
mod guest;
mod guests;
mod moves;
mod person;
mod world;
