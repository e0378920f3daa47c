//! DHCP's IP packets, for a card that has no address yet, and the socket they go through.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::protocol::Mac;
use crate::sys;

const HEADERS: usize = 28;
const UDP: u8 = 17;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Broadcast.
    Everyone,
    /// The server (or the relay before it) that gave the lease.
    Server(Ipv4Addr, Mac),
}

impl Destination {
    fn ip(self) -> Ipv4Addr {
        match self {
            Self::Everyone => Ipv4Addr::BROADCAST,
            Self::Server(ip, _) => ip,
        }
    }

    fn mac(self) -> Mac {
        match self {
            Self::Everyone => Mac([0xff; 6]),
            Self::Server(_, mac) => mac,
        }
    }
}

/// What a server sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Its address.
    pub from: Ipv4Addr,
    /// The DHCP message.
    pub payload: &'a [u8],
}

/// The packet, from its IP header on, that carries `payload` from the client to the server's port.
#[must_use]
pub fn write(payload: &[u8], from: Ipv4Addr, to: Destination) -> Vec<u8> {
    let mut packet = vec![0; HEADERS];
    let length = (HEADERS + payload.len()) as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = UDP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&SERVER_PORT.to_be_bytes());
    // No UDP checksum: IPv4 allows that, and Ethernet has its own.
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// Reads a packet for the client's port. Checksums are not looked at: between virtual machines they are often left out.
#[must_use]
pub fn read(packet: &[u8]) -> Option<Received<'_>> {
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if first >> 4 != 4 || header < 20 || *packet.get(9)? != UDP {
        return None;
    }
    let udp = packet.get(header..total)?;
    let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    if port(0)? != SERVER_PORT || port(2)? != CLIENT_PORT {
        return None;
    }
    let payload = udp.get(8..usize::from(port(4)?))?;
    Some(Received {
        from: Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]),
        payload,
    })
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A socket for whole IP packets on one card. Hears nothing but UDP to the client's port.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    index: u32,
}

impl Socket {
    /// Opens it on the card with this number.
    pub fn open(index: u32) -> io::Result<Self> {
        Ok(Self {
            fd: sys::packet_socket(index)?,
            index,
        })
    }

    /// Sends one packet.
    pub fn send(&self, packet: &[u8], to: Destination) -> io::Result<()> {
        sys::send_packet(self.fd.as_fd(), self.index, to.mac().0, packet)
    }

    /// Receives one packet and the card it came from; `None` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Mac)>> {
        match sys::receive_packet(self.fd.as_fd(), buffer) {
            Ok((length, mac)) => Ok(Some((length, Mac(mac)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server's packet: what the client would send, with the ports the other way round.
    fn from_server(payload: &[u8]) -> Vec<u8> {
        let mut packet = write(payload, Ipv4Addr::new(10, 77, 1, 2), Destination::Everyone);
        packet[20..22].copy_from_slice(&SERVER_PORT.to_be_bytes());
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        packet
    }

    #[test]
    fn reads_what_a_server_sends() {
        let mut packet = from_server(b"message");
        packet.extend([0; 18]); // padding of a short Ethernet frame
        let received = Received {
            from: [10, 77, 1, 2].into(),
            payload: b"message",
        };
        assert_eq!(read(&packet), Some(received));
        assert_eq!(
            read(&write(
                b"message",
                Ipv4Addr::UNSPECIFIED,
                Destination::Everyone
            )),
            None,
            "a client's"
        );
    }

    #[test]
    fn the_header_adds_up() {
        // A receiver adds all of the header up; the checksum makes that zero.
        let packet = write(
            b"x",
            Ipv4Addr::new(10, 1, 2, 3),
            Destination::Server([9, 8, 7, 6].into(), Mac([1; 6])),
        );
        assert_eq!(checksum(&packet[..20]), 0);
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..40) {
            let _ = read(&bytes);
            let packet = from_server(b"message");
            let _ = read(&packet[..cut.min(packet.len())]);
        }
    }
}
