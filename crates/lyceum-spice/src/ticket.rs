//! The password's encryption: RSA with 1024 bits, OAEP with SHA-1, as SPICE has it since 2009. It protects nothing
//! here: it is done because both sides expect it, inside of TLS to the client and on a local socket to QEMU.

use crate::SpiceError;
use crate::link::{PUBLIC_KEY, TICKET};
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::rand_core::OsRng;
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;

const BITS: usize = 1024;
/// Longest password that there is room for.
pub const PASSWORD_MAX: usize = 60;

/// A key pair that tickets are encrypted with.
pub struct TicketKey {
    private: RsaPrivateKey,
    public: [u8; PUBLIC_KEY],
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey")
    }
}

fn failed(e: impl std::fmt::Display) -> SpiceError {
    SpiceError::Key(e.to_string())
}

impl TicketKey {
    /// A new one. Takes some ten milliseconds of a CPU.
    pub fn new() -> Result<TicketKey, SpiceError> {
        let private = RsaPrivateKey::new(&mut OsRng, BITS).map_err(failed)?;
        let der = private
            .to_public_key()
            .to_public_key_der()
            .map_err(failed)?;
        let public = der
            .as_bytes()
            .try_into()
            .map_err(|_| SpiceError::Key("it has another length".into()))?;
        Ok(TicketKey { private, public })
    }

    /// The public half, as it is sent.
    pub fn public(&self) -> [u8; PUBLIC_KEY] {
        self.public
    }

    /// The password in a ticket; `None` when there is none that can be read.
    pub fn open(&self, ticket: &[u8; TICKET]) -> Option<String> {
        let plain = self
            .private
            .decrypt_blinded(&mut OsRng, Oaep::new::<Sha1>(), ticket)
            .ok()?;
        // It ends with a zero byte.
        let end = plain.iter().position(|b| *b == 0).unwrap_or(plain.len());
        let password = plain.get(..end).filter(|p| p.len() <= PASSWORD_MAX)?;
        String::from_utf8(password.to_vec()).ok()
    }
}

/// A ticket with this password for whoever sent that key.
pub fn seal(key: &[u8; PUBLIC_KEY], password: &str) -> Result<[u8; TICKET], SpiceError> {
    if password.len() > PASSWORD_MAX {
        return Err(SpiceError::Key("the password is too long".into()));
    }
    let key = RsaPublicKey::from_public_key_der(key).map_err(failed)?;
    let mut plain = password.as_bytes().to_vec();
    plain.push(0);
    let ticket = key
        .encrypt(&mut OsRng, Oaep::new::<Sha1>(), &plain)
        .map_err(failed)?;
    ticket
        .try_into()
        .map_err(|_| SpiceError::Key("the server's key has another length".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_comes_through_and_rubbish_does_not() {
        let key = TicketKey::new().expect("key");
        for password in ["", "s3cret", &"x".repeat(PASSWORD_MAX)] {
            let ticket = seal(&key.public(), password).expect("ticket");
            assert_eq!(key.open(&ticket).as_deref(), Some(password));
        }
        assert!(seal(&key.public(), &"x".repeat(PASSWORD_MAX + 1)).is_err());
        let other = TicketKey::new().expect("key");
        let foreign = seal(&other.public(), "s3cret").expect("ticket");
        assert_eq!(key.open(&foreign), None);
        for byte in [0, 1, 0x7f, 0xff] {
            assert_eq!(key.open(&[byte; TICKET]), None);
            assert!(seal(&[byte; PUBLIC_KEY], "s3cret").is_err());
        }
        let mut long = key.public();
        // A key of other numbers is refused or used, and never a panic.
        for at in 0..PUBLIC_KEY {
            long[at] ^= 0x55;
            let _ = seal(&long, "s3cret");
            long[at] ^= 0x55;
        }
    }
}
