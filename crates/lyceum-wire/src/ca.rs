//! The classroom's certificate authority. The controller keeps it: one file in
//! its state directory, readable by its user only.

use crate::{Identity, Peer, PeerKind, WireError, write_atomically};
use lyceum_proto::join::{JoinRequest, JoinResponse};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Name of the CA's file in the controller's state directory: private key and certificate, PEM.
pub const CA_FILE: &str = "classroom-ca.pem";

/// Years for which the CA is valid.
const CA_YEARS: i64 = 20;
/// Years for which certificates made here are valid: the controller's, made at each of its starts.
const PEER_YEARS: i64 = 5;
/// The same for agents', in days; they [renew](crate::renew) theirs long before.
const AGENT_DAYS: i64 = 365;

/// Signs the certificates of this classroom.
pub struct ClassroomCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl std::fmt::Debug for ClassroomCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClassroomCa({})", self.fingerprint())
    }
}

impl ClassroomCa {
    /// Opens the CA in this directory, or makes one when there is none. Both
    /// halves are in one file, so that a crash can't leave a key without its certificate.
    pub fn open_or_create(state_dir: &Path) -> Result<ClassroomCa, WireError> {
        let path = state_dir.join(CA_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::from_pem(&text).map_err(|e| WireError::Damaged {
                path,
                why: e.to_string(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let text = Self::make()?;
                write_atomically(&path, text.as_bytes(), 0o600).map_err(|source| {
                    WireError::File {
                        what: "writing",
                        path,
                        source,
                    }
                })?;
                Self::from_pem(&text)
            }
            Err(source) => Err(WireError::File {
                what: "reading",
                path,
                source,
            }),
        }
    }

    fn make() -> Result<String, WireError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Lyceum classroom");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, 365 * CA_YEARS);
        let cert = params.self_signed(&key)?;
        Ok(format!("{}{}", key.serialize_pem(), cert.pem()))
    }

    fn from_pem(text: &str) -> Result<ClassroomCa, WireError> {
        // A PEM reader takes the first block of a text: cut it where the certificate begins.
        let at = text
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or_else(|| WireError::Certificate("it holds no certificate".into()))?;
        let (key, pem) = text.split_at(at);
        let key = KeyPair::from_pem(key)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| WireError::Certificate(format!("its certificate can't be read: {e}")))?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(ClassroomCa {
            issuer,
            pem: pem.to_owned(),
            der,
        })
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its certificate, lower-case hex.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.der)
    }

    /// A key and certificate made here, for the controller itself. `addresses`:
    /// DNS names and IP addresses it is reached by besides its [`Peer::tls_name`].
    pub fn controller_identity(&self, addresses: &[String]) -> Result<Identity, WireError> {
        self.issue(&Peer::controller(), addresses)
    }

    /// A key and certificate made here. Agents on other machines make their key themselves and [join](crate::join).
    pub fn issue(&self, peer: &Peer, addresses: &[String]) -> Result<Identity, WireError> {
        let key = KeyPair::generate()?;
        let cert = peer_params(peer, addresses)?.signed_by(&key, &self.issuer)?;
        self.identity(peer, &cert, &key)
    }

    fn identity(
        &self,
        peer: &Peer,
        cert: &Certificate,
        key: &KeyPair,
    ) -> Result<Identity, WireError> {
        Identity::new(
            peer.clone(),
            cert.pem(),
            key.serialize_pem(),
            self.pem.clone(),
        )
    }

    /// Signs what somebody asked for who joins. The caller has checked the
    /// request's secret and that the name is free. Of the signing request only
    /// the public key counts: names and rights are ours to give.
    pub fn sign_join(&self, request: &JoinRequest) -> Result<JoinResponse, WireError> {
        let peer = Peer::new(PeerKind::from(request.kind), request.name.clone());
        self.sign(&peer, &request.csr_pem)
    }

    /// Signs a key for `peer`, which the caller knows to be who asks. Of the signing request only the
    /// public key counts.
    pub fn sign(&self, peer: &Peer, csr_pem: &str) -> Result<JoinResponse, WireError> {
        let csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(bad_request)?;
        let mut params = peer_params(peer, &[])?;
        set_validity(&mut params, AGENT_DAYS);
        let cert = params.signed_by(&csr.public_key, &self.issuer)?;
        Ok(JoinResponse {
            certificate_pem: cert.pem(),
            ca_pem: self.pem.clone(),
        })
    }
}

fn bad_request(e: impl std::fmt::Display) -> WireError {
    WireError::Certificate(format!("the signing request can't be used: {e}"))
}

/// SHA-256 of the public key in a signing request, lower-case hex: tells a key that asks again from
/// another one.
pub fn key_hash(csr_pem: &str) -> Result<String, WireError> {
    use x509_parser::prelude::*;
    let (_, pem) = parse_x509_pem(csr_pem.as_bytes()).map_err(bad_request)?;
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(bad_request)?;
    let key = csr.certification_request_info.subject_pki.raw;
    Ok(hex::encode(Sha256::digest(key)))
}

/// SHA-256 of a certificate, lower-case hex.
pub(crate) fn fingerprint(der: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(der))
}

fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = time::OffsetDateTime::now_utc();
    // Clocks of a classroom's machines may differ.
    params.not_before = now - time::Duration::days(2);
    params.not_after = now + time::Duration::days(days);
}

fn peer_params(peer: &Peer, addresses: &[String]) -> Result<CertificateParams, WireError> {
    let mut names: Vec<String> = vec![peer.tls_name()];
    names.extend(addresses.iter().cloned());
    // Tells IP addresses from DNS names by itself.
    let mut params = CertificateParams::new(names)?;
    params
        .subject_alt_names
        .push(SanType::URI(peer.to_string().try_into()?));
    params
        .distinguished_name
        .push(DnType::CommonName, peer.to_string());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    set_validity(&mut params, 365 * PEER_YEARS);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = ClassroomCa::open_or_create(dir.path()).unwrap();
        let again = ClassroomCa::open_or_create(dir.path()).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let mode = std::fs::metadata(dir.path().join(CA_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        let other = ClassroomCa::open_or_create(other.path()).unwrap();
        assert_ne!(first.fingerprint(), other.fingerprint());
    }

    #[test]
    fn a_damaged_file_is_said_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CA_FILE);
        for content in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&path, content).unwrap();
            let e = ClassroomCa::open_or_create(dir.path()).unwrap_err();
            assert!(matches!(e, WireError::Damaged { .. }), "{e}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn only_the_key_of_a_signing_request_counts() {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClassroomCa::open_or_create(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        // Asks to be the controller and a CA.
        let mut wish = peer_params(&Peer::controller(), &[]).unwrap();
        wish.extended_key_usages.clear();
        wish.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let response = ca
            .sign_join(&JoinRequest {
                secret: String::new(),
                kind: lyceum_proto::join::AgentKind::Host,
                name: "h1".parse().unwrap(),
                url: String::new(),
                csr_pem: wish.serialize_request(&key).unwrap().pem().unwrap(),
            })
            .unwrap();
        let der = CertificateDer::from_pem_slice(response.certificate_pem.as_bytes()).unwrap();
        let peer = Peer::of_certificate(&der).unwrap();
        assert_eq!(peer.to_string(), "lyceum://host/h1");
        use x509_parser::prelude::*;
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        assert!(!cert.is_ca());
    }

    #[test]
    fn a_hostile_signing_request_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClassroomCa::open_or_create(dir.path()).unwrap();
        for csr in [
            "",
            "x",
            "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            let request = JoinRequest {
                secret: String::new(),
                kind: lyceum_proto::join::AgentKind::Storage,
                name: "s".parse().unwrap(),
                url: String::new(),
                csr_pem: csr.into(),
            };
            assert!(ca.sign_join(&request).is_err(), "{csr:?} was signed");
            assert!(key_hash(csr).is_err(), "{csr:?} has a key");
        }
    }
}
