//! Frames that a desktop must not send: none of them comes out anywhere.

use crate::world::{World, bytes, open_tap, plug, possible};
use lyceum_net::{Internet, Mac, Plug};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

const EVERYBODY: [u8; 6] = [0xff; 6];

fn frame(source: &[u8], kind: u16, payload: &[u8]) -> Vec<u8> {
    // No offload is asked of the tap.
    let mut out = vec![0u8; 10];
    out.extend(EVERYBODY);
    out.extend(source);
    out.extend(kind.to_be_bytes());
    out.extend(payload);
    out.resize(out.len().max(70), 0);
    out
}

fn arp(operation: u8, mac: &[u8], ip: Ipv4Addr, mark: u8) -> Vec<u8> {
    let mut out = vec![0, 1, 8, 0, 6, 4, 0, operation];
    out.extend(mac);
    out.extend(ip.octets());
    out.extend([0; 6]);
    out.extend([10, 128, 7, mark]);
    out
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let all: Vec<u8> = parts.concat();
    let mut sum = 0u32;
    for pair in all.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn udp4(from: Ipv4Addr, to: Ipv4Addr, sport: u16, dport: u16, mark: u8) -> Vec<u8> {
    let body = [b'm', b'a', b'r', b'k', mark];
    let length = 20 + 8 + body.len() as u16;
    let mut out = vec![0x45, 0];
    out.extend(length.to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    out.extend(from.octets());
    out.extend(to.octets());
    let sum = checksum(&[&out]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend((8 + body.len() as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(body);
    out
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((body.len() as u16).to_be_bytes());
    out.extend([next, 255]);
    out.extend(from.octets());
    out.extend(to.octets());
    out.extend(body);
    out
}

fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0];
    body.extend(rest);
    let length = (body.len() as u32).to_be_bytes();
    let sum = checksum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 58], &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    v6(from, to, 58, &body)
}

fn udp6(from: Ipv6Addr, to: Ipv6Addr, sport: u16, mark: u8) -> Vec<u8> {
    let mut body = sport.to_be_bytes().to_vec();
    body.extend([0, 99, 0, 13, 0, 0]);
    body.extend([b'm', b'a', b'r', b'k', mark]);
    let length = (body.len() as u32).to_be_bytes();
    let sum = checksum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 17], &body]);
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    v6(from, to, 17, &body)
}

/// Reads frames until the one that was sent last, and gives the others but the kernel's own.
fn until(tap: &mut File, last: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let end = Instant::now() + crate::world::DEADLINE;
    let mut buffer = [0; 4096];
    loop {
        match tap.read(&mut buffer) {
            Ok(n) if n > 24 => {
                let frame = buffer[..n].to_vec();
                if frame[10..] == last[10..] {
                    return found;
                }
                if frame[10..]
                    .windows(last.len() - 10)
                    .any(|w| w == &last[10..])
                {
                    return found;
                }
                found.push(frame);
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < end, "the frame that may pass did not");
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => panic!("reading the tap: {e}"),
        }
    }
}

fn nonblocking(tap: &File) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
}

fn lies(me: &Plug, other: &Plug) -> Vec<(&'static str, Vec<u8>)> {
    let (mac, theirs) = (bytes(me.mac), bytes(other.mac));
    let gateway = bytes(Mac::of_gateway(me.segment.number));
    let IpAddr::V4(router) = me.segment.gateway4() else {
        panic!()
    };
    let all4 = Ipv4Addr::BROADCAST;
    let all6: Ipv6Addr = "ff02::1".parse().expect("group");
    let (own, own_global) = (me.mac.link_local(), me.segment.desktop6(me.mac));
    let their6 = other.segment.desktop6(other.mac);
    let claim = |address: Ipv6Addr| {
        let mut rest = vec![0x20, 0, 0, 0];
        rest.extend(address.octets());
        rest.extend([2, 1]);
        rest.extend(&mac);
        rest
    };
    let mut tagged = vec![0, 7, 8, 0];
    tagged.extend(udp4(me.v4, all4, 99, 99, 30));
    vec![
        (
            "another's MAC",
            frame(&theirs, 0x0800, &udp4(me.v4, all4, 99, 99, 1)),
        ),
        (
            "the gateway's MAC",
            frame(&gateway, 0x0800, &udp4(me.v4, all4, 99, 99, 2)),
        ),
        (
            "another's IPv4 address",
            frame(&mac, 0x0800, &udp4(other.v4, all4, 99, 99, 3)),
        ),
        (
            "the gateway's IPv4 address",
            frame(&mac, 0x0800, &udp4(router, all4, 99, 99, 4)),
        ),
        (
            "an IPv4 address from nowhere",
            frame(
                &mac,
                0x0800,
                &udp4([203, 0, 113, 5].into(), all4, 99, 99, 5),
            ),
        ),
        (
            "no IPv4 address but not for DHCP",
            frame(&mac, 0x0800, &udp4(Ipv4Addr::UNSPECIFIED, all4, 99, 99, 6)),
        ),
        (
            "ARP for another's address",
            frame(&mac, 0x0806, &arp(2, &mac, other.v4, 7)),
        ),
        (
            "ARP for the gateway's address",
            frame(&mac, 0x0806, &arp(2, &mac, router, 8)),
        ),
        (
            "ARP question with the gateway's address",
            frame(&mac, 0x0806, &arp(1, &mac, router, 9)),
        ),
        (
            "ARP with another's MAC inside",
            frame(&mac, 0x0806, &arp(2, &theirs, me.v4, 10)),
        ),
        (
            "ARP answer from nobody",
            frame(&mac, 0x0806, &arp(2, &mac, Ipv4Addr::UNSPECIFIED, 11)),
        ),
        (
            "reverse ARP with another's MAC",
            frame(&theirs, 0x8035, &arp(3, &theirs, Ipv4Addr::UNSPECIFIED, 12)),
        ),
        (
            "a DHCP server's answer",
            frame(&mac, 0x0800, &udp4(me.v4, all4, 67, 68, 13)),
        ),
        (
            "a router's advertisement",
            frame(
                &mac,
                0x86dd,
                &icmp6(own, all6, 134, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 14]),
            ),
        ),
        (
            "a redirect",
            frame(&mac, 0x86dd, &icmp6(own, all6, 137, &[0; 36])),
        ),
        (
            "a DHCPv6 server's answer",
            frame(&mac, 0x86dd, &udp6(own, all6, 547, 16)),
        ),
        (
            "another's IPv6 address",
            frame(&mac, 0x86dd, &udp6(their6, all6, 99, 17)),
        ),
        (
            "another's link-local address",
            frame(&mac, 0x86dd, &udp6(other.mac.link_local(), all6, 99, 18)),
        ),
        (
            "an IPv6 address of its own making",
            frame(
                &mac,
                0x86dd,
                &udp6(their6.to_bits().wrapping_add(7).into(), all6, 99, 19),
            ),
        ),
        (
            "neighbour discovery for another's address",
            frame(&mac, 0x86dd, &icmp6(own_global, all6, 136, &claim(their6))),
        ),
        (
            "neighbour discovery for the gateway's address",
            frame(
                &mac,
                0x86dd,
                &icmp6(
                    own,
                    all6,
                    136,
                    &claim("fe80::4cff:fe59:1".parse().expect("ip")),
                ),
            ),
        ),
        (
            "neighbour discovery from nobody",
            frame(
                &mac,
                0x86dd,
                &icmp6(Ipv6Addr::UNSPECIFIED, all6, 136, &claim(own_global)),
            ),
        ),
        (
            "a question whether another's address is free",
            frame(
                &mac,
                0x86dd,
                &icmp6(Ipv6Addr::UNSPECIFIED, all6, 135, &claim(their6)[..20]),
            ),
        ),
        ("a VLAN", frame(&mac, 0x8100, &tagged)),
        ("another protocol", frame(&mac, 0x88cc, &[31; 40])),
        (
            "spanning tree",
            frame(&mac, 0x0026, &[0x42, 0x42, 3, 0, 0, 32]),
        ),
    ]
}

fn truths(me: &Plug) -> Vec<(&'static str, Vec<u8>)> {
    let mac = bytes(me.mac);
    let all6: Ipv6Addr = "ff02::1".parse().expect("group");
    let own = me.segment.desktop6(me.mac);
    let mut claim = vec![0x20, 0, 0, 0];
    claim.extend(own.octets());
    let mut link_local = vec![0, 0, 0, 0];
    link_local.extend(me.mac.link_local().octets());
    vec![
        (
            "ARP for its own address",
            frame(&mac, 0x0806, &arp(1, &mac, me.v4, 50)),
        ),
        (
            "ARP whether an address is free",
            frame(&mac, 0x0806, &arp(1, &mac, Ipv4Addr::UNSPECIFIED, 51)),
        ),
        (
            "its announcement after a move",
            frame(&mac, 0x8035, &arp(3, &mac, Ipv4Addr::UNSPECIFIED, 52)),
        ),
        (
            "a question for an address",
            frame(
                &mac,
                0x0800,
                &udp4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 68, 67, 53),
            ),
        ),
        (
            "IPv4",
            frame(&mac, 0x0800, &udp4(me.v4, Ipv4Addr::BROADCAST, 99, 99, 54)),
        ),
        ("IPv6", frame(&mac, 0x86dd, &udp6(own, all6, 99, 55))),
        (
            "IPv6 on the link",
            frame(&mac, 0x86dd, &udp6(me.mac.link_local(), all6, 99, 56)),
        ),
        (
            "neighbour discovery",
            frame(&mac, 0x86dd, &icmp6(own, all6, 136, &claim)),
        ),
        (
            "a question whether its own address is free",
            frame(
                &mac,
                0x86dd,
                &icmp6(Ipv6Addr::UNSPECIFIED, all6, 135, &link_local),
            ),
        ),
        (
            "a question for routers",
            frame(
                &mac,
                0x86dd,
                &icmp6(Ipv6Addr::UNSPECIFIED, all6, 133, &[0; 4]),
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_desktop_must_not_say_is_not_heard() {
    if !possible() {
        return;
    }
    let mut world = World::new("s").await;
    let (me, near, far) = (plug(1, 1), plug(1, 2), plug(1, 3));
    world.course(1, &[("ann", me), ("bob", near), ("cy", far)]);
    world.host1.plugs = vec![me, near];
    world.host2.plugs = vec![far];
    world.policy(1, Internet::On, &[], true);
    world.apply().await;
    let (h1, h2) = (world.name("h1"), world.name("h2"));
    let mut mine = open_tap(&h1, &me.tap());
    let mut heard = [open_tap(&h1, &near.tap()), open_tap(&h2, &far.tap())];
    heard.iter().for_each(nonblocking);

    let last = |n: u8| {
        frame(
            &bytes(me.mac),
            0x0806,
            &arp(1, &bytes(me.mac), me.v4, 100 + n),
        )
    };
    // A port is not carried over at once after it is up: the first that comes through begins it.
    let begin = last(0);
    for tap in &mut heard {
        let end = Instant::now() + crate::world::DEADLINE;
        let mut buffer = [0; 4096];
        loop {
            let _ = mine.write(&begin);
            std::thread::sleep(Duration::from_millis(20));
            if let Ok(n) = tap.read(&mut buffer)
                && n > 24
                && buffer[10..n].starts_with(&begin[10..52])
            {
                break;
            }
            assert!(Instant::now() < end, "nothing comes through");
        }
    }
    // Whatever is still under way.
    let quiet = last(1);
    mine.write_all(&quiet).expect("write");
    heard.iter_mut().for_each(|tap| drop(until(tap, &quiet)));

    for (what, truth) in truths(&me) {
        mine.write_all(&truth).expect(what);
        heard.iter_mut().for_each(|tap| drop(until(tap, &truth)));
    }
    let own = bytes(me.mac);
    for (n, (what, lie)) in lies(&me, &near).into_iter().enumerate() {
        mine.write_all(&lie).expect(what);
        let after = last(2 + n as u8);
        mine.write_all(&after).expect("write");
        for tap in &mut heard {
            let found = until(tap, &after);
            // What the gateway says by itself is none of it.
            let from_me = |f: &Vec<u8>| f[16..22] == own || f[10..] == lie[10..];
            assert!(!found.iter().any(from_me), "{what} came through");
        }
    }

    // Alone, it is heard by the gateway and by nobody else.
    world.policy(1, Internet::On, &[], false);
    world.apply().await;
    for (_, truth) in truths(&me) {
        mine.write_all(&truth).expect("write");
    }
    let mut from_gateway = bytes(Mac::of_gateway(1));
    from_gateway.truncate(6);
    let mut buffer = [0; 4096];
    for tap in &mut heard {
        while let Ok(n) = tap.read(&mut buffer) {
            assert!(
                n < 32 || buffer[16..22] != own,
                "a desktop that is alone was heard"
            );
        }
    }
}
