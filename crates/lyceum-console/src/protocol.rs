//! The words of RFB (RFC 6143 and its registered extensions) that the gateway knows.

use bytes::{BufMut, Bytes, BytesMut};

/// Why a side can't be understood any more. Its connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The other side speaks another protocol or version.
    #[error("it does not speak RFB 3.8")]
    Version,
    /// A server that does not let the gateway in.
    #[error("the server asks for a password or refuses the connection")]
    Security,
    /// A message of a kind that was not agreed upon.
    #[error("a message of the unknown kind {0}")]
    Message(u8),
    /// A rectangle in an encoding that was not asked for.
    #[error("a rectangle in the encoding {0}, which was not asked for")]
    Encoding(i32),
    /// Something impossible inside a known message.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Encodings by name.
pub mod encoding {
    #![allow(missing_docs)]
    pub const RAW: i32 = 0;
    pub const COPY_RECT: i32 = 1;
    pub const RRE: i32 = 2;
    pub const CORRE: i32 = 4;
    pub const HEXTILE: i32 = 5;
    pub const TIGHT: i32 = 7;
    pub const TIGHT_PNG: i32 = -260;
    pub const DESKTOP_SIZE: i32 = -223;
    pub const LAST_RECT: i32 = -224;
    pub const CURSOR: i32 = -239;
    pub const X_CURSOR: i32 = -240;
    pub const POINTER_TYPE: i32 = -257;
    pub const EXTENDED_KEY: i32 = -258;
    pub const LED_STATE: i32 = -261;
    pub const DESKTOP_NAME: i32 = -307;
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
    pub const ALPHA_CURSOR: i32 = -314;
}

/// Whether a client's encoding may be passed on to a server.
///
/// Only what the gateway can take apart, and what a client can go on with when another server
/// continues: zlib, ZRLE and the like keep one compression stream over the whole connection
/// and have no way to begin it anew. Tight can, but only together with pixels as the gateway reads them.
pub fn passes(code: i32, format: &PixelFormat) -> bool {
    use encoding::*;
    match code {
        TIGHT | TIGHT_PNG => format.depth == 24 || format.bits < 32,
        RAW
        | COPY_RECT
        | RRE
        | CORRE
        | HEXTILE
        | DESKTOP_SIZE
        | LAST_RECT
        | CURSOR
        | X_CURSOR
        | POINTER_TYPE
        | EXTENDED_KEY
        | LED_STATE
        | DESKTOP_NAME
        | EXTENDED_DESKTOP_SIZE
        | ALPHA_CURSOR => true,
        // Quality and compression levels.
        _ => (-32..=-23).contains(&code) || (-256..=-247).contains(&code),
    }
}

/// Whether a rectangle with this encoding is part of the picture.
pub(crate) fn is_picture(code: i32) -> bool {
    use encoding::*;
    matches!(
        code,
        RAW | COPY_RECT | RRE | CORRE | HEXTILE | TIGHT | TIGHT_PNG
    )
}

/// `PIXEL_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    /// Bits of a pixel: 8, 16 or 32.
    pub bits: u8,
    /// Bits of it that mean something.
    pub depth: u8,
    raw: [u8; 16],
}

impl PixelFormat {
    /// 32 bits, the three colours as bytes, little end first.
    pub const COMMON: PixelFormat = PixelFormat {
        bits: 32,
        depth: 24,
        raw: [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
    };

    /// Checks the 16 bytes of the protocol.
    pub fn parse(raw: &[u8]) -> Result<PixelFormat, ProtocolError> {
        let raw: [u8; 16] = raw
            .try_into()
            .map_err(|_| ProtocolError::Malformed("a pixel format of another length"))?;
        let [bits, depth, ..] = raw;
        if !matches!(bits, 8 | 16 | 32) || depth > bits {
            return Err(ProtocolError::Malformed("pixels of an impossible size"));
        }
        Ok(PixelFormat { bits, depth, raw })
    }

    /// The 16 bytes of the protocol.
    pub fn raw(&self) -> &[u8; 16] {
        &self.raw
    }

    /// Bytes of a pixel.
    pub fn bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Bytes of a pixel in Tight, which leaves out what a pixel of 24 bits does not use.
    pub fn tight_bytes(&self) -> usize {
        let maxima = [4, 6, 8].map(|i| u16::from_be_bytes([self.raw[i], self.raw[i + 1]]));
        match self.bits == 32 && self.depth == 24 && maxima == [255; 3] {
            true => 3,
            false => self.bytes(),
        }
    }
}

/// `FramebufferUpdateRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateRequest {
    /// Only what changed.
    pub incremental: bool,
    /// Left edge.
    pub x: u16,
    /// Upper edge.
    pub y: u16,
    /// Width.
    pub width: u16,
    /// Height.
    pub height: u16,
}

impl UpdateRequest {
    /// All of a picture.
    pub fn whole((width, height): (u16, u16), incremental: bool) -> Self {
        UpdateRequest {
            incremental,
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// What satisfies both.
    #[must_use]
    pub fn and(self, other: UpdateRequest) -> Self {
        let x = self.x.min(other.x);
        let y = self.y.min(other.y);
        let end = |a: u16, b: u16| u32::from(a) + u32::from(b);
        let right = end(self.x, self.width).max(end(other.x, other.width));
        let lower = end(self.y, self.height).max(end(other.y, other.height));
        let span = |end: u32, from: u16| u16::try_from(end - u32::from(from)).unwrap_or(u16::MAX);
        UpdateRequest {
            incremental: self.incremental && other.incremental,
            x,
            y,
            width: span(right, x),
            height: span(lower, y),
        }
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_slice(&[3, u8::from(self.incremental)]);
        for n in [self.x, self.y, self.width, self.height] {
            out.put_u16(n);
        }
    }
}

/// A key, as its keysym and, from clients that know it, its place on the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// X11 keysym.
    pub keysym: u32,
    /// XT scan code, from the extended key event of QEMU.
    pub keycode: Option<u32>,
}

impl Key {
    /// Whether it changes what other keys mean for as long as it is held: Shift, Control, Alt, Meta,
    /// Super, Hyper and the level-three shift.
    pub fn is_modifier(&self) -> bool {
        let lock = matches!(self.keysym, 0xffe5 | 0xffe6);
        (matches!(self.keysym, 0xffe1..=0xffee) && !lock)
            || matches!(self.keysym, 0xfe03 | 0xfe11 | 0xff7e)
    }
}

/// What a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A key goes down or up.
    Key {
        /// Down.
        down: bool,
        /// Which.
        key: Key,
    },
    /// The pointer moves, or its buttons change.
    Pointer {
        /// One bit for each button that is down.
        buttons: u8,
        /// From the left.
        x: u16,
        /// From above.
        y: u16,
    },
    /// Text for the clipboard.
    CutText(Bytes),
}

impl Input {
    pub(crate) fn put(&self, out: &mut BytesMut) {
        match self {
            Input::Key {
                down,
                key:
                    Key {
                        keysym,
                        keycode: None,
                    },
            } => {
                out.put_slice(&[4, u8::from(*down), 0, 0]);
                out.put_u32(*keysym);
            }
            Input::Key {
                down,
                key:
                    Key {
                        keysym,
                        keycode: Some(code),
                    },
            } => {
                out.put_slice(&[255, 0, 0, u8::from(*down)]);
                out.put_u32(*keysym);
                out.put_u32(*code);
            }
            Input::Pointer { buttons, x, y } => {
                out.put_slice(&[5, *buttons]);
                out.put_u16(*x);
                out.put_u16(*y);
            }
            Input::CutText(text) => {
                out.put_slice(&[6, 0, 0, 0]);
                out.put_u32(text.len() as u32);
                out.put_slice(text);
            }
        }
    }
}
