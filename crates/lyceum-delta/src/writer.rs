//! Writes a delta so that it appears whole or not at all.

use crate::error::io;
use crate::header::{BlockInfo, FORMAT, FilePart, Header};
use crate::pagefile::PageWriter;
use crate::{BLOCKS_FILE, DEVICE_STATE_FILE, DeltaError, HEADER_FILE, OVERLAY_FILE, PAGES_FILE};
use lyceum_model::{MachineSize, Platform, ReleaseId};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the delta is of.
#[derive(Debug, Clone)]
pub struct Description {
    /// The release it is a delta to.
    pub release: ReleaseId,
    /// What it is made on.
    pub platform: Platform,
    /// Size of the machine.
    pub size: MachineSize,
    /// The machine's VM generation id.
    pub vm_generation_id: uuid::Uuid,
    /// MAC address of its network card.
    pub nic_mac: Option<String>,
}

/// A delta that is being written. Dropped before [`DeltaWriter::finish`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct DeltaWriter {
    out: PathBuf,
    partial: PathBuf,
    finished: bool,
}

impl DeltaWriter {
    /// Begins `OUT.partial`. What an interrupted writer left there is removed.
    pub fn create(out: &Path) -> Result<DeltaWriter, DeltaError> {
        if out.symlink_metadata().is_ok() {
            return Err(DeltaError::Invalid(format!(
                "{} is there already",
                out.display()
            )));
        }
        let Some(name) = out.file_name() else {
            return Err(DeltaError::Invalid(format!(
                "{} is no name for a folder",
                out.display()
            )));
        };
        let mut partial = name.to_owned();
        partial.push(lyceum_model::disk::layout::PARTIAL);
        let partial = out.with_file_name(partial);
        match fs::remove_dir_all(&partial) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&partial)(e)),
            _ => {}
        }
        fs::create_dir(&partial).map_err(io(&partial))?;
        Ok(DeltaWriter {
            out: out.to_owned(),
            partial,
            finished: false,
        })
    }

    /// Where the copied overlay goes, before [`DeltaWriter::finish`].
    pub fn overlay_path(&self) -> PathBuf {
        self.partial.join(OVERLAY_FILE)
    }

    /// Begins the pages of the release's RAM, which is block 0.
    /// `ram`: QEMU's name and the length of that RAM block.
    pub fn pages(&self, ram: BlockInfo) -> Result<PageWriter, DeltaError> {
        PageWriter::create(self.partial.join(PAGES_FILE), vec![ram])
    }

    /// Begins the other RAM blocks.
    pub fn blocks(&self, blocks: Vec<BlockInfo>) -> Result<PageWriter, DeltaError> {
        PageWriter::create(self.partial.join(BLOCKS_FILE), blocks)
    }

    /// Writes the rest, brings everything to stable storage and gives the folder
    /// its name. An overlay at [`DeltaWriter::overlay_path`] becomes part of it.
    pub fn finish(
        mut self,
        what: Description,
        pages: PageWriter,
        blocks: PageWriter,
        device_state: &[u8],
    ) -> Result<Header, DeltaError> {
        let (pages_file, pages_path, pages) = pages.finish()?;
        let (blocks_file, blocks_path, blocks) = blocks.finish()?;
        let device_path = self.partial.join(DEVICE_STATE_FILE);
        let mut device_file = File::create_new(&device_path).map_err(io(&device_path))?;
        device_file
            .write_all(device_state)
            .map_err(io(&device_path))?;
        let overlay_path = self.overlay_path();
        let overlay_file = match File::open(&overlay_path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(io(&overlay_path)(e)),
        };
        let overlay = match &overlay_file {
            None => None,
            Some(file) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(file).map_err(io(&overlay_path))?;
                Some(FilePart {
                    bytes: hasher.count(),
                    blake3: hasher.finalize().to_hex().to_string(),
                })
            }
        };
        let header = Header {
            format: FORMAT,
            release: what.release,
            platform: what.platform,
            size: what.size,
            vm_generation_id: what.vm_generation_id,
            nic_mac: what.nic_mac,
            pages,
            blocks,
            device_state: FilePart {
                bytes: device_state.len() as u64,
                blake3: blake3::hash(device_state).to_hex().to_string(),
            },
            overlay,
        };
        let header_path = self.partial.join(HEADER_FILE);
        let mut header_file = File::create_new(&header_path).map_err(io(&header_path))?;
        header_file
            .write_all(&header.to_bytes()?)
            .map_err(io(&header_path))?;

        // One thread per file, so that the device sees the writes together.
        let dir = File::open(&self.partial).map_err(io(&self.partial))?;
        let mut files = vec![
            (&pages_file, &pages_path),
            (&blocks_file, &blocks_path),
            (&device_file, &device_path),
            (&header_file, &header_path),
            (&dir, &self.partial),
        ];
        if let Some(file) = &overlay_file {
            files.push((file, &overlay_path));
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = files
                .iter()
                .map(|(file, path)| scope.spawn(move || file.sync_all().map_err(io(path))))
                .collect();
            threads.into_iter().try_for_each(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(DeltaError::Invalid("a thread ended early".into())))
            })
        })?;
        fs::rename(&self.partial, &self.out).map_err(io(&self.out))?;
        if let Some(parent) = self.out.parent()
            && let Err(e) = File::open(parent).and_then(|d| d.sync_all())
        {
            // An error means "not there", also for whoever looks at the folder.
            fs::rename(&self.out, &self.partial).map_err(io(&self.out))?;
            return Err(io(parent)(e));
        }
        self.finished = true;
        Ok(header)
    }
}

impl Drop for DeltaWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}
