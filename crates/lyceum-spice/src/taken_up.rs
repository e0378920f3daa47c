//! When a server is through with taking a channel up. Until then nobody should hang up: libspice-server 0.15 uses freed memory
//! when a client is gone before its channel's worker has said the first things to it, and takes QEMU along.
//!
//! ```text
//! client:  header hello  mechanism ticket [first message]
//!                                 ▲ from here on ...
//! server:  header reply                    result  messages ... INIT or MARK
//!                                                                           ▲ ... until here nobody hangs up
//! ```

use crate::link::{HEADER, TICKET, channel, result};
use crate::main_channel::MINI_HEADER;

/// First kind of message that is a channel's own; those before it are common to all.
const OWN: u16 = 101;
/// The display's picture is whole: the last that its worker says when it takes a client up.
const DISPLAY_MARK: u16 = 102;
/// A hello's bytes up to the channel's kind.
const KIND_AT: usize = HEADER + 4;
const MECHANISM_BYTES: usize = 4;

/// Reads along on both sides of a channel from its first byte on. Holds a few bytes, and takes any input.
#[derive(Debug, Default)]
pub struct TakenUp {
    // The client's first bytes: header and the beginning of the hello.
    said: Vec<u8>,
    // How many there were in all.
    passed: u64,
    answered: Stage,
    // The part of a header that was read already.
    part: Vec<u8>,
    // What follows it and says nothing here.
    skip: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Reply,
    Result,
    Messages,
    Done,
}

impl TakenUp {
    /// The client's next bytes, before they are passed on.
    pub fn from_client(&mut self, bytes: &[u8]) {
        let room = (KIND_AT + 1).saturating_sub(self.said.len());
        self.said.extend(bytes.iter().take(room));
        self.passed = self.passed.saturating_add(bytes.len() as u64);
    }

    /// The server's next bytes.
    pub fn from_server(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.answered != Stage::Done {
            let over = usize::try_from(self.skip).unwrap_or(usize::MAX);
            let over = over.min(bytes.len());
            self.skip -= over as u64;
            bytes = bytes.get(over..).unwrap_or_default();
            let wanted = match self.answered {
                Stage::Reply => HEADER,
                Stage::Result => 4,
                Stage::Messages | Stage::Done => MINI_HEADER,
            };
            let take = (wanted - self.part.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(take);
            self.part.extend(head);
            bytes = rest;
            if self.part.len() == wanted {
                self.headed();
                self.part.clear();
            }
        }
    }

    // A header is whole.
    fn headed(&mut self) {
        let number = |at: usize| {
            let bytes = self.part.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        match self.answered {
            Stage::Reply => {
                self.skip = number(12).into();
                self.answered = Stage::Result;
            }
            // Refused: there is nothing to be taken up.
            Stage::Result if number(0) != result::OK => self.answered = Stage::Done,
            Stage::Result => self.answered = Stage::Messages,
            Stage::Messages => {
                let kind = number(0) as u16;
                let last = match self.said.get(KIND_AT) {
                    Some(&channel::DISPLAY) => kind == DISPLAY_MARK,
                    Some(&channel::MAIN) => true,
                    _ => kind >= OWN,
                };
                self.skip = number(2).into();
                if last {
                    self.answered = Stage::Done;
                }
            }
            Stage::Done => {}
        }
    }

    /// Whether the channel is being taken up: it is not to be closed now.
    pub fn is_under_way(&self) -> bool {
        let size = self.said.get(12..HEADER).and_then(|b| b.try_into().ok());
        let size = size.map_or(u32::MAX, u32::from_le_bytes);
        let asked = (HEADER + MECHANISM_BYTES + TICKET) as u64 + u64::from(size);
        self.passed >= asked && self.answered != Stage::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Hello, Reply, caps};
    use proptest::prelude::*;

    fn client(channel: u8) -> Vec<u8> {
        let hello = Hello {
            connection: 3,
            channel,
            id: 0,
            common: vec![caps::OURS],
            own: vec![5],
        };
        let mut bytes = hello.bytes();
        bytes.extend([0; MECHANISM_BYTES + TICKET]);
        bytes
    }

    fn server(code: u32, messages: &[(u16, usize)]) -> Vec<u8> {
        let reply = Reply {
            error: result::OK,
            key: [7; crate::link::PUBLIC_KEY],
            common: vec![caps::OURS],
            own: vec![],
        };
        let mut bytes = reply.bytes();
        bytes.extend(code.to_le_bytes());
        for (kind, size) in messages {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((*size as u32).to_le_bytes());
            bytes.extend(vec![9; *size]);
        }
        bytes
    }

    // How many bytes of the server's it takes until the channel may be closed; `None`: all are not enough.
    fn until(channel: u8, code: u32, messages: &[(u16, usize)]) -> Option<usize> {
        let mut watch = TakenUp::default();
        watch.from_client(&client(channel));
        let bytes = server(code, messages);
        bytes
            .chunks(1)
            .position(|byte| {
                watch.from_server(byte);
                !watch.is_under_way()
            })
            .map(|at| at + 1)
    }

    #[test]
    fn a_channel_is_under_way_from_its_ticket_to_its_first_own_message() {
        let linked = server(result::OK, &[]).len();
        let picture = [(3, 8), (105, 0), (314, 20), (304, 300), (102, 0), (122, 4)];
        let head = 6;
        let before: usize = picture[..4].iter().map(|(_, size)| head + size).sum();
        assert_eq!(
            until(channel::DISPLAY, result::OK, &picture),
            Some(linked + before + head)
        );
        assert_eq!(until(channel::DISPLAY, result::OK, &picture[..4]), None);
        assert_eq!(
            until(channel::CURSOR, result::OK, &[(3, 8), (101, 30)]),
            Some(linked + head + 8 + head)
        );
        assert_eq!(
            until(channel::MAIN, result::OK, &[(4, 100)]),
            Some(linked + head)
        );
        assert_eq!(until(channel::INPUTS, result::OK, &[]), None);
        assert_eq!(
            until(channel::DISPLAY, result::PERMISSION_DENIED, &[]),
            Some(linked)
        );
    }

    #[test]
    fn without_a_whole_ticket_there_is_nothing_to_wait_for() {
        let bytes = client(channel::DISPLAY);
        let mut watch = TakenUp::default();
        for (at, byte) in bytes.iter().enumerate() {
            assert!(!watch.is_under_way(), "{at}");
            watch.from_client(&[*byte]);
        }
        assert!(watch.is_under_way());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            said in proptest::collection::vec(any::<u8>(), 0..300),
            good: bool,
            answered in proptest::collection::vec(any::<u8>(), 0..600),
            piece in 1usize..70,
        ) {
            let run = |piece: usize| {
                let mut watch = TakenUp::default();
                watch.from_client(&if good { client(channel::DISPLAY) } else { said.clone() });
                answered.chunks(piece).for_each(|bytes| watch.from_server(bytes));
                prop_assert!(watch.part.len() < HEADER && watch.said.len() <= KIND_AT + 1);
                Ok((watch.is_under_way(), watch.answered, watch.skip))
            };
            prop_assert_eq!(run(piece)?, run(usize::MAX)?);
        }
    }
}
