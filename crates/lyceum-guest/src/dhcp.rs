//! A DHCP client (RFC 2131) as a state machine without input or output of its own.
//!
//! ```text
//!            offer            ack                 T1              T2
//! Selecting ──────► Requesting ───► Bound ──────► Renewing ─────► Rebinding
//!     ▲   no answer / nak │          ▲    ack      │                │
//!     └───────────────────┘          └─────────────┴────────────────┤
//!     └─────────────────────────────────────── nak, lease over ─────┘
//! ```
//!
//! Why not udhcpc: starting it and its script twice was 0.2 s of the 0.4 s of processor time that a fork's network cost
//! in software emulation, where every program that starts is translated first.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::packet::{self, Destination, Received};
use crate::protocol::Mac;

/// Tries after which the server counts as silent. They go on.
const SILENT_AFTER: u32 = 4;
/// Longest wait between two tries without a lease.
const SLOWEST: Duration = Duration::from_secs(30);
/// Shortest wait between two tries to renew a lease (RFC 2131, 4.4.5).
const RENEW_PAUSE: Duration = Duration::from_secs(60);
/// A lease without end is looked after once in so long.
const LONGEST_LEASE: u32 = 30 * 24 * 3600;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const OPTIONS: usize = 240;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// An address with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The card's address.
    pub address: Ipv4Addr,
    /// Bits of the network part.
    pub prefix: u8,
    /// The way out.
    pub router: Option<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// Domain to complete short names with.
    pub domain: Option<String>,
}

impl Lease {
    /// Is `other` in the card's own network?
    #[must_use]
    pub fn reaches(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0);
        (u32::from(self.address) ^ u32::from(other)) & mask == 0
    }

    /// The text for `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self) -> String {
        let mut text = String::from("# Written by lyceum-guest from the DHCP lease.\n");
        if let Some(domain) = &self.domain {
            text.push_str(&format!("search {domain}\n"));
        }
        for server in &self.dns {
            text.push_str(&format!("nameserver {server}\n"));
        }
        text
    }
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    kind: u8,
    server: Ipv4Addr,
    lease: Lease,
    /// Seconds: the whole lease, when to ask its server, when to ask anyone.
    times: [u32; 3],
}

/// A lease with its server and its times.
#[derive(Debug, Clone)]
struct Held {
    reply: Reply,
    server_mac: Mac,
    rebind_at: Instant,
    ends_at: Instant,
}

#[derive(Debug, Clone)]
enum State {
    Selecting,
    Requesting(Reply),
    Bound(Held),
    /// Asking for more time: its own server first, anyone after `rebind_at`.
    Renewing(Held),
}

/// The client of one card.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
    xid: u32,
    hostname: String,
    state: State,
    /// When to do something by itself.
    next: Instant,
    tries: u32,
}

/// What a step of the client leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// A packet to send: from its IP header on, and whereto.
    pub send: Option<(Vec<u8>, Destination)>,
}

impl Client {
    /// A client without a lease; its first packet is due at once. `random` tells its conversation from others.
    #[must_use]
    pub fn new(mac: Mac, hostname: String, random: u32, now: Instant) -> Self {
        Self {
            mac,
            xid: random,
            hostname,
            state: State::Selecting,
            next: now,
            tries: 0,
        }
    }

    /// The lease that holds now.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(held) | State::Renewing(held) => Some(&held.reply.lease),
            State::Selecting | State::Requesting(_) => None,
        }
    }

    /// Does it wait for an answer, and so need its socket?
    #[must_use]
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Bound(_))
    }

    /// Has nobody answered for a while?
    #[must_use]
    pub fn unanswered(&self) -> bool {
        self.lease().is_none() && self.tries > SILENT_AFTER
    }

    /// When [`Self::due`] has something to do.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The machine stood still for longer than its clock knows: ask at once whether the lease still holds.
    pub fn doubt(&mut self, now: Instant) {
        if let State::Bound(held) = &self.state {
            self.state = State::Renewing(held.clone());
            self.tries = 0;
        }
        self.next = now;
    }

    /// Does what is due, if anything is.
    pub fn due(&mut self, now: Instant) -> Step {
        if now < self.next {
            return Step::default();
        }
        match &self.state {
            State::Bound(held) if now < held.ends_at => {
                self.state = State::Renewing(held.clone());
                self.tries = 0;
            }
            State::Bound(_) => self.start_over(now),
            State::Renewing(held) if now >= held.ends_at => self.start_over(now),
            // The server that offered says no more: ask everyone again.
            State::Requesting(_) if self.tries > SILENT_AFTER => self.start_over(now),
            State::Selecting | State::Requesting(_) | State::Renewing(_) => {}
        }
        self.tries = self.tries.saturating_add(1);
        let (send, pause) = match &self.state {
            State::Requesting(offer) => {
                let asked = [(50, offer.lease.address), (54, offer.server)];
                (
                    self.packet(
                        REQUEST,
                        Ipv4Addr::UNSPECIFIED,
                        &asked,
                        Destination::Everyone,
                    ),
                    self.backoff(),
                )
            }
            State::Renewing(held) => {
                let address = held.reply.lease.address;
                let (to, until) = if now < held.rebind_at {
                    (
                        Destination::Server(held.reply.server, held.server_mac),
                        held.rebind_at,
                    )
                } else {
                    (Destination::Everyone, held.ends_at)
                };
                // Half of what is left, but not in a hurry; the first try after a doubt gets an early second.
                let left = until.saturating_duration_since(now);
                let pause = if self.tries < 3 {
                    self.backoff()
                } else {
                    (left / 2).max(RENEW_PAUSE)
                };
                (
                    self.packet(REQUEST, address, &[], to),
                    pause.min(left.max(Duration::from_secs(1))),
                )
            }
            State::Selecting | State::Bound(_) => (
                self.packet(DISCOVER, Ipv4Addr::UNSPECIFIED, &[], Destination::Everyone),
                self.backoff(),
            ),
        };
        self.next = now + pause;
        Step { send: Some(send) }
    }

    /// Takes a packet that came for the client's port. Says nothing about any that is not for this conversation.
    pub fn received(&mut self, packet: &[u8], from: Mac, now: Instant) -> Step {
        let reply =
            packet::read(packet).and_then(|received| read_reply(&received, self.xid, self.mac));
        let Some(reply) = reply else {
            return Step::default();
        };
        match (&self.state, reply.kind) {
            (State::Selecting, OFFER) => {
                self.state = State::Requesting(reply);
                (self.tries, self.next) = (0, now);
            }
            (State::Requesting(offer), ACK) if offer.server == reply.server => {
                self.bind(reply, from, now)
            }
            (State::Renewing(_), ACK) => self.bind(reply, from, now),
            (State::Requesting(_) | State::Renewing(_), NAK) => {
                self.start_over(now);
                // A server that refuses what it has just offered must not be asked in a circle.
                self.next = now + Duration::from_secs(1);
            }
            _ => return Step::default(),
        }
        self.due(now)
    }

    fn bind(&mut self, reply: Reply, server_mac: Mac, now: Instant) {
        let at = |seconds: u32| now + Duration::from_secs(seconds.into());
        let [lease, renew, rebind] = reply.times;
        let (rebind_at, ends_at) = (at(rebind), at(lease));
        (self.tries, self.next) = (0, at(renew));
        self.state = State::Bound(Held {
            reply,
            server_mac,
            rebind_at,
            ends_at,
        });
    }

    fn start_over(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.xid = self.xid.wrapping_add(1);
        (self.tries, self.next) = (0, now);
    }

    /// 1, 2, 4 ... seconds, and up to a quarter more, so that sixty desktops do not ask in step.
    fn backoff(&self) -> Duration {
        let base = Duration::from_secs(1 << self.tries.saturating_sub(1).min(5)).min(SLOWEST);
        base + base * (self.xid % 16) / 64
    }

    fn packet(
        &self,
        kind: u8,
        from: Ipv4Addr,
        asked: &[(u8, Ipv4Addr)],
        to: Destination,
    ) -> (Vec<u8>, Destination) {
        let mut message = vec![0; OPTIONS];
        message[..3].copy_from_slice(&[1, 1, 6]);
        message[4..8].copy_from_slice(&self.xid.to_be_bytes());
        message[12..16].copy_from_slice(&from.octets());
        message[28..34].copy_from_slice(&self.mac.0);
        message[236..240].copy_from_slice(&MAGIC);
        let mut option = |code: u8, value: &[u8]| {
            message.extend([code, value.len() as u8]);
            message.extend(value);
        };
        option(53, &[kind]);
        let mut client_id = [1; 7];
        client_id[1..].copy_from_slice(&self.mac.0);
        option(61, &client_id);
        for (code, address) in asked {
            option(*code, &address.octets());
        }
        // Host names are 63 bytes at most.
        option(12, &self.hostname.as_bytes()[..self.hostname.len().min(63)]);
        option(55, &[1, 3, 6, 15, 51, 54, 58, 59]);
        message.push(255);
        (packet::write(&message, from, to), to)
    }
}

/// Reads a server's message, if it is one, and is the answer to this client's conversation.
fn read_reply(received: &Received<'_>, xid: u32, mac: Mac) -> Option<Reply> {
    let message = received.payload;
    let (head, mut options) = message.split_at_checked(OPTIONS)?;
    if head[..3] != [2, 1, 6]
        || head[4..8] != xid.to_be_bytes()
        || head[28..34] != mac.0
        || head[236..] != MAGIC
    {
        return None;
    }
    let mut reply = Reply {
        kind: 0,
        server: received.from,
        lease: Lease {
            address: Ipv4Addr::new(head[16], head[17], head[18], head[19]),
            prefix: 0,
            router: None,
            dns: Vec::new(),
            domain: None,
        },
        times: [0; 3],
    };
    while let [code, rest @ ..] = options {
        match code {
            0 => {
                options = rest;
                continue;
            }
            255 => break,
            _ => {}
        }
        let (&length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(length.into())?;
        read_option(&mut reply, *code, value);
        options = rest;
    }
    complete(reply)
}

fn read_option(reply: &mut Reply, code: u8, value: &[u8]) {
    let number = || value.try_into().ok().map(u32::from_be_bytes);
    let addresses = || {
        value
            .chunks_exact(4)
            .map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3]))
    };
    match code {
        1 => {
            if let Some(mask) =
                number().filter(|mask| mask.leading_ones() + mask.trailing_zeros() == 32)
            {
                reply.lease.prefix = mask.leading_ones() as u8;
            }
        }
        3 => reply.lease.router = addresses().next(),
        6 => reply.lease.dns = addresses().take(3).collect(),
        // The text goes into a file whose lines have a meaning.
        15 => {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if !text.is_empty() && text.iter().all(fine) {
                reply.lease.domain = String::from_utf8(text.to_vec()).ok();
            }
        }
        51 => reply.times[0] = number().unwrap_or(0),
        53 => reply.kind = value.first().copied().unwrap_or(0),
        54 => {
            if let Some(server) = addresses().next() {
                reply.server = server;
            }
        }
        58 => reply.times[1] = number().unwrap_or(0),
        59 => reply.times[2] = number().unwrap_or(0),
        _ => {}
    }
}

/// Fills in what the server left open, and refuses what can't be an offer or a lease.
fn complete(mut reply: Reply) -> Option<Reply> {
    if !matches!(reply.kind, OFFER | ACK | NAK) {
        return None;
    }
    if reply.kind != NAK {
        let address = reply.lease.address;
        if address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback()
        {
            return None;
        }
        if reply.lease.prefix == 0 {
            reply.lease.prefix = 24;
        }
    }
    let [lease, renew, rebind] = &mut reply.times;
    *lease = if *lease == 0 {
        3600
    } else {
        (*lease).clamp(60, LONGEST_LEASE)
    };
    if *rebind == 0 || *rebind >= *lease {
        *rebind = *lease / 8 * 7;
    }
    if *renew == 0 || *renew >= *rebind {
        *renew = *rebind / 7 * 4;
    }
    Some(reply)
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
