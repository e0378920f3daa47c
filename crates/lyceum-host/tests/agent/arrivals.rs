//! Before a running desktop comes: what a host looks at, what it keeps for it, and what the other one waits for.

use crate::lab::{Lab, code};
use lyceum_hypervisor::sim::SimConfig;
use lyceum_model::{Generation, MoveWay, Phase};
use lyceum_proto::host::{HostFacts, RunRequest, StartMode};
use lyceum_proto::moves::{MoveRequest, Moved};
use serde_json::json;

fn arrival(lab: &Lab, desktop: &str, need_mib: u64) -> RunRequest {
    RunRequest {
        start: StartMode::Arrive {
            release: lab.release.clone(),
            from: "elsewhere".parse().unwrap(),
            way: MoveWay::Delta,
            platform: lab.platform(),
            tiers: None,
            need_mib,
        },
        ready_timeout_ms: 600_000,
        ..lab.fork(desktop, 1)
    }
}

#[tokio::test]
async fn what_can_not_go_on_here_is_refused_before_anything_starts() {
    let lab = Lab::new().await;
    let refused = async |change: fn(&mut StartMode)| {
        let mut request = arrival(&lab, "a", 16);
        change(&mut request.start);
        lab.run("a", &request).await.unwrap_err().to_string()
    };
    let why = refused(|start| {
        if let StartMode::Arrive { platform, .. } = start {
            platform.qemu_version = "1.2.3".into();
        }
    });
    let why = why.await;
    assert!(
        why.contains("1.2.3") && why.contains("needs the same on both hosts"),
        "{why}"
    );
    let why = refused(|start| {
        if let StartMode::Arrive { platform, .. } = start {
            platform.cpu_model = "another".into();
        }
    });
    assert!(why.await.contains("another"));
    let why = refused(|start| {
        if let StartMode::Arrive { tiers, .. } = start {
            *tiers = Some("0123".into());
        }
    });
    let why = why.await;
    assert!(why.contains("has other tiers mounted"), "{why}");
    let why = refused(|start| {
        if let StartMode::Arrive { need_mib, .. } = start {
            *need_mib = 1 << 40;
        }
    });
    let why = why.await;
    assert!(why.contains("choose another host"), "{why}");
    let why = refused(|start| {
        if let StartMode::Arrive { release, .. } = start {
            *release = "f".repeat(64).parse().unwrap();
        }
    });
    let why = why.await;
    assert!(why.contains("release"), "{why}");
    assert!(lab.alive().is_empty());
}

#[tokio::test]
async fn memory_of_what_is_on_its_way_is_kept_until_its_move_is_over() {
    let mut lab = Lab::stopped(SimConfig::default());
    let flag = lab.config.state_dir.with_file_name("off");
    lab.config.power_off = Some(vec!["touch".into(), flag.display().to_string()]);
    lab.start().await;
    let facts: HostFacts = lab.client.get("/v1/host").await.unwrap();
    let most = facts.load.available_mib / 10 * 6;
    lab.run("a", &arrival(&lab, "a", most)).await.unwrap();
    lab.wait_phase("a", Phase::Starting).await;
    // Two of them do not fit, and the machine is not switched off under the one that comes.
    let why = lab.run("b", &arrival(&lab, "b", most)).await.unwrap_err();
    let why = why.to_string();
    assert!(
        why.contains("are for desktops that are on their way"),
        "{why}"
    );
    let off: Result<(), _> = lab.client.post("/v1/power-off", &json!({})).await;
    assert_eq!(code(off), "state");
    assert!(!flag.exists());
    // It did not come: what was kept for it is free.
    lab.stop("a", 1).await.unwrap();
    lab.run("b", &arrival(&lab, "b", most)).await.unwrap();
    lab.stop("b", 1).await.unwrap();
}

/// A destination that takes the connection and says nothing: as long as it is not ready the desktop works on.
#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_does_not_stand_still_before_the_other_host_is_ready() {
    let lab = Lab::new().await;
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = MoveRequest {
        generation: Generation(1),
        arrives_as: Generation(2),
        to: "elsewhere".parse().unwrap(),
        url: format!("https://{}", silent.local_addr().unwrap()),
        way: MoveWay::Delta,
        mbit_per_s: None,
        time_limit_ms: 1500,
    };
    let client = lab.client.clone();
    let mut answer = tokio::spawn(async move {
        let path = "/v1/desktops/a/move";
        client.post::<_, Moved>(path, &request).await
    });
    let answer = loop {
        let going = lab.going();
        assert_eq!(going, [(crate::lab::id("a"), 1)], "it stands still");
        tokio::select! {
            answer = &mut answer => break answer.unwrap(),
            () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
        }
    };
    let why = answer.unwrap_err().to_string();
    assert!(why.contains("it was not over within 2 s"), "{why}");
    assert!(why.contains("goes on where it was"), "{why}");
    assert_eq!(lab.going().len(), 1);
    drop(silent);
}
