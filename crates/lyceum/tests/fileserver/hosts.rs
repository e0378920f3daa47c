//! Hosts of the file server: what they mount, what they refuse, and what goes over which network.

use crate::guest::{Guest, Plan};
use crate::server::{Lab, disks, file_server, start, stop};
use crate::volumes::init;
use std::time::Instant;

/// What `init` has as defaults.
const FAST: &str = "/srv/lyceum/fast";
const SLOW: &str = "/srv/lyceum/slow";
/// The disk network's card; the other one, `eth0`, is the control network's.
const DISK_NET: &str = "eth1";

pub fn host() -> Plan {
    Plan {
        name: "host",
        disk_network: "10.77.0.2/24",
        hub: false,
        memory_mb: 512,
        disks: Vec::new(),
    }
}

/// Begins a real host agent, whose machines are simulated and whose mounts are not.
pub fn start_host(guest: &Guest) {
    guest.run(&format!(
        "mkdir -p /etc/lyceum /var/lib/lyceum/host; cp -n /opt/payload/host/* /var/lib/lyceum/host/
         cat >/etc/lyceum/host.toml <<'END'
[host]
name = \"host-1\"
listen = \"10.0.2.15:8471\"
state_dir = \"/var/lib/lyceum/host\"
run_dir = \"/run/lyceum\"
fast = \"/srv/fast\"
slow = \"/srv/slow\"
simulated = true
[nfs]
server = \"10.77.0.1\"
fast = \"{FAST}\"
slow = \"{SLOW}\"
END
         setsid /opt/payload/lyceum host --config /etc/lyceum/host.toml >>/var/log/lyceum.log 2>&1 </dev/null 4>&- &
         echo $! >/run/agent.pid"
    ));
    guest.until("grep -q 'the host agent is up' /var/log/lyceum.log || { kill -0 $(cat /run/agent.pid) || { cat /var/log/lyceum.log; exit 0; }; exit 1; }");
    guest.run("grep -q 'the host agent is up' /var/log/lyceum.log");
}

/// Overlay and base as two nodes, as a host's QEMU opens them.
fn nodes(overlay: &str, release: &str) -> String {
    format!(
        "--image-opts driver=qcow2,cache.direct=off,file.driver=file,file.filename=/srv/slow/overlays/{overlay}.qcow2,backing.driver=qcow2,backing.read-only=on,backing.file.driver=file,backing.file.filename=/srv/fast/releases/{release}/disk.qcow2"
    )
}

fn received(guest: &Guest, card: &str) -> u64 {
    let text = guest.run(&format!("cat /sys/class/net/{card}/statistics/rx_bytes"));
    text.parse().unwrap()
}

fn read_all(guest: &Guest, target: &str) {
    let said = guest.run(&format!("qemu-io -r -c 'read -P 0x41 0 16M' {target}"));
    assert!(!said.contains("failed"), "{said}");
}

#[test]
#[ignore = "make test-storage"]
fn a_host_mounts_the_tiers_and_nobody_else_does() {
    let lab = Lab::new();
    let server = lab.boot(file_server(disks(1024, 1024)));
    // With room for volumes beside the tiers' file systems; files come first.
    init(
        &server,
        "--driver lvm-thin --disk-network 10.77.0.1 --hosts 10.77.0.0/24",
    );
    server.run("sed -i 's/^driver.*/driver = \"qcow2\"/' /etc/lyceum/storage.toml");
    let agent = start(&lab, &server);
    let release = agent.release("d", 16);
    for n in 0..20 {
        agent.clone_release(&release, &format!("q-{n}"));
    }

    // The server listens on the disk network only.
    let listens = server.run("ss -Hltn | awk '{print $4}' | grep ':2049$'");
    assert_eq!(listens, "10.77.0.1:2049");

    let host = lab.boot(host());
    start_host(&host);
    let mounts = host.run("grep ' nfs4 ' /proc/mounts");
    for words in [
        "10.77.0.1:/srv/lyceum/fast /srv/fast",
        "vers=4.2",
        "hard",
        "nconnect=4",
        "nosuid",
        "nodev",
    ] {
        assert!(mounts.contains(words), "{words}: {mounts}");
    }

    once_per_host(&host, &release);
    // A desktop's own writes reach the slow tier.
    let wrote = host.run(&format!(
        "qemu-io -c 'write -P 0x61 4k 64k' -c flush {}",
        nodes("q-0", &release)
    ));
    assert!(!wrote.contains("failed"), "{wrote}");
    let own = server.run(&format!(
        "qemu-io -r -f qcow2 -c 'read -P 0x61 4k 64k' {SLOW}/overlays/q-0.qcow2"
    ));
    assert!(!own.contains("failed"), "{own}");
    // Locks are seen on the other machine: a disk that a host has open is not reset.
    host.run(&format!(
        "mkfifo /tmp/hold; (qemu-io {} </tmp/hold >/tmp/held 2>&1 &) ; exec 5>/tmp/hold; echo 'write -P 0x62 0 4k' >&5; until grep -q wrote /tmp/held; do sleep 0.2; done; (sleep 600 >&5 2>/dev/null & echo $! >/tmp/holder)",
        nodes("q-1", &release)
    ));
    let refused = agent
        .try_post::<()>("/v1/overlays/q-1/reset", serde_json::Value::Null)
        .unwrap_err();
    assert_eq!(refused.code(), Some("in_use"), "{refused}");
    host.run("kill $(cat /tmp/holder)");
    host.until("! pgrep qemu-io");
    let () = agent.post("/v1/overlays/q-1/reset", serde_json::Value::Null);

    others(&host, &server);
    volumes(&lab, &server, &host, &release);
    restarted(&lab, server, &host, &release);
}

/// Twenty desktops on one host cost the file server about one copy, and the control network nothing.
fn once_per_host(host: &Guest, release: &str) {
    host.run("echo 3 >/proc/sys/vm/drop_caches");
    let (disk, control) = (received(host, DISK_NET), received(host, "eth0"));
    read_all(host, &nodes("q-0", release));
    let alone = received(host, DISK_NET) - disk;
    assert!(alone > 16 << 20, "one desktop read {alone} bytes");
    host.run("echo 3 >/proc/sys/vm/drop_caches");
    let disk = received(host, DISK_NET);
    for n in 0..20 {
        read_all(host, &nodes(&format!("q-{n}"), release));
    }
    let all = received(host, DISK_NET) - disk;
    let control = received(host, "eth0") - control;
    eprintln!(
        "bytes from the file server per desktop: alone {alone}, of 20 on one host {}, 1/{:.1}; on the control network {control}",
        all / 20,
        20.0 * alone as f64 / all as f64
    );
    assert!(
        all * 15 <= 20 * alone,
        "20 desktops read {all} bytes, one alone {alone}"
    );
    assert!(
        control < 64 << 10,
        "{control} bytes of disk traffic on the control network"
    );
}

/// Whoever is not on the list gets nothing; a host with other tiers before does not start.
fn others(host: &Guest, server: &Guest) {
    let other = host.try_run(
        "mkdir -p /mnt/x; timeout 60 mount -t nfs4 -o vers=4.2,retry=0 10.77.0.1:/etc /mnt/x",
    );
    assert_ne!(other.status, 0, "a folder that is no tier was mounted");
    let older = host.try_run(&format!(
        "timeout 60 mount -t nfs -o vers=3,retry=0,nolock 10.77.0.1:{FAST} /mnt/x"
    ));
    assert_ne!(older.status, 0, "an older protocol was taken");
    host.run("ip address add 10.78.0.2/24 dev eth1");
    server.run("ip address add 10.78.0.1/24 dev eth1");
    let elsewhere = host.try_run(&format!(
        "timeout 60 mount -t nfs4 -o vers=4.2,retry=0 10.78.0.1:{FAST} /mnt/x"
    ));
    assert_ne!(
        elsewhere.status, 0,
        "it was mounted by an address that is not the disk network's"
    );

    // Other tiers than this host had.
    stop(host, "TERM");
    host.run("cp /var/lib/lyceum/host/tiers.json /tmp/; sed -i 's/[0-9]/7/g' /var/lib/lyceum/host/tiers.json; : >/var/log/lyceum.log");
    let refused =
        host.try_run("timeout 60 /opt/payload/lyceum host --config /etc/lyceum/host.toml 2>&1");
    assert!(
        refused.status != 0 && refused.text.contains("other tiers"),
        "{}",
        refused.text
    );
    host.run("cp /tmp/tiers.json /var/lib/lyceum/host/");
    start_host(host);
}

#[test]
#[ignore = "make test-storage"]
fn wrong_addresses_and_stale_mounts() {
    let lab = Lab::new();
    let server = lab.boot(file_server(disks(512, 512)));
    init(
        &server,
        "--driver qcow2 --disk-network 10.77.0.1 --hosts 10.77.0.0/24",
    );
    start(&lab, &server);
    let host = lab.boot(host());
    start_host(&host);
    stale(&lab, &server, &host);
    wrong_addresses(&lab, &server, &host);
}

/// An address that is nobody's: the file server does not begin to show disks there, and a host
/// does not wait for ever.
fn wrong_addresses(lab: &Lab, server: &Guest, host: &Guest) {
    stop(server, "TERM");
    server.run("sed 's/10.77.0.1/10.77.0.99/' /etc/lyceum/storage.toml >/tmp/other.toml");
    let refused =
        server.try_run("timeout 120 /opt/payload/lyceum storage --config /tmp/other.toml 2>&1");
    assert!(
        refused.status != 0 && refused.text.contains("10.77.0.99 is no address"),
        "{}",
        refused.text
    );
    start(lab, server);
    host.run("sed -e 's/10.77.0.1/10.77.0.99/' -e 's/:8471/:8472/' -e 's#/srv/fast#/srv/f#' -e 's#/srv/slow#/srv/s#' -e 's#/run/lyceum#/run/other#' -e 's#/var/lib/lyceum/host#/var/lib/other#' /etc/lyceum/host.toml >/tmp/other.toml; cp -rn /opt/payload/host /var/lib/other");
    let refused =
        host.try_run("timeout 500 /opt/payload/lyceum host --config /tmp/other.toml 2>&1");
    assert!(
        refused.status != 0
            && refused.status != 124
            && refused.text.contains("can't mount 10.77.0.99:"),
        "{}",
        refused.text
    );
}

/// The file server's tiers were made anew under a host: its mounts are stale. It makes them anew
/// when it starts, refuses tiers that it did not have, and needs nobody when they are its own.
fn stale(lab: &Lab, server: &Guest, host: &Guest) {
    let markers = "/srv/lyceum/fast/.lyceum-tier /srv/lyceum/slow/.lyceum-tier";
    stop(host, "TERM");
    stop(server, "TERM");
    server.run(&format!(
        "tar cf /tmp/markers -P {markers} /var/lib/lyceum/storage/tiers.json; rm /var/lib/lyceum/storage/tiers.json
         sed -i -E 's/(\"id\": ?\")[0-9a-f]{{8}}/\\1deadbeef/' {markers}"
    ));
    start(lab, server);
    host.until("ls /srv/fast 2>&1 | grep -qi stale");
    host.run(": >/var/log/lyceum.log");
    let refused =
        host.try_run("timeout 300 /opt/payload/lyceum host --config /etc/lyceum/host.toml 2>&1");
    assert!(
        refused.status != 0 && refused.text.contains("other tiers"),
        "{}",
        refused.text
    );
    stop(server, "TERM");
    server.run("tar xf /tmp/markers -P");
    start(lab, server);
    host.until("ls /srv/fast 2>&1 | grep -qi stale");
    start_host(host);
    host.run("ls /srv/fast/releases /srv/slow/overlays >/dev/null");
}

/// A desktop's volume is a file system of its own; hosts reach it below the tier that they mounted.
fn volumes(lab: &Lab, server: &Guest, host: &Guest, release: &str) {
    stop(server, "TERM");
    server.run("sed -i 's/^driver.*/driver = \"lvm\"/' /etc/lyceum/storage.toml");
    let agent = start(lab, server);
    for n in 0..2 {
        agent.clone_release(release, &format!("v-{n}"));
    }
    let file = |n: u32| format!("/srv/slow/volumes/v-{n}/disk.qcow2");
    let said = host.run(&format!(
        "qemu-io -f qcow2 -c 'read -P 0x41 0 16M' -c 'write -P 0x51 4k 64k' -c flush {}",
        file(0)
    ));
    assert!(!said.contains("failed"), "{said}");
    // Copies of one file system: each host must see each desktop's own.
    let said = host.run(&format!(
        "qemu-io -r -f qcow2 -c 'read -P 0x41 0 16M' {}",
        file(1)
    ));
    assert!(!said.contains("failed"), "{said}");
    // A host that has looked at it, and holds nothing open, is not in the way.
    let () = agent.post("/v1/overlays/v-0/reset", serde_json::Value::Null);
    host.until(&format!(
        "qemu-io -r -f qcow2 -c 'read -P 0x41 0 16M' {} | grep -v failed",
        file(0)
    ));
    agent.delete("/v1/overlays/v-1");
    host.until(&format!("! test -e {}", file(1)));
    agent.delete("/v1/overlays/v-0");
    stop(server, "TERM");
    server.run("sed -i 's/^driver.*/driver = \"qcow2\"/' /etc/lyceum/storage.toml");
    start(lab, server);
}

/// The file server goes down under a desktop that writes: it waits, and goes on.
fn restarted(lab: &Lab, server: Guest, host: &Guest, release: &str) {
    host.run(&format!(
        "(for n in $(seq 40); do qemu-io -c \"write -P $n ${{n}}00k 64k\" -c flush {} || echo broken; echo round; done >/tmp/rounds 2>&1; echo over >>/tmp/rounds) >/dev/null 2>&1 &",
        nodes("q-2", release)
    ));
    host.until("[ $(grep -c round /tmp/rounds) -ge 5 ]");
    server.cut();
    let before: u32 = host.run("grep -c round /tmp/rounds").parse().unwrap();
    let server = lab.boot(file_server(disks(1024, 1024)));
    let began = Instant::now();
    let agent = start(lab, &server);
    host.until("grep -q over /tmp/rounds");
    eprintln!(
        "after {before} rounds the server was cut; all was over {:.0} s after it was started again",
        began.elapsed().as_secs_f64()
    );
    let said = host.run("cat /tmp/rounds");
    assert!(
        !said.contains("broken") && !said.contains("failed"),
        "{said}"
    );
    let reads: Vec<String> = (1..=40)
        .map(|n| format!("-c 'read -P {n} {n}00k 64k'"))
        .collect();
    let said = server.run(&format!(
        "qemu-io -r -f qcow2 {} {SLOW}/overlays/q-2.qcow2",
        reads.join(" ")
    ));
    assert!(!said.contains("failed"), "{said}");
    assert_eq!(agent.facts().durability, "safe");
}
