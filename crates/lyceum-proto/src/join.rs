//! How an agent becomes part of a classroom.
//!
//! An administrator makes a token on the controller. It holds the controller's
//! address, the fingerprint of its CA and a secret that works once. The agent
//! makes a key and a signing request, posts them, and gets a certificate. From
//! then on both sides know each other by certificate only. When the answer was
//! lost the agent asks again with the same key, and gets a certificate again.
//!
//! A certificate ends after a year. Long before that the agent asks for the next
//! one, with the present one as its authority.

use serde::{Deserialize, Serialize};

/// Kinds of agent; part of the certificate's name, so that a storage agent can't
/// pose as a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// A KVM server.
    Host,
    /// The file server.
    Storage,
}

/// `POST /join` on the controller's agent port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The secret out of the token.
    pub secret: String,
    /// What joins.
    pub kind: AgentKind,
    /// The name it wants; unique in the classroom.
    pub name: lyceum_model::HostId,
    /// `https://ADDRESS:PORT` where the controller reaches it.
    pub url: String,
    /// Certificate signing request, PEM.
    pub csr_pem: String,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinResponse {
    /// The agent's certificate, PEM.
    pub certificate_pem: String,
    /// The classroom's CA, PEM.
    pub ca_pem: String,
}

/// `POST /renew` on the controller's agent port, over mutual TLS: a certificate for who asks. Answered
/// with a [`JoinResponse`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Certificate signing request, PEM.
    pub csr_pem: String,
}
