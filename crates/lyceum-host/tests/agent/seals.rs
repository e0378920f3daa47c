//! Sealing a draft.

use crate::lab::{Lab, SIZE, code};
use lyceum_hypervisor::sim::{Fault, SimConfig};
use lyceum_model::DraftId;
use lyceum_model::disk::layout;
use lyceum_proto::host::{SealOutcome, SealRequest, SealStatus};
use std::process::Command;

impl Lab {
    /// A draft with its disk, and the staging folder as the storage agent makes it.
    fn draft(&self, name: &str) -> DraftId {
        let draft: DraftId = name.parse().unwrap();
        let disk = self.config.fast.join(layout::draft(&draft));
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&disk)
            .arg("1M")
            .status()
            .unwrap();
        assert!(made.success());
        self.stage(&draft);
        draft
    }

    fn nothing_is_left(&self, draft: &DraftId) {
        assert!(self.alive().is_empty(), "{:?}", self.alive());
        assert!(!self.staging(draft).exists());
        for folder in ["s", "t"] {
            let left = std::fs::read_dir(self.config.run_dir.join(folder));
            assert_eq!(left.map_or(0, |l| l.count()), 0);
        }
    }
}

#[tokio::test]
async fn a_seal_is_tried_by_a_fork() {
    let lab = Lab::new().await;
    let draft = lab.draft("d1");
    lab.seal(&draft, 10_000).await;
    match lab.sealed(&draft).await {
        SealOutcome::Sealed {
            platform,
            guest_helper,
            ..
        } => assert!(guest_helper && platform == lab.platform()),
        other => panic!("{other:?}"),
    }
    let mut files: Vec<_> = std::fs::read_dir(lab.staging(&draft))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            layout::RELEASE_DEVICE_STATE,
            layout::RELEASE_DISK,
            layout::RELEASE_RAM
        ]
    );
    assert!(lab.alive().is_empty());
    // The same job, and then forgotten with its result left alone.
    assert!(lab.seal(&draft, 10_000).await.outcome.is_some());
    let path = format!("/v1/seals/{draft}");
    let () = lab.client.delete(&path).await.unwrap();
    let () = lab.client.delete(&path).await.unwrap();
    assert!(lab.observed().await.seals.is_empty());
    assert!(lab.staging(&draft).exists());
}

#[tokio::test]
async fn a_guest_without_a_helper_is_cold_only_with_a_clean_disk() {
    let lab = Lab::new().await;
    let draft = lab.draft("d1");
    let disk = lab.staging(&draft).join(layout::RELEASE_DISK);
    // As if the boot had written to it.
    std::fs::write(&disk, "booted").unwrap();
    lab.world
        .set_fault(&"seal-d1".parse().unwrap(), Some(Fault::NoHelper));
    lab.seal(&draft, 10_000).await;
    match lab.sealed(&draft).await {
        SealOutcome::ColdOnly { reason } => assert!(reason.contains("helper"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let clean = std::fs::read(lab.config.fast.join(layout::draft(&draft))).unwrap();
    assert_eq!(std::fs::read(&disk).unwrap(), clean);
    assert!(!lab.staging(&draft).join(layout::RELEASE_RAM).exists());
    assert!(lab.alive().is_empty());
}

#[tokio::test]
async fn what_fails_or_is_called_off_leaves_nothing() {
    let lab = Lab::new().await;
    let machine = "seal-d1".parse().unwrap();
    let faults = [
        (Fault::NeverReady, "was not ready"),
        (Fault::Save("no space left".into()), "no space left"),
        (Fault::Start("no memory".into()), "no memory"),
    ];
    let path = "/v1/seals/d1";
    for (fault, words) in faults {
        lab.world.set_fault(&machine, Some(fault));
        let draft = lab.draft("d1");
        lab.seal(&draft, 100).await;
        match lab.sealed(&draft).await {
            SealOutcome::Failed { message } => assert!(message.contains(words), "{message}"),
            other => panic!("{other:?}"),
        }
        lab.nothing_is_left(&draft);
        let () = lab.client.delete(path).await.unwrap();
    }
    lab.world.set_fault(&machine, Some(Fault::NeverReady));
    let draft = lab.draft("d1");
    lab.seal(&draft, 600_000).await;
    lab.wait_seal(&draft, |s| s.step.contains("waiting for the guest"))
        .await;
    let () = lab.client.delete(path).await.unwrap();
    lab.nothing_is_left(&draft);
    assert!(lab.observed().await.seals.is_empty());

    let request = SealRequest {
        size: SIZE,
        ready_timeout_ms: 1,
    };
    let answer = lab.client.put::<_, SealStatus>(path, &request).await;
    assert_eq!(code(answer), "invalid");
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_clears_up_at_its_next_start() {
    for persist in [false, true] {
        let mut lab = Lab::with(SimConfig {
            persist,
            ..SimConfig::default()
        })
        .await;
        lab.world
            .set_fault(&"seal-d1".parse().unwrap(), Some(Fault::NeverReady));
        let draft = lab.draft("d1");
        lab.seal(&draft, 600_000).await;
        lab.wait_seal(&draft, |s| s.step.contains("waiting for the guest"))
            .await;
        lab.kill().await;
        assert_eq!(lab.alive().len(), 1);
        lab.start().await;
        match lab.sealed(&draft).await {
            SealOutcome::Failed { message } => assert!(message.contains("restarted"), "{message}"),
            other => panic!("{other:?}"),
        }
        lab.nothing_is_left(&draft);
        // A shutdown calls a seal off in good order.
        let second = lab.draft("d2");
        lab.world
            .set_fault(&"seal-d2".parse().unwrap(), Some(Fault::NeverReady));
        lab.seal(&second, 600_000).await;
        lab.wait_seal(&second, |s| s.step.contains("waiting for the guest"))
            .await;
        lab.shut_down().await;
        lab.nothing_is_left(&second);
    }
}
