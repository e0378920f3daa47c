//! Images, releases and drafts in the store.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, on_both};
use lyceum_model::release::FileEntry;
use lyceum_model::{DraftId, ImageId, MachineSize, ReleaseId, ReleaseManifest};
use lyceum_store::desktops::{self, Missing};
use lyceum_store::drafts::{self, Draft};
use lyceum_store::images::{self, Image};
use lyceum_store::releases::{self, NewRelease, State, User};
use lyceum_store::{StoreError, Tx};

on_both!(
    versions_count_within_an_image_and_rows_come_back_as_written,
    the_newest_offered_is_what_following_courses_use,
    a_draft_moves_on_only_from_the_step_that_was_read,
    image_names_are_unique,
);

async fn image(tx: &mut Tx, name: &str) -> ImageId {
    let new = Image {
        id: ImageId::new(),
        name: name.into(),
        description: String::new(),
        created: 1,
    };
    images::insert(tx, &new).await.unwrap();
    new.id
}

fn manifest() -> ReleaseManifest {
    ReleaseManifest {
        format: 1,
        sealed_at: 7,
        disk: FileEntry {
            bytes: 3,
            blake3: "ab".into(),
        },
        virtual_bytes: 4,
        memory: None,
        cold_reason: Some("no helper".into()),
    }
}

async fn release(tx: &mut Tx, image: &ImageId, id: &str) -> ReleaseId {
    let id: ReleaseId = id.parse().unwrap();
    let new = NewRelease {
        id: &id,
        image,
        manifest: &manifest(),
        bytes_on_disk: 5,
        note: "n",
        sealed_by: "t",
        sealed_at: 7,
    };
    releases::insert(tx, &new).await.unwrap();
    id
}

fn draft(image: &ImageId) -> Draft {
    Draft {
        id: DraftId::new(),
        image: image.clone(),
        state: drafts::State::Empty,
        detail: String::new(),
        percent: None,
        from_release: None,
        size: MachineSize {
            vcpus: 1,
            memory_mib: 768,
        },
        iso: false,
        owner: "t".into(),
        work: None,
        operation: None,
        created: 1,
    }
}

async fn versions_count_within_an_image_and_rows_come_back_as_written(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let (a, b) = (image(&mut tx, "a").await, image(&mut tx, "b").await);
    for (image, id, _version) in [(&a, "r1", 1), (&a, "r2", 2), (&b, "r3", 1)] {
        release(&mut tx, image, id).await;
    }
    tx.commit().await.unwrap();
    let versions: Vec<_> = releases::of_image(&store, &a)
        .await
        .unwrap()
        .iter()
        .map(|r| (r.id.to_string(), r.version))
        .collect();
    assert_eq!(versions, [("r2".to_owned(), 2), ("r1".to_owned(), 1)]);
    let r3 = releases::get(&store, &"r3".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(r3.version, 1);
    assert_eq!(r3.manifest, manifest());
    assert_eq!((r3.state, r3.bytes_on_disk), (State::Offered, 5));
}

async fn the_newest_offered_is_what_following_courses_use(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let a = image(&mut tx, "a").await;
    let r1 = release(&mut tx, &a, "r1").await;
    let r2 = release(&mut tx, &a, "r2").await;
    for (id, pinned) in [("follows", None), ("pins", Some("r2"))] {
        sqlx::query(
            "INSERT INTO courses (id, name, image_id, release_id, persistence, outside, deleting, created)
             VALUES ($1, $1, $2, $3, 'throwaway', 0, 0, 0)",
        )
        .bind(id)
        .bind(a.as_str())
        .bind(pinned)
        .execute(tx.connection())
        .await
        .unwrap();
    }
    let course = |text: &str| text.parse().unwrap();
    let follows = User::Follows {
        course: course("follows"),
        name: "follows".into(),
    };
    let pins = User::Pins {
        course: course("pins"),
        name: "pins".into(),
    };
    assert_eq!(
        releases::users_tx(&mut tx).await.unwrap(),
        [(r2.clone(), follows.clone()), (r2.clone(), pins.clone())]
    );
    // Retired: who follows goes back, who pins stays.
    releases::set_state(&mut tx, &r2, State::Retired, None)
        .await
        .unwrap();
    assert_eq!(
        releases::newest_offered_tx(&mut tx, &a)
            .await
            .unwrap()
            .unwrap()
            .id,
        r1
    );
    assert_eq!(
        releases::users_tx(&mut tx).await.unwrap(),
        [(r1.clone(), follows), (r2.clone(), pins)]
    );
    // Nothing starts from a damaged release, and it is known that this is why.
    tx.commit().await.unwrap();
    let missing = async |id: &str| {
        let course = desktops::course_for_start(&store, &course(id)).await;
        let course = course.unwrap().unwrap();
        (course.release.map(|(id, _)| id), course.missing)
    };
    assert_eq!(missing("follows").await.0, Some(r1.clone()));
    let mut tx = store.begin_write().await.unwrap();
    for id in [&r1, &r2] {
        releases::set_state(&mut tx, id, State::Damaged, Some("ram"))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(missing("follows").await, (None, Missing::Damaged));
    assert_eq!(missing("pins").await, (None, Missing::PinnedDamaged));
    let mut tx = store.begin_write().await.unwrap();
    // A draft that is being copied uses its source, one that was copied does not.
    let mut d = draft(&a);
    d.from_release = Some(r1.clone());
    d.state = drafts::State::Importing;
    drafts::insert(&mut tx, &d).await.unwrap();
    let uses = |users: Vec<(ReleaseId, User)>| {
        users
            .iter()
            .any(|(r, u)| *r == r1 && matches!(u, User::Draft { image, .. } if image == "a"))
    };
    assert!(uses(releases::users_tx(&mut tx).await.unwrap()));
    let ready = Draft {
        state: drafts::State::Ready,
        ..d.clone()
    };
    assert!(drafts::advance(&mut tx, &d, &ready).await.unwrap());
    assert!(!uses(releases::users_tx(&mut tx).await.unwrap()));
}

async fn a_draft_moves_on_only_from_the_step_that_was_read(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let a = image(&mut tx, "a").await;
    let d = draft(&a);
    drafts::insert(&mut tx, &d).await.unwrap();
    let twice = drafts::insert(&mut tx, &draft(&a)).await;
    assert!(matches!(twice, Err(StoreError::Conflict(_))), "{twice:?}");
    drop(tx);

    let mut tx = store.begin_write().await.unwrap();
    let a = image(&mut tx, "a").await;
    let d = draft(&a);
    drafts::insert(&mut tx, &d).await.unwrap();
    let one = Draft {
        work: Some("one".into()),
        percent: Some(12.5),
        ..d.clone()
    };
    assert!(drafts::advance(&mut tx, &d, &one).await.unwrap());
    let late = Draft {
        work: Some("two".into()),
        ..d.clone()
    };
    assert!(
        !drafts::advance(&mut tx, &d, &late).await.unwrap(),
        "an old reading won"
    );
    assert!(!drafts::delete(&mut tx, &d).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(
        drafts::all(&store).await.unwrap(),
        std::slice::from_ref(&one)
    );
    let mut tx = store.begin_write().await.unwrap();
    assert!(drafts::delete(&mut tx, &one).await.unwrap());
    tx.commit().await.unwrap();
    assert!(drafts::get(&store, &one.id).await.unwrap().is_none());
}

async fn image_names_are_unique(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    let a = image(&mut tx, "a").await;
    image(&mut tx, "b").await;
    let e = images::update(&mut tx, &a, "b", "").await.unwrap_err();
    assert!(
        matches!(&e, StoreError::Conflict(m) if m.contains("\"b\"")),
        "{e}"
    );
}
