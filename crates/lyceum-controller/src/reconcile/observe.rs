//! What a host's words mean for a desktop's row: pure functions.

use lyceum_model::{Desired, HostId, OverlayId, Phase, UnixMillis};
use lyceum_proto::host::ObservedDesktop;
use lyceum_proto::storage::StorageFacts;
use lyceum_store::desktops::Desktop;

/// What is to be done about a desktop that a host reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Nothing new.
    Same,
    /// The row as it is now.
    Row(Box<Desktop>),
    /// The host runs what it should not: end it there.
    Stray,
}

/// `host` reports `seen`; `row` is what the store says.
pub fn heard(
    host: &HostId,
    row: Option<&Desktop>,
    seen: &ObservedDesktop,
    now: UnixMillis,
) -> Heard {
    let Some(row) = row else {
        return if seen.phase.may_hold_disk() {
            Heard::Stray
        } else {
            Heard::Same
        };
    };
    if row.moving_to.as_ref() == Some(host) && seen.generation == row.handed_out {
        // It arrived, whoever tells it first.
        return if seen.phase == Phase::Running {
            Heard::Row(Box::new(super::moves::runs_there(row, host, now)))
        } else {
            Heard::Same
        };
    }
    if row.host.as_ref() != Some(host) {
        // Stopped here, or given to another host since. What still runs here must not.
        return if seen.phase.may_hold_disk() && seen.generation <= row.generation {
            Heard::Stray
        } else {
            Heard::Same
        };
    }
    // An older one is ended by its host as soon as it is told the newer generation.
    if seen.generation != row.generation || row.observed_generation != row.generation {
        return Heard::Same;
    }
    // Its machine here ends when it has moved; whether it has, the move finds out.
    if row.moving_to.is_some() && !seen.phase.may_hold_disk() {
        return Heard::Same;
    }
    let mut new = row.clone();
    new.phase = seen.phase;
    new.detail.clone_from(&seen.detail);
    match seen.phase {
        Phase::Running => {
            if row.phase != Phase::Running {
                new.hand_out_delta = None;
                new.saving_delta = None;
                // A running desktop writes its disk: what was saved before does not fit it any more.
                new.delta = None;
                new.delta_bytes = None;
            }
            // A move is no start.
            let started = seen.started_by.clone().filter(|by| by != "move");
            new.started_by = started.or(new.started_by);
            new.cold_reason = seen.cold_reason.clone();
            new.guest_address = seen.address.clone();
            new.ssh_host_key = seen.ssh_host_key.clone().or(new.ssh_host_key);
            new.usable_ms = seen.usable_ms.map(|ms| ms as i64);
        }
        Phase::Suspended => match &seen.delta {
            Some(saved) => {
                new.delta = Some(saved.delta.clone());
                new.saving_delta = None;
                new.delta_bytes = Some((saved.memory_bytes + saved.overlay_bytes) as i64);
                new.suspend_ms = Some(saved.total_ms as i64);
                new.host = None;
                new.guest_address = None;
            }
            None => {
                new.phase = Phase::Failed;
                new.detail = "its host says it is suspended but names no saved memory".into();
            }
        },
        Phase::Failed | Phase::Stopped => new.guest_address = None,
        Phase::Starting | Phase::Suspending | Phase::Stopping | Phase::Unknown => {}
    }
    if new == *row {
        return Heard::Same;
    }
    if new.phase != row.phase {
        new.changed = now;
    }
    Heard::Row(Box::new(new))
}

/// A desktop that its host did not mention, although it was asked after it had been told.
pub fn vanished(
    host: &HostId,
    row: &Desktop,
    asked_at: UnixMillis,
    now: UnixMillis,
) -> Option<Desktop> {
    let told = row.host.as_ref() == Some(host) && row.observed_generation == row.generation;
    // `changed` is when it was told or last heard; an answer to an older question says nothing.
    if !told || !row.phase.may_hold_disk() || asked_at <= row.changed || row.moving_to.is_some() {
        return None;
    }
    let mut new = row.clone();
    new.phase = Phase::Failed;
    new.detail = format!("its machine on {host} is gone; the host or its QEMU was ended");
    new.changed = now;
    Some(new)
}

/// Said of a desktop whose disk can't be extended.
const PAUSED: &str = "It stands still: the file server has nothing left to extend its disk with. Nothing is lost; it goes on by itself when there is room.";
/// Said of a desktop whose disk is gone.
const LOST: &str = "Its disk is lost, because its snapshot on the file server became full. Reset it, or restore a restore point.";

/// What the file server says of a desktop's disk. One that stands still is left alone: its machine
/// waits, and goes on. One without a disk is stopped: it would only show errors.
pub fn strained(row: &Desktop, facts: &StorageFacts, now: UnixMillis) -> Option<Desktop> {
    let has = |list: &[OverlayId]| row.overlay.as_ref().is_some_and(|o| list.contains(o));
    let mut new = row.clone();
    if has(&facts.lost) {
        new.notice = Some(LOST.into());
        if new.desired == Desired::Running {
            new.desired = Desired::Stopped;
            new.changed = now;
        }
    } else if has(&facts.paused) {
        new.notice = Some(PAUSED.into());
    } else if matches!(row.notice.as_deref(), Some(PAUSED | LOST)) {
        new.notice = None;
    }
    (new != *row).then_some(new)
}

/// Nothing is heard of its host.
pub fn silent(host: &HostId, row: &Desktop, now: UnixMillis) -> Option<Desktop> {
    let told = row.host.as_ref() == Some(host) && row.observed_generation == row.generation;
    if !told || row.phase == Phase::Unknown || !row.phase.may_hold_disk() {
        return None;
    }
    let mut new = row.clone();
    new.phase = Phase::Unknown;
    new.detail = format!("nothing is heard of {host}; it may still run there");
    new.changed = now;
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::step::tests_support::desktop;
    use lyceum_model::Generation;

    fn seen(generation: u64, phase: Phase) -> ObservedDesktop {
        ObservedDesktop {
            desktop: "d1".parse().expect("id"),
            generation: Generation(generation),
            phase,
            detail: String::new(),
            started_by: Some("fork".into()),
            cold_reason: None,
            address: None,
            ssh_host_key: None,
            usable_ms: Some(1),
            pss_kib: 0,
            cpu_percent: 0.0,
            read_bytes: 0,
            traffic: Default::default(),
            delta: None,
        }
    }

    #[test]
    fn a_disk_that_waits_is_told_and_one_that_is_lost_ends_its_desktop() {
        let mut row = desktop();
        row.desired = Desired::Running;
        row.overlay = Some("o1".parse().expect("id"));
        let mut facts: StorageFacts = serde_json::from_value(serde_json::json!({
            "version": "0", "driver": "lvm", "same_device": false,
            "fast": { "total_bytes": 2, "free_bytes": 1, "used_bytes": 1 }, "slow": { "total_bytes": 2, "free_bytes": 1, "used_bytes": 1 },
        }))
        .expect("facts");
        assert_eq!(strained(&row, &facts, 5), None);
        facts.paused = vec!["o2".parse().expect("id"), "o1".parse().expect("id")];
        let paused = strained(&row, &facts, 5).expect("told");
        assert_eq!(paused.notice.as_deref(), Some(PAUSED));
        assert_eq!((paused.desired, paused.phase), (row.desired, row.phase));
        assert_eq!(strained(&paused, &facts, 6), None, "told once");
        // There is room again.
        facts.paused.clear();
        assert_eq!(strained(&paused, &facts, 6), Some(row.clone()));
        facts.lost = vec!["o1".parse().expect("id")];
        let lost = strained(&paused, &facts, 7).expect("told");
        assert_eq!(lost.notice.as_deref(), Some(LOST));
        assert_eq!(lost.desired, Desired::Stopped);
        assert_eq!(strained(&lost, &facts, 8), None);
        // Another notice is somebody else's.
        facts.lost.clear();
        row.notice = Some("The order was called off.".into());
        assert_eq!(strained(&row, &facts, 9), None);
        for text in [PAUSED, LOST] {
            assert!(lyceum_api::wording::wording(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_runs_where_the_store_does_not_want_it_is_a_stray() {
        let here: HostId = "kvm1".parse().expect("id");
        assert_eq!(
            heard(&here, None, &seen(1, Phase::Running), 0),
            Heard::Stray
        );
        let mut row = desktop();
        row.host = Some("kvm2".parse().expect("id"));
        row.generation = Generation(2);
        assert_eq!(
            heard(&here, Some(&row), &seen(1, Phase::Running), 0),
            Heard::Stray
        );
        assert_eq!(
            heard(&here, Some(&row), &seen(1, Phase::Failed), 0),
            Heard::Same
        );
    }

    #[test]
    fn an_older_generation_never_changes_the_row() {
        let here: HostId = "kvm1".parse().expect("id");
        let mut row = desktop();
        row.host = Some(here.clone());
        row.generation = Generation(2);
        row.observed_generation = Generation(2);
        row.phase = Phase::Starting;
        assert_eq!(
            heard(&here, Some(&row), &seen(1, Phase::Running), 0),
            Heard::Same
        );
        assert!(matches!(
            heard(&here, Some(&row), &seen(2, Phase::Running), 0),
            Heard::Row(_)
        ));
    }

    #[test]
    fn an_answer_to_a_question_asked_before_it_was_told_does_not_make_a_desktop_vanish() {
        let here: HostId = "kvm1".parse().expect("id");
        let mut row = desktop();
        row.host = Some(here.clone());
        row.phase = Phase::Starting;
        row.changed = 100;
        assert!(vanished(&here, &row, 100, 200).is_none());
        assert!(vanished(&here, &row, 101, 200).is_some());
    }
}
