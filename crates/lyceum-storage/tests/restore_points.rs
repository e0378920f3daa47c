//! Disks that are made of restore points, and what a host leaves when it is killed while it writes one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::http::Method;
use common::{Bench, io};
use lyceum_model::DiskRef;
use lyceum_proto::storage::{DiskPoint, Inventory, Room};
use serde_json::{Value, json};
use std::fs;

#[tokio::test]
async fn another_disk_is_made_of_a_point_and_both_go_their_own_way() {
    let bench = Bench::new().await;
    let release = bench.release("d1", 0x41).await.release;
    let other = bench.release("d2", 0x43).await.release;
    let empty = json!({"release": release, "content": {"from": "empty"}});
    let _: DiskRef = bench.put("/v1/overlays/o1", empty).await;
    io(&bench.slow("overlays/o1.qcow2"), "write -P 0x42 0 64k");
    let _: DiskPoint = bench.put("/v1/overlays/o1/points/p1", Value::Null).await;
    io(&bench.slow("overlays/o1.qcow2"), "write -P 0x44 0 64k");

    let of = |release: &_, point: &str| json!({"release": release, "content": {"from": "point", "of": "o1", "point": point}});
    let disk: DiskRef = bench.put("/v1/overlays/o2", of(&release, "p1")).await;
    assert_eq!(disk.release(), Some(&release));
    io(&bench.slow("overlays/o2.qcow2"), "read -P 0x42 0 64k");
    io(&bench.slow("overlays/o1.qcow2"), "read -P 0x44 0 64k");
    // Asked again, it is what it has become since.
    io(&bench.slow("overlays/o2.qcow2"), "write -P 0x45 0 64k");
    let _: DiskRef = bench.put("/v1/overlays/o2", of(&release, "p1")).await;
    io(&bench.slow("overlays/o2.qcow2"), "read -P 0x45 0 64k");

    let before = bench.everything();
    for (request, status, code) in [
        (of(&release, "p9"), 404, "not_found"),
        (of(&other, "p1"), 422, "invalid"),
    ] {
        let text = request.to_string();
        bench
            .fails(Method::PUT, "/v1/overlays/o3", text, status, code)
            .await;
    }
    assert_eq!(bench.everything(), before, "something was left over");
}

#[tokio::test]
async fn what_is_half_written_is_listed_and_goes_with_its_name() {
    let bench = Bench::new().await;
    for name in ["whole", "half.partial", "both", "both.partial"] {
        let folder = bench.slow(&format!("deltas/{name}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("pages"), [1; 5000]).unwrap();
    }
    let listed: Inventory = bench.get("/v1/inventory").await;
    let names: Vec<&str> = listed.deltas.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(names, ["both", "half", "whole"]);
    assert!(listed.deltas.iter().all(|(_, bytes)| *bytes >= 5000));
    for name in names {
        bench.delete(&format!("/v1/deltas/{name}")).await;
    }
    let left = fs::read_dir(bench.slow("deltas")).unwrap().count();
    assert_eq!(left, 0);
    let room: Room = bench.get("/v1/room").await;
    assert!(room.slow_bytes > 0);
}
