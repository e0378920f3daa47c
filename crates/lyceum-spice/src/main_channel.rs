//! The main channel's messages from server to client: where they begin and end, so that one of our own can be put
//! between them.

use std::collections::VecDeque;

/// Bytes of a mini header: type u16, size u32.
pub const MINI_HEADER: usize = 6;
/// Messages up to this size are passed on when they are whole. A longer one (the server's measurement of the
/// line is, and nothing else) is passed on as it comes.
pub const WHOLE_MAX: usize = 16 * 1024;
/// The server's first message: the session and its state.
pub const INIT: u16 = 103;
/// Connect to another server.
pub const SWITCH_HOST: u16 = 111;

/// Follows the server's messages. What is fed is taken out again in pieces that end at messages' ends, as far as they
/// are not too long for that.
#[derive(Debug, Default)]
pub struct Messages {
    head: VecDeque<u8>,
    // Of the long message that is being passed on.
    rest: usize,
}

/// A piece of what the server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole message, with its header.
    Message {
        /// Its type.
        kind: u16,
        /// Header and body.
        bytes: Vec<u8>,
    },
    /// A part of a long one.
    Part(Vec<u8>),
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Piece::Message { bytes, .. } | Piece::Part(bytes) => bytes,
        }
    }

    /// The session's number, if this is the server's first message.
    pub fn session(&self) -> Option<u32> {
        match self {
            Piece::Message { kind: INIT, bytes } => match bytes.get(MINI_HEADER..MINI_HEADER + 4) {
                Some(&[a, b, c, d]) => Some(u32::from_le_bytes([a, b, c, d])),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Messages {
    /// Takes in what came. Take all [pieces](Messages::next_piece) out before more is fed: what is held is then a
    /// message of [`WHOLE_MAX`] at most.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.head.extend(bytes);
    }

    /// The next piece, when there is one.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if self.rest > 0 {
            return self.part();
        }
        let mut header = [0; MINI_HEADER];
        for (at, byte) in header.iter_mut().enumerate() {
            *byte = *self.head.get(at)?;
        }
        let [k0, k1, s0, s1, s2, s3] = header;
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        if size > WHOLE_MAX {
            self.rest = size.saturating_add(MINI_HEADER);
            return self.part();
        }
        let whole = MINI_HEADER + size;
        (self.head.len() >= whole).then(|| Piece::Message {
            kind: u16::from_le_bytes([k0, k1]),
            bytes: self.head.drain(..whole).collect(),
        })
    }

    fn part(&mut self) -> Option<Piece> {
        let there = self.rest.min(self.head.len());
        self.rest -= there;
        (there > 0).then(|| Piece::Part(self.head.drain(..there).collect()))
    }

    /// How many bytes are missing of a long message that was begun: the client needs them before it can be told
    /// anything else.
    pub fn missing(&self) -> usize {
        self.rest
    }
}

/// The order to connect to this host and TLS port, on all channels, as the session that it is.
pub fn switch_host(host: &str, tls_port: u16, subject: Option<&str>) -> Vec<u8> {
    // port, TLS port, host (length and place), subject (length and place); then both, each ended by a zero byte.
    const FIXED: usize = 20;
    let zero_ended = |text: &str| {
        let mut bytes: Vec<u8> = text.bytes().filter(|b| *b != 0).collect();
        bytes.push(0);
        bytes
    };
    let host = zero_ended(host);
    let subject = subject.map(zero_ended).unwrap_or_default();
    let place = |bytes: &[u8], at: usize| if bytes.is_empty() { 0 } else { at as u32 };
    let mut body = Vec::with_capacity(FIXED + host.len() + subject.len());
    body.extend(0u16.to_le_bytes());
    body.extend(tls_port.to_le_bytes());
    body.extend((host.len() as u32).to_le_bytes());
    body.extend(place(&host, FIXED).to_le_bytes());
    body.extend((subject.len() as u32).to_le_bytes());
    body.extend(place(&subject, FIXED + host.len()).to_le_bytes());
    body.extend(&host);
    body.extend(&subject);
    let mut message = SWITCH_HOST.to_le_bytes().to_vec();
    message.extend((body.len() as u32).to_le_bytes());
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, size: usize) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((size as u32).to_le_bytes());
        bytes.extend((0..size).map(|n| n as u8));
        bytes
    }

    proptest! {
        #[test]
        fn messages_are_found_however_they_come(
            sizes in proptest::collection::vec(prop_oneof![0usize..200, WHOLE_MAX - 2..WHOLE_MAX + 60], 1..6),
            portions in proptest::collection::vec(1usize..9000, 1..20),
        ) {
            let all: Vec<u8> = sizes.iter().enumerate().flat_map(|(n, s)| message(n as u16, *s)).collect();
            let (mut messages, mut out, mut kinds) = (Messages::default(), Vec::new(), Vec::new());
            let mut portions = portions.iter().cycle();
            let mut rest = &all[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*portions.next().expect("cycle")));
                messages.feed(now);
                while let Some(piece) = messages.next_piece() {
                    if let Piece::Message { kind, bytes } = &piece {
                        prop_assert!(bytes.len() <= WHOLE_MAX + MINI_HEADER);
                        kinds.push(*kind);
                    }
                    out.extend_from_slice(piece.bytes());
                }
                prop_assert!(messages.head.len() < WHOLE_MAX + MINI_HEADER);
                rest = later;
            }
            prop_assert_eq!(out, all);
            prop_assert_eq!(messages.missing(), 0);
            let short: Vec<u16> = sizes.iter().enumerate().filter(|(_, s)| **s <= WHOLE_MAX).map(|(n, _)| n as u16).collect();
            prop_assert_eq!(kinds, short);
        }

        #[test]
        fn garbage_is_passed_on_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..2000), portion in 1usize..300) {
            let mut messages = Messages::default();
            for part in bytes.chunks(portion) {
                messages.feed(part);
                while let Some(piece) = messages.next_piece() {
                    let _ = piece.session();
                }
                prop_assert!(messages.head.len() < WHOLE_MAX + MINI_HEADER);
            }
        }
    }

    #[test]
    fn a_cut_in_a_long_message_is_known() {
        let mut messages = Messages::default();
        let long = message(4, WHOLE_MAX + 100);
        messages.feed(&long[..1000]);
        assert_eq!(
            messages.next_piece(),
            Some(Piece::Part(long[..1000].to_vec()))
        );
        assert_eq!(messages.next_piece(), None);
        assert_eq!(messages.missing(), long.len() - 1000);
        // One in a short message concerns nobody: nothing of it was passed on.
        let mut messages = Messages::default();
        messages.feed(&message(4, 100)[..50]);
        assert_eq!((messages.next_piece(), messages.missing()), (None, 0));
    }

    #[test]
    fn the_order_to_connect_again_has_its_form() {
        let bytes = switch_host("host", 5901, Some("CN=x"));
        let mut messages = Messages::default();
        messages.feed(&bytes);
        match messages.next_piece() {
            Some(Piece::Message { kind, bytes }) => {
                assert_eq!(kind, SWITCH_HOST);
                let body = &bytes[MINI_HEADER..];
                assert_eq!(body[..2], [0, 0]);
                assert_eq!(body[2..4], 5901u16.to_le_bytes());
                assert_eq!(body[4..8], [5, 0, 0, 0]);
                assert_eq!(body[8..12], [20, 0, 0, 0]);
                assert_eq!(body[12..16], [5, 0, 0, 0]);
                assert_eq!(body[16..20], [25, 0, 0, 0]);
                assert_eq!(&body[20..], b"host\0CN=x\0");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            switch_host("h", 1, None)[MINI_HEADER + 12..MINI_HEADER + 20],
            [0; 8]
        );
    }
}
