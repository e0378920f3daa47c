use super::*;
use lyceum_model::{Desired, MachineSize};
use lyceum_store::restore_points::Holds;
use proptest::prelude::*;

fn schedule(every_min: u32, last_run: UnixMillis) -> Schedule {
    Schedule {
        every_min,
        last_run,
        ..Schedule::none("c1".parse().expect("id"))
    }
}

fn point(origin: Origin, state: State, taken: UnixMillis) -> Point {
    Point {
        id: PointId::new(),
        desktop: "d1".parse().expect("id"),
        course: "c1".parse().expect("id"),
        batch: "b".into(),
        order: None,
        origin,
        state,
        holds: Holds::Memory,
        was: Desired::Running,
        delta: None,
        overlay: None,
        release: None,
        size: MachineSize {
            vcpus: 1,
            memory_mib: 64,
        },
        machine_id: String::new(),
        bytes: None,
        stand_still_ms: None,
        total_ms: None,
        note: String::new(),
        message: String::new(),
        taken,
    }
}

#[test]
fn a_class_that_runs_gets_a_point_each_interval_and_no_other_does() {
    let t = 1_000 * MINUTE;
    assert_eq!(due(&schedule(0, 0), true, t), Due::No, "no schedule");
    assert_eq!(due(&schedule(10, 0), false, t), Due::No, "no class");
    assert_eq!(due(&schedule(10, 0), true, t), Due::Note(t), "it begins");
    let began = schedule(10, t);
    assert_eq!(due(&began, true, t + 9 * MINUTE), Due::No);
    assert_eq!(due(&began, true, t + 10 * MINUTE), Due::Take);
    assert_eq!(due(&began, false, t + MINUTE), Due::Note(0), "it ended");
    assert_eq!(
        due(&began, true, t - 1),
        Due::Note(t - 1),
        "the clock was set"
    );
    assert_eq!(due(&schedule(0, t), true, t), Due::Note(0), "switched off");
}

#[test]
fn the_last_ones_are_kept_and_of_older_ones_one_per_hour() {
    let now = 100 * HOUR;
    // One every ten minutes, for five hours.
    let points: Vec<Point> = (0..30)
        .map(|n| point(Origin::Scheduled, State::Ready, now - n * 10 * MINUTE))
        .collect();
    let all: Vec<&Point> = points.iter().collect();
    let policy = schedule(10, now);
    let gone: HashSet<_> = superfluous(&all, Some(&policy), now).into_iter().collect();
    let kept: Vec<i64> = points
        .iter()
        .filter(|p| !gone.contains(&p.id))
        .map(|p| (now - p.taken) / MINUTE)
        .collect();
    assert_eq!(kept, [0, 10, 20, 30, 40, 50, 60, 70, 130, 190]);
    assert!(superfluous(&all, None, now).is_empty(), "nothing says so");
}

#[test]
fn what_was_asked_for_stays_and_a_failure_is_seen_until_there_is_something_newer() {
    let now = 100 * HOUR;
    let failed = point(Origin::Scheduled, State::Failed, now);
    let older = point(Origin::Scheduled, State::Failed, now - 1);
    let asked = point(Origin::Asked, State::Ready, now - 2);
    let undo = point(Origin::Undo, State::Ready, now - UNDO_FOR - 1);
    let fresh = point(Origin::Undo, State::Ready, now - 5);
    let none = Schedule {
        keep_last: 0,
        keep_hourly: 0,
        ..schedule(10, now)
    };
    let all = [&failed, &older, &asked, &undo, &fresh];
    assert_eq!(
        superfluous(&all, Some(&none), now),
        [older.id.clone(), undo.id.clone()]
    );
    let gone = superfluous(&[&asked, &failed], Some(&none), now);
    assert_eq!(gone, std::slice::from_ref(&failed.id));
}

proptest! {
    #[test]
    fn thinning_twice_is_thinning_once_and_the_newest_stay(
        ages in proptest::collection::vec(0i64..10_000, 0..80),
        keep_last in 1u32..10,
        keep_hourly in 0u32..10,
    ) {
        let now = 1_000_000 * MINUTE;
        let mut points: Vec<Point> = ages
            .iter()
            .map(|age| point(Origin::Scheduled, State::Ready, now - age * MINUTE))
            .collect();
        points.sort_by(|a, b| (b.taken, &b.id).cmp(&(a.taken, &a.id)));
        let policy = Schedule { keep_last, keep_hourly, ..schedule(10, now) };
        let all: Vec<&Point> = points.iter().collect();
        let gone: HashSet<_> = superfluous(&all, Some(&policy), now).into_iter().collect();
        let kept: Vec<&Point> = all.iter().copied().filter(|p| !gone.contains(&p.id)).collect();
        prop_assert!(kept.len() <= (keep_last + keep_hourly) as usize);
        prop_assert!(kept.len() >= points.len().min(keep_last as usize));
        prop_assert!(all.iter().take(keep_last as usize).all(|p| !gone.contains(&p.id)));
        prop_assert!(superfluous(&kept, Some(&policy), now).is_empty());
    }
}
