//! Messages of the link stage. All numbers are little-endian.
//!
//! Client: [`Header`], [`Hello`]. Server: [`Header`], [`Reply`]. Client: the mechanism (4 bytes), the ticket
//! ([`TICKET`] bytes). Server: the [result](result) (4 bytes).

use crate::SpiceError;

/// Bytes of the header.
pub const HEADER: usize = 16;
/// Bytes of a public key.
pub const PUBLIC_KEY: usize = 162;
/// Bytes of an encrypted ticket.
pub const TICKET: usize = 128;
/// Longest message after a header; with all capabilities there are it has about 200 bytes.
pub const MESSAGE_MAX: usize = 1024;
/// Most words of capabilities of a kind.
pub const CAPS_MAX: usize = 16;
const MAGIC: [u8; 4] = *b"REDQ";
const MAJOR: u32 = 2;
const MINOR: u32 = 2;

/// The way to show a password that [`caps::AUTH_SPICE`] stands for.
pub const MECHANISM: u32 = caps::AUTH_SPICE;

/// Bits of the capabilities that all channels have.
pub mod caps {
    /// The client says which way it shows its password.
    pub const AUTH_SELECTION: u32 = 0;
    /// By an encrypted ticket.
    pub const AUTH_SPICE: u32 = 1;
    /// Messages have headers of 6 bytes.
    pub const MINI_HEADER: u32 = 3;
    /// What both sides of a gateway offer, and no more: it holds for every QEMU and every client.
    pub const OURS: u32 = 1 << AUTH_SELECTION | 1 << AUTH_SPICE | 1 << MINI_HEADER;
}

/// Answers to a link.
pub mod result {
    /// Come in.
    pub const OK: u32 = 0;
    /// Something went wrong.
    pub const ERROR: u32 = 1;
    /// Another major version.
    pub const VERSION_MISMATCH: u32 = 4;
    /// Wrong password.
    pub const PERMISSION_DENIED: u32 = 7;
    /// No such session.
    pub const BAD_CONNECTION_ID: u32 = 8;
    /// No such channel.
    pub const CHANNEL_NOT_AVAILABLE: u32 = 9;
}

/// Channels by their numbers.
pub mod channel {
    /// The one that holds a session together.
    pub const MAIN: u8 = 1;
    /// Pictures.
    pub const DISPLAY: u8 = 2;
    /// A client's first message on it, which sets up what it keeps.
    pub const DISPLAY_INIT: u16 = 101;
    /// Keys and pointer.
    pub const INPUTS: u8 = 3;
    /// The pointer's shape.
    pub const CURSOR: u8 = 4;
}

/// What begins both sides' first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow, at most [`MESSAGE_MAX`].
    pub size: usize,
}

impl Header {
    /// Reads it.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Header, SpiceError> {
        if bytes[..4] != MAGIC {
            return Err(SpiceError::Protocol("it does not begin as SPICE does"));
        }
        if u32_at(bytes, 4)? != MAJOR {
            return Err(SpiceError::Protocol("another version"));
        }
        let size = u32_at(bytes, 12)? as usize;
        if size > MESSAGE_MAX {
            return Err(SpiceError::Protocol("a link message of impossible length"));
        }
        Ok(Header { size })
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&MAJOR.to_le_bytes());
        out[8..12].copy_from_slice(&MINOR.to_le_bytes());
        out[12..].copy_from_slice(&(self.size as u32).to_le_bytes());
        out
    }
}

/// A client's first message: what it wants to be linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The session it belongs to; 0 for the first channel of one.
    pub connection: u32,
    /// [`channel`]'s number.
    pub channel: u8,
    /// Which of that kind.
    pub id: u8,
    /// Capabilities that all channels have, as words of bits.
    pub common: Vec<u32>,
    /// Capabilities of the channel, as words of bits.
    pub own: Vec<u32>,
}

impl Hello {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<Hello, SpiceError> {
        let (common, own) = capabilities(bytes, 6)?;
        Ok(Hello {
            connection: u32_at(bytes, 0)?,
            channel: *bytes.get(4).ok_or(SHORT)?,
            id: *bytes.get(5).ok_or(SHORT)?,
            common,
            own,
        })
    }

    /// Its bytes, with the header.
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = self.connection.to_le_bytes().to_vec();
        body.extend([self.channel, self.id]);
        with_capabilities(body, &self.common, &self.own)
    }

    /// Whether it can be served.
    pub fn check(&self) -> Result<(), SpiceError> {
        let has = |bit: u32| self.common.first().is_some_and(|word| word & 1 << bit != 0);
        if has(caps::AUTH_SELECTION) && has(caps::MINI_HEADER) {
            Ok(())
        } else {
            Err(SpiceError::Protocol("a client from before 2012"))
        }
    }
}

/// A server's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// [`result`]'s number.
    pub error: u32,
    /// The public key that the ticket is to be encrypted with, as a SubjectPublicKeyInfo.
    pub key: [u8; PUBLIC_KEY],
    /// As in [`Hello`].
    pub common: Vec<u32>,
    /// As in [`Hello`].
    pub own: Vec<u32>,
}

impl Reply {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<Reply, SpiceError> {
        let (common, own) = capabilities(bytes, 4 + PUBLIC_KEY)?;
        let mut key = [0; PUBLIC_KEY];
        key.copy_from_slice(bytes.get(4..4 + PUBLIC_KEY).ok_or(SHORT)?);
        Ok(Reply {
            error: u32_at(bytes, 0)?,
            key,
            common,
            own,
        })
    }

    /// Its bytes, with the header.
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = self.error.to_le_bytes().to_vec();
        body.extend(self.key);
        with_capabilities(body, &self.common, &self.own)
    }
}

const SHORT: SpiceError = SpiceError::Protocol("a link message that is too short");

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, SpiceError> {
    let end = at.checked_add(4).ok_or(SHORT)?;
    match bytes.get(at..end) {
        Some(&[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(SHORT),
    }
}

// Numbers of words and where the words are, at `at`; then the words.
fn capabilities(bytes: &[u8], at: usize) -> Result<(Vec<u32>, Vec<u32>), SpiceError> {
    let (common, own) = (u32_at(bytes, at)? as usize, u32_at(bytes, at + 4)? as usize);
    let begin = u32_at(bytes, at + 8)? as usize;
    if common > CAPS_MAX || own > CAPS_MAX {
        return Err(SpiceError::Protocol("too many capabilities"));
    }
    if begin < at + 12 || begin > bytes.len() {
        return Err(SpiceError::Protocol(
            "capabilities outside of their message",
        ));
    }
    let words = |from: usize, count: usize| {
        (0..count)
            .map(|n| u32_at(bytes, begin + 4 * (from + n)))
            .collect::<Result<Vec<u32>, _>>()
    };
    Ok((words(0, common)?, words(common, own)?))
}

fn with_capabilities(mut body: Vec<u8>, common: &[u32], own: &[u32]) -> Vec<u8> {
    let begin = (body.len() + 12) as u32;
    for number in [common.len() as u32, own.len() as u32, begin] {
        body.extend(number.to_le_bytes());
    }
    for word in common.iter().chain(own) {
        body.extend(word.to_le_bytes());
    }
    let mut all = Header { size: body.len() }.bytes().to_vec();
    all.extend(body);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(all: &[u8]) -> &[u8] {
        let header: [u8; HEADER] = all[..HEADER].try_into().expect("header");
        let size = Header::parse(&header).expect("header").size;
        assert_eq!(size, all.len() - HEADER);
        &all[HEADER..]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            connection: u32, channel: u8, id: u8, error: u32,
            common in proptest::collection::vec(any::<u32>(), 0..=CAPS_MAX),
            own in proptest::collection::vec(any::<u32>(), 0..=CAPS_MAX),
        ) {
            let hello = Hello { connection, channel, id, common: common.clone(), own: own.clone() };
            prop_assert_eq!(&Hello::parse(body(&hello.bytes())).expect("hello"), &hello);
            let reply = Reply { error, key: [7; PUBLIC_KEY], common, own };
            prop_assert_eq!(&Reply::parse(body(&reply.bytes())).expect("reply"), &reply);
        }

        #[test]
        fn nothing_panics_and_little_is_held(bytes in proptest::collection::vec(any::<u8>(), 0..400), header: [u8; HEADER]) {
            let _ = Header::parse(&header);
            let hello = Hello::parse(&bytes).map(|h| (h.common, h.own));
            let reply = Reply::parse(&bytes).map(|r| (r.common, r.own));
            for (common, own) in [hello, reply].into_iter().flatten() {
                prop_assert!(common.len() <= CAPS_MAX && own.len() <= CAPS_MAX);
            }
        }

        #[test]
        fn a_message_with_one_word_changed_is_read_or_refused(at in 0usize..60, word: u32, cut in 0usize..90) {
            let reply = Reply { error: 0, key: [1; PUBLIC_KEY], common: vec![caps::OURS], own: vec![1, 2] };
            let mut bytes = body(&reply.bytes()).to_vec();
            let at = (at * 4).min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            bytes.truncate(bytes.len() - cut);
            let _ = Reply::parse(&bytes);
        }
    }

    #[test]
    fn what_is_no_spice_is_refused() {
        let good = Header { size: 100 }.bytes();
        assert_eq!(Header::parse(&good).expect("good").size, 100);
        for (at, byte) in [(0, b'G'), (4, 1), (14, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert!(Header::parse(&bad).is_err(), "{at}");
        }
        let old = Hello {
            connection: 0,
            channel: channel::MAIN,
            id: 0,
            common: vec![],
            own: vec![],
        };
        assert!(old.check().is_err());
    }
}
