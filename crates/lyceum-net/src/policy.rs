//! Where a course's desktops may go.

use crate::address::Destination;
use serde::{Deserialize, Serialize};

/// How far out desktops reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Internet {
    /// Everywhere but to the machines of the classroom and other courses.
    On,
    /// Nowhere.
    #[default]
    Off,
    /// To the allowed destinations only.
    List,
}

/// What a course's desktops may do, now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// How far out they reach.
    pub internet: Internet,
    /// Where to when it is a list.
    pub allowed: Vec<Destination>,
    /// Whether they reach each other.
    pub among_themselves: bool,
}

impl Policy {
    /// The policy of an examination with the same allowed destinations.
    pub fn examination(&self) -> Policy {
        Policy {
            internet: Internet::List,
            allowed: self.allowed.clone(),
            among_themselves: false,
        }
    }
}
