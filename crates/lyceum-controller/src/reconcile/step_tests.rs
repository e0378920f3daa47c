//! A world in miniature: the step function drives a model of an agent, which
//! crashes, loses its desktops and answers late, and must always get where it should.

use super::*;
use lyceum_model::{DeltaId, Generation, Hostname, MachineSize, OverlayId};
use proptest::prelude::*;

pub(crate) fn desktop() -> Desktop {
    Desktop {
        id: "d1".parse().expect("id"),
        owner: Owner::Course {
            course: "c1".parse().expect("id"),
            user: "u1".parse().expect("id"),
        },
        hostname: Hostname::from_text("d", "1"),
        size: MachineSize {
            vcpus: 1,
            memory_mib: 768,
        },
        persistence: Persistence::Throwaway,
        outside: false,
        desired: Desired::Stopped,
        source: Source::Fork,
        renew: false,
        hand_out_delta: None,
        order: None,
        ordered_at: 0,
        gave_up: false,
        generation: Generation(0),
        handed_out: Generation(0),
        moving_to: None,
        release: Some("r1".parse().expect("id")),
        host: None,
        overlay: None,
        delta: None,
        saving_delta: None,
        vm_generation_id: String::new(),
        machine_id: String::new(),
        mac: String::new(),
        address: String::new(),
        observed_generation: Generation(0),
        phase: Phase::Stopped,
        detail: String::new(),
        started_by: None,
        cold_reason: None,
        guest_address: None,
        ssh_host_key: None,
        usable_ms: None,
        delta_bytes: None,
        suspend_ms: None,
        notice: None,
        restarts: 0,
        restarts_since: 0,
        changed: 0,
        created: 0,
    }
}

/// What the edges do with a step, without any edge; `agent` is the machine's phase on its host.
fn act(d: &mut Desktop, agent: &mut Option<Phase>, step: Step, now: i64) {
    match step {
        Step::Place => d.host = Some("kvm1".parse().expect("id")),
        Step::Renew => {
            d.renew = false;
            d.overlay = Some(OverlayId::new());
            d.delta = None;
            d.started_by = None;
        }
        Step::Run => {
            d.observed_generation = d.generation;
            d.phase = Phase::Starting;
            *agent = Some(Phase::Starting);
        }
        Step::Suspend => {
            d.saving_delta = Some(DeltaId::new());
            d.phase = Phase::Suspending;
            *agent = Some(Phase::Suspending);
        }
        Step::Stop => {
            *agent = None;
            d.phase = Phase::Stopped;
            d.host = None;
            d.saving_delta = None;
        }
        Step::Drop => {
            d.delta = None;
            d.saving_delta = None;
            d.hand_out_delta = None;
            if d.persistence == Persistence::Throwaway || d.desired == Desired::Absent {
                d.overlay = None;
            }
        }
        Step::Recover => match recover(d, now) {
            Ok(r) => {
                d.source = r.source;
                d.renew = r.renew;
                d.generation = d.generation.next();
                d.restarts += 1;
            }
            Err(_) => d.gave_up = true,
        },
        Step::GiveUp(_) => d.gave_up = true,
        Step::Reached | Step::GaveUp | Step::Wait | Step::Forget => {}
    }
}

/// The agent gets one step further and says so.
fn agent_moves(d: &mut Desktop, agent: &mut Option<Phase>, fails: bool) {
    let next = match *agent {
        _ if d.observed_generation != d.generation => return,
        Some(Phase::Starting) if fails => Phase::Failed,
        Some(Phase::Starting) => Phase::Running,
        Some(Phase::Suspending) if fails => Phase::Running,
        Some(Phase::Suspending) => Phase::Suspended,
        Some(Phase::Running) if fails => Phase::Failed,
        Some(other) => other,
        None => return,
    };
    assert!(
        d.phase == next || d.phase.valid_transition(next),
        "{:?} -> {next:?}",
        d.phase
    );
    d.phase = next;
    *agent = Some(next);
    match next {
        Phase::Running => d.started_by = Some("fork".into()),
        Phase::Suspended => {
            d.delta = d.saving_delta.take();
            d.host = None;
            *agent = None;
        }
        _ => {}
    }
}

fn order(d: &mut Desktop, which: u8) {
    d.gave_up = false;
    match which % 4 {
        0 => {
            if d.desired != Desired::Running || d.phase == Phase::Failed {
                d.desired = Desired::Running;
                d.source = if d.delta.is_some() && d.host.is_none() {
                    Source::Resume
                } else {
                    Source::Fork
                };
                d.renew = d.source == Source::Fork && d.host.is_none();
                if d.host.is_none() {
                    d.generation = d.generation.next();
                }
            }
        }
        1 => {
            d.desired = Desired::Running;
            d.source = Source::Fork;
            d.renew = true;
            d.generation = d.generation.next();
        }
        2 => d.desired = Desired::Suspended,
        _ => {
            d.desired = Desired::Stopped;
            d.generation = d.generation.next();
        }
    }
}

proptest! {
    #[test]
    fn every_order_is_reached_or_given_up_whatever_the_agent_does(
        orders in proptest::collection::vec((any::<u8>(), 0usize..6, proptest::collection::vec(any::<bool>(), 0..6)), 1..12),
        persistent in any::<bool>(),
    ) {
        let mut d = desktop();
        if persistent { d.persistence = Persistence::Persistent; }
        let mut agent = None;
        for (which, steps, fails) in orders {
            order(&mut d, which);
            let mut fails = fails.into_iter();
            for _ in 0..steps {
                let step = next(&d);
                act(&mut d, &mut agent, step, 0);
                agent_moves(&mut d, &mut agent, fails.next().unwrap_or(false));
            }
        }
        // Left alone, it comes to rest.
        for _ in 0..40 {
            let step = next(&d);
            act(&mut d, &mut agent, step, 0);
            agent_moves(&mut d, &mut agent, false);
        }
        let rest = next(&d);
        prop_assert!(matches!(rest, Step::Reached | Step::GaveUp), "{rest:?} of {d:#?}");
        if d.desired == Desired::Stopped {
            prop_assert!(d.host.is_none() && d.delta.is_none());
            prop_assert!(persistent || d.overlay.is_none());
        }
    }

    #[test]
    fn a_disk_that_something_may_hold_is_never_placed_elsewhere(phase in 0usize..8, renew in any::<bool>()) {
        let mut d = desktop();
        d.desired = Desired::Running;
        d.phase = Phase::ALL[phase];
        d.host = Some("kvm1".parse().expect("id"));
        d.renew = renew;
        prop_assert_ne!(next(&d), Step::Place);
    }
}

#[test]
fn a_resume_that_fails_never_costs_what_was_saved() {
    let mut d = desktop();
    d.desired = Desired::Running;
    d.source = Source::Resume;
    d.delta = Some(DeltaId::new());
    d.host = Some("kvm1".parse().expect("id"));
    d.phase = Phase::Failed;
    assert_eq!(next(&d), Step::Recover);
    assert!(recover(&d, 0).is_err());
}

#[test]
fn a_crash_loop_ends() {
    let mut d = desktop();
    d.restarts = RESTARTS;
    assert!(recover(&d, RESTART_WINDOW_MS / 2).is_err());
    assert!(recover(&d, RESTART_WINDOW_MS * 2).is_ok());
}
