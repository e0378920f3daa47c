//! What the DHCP client tells its script, which is this program again.
//!
//! `udhcpc -s lyceum-guest` runs `lyceum-guest bound` with the lease in its environment. That process does no more than
//! hand its environment to the helper that is already running and end; the helper applies the lease by netlink.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the running helper listens for leases.
pub const SOCKET: &str = "/run/lyceum/lease.sock";

/// What udhcpc passes as its script's only argument.
const ACTIONS: [&str; 5] = ["deconfig", "bound", "renew", "leasefail", "nak"];
/// What of the environment matters.
const VARIABLES: [&str; 6] = ["interface", "ip", "mask", "router", "dns", "domain"];

/// The only thing that can go wrong in the script's part.
#[derive(Debug, thiserror::Error)]
#[error("can't tell the helper about a lease at {SOCKET}: {0}; is `lyceum-guest` running?")]
pub struct SendError(#[from] std::io::Error);

/// Is this program running as udhcpc's script? Then sends the news on and returns how that went.
pub fn script(action: &str) -> Option<Result<(), SendError>> {
    ACTIONS.contains(&action).then(|| {
        let mut message = action.to_owned();
        for name in VARIABLES {
            if let Ok(value) = std::env::var(name) {
                message.push_str(&format!("\0{name}={value}"));
            }
        }
        let socket = UnixDatagram::unbound()?;
        socket.send_to(message.as_bytes(), Path::new(SOCKET))?;
        Ok(())
    })
}

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

/// News of a card's lease.
#[derive(Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// A new lease, or the old one again.
    Bound(Lease),
    /// There is no lease any more (or not yet).
    Unbound,
    /// No server answers.
    NoAnswer,
}

/// Reads what [`script`] sent: the interface and the news. `None` for anything else.
#[must_use]
pub fn parse(message: &[u8]) -> Option<(String, LeaseEvent)> {
    let mut parts = std::str::from_utf8(message).ok()?.split('\0');
    let action = parts.next()?;
    let fields: HashMap<&str, &str> = parts.filter_map(|p| p.split_once('=')).collect();
    let interface = (*fields.get("interface")?).to_owned();
    let list = |name: &str| -> Vec<Ipv4Addr> {
        fields
            .get(name)
            .map(|v| {
                v.split_ascii_whitespace()
                    .filter_map(|a| a.parse().ok())
                    .collect()
            })
            .unwrap_or_default()
    };
    let event = match action {
        "bound" | "renew" => LeaseEvent::Bound(Lease {
            address: fields.get("ip")?.parse().ok()?,
            prefix: fields
                .get("mask")
                .and_then(|m| m.parse().ok())
                .filter(|&m| m <= 32)?,
            router: list("router").first().copied(),
            dns: list("dns"),
            // The server's text goes into a file with meaning in its lines.
            domain: fields
                .get("domain")
                .filter(|d| !d.is_empty() && d.bytes().all(is_domain_byte))
                .map(|d| (*d).into()),
        }),
        "deconfig" | "nak" => LeaseEvent::Unbound,
        "leasefail" => LeaseEvent::NoAnswer,
        _ => return None,
    };
    Some((interface, event))
}

fn is_domain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_lease() {
        let message = b"bound\0interface=eth0\0ip=10.77.1.15\0mask=24\0router=10.77.1.2 10.77.1.3\0dns=10.77.1.3\0domain=school";
        let (interface, event) = parse(message).expect("a lease");
        let LeaseEvent::Bound(lease) = event else {
            panic!("{event:?}")
        };
        assert_eq!(
            (interface.as_str(), lease.address, lease.prefix),
            ("eth0", [10, 77, 1, 15].into(), 24)
        );
        assert_eq!(lease.router, Some([10, 77, 1, 2].into()));
        assert!(lease.reaches([10, 77, 1, 200].into()) && !lease.reaches([10, 77, 2, 1].into()));
        assert!(
            lease
                .resolv_conf()
                .ends_with("search school\nnameserver 10.77.1.3\n")
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
        assert!(!lease.reaches([10, 0, 0, 2].into()));
        lease.prefix = 0;
        assert!(lease.reaches([1, 2, 3, 4].into()));
    }

    #[test]
    fn a_server_cannot_write_lines_of_its_own() {
        let message = b"bound\0interface=eth0\0ip=10.0.0.1\0mask=8\0domain=a\nnameserver 6.6.6.6";
        let Some((_, LeaseEvent::Bound(lease))) = parse(message) else {
            panic!("no lease")
        };
        assert_eq!(lease.domain, None);
    }

    #[test]
    fn refuses_what_is_no_lease() {
        for bad in [
            "",
            "bound",
            "bound\0interface=eth0",
            "bound\0interface=eth0\0ip=x\0mask=24",
            "start\0interface=eth0",
            "bound\0interface=eth0\0ip=10.0.0.1\0mask=33",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(
            parse(b"deconfig\0interface=eth0"),
            Some(("eth0".into(), LeaseEvent::Unbound))
        );
    }
}
