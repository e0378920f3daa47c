//! Copying one file of a release: going on where it was broken off, taking blocks from releases
//! that are here already, and believing nothing but the hash in the manifest.

use lyceum_model::blocks::{BLOCK, BlockHash, Blocks, SUFFIX};
use lyceum_model::disk::layout;
use lyceum_model::release::FileEntry;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The most blocks that are remembered, some 100 MB of memory: releases of 64 GiB.
const MAX_KNOWN: usize = 1 << 20;

/// Blocks that releases on this host have.
#[derive(Default)]
pub(super) struct Known {
    files: Vec<File>,
    /// In which file, and the how manyth.
    at: HashMap<BlockHash, (u32, u32)>,
}

impl Known {
    /// Those of releases in these folders. What can't be read is not known.
    pub(super) fn of(folders: impl Iterator<Item = PathBuf>) -> Known {
        let mut known = Known::default();
        for folder in folders {
            for name in [layout::RELEASE_DISK, layout::RELEASE_RAM] {
                let path = folder.join(name);
                let Ok(file) = File::open(&path) else {
                    continue;
                };
                let bytes = file.metadata().map_or(0, |m| m.len());
                let Some(list) = read_list(&path, bytes) else {
                    continue;
                };
                let index = known.files.len() as u32;
                known.files.push(file);
                for (n, hash) in list.hashes.iter().enumerate() {
                    if known.at.len() >= MAX_KNOWN {
                        return known;
                    }
                    known.at.entry(*hash).or_insert((index, n as u32));
                }
            }
        }
        known
    }

    /// Reads a block here, if there is one with that hash, and is it still.
    fn read(&self, hash: &BlockHash, into: &mut [u8]) -> bool {
        let Some((file, n)) = self.at.get(hash) else {
            return false;
        };
        let Some(file) = self.files.get(*file as usize) else {
            return false;
        };
        file.read_exact_at(into, u64::from(*n) * BLOCK as u64)
            .is_ok()
            && blake3::hash(into).as_bytes() == hash
    }
}

/// The list of blocks beside a file of so many bytes.
fn read_list(path: &Path, bytes: u64) -> Option<Blocks> {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    let mut list = Vec::new();
    File::open(name)
        .ok()?
        .take(Blocks::list_bytes(bytes).saturating_add(1))
        .read_to_end(&mut list)
        .ok()?;
    Blocks::read(&list, bytes)
}

/// One file to copy.
pub(super) struct Job<'a> {
    pub(super) name: &'static str,
    pub(super) entry: &'a FileEntry,
    pub(super) from: &'a Path,
    pub(super) to: &'a Path,
    pub(super) stop: &'a AtomicBool,
    pub(super) done: &'a AtomicU64,
}

/// Where its bytes came from. Holes came from nowhere.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) from_server: u64,
    pub(super) from_here: u64,
}

/// Why a file was not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{0}")]
    Io(String),
    #[error("the agent is about to end; the copy is gone on with later")]
    Stopped,
    /// The bytes are not the manifest's: those here, or those of the file server.
    #[error("its file {0} is not what its manifest says")]
    Different(&'static str),
}

impl Job<'_> {
    fn io(&self, what: &str, path: &Path) -> impl Fn(std::io::Error) -> CopyError {
        let text = format!("{what} {}", path.display());
        move |e| CopyError::Io(format!("{text} failed ({e})"))
    }

    /// Copies it to its end. What is there from before is gone on with; where that, or a list of
    /// blocks, turns out to be wrong in the end, it is copied once more from the beginning and
    /// from the file server alone.
    pub(super) fn run(&self, known: &Known) -> Result<Copied, CopyError> {
        let began = self.done.load(Ordering::Relaxed);
        match self.attempt(known, true) {
            Err(CopyError::Different(_)) => {
                tracing::warn!(
                    "{} is copied again: what was there was damaged",
                    self.to.display()
                );
                self.done.store(began, Ordering::Relaxed);
                match std::fs::remove_file(self.to) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(self.io("removing", self.to)(e));
                    }
                    _ => {}
                }
                let again = self.attempt(&Known::default(), false);
                if matches!(again, Err(CopyError::Different(_))) {
                    let _ = std::fs::remove_file(self.to);
                }
                again
            }
            result => result,
        }
    }

    fn attempt(&self, known: &Known, lists: bool) -> Result<Copied, CopyError> {
        let source = File::open(self.from).map_err(self.io("opening", self.from))?;
        let list = lists
            .then(|| read_list(self.from, self.entry.bytes))
            .flatten();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(self.to)
            .map_err(self.io("opening", self.to))?;
        let mut copied = Copied::default();
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0u8; BLOCK];
        let mut at = self.resume(&file, list.as_ref(), &mut hasher, &mut buffer)?;
        while at < self.entry.bytes {
            if self.stop.load(Ordering::Relaxed) {
                return Err(CopyError::Stopped);
            }
            let n = (self.entry.bytes - at).min(BLOCK as u64) as usize;
            let piece = &mut buffer[..n];
            let hash = list
                .as_ref()
                .and_then(|l| l.hashes.get((at / BLOCK as u64) as usize));
            match hash {
                Some(hash) if known.read(hash, piece) => copied.from_here += n as u64,
                _ => {
                    match source.read_exact_at(piece, at) {
                        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                            return Err(CopyError::Different(self.name));
                        }
                        read => read.map_err(self.io("reading", self.from))?,
                    }
                    copied.from_server += n as u64;
                }
            }
            hasher.update(piece);
            let end = at + n as u64;
            if piece.iter().all(|b| *b == 0) {
                // A hole; the length says how far the copy has come.
                file.set_len(end).map_err(self.io("writing", self.to))?;
            } else {
                file.write_all_at(piece, at)
                    .map_err(self.io("writing", self.to))?;
            }
            at = end;
            self.done.fetch_add(n as u64, Ordering::Relaxed);
        }
        if hasher.finalize().to_hex().as_str() != self.entry.blake3 {
            return Err(CopyError::Different(self.name));
        }
        file.sync_all().map_err(self.io("writing", self.to))?;
        self.keep_list(list.as_ref());
        Ok(copied)
    }

    /// How much is there from before, as far as it is right by the list, and into the hash with it.
    fn resume(
        &self,
        file: &File,
        list: Option<&Blocks>,
        hasher: &mut blake3::Hasher,
        buffer: &mut [u8],
    ) -> Result<u64, CopyError> {
        let there = file
            .metadata()
            .map_err(self.io("looking at", self.to))?
            .len()
            .min(self.entry.bytes);
        let mut at = 0;
        while at < there {
            if self.stop.load(Ordering::Relaxed) {
                return Err(CopyError::Stopped);
            }
            let n = (self.entry.bytes - at).min(BLOCK as u64) as usize;
            // The last block may have been cut off in its middle.
            if at + n as u64 > there {
                break;
            }
            let piece = &mut buffer[..n];
            file.read_exact_at(piece, at)
                .map_err(self.io("reading", self.to))?;
            let hash = list.and_then(|l| l.hashes.get((at / BLOCK as u64) as usize));
            if hash.is_some_and(|hash| blake3::hash(piece).as_bytes() != hash) {
                break;
            }
            hasher.update(piece);
            at += n as u64;
        }
        file.set_len(at).map_err(self.io("writing", self.to))?;
        self.done.fetch_add(at, Ordering::Relaxed);
        Ok(at)
    }

    /// Beside the copy, for the next release. It was right: the whole file is.
    fn keep_list(&self, list: Option<&Blocks>) {
        let Some(list) = list else { return };
        let mut name = self.to.as_os_str().to_owned();
        name.push(SUFFIX);
        if let Err(e) = std::fs::write(&name, list.to_bytes()) {
            tracing::warn!("{}: {e}", Path::new(&name).display());
        }
    }
}
