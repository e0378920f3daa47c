//! Takes apart what a client sends after the handshake.

use crate::protocol::{Input, Key, PixelFormat, ProtocolError, UpdateRequest};
use bytes::{Buf, Bytes, BytesMut};

/// Longest clipboard text that is passed on; what is longer is left out.
pub const CUT_TEXT_MAX: usize = 256 * 1024;
/// Most encodings a client may list.
const ENCODINGS_MAX: usize = 1024;
/// Room for small messages that is kept for the next one, in bytes.
const KEPT: usize = 128;

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// Pixels from now on.
    SetPixelFormat(PixelFormat),
    /// What it understands, best first.
    SetEncodings(Vec<i32>),
    /// It wants a picture.
    UpdateRequest(UpdateRequest),
    /// A person did something.
    Input(Input),
}

/// Takes a client's bytes in any portions and gives whole messages. Holds at most one message.
#[derive(Debug, Default)]
pub struct ClientParser {
    buffer: BytesMut,
    // Bytes of a message nobody wants.
    skip: u64,
}

impl ClientParser {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their message.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next message, or nothing until more is there.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<ClientMessage>, ProtocolError> {
        loop {
            if self.skip > 0 {
                let now = self.skip.min(self.buffer.len() as u64);
                self.buffer.advance(now as usize);
                self.skip -= now;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            let Some(&kind) = self.buffer.first() else {
                // An idle connection keeps next to no memory.
                if self.buffer.capacity() > KEPT {
                    self.buffer = BytesMut::new();
                }
                return Ok(None);
            };
            let Some(length) = self.length(kind)? else {
                return Ok(None);
            };
            let Length::Whole(length) = length else {
                continue;
            };
            if self.buffer.len() < length {
                return Ok(None);
            }
            let message = parse(kind, self.buffer.get(..length).unwrap_or_default());
            self.buffer.advance(length);
            if let Some(message) = message? {
                return Ok(Some(message));
            }
        }
    }

    fn u16(&self, at: usize) -> Option<usize> {
        let bytes = self.buffer.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    // How long the message at the beginning of the buffer is, once that can be told.
    fn length(&mut self, kind: u8) -> Result<Option<Length>, ProtocolError> {
        let whole = |n| Ok(Some(Length::Whole(n)));
        match kind {
            0 => whole(20),
            2 => match self.u16(2) {
                None => Ok(None),
                Some(n) if n > ENCODINGS_MAX => {
                    Err(ProtocolError::Malformed("a list of too many encodings"))
                }
                Some(n) => whole(4 + 4 * n),
            },
            3 => whole(10),
            4 => whole(8),
            5 => whole(6),
            6 => {
                let Some(bytes) = self.buffer.get(4..8) else {
                    return Ok(None);
                };
                let length = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                // A negative length marks the extended clipboard, which is not agreed upon.
                if length < 0 || length as usize > CUT_TEXT_MAX {
                    self.skip = 8 + u64::from(length.unsigned_abs());
                    return Ok(Some(Length::Skipped));
                }
                whole(8 + length as usize)
            }
            // SetDesktopSize.
            251 => match self.buffer.get(6) {
                None => Ok(None),
                Some(screens) => whole(8 + 16 * usize::from(*screens)),
            },
            255 => match self.buffer.get(1) {
                None => Ok(None),
                Some(0) => whole(12),
                // Sound.
                Some(1) => match self.u16(2) {
                    None => Ok(None),
                    Some(2) => whole(10),
                    Some(0 | 1) => whole(4),
                    Some(_) => Err(ProtocolError::Malformed("an unknown order about sound")),
                },
                Some(_) => Err(ProtocolError::Malformed("an unknown message for QEMU")),
            },
            other => Err(ProtocolError::Message(other)),
        }
    }
}

enum Length {
    Whole(usize),
    Skipped,
}

// `bytes` is as long as `length` said.
fn parse(kind: u8, mut bytes: &[u8]) -> Result<Option<ClientMessage>, ProtocolError> {
    let message = match kind {
        0 => ClientMessage::SetPixelFormat(PixelFormat::parse(&bytes[4..])?),
        2 => {
            bytes.advance(4);
            let mut list = Vec::with_capacity(bytes.len() / 4);
            while bytes.has_remaining() {
                list.push(bytes.get_i32());
            }
            ClientMessage::SetEncodings(list)
        }
        3 => {
            bytes.advance(1);
            ClientMessage::UpdateRequest(UpdateRequest {
                incremental: bytes.get_u8() != 0,
                x: bytes.get_u16(),
                y: bytes.get_u16(),
                width: bytes.get_u16(),
                height: bytes.get_u16(),
            })
        }
        4 => {
            bytes.advance(1);
            let down = bytes.get_u8() != 0;
            bytes.advance(2);
            let key = Key {
                keysym: bytes.get_u32(),
                keycode: None,
            };
            ClientMessage::Input(Input::Key { down, key })
        }
        5 => {
            bytes.advance(1);
            ClientMessage::Input(Input::Pointer {
                buttons: bytes.get_u8(),
                x: bytes.get_u16(),
                y: bytes.get_u16(),
            })
        }
        6 => ClientMessage::Input(Input::CutText(Bytes::copy_from_slice(&bytes[8..]))),
        255 if bytes[1] == 0 => {
            bytes.advance(2);
            let down = bytes.get_u16() != 0;
            let key = Key {
                keysym: bytes.get_u32(),
                keycode: Some(bytes.get_u32()),
            };
            ClientMessage::Input(Input::Key { down, key })
        }
        // Asks for another size of the screen or for sound: not offered.
        _ => return Ok(None),
    };
    Ok(Some(message))
}
