//! How long before the bell desktops are started.

use crate::MINUTE;
use serde::{Deserialize, Serialize};

/// See [`LeadRule::lead`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadRule {
    /// Never less than this, minutes.
    pub floor_minutes: u32,
    /// Never more than this, minutes.
    pub ceiling_minutes: u32,
    /// Of what the slowest of the last starts took, percent.
    pub percent: u32,
}

impl Default for LeadRule {
    fn default() -> Self {
        LeadRule {
            floor_minutes: 5,
            ceiling_minutes: 45,
            percent: 150,
        }
    }
}

impl LeadRule {
    /// Time from the order until the bell, milliseconds, out of what the last starts of the class took
    /// until its last desktop was usable: the slowest counts, with the margin.
    pub fn lead(&self, last: &[i64]) -> i64 {
        let slowest = last.iter().copied().max().unwrap_or(0).max(0);
        let wanted = slowest.saturating_mul(i64::from(self.percent)) / 100;
        let floor = i64::from(self.floor_minutes) * MINUTE;
        wanted
            .max(floor)
            .min((i64::from(self.ceiling_minutes) * MINUTE).max(floor))
    }
}
