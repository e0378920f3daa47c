//! Against folders that stand for machines; disks are measured for real.
#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file server whose tiers are on one disk with a head, and every file it has.
struct Lab {
    dir: tempfile::TempDir,
}

const FILES: [(&str, &str); 10] = [
    (
        "proc/meminfo",
        "MemTotal:       16000000 kB\nMemFree: 1 kB\n",
    ),
    ("proc/sys/vm/dirty_ratio", "20\n"),
    (
        "proc/sys/net/ipv4/tcp_available_congestion_control",
        "reno cubic\n",
    ),
    ("proc/sys/net/core/rmem_max", "212992\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
    ("proc/fs/nfsd/threads", "8\n"),
    ("sys/block/sdz/queue/scheduler", "[none] mq-deadline\n"),
    ("sys/block/sdz/queue/rotational", "1\n"),
    ("sys/block/sdz/queue/read_ahead_kb", "128\n"),
];

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab { dir };
        for (path, text) in FILES {
            lab.write(path, text);
        }
        for tier in ["fast", "slow"] {
            std::fs::create_dir(lab.root().join(tier)).unwrap();
        }
        let dev = std::fs::metadata(lab.root()).unwrap().dev();
        let device = format!(
            "{}:{}",
            nix::sys::stat::major(dev),
            nix::sys::stat::minor(dev)
        );
        // A partition of it.
        lab.write("sys/block/sdz/sdz1/partition", "1\n");
        std::fs::create_dir_all(lab.root().join("sys/dev/block")).unwrap();
        std::os::unix::fs::symlink(
            lab.root().join("sys/block/sdz/sdz1"),
            lab.root().join("sys/dev/block").join(&device),
        )
        .unwrap();
        lab
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn place(&self) -> Where {
        let config = self.root().join("etc/lyceum/storage.toml");
        if !config.exists() {
            let config = StorageConfig::new(
                "127.0.0.1:1".parse().unwrap(),
                Path::new("/nowhere"),
                self.root().join("fast"),
                self.root().join("slow"),
            );
            self.write(
                "etc/lyceum/storage.toml",
                &toml::to_string(&config).unwrap(),
            );
        }
        Where {
            config: Vec::new(),
            fast: None,
            slow: None,
            peer: Vec::new(),
            root: self.root().into(),
        }
    }

    fn args(&self, only: &[&str], unmeasured: bool) -> ApplyArgs {
        ApplyArgs {
            place: self.place(),
            seconds: 1,
            rounds: 1,
            size_mib: 2,
            buffered: true,
            port: 1,
            only: only.iter().map(|s| (*s).to_owned()).collect(),
            unmeasured,
        }
    }

    /// Everything a kernel has, one space between words.
    fn kernel(&self) -> BTreeMap<&'static str, String> {
        FILES
            .iter()
            .map(|(path, _)| (*path, lyceum_tune::Value::new(&self.read(path)).to_string()))
            .collect()
    }
}

#[tokio::test]
async fn kept_shown_made_again_and_undone() {
    let lab = Lab::new();
    let before = lab.kernel();
    apply(&lab.args(&[], true), true).await.unwrap();
    let tuned = lab.kernel();
    assert_eq!(tuned["proc/sys/net/core/rmem_max"], "8388608");
    assert_eq!(tuned["proc/sys/net/ipv4/tcp_rmem"], "4096 131072 33554432");
    assert_eq!(tuned["sys/block/sdz/queue/scheduler"], "mq-deadline");
    assert_eq!(tuned["sys/block/sdz/queue/read_ahead_kb"], "1024");
    let threads: u32 = tuned["proc/fs/nfsd/threads"].parse().unwrap();
    assert!(threads >= 32);
    let unit = lab.read("etc/systemd/system/lyceum-tune.service");
    assert!(unit.contains("tune again"), "{unit}");
    let wanted = "etc/systemd/system/multi-user.target.wants/lyceum-tune.service";
    assert!(lab.root().join(wanted).is_symlink());

    // A second apply finds nothing, and what was before stays known.
    apply(&lab.args(&[], true), true).await.unwrap();
    assert_eq!(lab.kernel(), tuned);
    // A reboot, into a kernel with a higher value of its own.
    for (path, text) in FILES {
        lab.write(path, text);
    }
    lab.write("proc/sys/net/core/rmem_max", "16777216\n");
    let edge = Edge::new(lab.root());
    again(&edge).unwrap();
    let mut expected = tuned.clone();
    expected.insert("proc/sys/net/core/rmem_max", "16777216".into());
    assert_eq!(lab.kernel(), expected);

    undo(&edge, false).unwrap();
    let mut expected = before;
    expected.insert("proc/sys/net/core/rmem_max", "16777216".into());
    assert_eq!(lab.kernel(), expected);
    assert!(!lab.root().join(wanted).is_symlink());
    assert!(keep::read(&edge).unwrap().entries.is_empty());
}

#[tokio::test]
async fn without_a_measurement_nothing_is_kept() {
    let lab = Lab::new();
    let before = lab.kernel();
    // The network has no peer, and only hosts notice threads: not tried.
    for group in ["buffers", "nfsd"] {
        apply(&lab.args(&[group], false), true).await.unwrap();
    }
    assert_eq!(lab.kernel(), before);
    let said = apply(&lab.args(&["no-such"], false), true)
        .await
        .unwrap_err();
    assert!(said.to_string().contains("no-such"), "{said}");
}

#[tokio::test]
async fn what_is_measured_is_kept_or_put_back_and_told() {
    // The files are read and written for real; what they stand for changes nothing about that,
    // so noise decides, and either end must be whole.
    let lab = Lab::new();
    let before = lab.kernel();
    let group = "read-ahead slow";
    apply(&lab.args(&[group], false), true).await.unwrap();
    let edge = Edge::new(lab.root());
    let ledger = keep::read(&edge).unwrap();
    let (kept, tried) = (&ledger.entries, &ledger.tried);
    let measured = match (kept.as_slice(), tried.as_slice()) {
        ([entry], []) => {
            assert_eq!(lab.kernel()["sys/block/sdz/queue/read_ahead_kb"], "1024");
            &entry.measured
        }
        ([], [tried]) => {
            assert_eq!(lab.kernel(), before);
            &tried.measured
        }
        _ => panic!("{ledger:?}"),
    };
    assert_eq!(measured.len(), 3);
    for figure in measured {
        assert_eq!((figure.before.len(), figure.after.len()), (1, 1));
        assert!(figure.before[0] > 0.0 && figure.after[0] > 0.0);
    }
    undo(&edge, false).unwrap();
    assert_eq!(lab.kernel(), before);
}

#[tokio::test]
async fn a_kernel_that_refuses_is_told_plainly_and_all_is_put_back() {
    let lab = Lab::new();
    // Not a file: a value can't be written. It is the second of its group.
    let path = lab.root().join("proc/sys/net/core/wmem_max");
    std::fs::write(&path, "212992\n").unwrap();
    let refuse = |on: bool| {
        let status = std::process::Command::new("chattr")
            .args([if on { "+i" } else { "-i" }, &path.to_string_lossy()])
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|s| s.success())
    };
    if !refuse(true) {
        // Neither root nor a file system with such a mark: the same for a user who is not root.
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&path, permissions).unwrap();
        if nix::unistd::geteuid().is_root() {
            return;
        }
    }
    let before = lab.kernel();
    let said = apply(&lab.args(&["buffers"], true), true).await;
    refuse(false);
    let said = said.unwrap_err().to_string();
    assert!(said.contains("net.core.wmem_max can't be set"), "{said}");
    assert!(said.contains("needs root"), "{said}");
    assert_eq!(lab.kernel(), before);
    assert!(
        keep::read(&Edge::new(lab.root()))
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn what_somebody_else_set_since_is_left_alone() {
    let lab = Lab::new();
    apply(&lab.args(&["buffers"], true), true).await.unwrap();
    lab.write("proc/sys/net/core/rmem_max", "9000000\n");
    let edge = Edge::new(lab.root());
    let said = undo(&edge, false).unwrap_err().to_string();
    assert!(said.contains("is 9000000, and was 212992 before"), "{said}");
    assert_eq!(lab.read("proc/sys/net/core/rmem_max"), "9000000\n");
    undo(&edge, true).unwrap();
    assert_eq!(lab.read("proc/sys/net/core/rmem_max"), "212992\n");
}

#[test]
fn one_at_a_time() {
    let lab = Lab::new();
    let edge = Edge::new(lab.root());
    let _kept = Kept::open(&edge).unwrap();
    let said = Kept::open(&edge).err().unwrap().to_string();
    assert!(said.contains("another lyceum tune"), "{said}");
}

/// The kernel's own settings and the real iperf3, in a network of its own: `--root` holds what is
/// kept, and the kernel itself is below it. What a network of its own can't have (`rmem_max` is
/// the machine's) must be refused in words, and leave nothing changed.
#[test]
fn in_a_network_of_its_own_for_real() {
    let lab = tempfile::tempdir().unwrap();
    let root = lab.path().to_owned();
    for name in ["proc", "sys"] {
        std::os::unix::fs::symlink(Path::new("/").join(name), root.join(name)).unwrap();
    }
    // Of this thread alone.
    let thread = std::thread::spawn(move || {
        if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("not tried: no network of its own here ({e})");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(alone(&root));
    });
    thread.join().unwrap();
}

async fn alone(root: &Path) {
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    let edge = Edge::new(root);
    let congestion = lyceum_tune::Knob::sysctl("net.ipv4.tcp_congestion_control");
    let windows = lyceum_tune::Knob::sysctl("net.ipv4.tcp_rmem");
    let small = lyceum_tune::Value::new("4096 87380 6291456");
    edge.set(&windows, &small).unwrap();
    edge.set(&congestion, &lyceum_tune::Value::new("reno"))
        .unwrap();
    let refused = edge.set(&congestion, &lyceum_tune::Value::new("no-such"));
    assert!(refused.unwrap_err().to_string().contains("can't be set"));
    let args = |only: &str, unmeasured| ApplyArgs {
        place: Where {
            config: Vec::new(),
            fast: None,
            slow: None,
            peer: vec!["127.0.0.1".parse().unwrap()],
            root: root.to_owned(),
        },
        seconds: 1,
        rounds: 1,
        size_mib: 1,
        buffered: true,
        port: tools::IPERF_PORT,
        only: vec![only.to_owned()],
        unmeasured,
    };

    // Nobody else has this network, so its usual port is free.
    let mut server = tokio::process::Command::new("iperf3")
        .args(["-s", "-B", "127.0.0.1"])
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let address = ("127.0.0.1", tools::IPERF_PORT);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // That was a client that said nothing: the server is done with it in its own time.
    let tried = loop {
        match apply(&args("congestion", false), true).await {
            Err(e) if e.to_string().contains("busy") && std::time::Instant::now() < deadline => {}
            tried => break tried,
        }
    };
    tried.unwrap();
    let ledger = keep::read(&edge).unwrap();
    let now = edge.get(&congestion).unwrap();
    match ledger.entries.as_slice() {
        [kept] => assert_eq!((&kept.knob, &kept.set), (&congestion, &now)),
        [] => {
            assert_eq!(now.as_str(), "reno");
            assert_eq!(ledger.tried[0].measured.len(), 2, "{ledger:?}");
        }
        more => panic!("{more:?}"),
    }
    server.start_kill().unwrap();

    // The machine's own buffers can't be set from here, or they can: all or nothing.
    let before = keep::read(&edge).unwrap().entries.len();
    match apply(&args("buffers", true), true).await {
        Ok(()) => assert_ne!(edge.get(&windows).unwrap(), small),
        Err(e) => {
            assert!(e.to_string().contains("needs root on the machine"), "{e}");
            assert_eq!(edge.get(&windows).unwrap(), small);
            assert_eq!(keep::read(&edge).unwrap().entries.len(), before);
        }
    }
    undo(&edge, false).unwrap();
    assert_eq!(edge.get(&windows).unwrap(), small);
    assert_eq!(edge.get(&congestion).unwrap().as_str(), "reno");
}
