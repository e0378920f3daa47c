//! A file server with a real storage agent in it, asked as the controller asks.

use crate::guest::{Disk, Guest, PATIENCE, Plan, payload};
use axum::body::Bytes;
use lyceum_proto::storage::{ImportOutcome, ImportStatus, OverlayFacts, Published, StorageFacts};
use lyceum_wire::{ClassroomCa, Client, ClientError, Identity, Peer, PeerKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The certificates, the program and the folder of one test.
pub struct Lab {
    pub folder: TempDir,
    pub payload: PathBuf,
    controller: Identity,
    storage: Peer,
    runtime: Runtime,
}

/// The disks of the paper's file server, small.
pub fn disks(fast_mb: u64, slow_mb: u64) -> Vec<Disk> {
    vec![
        Disk {
            name: "ssd0",
            megabytes: fast_mb,
            rotational: false,
        },
        Disk {
            name: "hdd0",
            megabytes: slow_mb,
            rotational: true,
        },
    ]
}

pub fn file_server(disks: Vec<Disk>) -> Plan {
    Plan {
        name: "files",
        disk_network: "10.77.0.1/24",
        hub: true,
        memory_mb: 768,
        disks,
    }
}

impl Lab {
    pub fn new() -> Lab {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new()
            .prefix("lyceum-files-")
            .tempdir()
            .unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["ca", "identity", "host"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let ca = ClassroomCa::open_or_create(&at("ca")).unwrap();
        let storage = Peer::new(PeerKind::Storage, "storage".parse().unwrap());
        let local = ["127.0.0.1".to_owned()];
        ca.issue(&storage, &local)
            .unwrap()
            .save(&at("identity"))
            .unwrap();
        let host = Peer::new(PeerKind::Host, "host-1".parse().unwrap());
        ca.issue(&host, &local).unwrap().save(&at("host")).unwrap();
        let controller = ca.controller_identity(&local).unwrap();
        // Without what only a debugger reads: the guest loads it through an emulated disk.
        let program = at("lyceum");
        let stripped = std::process::Command::new("strip")
            .arg("-o")
            .arg(&program)
            .arg(env!("CARGO_BIN_EXE_lyceum"))
            .status();
        if !stripped.is_ok_and(|status| status.success()) {
            std::fs::copy(env!("CARGO_BIN_EXE_lyceum"), &program).unwrap();
        }
        let payload = payload(
            folder.path(),
            &[
                ("lyceum", program),
                ("identity", at("identity")),
                ("host", at("host")),
            ],
        );
        let runtime = Runtime::new().unwrap();
        Lab {
            folder,
            payload,
            controller,
            storage,
            runtime,
        }
    }

    pub fn boot(&self, plan: Plan) -> Guest {
        Guest::boot(plan, self.folder.path(), &self.payload)
    }

    pub fn agent(&self, guest: &Guest) -> Agent<'_> {
        let url = format!("https://127.0.0.1:{}", guest.port);
        Agent {
            client: Client::new(&self.controller, &url, &self.storage)
                .unwrap()
                .timeout(PATIENCE),
            lab: self,
        }
    }
}

/// Begins the agent of a guest that is set up, and waits until it answers.
pub fn start<'a>(lab: &'a Lab, guest: &Guest) -> Agent<'a> {
    guest.run(
        "mkdir -p /var/lib/lyceum/storage; cp -n /opt/payload/identity/* /var/lib/lyceum/storage/
         setsid /opt/payload/lyceum storage --config /etc/lyceum/storage.toml >>/var/log/lyceum.log 2>&1 </dev/null 4>&- &
         echo $! >/run/agent.pid",
    );
    let agent = lab.agent(guest);
    let began = Instant::now();
    loop {
        match agent.try_get::<StorageFacts>("/v1/storage") {
            Ok(_) => return agent,
            Err(error) => {
                guest.until("true");
                let alive = guest.try_run("kill -0 $(cat /run/agent.pid)").status == 0;
                assert!(
                    alive && began.elapsed() < PATIENCE,
                    "the agent does not answer: {error}\n{}",
                    guest.run("cat /var/log/lyceum.log")
                );
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Ends the agent as a crash does, or in good order.
pub fn stop(guest: &Guest, signal: &str) {
    guest.run(&format!("kill -{signal} $(cat /run/agent.pid)"));
    guest.until("! kill -0 $(cat /run/agent.pid) 2>/dev/null");
}

/// Requests to the agent.
pub struct Agent<'a> {
    client: Client,
    lab: &'a Lab,
}

impl Agent<'_> {
    pub fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.lab.runtime.block_on(self.client.get(path))
    }

    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path)
            .unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    pub fn try_put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: impl Serialize,
    ) -> Result<T, ClientError> {
        self.lab.runtime.block_on(self.client.put(path, &body))
    }

    #[track_caller]
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: impl Serialize) -> T {
        self.try_put(path, body)
            .unwrap_or_else(|e| panic!("PUT {path}: {e}"))
    }

    pub fn try_post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: impl Serialize,
    ) -> Result<T, ClientError> {
        self.lab.runtime.block_on(self.client.post(path, &body))
    }

    #[track_caller]
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: impl Serialize) -> T {
        self.try_post(path, body)
            .unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    pub fn try_delete(&self, path: &str) -> Result<(), ClientError> {
        self.lab.runtime.block_on(self.client.delete(path))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) {
        self.try_delete(path)
            .unwrap_or_else(|e| panic!("DELETE {path}: {e}"))
    }

    /// A release whose disk is `megabytes` of the letter A, and zeros up to four times that.
    pub fn release(&self, draft: &str, megabytes: usize) -> String {
        let mut bytes = vec![b'A'; megabytes << 20];
        bytes.resize(megabytes << 22, 0);
        // No signature of anything: a raw image.
        let length = bytes.len();
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
        let path = format!("/v1/uploads/{draft}?name=disk.raw&bytes={length}");
        let () = self
            .lab
            .runtime
            .block_on(self.client.put_stream(&path, body))
            .unwrap();
        let request = json!({"upload": draft, "draft": draft, "iso_disk_bytes": null});
        let path = format!("/v1/imports/{draft}");
        let _: ImportStatus = self.put(&path, request);
        let began = Instant::now();
        loop {
            let status: ImportStatus = self.get(&path);
            match status.outcome {
                Some(ImportOutcome::Imported { .. }) => break,
                Some(other) => panic!("{other:?}"),
                None => assert!(began.elapsed() < PATIENCE),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.delete(&format!("/v1/uploads/{draft}"));
        self.seal(draft)
    }

    pub fn try_clone(&self, release: &str, overlay: &str) -> Result<Value, ClientError> {
        let body = json!({"release": release, "content": {"from": "empty"}});
        self.try_put(&format!("/v1/overlays/{overlay}"), body)
    }

    #[track_caller]
    pub fn clone_release(&self, release: &str, overlay: &str) -> Value {
        self.try_clone(release, overlay)
            .unwrap_or_else(|e| panic!("clone {overlay}: {e}"))
    }

    /// Writes a desktop's disk into a file here, as a person gets it.
    pub fn export(&self, overlay: &str, to: &Path) {
        use futures::StreamExt;
        use std::io::Write;
        let path = format!("/v1/overlays/{overlay}/export");
        let mut file = std::fs::File::create(to).unwrap();
        self.lab.runtime.block_on(async {
            let (length, bytes) = self.client.get_stream(&path).await.unwrap();
            let mut bytes = Box::pin(bytes);
            while let Some(piece) = bytes.next().await {
                file.write_all(&piece.unwrap()).unwrap();
            }
            assert_eq!(length, Some(file.metadata().unwrap().len()));
        });
    }

    /// Makes a release of a draft that is ready.
    pub fn seal(&self, draft: &str) -> String {
        let _: Value = self.put(&format!("/v1/staging/{draft}"), Value::Null);
        let request = json!({"sealed_at": 1, "memory": null, "cold_reason": "a test"});
        let made: Published = self.post(&format!("/v1/staging/{draft}/publish"), request);
        made.release.to_string()
    }

    pub fn overlay(&self, overlay: &str) -> OverlayFacts {
        self.get(&format!("/v1/overlays/{overlay}"))
    }

    pub fn facts(&self) -> StorageFacts {
        self.get("/v1/storage")
    }
}

/// The path of a desktop's disk on the file server.
pub fn disk(slow: &Path, overlay: &str) -> String {
    slow.join("volumes")
        .join(overlay)
        .join("disk.qcow2")
        .display()
        .to_string()
}
