//! The network cards the host asked for: each gets a DHCP client, and its lease is applied here.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::channel::Asker;
use crate::files;
use crate::lease::{self, Lease, LeaseEvent};
use crate::netlink::{LinkEvent, LinkWatch, Netlink};
use crate::protocol::Mac;
use crate::sys;

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
    lease: Option<Lease>,
    no_answer: bool,
}

/// A running DHCP client. Ends with this value.
#[derive(Debug)]
struct Client {
    child: Child,
    pidfd: OwnedFd,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = sys::kill(self.pidfd.as_fd());
        let _ = self.child.wait();
    }
}

/// All of it. Never blocks; the main loop says when to look.
#[derive(Debug)]
pub struct Network {
    watch: LinkWatch,
    netlink: Netlink,
    leases: UnixDatagram,
    links: HashMap<u32, Link>,
    waiting: Vec<Waiting>,
}

impl Network {
    /// Watches for cards and leases. Needs `/run/lyceum`.
    pub fn new() -> io::Result<Self> {
        let _ = std::fs::remove_file(lease::SOCKET);
        let leases = UnixDatagram::bind(lease::SOCKET)?;
        std::fs::set_permissions(lease::SOCKET, std::fs::Permissions::from_mode(0o600))?;
        leases.set_nonblocking(true)?;
        Ok(Self {
            watch: LinkWatch::new()?,
            netlink: Netlink::new()?,
            leases,
            links: HashMap::new(),
            waiting: Vec::new(),
        })
    }

    /// Registers what wakes the main loop on its behalf.
    pub fn register(
        &self,
        epoll: &sys::Epoll,
        link_token: u64,
        lease_token: u64,
    ) -> io::Result<()> {
        epoll.add(&self.watch, link_token)?;
        epoll.add(&self.leases, lease_token)
    }

    /// The host wants the card `mac` on the network.
    pub fn request(&mut self, asker: Asker, mac: Mac, timeout: Duration, answers: &mut Answers) {
        let now = Instant::now();
        // Far beyond any real wait, and safe to add to the clock.
        let deadline = now + timeout.min(Duration::from_secs(24 * 3600));
        self.waiting.push(Waiting {
            asker,
            mac,
            since: now,
            deadline,
        });
        self.serve(answers);
    }

    /// Cards came or went.
    pub fn links_changed(&mut self, answers: &mut Answers) -> io::Result<()> {
        for event in self.watch.events()? {
            match event {
                LinkEvent::Present { index, name, mac } => {
                    let link = self.links.entry(index).or_insert_with(|| Link {
                        name: String::new(),
                        mac,
                        client: None,
                        lease: None,
                        no_answer: false,
                    });
                    (link.name, link.mac) = (name, mac);
                }
                LinkEvent::Gone { index } => {
                    // Its addresses and routes went with it; its client and its name servers are left for us.
                    if self
                        .links
                        .remove(&index)
                        .is_some_and(|link| link.lease.is_some())
                    {
                        self.write_resolv_conf();
                    }
                }
            }
        }
        self.serve(answers);
        Ok(())
    }

    /// A DHCP client has news.
    pub fn leases_changed(&mut self, answers: &mut Answers) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.leases.recv(&mut buffer) {
                Ok(length) => {
                    if let Some((interface, event)) = lease::parse(&buffer[..length]) {
                        self.lease_event(&interface, event);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.serve(answers);
        Ok(())
    }

    /// When [`Self::expire`] has to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|w| w.deadline).min()
    }

    /// Gives up on requests whose time is over.
    pub fn expire(&mut self, answers: &mut Answers) {
        let now = Instant::now();
        let links = &self.links;
        self.waiting.retain(|waiting| {
            let open = waiting.deadline > now;
            if !open {
                let link = links.values().find(|link| link.mac == waiting.mac);
                let why = match link {
                    None => format!(
                        "no network card with the address {} appeared; was it plugged in?",
                        waiting.mac
                    ),
                    Some(link) if link.no_answer => {
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
            }
            open
        });
    }

    /// Starts clients for cards that are waited for and answers requests whose card has a lease.
    fn serve(&mut self, answers: &mut Answers) {
        let (links, netlink) = (&mut self.links, &self.netlink);
        self.waiting.retain(|waiting| {
            let Some((&index, link)) = links.iter_mut().find(|(_, link)| link.mac == waiting.mac)
            else {
                return true;
            };
            if let Some(client) = &mut link.client {
                // One that ended by itself holds no lease any more.
                if !matches!(client.child.try_wait(), Ok(None)) {
                    link.client = None;
                    link.lease = None;
                }
            }
            if link.client.is_none() {
                match start_client(netlink, index, &link.name) {
                    Ok(client) => link.client = Some(client),
                    Err(error) => {
                        answers.push((waiting.asker, Err(error)));
                        return false;
                    }
                }
            }
            let Some(lease) = &link.lease else {
                return true;
            };
            let took = waiting.since.elapsed().as_millis() as u64;
            let address = format!("{}/{}", lease.address, lease.prefix);
            answers.push((
                waiting.asker,
                Ok(json!({ "address": address, "took_ms": took })),
            ));
            false
        });
    }

    fn lease_event(&mut self, interface: &str, event: LeaseEvent) {
        let found = self
            .links
            .iter_mut()
            .find(|(_, link)| link.name == interface && link.client.is_some());
        let Some((&index, link)) = found else { return };
        link.no_answer = matches!(event, LeaseEvent::NoAnswer);
        let new = match event {
            LeaseEvent::Bound(lease) => Some(lease),
            LeaseEvent::Unbound => None,
            LeaseEvent::NoAnswer => return,
        };
        if link.lease == new {
            return;
        }
        let old = link.lease.take();
        if let Some(old) = &old
            && new
                .as_ref()
                .is_none_or(|new| (new.address, new.prefix) != (old.address, old.prefix))
            && let Err(error) = self.netlink.remove_address(index, old.address, old.prefix)
        {
            eprintln!(
                "lyceum-guest: can't take the old address {} from {interface}: {error}",
                old.address
            );
        }
        if let Some(new) = new {
            match apply(&self.netlink, index, &new) {
                Ok(()) => link.lease = Some(new),
                Err(error) => {
                    eprintln!("lyceum-guest: can't give {interface} its address: {error}")
                }
            }
        }
        self.write_resolv_conf();
    }

    fn write_resolv_conf(&self) {
        let text: String = self
            .links
            .values()
            .filter_map(|l| l.lease.as_ref())
            .map(Lease::resolv_conf)
            .collect();
        if let Err(error) = files::replace(RESOLV_CONF, text.as_bytes(), 0o644) {
            eprintln!("lyceum-guest: can't write {RESOLV_CONF}: {error}; names will not resolve");
        }
    }
}

fn apply(netlink: &Netlink, index: u32, lease: &Lease) -> io::Result<()> {
    netlink.add_address(index, lease.address, lease.prefix)?;
    match lease.router {
        Some(router) => netlink.set_default_route(index, router, lease.reaches(router)),
        None => Ok(()),
    }
}

fn start_client(netlink: &Netlink, index: u32, name: &str) -> Result<Client, String> {
    netlink
        .set_up(index)
        .map_err(|error| format!("can't switch {name} on: {error}"))?;
    let this = std::env::current_exe()
        .map_err(|error| format!("can't find this program's own file: {error}"))?;
    let mut command = Command::new("udhcpc");
    // Stays (-f) for the renewals. The options asked for are those that are used: fewer bytes, less to go wrong.
    command.args(["-f", "-i", name, "-t", "8", "-T", "1", "-A", "4", "-o"]);
    command
        .args([
            "-O", "subnet", "-O", "router", "-O", "dns", "-O", "domain", "-s",
        ])
        .arg(this);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().map_err(|error| {
        format!("can't run udhcpc: {error}; install the Debian package udhcpc (or busybox with that applet)")
    })?;
    let pidfd = sys::pidfd(child.id()).map_err(|error| format!("can't watch udhcpc: {error}"))?;
    Ok(Client { child, pidfd })
}
