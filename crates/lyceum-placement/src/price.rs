//! What a move costs, known before it is made.

use crate::snapshot::{Desktop, MovesBy};
use crate::summary::rounded;
use serde::{Deserialize, Serialize};

/// What one move is expected to cost.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = MovePrice))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// How it is moved.
    pub way: MovesBy,
    /// What travels, MiB.
    pub travels_mib: f64,
    /// Memory that it takes on its new host, MiB.
    pub memory_mib: u64,
    /// How much more that is than it takes where it is, MiB: what it shared and shares no more.
    pub more_mib: u64,
    /// How long that takes at the bandwidth that moves have, seconds; absent: the bandwidth is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl Price {
    /// Of a desktop that takes `now_mib` where it is.
    pub(crate) fn of(desktop: &Desktop, now_mib: u64, mbit_per_s: Option<f64>) -> Price {
        let travels = desktop.travels_mib();
        let memory_mib = desktop.cost_after_move_mib();
        Price {
            way: desktop.way(),
            travels_mib: rounded(travels),
            memory_mib,
            more_mib: memory_mib.saturating_sub(now_mib),
            seconds: mbit_per_s.map(|rate| rounded(travels * MEGABITS_PER_MIB / rate)),
        }
    }
}

const MEGABITS_PER_MIB: f64 = 8.0 * 1.048_576;

/// What all moves of a plan are expected to cost, done one by one.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlanPrice {
    /// What travels, MiB.
    pub travels_mib: f64,
    /// Memory that is taken more than before, because what was shared is not any more, MiB.
    pub more_mib: u64,
    /// How long the moves take one after another, seconds; absent: the bandwidth is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl PlanPrice {
    /// Of these moves; none: there is nothing to pay.
    pub(crate) fn sum<'p>(prices: impl Iterator<Item = &'p Price>) -> Option<PlanPrice> {
        let mut all: Option<PlanPrice> = None;
        for price in prices {
            let sum = all.get_or_insert(PlanPrice {
                travels_mib: 0.0,
                more_mib: 0,
                seconds: Some(0.0),
            });
            sum.travels_mib = rounded(sum.travels_mib + price.travels_mib);
            sum.more_mib = sum.more_mib.saturating_add(price.more_mib);
            sum.seconds = sum
                .seconds
                .zip(price.seconds)
                .map(|(sum, one)| rounded(sum + one));
        }
        all
    }
}
