//! A full tier, before and during work: `tier_full`, and nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::http::Method;
use common::{Bench, config, image, publish_request};
use lyceum_proto::storage::{ImportOutcome, ImportStatus};
use lyceum_storage::Agent;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Small file systems for both tiers where this process may mount; unmounted at the end.
struct Small {
    mounts: Vec<PathBuf>,
}

impl Small {
    /// `None` when mounting is not allowed; the caller then uses the reserve instead.
    fn mount(folder: &Path, sizes: [(&str, &str); 2]) -> Option<Small> {
        if !nix::unistd::Uid::effective().is_root() {
            return None;
        }
        let mut small = Small { mounts: Vec::new() };
        for (name, size) in sizes {
            let path = folder.join(name);
            fs::create_dir(&path).unwrap();
            let status = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
                .arg(&path)
                .status();
            if !status.is_ok_and(|s| s.success()) {
                return None;
            }
            small.mounts.push(path);
        }
        Some(small)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for path in &self.mounts {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

async fn open(folder: tempfile::TempDir, reserve: u64) -> Bench {
    let mut config = config(folder.path());
    config.reserve_bytes = reserve;
    let agent = Agent::open(config).await.unwrap();
    Bench {
        router: agent.router(),
        agent,
        folder,
    }
}

#[tokio::test]
async fn refused_before_anything_is_made() {
    // Everything that is free is reserved: works without any rights.
    let bench = open(tempfile::tempdir().unwrap(), 1 << 60).await;
    let message = bench
        .fails(
            Method::PUT,
            "/v1/uploads/u?name=a.raw&bytes=10",
            "0123456789",
            507,
            "tier_full",
        )
        .await;
    assert!(
        message.contains("slow tier") && message.contains("free"),
        "{message}"
    );
    let body = json!({"from": "empty", "virtual_bytes": 1 << 20}).to_string();
    let message = bench
        .fails(Method::PUT, "/v1/drafts/d", body, 507, "tier_full")
        .await;
    assert!(message.contains("fast tier"), "{message}");
    let body = json!({"release": "r", "content": {"from": "empty"}}).to_string();
    bench
        .fails(Method::PUT, "/v1/overlays/o", body, 507, "tier_full")
        .await;
    assert_eq!(bench.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn refused_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), [("fast", "40m"), ("slow", "24m")]) else {
        eprintln!("can't mount here: only the refusals before the work were tested");
        return;
    };
    // No reserve: the file system itself says no.
    let bench = open(folder, 0).await;
    // Unmounted before the folder is removed: what is dropped first is what was bound last.
    let _small = small;
    let published = bench.release_sized("d1", 0x41, 32 << 20).await;
    let draft = bench.fast("drafts/d1.qcow2");

    // A draft larger than what is left for its copy.
    common::io(&draft, "write -P 0x42 0 24M");
    let before = bench.everything();
    bench
        .fails(Method::PUT, "/v1/staging/d1", "", 507, "tier_full")
        .await;
    assert_eq!(bench.everything(), before);

    // A seal that filled the tier: publishing fails or works, but says so in the right form.
    let path = "/v1/uploads/big?name=a.raw&bytes=31457280";
    bench
        .fails(Method::PUT, path, vec![1u8; 30 << 20], 507, "tier_full")
        .await;
    assert_eq!(bench.everything(), before);

    // Desktops fill the slow tier; an overlay more does not fit.
    let hog = bench.slow("overlays/hog");
    let filler = vec![7u8; 1 << 20];
    let file = fs::File::create(&hog).unwrap();
    let mut at = 0;
    while std::os::unix::fs::FileExt::write_all_at(&file, &filler, at).is_ok() {
        at += 1 << 20;
    }
    let body = json!({"release": published.release, "content": {"from": "empty"}}).to_string();
    bench
        .fails(
            Method::PUT,
            "/v1/overlays/o1",
            body.clone(),
            507,
            "tier_full",
        )
        .await;
    drop(file);
    fs::remove_file(&hog).unwrap();
    assert_eq!(bench.everything(), before);
    let (status, answer) = bench.ask(Method::PUT, "/v1/overlays/o1", body.into()).await;
    assert!(status.is_success(), "{}", String::from_utf8_lossy(&answer));
    bench.delete("/v1/overlays/o1").await;

    // An import whose result does not fit: a compressed image unpacks to more than is left.
    let packed = {
        let folder = tempfile::tempdir().unwrap();
        let (raw, out) = (folder.path().join("raw"), folder.path().join("out"));
        let mut bytes = vec![0x77u8; 30 << 20];
        bytes[446..510].fill(0);
        bytes[510..512].copy_from_slice(b"\x55\xaa");
        fs::write(&raw, bytes).unwrap();
        common::qemu_img(&[
            "convert",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            raw.to_str().unwrap(),
            out.to_str().unwrap(),
        ]);
        fs::read(out).unwrap()
    };
    bench.upload("u", "disk.qcow2", packed).await;
    let request = json!({"upload": "u", "draft": "d9", "iso_disk_bytes": null});
    let _: ImportStatus = bench.put("/v1/imports/j", request).await;
    match bench.import_ends("j").await.outcome {
        Some(ImportOutcome::Refused { message }) => {
            assert!(message.contains("no room"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    bench.delete("/v1/imports/j").await;
    assert_eq!(bench.everything(), before);

    // With room again, the same works.
    bench.delete("/v1/drafts/d1").await;
    bench.upload("u", "disk.qcow2", image("qcow2")).await;
    let request = json!({"upload": "u", "draft": "d9", "iso_disk_bytes": null});
    let _: ImportStatus = bench.put("/v1/imports/j", request).await;
    let status = bench.import_ends("j").await;
    assert!(
        matches!(status.outcome, Some(ImportOutcome::Imported { .. })),
        "{status:?}"
    );
    let _: Value = bench.put("/v1/staging/d9", Value::Null).await;
    let mut request = publish_request();
    request.memory = None;
    request.cold_reason = Some("no helper".into());
    let _: Value = bench
        .json(Method::POST, "/v1/staging/d9/publish", json!(request))
        .await;
}
