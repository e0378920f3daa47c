//! A strict client: follows a stream and keeps the picture it shows.

use crate::picture::Picture;
use flate2::{Decompress, FlushDecompress};

/// Why the stream makes no sense; `More`: it ended in the middle.
#[derive(Debug, PartialEq, Eq)]
pub enum Bad {
    More,
    Nonsense(String),
}

pub struct Viewer {
    pub picture: Picture,
    pub updates: usize,
    pub texts: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    at: usize,
    streams: Vec<Decompress>,
}

type Result<T> = std::result::Result<T, Bad>;

impl Viewer {
    pub fn new(picture: Picture) -> Viewer {
        Viewer {
            picture,
            updates: 0,
            texts: Vec::new(),
            bytes: Vec::new(),
            at: 0,
            streams: (0..4).map(|_| Decompress::new(true)).collect(),
        }
    }

    /// Takes bytes that end at the end of a message, or says what is wrong.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        while self.at < self.bytes.len() {
            if let Err(e) = self.message() {
                // From its beginning, when there is more.
                self.at = 0;
                return Err(e);
            }
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>> {
        let part = self
            .bytes
            .get(self.at..self.at + n)
            .ok_or(Bad::More)?
            .to_vec();
        self.at += n;
        Ok(part)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }
    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().unwrap()))
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().unwrap()))
    }
    fn pixel(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap()))
    }
    fn small(&mut self) -> Result<u32> {
        let b = self.take(3)?;
        Ok(u32::from(b[0]) << 16 | u32::from(b[1]) << 8 | u32::from(b[2]))
    }

    fn message(&mut self) -> Result<()> {
        match self.u8()? {
            0 => {
                self.take(1)?;
                let mut left = u32::from(self.u16()?);
                while left > 0 {
                    left -= 1;
                    if self.rect()? {
                        left = 0;
                    }
                }
                self.updates += 1;
                Ok(())
            }
            2 => Ok(()),
            3 => {
                self.take(3)?;
                let n = self.u32()? as usize;
                let text = self.take(n)?;
                self.texts.push(text);
                Ok(())
            }
            other => Err(Bad::Nonsense(format!("message {other}"))),
        }
    }

    // Whether it was the last.
    fn rect(&mut self) -> Result<bool> {
        let (x, y, w, h) = (self.u16()?, self.u16()?, self.u16()?, self.u16()?);
        let encoding = self.u32()? as i32;
        let inside = u32::from(x) + u32::from(w) <= u32::from(self.picture.width)
            && u32::from(y) + u32::from(h) <= u32::from(self.picture.height);
        if matches!(encoding, 0..=7) && !inside {
            return Err(Bad::Nonsense("a rectangle beyond the picture".into()));
        }
        match encoding {
            0 => {
                for row in y..y + h {
                    for column in x..x + w {
                        let p = self.pixel()?;
                        self.picture.set(column, row, p);
                    }
                }
            }
            1 => {
                let (fx, fy) = (self.u16()?, self.u16()?);
                let pixels = self.picture.area(fx, fy, w, h);
                self.put((x, y, w), &pixels);
            }
            2 => {
                let n = self.u32()?;
                let ground = self.pixel()?;
                self.fill((x, y, w, h), ground);
                for _ in 0..n {
                    let c = self.pixel()?;
                    let (sx, sy, sw, sh) = (self.u16()?, self.u16()?, self.u16()?, self.u16()?);
                    self.fill((x + sx, y + sy, sw, sh), c);
                }
            }
            5 => self.hextile((x, y, w, h))?,
            7 => self.tight((x, y, w, h))?,
            -239 => {
                self.take(usize::from(w) * usize::from(h) * 4)?;
                self.take(usize::from(w).div_ceil(8) * usize::from(h))?;
            }
            -261 => {
                self.take(1)?;
            }
            -223 => self.picture.resize(w, h),
            -308 => {
                let screens = usize::from(self.take(4)?[0]);
                self.take(16 * screens)?;
                self.picture.resize(w, h);
            }
            -224 => return Ok(true),
            other => return Err(Bad::Nonsense(format!("encoding {other}"))),
        }
        Ok(false)
    }

    fn put(&mut self, (x, y, w): (u16, u16, u16), pixels: &[u32]) {
        for (i, p) in pixels.iter().enumerate() {
            let (dx, dy) = (i % usize::from(w), i / usize::from(w));
            self.picture.set(x + dx as u16, y + dy as u16, *p);
        }
    }

    fn fill(&mut self, (x, y, w, h): (u16, u16, u16, u16), colour: u32) {
        for row in y..y + h {
            for column in x..x + w {
                self.picture.set(column, row, colour);
            }
        }
    }

    fn hextile(&mut self, (x, y, w, h): (u16, u16, u16, u16)) -> Result<()> {
        let (mut ground, mut fore) = (0, 0);
        for ty in (y..y + h).step_by(16) {
            for tx in (x..x + w).step_by(16) {
                let (tw, th) = (16.min(x + w - tx), 16.min(y + h - ty));
                let kind = self.u8()?;
                if kind & 1 != 0 {
                    for row in ty..ty + th {
                        for column in tx..tx + tw {
                            let p = self.pixel()?;
                            self.picture.set(column, row, p);
                        }
                    }
                    continue;
                }
                if kind & 2 != 0 {
                    ground = self.pixel()?;
                }
                self.fill((tx, ty, tw, th), ground);
                if kind & 4 != 0 {
                    fore = self.pixel()?;
                }
                let n = if kind & 8 != 0 { self.u8()? } else { 0 };
                for _ in 0..n {
                    let colour = if kind & 16 != 0 { self.pixel()? } else { fore };
                    let (xy, wh) = (self.u8()?, self.u8()?);
                    let (sx, sy) = (u16::from(xy >> 4), u16::from(xy & 15));
                    let sw = (u16::from(wh >> 4) + 1).min(tw - sx.min(tw));
                    let sh = (u16::from(wh & 15) + 1).min(th - sy.min(th));
                    self.fill((tx + sx, ty + sy, sw, sh), colour);
                }
            }
        }
        Ok(())
    }

    fn unpack(&mut self, stream: usize, length: usize) -> Result<Vec<u8>> {
        if length < 12 {
            return self.take(length);
        }
        let mut n = 0usize;
        for i in 0..3 {
            let b = self.u8()?;
            n |= if i == 2 {
                usize::from(b) << 14
            } else {
                usize::from(b & 0x7f) << (7 * i)
            };
            if b & 0x80 == 0 {
                break;
            }
        }
        let packed = self.take(n)?;
        let mut out = Vec::with_capacity(length);
        self.streams[stream]
            .decompress_vec(&packed, &mut out, FlushDecompress::Sync)
            .map_err(|e| Bad::Nonsense(format!("zlib: {e}")))?;
        if out.len() != length {
            return Err(Bad::Nonsense(format!(
                "{} bytes instead of {length}",
                out.len()
            )));
        }
        Ok(out)
    }

    fn tight(&mut self, (x, y, w, h): (u16, u16, u16, u16)) -> Result<()> {
        let control = self.u8()?;
        for i in 0..4 {
            if control >> i & 1 != 0 {
                self.streams[i].reset(true);
            }
        }
        let kind = control >> 4;
        if kind == 8 {
            let colour = self.small()?;
            self.fill((x, y, w, h), colour);
            return Ok(());
        }
        if kind > 8 {
            return Err(Bad::Nonsense(format!("Tight {kind}")));
        }
        let stream = usize::from(kind & 3);
        let filter = if kind & 4 != 0 { self.u8()? } else { 0 };
        let count = usize::from(w) * usize::from(h);
        let pixels: Vec<u32> = if filter == 1 {
            let n = usize::from(self.u8()?) + 1;
            let mut colours = Vec::new();
            for _ in 0..n {
                colours.push(self.small()?);
            }
            if n == 2 {
                let row = usize::from(w).div_ceil(8);
                let data = self.unpack(stream, row * usize::from(h))?;
                (0..count)
                    .map(|i| {
                        let (dx, dy) = (i % usize::from(w), i / usize::from(w));
                        colours[usize::from(data[dy * row + dx / 8] >> (7 - dx % 8) & 1)]
                    })
                    .collect()
            } else {
                let data = self.unpack(stream, count)?;
                data.iter().map(|i| colours[usize::from(*i)]).collect()
            }
        } else {
            let data = self.unpack(stream, 3 * count)?;
            data.chunks(3)
                .map(|b| u32::from(b[0]) << 16 | u32::from(b[1]) << 8 | u32::from(b[2]))
                .collect()
        };
        self.put((x, y, w), &pixels);
        Ok(())
    }
}
