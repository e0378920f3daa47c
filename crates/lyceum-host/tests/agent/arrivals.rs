//! What a host looks at before it waits for a running desktop, and what it keeps for it.

use crate::lab::{Lab, code};
use lyceum_hypervisor::sim::SimConfig;
use lyceum_model::{MoveWay, Phase};
use lyceum_proto::host::{HostFacts, RunRequest, StartMode};
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
