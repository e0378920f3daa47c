//! An agent over temporary tiers, asked through its router.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use lyceum_model::{MachineSize, Platform};
use lyceum_proto::ErrorBody;
use lyceum_proto::storage::{ImportStatus, PublishRequest, Published, SealedMemoryFacts};
use lyceum_storage::{Agent, StorageConfig};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tower::ServiceExt;

pub fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a qemu-io command on a qcow2 and answers whether it succeeded.
pub fn try_io(disk: &Path, command: &str) -> bool {
    let output = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", command, disk.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && !text.contains("Pattern verification failed")
}

pub fn io(disk: &Path, command: &str) {
    assert!(try_io(disk, command), "{command} on {}", disk.display());
}

pub struct Bench {
    pub folder: TempDir,
    pub agent: Agent,
    pub router: Router,
}

pub fn config(folder: &Path) -> StorageConfig {
    let mut config = StorageConfig::new(
        "127.0.0.1:0".parse().unwrap(),
        folder.join("state"),
        folder.join("fast"),
        folder.join("slow"),
    );
    config.reserve_bytes = 1 << 20;
    config
}

impl Bench {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::open(config(folder.path())).await.unwrap();
        Bench {
            folder,
            router: agent.router(),
            agent,
        }
    }

    /// The agent stops and starts again on the same tiers.
    pub async fn restart(self) -> Self {
        let Bench {
            folder,
            agent,
            router,
        } = self;
        agent.close().await;
        drop((agent, router));
        let agent = Agent::open(config(folder.path())).await.unwrap();
        Bench {
            folder,
            router: agent.router(),
            agent,
        }
    }

    pub fn fast(&self, path: &str) -> PathBuf {
        self.folder.path().join("fast").join(path)
    }

    pub fn slow(&self, path: &str) -> PathBuf {
        self.folder.path().join("slow").join(path)
    }

    pub async fn ask(&self, method: Method, path: &str, body: Body) -> (StatusCode, Vec<u8>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(body)
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, bytes.to_vec())
    }

    pub async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Value) -> T {
        let (status, bytes) = self.ask(method, path, Body::from(body.to_string())).await;
        assert!(
            status.is_success(),
            "{path}: {status} {}",
            String::from_utf8_lossy(&bytes)
        );
        let bytes = if bytes.is_empty() {
            b"null".to_vec()
        } else {
            bytes
        };
        serde_json::from_slice(&bytes).unwrap()
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: Value) -> T {
        self.json(Method::PUT, path, body).await
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.json(Method::GET, path, Value::Null).await
    }

    pub async fn delete(&self, path: &str) {
        let _: Value = self.json(Method::DELETE, path, Value::Null).await;
    }

    /// The request fails with this status and code; the message.
    pub async fn fails(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Body>,
        status: u16,
        code: &str,
    ) -> String {
        let (got, bytes) = self.ask(method, path, body.into()).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(got.as_u16(), status, "{path}: {text}");
        let error: ErrorBody =
            serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {e}: {text}"));
        assert_eq!(error.code, code, "{path}: {text}");
        error.message
    }

    /// A draft with some content and a sealed "memory", published: its release.
    pub async fn release(&self, draft: &str, pattern: u8) -> Published {
        self.release_sized(draft, pattern, 1 << 30).await
    }

    pub async fn release_sized(&self, draft: &str, pattern: u8, virtual_bytes: u64) -> Published {
        self.stage_sized(draft, pattern, virtual_bytes).await;
        self.json(
            Method::POST,
            &format!("/v1/staging/{draft}/publish"),
            json!(publish_request()),
        )
        .await
    }

    pub async fn stage(&self, draft: &str, pattern: u8) {
        self.stage_sized(draft, pattern, 1 << 30).await;
    }

    async fn stage_sized(&self, draft: &str, pattern: u8, virtual_bytes: u64) {
        let _: Value = self
            .put(
                &format!("/v1/drafts/{draft}"),
                json!({"from":"empty","virtual_bytes": virtual_bytes}),
            )
            .await;
        io(
            &self.fast(&format!("drafts/{draft}.qcow2")),
            &format!("write -P {pattern} 0 1M"),
        );
        let _: Value = self.put(&format!("/v1/staging/{draft}"), Value::Null).await;
        let staging = self.fast(&format!("staging/{draft}"));
        let ram = std::fs::File::create(staging.join("ram")).unwrap();
        ram.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&ram, &[pattern; 5000], 10 << 20).unwrap();
        std::fs::write(staging.join("device-state"), [pattern; 3000]).unwrap();
        std::fs::write(staging.join("qemu.log"), "a leftover").unwrap();
    }

    pub async fn upload(&self, job: &str, name: &str, bytes: Vec<u8>) {
        let path = format!("/v1/uploads/{job}?name={name}&bytes={}", bytes.len());
        let (status, answer) = self.ask(Method::PUT, &path, Body::from(bytes)).await;
        assert!(status.is_success(), "{}", String::from_utf8_lossy(&answer));
    }

    pub async fn import_ends(&self, job: &str) -> ImportStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status: ImportStatus = self.get(&format!("/v1/imports/{job}")).await;
            if status.outcome.is_some() {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything on both tiers but the marker files, as paths below the tiers.
    pub fn everything(&self) -> Vec<String> {
        let mut out = Vec::new();
        for tier in ["fast", "slow"] {
            walk(&self.folder.path().join(tier), self.folder.path(), &mut out);
        }
        out.sort();
        out
    }
}

fn walk(folder: &Path, root: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, root, out);
        } else if !path.ends_with(".lyceum-tier") {
            out.push(
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
}

pub fn publish_request() -> PublishRequest {
    PublishRequest {
        sealed_at: 1_700_000_000_000,
        memory: Some(SealedMemoryFacts {
            size: MachineSize {
                vcpus: 1,
                memory_mib: 64,
            },
            platform: Platform {
                qemu_version: "10.0.2".into(),
                machine_type: "pc-i440fx-10.0".into(),
                cpu_model: "qemu64".into(),
                accelerator: lyceum_model::Accelerator::Tcg,
            },
            guest_helper: true,
        }),
        cold_reason: None,
    }
}

/// A small disk image of a format, as bytes.
pub fn image(format: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (raw, out) = (folder.path().join("raw"), folder.path().join("out"));
    let mut bytes = vec![0x5a; 2 << 20];
    bytes[446..510].fill(0);
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    std::fs::write(&raw, bytes).unwrap();
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        format,
        raw.to_str().unwrap(),
        out.to_str().unwrap(),
    ]);
    std::fs::read(out).unwrap()
}

/// The smallest thing that is an ISO.
pub fn iso() -> Vec<u8> {
    let mut iso = vec![0; 65_536];
    let at = 32_768;
    iso[at..at + 6].copy_from_slice(b"\x01CD001");
    iso[at + 80..at + 84].copy_from_slice(&32u32.to_le_bytes());
    iso[at + 84..at + 88].copy_from_slice(&32u32.to_be_bytes());
    iso[at + 128..at + 130].copy_from_slice(&2048u16.to_le_bytes());
    iso
}
