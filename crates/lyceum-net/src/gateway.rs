//! The ruleset of the gateway: where desktops may go, and who may come to the port for native viewers.
//!
//! What a course may do is asked of every packet, not only of a connection's first: an examination that
//! begins ends what is open. So does a door that closes.

use crate::address::{Destination, Port, Protocol};
use crate::host::{members, underlay};
use crate::policy::Internet;
use crate::text::Lines;
use crate::wanted::{Course, GatewayNetwork};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Name of the gateway's table.
pub const TABLE: &str = "lyceum-gateway";
/// The family it is in.
pub const FAMILY: &str = "inet";

/// Addresses that dnsmasq found for allowed names, by the name of their set. They are in the kernel
/// alone, so whoever renders anew brings along what was there.
pub type Learned = BTreeMap<String, BTreeSet<IpAddr>>;

/// A set of addresses that belong to a course's allowed names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameSet {
    /// The segment.
    pub segment: u32,
    /// Which of its allowed domains, counted from 0.
    pub index: usize,
    /// Whether it holds IPv6 addresses.
    pub v6: bool,
}

impl NameSet {
    /// The set's name.
    pub fn name(&self) -> String {
        let family = if self.v6 { 6 } else { 4 };
        format!("names{family}_{}_{}", self.segment, self.index)
    }

    /// Whether a set in the table holds what dnsmasq found.
    pub fn is_one(name: &str) -> bool {
        name.starts_with("names4_") || name.starts_with("names6_")
    }
}

/// The allowed domains of a course with their sets, in order and without repetitions.
pub fn names_of(course: &Course) -> Vec<(crate::Domain, Option<Port>, usize)> {
    if course.policy.internet != Internet::List {
        return Vec::new();
    }
    let unique: BTreeSet<_> = course
        .policy
        .allowed
        .iter()
        .filter_map(|d| match d {
            Destination::Domain(name, port) => Some((name.clone(), *port)),
            Destination::Net(..) => None,
        })
        .collect();
    unique
        .into_iter()
        .enumerate()
        .map(|(index, (name, port))| (name, port, index))
        .collect()
}

/// The ruleset, whole: applying it replaces what was there in one transaction.
pub fn render(wanted: &GatewayNetwork, learned: &Learned) -> String {
    let mut courses: Vec<&Course> = wanted.courses.iter().collect();
    courses.sort_by_key(|c| c.segment.number);
    courses.dedup_by_key(|c| c.segment.number);
    if wanted.address.is_none() {
        courses.clear();
    }
    let mut out = Lines::new(
        "Lyceum: courses' networks and the way in. Made whole by `lyceum gateway`; changes by hand are undone.",
    );
    out.table(&format!("{FAMILY} {TABLE}"));
    let bridges = courses
        .iter()
        .map(|c| format!("\"{}\"", c.segment.bridge()));
    out.set("bridges", "ifname", "", bridges);
    let doors = |v6: bool| {
        let doors = wanted.doors.iter().map(|d| d.from.to_canonical());
        doors.filter(move |a| a.is_ipv6() == v6)
    };
    out.set("doors4", "ipv4_addr", "", doors(false));
    out.set("doors6", "ipv6_addr", "", doors(true));
    members(&mut out, &wanted.members);
    for course in &courses {
        for (_, _, index) in names_of(course) {
            for v6 in [false, true] {
                let set = NameSet {
                    segment: course.segment.number,
                    index,
                    v6,
                };
                let name = set.name();
                let found = learned.get(&name).into_iter().flatten();
                let found = found.filter(|a| a.is_ipv6() == v6);
                let kind = if v6 { "ipv6_addr" } else { "ipv4_addr" };
                out.set(&name, kind, "", found);
            }
        }
    }

    out.base("comes_in", "filter hook input priority -10");
    out.rule("iifname @bridges goto from_desktops");
    if let Some(own) = wanted.address {
        underlay(&mut out, own);
    }
    let ports: BTreeSet<u16> = wanted.native_ports.iter().copied().collect();
    if !ports.is_empty() {
        out.rule("iifname \"lo\" accept");
    }
    for port in ports {
        out.rule(format_args!("tcp dport {port} ip saddr @doors4 accept"));
        out.rule(format_args!("tcp dport {port} ip6 saddr @doors6 accept"));
        out.rule(format_args!("tcp dport {port} drop"));
    }
    out.end();

    // Of the gateway itself desktops need addresses, names and a sign of life, and get nothing else.
    out.chain("from_desktops");
    out.rule("udp sport 68 udp dport 67 accept");
    out.rule("icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report, mld-listener-done } accept");
    out.rule("iifname vmap @gateway_of");
    out.rule("drop");
    out.end();
    for course in &courses {
        let s = &course.segment;
        out.chain(&format!("gateway_{}", s.number));
        for (what, net, own) in [("ip", s.v4, s.gateway4()), ("ip6", s.v6, s.gateway6())] {
            let from = format!("{what} saddr {net} {what} daddr {own}");
            out.rule(format_args!(
                "{from} meta l4proto {{ tcp, udp }} th dport 53 accept"
            ));
            let echo = if what == "ip" { "icmp" } else { "icmpv6" };
            out.rule(format_args!("{from} {echo} type echo-request accept"));
        }
        out.rule("drop");
        out.end();
    }
    out.line(1, "map gateway_of {");
    out.line(2, "type ifname : verdict");
    vmap(&mut out, &courses, "gateway");
    out.line(1, "}");

    out.base("passes", "filter hook forward priority -10");
    // Desktops are told how large packets may be, and not all listen: neither end is to make larger ones.
    if !courses.is_empty() {
        out.rule("oifname @bridges tcp flags syn tcp option maxseg size set rt mtu");
    }
    out.rule("iifname vmap @way_out_of");
    // Into a segment come answers only.
    out.rule("oifname @bridges ct state established,related accept");
    out.rule("oifname @bridges drop");
    out.end();
    for course in &courses {
        way_out(&mut out, wanted, course);
    }
    out.line(1, "map way_out_of {");
    out.line(2, "type ifname : verdict");
    vmap(&mut out, &courses, "out");
    out.line(1, "}");

    if !courses.is_empty() {
        out.base("leaves", "nat hook postrouting priority 100");
        for course in &courses {
            let s = &course.segment;
            out.rule(format_args!(
                "ip saddr {} oifname != @bridges masquerade",
                s.v4
            ));
            out.rule(format_args!(
                "ip6 saddr {} oifname != @bridges masquerade",
                s.v6
            ));
        }
        out.end();
    }
    out.close()
}

fn vmap(out: &mut Lines, courses: &[&Course], chain: &str) {
    if courses.is_empty() {
        return;
    }
    out.line(2, "elements = {");
    for c in courses {
        let s = &c.segment;
        out.line(
            3,
            format_args!("\"{}\" : goto {chain}_{},", s.bridge(), s.number),
        );
    }
    out.line(2, "}");
}

fn way_out(out: &mut Lines, wanted: &GatewayNetwork, course: &Course) {
    let s = &course.segment;
    let no = "reject with icmpx admin-prohibited";
    out.chain(&format!("out_{}", s.number));
    // Neither into another course nor, by way of the gateway, back into its own.
    out.rule(format_args!("oifname @bridges {no}"));
    out.rule(format_args!("ip saddr != {} drop", s.v4));
    out.rule(format_args!("ip6 saddr != {} drop", s.v6));
    let mut protected = wanted.protected.clone();
    protected.sort();
    protected.dedup();
    for net in protected {
        out.rule(format_args!("{} daddr {net} {no}", family(net.address())));
    }
    // The network between the machines may carry smaller packets than desktops think.
    out.rule("tcp flags syn tcp option maxseg size set rt mtu");
    match course.policy.internet {
        Internet::Off => {}
        Internet::On => out.rule("accept"),
        Internet::List => {
            let nets: BTreeSet<_> = course
                .policy
                .allowed
                .iter()
                .filter_map(|d| match d {
                    Destination::Net(net, port) => Some((*net, *port)),
                    Destination::Domain(..) => None,
                })
                .collect();
            for (net, port) in nets {
                let to = format!("{} daddr {net}", family(net.address()));
                allow(out, &to, port);
            }
            for (_, port, index) in names_of(course) {
                for v6 in [false, true] {
                    let set = NameSet {
                        segment: s.number,
                        index,
                        v6,
                    };
                    let what = if v6 { "ip6" } else { "ip" };
                    allow(out, &format!("{what} daddr @{}", set.name()), port);
                }
            }
        }
    }
    out.rule(no);
    out.end();
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn allow(out: &mut Lines, to: &str, port: Option<Port>) {
    match port {
        None => out.rule(format_args!("{to} accept")),
        Some(Port { number, protocol }) => {
            let kind = match protocol {
                None => "meta l4proto { tcp, udp } th",
                Some(Protocol::Tcp) => "tcp",
                Some(Protocol::Udp) => "udp",
            };
            out.rule(format_args!("{to} {kind} dport {number} accept"));
        }
    }
}
