//! The life of a desktop.
//!
//! The store holds what should be ([`Desired`]); agents say what is ([`Phase`]).
//!
//! ```text
//!               start                    usable
//!   Stopped ───────────► Starting ─────────────────► Running
//!      ▲  ▲                 │  │ guest never ready      │ │
//!      │  │                 │  ▼                        │ │ QEMU ended
//!      │  └── stop ── Failed ◄──────────────────────────┼─┘
//!      │                    │ stop                      │
//!      │                    ▼            stop           │
//!      └──────────────── Stopping ◄─────────────────────┤
//!                                                       │ suspend
//!   Starting ◄── resume ── Suspended ◄── Suspending ◄───┘
//!
//!   any ── the agent is not heard ──► Unknown ── it is heard again ──► what it says
//! ```

use serde::{Deserialize, Serialize};

/// What a person wants of a desktop; kept in the store.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// On a host and usable.
    Running,
    /// Its delta on the slow tier, no QEMU.
    Suspended,
    /// No QEMU; a persistent desktop keeps its overlay.
    Stopped,
    /// Gone with everything that belongs to it.
    Absent,
}

/// What a desktop is doing, as last heard.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No QEMU, no saved memory.
    Stopped,
    /// QEMU is there, the desktop is not usable yet.
    Starting,
    /// Usable: identity renewed, address obtained, picture served.
    Running,
    /// Its delta is being written.
    Suspending,
    /// Its delta is complete on the slow tier.
    Suspended,
    /// QEMU is being ended.
    Stopping,
    /// It could not be started, or its QEMU ended by itself.
    Failed,
    /// Its host has not been heard of; nothing is assumed.
    Unknown,
}

impl Phase {
    /// Whether a QEMU may exist for the desktop. `Unknown` counts: as long as it
    /// is not known, the disk is not given to another host.
    pub fn may_hold_disk(self) -> bool {
        match self {
            Phase::Starting
            | Phase::Running
            | Phase::Suspending
            | Phase::Stopping
            | Phase::Unknown => true,
            Phase::Stopped | Phase::Suspended | Phase::Failed => false,
        }
    }

    /// Every phase, for exhaustive tests.
    pub const ALL: [Phase; 8] = [
        Phase::Stopped,
        Phase::Starting,
        Phase::Running,
        Phase::Suspending,
        Phase::Suspended,
        Phase::Stopping,
        Phase::Failed,
        Phase::Unknown,
    ];

    /// Whether an agent may report `to` as the next thing after `self` for one
    /// generation of a desktop.
    pub fn valid_transition(self, to: Phase) -> bool {
        use Phase::*;
        matches!(
            (self, to),
            (Stopped, Starting)
                | (Suspended, Starting)
                | (Suspended, Stopped)
                | (Starting, Running | Failed | Stopping)
                | (Running, Suspending | Stopping | Failed)
                | (Suspending, Suspended | Running | Failed | Stopping)
                | (Stopping, Stopped | Failed)
                | (Failed, Stopping | Stopped | Starting)
                | (Unknown, _)
                | (_, Unknown)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_never_free_while_something_may_hold_it() {
        for from in Phase::ALL {
            for to in Phase::ALL {
                if from.may_hold_disk() && from != Phase::Unknown && !to.may_hold_disk() {
                    // Only an end that the agent saw frees the disk.
                    let seen_end = matches!(
                        (from, to),
                        (Phase::Stopping, Phase::Stopped | Phase::Failed)
                            | (Phase::Suspending, Phase::Suspended | Phase::Failed)
                            | (Phase::Starting | Phase::Running, Phase::Failed)
                    );
                    assert_eq!(from.valid_transition(to), seen_end, "{from:?} -> {to:?}");
                }
            }
        }
    }

    #[test]
    fn a_stopped_desktop_only_starts() {
        for to in Phase::ALL {
            assert_eq!(
                Phase::Stopped.valid_transition(to),
                matches!(to, Phase::Starting | Phase::Unknown)
            );
        }
    }
}
