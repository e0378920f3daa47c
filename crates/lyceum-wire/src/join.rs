//! How an agent gets its certificate.
//!
//! ```text
//!   controller: JoinToken::new ── shown to an administrator ──► agent: join
//!      agent: key and signing request made here ── POST /join, TLS pinned to the CA ──► controller
//!      controller: secret known and unused? ── ClassroomCa::sign_join ──► agent: identity.json
//! ```
//!
//! The agent keeps its key in `joining.json` until it has the answer. When that was lost, it asks again with
//! the same token and key, and the controller, which remembers the key, signs again.

use crate::{Client, ClientError, Identity, Peer, PeerKind, WireError, write_atomically};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use lyceum_model::HostId;
use lyceum_proto::join::{AgentKind, JoinRequest, JoinResponse};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;
use subtle::ConstantTimeEq;

const PREFIX: &str = "lyceum-join:";
/// Where the key is kept while the answer is not there.
const JOINING_FILE: &str = "joining.json";

/// A join that was begun.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Joining {
    /// Of the token's secret: another token is another join.
    secret_hash: String,
    key_pem: String,
}

/// The key of the join with this token: the one that was made for it before, or a new one, which is on disk
/// when this returns.
fn joining_key(token: &JoinToken, state_dir: &Path) -> Result<KeyPair, WireError> {
    let path = state_dir.join(JOINING_FILE);
    let begun = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice::<Joining>(&text).ok())
        .filter(|joining| joining.secret_hash == token.secret_hash());
    if let Some(key) = begun.and_then(|joining| KeyPair::from_pem(&joining.key_pem).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    let joining = Joining {
        secret_hash: token.secret_hash(),
        key_pem: key.serialize_pem(),
    };
    let text = serde_json::to_vec(&joining).map_err(|e| WireError::Certificate(e.to_string()))?;
    write_atomically(&path, &text, 0o600).map_err(|source| WireError::File {
        what: "writing",
        path,
        source,
    })?;
    Ok(key)
}

/// A signing request for a key; nothing in it counts but the key.
pub(crate) fn signing_request(key: &KeyPair) -> Result<String, WireError> {
    let request = rcgen::CertificateParams::default().serialize_request(key)?;
    Ok(request.pem()?)
}

/// What an administrator carries from the controller to an agent. Its secret is
/// good for one join.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// `https://ADDRESS:PORT` of the controller's agent port.
    pub url: String,
    /// SHA-256 of the classroom's CA certificate, lower-case hex.
    pub ca_sha256: String,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken({})", self.url)
    }
}

impl JoinToken {
    /// A token with a new secret (256 random bits). The controller keeps
    /// [`secret_hash`](Self::secret_hash) and hands the text out once.
    pub fn new(url: String, ca_sha256: String) -> Result<JoinToken, WireError> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| WireError::Token(format!("the system gave no random bytes: {e}")))?;
        Ok(JoinToken {
            url,
            ca_sha256,
            secret: BASE64.encode(bytes),
        })
    }

    /// SHA-256 of the secret, lower-case hex: what the controller stores.
    pub fn secret_hash(&self) -> String {
        secret_hash(&self.secret)
    }

    /// The text: `lyceum-join:` and base64url.
    pub fn to_text(&self) -> Result<String, WireError> {
        let json = serde_json::to_vec(self).map_err(|e| WireError::Token(e.to_string()))?;
        Ok(format!("{PREFIX}{}", BASE64.encode(json)))
    }

    /// Reads the text; white space around it does no harm.
    pub fn parse(text: &str) -> Result<JoinToken, WireError> {
        let bad = |why: &str| WireError::Token(why.to_owned());
        let body = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or_else(|| bad("it does not begin with lyceum-join:"))?;
        let json = BASE64
            .decode(body)
            .map_err(|_| bad("it was cut short or changed"))?;
        let token: JoinToken =
            serde_json::from_slice(&json).map_err(|_| bad("it was cut short or changed"))?;
        if token.ca_sha256.len() != 64 || !token.ca_sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("its fingerprint is not one"));
        }
        Ok(token)
    }
}

/// SHA-256 of a join secret, lower-case hex. The secret is 256 random bits, so no
/// slow hash is needed.
pub fn secret_hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

/// Whether the secret is the one with this hash; takes the same time either way.
pub fn secret_matches(secret: &str, hash: &str) -> bool {
    secret_hash(secret).as_bytes().ct_eq(hash.as_bytes()).into()
}

/// Joins the classroom and stores the identity in `state_dir`. An agent that has
/// joined already as the same is not joined again: its identity is returned and
/// the token is not used up. After an error it may be called again with the same token.
///
/// `own_url` is `https://ADDRESS:PORT` where the controller reaches this agent.
pub async fn join(
    token: &str,
    kind: AgentKind,
    name: HostId,
    own_url: &str,
    state_dir: &Path,
) -> Result<Identity, WireError> {
    let token = JoinToken::parse(token)?;
    let peer = Peer::new(PeerKind::from(kind), name.clone());
    if let Some(known) = Identity::load(state_dir)? {
        if known.peer() == &peer && known.ca_fingerprint() == token.ca_sha256 {
            return Ok(known);
        }
        return Err(WireError::AlreadyJoined {
            path: state_dir.join(crate::identity::IDENTITY_FILE),
            peer: known.peer().clone(),
        });
    }
    let key = joining_key(&token, state_dir)?;
    let csr_pem = signing_request(&key)?;
    let client = Client::pinned(&token.url, &Peer::controller(), &token.ca_sha256)?;
    let response: JoinResponse = client
        .post(
            "/join",
            &JoinRequest {
                secret: token.secret.clone(),
                kind,
                name,
                url: own_url.to_owned(),
                csr_pem,
            },
        )
        .await
        .map_err(|e: ClientError| WireError::Join(Box::new(e)))?;
    let identity = Identity::new(
        peer,
        response.certificate_pem,
        key.serialize_pem(),
        response.ca_pem,
    )?
    .joined_at(Some(token.url.clone()));
    if identity.ca_fingerprint() != token.ca_sha256 {
        return Err(WireError::Token(
            "the controller answered with another CA than the token names".into(),
        ));
    }
    identity.save(state_dir)?;
    // Its key is in the identity now; left behind it does no harm.
    let _ = std::fs::remove_file(state_dir.join(JOINING_FILE));
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_survives_its_text_and_keeps_its_secret() {
        let token = JoinToken::new("https://127.0.0.1:1".into(), "a".repeat(64)).unwrap();
        let again = JoinToken::parse(&format!(" {}\n", token.to_text().unwrap())).unwrap();
        assert_eq!(again.secret, token.secret);
        assert!(!format!("{token:?}").contains(&token.secret));
        assert!(secret_matches(&token.secret, &again.secret_hash()));
        assert!(!secret_matches("other", &token.secret_hash()));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(text in ".{0,80}", cut in 0usize..200) {
            let _ = JoinToken::parse(&text);
            let _ = JoinToken::parse(&format!("{PREFIX}{text}"));
            let whole = JoinToken::new("https://127.0.0.1:1".into(), "a".repeat(64)).unwrap().to_text().unwrap();
            if cut < whole.len() {
                prop_assert!(JoinToken::parse(&whole[..cut]).is_err());
            }
        }
    }
}
