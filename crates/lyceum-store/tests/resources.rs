//! Every kind of row but images' is written, read back and changed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, on_both};
use lyceum_model::{
    CourseId, DeltaId, Desired, DesktopId, DraftId, Generation, Hostname, ImageId, MachineSize,
    OperationId, OverlayId, Persistence, Phase, SessionId, UserId,
};
use lyceum_store::courses::{Course, MemberRole};
use lyceum_store::desktops::{Desktop, Filter, Missing, Owner, Placement, Source};
use lyceum_store::images::Image;
use lyceum_store::one_time::Purpose;
use lyceum_store::operations::{Item, Operation};
use lyceum_store::sessions::Session;
use lyceum_store::users::{Role, User};
use lyceum_store::{
    StoreError, Tx, agents, audit, courses, desktops, images, networks, one_time, operations,
    sessions, settings, users,
};
use serde_json::json;

on_both!(
    people_and_their_sessions,
    secrets_work_once,
    settings_and_the_audit_log,
    courses_rosters_and_what_a_list_shows,
    desktops_come_back_as_written,
    operations_and_their_items,
    agents_join_again_and_are_heard,
    networks_places_and_doors,
);

fn person(login: &str, role: Role) -> User {
    User {
        id: UserId::new(),
        login: login.into(),
        name: format!("{login} 王小明"),
        role,
        source: "local".into(),
        password_hash: None,
        disabled: false,
        deleting: false,
        created: 3,
    }
}

async fn people_and_their_sessions(place: &Place) {
    let store = place.open().await;
    let mut ada = person("ada", Role::Admin);
    let mut tx = store.begin_write().await.unwrap();
    users::insert(&mut tx, &ada).await.unwrap();
    users::set_password(&mut tx, &ada.id, "$argon2id$x")
        .await
        .unwrap();
    assert_eq!(users::count_admins(&mut tx).await.unwrap(), 1);
    ada.name = "Ada".into();
    ada.password_hash = Some("$argon2id$x".into());
    users::update(&mut tx, &ada).await.unwrap();
    let session = |n: i64| Session {
        id: SessionId::new(),
        secret_hash: format!("h{n}"),
        user: ada.id.clone(),
        created: n,
        last_seen: n,
        client: "Firefox".into(),
        address: "::1".into(),
        may_set_password: n == 1,
    };
    let [one, two, three] = [session(1), session(2), session(3)];
    for s in [&one, &two, &three] {
        sessions::insert(&mut tx, s).await.unwrap();
    }
    tx.commit().await.unwrap();
    let read = users::by_login(&store, "ada").await.unwrap().unwrap();
    assert_eq!(read, ada);
    let (found, who) = sessions::find(&store, "h1").await.unwrap().unwrap();
    assert_eq!((found, who), (one.clone(), ada.clone()));

    let mut tx = store.begin_write().await.unwrap();
    sessions::seen(&mut tx, &one.id, 9).await.unwrap();
    sessions::password_set(&mut tx, &one.id).await.unwrap();
    sessions::keep_newest(&mut tx, &ada.id, 2).await.unwrap();
    tx.commit().await.unwrap();
    let left = sessions::of_user(&store, &ada.id).await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    let (one_now, _) = sessions::find(&store, "h1").await.unwrap().unwrap();
    assert_eq!((one_now.last_seen, one_now.may_set_password), (9, false));

    let mut tx = store.begin_write().await.unwrap();
    let again = users::insert(&mut tx, &person("ada", Role::Student)).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    // Refused by the database: the rest of that transaction is lost, here and there.
    drop(tx);

    let mut tx = store.begin_write().await.unwrap();
    users::close(&mut tx, &ada.id).await.unwrap();
    assert!(!sessions::exists(&mut tx, &one.id).await.unwrap());
    // The name is free again at once.
    users::insert(&mut tx, &person("ada", Role::Student))
        .await
        .unwrap();
    assert_eq!(users::reap(&mut tx).await.unwrap(), 1);
    assert_eq!(sessions::delete_idle(&mut tx, 100).await.unwrap(), 0);
    tx.commit().await.unwrap();
    assert_eq!(users::list(&store).await.unwrap().len(), 1);
}

async fn secrets_work_once(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let insert = async |tx: &mut Tx, hash: &str| {
        one_time::insert(tx, Purpose::Join, hash, "host/h1", 0, 100)
            .await
            .unwrap();
    };
    let take = async |tx: &mut Tx, purpose, hash: &str, now| {
        one_time::take(tx, purpose, hash, None, now).await.unwrap()
    };
    insert(&mut tx, "a").await;
    assert_eq!(take(&mut tx, Purpose::SignIn, "a", 1).await, None);
    assert_eq!(
        take(&mut tx, Purpose::Join, "a", 100).await,
        None,
        "too old"
    );
    assert_eq!(
        take(&mut tx, Purpose::Join, "a", 1).await.as_deref(),
        Some("host/h1")
    );
    assert_eq!(
        take(&mut tx, Purpose::Join, "a", 1).await,
        None,
        "used twice"
    );
    insert(&mut tx, "b").await;
    insert(&mut tx, "c").await;
    assert_eq!(
        take(&mut tx, Purpose::Join, "b", 1).await,
        None,
        "replaced by a newer one"
    );
    one_time::revoke(&mut tx, Purpose::Join, "host/h1")
        .await
        .unwrap();
    assert_eq!(take(&mut tx, Purpose::Join, "c", 1).await, None, "revoked");
    // Who took it may take it again, and nobody else.
    insert(&mut tx, "d").await;
    for (by, got) in [
        (Some("key"), true),
        (Some("key"), true),
        (Some("other"), false),
        (None, false),
    ] {
        let taken = one_time::take(&mut tx, Purpose::Join, "d", by, 2).await;
        assert_eq!(taken.unwrap().is_some(), got, "{by:?}");
    }
    one_time::delete_expired(&mut tx, 1000).await.unwrap();
    tx.commit().await.unwrap();
}

async fn settings_and_the_audit_log(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    settings::set(&mut tx, "seats", &json!(3)).await.unwrap();
    settings::set(&mut tx, "seats", &json!({"of": [1.5, "x"]}))
        .await
        .unwrap();
    for n in 0..3 {
        let entry = audit::Entry {
            id: 0,
            at: 5,
            actor: "ada".into(),
            action: "course.start".into(),
            target: format!("course/{n}"),
            detail: "程式設計".into(),
            address: String::new(),
        };
        audit::insert(&mut tx, &entry).await.unwrap();
    }
    tx.commit().await.unwrap();
    let all = settings::all(&store).await.unwrap();
    assert_eq!(all["seats"], json!({"of": [1.5, "x"]}));
    let newest = audit::list(&store, i64::MAX, 2).await.unwrap();
    assert_eq!(newest.len(), 2);
    assert_eq!(
        (newest[0].target.as_str(), newest[0].detail.as_str()),
        ("course/2", "程式設計")
    );
    let older = audit::list(&store, newest[1].id, 10).await.unwrap();
    assert_eq!(older[0].target, "course/0");
}

async fn a_course(tx: &mut Tx, students: &[User]) -> Course {
    let image = Image {
        id: ImageId::new(),
        name: "Demo".into(),
        description: String::new(),
        created: 1,
    };
    images::insert(tx, &image).await.unwrap();
    let course = Course {
        id: CourseId::new(),
        name: "Programming".into(),
        image: image.id,
        release: None,
        size: Some(MachineSize {
            vcpus: 2,
            memory_mib: 512,
        }),
        persistence: Persistence::Persistent,
        outside: true,
        spice: false,
        deleting: false,
        created: 2,
    };
    courses::put(tx, &course).await.unwrap();
    for student in students {
        users::insert(tx, student).await.unwrap();
        courses::put_member(tx, &course.id, &student.id, MemberRole::Student)
            .await
            .unwrap();
    }
    course
}

async fn courses_rosters_and_what_a_list_shows(place: &Place) {
    let store = place.open().await;
    let students = [person("b", Role::Student), person("a", Role::Student)];
    let mut tx = store.begin_write().await.unwrap();
    let mut course = a_course(&mut tx, &students).await;
    courses::put_member(&mut tx, &course.id, &students[0].id, MemberRole::Teacher)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        courses::get(&store, &course.id).await.unwrap().as_ref(),
        Some(&course)
    );
    let lines = courses::lines(&store).await.unwrap();
    assert_eq!((lines[0].students, lines[0].running), (1, 0));
    assert_eq!(
        (lines[0].image_name.as_str(), lines[0].release.is_none()),
        ("Demo", true)
    );
    let roster = desktops::roster(&store, &course.id, "student")
        .await
        .unwrap();
    assert_eq!(roster.len(), 1);
    assert_eq!(courses::members(&store, &course.id).await.unwrap().len(), 2);
    assert_eq!(courses::all_members(&store).await.unwrap().len(), 2);
    let start = desktops::course_for_start(&store, &course.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((start.size, start.outside), (course.size, true));
    assert_eq!((start.release, start.missing), (None, Missing::Never));

    let mut tx = store.begin_write().await.unwrap();
    assert!(
        courses::remove_member(&mut tx, &course.id, &students[0].id)
            .await
            .unwrap()
    );
    assert!(
        !courses::remove_member(&mut tx, &course.id, &students[0].id)
            .await
            .unwrap()
    );
    course.deleting = true;
    courses::put(&mut tx, &course).await.unwrap();
    tx.commit().await.unwrap();
    assert!(courses::any_deleting(&store).await.unwrap());
    let mut tx = store.begin_write().await.unwrap();
    assert_eq!(courses::reap(&mut tx).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert!(courses::list(&store).await.unwrap().is_empty());
}

fn desktop(owner: Owner) -> Desktop {
    Desktop {
        id: DesktopId::new(),
        owner,
        hostname: Hostname::from_text("d", "1"),
        size: MachineSize {
            vcpus: 1,
            memory_mib: 768,
        },
        persistence: Persistence::Throwaway,
        outside: true,
        desired: Desired::Running,
        source: Source::HandOut,
        renew: true,
        hand_out_delta: Some(DeltaId::new()),
        handed_out: Generation(1 << 40),
        moving_to: Some("kvm2".parse().unwrap()),
        order: Some(OperationId::new()),
        ordered_at: 1 << 41,
        gave_up: false,
        generation: Generation(1 << 40),
        release: Some("r1".parse().unwrap()),
        host: Some("kvm1".parse().unwrap()),
        overlay: Some(OverlayId::new()),
        delta: None,
        saving_delta: Some(DeltaId::new()),
        vm_generation_id: "v".into(),
        machine_id: "m".into(),
        mac: "52:54:00:00:00:01".into(),
        address: "10.0.0.1".into(),
        observed_generation: Generation(7),
        phase: Phase::Unknown,
        detail: "nothing is heard of kvm1".into(),
        started_by: Some("fork".into()),
        cold_reason: None,
        guest_address: Some("10.0.0.1/24".into()),
        ssh_host_key: None,
        usable_ms: Some(431),
        delta_bytes: Some(7 << 40),
        suspend_ms: None,
        notice: Some("已重設".into()),
        restarts: 2,
        restarts_since: 5,
        changed: 6,
        created: 7,
    }
}

async fn desktops_come_back_as_written(place: &Place) {
    let store = place.open().await;
    let student = person("a", Role::Student);
    let mut tx = store.begin_write().await.unwrap();
    let course = a_course(&mut tx, std::slice::from_ref(&student)).await;
    let mut d = desktop(Owner::Course {
        course: course.id.clone(),
        user: student.id.clone(),
    });
    let draft = DraftId::new();
    let open = desktop(Owner::Draft {
        draft: draft.clone(),
    });
    desktops::put(&mut tx, &d).await.unwrap();
    desktops::put(&mut tx, &open).await.unwrap();
    for n in 0..60 {
        let placement = Placement {
            desktop: d.id.clone(),
            at: n,
            host: (n % 2 == 0).then(|| "kvm1".parse().unwrap()),
            reason: format!("fewest desktops ({n})"),
            snapshot: "{}".into(),
        };
        desktops::record_placement(&mut tx, &placement)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(
        desktops::get(&store, &d.id).await.unwrap().as_ref(),
        Some(&d)
    );
    assert_eq!(
        desktops::of_draft(&store, &draft).await.unwrap().as_ref(),
        Some(&open)
    );
    let order = d.order.clone().unwrap();
    for found in [
        desktops::of_course(&store, &course.id).await.unwrap(),
        desktops::of_user(&store, &student.id).await.unwrap(),
        desktops::of_order(&store, &order).await.unwrap(),
    ] {
        assert_eq!(found, std::slice::from_ref(&d));
    }
    let placements = desktops::placements(&store, &d.id).await.unwrap();
    assert_eq!((placements.len(), placements[0].at), (50, 59));
    for filter in [
        Filter::All,
        Filter::One(&d.id),
        Filter::User(&student.id),
        Filter::Course(&course.id),
    ] {
        let names = desktops::names(&store, filter).await.unwrap();
        assert_eq!(names[&d.id].user, student.name);
    }
    assert!(!desktops::draft_has_iso(&store, &draft).await.unwrap());
    // All of it may change, back to nothing too.
    let mut tx = store.begin_write().await.unwrap();
    (d.hand_out_delta, d.order, d.host, d.notice) = (None, None, None, None);
    (d.renew, d.gave_up, d.phase, d.delta_bytes) = (false, true, Phase::Failed, None);
    desktops::put(&mut tx, &d).await.unwrap();
    assert_eq!(
        desktops::get_tx(&mut tx, &d.id).await.unwrap().as_ref(),
        Some(&d)
    );
    assert_eq!(users::reap(&mut tx).await.unwrap(), 0);
    desktops::delete(&mut tx, &d.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(desktops::all(&store).await.unwrap(), [open]);
}

async fn operations_and_their_items(place: &Place) {
    let store = place.open().await;
    let operation = Operation {
        id: OperationId::new(),
        kind: "course.start".into(),
        target: "course/c".into(),
        target_name: "Programming".into(),
        course: Some(CourseId::new()),
        requested_by: "ada".into(),
        state: "running".into(),
        step: String::new(),
        data: "{}".into(),
        created: 1,
        ended: None,
    };
    let item = |target: &str| Item {
        target: target.into(),
        name: target.into(),
        state: "pending".into(),
        message: String::new(),
    };
    let id = &operation.id;
    let mut tx = store.begin_write().await.unwrap();
    operations::insert(&mut tx, &operation, &[item("desktop/a"), item("desktop/b")])
        .await
        .unwrap();
    operations::set_step(&mut tx, id, "half way", "{\"n\":1}")
        .await
        .unwrap();
    operations::settle_item(&mut tx, id, "desktop/a", "done", "fine")
        .await
        .unwrap();
    // What is settled stays.
    operations::settle_item(&mut tx, id, "desktop/a", "failed", "late")
        .await
        .unwrap();
    assert_eq!(operations::counts(&mut tx, id).await.unwrap(), (1, 0, 1));
    assert_eq!(
        operations::only_message(&mut tx, id, "done").await.unwrap(),
        ""
    );
    tx.commit().await.unwrap();
    assert_eq!(
        operations::running(&store).await.unwrap()[0].step,
        "half way"
    );
    assert_eq!(
        operations::items(&store, id).await.unwrap()[0].message,
        "fine"
    );

    let single = Operation {
        id: OperationId::new(),
        created: 2,
        ..operation.clone()
    };
    let mut tx = store.begin_write().await.unwrap();
    operations::settle_all(&mut tx, id, "cancelled", "called off")
        .await
        .unwrap();
    assert!(operations::end(&mut tx, id, "done", "", 9).await.unwrap());
    assert!(
        !operations::end(&mut tx, id, "failed", "", 10)
            .await
            .unwrap(),
        "ended twice"
    );
    operations::insert(&mut tx, &single, &[item("desktop/a")])
        .await
        .unwrap();
    operations::settle_item(&mut tx, &single.id, "desktop/a", "done", "shut down")
        .await
        .unwrap();
    assert_eq!(
        operations::only_message(&mut tx, &single.id, "done")
            .await
            .unwrap(),
        "shut down"
    );
    assert_eq!(
        operations::only_message(&mut tx, &single.id, "failed")
            .await
            .unwrap(),
        ""
    );
    tx.commit().await.unwrap();
    assert_eq!(
        operations::get(&store, id).await.unwrap().unwrap().ended,
        Some(9)
    );
    let older = operations::list(&store, 2, 10).await.unwrap();
    assert_eq!(older.len(), 1);
}

async fn agents_join_again_and_are_heard(place: &Place) {
    let store = place.open().await;
    let id = "kvm1".parse().unwrap();
    let mut tx = store.begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "https://a:1", 1)
        .await
        .unwrap();
    agents::join(&mut tx, &id, "host", "https://b:1", 2)
        .await
        .unwrap();
    agents::heard(&mut tx, &id, "{\"version\":1}", 7)
        .await
        .unwrap();
    assert!(agents::set_state(&mut tx, &id, "draining").await.unwrap());
    tx.commit().await.unwrap();
    let agent = agents::get(&store, &id).await.unwrap().unwrap();
    assert_eq!(
        (agent.url.as_str(), agent.state.as_str()),
        ("https://b:1", "draining")
    );
    assert_eq!(
        (agent.heard, agent.facts.as_deref()),
        (Some(7), Some("{\"version\":1}"))
    );
}

async fn networks_places_and_doors(place: &Place) {
    let store = place.open().await;
    let (ann, tim) = (person("ann", Role::Student), person("tim", Role::Student));
    let mut tx = store.begin_write().await.unwrap();
    let course = a_course(&mut tx, &[ann.clone(), tim.clone()]).await;
    let mut n = networks::get_or_make(&mut tx, &course.id).await.unwrap();
    assert_eq!(n.number, 1);
    n.allowed = vec!["example.org".into()];
    (n.listed, n.among_themselves, n.exam_until) = (true, true, Some(1 << 41));
    networks::put(&mut tx, &n).await.unwrap();
    assert_eq!(networks::get_or_make(&mut tx, &course.id).await.unwrap(), n);
    assert_eq!(
        networks::v6(&mut tx, "fd00::/48").await.unwrap(),
        "fd00::/48"
    );
    assert_eq!(
        networks::v6(&mut tx, "fd01::/48").await.unwrap(),
        "fd00::/48"
    );
    let own = |user: &User| Owner::Course {
        course: course.id.clone(),
        user: user.id.clone(),
    };
    let (mut a, mut b) = (desktop(own(&ann)), desktop(own(&tim)));
    (a.phase, b.phase) = (Phase::Running, Phase::Stopped);
    b.desired = Desired::Stopped;
    for d in [&a, &b] {
        desktops::put(&mut tx, d).await.unwrap();
    }
    for (d, expected) in [(&a, 1), (&b, 2), (&a, 1)] {
        let got = networks::place_of(&mut tx, &d.id, &course.id).await;
        assert_eq!(got.unwrap(), expected);
    }
    for (n, user) in [&ann, &tim].into_iter().enumerate() {
        let session = Session {
            id: SessionId::new(),
            secret_hash: format!("hash-{n}"),
            user: user.id.clone(),
            created: 1,
            last_seen: 1,
            client: String::new(),
            address: format!("192.0.2.{n}"),
            may_set_password: false,
        };
        sessions::insert(&mut tx, &session).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(networks::all(&store).await.unwrap(), [n]);
    // Its person's session, and nobody else's; of the desktop that runs, and of no other.
    let doors = networks::doors(&store).await.unwrap();
    assert_eq!(doors.len(), 1);
    assert_eq!((&doors[0].0, doors[0].2.as_str()), (&a.id, "192.0.2.0"));
    let mut tx = store.begin_write().await.unwrap();
    // A teacher of the course has a door to it too.
    courses::put_member(&mut tx, &course.id, &tim.id, MemberRole::Teacher)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(networks::doors(&store).await.unwrap().len(), 2);
    let mut tx = store.begin_write().await.unwrap();
    desktops::delete(&mut tx, &a.id).await.unwrap();
    tx.commit().await.unwrap();
    let places = networks::places(&store).await.unwrap();
    assert_eq!(places.into_iter().collect::<Vec<_>>(), [(b.id.clone(), 2)]);
    let mut tx = store.begin_write().await.unwrap();
    let c = desktop(own(&ann));
    desktops::put(&mut tx, &c).await.unwrap();
    // The lowest that is free.
    let got = networks::place_of(&mut tx, &c.id, &course.id).await;
    assert_eq!(got.unwrap(), 1);
}
