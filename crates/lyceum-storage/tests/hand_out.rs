//! Disks are made of a captured overlay only when it is what was captured.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::http::Method;
use common::{Bench, io};
use lyceum_delta::{BlockInfo, DeltaWriter, Description};
use lyceum_model::DiskRef;
use lyceum_proto::storage::Published;
use serde_json::json;
use std::fs;

/// Captures an overlay as a host does, pages and all.
fn capture(bench: &Bench, published: &Published, delta: &str, overlay: &str) {
    let writer = DeltaWriter::create(&bench.slow(&format!("deltas/{delta}"))).unwrap();
    fs::copy(bench.slow(overlay), writer.overlay_path()).unwrap();
    let memory = published.manifest.memory.as_ref().unwrap();
    let block = |name: &str, bytes: u64| BlockInfo {
        name: name.into(),
        bytes,
    };
    let ram = u64::from(memory.size.memory_mib) << 20;
    let pages = writer.pages(block("ram", ram)).unwrap();
    let blocks = writer.blocks(vec![block("vga", 8 << 20)]).unwrap();
    let what = Description {
        release: published.release.clone(),
        platform: memory.platform.clone(),
        size: memory.size,
        vm_generation_id: uuid::Uuid::nil(),
        nic_mac: None,
    };
    writer.finish(what, pages, blocks, b"devices").unwrap();
}

#[tokio::test]
async fn a_captured_overlay_that_was_changed_becomes_nobodys_disk() {
    let bench = Bench::new().await;
    let published = bench.release("d1", 0x41).await;
    let release = &published.release;
    let empty = json!({"release": release, "content": {"from": "empty"}});
    let _: DiskRef = bench.put("/v1/overlays/teacher", empty).await;
    io(&bench.slow("overlays/teacher.qcow2"), "write -P 0x42 0 64k");
    let from =
        |delta: &str| json!({"release": release, "content": {"from": "delta", "delta": delta}});

    capture(&bench, &published, "whole", "overlays/teacher.qcow2");
    let _: DiskRef = bench.put("/v1/overlays/s1", from("whole")).await;
    io(&bench.slow("overlays/s1.qcow2"), "read -P 0x42 0 64k");

    // One bit of the data, then a byte too few. The file is an image still.
    for (delta, damage) in [("flipped", true), ("cut", false)] {
        capture(&bench, &published, delta, "overlays/teacher.qcow2");
        let file = bench.slow(&format!("deltas/{delta}/overlay.qcow2"));
        let mut bytes = fs::read(&file).unwrap();
        if damage {
            let at = bytes
                .iter()
                .rposition(|b| *b == 0x42)
                .expect("the data is there");
            bytes[at] ^= 1;
        } else {
            bytes.pop();
        }
        fs::write(&file, bytes).unwrap();
        let before = bench.everything();
        let message = bench
            .fails(
                Method::PUT,
                "/v1/overlays/s2",
                from(delta).to_string(),
                422,
                "damaged",
            )
            .await;
        assert!(message.contains("capture the desktop again"), "{message}");
        assert_eq!(bench.everything(), before, "something was left over");
    }
    // What was whole is whole still.
    let _: DiskRef = bench.put("/v1/overlays/s2", from("whole")).await;
    io(&bench.slow("overlays/s2.qcow2"), "read -P 0x42 0 64k");
}
