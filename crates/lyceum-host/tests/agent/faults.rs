//! What must hold when things break.

use crate::lab::{Lab, code, id};
use lyceum_hypervisor::sim::{Fault, SimConfig, SimEventKind};
use lyceum_model::disk::layout;
use lyceum_model::{DiskRef, Phase};
use lyceum_proto::host::StartMode;
use std::time::Duration;

#[tokio::test]
async fn an_agent_that_was_killed_finds_its_desktops_again() {
    let mut lab = Lab::new().await;
    for name in ["a", "b", "c"] {
        lab.run(name, &lab.fork(name, 7)).await.unwrap();
    }
    for name in ["a", "b", "c"] {
        lab.wait_phase(name, Phase::Running).await;
    }
    lab.save("suspend", "c", 7, "s").await.unwrap();
    let before = lab.observed().await;
    lab.kill().await;
    // While nobody looks, one of them ends.
    lab.world.crash(&id("b"));
    lab.start().await;
    let after = lab.observed().await;
    assert_ne!(before.boot, after.boot);
    let a = lab.wait_phase("a", Phase::Running).await;
    assert_eq!(a.generation.0, 7);
    assert_eq!(a.started_by.as_deref(), Some("fork"));
    assert_eq!(a.address.as_deref(), Some("10.77.1.5/24"));
    let b = lab.wait_phase("b", Phase::Failed).await;
    assert!(b.detail.contains("was not running"), "{}", b.detail);
    let c = lab.wait_phase("c", Phase::Suspended).await;
    assert_eq!(c.delta.unwrap().delta.as_str(), "s");
    // Nothing was disturbed: one start each.
    let ended = lab.world.events();
    let ended: Vec<_> = ended
        .iter()
        .filter(|e| e.what == SimEventKind::Ended && e.desktop == id("a"))
        .collect();
    assert!(ended.is_empty(), "{ended:?}");
    // What is old stays old, also for those that do not run.
    for name in ["a", "b", "c"] {
        assert_eq!(
            code(lab.run(name, &lab.fork(name, 6)).await),
            "stale_generation"
        );
    }
    assert_eq!(lab.alive(), [(id("a"), 7)]);
    lab.run("a", &lab.fork("a", 7)).await.unwrap();
    assert_eq!(lab.alive(), [(id("a"), 7)]);
}

#[tokio::test]
async fn a_shutdown_leaves_the_machines_and_finishes_a_suspend() {
    let mut lab = Lab::with(SimConfig {
        save_ms: 300,
        ..SimConfig::default()
    })
    .await;
    for name in ["a", "b"] {
        lab.run(name, &lab.fork(name, 1)).await.unwrap();
        lab.wait_phase(name, Phase::Running).await;
    }
    let client = lab.client.clone();
    let request = serde_json::json!({"generation": 1, "delta": "s"});
    tokio::spawn(async move {
        let _ = client
            .post::<_, serde_json::Value>("/v1/desktops/b/suspend", &request)
            .await;
    });
    lab.wait_phase("b", Phase::Suspending).await;
    lab.shut_down().await;
    assert_eq!(lab.alive(), [(id("a"), 1)]);
    assert!(lab.delta("s").is_dir());
    lab.start().await;
    lab.wait_phase("a", Phase::Running).await;
    lab.wait_phase("b", Phase::Suspended).await;
}

#[tokio::test]
async fn killed_in_the_middle_of_a_class_start() {
    let mut lab = Lab::with(SimConfig {
        fork_ms: 30,
        ..SimConfig::default()
    })
    .await;
    let names: Vec<String> = (0..20).map(|n| format!("d{n}")).collect();
    for name in &names {
        lab.run(name, &lab.fork(name, 1)).await.unwrap();
    }
    lab.wait_phase("d0", Phase::Running).await;
    lab.kill().await;
    lab.start().await;
    for name in &names {
        let seen = lab
            .wait(name, |d| matches!(d.phase, Phase::Running | Phase::Failed))
            .await;
        if seen.phase == Phase::Failed {
            lab.run(name, &lab.fork(name, 2)).await.unwrap();
        }
    }
    for name in &names {
        lab.wait_phase(name, Phase::Running).await;
    }
    // No desktop is lost, none is there twice.
    assert_eq!(lab.alive().len(), names.len());
}

#[tokio::test]
async fn stop_beats_a_start_that_waits_or_never_ends() {
    let mut lab = Lab::stopped(SimConfig::default());
    lab.config.starts = Some(1);
    lab.start().await;
    lab.world.set_fault(&id("a"), Some(Fault::NeverReady));
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait("a", |d| d.detail.contains("waiting for the guest"))
        .await;
    // The only slot is taken.
    lab.run("b", &lab.fork("b", 1)).await.unwrap();
    assert_eq!(lab.stop("b", 1).await.unwrap().phase, Phase::Stopped);
    assert_eq!(lab.alive(), [(id("a"), 1)]);
    assert_eq!(lab.stop("a", 1).await.unwrap().phase, Phase::Stopped);
    assert!(lab.alive().is_empty());
    lab.run("b", &lab.fork("b", 2)).await.unwrap();
    lab.wait_phase("b", Phase::Running).await;
}

#[tokio::test]
async fn machines_that_fail_say_why_and_leave_nothing() {
    let lab = Lab::new().await;
    lab.world.set_fault(&id("never"), Some(Fault::NeverReady));
    let mut request = lab.fork("never", 1);
    request.ready_timeout_ms = 50;
    lab.run("never", &request).await.unwrap();
    let seen = lab.wait_phase("never", Phase::Failed).await;
    assert!(
        seen.detail.contains("waiting for the guest"),
        "{}",
        seen.detail
    );

    lab.world.set_fault(
        &id("dies"),
        Some(Fault::EndsAfter(Duration::from_millis(1))),
    );
    lab.run("dies", &lab.fork("dies", 1)).await.unwrap();
    let seen = lab.wait_phase("dies", Phase::Failed).await;
    assert!(seen.detail.contains("ended by itself"), "{}", seen.detail);

    lab.world.set_fault(
        &id("refused"),
        Some(Fault::Start("no more processes".into())),
    );
    lab.run("refused", &lab.fork("refused", 1)).await.unwrap();
    let seen = lab.wait_phase("refused", Phase::Failed).await;
    assert!(seen.detail.contains("no more processes"), "{}", seen.detail);

    assert!(lab.alive().is_empty());
    assert_eq!(
        std::fs::read_dir(lab.config.run_dir.join("d"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_save_that_fails_costs_nothing() {
    let lab = Lab::new().await;
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    lab.world
        .set_fault(&id("a"), Some(Fault::Save("the disk is full".into())));
    let e = lab.save("suspend", "a", 1, "s").await.unwrap_err();
    assert!(e.to_string().contains("the disk is full"), "{e}");
    let seen = lab.wait("a", |d| d.detail.contains("goes on")).await;
    assert_eq!(seen.phase, Phase::Running);
    lab.world.set_fault(&id("a"), None);
    lab.save("suspend", "a", 1, "s").await.unwrap();
}

#[tokio::test]
async fn a_delta_that_does_not_fit_boots_nothing() {
    let lab = Lab::new().await;
    let mut resume = lab.fork("a", 1);
    resume.start = StartMode::Resume {
        release: lab.release.clone(),
        delta: "lost".parse().unwrap(),
    };
    lab.run("a", &resume).await.unwrap();
    let seen = lab.wait_phase("a", Phase::Failed).await;
    assert!(seen.detail.contains("saved desktop"), "{}", seen.detail);

    // Of another release.
    lab.run("b", &lab.fork("b", 1)).await.unwrap();
    lab.wait_phase("b", Phase::Running).await;
    lab.save("suspend", "b", 1, "s").await.unwrap();
    let other = lab.make_release(b"other memory");
    let mut resume = lab.fork("b", 2);
    let DiskRef::Qcow2Overlay { release, .. } = &mut resume.disk else {
        unreachable!()
    };
    *release = other.clone();
    resume.start = StartMode::Resume {
        release: other,
        delta: "s".parse().unwrap(),
    };
    lab.run("b", &resume).await.unwrap();
    let seen = lab.wait_phase("b", Phase::Failed).await;
    assert!(seen.detail.contains("another release"), "{}", seen.detail);
    assert!(lab.delta("s").is_dir());

    // Without the memory it rests on, a resume is an error, not a cold boot.
    let mut resume = lab.fork("b", 3);
    resume.size.memory_mib = 256;
    resume.start = StartMode::Resume {
        release: lab.release.clone(),
        delta: "s".parse().unwrap(),
    };
    lab.run("b", &resume).await.unwrap();
    let seen = lab
        .wait("b", |d| d.phase == Phase::Failed && d.generation.0 == 3)
        .await;
    assert!(seen.detail.contains("256 MiB"), "{}", seen.detail);
    assert!(lab.alive().is_empty());
}

#[tokio::test]
async fn a_changed_byte_is_found_before_anything_starts() {
    let lab = Lab::new().await;
    let prepare = format!("/v1/releases/{}/prepare", lab.release);
    let () = lab.client.post(&prepare, &()).await.unwrap();
    let ram = lab
        .config
        .fast
        .join(layout::release(&lab.release))
        .join(layout::RELEASE_RAM);
    let mut bytes = std::fs::read(&ram).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&ram, bytes).unwrap();
    assert_eq!(
        code(lab.client.post::<_, ()>(&prepare, &()).await),
        "damaged"
    );
    assert_eq!(code(lab.run("a", &lab.fork("a", 1)).await), "damaged");
    assert!(lab.alive().is_empty());
    let unknown = "/v1/releases/nothing/prepare";
    assert_eq!(
        code(lab.client.post::<_, ()>(unknown, &()).await),
        "not_found"
    );
}

#[tokio::test]
async fn missing_tiers_and_disks_are_said() {
    let lab = Lab::new().await;
    let request = lab.fork("a", 1);
    std::fs::remove_file(
        lab.config
            .slow
            .join(layout::overlay(&"o-a".parse().unwrap())),
    )
    .unwrap();
    lab.run("a", &request).await.unwrap();
    let seen = lab.wait_phase("a", Phase::Failed).await;
    assert!(seen.detail.contains("o-a.qcow2"), "{}", seen.detail);

    std::fs::remove_file(lab.config.slow.join(lyceum_host::TIER_MARKER)).unwrap();
    let e = lab.run("b", &lab.fork("b", 1)).await.unwrap_err();
    assert!(e.to_string().contains("not the slow tier"), "{e}");
    assert!(lab.alive().is_empty());
}
