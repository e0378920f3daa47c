//! What is wanted of the hosts now: the one place that plans ask. Settings say it unless something that
//! knows better does.

use super::PlanError;
use crate::app::App;
use lyceum_api::allocation::Allocation;
use lyceum_model::UnixMillis;
use lyceum_placement::Mode;

/// What is wanted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The mode in force.
    pub mode: Mode,
    /// Free seats that classes want soon, on top of those that are kept free for whoever comes.
    pub seats_needed: u32,
    /// Why, in words.
    pub reason: String,
}

impl Wanted {
    /// As the settings say.
    pub fn from_settings(settings: &Allocation) -> Wanted {
        Wanted {
            mode: settings.policy.mode,
            seats_needed: 0,
            reason: "the settings say so".into(),
        }
    }
}

/// What is wanted at this time, out of the store.
pub async fn wanted(
    _app: &App,
    settings: &Allocation,
    _now: UnixMillis,
) -> Result<Wanted, PlanError> {
    Ok(Wanted::from_settings(settings))
}
