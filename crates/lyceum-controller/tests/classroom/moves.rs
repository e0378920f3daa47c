//! Running desktops move between hosts, whatever is killed in the middle.

use crate::world::Classroom;
use lyceum_hypervisor::sim::{Fault, SimConfig};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Watches that no desktop's guest ever runs twice.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn over(room: &Classroom) -> Watch {
        let (world, stop) = (room.sim_world(), Arc::new(AtomicBool::new(false)));
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let mut seen = HashMap::new();
                for (desktop, generation) in world.going() {
                    if let Some(other) = seen.insert(desktop.clone(), generation) {
                        panic!("{desktop} runs as {other} and as {generation}");
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Watch {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("two of one desktop");
        }
    }
}

fn room(save_ms: u64, students: usize) -> Classroom {
    let mut room = Classroom::simulated(
        students,
        SimConfig {
            fork_ms: 20,
            save_ms,
            ..SimConfig::default()
        },
    );
    room.order("start", json!({}));
    room
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// A host that it is not on.
fn other(d: &Value) -> &'static str {
    if d["host"] == "kvm1" { "kvm2" } else { "kvm1" }
}

fn order(room: &Classroom, d: &Value, to: &str) -> Value {
    let path = format!("desktops/{}/move", text(d, "id"));
    room.send("POST", &path, json!({ "to": to }))
        .expect("accepted")
}

fn newest_move(room: &Classroom) -> Value {
    room.get("moves")["items"][0].clone()
}

/// It runs on this host, as one machine and as nothing else.
fn assert_runs_on(room: &Classroom, id: &str, host: &str) {
    room.until("it runs where it should, once", |room| {
        let d = room.get(&format!("desktops/{id}"));
        let machines: Vec<_> = room
            .sim_world()
            .alive()
            .into_iter()
            .filter(|(desktop, _)| desktop.as_str() == id)
            .collect();
        d["phase"] == "running" && d["host"] == host && machines.len() == 1
    });
}

#[test]
fn a_desktop_moves_with_its_numbers_and_can_move_on() {
    let room = room(20, 3);
    let _watch = Watch::over(&room);
    let d = room.desktops()[0].clone();
    let (id, from, to) = (text(&d, "id"), text(&d, "host"), other(&d));
    let ended = room.wait(&order(&room, &d, to));
    assert_eq!(ended["state"], "done", "{ended}");
    assert_runs_on(&room, &id, to);
    let seen = newest_move(&room);
    assert_eq!(
        (text(&seen, "from"), text(&seen, "to"), text(&seen, "state")),
        (from.clone(), to.to_owned(), "done".into()),
        "{seen}"
    );
    assert_eq!(seen["way"], "delta");
    assert!(
        seen["why"].as_str().unwrap().contains("are its own"),
        "{seen}"
    );
    assert!(seen["bytes"].as_u64().unwrap() > 0, "{seen}");
    assert!(seen["total_ms"].as_u64().unwrap() >= seen["stand_still_ms"].as_u64().unwrap());
    // How it was started is not forgotten, and it can be suspended and come back.
    let now = room.get(&format!("desktops/{id}"));
    assert_eq!(now["started_by"], "fork");
    let ended = room.wait(&order(&room, &now, &from));
    assert_eq!(ended["state"], "done", "{ended}");
    assert_runs_on(&room, &id, &from);

    // Where it is it need not be moved, and what does not run can't be.
    let path = format!("desktops/{id}/move");
    let (status, body) = room
        .send("POST", &path, json!({ "to": from }))
        .expect_err("it is there");
    assert_eq!(status, 507, "{body}");
    assert!(text(&body, "message").contains("it is there now"), "{body}");
    room.send("POST", &path, json!({ "to": "nowhere" }))
        .expect_err("no such host");
}

#[test]
fn a_move_that_fails_leaves_the_desktop_where_it_was() {
    let mut room = room(20, 1);
    let _watch = Watch::over(&room);
    let d = room.desktops()[0].clone();
    let (id, from, to) = (text(&d, "id"), text(&d, "host"), other(&d));
    let desktop = id.parse().unwrap();
    let why = "its memory could not be taken in".to_owned();
    room.sim_world()
        .set_fault(&desktop, Some(Fault::Receive(why.clone())));
    for _ in 0..2 {
        let ended = room.wait(&order(&room, &d, to));
        assert_eq!(ended["state"], "failed", "{ended}");
        assert!(
            ended["failures"][0]["message"]
                .as_str()
                .is_some_and(|m| m.contains(&why) && m.contains("goes on")),
            "{ended}"
        );
        assert_runs_on(&room, &id, &from);
    }
    room.sim_world().set_fault(&desktop, None);
    let ended = room.wait(&order(&room, &d, to));
    assert_eq!(ended["state"], "done", "{ended}");
    assert_runs_on(&room, &id, to);
    // Generations that were handed out for nothing are not used again.
    room.order_one(&id, "reset");
    assert_eq!(room.get(&format!("desktops/{id}"))["phase"], "running");
}

#[test]
fn a_move_is_called_off_and_another_order_takes_its_place() {
    let mut room = room(20, 1);
    let _watch = Watch::over(&room);
    let d = room.desktops()[0].clone();
    let (id, from, to) = (text(&d, "id"), text(&d, "host"), other(&d));
    let desktop = id.parse().unwrap();
    room.sim_world().set_fault(&desktop, Some(Fault::NeverSent));
    let moving = |room: &Classroom| {
        room.until("it is under way", |room| {
            newest_move(room)["state"] == "moving"
        });
    };
    let accepted = order(&room, &d, to);
    moving(&room);
    let path = format!("operations/{}/cancel", text(&accepted, "operation"));
    room.send("POST", &path, json!({})).expect("cancelled");
    room.until("the move is over", |room| {
        newest_move(room)["state"] == "cancelled"
    });
    assert_runs_on(&room, &id, &from);

    order(&room, &d, to);
    moving(&room);
    room.order_one(&id, "stop");
    room.until("nothing is left of it", |room| {
        room.sim_world().alive().is_empty() && newest_move(room)["state"] != "moving"
    });
    room.sim_world().set_fault(&desktop, None);
    room.order_one(&id, "start");
}

#[test]
fn a_move_that_never_ends_is_over_when_its_time_is_and_the_desktop_goes_on() {
    let room = room(20, 1);
    let _watch = Watch::over(&room);
    room.send("PATCH", "settings", json!({"move_timeout_s": 5}))
        .expect("settings");
    let d = room.desktops()[0].clone();
    let (id, from, to) = (text(&d, "id"), text(&d, "host"), other(&d));
    let desktop = id.parse().unwrap();
    room.sim_world().set_fault(&desktop, Some(Fault::NeverSent));
    let ended = room.wait(&order(&room, &d, to));
    assert_eq!(ended["state"], "failed", "{ended}");
    let why = ended["failures"][0]["message"].as_str().unwrap_or_default();
    assert!(
        why.contains("it was not over within 5 s") && why.contains("goes on where it was"),
        "{ended}"
    );
    assert_runs_on(&room, &id, &from);
    // Nothing is kept of it: it can be moved.
    room.sim_world().set_fault(&desktop, None);
    let ended = room.wait(&order(&room, &d, to));
    assert_eq!(ended["state"], "done", "{ended}");
    assert_runs_on(&room, &id, to);
}

#[test]
fn no_more_desktops_move_at_once_than_may() {
    let room = room(20, 9);
    let _watch = Watch::over(&room);
    room.send("PATCH", "settings", json!({"moves_per_host": 1}))
        .expect("settings");
    let there: Vec<Value> = (room.desktops().into_iter())
        .filter(|d| d["host"] == "kvm2")
        .collect();
    assert_eq!(there.len(), 3);
    for d in &there {
        let desktop = text(d, "id").parse().unwrap();
        room.sim_world().set_fault(&desktop, Some(Fault::NeverSent));
    }
    room.send("POST", "hosts/kvm2/drain", json!({}))
        .expect("accepted");
    let of = |room: &Classroom, state: &[&str]| {
        let moves = room.get("moves");
        let all = moves["items"].as_array().unwrap();
        all.iter()
            .filter(|m| state.contains(&m["state"].as_str().unwrap()))
            .map(|m| text(m, "desktop"))
            .collect::<Vec<String>>()
    };
    let under_way = ["preparing", "moving"];
    for _ in 0..3 {
        room.until("one is under way", |room| {
            assert!(of(room, &under_way).len() <= 1);
            of(room, &["moving"]).len() == 1
        });
        let waiting = of(&room, &["waiting"]).len();
        let first = of(&room, &["moving"]).remove(0);
        // It goes on as soon as it may; then it is the next one's turn.
        let desktop = first.parse().unwrap();
        room.sim_world().set_fault(&desktop, None);
        let path = format!("desktops/{first}/stop");
        room.send("POST", &path, json!({})).expect("stopped");
        room.until("the next has its turn", |room| {
            assert!(of(room, &under_way).len() <= 1);
            of(room, &under_way).first() != Some(&first)
                && (waiting == 0 || of(room, &["waiting"]).len() < waiting)
        });
    }
}

#[test]
fn a_host_is_emptied_and_takes_desktops_again() {
    let room = room(10, 9);
    let _watch = Watch::over(&room);
    let accepted = room
        .send("POST", "hosts/kvm2/drain", json!({}))
        .expect("accepted");
    let ended = room.wait(&accepted);
    assert_eq!(ended["state"], "done", "{ended}");
    assert_eq!(ended["total"], 3, "{ended}");
    let on = |room: &Classroom, host: &str| {
        let desktops = room.desktops();
        desktops.iter().filter(|d| d["host"] == host).count()
    };
    assert_eq!(on(&room, "kvm2"), 0);
    assert_eq!(on(&room, "kvm1") + on(&room, "kvm3"), 9);
    let d = room.desktops()[0].clone();
    let path = format!("desktops/{}/move", text(&d, "id"));
    let (_, body) = room
        .send("POST", &path, json!({ "to": "kvm2" }))
        .expect_err("it is being emptied");
    assert!(text(&body, "message").contains("drained"), "{body}");
    room.send("POST", "hosts/kvm2/resume", json!({}))
        .expect("resumed");
    let ended = room.wait(&order(&room, &d, "kvm2"));
    assert_eq!(ended["state"], "done", "{ended}");
}

#[test]
fn whatever_is_killed_in_the_middle_there_is_one_desktop() {
    let mut room = room(400, 1);
    let _watch = Watch::over(&room);
    for (round, kill) in ["controller", "source", "destination", "both"]
        .into_iter()
        .cycle()
        .take(8)
        .enumerate()
    {
        let d = room.desktops()[0].clone();
        let (id, from, to) = (text(&d, "id"), text(&d, "host"), other(&d));
        let accepted = order(&room, &d, to);
        room.until("it is under way", |room| {
            newest_move(room)["state"] != "waiting"
        });
        // Somewhere in the four tenths of a second that it takes.
        std::thread::sleep(Duration::from_millis(90 * (round as u64 / 2)));
        match kill {
            "controller" => {
                room.kill_controller();
                room.start_controller();
            }
            "source" => {
                room.kill_host(&from);
                room.start_host(&from);
            }
            "destination" => {
                room.kill_host(to);
                room.start_host(to);
            }
            _ => {
                room.kill_host(&from);
                room.kill_controller();
                room.start_controller();
                room.start_host(&from);
            }
        }
        let ended = room.wait(&accepted);
        assert_ne!(ended["state"], "running", "{kill}: {ended}");
        room.until("it runs, once", |room| {
            let now = room.get(&format!("desktops/{id}"));
            let machines = room.sim_world().alive();
            now["phase"] == "running" && machines.len() == 1
        });
        assert_ne!(newest_move(&room)["state"], "moving");
    }
}
