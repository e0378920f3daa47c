//! Bounded reading.

use super::{Checked, Stop, truncated};
use crate::Cancel;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Something with a length that can be read anywhere.
pub trait Bytes {
    /// Its length in bytes.
    fn length(&self) -> u64;
    /// Fills `buffer` from `offset` on; an error when it ends before that.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Bytes for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buffer.len())?))
            .and_then(|range| self.get(range))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

impl Bytes for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Bytes::read_at(&self.as_slice(), offset, buffer)
    }
}

impl Bytes for File {
    fn length(&self) -> u64 {
        self.metadata().map(|m| m.len()).unwrap_or(0)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// `offset..offset + length`, which must be inside; `what` says what it is when it is not.
/// `length` is bounded by the caller.
pub fn get(image: &dyn Bytes, offset: u64, length: usize, what: &str) -> Checked<Vec<u8>> {
    inside(image, offset, length as u64, what)?;
    let mut buffer = vec![0; length];
    image.read_at(offset, &mut buffer).map_err(Stop::Read)?;
    Ok(buffer)
}

/// Like [`get`] but shorter, even empty, where the image ends.
pub fn up_to(image: &dyn Bytes, offset: u64, length: usize) -> Checked<Vec<u8>> {
    let rest = image.length().saturating_sub(offset);
    let length = usize::try_from(rest).unwrap_or(usize::MAX).min(length);
    get(image, offset, length, "")
}

/// Checks that a part lies inside the file.
pub fn inside(image: &dyn Bytes, offset: u64, length: u64, what: &str) -> Checked<()> {
    match offset.checked_add(length) {
        Some(end) if end <= image.length() => Ok(()),
        _ => truncated(&format!("{what} would end beyond its end")),
    }
}

/// Calls `each` with every little- or big-endian entry of a table, read in pieces, with its index.
pub fn table<const N: usize>(
    image: &dyn Bytes,
    offset: u64,
    entries: u64,
    what: &str,
    cancel: &Cancel,
    mut each: impl FnMut(u64, [u8; N]) -> Checked<()>,
) -> Checked<()> {
    const PIECE: u64 = 8192;
    let bytes = match entries.checked_mul(N as u64) {
        Some(bytes) => bytes,
        None => return truncated(&format!("{what} would end beyond its end")),
    };
    inside(image, offset, bytes, what)?;
    let mut index = 0;
    while index < entries {
        if cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let now = (entries - index).min(PIECE);
        // At most 8192 * N, so it fits.
        let piece = get(image, offset + index * N as u64, now as usize * N, what)?;
        for (i, entry) in piece.chunks_exact(N).enumerate() {
            let mut bytes = [0; N];
            bytes.copy_from_slice(entry);
            each(index + i as u64, bytes)?;
        }
        index += now;
    }
    Ok(())
}

/// A field of a header that was read as a whole; zero where the header is shorter, which
/// the caller has ruled out by its length.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(part) = at.checked_add(N).and_then(|end| self.0.get(at..end)) {
            out.copy_from_slice(part);
        }
        out
    }
    pub fn u8(&self, at: usize) -> u8 {
        self.array::<1>(at)[0]
    }
    pub fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }
    pub fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }
    pub fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }
    pub fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }
    pub fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
    pub fn bytes16(&self, at: usize) -> [u8; 16] {
        self.array(at)
    }
}
