//! The paper's experiments and tuning, on a real file server and a real host of it.

use crate::guest::Guest;
use crate::hosts::{host, start_host};
use crate::server::{Lab, disks, file_server, start};
use crate::volumes::init;
use serde_json::Value;

/// What `lyceum bench` wrote.
fn record(guest: &Guest, file: &str) -> Value {
    serde_json::from_str(&guest.run(&format!("cat {file}"))).unwrap()
}

/// The median of a row.
fn value(record: &Value, series: &str, point: &str) -> f64 {
    let rows = record["rows"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["series"] == series && row["point"] == point)
        .unwrap_or_else(|| panic!("no row {series}, {point}: {record}"));
    let mut samples: Vec<f64> = row["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_f64().unwrap())
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

#[test]
#[ignore = "make test-storage"]
fn what_durability_costs() {
    let lab = Lab::new();
    let server = lab.boot(file_server(disks(1024, 2048)));
    init(
        &server,
        "--driver qcow2 --disk-network 10.77.0.1 --hosts 10.77.0.0/24",
    );
    start(&lab, &server);
    let host = lab.boot(host());
    start_host(&host);

    // The paper's mode beside ours: the same disk, another export.
    server.run(
        "mkdir /srv/lyceum/slow/paper
         exportfs -o rw,async,no_subtree_check,no_root_squash,sec=sys,fsid=77 10.77.0.0/24:/srv/lyceum/slow/paper",
    );
    host.run("mkdir -p /mnt/paper; mount -t nfs4 -o vers=4.2,hard,nconnect=4,noatime 10.77.0.1:/srv/lyceum/slow/paper /mnt/paper");
    let lyceum = "/opt/payload/lyceum";
    host.run(&format!(
        "{lyceum} bench durability --safe /srv/slow --paper /mnt/paper --writes 1024 --repeat 3 --json /tmp/durability.json"
    ));
    let made = record(&host, "/tmp/durability.json");
    let of = |point: &str| value(&made, "writes of a desktop", point);
    let (safe, paper) = (of("safe"), of("nfs-async"));
    eprintln!(
        "writes per second with a flush after every 32, over NFS: safe {safe:.0}, nfs-async {paper:.0} (safe reaches {:.0} %), safe through the host's cache {:.0}, throwaway {:.0}",
        safe / paper * 100.0,
        of("safe, cached"),
        of("throwaway"),
    );

    host.run(&format!(
        "{lyceum} bench nfs --dir sync=/srv/slow --dir async=/mnt/paper --block 4k --size-mib 32 --seconds 2 --repeat 1 --json /tmp/nfs.json"
    ));
    let made = record(&host, "/tmp/nfs.json");
    for word in ["read", "write", "write, flush every 32"] {
        let of = |label: &str| value(&made, &format!("{word}, {label}"), "4 KiB");
        eprintln!(
            "bench nfs: {word}, 4 KiB: sync {:.2} MiB/s, async {:.2} MiB/s",
            of("sync"),
            of("async")
        );
    }
    let refused = host.try_run(&format!("{lyceum} bench nfs --dir /tmp --size-mib 8 2>&1"));
    assert!(
        refused.status != 0 && refused.text.contains("no NFS mount"),
        "{}",
        refused.text
    );
}

/// Everything that is changed here, as it is now.
fn knobs(guest: &Guest) -> String {
    guest.run("echo threads $(cat /proc/fs/nfsd/threads) mtu $(cat /sys/class/net/eth1/mtu)")
}

/// Threads of the NFS server, and an MTU after the path was seen to carry it; undone exactly.
#[test]
#[ignore = "make test-storage"]
fn tuning_is_proven_and_undone() {
    let lab = Lab::new();
    let server = lab.boot(file_server(disks(512, 512)));
    init(
        &server,
        "--driver qcow2 --disk-network 10.77.0.1 --hosts 10.77.0.0/24",
    );
    start(&lab, &server);
    let host = lab.boot(host());
    let lyceum = "/opt/payload/lyceum";
    host.run(&format!(
        "({lyceum} bench net --serve 10.77.0.2 >/tmp/serve 2>&1 & echo $! >/tmp/serve.pid) >/dev/null 2>&1"
    ));
    host.until("ss -Hltn | grep -q :5201");
    server.run("echo 4 >/proc/fs/nfsd/threads");
    let before = knobs(&server);
    let plan = server.run(&format!("{lyceum} tune plan --peer 10.77.0.2"));
    assert!(plan.contains("nfsd") && plan.contains("mtu eth1"), "{plan}");
    assert_eq!(knobs(&server), before, "a plan changed something");
    server.run(&format!(
        "{lyceum} tune apply --peer 10.77.0.2 --only nfsd --unmeasured"
    ));
    let threads: u32 = server.run("cat /proc/fs/nfsd/threads").parse().unwrap();
    assert!(threads >= 8, "{threads} threads");

    let mtu = || server.run("cat /sys/class/net/eth1/mtu");
    // (A card of QEMU takes whatever comes, so that a path refuses is not to be seen here.)
    host.run("ip link set eth1 mtu 9000");
    let said = server.run(&format!(
        "{lyceum} tune apply --peer 10.77.0.2 --only 'mtu eth1' --unmeasured 2>&1"
    ));
    assert!(said.contains("do packets of 9000 bytes reach"), "{said}");
    assert_eq!(mtu(), "9000", "{said}");
    let status = server.run(&format!("{lyceum} tune status"));
    assert!(status.contains("9000"), "{status}");
    server.run(&format!("{lyceum} tune undo"));
    assert_eq!(knobs(&server), before, "undone, and not as before");
    eprintln!("threads 4 -> {threads}, MTU 1500 -> 9000 once the path carried it; undone");
    host.run("kill $(cat /tmp/serve.pid)");
}
