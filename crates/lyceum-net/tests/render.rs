//! What is rendered: as it was last looked at by a person, taken by the real tools, the same whatever the
//! order of what goes in, and never anything but what it should be.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use lyceum_model::Hostname;
use lyceum_net::gateway::Learned;
use lyceum_net::links::{self, Seen};
use lyceum_net::wanted::Uplink;
use lyceum_net::{
    Course, Destination, Door, GatewayNetwork, HostNetwork, Internet, Lease, Mac, Net, Plug,
    Policy, Segment, dnsmasq, gateway, host,
};
use proptest::prelude::*;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

fn net(text: &str) -> Net {
    text.parse().expect(text)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn segment(number: u32) -> Segment {
    let (v4, v6) = (net("10.128.0.0/9"), net("fd4c:5943:4555:4d00::/48"));
    Segment::within(number, &v4, &v6).expect("there is room")
}

fn mac(n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
        .parse()
        .expect("mac")
}

fn plug(number: u32, n: u32, among_themselves: bool) -> Plug {
    let segment = segment(number);
    Plug {
        segment,
        mac: mac(n),
        v4: segment.desktop4(n).expect("room"),
        among_themselves,
    }
}

fn host_network() -> HostNetwork {
    HostNetwork {
        uplink: Uplink::Vxlan {
            address: ip("192.0.2.11"),
        },
        members: vec![ip("192.0.2.12"), ip("192.0.2.10"), ip("192.0.2.11")],
        gateway_here: false,
        plugs: vec![plug(2, 3, false), plug(1, 1, true), plug(1, 2, true)],
    }
}

fn course(number: u32, internet: Internet, allowed: &[&str]) -> Course {
    let segment = segment(number);
    Course {
        segment,
        policy: Policy {
            internet,
            allowed: allowed.iter().map(|d| d.parse().expect(d)).collect(),
            among_themselves: false,
        },
        leases: (1..3)
            .map(|n| Lease {
                mac: mac(number * 256 + n),
                v4: segment.desktop4(n).expect("room"),
                name: Hostname::from_text(&format!("student-{n}"), ""),
            })
            .collect(),
    }
}

fn door(n: u32, from: &str) -> Door {
    Door {
        desktop: format!("desktop-{n}").parse().expect("id"),
        from: ip(from),
    }
}

fn gateway_network() -> GatewayNetwork {
    GatewayNetwork {
        address: Some(ip("192.0.2.10")),
        members: vec![ip("192.0.2.12"), ip("192.0.2.11")],
        protected: vec![net("192.0.2.0/24"), net("2001:db8:77::/48")],
        upstreams: vec![ip("9.9.9.9"), ip("2620:fe::fe")],
        courses: vec![
            course(2, Internet::Off, &[]),
            course(
                3,
                Internet::List,
                &[
                    "example.org",
                    "docs.example.org:443/tcp",
                    "198.51.100.0/24",
                    "[2001:db8::7]:443",
                    "203.0.113.9:53/udp",
                ],
            ),
            course(1, Internet::On, &[]),
        ],
        native_ports: vec![8473],
        doors: vec![
            door(2, "198.51.100.7"),
            door(1, "198.51.100.7"),
            door(3, "2001:db8:9::5"),
            door(4, "::ffff:198.51.100.8"),
        ],
    }
}

fn learned() -> Learned {
    let mut all = Learned::new();
    all.insert(
        "names4_3_1".into(),
        [ip("203.0.113.80"), ip("2001:db8::80")].into(),
    );
    all.insert("names4_9_0".into(), [ip("203.0.113.81")].into());
    all
}

// LYCEUM_GOLDEN=write writes the files anew.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("LYCEUM_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("writing");
    }
    let kept = std::fs::read_to_string(&path).expect("the golden file");
    assert!(
        kept == text,
        "{name} differs; if it should, run with LYCEUM_GOLDEN=write:\n{text}"
    );
}

/// Whether `nft -c` can be asked here; it wants a network namespace of its own, so as root only.
fn nft_check(text: &str) {
    let program = "command -v nft >/dev/null || exit 77; exec unshare --net nft --check --file -";
    let child = Command::new("sh")
        .args(["-c", program])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("sh");
    use std::io::Write as _;
    let _ = child
        .stdin
        .take()
        .expect("stdin")
        .write_all(text.as_bytes());
    let out = child.wait_with_output().expect("sh");
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.code() == Some(77) || said.contains("Operation not permitted") {
        eprintln!(
            "SKIPPED: nft is not here or may not be run (install nftables, run as root): rulesets are not checked by it"
        );
        return;
    }
    assert!(out.status.success(), "nft does not take it: {said}\n{text}");
}

#[test]
fn rulesets_are_as_they_were_looked_at_and_nft_takes_them() {
    let table = host::render(&host_network());
    golden("host.nft", &table);
    nft_check(&table);
    let lan = HostNetwork {
        uplink: Uplink::Lan {
            bridge: "br0".parse().expect("name"),
        },
        ..host_network()
    };
    let table = host::render(&lan);
    golden("host-lan.nft", &table);
    nft_check(&table);
    let table = gateway::render(&gateway_network(), &learned());
    golden("gateway.nft", &table);
    nft_check(&table);
    // With nothing in it, too.
    let none = HostNetwork {
        plugs: Vec::new(),
        gateway_here: true,
        ..host_network()
    };
    nft_check(&host::render(&none));
    let none = GatewayNetwork {
        address: None,
        native_ports: Vec::new(),
        doors: Vec::new(),
        ..gateway_network()
    };
    nft_check(&gateway::render(&none, &Learned::new()));
}

#[test]
fn dnsmasq_takes_its_configuration() {
    let files = (Path::new("/dev/null"), Path::new("/dev/null"));
    for (n, course) in gateway_network().courses.iter().enumerate() {
        let text = dnsmasq::render(course, &gateway_network().upstreams, files.0, files.1);
        golden(&format!("dnsmasq-{n}.conf"), &text);
        let dir = std::env::temp_dir().join(format!("lyceum-net-{}-{n}.conf", std::process::id()));
        std::fs::write(&dir, &text).expect("writing");
        let out = Command::new("dnsmasq")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .arg("--test")
            .arg(format!("--conf-file={}", dir.display()))
            .output();
        let _ = std::fs::remove_file(&dir);
        match out {
            Ok(out) => assert!(
                out.status.success(),
                "{}\n{text}",
                String::from_utf8_lossy(&out.stderr)
            ),
            Err(_) => eprintln!(
                "SKIPPED: dnsmasq is not here (install dnsmasq-base): its configuration is not checked by it"
            ),
        }
    }
    golden("leases", &dnsmasq::leases(&gateway_network().courses[1]));
    golden("names", &dnsmasq::names(&gateway_network().courses[1]));
}

#[test]
fn two_people_behind_one_address_have_one_door_each() {
    let both = gateway_network();
    let mut one = both.clone();
    one.doors.remove(0);
    let none = GatewayNetwork {
        doors: one
            .doors
            .iter()
            .filter(|d| d.from != ip("198.51.100.7"))
            .cloned()
            .collect(),
        ..one.clone()
    };
    let of = |n: &GatewayNetwork| gateway::render(n, &Learned::new());
    assert_eq!(of(&both), of(&one), "the second is still there");
    assert!(of(&one).contains("198.51.100.7,"));
    assert!(!of(&none).contains("198.51.100.7"));
    assert!(of(&none).contains("2001:db8:9::5,"));
}

#[test]
fn an_examination_leaves_the_list_only() {
    let policy = Policy {
        internet: Internet::On,
        allowed: vec!["example.org".parse().expect("name")],
        among_themselves: true,
    };
    let exam = policy.examination();
    assert_eq!(
        (exam.internet, exam.among_themselves),
        (Internet::List, false)
    );
    assert_eq!(exam.allowed, policy.allowed);
}

// A machine that does what steps say, as far as names and addresses go.
#[derive(Default)]
struct Machine {
    links: std::collections::BTreeMap<String, serde_json::Value>,
    flood: std::collections::BTreeSet<(String, IpAddr)>,
}

impl Machine {
    fn seen(&self) -> Seen {
        let links: Vec<_> = self.links.values().collect();
        let fdb: Vec<_> = self
            .flood
            .iter()
            .map(|(name, to)| serde_json::json!({"mac": "00:00:00:00:00:00", "ifname": name, "dst": to}))
            .collect();
        let text = |v: serde_json::Value| v.to_string();
        Seen::read(
            &text(serde_json::json!(links)),
            &text(serde_json::json!(fdb)),
        )
        .expect("json")
    }

    fn link(&mut self, name: &impl ToString) -> &mut serde_json::Value {
        self.links
            .get_mut(&name.to_string())
            .expect("the device is there")
    }

    fn run(&mut self, step: &links::Step) {
        use links::Step::*;
        let made = |kind: &str| serde_json::json!({"flags": [], "linkinfo": {"info_kind": kind, "info_data": {}}, "addr_info": []});
        let mut add = |name: &dyn ToString, mut link: serde_json::Value| {
            link["ifname"] = name.to_string().into();
            assert!(
                self.links.insert(name.to_string(), link).is_none(),
                "it is there already"
            );
        };
        match step {
            Bridge(name, mac) => {
                let mut link = made("bridge");
                link["address"] = mac.map(|m| m.to_string()).into();
                add(name, link);
            }
            Vxlan(name, id, local) => {
                let mut link = made("vxlan");
                let family = if local.is_ipv4() { "local" } else { "local6" };
                link["linkinfo"]["info_data"] =
                    serde_json::json!({"id": id, family: local, "port": 4789});
                add(name, link);
            }
            Tap(name) => add(name, made("tun")),
            Mute(name) => {
                self.link(name);
            }
            Join(name, bridge) => {
                if bridge.is_ours() {
                    self.link(bridge);
                }
                self.link(name)["master"] = bridge.to_string().into();
            }
            SetMac(name, mac) => self.link(name)["address"] = mac.to_string().into(),
            Mtu(name, mtu) => self.link(name)["mtu"] = (*mtu).into(),
            Up(name) => self.link(name)["flags"] = serde_json::json!(["UP"]),
            Address(name, a, bits) => {
                let all = self.link(name)["addr_info"].as_array_mut().expect("list");
                all.push(serde_json::json!({"local": a, "prefixlen": bits, "scope": "global"}));
            }
            NoAddress(name, a, _) => {
                let all = self.link(name)["addr_info"].as_array_mut().expect("list");
                all.retain(|x| x["local"] != a.to_string());
            }
            Flood(name, to) => assert!(self.flood.insert((name.to_string(), *to))),
            NoFlood(name, to) => assert!(self.flood.remove(&(name.to_string(), *to))),
            Delete(name) => {
                assert!(self.links.remove(&name.to_string()).is_some());
                self.flood.retain(|(n, _)| *n != name.to_string());
                for link in self.links.values_mut() {
                    if link["master"] == name.to_string() {
                        link["master"] = serde_json::Value::Null;
                    }
                }
            }
        }
    }

    fn become_as(&mut self, wanted: &links::Wanted) {
        for step in links::steps(wanted, &self.seen()) {
            self.run(&step);
        }
        assert_eq!(
            links::steps(wanted, &self.seen()),
            [],
            "nothing is left to do"
        );
    }
}

#[test]
fn a_host_and_a_gateway_on_one_machine_leave_each_other_alone() {
    let mut machine = Machine::default();
    machine.links.insert(
        "eth0".into(),
        serde_json::json!({"ifname": "eth0", "flags": ["UP"]}),
    );
    let here = ip("192.0.2.10");
    let mut g = gateway_network();
    let mut h = HostNetwork {
        uplink: Uplink::Vxlan { address: here },
        members: vec![here, ip("192.0.2.11"), ip("192.0.2.12")],
        gateway_here: true,
        ..host_network()
    };
    machine.become_as(&links::Wanted::of_host(&h));
    machine.become_as(&links::Wanted::of_gateway(&g));
    assert_eq!(
        links::steps(&links::Wanted::of_host(&h), &machine.seen()),
        []
    );
    // The gateway gives up course 1, whose desktops still run here.
    g.courses.retain(|c| c.segment.number != 1);
    machine.become_as(&links::Wanted::of_gateway(&g));
    assert!(machine.links.contains_key("lyb1") && machine.links.contains_key("lyx1"));
    // The host's desktops end: the bridge of 2 is still the gateway's.
    h.plugs.clear();
    machine.become_as(&links::Wanted::of_host(&h));
    assert!(machine.links.contains_key("lyb2") && !machine.links.contains_key("lyb1"));
    g.courses.clear();
    machine.become_as(&links::Wanted::of_gateway(&g));
    assert_eq!(machine.links.keys().collect::<Vec<_>>(), ["eth0"]);
}

#[test]
fn what_somebody_else_made_under_a_wanted_name_is_made_anew() {
    let mut machine = Machine::default();
    let strange = [
        ("lyb1", "dummy"),
        ("lyx1", "vxlan"),
        ("lyt525400000001", "dummy"),
        ("lyt000000000000", "tun"),
    ];
    for (name, kind) in strange {
        let link = serde_json::json!({"ifname": name, "flags": ["UP"], "linkinfo": {"info_kind": kind, "info_data": {"id": 77}}});
        machine.links.insert(name.into(), link);
    }
    machine.become_as(&links::Wanted::of_host(&host_network()));
    assert!(!machine.links.contains_key("lyt000000000000"));
    let up = machine.links["lyt525400000001"]["linkinfo"]["info_kind"].clone();
    assert_eq!(up, "tun");
}

fn plugs() -> impl Strategy<Value = Vec<Plug>> {
    let one = (1..5u32, any::<bool>());
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let all = all.into_iter().enumerate();
        all.map(|(n, (s, among))| plug(s, n as u32 + 1, among))
            .collect()
    })
}

fn shuffled<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    Just(all).prop_shuffle()
}

proptest! {
    #[test]
    fn the_order_of_what_goes_in_does_not_matter(
        (a, b) in plugs().prop_flat_map(|p| (Just(p.clone()), shuffled(p))),
        courses in shuffled(gateway_network().courses),
        doors in shuffled(gateway_network().doors),
    ) {
        let of = |plugs| host::render(&HostNetwork { plugs, ..host_network() });
        prop_assert_eq!(of(a), of(b));
        let other = GatewayNetwork { courses, doors, ..gateway_network() };
        prop_assert_eq!(gateway::render(&other, &learned()), gateway::render(&gateway_network(), &learned()));
    }

    #[test]
    fn links_come_to_rest_whatever_there_was(before in plugs(), after in plugs(), gone in 0..4u8) {
        let mut machine = Machine::default();
        machine.become_as(&links::Wanted::of_host(&HostNetwork { plugs: before, ..host_network() }));
        // A device or so vanishes.
        let names: Vec<_> = machine.links.keys().cloned().collect();
        for name in names.into_iter().take(gone.into()) {
            machine.run(&links::Step::Delete(name.parse().expect("name")));
        }
        let wanted = HostNetwork { plugs: after, ..host_network() };
        machine.become_as(&links::Wanted::of_host(&wanted));
        let taps = machine.links.keys().filter(|n| n.starts_with("lyt")).count();
        prop_assert_eq!(taps, wanted.plugs.len());
    }

    #[test]
    fn whatever_people_type_becomes_a_destination_or_nothing(
        typed in prop::collection::vec("[a-z0-9.:/\\[\\]{}\"#;,\n -]{1,24}|(.|\n){0,30}|[a-z]{1,9}\\.org(:[0-9]{1,6})?", 1..6)
    ) {
        let allowed: Vec<Destination> = typed.iter().filter_map(|t| t.parse().ok()).collect();
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".:/[]-".contains(&b));
        for destination in &allowed {
            prop_assert!(plain(&destination.to_string()), "{:?}", destination);
        }
        let mut network = gateway_network();
        network.courses[1].policy.allowed = allowed.clone();
        let text = gateway::render(&network, &learned());
        // The number of rules tells that nothing typed became one.
        let unique: std::collections::BTreeSet<_> = allowed.into_iter().collect();
        let names = unique.iter().filter(|d| matches!(d, Destination::Domain(..))).count();
        let expected = unique.len() + names;
        let chain = text.split("chain out_3 {").nth(1).and_then(|t| t.split("    }\n").next()).expect("the chain");
        let accepts = chain.lines().filter(|l| l.trim_end().ends_with(" accept")).count();
        prop_assert_eq!(accepts, expected);
        prop_assert_eq!(text.matches("chain ").count(), gateway::render(&gateway_network(), &learned()).matches("chain ").count());
        let conf = dnsmasq::render(&network.courses[1], &[], Path::new("/a"), Path::new("/b"));
        let conf_lines = conf.lines().count();
        let domains: std::collections::BTreeSet<_> = unique.iter().filter_map(|d| match d { Destination::Domain(n, _) => Some(n), _ => None }).collect();
        let bare = Course { policy: Policy { internet: Internet::Off, ..Policy::default() }, ..network.courses[1].clone() };
        let bare = dnsmasq::render(&bare, &[], Path::new("/a"), Path::new("/b")).lines().count();
        prop_assert_eq!(conf_lines, bare + domains.len());
    }
}
