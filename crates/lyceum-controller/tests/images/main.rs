//! The life of golden images, on real agents with simulated machines.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod room;

use room::Room;
use serde_json::{Value, json};

/// 1 MiB of a raw disk: a boot sector and nothing.
pub fn raw_disk() -> Vec<u8> {
    let mut disk = vec![0u8; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_a_release_and_on_to_the_next() {
    let room = Room::new().await;
    let image = room.image("Debian").await;
    let first = room.release(&image).await;
    room.nothing_left("after the first seal").await;
    let shown = room.get(&format!("images/{image}")).await;
    assert_eq!(shown["draft"], Value::Null, "{shown}");
    let release = &shown["releases"][0];
    assert_eq!(
        (release["version"].as_u64(), release["state"].as_str()),
        (Some(1), Some("offered"))
    );
    assert_eq!(release["size"]["memory_mib"], 768);
    assert_eq!(
        (&release["note"], &release["sealed_by"]),
        (&json!("n"), &json!("local"))
    );
    assert_eq!(release["cold_reason"], Value::Null);

    // The next is made of a copy of the first.
    let (draft, operation) = room
        .begin_draft(&image, json!({"from": "release", "release": first}))
        .await;
    assert_eq!(room.ended(&operation).await["state"], "done");
    let shown = room.get(&format!("drafts/{draft}")).await;
    assert_eq!(
        (shown["state"].as_str(), &shown["from_release"]),
        (Some("ready"), &json!(first))
    );
    assert_eq!(shown["detail"], "copied from release 1");
    let operation = room.seal(&draft).await;
    assert_eq!(
        room.seal(&draft).await,
        operation,
        "asked twice, sealed twice"
    );
    assert_eq!(room.ended(&operation).await["state"], "done");
    let shown = room.get(&format!("images/{image}")).await;
    let versions: Vec<_> = shown["releases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["version"])
        .collect();
    assert_eq!(versions, [2, 1]);
    room.nothing_left("after the second seal").await;
    let audit = room.get("audit").await.to_string();
    for action in ["image.create", "draft.open", "draft.seal", "release.offer"] {
        assert!(audit.contains(action), "{action} is not in {audit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_becomes_a_draft_and_a_broken_one_says_why() {
    let room = Room::new().await;
    let image = room.image("mine").await;
    let draft = room.empty_draft(&image).await;
    // Not an image at all, but called one.
    let mut lie = b"QFI\xfb".to_vec();
    lie.resize(4096, 7);
    let accepted = room.upload(&draft, "lie.qcow2", lie).await.unwrap();
    let ended = room.ended(accepted["operation"].as_str().unwrap()).await;
    assert_eq!(ended["state"], "failed");
    let shown = room.get(&format!("drafts/{draft}")).await;
    assert_eq!(
        (&shown["state"], &shown["detail"]),
        (&json!("empty"), &ended["failures"][0]["message"])
    );
    room.nothing_left("after a refused import").await;

    let accepted = room.upload(&draft, "disk.raw", raw_disk()).await.unwrap();
    let ended = room.ended(accepted["operation"].as_str().unwrap()).await;
    assert_eq!(ended["state"], "done", "{ended}");
    let shown = room.get(&format!("drafts/{draft}")).await;
    assert_eq!(shown["state"], "ready", "{shown}");
    assert!(
        shown["detail"].as_str().unwrap().contains("disk.raw"),
        "{shown}"
    );
    room.nothing_left("after an import").await;
    // It has a disk now.
    let (status, body) = room
        .upload(&draft, "disk.raw", raw_disk())
        .await
        .unwrap_err();
    assert_eq!((status, &body["code"]), (409, &json!("state")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_opened_changed_and_shut_down_for_its_seal() {
    let room = Room::new().await;
    let image = room.image("open").await;
    let draft = room.ready_draft(&image).await;
    let (_, operation) = room
        .order("POST", &format!("drafts/{draft}/start"), json!({}))
        .await;
    assert_eq!(room.ended(&operation).await["state"], "done");
    let shown = room.get(&format!("drafts/{draft}")).await;
    assert_eq!(
        (shown["phase"].as_str(), shown["host"].as_str()),
        (Some("running"), Some("kvm1"))
    );
    assert_eq!(room.world.alive().len(), 1);
    let ticket = room
        .send("POST", &format!("drafts/{draft}/console-ticket"), json!({}))
        .await
        .unwrap();
    assert!(ticket["ticket"].is_string(), "{ticket}");
    // Saying it again leaves it running.
    let again = room
        .send("POST", &format!("drafts/{draft}/start"), json!({}))
        .await
        .unwrap();
    assert_eq!(again["draft"]["phase"], "running");
    // Sealed while it is open.
    let ended = room.ended(&room.seal(&draft).await).await;
    assert_eq!(ended["state"], "done", "{ended}");
    room.nothing_left("after the seal of an open draft").await;
    assert!(
        lyceum_store::desktops::all(&room.app.store)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_are_retired_offered_again_and_rolled_back() {
    let room = Room::new().await;
    let image = room.image("rolling").await;
    let one = room.release(&image).await;
    let two = room.release(&image).await;
    let course = room.course("follows", &image, None).await;
    let starts_from = async || {
        let facts = lyceum_controller::orders::course_facts(&room.app.store, &course.id)
            .await
            .unwrap();
        facts.unwrap().release.map(|(id, _)| id)
    };
    assert_eq!(starts_from().await, Some(two.clone()));
    for _ in 0..2 {
        let shown = room
            .send("POST", &format!("releases/{two}/retire"), json!({}))
            .await
            .unwrap();
        assert_eq!(shown["state"], "retired");
    }
    assert_eq!(starts_from().await, Some(one.clone()), "rolled back");
    room.send("POST", &format!("releases/{two}/offer"), json!({}))
        .await
        .unwrap();
    assert_eq!(starts_from().await, Some(two));
    assert_eq!(
        room.get(&format!("releases/{one}")).await["used_by"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_is_not_deleted_and_the_message_names_who() {
    let room = Room::new().await;
    let image = room.image("used").await;
    let one = room.release(&image).await;
    let two = room.release(&image).await;
    room.course("Pinned 101", &image, Some(&one)).await;
    let follower = room.course("Follower 7", &image, None).await;
    for (release, name) in [(&one, "Pinned 101"), (&two, "Follower 7")] {
        let (status, body) = room
            .send("DELETE", &format!("releases/{release}"), Value::Null)
            .await
            .unwrap_err();
        assert_eq!((status, &body["code"]), (409, &json!("in_use")));
        assert!(body["message"].as_str().unwrap().contains(name), "{body}");
        let used = room.get(&format!("releases/{release}")).await["used_by"].to_string();
        assert!(used.contains(name), "{used}");
    }
    // A desktop's disk lies over it.
    let anna = lyceum_store::users::User {
        id: lyceum_model::UserId::new(),
        login: "anna".into(),
        name: "Anna".into(),
        role: lyceum_store::users::Role::Student,
        source: "local".into(),
        password_hash: None,
        disabled: false,
        deleting: false,
        created: 1,
    };
    let mut tx = room.app.store.begin_write().await.unwrap();
    lyceum_store::users::insert(&mut tx, &anna).await.unwrap();
    let facts = lyceum_controller::orders::course_facts(&room.app.store, &follower.id)
        .await
        .unwrap()
        .unwrap();
    let mut taken = lyceum_controller::orders::fresh::Taken::of(&[]);
    let mut desktop =
        lyceum_controller::orders::fresh::desktop(&facts, &anna.id, "anna", &mut taken, 1).unwrap();
    desktop.overlay = Some(lyceum_model::OverlayId::new());
    desktop.persistence = lyceum_model::Persistence::Persistent;
    lyceum_store::desktops::put(&mut tx, &desktop)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    room.send("POST", &format!("releases/{two}/retire"), json!({}))
        .await
        .unwrap();
    let (_, body) = room
        .send("DELETE", &format!("releases/{two}"), Value::Null)
        .await
        .unwrap_err();
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("anna") && !message.contains("follows"),
        "{message}"
    );
    let (status, body) = room
        .send("DELETE", &format!("images/{image}"), Value::Null)
        .await
        .unwrap_err();
    assert_eq!(status, 409);
    for name in ["Pinned 101", "Follower 7", "anna"] {
        assert!(body["message"].as_str().unwrap().contains(name), "{body}");
    }
    // Nobody any more.
    let mut tx = room.app.store.begin_write().await.unwrap();
    lyceum_store::desktops::delete(&mut tx, &desktop.id)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    room.send("DELETE", &format!("releases/{two}"), Value::Null)
        .await
        .unwrap();
    assert_eq!(room.inventory().await.releases, [one]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_with_its_releases_but_not_with_an_open_draft() {
    let room = Room::new().await;
    let image = room.image("gone").await;
    room.release(&image).await;
    let draft = room.ready_draft(&image).await;
    let (status, body) = room
        .send("DELETE", &format!("images/{image}"), Value::Null)
        .await
        .unwrap_err();
    assert_eq!(status, 409);
    assert!(
        body["message"].as_str().unwrap().contains("draft"),
        "{body}"
    );
    let second = room
        .send(
            "POST",
            &format!("images/{image}/draft"),
            json!({"source": {"from": "empty", "disk_gib": 1}}),
        )
        .await;
    assert_eq!(second.unwrap_err().0, 409, "two drafts of one image");
    let (_, operation) = room
        .order("DELETE", &format!("drafts/{draft}"), Value::Null)
        .await;
    assert_eq!(room.ended(&operation).await["state"], "done");
    room.send("DELETE", &format!("images/{image}"), Value::Null)
        .await
        .unwrap();
    assert_eq!(room.get("images").await, json!([]));
    room.nothing_left("after all is deleted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_changes_nothing() {
    let room = Room::new().await;
    let image = room.image("x").await;
    let bad = [
        ("POST", "images".to_owned(), json!({"name": " "})),
        ("POST", "images".to_owned(), json!({"name": "a\u{0}b"})),
        (
            "POST",
            "images".to_owned(),
            json!({"name": "y", "path": "/etc"}),
        ),
        ("POST", "images".to_owned(), json!({"name": "x"})),
        (
            "POST",
            format!("images/{image}/draft"),
            json!({"source": {"from": "empty", "disk_gib": 0}}),
        ),
        (
            "POST",
            format!("images/{image}/draft"),
            json!({"source": {"from": "empty", "disk_gib": 1, "x": 1}}),
        ),
        (
            "POST",
            format!("images/{image}/draft"),
            json!({"source": {"from": "release", "release": "../../x"}}),
        ),
        (
            "POST",
            format!("images/{image}/draft"),
            json!({"source": {"from": "release", "release": "none"}}),
        ),
        (
            "POST",
            format!("images/{image}/draft"),
            json!({"source": {"from": "upload"}, "size": {"vcpus": 0, "memory_mib": 64}}),
        ),
        ("POST", "drafts/..%2f..%2fx/seal".to_owned(), json!({})),
        ("POST", "drafts/none/seal".to_owned(), json!({})),
        ("POST", "releases/none/offer".to_owned(), json!({})),
    ];
    for (method, path, body) in bad {
        let (status, answer) = room
            .send(method, &path, body.clone())
            .await
            .expect_err(&path);
        assert!((400..500).contains(&status), "{path} {body}: {status}");
        assert!(
            answer["message"].is_string() && answer["code"].is_string(),
            "{answer}"
        );
    }
    let images = room.get("images").await;
    assert_eq!(images.as_array().unwrap().len(), 1, "{images}");
    assert_eq!(images[0]["draft"], Value::Null);
    let draft = room.empty_draft(&image).await;
    for (query, length) in [
        ("name=", 5),
        ("name=a%00b", 5),
        ("name=x&more=1", 5),
        ("name=x&iso_disk_gib=0", 5),
        ("name=x", 0),
    ] {
        let body = axum::body::Body::from(vec![0; length]);
        let path = format!("drafts/{draft}/upload?{query}");
        let refused = room
            .send_bytes("PUT", &path, "application/octet-stream", length, body)
            .await;
        assert!((400..500).contains(&refused.expect_err(query).0), "{query}");
    }
    room.nothing_left("after bad input").await;
}
