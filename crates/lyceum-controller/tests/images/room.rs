//! A classroom for images: the real controller, the real storage agent and a real host agent
//! over mutual TLS; only the machines are simulated. Between controller and agents is a gate
//! that can hold the n-th changing request, before or after it was carried out.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use lyceum_controller::auth::Origin;
use lyceum_controller::{App, ControllerConfig};
use lyceum_host::{HostConfig, Marks};
use lyceum_hypervisor::sim::{Fault, SimConfig, SimHypervisor, SimWorld};
use lyceum_model::{CourseId, DesktopId, DraftId, HostId, ImageId, Persistence, ReleaseId};
use lyceum_proto::storage::Inventory;
use lyceum_store::courses::{self, Course};
use lyceum_store::{agents, drafts, operations};
use lyceum_wire::{
    Access, ApiError, ClassroomCa, Client, ClientError, Identity, Peer, PeerKind, serve,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Longest wait for something that is to come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// When a request is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// It never reaches the agent.
    Before,
    /// The agent carried it out; the answer never comes back.
    After,
}

/// Holds one request for ever, and says so.
#[derive(Clone)]
pub struct Gate {
    armed: Arc<Mutex<Option<(u32, When)>>>,
    held: watch::Sender<Option<String>>,
}

impl Gate {
    fn new() -> Gate {
        Gate {
            armed: Arc::default(),
            held: watch::Sender::new(None),
        }
    }

    /// Holds the request that comes after `skip` others.
    pub fn arm(&self, skip: u32, when: When) {
        self.held.send_replace(None);
        *self.armed.lock().unwrap() = Some((skip, when));
    }

    pub fn open(&self) {
        *self.armed.lock().unwrap() = None;
        self.held.send_replace(None);
    }

    /// What is held.
    pub fn held(&self) -> Option<String> {
        self.held.borrow().clone()
    }

    fn hold_this(&self) -> Option<When> {
        let mut armed = self.armed.lock().unwrap();
        match &mut *armed {
            None => None,
            Some((0, when)) => {
                let when = *when;
                *armed = None;
                Some(when)
            }
            Some((skip, _)) => {
                *skip -= 1;
                None
            }
        }
    }

    async fn pass(
        &self,
        request: Request,
        carry_out: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        let what = format!("{} {}", request.method(), request.uri().path());
        // Desktops have tests of their own, an upload is not the reconcilers' doing, and a release is
        // verified on its hosts beside all of this, at any time.
        let counts = request.method() != axum::http::Method::GET
            && !what.contains("/v1/desktops")
            && !what.ends_with("/prepare")
            && !what.starts_with("PUT /v1/uploads");
        let hold = if counts { self.hold_this() } else { None };
        match hold {
            None => carry_out(request).await,
            Some(when) => {
                if when == When::After {
                    let answer = carry_out(request).await;
                    assert!(answer.status().as_u16() < 500, "{what}: {answer:?}");
                }
                self.held.send_replace(Some(what));
                std::future::pending().await
            }
        }
    }
}

pub struct Room {
    dir: tempfile::TempDir,
    pub app: App,
    pub world: SimWorld,
    pub gate: Gate,
    sim: SimConfig,
    storage: Option<(JoinHandle<()>, CancellationToken)>,
    storage_at: std::net::SocketAddr,
    host: Option<tokio::runtime::Runtime>,
    host_at: std::net::SocketAddr,
    reconcilers: Option<(JoinSet<()>, JoinSet<()>)>,
}

impl Drop for Room {
    fn drop(&mut self) {
        // A runtime may not be waited for inside another.
        if let Some(host) = self.host.take() {
            host.shutdown_background();
        }
    }
}

impl Room {
    pub async fn new() -> Room {
        Room::with(SimConfig::default()).await
    }

    pub async fn with(sim: SimConfig) -> Room {
        let dir = tempfile::Builder::new()
            .prefix("lyi")
            .tempdir_in("/tmp")
            .unwrap();
        for sub in ["fast", "slow", "storage", "host", "controller", "run"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        let app = App::open(ControllerConfig::local(
            dir.path().join("controller"),
            any,
            any,
        ))
        .await
        .unwrap();
        let mut room = Room {
            dir,
            app,
            world: SimWorld::new(),
            gate: Gate::new(),
            sim,
            storage: None,
            storage_at: any,
            host: None,
            host_at: any,
            reconcilers: None,
        };
        room.start_storage(0).await;
        room.start_host().await;
        room.start_gateway_to_host().await;
        room.start_controller();
        let direct = room
            .app
            .agents
            .host(&"kvm1".parse().unwrap())
            .await
            .unwrap();
        if let Err(e) = direct.get::<Value>("/v1/host").await {
            panic!("{e}");
        }
        room.until("the host is heard", async |room| {
            let hosts = agents::list(&room.app.store, "host").await.unwrap();
            hosts.iter().any(|h| h.facts.is_some())
        })
        .await;
        room
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    fn identity(&self, kind: PeerKind, name: &str) -> Identity {
        let ca = ClassroomCa::open_or_create(&self.path("controller")).unwrap();
        ca.issue(&Peer::new(kind, name.parse().unwrap()), &[])
            .unwrap()
    }

    async fn join(&self, name: &str, kind: &str, at: std::net::SocketAddr) {
        let id: HostId = name.parse().unwrap();
        let mut tx = self.app.store.begin_write().await.unwrap();
        agents::join(&mut tx, &id, kind, &format!("https://{at}"), 1)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    /// `reserve`: bytes that it keeps free; with more than there is, its tiers are full.
    pub async fn start_storage(&mut self, reserve: u64) {
        let config = lyceum_storage::StorageConfig {
            reserve_bytes: reserve,
            ..lyceum_storage::StorageConfig::new(
                self.storage_at,
                self.path("storage"),
                self.path("fast"),
                self.path("slow"),
            )
        };
        let agent = lyceum_storage::Agent::open(config).await.unwrap();
        let listener = TcpListener::bind(self.storage_at).await.unwrap();
        self.storage_at = listener.local_addr().unwrap();
        let router = agent.router().layer(from_fn_with_state(
            self.gate.clone(),
            async |State(gate): State<Gate>, request: Request, next: Next| {
                gate.pass(request, async |request| next.run(request).await)
                    .await
            },
        ));
        let identity = self.identity(PeerKind::Storage, "files");
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            serve(
                listener,
                router,
                &identity,
                Access::Only(vec![PeerKind::Controller]),
                token,
            )
            .await
            .unwrap();
            agent.close().await;
        });
        self.storage = Some((task, stop));
        self.join("files", "storage", self.storage_at).await;
    }

    pub async fn stop_storage(&mut self) {
        let (task, stop) = self.storage.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    pub async fn start_host(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            // A killed one may still be letting go of it.
            match std::net::TcpListener::bind(self.host_at) {
                Ok(listener) => break listener,
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        listener.set_nonblocking(true).unwrap();
        self.host_at = listener.local_addr().unwrap();
        let config = HostConfig {
            power_off: None,
            replica: None,
            name: "kvm1".parse().unwrap(),
            listen: self.host_at,
            state_dir: self.path("host"),
            run_dir: self.path("run"),
            fast: self.path("fast"),
            slow: self.path("slow"),
            memory_mib: Some(8192),
            // The machine that runs the tests may be short of memory; that is not what they are about.
            marks: Marks {
                available_mib: 0,
                refuse_mib: 0,
                pressure_percent: 1000.0,
                ..Marks::default()
            },
            starts: Some(4),
            cold_ready_ms: 600_000,
            moves: 2,
            migration: None,
            sample_ms: 100,
            user: None,
            network: None,
            simulated: true,
        };
        let hypervisor = Arc::new(SimHypervisor::new(self.world.clone(), self.sim.clone()));
        let identity = self.identity(PeerKind::Host, "kvm1");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let never = CancellationToken::new();
            lyceum_host::run_on(config, hypervisor, identity, listener, never)
                .await
                .unwrap();
        });
        self.host = Some(runtime);
    }

    /// As `kill -9`: nothing of it goes on.
    pub fn kill_host(&mut self) {
        self.host.take().unwrap().shutdown_background();
    }

    /// The controller knows the host by the gate's address; the gate passes on what it lets through.
    async fn start_gateway_to_host(&self) {
        let controller = self.identity(PeerKind::Controller, "controller");
        let host = Peer::new(PeerKind::Host, "kvm1".parse().unwrap());
        let client = Client::new(&controller, &format!("https://{}", self.host_at), &host).unwrap();
        let router = Router::new()
            .route("/{*path}", axum::routing::any(forward))
            .with_state((self.gate.clone(), client));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let identity = self.identity(PeerKind::Host, "kvm1");
        tokio::spawn(async move {
            let only = Access::Only(vec![PeerKind::Controller]);
            serve(listener, router, &identity, only, CancellationToken::new())
                .await
                .unwrap();
        });
        self.join("kvm1", "host", at).await;
    }

    pub fn start_controller(&mut self) {
        let app = &self.app;
        self.reconcilers = Some((
            lyceum_controller::reconcile::spawn(app),
            lyceum_controller::drafts::spawn(app),
        ));
    }

    /// Nothing of the reconcilers goes on: the store and the agents are all that is left.
    pub async fn kill_controller(&mut self) {
        let (mut one, mut other) = self.reconcilers.take().unwrap();
        one.shutdown().await;
        other.shutdown().await;
    }

    /// A request over the local socket.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value, (u16, Value)> {
        let body = serde_json::to_vec(&body).unwrap();
        self.send_bytes(
            method,
            path,
            "application/json",
            body.len(),
            Body::from(body),
        )
        .await
    }

    pub async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        length: usize,
        body: Body,
    ) -> Result<Value, (u16, Value)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header("host", "localhost")
            .header("content-type", kind)
            .header("content-length", length)
            .body(body)
            .unwrap();
        request.extensions_mut().insert(Origin::Socket);
        let router = lyceum_controller::api::router(self.app.clone());
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        if (200..300).contains(&status) {
            Ok(value)
        } else {
            Err((status, value))
        }
    }

    pub async fn get(&self, path: &str) -> Value {
        self.send("GET", path, Value::Null).await.unwrap()
    }

    pub async fn image(&self, name: &str) -> ImageId {
        let image = self
            .send("POST", "images", json!({"name": name}))
            .await
            .unwrap();
        image["id"].as_str().unwrap().parse().unwrap()
    }

    /// An order that answers with an operation.
    pub async fn order(&self, method: &str, path: &str, body: Value) -> (Value, String) {
        let answer = self.send(method, path, body).await.unwrap();
        let operation = answer["operation"].as_str().unwrap().to_owned();
        (answer, operation)
    }

    /// A draft with an empty disk; answers at once.
    pub async fn begin_draft(&self, image: &ImageId, source: Value) -> (DraftId, String) {
        let (answer, operation) = self
            .order(
                "POST",
                &format!("images/{image}/draft"),
                json!({"source": source}),
            )
            .await;
        (
            answer["draft"]["id"].as_str().unwrap().parse().unwrap(),
            operation,
        )
    }

    pub async fn ready_draft(&self, image: &ImageId) -> DraftId {
        let (draft, operation) = self
            .begin_draft(image, json!({"from": "empty", "disk_gib": 1}))
            .await;
        assert_eq!(self.ended(&operation).await["state"], "done");
        draft
    }

    pub async fn seal(&self, draft: &DraftId) -> String {
        self.order(
            "POST",
            &format!("drafts/{draft}/seal"),
            json!({"note": "n"}),
        )
        .await
        .1
    }

    /// A release, the whole way.
    pub async fn release(&self, image: &ImageId) -> ReleaseId {
        let draft = self.ready_draft(image).await;
        let ended = self.ended(&self.seal(&draft).await).await;
        assert_eq!(ended["state"], "done", "{ended}");
        let image = self.get(&format!("images/{image}")).await;
        image["releases"][0]["id"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    pub async fn upload(
        &self,
        draft: &DraftId,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<Value, (u16, Value)> {
        let length = bytes.len();
        let path = format!("drafts/{draft}/upload?name={name}");
        self.send_bytes(
            "PUT",
            &path,
            "application/octet-stream",
            length,
            Body::from(bytes),
        )
        .await
    }

    /// A draft that waits for an upload.
    pub async fn empty_draft(&self, image: &ImageId) -> DraftId {
        let answer = self
            .send(
                "POST",
                &format!("images/{image}/draft"),
                json!({"source": {"from": "upload"}}),
            )
            .await
            .unwrap();
        assert_eq!(answer["operation"], Value::Null);
        answer["draft"]["id"].as_str().unwrap().parse().unwrap()
    }

    /// The operation, once it is over.
    pub async fn ended(&self, operation: &str) -> Value {
        let path = format!("operations/{operation}");
        self.until(&format!("{path} ends"), async |room| {
            room.get(&path).await["state"] != "running"
        })
        .await;
        self.get(&path).await
    }

    pub async fn idle(&self, draft: &DraftId) {
        self.until("the draft has no work", async |room| {
            drafts::get(&room.app.store, draft)
                .await
                .unwrap()
                .is_none_or(|d| d.work.is_none())
        })
        .await;
    }

    pub async fn until(&self, what: &str, check: impl AsyncFn(&Room) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !check(self).await {
            if Instant::now() > deadline {
                let drafts = drafts::all(&self.app.store).await.unwrap();
                let running = operations::running(&self.app.store).await.unwrap();
                panic!("{what}: did not come about\n{drafts:#?}\n{running:#?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn inventory(&self) -> Inventory {
        self.app
            .agents
            .storage()
            .await
            .unwrap()
            .get("/v1/inventory")
            .await
            .unwrap()
    }

    /// On the tiers is what the store knows, and no machine and no seal is left.
    pub async fn nothing_left(&self, context: &str) {
        let inventory = self.inventory().await;
        let mut releases: Vec<_> = lyceum_store::releases::all(&self.app.store)
            .await
            .unwrap()
            .into_iter()
            .map(|r| r.id)
            .collect();
        releases.sort();
        let mut there = inventory.releases;
        there.sort();
        assert_eq!(there, releases, "{context}: releases");
        assert!(
            inventory.staging.is_empty(),
            "{context}: {:?}",
            inventory.staging
        );
        assert!(
            inventory.uploads.is_empty(),
            "{context}: {:?}",
            inventory.uploads
        );
        let known: Vec<_> = drafts::all(&self.app.store)
            .await
            .unwrap()
            .into_iter()
            .filter(|d| d.state == drafts::State::Ready)
            .map(|d| d.id)
            .collect();
        assert_eq!(inventory.drafts, known, "{context}: drafts");
        assert!(
            self.world.alive().is_empty(),
            "{context}: {:?}",
            self.world.alive()
        );
        let host = self
            .app
            .agents
            .host(&"kvm1".parse().unwrap())
            .await
            .unwrap();
        let observed: lyceum_proto::host::Observed =
            host.get("/v1/watch?after=0&wait_ms=0").await.unwrap();
        assert!(observed.seals.is_empty(), "{context}: {:?}", observed.seals);
        // What a draft was published as is forgotten with the draft.
        let mine = known
            .iter()
            .map(|d| format!("{d}.json"))
            .collect::<Vec<_>>();
        for folder in ["fast/published", "fast/imports"] {
            let left: Vec<_> = std::fs::read_dir(self.path(folder))
                .map(|dir| dir.flatten().map(|e| e.file_name()).collect())
                .unwrap_or_default();
            let left: Vec<_> = left
                .into_iter()
                .filter(|name| !mine.iter().any(|m| name == m.as_str()))
                .collect();
            assert!(left.is_empty(), "{context}: {folder} holds {left:?}");
        }
    }

    /// Something goes wrong with the machines of a draft's seal from now on.
    pub fn seal_fault(&self, draft: &DraftId, fault: Option<Fault>) {
        let desktop: DesktopId = format!("seal-{draft}").parse().unwrap();
        self.world.set_fault(&desktop, fault);
    }

    pub async fn setting(&self, key: &str, value: Value) {
        let mut tx = self.app.store.begin_write().await.unwrap();
        lyceum_store::settings::set(&mut tx, key, &value)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn course(&self, name: &str, image: &ImageId, release: Option<&ReleaseId>) -> Course {
        let course = Course {
            id: CourseId::new(),
            name: name.into(),
            image: image.clone(),
            release: release.cloned(),
            size: None,
            persistence: Persistence::Throwaway,
            outside: false,
            spice: false,
            deleting: false,
            created: 1,
        };
        let mut tx = self.app.store.begin_write().await.unwrap();
        courses::put(&mut tx, &course).await.unwrap();
        tx.commit().await.unwrap();
        course
    }
}

async fn forward(State((gate, client)): State<(Gate, Client)>, request: Request) -> Response {
    gate.pass(request, async |request| {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().unwrap().as_str();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let client = client.timeout(Duration::from_secs(60));
        let answer: Result<Value, ClientError> = match parts.method.as_str() {
            "GET" => client.get(path).await,
            "PUT" => client.put(path, &body).await,
            "POST" => client.post(path, &body).await,
            _ => client.delete(path).await,
        };
        match answer {
            Ok(value) => axum::Json(value).into_response(),
            Err(ClientError::Refused { body, .. }) => ApiError::from(body).into_response(),
            // The host is not there: neither is the gateway.
            Err(e) => ApiError::new("unavailable", e.to_string()).into_response(),
        }
    })
    .await
}
