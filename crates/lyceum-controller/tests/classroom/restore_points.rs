//! Restore points on simulated machines: taken, restored, undone, for one desktop and for a class;
//! what is killed in the middle; what is damaged, full, deleted or called off.

use crate::world::Classroom;
use lyceum_hypervisor::sim::{Fault, SimConfig, SimEventKind};
use lyceum_model::disk::layout;
use lyceum_store::restore_points;
use serde_json::{Value, json};

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn id(d: &Value) -> String {
    text(d, "id")
}

fn course(room: &Classroom, rest: &str) -> String {
    format!("courses/{}/{rest}", room.course())
}

fn points(room: &Classroom, desktop: &str) -> Vec<Value> {
    let path = format!("desktops/{desktop}/restore-points");
    room.get(&path).as_array().unwrap().clone()
}

fn batches(room: &Classroom) -> Vec<Value> {
    let all = room.get(&course(room, "restore-points"));
    all["batches"].as_array().unwrap().clone()
}

fn order(room: &Classroom, path: &str, body: Value) -> Value {
    room.send("POST", path, body).expect("accepted")
}

/// An order to one desktop, ended somehow.
fn one(room: &Classroom, desktop: &str, what: &str, body: Value) -> Value {
    room.wait(&order(room, &format!("desktops/{desktop}/{what}"), body))
}

fn done(ended: &Value) {
    assert_eq!(ended["state"], "done", "{ended}");
}

/// Takes a point of the class, and its batch.
fn take_class(room: &Classroom) -> String {
    done(&room.wait(&order(room, &course(room, "restore-points"), json!({}))));
    text(&batches(room)[0], "batch")
}

/// Flips bytes of what the desktop's points hold.
fn damage(room: &Classroom, desktop: &str) {
    let store = room.store();
    let points = room.run(restore_points::of_desktop(
        &store,
        &desktop.parse().unwrap(),
    ));
    for point in points.unwrap() {
        let delta = layout::delta(&point.delta.unwrap());
        let header = room.path("slow").join(delta).join("delta.json");
        std::fs::write(header, b"{}").unwrap();
    }
}

/// The class has been going on for ten minutes more.
fn ten_minutes_pass(room: &Classroom) {
    let store = room.store();
    let course = room.course().parse().unwrap();
    room.until("the class has begun", |room| {
        let now = room.run(restore_points::schedule(&store, &course));
        now.unwrap().last_run > 0
    });
    room.run(async {
        let mut tx = store.begin_write().await.unwrap();
        let mut s = restore_points::schedule_tx(&mut tx, &course).await.unwrap();
        s.last_run -= 10 * 60 * 1000;
        restore_points::put_schedule(&mut tx, &s).await.unwrap();
        tx.commit().await.unwrap();
    });
}

fn started(room: &Classroom, desktop: &str, how: SimEventKind) -> usize {
    let events = room.sim_world().events();
    let of = events.iter().filter(|e| e.desktop.as_str() == desktop);
    of.filter(|e| e.what == how).count()
}

fn generation(room: &Classroom, desktop: &str) -> u64 {
    let alive = room.sim_world().alive();
    alive
        .iter()
        .find(|(d, _)| d.as_str() == desktop)
        .map_or(0, |(_, g)| g.0)
}

#[test]
fn a_desktop_goes_back_and_forth_and_leaves_nothing_behind() {
    let mut room = Classroom::new(1);
    room.order("start", json!({}));
    let d = id(&room.desktops()[0]);
    done(&one(
        &room,
        &d,
        "restore-points",
        json!({"note": "before the exercise"}),
    ));
    let list = points(&room, &d);
    assert_eq!(list.len(), 1, "{list:#?}");
    let point = &list[0];
    for (field, value) in [
        ("state", "ready"),
        ("origin", "asked"),
        ("holds", "memory"),
        ("note", "before the exercise"),
    ] {
        assert_eq!(point[field], value, "{point}");
    }
    assert!(point["bytes"].as_u64() > Some(0) && point["stand_still_ms"].is_u64());
    // Its machine went on as it was.
    assert_eq!(started(&room, &d, SimEventKind::Forked), 1);
    let before = generation(&room, &d);

    let back = json!({"point": point["id"]});
    done(&one(&room, &d, "restore", back.clone()));
    room.check_one_machine_each(1);
    assert!(generation(&room, &d) > before, "no new generation");
    assert_eq!(started(&room, &d, SimEventKind::Resumed), 1);
    let list = points(&room, &d);
    assert_eq!(
        list.iter().map(|p| text(p, "origin")).collect::<Vec<_>>(),
        ["undo", "asked"]
    );

    // Undone, and undone again: what was before each is kept, and one state is kept once.
    for n in 2..=3 {
        done(&one(&room, &d, "undo-restore", json!({})));
        assert_eq!(started(&room, &d, SimEventKind::Resumed), n);
        assert_eq!(points(&room, &d).len(), 2, "{:#?}", points(&room, &d));
    }
    // The same point, again and again.
    done(&one(&room, &d, "restore", back));
    room.check_one_machine_each(1);

    for p in points(&room, &d) {
        let path = format!("restore-points/{}", id(&p));
        room.send("DELETE", &path, Value::Null).expect("deleted");
    }
    room.until("what was deleted is gone", |room| {
        points(room, &d).is_empty() && room.deltas().is_empty() && room.overlays().len() == 1
    });
    assert_eq!(
        room.get(&format!("desktops/{d}"))["phase"],
        "running",
        "deleting its points is nothing to a desktop"
    );
    let (status, body) = room
        .send("POST", &format!("desktops/{d}/undo-restore"), json!({}))
        .expect_err("there is nothing to undo");
    assert_eq!(status, 409, "{body}");
}

#[test]
fn a_class_goes_back_as_one_operation_and_the_next_class_forgets_how_to_undo_it() {
    let mut room = Classroom::new(6);
    room.order("start", json!({}));
    let batch = take_class(&room);
    let listed = batches(&room);
    assert_eq!(
        (listed.len(), &listed[0]["ready"]),
        (1, &json!(6)),
        "{listed:#?}"
    );
    // One that was stopped since is brought up too.
    let stopped = id(&room.desktops()[0]);
    room.order_one(&stopped, "stop");
    let ended = room.wait(&order(
        &room,
        &course(&room, "restore"),
        json!({"batch": batch}),
    ));
    done(&ended);
    assert_eq!(
        (&ended["total"], &ended["done"]),
        (&json!(6), &json!(6)),
        "{ended}"
    );
    room.check_one_machine_each(6);
    assert!(room.desktops().iter().all(|d| d["started_by"] == "resume"));
    assert_eq!(room.get(&course(&room, "restore-points"))["undo"], 6);

    done(&room.wait(&order(&room, &course(&room, "undo-restore"), json!({}))));
    // The one that was stopped then is stopped again.
    room.check_one_machine_each(5);
    assert_eq!(room.get(&format!("desktops/{stopped}"))["phase"], "stopped");

    // Starting those that are missing is no next class; starting one that nobody is in is.
    room.order("start", json!({}));
    assert_eq!(room.get(&course(&room, "restore-points"))["undo"], 6);
    room.order("stop", json!({}));
    room.order("start", json!({}));
    assert_eq!(room.get(&course(&room, "restore-points"))["undo"], 0);
    let path = course(&room, &format!("restore-points/{batch}"));
    room.send("DELETE", &path, Value::Null).expect("deleted");
    room.until("nothing is left", |room| {
        room.deltas().is_empty() && room.overlays().len() == 6 && batches(room).is_empty()
    });
}

/// The disk of a desktop that is shut down can be taken away as one file.
fn exported(room: &Classroom, desktop: &str) {
    let file = room.path("exported.qcow2");
    std::fs::write(&file, room.download(&format!("desktops/{desktop}/disk"))).unwrap();
    let shown = std::process::Command::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(&file)
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("a disk");
    assert_eq!(shown["format"], "qcow2", "{shown}");
    assert!(shown.get("backing-filename").is_none(), "{shown}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn suspended_and_persistent_desktops_are_kept_as_they_are() {
    let mut room = Classroom::new(1);
    let path = format!("courses/{}", room.course());
    room.send("PATCH", &path, json!({"persistence": "persistent"}))
        .expect("persistent");
    room.order("start", json!({}));
    let d = id(&room.desktops()[0]);
    done(&one(&room, &d, "restore-points", json!({})));
    let running = points(&room, &d)[0].clone();
    room.order_one(&d, "suspend");
    let (_, body) = room
        .send("POST", &format!("desktops/{d}/restore-points"), json!({}))
        .expect_err("it is suspended");
    assert!(text(&body, "message").contains("suspended"), "{body}");
    // What was suspended is set aside, and is what an undo brings up.
    done(&one(&room, &d, "restore", json!({"point": running["id"]})));
    assert_eq!(points(&room, &d)[0]["holds"], "kept");
    done(&one(&room, &d, "undo-restore", json!({})));
    assert_eq!(room.get(&format!("desktops/{d}"))["started_by"], "resume");

    let (status, body) = room
        .send("GET", &format!("desktops/{d}/disk"), Value::Null)
        .expect_err("it runs");
    assert!(
        status == 409 && text(&body, "message").contains("shut it down"),
        "{body}"
    );

    // Stopped: its disk, from which it is booted.
    room.order_one(&d, "stop");
    exported(&room, &d);
    done(&one(&room, &d, "restore-points", json!({})));
    let disk = points(&room, &d)[0].clone();
    assert_eq!(disk["holds"], "disk", "{disk}");
    done(&one(&room, &d, "restore", json!({"point": disk["id"]})));
    let now = room.get(&format!("desktops/{d}"));
    assert_eq!(
        (&now["phase"], &now["started_by"]),
        (&json!("running"), &json!("cold")),
        "{now}"
    );
    // It shares no memory now: a point is its disk, copied while it runs, and needs no disk of the driver.
    done(&one(&room, &d, "restore-points", json!({})));
    let cold = points(&room, &d)[0].clone();
    assert_eq!(
        (&cold["holds"], &cold["state"]),
        (&json!("disk"), &json!("ready")),
        "{cold}"
    );
    assert!(
        text(&cold, "message").contains("without its windows"),
        "{cold}"
    );
    assert!(
        cold["bytes"].as_u64() > Some(0) && cold["stand_still_ms"].is_u64(),
        "{cold}"
    );
    let of_class = batches(&room);
    let batch = of_class.iter().find(|b| b["batch"] == cold["batch"]);
    assert_eq!(
        batch.map(|b| (&b["ready"], &b["disk_only"])),
        Some((&json!(1), &json!(1)))
    );
    assert_eq!(room.get(&format!("desktops/{d}"))["phase"], "running");
    done(&one(&room, &d, "restore", json!({"point": cold["id"]})));
    let now = room.get(&format!("desktops/{d}"));
    assert_eq!(
        (&now["phase"], &now["started_by"]),
        (&json!("running"), &json!("cold")),
        "{now}"
    );
    // What it is can be set aside.
    done(&one(&room, &d, "restore", json!({"point": running["id"]})));
    done(&one(&room, &d, "undo-restore", json!({})));
    assert_eq!(room.get(&format!("desktops/{d}"))["started_by"], "cold");

    // A deleted desktop's points go with it, and so does what they held.
    let gone = text(&running, "id");
    let accepted = room
        .send("DELETE", &format!("desktops/{d}"), Value::Null)
        .expect("deleted");
    done(&room.wait(&accepted));
    let (status, _) = room
        .send("DELETE", &format!("restore-points/{gone}"), Value::Null)
        .expect_err("a point of a deleted desktop");
    assert_eq!(status, 404);
    let (status, _) = room
        .send(
            "POST",
            &format!("desktops/{d}/restore"),
            json!({"point": gone}),
        )
        .expect_err("a deleted desktop");
    assert_eq!(status, 404);
    room.until("nothing is left", |room| {
        room.deltas().is_empty() && room.overlays().is_empty()
    });
}

#[test]
fn a_point_that_can_not_be_used_leaves_the_desktop_as_it_was() {
    let mut room = Classroom::new(2);
    room.order("start", json!({}));
    let batch = take_class(&room);
    let (d, other) = (id(&room.desktops()[0]), id(&room.desktops()[1]));
    let point = points(&room, &d)[0].clone();
    let before = generation(&room, &d);
    damage(&room, &d);
    let ended = room.wait(&order(
        &room,
        &course(&room, "restore"),
        json!({"batch": batch}),
    ));
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_eq!(
        ended["failures"].as_array().map(Vec::len),
        Some(1),
        "{ended}"
    );
    let why = text(&ended["failures"][0], "message");
    assert!(
        why.contains("damaged") && why.contains("stays as it was"),
        "{why}"
    );
    assert_eq!(generation(&room, &d), before, "it was touched");
    assert_eq!(
        room.get(&format!("desktops/{other}"))["started_by"],
        "resume"
    );
    assert_eq!(points(&room, &d)[0]["state"], "damaged");
    room.send(
        "POST",
        &format!("desktops/{d}/restore"),
        json!({"point": point["id"]}),
    )
    .expect_err("it is known to be damaged");

    // No room: said plainly, the desktop goes on, and a schedule's oldest go first.
    room.fill_slow_tier();
    let ended = one(&room, &d, "restore-points", json!({}));
    let why = text(&ended["failures"][0], "message");
    assert!(
        why.contains("no room") && why.contains("slow tier"),
        "{ended}"
    );
    let point = points(&room, &other)
        .into_iter()
        .find(|p| p["origin"] == "asked")
        .unwrap();
    let ended = one(&room, &other, "restore", json!({"point": point["id"]}));
    assert_eq!(ended["state"], "failed", "{ended}");
    room.check_one_machine_each(2);

    // A release that only points need is in use, and who by is said.
    room.order("stop", json!({}));
    let release = room.release();
    room.send("POST", &format!("releases/{release}/retire"), json!({}))
        .expect("retired");
    let (status, body) = room
        .send("DELETE", &format!("releases/{release}"), Value::Null)
        .expect_err("points need it");
    assert_eq!(status, 409, "{body}");
    assert!(
        text(&body, "message").contains("restore points of s00"),
        "{body}"
    );
}

#[test]
fn what_cannot_be_captured_is_said_and_the_desktop_goes_on() {
    let mut room = Classroom::new(1);
    room.order("start", json!({}));
    let d = id(&room.desktops()[0]);
    done(&one(&room, &d, "restore-points", json!({})));
    let point = points(&room, &d)[0].clone();
    let fault = Fault::Save("the disk is on fire".into());
    room.sim_world().set_fault(&d.parse().unwrap(), Some(fault));
    let ended = one(&room, &d, "restore-points", json!({}));
    assert!(
        text(&ended["failures"][0], "message").contains("on fire"),
        "{ended}"
    );
    assert_eq!(points(&room, &d)[0]["state"], "failed");
    // Nothing is given up for a restore that could not be undone.
    let before = generation(&room, &d);
    let ended = one(&room, &d, "restore", json!({"point": point["id"]}));
    assert!(
        text(&ended["failures"][0], "message").contains("on fire"),
        "{ended}"
    );
    assert_eq!(generation(&room, &d), before);
    assert_eq!(room.get(&course(&room, "restore-points"))["undo"], 0);
}

#[test]
fn orders_in_between_and_calling_off() {
    let mut room = Classroom::simulated(
        2,
        SimConfig {
            fork_ms: 20,
            save_ms: 700,
            ..SimConfig::default()
        },
    );
    room.order("start", json!({}));
    let batch = take_class(&room);
    let desktops = room.desktops();
    let (a, b) = (id(&desktops[0]), id(&desktops[1]));

    // Twice at once: the second is refused, and does nothing.
    let path = course(&room, "restore");
    let first = order(&room, &path, json!({"batch": batch}));
    if let Err((status, body)) = room.send("POST", &path, json!({"batch": batch})) {
        assert_eq!(status, 409, "{body}");
        assert!(text(&body, "message").contains("already"), "{body}");
    }
    // A newer order about one of them takes its place.
    let reset = order(&room, &format!("desktops/{a}/reset"), json!({}));
    room.wait(&first);
    done(&room.wait(&reset));
    room.until("both run", |room| {
        room.desktops().iter().all(|d| d["phase"] == "running")
    });
    room.check_one_machine_each(2);

    // In the middle of a reset and of a move it waits for them.
    let point = |d: &str| {
        let list = points(&room, d);
        json!({"point": list.iter().find(|p| p["origin"] == "asked").unwrap()["id"]})
    };
    let reset = order(&room, &format!("desktops/{a}/reset"), json!({}));
    let restored = order(&room, &format!("desktops/{a}/restore"), point(&a));
    let moved = order(&room, &format!("desktops/{b}/move"), json!({}));
    let also = order(&room, &format!("desktops/{b}/restore"), point(&b));
    room.wait(&reset);
    room.wait(&moved);
    done(&room.wait(&restored));
    done(&room.wait(&also));
    room.check_one_machine_each(2);

    // Called off before its turn: it goes on as it was, and nothing can be undone.
    let undo = room.get(&course(&room, "restore-points"))["undo"].clone();
    let before = generation(&room, &a);
    let restored = order(&room, &format!("desktops/{a}/restore"), point(&a));
    let cancel = format!("operations/{}/cancel", text(&restored, "operation"));
    room.send("POST", &cancel, json!({})).expect("called off");
    let ended = room.wait(&restored);
    assert_ne!(ended["state"], "running", "{ended}");
    if ended["done"] == 0 {
        room.until("it is left alone", |room| {
            room.get(&course(room, "restore-points"))["restoring"] == 0
        });
        assert_eq!(generation(&room, &a), before);
        assert_eq!(room.get(&course(&room, "restore-points"))["undo"], undo);
    }
    room.check_one_machine_each(2);
}

#[test]
fn whatever_is_killed_what_was_acknowledged_is_there_and_nothing_half_made() {
    let mut room = Classroom::simulated(
        3,
        SimConfig {
            fork_ms: 20,
            save_ms: 300,
            ..SimConfig::default()
        },
    );
    room.order("start", json!({}));
    let batch = take_class(&room);
    for (round, kill) in ["controller", "storage", "host", "controller"]
        .into_iter()
        .enumerate()
    {
        let path = course(
            &room,
            if round % 2 == 0 {
                "restore"
            } else {
                "restore-points"
            },
        );
        let accepted = order(
            &room,
            &path,
            if round % 2 == 0 {
                json!({"batch": batch})
            } else {
                json!({})
            },
        );
        match kill {
            "controller" => {
                room.kill_controller();
                room.start_controller();
            }
            "storage" => room.restart_storage(),
            _ => {
                room.kill_host("kvm1");
                room.start_host("kvm1");
            }
        }
        let ended = room.wait(&accepted);
        assert_ne!(ended["state"], "running", "{kill}: {ended}");
        room.until("the class runs, each desktop once", |room| {
            room.sim_world().alive().len() == 3
                && room.desktops().iter().all(|d| d["phase"] == "running")
        });
        assert!(!batches(&room).is_empty());
    }
    // Every point that is ready can be restored.
    for d in room.desktops() {
        for p in points(&room, &id(&d)) {
            if p["state"] == "ready" && p["origin"] == "asked" {
                done(&one(&room, &id(&d), "restore", json!({"point": p["id"]})));
            }
        }
    }
    let listed: usize = room
        .desktops()
        .iter()
        .map(|d| {
            points(&room, &id(d))
                .iter()
                .filter(|p| p["holds"] == "memory" && p["state"] == "ready")
                .count()
        })
        .sum();
    room.until(
        "there are the deltas of the points, and no others",
        |room| room.deltas().len() == listed && room.overlays().len() == 3,
    );
}

#[test]
fn a_schedule_takes_points_while_a_class_runs_and_keeps_no_more_than_it_says() {
    let mut room = Classroom::new(2);
    let path = course(&room, "point-schedule");
    for bad in [
        json!({"every_min": 1441, "keep_last": 6, "keep_hourly": 0, "own_restore": false}),
        json!({"every_min": 1, "keep_last": 0, "keep_hourly": 0, "own_restore": false}),
    ] {
        room.send("PUT", &path, bad).expect_err("out of range");
    }
    let wanted = json!({"every_min": 10, "keep_last": 2, "keep_hourly": 0, "own_restore": false});
    room.send("PUT", &path, wanted.clone()).expect("set");
    assert_eq!(room.get(&path), wanted);
    room.order("start", json!({}));
    let d = id(&room.desktops()[0]);
    let fault = Fault::Save("the disk is on fire".into());
    room.sim_world().set_fault(&d.parse().unwrap(), Some(fault));
    let other = id(&room.desktops()[1]);
    for n in 1..=3 {
        ten_minutes_pass(&room);
        room.until("points were taken", |room| {
            let batches = batches(room);
            let newest = batches.first();
            newest.is_some_and(|b| b["ready"] == 1 && b["failed"] == 1)
                && points(room, &other).len() == 2.min(n)
        });
    }
    // The one that could not be taken is seen, once.
    room.until("older failures are forgotten", |room| {
        points(room, &d).len() == 1
    });
    let failed = points(&room, &d);
    assert!(
        text(&failed[0], "message").contains("on fire"),
        "{failed:#?}"
    );
    room.until("no more files than points", |room| room.deltas().len() == 2);
}
