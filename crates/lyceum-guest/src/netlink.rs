//! Links, addresses and routes by routing netlink: no `ip`, no shell.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::protocol::Mac;
use crate::sys;

const HEADER: usize = 16;
const IFINFO: usize = 16;

/// A network card came, changed or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// There is this card now (it may have been there before).
    Present {
        /// The kernel's number for it; never used again while the kernel runs.
        index: u32,
        /// Its name, such as `eth0`.
        name: String,
        /// Its address.
        mac: Mac,
    },
    /// The card with this number is gone.
    Gone {
        /// The kernel's number for it.
        index: u32,
    },
}

/// Hears of every card, those already there included.
#[derive(Debug)]
pub struct LinkWatch(OwnedFd);

impl LinkWatch {
    /// Starts watching and asks for the cards that are there.
    pub fn new() -> io::Result<Self> {
        let watch = Self(sys::netlink(true)?);
        watch.ask_for_all()?;
        Ok(watch)
    }

    fn ask_for_all(&self) -> io::Result<()> {
        let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; IFINFO]);
        sys::write(self.0.as_fd(), &message.finish())?;
        Ok(())
    }

    /// All news, without waiting.
    pub fn events(&self) -> io::Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match sys::receive(self.0.as_fd(), &mut buffer) {
                Ok(length) => messages(&buffer[..length], |kind, body| {
                    events.extend(link_event(kind, body))
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // News were lost: ask for the whole list again.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.ask_for_all()?,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Changes the network, one acknowledged request at a time.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket for requests.
    pub fn new() -> io::Result<Self> {
        Ok(Self(sys::netlink(false)?))
    }

    /// Switches a card on.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        let mut body = [0; IFINFO];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        body[8..12].copy_from_slice(&up);
        body[12..16].copy_from_slice(&up);
        self.request(Message::new(libc::RTM_NEWLINK, 0, &body))
    }

    /// Gives a card an address.
    pub fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = address_message(
            libc::RTM_NEWADDR,
            libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            index,
            address,
            prefix,
        );
        if prefix < 31 {
            let broadcast = Ipv4Addr::from(
                u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0),
            );
            message.attribute(libc::IFA_BROADCAST, &broadcast.octets());
        }
        self.request(message)
    }

    /// Takes an address from a card. It is no error when the card did not have it.
    pub fn remove_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        match self.request(address_message(
            libc::RTM_DELADDR,
            0,
            index,
            address,
            prefix,
        )) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// Sends everything that has no better way through `gateway` on this card.
    pub fn set_default_route(
        &self,
        index: u32,
        gateway: Ipv4Addr,
        on_link: bool,
    ) -> io::Result<()> {
        const PROTOCOL_DHCP: u8 = 16;
        const ON_LINK: u32 = 4;
        let mut body = [0; 12];
        body[0] = libc::AF_INET as u8;
        body[4] = libc::RT_TABLE_MAIN;
        body[5] = PROTOCOL_DHCP;
        body[6] = libc::RT_SCOPE_UNIVERSE;
        body[7] = libc::RTN_UNICAST;
        // A gateway outside of the card's own network (some clouds do that) has to be declared reachable.
        body[8..12].copy_from_slice(&(if on_link { 0 } else { ON_LINK }).to_ne_bytes());
        let mut message = Message::new(
            libc::RTM_NEWROUTE,
            libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            &body,
        );
        message.attribute(libc::RTA_GATEWAY, &gateway.octets());
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.request(message)
    }

    fn request(&self, mut message: Message) -> io::Result<()> {
        message.add_flags(libc::NLM_F_ACK);
        sys::write(self.0.as_fd(), &message.finish())?;
        let mut buffer = [0; 4096];
        let mut result = None;
        while result.is_none() {
            let length = sys::receive(self.0.as_fd(), &mut buffer)?;
            messages(&buffer[..length], |kind, body| {
                if i32::from(kind) == libc::NLMSG_ERROR {
                    result = Some(int(body, 0).unwrap_or(-libc::EPROTO as u32) as i32);
                }
            });
        }
        match result {
            Some(0) | None => Ok(()),
            Some(negative) => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
        }
    }
}

fn address_message(kind: u16, flags: i32, index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut body = [0; 8];
    body[0] = libc::AF_INET as u8;
    body[1] = prefix;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, &body);
    message.attribute(libc::IFA_LOCAL, &address.octets());
    message.attribute(libc::IFA_ADDRESS, &address.octets());
    message
}

/// A message being put together.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(body);
        let mut message = Self(bytes);
        message.add_flags(flags | libc::NLM_F_REQUEST);
        message
    }

    fn add_flags(&mut self, flags: i32) {
        let old = u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[6..8].copy_from_slice(&(old | flags as u16).to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

/// Calls `each` with the kind and the body of every message in a datagram. Stops at the first that does not fit.
fn messages(mut bytes: &[u8], mut each: impl FnMut(u16, &[u8])) {
    while let Some(length) = int(bytes, 0) {
        let length = length as usize;
        if length < HEADER || length > bytes.len() {
            return;
        }
        each(
            u16::from_ne_bytes([bytes[4], bytes[5]]),
            &bytes[HEADER..length],
        );
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn link_event(kind: u16, body: &[u8]) -> Option<LinkEvent> {
    let index = int(body, 4)?;
    match kind {
        libc::RTM_DELLINK => Some(LinkEvent::Gone { index }),
        libc::RTM_NEWLINK => {
            let (mut name, mut mac) = (None, None);
            attributes(body.get(IFINFO..)?, |kind, value| match kind {
                libc::IFLA_IFNAME => {
                    let text = value.split(|&b| b == 0).next().unwrap_or_default();
                    name = String::from_utf8(text.to_vec()).ok();
                }
                libc::IFLA_ADDRESS => mac = value.try_into().ok().map(Mac),
                _ => {}
            });
            Some(LinkEvent::Present {
                index,
                name: name?,
                mac: mac?,
            })
        }
        _ => None,
    }
}

fn attributes(mut bytes: &[u8], mut each: impl FnMut(u16, &[u8])) {
    while let [a, b, c, d, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if length < 4 || length > bytes.len() {
            return;
        }
        each(u16::from_ne_bytes([c, d]), &bytes[4..length]);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new_link(index: u32, name: &str, mac: &[u8]) -> Vec<u8> {
        let mut body = [0; IFINFO];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &body);
        message.attribute(libc::IFLA_ADDRESS, mac);
        message.attribute(libc::IFLA_IFNAME, format!("{name}\0").as_bytes());
        message.finish()
    }

    fn events(bytes: &[u8]) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        messages(bytes, |kind, body| events.extend(link_event(kind, body)));
        events
    }

    #[test]
    fn reads_links_that_come_and_go() {
        let mut bytes = new_link(3, "eth0", &[1, 2, 3, 4, 5, 6]);
        bytes.extend(new_link(4, "tunl0", &[0; 4])); // no Ethernet: not ours
        let mut gone = [0; IFINFO];
        gone[4..8].copy_from_slice(&3u32.to_ne_bytes());
        bytes.extend(Message::new(libc::RTM_DELLINK, 0, &gone).finish());
        let present = LinkEvent::Present {
            index: 3,
            name: "eth0".into(),
            mac: Mac([1, 2, 3, 4, 5, 6]),
        };
        assert_eq!(events(&bytes), [present, LinkEvent::Gone { index: 3 }]);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..60) {
            events(&bytes);
            let link = new_link(3, "eth0", &[1, 2, 3, 4, 5, 6]);
            events(&link[..cut.min(link.len())]);
        }
    }
}
