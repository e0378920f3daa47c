//! Puts what [`lyceum_net`] renders into the system, keeps it there, and notices when somebody else
//! changed it. Thin on purpose: what to do is decided there, by functions that can be tested without a
//! network.
//!
//! - [`HostEdge`]: bridges, VXLANs, taps and the ruleset of a host.
//! - [`GatewayEdge`]: the same of the gateway, forwarding, and a dnsmasq per segment.
//!
//! Both are told the whole of what should be, as often as one likes; what is so already costs
//! nothing. They keep nothing on disk that would be needed to go on after a restart.

mod dnsmasq;
mod firewall;
mod gateway;
mod host;
mod tool;

pub use gateway::GatewayEdge;
pub use host::HostEdge;
pub use tool::{EdgeError, Machine, Result};

/// What was found changed by somebody else, and put right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired(
    /// In words for a person, one per thing.
    pub Vec<String>,
);
