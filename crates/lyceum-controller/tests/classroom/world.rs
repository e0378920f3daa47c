//! The classroom that the tests of this folder use.

use lyceum_controller::{Controller, ControllerConfig};
use lyceum_host::{HostConfig, Marks};
use lyceum_hypervisor::sim::{SimConfig, SimEventKind, SimHypervisor, SimWorld};
use lyceum_model::disk::layout;
use lyceum_model::release::FileEntry;
use lyceum_model::{
    Accelerator, CourseId, HostId, ImageId, MachineSize, Persistence, Platform, ReleaseId,
    ReleaseManifest, SealedMemory, UserId,
};
use lyceum_store::courses::{Course, MemberRole};
use lyceum_store::images::Image;
use lyceum_store::releases::NewRelease;
use lyceum_store::users::{Role, User};
use lyceum_store::{Store, agents, courses, images, releases, users};
use lyceum_wire::{ClassroomCa, Peer, PeerKind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Longest wait for something that is to come about.
const PATIENCE: Duration = Duration::from_secs(90);
const HOSTS: [&str; 3] = ["kvm1", "kvm2", "kvm3"];

pub struct Classroom {
    dir: tempfile::TempDir,
    client: Runtime,
    http: reqwest::Client,
    controller: Option<Runtime>,
    hosts: BTreeMap<String, (Runtime, SocketAddr)>,
    storage: Option<Runtime>,
    storage_address: SocketAddr,
    world: SimWorld,
    sim: SimConfig,
    course: CourseId,
    teacher: UserId,
    release: ReleaseId,
    /// The controller's, over its restarts.
    clock: lyceum_controller::config::Clock,
    /// Other than SQLite in the controller's directory.
    store_url: Option<String>,
    /// Of the controller's next start: where people reach it, and for how long consoles stay open.
    pub listen: IpAddr,
    pub limits: lyceum_controller::ConsoleLimits,
    /// The page.
    page: Option<SocketAddr>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A free port of a loopback address of its own: while an agent is down, neither another test nor a
/// connection that somebody opens is given its port.
fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let n = TAKEN.fetch_add(1, Ordering::Relaxed);
    let process = (std::process::id() % 100) as u8;
    let ip = [127, 100 + process, (n / 250) as u8, (n % 250) as u8 + 1];
    let any = SocketAddr::from((ip, 0));
    std::net::TcpListener::bind(any)
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits until what listened there before, and was killed, has let go of it.
fn wait_until_free(address: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    while let Err(e) = std::net::TcpListener::bind(address) {
        assert!(Instant::now() < until, "{address}: {e}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Classroom {
    /// With this many students; machines come up at once.
    pub fn new(students: usize) -> Classroom {
        Self::with(
            students,
            SimConfig {
                fork_ms: 20,
                ..SimConfig::default()
            },
        )
    }

    /// Machines take a second to come up.
    pub fn slow(students: usize) -> Classroom {
        Self::with(
            students,
            SimConfig {
                fork_ms: 1500,
                ..SimConfig::default()
            },
        )
    }

    /// Machines behave like this.
    pub fn simulated(students: usize, sim: SimConfig) -> Classroom {
        Self::with(students, sim)
    }

    /// What outlives agents.
    pub fn sim_world(&self) -> SimWorld {
        self.world.clone()
    }

    fn with(students: usize, sim: SimConfig) -> Classroom {
        Self::with_store(students, sim, None)
    }

    /// Everything is in the store with this URL.
    pub fn with_store(students: usize, sim: SimConfig, store_url: Option<String>) -> Classroom {
        let dir = tempfile::Builder::new()
            .prefix("lyc")
            .tempdir_in("/tmp")
            .unwrap();
        let client = runtime();
        let course = CourseId::new();
        let teacher = UserId::new();
        for sub in ["fast", "slow", "storage", "controller", "run"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let socket = dir.path().join("controller").join("controller.sock");
        lyceum_wire_provider();
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .build()
            .unwrap();
        let mut room = Classroom {
            client,
            http,
            controller: None,
            hosts: BTreeMap::new(),
            storage: None,
            storage_address: free_address(),
            world: SimWorld::new(),
            sim,
            course,
            teacher,
            release: "none".parse().unwrap(),
            clock: Default::default(),
            store_url,
            listen: IpAddr::from([127, 0, 0, 1]),
            limits: Default::default(),
            page: None,
            dir,
        };
        room.start_storage();
        room.release = room.write_release();
        room.fill_store(students);
        for host in HOSTS {
            room.start_host(host);
        }
        room.start_controller();
        room.until("all parts are heard", |room| {
            let health = room.get("health");
            health["hosts_online"] == 3 && health["storage_online"] == true
        });
        room
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    fn ca(&self) -> ClassroomCa {
        ClassroomCa::open_or_create(&self.path("controller")).unwrap()
    }

    fn start_storage(&mut self) {
        let state = self.path("storage");
        let peer = Peer::new(PeerKind::Storage, "storage".parse().unwrap());
        if lyceum_wire::Identity::load(&state).unwrap().is_none() {
            self.ca()
                .issue(&peer, &[self.storage_address.ip().to_string()])
                .unwrap()
                .save(&state)
                .unwrap();
        }
        let config = lyceum_storage::StorageConfig {
            reserve_bytes: 0,
            ..lyceum_storage::StorageConfig::new(
                self.storage_address,
                state,
                self.path("fast"),
                self.path("slow"),
            )
        };
        wait_until_free(self.storage_address);
        let runtime = runtime();
        runtime.spawn(async move {
            lyceum_storage::run(config, CancellationToken::new())
                .await
                .unwrap();
        });
        self.storage = Some(runtime);
        let marker = self.path("slow").join(".lyceum-tier");
        let until = Instant::now() + PATIENCE;
        while !marker.exists() {
            assert!(Instant::now() < until, "the storage agent makes no tiers");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn start_host(&mut self, name: &str) {
        let id: HostId = name.parse().unwrap();
        let address = self.hosts.get(name).map_or_else(free_address, |(_, a)| *a);
        let state = self.path(name);
        std::fs::create_dir_all(&state).unwrap();
        if lyceum_wire::Identity::load(&state).unwrap().is_none() {
            let peer = Peer::new(PeerKind::Host, id.clone());
            self.ca()
                .issue(&peer, &[address.ip().to_string()])
                .unwrap()
                .save(&state)
                .unwrap();
        }
        let text = format!(
            "name = {name:?}\nlisten = \"{address}\"\nstate_dir = {:?}\nrun_dir = {:?}\nfast = {:?}\nslow = {:?}\nmemory_mib = 8192\nsample_ms = 200\n",
            state,
            self.path("run").join(name),
            self.path("fast"),
            self.path("slow"),
        );
        let mut config: HostConfig = toml::from_str(&text).unwrap();
        // The machine that runs the tests may be short of memory; that is not what they are about.
        config.marks = Marks {
            available_mib: 0,
            refuse_mib: 0,
            pressure_percent: 1000.0,
            ..Marks::default()
        };
        let flag = self.power_flag(name).display().to_string();
        config.power_off = Some(vec!["touch".into(), flag]);
        let hypervisor = Arc::new(SimHypervisor::new(self.world.clone(), self.sim.clone()));
        wait_until_free(address);
        let runtime = runtime();
        runtime.spawn(async move {
            lyceum_host::run(config, hypervisor, CancellationToken::new())
                .await
                .unwrap();
        });
        self.hosts.insert(name.to_owned(), (runtime, address));
        let store = self.store();
        self.client.block_on(async {
            let mut tx = store.begin_write().await.unwrap();
            agents::join(&mut tx, &id, "host", &format!("https://{address}"), 1)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        });
    }

    /// There while the host's machine is off.
    pub fn power_flag(&self, host: &str) -> PathBuf {
        self.path(&format!("{host}.off"))
    }

    /// As `kill -9`: nothing of it runs on, nothing is told.
    pub fn kill_host(&mut self, name: &str) {
        let (runtime, address) = self.hosts.remove(name).unwrap();
        runtime.shutdown_background();
        // Its port is kept for the next start.
        self.hosts
            .insert(name.to_owned(), (self::runtime(), address));
    }

    pub fn start_controller(&mut self) {
        let any = SocketAddr::new(self.listen, 0);
        let agents = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ControllerConfig {
            store_url: self.store_url.clone(),
            native_listen: Some(any),
            console: self.limits,
            clock: self.clock.clone(),
            power_commands: BTreeMap::from([(
                "test".to_owned(),
                vec![
                    "rm".to_owned(),
                    "-f".to_owned(),
                    self.path("{host}.off").display().to_string(),
                ],
            )]),
            spice_listen: Some(any),
            ..ControllerConfig::local(self.path("controller"), any, agents)
        };
        let runtime = runtime();
        let until = Instant::now() + PATIENCE;
        let controller = loop {
            // A killed one may hold its lock for a moment.
            match runtime.block_on(Controller::bind(config.clone())) {
                Ok(controller) => break controller,
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.page = Some(controller.address());
        runtime.spawn(controller.serve(std::future::pending()));
        self.controller = Some(runtime);
    }

    /// As `kill -9`.
    pub fn kill_controller(&mut self) {
        self.controller.take().unwrap().shutdown_background();
    }

    pub fn store(&self) -> Store {
        let url = self.store_url.clone().unwrap_or_else(|| {
            format!(
                "sqlite:{}",
                self.path("controller").join("lyceum.db").display()
            )
        });
        self.client.block_on(Store::open(&url)).unwrap()
    }

    fn write_release(&self) -> ReleaseId {
        let staging = self.path("fast").join("new");
        std::fs::create_dir_all(&staging).unwrap();
        let disk = staging.join(layout::RELEASE_DISK);
        let made = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&disk)
            .arg("1G")
            .status()
            .expect("qemu-img is needed: scripts/setup installs it");
        assert!(made.success());
        std::fs::write(staging.join(layout::RELEASE_RAM), b"ram").unwrap();
        std::fs::write(staging.join(layout::RELEASE_DEVICE_STATE), b"devices").unwrap();
        let entry = |name: &str| {
            let bytes = std::fs::read(staging.join(name)).unwrap();
            FileEntry {
                bytes: bytes.len() as u64,
                blake3: blake3::hash(&bytes).to_hex().to_string(),
            }
        };
        let manifest = ReleaseManifest {
            format: ReleaseManifest::FORMAT,
            sealed_at: 1,
            disk: entry(layout::RELEASE_DISK),
            virtual_bytes: 1 << 30,
            memory: Some(SealedMemory {
                size: MachineSize {
                    vcpus: 1,
                    memory_mib: 256,
                },
                platform: Platform {
                    qemu_version: "0.0.0".into(),
                    machine_type: "simulated-1".into(),
                    cpu_model: "simulated".into(),
                    accelerator: Accelerator::Simulated,
                },
                ram: entry(layout::RELEASE_RAM),
                device_state: entry(layout::RELEASE_DEVICE_STATE),
                guest_helper: true,
            }),
            cold_reason: None,
        };
        let json = manifest.canonical_json().unwrap();
        std::fs::write(staging.join(layout::RELEASE_MANIFEST), &json).unwrap();
        let id: ReleaseId = blake3::hash(&json).to_hex().to_string().parse().unwrap();
        let home = self.path("fast").join(layout::release(&id));
        std::fs::create_dir_all(home.parent().unwrap()).unwrap();
        std::fs::rename(&staging, &home).unwrap();
        id
    }

    fn fill_store(&self, students: usize) {
        let store = self.store();
        let manifest_path = self
            .path("fast")
            .join(layout::release(&self.release))
            .join(layout::RELEASE_MANIFEST);
        let manifest: ReleaseManifest =
            serde_json::from_slice(&std::fs::read(manifest_path).unwrap()).unwrap();
        self.client.block_on(async {
            let image = ImageId::new();
            let mut tx = store.begin_write().await.unwrap();
            let new = Image {
                id: image.clone(),
                name: "Demo".into(),
                description: String::new(),
                created: 1,
            };
            images::insert(&mut tx, &new).await.unwrap();
            releases::insert(
                &mut tx,
                &NewRelease {
                    id: &self.release,
                    image: &image,
                    manifest: &manifest,
                    bytes_on_disk: 1,
                    note: "",
                    sealed_by: "test",
                    sealed_at: 1,
                },
            )
            .await
            .unwrap();
            let course = Course {
                id: self.course.clone(),
                name: "Programming".into(),
                image,
                release: None,
                size: None,
                persistence: Persistence::Throwaway,
                outside: false,
                spice: false,
                deleting: false,
                created: 1,
            };
            courses::put(&mut tx, &course).await.unwrap();
            let mut person = async |id: UserId, login: String, role: Role, member: MemberRole| {
                let user = User {
                    id: id.clone(),
                    name: login.clone(),
                    login,
                    role,
                    source: "local".into(),
                    password_hash: None,
                    disabled: false,
                    deleting: false,
                    created: 1,
                };
                users::insert(&mut tx, &user).await.unwrap();
                courses::put_member(&mut tx, &self.course, &id, member)
                    .await
                    .unwrap();
            };
            person(
                self.teacher.clone(),
                "teacher".into(),
                Role::Teacher,
                MemberRole::Teacher,
            )
            .await;
            for n in 0..students {
                person(
                    UserId::new(),
                    format!("s{n:02}"),
                    Role::Student,
                    MemberRole::Student,
                )
                .await;
            }
            let storage = "storage".parse().unwrap();
            let url = format!("https://{}", self.storage_address);
            agents::join(&mut tx, &storage, "storage", &url, 1)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        });
    }

    pub fn course(&self) -> String {
        self.course.to_string()
    }

    /// The controller's local socket.
    pub fn socket(&self) -> PathBuf {
        self.path("controller").join("controller.sock")
    }

    /// Where people reach it.
    pub fn page(&self) -> SocketAddr {
        self.page.unwrap()
    }

    /// Runs something asynchronous beside the classroom.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.client.block_on(work)
    }

    /// From now on the controller's clock goes on from this time, milliseconds since 1970.
    pub fn set_clock(&self, now: i64) {
        let machine = jiff::Timestamp::now().as_millisecond();
        self.clock.set_ahead(now - machine);
    }

    pub fn teacher(&self) -> String {
        self.teacher.to_string()
    }

    /// A request on the local socket; the error is the status with the answer.
    pub fn send(&self, method: &str, path: &str, body: Value) -> Result<Value, (u16, Value)> {
        self.client.block_on(async {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let url = format!("http://localhost/api/v1/{path}");
            let until = Instant::now() + PATIENCE;
            let response = loop {
                let mut request = self.http.request(method.clone(), &url);
                if method != reqwest::Method::GET {
                    request = request.json(&body);
                }
                match request.send().await {
                    Ok(response) => break response,
                    // The controller is being started.
                    Err(e) => assert!(Instant::now() < until, "{e:?}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            let status = response.status();
            let body: Value = response.json().await.unwrap_or(Value::Null);
            if status.is_success() {
                Ok(body)
            } else {
                Err((status.as_u16(), body))
            }
        })
    }

    /// What is no JSON.
    pub fn download(&self, path: &str) -> Vec<u8> {
        let url = format!("http://localhost/api/v1/{path}");
        self.client.block_on(async {
            let response = self.http.get(url).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            response.bytes().await.unwrap().to_vec()
        })
    }

    pub fn get(&self, path: &str) -> Value {
        self.send("GET", path, Value::Null)
            .unwrap_or_else(|e| panic!("{path}: {e:?}"))
    }

    /// Waits for the operation to end and answers it.
    pub fn wait(&self, accepted: &Value) -> Value {
        let id = accepted["operation"].as_str().unwrap().to_owned();
        self.until("the operation ends", |room| {
            room.get(&format!("operations/{id}"))["state"] != "running"
        });
        self.get(&format!("operations/{id}"))
    }

    /// An order to the class, reached.
    pub fn order(&mut self, what: &str, body: Value) {
        let accepted = self
            .send("POST", &format!("courses/{}/{what}", self.course), body)
            .expect("accepted");
        let ended = self.wait(&accepted);
        assert_eq!(
            ended["state"],
            "done",
            "{what}: {ended}\n{:#?}",
            self.desktops()
        );
    }

    /// An order to one desktop, reached.
    pub fn order_one(&mut self, id: &str, what: &str) {
        let accepted = self
            .send("POST", &format!("desktops/{id}/{what}"), json!({}))
            .expect("accepted");
        let ended = self.wait(&accepted);
        assert_eq!(ended["state"], "done", "{what}: {ended}");
    }

    pub fn desktops(&self) -> Vec<Value> {
        self.get(&format!("desktops?course={}", self.course))
            .as_array()
            .unwrap()
            .clone()
    }

    /// Polls until it is so.
    #[track_caller]
    pub fn until(&self, what: &str, mut so: impl FnMut(&Classroom) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < until, "not reached: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn names_in(&self, folder: &str) -> BTreeSet<String> {
        std::fs::read_dir(self.path("slow").join(folder))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    pub fn overlays(&self) -> BTreeSet<String> {
        self.names_in("overlays")
    }

    pub fn deltas(&self) -> BTreeSet<String> {
        self.names_in("deltas")
    }

    /// How many machines were ever started.
    pub fn machine_starts(&self) -> usize {
        self.world
            .events()
            .iter()
            .filter(|e| {
                matches!(
                    e.what,
                    SimEventKind::Forked
                        | SimEventKind::Resumed
                        | SimEventKind::HandedOut
                        | SimEventKind::Booted
                )
            })
            .count()
    }

    /// There are this many machines, of different desktops. (Two on one disk are refused by the
    /// simulated hypervisor itself, as QEMU does.)
    #[track_caller]
    pub fn check_one_machine_each(&self, count: usize) {
        let alive = self.world.alive();
        let different: BTreeSet<_> = alive.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!((alive.len(), different.len()), (count, count), "{alive:?}");
    }

    pub fn crash(&self, desktop: &str) {
        self.world.crash(&desktop.parse().unwrap());
    }

    /// Starts the file server again with more kept free than there is.
    pub fn fill_slow_tier(&mut self) {
        self.storage
            .take()
            .unwrap()
            .shutdown_timeout(Duration::from_secs(5));
        let config = lyceum_storage::StorageConfig {
            reserve_bytes: u64::MAX / 2,
            ..lyceum_storage::StorageConfig::new(
                self.storage_address,
                self.path("storage"),
                self.path("fast"),
                self.path("slow"),
            )
        };
        wait_until_free(self.storage_address);
        let runtime = runtime();
        runtime.spawn(async move {
            lyceum_storage::run(config, CancellationToken::new())
                .await
                .unwrap();
        });
        self.storage = Some(runtime);
    }

    pub fn release(&self) -> ReleaseId {
        self.release.clone()
    }

    /// As `kill -9` of the file server, and another start.
    pub fn restart_storage(&mut self) {
        // Its locks are given up when its tasks are gone.
        self.storage
            .take()
            .unwrap()
            .shutdown_timeout(Duration::from_secs(5));
        self.start_storage();
    }

    pub fn flip_a_byte_of_the_release(&self) {
        let ram = self
            .path("fast")
            .join(layout::release(&self.release))
            .join(layout::RELEASE_RAM);
        flip(&ram);
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[0] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// reqwest wants a provider even for plain HTTP.
fn lyceum_wire_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Drop for Classroom {
    fn drop(&mut self) {
        let hosts = std::mem::take(&mut self.hosts)
            .into_values()
            .map(|(runtime, _)| runtime);
        for runtime in self
            .controller
            .take()
            .into_iter()
            .chain(self.storage.take())
            .chain(hosts)
        {
            runtime.shutdown_background();
        }
    }
}
