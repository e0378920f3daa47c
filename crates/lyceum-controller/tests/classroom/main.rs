//! A classroom of simulated hosts: the real controller, the real storage agent and three
//! real host agents over mutual TLS; only the machines are simulated.

// A test may end in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod allocation;
mod console;
mod console_faults;
mod moves;
mod person;
mod restore_points;
mod spice;
mod timetable;
mod tls;
mod viewer;
mod world;

use serde_json::{Value, json};
use std::time::Duration;
use world::Classroom;

#[test]
fn a_class_starts_level_over_the_hosts_and_every_choice_is_explained() {
    let mut room = Classroom::new(20);
    room.order("start", json!({}));
    let desktops = room.desktops();
    assert_eq!(desktops.len(), 20);
    let mut per_host = std::collections::BTreeMap::<String, usize>::new();
    for d in &desktops {
        assert_eq!(
            (d["phase"].as_str(), d["started_by"].as_str()),
            (Some("running"), Some("fork")),
            "{d}"
        );
        *per_host
            .entry(d["host"].as_str().unwrap().to_owned())
            .or_default() += 1;
        let history = room.get(&format!("desktops/{}/history", d["id"].as_str().unwrap()));
        let first = &history["placements"][0];
        assert!(
            first["reason"].as_str().unwrap().contains("fewest"),
            "{history}"
        );
        assert_eq!(first["snapshot"]["hosts"].as_array().unwrap().len(), 3);
        assert_eq!(first["snapshot"]["others"].as_array().unwrap().len(), 2);
    }
    assert_eq!(per_host.into_values().collect::<Vec<_>>(), [7, 7, 6]);
    room.check_one_machine_each(20);
    // Saying it again changes nothing.
    let events = room.machine_starts();
    room.order("start", json!({}));
    assert_eq!(room.machine_starts(), events);
}

#[test]
fn a_class_that_does_not_fit_is_refused_whole() {
    let room = Classroom::new(6);
    room.send("PATCH", "settings", json!({"seats_per_host": 1}))
        .expect("settings");
    let course = room.course();
    let (status, body) = room
        .send("POST", &format!("courses/{course}/start"), json!({}))
        .expect_err("no room");
    assert_eq!(
        (status, body["code"].as_str()),
        (507, Some("no_room")),
        "{body}"
    );
    assert!(
        body["message"].as_str().unwrap().contains("room for 3"),
        "{body}"
    );
    assert!(room.desktops().is_empty(), "a half-made class");
    assert_eq!(room.machine_starts(), 0);
}

#[test]
fn reset_is_as_new_and_nothing_is_left_over() {
    let mut room = Classroom::new(2);
    room.order("start", json!({}));
    let before = room.overlays();
    let id = room.desktops()[0]["id"].as_str().unwrap().to_owned();
    room.order_one(&id, "reset");
    room.until("the old overlay is swept away", |room| {
        let now = room.overlays();
        now.len() == 2 && now != before
    });
    room.order("stop", json!({}));
    room.check_one_machine_each(0);
    room.until("throw-away desktops keep nothing", |room| {
        room.overlays().is_empty()
    });
}

#[test]
fn suspend_keeps_the_memory_and_resume_may_be_on_another_host() {
    let mut room = Classroom::new(3);
    room.order("start", json!({}));
    room.order("suspend", json!({}));
    room.check_one_machine_each(0);
    for d in room.desktops() {
        assert_eq!(
            (d["phase"].as_str(), d["host"].is_null()),
            (Some("suspended"), true),
            "{d}"
        );
        assert!(d["delta_bytes"].is_u64(), "{d}");
    }
    let drained = "kvm1";
    room.send(
        "PATCH",
        &format!("hosts/{drained}"),
        json!({"state": "draining"}),
    )
    .expect("drain");
    room.order("start", json!({}));
    for d in room.desktops() {
        assert_eq!(d["started_by"], "resume", "{d}");
        assert_ne!(d["host"], drained);
    }
    room.check_one_machine_each(3);
    room.until("deltas that were resumed are swept away", |room| {
        room.deltas().is_empty()
    });
}

#[test]
fn a_teachers_desktop_is_handed_out() {
    let mut room = Classroom::new(5);
    let teacher = room.teacher();
    let desktop = room
        .send(
            "POST",
            "desktops",
            json!({"course": room.course(), "user": teacher}),
        )
        .expect("desktop");
    let id = desktop["id"].as_str().unwrap().to_owned();
    room.order_one(&id, "start");
    let course = room.course();
    let accepted = room
        .send(
            "POST",
            &format!("courses/{course}/hand-out"),
            json!({"desktop": id}),
        )
        .expect("hand-out");
    let ended = room.wait(&accepted);
    assert_eq!(
        (ended["state"].as_str(), ended["done"].as_u64()),
        (Some("done"), Some(5)),
        "{ended}"
    );
    let students: Vec<Value> = room
        .desktops()
        .into_iter()
        .filter(|d| d["id"] != json!(id))
        .collect();
    assert_eq!(students.len(), 5);
    for d in &students {
        assert_eq!(
            (d["phase"].as_str(), d["started_by"].as_str()),
            (Some("running"), Some("hand_out")),
            "{d}"
        );
    }
    room.check_one_machine_each(6);
    room.until("the delta is swept away", |room| room.deltas().is_empty());
}

#[test]
fn a_machine_that_ends_by_itself_comes_back_and_its_person_is_told() {
    let mut room = Classroom::new(2);
    room.order("start", json!({}));
    let id = room.desktops()[0]["id"].as_str().unwrap().to_owned();
    room.crash(&id);
    room.until("it is back", |room| {
        let d = room.get(&format!("desktops/{id}"));
        d["phase"] == "running" && d["notice"].is_string()
    });
    room.check_one_machine_each(2);
}

#[test]
fn the_controller_killed_in_the_middle_of_a_class_goes_on_where_it_was() {
    for pause_ms in [0, 5, 20, 60, 150] {
        let mut room = Classroom::new(20);
        let course = room.course();
        let accepted = room
            .send("POST", &format!("courses/{course}/start"), json!({}))
            .expect("start");
        std::thread::sleep(Duration::from_millis(pause_ms));
        room.kill_controller();
        room.start_controller();
        let ended = room.wait(&accepted);
        assert_eq!(
            (ended["state"].as_str(), ended["done"].as_u64()),
            (Some("done"), Some(20)),
            "{ended}"
        );
        room.check_one_machine_each(20);
        room.until("nothing leaked", |room| {
            room.overlays().len() == 20 && room.deltas().is_empty()
        });
    }
}

#[test]
fn an_agent_killed_with_desktops_running_finds_them_again() {
    let mut room = Classroom::new(6);
    room.order("start", json!({}));
    let starts = room.machine_starts();
    room.kill_host("kvm2");
    room.until("its desktops are unknown", |room| {
        room.desktops()
            .iter()
            .filter(|d| d["phase"] == "unknown")
            .count()
            == 2
    });
    room.start_host("kvm2");
    room.until("they are back", |room| {
        room.desktops().iter().all(|d| d["phase"] == "running")
    });
    assert_eq!(room.machine_starts(), starts, "a desktop was disturbed");
    room.check_one_machine_each(6);
}

#[test]
fn an_order_that_is_called_off_leaves_no_machine() {
    let room = Classroom::slow(8);
    let course = room.course();
    let accepted = room
        .send("POST", &format!("courses/{course}/start"), json!({}))
        .expect("start");
    let operation = accepted["operation"].as_str().unwrap().to_owned();
    let ended = room
        .send("POST", &format!("operations/{operation}/cancel"), json!({}))
        .expect("cancel");
    assert_eq!(ended["state"], "cancelled");
    // A start that was on its way to a host when it was called off is ended there.
    room.until("all are stopped", |room| {
        room.desktops()
            .iter()
            .all(|d| d["phase"] == "stopped" && d["desired"] == "stopped" && d["host"].is_null())
    });
    room.check_one_machine_each(0);
}

#[test]
fn a_full_slow_tier_fails_the_order_and_says_so() {
    let mut room = Classroom::new(1);
    room.fill_slow_tier();
    let course = room.course();
    let accepted = room
        .send("POST", &format!("courses/{course}/start"), json!({}))
        .expect("start");
    let ended = room.wait(&accepted);
    assert_eq!(ended["state"], "failed", "{ended}");
    let message = ended["failures"][0]["message"].as_str().unwrap();
    assert!(message.contains("disk"), "{message}");
    room.check_one_machine_each(0);
}

#[test]
fn a_release_whose_bytes_were_changed_starts_nothing() {
    let room = Classroom::new(1);
    room.flip_a_byte_of_the_release();
    let course = room.course();
    // Whoever looks first finds it: the host that is asked to start, or the one that verifies it ahead.
    match room.send("POST", &format!("courses/{course}/start"), json!({})) {
        Ok(accepted) => {
            let ended = room.wait(&accepted);
            assert_eq!(ended["state"], "failed", "{ended}");
        }
        Err((status, body)) => assert_eq!(
            (status, body["code"].as_str()),
            (409, Some("state")),
            "{body}"
        ),
    }
    room.check_one_machine_each(0);
    room.until("the release is marked", |room| {
        room.get("images")[0]["releases"][0]["state"] == "damaged"
    });
}
