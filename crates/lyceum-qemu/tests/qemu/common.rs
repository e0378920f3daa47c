//! A sealed release of the tiny image, made once for all tests of a file, and
//! machines over it.

use lyceum_hypervisor::*;
use lyceum_model::*;
use lyceum_qemu::{AcceleratorChoice, QemuConfig, QemuHypervisor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

pub const SIZE: MachineSize = MachineSize {
    vcpus: 1,
    memory_mib: 256,
};
/// A guest takes seconds; the cores may be busy with other tests.
pub const READY_MS: u64 = 120_000;

pub fn tiny_image() -> PathBuf {
    let path = std::env::var_os("LYCEUM_TINY_IMAGE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/tiny.qcow2"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is not there: make it with `make tiny-image`, or name another one in LYCEUM_TINY_IMAGE",
        path.display()
    );
    path
}

/// QEMU's user: another one than the tests' when they run as root.
fn user() -> Option<String> {
    nix::unistd::geteuid()
        .is_root()
        .then(|| "nobody".to_owned())
}

pub fn hypervisor() -> QemuHypervisor {
    let config = QemuConfig {
        accelerator: AcceleratorChoice::Tcg,
        user: user(),
        helper_patience_s: 3,
        ..QemuConfig::default()
    };
    QemuHypervisor::new(config).expect("QEMU is installed")
}

/// Everything a test makes, removed when it is dropped. Machines are ended by their run directories.
pub struct Classroom {
    pub dir: tempfile::TempDir,
    pub hypervisor: QemuHypervisor,
    next: AtomicU32,
}

impl Classroom {
    pub fn new() -> Classroom {
        let dir = tempfile::Builder::new()
            .prefix("lq")
            .tempdir()
            .expect("tempdir");
        Classroom {
            dir,
            hypervisor: hypervisor(),
            next: 1.into(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A request with its own number in every name, without a disk yet.
    pub fn request(&self, from: StartFrom, top: PathBuf, base: Option<PathBuf>) -> StartRequest {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        StartRequest {
            desktop: format!("d{n}").parse().expect("id"),
            generation: Generation(1),
            run_dir: self.path(&format!("run{n}")),
            size: SIZE,
            disk: DiskFiles {
                top,
                base,
                release: None,
                durability: Durability::Throwaway,
                cdrom: None,
            },
            from,
            vm_generation_id: uuid::Uuid::new_v4(),
            identity: Some(Identity {
                hostname: Hostname::from_text("desk", &n.to_string()),
                machine_id: uuid::Uuid::new_v4().simple().to_string(),
            }),
            nic: Some(Nic {
                mac: format!("52:54:00:00:00:{n:02x}"),
                link: NicLink::User {
                    network: format!("10.77.{n}.0/24"),
                    address: [10, 77, n as u8, 100].into(),
                    outside: false,
                },
            }),
            spice: false,
            ready_timeout_ms: READY_MS,
        }
    }

    pub fn overlay(&self, base: &Path) -> PathBuf {
        let path = self.path(&format!("o{}.qcow2", self.next.load(Ordering::Relaxed)));
        let options = format!(
            "extended_l2=on,cluster_size=128k,backing_fmt=qcow2,backing_file={}",
            base.display()
        );
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &options,
            &path.display().to_string(),
        ]);
        path
    }

    pub fn fork_request(&self, release: &Release) -> StartRequest {
        let from = StartFrom::Fork {
            sealed: release.sealed.clone(),
        };
        self.request(
            from,
            self.overlay(&release.disk),
            Some(release.disk.clone()),
        )
    }

    pub async fn fork(&self, release: &Release) -> Machine {
        self.start(self.fork_request(release)).await
    }

    /// Starts and waits until it is usable.
    pub async fn start(&self, request: StartRequest) -> Machine {
        let instance = self.hypervisor.start(request).await.expect("start");
        let usable = running(&*instance).await.expect("usable");
        Machine { instance, usable }
    }
}

impl Drop for Classroom {
    fn drop(&mut self) {
        // Also after a failed test: whatever is still there is ended by its process file.
        for entry in std::fs::read_dir(self.dir.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("process")) else {
                continue;
            };
            let pid: i32 = stat
                .split(' ')
                .next()
                .and_then(|p| p.parse().ok())
                .unwrap_or(0);
            let ours = std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(14).any(|w| w == b"guest=lyceum-d"));
            if pid > 1 && ours {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

pub struct Machine {
    pub instance: Arc<dyn Instance>,
    pub usable: Usable,
}

impl Machine {
    pub async fn end(self) {
        self.instance.end(Duration::ZERO).await.expect("end");
    }
}

/// Waits until it is usable; the reason when it ended instead.
pub async fn running(instance: &dyn Instance) -> Result<Usable, String> {
    let mut watch = instance.watch();
    let state = watch
        .wait_for(|s| !matches!(s, InstanceState::Starting { .. }))
        .await
        .expect("the state outlives the machine")
        .clone();
    match state {
        InstanceState::Running { usable } => Ok(usable),
        InstanceState::Ended { reason, .. } => Err(reason),
        InstanceState::Starting { .. } => unreachable!(),
    }
}

pub async fn ended(instance: &dyn Instance) -> (String, bool) {
    let mut watch = instance.watch();
    let wait = watch.wait_for(|s| matches!(s, InstanceState::Ended { .. }));
    let state = tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("it ends")
        .expect("state")
        .clone();
    match state {
        InstanceState::Ended { reason, expected } => (reason, expected),
        _ => unreachable!(),
    }
}

pub fn qemu_img(args: &[&str]) {
    let status = std::process::Command::new("qemu-img")
        .args(args)
        .status()
        .expect("qemu-img is installed");
    assert!(status.success(), "qemu-img {args:?}");
}

/// A sealed release.
pub struct Release {
    pub disk: PathBuf,
    pub sealed: SealedFiles,
    pub hashes: Vec<(PathBuf, blake3::Hash)>,
}

pub fn hash(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path).expect("read");
    hasher.finalize()
}

static RELEASE: OnceCell<Release> = OnceCell::const_new();

/// The release of the tiny image; sealed by whoever asks first.
pub async fn release() -> &'static Release {
    RELEASE.get_or_init(seal).await
}

static RELEASE_DIR: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// Statics are never dropped, so the folder is removed when the process exits.
fn release_dir() -> PathBuf {
    extern "C" fn remove() {
        if let Some(dir) = RELEASE_DIR.get() {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
    let dir = tempfile::Builder::new()
        .prefix("lr")
        .tempdir()
        .expect("tempdir")
        .keep();
    RELEASE_DIR.set(dir.clone()).expect("sealed once");
    // SAFETY: a function that lives as long as the program and doesn't unwind.
    assert_eq!(unsafe { libc::atexit(remove) }, 0);
    dir
}

async fn seal() -> Release {
    let room = Classroom::new();
    let dir = release_dir();
    let disk = dir.join("disk.qcow2");
    std::fs::copy(tiny_image(), &disk).expect("copy");
    let sealed = SealedFiles {
        release: "release-1".parse().expect("id"),
        ram: dir.join("ram"),
        device_state: dir.join("device-state"),
    };
    let from = StartFrom::ColdForSeal {
        ram: sealed.ram.clone(),
        device_state: sealed.device_state.clone(),
    };
    let mut request = room.request(from, disk.clone(), None);
    (request.nic, request.identity) = (None, None);
    let machine = room.start(request.clone()).await;
    let summary = machine.instance.seal().await.expect("seal");
    assert!(summary.guest_helper);
    assert_eq!(summary.size, SIZE);
    assert!(!request.run_dir.exists());
    let hashes = [&disk, &sealed.ram, &sealed.device_state]
        .map(|p| (p.clone(), hash(p)))
        .to_vec();
    Release {
        disk,
        sealed,
        hashes,
    }
}

impl Release {
    pub fn assert_unchanged(&self) {
        for (path, before) in &self.hashes {
            assert_eq!(&hash(path), before, "{} was changed", path.display());
        }
    }
}

impl Machine {
    /// Runs a shell command in the guest; its output. The way of a person: the command is put
    /// on the clipboard, which is a file in the tiny image, and the shell on the screen is told
    /// to read it, by keys over VNC.
    pub async fn sh(&self, command: &str) -> String {
        let mark = format!("done-{:08x}", getrandom::u32().expect("random"));
        // Typed again when keys got lost; run once all the same. The blank keeps a subshell
        // from being read as arithmetic.
        let script = format!(
            "if mkdir /run/{mark}; then out=$( {command} ); code=$?; printf '{mark} %s\\n%s\\n{mark}' $code \"$out\" > /run/lyceum/clipboard; fi 2>/dev/null"
        );
        self.instance
            .set_clipboard(&script)
            .await
            .expect("clipboard");
        // A PC's keyboard holds five keys, and a machine that was just booted reads them late.
        let cold = self.instance.request().from.shares().is_none();
        for attempt in 0..20 {
            let gap = if cold || attempt > 0 { 60 } else { 20 };
            // What is left of a line whose end got lost is ended first.
            let line = ["", "\r"][usize::from(attempt > 0)].to_owned() + ". /run/lyceum/clipboard";
            self.type_line(&line, Duration::from_millis(gap)).await;
            let deadline = std::time::Instant::now() + Duration::from_secs(15);
            while std::time::Instant::now() < deadline {
                let text = self.instance.clipboard().await.expect("clipboard");
                // Both marks: it is not read while it is being written.
                let whole = text
                    .strip_prefix(&mark)
                    .and_then(|rest| rest.strip_suffix(&mark));
                if let Some(rest) = whole {
                    let (code, out) = rest.split_once('\n').expect("two lines");
                    assert_eq!(code.trim(), "0", "{command}: {out}");
                    return out.trim_end().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        panic!("the shell in the guest does not answer {command}");
    }

    async fn type_line(&self, text: &str, gap: Duration) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut vnc = self.instance.vnc().await.expect("vnc");
        let mut buffer = [0u8; 4096];
        vnc.read_exact(&mut buffer[..12]).await.expect("version");
        vnc.write_all(b"RFB 003.008\n").await.expect("version");
        vnc.read_exact(&mut buffer[..2]).await.expect("security");
        vnc.write_all(&[1]).await.expect("security");
        vnc.read_exact(&mut buffer[..4]).await.expect("result");
        vnc.write_all(&[1]).await.expect("init");
        vnc.read_exact(&mut buffer[..24]).await.expect("init");
        let name = u32::from_be_bytes([buffer[20], buffer[21], buffer[22], buffer[23]]) as usize;
        vnc.read_exact(&mut buffer[..name]).await.expect("name");
        for letter in text.chars().chain(['\r']) {
            let key = if letter == '\r' {
                0xff0d
            } else {
                u32::from(letter)
            };
            let mut events = Vec::new();
            for down in [1, 0] {
                events.extend_from_slice(&[4, down, 0, 0]);
                events.extend_from_slice(&key.to_be_bytes());
            }
            vnc.write_all(&events).await.expect("keys");
            tokio::time::sleep(gap).await;
        }
        // An answer to a request that comes after the keys: they were taken.
        vnc.write_all(&[3, 0, 0, 0, 0, 0, 0, 1, 0, 1])
            .await
            .expect("request");
        vnc.read_exact(&mut buffer[..4]).await.expect("update");
    }

    pub fn overlay(&self) -> PathBuf {
        self.instance.request().disk.top
    }
}
