//! The network cards the host asked for: each gets a DHCP client, and its lease is applied here.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ssh_key::rand_core::{OsRng, RngCore};

use crate::channel::Asker;
use crate::dhcp::{Client, Lease, Step};
use crate::files;
use crate::netlink::{LinkEvent, LinkWatch, Netlink};
use crate::packet::Socket;
use crate::protocol::Mac;
use crate::sys::Epoll;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Answers that are ready to be sent: to which request, and what came of it.
pub type Answers = Vec<(Asker, Result<Value, String>)>;

/// A request that waits for its card or its lease.
#[derive(Debug)]
struct Waiting {
    asker: Asker,
    mac: Mac,
    since: Instant,
    deadline: Instant,
}

#[derive(Debug)]
struct Link {
    name: String,
    mac: Mac,
    client: Option<Client>,
    /// Open while the client waits for an answer.
    socket: Option<Socket>,
    /// What the card has now.
    applied: Option<Lease>,
}

/// All of it. Never blocks; the main loop says when to look.
#[derive(Debug)]
pub struct Network {
    watch: LinkWatch,
    netlink: Netlink,
    links: HashMap<u32, Link>,
    waiting: Vec<Waiting>,
    packet_token: u64,
}

impl Network {
    /// Watches for cards. `link_token` and `packet_token` say what the main loop woke up for.
    pub fn new(epoll: &Epoll, link_token: u64, packet_token: u64) -> io::Result<Self> {
        let watch = LinkWatch::new()?;
        epoll.add(&watch, link_token)?;
        let netlink = Netlink::new()?;
        Ok(Self {
            watch,
            netlink,
            links: HashMap::new(),
            waiting: Vec::new(),
            packet_token,
        })
    }

    /// The host wants the card `mac` on the network.
    pub fn request(&mut self, asker: Asker, mac: Mac, timeout: Duration) {
        let now = Instant::now();
        // Far beyond any real wait, and safe to add to the clock.
        let deadline = now + timeout.min(Duration::from_secs(24 * 3600));
        self.waiting.push(Waiting {
            asker,
            mac,
            since: now,
            deadline,
        });
    }

    /// The machine stood still for a while: leases may have been given to others.
    pub fn doubt(&mut self) {
        let now = Instant::now();
        self.links
            .values_mut()
            .filter_map(|link| link.client.as_mut())
            .for_each(|client| client.doubt(now));
    }

    /// Cards came or went.
    pub fn links_changed(&mut self) -> io::Result<()> {
        for event in self.watch.events()? {
            match event {
                LinkEvent::Present { index, name, mac } => {
                    let link = self.links.entry(index).or_insert_with(|| Link {
                        name: String::new(),
                        mac,
                        client: None,
                        socket: None,
                        applied: None,
                    });
                    (link.name, link.mac) = (name, mac);
                }
                LinkEvent::Gone { index } => {
                    // Its addresses and routes went with it; its name servers are left for us.
                    if self
                        .links
                        .remove(&index)
                        .is_some_and(|link| link.applied.is_some())
                    {
                        self.write_resolv_conf();
                    }
                }
            }
        }
        Ok(())
    }

    /// When [`Self::work`] has to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let clients = self
            .links
            .values()
            .filter_map(|link| link.client.as_ref())
            .map(Client::next);
        self.waiting
            .iter()
            .map(|waiting| waiting.deadline)
            .chain(clients)
            .min()
    }

    /// Does everything that can be done now: starts clients, lets them talk, applies leases and answers requests.
    pub fn work(&mut self, epoll: &Epoll, answers: &mut Answers) {
        let now = Instant::now();
        let mut changed = false;
        for (&index, link) in &mut self.links {
            if link.client.is_none() && self.waiting.iter().any(|waiting| waiting.mac == link.mac) {
                if let Err(error) = self.netlink.set_up(index) {
                    let why = format!("can't switch {} on: {error}", link.name);
                    fail(&mut self.waiting, link.mac, &why, answers);
                    continue;
                }
                let hostname =
                    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                link.client = Some(Client::new(
                    link.mac,
                    hostname.trim_end().to_owned(),
                    OsRng.next_u32(),
                    now,
                ));
            }
            if let Err(error) = link.talk(index, now, epoll, self.packet_token) {
                let why = format!("can't ask for an address on {}: {error}", link.name);
                fail(&mut self.waiting, link.mac, &why, answers);
            }
            changed |= link.apply(index, &self.netlink);
        }
        if changed {
            self.write_resolv_conf();
        }
        self.answer(now, answers);
    }

    /// Answers requests whose card has a lease, and those whose time is over.
    fn answer(&mut self, now: Instant, answers: &mut Answers) {
        let links = &self.links;
        self.waiting.retain(|waiting| {
            let link = links.values().find(|link| link.mac == waiting.mac);
            if let Some(lease) = link.and_then(|link| link.applied.as_ref()) {
                let address = format!("{}/{}", lease.address, lease.prefix);
                let took = now.saturating_duration_since(waiting.since).as_millis() as u64;
                answers.push((
                    waiting.asker,
                    Ok(json!({ "address": address, "took_ms": took })),
                ));
                return false;
            }
            if waiting.deadline > now {
                return true;
            }
            let why = match link {
                None => format!(
                    "no network card with the address {} appeared; was it plugged in?",
                    waiting.mac
                ),
                Some(link) if link.client.as_ref().is_some_and(Client::unanswered) => {
                    format!(
                        "no DHCP server answers on {}; check the desktop's network",
                        link.name
                    )
                }
                Some(link) => format!(
                    "no DHCP lease on {} in time; it is still being tried",
                    link.name
                ),
            };
            answers.push((waiting.asker, Err(why)));
            false
        });
    }

    fn write_resolv_conf(&self) {
        let text: String = self
            .links
            .values()
            .filter_map(|l| l.applied.as_ref())
            .map(Lease::resolv_conf)
            .collect();
        if let Err(error) = files::replace(RESOLV_CONF, text.as_bytes(), 0o644) {
            eprintln!("lyceum-guest: can't write {RESOLV_CONF}: {error}; names will not resolve");
        }
    }
}

/// Tells everyone who waits for this card why there is no point in it.
fn fail(waiting: &mut Vec<Waiting>, mac: Mac, why: &str, answers: &mut Answers) {
    for waiting in waiting.extract_if(.., |waiting| waiting.mac == mac) {
        answers.push((waiting.asker, Err(why.to_owned())));
    }
}

impl Link {
    /// Hears and says what its DHCP client has to. Does nothing for a card that nobody asked for.
    fn talk(&mut self, index: u32, now: Instant, epoll: &Epoll, token: u64) -> io::Result<()> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let mut buffer = [0; 2048];
        while let Some(socket) = self.socket.as_ref().filter(|_| client.listens()) {
            match socket.receive(&mut buffer) {
                Ok(Some((length, from))) => {
                    send(socket, client.received(&buffer[..length], from, now))
                }
                Ok(None) => break,
                // A card that is just being taken away; the next try tells.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => break,
                Err(error) => return Err(error),
            }
        }
        let step = client.due(now);
        if !client.listens() {
            self.socket = None;
        } else if self.socket.is_none() {
            let socket = Socket::open(index)?;
            epoll.add(&socket, token)?;
            self.socket = Some(socket);
        }
        if let Some(socket) = &self.socket {
            send(socket, step);
        }
        Ok(())
    }

    /// Gives the card what its client holds. Returns whether anything changed.
    fn apply(&mut self, index: u32, netlink: &Netlink) -> bool {
        let new = self.client.as_ref().and_then(Client::lease);
        if new == self.applied.as_ref() {
            return false;
        }
        if let Some(old) = self.applied.take()
            && new.is_none_or(|new| (new.address, new.prefix) != (old.address, old.prefix))
            && let Err(error) = netlink.remove_address(index, old.address, old.prefix)
        {
            eprintln!(
                "lyceum-guest: can't take {} from {}: {error}",
                old.address, self.name
            );
        }
        let Some(new) = new else { return true };
        let set = netlink
            .add_address(index, new.address, new.prefix)
            .and_then(|()| match new.router {
                Some(router) => netlink.set_default_route(index, router, new.reaches(router)),
                None => Ok(()),
            });
        match set {
            Ok(()) => self.applied = Some(new.clone()),
            Err(error) => eprintln!(
                "lyceum-guest: can't give {} its address: {error}",
                self.name
            ),
        }
        true
    }
}

fn send(socket: &Socket, step: Step) {
    if let Some((packet, to)) = step.send
        && let Err(error) = socket.send(&packet, to)
    {
        eprintln!("lyceum-guest: can't send a DHCP packet: {error}; it will be tried again");
    }
}
