//! What breaks below the tiers: a disk of a mirror, a pool's metadata.

use crate::guest::{Disk, Guest, PATIENCE};
use crate::server::{Lab, disk, disks, file_server, start, stop};
use crate::volumes::{SLOW, init, io};
use std::path::Path;
use std::time::Instant;

fn at(overlay: &str) -> String {
    disk(Path::new(SLOW), overlay)
}

/// Tiers over several disks: striped where the releases are, mirrored and striped where desktops
/// write. One of the mirrored disks breaks, and nobody notices.
#[test]
#[ignore = "make test-storage"]
fn a_disk_of_a_mirrored_tier_breaks() {
    let lab = Lab::new();
    let mut plan = file_server(Vec::new());
    for (name, rotational) in [
        ("ssd0", false),
        ("ssd1", false),
        ("hdd0", true),
        ("hdd1", true),
        ("hdd2", true),
        ("hdd3", true),
    ] {
        plan.disks.push(Disk {
            name,
            megabytes: 768,
            rotational,
        });
    }
    let guest = lab.boot(plan);
    // Too few for it is said before anything is made.
    let refused = guest.try_run(
        "/opt/payload/lyceum storage init --listen 10.0.2.15:8471 --driver lvm-thin --fast-layout raid10 --slow-layout raid10 --headroom-mib 64 --yes 2>&1",
    );
    assert!(
        refused.status != 0 && refused.text.contains("its layout needs 4 or more"),
        "{}",
        refused.text
    );
    assert_eq!(guest.run("pvs --noheadings | wc -l"), "0");
    init(
        &guest,
        "--driver lvm-thin --fast-layout striped --slow-layout raid10",
    );
    let agent = start(&lab, &guest);
    let kinds = guest.run("lvs -a --noheadings -o lv_name,segtype,stripes lyceum");
    for (volume, kind) in [
        ("tier-fast", "striped"),
        ("tier-slow", "raid10"),
        ("pool_tdata", "raid10"),
    ] {
        let line = kinds.lines().find(|line| line.contains(volume));
        assert!(line.is_some_and(|line| line.contains(kind)), "{kinds}");
    }
    let release = agent.release("d", 24);
    for n in 0..3 {
        agent.clone_release(&release, &format!("o-{n}"));
    }
    io(&guest, &at("o-0"), &["write -P 0x51 4k 1M", "flush"]);

    // Gone, as when somebody pulls it out.
    guest.run(
        "name=$(basename $(realpath /dev/disk/by-id/*hdd2)); echo 1 >/sys/block/$name/device/delete",
    );
    io(
        &guest,
        &at("o-0"),
        &["read -P 0x51 4k 1M", "write -P 0x52 8M 4M", "flush"],
    );
    io(&guest, &at("o-1"), &["read -P 0x41 0 8M"]);
    guest.run("echo 3 >/proc/sys/vm/drop_caches");
    io(
        &guest,
        &at("o-0"),
        &["read -P 0x51 4k 1M", "read -P 0x52 8M 4M"],
    );
    let facts = agent.facts();
    assert!(facts.lost.is_empty(), "{facts:?}");
    eprintln!("one of four disks of a raid10 tier is gone; desktops read and write");
}

fn metadata(guest: &Guest) -> f64 {
    let percent = guest.run("lvs --noheadings -o metadata_percent lyceum/pool");
    percent.trim().parse().unwrap()
}

/// A pool of thin snapshots whose metadata runs out, with nothing to extend it by: desktops stand still
/// before it fails, no new ones come, nothing is lost, and they go on when there is room.
#[test]
#[ignore = "make test-storage"]
fn a_pool_whose_metadata_runs_out() {
    let lab = Lab::new();
    let guest = lab.boot(file_server(disks(768, 1536)));
    init(&guest, "--driver lvm-thin");
    // As small as it gets, so that it is filled soon. The agent takes the pool that it finds.
    guest.run(
        "lvcreate --yes -n meta -L 4M lyceum @lyceum.fast
         lvcreate --yes -n pool -L 512M lyceum @lyceum.slow
         lvconvert --yes --type thin-pool --chunksize 64k --zero y --poolmetadata lyceum/meta lyceum/pool",
    );
    let agent = start(&lab, &guest);
    let release = agent.release("d", 24);
    for n in 0..2 {
        agent.clone_release(&release, &format!("o-{n}"));
    }
    io(&guest, &at("o-0"), &["write -P 0x51 4k 1M", "flush"]);
    // Nothing is left on the fast disks; every volume of a pool needs metadata, also one that is empty.
    guest.run(
        "free=$(pvs --noheadings --units b --nosuffix -o pv_free -S pv_tags=lyceum.fast | tr -d ' ')
         lvcreate --yes -n filler -L ${free}b lyceum @lyceum.fast",
    );
    let mut made = 0;
    let began = Instant::now();
    while agent.facts().paused.is_empty() {
        assert!(
            made < 1100 && began.elapsed() < PATIENCE,
            "nobody stands still at {:.0} % ({made} made)",
            metadata(&guest)
        );
        guest.run(&format!(
            "for n in $(seq {} {}); do dmsetup message lyceum-pool-tpool 0 \"create_thin $((5000 + n))\" || break; done",
            made + 1,
            made + 40
        ));
        made += 40;
    }
    let percent = metadata(&guest);
    eprintln!("desktops stood still at {percent:.0} % of the pool's metadata");
    assert!(percent < 98.0, "too late: {percent} %");
    let refused = agent.try_clone(&release, "o-2").unwrap_err();
    assert_eq!(refused.code(), Some("tier_full"), "{refused}");
    assert!(refused.to_string().contains("metadata"), "{refused}");
    // A write waits.
    guest.run(&format!(
        "(qemu-io -f qcow2 -c 'write -P 0x53 8M 2M' -c flush {} >/tmp/waits 2>&1; echo over >>/tmp/waits) >/dev/null 2>&1 &",
        at("o-1")
    ));
    assert_eq!(agent.facts().paused.len(), 2);

    guest.run("lvremove --yes lyceum/filler");
    guest.until("grep -q over /tmp/waits");
    let began = Instant::now();
    while !agent.facts().paused.is_empty() {
        assert!(began.elapsed() < PATIENCE, "nobody goes on");
    }
    let said = guest.run("cat /tmp/waits");
    assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
    io(
        &guest,
        &at("o-1"),
        &["read -P 0x53 8M 2M", "read -P 0x41 0 8M"],
    );
    io(&guest, &at("o-0"), &["read -P 0x51 4k 1M"]);
    agent.clone_release(&release, "o-2");
    // The next agent finds it in order too.
    stop(&guest, "TERM");
    let agent = start(&lab, &guest);
    assert!(agent.facts().lost.is_empty());
    io(&guest, &at("o-2"), &["read -P 0x41 0 8M"]);
}
