//! A host switches its machine off when it is empty, and takes nothing from then on.

use crate::lab::{Lab, code};
use lyceum_hypervisor::sim::SimConfig;
use lyceum_model::Phase;
use lyceum_proto::host::HostFacts;
use lyceum_wire::ClientError;
use serde_json::json;

async fn power_off(lab: &Lab) -> Result<(), ClientError> {
    lab.client.post("/v1/power-off", &json!({})).await
}

#[tokio::test]
async fn an_empty_host_switches_off_and_one_with_a_desktop_does_not() {
    let mut lab = Lab::stopped(SimConfig::default());
    let flag = lab.config.state_dir.with_file_name("off");
    lab.config.power_off = Some(vec!["touch".into(), flag.display().to_string()]);
    lab.start().await;
    let facts: HostFacts = lab.client.get("/v1/host").await.unwrap();
    assert!(facts.can_power_off && facts.cores.is_some_and(|c| c > 0.0));
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    assert_eq!(code(power_off(&lab).await), "state");
    lab.wait_phase("a", Phase::Running).await;
    assert_eq!(code(power_off(&lab).await), "state");
    assert!(!flag.exists());
    lab.stop("a", 1).await.unwrap();
    power_off(&lab).await.unwrap();
    assert!(flag.exists());
    // Asked again it is going off already, and it takes nothing.
    power_off(&lab).await.unwrap();
    assert_eq!(code(lab.run("b", &lab.fork("b", 1)).await), "state");
    assert!(lab.alive().is_empty());
}

#[tokio::test]
async fn a_command_that_fails_leaves_the_host_as_it_was() {
    let mut lab = Lab::stopped(SimConfig::default());
    lab.start().await;
    assert_eq!(code(power_off(&lab).await), "invalid");
    let mut lab = Lab::stopped(SimConfig::default());
    lab.config.power_off = Some(vec!["false".into()]);
    lab.start().await;
    assert_eq!(code(power_off(&lab).await), "state");
    lab.run("a", &lab.fork("a", 1)).await.unwrap();
    lab.wait_phase("a", Phase::Running).await;
}
