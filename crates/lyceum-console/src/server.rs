//! Follows what a server sends after the handshake, and passes it on so that it can end at any byte:
//! the client is always left at the boundary of a message.
//!
//! A rectangle is passed on once it is whole. One that is too large for that (a whole picture of raw
//! pixels, say) is passed on as it comes; should the server vanish in the middle of it, the rest is
//! made up, and the next server's whole picture covers it.

use crate::output::Output;
use crate::protocol::{PixelFormat, ProtocolError, encoding, is_picture};
use bytes::Bytes;

/// Rectangles up to this size are passed on only when they are whole; so much is held for a client.
pub const HOLD_MAX: usize = 256 * 1024;
/// Longest text of a clipboard or a name that is passed on.
const TEXT_MAX: u32 = HOLD_MAX as u32 / 2;
/// Zeros, for what is made up.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Rect {
    x: u16,
    y: u16,
    width: u16,
    height: u16,
    encoding: i32,
}

impl Rect {
    fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

// What the bytes being collected are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Kind,
    Update,
    ColourMap,
    CutText,
    Rect,
    Rre,
    TightControl,
    TightFilter,
    TightPalette,
    TightLength,
    HextileKind,
    HextileHead,
    Screens,
    Name,
    // All of a rectangle or message was passed.
    Whole,
}

// What becomes of the bytes of the current rectangle or message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Hold,
    Stream,
    Drop,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tiles {
    // The next one, from the left and from above.
    column: u16,
    row: u16,
}

/// What a server's stream brought, besides bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Updates with a part of the picture that came to their end.
    pub pictures: u32,
    /// The size of the picture, when it was changed.
    pub resized: Option<(u16, u16)>,
}

/// Follows a server.
#[derive(Debug)]
pub struct ServerParser {
    state: State,
    head: Vec<u8>,
    need: usize,
    left: u64,
    keep: Keep,
    rect: Rect,
    rects_left: u32,
    in_update: bool,
    has_picture: bool,
    tiles: Tiles,
    format: PixelFormat,
    size: (u16, u16),
    last_rect: bool,
    // Whether the client's streams must begin anew, for Tight and for its variant with PNG.
    begin_anew: [bool; 2],
    progress: Progress,
}

impl ServerParser {
    /// `size`: of the picture, as the client knows it. `last_rect`: whether the client knows that
    /// encoding. `begin_anew`: whether it was fed by another server before.
    pub fn new(format: PixelFormat, size: (u16, u16), last_rect: bool, begin_anew: bool) -> Self {
        ServerParser {
            state: State::Kind,
            head: Vec::new(),
            need: 1,
            left: 0,
            keep: Keep::Hold,
            rect: Rect::default(),
            rects_left: 0,
            in_update: false,
            has_picture: false,
            tiles: Tiles::default(),
            format,
            size,
            last_rect,
            begin_anew: [begin_anew; 2],
            progress: Progress::default(),
        }
    }

    /// The client told its encodings.
    pub fn set_last_rect(&mut self, last_rect: bool) {
        self.last_rect = last_rect;
    }

    /// The client's pixels from now on; only between messages.
    pub fn set_format(&mut self, format: PixelFormat) {
        self.format = format;
    }

    /// Whether it is between two messages.
    pub fn is_between(&self) -> bool {
        self.state == State::Kind && self.head.is_empty() && !self.in_update
    }

    /// What happened since it was asked last.
    pub fn progress(&mut self) -> Progress {
        std::mem::take(&mut self.progress)
    }

    /// Takes bytes and passes on what can be.
    pub(crate) fn push(&mut self, mut chunk: Bytes, out: &mut Output) -> Result<(), ProtocolError> {
        loop {
            if self.left > 0 {
                if chunk.is_empty() {
                    return Ok(());
                }
                let now = self.left.min(chunk.len() as u64);
                self.left -= now;
                let piece = chunk.split_to(now as usize);
                self.pass(piece, out);
                if self.left > 0 {
                    return Ok(());
                }
            }
            if self.state == State::Whole {
                self.whole(out);
                continue;
            }
            let missing = self.need - self.head.len();
            let now = missing.min(chunk.len());
            if now == 0 && missing > 0 {
                if self.state == State::Kind && self.head.is_empty() {
                    self.head = Vec::new();
                }
                return Ok(());
            }
            self.head.extend_from_slice(&chunk.split_to(now));
            if self.head.len() == self.need {
                self.act(out)?;
            }
        }
    }

    /// The server is gone: leaves the client between two messages.
    pub(crate) fn end(&mut self, out: &mut Output) {
        out.discard();
        let in_rect = !matches!(
            self.state,
            State::Kind | State::Update | State::Rect | State::ColourMap | State::CutText
        );
        if in_rect && self.keep == Keep::Stream {
            zeros(self.left, out);
            match self.state {
                State::HextileKind | State::HextileHead => self.end_tiles(out),
                // Raw pixels and subrectangles: nothing but their bytes was missing.
                _ => {}
            }
            // That one is made up, not left out.
            self.rects_left = self.rects_left.saturating_sub(1);
        }
        if self.in_update && self.rects_left > 0 {
            if self.last_rect {
                let last = Rect {
                    encoding: encoding::LAST_RECT,
                    ..Rect::default()
                };
                out.emit_copy(&head_of(last));
            } else {
                // Rectangles without a pixel.
                for _ in 0..self.rects_left {
                    out.emit_copy(&head_of(Rect::default()));
                }
            }
        }
        self.in_update = false;
        self.rects_left = 0;
        self.left = 0;
        self.expect(State::Kind, 1);
    }

    fn expect(&mut self, state: State, need: usize) {
        self.head.clear();
        self.more(state, need);
    }

    // Like `expect`, but what was collected so far belongs to it.
    fn more(&mut self, state: State, need: usize) {
        self.state = state;
        self.need = need;
    }

    fn pass(&mut self, piece: Bytes, out: &mut Output) {
        match self.keep {
            Keep::Hold => {
                out.hold(piece);
                if out.held() > HOLD_MAX {
                    out.commit();
                    self.keep = Keep::Stream;
                }
            }
            Keep::Stream => out.emit(piece),
            Keep::Drop => {}
        }
    }

    fn pass_head(&mut self, out: &mut Output) {
        match self.keep {
            Keep::Hold => out.hold_copy(&self.head),
            Keep::Stream => out.emit_copy(&self.head),
            Keep::Drop => {}
        }
        self.head.clear();
    }

    // What follows is `bytes` that mean nothing here, then the rectangle or message is whole.
    fn rest(&mut self, bytes: u64) {
        self.left = bytes;
        self.expect(State::Whole, 0);
    }

    fn whole(&mut self, out: &mut Output) {
        match self.keep {
            Keep::Drop if self.in_update => {
                out.discard();
                out.emit_copy(&head_of(Rect::default()));
            }
            Keep::Drop => out.discard(),
            Keep::Hold | Keep::Stream => out.commit(),
        }
        if self.in_update {
            self.rects_left = self.rects_left.saturating_sub(1);
            self.next_rect();
        } else {
            self.expect(State::Kind, 1);
        }
    }

    fn next_rect(&mut self) {
        if self.rects_left > 0 {
            self.expect(State::Rect, 12);
            return;
        }
        self.in_update = false;
        if self.has_picture {
            self.progress.pictures += 1;
        }
        self.expect(State::Kind, 1);
    }

    fn u16(&self, at: usize) -> u16 {
        match self.head.get(at..at + 2) {
            Some(b) => u16::from_be_bytes([b[0], b[1]]),
            None => 0,
        }
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) << 16 | u32::from(self.u16(at + 2))
    }

    // All that was needed is there.
    fn act(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        match self.state {
            State::Kind => self.kind(out)?,
            State::Update => {
                self.in_update = true;
                self.has_picture = false;
                self.rects_left = u32::from(self.u16(2));
                out.emit_copy(&self.head);
                self.next_rect();
            }
            State::ColourMap => {
                let colours = u64::from(self.u16(4));
                self.pass_head(out);
                // At most 384 KiB: held until it is whole, or never.
                self.keep_if(6 * colours + 6);
                self.rest(6 * colours);
            }
            State::CutText => {
                let length = self.u32(4);
                self.keep_if(u64::from(length));
                self.pass_head(out);
                // A negative length marks the extended clipboard, which was not asked for.
                self.rest(u64::from((length as i32).unsigned_abs()));
            }
            State::Rect => self.rect(out)?,
            State::Rre => {
                let count = u64::from(self.u32(0));
                let bytes = self.format.bytes() as u64;
                let each = match self.rect.encoding {
                    encoding::RRE => bytes + 8,
                    _ => bytes + 4,
                };
                self.pass_head(out);
                self.rest(count * each);
            }
            State::TightControl => self.tight_control(out)?,
            State::TightFilter => self.tight_filter(out)?,
            State::TightPalette => self.tight_palette(out),
            State::TightLength => self.tight_length(out)?,
            State::HextileKind | State::HextileHead => self.tile(out)?,
            State::Screens => {
                let screens = u64::from(self.head[0]);
                // Status other than 0: a wish was refused, the size is as it was.
                if self.rect.y == 0 || self.rect.x != 1 {
                    self.resize();
                }
                self.pass_head(out);
                self.rest(16 * screens);
            }
            State::Name => {
                let length = self.u32(0);
                if length > TEXT_MAX {
                    return Err(ProtocolError::Malformed("a name of impossible length"));
                }
                self.pass_head(out);
                self.rest(u64::from(length));
            }
            State::Whole => {}
        }
        Ok(())
    }

    // A message (not a rectangle) is passed on whole or not at all.
    fn keep_if(&mut self, bytes: u64) {
        if bytes > u64::from(TEXT_MAX) {
            self.keep = Keep::Drop;
        }
    }

    fn kind(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        self.keep = Keep::Hold;
        match self.head[0] {
            0 => self.more(State::Update, 4),
            1 => self.more(State::ColourMap, 6),
            2 => {
                self.pass_head(out);
                self.rest(0);
            }
            3 => self.more(State::CutText, 8),
            other => return Err(ProtocolError::Message(other)),
        }
        Ok(())
    }

    fn resize(&mut self) {
        let size = (self.rect.width, self.rect.height);
        if self.size != size {
            self.size = size;
            self.progress.resized = Some(size);
        }
    }

    fn rect(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        use encoding::*;
        let r = Rect {
            x: self.u16(0),
            y: self.u16(2),
            width: self.u16(4),
            height: self.u16(6),
            encoding: self.u32(8) as i32,
        };
        self.rect = r;
        self.keep = Keep::Hold;
        if is_picture(r.encoding) {
            self.has_picture = true;
            let ends = |at: u16, length: u16| u32::from(at) + u32::from(length);
            // A client that was never told of a larger picture would be confused by it.
            if ends(r.x, r.width) > u32::from(self.size.0)
                || ends(r.y, r.height) > u32::from(self.size.1)
            {
                self.keep = Keep::Drop;
            }
        }
        self.pass_head(out);
        let bytes = self.format.bytes() as u64;
        let mask = u64::from(r.width).div_ceil(8) * u64::from(r.height);
        match r.encoding {
            RAW => {
                let length = r.area() * bytes;
                if length > HOLD_MAX as u64 && self.keep == Keep::Hold {
                    self.keep = Keep::Stream;
                    out.commit();
                }
                self.rest(length);
            }
            COPY_RECT => self.rest(4),
            RRE | CORRE => self.expect(State::Rre, 4 + self.format.bytes()),
            HEXTILE if r.area() == 0 => self.rest(0),
            HEXTILE => {
                self.tiles = Tiles::default();
                self.expect(State::HextileKind, 1);
            }
            TIGHT | TIGHT_PNG => self.expect(State::TightControl, 1),
            CURSOR => self.cursor(r.area() * bytes + mask)?,
            X_CURSOR if r.area() == 0 => self.rest(0),
            X_CURSOR => self.cursor(6 + 2 * mask)?,
            ALPHA_CURSOR => self.cursor(4 + 4 * r.area())?,
            DESKTOP_SIZE => {
                self.resize();
                self.rest(0);
            }
            EXTENDED_DESKTOP_SIZE => self.expect(State::Screens, 4),
            LAST_RECT => {
                self.rects_left = 1;
                self.rest(0);
            }
            POINTER_TYPE | EXTENDED_KEY => self.rest(0),
            LED_STATE => self.rest(1),
            DESKTOP_NAME => self.expect(State::Name, 4),
            other => return Err(ProtocolError::Encoding(other)),
        }
        Ok(())
    }

    fn cursor(&mut self, bytes: u64) -> Result<(), ProtocolError> {
        if bytes > u64::from(TEXT_MAX) {
            return Err(ProtocolError::Malformed("a pointer of impossible size"));
        }
        self.rest(bytes);
        Ok(())
    }

    fn tight_control(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        let png = usize::from(self.rect.encoding == encoding::TIGHT_PNG);
        if self.begin_anew[png] && self.keep != Keep::Drop {
            // The client's four streams begin anew, as this server's do.
            self.head[0] |= 0x0f;
            self.begin_anew[png] = false;
        }
        let control = self.head[0] >> 4;
        self.pass_head(out);
        match control {
            // One colour.
            8 => self.rest(self.format.tight_bytes() as u64),
            // JPEG, PNG.
            9 | 10 => self.expect(State::TightLength, 1),
            0..=3 => self.tight_pixels(self.rect.area() * self.format.tight_bytes() as u64),
            4..=7 => self.expect(State::TightFilter, 1),
            _ => {
                return Err(ProtocolError::Malformed(
                    "an unknown kind of Tight rectangle",
                ));
            }
        }
        Ok(())
    }

    fn tight_filter(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        let filter = self.head[0];
        match filter {
            0 | 2 => {
                self.pass_head(out);
                self.tight_pixels(self.rect.area() * self.format.tight_bytes() as u64);
            }
            // A palette; its length follows.
            1 if self.head.len() == 1 => self.more(State::TightFilter, 2),
            1 => {
                let colours = usize::from(self.head[1]) + 1;
                self.more(State::TightPalette, 2 + colours * self.format.tight_bytes());
            }
            _ => return Err(ProtocolError::Malformed("an unknown filter in Tight")),
        }
        Ok(())
    }

    fn tight_palette(&mut self, out: &mut Output) {
        let two = self.head[1] == 1;
        self.pass_head(out);
        self.tight_pixels(if two {
            u64::from(self.rect.width).div_ceil(8) * u64::from(self.rect.height)
        } else {
            self.rect.area()
        });
    }

    fn tight_pixels(&mut self, bytes: u64) {
        if bytes < 12 {
            // Too few to be compressed.
            self.rest(bytes);
        } else {
            self.expect(State::TightLength, 1);
        }
    }

    fn tight_length(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        let got = self.head.len();
        if got < 3 && self.head[got - 1] & 0x80 != 0 {
            self.more(State::TightLength, got + 1);
            return Ok(());
        }
        let part = |i: usize| u64::from(self.head.get(i).copied().unwrap_or(0));
        let length = part(0) & 0x7f | (part(1) & 0x7f) << 7 | part(2) << 14;
        self.pass_head(out);
        // Neither could it be ended by something made up, nor can the client do without it: what is
        // left out of a compression stream spoils the rest.
        if self.keep == Keep::Drop || length > (HOLD_MAX - 2048) as u64 {
            return Err(ProtocolError::Malformed(
                "a compressed rectangle of impossible size or place",
            ));
        }
        self.rest(length);
        Ok(())
    }

    fn tile(&mut self, out: &mut Output) -> Result<(), ProtocolError> {
        const RAW: u8 = 1;
        const BACKGROUND: u8 = 2;
        const FOREGROUND: u8 = 4;
        const SUBRECTS: u8 = 8;
        const COLOURED: u8 = 16;
        let bytes = self.format.bytes();
        let kind = self.head[0];
        let side = |of: u16, at: u16| u64::from(16.min(of - 16 * at));
        let area =
            side(self.rect.width, self.tiles.column) * side(self.rect.height, self.tiles.row);
        if self.state == State::HextileKind && kind & RAW == 0 {
            let bit = |bit: u8, length: usize| if kind & bit == 0 { 0 } else { length };
            let head = 1 + bit(BACKGROUND, bytes) + bit(FOREGROUND, bytes) + bit(SUBRECTS, 1);
            if head > 1 {
                self.more(State::HextileHead, head);
                return Ok(());
            }
        }
        let body = if kind & RAW != 0 {
            area * bytes as u64
        } else if kind & SUBRECTS != 0 {
            let count = self.head.last().copied().map_or(0, u64::from);
            let colour = if kind & COLOURED != 0 {
                bytes as u64
            } else {
                0
            };
            count * (colour + 2)
        } else {
            0
        };
        self.pass_head(out);
        self.tiles.column += 1;
        if 16 * u32::from(self.tiles.column) >= u32::from(self.rect.width) {
            self.tiles.column = 0;
            self.tiles.row += 1;
        }
        if 16 * u32::from(self.tiles.row) >= u32::from(self.rect.height) {
            self.rest(body);
        } else {
            self.left = body;
            self.expect(State::HextileKind, 1);
        }
        Ok(())
    }

    // Every tile that did not come has the background of the one before.
    fn end_tiles(&self, out: &mut Output) {
        let columns = u64::from(self.rect.width.div_ceil(16));
        let rows = u64::from(self.rect.height.div_ceil(16));
        let done = u64::from(self.tiles.row) * columns + u64::from(self.tiles.column);
        zeros((columns * rows).saturating_sub(done), out);
    }
}

fn zeros(mut count: u64, out: &mut Output) {
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        out.emit(Bytes::from_static(&ZEROS[..now as usize]));
        count -= now;
    }
}

fn head_of(rect: Rect) -> [u8; 12] {
    let mut head = [0; 12];
    for (i, n) in [rect.x, rect.y, rect.width, rect.height]
        .into_iter()
        .enumerate()
    {
        head[2 * i..2 * i + 2].copy_from_slice(&n.to_be_bytes());
    }
    head[8..].copy_from_slice(&rect.encoding.to_be_bytes());
    head
}
