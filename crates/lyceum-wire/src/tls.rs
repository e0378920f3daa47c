//! rustls configurations. The provider (ring) is named in each, so that nothing
//! depends on what another part of the process installed.

use crate::{Identity, WireError};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::sync::Arc;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(Arc::new(roots))
}

fn bad<E: std::fmt::Display>(e: E) -> WireError {
    WireError::Certificate(format!("the CA can't be used: {e}"))
}

/// A server that knows its clients; `anyone`: also takes clients without a certificate.
pub(crate) fn server_config(identity: &Identity, anyone: bool) -> Result<ServerConfig, WireError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&identity.ca)?, provider());
    let verifier = if anyone {
        verifier.allow_unauthenticated()
    } else {
        verifier
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build().map_err(bad)?)
        // The CA goes along: whoever joins knows its fingerprint only.
        .with_single_cert(
            vec![identity.certificate.clone(), identity.ca.clone()],
            identity.key()?,
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A server for browsers, which have no certificate: HTTP/2 and HTTP/1.1.
pub fn https_config(identity: &Identity) -> Result<ServerConfig, WireError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![identity.certificate.clone(), identity.ca.clone()],
            identity.key()?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client with a certificate that trusts the classroom's CA and nobody else.
pub(crate) fn client_config(identity: &Identity) -> Result<ClientConfig, WireError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&identity.ca)?)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key()?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A client without a certificate that trusts the CA with this SHA-256 (hex).
pub(crate) fn pinned_config(ca_sha256: &str) -> Result<ClientConfig, WireError> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned {
            ca_sha256: ca_sha256.to_owned(),
            provider,
        }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A client of the page and the API, without a certificate: it trusts the CA with this SHA-256 (hex) and
/// nobody else. For a controller whose certificate is by the classroom's own CA.
pub fn pinned_https_config(ca_sha256: &str) -> Result<ClientConfig, WireError> {
    let mut config = pinned_config(ca_sha256)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Finds the CA with the known fingerprint in what the server sends, then checks
/// the server against it like any other.
#[derive(Debug)]
struct Pinned {
    ca_sha256: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|c| crate::ca::fingerprint(c) == self.ca_sha256)
            .ok_or(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer,
            ))?;
        WebPkiServerVerifier::builder_with_provider(
            roots(&ca.clone().into_owned())?,
            self.provider.clone(),
        )
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?
        .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
