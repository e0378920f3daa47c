//! A classroom's CA, tiers with a release, and a host agent that can be killed and started again.

use lyceum_host::{HostConfig, TIER_MARKER};
use lyceum_hypervisor::sim::{SimConfig, SimHypervisor, SimWorld};
use lyceum_model::disk::layout;
use lyceum_model::release::FileEntry;
use lyceum_model::{
    DesktopId, DiskRef, Durability, Generation, MachineSize, OverlayId, Phase, Platform, ReleaseId,
    ReleaseManifest, SealedMemory,
};
use lyceum_proto::host::{
    IdentityRequest, NicRequest, Observed, ObservedDesktop, RunRequest, SaveRequest, SavedDelta,
    StartMode, StopRequest,
};
use lyceum_wire::{ClassroomCa, Client, ClientError, Identity, Peer, PeerKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SIZE: MachineSize = MachineSize {
    vcpus: 1,
    memory_mib: 128,
};
const DEADLINE: Duration = Duration::from_secs(20);

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
    agent: Option<(JoinHandle<()>, CancellationToken)>,
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
            sample_ms: 50,
            user: None,
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
            agent: None,
            dir,
        };
        lab.release = lab.make_release(b"some memory");
        lab
    }

    pub fn hypervisor(&self) -> SimHypervisor {
        SimHypervisor::new(self.world.clone(), self.sim.clone())
    }

    pub fn platform(&self) -> Platform {
        lyceum_hypervisor::Hypervisor::platform(&self.hypervisor())
    }

    pub fn make_release(&self, ram: &[u8]) -> ReleaseId {
        let folder = self.dir.path().join("new-release");
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, content: &[u8]| {
            std::fs::write(folder.join(name), content).unwrap();
            FileEntry {
                bytes: content.len() as u64,
                blake3: blake3::hash(content).to_hex().to_string(),
            }
        };
        let manifest = ReleaseManifest {
            format: ReleaseManifest::FORMAT,
            sealed_at: 1,
            disk: file(layout::RELEASE_DISK, b"a disk"),
            virtual_bytes: 4096,
            memory: Some(SealedMemory {
                size: SIZE,
                platform: self.platform(),
                ram: file(layout::RELEASE_RAM, ram),
                device_state: file(layout::RELEASE_DEVICE_STATE, b"some devices"),
                guest_helper: true,
            }),
            cold_reason: None,
        };
        let json = manifest.canonical_json().unwrap();
        std::fs::write(folder.join(layout::RELEASE_MANIFEST), &json).unwrap();
        let id: ReleaseId = blake3::hash(&json).to_hex().to_string().parse().unwrap();
        std::fs::rename(&folder, self.config.fast.join(layout::release(&id))).unwrap();
        id
    }

    pub async fn start(&mut self) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let (config, hypervisor) = (self.config.clone(), Arc::new(self.hypervisor()));
        let (identity, token) = (self.host.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            lyceum_host::run_on(config, hypervisor, identity, listener, token)
                .await
                .unwrap();
        });
        self.agent = Some((task, shutdown));
        self.client = Client::new(&self.controller, &url, self.client.peer()).unwrap();
    }

    /// The agent is gone in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let (task, _) = self.agent.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// SIGTERM.
    pub async fn shut_down(&mut self) {
        let (task, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }

    /// A disk of its own for the desktop, and a request to fork the release over it.
    pub fn fork(&self, desktop: &str, generation: u64) -> RunRequest {
        let overlay: OverlayId = format!("o-{desktop}").parse().unwrap();
        std::fs::write(self.config.slow.join(layout::overlay(&overlay)), b"overlay").unwrap();
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
            }),
            vm_generation_id: uuid::Uuid::new_v4(),
            ready_timeout_ms: 10_000,
        }
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

    pub fn alive(&self) -> Vec<(DesktopId, u64)> {
        let alive = self.world.alive();
        alive.into_iter().map(|(d, g)| (d, g.0)).collect()
    }
}

pub fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    result.unwrap_err().code().unwrap_or("none").to_owned()
}
