//! What a rehearsal shows.

use crate::controller::Rule;
use serde::{Deserialize, Serialize};

/// All policies on the same school.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// Weeks played.
    pub weeks: u32,
    /// Hosts there are.
    pub hosts: u32,
    /// Students on rosters.
    pub students: u32,
    /// Sessions played.
    pub sessions: usize,
    /// One per policy, in the scenario's order.
    pub outcomes: Vec<Outcome>,
}

/// The cluster at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Minutes since the beginning.
    pub minute: u32,
    /// Hosts that draw power.
    pub hosts_on: u32,
    /// Desktops that run.
    pub desktops: u32,
    /// Free seats on hosts that are up.
    pub free_seats: u32,
}

/// How one policy did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub policy: Rule,
    /// Energy used, kWh.
    pub kwh: f64,
    /// Energy less than with all hosts always on, percent.
    pub saved_percent: f64,
    /// Hosts switched on.
    pub switched_on: u32,
    /// Hosts switched off.
    pub switched_off: u32,
    /// Desktops moved.
    pub moves: u32,
    /// Of these, with somebody at them: minutes of work in which a desktop stood still for a moment.
    pub disturbed_minutes: u32,
    /// Plans that were given up in the middle, because seats were needed or a step no longer fitted.
    pub plans_given_up: u32,
    /// Students who came to a class.
    pub bell_students: u32,
    /// Of these, who found no seat at the bell.
    pub bell_without_seat: u32,
    /// Waiting for a usable desktop from the bell on, seconds: median.
    pub bell_wait_median_s: f64,
    /// The same, 95th percentile.
    pub bell_wait_p95_s: f64,
    /// The same, longest.
    pub bell_wait_longest_s: f64,
    /// Sessions outside of class that found no seat at once.
    pub study_without_seat: u32,
    /// Sessions that a broken host interrupted.
    pub interrupted: u32,
    /// Host minutes with more CPU asked for than there is.
    pub overloaded_host_minutes: u32,
    /// How it went.
    pub points: Vec<Point>,
}
