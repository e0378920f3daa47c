use super::*;
use lyceum_model::{Durability, Generation, MachineSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Lab {
    dir: tempfile::TempDir,
    world: SimWorld,
    config: SimConfig,
}

impl Lab {
    fn new(persist: bool) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        for file in ["top", "ram", "state"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        Lab {
            dir,
            world: SimWorld::new(),
            config: SimConfig {
                persist,
                ..SimConfig::default()
            },
        }
    }
    fn hypervisor(&self) -> SimHypervisor {
        SimHypervisor::new(self.world.clone(), self.config.clone())
    }
    fn sealed(&self) -> SealedFiles {
        SealedFiles {
            release: "r1".parse().unwrap(),
            ram: self.dir.path().join("ram"),
            device_state: self.dir.path().join("state"),
        }
    }
    fn request(&self, desktop: &str, from: StartFrom) -> StartRequest {
        StartRequest {
            desktop: desktop.parse().unwrap(),
            generation: Generation(1),
            run_dir: self.dir.path().join("run").join(desktop),
            size: MachineSize {
                vcpus: 1,
                memory_mib: 128,
            },
            disk: DiskFiles {
                top: self.dir.path().join("top"),
                base: None,
                release: None,
                durability: Durability::Safe,
                cdrom: None,
            },
            from,
            vm_generation_id: uuid::Uuid::new_v4(),
            identity: None,
            nic: None,
            spice: false,
            ready_timeout_ms: 1000,
        }
    }
}

async fn usable(instance: &Arc<dyn Instance>) {
    let mut watch = instance.watch();
    watch
        .wait_for(|s| matches!(s, InstanceState::Running { .. }))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_disk_has_one_writer_also_across_processes() {
    for persist in [false, true] {
        let lab = Lab::new(persist);
        let first = lab
            .hypervisor()
            .start(lab.request("a", StartFrom::Cold))
            .await
            .unwrap();
        usable(&first).await;
        // Another world stands for another process.
        let other = if persist {
            SimHypervisor::new(SimWorld::new(), lab.config.clone())
        } else {
            lab.hypervisor()
        };
        let e = other
            .start(lab.request("b", StartFrom::Cold))
            .await
            .err()
            .unwrap();
        assert!(e.to_string().contains("already"), "{e}");
        first.end(Duration::ZERO).await.unwrap();
        first.end(Duration::ZERO).await.unwrap();
        assert!(!first.request().run_dir.exists());
        let second = other
            .start(lab.request("b", StartFrom::Cold))
            .await
            .unwrap();
        second.end(Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn machines_outlive_their_agent_and_their_process() {
    let lab = Lab::new(true);
    let request = lab.request("a", StartFrom::Cold);
    let first = lab.hypervisor().start(request.clone()).await.unwrap();
    usable(&first).await;
    drop(first);
    let same = lab.hypervisor();
    let adopted = same.adopt(&request.run_dir).await.unwrap().unwrap();
    assert_eq!(adopted.request(), request);
    let elsewhere = SimHypervisor::new(SimWorld::new(), lab.config.clone());
    let found = elsewhere.adopt(&request.run_dir).await.unwrap().unwrap();
    assert!(matches!(
        &*found.watch().borrow(),
        InstanceState::Running { .. }
    ));
    lab.world.crash(&request.desktop);
    let elsewhere = SimHypervisor::new(SimWorld::new(), lab.config.clone());
    assert!(elsewhere.adopt(&request.run_dir).await.unwrap().is_none());
}

#[tokio::test]
async fn a_delta_fits_its_own_release_only() {
    let lab = Lab::new(false);
    let hypervisor = lab.hypervisor();
    let fork = StartFrom::Fork {
        sealed: lab.sealed(),
    };
    let delta = lab.dir.path().join("delta");
    let machine = hypervisor.start(lab.request("a", fork)).await.unwrap();
    usable(&machine).await;
    machine.suspend(&delta).await.unwrap();
    let resume = |sealed: SealedFiles| StartFrom::Resume {
        sealed,
        delta: delta.clone(),
    };
    let mut other = lab.sealed();
    other.release = "r2".parse().unwrap();
    let e = hypervisor
        .start(lab.request("a", resume(other)))
        .await
        .err()
        .unwrap();
    assert!(matches!(e, StartError::BadDelta(_)), "{e}");
    let machine = hypervisor
        .start(lab.request("a", resume(lab.sealed())))
        .await
        .unwrap();
    usable(&machine).await;
    let captured = lab.dir.path().join("captured");
    machine.capture(&captured).await.unwrap();
    assert!(
        captured
            .join(lyceum_model::disk::layout::DELTA_OVERLAY)
            .exists()
    );
    assert_eq!(lab.world.alive().len(), 1);
}

#[tokio::test]
async fn a_key_changes_the_picture() {
    let lab = Lab::new(false);
    let machine = lab
        .hypervisor()
        .start(lab.request("a", StartFrom::Cold))
        .await
        .unwrap();
    let mut vnc = machine.vnc().await.unwrap();
    let mut head = [0; 12];
    vnc.read_exact(&mut head).await.unwrap();
    vnc.write_all(b"RFB 003.008\n").await.unwrap();
    let mut security = [0; 2];
    vnc.read_exact(&mut security).await.unwrap();
    assert_eq!(security, [1, 1]);
    vnc.write_all(&[1]).await.unwrap();
    assert_eq!(vnc.read_u32().await.unwrap(), 0);
    vnc.write_all(&[1]).await.unwrap();
    let mut init = [0; 20];
    vnc.read_exact(&mut init).await.unwrap();
    let (width, height) = (
        u16::from_be_bytes([init[0], init[1]]),
        u16::from_be_bytes([init[2], init[3]]),
    );
    let name = vnc.read_u32().await.unwrap();
    vnc.read_exact(&mut vec![0; name as usize]).await.unwrap();
    let mut pictures = Vec::new();
    for incremental in [0, 1] {
        let mut ask = vec![3, incremental, 0, 0, 0, 0];
        ask.extend(width.to_be_bytes());
        ask.extend(height.to_be_bytes());
        if incremental == 1 {
            ask.extend([4, 1, 0, 0, 0, 0, 0, b'x']);
        }
        vnc.write_all(&ask).await.unwrap();
        let mut picture = vec![0; 16 + usize::from(width) * usize::from(height) * 4];
        vnc.read_exact(&mut picture).await.unwrap();
        pictures.push(picture);
    }
    assert_ne!(pictures[0], pictures[1]);
    machine.end(Duration::ZERO).await.unwrap();
    assert_eq!(vnc.read(&mut [0]).await.unwrap(), 0);
}
