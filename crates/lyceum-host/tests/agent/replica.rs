//! Releases on the host's own disk.

use crate::lab::{Lab, code};
use lyceum_host::ReplicaConfig;
use lyceum_hypervisor::sim::SimConfig;
use lyceum_model::Phase;
use lyceum_model::disk::layout;
use lyceum_proto::host::{HostFacts, ReplicaFacts};
use std::time::{Duration, Instant};

async fn facts(lab: &Lab) -> ReplicaFacts {
    let facts: HostFacts = lab.client.get("/v1/host").await.unwrap();
    facts.replica.unwrap()
}

async fn prepare(lab: &Lab) -> String {
    let path = format!("/v1/releases/{}/prepare", lab.release);
    let answer: Result<(), _> = lab.client.post(&path, &serde_json::json!({})).await;
    answer.map_or_else(|e| code::<()>(Err(e)), |()| "ok".into())
}

#[tokio::test]
async fn desktops_use_it_when_it_is_whole_and_the_tier_when_it_is_not() {
    let mut lab = Lab::stopped(SimConfig::default());
    let own = lab.dir.path().join("own");
    lab.config.replica = Some(ReplicaConfig {
        dir: own.clone(),
        mib: 100,
        days: 30,
    });
    lab.start().await;
    assert_eq!(prepare(&lab).await, "ok");
    assert_eq!(facts(&lab).await.releases, [lab.release.clone()]);

    // What the file server has is not read any more: it may even be gone.
    let tier = lab.config.fast.join(layout::release(&lab.release));
    let aside = lab.dir.path().join("aside");
    std::fs::rename(tier.join(layout::RELEASE_RAM), &aside).unwrap();
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    let seen = lab.wait_phase("a", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("fork"));

    // Killed and started again, it is still there and verified anew or known.
    lab.kill().await;
    lab.start().await;
    lab.run("b", &lab.fork("b", 1)).await.unwrap();
    lab.wait_phase("b", Phase::Running).await;

    // Damaged, it is not used; and without the tier's there is no other.
    let ram = own
        .join(layout::release(&lab.release))
        .join(layout::RELEASE_RAM);
    let mut bytes = std::fs::read(&ram).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&ram, &bytes).unwrap();
    assert_eq!(code(lab.run("c", &lab.fork("c", 1)).await), "damaged");
    let damaged = facts(&lab).await;
    assert_eq!((damaged.damaged, damaged.releases.len()), (1, 0));
    // Since this start of the agent: "b" was made from it, "c" could not be.
    assert!(damaged.hits >= 1 && damaged.misses >= 1, "{damaged:?}");
    std::fs::rename(&aside, tier.join(layout::RELEASE_RAM)).unwrap();
    lab.run("c", &lab.fork("c", 1)).await.unwrap();
    let seen = lab.wait_phase("c", Phase::Running).await;
    assert_eq!(seen.started_by.as_deref(), Some("fork"));
    // And it is copied again, while nobody waits.
    let deadline = Instant::now() + Duration::from_secs(120);
    while facts(&lab).await.releases.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(std::fs::read(&ram).unwrap(), bytes);
    lab.shut_down().await;
}

#[tokio::test]
async fn without_room_the_tier_does() {
    let mut lab = Lab::stopped(SimConfig::default());
    let ram = vec![1; 3 << 20];
    lab.release = lab.make_release(&ram);
    lab.config.replica = Some(ReplicaConfig {
        dir: lab.dir.path().join("own"),
        mib: 1,
        days: 30,
    });
    lab.start().await;
    assert_eq!(prepare(&lab).await, "ok");
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
    let facts = facts(&lab).await;
    assert!(facts.releases.is_empty());
    assert!(facts.trouble.unwrap().contains("raise mib"));
}
