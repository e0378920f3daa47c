//! Courses' networks: how far out desktops reach, whether they reach each other, examinations; and the
//! gateway that sees to it.

use crate::wording::Wordings;
use lyceum_model::{HostId, UnixMillis};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far out desktops reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Internet {
    /// Everywhere but to the classroom's machines and other courses.
    On,
    /// Nowhere.
    Off,
    /// To the allowed destinations only.
    List,
}

/// The network of a course.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CourseNetwork {
    /// How far out its desktops reach when there is no examination.
    pub internet: Internet,
    /// Where to with a list and in examinations: addresses, networks, domains, each with or without a port.
    pub allowed: Vec<String>,
    /// Whether its desktops reach each other when there is no examination.
    pub among_themselves: bool,
    /// Until when there is an examination; absent: there is none.
    pub exam_until: Option<UnixMillis>,
    /// Number of its segment, when it has one already.
    pub segment: Option<u32>,
    /// Whether a gateway sees to all of it. Without one desktops use QEMU's user network, each alone, with
    /// the way out open or closed as it was when they started.
    pub enforced: bool,
    /// What is not as it should be, in words.
    pub problem: Option<String>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// Body of `PATCH courses/{id}/network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CourseNetworkPatch {
    /// See [`CourseNetwork`].
    pub internet: Option<Internet>,
    /// The whole list.
    pub allowed: Option<Vec<String>>,
    /// See [`CourseNetwork`].
    pub among_themselves: Option<bool>,
}

/// Body of `PUT courses/{id}/exam`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exam {
    /// When it ends by itself.
    pub until: UnixMillis,
}

/// The classroom's network at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// The gateway's address among the machines; absent: courses have no networks of their own here.
    pub gateway: Option<String>,
    /// When the gateway said last that it is there.
    pub heard: Option<UnixMillis>,
    /// What is not as it should be, in words.
    pub problem: Option<String>,
    /// What somebody had changed by hand on the gateway and was put right, the last time.
    pub repaired: Option<String>,
    /// When that was.
    pub repaired_at: Option<UnixMillis>,
    /// Whether the gateway has all of what should be.
    pub current: bool,
    /// Doors that are open: desktops, each with an address that may connect to the port for native viewers.
    pub doors: u32,
    /// Hosts that take part.
    pub hosts: Vec<NetworkHost>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// A host's part in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkHost {
    /// Which.
    pub id: HostId,
    /// `vxlan`, `lan`, or `user`: none, its desktops use QEMU's user network.
    pub kind: String,
    /// What is not as it should be, in words.
    pub problem: Option<String>,
    /// What somebody had changed by hand there and was put right, the last time.
    pub repaired: Option<String>,
    /// When that was, by the host's clock.
    pub repaired_at: Option<UnixMillis>,
}

/// What the gateway is to bring about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayOrder {
    /// Changes with its contents.
    pub revision: String,
    /// All of it; `lyceum gateway` knows its form.
    #[schema(value_type = Object)]
    pub network: serde_json::Value,
}

/// Body of `PUT network/gateway`: what the gateway did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayReport {
    /// The revision that is in force.
    pub revision: String,
    /// Why the newest is not.
    pub problem: Option<String>,
    /// What somebody else had changed, and was put right.
    pub repaired: Vec<String>,
}
