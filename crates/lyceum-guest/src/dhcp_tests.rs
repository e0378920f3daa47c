use super::*;
use proptest::prelude::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER_MAC: Mac = Mac([0x52, 0x55, 10, 77, 1, 2]);

/// A client's packet as a server sees it: kind, transaction, its own address if it has one, and the options.
struct Asked {
    kind: u8,
    xid: u32,
    own: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
    to: Destination,
}

fn asked(step: Step) -> Option<Asked> {
    let (packet, to) = step.send?;
    let message = &packet[28..];
    let mut options = Vec::new();
    let mut rest = &message[OPTIONS..];
    while rest[0] != 255 {
        let length = usize::from(rest[1]);
        options.push((rest[0], rest[2..2 + length].to_vec()));
        rest = &rest[2 + length..];
    }
    let kind = options
        .iter()
        .find(|(code, _)| *code == 53)
        .expect("a kind")
        .1[0];
    let xid = u32::from_be_bytes(message[4..8].try_into().expect("four bytes"));
    Some(Asked {
        kind,
        xid,
        own: Ipv4Addr::new(message[12], message[13], message[14], message[15]),
        options,
        to,
    })
}

fn reply(kind: u8, xid: u32, address: [u8; 4], seconds: u32) -> Vec<u8> {
    let mut message = vec![0; OPTIONS];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[16..20].copy_from_slice(&address);
    message[28..34].copy_from_slice(&MAC.0);
    message[236..240].copy_from_slice(&MAGIC);
    message.extend([
        53, 1, kind, 0, 1, 4, 255, 255, 255, 0, 3, 8, 10, 77, 1, 2, 10, 77, 1, 9,
    ]);
    message.extend([54, 4, 10, 77, 1, 2, 6, 4, 10, 77, 1, 3, 15, 6]);
    message.extend(b"school");
    message.extend([51, 4]);
    message.extend(seconds.to_be_bytes());
    message.push(255);
    let mut packet = packet::write(&message, SERVER, Destination::Everyone);
    packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
    packet
}

fn client(now: Instant) -> Client {
    Client::new(MAC, "seat-1".into(), 77, now)
}

/// Brings a client to its lease.
fn bound(now: Instant, seconds: u32) -> Client {
    let mut client = client(now);
    let discover = asked(client.due(now)).expect("a discover");
    assert_eq!(
        (discover.kind, discover.to),
        (DISCOVER, Destination::Everyone)
    );
    let request =
        asked(client.received(&reply(OFFER, 77, [10, 77, 1, 15], seconds), SERVER_MAC, now));
    let request = request.expect("a request");
    assert_eq!(request.kind, REQUEST);
    assert!(
        request.options.contains(&(50, vec![10, 77, 1, 15]))
            && request.options.contains(&(54, vec![10, 77, 1, 2]))
    );
    assert!(request.options.contains(&(12, b"seat-1".to_vec())));
    assert!(client.lease().is_none(), "an offer is no lease");
    assert!(
        asked(client.received(&reply(ACK, 77, [10, 77, 1, 15], seconds), SERVER_MAC, now))
            .is_none()
    );
    client
}

#[test]
fn gets_a_lease_without_waiting() {
    let now = Instant::now();
    let client = bound(now, 3600);
    let lease = client.lease().expect("a lease");
    assert_eq!((lease.address, lease.prefix), ([10, 77, 1, 15].into(), 24));
    assert_eq!(
        (lease.router, lease.dns.as_slice()),
        (Some(SERVER), [Ipv4Addr::new(10, 77, 1, 3)].as_slice())
    );
    assert!(
        lease
            .resolv_conf()
            .ends_with("search school\nnameserver 10.77.1.3\n")
    );
    assert!(!client.listens() && client.next() > now + Duration::from_secs(1000));
}

#[test]
fn renews_with_its_server_and_then_with_anyone_and_then_gives_up() {
    let start = Instant::now();
    let mut client = bound(start, 800);
    let mut kinds = Vec::new();
    let mut now = client.next();
    while client.lease().is_some() {
        assert!(
            now <= start + Duration::from_secs(802),
            "a lease that is over is not used"
        );
        match asked(client.due(now)) {
            Some(asked) if asked.kind == REQUEST => {
                assert_eq!(asked.own, Ipv4Addr::new(10, 77, 1, 15));
                assert!(
                    asked.options.iter().all(|(code, _)| *code != 54),
                    "not bound to the server any more"
                );
                kinds.push(asked.to);
            }
            Some(asked) => assert_eq!(asked.kind, DISCOVER),
            None => {}
        }
        assert!(client.next() > now, "no busy loop");
        now = client.next();
    }
    assert_eq!(
        kinds.first(),
        Some(&Destination::Server(SERVER, SERVER_MAC))
    );
    assert_eq!(kinds.last(), Some(&Destination::Everyone));
    let half = start + Duration::from_secs(300);
    assert!(now > half);
}

#[test]
fn a_renewed_lease_goes_on() {
    let start = Instant::now();
    let mut client = bound(start, 800);
    let now = client.next();
    let request = asked(client.due(now)).expect("a request");
    client.received(
        &reply(ACK, request.xid, [10, 77, 1, 15], 800),
        SERVER_MAC,
        now,
    );
    assert!(!client.listens() && client.next() > now + Duration::from_secs(300));
}

#[test]
fn a_refused_lease_is_given_up_at_once() {
    let start = Instant::now();
    let mut client = bound(start, 800);
    client.doubt(start);
    let request = asked(client.due(start)).expect("a request");
    assert!(client.lease().is_some(), "a doubt is no loss");
    client.received(&reply(NAK, request.xid, [0; 4], 0), SERVER_MAC, start);
    assert!(client.lease().is_none());
    let now = client.next();
    let discover = asked(client.due(now)).expect("a discover");
    assert_eq!(discover.kind, DISCOVER);
    assert_ne!(discover.xid, request.xid);
}

#[test]
fn a_lost_packet_is_sent_again_and_silence_is_noticed() {
    let start = Instant::now();
    let mut client = client(start);
    let mut now = start;
    let mut sent = 0;
    while !client.unanswered() {
        sent += asked(client.due(now)).map_or(0, |asked| u32::from(asked.kind == DISCOVER));
        now = client.next();
    }
    assert!(
        sent > 3 && now < start + Duration::from_secs(60),
        "{sent} in {:?}",
        now - start
    );
    // An offer whose server then falls silent does not hold the client up for ever.
    client.received(&reply(OFFER, 77, [10, 77, 1, 15], 600), SERVER_MAC, now);
    loop {
        now = client.next();
        if asked(client.due(now)).is_some_and(|asked| asked.kind == DISCOVER) {
            break;
        }
        assert!(now < start + Duration::from_secs(300));
    }
}

#[test]
fn takes_nothing_from_other_conversations() {
    let now = Instant::now();
    let mut client = client(now);
    client.due(now);
    for bad in [
        reply(OFFER, 78, [10, 77, 1, 15], 600), // somebody else's
        reply(ACK, 77, [10, 77, 1, 15], 600),   // never asked for
        reply(OFFER, 77, [0, 0, 0, 0], 600),
        reply(OFFER, 77, [127, 0, 0, 1], 600),
        reply(OFFER, 77, [239, 0, 0, 1], 600),
    ] {
        assert!(asked(client.received(&bad, SERVER_MAC, now)).is_none());
        assert!(client.lease().is_none());
    }
}

#[test]
fn a_server_cannot_write_lines_of_its_own() {
    let mut bytes = reply(OFFER, 77, [10, 77, 1, 15], 600);
    let at = bytes
        .windows(6)
        .position(|w| w == b"school")
        .expect("there");
    bytes[at + 2] = b'\n';
    let received = packet::read(&bytes).expect("a packet");
    assert_eq!(
        read_reply(&received, 77, MAC)
            .expect("an offer")
            .lease
            .domain,
        None
    );
}

#[test]
fn prefixes_at_the_ends_work() {
    let mut lease = Lease {
        address: [10, 0, 0, 1].into(),
        prefix: 32,
        router: None,
        dns: vec![],
        domain: None,
    };
    assert!(!lease.reaches([10, 0, 0, 2].into()) && lease.reaches([10, 0, 0, 1].into()));
    lease.prefix = 0;
    assert!(lease.reaches([1, 2, 3, 4].into()));
}

proptest! {
    /// Whatever the network says and however the clock jumps: no panic, no busy loop, no lease past its end.
    #[test]
    fn survives_anything(steps in prop::collection::vec((0u8..8, 0u64..100_000, any::<u32>()), 0..60)) {
        let mut now = Instant::now();
        let mut client = client(now);
        for (what, seconds, random) in steps {
            match what {
                0..=2 => {
                    let kind = [OFFER, ACK, NAK][usize::from(what)];
                    let mut bytes = reply(kind, client.xid, [10, 77, 1, 15], random);
                    client.received(&bytes, SERVER_MAC, now);
                    let at = 28 + random as usize % (bytes.len() - 28);
                    bytes[at] ^= random as u8;
                    client.received(&bytes, SERVER_MAC, now);
                    bytes.truncate(at);
                    client.received(&bytes, SERVER_MAC, now);
                }
                3 => client.doubt(now),
                4 => now += Duration::from_secs(seconds),
                _ => now = now.max(client.next()),
            }
            let step = client.due(now);
            if step.send.is_some() {
                prop_assert!(client.next() >= now + Duration::from_secs(1), "no busy loop");
            }
            if let State::Bound(held) | State::Renewing(held) = &client.state {
                prop_assert!(held.rebind_at <= held.ends_at && now < held.ends_at);
            }
        }
    }
}
