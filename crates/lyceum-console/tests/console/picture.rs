//! A picture with pixels of 32 bits, of which 24 count.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: u16,
    pub height: u16,
    pub pixels: Vec<u32>,
}

impl Picture {
    pub fn new(width: u16, height: u16, fill: u32) -> Picture {
        Picture {
            width,
            height,
            pixels: vec![fill; usize::from(width) * usize::from(height)],
        }
    }

    pub fn at(&self, x: u16, y: u16) -> u32 {
        self.pixels[usize::from(y) * usize::from(self.width) + usize::from(x)]
    }

    pub fn set(&mut self, x: u16, y: u16, pixel: u32) {
        self.pixels[usize::from(y) * usize::from(self.width) + usize::from(x)] = pixel & 0xff_ffff;
    }

    pub fn area(&self, x: u16, y: u16, w: u16, h: u16) -> Vec<u32> {
        let mut out = Vec::new();
        for row in y..y + h {
            for column in x..x + w {
                out.push(self.at(column, row));
            }
        }
        out
    }

    pub fn resize(&mut self, width: u16, height: u16) {
        let mut next = Picture::new(width, height, 0);
        for y in 0..height.min(self.height) {
            for x in 0..width.min(self.width) {
                next.set(x, y, self.at(x, y));
            }
        }
        *self = next;
    }
}
