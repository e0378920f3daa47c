//! A part's own key and certificate.

use crate::{Peer, WireError, write_atomically};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Name of the identity's file in an agent's state directory.
pub const IDENTITY_FILE: &str = "identity.json";

/// Key, certificate and the CA that signed it. Cloning is for handing it to a server and clients.
#[derive(Clone)]
pub struct Identity {
    peer: Peer,
    stored: Stored,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) ca: CertificateDer<'static>,
}

/// As kept on disk.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    certificate_pem: String,
    key_pem: String,
    ca_pem: String,
    /// `https://ADDRESS:PORT` where an agent joined and renews its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.peer)
    }
}

impl Identity {
    /// Checks that the parts belong together and to `peer`.
    pub fn new(
        peer: Peer,
        certificate_pem: String,
        key_pem: String,
        ca_pem: String,
    ) -> Result<Identity, WireError> {
        let stored = Stored {
            certificate_pem,
            key_pem,
            ca_pem,
            controller: None,
        };
        let identity = Self::from_stored(stored)?;
        if identity.peer != peer {
            return Err(WireError::Certificate(format!(
                "the certificate is made out to {}, not to {peer}",
                identity.peer
            )));
        }
        Ok(identity)
    }

    fn from_stored(stored: Stored) -> Result<Identity, WireError> {
        let read = |pem: &str| {
            CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|e| WireError::Certificate(format!("a certificate can't be read: {e}")))
        };
        let certificate = read(&stored.certificate_pem)?;
        let ca = read(&stored.ca_pem)?;
        let identity = Identity {
            peer: Peer::of_certificate(&certificate)?,
            stored,
            certificate,
            ca,
        };
        // Fails when the key is not the certificate's.
        crate::tls::client_config(&identity)?;
        Ok(identity)
    }

    /// Reads the identity that joining left in this directory. `None`: it has not joined.
    pub fn load(state_dir: &Path) -> Result<Option<Identity>, WireError> {
        let path = state_dir.join(IDENTITY_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(WireError::File {
                    what: "reading",
                    path,
                    source,
                });
            }
        };
        // serde_json's messages never quote the content but for unknown field names.
        let stored: Stored = serde_json::from_slice(&text).map_err(|e| WireError::Damaged {
            path: path.clone(),
            why: e.to_string(),
        })?;
        Self::from_stored(stored)
            .map(Some)
            .map_err(|e| WireError::Damaged {
                path,
                why: e.to_string(),
            })
    }

    /// Writes it, readable by this user only.
    pub fn save(&self, state_dir: &Path) -> Result<(), WireError> {
        let path = state_dir.join(IDENTITY_FILE);
        let text = serde_json::to_vec_pretty(&self.stored)
            .map_err(|e| WireError::Certificate(e.to_string()))?;
        write_atomically(&path, &text, 0o600).map_err(|source| WireError::File {
            what: "writing",
            path,
            source,
        })
    }

    /// The same, knowing where its certificate is renewed.
    pub(crate) fn joined_at(mut self, controller: Option<String>) -> Identity {
        self.stored.controller = controller;
        self
    }

    /// Where its certificate is renewed: `https://ADDRESS:PORT`; `None`: of an agent that joined before
    /// certificates were renewed.
    pub fn controller(&self) -> Option<&str> {
        self.stored.controller.as_deref()
    }

    /// From when until when its certificate is valid: seconds since 1970.
    pub fn validity(&self) -> Result<std::ops::Range<i64>, WireError> {
        use x509_parser::prelude::*;
        let (_, cert) = X509Certificate::from_der(&self.certificate)
            .map_err(|e| WireError::Certificate(format!("a certificate can't be read: {e}")))?;
        let validity = cert.validity();
        Ok(validity.not_before.timestamp()..validity.not_after.timestamp())
    }

    /// Who this is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The classroom's CA, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.stored.ca_pem
    }

    /// SHA-256 of the classroom's CA, lower-case hex.
    pub fn ca_fingerprint(&self) -> String {
        crate::ca::fingerprint(&self.ca)
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, WireError> {
        PrivateKeyDer::from_pem_slice(self.stored.key_pem.as_bytes())
            .map_err(|_| WireError::Certificate("the private key can't be read".into()))
    }
}
