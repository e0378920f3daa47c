//! Restore points, restores under way and schedules in the store.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, on_both};
use lyceum_model::{
    CourseId, Desired, DesktopId, ImageId, MachineSize, OperationId, OverlayId, PointId,
};
use lyceum_store::images::{self, Image};
use lyceum_store::restore_points::*;
use lyceum_store::{Tx, courses, desktops, releases};

on_both!(
    rows_come_back_as_written_the_newest_first,
    a_desktop_takes_its_points_and_restores_with_it,
    a_schedule_goes_with_its_course,
    points_use_the_release_they_were_made_over,
);

fn point(desktop: &DesktopId, taken: i64) -> Point {
    Point {
        id: PointId::new(),
        desktop: desktop.clone(),
        course: "c1".parse().unwrap(),
        batch: "b".into(),
        order: Some(OperationId::new()),
        origin: Origin::Scheduled,
        state: State::Taking,
        holds: Holds::Memory,
        was: Desired::Running,
        delta: Some("x1".parse().unwrap()),
        overlay: Some("o1".parse().unwrap()),
        release: Some("r1".parse().unwrap()),
        size: MachineSize {
            vcpus: 2,
            memory_mib: 768,
        },
        machine_id: "0".repeat(32),
        bytes: Some(7),
        stand_still_ms: Some(8),
        total_ms: Some(9),
        note: "before 練習".into(),
        message: "m".into(),
        taken,
    }
}

fn restore(desktop: &DesktopId) -> Restore {
    Restore {
        desktop: desktop.clone(),
        operation: OperationId::new(),
        point: PointId::new(),
        undo: PointId::new(),
        overlay: OverlayId::new(),
        step: Step::Waiting,
        created: 5,
    }
}

async fn rows_come_back_as_written_the_newest_first(place: &Place) {
    let store = place.open().await;
    let desktop = DesktopId::new();
    let (old, mut new) = (point(&desktop, 1), point(&desktop, 2));
    let mut tx = store.begin_write().await.unwrap();
    for p in [&old, &new] {
        put(&mut tx, p).await.unwrap();
    }
    tx.commit().await.unwrap();
    let course = "c1".parse().unwrap();
    let both = [new.clone(), old.clone()];
    assert_eq!(of_desktop(&store, &desktop).await.unwrap(), both);
    assert_eq!(of_course(&store, &course).await.unwrap(), both);
    assert_eq!(all(&store).await.unwrap(), both);
    let taking = in_state(&store, State::Taking).await.unwrap();
    assert_eq!(taking, [old.clone(), new.clone()]);

    new.state = State::Ready;
    new.holds = Holds::Kept;
    new.origin = Origin::Undo;
    new.was = Desired::Suspended;
    (new.delta, new.bytes, new.order) = (None, None, None);
    let mut tx = store.begin_write().await.unwrap();
    put(&mut tx, &new).await.unwrap();
    delete(&mut tx, &old.id).await.unwrap();
    tx.commit().await.unwrap();
    // Another start of the program finds it.
    let store = place.open().await;
    assert_eq!(get(&store, &new.id).await.unwrap(), Some(new));
    assert_eq!(get(&store, &old.id).await.unwrap(), None);
}

async fn a_desktop_takes_its_points_and_restores_with_it(place: &Place) {
    let store = place.open().await;
    let (gone, stays) = (DesktopId::new(), DesktopId::new());
    let mut tx = store.begin_write().await.unwrap();
    for d in [&gone, &stays] {
        put(&mut tx, &point(d, 1)).await.unwrap();
        put_restore(&mut tx, &restore(d)).await.unwrap();
    }
    // There is one restore of a desktop at a time.
    let mut newer = restore(&stays);
    newer.step = Step::Ready;
    put_restore(&mut tx, &newer).await.unwrap();
    desktops::delete(&mut tx, &gone).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(all(&store).await.unwrap().len(), 1);
    assert_eq!(restores(&store).await.unwrap(), [newer.clone()]);
    assert_eq!(restore_of(&store, &stays).await.unwrap(), Some(newer));
    assert_eq!(restore_of(&store, &gone).await.unwrap(), None);
    let mut tx = store.begin_write().await.unwrap();
    delete_restore(&mut tx, &stays).await.unwrap();
    assert!(restores_tx(&mut tx).await.unwrap().is_empty());
}

async fn course(tx: &mut Tx) -> CourseId {
    let image = Image {
        id: ImageId::new(),
        name: "Demo".into(),
        description: String::new(),
        created: 1,
    };
    images::insert(tx, &image).await.unwrap();
    // As an older version wrote it: what courses say besides has a default.
    let sql = format!(
        "INSERT INTO courses (id, name, image_id, persistence, outside, deleting, created)
         VALUES ('c1', 'Python', '{}', 'throwaway', 0, 0, 1)",
        image.id
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(tx.connection())
        .await
        .unwrap();
    "c1".parse().unwrap()
}

async fn a_schedule_goes_with_its_course(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let course = course(&mut tx).await;
    tx.commit().await.unwrap();
    let none = schedule(&store, &course).await.unwrap();
    assert_eq!(none, Schedule::none(course.clone()));
    let said = Schedule {
        every_min: 10,
        own_restore: true,
        last_run: 77,
        ..none
    };
    let mut tx = store.begin_write().await.unwrap();
    put_schedule(&mut tx, &said).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(schedules(&store).await.unwrap(), [said]);
    let mut tx = store.begin_write().await.unwrap();
    sqlx::query("UPDATE courses SET deleting = 1")
        .execute(tx.connection())
        .await
        .unwrap();
    assert_eq!(courses::reap(&mut tx).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert!(schedules(&store).await.unwrap().is_empty());
}

async fn points_use_the_release_they_were_made_over(place: &Place) {
    let store = place.open().await;
    let desktop = DesktopId::new();
    let mut failed = point(&desktop, 1);
    failed.state = State::Failed;
    failed.release = Some("r2".parse().unwrap());
    let mut tx = store.begin_write().await.unwrap();
    for p in [&point(&desktop, 1), &point(&desktop, 2), &failed] {
        put(&mut tx, p).await.unwrap();
    }
    let users = releases::users_tx(&mut tx).await.unwrap();
    let points = releases::User::Points { desktop, of: None };
    assert_eq!(
        users,
        [("r1".parse().unwrap(), points)],
        "one line per desktop"
    );
}
