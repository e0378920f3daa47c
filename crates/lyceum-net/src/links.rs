//! Bridges, VXLANs and taps: what there should be, what there is as `ip` and `bridge` say it, and the steps
//! from one to the other.
//!
//! Only devices with names that Lyceum gives are ever touched. A host and a gateway on one machine
//! share bridges and VXLANs: each leaves alone what still serves the other.

use crate::address::{LinkName, Mac};
use crate::dnsmasq::MTU;
use crate::wanted::{Course, GatewayNetwork, HostNetwork, Segment, Uplink, VXLAN_PORT};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a machine is in the classroom's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It runs desktops.
    Host,
    /// It is the way out.
    Gateway,
}

/// The links that there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    role: Role,
    segments: Vec<Segment>,
    /// Tap → bridge.
    taps: BTreeMap<LinkName, LinkName>,
    /// Own address in the network between the machines, and the others'.
    underlay: Option<(IpAddr, BTreeSet<IpAddr>)>,
}

impl Wanted {
    /// Of a host.
    pub fn of_host(network: &HostNetwork) -> Wanted {
        let bridge_of = |segment: &Segment| match &network.uplink {
            Uplink::Vxlan { .. } => segment.bridge(),
            Uplink::Lan { bridge } => bridge.clone(),
        };
        let taps = network
            .plugs
            .iter()
            .map(|p| (p.tap(), bridge_of(&p.segment)))
            .collect();
        match network.uplink {
            Uplink::Lan { .. } => Wanted {
                role: Role::Host,
                segments: Vec::new(),
                taps,
                underlay: None,
            },
            Uplink::Vxlan { address } => Wanted {
                role: Role::Host,
                segments: unique(network.plugs.iter().map(|p| p.segment)),
                taps,
                underlay: Some((address, others(address, &network.members))),
            },
        }
    }

    /// Of the gateway.
    pub fn of_gateway(network: &GatewayNetwork) -> Wanted {
        let segments = match network.address {
            Some(_) => unique(network.courses.iter().map(|c: &Course| c.segment)),
            None => Vec::new(),
        };
        Wanted {
            role: Role::Gateway,
            segments,
            taps: BTreeMap::new(),
            underlay: network.address.map(|a| (a, others(a, &network.members))),
        }
    }
}

fn unique(segments: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let by_number: BTreeMap<u32, Segment> = segments.map(|s| (s.number, s)).collect();
    by_number.into_values().collect()
}

// Everybody has a way to the others only: a frame sent to oneself would come back for ever.
fn others(own: IpAddr, members: &[IpAddr]) -> BTreeSet<IpAddr> {
    members.iter().copied().filter(|m| *m != own).collect()
}

/// A device as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    kind: String,
    up: bool,
    mtu: Option<u16>,
    mac: Option<Mac>,
    master: Option<String>,
    addresses: BTreeSet<(IpAddr, u8)>,
    vni: Option<u32>,
    local: Option<IpAddr>,
    port: Option<u16>,
    flood: BTreeSet<IpAddr>,
}

/// All devices of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen(BTreeMap<String, Link>);

#[derive(Deserialize)]
struct SaidLink {
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    flags: Vec<String>,
    mtu: Option<u32>,
    address: Option<String>,
    master: Option<String>,
    linkinfo: Option<SaidInfo>,
    #[serde(default)]
    addr_info: Vec<SaidAddress>,
}

#[derive(Deserialize)]
struct SaidInfo {
    #[serde(default)]
    info_kind: String,
    info_data: Option<SaidData>,
}

#[derive(Deserialize)]
struct SaidData {
    id: Option<serde_json::Value>,
    local: Option<IpAddr>,
    local6: Option<IpAddr>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct SaidAddress {
    local: Option<IpAddr>,
    #[serde(default)]
    prefixlen: u8,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct SaidEntry {
    #[serde(default)]
    mac: String,
    #[serde(default)]
    ifname: String,
    dst: Option<IpAddr>,
}

impl Seen {
    /// Reads `ip -details -json address show` and `bridge -json fdb show`.
    pub fn read(links: &str, fdb: &str) -> Result<Seen, serde_json::Error> {
        // Both print nothing at all when there is nothing.
        let list = |text: &str| {
            if text.trim().is_empty() {
                "[]".to_owned()
            } else {
                text.to_owned()
            }
        };
        let said: Vec<SaidLink> = serde_json::from_str(&list(links))?;
        let entries: Vec<SaidEntry> = serde_json::from_str(&list(fdb))?;
        let mut all = BTreeMap::new();
        for link in said.into_iter().filter(|l| !l.ifname.is_empty()) {
            let (kind, data) = match link.linkinfo {
                Some(info) => (info.info_kind, info.info_data),
                None => (String::new(), None),
            };
            let link_local = |a: &SaidAddress| a.scope.as_deref() == Some("link");
            let mut seen = Link {
                kind,
                up: link.flags.iter().any(|f| f == "UP"),
                mtu: link.mtu.and_then(|mtu| mtu.try_into().ok()),
                mac: link.address.and_then(|a| a.parse().ok()),
                master: link.master,
                addresses: link
                    .addr_info
                    .iter()
                    .filter(|a| !link_local(a))
                    .filter_map(|a| Some((a.local?, a.prefixlen)))
                    .collect(),
                ..Link::default()
            };
            if let Some(data) = data {
                seen.vni = data.id.and_then(|id| id.as_u64()?.try_into().ok());
                seen.local = data.local.or(data.local6);
                seen.port = data.port;
            }
            all.insert(link.ifname, seen);
        }
        for entry in entries {
            if entry.mac == "00:00:00:00:00:00"
                && let (Some(link), Some(dst)) = (all.get_mut(&entry.ifname), entry.dst)
            {
                link.flood.insert(dst);
            }
        }
        Ok(Seen(all))
    }

    /// Whether there is a device of that name.
    pub fn has(&self, name: &LinkName) -> bool {
        self.0.contains_key(name.as_str())
    }
}

/// One change of the machine's links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a bridge; the gateway's has the gateway's card.
    Bridge(LinkName, Option<Mac>),
    /// Makes a VXLAN of that number, from that address.
    Vxlan(LinkName, u32, IpAddr),
    /// Makes a tap.
    Tap(LinkName),
    /// Keeps the kernel from giving the device addresses of its own.
    Mute(LinkName),
    /// Makes it a port of a bridge.
    Join(LinkName, LinkName),
    /// Sets its card's address.
    SetMac(LinkName, Mac),
    /// Sets how large its packets are at most.
    Mtu(LinkName, u16),
    /// Turns it on.
    Up(LinkName),
    /// Gives it an address.
    Address(LinkName, IpAddr, u8),
    /// Takes an address from it.
    NoAddress(LinkName, IpAddr, u8),
    /// Sends to that machine what is for everybody.
    Flood(LinkName, IpAddr),
    /// No longer does.
    NoFlood(LinkName, IpAddr),
    /// Removes it.
    Delete(LinkName),
}

/// The program that does a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// `ip`
    Ip,
    /// `bridge`
    Bridge,
}

impl Step {
    /// The line of a batch that does it, and whose.
    pub fn command(&self) -> (Tool, String) {
        let bits = |a: &IpAddr, bits: u8| format!("{a}/{bits}");
        match self {
            // Groups of IPv6 are asked after by everybody: there is nobody who would keep a list of them.
            Step::Bridge(name, mac) => {
                let mac = mac.map(|m| format!(" address {m}")).unwrap_or_default();
                (
                    Tool::Ip,
                    format!(
                        "link add name {name}{mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                    ),
                )
            }
            Step::Vxlan(name, id, local) => (
                Tool::Ip,
                format!(
                    "link add name {name} mtu 1500 type vxlan id {id} local {local} dstport {VXLAN_PORT}"
                ),
            ),
            Step::Tap(name) => (Tool::Ip, format!("tuntap add dev {name} mode tap vnet_hdr")),
            Step::Mute(name) => (Tool::Ip, format!("link set dev {name} addrgenmode none")),
            Step::Join(name, bridge) => (Tool::Ip, format!("link set dev {name} master {bridge}")),
            Step::SetMac(name, mac) => (Tool::Ip, format!("link set dev {name} address {mac}")),
            Step::Mtu(name, mtu) => (Tool::Ip, format!("link set dev {name} mtu {mtu}")),
            Step::Up(name) => (Tool::Ip, format!("link set dev {name} up")),
            // It is the only one with this address; waiting to find that out only costs time.
            Step::Address(name, a, n) if a.is_ipv6() => (
                Tool::Ip,
                format!("address add {} dev {name} nodad", bits(a, *n)),
            ),
            Step::Address(name, a, n) => {
                (Tool::Ip, format!("address add {} dev {name}", bits(a, *n)))
            }
            Step::NoAddress(name, a, n) => {
                (Tool::Ip, format!("address del {} dev {name}", bits(a, *n)))
            }
            Step::Flood(name, to) => (
                Tool::Bridge,
                format!("fdb append 00:00:00:00:00:00 dev {name} dst {to} self permanent"),
            ),
            Step::NoFlood(name, to) => (
                Tool::Bridge,
                format!("fdb del 00:00:00:00:00:00 dev {name} dst {to} self"),
            ),
            Step::Delete(name) => (Tool::Ip, format!("link delete dev {name}")),
        }
    }
}

/// The steps from what there is to what there should be; none when it is so already.
pub fn steps(wanted: &Wanted, seen: &Seen) -> Vec<Step> {
    let mut out = Vec::new();
    let gateway = wanted.role == Role::Gateway;
    remove(wanted, seen, &mut out);
    for segment in &wanted.segments {
        let name = segment.bridge();
        let there = seen.0.get(name.as_str()).filter(|l| l.kind == "bridge");
        let mac = gateway.then(|| Mac::of_gateway(segment.number));
        match there {
            None => {
                out.push(Step::Bridge(name.clone(), mac));
                if !gateway {
                    out.push(Step::Mute(name.clone()));
                }
            }
            Some(link) => {
                if let Some(mac) = mac.filter(|m| link.mac != Some(*m)) {
                    out.push(Step::SetMac(name.clone(), mac));
                }
            }
        }
        if !there.is_some_and(|l| l.up) {
            out.push(Step::Up(name.clone()));
        }
        // So the gateway tells both ends what goes through the VXLAN, which drops what does not.
        if gateway && there.and_then(|l| l.mtu) != Some(MTU) {
            out.push(Step::Mtu(name.clone(), MTU));
        }
        if gateway {
            let own = [
                (segment.gateway4(), segment.v4.bits()),
                (segment.gateway6(), 64),
            ];
            let has = there.map(|l| l.addresses.clone()).unwrap_or_default();
            for (address, bits) in own.into_iter().filter(|a| !has.contains(a)) {
                out.push(Step::Address(name.clone(), address, bits));
            }
            for (address, bits) in has.into_iter().filter(|a| !own.contains(a)) {
                out.push(Step::NoAddress(name.clone(), address, bits));
            }
        }
        if let Some((own, others)) = &wanted.underlay {
            vxlan(segment, *own, others, seen, &mut out);
        }
    }
    for (tap, bridge) in &wanted.taps {
        let there = seen.0.get(tap.as_str()).filter(|l| l.kind == "tun");
        if there.is_none() {
            out.push(Step::Tap(tap.clone()));
            out.push(Step::Mute(tap.clone()));
        }
        port(tap, bridge, there, &mut out);
    }
    out
}

fn port(name: &LinkName, bridge: &LinkName, there: Option<&Link>, out: &mut Vec<Step>) {
    if there.and_then(|l| l.master.as_deref()) != Some(bridge.as_str()) {
        out.push(Step::Join(name.clone(), bridge.clone()));
    }
    if !there.is_some_and(|l| l.up) {
        out.push(Step::Up(name.clone()));
    }
}

fn vxlan(
    segment: &Segment,
    own: IpAddr,
    others: &BTreeSet<IpAddr>,
    seen: &Seen,
    out: &mut Vec<Step>,
) {
    let name = segment.vxlan();
    let there = seen
        .0
        .get(name.as_str())
        .filter(|l| is_vxlan(l, segment, own));
    if there.is_none() {
        out.push(Step::Vxlan(name.clone(), segment.number, own));
        out.push(Step::Mute(name.clone()));
    }
    port(&name, &segment.bridge(), there, out);
    let has = there.map(|l| l.flood.clone()).unwrap_or_default();
    for to in others.difference(&has) {
        out.push(Step::Flood(name.clone(), *to));
    }
    for to in has.difference(others) {
        out.push(Step::NoFlood(name.clone(), *to));
    }
}

fn is_vxlan(link: &Link, segment: &Segment, own: IpAddr) -> bool {
    link.kind == "vxlan"
        && link.vni == Some(segment.number)
        && link.local == Some(own)
        && link.port == Some(VXLAN_PORT)
}

// What is not wanted, and what has a wanted name and is something else.
fn remove(wanted: &Wanted, seen: &Seen, out: &mut Vec<Step>) {
    let gateway = wanted.role == Role::Gateway;
    let ports = |bridge: &str, prefix: &str| {
        seen.0
            .iter()
            .any(|(n, l)| l.master.as_deref() == Some(bridge) && n.starts_with(prefix))
    };
    for (text, link) in &seen.0 {
        let Ok(name) = text.parse::<LinkName>() else {
            continue;
        };
        if !name.is_ours() {
            continue;
        }
        let (what, rest) = text.split_at(3);
        match what {
            "lyt" => {
                let wrong = link.kind != "tun" || !wanted.taps.contains_key(&name);
                if !gateway && wrong {
                    out.push(Step::Delete(name));
                }
            }
            // A bridge, or the VXLAN of one.
            _ => {
                let segment = wanted
                    .segments
                    .iter()
                    .find(|s| s.number.to_string() == rest);
                let bridge = format!("lyb{rest}");
                let own_kind = match (what, segment, &wanted.underlay) {
                    ("lyb", Some(_), _) => link.kind == "bridge",
                    (_, Some(segment), Some((own, _))) => is_vxlan(link, segment, *own),
                    _ => false,
                };
                if own_kind {
                    continue;
                }
                let others = match (segment, gateway) {
                    (Some(_), _) => false,
                    (None, true) => ports(&bridge, "lyt"),
                    (None, false) => seen.0.get(&bridge).is_some_and(|b| !b.addresses.is_empty()),
                };
                match others {
                    false => out.push(Step::Delete(name)),
                    // The hosts' agent still needs it; it is the gateway's no more.
                    true if gateway && what == "lyb" => out.extend(
                        link.addresses
                            .iter()
                            .map(|(a, bits)| Step::NoAddress(name.clone(), *a, *bits)),
                    ),
                    true => {}
                }
            }
        }
    }
}
