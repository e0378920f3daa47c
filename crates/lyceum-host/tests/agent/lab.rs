//! A classroom's CA, tiers with a release, and a host agent that can be killed and started again.

use lyceum_host::{HostConfig, TIER_MARKER};
use lyceum_hypervisor::Hypervisor;
use lyceum_hypervisor::sim::{SimConfig, SimHypervisor, SimWorld};
use lyceum_model::disk::layout;
use lyceum_model::release::FileEntry;
use lyceum_model::{
    DesktopId, DiskRef, DraftId, Durability, Generation, MachineSize, OverlayId, Phase, Platform,
    ReleaseId, ReleaseManifest, SealedMemory,
};
use lyceum_proto::host::{
    IdentityRequest, NicRequest, Observed, ObservedDesktop, RunRequest, SaveRequest, SavedDelta,
    SealOutcome, SealRequest, SealStatus, StartMode, StopRequest,
};
use lyceum_wire::{ClassroomCa, Client, ClientError, Identity, Peer, PeerKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SIZE: MachineSize = MachineSize {
    vcpus: 1,
    memory_mib: 128,
};
/// Generous: the cores may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

pub fn id(text: &str) -> DesktopId {
    text.parse().unwrap()
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub world: SimWorld,
    pub sim: SimConfig,
    pub release: ReleaseId,
    pub client: Client,
    controller: Identity,
    host: Identity,
    pub config: HostConfig,
    /// Real machines instead of simulated ones.
    pub real: Option<Arc<dyn Hypervisor>>,
    agent: Option<RunningAgent>,
}

struct RunningAgent {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Lab {
    pub async fn new() -> Lab {
        Lab::with(SimConfig::default()).await
    }

    pub async fn with(sim: SimConfig) -> Lab {
        let mut lab = Lab::stopped(sim);
        lab.start().await;
        lab
    }

    /// Everything but the agent.
    pub fn stopped(sim: SimConfig) -> Lab {
        let dir = tempfile::Builder::new().prefix("ly").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in [
            "ca",
            "fast/releases",
            "fast/staging",
            "fast/drafts",
            "slow/overlays",
            "slow/deltas",
        ] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for tier in ["fast", "slow"] {
            std::fs::write(at(tier).join(TIER_MARKER), tier).unwrap();
        }
        let ca = ClassroomCa::open_or_create(&at("ca")).unwrap();
        let name: lyceum_model::HostId = "h1".parse().unwrap();
        let config = HostConfig {
            power_off: None,
            replica: None,
            name: name.clone(),
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: at("state"),
            run_dir: at("run"),
            fast: at("fast"),
            slow: at("slow"),
            memory_mib: Some(8192),
            marks: Default::default(),
            starts: Some(4),
            cold_ready_ms: 600_000,
            moves: 2,
            migration: None,
            sample_ms: 50,
            user: None,
            network: None,
            simulated: true,
        };
        let host = Peer::new(PeerKind::Host, name);
        let controller = ca.controller_identity(&[]).unwrap();
        let mut lab = Lab {
            client: Client::new(&controller, "https://127.0.0.1:1", &host).unwrap(),
            host: ca.issue(&host, &[]).unwrap(),
            controller,
            world: SimWorld::new(),
            sim,
            release: "none".parse().unwrap(),
            config,
            real: None,
            agent: None,
            dir,
        };
        lab.release = lab.make_release(b"some memory");
        lab
    }

    /// Another host of the same classroom, over the same tiers. It is not started.
    #[allow(dead_code)] // Not every test has two.
    pub fn beside(&self, name: &str) -> Lab {
        let dir = tempfile::Builder::new().prefix("ly").tempdir().unwrap();
        let ca = ClassroomCa::open_or_create(&self.dir.path().join("ca")).unwrap();
        let host = Peer::new(PeerKind::Host, name.parse().unwrap());
        let config = HostConfig {
            name: host.name.clone(),
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            ..self.config.clone()
        };
        Lab {
            client: Client::new(&self.controller, "https://127.0.0.1:1", &host).unwrap(),
            host: ca.issue(&host, &[]).unwrap(),
            controller: self.controller.clone(),
            world: self.world.clone(),
            sim: self.sim.clone(),
            release: self.release.clone(),
            config,
            real: self.real.clone(),
            agent: None,
            dir,
        }
    }

    pub fn hypervisor(&self) -> SimHypervisor {
        SimHypervisor::new(self.world.clone(), self.sim.clone())
    }

    pub fn platform(&self) -> Platform {
        self.hypervisor().platform()
    }

    pub fn make_release(&self, ram: &[u8]) -> ReleaseId {
        let folder = self.dir.path().join("new-release");
        std::fs::create_dir_all(&folder).unwrap();
        let files: [(&str, &[u8]); 3] = [
            (layout::RELEASE_DISK, b"a disk"),
            (layout::RELEASE_RAM, ram),
            (layout::RELEASE_DEVICE_STATE, b"some devices"),
        ];
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        self.publish(&folder, self.platform())
    }

    /// What the storage agent does: hash, write the manifest, rename.
    pub fn publish(&self, folder: &Path, platform: Platform) -> ReleaseId {
        let file = |name: &str| {
            let content = std::fs::read(folder.join(name)).unwrap();
            FileEntry {
                bytes: content.len() as u64,
                blake3: blake3::hash(&content).to_hex().to_string(),
            }
        };
        let manifest = ReleaseManifest {
            format: ReleaseManifest::FORMAT,
            sealed_at: 1,
            disk: file(layout::RELEASE_DISK),
            virtual_bytes: 4096,
            memory: Some(SealedMemory {
                size: SIZE,
                platform,
                ram: file(layout::RELEASE_RAM),
                device_state: file(layout::RELEASE_DEVICE_STATE),
                guest_helper: true,
            }),
            cold_reason: None,
        };
        let json = manifest.canonical_json().unwrap();
        std::fs::write(folder.join(layout::RELEASE_MANIFEST), &json).unwrap();
        let id: ReleaseId = blake3::hash(&json).to_hex().to_string().parse().unwrap();
        std::fs::rename(folder, self.config.fast.join(layout::release(&id))).unwrap();
        id
    }

    pub async fn start(&mut self) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let simulated = || Arc::new(self.hypervisor()) as Arc<dyn Hypervisor>;
        let hypervisor = self.real.clone().unwrap_or_else(simulated);
        let config = self.config.clone();
        let (identity, token) = (self.host.clone(), shutdown.clone());
        let agent = async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            lyceum_host::run_on(config, hypervisor, identity, listener, token)
                .await
                .unwrap();
        };
        // Simulated machines live in the test's runtime. Real ones are processes, and all
        // that the agent has of them must go with it.
        let runtime = self.real.as_ref().map(|_| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
        });
        let task = match &runtime {
            Some(runtime) => runtime.spawn(agent),
            None => tokio::spawn(agent),
        };
        self.agent = Some(RunningAgent {
            task,
            shutdown,
            runtime,
        });
        self.client = Client::new(&self.controller, &url, self.client.peer()).unwrap();
    }

    /// The agent is gone in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let agent = self.agent.take().unwrap();
        match agent.runtime {
            Some(runtime) => {
                tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE))
                    .await
                    .unwrap();
            }
            None => {
                agent.task.abort();
                assert!(agent.task.await.unwrap_err().is_cancelled());
            }
        }
    }

    /// SIGTERM.
    pub async fn shut_down(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.shutdown.cancel();
        agent.task.await.unwrap();
        if let Some(runtime) = agent.runtime {
            runtime.shutdown_background();
        }
    }

    /// A disk of its own for the desktop, and a request to fork the release over it.
    pub fn fork(&self, desktop: &str, generation: u64) -> RunRequest {
        let overlay: OverlayId = format!("o-{desktop}").parse().unwrap();
        self.make_overlay(&self.config.slow.join(layout::overlay(&overlay)));
        RunRequest {
            generation: Generation(generation),
            size: SIZE,
            disk: DiskRef::Qcow2Overlay {
                overlay,
                release: self.release.clone(),
            },
            durability: Durability::Safe,
            start: StartMode::Fork {
                release: self.release.clone(),
            },
            identity: Some(IdentityRequest {
                hostname: lyceum_model::Hostname::from_text(desktop, ""),
                machine_id: "0123456789abcdef0123456789abcdef".into(),
            }),
            nic: Some(NicRequest {
                mac: "52:54:00:00:00:01".into(),
                address: "10.77.1.5".parse().unwrap(),
                outside: false,
                plug: None,
            }),
            vm_generation_id: uuid::Uuid::new_v4(),
            spice: false,
            ready_timeout_ms: 10_000,
        }
    }

    /// As the storage agent makes it: one that is there is left as it is.
    fn make_overlay(&self, path: &Path) {
        if self.real.is_none() {
            return std::fs::write(path, b"overlay").unwrap();
        }
        if path.exists() {
            return;
        }
        let base = self.config.fast.join(layout::release(&self.release));
        let made = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(base.join(layout::RELEASE_DISK))
            .args(["-o", "extended_l2=on,cluster_size=128k"])
            .arg(path)
            .status()
            .unwrap();
        assert!(made.success());
    }

    pub async fn run(
        &self,
        desktop: &str,
        request: &RunRequest,
    ) -> Result<ObservedDesktop, ClientError> {
        self.client
            .put(&format!("/v1/desktops/{desktop}"), request)
            .await
    }

    pub async fn stop(
        &self,
        desktop: &str,
        generation: u64,
    ) -> Result<ObservedDesktop, ClientError> {
        let request = StopRequest {
            generation: Generation(generation),
            patience_ms: 0,
        };
        self.client
            .post(&format!("/v1/desktops/{desktop}/stop"), &request)
            .await
    }

    /// `what`: `suspend` or `capture`.
    pub async fn save(
        &self,
        what: &str,
        desktop: &str,
        generation: u64,
        delta: &str,
    ) -> Result<SavedDelta, ClientError> {
        let request = SaveRequest {
            generation: Generation(generation),
            delta: delta.parse().unwrap(),
        };
        self.client
            .post(&format!("/v1/desktops/{desktop}/{what}"), &request)
            .await
    }

    pub fn delta(&self, delta: &str) -> PathBuf {
        self.config
            .slow
            .join(layout::delta(&delta.parse().unwrap()))
    }

    pub async fn observed(&self) -> Observed {
        self.client.get("/v1/watch").await.unwrap()
    }

    /// Follows the watch until this is said of the desktop.
    pub async fn wait(
        &self,
        desktop: &str,
        wanted: impl Fn(&ObservedDesktop) -> bool,
    ) -> ObservedDesktop {
        let began = std::time::Instant::now();
        let mut after = 0;
        loop {
            let path = format!("/v1/watch?after={after}&wait_ms=1000");
            let observed: Observed = self.client.get(&path).await.unwrap();
            after = observed.revision;
            let seen = observed.desktops.iter().find(|d| d.desktop == id(desktop));
            if let Some(seen) = seen
                && wanted(seen)
            {
                return seen.clone();
            }
            assert!(began.elapsed() < DEADLINE, "waited in vain, last: {seen:?}");
        }
    }

    pub async fn wait_phase(&self, desktop: &str, phase: Phase) -> ObservedDesktop {
        self.wait(desktop, |d| d.phase == phase).await
    }

    /// The staging folder with a copy of the draft's disk.
    pub fn stage(&self, draft: &DraftId) {
        let disk = self.config.fast.join(layout::draft(draft));
        std::fs::create_dir_all(self.staging(draft)).unwrap();
        std::fs::copy(disk, self.staging(draft).join(layout::RELEASE_DISK)).unwrap();
    }

    pub fn staging(&self, draft: &DraftId) -> PathBuf {
        self.config.fast.join(layout::staging(draft))
    }

    pub async fn seal(&self, draft: &DraftId, ready_timeout_ms: u64) -> SealStatus {
        let request = SealRequest {
            size: SIZE,
            ready_timeout_ms,
        };
        let path = format!("/v1/seals/{draft}");
        self.client.put(&path, &request).await.unwrap()
    }

    pub async fn wait_seal(
        &self,
        draft: &DraftId,
        wanted: impl Fn(&SealStatus) -> bool,
    ) -> SealStatus {
        let began = std::time::Instant::now();
        let mut after = 0;
        while began.elapsed() < DEADLINE {
            let path = format!("/v1/watch?after={after}&wait_ms=1000");
            let observed: Observed = self.client.get(&path).await.unwrap();
            after = observed.revision;
            if let Some(seal) = observed.seals.iter().find(|s| &s.draft == draft)
                && wanted(seal)
            {
                return seal.clone();
            }
        }
        panic!("waited in vain: {:?}", self.observed().await.seals);
    }

    pub async fn sealed(&self, draft: &DraftId) -> SealOutcome {
        let status = self.wait_seal(draft, |s| s.outcome.is_some()).await;
        status.outcome.unwrap()
    }

    /// Machines whose guests run, with what they run as.
    pub fn going(&self) -> Vec<(DesktopId, u64)> {
        let going = self.world.going();
        going.into_iter().map(|(d, g)| (d, g.0)).collect()
    }

    pub fn alive(&self) -> Vec<(DesktopId, u64)> {
        let alive = self.world.alive();
        alive.into_iter().map(|(d, g)| (d, g.0)).collect()
    }
}

pub fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    result.unwrap_err().code().unwrap_or("none").to_owned()
}
