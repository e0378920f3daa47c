//! Random secrets, of which only hashes are kept.

use crate::error::ApiFailure;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

/// A new secret: 256 random bits, base64url.
pub fn new() -> Result<String, ApiFailure> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| ApiFailure::internal(format!("the system gave no random bytes: {e}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What the store keeps of a secret, hex. It is as random as the hash is long, so no slow hash is needed.
pub fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

/// The CSRF token of the session with this secret. Whoever knows only the token learns nothing
/// of the secret, and nothing has to be kept for it.
pub fn csrf(secret: &str) -> String {
    hex::encode(blake3::derive_key(
        "lyceum: CSRF token of a session",
        secret.as_bytes(),
    ))
}

/// Whether two texts are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
