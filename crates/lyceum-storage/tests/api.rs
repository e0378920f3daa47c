//! Every request, through the router.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::body::Body;
use axum::http::Method;
use common::{Bench, image, io, iso, publish_request, try_io};
use lyceum_model::DiskRef;
use lyceum_proto::storage::{
    DiskPoint, ImportOutcome, ImportStatus, Inventory, OverlayFacts, Published, StorageFacts,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

fn virtual_bytes(disk: &std::path::Path) -> u64 {
    let output = std::process::Command::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(disk)
        .output()
        .unwrap();
    let info: Value = serde_json::from_slice(&output.stdout).unwrap();
    info["virtual-size"].as_u64().unwrap()
}

#[tokio::test]
async fn from_a_draft_to_overlays_and_back() {
    let bench = Bench::new().await;
    let published = bench.release("d1", 0x41).await;
    let (id, manifest) = (published.release.clone(), &published.manifest);
    // The id is the hash of the manifest as it lies there, and the files are what it says.
    let folder = bench.fast(&format!("releases/{id}"));
    let bytes = fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), id.as_str());
    let ram = fs::read(folder.join("ram")).unwrap();
    let memory = manifest.memory.as_ref().unwrap();
    assert_eq!(memory.ram.blake3, blake3::hash(&ram).to_hex().as_str());
    assert_eq!(memory.ram.bytes, 64 << 20);
    assert_eq!(manifest.virtual_bytes, 1 << 30);
    // For hosts that have a release like it.
    for name in ["disk.qcow2", "ram"] {
        let bytes = fs::metadata(folder.join(name)).unwrap().len();
        let list = fs::read(folder.join(format!("{name}.blocks"))).unwrap();
        assert!(
            lyceum_model::blocks::Blocks::read(&list, bytes).is_some(),
            "{name}"
        );
    }
    for name in ["disk.qcow2", "ram", "device-state", "manifest.json"] {
        let mode = fs::metadata(folder.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o444, "{name}");
    }
    assert!(!folder.join("qemu.log").exists());
    // Sparse RAM is counted as what it takes.
    assert!(
        published.bytes_on_disk < 16 << 20,
        "{}",
        published.bytes_on_disk
    );
    assert!(published.bytes_on_disk > 1 << 20);

    let body = json!({"release": id, "content": {"from": "empty"}});
    let disk: DiskRef = bench.put("/v1/overlays/o1", body.clone()).await;
    let again: DiskRef = bench.put("/v1/overlays/o1", body.clone()).await;
    assert_eq!(disk, again);
    let overlay = bench.slow("overlays/o1.qcow2");
    io(&overlay, "read -P 0x41 0 1M");
    io(&overlay, "write -P 0x42 0 64k");

    // A hand-out: the overlay inside a captured delta.
    fs::create_dir(bench.slow("deltas/x1")).unwrap();
    fs::copy(&overlay, bench.slow("deltas/x1/overlay.qcow2")).unwrap();
    let from = json!({"release": id, "content": {"from": "delta", "delta": "x1"}});
    let _: DiskRef = bench.put("/v1/overlays/o2", from).await;
    io(&bench.slow("overlays/o2.qcow2"), "read -P 0x42 0 64k");

    // A new draft out of the release.
    let body = json!({"from": "release", "release": id});
    let _: DiskRef = bench.put("/v1/drafts/d2", body).await;
    io(&bench.fast("drafts/d2.qcow2"), "read -P 0x41 0 1M");
    io(&bench.fast("drafts/d2.qcow2"), "write -P 0x43 0 64k");

    // The same, larger; never smaller, and one that is refused leaves nothing.
    let larger = virtual_bytes(&bench.fast("drafts/d2.qcow2")) + (128 << 20);
    let sized = |bytes: u64| json!({"from": "release", "release": id, "virtual_bytes": bytes});
    for _ in 0..2 {
        let _: DiskRef = bench.put("/v1/drafts/d3", sized(larger)).await;
        assert_eq!(virtual_bytes(&bench.fast("drafts/d3.qcow2")), larger);
    }
    io(&bench.fast("drafts/d3.qcow2"), "read -P 0x41 0 1M");
    let end = format!("read -P 0 {} 1M", larger - (1 << 20));
    io(&bench.fast("drafts/d3.qcow2"), &end);
    let small = sized(larger - (129 << 20)).to_string();
    bench
        .fails(Method::PUT, "/v1/drafts/d4", small, 422, "invalid")
        .await;
    assert!(!bench.fast("drafts/d4.qcow2").exists());
    bench.delete("/v1/drafts/d3").await;

    let verified: Published = bench
        .json(
            Method::POST,
            &format!("/v1/releases/{id}/verify"),
            Value::Null,
        )
        .await;
    assert_eq!(verified.release, id);

    let inventory: Inventory = bench.get("/v1/inventory").await;
    assert_eq!(inventory.releases, std::slice::from_ref(&id));
    assert_eq!(inventory.drafts.len(), 2);
    assert_eq!(inventory.overlays.len(), 2);
    assert!(inventory.overlays.iter().all(|o| o.1 > 0));
    assert_eq!(inventory.deltas.len(), 1);
    assert!(inventory.staging.is_empty() && inventory.uploads.is_empty());
    let facts: StorageFacts = bench.get("/v1/storage").await;
    assert_eq!(facts.driver, "qcow2");
    assert!(facts.same_device && facts.fast.used_bytes > 1 << 20);

    for path in [
        "overlays/o1",
        "overlays/o2",
        "deltas/x1",
        "drafts/d1",
        "drafts/d2",
        "staging/d1",
        "uploads/u",
        "imports/i",
    ] {
        bench.delete(&format!("/v1/{path}")).await;
        bench.delete(&format!("/v1/{path}")).await;
    }
    bench.delete(&format!("/v1/releases/{id}")).await;
    bench.delete(&format!("/v1/releases/{id}")).await;
    assert_eq!(bench.everything(), Vec::<String>::new());
    // Nothing lies over a release that is gone.
    let body = json!({"release": id, "content": {"from": "empty"}}).to_string();
    bench
        .fails(Method::PUT, "/v1/overlays/o3", body, 404, "not_found")
        .await;
}

#[tokio::test]
async fn the_same_content_is_the_same_release_and_the_answer_can_be_had_again() {
    let bench = Bench::new().await;
    let first = bench.release("d1", 0x41).await;
    let publish = json!(publish_request());
    let again: Published = bench
        .json(Method::POST, "/v1/staging/d1/publish", publish.clone())
        .await;
    assert_eq!(first, again);
    let mut other = publish_request();
    other.sealed_at += 1;
    let body = json!(other).to_string();
    bench
        .fails(Method::POST, "/v1/staging/d1/publish", body, 409, "state")
        .await;
    // The same files in another draft's staging folder.
    let _: Value = bench
        .put(
            "/v1/drafts/d2",
            json!({"from": "empty", "virtual_bytes": 512}),
        )
        .await;
    let _: Value = bench.put("/v1/staging/d2", Value::Null).await;
    let release = bench.fast(&format!("releases/{}", first.release));
    for name in ["disk.qcow2", "ram", "device-state"] {
        let to = bench.fast("staging/d2").join(name);
        let _ = fs::remove_file(&to);
        fs::copy(release.join(name), to).unwrap();
    }
    let second: Published = bench
        .json(Method::POST, "/v1/staging/d2/publish", publish)
        .await;
    assert_eq!(second.release, first.release);
    let inventory: Inventory = bench.get("/v1/inventory").await;
    assert_eq!((inventory.releases.len(), inventory.staging.len()), (1, 0));
}

#[tokio::test]
async fn changed_bytes_are_found_and_named() {
    let bench = Bench::new().await;
    let id = bench.release("d1", 0x41).await.release;
    let folder = bench.fast(&format!("releases/{id}"));
    let verify = format!("/v1/releases/{id}/verify");
    for name in ["disk.qcow2", "ram", "device-state", "manifest.json"] {
        let path = folder.join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, &bad).unwrap();
        let message = bench.fails(Method::POST, &verify, "", 422, "damaged").await;
        assert!(message.contains(name), "{message}");
        fs::write(&path, &good[..last]).unwrap();
        bench.fails(Method::POST, &verify, "", 422, "damaged").await;
        fs::remove_file(&path).unwrap();
        bench.fails(Method::POST, &verify, "", 422, "damaged").await;
        fs::write(&path, &good).unwrap();
        let _: Published = bench.json(Method::POST, &verify, Value::Null).await;
    }
    bench
        .fails(
            Method::POST,
            "/v1/releases/none/verify",
            "",
            404,
            "not_found",
        )
        .await;
}

#[tokio::test]
async fn a_staging_folder_that_is_not_complete_is_not_published() {
    let bench = Bench::new().await;
    bench.stage("d1", 0x41).await;
    let publish = json!(publish_request()).to_string();
    let path = "/v1/staging/d1/publish";
    let staging = bench.fast("staging/d1");
    fs::rename(staging.join("ram"), staging.join("away")).unwrap();
    let message = bench
        .fails(Method::POST, path, publish.clone(), 409, "state")
        .await;
    assert!(message.contains("ram"), "{message}");
    // A link instead of a file would make the release depend on something else.
    std::os::unix::fs::symlink("away", staging.join("ram")).unwrap();
    bench
        .fails(Method::POST, path, publish.clone(), 409, "state")
        .await;
    fs::rename(staging.join("away"), staging.join("ram")).unwrap();
    // A disk with a backing file.
    let disk = staging.join("disk.qcow2");
    fs::rename(&disk, staging.join("base")).unwrap();
    common::qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "/etc/passwd",
        disk.to_str().unwrap(),
        "1G",
    ]);
    bench
        .fails(Method::POST, path, publish.clone(), 422, "damaged")
        .await;
    assert!(
        bench
            .get::<Inventory>("/v1/inventory")
            .await
            .releases
            .is_empty()
    );
    let mut cold = publish_request();
    cold.memory = None;
    bench
        .fails(Method::POST, path, json!(cold).to_string(), 422, "invalid")
        .await;
    bench.delete("/v1/staging/d1").await;
    bench.fails(Method::POST, path, publish, 409, "state").await;
    // Cold, with a reason: fine without memory files.
    let _: Value = bench.put("/v1/staging/d1", Value::Null).await;
    cold.cold_reason = Some("the guest has no helper".into());
    let published: Published = bench.json(Method::POST, path, json!(cold)).await;
    assert!(published.manifest.memory.is_none());
}

#[tokio::test]
async fn a_draft_in_use_is_not_staged() {
    let bench = Bench::new().await;
    let _: Value = bench
        .put(
            "/v1/drafts/d1",
            json!({"from":"empty","virtual_bytes": 1 << 20}),
        )
        .await;
    let disk = bench.fast("drafts/d1.qcow2");
    let mut user = std::process::Command::new("qemu-io")
        .args(["-f", "qcow2", disk.to_str().unwrap()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while !lyceum_disk::lock::in_use(&disk).unwrap() && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    bench
        .fails(Method::PUT, "/v1/staging/d1", "", 409, "in_use")
        .await;
    drop(user.stdin.take());
    user.wait().unwrap();
    let _: Value = bench.put("/v1/staging/d1", Value::Null).await;
    // The copy is its own: writing it leaves the draft as it is.
    io(&bench.fast("staging/d1/disk.qcow2"), "write -P 0x11 0 4k");
    assert!(!try_io(&disk, "read -P 0x11 0 4k"));
}

#[tokio::test]
async fn imports_of_every_format_and_an_iso() {
    let bench = Bench::new().await;
    for (n, format) in ["qcow2", "raw", "vmdk", "vhdx", "vdi"]
        .into_iter()
        .enumerate()
    {
        let (upload, job, draft) = (format!("u{n}"), format!("j{n}"), format!("d{n}"));
        bench
            .upload(&upload, &format!("disk.{format}"), image(format))
            .await;
        let request = json!({"upload": upload, "draft": draft, "iso_disk_bytes": null});
        let path = format!("/v1/imports/{job}");
        let _: ImportStatus = bench.put(&path, request.clone()).await;
        let _: ImportStatus = bench.put(&path, request).await;
        let status = bench.import_ends(&job).await;
        let expect = ImportOutcome::Imported {
            format: format.into(),
            virtual_bytes: 2 << 20,
            iso: false,
        };
        assert_eq!(status.outcome, Some(expect), "{format}");
        io(
            &bench.fast(&format!("drafts/{draft}.qcow2")),
            "read -P 0x5a 1M 1M",
        );
        // The upload has done its service.
        assert!(!bench.slow(&format!("uploads/{upload}")).exists());
        // Another import under the same id, or into the same draft, is refused.
        let other = json!({"upload": "zzz", "draft": draft, "iso_disk_bytes": null}).to_string();
        bench.fails(Method::PUT, &path, other, 409, "state").await;
    }
    bench.upload("ui", "debian.iso", iso()).await;
    let request = json!({"upload": "ui", "draft": "di", "iso_disk_bytes": 8u64 << 30});
    let _: ImportStatus = bench.put("/v1/imports/ji", request).await;
    let status = bench.import_ends("ji").await;
    assert!(
        matches!(status.outcome, Some(ImportOutcome::Imported { iso: true, virtual_bytes, .. }) if virtual_bytes == 8 << 30),
        "{status:?}"
    );
    assert_eq!(fs::read(bench.fast("drafts/di.iso")).unwrap(), iso());
    bench.delete("/v1/drafts/di").await;
    for n in 0..5 {
        bench.delete(&format!("/v1/drafts/d{n}")).await;
        bench.delete(&format!("/v1/imports/j{n}")).await;
    }
    bench.delete("/v1/imports/ji").await;
    bench
        .fails(Method::GET, "/v1/imports/ji", "", 404, "not_found")
        .await;
    assert_eq!(bench.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_import_says_why_and_leaves_nothing() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let evil = folder.path().join("evil");
    common::qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "/etc/passwd",
        evil.to_str().unwrap(),
        "1M",
    ]);
    bench
        .upload("u", "disk.qcow2", fs::read(evil).unwrap())
        .await;
    let request = json!({"upload": "u", "draft": "d", "iso_disk_bytes": null});
    let _: ImportStatus = bench.put("/v1/imports/j", request).await;
    match bench.import_ends("j").await.outcome {
        Some(ImportOutcome::Refused { message }) => {
            assert!(
                message.contains("backing file") && message.contains("qemu-img convert"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    bench.upload("u2", "debian.iso", iso()).await;
    let request = json!({"upload": "u2", "draft": "d", "iso_disk_bytes": null});
    let _: ImportStatus = bench.put("/v1/imports/j2", request).await;
    match bench.import_ends("j2").await.outcome {
        Some(ImportOutcome::Refused { message }) => {
            assert!(message.contains("how large"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    let missing = json!({"upload": "u9", "draft": "d", "iso_disk_bytes": null}).to_string();
    bench
        .fails(Method::PUT, "/v1/imports/j3", missing, 404, "not_found")
        .await;
    bench.delete("/v1/imports/j").await;
    bench.delete("/v1/imports/j2").await;
    assert_eq!(bench.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn cancelled_imports_leave_nothing_and_let_the_next_one_through() {
    let bench = Bench::new().await;
    for n in 0..3 {
        bench
            .upload(&format!("u{n}"), "disk.qcow2", image("qcow2"))
            .await;
        let request =
            json!({"upload": format!("u{n}"), "draft": format!("d{n}"), "iso_disk_bytes": null});
        let _: ImportStatus = bench.put(&format!("/v1/imports/j{n}"), request).await;
    }
    // What an unfinished import reads can't be taken away from it.
    let (_, _) = tokio::join!(
        bench.delete("/v1/imports/j0"),
        bench.delete("/v1/imports/j1")
    );
    let status = bench.import_ends("j2").await;
    assert!(
        matches!(status.outcome, Some(ImportOutcome::Imported { .. })),
        "{status:?}"
    );
    let left = bench.everything();
    assert_eq!(left, ["fast/drafts/d2.qcow2", "fast/imports/j2.json"]);
}

#[tokio::test]
async fn uploads_that_are_not_what_was_announced() {
    let bench = Bench::new().await;
    let path = "/v1/uploads/u?name=a.raw&bytes=1000";
    for body in [vec![1; 999], vec![1; 1001], vec![]] {
        bench.fails(Method::PUT, path, body, 422, "invalid").await;
    }
    for bad in [
        "/v1/uploads/u?name=&bytes=10",
        "/v1/uploads/u?name=a%00b&bytes=10",
        "/v1/uploads/u?name=a&bytes=0",
        "/v1/uploads/u?name=a&bytes=-1",
        "/v1/uploads/u?name=a",
        "/v1/uploads/u?name=a&bytes=1&mode=777",
        "/v1/uploads/..?name=a&bytes=1",
        "/v1/uploads/a%2Fb?name=a&bytes=1",
    ] {
        bench.fails(Method::PUT, bad, "x", 422, "invalid").await;
    }
    assert_eq!(bench.everything(), Vec::<String>::new());
    // A second upload takes the place of the first.
    bench.upload("u", "a.raw", vec![1; 10]).await;
    bench.upload("u", "b.raw", vec![2; 20]).await;
    assert_eq!(fs::read(bench.slow("uploads/u/data")).unwrap(), vec![2; 20]);
    bench.delete("/v1/uploads/u").await;
    assert_eq!(bench.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn hostile_requests_are_answered_in_the_one_form() {
    let bench = Bench::new().await;
    let big = "x".repeat(200_000);
    for (method, path, body, status, code) in [
        (
            Method::PUT,
            "/v1/overlays/o",
            r#"{"release":"r","content":{"from":"empty"},"x":1}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/overlays/o",
            r#"{"release":"../r","content":{"from":"empty"}}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/overlays/o",
            r#"{"release":"r"}"#,
            422,
            "invalid",
        ),
        (Method::PUT, "/v1/overlays/o", "[[[[", 422, "invalid"),
        (
            Method::PUT,
            "/v1/overlays/o",
            big.as_str(),
            413,
            "too_large",
        ),
        (
            Method::PUT,
            "/v1/overlays/..%2Fo",
            r#"{"release":"r","content":{"from":"empty"}}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/overlays/o",
            r#"{"release":"r","content":{"from":"delta","delta":"/etc"}}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/drafts/d",
            r#"{"from":"empty","virtual_bytes":-5}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/drafts/d",
            r#"{"from":"empty","virtual_bytes":513}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/drafts/d",
            r#"{"from":"empty","virtual_bytes":0}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/drafts/d",
            r#"{"from":"empty","virtual_bytes":18446744073709551104}"#,
            422,
            "invalid",
        ),
        (
            Method::PUT,
            "/v1/drafts/d",
            r#"{"from":"release","release":"none"}"#,
            404,
            "not_found",
        ),
        (Method::PUT, "/v1/staging/d", "", 404, "not_found"),
        (Method::POST, "/v1/staging/d/publish", "{}", 422, "invalid"),
    ] {
        let message = bench
            .fails(method, path, body.to_owned(), status, code)
            .await;
        assert!(!message.is_empty());
    }
    assert_eq!(bench.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn a_release_that_is_being_verified_is_not_deleted() {
    let bench = Bench::new().await;
    let id = bench.release("d1", 0x41).await.release;
    let (release, verify) = (
        format!("/v1/releases/{id}"),
        format!("/v1/releases/{id}/verify"),
    );
    // The first request has the release in hand before the second is looked at.
    let (verified, message) = tokio::join!(
        bench.json::<Published>(Method::POST, &verify, Value::Null),
        bench.fails(Method::DELETE, &release, "", 409, "in_use"),
    );
    assert_eq!(verified.release, id);
    assert!(message.contains("verified"), "{message}");
    bench.delete(&release).await;
}

#[tokio::test]
async fn deleting_the_staging_folder_cancels_its_publication() {
    let bench = Bench::new().await;
    bench.stage("d1", 0x41).await;
    let body = json!(publish_request()).to_string();
    let (message, ()) = tokio::join!(
        bench.fails(
            Method::POST,
            "/v1/staging/d1/publish",
            body,
            503,
            "unavailable"
        ),
        bench.delete("/v1/staging/d1"),
    );
    assert!(message.contains("cancelled"), "{message}");
    assert_eq!(bench.everything(), ["fast/drafts/d1.qcow2"]);
}

#[tokio::test]
async fn sixty_overlays_at_once() {
    let bench = Bench::new().await;
    let id = bench.release("d1", 0x41).await.release;
    let body = json!({"release": id, "content": {"from": "empty"}});
    let start = Instant::now();
    let mut times = futures::future::join_all((0..60).map(|n| {
        let (bench, body) = (&bench, body.clone());
        async move {
            let start = Instant::now();
            let _: DiskRef = bench.put(&format!("/v1/overlays/o{n}"), body).await;
            start.elapsed()
        }
    }))
    .await;
    times.sort();
    println!(
        "60 overlays: {:?} in all, median {:?}, slowest {:?}",
        start.elapsed(),
        times[30],
        times[59]
    );
    assert_eq!(
        bench.get::<Inventory>("/v1/inventory").await.overlays.len(),
        60
    );
}

#[tokio::test]
async fn restore_points_reset_and_export_of_a_disk() {
    let bench = Bench::new().await;
    let id = bench.release("d1", 0x41).await.release;
    let body = json!({"release": id, "content": {"from": "empty"}});
    let made: DiskRef = bench.put("/v1/overlays/o1", body).await;
    let facts: OverlayFacts = bench.get("/v1/overlays/o1").await;
    assert_eq!(facts.disk, made);
    let path = bench.slow("overlays/o1.qcow2");
    io(&path, "write -P 0x42 512k 64k");
    let point: DiskPoint = bench.put("/v1/overlays/o1/points/p1", Value::Null).await;
    io(&path, "write -P 0x43 512k 64k");
    let listed: Vec<DiskPoint> = bench.get("/v1/overlays/o1/points").await;
    assert_eq!(listed, [point]);

    // One file that stands alone, and nothing of it stays here.
    let (status, bytes) = bench
        .ask(Method::GET, "/v1/overlays/o1/export", Body::empty())
        .await;
    assert!(status.is_success());
    let alone = bench.folder.path().join("alone.qcow2");
    std::fs::write(&alone, bytes).unwrap();
    io(&alone, "read -P 0x43 512k 64k");
    assert!(
        std::fs::read_dir(bench.slow("uploads"))
            .unwrap()
            .next()
            .is_none()
    );

    let post = |path: &'static str| bench.json::<Value>(Method::POST, path, Value::Null);
    post("/v1/overlays/o1/points/p1/restore").await;
    io(&path, "read -P 0x42 512k 64k");
    post("/v1/overlays/o1/reset").await;
    io(&path, "read -P 0x41 512k 64k");
    post(Box::leak(
        format!("/v1/releases/{id}/prepare").into_boxed_str(),
    ))
    .await;
    bench.delete("/v1/overlays/o1/points/p1").await;
    bench
        .fails(
            Method::POST,
            "/v1/overlays/o1/points/p1/restore",
            "",
            404,
            "not_found",
        )
        .await;
    bench
        .fails(Method::GET, "/v1/overlays/none", "", 404, "not_found")
        .await;
    bench
        .fails(
            Method::PUT,
            "/v1/overlays/none/points/p1",
            "",
            404,
            "not_found",
        )
        .await;
    let _: DiskPoint = bench.put("/v1/overlays/o1/points/p2", Value::Null).await;
    bench.delete("/v1/overlays/o1").await;
    let listed: Vec<DiskPoint> = bench.get("/v1/overlays/o1/points").await;
    assert!(
        listed.is_empty(),
        "restore points of a deleted disk: {listed:?}"
    );
}
