//! Moves of running desktops.

use serde::{Deserialize, Serialize};

/// How a running desktop is brought to another host.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveWay {
    /// Only what it changed travels; it goes on sharing its release's memory there.
    Delta,
    /// QEMU's own migration: all of its memory travels, and is its own afterwards.
    Live,
}

impl MoveWay {
    /// Chooses by measurement. `own_bytes`: memory that is the desktop's own; `None`: it shares none
    /// with a release. Answers the way and why, in words.
    pub fn choose(own_bytes: Option<u64>, memory_mib: u32) -> (MoveWay, String) {
        let memory = u64::from(memory_mib) << 20;
        match own_bytes {
            None => (
                MoveWay::Live,
                "it shares no memory with a release, so all of it has to travel".into(),
            ),
            // Above this the changed pages are nearly all there is, and live migration stands still shorter.
            Some(own) if own > memory / 10 * 7 => (
                MoveWay::Live,
                format!(
                    "{} of its {memory_mib} MiB are its own, so little is left to share",
                    own >> 20
                ),
            ),
            Some(own) => (
                MoveWay::Delta,
                format!("{} of its {memory_mib} MiB are its own", own >> 20),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_chosen_by_what_is_its_own() {
        assert_eq!(MoveWay::choose(None, 768).0, MoveWay::Live);
        assert_eq!(MoveWay::choose(Some(56 << 20), 768).0, MoveWay::Delta);
        assert_eq!(MoveWay::choose(Some(700 << 20), 768).0, MoveWay::Live);
    }
}
