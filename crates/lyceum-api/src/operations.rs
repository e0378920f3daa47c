//! Work that a person asked for and that takes time.

use crate::wording::Wordings;
use lyceum_model::{OperationId, UnixMillis};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Under way.
    Running,
    /// Everything was reached.
    Done,
    /// Some or all was not reached; `failures` says what and why.
    Failed,
    /// A person called it off; what was reached by then stays.
    Cancelled,
}

/// An operation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Which.
    pub id: OperationId,
    /// What, for example `course.start`, `desktop.reset`, `draft.seal`.
    pub kind: String,
    /// To what: kind and id, for example `course/0197...`.
    pub target: String,
    /// The target's name, for people.
    pub target_name: String,
    /// Who asked for it: sign-in name.
    pub requested_by: String,
    /// State.
    pub state: OperationState,
    /// How many desktops (or steps) it is about.
    pub total: u32,
    /// How many of them are there.
    pub done: u32,
    /// What it is doing, in words.
    pub step: String,
    /// What was not reached.
    pub failures: Vec<OperationFailure>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
    /// When it began.
    pub created: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
}

/// Something an operation did not reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationFailure {
    /// Kind and id, for example `desktop/0197...`.
    pub target: String,
    /// Its name, for people.
    pub name: String,
    /// What failed, why, what to do.
    pub message: String,
}
