//! The networks of courses, and the firewall, as text: a value that says what should be goes in,
//! and out comes what the tools of the system are told. Nothing in here does I/O.
//!
//! ```text
//!   desktop ─ tap ─ bridge ─ VXLAN ══ between machines ══ VXLAN ─ bridge ─ gateway ─ NAT ─ outside
//!           └ what it may say: host's table ┘                  └ where it may go: gateway's table
//! ```
//!
//! - [`wanted`]: what should be, of a host and of the gateway.
//! - [`host`], [`gateway`]: their nftables rulesets, each rendered whole and applied in one transaction.
//! - [`dnsmasq`]: addresses and names of one segment.
//! - [`links`]: bridges, VXLANs and taps: what there should be, and the steps from what there is.
//!
//! Every value that ends up in a text is of a type that can't hold anything but itself: a MAC is six
//! bytes, a network is an address and a length, a name is made of labels. So nothing that a person
//! typed can become a rule.

pub mod address;
pub mod dnsmasq;
pub mod gateway;
pub mod host;
pub mod links;
pub mod policy;
pub mod wanted;

mod text;

pub use address::{AddressError, Destination, Domain, LinkName, Mac, Net, Port, Protocol};
pub use policy::{Internet, Policy};
pub use wanted::{Course, Door, GatewayNetwork, HostNetwork, Lease, Plug, Segment};
