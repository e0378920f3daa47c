//! A file server, or a host of it, as a guest: Debian's stock kernel in software emulation, with
//! throttled disks. Commands go in over a serial port of their own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Emulated, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A disk of a guest.
#[derive(Clone)]
pub struct Disk {
    pub name: &'static str,
    pub megabytes: u64,
    pub rotational: bool,
}

/// What a guest consists of.
#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    /// Its address on the disk network, as `10.77.0.1/24`.
    pub disk_network: &'static str,
    /// It waits for the others' connection on the disk network.
    pub hub: bool,
    pub memory_mb: u32,
    pub disks: Vec<Disk>,
}

/// The folder with kernel and root disk: `make fileserver-image`.
pub fn image() -> PathBuf {
    match std::env::var_os("LYCEUM_FILESERVER_IMAGE") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/fileserver"),
    }
}

type Answers = Arc<(Mutex<HashMap<u64, Option<Output>>>, Condvar)>;

/// How a command went.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: i32,
    pub text: String,
}

/// A running guest; killed when dropped.
pub struct Guest {
    plan: Plan,
    folder: PathBuf,
    child: Child,
    control: Mutex<UnixStream>,
    answers: Answers,
    next: Mutex<u64>,
    /// Port of 127.0.0.1 that leads to the storage agent in it.
    pub port: u16,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn qemu_img(arguments: &[&str]) {
    let done = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(
        done.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A small disk with the files that a test brings.
pub fn payload(folder: &Path, files: &[(&str, PathBuf)]) -> PathBuf {
    let root = folder.join("payload");
    let mut bytes = 16 << 20;
    for (name, from) in files {
        let to = root.join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if from.is_dir() {
            let done = Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(&to)
                .status()
                .unwrap();
            assert!(done.success());
        } else {
            std::fs::copy(from, &to).unwrap();
            bytes += std::fs::metadata(&to).unwrap().len();
        }
    }
    let image = folder.join("payload.img");
    File::create(&image)
        .unwrap()
        .set_len(bytes / 10 * 11)
        .unwrap();
    let done = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"])
        .arg(&root)
        .arg(&image)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "mke2fs: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    std::fs::remove_dir_all(&root).unwrap();
    image
}

impl Guest {
    /// Boots it; its disks are in `folder`, which other boots of it share.
    ///
    /// It has one CPU: with several, emulation in QEMU 10.0 now and then trips over devices that
    /// are being set up (`iotlb_to_section`).
    pub fn boot(plan: Plan, folder: &Path, payload: &Path) -> Guest {
        let image = image();
        assert!(
            image.join("root.qcow2").exists(),
            "{} holds no file server: run 'make fileserver-image'",
            image.display()
        );
        let own = folder.join(plan.name);
        std::fs::create_dir_all(&own).unwrap();
        let path = |name: &str| own.join(name).display().to_string();
        let root = path("root.qcow2");
        if !Path::new(&root).exists() {
            let base = image.join("root.qcow2").canonicalize().unwrap();
            qemu_img(&[
                "create",
                "-q",
                "-f",
                "qcow2",
                "-F",
                "qcow2",
                "-b",
                base.to_str().unwrap(),
                &root,
            ]);
        }
        let port = free_port();
        let mut command = Command::new("qemu-system-x86_64");
        let mut arg = |words: &[&str]| {
            command.args(words);
        };
        arg(&[
            "-nodefaults",
            "-no-user-config",
            "-machine",
            "pc",
            "-cpu",
            "max",
            "-accel",
            "tcg,thread=multi",
        ]);
        arg(&[
            "-m",
            &plan.memory_mb.to_string(),
            "-smp",
            "2",
            "-display",
            "none",
        ]);
        arg(&[
            "-kernel",
            image.join("vmlinuz").to_str().unwrap(),
            "-initrd",
            image.join("initrd").to_str().unwrap(),
        ]);
        let words = format!(
            "console=ttyS0 quiet panic=-1 no_timer_check net.ifnames=0 lyceum.name={} lyceum.disknet={}",
            plan.name, plan.disk_network
        );
        arg(&[
            "-append",
            &words,
            "-no-reboot",
            "-serial",
            &format!("file:{}", path("console")),
        ]);
        let control = path("control");
        let _ = std::fs::remove_file(&control);
        arg(&[
            "-device",
            "virtio-serial-pci",
            "-chardev",
            &format!("socket,id=control,path={control},server=on,wait=off"),
        ]);
        arg(&[
            "-device",
            "virtserialport,chardev=control,name=org.lyceum.test.0",
            "-device",
            "virtio-rng-pci",
        ]);
        arg(&[
            "-drive",
            &format!("if=none,id=root,format=qcow2,file={root}"),
            "-device",
            "virtio-blk-pci,drive=root,serial=root",
        ]);
        let brought = format!(
            "if=none,id=payload,format=raw,readonly=on,file={}",
            payload.display()
        );
        arg(&[
            "-drive",
            &brought,
            "-device",
            "virtio-blk-pci,drive=payload,serial=payload",
        ]);
        arg(&["-device", "virtio-scsi-pci,id=scsi"]);
        for disk in &plan.disks {
            let file = path(&format!("{}.img", disk.name));
            if !Path::new(&file).exists() {
                File::create(&file)
                    .unwrap()
                    .set_len(disk.megabytes << 20)
                    .unwrap();
            }
            // An SSD and a small RAID of HDDs.
            let (limits, speed) = if disk.rotational {
                (
                    "throttling.bps-total=150000000,throttling.iops-total=1000",
                    7200,
                )
            } else {
                (
                    "throttling.bps-total=450000000,throttling.iops-total=30000",
                    1,
                )
            };
            arg(&[
                "-drive",
                &format!(
                    "if=none,id={0},format=raw,discard=unmap,file={file},{limits}",
                    disk.name
                ),
            ]);
            arg(&[
                "-device",
                &format!(
                    "scsi-hd,drive={0},serial={0},rotation_rate={speed}",
                    disk.name
                ),
            ]);
        }
        arg(&[
            "-netdev",
            &format!("user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:8471"),
        ]);
        arg(&["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:01"]);
        let wire = folder.join("wire").display().to_string();
        let ends = if plan.hub {
            "server=on"
        } else {
            "server=off,reconnect-ms=500"
        };
        arg(&[
            "-netdev",
            &format!("stream,id=n1,{ends},addr.type=unix,addr.path={wire}"),
        ]);
        let last = plan
            .disk_network
            .split(['.', '/'])
            .nth(3)
            .unwrap_or("1")
            .to_owned();
        arg(&[
            "-device",
            &format!("virtio-net-pci,netdev=n1,mac=52:54:00:78:00:0{last}"),
        ]);
        let log = File::create(path("qemu.log")).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(&control) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            assert!(
                child.try_wait().unwrap().is_none(),
                "QEMU ended: {}",
                std::fs::read_to_string(path("qemu.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        };
        let answers: Answers = Arc::default();
        listen(stream.try_clone().unwrap(), answers.clone());
        let mut guest = Guest {
            plan,
            folder: own,
            child,
            control: Mutex::new(stream),
            answers,
            next: Mutex::new(0),
            port,
        };
        // Repeated: what is said before the guest listens is lost.
        loop {
            if guest.ask("true", Duration::from_secs(5)).is_some() {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE && guest.child.try_wait().unwrap().is_none(),
                "{} does not come up:\n{}",
                guest.plan.name,
                guest.console()
            );
        }
        eprintln!(
            "{} is up after {:.1} s",
            guest.plan.name,
            began.elapsed().as_secs_f64()
        );
        guest
    }

    fn ask(&self, script: &str, patience: Duration) -> Option<Output> {
        let number = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next
        };
        let (waiting, told) = &*self.answers;
        waiting.lock().unwrap().insert(number, None);
        let line = format!("{number} {}\n", base64(script.as_bytes()));
        self.control
            .lock()
            .unwrap()
            .write_all(line.as_bytes())
            .ok()?;
        let answers = waiting.lock().unwrap();
        let (mut answers, _) = told
            .wait_timeout_while(answers, patience, |answers| {
                answers.get(&number).is_some_and(Option::is_none)
            })
            .unwrap();
        answers.remove(&number).flatten()
    }

    /// Runs a script of bash; how it ended and what it said.
    pub fn try_run(&self, script: &str) -> Output {
        self.ask(script, PATIENCE).unwrap_or_else(|| {
            panic!(
                "{}: no answer to: {script}\n{}",
                self.plan.name,
                self.console()
            )
        })
    }

    /// Like [`Self::try_run`], and it must succeed.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        assert!(
            output.status == 0,
            "{}: {script}\nended with {}:\n{}\n{}",
            self.plan.name,
            output.status,
            output.text,
            self.ask(
                "tail -n 30 /var/log/lyceum.log; dmesg | tail -n 20",
                Duration::from_secs(60)
            )
            .map_or(String::new(), |o| o.text)
        );
        output.text.trim_end().to_owned()
    }

    /// Until the script succeeds; what it says then.
    #[track_caller]
    pub fn until(&self, script: &str) -> String {
        let began = Instant::now();
        loop {
            let output = self.try_run(script);
            if output.status == 0 {
                return output.text.trim_end().to_owned();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{}: never true: {script}\n{}\n{}",
                self.plan.name,
                output.text,
                self.run("tail -n 30 /var/log/lyceum.log; dmesg | tail -n 20")
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.folder.join("console")).unwrap_or_default()
    }

    /// Of its QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The power is cut.
    pub fn cut(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stream: UnixStream, answers: Answers) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let mut words = line.split(' ');
            let (Some(number), Some(status), Some(text)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Ok(number), Ok(status)) = (number.parse::<u64>(), status.parse()) else {
                continue;
            };
            let text = String::from_utf8_lossy(&unbase64(text)).into_owned();
            if let Some(slot) = answers.0.lock().unwrap().get_mut(&number) {
                *slot = Some(Output { status, text });
            }
            answers.1.notify_all();
        }
    });
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut n, mut bits) = (0u32, 0);
    for byte in text.bytes() {
        let Some(value) = ALPHABET.iter().position(|b| *b == byte) else {
            continue;
        };
        n = n << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((n >> bits) as u8);
            n &= (1 << bits) - 1;
        }
    }
    out
}
