//! Who somebody is on the wire.

use crate::WireError;
use lyceum_model::HostId;
use lyceum_proto::join::AgentKind;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Kinds of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// The controller.
    Controller,
    /// A host agent.
    Host,
    /// The storage agent.
    Storage,
}

impl PeerKind {
    fn as_str(self) -> &'static str {
        match self {
            PeerKind::Controller => "controller",
            PeerKind::Host => "host",
            PeerKind::Storage => "storage",
        }
    }
}

impl From<AgentKind> for PeerKind {
    fn from(kind: AgentKind) -> Self {
        match kind {
            AgentKind::Host => PeerKind::Host,
            AgentKind::Storage => PeerKind::Storage,
        }
    }
}

/// A part of this classroom: its kind and its name. Its certificate holds it as
/// the URI `lyceum://KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its kind.
    pub kind: PeerKind,
    /// Its name, unique among its kind.
    pub name: HostId,
}

impl Peer {
    /// A peer.
    pub fn new(kind: PeerKind, name: HostId) -> Peer {
        Peer { kind, name }
    }

    /// The controller. All controllers of a classroom are the same peer.
    #[allow(clippy::expect_used)] // A literal that is an id.
    pub fn controller() -> Peer {
        Peer::new(
            PeerKind::Controller,
            "controller".parse().expect("a valid id"),
        )
    }

    /// The DNS name in its certificate. TLS clients ask for this one whatever
    /// address they connect to: an address says where somebody is, not who.
    pub fn tls_name(&self) -> String {
        // A name may be longer than a DNS label and end with '-'; its hash can't.
        let hash = Sha256::digest(self.to_string());
        format!(
            "{}.{}.lyceum.internal",
            hex::encode(&hash[..16]),
            self.kind.as_str()
        )
    }

    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, WireError> {
        ServerName::try_from(self.tls_name()).map_err(|e| WireError::Certificate(e.to_string()))
    }

    /// Reads it out of a certificate. That the certificate is genuine is for TLS to check.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Peer, WireError> {
        use x509_parser::prelude::*;
        let bad = |why: String| WireError::Certificate(format!("the peer's certificate {why}"));
        let (_, cert) =
            X509Certificate::from_der(der).map_err(|e| bad(format!("can't be read: {e}")))?;
        let names = cert
            .subject_alternative_name()
            .map_err(|e| bad(format!("has unreadable names: {e}")))?
            .ok_or_else(|| bad("names nobody".into()))?;
        let mut uris = names.value.general_names.iter().filter_map(|n| match n {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(bad("has no lyceum:// name".into())),
            (Some(_), Some(_)) => Err(bad("has more than one lyceum:// name".into())),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lyceum://{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for Peer {
    type Err = WireError;
    fn from_str(text: &str) -> Result<Self, WireError> {
        let parse = || {
            let (kind, name) = text.strip_prefix("lyceum://")?.split_once('/')?;
            let kind = match kind {
                "controller" => PeerKind::Controller,
                "host" => PeerKind::Host,
                "storage" => PeerKind::Storage,
                _ => return None,
            };
            Some(Peer::new(kind, name.parse().ok()?))
        };
        parse().ok_or_else(|| {
            WireError::Certificate(format!(
                "{text:?} is not the name of a part of a classroom, for example lyceum://host/h1"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_peer_has_a_valid_tls_name_of_its_own(a in "[a-z0-9][a-z0-9-]{0,63}", b in "[a-z0-9][a-z0-9-]{0,63}") {
            let host = |n: &str| Peer::new(PeerKind::Host, n.parse().unwrap());
            prop_assert!(host(&a).server_name().is_ok());
            prop_assert_eq!(host(&a).tls_name() == host(&b).tls_name(), a == b);
            let storage = Peer::new(PeerKind::Storage, a.parse().unwrap());
            prop_assert_ne!(storage.tls_name(), host(&a).tls_name());
            prop_assert_eq!(host(&a).to_string().parse::<Peer>().unwrap(), host(&a));
        }
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,60}") {
            let _ = text.parse::<Peer>();
        }
    }
}
