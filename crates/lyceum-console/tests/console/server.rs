//! A server that shows made-up pictures in every encoding the gateway lets through.

use crate::picture::Picture;
use flate2::{Compress, Compression, FlushCompress};

pub struct Server {
    pub picture: Picture,
    streams: Vec<Compress>,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Raw,
    Copy,
    Rre,
    Hextile,
    TightCopy,
    TightPalette,
    TightFill,
    Cursor,
    Led,
}

pub const KINDS: [Kind; 9] = [
    Kind::Raw,
    Kind::Copy,
    Kind::Rre,
    Kind::Hextile,
    Kind::TightCopy,
    Kind::TightPalette,
    Kind::TightFill,
    Kind::Cursor,
    Kind::Led,
];

fn head(out: &mut Vec<u8>, (x, y, w, h): (u16, u16, u16, u16), encoding: i32) {
    for n in [x, y, w, h] {
        out.extend(n.to_be_bytes());
    }
    out.extend(encoding.to_be_bytes());
}

pub fn pixel(out: &mut Vec<u8>, pixel: u32) {
    out.extend(pixel.to_le_bytes());
}

// In Tight: red, green, blue.
fn small(out: &mut Vec<u8>, pixel: u32) {
    out.extend([(pixel >> 16) as u8, (pixel >> 8) as u8, pixel as u8]);
}

impl Server {
    pub fn new(picture: Picture, seed: u64) -> Server {
        Server {
            picture,
            streams: (0..4)
                .map(|_| Compress::new(Compression::fast(), true))
                .collect(),
            seed: seed | 1,
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 33) as u32 % below
    }

    /// What it says up to its name.
    pub fn hello(&self) -> Vec<u8> {
        let mut out = b"RFB 003.008\n".to_vec();
        out.extend([1, 1, 0, 0, 0, 0]);
        out.extend(self.picture.width.to_be_bytes());
        out.extend(self.picture.height.to_be_bytes());
        out.extend(lyceum_console::protocol::PixelFormat::COMMON.raw());
        out.extend([0, 0, 0, 4]);
        out.extend(b"test");
        out
    }

    /// Changes some of its picture and tells of it.
    pub fn update(&mut self, kinds: &[Kind], last_rect: bool) -> Vec<u8> {
        let count = if last_rect {
            0xffff
        } else {
            kinds.len() as u16
        };
        let mut out = vec![0, 0];
        out.extend(count.to_be_bytes());
        for kind in kinds {
            self.rect(&mut out, *kind);
        }
        if last_rect {
            head(&mut out, (0, 0, 0, 0), -224);
        }
        out
    }

    /// All of its picture, in pieces.
    pub fn whole(&mut self, tight: bool) -> Vec<u8> {
        let mut out = vec![0, 0];
        let rows: Vec<u16> = (0..self.picture.height).step_by(16).collect();
        out.extend((rows.len() as u16).to_be_bytes());
        for y in rows {
            let height = 16.min(self.picture.height - y);
            let area = (0, y, self.picture.width, height);
            if tight {
                self.tight_copy(&mut out, area);
            } else {
                self.raw(&mut out, area);
            }
        }
        out
    }

    fn rect(&mut self, out: &mut Vec<u8>, kind: Kind) {
        let (pw, ph) = (
            u32::from(self.picture.width),
            u32::from(self.picture.height),
        );
        let x = self.random(pw);
        let y = self.random(ph);
        let w = 1 + self.random(pw - x);
        let h = 1 + self.random(ph - y);
        let area = (x as u16, y as u16, w as u16, h as u16);
        match kind {
            Kind::Raw => {
                self.scribble(area);
                self.raw(out, area);
            }
            Kind::Copy => {
                let (from_x, from_y) = (
                    self.random(pw - w + 1) as u16,
                    self.random(ph - h + 1) as u16,
                );
                let pixels = self.picture.area(from_x, from_y, area.2, area.3);
                self.put(area, &pixels);
                head(out, area, 1);
                out.extend(from_x.to_be_bytes());
                out.extend(from_y.to_be_bytes());
            }
            Kind::Rre => {
                let (ground, dot) = (self.random(1 << 24), self.random(1 << 24));
                self.fill(area, ground);
                self.picture.set(area.0, area.1, dot);
                head(out, area, 2);
                out.extend(1u32.to_be_bytes());
                pixel(out, ground);
                pixel(out, dot);
                out.extend([0, 0, 0, 0, 0, 1, 0, 1]);
            }
            Kind::Hextile => self.hextile(out, area),
            Kind::TightCopy => {
                self.scribble(area);
                self.tight_copy(out, area);
            }
            Kind::TightPalette => self.tight_palette(out, area),
            Kind::TightFill => {
                let colour = self.random(1 << 24);
                self.fill(area, colour);
                head(out, area, 7);
                out.push(0x80);
                small(out, colour);
            }
            Kind::Cursor => {
                head(out, (1, 1, 3, 2), -239);
                out.extend([7; 3 * 2 * 4 + 2]);
            }
            Kind::Led => {
                head(out, (0, 0, 0, 0), -261);
                out.push(1);
            }
        }
    }

    fn put(&mut self, (x, y, w, _): (u16, u16, u16, u16), pixels: &[u32]) {
        for (i, p) in pixels.iter().enumerate() {
            let (dx, dy) = (i % usize::from(w), i / usize::from(w));
            self.picture.set(x + dx as u16, y + dy as u16, *p);
        }
    }

    fn fill(&mut self, area: (u16, u16, u16, u16), colour: u32) {
        let pixels = vec![colour; usize::from(area.2) * usize::from(area.3)];
        self.put(area, &pixels);
    }

    fn scribble(&mut self, area: (u16, u16, u16, u16)) {
        for _ in 0..8 {
            let x = area.0 + self.random(area.2.into()) as u16;
            let y = area.1 + self.random(area.3.into()) as u16;
            let colour = self.random(1 << 24);
            self.picture.set(x, y, colour);
        }
    }

    fn raw(&mut self, out: &mut Vec<u8>, area: (u16, u16, u16, u16)) {
        head(out, area, 0);
        for p in self.picture.area(area.0, area.1, area.2, area.3) {
            pixel(out, p);
        }
    }

    fn hextile(&mut self, out: &mut Vec<u8>, (x, y, w, h): (u16, u16, u16, u16)) {
        head(out, (x, y, w, h), 5);
        let mut ground = None;
        for ty in (y..y + h).step_by(16) {
            for tx in (x..x + w).step_by(16) {
                let tile = (tx, ty, 16.min(x + w - tx), 16.min(y + h - ty));
                match self.random(4) {
                    0 => {
                        self.scribble(tile);
                        out.push(1);
                        for p in self.picture.area(tile.0, tile.1, tile.2, tile.3) {
                            pixel(out, p);
                        }
                    }
                    1 if ground.is_some() => {
                        self.fill(tile, ground.unwrap());
                        out.push(0);
                    }
                    2 => {
                        let (g, f) = (self.random(1 << 24), self.random(1 << 24));
                        ground = Some(g);
                        self.fill(tile, g);
                        self.picture.set(tile.0, tile.1, f);
                        out.push(2 | 4 | 8);
                        pixel(out, g);
                        pixel(out, f);
                        out.extend([1, 0, 0]);
                    }
                    _ => {
                        let (g, f) = (self.random(1 << 24), self.random(1 << 24));
                        ground = Some(g);
                        self.fill(tile, g);
                        self.picture.set(tile.0, tile.1, f);
                        out.push(2 | 8 | 16);
                        pixel(out, g);
                        out.push(1);
                        pixel(out, f);
                        out.extend([0, 0]);
                    }
                }
            }
        }
    }

    fn pack(&mut self, out: &mut Vec<u8>, stream: usize, data: &[u8]) {
        if data.len() < 12 {
            out.extend(data);
            return;
        }
        let mut packed = Vec::with_capacity(data.len() * 2 + 100);
        self.streams[stream]
            .compress_vec(data, &mut packed, FlushCompress::Sync)
            .unwrap();
        let length = packed.len();
        if length < 128 {
            out.push(length as u8);
        } else if length < 16384 {
            out.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
        } else {
            out.extend([
                (length & 0x7f) as u8 | 0x80,
                ((length >> 7) & 0x7f) as u8 | 0x80,
                (length >> 14) as u8,
            ]);
        }
        out.extend(packed);
    }

    fn tight_copy(&mut self, out: &mut Vec<u8>, area: (u16, u16, u16, u16)) {
        head(out, area, 7);
        let stream = self.random(4) as usize;
        if self.random(2) == 0 {
            out.push((stream as u8) << 4);
        } else {
            out.extend([(stream as u8 | 4) << 4, 0]);
        }
        let mut data = Vec::new();
        for p in self.picture.area(area.0, area.1, area.2, area.3) {
            small(&mut data, p);
        }
        self.pack(out, stream, &data);
    }

    fn tight_palette(&mut self, out: &mut Vec<u8>, area: (u16, u16, u16, u16)) {
        head(out, area, 7);
        let stream = self.random(4) as usize;
        let two = self.random(2) == 0;
        let colours: Vec<u32> = (0..if two { 2 } else { 3 })
            .map(|_| self.random(1 << 24))
            .collect();
        out.extend([(stream as u8 | 4) << 4, 1, colours.len() as u8 - 1]);
        for c in &colours {
            small(out, *c);
        }
        let count = usize::from(area.2) * usize::from(area.3);
        let indices: Vec<u8> = (0..count)
            .map(|_| self.random(colours.len() as u32) as u8)
            .collect();
        let pixels: Vec<u32> = indices.iter().map(|i| colours[usize::from(*i)]).collect();
        self.put(area, &pixels);
        let data = if two {
            indices
                .chunks(area.2.into())
                .flat_map(|row| {
                    row.chunks(8).map(|bits| {
                        bits.iter()
                            .enumerate()
                            .fold(0, |b, (i, bit)| b | bit << (7 - i))
                    })
                })
                .collect()
        } else {
            indices
        };
        self.pack(out, stream, &data);
    }
}
