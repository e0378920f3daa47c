use super::*;
use crate::reconcile::step::tests_support::desktop;
use lyceum_model::Generation;

fn running() -> Desktop {
    let mut d = desktop();
    d.desired = Desired::Running;
    d.phase = Phase::Running;
    d.host = Some("kvm1".parse().expect("id"));
    d.overlay = Some("o1".parse().expect("id"));
    d.started_by = Some("fork".into());
    d
}

fn point(holds: Holds) -> Point {
    let mut p = new_point(&running(), Origin::Asked, "b", None, "", 1).expect("point");
    p.state = State::Ready;
    p.holds = holds;
    p
}

#[test]
fn what_is_kept_depends_on_what_it_does() {
    let host: HostId = "kvm1".parse().expect("id");
    let mut d = running();
    assert_eq!(how(&d), Ok(How::Capture(host.clone())));
    assert_eq!(keep(&d), Ok(Keep::Capture(host)));

    d.started_by = Some("cold".into());
    let host: HostId = "kvm1".parse().expect("id");
    assert_eq!(how(&d), Ok(How::Capture(host)), "its disk");
    assert_eq!(keep(&d), Ok(Keep::SetAside(Desired::Running)));

    // Stopped and persistent: its disk. Stopped and throw-away: nothing.
    let mut d = desktop();
    assert!(matches!(how(&d), Err(Not::Ever(_))));
    assert_eq!(keep(&d), Ok(Keep::Nothing));
    d.persistence = Persistence::Persistent;
    d.overlay = Some("o1".parse().expect("id"));
    assert_eq!(how(&d), Ok(How::Disk("o1".parse().expect("id"))));
    assert_eq!(keep(&d), Ok(Keep::SetAside(Desired::Stopped)));

    d.desired = Desired::Suspended;
    d.phase = Phase::Suspended;
    d.delta = Some("x1".parse().expect("id"));
    assert!(matches!(how(&d), Err(Not::Ever(why)) if why.contains("suspended")));
    assert_eq!(keep(&d), Ok(Keep::SetAside(Desired::Suspended)));
}

#[test]
fn nothing_is_done_with_a_desktop_that_is_on_its_way() {
    let mut d = running();
    d.moving_to = Some("kvm2".parse().expect("id"));
    assert!(matches!(
        (how(&d), keep(&d)),
        (Err(Not::Yet(_)), Err(Not::Yet(_)))
    ));
    let mut d = running();
    d.renew = true;
    d.generation = Generation(2);
    assert!(matches!(keep(&d), Err(Not::Yet(_))), "a reset");
    let mut d = running();
    d.phase = Phase::Unknown;
    assert!(matches!(keep(&d), Err(Not::Ever(why)) if why.contains("host")));
    let mut d = running();
    d.desired = Desired::Absent;
    assert!(matches!(keep(&d), Err(Not::Ever(why)) if why.contains("deleted")));
}

#[test]
fn only_a_point_that_is_ready_is_restored() {
    assert!(usable(&point(Holds::Memory)).is_ok());
    for state in [
        State::Taking,
        State::Failed,
        State::Damaged,
        State::Dropping,
    ] {
        let mut p = point(Holds::Memory);
        p.state = state;
        assert!(usable(&p).is_err(), "{state:?}");
    }
}

#[test]
fn what_is_set_aside_names_what_belongs_to_it() {
    let mut d = desktop();
    d.desired = Desired::Suspended;
    d.overlay = Some("o1".parse().expect("id"));
    d.delta = Some("x1".parse().expect("id"));
    let mut undo = new_point(&d, Origin::Undo, "b", None, "", 1).expect("point");
    let aside = Keep::SetAside(Desired::Suspended);
    kept(&mut undo, &d, &aside, None, 2);
    assert_eq!((undo.holds, undo.taken), (Holds::Kept, 2));
    assert_eq!((undo.overlay, undo.delta), (d.overlay, d.delta));
}

#[test]
fn what_was_captured_says_what_it_is() {
    let mut p = point(Holds::Nothing);
    let mut saved = SavedDelta {
        delta: "x1".parse().expect("id"),
        memory_bytes: 5,
        overlay_bytes: 7,
        disk_only: false,
        not_flushed: None,
        stand_still_ms: 1,
        total_ms: 2,
    };
    captured(&mut p, &saved);
    assert_eq!(
        (p.holds, p.bytes, p.message.as_str()),
        (Holds::Memory, Some(12), "")
    );
    saved.disk_only = true;
    captured(&mut p, &saved);
    assert_eq!(p.holds, Holds::Disk);
    assert!(p.message.contains("without its windows.") && p.delta.is_some() && p.overlay.is_none());
    saved.not_flushed = Some("nobody answered".into());
    captured(&mut p, &saved);
    assert!(p.message.contains("power cut") && p.message.ends_with("nobody answered"));
}
