//! All pairs, both directions, IPv4 and IPv6, per policy; and that it stays so whatever restarts.

use crate::world::{
    DEADLINE, Desktop, NATIVE, PORT, World, plug, possible, reach, servers, sh, within,
};
use lyceum_net::Internet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Places by name, with their addresses.
struct Class {
    world: World,
    a1: Desktop,
    a2: Desktop,
    /// Its frames are carried for as long as it is there.
    _a3: Desktop,
    b1: Desktop,
    places: BTreeMap<&'static str, [IpAddr; 2]>,
}

fn ips(v4: &str, v6: &str) -> [IpAddr; 2] {
    [v4.parse().expect("v4"), v6.parse().expect("v6")]
}

#[derive(Clone, Copy)]
struct Expect {
    a_out: Internet,
    a_among: bool,
}

impl Class {
    async fn new(tag: &str) -> Class {
        let mut world = World::new(tag).await;
        let (a1, a2, a3, b1) = (plug(1, 1), plug(1, 2), plug(1, 3), plug(2, 1));
        world.course(1, &[("ann", a1), ("bob", a2), ("cy", a3)]);
        world.course(2, &[("dee", b1)]);
        world.host1.plugs = vec![a1, a3];
        world.host2.plugs = vec![a2, b1];
        world.door("desktop-a1", "198.51.100.11");
        world.door("desktop-a1", "2001:db8:2::11");
        world.policy(1, Internet::On, &[], true);
        world.policy(2, Internet::Off, &[], true);
        world.apply().await;
        let class = |n: &str, plug, world: &mut World| world.desktop(n, plug);
        let (a1, a2, a3, b1) = (
            class("a1", a1, &mut world),
            class("a2", a2, &mut world),
            class("a3", a3, &mut world),
            class("b1", b1, &mut world),
        );
        let (h1, h2) = (world.name("h1"), world.name("h2"));
        a1.connect(&h1);
        a3.connect(&h1);
        a2.connect(&h2);
        b1.connect(&h2);
        let mut places = BTreeMap::from([
            ("h1", ips("192.0.2.11", "2001:db8:1::11")),
            ("h2", ips("192.0.2.12", "2001:db8:1::12")),
            ("gw", ips("198.51.100.1", "2001:db8:2::1")),
            ("gw-in", ips("192.0.2.10", "2001:db8:1::10")),
            (
                "gw-a",
                [a1.plug.segment.gateway4(), a1.plug.segment.gateway6()],
            ),
            ("s", ips("198.51.100.11", "2001:db8:2::11")),
            ("t", ips("198.51.100.12", "2001:db8:2::12")),
            ("net", ips("198.51.100.80", "2001:db8:2::80")),
            ("net2", ips("198.51.100.81", "2001:db8:2::81")),
        ]);
        for (n, d) in [("a1", &a1), ("a2", &a2), ("a3", &a3), ("b1", &b1)] {
            places.insert(n, [d.v4(), d.v6()]);
        }
        Class {
            world,
            a1,
            a2,
            _a3: a3,
            b1,
            places,
        }
    }

    /// `None`: not Lyceum's to say.
    fn allowed(expect: Expect, from: &str, to: &str, port: u16) -> Option<bool> {
        let desktop = |n: &str| matches!(n, "a1" | "a2" | "a3" | "b1");
        let machine = |n: &str| matches!(n, "h1" | "h2") || n.starts_with("gw");
        if port == NATIVE {
            return match (from, to) {
                (d, _) if desktop(d) => Some(false),
                ("s", "gw" | "gw-in") => Some(true),
                ("t" | "net", "gw" | "gw-in") => Some(false),
                _ => None,
            };
        }
        match (desktop(from), desktop(to)) {
            (true, true) if from == "b1" || to == "b1" => Some(false),
            (true, true) => Some(expect.a_among),
            (false, true) => Some(false),
            (true, false) if machine(to) || from == "b1" => Some(false),
            (true, false) => Some(match expect.a_out {
                Internet::On => true,
                Internet::Off => false,
                Internet::List => to == "net",
            }),
            // Between machines Lyceum has no say, but the tests' own roads are to be open.
            (false, false) => (from == "s" && to == "net").then_some(true),
        }
    }

    fn matrix(&self, what: &str, expect: Expect) {
        let mut tries = Vec::new();
        for from in ["a1", "a2", "a3", "b1", "h1", "h2", "gw", "s", "t", "net"] {
            for (to, addresses) in &self.places {
                let same = from == *to || to.starts_with(from);
                for address in addresses.iter().filter(|_| !same) {
                    for port in [PORT, NATIVE] {
                        if let Some(allowed) = Class::allowed(expect, from, to, port) {
                            tries.push((from, *to, SocketAddr::new(*address, port), allowed));
                        }
                    }
                }
            }
        }
        assert!(tries.len() > 150, "{} tries", tries.len());
        let threads: Vec<_> = tries
            .into_iter()
            .map(|(from, to, address, allowed)| {
                let ns = self.world.name(from);
                let thread = std::thread::spawn(move || reach(&ns, address, allowed));
                (from, to, address, allowed, thread)
            })
            .collect();
        let wrong: Vec<String> = threads
            .into_iter()
            .filter_map(|(from, to, address, allowed, thread)| {
                let reached = thread.join().expect("a try");
                let word = |b| if b { "reaches" } else { "does not reach" };
                (reached != allowed).then(|| format!("{from} {} {to} ({address})", word(reached)))
            })
            .collect();
        assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reaches_whom() {
    if !possible() {
        return;
    }
    let mut class = Class::new("m").await;
    let open = Expect {
        a_out: Internet::On,
        a_among: true,
    };
    class.matrix("internet on, among themselves", open);

    class.world.policy(1, Internet::Off, &[], false);
    class.world.apply().await;
    let shut = Expect {
        a_out: Internet::Off,
        a_among: false,
    };
    class.matrix("internet off, each alone", shut);

    class.world.policy(
        1,
        Internet::List,
        &["198.51.100.80", "[2001:db8:2::80]:7777/tcp"],
        true,
    );
    class.world.apply().await;
    let list = Expect {
        a_out: Internet::List,
        a_among: true,
    };
    class.matrix("a list, among themselves", list);

    // A desktop moves: its tap is on the other host, then it goes on there and is announced.
    let moved = class.a1.plug;
    class.world.host2.plugs.push(lyceum_net::Plug {
        among_themselves: true,
        ..moved
    });
    class.world.apply().await;
    class.a1.connect(&class.world.name("h2"));
    class.world.host1.plugs.retain(|p| p.mac != moved.mac);
    class.world.apply().await;
    class.matrix("after a move", list);

    // Every agent starts anew with nothing but what it is told.
    let machine = |n: &str| lyceum_edge::Machine::namespace(&class.world.name(n));
    let (h1, h2) = (machine("h1"), machine("h2"));
    class.world.h1 = lyceum_edge::HostEdge::new(h1);
    class.world.h2 = lyceum_edge::HostEdge::new(h2);
    class.world.start_gateway().await;
    class.world.apply().await;
    class.matrix("after a restart of every part", list);

    // The gateway's machine lost everything, as at a reboot.
    let gw = class.world.name("gw");
    sh(&format!(
        "ip netns exec {gw} nft flush ruleset && ip -n {gw} link del lyb1 && ip -n {gw} link del lyb2 && ip -n {gw} link del lyx1"
    ));
    class.world.start_gateway().await;
    class.world.apply().await;
    class.matrix("after the gateway's reboot", list);

    changed_by_hand(&mut class).await;
    class.matrix("after changes by hand", list);
    names(&mut class).await;
    doors(&mut class).await;

    // Nothing is left behind.
    let Class { mut world, .. } = class;
    world
        .gw
        .take()
        .expect("gateway")
        .remove()
        .await
        .expect("removed");
    let (host1, host2) = (world.host1.clone(), world.host2.clone());
    world.h1.remove(&host1).await.expect("removed");
    world.h2.remove(&host2).await.expect("removed");
    for n in ["h1", "h2", "gw"] {
        let ns = world.name(n);
        let left = sh(&format!(
            "ip -n {ns} -o link show; ip netns exec {ns} nft list tables"
        ));
        assert!(!left.contains(": ly") && !left.contains("lyceum"), "{left}");
    }
}

async fn changed_by_hand(class: &mut Class) {
    let (h1, gw) = (class.world.name("h1"), class.world.name("gw"));
    let gateway = class.world.gw.as_mut().expect("gateway");
    assert!(gateway.repair().await.expect("looked").0.is_empty());
    assert!(class.world.h1.repair().await.expect("looked").0.is_empty());
    for (change, word) in [
        (
            "nft insert rule inet lyceum-gateway passes accept",
            "passes",
        ),
        ("nft flush chain inet lyceum-gateway out_1", "out_1"),
        (
            "nft add element inet lyceum-gateway doors4 '{ 198.51.100.12 }'",
            "doors4",
        ),
        ("nft delete table inet lyceum-gateway", "gone"),
        ("ip link del lyx1", "devices"),
        ("ip address del 10.128.4.1/22 dev lyb1", "devices"),
        (
            "sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'",
            "ip_forward",
        ),
    ] {
        sh(&format!("ip netns exec {gw} {change}"));
        let said = gateway.repair().await.expect("put right").0;
        assert_eq!(said.len(), 1, "{change}: {said:?}");
        assert!(said[0].contains(word), "{change}: {said:?}");
        assert!(
            gateway.repair().await.expect("looked").0.is_empty(),
            "{change}"
        );
    }
    for (change, word) in [
        ("nft flush chain bridge lyceum-host desktop", "desktop"),
        ("nft insert rule bridge lyceum-host enters accept", "enters"),
        ("nft delete table bridge lyceum-host", "gone"),
        (
            "bridge fdb del 00:00:00:00:00:00 dev lyx1 dst 192.0.2.12",
            "devices",
        ),
    ] {
        sh(&format!("ip netns exec {h1} {change}"));
        let said = class.world.h1.repair().await.expect("put right").0;
        assert_eq!(said.len(), 1, "{change}: {said:?}");
        assert!(said[0].contains(word), "{change}: {said:?}");
        assert!(
            class.world.h1.repair().await.expect("looked").0.is_empty(),
            "{change}"
        );
    }
    // A server that died.
    let dir = class.world.run_dir();
    let mark = format!("--conf-file={}/1.conf", dir.display());
    for pid in servers(&mark) {
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("kill");
    }
    let gateway = class.world.gw.as_mut().expect("gateway");
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let said = gateway.repair().await.expect("put right").0;
        if said
            .iter()
            .any(|s| s.contains("dnsmasq of segment 1 had ended"))
        {
            break;
        }
        assert!(std::time::Instant::now() < until, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Addresses of a name, asked for in a namespace. `None`: refused, or no such name.
fn resolve(ns: &str, server: IpAddr, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(kind.to_be_bytes());
    question.extend([0, 1]);
    within(ns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("timeout");
        let until = std::time::Instant::now() + DEADLINE;
        let mut answer = [0; 512];
        loop {
            let _ = socket.send_to(&question, (server, 53));
            match socket.recv(&mut answer) {
                Ok(n) if n > question.len() && answer[3] & 15 == 0 && answer[7] > 0 => {
                    return Some(answer[question.len()..n].to_vec());
                }
                Ok(_) => return None,
                Err(_) => assert!(std::time::Instant::now() < until, "no answer at all"),
            }
        }
    })
}

/// Examination with a list of names, which are found outside and nowhere else.
async fn names(class: &mut Class) {
    let net = class.world.name("net");
    let dir = class.world.dir.path().display().to_string();
    // The name server outside.
    let mut upstream = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            &net,
            "dnsmasq",
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
            "--conf-file=/dev/null",
        ])
        .args([
            "--listen-address=198.51.100.80",
            "--bind-interfaces",
            "--log-facility=-",
        ])
        .args([
            "--address=/allowed.test/198.51.100.81",
            "--address=/allowed.test/2001:db8:2::81",
            "--address=/forbidden.test/198.51.100.80",
        ])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(format!("{dir}/upstream.log")).expect("log"))
        .spawn()
        .expect("dnsmasq");
    class
        .world
        .policy(1, Internet::List, &["allowed.test:7777"], false);
    class.world.apply().await;
    let server = class.a1.plug.segment.gateway4();
    let (a1, b1) = (class.a1.ns.clone(), class.b1.ns.clone());
    // Names of the class itself.
    let own = resolve(&a1, server, "bob.lyceum.internal", 1).expect("a name of the class");
    let IpAddr::V4(v4) = class.a2.v4() else {
        panic!()
    };
    assert!(own.ends_with(&v4.octets()), "{own:?}");
    assert!(
        resolve(&a1, server, "dee.lyceum.internal", 1).is_none(),
        "another course's"
    );
    let other = class.b1.plug.segment.gateway4();
    assert!(
        resolve(&b1, other, "allowed.test", 1).is_none(),
        "this course has no way out"
    );
    let to = |n: &str| SocketAddr::new(n.parse().expect("ip"), PORT);
    assert!(
        !reach(&a1, to("198.51.100.81"), false),
        "before the name was asked for"
    );
    let until = std::time::Instant::now() + DEADLINE;
    while resolve(&a1, server, "www.allowed.test", 1).is_none() {
        assert!(
            std::time::Instant::now() < until,
            "the allowed name is not found"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(resolve(&a1, server, "www.allowed.test", 28).is_some());
    assert!(reach(&a1, to("198.51.100.81"), true));
    assert!(reach(&a1, to("2001:db8:2::81"), true));
    assert!(resolve(&a1, server, "forbidden.test", 1).is_none());
    assert!(!reach(&a1, to("198.51.100.80"), false));
    // What was found stays found when the table is rendered anew.
    class.world.door("desktop-a2", "198.51.100.99");
    class.world.apply().await;
    assert!(reach(&a1, to("198.51.100.81"), true));
    let _ = upstream.kill();
    let _ = upstream.wait();
}

/// Two people behind one address; a connection that is open ends when the door closes.
async fn doors(class: &mut Class) {
    let t = class.world.name("t");
    let native = SocketAddr::new([198, 51, 100, 1].into(), NATIVE);
    let native6 = SocketAddr::new("2001:db8:2::1".parse().expect("ip"), NATIVE);
    let old = class.world.gateway.doors.clone();
    class.world.door("desktop-one", "198.51.100.12");
    class.world.door("desktop-two", "::ffff:198.51.100.12");
    class.world.apply().await;
    assert!(reach(&t, native, true));
    class
        .world
        .gateway
        .doors
        .retain(|d| d.desktop.as_str() != "desktop-one");
    class.world.apply().await;
    assert!(reach(&t, native, true), "the other one is still there");
    assert!(!reach(&t, native6, false), "IPv6 is another address");
    class.world.gateway.doors = old.clone();
    class.world.apply().await;
    assert!(!reach(&t, native, false));
    // Somebody who has IPv6 only.
    class.world.door("desktop-six", "2001:db8:2::12");
    class.world.apply().await;
    assert!(reach(&t, native6, true));
    assert!(!reach(&t, native, false));
    class.world.gateway.doors = old;
    // A class comes in at once.
    let started = std::time::Instant::now();
    for n in 0..60 {
        class
            .world
            .door(&format!("desktop-{n}"), &format!("2001:db8:3::{n:x}"));
    }
    class.world.door("desktop-last", "198.51.100.12");
    class.world.apply().await;
    let took = started.elapsed();
    assert!(reach(&t, native, true));
    use std::io::Write as _;
    let _ = writeln!(
        std::io::stderr(),
        "60 doors were open after {} ms",
        took.as_millis()
    );
}
