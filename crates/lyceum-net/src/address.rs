//! Addresses, networks, names and ports that can be nothing else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a MAC address.
    #[error("{0:?} is not a MAC address of one machine, like 52:54:00:12:34:56")]
    Mac(String),
    /// Not a network.
    #[error("{0:?} is not a network, like 10.1.0.0/16, fd00:1::/32 or a single address")]
    Net(String),
    /// Not a name of a network device.
    #[error(
        "{0:?} is not the name of a network device: 1 to 15 of letters, digits, '.', '_' and '-'"
    )]
    Link(String),
    /// Not a domain name.
    #[error("{0:?} is not a domain name, like example.org: labels of letters, digits and '-'")]
    Domain(String),
    /// Not a destination.
    #[error(
        "{0:?} is not a destination: give an address, a network or a domain name, and a port if it is to be one only, like example.org, 192.0.2.0/24, [2001:db8::1]:443 or 192.0.2.7:53/udp"
    )]
    Destination(String),
}

macro_rules! as_text {
    ($name:ty) => {
        impl TryFrom<String> for $name {
            type Error = AddressError;
            fn try_from(text: String) -> Result<Self, AddressError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// The MAC address of one network card: never a group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// The address that the gateway has in the segment of this number.
    pub fn of_gateway(segment: u32) -> Mac {
        let [_, b, c, d] = segment.to_be_bytes();
        Mac([0x02, 0x4c, 0x59, b, c, d])
    }

    /// The last eight bytes of the IPv6 addresses that this card gives itself.
    fn interface(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }

    /// Its address on its own link.
    pub fn link_local(self) -> Ipv6Addr {
        let prefix = 0xfe80_u128 << 112;
        Ipv6Addr::from(prefix | u128::from(self.interface()))
    }

    /// The address that it gives itself in a network of 64 bits.
    pub fn within(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let high = u128::from(prefix) >> 64 << 64;
        Ipv6Addr::from(high | u128::from(self.interface()))
    }

    /// Its twelve digits.
    pub(crate) fn digits(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Mac, AddressError> {
        let no = || AddressError::Mac(text.to_owned());
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(no)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(no());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| no())?;
        }
        // A group's address, or none at all, belongs to no card.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(no());
        }
        Ok(Mac(bytes))
    }
}
as_text!(Mac);

/// A network: an address without host bits, and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

impl Net {
    /// The network of that many bits that the address lies in; `None`: more bits than there are.
    pub fn new(address: IpAddr, bits: u8) -> Option<Net> {
        let address = match address {
            IpAddr::V4(a) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
            }
            IpAddr::V6(a) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
            _ => return None,
        };
        Some(Net { address, bits })
    }

    /// A network of one address.
    pub fn single(address: IpAddr) -> Net {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Net { address, bits }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that count.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether the address lies in it. An IPv4 address in IPv6's clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        Net::new(address, self.bits).is_some_and(|net| net.address == self.address)
    }

    /// Whether all of the other's addresses are its own too.
    pub fn covers(&self, other: &Net) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }

    /// The address at that place in it, if it has one.
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        let found = match self.address {
            IpAddr::V4(a) => IpAddr::V4(u32::from(a).checked_add(n)?.into()),
            IpAddr::V6(a) => IpAddr::V6(u128::from(a).checked_add(n.into())?.into()),
        };
        self.contains(found).then_some(found)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Net { address, bits } = self;
        match address {
            IpAddr::V4(_) if *bits == 32 => write!(f, "{address}"),
            IpAddr::V6(_) if *bits == 128 => write!(f, "{address}"),
            _ => write!(f, "{address}/{bits}"),
        }
    }
}

impl FromStr for Net {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Net, AddressError> {
        let no = || AddressError::Net(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no())?;
        match bits {
            None => Ok(Net::single(address)),
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                let bits = bits.parse().map_err(|_| no())?;
                Net::new(address, bits).ok_or_else(no)
            }
            Some(_) => Err(no()),
        }
    }
}
as_text!(Net);

/// The name of a network device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

impl LinkName {
    /// The bridge of a segment.
    pub fn bridge(segment: u32) -> LinkName {
        LinkName(format!("lyb{segment}"))
    }

    /// The way from a segment's bridge to the other machines.
    pub fn vxlan(segment: u32) -> LinkName {
        LinkName(format!("lyx{segment}"))
    }

    /// The device that a desktop's network card is plugged into.
    pub fn tap(mac: Mac) -> LinkName {
        LinkName(format!("lyt{}", mac.digits()))
    }

    /// Whether Lyceum gave it, as far as can be seen.
    pub fn is_ours(&self) -> bool {
        let rest = |prefix: &str| self.0.strip_prefix(prefix);
        let number = |r: &str| !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit());
        let digits = |r: &str| r.len() == 12 && r.bytes().all(|b| b.is_ascii_hexdigit());
        rest("lyb").or_else(|| rest("lyx")).is_some_and(number) || rest("lyt").is_some_and(digits)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LinkName {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<LinkName, AddressError> {
        let fits = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        match fits {
            true => Ok(LinkName(text.to_owned())),
            false => Err(AddressError::Link(text.to_owned())),
        }
    }
}
as_text!(LinkName);

/// A domain name, lower-cased, without the dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// Whether it is the other one or lies below it.
    pub fn is_below(&self, other: &Domain) -> bool {
        match self.0.strip_suffix(&other.0) {
            Some(head) => head.is_empty() || head.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Domain, AddressError> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        // The last label is never a number: what looks like an address is one, if a wrong one.
        let last = name.rsplit('.').next().unwrap_or_default();
        let fits = name.len() <= 253
            && text.len() <= 254
            && name.split('.').all(label)
            && !last.bytes().all(|b| b.is_ascii_digit());
        match fits {
            true => Ok(Domain(name)),
            false => Err(AddressError::Domain(text.to_owned())),
        }
    }
}
as_text!(Domain);

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port; without a protocol of its own, both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// `None`: TCP and UDP.
    pub protocol: Option<Protocol>,
}

/// Where desktops may go when they may not go everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Destination {
    /// Addresses, and one port of them or all.
    Net(Net, Option<Port>),
    /// A domain with everything below it: whatever addresses its names have when a desktop asks for them.
    Domain(Domain, Option<Port>),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match self {
            Destination::Net(net, port) => {
                match (net.address(), port) {
                    (IpAddr::V6(_), Some(_)) => write!(f, "[{net}]")?,
                    _ => write!(f, "{net}")?,
                }
                port
            }
            Destination::Domain(name, port) => {
                write!(f, "{name}")?;
                port
            }
        };
        match port {
            None => Ok(()),
            Some(Port { number, protocol }) => {
                write!(f, ":{number}")?;
                match protocol {
                    None => Ok(()),
                    Some(Protocol::Tcp) => f.write_str("/tcp"),
                    Some(Protocol::Udp) => f.write_str("/udp"),
                }
            }
        }
    }
}

impl FromStr for Destination {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Destination, AddressError> {
        let text = text.trim();
        let no = || AddressError::Destination(text.to_owned());
        if let Ok(net) = text.parse() {
            return Ok(Destination::Net(net, None));
        }
        // [v6]:port, v4:port, name:port
        if let Some(rest) = text.strip_prefix('[') {
            let (net, port) = rest.split_once(']').ok_or_else(no)?;
            let net: Net = net.parse().map_err(|_| no())?;
            if !net.address().is_ipv6() {
                return Err(no());
            }
            return match port.strip_prefix(':') {
                Some(port) => Ok(Destination::Net(
                    net,
                    Some(parse_port(port).ok_or_else(no)?),
                )),
                None if port.is_empty() => Ok(Destination::Net(net, None)),
                None => Err(no()),
            };
        }
        let (place, port) = match text.split_once(':') {
            Some((place, port)) => (place, Some(parse_port(port).ok_or_else(no)?)),
            None => (text, None),
        };
        match (place.parse::<Net>(), place.parse()) {
            (Ok(net), _) => Ok(Destination::Net(net, port)),
            (_, Ok(domain)) => Ok(Destination::Domain(domain, port)),
            _ => Err(no()),
        }
    }
}
as_text!(Destination);

fn parse_port(text: &str) -> Option<Port> {
    let (number, protocol) = match text.split_once('/') {
        None => (text, None),
        Some((number, "tcp")) => (number, Some(Protocol::Tcp)),
        Some((number, "udp")) => (number, Some(Protocol::Udp)),
        Some(_) => return None,
    };
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u16 = number.parse().ok()?;
    (number > 0).then_some(Port { number, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_as_people_write_them() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7/24 ", "192.0.2.0/24"),
            ("192.0.2.7:443", "192.0.2.7:443"),
            ("192.0.2.0/24:53/udp", "192.0.2.0/24:53/udp"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443/tcp", "[2001:db8::1]:443/tcp"),
            ("[2001:db8::/32]:80", "[2001:db8::/32]:80"),
            ("Example.ORG.", "example.org"),
            ("example.org:443", "example.org:443"),
        ] {
            let read: Destination = text.parse().expect(text);
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse(), Ok(read));
        }
        for bad in [
            "",
            "*",
            "a b",
            "-x.org",
            "x..org",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4:0",
            "1.2.3.4:70000",
            "x.org:80/sctp",
            "[1.2.3.4]:80",
            "[::1",
            "x.org\n",
            "x.org;drop",
            "/24",
            "x/24",
            "例子.tw",
            "1.2.3.4/+4",
            "1.2.3.4:+4",
        ] {
            assert!(
                bad.parse::<Destination>().is_err() || bad.ends_with('\n'),
                "{bad:?}"
            );
        }
        assert_eq!(
            "x.org\n"
                .parse::<Destination>()
                .expect("trimmed")
                .to_string(),
            "x.org"
        );
    }

    #[test]
    fn a_card_gives_itself_the_addresses_that_are_expected_of_it() {
        let mac: Mac = "52:54:00:aa:bb:cc".parse().expect("mac");
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:feaa:bbcc");
        let prefix = "fd12:3456:789a:7::".parse().expect("prefix");
        assert_eq!(
            mac.within(prefix).to_string(),
            "fd12:3456:789a:7:5054:ff:feaa:bbcc"
        );
        assert!("53:54:00:aa:bb:cc".parse::<Mac>().is_err(), "a group's");
        assert!("52:54:00:aa:bb".parse::<Mac>().is_err());
        assert!("52:54:00:aa:bb:cc:dd".parse::<Mac>().is_err());
        assert!("52:54:00:aa:bb:+c".parse::<Mac>().is_err());
    }

    #[test]
    fn networks() {
        let net: Net = "10.1.2.3/22".parse().expect("net");
        assert_eq!(net.to_string(), "10.1.0.0/22");
        assert_eq!(
            net.nth(1023).map(|a| a.to_string()),
            Some("10.1.3.255".into())
        );
        assert_eq!(net.nth(1024), None);
        assert!(net.contains("::ffff:10.1.3.1".parse().expect("mapped")));
        assert!(!net.contains("10.1.4.0".parse().expect("address")));
        assert!("0.0.0.0/0".parse::<Net>().expect("all").covers(&net));
        assert!(!net.covers(&"0.0.0.0/0".parse().expect("all")));
        assert!("::/0".parse::<Net>().is_ok());
    }

    #[test]
    fn device_names() {
        let mac: Mac = "52:54:00:aa:bb:cc".parse().expect("mac");
        assert_eq!(LinkName::tap(mac).as_str(), "lyt525400aabbcc");
        for name in [
            LinkName::tap(mac),
            LinkName::bridge(7),
            LinkName::vxlan(16_777_215),
        ] {
            assert!(name.is_ours());
            assert_eq!(name.as_str().parse(), Ok(name.clone()));
        }
        for other in ["lyb", "lybx", "eth0", "lyt1234"] {
            assert!(!other.parse::<LinkName>().expect(other).is_ours());
        }
        for bad in ["", "a b", "x\"", "0123456789abcdef", "a/b", "-x", "."] {
            assert!(bad.parse::<LinkName>().is_err(), "{bad:?}");
        }
    }
}
