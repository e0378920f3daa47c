//! Page files: pages of RAM blocks, with their places.
//!
//! ```text
//! slot 0 | slot 1 | ... 4096 bytes each | run | run | ... 24 bytes each
//! run: block u32 | pages u32 | first page in the block u64 | first slot u64
//!      (little endian; slot 2^64-1: the pages are all zero and not stored)
//! ```
//!
//! Runs are sorted by block and page and don't overlap. Equal pages share a slot.
//! A writer takes pages in any order and takes a page again when it changed; the
//! hash of each stored page is kept, so a page that is given again unchanged
//! costs nothing but its hash.

use crate::error::{damaged, io};
use crate::header::{BlockInfo, PagePart};
use crate::{DeltaError, PAGE};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a run in the table.
pub const RUN_BYTES: usize = 24;
const ZERO: u64 = u64::MAX;
static ZEROS: [u8; PAGE] = [0; PAGE];
/// Pages are read and written in batches of at most this many.
const BATCH: usize = 256;

/// Contiguous pages of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Position of the block in [`PagePart::blocks`].
    pub block: u32,
    /// How many pages.
    pub pages: u32,
    /// Number of the first page in the block.
    pub first: u64,
    /// Where the contents begin; `None`: all zero.
    pub slot: Option<u64>,
}

impl Run {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.block.to_le_bytes());
        out.extend_from_slice(&self.pages.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.slot.unwrap_or(ZERO).to_le_bytes());
    }

    fn decode(bytes: &[u8; RUN_BYTES]) -> Run {
        let u32_at =
            |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        let slot = u64_at(16);
        Run {
            block: u32_at(0),
            pages: u32_at(4),
            first: u64_at(8),
            slot: (slot != ZERO).then_some(slot),
        }
    }
}

/// Whole pages that lie inside their block, or an error that names them.
pub(crate) fn check_place(
    blocks: &[BlockInfo],
    block: u32,
    first: u64,
    data: &[u8],
) -> Result<(), DeltaError> {
    let pages = (data.len() / PAGE) as u64;
    let fits = blocks.get(block as usize).is_some_and(|b| {
        first
            .checked_add(pages)
            .is_some_and(|end| end <= b.bytes / PAGE as u64)
    });
    if !data.len().is_multiple_of(PAGE) || !fits {
        return Err(DeltaError::Invalid(format!(
            "{} bytes at page {first} of block {block}",
            data.len()
        )));
    }
    Ok(())
}

/// Whether a page holds nothing but zeros.
pub fn is_zero(page: &[u8]) -> bool {
    // Compared as slices, which is one memcmp.
    page.chunks(PAGE).all(|c| c == &ZEROS[..c.len()])
}

type Hash = [u8; 32];

/// Writes a page file.
#[derive(Debug)]
pub struct PageWriter {
    path: PathBuf,
    file: File,
    blocks: Vec<BlockInfo>,
    /// Where the content of each page is; `None`: zero.
    places: BTreeMap<(u32, u64), Option<u64>>,
    slots: Vec<Slot>,
    by_hash: HashMap<Hash, u64>,
    /// Slots that are appended but not written to the file yet.
    tail: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    hash: Hash,
    users: u32,
}

impl PageWriter {
    pub(crate) fn create(path: PathBuf, blocks: Vec<BlockInfo>) -> Result<PageWriter, DeltaError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io(&path))?;
        Ok(PageWriter {
            path,
            file,
            blocks,
            places: BTreeMap::new(),
            slots: Vec::new(),
            by_hash: HashMap::new(),
            tail: Vec::new(),
        })
    }

    /// Takes contiguous pages of a block, the first of which has the number `first`.
    /// Pages that were given before are replaced. Returns how many pages are new or changed.
    pub fn put(&mut self, block: u32, first: u64, data: &[u8]) -> Result<u64, DeltaError> {
        check_place(&self.blocks, block, first, data)?;
        let mut changed = 0;
        for (page, content) in (first..).zip(data.chunks_exact(PAGE)) {
            changed += u64::from(self.put_page((block, page), content)?);
        }
        Ok(changed)
    }

    fn put_page(&mut self, place: (u32, u64), content: &[u8]) -> Result<bool, DeltaError> {
        let before = self.places.get(&place).copied();
        if is_zero(content) {
            if before == Some(None) {
                return Ok(false);
            }
            self.release(before.flatten());
            self.places.insert(place, None);
            return Ok(true);
        }
        let hash: Hash = *blake3::hash(content).as_bytes();
        if let Some(Some(slot)) = before
            && self.slots[slot as usize].hash == hash
        {
            return Ok(false);
        }
        let slot = match (self.by_hash.get(&hash).copied(), before.flatten()) {
            (Some(same), old) => {
                self.slots[same as usize].users += 1;
                self.release(old);
                same
            }
            // Nobody else has the old content: its slot is written over.
            (None, Some(old)) if self.slots[old as usize].users == 1 => {
                let gone = std::mem::replace(&mut self.slots[old as usize].hash, hash);
                if self.by_hash.get(&gone) == Some(&old) {
                    self.by_hash.remove(&gone);
                }
                self.by_hash.insert(hash, old);
                self.write_over(old, content)?;
                old
            }
            (None, old) => {
                let slot = self.slots.len() as u64;
                self.slots.push(Slot { hash, users: 1 });
                self.by_hash.insert(hash, slot);
                self.tail.extend_from_slice(content);
                if self.tail.len() >= BATCH * PAGE {
                    self.flush()?;
                }
                self.release(old);
                slot
            }
        };
        self.places.insert(place, Some(slot));
        Ok(true)
    }

    /// A slot without users stays in the file as it is: it still counts for the hash.
    fn release(&mut self, slot: Option<u64>) {
        if let Some(slot) = slot.and_then(|s| self.slots.get_mut(s as usize)) {
            slot.users -= 1;
        }
    }

    fn write_over(&mut self, slot: u64, content: &[u8]) -> Result<(), DeltaError> {
        let flushed = self.slots.len() as u64 - (self.tail.len() / PAGE) as u64;
        if slot >= flushed {
            let at = (slot - flushed) as usize * PAGE;
            self.tail[at..at + PAGE].copy_from_slice(content);
            return Ok(());
        }
        self.file
            .write_all_at(content, slot * PAGE as u64)
            .map_err(io(&self.path))
    }

    fn flush(&mut self) -> Result<(), DeltaError> {
        let flushed = self.slots.len() - self.tail.len() / PAGE;
        self.file
            .write_all_at(&self.tail, (flushed * PAGE) as u64)
            .map_err(io(&self.path))?;
        self.tail.clear();
        Ok(())
    }

    /// Takes a page out again that is no longer the desktop's own.
    pub fn forget(&mut self, block: u32, page: u64) {
        let slot = self.places.remove(&(block, page)).flatten();
        self.release(slot);
    }

    /// Numbers of the pages of a block that were given.
    pub fn pages_of(&self, block: u32) -> impl Iterator<Item = u64> + '_ {
        self.places
            .range((block, 0)..=(block, u64::MAX))
            .map(|((_, page), _)| *page)
    }

    /// Bytes of pages that are stored.
    pub fn stored_bytes(&self) -> u64 {
        (self.slots.len() * PAGE) as u64
    }

    /// Starts to bring what was given so far to stable storage, in the
    /// background: less is left for the end.
    pub fn start_writeback(&mut self) -> Result<File, DeltaError> {
        self.flush()?;
        self.file.try_clone().map_err(io(&self.path))
    }

    /// Writes the table; the file is not synced yet.
    pub(crate) fn finish(mut self) -> Result<(File, PathBuf, PagePart), DeltaError> {
        self.flush()?;
        let mut runs: Vec<Run> = Vec::new();
        for (&(block, first), &slot) in &self.places {
            if let Some(last) = runs.last_mut() {
                let next = last.first + u64::from(last.pages);
                let joins = match (last.slot, slot) {
                    (None, None) => true,
                    (Some(a), Some(b)) => a + u64::from(last.pages) == b,
                    _ => false,
                };
                if joins && last.block == block && next == first && last.pages < u32::MAX {
                    last.pages += 1;
                    continue;
                }
            }
            runs.push(Run {
                block,
                pages: 1,
                first,
                slot,
            });
        }
        let mut table = Vec::with_capacity(runs.len() * RUN_BYTES);
        for run in &runs {
            run.encode(&mut table);
        }
        self.file
            .write_all_at(&table, self.stored_bytes())
            .map_err(io(&self.path))?;
        let mut all = blake3::Hasher::new();
        for slot in &self.slots {
            all.update(&slot.hash);
        }
        let part = PagePart {
            blocks: self.blocks,
            slots: self.slots.len() as u64,
            runs: runs.len() as u64,
            slots_blake3: all.finalize().to_hex().to_string(),
            runs_blake3: blake3::hash(&table).to_hex().to_string(),
        };
        Ok((self.file, self.path, part))
    }
}

/// A page file whose every byte and every run was verified.
#[derive(Debug)]
pub struct PageFile {
    path: PathBuf,
    file: File,
    part: PagePart,
    runs: Vec<Run>,
}

impl PageFile {
    pub(crate) fn open(path: PathBuf, part: PagePart) -> Result<PageFile, DeltaError> {
        let file = File::open(&path).map_err(io(&path))?;
        let found = file.metadata().map_err(io(&path))?.len();
        let expected = part
            .file_bytes()
            .ok_or_else(|| damaged(&path, "its size is impossible"))?;
        if found != expected {
            return Err(DeltaError::Length {
                path,
                expected,
                found,
            });
        }
        // From here on every count is bounded by the length of the real file.
        let mut reader = BufReader::with_capacity(BATCH * PAGE, &file);
        let mut all = blake3::Hasher::new();
        let mut page = [0u8; PAGE];
        for _ in 0..part.slots {
            reader.read_exact(&mut page).map_err(io(&path))?;
            all.update(blake3::hash(&page).as_bytes());
        }
        if all.finalize().to_hex().as_str() != part.slots_blake3 {
            return Err(damaged(&path, "the checksum of the pages is wrong"));
        }
        let mut table = Vec::new();
        reader.read_to_end(&mut table).map_err(io(&path))?;
        if blake3::hash(&table).to_hex().as_str() != part.runs_blake3 {
            return Err(damaged(&path, "the checksum of the table is wrong"));
        }
        drop(reader);
        let (records, rest) = table.as_chunks::<RUN_BYTES>();
        if records.len() as u64 != part.runs || !rest.is_empty() {
            return Err(damaged(&path, "the table is cut short"));
        }
        let runs: Vec<Run> = records.iter().map(Run::decode).collect();
        check_runs(&path, &part, &runs)?;
        Ok(PageFile {
            path,
            file,
            part,
            runs,
        })
    }

    /// What it holds.
    pub fn part(&self) -> &PagePart {
        &self.part
    }

    /// Its runs, sorted.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Gives every page to `apply`, in batches of contiguous pages:
    /// position of the block, byte offset in it, content.
    pub fn for_each<E: From<DeltaError>>(
        &self,
        mut apply: impl FnMut(u32, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0u8; BATCH * PAGE];
        for run in &self.runs {
            let mut done = 0u64;
            while done < u64::from(run.pages) {
                let now = (u64::from(run.pages) - done).min(BATCH as u64);
                let bytes = &mut buffer[..now as usize * PAGE];
                match run.slot {
                    None => bytes.fill(0),
                    Some(slot) => self
                        .file
                        .read_exact_at(bytes, (slot + done) * PAGE as u64)
                        .map_err(io(&self.path))?,
                }
                apply(run.block, (run.first + done) * PAGE as u64, bytes)?;
                done += now;
            }
        }
        Ok(())
    }
}

fn check_runs(path: &Path, part: &PagePart, runs: &[Run]) -> Result<(), DeltaError> {
    let mut before: Option<(u32, u64)> = None;
    for run in runs {
        let Some(block) = part.blocks.get(run.block as usize) else {
            return Err(damaged(path, "a run names a RAM block that does not exist"));
        };
        let end = run.first.checked_add(u64::from(run.pages));
        let Some(end) = end.filter(|end| run.pages > 0 && *end <= block.bytes / PAGE as u64) else {
            return Err(damaged(path, "a run lies outside of its RAM block"));
        };
        if before.is_some_and(|b| b > (run.block, run.first)) {
            return Err(damaged(path, "runs overlap"));
        }
        before = Some((run.block, end));
        if let Some(slot) = run.slot
            && slot
                .checked_add(u64::from(run.pages))
                .is_none_or(|end| end > part.slots)
        {
            return Err(damaged(path, "a run points outside of the file"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "pagefile_tests.rs"]
mod tests;
