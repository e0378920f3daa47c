//! The classroom of simulated hosts with its store on a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../lyceum-store/tests/common/postgres.rs"]
mod postgres;
#[path = "../classroom/world.rs"]
#[allow(dead_code)] // Shared with the tests on SQLite.
mod world;

use lyceum_hypervisor::sim::SimConfig;
use serde_json::json;
use world::Classroom;

#[test]
fn a_class_on_postgresql_outlives_its_controller() {
    let server = postgres::Postgres::start();
    let sim = SimConfig {
        fork_ms: 300,
        ..SimConfig::default()
    };
    let mut room = Classroom::with_store(12, sim, Some(server.database("classroom")));
    // Killed in the middle of the start: the next one goes on where it was.
    let course = room.course();
    room.send("POST", &format!("courses/{course}/start"), json!({}))
        .expect("there is room");
    room.kill_controller();
    room.start_controller();
    room.until("every desktop runs", |room| {
        let desktops = room.desktops();
        desktops.len() == 12 && desktops.iter().all(|d| d["phase"] == "running")
    });
    room.check_one_machine_each(12);
    let id = room.desktops()[0]["id"].as_str().unwrap().to_owned();
    room.order_one(&id, "reset");
    room.order("suspend", json!({}));
    room.check_one_machine_each(0);
    room.order("start", json!({}));
    for d in room.desktops() {
        assert_eq!(d["started_by"], "resume", "{d}");
    }
    room.order("stop", json!({}));
    room.check_one_machine_each(0);
    room.until("throw-away desktops keep nothing", |room| {
        room.overlays().is_empty()
    });
}
