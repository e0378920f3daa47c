//! What a restart finds, after an orderly end and after `kill -9`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::http::Method;
use common::{Bench, config, image, io, publish_request};
use lyceum_proto::storage::{ImportOutcome, ImportStatus, Inventory, Published};
use lyceum_storage::Agent;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[tokio::test]
async fn half_made_things_go_and_finished_ones_stay() {
    let bench = Bench::new().await;
    let first = bench.release("d1", 0x41).await;
    let body = json!({"release": first.release, "content": {"from": "empty"}});
    let _: Value = bench.put("/v1/overlays/o1", body).await;
    let before = bench.everything();
    for folder in [
        "releases",
        "staging",
        "drafts",
        "work",
        "imports",
        "published",
    ] {
        fs::create_dir(bench.fast(&format!("{folder}/.tmp-folder"))).unwrap();
        fs::write(bench.fast(&format!("{folder}/.tmp-folder/file")), "half").unwrap();
        fs::write(bench.fast(&format!("{folder}/.tmp-file")), "half").unwrap();
    }
    for folder in ["overlays", "deltas", "uploads"] {
        fs::create_dir(bench.slow(&format!("{folder}/.tmp-folder"))).unwrap();
        fs::write(bench.slow(&format!("{folder}/.tmp-folder/file")), "half").unwrap();
    }
    // A delta that a host was writing is the controller's to judge.
    fs::create_dir(bench.slow("deltas/half")).unwrap();
    let bench = bench.restart().await;
    assert_eq!(bench.everything(), before);
    let inventory: Inventory = bench.get("/v1/inventory").await;
    assert_eq!(inventory.deltas.len(), 1);
    // The answer to a publish that was lost can still be had.
    let again: Published = bench
        .json(
            Method::POST,
            "/v1/staging/d1/publish",
            json!(publish_request()),
        )
        .await;
    assert_eq!(again, first);
}

#[tokio::test]
async fn imports_go_on_and_their_outcomes_are_kept() {
    let bench = Bench::new().await;
    for n in 0..4 {
        bench
            .upload(&format!("u{n}"), "disk.vmdk", image("vmdk"))
            .await;
        let request =
            json!({"upload": format!("u{n}"), "draft": format!("d{n}"), "iso_disk_bytes": null});
        let _: ImportStatus = bench.put(&format!("/v1/imports/j{n}"), request).await;
    }
    let bench = bench.restart().await;
    for n in 0..4 {
        let status = bench.import_ends(&format!("j{n}")).await;
        assert!(
            matches!(status.outcome, Some(ImportOutcome::Imported { .. })),
            "{status:?}"
        );
        io(
            &bench.fast(&format!("drafts/d{n}.qcow2")),
            "read -P 0x5a 1M 1M",
        );
    }
    let bench = bench.restart().await;
    for n in 0..4 {
        let status: ImportStatus = bench.get(&format!("/v1/imports/j{n}")).await;
        assert!(
            matches!(status.outcome, Some(ImportOutcome::Imported { .. })),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn tiers_that_are_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let why = |config| async move {
        match Agent::open(config).await {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    };
    // A folder with other people's files.
    fs::create_dir(at("slow")).unwrap();
    fs::write(at("slow/thesis.odt"), "do not touch").unwrap();
    assert!(why(config(folder.path())).await.contains("thesis.odt"));
    fs::remove_file(at("slow/thesis.odt")).unwrap();
    let agent = Agent::open(config(folder.path())).await.unwrap();
    // A second agent on the same tiers.
    assert!(
        why(config(folder.path()))
            .await
            .contains("another storage agent")
    );
    drop(agent);
    let mut swapped = config(folder.path());
    std::mem::swap(&mut swapped.fast_dir, &mut swapped.slow_dir);
    assert!(why(swapped).await.contains("swapped"));
    // The file system is not mounted: an empty folder is there instead.
    fs::rename(at("fast"), at("away")).unwrap();
    fs::create_dir(at("fast")).unwrap();
    assert!(why(config(folder.path())).await.contains("mount"));
    assert_eq!(
        fs::read_dir(at("fast")).unwrap().count(),
        0,
        "it was written to"
    );
    fs::remove_dir(at("fast")).unwrap();
    fs::rename(at("away"), at("fast")).unwrap();
    Agent::open(config(folder.path())).await.unwrap();
}

const CHILD: &str = "LYCEUM_STORAGE_TEST_CHILD";

/// Not a test by itself: the process that is killed in the middle of its work. It says
/// what was acknowledged, line by line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else {
        return;
    };
    let agent = Agent::open(config(folder.as_ref())).await.unwrap();
    let bench = Bench {
        folder: tempfile::tempdir_in(&folder).unwrap(),
        router: agent.router(),
        agent,
    };
    let said = |what: String| println!("\ndone {what}");
    let round = std::process::id();
    let picture = image("qcow2");
    for n in 0.. {
        let id = format!("{round}-{n}");
        let draft: String = format!("/v1/drafts/{id}");
        let _: Value = bench
            .put(&draft, json!({"from": "empty", "virtual_bytes": 1 << 20}))
            .await;
        said(format!("fast/drafts/{id}.qcow2"));
        let _: Value = bench.put(&format!("/v1/staging/{id}"), Value::Null).await;
        said(format!("fast/staging/{id}/disk.qcow2"));
        let mut request = publish_request();
        request.memory = None;
        request.cold_reason = Some(id.clone());
        let published: Published = bench
            .json(
                Method::POST,
                &format!("/v1/staging/{id}/publish"),
                json!(request),
            )
            .await;
        said(format!("gone fast/staging/{id}"));
        said(format!("fast/releases/{}/disk.qcow2", published.release));
        for k in 0..4 {
            let body = json!({"release": published.release, "content": {"from": "empty"}});
            let _: Value = bench.put(&format!("/v1/overlays/{id}-{k}"), body).await;
            said(format!("slow/overlays/{id}-{k}.qcow2"));
        }
        bench.upload(&id, "disk.qcow2", picture.clone()).await;
        let request = json!({"upload": id, "draft": format!("i{id}"), "iso_disk_bytes": null});
        let _: ImportStatus = bench.put(&format!("/v1/imports/{id}"), request).await;
        said(format!("import {id}"));
        if n % 3 == 2 {
            bench.import_ends(&id).await;
        }
    }
}

#[tokio::test]
async fn kill_9_at_any_instant() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..6usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_that_is_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed after a number of acknowledgements, each round at another point.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 3 + round * 5;
        for line in lines.by_ref() {
            if let Some(what) = line.unwrap().strip_prefix("done ") {
                acknowledged.push(what.to_owned());
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before the kill counts too.
        for line in lines {
            if let Some(what) = line.unwrap_or_default().strip_prefix("done ") {
                acknowledged.push(what.to_owned());
            }
        }
        assert_eq!(left, 0, "the child ended by itself");
    }
    let agent = Agent::open(config(folder.path())).await.unwrap();
    let bench = Bench {
        router: agent.router(),
        agent,
        folder,
    };
    for what in acknowledged
        .iter()
        .filter_map(|w| w.strip_prefix("import "))
    {
        let status = bench.import_ends(what).await;
        assert!(
            matches!(status.outcome, Some(ImportOutcome::Imported { .. })),
            "{status:?}"
        );
        io(
            &bench.fast(&format!("drafts/i{what}.qcow2")),
            "read -P 0x5a 1M 1M",
        );
    }
    let all = bench.everything();
    assert!(!all.iter().any(|path| path.contains(".tmp-")), "{all:?}");
    assert!(
        !all.iter()
            .any(|path| path.starts_with("fast/work") || path.starts_with("slow/uploads")),
        "{all:?}"
    );
    for what in &acknowledged {
        let staged = what
            .strip_prefix("fast/staging/")
            .and_then(|w| w.split('/').next());
        if let Some(folder) = what.strip_prefix("gone ") {
            assert!(
                !bench.folder.path().join(folder).exists(),
                "{folder} is back"
            );
        } else if let Some(id) = staged {
            // It became a release, acknowledged or not, or it is still there.
            let published = bench.fast(&format!("published/{id}.json"));
            assert!(
                bench.folder.path().join(what).exists() || published.exists(),
                "{what}"
            );
        } else if !what.starts_with("import ") {
            let path = bench.folder.path().join(what);
            assert!(
                lyceum_disk::inspect::qcow2_facts(&fs::File::open(&path).unwrap()).is_ok(),
                "{what}"
            );
        }
    }
    let inventory: Inventory = bench.get("/v1/inventory").await;
    assert!(!inventory.releases.is_empty());
    for id in inventory.releases {
        let _: Published = bench
            .json(
                Method::POST,
                &format!("/v1/releases/{id}/verify"),
                Value::Null,
            )
            .await;
    }
}
