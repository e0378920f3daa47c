//! Accounts, sessions, rosters, joining and the page, over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod agents;
mod page;
mod people;
mod sessions;
mod site;
mod ways_in;
