//! What desktops are asked for when nothing goes wrong.

use crate::lab::{Lab, SIZE, code, id};
use lyceum_hypervisor::sim::{Fault, SimConfig, SimEventKind};
use lyceum_model::{MachineSize, Phase};
use lyceum_proto::host::{Clipboard, HostFacts, Observed, StartMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_fork_becomes_usable_and_is_not_started_twice() {
    let lab = Lab::new().await;
    let request = lab.fork("a", 1);
    let answer = lab.run("a", &request).await.unwrap();
    assert_eq!((answer.phase, answer.generation.0), (Phase::Starting, 1));
    let seen = lab.wait_phase("a", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("fork"));
    assert_eq!(seen.cold_reason, None);
    assert_eq!(seen.address.as_deref(), Some("10.77.1.5/24"));
    assert!(seen.ssh_host_key.is_some() && seen.usable_ms.is_some());
    let again = lab.run("a", &request).await.unwrap();
    assert_eq!(again.phase, Phase::Running);
    let forks = lab.world.events();
    let forks = forks.iter().filter(|e| e.what == SimEventKind::Forked);
    assert_eq!(forks.count(), 1);

    let facts: HostFacts = lab.client.get("/v1/host").await.unwrap();
    assert!(facts.load.at > 0 && facts.load.admits, "{facts:?}");
    lab.wait("a", |d| d.pss_kib > 0).await;

    let stopped = lab.stop("a", 1).await.unwrap();
    assert_eq!(stopped.phase, Phase::Stopped);
    assert!(lab.alive().is_empty());
    assert_eq!(lab.stop("a", 1).await.unwrap().phase, Phase::Stopped);
    // The same generation does not come back.
    assert_eq!(lab.run("a", &request).await.unwrap().phase, Phase::Stopped);
    assert!(!lab.config.run_dir.join("d/a").exists());
}

#[tokio::test]
async fn a_newer_generation_replaces_and_an_older_one_is_refused() {
    let lab = Lab::new().await;
    lab.run("a", &lab.fork("a", 3)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    lab.run("a", &lab.fork("a", 4)).await.unwrap();
    let seen = lab
        .wait("a", |d| d.phase == Phase::Running && d.generation.0 == 4)
        .await;
    assert_eq!(seen.started_by.as_deref(), Some("fork"));
    assert_eq!(lab.alive(), [(id("a"), 4)]);
    assert_eq!(
        code(lab.run("a", &lab.fork("a", 3)).await),
        "stale_generation"
    );
    assert_eq!(code(lab.stop("a", 3).await), "stale_generation");
    assert_eq!(
        code(lab.save("suspend", "a", 3, "d").await),
        "stale_generation"
    );
    // A stop that names a newer generation: nothing older is started from now on.
    lab.stop("a", 6).await.unwrap();
    assert_eq!(
        code(lab.run("a", &lab.fork("a", 5)).await),
        "stale_generation"
    );
    lab.run("a", &lab.fork("a", 6)).await.unwrap();
    lab.wait("a", |d| d.phase == Phase::Running && d.generation.0 == 6)
        .await;
}

#[tokio::test]
async fn suspend_resume_and_hand_out() {
    let lab = Lab::new().await;
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    let captured = lab.save("capture", "a", 1, "c1").await.unwrap();
    assert_eq!(captured, lab.save("capture", "a", 1, "c1").await.unwrap());
    assert!(lab.delta("c1").is_dir());
    let saved = lab.save("suspend", "a", 1, "s1").await.unwrap();
    let seen = lab.wait_phase("a", Phase::Suspended).await;
    assert_eq!(seen.delta.as_ref(), Some(&saved));
    assert!(lab.alive().is_empty());
    // Again: the same answer. Under another name: there is nothing to save.
    assert_eq!(saved, lab.save("suspend", "a", 1, "s1").await.unwrap());
    assert_eq!(code(lab.save("suspend", "a", 1, "s2").await), "state");

    let mut resume = lab.fork("a", 2);
    let release = lab.release.clone();
    resume.start = StartMode::Resume {
        release: release.clone(),
        delta: "s1".parse().unwrap(),
    };
    lab.run("a", &resume).await.unwrap();
    let seen = lab.wait_phase("a", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("resume"));
    assert_eq!(seen.delta, None);

    let mut hand_out = lab.fork("b", 1);
    hand_out.start = StartMode::HandOut {
        release,
        delta: "c1".parse().unwrap(),
    };
    lab.run("b", &hand_out).await.unwrap();
    let seen = lab.wait_phase("b", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("hand_out"));
}

#[tokio::test]
async fn what_cannot_be_forked_boots_cold_and_says_why() {
    let lab = Lab::new().await;
    let mut other_size = lab.fork("a", 1);
    other_size.size = MachineSize {
        memory_mib: 256,
        ..SIZE
    };
    lab.run("a", &other_size).await.unwrap();
    let seen = lab.wait_phase("a", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("cold"));
    assert!(seen.cold_reason.unwrap().contains("256 MiB"));

    let why = "the guest dislikes it";
    lab.world
        .set_fault(&id("b"), Some(Fault::NotForkable(why.into())));
    lab.run("b", &lab.fork("b", 1)).await.unwrap();
    let seen = lab.wait_phase("b", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("cold"));
    assert_eq!(seen.cold_reason.as_deref(), Some(why));
}

#[tokio::test]
async fn a_class_starts_at_once() {
    let lab = Lab::with(SimConfig {
        fork_ms: 20,
        ..SimConfig::default()
    })
    .await;
    let names: Vec<String> = (0..60).map(|n| format!("d{n}")).collect();
    let requests: Vec<_> = names.iter().map(|n| lab.fork(n, 1)).collect();
    let runs = names.iter().zip(&requests).map(|(n, r)| lab.run(n, r));
    for answer in futures::future::join_all(runs).await {
        answer.unwrap();
    }
    for name in &names {
        lab.wait_phase(name, Phase::Running).await;
    }
    let stops = names.iter().map(|n| lab.stop(n, 1));
    for answer in futures::future::join_all(stops).await {
        answer.unwrap();
    }
    assert!(lab.alive().is_empty());
}

#[tokio::test]
async fn the_console_carries_keys_and_pictures() {
    let lab = Lab::new().await;
    let path = "/v1/desktops/a/console";
    assert_eq!(
        code(lab.client.upgrade(path, "lyceum-console").await.map(drop)),
        "not_found"
    );
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    let other = format!("{path}?generation=2");
    assert_eq!(
        code(lab.client.upgrade(&other, "lyceum-console").await.map(drop)),
        "state",
        "another generation's picture is not what was asked for"
    );
    let right = format!("{path}?generation=1");
    let console = lab.client.upgrade(&right, "lyceum-console").await.unwrap();
    let mut console = lyceum_console::relay::Relayed::new(console);
    let mut version = [0; 12];
    console.read_exact(&mut version).await.unwrap();
    console.write_all(&version).await.unwrap();
    let mut security = [0; 2];
    console.read_exact(&mut security).await.unwrap();
    console.write_all(&[1, 1]).await.unwrap();
    assert_eq!(console.read_u32().await.unwrap(), 0);
    let mut init = [0; 24];
    console.read_exact(&mut init).await.unwrap();
    let mut name = vec![0; u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize];
    console.read_exact(&mut name).await.unwrap();
    let pixels = usize::from(u16::from_be_bytes([init[0], init[1]]))
        * usize::from(u16::from_be_bytes([init[2], init[3]]));
    let mut picture = vec![0; 16 + 4 * pixels];
    console
        .write_all(&[3, 0, 0, 0, 0, 0, init[0], init[1], init[2], init[3]])
        .await
        .unwrap();
    console.read_exact(&mut picture).await.unwrap();
    let before = picture.clone();
    console
        .write_all(&[
            3, 1, 0, 0, 0, 0, init[0], init[1], init[2], init[3], 4, 1, 0, 0, 0, 0, 0, b'x',
        ])
        .await
        .unwrap();
    console.read_exact(&mut picture).await.unwrap();
    assert_ne!(before, picture);
    lab.stop("a", 1).await.unwrap();
    assert_eq!(console.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_console_ends_in_order_before_its_desktop_is_suspended() {
    let lab = Lab::new().await;
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    let path = "/v1/desktops/a/console";
    let console = lab.client.upgrade(path, "lyceum-console").await.unwrap();
    let mut console = lyceum_console::relay::Relayed::new(console);
    let taken = console.taken();
    let mut version = [0; 12];
    console.read_exact(&mut version).await.unwrap();
    console.write_all(&version).await.unwrap();
    let mut security = [0; 2];
    console.read_exact(&mut security).await.unwrap();
    assert_eq!(taken.get(), None);
    lab.save("suspend", "a", 1, "s1").await.unwrap();
    assert_eq!(console.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(taken.get(), Some(12), "the machine heard all of it");
    assert_eq!(
        code(lab.client.upgrade(path, "lyceum-console").await.map(drop)),
        "state"
    );
}

#[tokio::test]
async fn the_clipboard_goes_both_ways() {
    let lab = Lab::new().await;
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    let path = "/v1/desktops/a/clipboard";
    let text = Clipboard {
        text: "電腦教室".into(),
    };
    let () = lab.client.put(path, &text).await.unwrap();
    let back: Clipboard = lab.client.get(path).await.unwrap();
    assert_eq!(back, text);
    let long = Clipboard {
        text: "x".repeat(40_000),
    };
    assert_eq!(code(lab.client.put::<_, ()>(path, &long).await), "invalid");
}

#[tokio::test]
async fn malformed_requests_change_nothing() {
    let lab = Lab::new().await;
    let good = serde_json::to_value(lab.fork("a", 1)).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let bad = [
        with(&|r| r["extra"] = 1.into()),
        with(&|r| r["generation"] = "one".into()),
        with(&|r| r["size"]["vcpus"] = 0.into()),
        with(&|r| r["disk"]["overlay"] = "../../etc/passwd".into()),
        with(&|r| r["disk"]["release"] = "another".into()),
        with(&|r| r["identity"]["machine_id"] = "short".into()),
        with(&|r| r["identity"] = serde_json::Value::Null),
        with(&|r| r["nic"]["mac"] = "52:54:00:00:00:01,romfile=/x".into()),
        with(&|r| r["ready_timeout_ms"] = 0.into()),
        with(&|r| {
            r["start"] = serde_json::json!({"mode": "cold", "reason": null, "cdrom": "/etc"})
        }),
    ];
    for request in bad {
        let answer: Result<serde_json::Value, _> = lab.client.put("/v1/desktops/a", &request).await;
        assert_eq!(code(answer), "invalid", "{request}");
    }
    let answer: Result<serde_json::Value, _> = lab.client.put("/v1/desktops/..%2fx", &good).await;
    assert_eq!(code(answer), "invalid");
    let observed: Observed = lab.observed().await;
    assert!(observed.desktops.is_empty() && lab.alive().is_empty());
}
