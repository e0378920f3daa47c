//! The same delta on its way to another host: pages go straight from one machine into
//! another one that waits, without lying anywhere in between.
//!
//! ```text
//! head | pages | pages | zeros | ... | state | end
//! frame: kind u32 | block u32 | first u64 | count u64 (little endian), then its content
//!   head   count bytes of JSON, a StreamHeader; the first frame
//!   pages  count pages of a block, from page `first` on
//!   zeros  nothing: count pages of a block are all zero
//!   state  count bytes, QEMU's own device state; once
//!   end    32 bytes, blake3 of everything before this frame; count: frames before it
//! ```
//!
//! A page may come again: what comes last counts. The receiver checks every bound before
//! it takes a byte, and the sum at the end; nothing may be used before it has come.

use crate::error::damaged;
use crate::header::check_blocks;
use crate::{BlockInfo, DeltaError, FORMAT, PAGE};
use lyceum_model::{MachineSize, Platform, ReleaseId};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::Path;

const HEAD: u32 = 0;
const PAGES: u32 = 1;
const ZEROS: u32 = 2;
const STATE: u32 = 3;
const END: u32 = 4;
/// Bytes of a frame's head.
const FRAME: usize = 24;
/// Most pages in one frame.
const BATCH: u64 = 256;
const MAX_HEAD: u64 = 64 * 1024;
/// Device state without RAM is about 100 kB.
const MAX_STATE: u64 = 64 << 20;

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamHeader {
    /// Version of the format, the same as that of a delta in a folder.
    pub format: u32,
    /// The release it is a delta to.
    pub release: ReleaseId,
    /// What it was made on, and what is needed to use it.
    pub platform: Platform,
    /// Size of the machine.
    pub size: MachineSize,
    /// The machine's VM generation id.
    pub vm_generation_id: uuid::Uuid,
    /// MAC address of the network card that is part of the device state.
    pub nic_mac: Option<String>,
    /// The RAM blocks; the release's is the first.
    pub blocks: Vec<BlockInfo>,
}

fn failed(source: io::Error) -> DeltaError {
    DeltaError::Io {
        path: "the stream of a moving desktop".into(),
        source,
    }
}

fn wrong(why: impl Into<String>) -> DeltaError {
    damaged(Path::new("the stream of a moving desktop"), why)
}

/// Sends a delta. Which pages are worth sending [`Seen`](crate::Seen) knows.
#[derive(Debug)]
pub struct StreamWriter<W> {
    to: W,
    hash: blake3::Hasher,
    frames: u64,
    blocks: Vec<BlockInfo>,
    bytes: u64,
    pages: u64,
}

impl<W: Write> StreamWriter<W> {
    /// Sends the head.
    pub fn begin(to: W, header: StreamHeader) -> Result<StreamWriter<W>, DeltaError> {
        let text = serde_json::to_vec(&header).map_err(|e| DeltaError::Invalid(e.to_string()))?;
        let mut writer = StreamWriter {
            to,
            hash: blake3::Hasher::new(),
            frames: 0,
            blocks: header.blocks,
            bytes: 0,
            pages: 0,
        };
        writer.frame(HEAD, 0, 0, text.len() as u64, &text)?;
        Ok(writer)
    }

    fn frame(
        &mut self,
        kind: u32,
        block: u32,
        first: u64,
        count: u64,
        content: &[u8],
    ) -> Result<(), DeltaError> {
        let mut head = [0u8; FRAME];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..8].copy_from_slice(&block.to_le_bytes());
        head[8..16].copy_from_slice(&first.to_le_bytes());
        head[16..].copy_from_slice(&count.to_le_bytes());
        if kind != END {
            self.hash.update(&head);
            self.hash.update(content);
            self.frames += 1;
        }
        self.bytes += (FRAME + content.len()) as u64;
        self.to.write_all(&head).map_err(failed)?;
        self.to.write_all(content).map_err(failed)
    }

    /// Sends pages of `data`, which is contiguous pages from `first` on: those with these numbers, in order.
    pub fn put(
        &mut self,
        block: u32,
        first: u64,
        data: &[u8],
        which: impl IntoIterator<Item = u64>,
    ) -> Result<(), DeltaError> {
        crate::pagefile::check_place(&self.blocks, block, first, data)?;
        // Runs of pages of one kind, each sent in one frame.
        let mut run: Option<(u32, usize, usize)> = None;
        for page in which {
            let at = page.wrapping_sub(first) as usize;
            let content = at
                .checked_mul(PAGE)
                .and_then(|from| data.get(from..from.checked_add(PAGE)?));
            let content = content.ok_or_else(|| {
                DeltaError::Invalid(format!("page {page} is not among those from {first} on"))
            })?;
            let kind = match crate::pagefile::is_zero(content) {
                true => ZEROS,
                false => PAGES,
            };
            match &mut run {
                Some((k, from, end)) if *k == kind && *end == at && at - *from < BATCH as usize => {
                    *end += 1;
                }
                _ => {
                    self.flush_run(run.take(), block, first, data)?;
                    run = Some((kind, at, at + 1));
                }
            }
        }
        self.flush_run(run, block, first, data)
    }

    fn flush_run(
        &mut self,
        run: Option<(u32, usize, usize)>,
        block: u32,
        first: u64,
        data: &[u8],
    ) -> Result<(), DeltaError> {
        let Some((kind, from, end)) = run else {
            return Ok(());
        };
        let count = (end - from) as u64;
        let content = match kind {
            ZEROS => &[][..],
            _ => &data[from * PAGE..end * PAGE],
        };
        self.pages += count;
        self.frame(kind, block, first + from as u64, count, content)
    }

    /// Bytes and pages sent so far.
    pub fn so_far(&self) -> (u64, u64) {
        (self.bytes, self.pages)
    }

    /// Sends device state and end. Returns what it wrote to, and how many bytes and pages.
    pub fn finish(mut self, device_state: &[u8]) -> Result<(W, u64, u64), DeltaError> {
        self.frame(STATE, 0, 0, device_state.len() as u64, device_state)?;
        let (sum, frames) = (self.hash.finalize(), self.frames);
        self.frame(END, 0, 0, frames, sum.as_bytes())?;
        self.to.flush().map_err(failed)?;
        Ok((self.to, self.bytes, self.pages))
    }
}

/// What comes next in a stream.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Contents of contiguous pages.
    Pages {
        /// Position of the block in [`StreamHeader::blocks`].
        block: u32,
        /// Byte offset in it.
        offset: u64,
        /// Whole pages.
        bytes: &'a [u8],
    },
    /// QEMU's own device state.
    State(&'a [u8]),
    /// Everything has come, and is what was sent.
    End,
}

/// Takes a delta from a stream.
#[derive(Debug)]
pub struct StreamReader<R> {
    from: R,
    hash: blake3::Hasher,
    frames: u64,
    header: StreamHeader,
    buffer: Vec<u8>,
    /// What is left of a run of zero pages: block, next page, pages.
    zeros: Option<(u32, u64, u64)>,
    state: bool,
    bytes: u64,
    pages: u64,
}

impl<R: Read> StreamReader<R> {
    /// Reads the head.
    pub fn begin(from: R) -> Result<StreamReader<R>, DeltaError> {
        let mut reader = StreamReader {
            from,
            hash: blake3::Hasher::new(),
            frames: 0,
            header: StreamHeader {
                format: 0,
                release: ReleaseId::default(),
                platform: Platform {
                    qemu_version: String::new(),
                    machine_type: String::new(),
                    cpu_model: String::new(),
                    accelerator: lyceum_model::Accelerator::Simulated,
                },
                size: MachineSize {
                    vcpus: 0,
                    memory_mib: 0,
                },
                vm_generation_id: uuid::Uuid::nil(),
                nic_mac: None,
                blocks: Vec::new(),
            },
            buffer: Vec::new(),
            zeros: None,
            state: false,
            bytes: 0,
            pages: 0,
        };
        let (kind, _, _, count) = reader.head()?;
        if kind != HEAD || count > MAX_HEAD {
            return Err(wrong("it does not begin with its head"));
        }
        reader.content(count)?;
        let header: StreamHeader =
            serde_json::from_slice(&reader.buffer).map_err(|e| wrong(e.to_string()))?;
        if header.format != FORMAT {
            return Err(DeltaError::Format {
                found: header.format.into(),
                known: FORMAT,
            });
        }
        header.size.check().map_err(|e| wrong(e.to_string()))?;
        check_blocks(Path::new("the stream of a moving desktop"), &header.blocks)?;
        let ram = u64::from(header.size.memory_mib) << 20;
        if header.blocks.first().is_none_or(|b| b.bytes != ram) {
            return Err(wrong(
                "the RAM block is not as large as the machine's memory",
            ));
        }
        reader.header = header;
        Ok(reader)
    }

    /// What it says of itself.
    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// Bytes and pages that came so far.
    pub fn so_far(&self) -> (u64, u64) {
        (self.bytes, self.pages)
    }

    fn head(&mut self) -> Result<(u32, u32, u64, u64), DeltaError> {
        let mut head = [0u8; FRAME];
        self.from.read_exact(&mut head).map_err(failed)?;
        self.bytes += FRAME as u64;
        let u32_at =
            |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        let kind = u32_at(0);
        if kind != END {
            self.hash.update(&head);
            self.frames += 1;
        }
        Ok((kind, u32_at(4), u64_at(8), u64_at(16)))
    }

    /// The caller has bounded `bytes`.
    fn content(&mut self, bytes: u64) -> Result<(), DeltaError> {
        self.buffer.resize(bytes as usize, 0);
        self.from.read_exact(&mut self.buffer).map_err(failed)?;
        self.bytes += bytes;
        self.hash.update(&self.buffer);
        Ok(())
    }

    fn check_run(&self, block: u32, first: u64, count: u64) -> Result<(), DeltaError> {
        let fits = self.header.blocks.get(block as usize).is_some_and(|b| {
            first
                .checked_add(count)
                .is_some_and(|end| end <= b.bytes / PAGE as u64)
        });
        match fits && count > 0 {
            true => Ok(()),
            false => Err(wrong("pages lie outside of their RAM block")),
        }
    }

    /// The next piece. After [`Piece::End`] there is none.
    // Not an iterator: a piece borrows the reader's buffer.
    pub fn piece(&mut self) -> Result<Piece<'_>, DeltaError> {
        if let Some((block, first, left)) = self.zeros.take() {
            return Ok(self.zero_piece(block, first, left));
        }
        let (kind, block, first, count) = self.head()?;
        match kind {
            PAGES => {
                self.check_run(block, first, count)?;
                if count > BATCH {
                    return Err(wrong("a frame is too long"));
                }
                self.content(count * PAGE as u64)?;
                self.pages += count;
                Ok(Piece::Pages {
                    block,
                    offset: first * PAGE as u64,
                    bytes: &self.buffer,
                })
            }
            ZEROS => {
                self.check_run(block, first, count)?;
                self.pages += count;
                Ok(self.zero_piece(block, first, count))
            }
            STATE if !self.state && count <= MAX_STATE => {
                self.state = true;
                self.content(count)?;
                Ok(Piece::State(&self.buffer))
            }
            END => {
                if !self.state {
                    return Err(wrong("it ends without device state"));
                }
                let mut sum = [0u8; 32];
                self.from.read_exact(&mut sum).map_err(failed)?;
                self.bytes += 32;
                if count != self.frames || self.hash.finalize() != blake3::Hash::from(sum) {
                    return Err(wrong("the checksum is wrong"));
                }
                Ok(Piece::End)
            }
            _ => Err(wrong("a frame is not understood")),
        }
    }

    fn zero_piece(&mut self, block: u32, first: u64, left: u64) -> Piece<'_> {
        let now = left.min(BATCH);
        if left > now {
            self.zeros = Some((block, first + now, left - now));
        }
        self.buffer.clear();
        self.buffer.resize(now as usize * PAGE, 0);
        Piece::Pages {
            block,
            offset: first * PAGE as u64,
            bytes: &self.buffer,
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
