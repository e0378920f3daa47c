//! Opens a delta and verifies it.

use crate::error::{damaged, io};
use crate::header::{FilePart, Header, MAX_HEADER};
use crate::pagefile::PageFile;
use crate::{BLOCKS_FILE, DEVICE_STATE_FILE, DeltaError, HEADER_FILE, OVERLAY_FILE, PAGES_FILE};
use lyceum_model::{MachineSize, Platform, ReleaseId};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a delta must belong to in order to be used.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// The release whose RAM is mapped.
    pub release: &'a ReleaseId,
    /// What this host offers.
    pub platform: &'a Platform,
    /// Size of the desktop.
    pub size: MachineSize,
}

/// A delta that was verified. Files in it are not changed once they are there, so
/// what was verified is what is used.
#[derive(Debug)]
pub struct Delta {
    dir: PathBuf,
    header: Header,
    pages: PageFile,
    blocks: PageFile,
}

impl Delta {
    /// Reads the header alone, for listings. Nothing else is verified.
    pub fn read_header(dir: &Path) -> Result<Header, DeltaError> {
        let path = dir.join(HEADER_FILE);
        let file = File::open(&path).map_err(io(&path))?;
        let mut bytes = Vec::new();
        file.take(MAX_HEADER + 1)
            .read_to_end(&mut bytes)
            .map_err(io(&path))?;
        if bytes.len() as u64 > MAX_HEADER {
            return Err(damaged(&path, "it is too long"));
        }
        Header::from_bytes(&path, &bytes)
    }

    /// Opens the folder, compares what it belongs to and verifies every byte of
    /// it, but of the overlay only the length.
    pub fn open(dir: &Path, expect: Expect<'_>) -> Result<Delta, DeltaError> {
        let header = Delta::read_header(dir)?;
        if &header.release != expect.release {
            return Err(DeltaError::OtherRelease {
                found: header.release.to_string(),
                expected: expect.release.to_string(),
            });
        }
        // A disk is booted on any platform, in a machine of any size.
        let memory = header.holds_memory();
        if let Some(difference) = header.platform.difference(expect.platform)
            && memory
        {
            return Err(DeltaError::OtherPlatform(difference));
        }
        if memory && header.size != expect.size {
            let words = |s: MachineSize| format!("{} vCPU and {} MiB", s.vcpus, s.memory_mib);
            return Err(DeltaError::OtherSize {
                found: words(header.size),
                expected: words(expect.size),
            });
        }
        if let Some(overlay) = &header.overlay {
            check_length(&dir.join(OVERLAY_FILE), overlay)?;
        }
        verify(&dir.join(DEVICE_STATE_FILE), &header.device_state)?;
        let blocks = PageFile::open(dir.join(BLOCKS_FILE), header.blocks.clone())?;
        let pages = PageFile::open(dir.join(PAGES_FILE), header.pages.clone())?;
        Ok(Delta {
            dir: dir.to_owned(),
            header,
            pages,
            blocks,
        })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Pages of the release's RAM that were written.
    pub fn pages(&self) -> &PageFile {
        &self.pages
    }

    /// The other RAM blocks.
    pub fn blocks(&self) -> &PageFile {
        &self.blocks
    }

    /// Path of the device state.
    pub fn device_state(&self) -> PathBuf {
        self.dir.join(DEVICE_STATE_FILE)
    }

    /// Verifies the copied overlay, or a copy of that copy: whoever makes a desktop's
    /// disk from it calls this on what was made. Does nothing for a delta without an overlay.
    pub fn verify_overlay(header: &Header, file: &Path) -> Result<(), DeltaError> {
        match &header.overlay {
            None => Ok(()),
            Some(part) => verify(file, part),
        }
    }
}

fn check_length(path: &Path, part: &FilePart) -> Result<(), DeltaError> {
    let found = std::fs::metadata(path).map_err(io(path))?.len();
    if found == part.bytes {
        return Ok(());
    }
    Err(DeltaError::Length {
        path: path.to_owned(),
        expected: part.bytes,
        found,
    })
}

fn verify(path: &Path, part: &FilePart) -> Result<(), DeltaError> {
    check_length(path, part)?;
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(io(path))?;
    hasher.update_reader(file).map_err(io(path))?;
    if hasher.finalize().to_hex().as_str() != part.blake3 {
        return Err(damaged(path, "the checksum is wrong"));
    }
    Ok(())
}
