//! Volumes: a desktop's disk from its making to its end, with either kind of snapshots.

use crate::guest::{Disk, Guest};
use crate::server::{Agent, Lab, disk, disks, file_server, start, stop};
use lyceum_proto::storage::{DiskPoint, Inventory};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

pub const SLOW: &str = "/srv/lyceum/slow";

/// Runs commands of qemu-io on a disk; all must succeed, and patterns be found.
#[track_caller]
pub fn io(guest: &Guest, file: &str, commands: &[&str]) {
    let commands: Vec<String> = commands.iter().map(|c| format!("-c '{c}'")).collect();
    let said = guest.run(&format!("qemu-io -f qcow2 {} {file}", commands.join(" ")));
    assert!(!said.contains("verification failed"), "{file}: {said}");
}

/// Sets a new file server up as a person would.
pub fn init(guest: &Guest, more: &str) {
    guest.run(&format!(
        "/opt/payload/lyceum storage init --listen 10.0.2.15:8471 --headroom-mib 64 {more} --yes"
    ));
    // Nothing here is as large as what is kept free on real disks.
    guest.run("sed -i 's/^reserve_bytes.*/reserve_bytes = 1048576/' /etc/lyceum/storage.toml");
}

fn at(overlay: &str) -> String {
    disk(Path::new(SLOW), overlay)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
#[ignore = "make test-storage"]
fn thin_snapshots() {
    life("lvm-thin");
}

#[test]
#[ignore = "make test-storage"]
fn classic_snapshots() {
    life("lvm-classic");
}

fn life(driver: &str) {
    let lab = Lab::new();
    let mut plan = file_server(disks(1536, 3072));
    plan.disks.push(Disk {
        name: "old0",
        megabytes: 64,
        rotational: true,
    });
    let guest = lab.boot(plan.clone());
    guest.run("mke2fs -q -t ext4 /dev/disk/by-id/*old0 && udevadm settle");

    // Nothing is touched without a word, and a disk with data only when it is named.
    let shown = guest.run("/opt/payload/lyceum storage init --driver lvm-thin");
    assert!(shown.contains("nothing was changed"), "{shown}");
    assert!(shown.contains("left alone: it holds ext4"), "{shown}");
    assert_eq!(guest.run("pvs --noheadings | wc -l"), "0");
    let refused = guest
        .try_run("/opt/payload/lyceum storage init --slow $(realpath /dev/disk/by-id/*old0) --yes");
    assert!(
        refused.status != 0 && refused.text.contains("--erase"),
        "{}",
        refused.text
    );
    init(&guest, &format!("--driver {driver}"));
    let again = guest.try_run("/opt/payload/lyceum storage init --yes");
    assert!(
        again.status != 0 && again.text.contains("set up already"),
        "{}",
        again.text
    );
    let mut agent = start(&lab, &guest);
    // Another agent does not get the same tiers.
    guest.run("sed -e 's/:8471/:8472/' -e 's#^state_dir.*#state_dir = \"/var/lib/other\"#' /etc/lyceum/storage.toml >/tmp/other.toml; cp -r /opt/payload/identity /var/lib/other");
    let second = guest.try_run("timeout 60 /opt/payload/lyceum storage --config /tmp/other.toml");
    assert!(
        second.status != 0 && second.text.contains("another storage agent"),
        "{}",
        second.text
    );

    let release = agent.release("d", 24);
    let () = agent.post(&format!("/v1/releases/{release}/prepare"), Value::Null);
    let mut times = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        agent.clone_release(&release, &format!("o-{n}"));
        times.push(began.elapsed().as_secs_f64());
    }
    eprintln!(
        "{driver}: clone of a desktop's disk, 20 times: median {:.2} s",
        median(times)
    );
    // The same again is the same, and over another release refused.
    agent.clone_release(&release, "o-0");
    let other = agent.release("e", 4);
    assert_eq!(
        agent.try_clone(&other, "o-0").unwrap_err().code(),
        Some("invalid")
    );

    own_writes(&agent, &guest);
    points(&agent, &guest);
    copies(&agent, &guest, &release);
    grown_and_exported(&lab, &agent, &guest, &release);
    in_use(&agent, &guest);

    // The origin is not taken from under its snapshots.
    let refused = agent
        .try_delete(&format!("/v1/releases/{release}"))
        .unwrap_err();
    assert_eq!(refused.code(), Some("in_use"), "{refused}");
    io(&guest, &at("o-19"), &["read -P 0x41 0 8M"]);

    full(&agent, &guest, driver);

    // A crash of the agent, and a power cut after which the disks have other names.
    io(&guest, &at("o-7"), &["write -P 0x77 1M 64k", "flush"]);
    stop(&guest, "KILL");
    agent = start(&lab, &guest);
    io(&guest, &at("o-7"), &["read -P 0x77 1M 64k"]);
    agent.delete("/v1/overlays/o-19");
    let before = agent.get::<Inventory>("/v1/inventory");
    assert_eq!(before.overlays.len(), 19);
    let names = guest.run("realpath /dev/disk/by-id/*ssd0");
    guest.run("sync");
    guest.cut();
    plan.disks.reverse();
    let guest = lab.boot(plan);
    assert_ne!(
        guest.run("realpath /dev/disk/by-id/*ssd0"),
        names,
        "the names stayed"
    );
    agent = start(&lab, &guest);
    let after = agent.get::<Inventory>("/v1/inventory");
    let ids = |inventory: &Inventory| {
        inventory
            .overlays
            .iter()
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before));
    io(
        &guest,
        &at("o-7"),
        &["read -P 0x77 1M 64k", "read -P 0x41 0 1M"],
    );
    assert!(
        agent.facts().slow_written.iter().any(|day| day.bytes > 0),
        "nothing was counted"
    );

    for n in 0..19 {
        agent.delete(&format!("/v1/overlays/o-{n}"));
    }
    agent.delete(&format!("/v1/releases/{release}"));
    let left = guest.run("lvs --noheadings -o lv_name lyceum");
    assert!(
        !left.contains("d.o.") && !left.contains(&format!("r.{release}")),
        "{left}"
    );
    assert_eq!(guest.run(&format!("ls {SLOW}/volumes | wc -l")), "0");
}

fn own_writes(agent: &Agent, guest: &Guest) {
    io(
        guest,
        &at("o-0"),
        &["read -P 0x41 0 8M", "write -P 0x42 4k 256k", "flush"],
    );
    io(guest, &at("o-1"), &["read -P 0x41 0 8M"]);
    let facts = agent.overlay("o-0");
    assert_eq!(facts.virtual_bytes, 96 << 20);
    assert!(facts.bytes_on_disk < 4 << 20, "{facts:?}");
    let refused = agent.try_put::<Value>("/v1/overlays/o-0/points/BAD", Value::Null);
    assert!(refused.is_err());
}

fn points(agent: &Agent, guest: &Guest) {
    let point: DiskPoint = agent.put("/v1/overlays/o-0/points/p-1", Value::Null);
    io(
        guest,
        &at("o-0"),
        &["write -P 0x43 4k 256k", "write -P 0x44 40M 1M", "flush"],
    );
    let later: DiskPoint = agent.put("/v1/overlays/o-0/points/p-2", Value::Null);
    assert!(later.taken >= point.taken);
    let list: Vec<DiskPoint> = agent.get("/v1/overlays/o-0/points");
    assert_eq!(
        list.iter().map(|p| p.point.as_str()).collect::<Vec<_>>(),
        ["p-1", "p-2"]
    );
    let restore = |point: &str| {
        let began = Instant::now();
        let () = agent.post(
            &format!("/v1/overlays/o-0/points/{point}/restore"),
            Value::Null,
        );
        eprintln!("restored in {:.2} s", began.elapsed().as_secs_f64());
    };
    restore("p-1");
    io(
        guest,
        &at("o-0"),
        &["read -P 0x42 4k 256k", "read -P 0 40M 1M"],
    );
    // Undone: the later one is there still.
    restore("p-2");
    io(
        guest,
        &at("o-0"),
        &["read -P 0x43 4k 256k", "read -P 0x44 40M 1M"],
    );
    let () = agent.post("/v1/overlays/o-0/reset", Value::Null);
    io(
        guest,
        &at("o-0"),
        &["read -P 0x41 0 8M", "read -P 0 40M 1M"],
    );
    restore("p-1");
    io(guest, &at("o-0"), &["read -P 0x42 4k 256k"]);
    agent.delete("/v1/overlays/o-0/points/p-1");
    agent.delete("/v1/overlays/o-0/points/p-1");
    io(guest, &at("o-0"), &["read -P 0x42 4k 256k"]);
    let gone = agent
        .try_post::<()>("/v1/overlays/o-0/points/p-1/restore", Value::Null)
        .unwrap_err();
    assert_eq!(gone.code(), Some("not_found"), "{gone}");
    // Another desktop's point is not this one's.
    let wrong = agent
        .try_post::<()>("/v1/overlays/o-1/points/p-2/restore", Value::Null)
        .unwrap_err();
    assert_eq!(wrong.code(), Some("not_found"), "{wrong}");
}

/// What a desktop goes back to is another disk, made of a point, or of what was captured while it ran. It
/// takes what differs from the release, not what it was copied from.
fn copies(agent: &Agent, guest: &Guest, release: &str) {
    io(guest, &at("o-8"), &["write -P 0x46 4k 256k", "flush"]);
    let _: DiskPoint = agent.put("/v1/overlays/o-8/points/p-3", Value::Null);
    // What a host does while the desktop stands still.
    guest.run(&format!(
        "mkdir {SLOW}/deltas/x-1; cp {} {SLOW}/deltas/x-1/overlay.qcow2",
        at("o-8")
    ));
    io(guest, &at("o-8"), &["write -P 0x47 4k 256k", "flush"]);
    for (overlay, content) in [
        (
            "o-20",
            json!({"from": "point", "of": "o-8", "point": "p-3"}),
        ),
        ("o-21", json!({"from": "delta", "delta": "x-1"})),
    ] {
        let began = Instant::now();
        let body = json!({"release": release, "content": content});
        let _: Value = agent.put(&format!("/v1/overlays/{overlay}"), body);
        let takes = agent.overlay(overlay).bytes_on_disk;
        eprintln!(
            "a disk out of {content}: {:.2} s, {takes} bytes",
            began.elapsed().as_secs_f64()
        );
        assert!(takes < 4 << 20, "{takes} bytes for 256 KiB that differ");
        io(
            guest,
            &at(overlay),
            &[
                "read -P 0x46 4k 256k",
                "read -P 0x41 1M 7M",
                "write -P 0x48 4k 4k",
                "flush",
            ],
        );
        agent.delete(&format!("/v1/overlays/{overlay}"));
    }
    io(guest, &at("o-8"), &["read -P 0x47 4k 256k"]);
    agent.delete("/v1/deltas/x-1");
    agent.delete("/v1/overlays/o-8/points/p-3");
}

/// A copy of a release gets a larger disk, and a desktop's disk is taken away as one file.
fn grown_and_exported(lab: &Lab, agent: &Agent, guest: &Guest, release: &str) {
    let sized = |bytes: u64| json!({"from": "release", "release": release, "virtual_bytes": bytes});
    let refused = agent
        .try_put::<Value>("/v1/drafts/g", sized(1 << 20))
        .unwrap_err();
    assert_eq!(refused.code(), Some("invalid"), "{refused}");
    let _: Value = agent.put("/v1/drafts/g", sized(160 << 20));
    let larger = agent.seal("g");
    agent.clone_release(&larger, "o-22");
    assert_eq!(agent.overlay("o-22").virtual_bytes, 160 << 20);
    io(
        guest,
        &at("o-22"),
        &[
            "read -P 0x41 0 8M",
            "write -P 0x49 150M 1M",
            "flush",
            "read -P 0x49 150M 1M",
        ],
    );
    let to = lab.folder.path().join("exported.qcow2");
    agent.export("o-22", &to);
    let output = std::process::Command::new("qemu-io")
        .args([
            "-r",
            "-f",
            "qcow2",
            "-c",
            "read -P 0x41 0 8M",
            "-c",
            "read -P 0x49 150M 1M",
        ])
        .arg(&to)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && !said.contains("failed"),
        "{said}"
    );
    std::fs::remove_file(to).unwrap();
    agent.delete("/v1/overlays/o-22");
    agent.delete(&format!("/v1/releases/{larger}"));
}

fn in_use(agent: &Agent, guest: &Guest) {
    // A machine that has the disk open.
    guest.run(&format!(
        "mkfifo /tmp/hold; (qemu-io -f qcow2 {} </tmp/hold >/tmp/held 2>&1 &) ; exec 5>/tmp/hold; echo 'write -P 0x45 0 4k' >&5; until grep -q wrote /tmp/held; do sleep 0.2; done; (sleep 600 >&5 2>/dev/null & echo $! >/tmp/holder)",
        at("o-2")
    ));
    for (what, done) in [
        (
            "reset",
            agent.try_post::<()>("/v1/overlays/o-2/reset", Value::Null),
        ),
        (
            "point",
            agent
                .try_put::<Value>("/v1/overlays/o-2/points/p-9", Value::Null)
                .map(drop),
        ),
    ] {
        let error = done.expect_err(what);
        assert_eq!(error.code(), Some("in_use"), "{what}: {error}");
    }
    guest.run("kill $(cat /tmp/holder)");
    guest.until("! pgrep qemu-io");
    let () = agent.post("/v1/overlays/o-2/reset", Value::Null);
    io(guest, &at("o-2"), &["read -P 0x41 0 8M"]);
}

/// While no agent is there to extend it, a classic snapshot becomes full and is lost: that is said,
/// only this desktop is concerned, and a reset makes it a new one.
#[test]
#[ignore = "make test-storage"]
fn a_classic_snapshot_overflows_unwatched() {
    let lab = Lab::new();
    let guest = lab.boot(file_server(disks(512, 1024)));
    init(&guest, "--driver lvm-classic");
    let agent = start(&lab, &guest);
    let release = agent.release("d", 24);
    for n in 0..2 {
        agent.clone_release(&release, &format!("o-{n}"));
    }
    stop(&guest, "KILL");
    guest.run(&format!(
        "timeout 300 qemu-io -f qcow2 -c 'write -P 0x71 0 48M' -c flush -c 'write -P 0x72 48M 48M' -c flush {} >/tmp/overflow 2>&1; dmsetup status lyceum-d.o.0 | grep -Eq 'Invalid|Overflow'",
        at("o-0")
    ));
    let agent = start(&lab, &guest);
    let began = Instant::now();
    while agent.facts().lost.is_empty() {
        assert!(
            began.elapsed() < crate::guest::PATIENCE,
            "nobody says that it is lost"
        );
    }
    assert_eq!(agent.facts().lost[0].as_str(), "o-0");
    let error = agent
        .try_get::<Value>("/v1/overlays/o-0")
        .expect_err("it is lost");
    assert_eq!(error.code(), Some("damaged"), "{error}");
    let refused = agent.try_put::<Value>("/v1/overlays/o-0/points/p-1", Value::Null);
    assert!(refused.is_err(), "a point of what is lost");
    io(&guest, &at("o-1"), &["read -P 0x41 0 8M"]);
    let () = agent.post("/v1/overlays/o-0/reset", Value::Null);
    io(&guest, &at("o-0"), &["read -P 0x41 0 8M"]);
    let began = Instant::now();
    while !agent.facts().lost.is_empty() {
        assert!(
            began.elapsed() < crate::guest::PATIENCE,
            "it is said to be lost after its reset"
        );
    }
}

/// The slow disks are nearly full: desktops stand still before anything is lost, and go on when
/// there is room.
fn full(agent: &Agent, guest: &Guest, driver: &str) {
    // What is left goes to somebody else, but for a few extents.
    guest.run(
        "free=$(pvs --noheadings --units b --nosuffix -o pv_free -S pv_tags=lyceum.slow | tr -d ' ')
         lvcreate --yes -n filler -L $((free - 8*4194304))b lyceum @lyceum.slow",
    );
    if driver == "lvm-classic" {
        let refused = agent.try_clone(&release_of_one(agent), "x-1").unwrap_err();
        assert_eq!(refused.code(), Some("tier_full"), "{refused}");
    }
    // Desktops that write and write, all of them at once; not faster than a busy machine looks.
    guest.run(&format!(
        "for n in 3 4 5 6; do
           (for mb in $(seq 8 67); do echo \"write -q -P 0x6$n ${{mb}}M 1M\"; echo sleep 1000; done; echo flush) >/tmp/s-$n
           (qemu-io -f qcow2 {SLOW}/volumes/o-$n/disk.qcow2 </tmp/s-$n >/tmp/w-$n 2>&1; echo over >>/tmp/w-$n) >/dev/null 2>&1 &
         done"
    ));
    let began = Instant::now();
    let paused = loop {
        let facts = agent.facts();
        assert!(facts.lost.is_empty(), "{facts:?}");
        if !facts.paused.is_empty() {
            break facts.paused;
        }
        let over = guest.run("grep -l over /tmp/w-* 2>/dev/null | wc -l || true");
        if over == "4" {
            break Vec::new();
        }
        assert!(began.elapsed() < crate::guest::PATIENCE);
    };
    eprintln!(
        "{driver}: {} stood still, with {}",
        paused.len(),
        guest.run("lvs --noheadings -o lv_name,data_percent lyceum | tr -s ' \\n' ' '")
    );
    assert!(!paused.is_empty(), "nobody was stopped");
    guest.run("lvremove --yes lyceum/filler");
    guest.until("[ $(grep -l over /tmp/w-* | wc -l) = 4 ]");
    let began = Instant::now();
    while !agent.facts().paused.is_empty() {
        assert!(began.elapsed() < crate::guest::PATIENCE);
    }
    for n in 3..=6 {
        let said = guest.run(&format!("cat /tmp/w-{n}"));
        assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
        let pattern = format!("read -P 0x6{n} 8M 60M");
        io(
            guest,
            &at(&format!("o-{n}")),
            &[&pattern, "read -P 0x41 0 8M"],
        );
    }
    assert!(agent.facts().lost.is_empty());
}

/// The release that o-1 lies over.
fn release_of_one(agent: &Agent) -> String {
    agent.overlay("o-1").disk.release().unwrap().to_string()
}
