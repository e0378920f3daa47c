//! Power cuts of the file server under load, `safe`: nothing that a guest flushed is lost.
//!
//! A desktop's disk is written from a host over NFS, 32 scattered writes and a flush at a time. At
//! random instants the file server's QEMU is stopped dead and its slow disk copied as it is then,
//! which is what a power cut at that instant leaves; it then goes on, to be stopped again. Every
//! copy is repaired as a boot would, and must hold whatever was flushed before that instant. In the
//! end the power is cut for good, and the desktop goes on after the boot.
//!
//! What an operating system believes to be on a disk is on it here: the copy is of the file that
//! QEMU writes. Disks that lie about their own write cache are not what is tested.

use crate::guest::Guest;
use crate::hosts::{host, start_host};
use crate::server::{Lab, disks, file_server, start};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// 4 KiB blocks of the desktop's disk that are written: 256 MiB of scattered places.
const BLOCKS: u64 = 1 << 16;
const PER_FLUSH: u64 = 32;

/// The place and the byte of the n-th write. An odd factor goes through all places.
fn write(n: u64) -> (u64, u8) {
    let block = n.wrapping_mul(2_654_435_761) % BLOCKS;
    (block * 4096, (n % 251 + 1) as u8)
}

fn cuts() -> u32 {
    match std::env::var("LYCEUM_POWER_CUTS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 12,
    }
}

/// A script of qemu-io that writes for ever after; `length` answers after each flush.
fn script(rounds: u64) -> String {
    let mut text = String::new();
    for round in 0..rounds {
        for n in round * PER_FLUSH..(round + 1) * PER_FLUSH {
            let (at, byte) = write(n);
            text.push_str(&format!("write -q -P {byte} {at} 4096\n"));
        }
        text.push_str("flush\nlength\n");
    }
    text
}

fn begin(host: &Guest, target: &str, rounds: u64) {
    // In pieces: a line of the control port is not for megabytes.
    let text = script(rounds);
    host.run("rm -f /tmp/script /tmp/rounds");
    for piece in text.as_bytes().chunks(256 << 10) {
        let piece = std::str::from_utf8(piece).unwrap();
        host.run(&format!(
            "cat >>/tmp/script <<'END'\n{piece}\nEND\ntruncate -s -1 /tmp/script"
        ));
    }
    host.run(&format!(
        "(stdbuf -oL qemu-io {target} </tmp/script >/tmp/rounds 2>&1; echo over >>/tmp/rounds) >/dev/null 2>&1 &"
    ));
}

/// Rounds that were flushed for sure.
fn flushed(host: &Guest) -> u64 {
    host.run("grep -c MiB /tmp/rounds || true").parse().unwrap()
}

fn signal(guest: &Guest, name: &str) {
    let done = Command::new("kill")
        .args([name, &guest.pid().to_string()])
        .status()
        .unwrap();
    assert!(done.success());
}

fn tool(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What a boot after that instant would find: how many flushed writes are lost.
fn lost(copy: &Path, rounds: u64) -> u64 {
    let image = copy.to_str().unwrap();
    // 1: errors were repaired. The journal is what a mount would replay.
    let (status, said) = tool("e2fsck", &["-fy", image]);
    assert!(status <= 1, "the tier is not readable: {said}");
    let disk = copy.with_extension("qcow2");
    let to = disk.to_str().unwrap();
    let (_, said) = tool(
        "debugfs",
        &["-R", &format!("dump /overlays/q-0.qcow2 {to}"), image],
    );
    assert!(disk.exists(), "the disk is gone: {said}");
    let node = format!(
        r#"json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{to}"}}}}"#
    );
    let (status, said) = tool("qemu-img", &["check", &node]);
    // 3: clusters that nothing refers to, of a write that was on its way.
    assert!(status == 0 || status == 3, "the disk is damaged: {said}");
    let mut reads = Vec::new();
    for n in 0..rounds * PER_FLUSH {
        let (at, byte) = write(n);
        reads.push(format!("read -q -P {byte} {at} 4096"));
    }
    let list = copy.with_extension("reads");
    std::fs::write(&list, reads.join("\n") + "\n").unwrap();
    let output = Command::new("qemu-io")
        .args(["-r", &node])
        .stdin(std::fs::File::open(&list).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for path in [copy, &disk, &list] {
        std::fs::remove_file(path).unwrap();
    }
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.matches("verification failed").count() as u64
}

#[test]
#[ignore = "make test-storage"]
fn what_was_flushed_survives_power_cuts() {
    let lab = Lab::new();
    let server = lab.boot(file_server(disks(512, 1024)));
    // Tiers on the disks as they are: so that a copy can be opened without LVM.
    server.run(
        "mkdir -p /srv/lyceum/fast /srv/lyceum/slow
         mke2fs -q -F -t ext4 /dev/disk/by-id/*ssd0; mke2fs -q -F -t ext4 /dev/disk/by-id/*hdd0
         mount -o noatime /dev/disk/by-id/*ssd0 /srv/lyceum/fast; mount -o noatime /dev/disk/by-id/*hdd0 /srv/lyceum/slow
         rmdir /srv/lyceum/*/lost+found",
    );
    server.run("/opt/payload/lyceum storage init --folders --listen 10.0.2.15:8471 --disk-network 10.77.0.1 --hosts 10.77.0.0/24 --yes");
    server.run("sed -i 's/^reserve_bytes.*/reserve_bytes = 1048576/' /etc/lyceum/storage.toml");
    let agent = start(&lab, &server);
    let release = agent.release("d", 64);
    agent.clone_release(&release, "q-0");
    let host = lab.boot(host());
    start_host(&host);

    let target = format!(
        "--image-opts driver=qcow2,cache.direct=off,file.driver=file,file.filename=/srv/slow/overlays/q-0.qcow2,backing.driver=qcow2,backing.read-only=on,backing.file.driver=file,backing.file.filename=/srv/fast/releases/{release}/disk.qcow2"
    );
    begin(&host, &target, BLOCKS / PER_FLUSH);
    host.until("[ $(grep -c MiB /tmp/rounds) -ge 2 ]");
    let disk = lab.folder.path().join("files/hdd0.img");
    let mut seed = std::process::id();
    let (mut all, mut most) = (0, 0);
    let cuts = cuts();
    for cut in 0..cuts {
        // Any instant: nothing here waits for the writer to be anywhere.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_millis(u64::from(seed >> 16) % 1500));
        let rounds = flushed(&host);
        signal(&server, "-STOP");
        let copy = lab.folder.path().join(format!("cut-{cut}.img"));
        let (status, said) = tool(
            "cp",
            &[
                "--sparse=always",
                disk.to_str().unwrap(),
                copy.to_str().unwrap(),
            ],
        );
        signal(&server, "-CONT");
        assert_eq!(status, 0, "{said}");
        let gone = lost(&copy, rounds);
        assert_eq!(
            gone,
            0,
            "{gone} of {} flushed writes are lost at cut {cut}",
            rounds * PER_FLUSH
        );
        (all, most) = (all + rounds * PER_FLUSH, rounds);
    }
    eprintln!(
        "{cuts} instants, {} flushed writes at the last, {all} looked at in all: 0 lost, 0 disks unreadable",
        most * PER_FLUSH
    );

    // For good. The desktop's writer waits, and goes on.
    let before = flushed(&host);
    server.cut();
    let server = lab.boot(file_server(disks(512, 1024)));
    server.run("mount -o noatime /dev/disk/by-id/*ssd0 /srv/lyceum/fast; mount -o noatime /dev/disk/by-id/*hdd0 /srv/lyceum/slow");
    let _agent = start(&lab, &server);
    let began = Instant::now();
    while flushed(&host) < before + 3 {
        let over = host.run("grep -c over /tmp/rounds || true");
        if over != "0" {
            break;
        }
        assert!(
            began.elapsed() < crate::guest::PATIENCE,
            "{}",
            host.run("tail /tmp/rounds")
        );
    }
    let said = host.run("grep -v MiB /tmp/rounds | head -n 5");
    assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
}
