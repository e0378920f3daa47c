//! The ruleset of a host: what its desktops may say, and to whom.
//!
//! A desktop's frames are checked where they enter, before anything can learn from them: its own MAC,
//! its own addresses in IPv4, IPv6, ARP and neighbour discovery, no answers that only a DHCP server
//! or router gives, and nothing but ARP, IPv4, IPv6 and the announcement that follows a move. So what comes out of
//! a segment's VXLAN on another host is already known to be true.

use crate::address::{LinkName, Mac};
use crate::text::Lines;
use crate::wanted::{HostNetwork, Plug, Uplink, VXLAN_PORT};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Name of a host's tables.
pub const TABLE: &str = "lyceum-host";
/// The families it is in.
pub const FAMILIES: [&str; 2] = ["bridge", "inet"];

// Everything is known of a device by its name, in quotes.
fn quoted(name: &LinkName) -> String {
    format!("\"{name}\"")
}

/// The ruleset, whole: applying it replaces what was there in one transaction.
pub fn render(wanted: &HostNetwork) -> String {
    let mut plugs: Vec<&Plug> = wanted.plugs.iter().collect();
    plugs.sort();
    plugs.dedup_by_key(|p| p.mac);
    let lan = matches!(wanted.uplink, Uplink::Lan { .. });
    let mut bridge = bridge_table(&plugs, lan, wanted.gateway_here);
    bridge.push_str(&inet_table(wanted));
    bridge
}

fn bridge_table(plugs: &[&Plug], lan: bool, gateway_here: bool) -> String {
    let mut out = Lines::new(
        "Lyceum: what desktops of this host may say. Made whole by the host agent; changes by hand are undone.",
    );
    out.table(&format!("bridge {TABLE}"));
    let taps = || plugs.iter().map(|p| quoted(&p.tap()));
    out.set("taps", "ifname", "", taps());
    let cards = plugs
        .iter()
        .map(|p| format!("{} . {}", quoted(&p.tap()), p.mac));
    out.set("cards", "ifname . ether_addr", "", cards);
    if !lan {
        let own = plugs
            .iter()
            .map(|p| format!("{} . {}", quoted(&p.tap()), p.v4));
        out.set("own4", "ifname . ipv4_addr", "", own);
        let own = plugs
            .iter()
            .flat_map(|p| own6(p).map(|address| format!("{} . {address}", quoted(&p.tap()))));
        out.set("own6", "ifname . ipv6_addr", "", own);
    }
    // Desktops that do not reach each other, and from where the gateway is heard instead.
    let alone: Vec<&&Plug> = plugs.iter().filter(|p| !p.among_themselves).collect();
    out.set(
        "alone",
        "ifname",
        "",
        alone.iter().map(|p| quoted(&p.tap())),
    );
    if !lan {
        let segments: BTreeSet<_> = plugs.iter().map(|p| p.segment.number).collect();
        let gateways = segments
            .into_iter()
            .map(|n| format!("{} . {}", quoted(&LinkName::vxlan(n)), Mac::of_gateway(n)));
        out.set("gateways", "ifname . ether_addr", "", gateways);
    }

    out.base("enters", "filter hook prerouting priority -300");
    out.rule("iifname @taps jump desktop");
    // One that nobody spoke of, made by hand or about to go.
    out.rule("iifname \"lyt*\" iifname != @taps drop");
    out.end();

    out.chain("desktop");
    out.rule("iifname . ether saddr != @cards drop");
    out.rule("ether type arp goto desktop_arp");
    // What QEMU announces after a move: reverse ARP under the card's own address.
    out.rule("ether type 0x8035 accept");
    out.rule("ether type ip goto desktop_v4");
    out.rule("ether type ip6 goto desktop_v6");
    out.rule("drop");
    out.end();

    out.chain("desktop_arp");
    out.rule("arp htype != 1 drop");
    out.rule("arp ptype != ip drop");
    out.rule("arp operation != { request, reply } drop");
    out.rule("iifname . arp saddr ether != @cards drop");
    if !lan {
        // A question whether an address is free names no sender.
        out.rule("arp saddr ip 0.0.0.0 arp operation request accept");
        out.rule("iifname . arp saddr ip != @own4 drop");
    }
    out.rule("accept");
    out.end();

    out.chain("desktop_v4");
    out.rule("udp sport 67 drop");
    if !lan {
        out.rule("ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept");
        out.rule("iifname . ip saddr != @own4 drop");
    }
    out.rule("accept");
    out.end();

    out.chain("desktop_v6");
    out.rule("icmpv6 type { nd-router-advert, nd-redirect } drop");
    out.rule("udp sport 547 drop");
    if !lan {
        // Who says that he has an address, or asks whether somebody has it before he takes it, must own it.
        if !plugs.is_empty() {
            let jumps: Vec<String> = plugs
                .iter()
                .map(|p| format!("{} : goto claims_{}", quoted(&p.tap()), p.mac.digits()))
                .collect();
            let jumps = jumps.join(", ");
            out.rule(format_args!("icmpv6 type nd-neighbor-advert ip6 hoplimit 255 iifname . ip6 saddr @own6 iifname vmap {{ {jumps} }}"));
            out.rule(format_args!(
                "ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname vmap {{ {jumps} }}"
            ));
        }
        out.rule("icmpv6 type nd-neighbor-advert drop");
        out.rule("ip6 saddr :: icmpv6 type { nd-router-solicit, mld2-listener-report } accept");
        out.rule("iifname . ip6 saddr != @own6 drop");
    }
    out.rule("accept");
    out.end();
    if !lan {
        for plug in plugs {
            out.chain(&format!("claims_{}", plug.mac.digits()));
            // Where the message says which address it is about.
            let own = own6(plug).map(|a| format!("{:#034x}", u128::from(a)));
            out.rule(format_args!("@th,64,128 {{ {} }} accept", own.join(", ")));
            out.rule("drop");
            out.end();
        }
    }

    // The host itself is no part of its desktops' networks.
    if !gateway_here {
        out.base("to_host", "filter hook input priority -300");
        out.rule("iifname @taps drop");
        if !lan {
            // Routers' advertisements would give it an address there.
            out.rule("iifname \"lyx*\" drop");
        }
        out.end();
        if !lan {
            out.base("from_host", "filter hook output priority -300");
            out.rule("oifname { \"lyt*\", \"lyx*\" } drop");
            out.end();
        }
    }

    out.base("between", "filter hook forward priority -300");
    out.rule("iifname @alone oifname @taps drop");
    out.rule("iifname @taps oifname @alone drop");
    if !lan {
        out.rule("oifname @alone iifname . ether saddr != @gateways drop");
        out.rule("iifname @alone ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @gateways drop");
    }
    out.end();
    out.close()
}

fn own6(plug: &Plug) -> [std::net::Ipv6Addr; 2] {
    [plug.mac.link_local(), plug.segment.desktop6(plug.mac)]
}

fn inet_table(wanted: &HostNetwork) -> String {
    let mut out = Lines::new("Only the classroom's machines put frames into segments.");
    out.table(&format!("inet {TABLE}"));
    if let Uplink::Vxlan { address } = wanted.uplink {
        members(&mut out, &wanted.members);
        out.base("underlay", "filter hook input priority -10");
        underlay(&mut out, address);
        out.end();
    }
    out.close()
}

/// The sets of the machines that segments span.
pub(crate) fn members(out: &mut Lines, members: &[IpAddr]) {
    let v4 = members.iter().filter(|m| m.is_ipv4());
    out.set("members4", "ipv4_addr", "", v4);
    let v6 = members.iter().filter(|m| m.is_ipv6());
    out.set("members6", "ipv6_addr", "", v6);
}

/// The rules that keep others out of this machine's VXLANs.
pub(crate) fn underlay(out: &mut Lines, own: IpAddr) {
    match own {
        IpAddr::V4(own) => out.rule(format_args!(
            "ip daddr {own} udp dport {VXLAN_PORT} ip saddr != @members4 drop"
        )),
        IpAddr::V6(own) => out.rule(format_args!(
            "ip6 daddr {own} udp dport {VXLAN_PORT} ip6 saddr != @members6 drop"
        )),
    }
}
