//! Addresses and names of one segment: the configuration of its dnsmasq.
//!
//! Leases are static: each desktop has its own address for as long as it exists, so a gateway that starts
//! anew knows all there is to know, and nobody gets an address that the hosts' rules would not let pass.

use crate::gateway::{FAMILY, NameSet, TABLE, names_of};
use crate::policy::Internet;
use crate::text::Lines;
use crate::wanted::{Course, Lease};
use std::net::IpAddr;
use std::path::Path;

/// Domain of all segments.
pub const DOMAIN: &str = "lyceum.internal";
/// Packets in segments are that large: what Ethernet carries less VXLAN's share, IPv6 beneath.
pub const MTU: u16 = 1430;

/// What dnsmasq is started with. Changes of leases do not change it: it reads those when told to.
///
/// `leases` and `names` are paths of the files with the other two texts; they come from the
/// program's own run directory.
pub fn render(course: &Course, upstreams: &[IpAddr], leases: &Path, names: &Path) -> String {
    let s = &course.segment;
    let bridge = s.bridge();
    let mut out = Lines::new(&format!(
        "Lyceum: segment {}. Made by `lyceum gateway`.",
        s.number
    ));
    let mut say = |text: String| out.line(0, text);
    say(format!("interface={bridge}"));
    for line in [
        "except-interface=lo",
        "bind-interfaces",
        "no-hosts",
        "no-resolv",
        "no-poll",
    ] {
        say(line.into());
    }
    // Addresses.
    say(format!(
        "dhcp-range={},static,{},12h",
        s.v4.address(),
        mask(s.v4.bits())
    ));
    say(format!("dhcp-hostsfile={}", leases.display()));
    say(format!("dhcp-option=option:router,{}", s.gateway4()));
    say(format!("dhcp-option=option:dns-server,{}", s.gateway4()));
    say(format!("dhcp-option=option:mtu,{MTU}"));
    for line in [
        "dhcp-authoritative",
        "leasefile-ro",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        "enable-ra",
    ] {
        say(line.into());
    }
    // Desktops make their IPv6 address themselves, out of their card's.
    say(format!("dhcp-range={},ra-stateless,64,12h", s.v6.address()));
    say(format!("ra-param={bridge},mtu:{MTU},60,1800"));
    say(format!("dhcp-option=option6:dns-server,[{}]", s.gateway6()));
    // Names.
    say(format!("domain={DOMAIN}"));
    say(format!("local=/{DOMAIN}/"));
    say("expand-hosts".into());
    say(format!("addn-hosts={}", names.display()));
    for line in ["domain-needed", "bogus-priv", "cache-size=1000"] {
        say(line.into());
    }
    match course.policy.internet {
        // Without a server for them, names outside are refused: no way out by questions either.
        Internet::Off => {}
        Internet::On => {
            for upstream in upstreams {
                say(format!("server={upstream}"));
            }
        }
        Internet::List => {
            let names = names_of(course);
            let mut before = None;
            for (name, _, _) in &names {
                if before == Some(name) {
                    continue;
                }
                before = Some(name);
                for upstream in upstreams {
                    say(format!("server=/{name}/{upstream}"));
                }
                // One line for all sets of a name, those of what it lies below included: dnsmasq keeps the longest match only.
                let sets: Vec<String> = names
                    .iter()
                    .filter(|(other, _, _)| name.is_below(other))
                    .flat_map(|(_, _, index)| {
                        [false, true].map(|v6| {
                            let set = NameSet {
                                segment: s.number,
                                index: *index,
                                v6,
                            };
                            let family = if v6 { 6 } else { 4 };
                            format!("{family}#{FAMILY}#{TABLE}#{}", set.name())
                        })
                    })
                    .collect();
                say(format!("nftset=/{name}/{}", sets.join(",")));
            }
        }
    }
    out.into_text()
}

/// The file of leases: which card gets which address.
pub fn leases(course: &Course) -> String {
    let mut out = String::new();
    for Lease { mac, v4, name } in sorted(course) {
        out.push_str(&format!("{mac},{v4},{name}\n"));
    }
    out
}

/// The file of names.
pub fn names(course: &Course) -> String {
    let s = &course.segment;
    let mut out = format!("{} gateway\n{} gateway\n", s.gateway4(), s.gateway6());
    for Lease { mac, v4, name } in sorted(course) {
        out.push_str(&format!("{v4} {name}\n{} {name}\n", s.desktop6(*mac)));
    }
    out
}

fn sorted(course: &Course) -> Vec<&Lease> {
    let mut all: Vec<&Lease> = course.leases.iter().collect();
    all.sort_by_key(|l| (l.mac, l.v4));
    all
}

fn mask(bits: u8) -> std::net::Ipv4Addr {
    u32::MAX
        .checked_shl(32 - u32::from(bits.min(32)))
        .unwrap_or(0)
        .into()
}
