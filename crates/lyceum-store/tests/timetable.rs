//! The timetable in the store.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, on_both};
use lyceum_model::{CourseId, ImageId, LessonId, OperationId, Persistence, SchoolDaysId, UserId};
use lyceum_store::courses::{self, Course};
use lyceum_store::images::{self, Image};
use lyceum_store::operations::{self, Operation};
use lyceum_store::timetable::{
    self, AtEnd, CourseRules, DaysKind, LessonRow, OccurrenceRow, SchoolDays,
};
use lyceum_store::{Store, Tx};
use lyceum_timetable::{Exception, Lesson, Span, Weekday, When, Zone};
use std::collections::BTreeMap;

on_both!(
    lessons_and_days_come_back_as_written,
    what_was_done_for_an_occurrence_is_kept,
    the_last_starts_of_a_course_are_told,
);

async fn course(tx: &mut Tx) -> CourseId {
    let image = Image {
        id: ImageId::new(),
        name: ImageId::new().to_string(),
        description: String::new(),
        created: 1,
    };
    images::insert(tx, &image).await.unwrap();
    let course = Course {
        id: CourseId::new(),
        name: "資訊".into(),
        image: image.id,
        release: None,
        size: None,
        persistence: Persistence::Throwaway,
        outside: false,
        spice: false,
        deleting: false,
        created: 1,
    };
    courses::put(tx, &course).await.unwrap();
    course.id
}

fn row(course: &CourseId) -> LessonRow {
    let id = LessonId::new();
    LessonRow {
        id: id.clone(),
        course: course.clone(),
        uid: Some("a@school".into()),
        lesson: Lesson {
            id: id.to_string(),
            course: course.to_string(),
            room: Some("電腦教室".into()),
            title: "t".into(),
            when: When::Weekly {
                weekday: Weekday::Tue,
                every_weeks: 2,
                from: Some("2026-09-01".parse().unwrap()),
                until: None,
            },
            begin: "08:10".parse().unwrap(),
            minutes: 110,
            zone: Some(Zone::named("Asia/Taipei").unwrap()),
            exceptions: BTreeMap::from([
                ("2026-09-15".parse().unwrap(), Exception::Cancelled),
                (
                    "2026-09-29".parse().unwrap(),
                    Exception::Moved {
                        date: "2026-09-30".parse().unwrap(),
                        begin: "13:00".parse().unwrap(),
                        minutes: 50,
                        room: None,
                    },
                ),
            ]),
        },
        created: 5,
    }
}

async fn lessons_and_days_come_back_as_written(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let (a, b) = (course(&mut tx).await, course(&mut tx).await);
    let (mut first, second) = (row(&a), row(&b));
    for row in [&first, &second] {
        timetable::put_lesson(&mut tx, row).await.unwrap();
    }
    first.lesson.when = When::Once {
        date: "2026-12-24".parse().unwrap(),
    };
    first.lesson.exceptions.clear();
    first.uid = None;
    timetable::put_lesson(&mut tx, &first).await.unwrap();
    let days = SchoolDays {
        id: SchoolDaysId::new(),
        kind: DaysKind::Holiday,
        span: Span {
            name: "中秋節".into(),
            first: "2026-09-25".parse().unwrap(),
            last: "2026-09-26".parse().unwrap(),
        },
    };
    timetable::put_school_days(&mut tx, &days).await.unwrap();
    let rules = CourseRules {
        starts: false,
        at_end: AtEnd::Reset,
        grace_minutes: 17,
    };
    timetable::put_course_rules(&mut tx, &a, CourseRules::default())
        .await
        .unwrap();
    timetable::put_course_rules(&mut tx, &a, rules)
        .await
        .unwrap();
    assert_eq!(
        timetable::lesson_tx(&mut tx, &first.id).await.unwrap(),
        Some(first.clone())
    );
    tx.commit().await.unwrap();
    assert_eq!(
        timetable::lessons(&store).await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(
        timetable::school_days(&store).await.unwrap(),
        std::slice::from_ref(&days)
    );
    assert_eq!(
        timetable::course_rules(&store).await.unwrap(),
        [(a.clone(), rules)]
    );
    let mut tx = store.begin_write().await.unwrap();
    assert!(timetable::delete_lesson(&mut tx, &second.id).await.unwrap());
    assert!(!timetable::delete_lesson(&mut tx, &second.id).await.unwrap());
    assert!(
        timetable::delete_school_days(&mut tx, &days.id)
            .await
            .unwrap()
    );
    // A course that goes takes its lessons with it, and is out of the timetable at once.
    let mut going = courses::get_tx(&mut tx, &a).await.unwrap().unwrap();
    going.deleting = true;
    courses::put(&mut tx, &going).await.unwrap();
    assert_eq!(timetable::lessons_tx(&mut tx).await.unwrap(), []);
    courses::reap(&mut tx).await.unwrap();
    assert_eq!(
        timetable::lesson_tx(&mut tx, &first.id).await.unwrap(),
        None
    );
    tx.commit().await.unwrap();
}

async fn what_was_done_for_an_occurrence_is_kept(place: &Place) {
    let store = place.open().await;
    let mut o = OccurrenceRow {
        id: "lesson/2026-11-23/100".into(),
        lesson: "lesson".parse().unwrap(),
        course: "course".parse().unwrap(),
        begins: 100,
        ends: 200,
        prepared: Some(90),
        ended: None,
        start_operation: Some(OperationId::new()),
        end_operation: None,
        note: String::new(),
    };
    let people = [UserId::new(), UserId::new()];
    let mut tx = store.begin_write().await.unwrap();
    timetable::put_occurrence(&mut tx, &o).await.unwrap();
    for user in people.iter().chain(&people) {
        timetable::put_occurrence_person(&mut tx, &o.id, user, 90)
            .await
            .unwrap();
    }
    assert_eq!(
        timetable::occurrence_people_tx(&mut tx, &o.id)
            .await
            .unwrap()
            .len(),
        2
    );
    tx.commit().await.unwrap();
    let open = |store: Store| async move { timetable::open_occurrences(&store).await.unwrap() };
    assert_eq!(open(store.clone()).await, [o.clone()]);
    for (from, to, expect) in [(0, 100, 0), (0, 101, 1), (199, 300, 1), (200, 300, 0)] {
        assert_eq!(
            timetable::occurrences(&store, from, to)
                .await
                .unwrap()
                .len(),
            expect,
            "{from} {to}"
        );
    }
    o.ended = Some(210);
    o.note = "n".into();
    o.end_operation = Some(OperationId::new());
    let mut tx = store.begin_write().await.unwrap();
    timetable::put_occurrence(&mut tx, &o).await.unwrap();
    assert_eq!(
        timetable::occurrence_tx(&mut tx, &o.id).await.unwrap(),
        Some(o.clone())
    );
    assert_eq!(
        timetable::forget_occurrences(&mut tx, 200).await.unwrap(),
        0
    );
    tx.commit().await.unwrap();
    assert_eq!(open(store.clone()).await, []);
    let mut tx = store.begin_write().await.unwrap();
    assert_eq!(
        timetable::forget_occurrences(&mut tx, 201).await.unwrap(),
        1
    );
    tx.commit().await.unwrap();
    assert_eq!(
        timetable::occurrence_people(&store, &o.id).await.unwrap(),
        []
    );
}

async fn the_last_starts_of_a_course_are_told(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    for (n, kind, target, state, took) in [
        (1, "course.start", "course/a", "done", 10),
        (2, "course.start", "course/a", "failed", 20),
        (3, "course.reset", "course/a", "done", 30),
        (4, "course.start", "course/b", "done", 40),
        (5, "course.start", "course/a", "done", 50),
        (6, "course.start", "course/a", "done", 60),
    ] {
        let operation = Operation {
            id: OperationId::new(),
            kind: kind.into(),
            target: target.into(),
            target_name: String::new(),
            course: None,
            requested_by: "t".into(),
            state: state.into(),
            step: String::new(),
            data: "{}".into(),
            created: n * 1000,
            ended: Some(n * 1000 + took),
        };
        operations::insert(&mut tx, &operation, &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let of = "a".parse().unwrap();
    assert_eq!(
        timetable::last_starts(&store, &of, 2).await.unwrap(),
        [60, 50]
    );
    assert_eq!(
        timetable::last_starts(&store, &of, 9).await.unwrap(),
        [60, 50, 10]
    );
}
