//! A real guest in its course's network: plugged into a tap, it gets its own address from the course's
//! dnsmasq, reaches the gateway, and is not heard under another address.

use crate::common::{Classroom, tiny_image};
use lyceum_edge::{GatewayEdge, HostEdge, Machine};
use lyceum_hypervisor::{Nic, NicLink, StartFrom};
use lyceum_net::wanted::Uplink;
use lyceum_net::{Course, GatewayNetwork, HostNetwork, Lease, Plug, Policy, Segment};
use std::io::Write;
use std::net::IpAddr;
use std::process::Command;

const INSIDE: &str = "LYCEUM_TEST_INSIDE_NAMESPACE";

/// Runs this very test again in a network namespace of its own.
fn again_inside() {
    let here = "for tool in nft dnsmasq ip bridge; do command -v $tool >/dev/null || exit 77; done; test $(id -u) = 0 && \
                unshare --net sh -c 'ip link add name br0 type bridge && ip tuntap add dev tap0 mode tap && nft add table bridge t' || exit 77";
    let possible = Command::new("sh")
        .args(["-c", here])
        .env("PATH", path())
        .status();
    if possible.expect("sh").code() == Some(77) {
        let why = "no root, no taps, or one of nft, dnsmasq, ip is missing";
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: a guest in its course's network: {why}\n"
        );
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .arg("--net")
        .arg(program)
        .args([
            "--exact",
            "tap::a_guest_in_its_courses_network",
            "--nocapture",
        ])
        .env("PATH", path())
        .env(INSIDE, "1")
        .status();
    assert!(status.expect("unshare").success(), "see above");
}

fn path() -> String {
    format!(
        "/usr/sbin:/sbin:{}",
        std::env::var("PATH").unwrap_or_default()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_in_its_courses_network() {
    if std::env::var_os(INSIDE).is_none() {
        return again_inside();
    }
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.expect("ip").success());
    let ranges = ("10.128.0.0/9".parse(), "fd4c:5943:4555::/48".parse());
    let segment = Segment::within(1, &ranges.0.expect("v4"), &ranges.1.expect("v6"));
    let segment = segment.expect("room");
    let plug = Plug {
        segment,
        mac: "52:54:00:00:00:01".parse().expect("mac"),
        v4: segment.desktop4(1).expect("room"),
        among_themselves: false,
    };
    let here = IpAddr::from([127, 0, 0, 1]);
    // Host and gateway are one machine.
    let mut host = HostEdge::new(Machine::this());
    let network = HostNetwork {
        uplink: Uplink::Vxlan { address: here },
        members: vec![here],
        gateway_here: true,
        plugs: vec![plug],
    };
    let room = Classroom::new();
    let run_dir = room.path("net");
    let open = Command::new("chmod")
        .arg("755")
        .arg(room.dir.path())
        .status();
    assert!(open.expect("chmod").success());
    let mut gateway = GatewayEdge::new(Machine::this(), &run_dir)
        .await
        .expect("gateway");
    let gateway_network = GatewayNetwork {
        address: Some(here),
        members: vec![here],
        protected: Vec::new(),
        upstreams: Vec::new(),
        courses: vec![Course {
            segment,
            policy: Policy::default(),
            leases: vec![Lease {
                mac: plug.mac,
                v4: plug.v4,
                name: lyceum_model::Hostname::from_text("ann", ""),
            }],
        }],
        native_ports: Vec::new(),
        doors: Vec::new(),
    };
    gateway.apply(&gateway_network).await.expect("gateway");
    host.apply(&network).await.expect("host");
    assert!(gateway.repair().await.expect("looked").0.is_empty());

    let tiny = tiny_image();
    let mut request = room.request(StartFrom::Cold, room.overlay(&tiny), Some(tiny));
    request.nic = Some(Nic {
        mac: plug.mac.to_string(),
        link: NicLink::Tap {
            name: plug.tap().to_string(),
            address: plug.v4,
        },
    });
    let machine = room.start(request).await;
    // Its own address, of all those that the segment has.
    let expected = format!("{}/22", plug.v4);
    assert_eq!(machine.usable.address.as_deref(), Some(expected.as_str()));
    let router = segment.gateway4();
    let ping = |from: &str| {
        format!("ping -c 3 -W 5 {from} {router} >/dev/null 2>&1 && echo yes || echo no")
    };
    assert_eq!(machine.sh(&ping("")).await, "yes");
    // Under another address nobody hears it.
    let lie = segment.desktop4(2).expect("room");
    machine
        .sh(&format!("ip address add {lie}/22 dev eth0"))
        .await;
    let once = ping(&format!("-I {lie}")).replace("-c 3 -W 5", "-c 1 -W 3");
    assert_eq!(machine.sh(&once).await, "no");
    assert_eq!(machine.sh(&ping(&format!("-I {}", plug.v4))).await, "yes");
    machine.end().await;
    gateway.remove().await.expect("removed");
    host.remove(&network).await.expect("removed");
}
