//! What should be. The controller makes these values; hosts and the gateway keep the last one they heard.

use crate::address::{LinkName, Mac, Net};
use crate::policy::Policy;
use lyceum_model::{DesktopId, Hostname};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// Largest number of a segment: it is the VXLAN's number too.
pub const SEGMENT_MAX: u32 = 0xff_ffff;

/// The layer-2 network of a course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// 1 to [`SEGMENT_MAX`]; the number of its VXLAN, and part of its links' names.
    pub number: u32,
    /// Its IPv4 network; the gateway has the first address.
    pub v4: Net,
    /// Its IPv6 network, of 64 bits; the gateway has the first address.
    pub v6: Net,
}

impl Segment {
    /// The segment of that number, with its share of both ranges: /22 of IPv4, /64 of IPv6. `None`: the
    /// ranges have no share for it, or are not of that kind.
    pub fn within(number: u32, v4: &Net, v6: &Net) -> Option<Segment> {
        if number == 0 || number > SEGMENT_MAX {
            return None;
        }
        let (IpAddr::V4(first), IpAddr::V6(prefix)) = (v4.address(), v6.address()) else {
            return None;
        };
        let own4 = u32::from(first).checked_add(number.checked_mul(1 << 10)?)?;
        let own6 = u128::from(prefix).checked_add(u128::from(number) << 64)?;
        let segment = Segment {
            number,
            v4: Net::new(Ipv4Addr::from(own4).into(), 22)?,
            v6: Net::new(Ipv6Addr::from(own6).into(), 64)?,
        };
        (v4.covers(&segment.v4) && v6.covers(&segment.v6)).then_some(segment)
    }

    /// The gateway's IPv4 address in it.
    pub fn gateway4(&self) -> IpAddr {
        self.v4.nth(1).unwrap_or(self.v4.address())
    }

    /// The gateway's IPv6 address in it.
    pub fn gateway6(&self) -> IpAddr {
        self.v6.nth(1).unwrap_or(self.v6.address())
    }

    /// The IPv4 address of the desktop at that place, if there is room for it.
    pub fn desktop4(&self, place: u32) -> Option<Ipv4Addr> {
        match self.v4.nth(place.checked_add(16)?)? {
            // The last address is everybody's.
            IpAddr::V4(a) if self.v4.nth(place + 17).is_some() => Some(a),
            _ => None,
        }
    }

    /// The IPv6 address that a card gives itself in it.
    pub fn desktop6(&self, mac: Mac) -> Ipv6Addr {
        match self.v6.address() {
            IpAddr::V6(prefix) => mac.within(prefix),
            IpAddr::V4(_) => mac.link_local(),
        }
    }

    /// Its bridge.
    pub fn bridge(&self) -> LinkName {
        LinkName::bridge(self.number)
    }

    /// Its VXLAN.
    pub fn vxlan(&self) -> LinkName {
        LinkName::vxlan(self.number)
    }
}

/// A desktop's network card, plugged into a segment on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Plug {
    /// The segment.
    pub segment: Segment,
    /// The card's address.
    pub mac: Mac,
    /// The desktop's address.
    pub v4: Ipv4Addr,
    /// Whether it reaches the other desktops of its course.
    pub among_themselves: bool,
}

impl Plug {
    /// The device it is plugged into.
    pub fn tap(&self) -> LinkName {
        LinkName::tap(self.mac)
    }
}

/// The network of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// How segments reach other machines.
    pub uplink: Uplink,
    /// The other machines that segments span, gateway included, by their addresses in the uplink's network.
    pub members: Vec<IpAddr>,
    /// Whether the gateway is this very machine.
    pub gateway_here: bool,
    /// The desktops that are here, or about to be.
    pub plugs: Vec<Plug>,
}

/// How segments go beyond a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Uplink {
    /// By VXLAN, from this address of the machine.
    Vxlan {
        /// Its address in the network between the machines.
        address: IpAddr,
    },
    /// By a bridge that is there already: the LAN as it is. All courses share it, addresses are the
    /// LAN's, and so are policies; what Lyceum still keeps apart is who says what under whose MAC.
    Lan {
        /// The bridge.
        bridge: LinkName,
    },
}

/// A course as the gateway serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Its segment.
    pub segment: Segment,
    /// What its desktops may do.
    pub policy: Policy,
    /// Its desktops, running or not.
    pub leases: Vec<Lease>,
}

/// The addresses and the name of a desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its card.
    pub mac: Mac,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its name.
    pub name: Hostname,
}

/// Somebody may connect to the port for native viewers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Door {
    /// Whose desktop is behind it. Two people behind one address have two doors.
    pub desktop: DesktopId,
    /// From where.
    pub from: IpAddr,
}

/// The network of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayNetwork {
    /// Its address in the network between the machines; `None`: no segments, only doors.
    pub address: Option<IpAddr>,
    /// The hosts' addresses there.
    pub members: Vec<IpAddr>,
    /// Networks that desktops never reach, whatever their course allows: the classroom's machines.
    pub protected: Vec<Net>,
    /// Name servers outside.
    pub upstreams: Vec<IpAddr>,
    /// Courses with a segment.
    pub courses: Vec<Course>,
    /// The ports for native viewers, closed but for [`doors`](GatewayNetwork::doors).
    pub native_ports: Vec<u16>,
    /// Who may connect to them.
    pub doors: Vec<Door>,
}
