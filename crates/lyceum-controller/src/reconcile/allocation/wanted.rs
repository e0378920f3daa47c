//! What is wanted of the hosts now: the one place that plans ask. Settings say it unless something that
//! knows better does.

use super::PlanError;
use crate::app::App;
use lyceum_api::allocation::Allocation;
use lyceum_placement::Mode;
use lyceum_placement::decide::Demand;

/// What is wanted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The mode in force.
    pub mode: Mode,
    /// Free seats that classes want soon, on top of those that are kept free for whoever comes.
    pub seats_needed: u32,
    /// Free seats for which hosts that are on are kept on: these, and those of classes that come later.
    pub seats_kept: u32,
    /// Why, in words.
    pub reason: String,
}

impl Wanted {
    /// As the settings say.
    pub fn from_settings(settings: &Allocation) -> Wanted {
        Wanted {
            mode: settings.policy.mode,
            seats_needed: 0,
            seats_kept: 0,
            reason: "the settings say so".into(),
        }
    }

    /// What is decided by.
    pub fn demand(&self) -> Demand {
        Demand {
            mode: self.mode,
            seats_needed: self.seats_needed,
            seats_kept: self.seats_kept,
        }
    }
}

/// What is wanted at this time, out of the store: the timetable's mode and seats where it has any.
pub async fn wanted(app: &App, settings: &Allocation) -> Result<Wanted, PlanError> {
    let demand = crate::timetable::demand::demand(app).await?;
    let of_settings = Wanted::from_settings(settings);
    Ok(Wanted {
        mode: demand.mode.unwrap_or(of_settings.mode),
        reason: match demand.mode {
            Some(_) => format!("the timetable says so: {}", demand.reason),
            None => of_settings.reason,
        },
        seats_needed: demand.seats,
        seats_kept: demand.keep_seats,
    })
}
