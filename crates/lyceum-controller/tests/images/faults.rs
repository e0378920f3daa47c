//! Work that is killed, called off, or fails, at every step.

use crate::raw_disk;
use crate::room::{Room, When};
use lyceum_controller::drafts::work::{Upload, Work};
use lyceum_controller::drafts::{engine, tidy};
use lyceum_hypervisor::sim::{Fault, SimConfig};
use lyceum_model::{DraftId, ImageId, JobId};
use lyceum_store::drafts;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What happens while a request is held.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blow {
    /// The reconcilers are killed and started again.
    Kill,
    /// A person calls the operation off.
    Cancel,
    /// A person deletes the draft.
    Delete,
}

/// Holds every request of the work, one after another, before and after it is carried out, strikes
/// while it is held, and has `check` look at what becomes of it.
async fn at_every_step(
    blow: Blow,
    prepare: impl AsyncFn(&Room, &ImageId) -> DraftId,
    begin: impl AsyncFn(&Room, &ImageId, &DraftId) -> String,
    check: impl AsyncFn(&Room, &ImageId, &str, Value),
) -> BTreeSet<String> {
    let mut room = Room::new().await;
    let image = room.image("struck").await;
    let mut held_at = BTreeSet::new();
    for when in [When::Before, When::After] {
        for skip in 0.. {
            let draft = prepare(&room, &image).await;
            room.gate.arm(skip, when);
            let operation = begin(&room, &image, &draft).await;
            let path = format!("operations/{operation}");
            room.until("held or over", async |room| {
                room.gate.held().is_some() || room.get(&path).await["state"] != "running"
            })
            .await;
            let Some(held) = room.gate.held() else {
                room.gate.open();
                check(&room, &image, "nothing held", room.get(&path).await).await;
                assert!(skip > 0, "nothing was ever held");
                break;
            };
            let context = format!("{blow:?} {when:?} {held}");
            match blow {
                Blow::Kill => {
                    room.kill_controller().await;
                    room.gate.open();
                    room.start_controller();
                }
                Blow::Cancel => {
                    room.send("POST", &format!("{path}/cancel"), json!({}))
                        .await
                        .unwrap();
                }
                Blow::Delete => {
                    let id = room.get(&format!("images/{image}")).await["draft"]["id"].clone();
                    let path = format!("drafts/{}", id.as_str().unwrap());
                    room.order("DELETE", &path, Value::Null).await;
                }
            }
            // What can't be called off any more goes on to its end; it is what is held.
            room.until("called off, or past that", async |room| {
                works(room)
                    .await
                    .iter()
                    .all(|work| work.called_off().is_none())
            })
            .await;
            if blow != Blow::Kill && !works(&room).await.is_empty() {
                room.kill_controller().await;
                room.start_controller();
            }
            let ended = room.ended(&operation).await;
            room.until("the work is over", async |room| {
                works(room).await.is_empty()
            })
            .await;
            room.gate.open();
            check(&room, &image, &context, ended).await;
            let path = held.split('/').take(3).collect::<Vec<_>>().join("/");
            held_at.insert(format!(
                "{when:?} {path}{}",
                if held.ends_with("/publish") {
                    "/publish"
                } else {
                    ""
                }
            ));
        }
    }
    held_at
}

async fn works(room: &Room) -> Vec<Work> {
    let all = drafts::all(&room.app.store).await.unwrap();
    all.iter()
        .filter_map(|d| d.work.as_deref())
        .map(|w| Work::parse(w).unwrap())
        .collect()
}

async fn releases(room: &Room, image: &ImageId) -> usize {
    room.get(&format!("images/{image}")).await["releases"]
        .as_array()
        .unwrap()
        .len()
}

async fn remove_draft(room: &Room, image: &ImageId) {
    let draft = room.get(&format!("images/{image}")).await["draft"]["id"].clone();
    if let Some(draft) = draft.as_str() {
        let (_, operation) = room
            .order("DELETE", &format!("drafts/{draft}"), Value::Null)
            .await;
        assert_eq!(room.ended(&operation).await["state"], "done");
    }
}

async fn ready(room: &Room, image: &ImageId) -> DraftId {
    room.ready_draft(image).await
}

async fn seal(room: &Room, _: &ImageId, draft: &DraftId) -> String {
    room.seal(draft).await
}

fn held_everywhere(held: &BTreeSet<String>, paths: &[&str]) {
    for path in paths {
        for when in ["Before", "After"] {
            assert!(
                held.contains(&format!("{when} {path}")),
                "{when} {path} was never held: {held:?}"
            );
        }
    }
}

const SEAL_STEPS: [&str; 6] = [
    "DELETE /v1/staging",
    "PUT /v1/staging",
    "PUT /v1/seals",
    "POST /v1/staging/publish",
    "DELETE /v1/seals",
    "DELETE /v1/drafts",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_that_is_killed_anywhere_comes_to_the_same_end() {
    let count = std::cell::Cell::new(0);
    let held = at_every_step(
        Blow::Kill,
        ready,
        seal,
        async |room, image, context, ended| {
            assert_eq!(ended["state"], "done", "{context}: {ended}");
            count.set(count.get() + 1);
            assert_eq!(releases(room, image).await, count.get(), "{context}");
            room.nothing_left(context).await;
        },
    )
    .await;
    held_everywhere(&held, &SEAL_STEPS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_that_is_called_off_leaves_the_draft_or_the_release_and_nothing_else() {
    let count = std::cell::Cell::new(0);
    let held = at_every_step(
        Blow::Cancel,
        ready,
        seal,
        async |room, image, context, ended| {
            let closing = ["nothing held", "seals", "drafts"]
                .iter()
                .any(|w| context.contains(w))
                && !context.contains("PUT");
            let shown = room.get(&format!("images/{image}")).await;
            if releases(room, image).await > count.get() {
                count.set(count.get() + 1);
                assert_eq!(shown["draft"], Value::Null, "{context}");
            } else {
                assert!(!closing, "{context}: the release is gone");
                assert_eq!(ended["state"], "cancelled", "{context}: {ended}");
                assert_eq!(shown["draft"]["state"], "ready", "{context}: {shown}");
            }
            assert_eq!(releases(room, image).await, count.get(), "{context}");
            room.nothing_left(context).await;
            remove_draft(room, image).await;
        },
    )
    .await;
    held_everywhere(&held, &SEAL_STEPS[..4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_that_is_deleted_in_the_middle_of_its_seal_is_gone() {
    let count = std::cell::Cell::new(0);
    let held = at_every_step(
        Blow::Delete,
        ready,
        seal,
        async |room, image, context, ended| {
            let shown = room.get(&format!("images/{image}")).await;
            assert_eq!(shown["draft"], Value::Null, "{context}: {shown}");
            let offered = ended["state"] == "done";
            count.set(count.get() + usize::from(offered));
            assert_eq!(
                releases(room, image).await,
                count.get(),
                "{context}: {ended}"
            );
            room.nothing_left(context).await;
        },
    )
    .await;
    held_everywhere(&held, &SEAL_STEPS[..4]);
}

async fn none(_: &Room, _: &ImageId) -> DraftId {
    DraftId::new()
}

async fn make(room: &Room, image: &ImageId, _: &DraftId) -> String {
    room.begin_draft(image, json!({"from": "empty", "disk_gib": 1}))
        .await
        .1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn making_a_disk_survives_a_kill_and_is_called_off_cleanly() {
    let held = at_every_step(
        Blow::Kill,
        none,
        make,
        async |room, image, context, ended| {
            assert_eq!(ended["state"], "done", "{context}: {ended}");
            assert_eq!(
                room.get(&format!("images/{image}")).await["draft"]["state"],
                "ready",
                "{context}"
            );
            room.nothing_left(context).await;
            remove_draft(room, image).await;
            room.nothing_left(context).await;
        },
    )
    .await;
    held_everywhere(&held, &["PUT /v1/drafts"]);
    at_every_step(
        Blow::Cancel,
        none,
        make,
        async |room, image, context, ended| {
            let draft = room.get(&format!("images/{image}")).await["draft"].clone();
            if ended["state"] == "cancelled" {
                assert_eq!(
                    (&draft["state"], &draft["detail"]),
                    (&json!("empty"), &json!("called off")),
                    "{context}"
                );
            } else {
                assert_eq!(draft["state"], "ready", "{context}");
            }
            room.nothing_left(context).await;
            remove_draft(room, image).await;
        },
    )
    .await;
}

async fn waiting(room: &Room, image: &ImageId) -> DraftId {
    room.empty_draft(image).await
}

async fn import(room: &Room, _: &ImageId, draft: &DraftId) -> String {
    let accepted = room.upload(draft, "disk.raw", raw_disk()).await.unwrap();
    accepted["operation"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_survives_a_kill_and_is_called_off_cleanly() {
    let held = at_every_step(
        Blow::Kill,
        waiting,
        import,
        async |room, image, context, ended| {
            assert_eq!(ended["state"], "done", "{context}: {ended}");
            assert_eq!(
                room.get(&format!("images/{image}")).await["draft"]["state"],
                "ready",
                "{context}"
            );
            room.nothing_left(context).await;
            remove_draft(room, image).await;
        },
    )
    .await;
    held_everywhere(
        &held,
        &[
            "PUT /v1/imports",
            "DELETE /v1/imports",
            "DELETE /v1/uploads",
        ],
    );
    at_every_step(
        Blow::Cancel,
        waiting,
        import,
        async |room, image, context, ended| {
            let state = room.get(&format!("images/{image}")).await["draft"]["state"].clone();
            if state == "ready" {
                // It was all done but for forgetting the job.
                assert!(
                    context.contains("DELETE") || context == "nothing held",
                    "{context}: {ended}"
                );
            } else {
                assert_eq!(
                    (&state, &ended["state"]),
                    (&json!("empty"), &json!("cancelled")),
                    "{context}"
                );
            }
            room.nothing_left(context).await;
            remove_draft(room, image).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_nobody_streams_any_more_is_given_up() {
    let room = Room::new().await;
    let image = room.image("broken").await;
    let draft = room.empty_draft(&image).await;
    // As a controller leaves it that was killed long ago in the middle of an upload.
    let row = drafts::get(&room.app.store, &draft).await.unwrap().unwrap();
    let upload = Upload {
        job: JobId::new(),
        name: "disk.raw".into(),
        bytes: 10,
        iso_disk_bytes: None,
        alive: room.app.now() - 3_600_000,
    };
    let new = drafts::Draft {
        state: drafts::State::Importing,
        work: Some(engine::text_of(&Work::Upload(upload)).unwrap()),
        ..row.clone()
    };
    let mut tx = room.app.store.begin_write().await.unwrap();
    assert!(drafts::advance(&mut tx, &row, &new).await.unwrap());
    tx.commit().await.unwrap();
    room.idle(&draft).await;
    let shown = room.get(&format!("drafts/{draft}")).await;
    assert_eq!(shown["state"], "empty");
    assert!(
        shown["detail"]
            .as_str()
            .unwrap()
            .contains("disk.raw broke off"),
        "{shown}"
    );
    room.upload(&draft, "disk.raw", raw_disk()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_goes_away_or_calls_it_off_leaves_nothing() {
    let room = Room::new().await;
    let image = room.image("sender").await;
    let draft = room.empty_draft(&image).await;
    let path = format!("drafts/{draft}/upload?name=disk.raw");
    let kind = "application/octet-stream";
    let first = bytes::Bytes::from(vec![1u8; 4096]);

    let pieces = vec![
        Ok(first.clone()),
        Err(std::io::Error::other("the cable was pulled")),
    ];
    let body = axum::body::Body::from_stream(futures::stream::iter(pieces));
    let (status, answer) = room
        .send_bytes("PUT", &path, kind, 8192, body)
        .await
        .unwrap_err();
    assert_eq!(
        (status, &answer["code"]),
        (400, &json!("broken_off")),
        "{answer}"
    );
    room.idle(&draft).await;
    assert_eq!(
        room.get(&format!("drafts/{draft}")).await["detail"],
        answer["message"]
    );
    room.nothing_left("the sender went away").await;

    // One that never ends.
    let pieces = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[1; 16])),
            (),
        ))
    });
    let body = axum::body::Body::from_stream(pieces);
    let sending = room.send_bytes("PUT", &path, kind, 1 << 30, body);
    let calling_off = async {
        room.until("it comes in", async |room| {
            room.get(&format!("drafts/{draft}")).await["state"] == "importing"
        })
        .await;
        let operations = room.get("operations").await;
        let id = operations["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|o| o["state"] == "running")
            .map(|o| o["id"].as_str().unwrap().to_owned())
            .unwrap();
        room.send("POST", &format!("operations/{id}/cancel"), json!({}))
            .await
            .unwrap();
    };
    let (sent, ()) = tokio::join!(sending, calling_off);
    assert_eq!(sent.unwrap_err().1["code"], "cancelled");
    room.idle(&draft).await;
    assert_eq!(room.get(&format!("drafts/{draft}")).await["state"], "empty");
    room.nothing_left("called off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_that_fails_says_why_and_leaves_the_draft_as_it_was() {
    let room = Room::new().await;
    room.setting("cold_timeout_s", json!(1)).await;
    let image = room.image("fails").await;
    let draft = room.ready_draft(&image).await;
    let before = std::fs::read(room.path("fast/drafts").join(format!("{draft}.qcow2"))).unwrap();
    for (fault, word) in [
        (Fault::Start("no machine today".into()), "no machine today"),
        (Fault::NeverReady, "ready"),
        (Fault::Save("the disk is full".into()), "the disk is full"),
    ] {
        room.seal_fault(&draft, Some(fault.clone()));
        let ended = room.ended(&room.seal(&draft).await).await;
        assert_eq!(ended["state"], "failed", "{fault:?}");
        let message = ended["failures"][0]["message"].as_str().unwrap();
        assert!(message.contains(word), "{fault:?}: {message}");
        let shown = room.get(&format!("drafts/{draft}")).await;
        assert_eq!(shown["state"], "ready");
        assert!(
            shown["detail"].as_str().unwrap().contains(message),
            "{shown}"
        );
        room.nothing_left(&format!("{fault:?}")).await;
    }
    let after = std::fs::read(room.path("fast/drafts").join(format!("{draft}.qcow2"))).unwrap();
    assert!(before == after, "the draft's disk was changed");
    // Without the helper it is a release for cold boots, which says why.
    room.seal_fault(&draft, Some(Fault::NoHelper));
    assert_eq!(room.ended(&room.seal(&draft).await).await["state"], "done");
    let release = room.get(&format!("images/{image}")).await["releases"][0].clone();
    assert_eq!(release["size"], Value::Null);
    assert!(
        release["cold_reason"].as_str().unwrap().contains("helper"),
        "{release}"
    );
    room.nothing_left("cold only").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_agent_killed_in_the_middle_of_a_seal_leaves_nothing() {
    let mut room = Room::with(SimConfig {
        cold_ms: 30_000,
        ..SimConfig::default()
    })
    .await;
    let image = room.image("host").await;
    let draft = room.ready_draft(&image).await;
    let operation = room.seal(&draft).await;
    room.until("the machine is being booted", async |room| {
        !room.world.alive().is_empty()
    })
    .await;
    room.kill_host();
    room.until("the page says that it waits", async |room| {
        room.get(&format!("drafts/{draft}")).await["detail"]
            .as_str()
            .unwrap()
            .starts_with("waiting")
    })
    .await;
    room.start_host().await;
    let ended = room.ended(&operation).await;
    assert_eq!(ended["state"], "failed");
    let message = ended["failures"][0]["message"].as_str().unwrap();
    assert!(message.contains("restarted"), "{message}");
    room.nothing_left("the host agent was killed").await;
    assert_eq!(room.get(&format!("drafts/{draft}")).await["state"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_tiers_refuse_and_leave_nothing() {
    let mut room = Room::new().await;
    let image = room.image("full").await;
    let draft = room.ready_draft(&image).await;
    let other = room.image("other").await;
    let waits = room.empty_draft(&other).await;
    room.stop_storage().await;
    room.start_storage(1 << 60).await;
    let ended = room.ended(&room.seal(&draft).await).await;
    assert_eq!(ended["state"], "failed");
    let message = ended["failures"][0]["message"].as_str().unwrap();
    assert!(message.contains("tier"), "{message}");
    let body = axum::body::Body::from_stream(futures::stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<bytes::Bytes, std::io::Error>>> {
            panic!("it was read although it can't fit")
        },
    ));
    let path = format!("drafts/{waits}/upload?name=disk.raw");
    let (status, answer) = room
        .send_bytes("PUT", &path, "application/octet-stream", 4096, body)
        .await
        .unwrap_err();
    assert_eq!(
        (status, &answer["code"]),
        (507, &json!("tier_full")),
        "{answer}"
    );
    room.nothing_left("full tiers").await;
    // Storage that is away is waited for.
    room.stop_storage().await;
    let operation = room.seal(&draft).await;
    room.until("it waits", async |room| {
        room.get(&format!("drafts/{draft}")).await["detail"]
            .as_str()
            .unwrap()
            .starts_with("waiting")
    })
    .await;
    room.start_storage(0).await;
    assert_eq!(room.ended(&operation).await["state"], "done");
    room.nothing_left("storage came back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_release_is_not_offered_until_its_bytes_are_right_again() {
    let room = Room::new().await;
    let image = room.image("damaged").await;
    let release = room.release(&image).await;
    let ram = room
        .path("fast/releases")
        .join(release.as_str())
        .join("ram");
    let good = std::fs::read(&ram).unwrap();
    let mut bad = good.clone();
    bad[0] ^= 1;
    let write = |bytes: &[u8]| {
        std::fs::remove_file(&ram).unwrap();
        std::fs::write(&ram, bytes).unwrap();
    };
    write(&bad);
    for _ in 0..2 {
        lyceum_controller::drafts::mark_damaged(&room.app, &release, "ram was changed")
            .await
            .unwrap();
    }
    let shown = room.get(&format!("releases/{release}")).await;
    assert_eq!(
        (&shown["state"], &shown["damage"]),
        (&json!("damaged"), &json!("ram was changed"))
    );
    let lines = room.get("audit").await["items"].as_array().unwrap().clone();
    assert_eq!(
        lines
            .iter()
            .filter(|l| l["action"] == "release.damaged")
            .count(),
        1
    );
    let course = room.course("c", &image, None).await;
    let facts = lyceum_controller::orders::course_facts(&room.app.store, &course.id)
        .await
        .unwrap();
    assert!(facts.unwrap().release.is_none(), "something starts from it");
    let copy = json!({"source": {"from": "release", "release": release}});
    assert_eq!(
        room.send("POST", &format!("images/{image}/draft"), copy)
            .await
            .unwrap_err()
            .0,
        409
    );
    let offer = format!("releases/{release}/offer");
    let (status, answer) = room.send("POST", &offer, json!({})).await.unwrap_err();
    assert_eq!((status, &answer["code"]), (422, &json!("damaged")));
    assert!(
        answer["message"].as_str().unwrap().contains("ram"),
        "{answer}"
    );
    write(&good);
    let shown = room.send("POST", &offer, json!({})).await.unwrap();
    assert_eq!(
        (&shown["state"], &shown["damage"]),
        (&json!("offered"), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_nobody_is_cleared_up_after_a_while() {
    let room = Room::new().await;
    let image = room.image("tidy").await;
    let release = room.release(&image).await;
    let draft = room.ready_draft(&image).await;
    // A disk that a late request made, and a release that nobody recorded.
    let storage = room.app.agents.storage().await.unwrap();
    let stray = DraftId::new();
    let _: Value = storage
        .put(
            &format!("/v1/drafts/{stray}"),
            &json!({"from": "empty", "virtual_bytes": 1 << 20}),
        )
        .await
        .unwrap();
    let _: Value = storage
        .put(&format!("/v1/staging/{stray}"), &json!({}))
        .await
        .unwrap();
    let request = json!({"sealed_at": 5, "memory": null, "cold_reason": "none"});
    let _: Value = storage
        .post(&format!("/v1/staging/{stray}/publish"), &request)
        .await
        .unwrap();
    let _: Value = storage
        .put(&format!("/v1/staging/{stray}"), &json!({}))
        .await
        .unwrap();

    let (mut seen, now) = (HashMap::new(), Instant::now());
    let look = async |seen: &mut HashMap<_, _>, at| tidy::look(&room.app, seen, at).await.unwrap();
    look(&mut seen, now).await;
    assert_eq!(seen.len(), 3, "{seen:?}");
    look(&mut seen, now + tidy::GRACE / 2).await;
    assert_eq!(room.inventory().await.drafts.len(), 2, "too early");
    look(&mut seen, now + tidy::GRACE).await;
    let inventory = room.inventory().await;
    assert_eq!(
        (inventory.drafts, inventory.staging.len()),
        (vec![draft], 0)
    );
    assert_eq!(inventory.releases.len(), 2, "too early");
    look(&mut seen, now + tidy::RELEASE_GRACE).await;
    assert_eq!(room.inventory().await.releases, [release]);
    room.nothing_left("tidied").await;
}
