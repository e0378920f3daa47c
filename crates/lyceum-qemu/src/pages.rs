//! A running QEMU's memory, from outside: which pages of the mapped release are its
//! own, what is in them, and putting pages into a machine that has not started yet.

use crate::util::io_error;
use lyceum_hypervisor::HypervisorError;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page belongs to a file: nobody wrote to it through this mapping.
const OF_FILE: u64 = 1 << 61;

/// A RAM block as QEMU lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamBlock {
    /// QEMU's name for it.
    pub name: String,
    /// Bytes in use, rounded up to whole pages.
    pub bytes: u64,
    /// Where it lies in QEMU's address space.
    pub address: u64,
}

/// Reads what `x-query-ramblock` answers:
///
/// ```text
///  Block Name    PSize              Offset               Used              Total                HVA  RO
///         ram    4 KiB  0x0000000000000000 0x0000000030000000 0x0000000030000000 0x00007f6f6ffff000  rw
/// ```
pub fn parse_ram_blocks(text: &str) -> Result<Vec<RamBlock>, String> {
    let mut blocks = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        // Counted from the end, in case a name holds spaces.
        let number = |from_end: usize| -> Option<u64> {
            let text = fields.get(fields.len().checked_sub(from_end)?)?;
            u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        };
        let (Some(used), Some(address)) = (number(4), number(2)) else {
            return Err(format!(
                "QEMU's list of RAM blocks has a line that is not understood: {line:?}"
            ));
        };
        let bytes = used
            .checked_next_multiple_of(PAGE)
            .filter(|b| address.checked_add(*b).is_some());
        let Some(bytes) = bytes else {
            return Err(format!(
                "QEMU lists a RAM block of impossible size: {line:?}"
            ));
        };
        if fields.len() < 8 {
            return Err(format!("QEMU lists a RAM block without a name: {line:?}"));
        }
        let name = fields[..fields.len() - 7].join(" ");
        if bytes > 0 {
            blocks.push(RamBlock {
                name,
                bytes,
                address,
            });
        }
    }
    Ok(blocks)
}

/// Contiguous pages: number of the first one, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// Number of the first page, from the beginning of the block.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// Runs of private pages among pagemap entries of contiguous pages.
fn private_runs(entries: &[u8], first: u64, runs: &mut Vec<PageRun>) {
    for (page, entry) in (first..).zip(entries.as_chunks::<8>().0) {
        let entry = u64::from_ne_bytes(*entry);
        if entry & (PRESENT | SWAPPED) == 0 || entry & OF_FILE != 0 {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.first + run.count == page => run.count += 1,
            _ => runs.push(PageRun {
                first: page,
                count: 1,
            }),
        }
    }
}

/// The memory of a process.
#[derive(Debug)]
pub struct Memory {
    memory: File,
    pagemap: File,
    scratch: Vec<u8>,
}

impl Memory {
    /// Opens it. Needs root, or the same user and permission to trace it.
    pub fn open(pid: u32, write: bool) -> Result<Memory, HypervisorError> {
        let hint = "needs root, or the same user and kernel.yama.ptrace_scope=0";
        let path = format!("/proc/{pid}/mem");
        let memory = File::options()
            .read(true)
            .write(write)
            .open(&path)
            .map_err(io_error(format!("opening {path} ({hint})")))?;
        let path = format!("/proc/{pid}/pagemap");
        let pagemap = File::open(&path).map_err(io_error(format!("opening {path} ({hint})")))?;
        Ok(Memory {
            memory,
            pagemap,
            scratch: Vec::new(),
        })
    }

    /// Pages of the block that the process has of its own.
    pub fn private_pages(&self, block: &RamBlock) -> Result<Vec<PageRun>, HypervisorError> {
        const BATCH: u64 = 128 * 1024;
        let pages = block.bytes / PAGE;
        let mut buffer = vec![0u8; (pages.min(BATCH) * 8) as usize];
        let mut runs = Vec::new();
        let mut at = 0;
        while at < pages {
            let now = (pages - at).min(BATCH);
            let entries = &mut buffer[..(now * 8) as usize];
            self.pagemap
                .read_exact_at(entries, (block.address / PAGE + at) * 8)
                .map_err(io_error("reading the page map of QEMU"))?;
            private_runs(entries, at, &mut runs);
            at += now;
        }
        Ok(runs)
    }

    /// Gives the contents of the pages to `take`, at most 1 MiB at a time: number of the
    /// first page, bytes.
    pub fn read_pages(
        &self,
        block: &RamBlock,
        runs: &[PageRun],
        mut take: impl FnMut(u64, &[u8]) -> Result<(), HypervisorError>,
    ) -> Result<(), HypervisorError> {
        const BATCH: u64 = 256;
        let mut buffer = vec![0u8; (BATCH * PAGE) as usize];
        for run in runs {
            let mut done = 0;
            while done < run.count {
                let now = (run.count - done).min(BATCH);
                let bytes = &mut buffer[..(now * PAGE) as usize];
                self.memory
                    .read_exact_at(bytes, block.address + (run.first + done) * PAGE)
                    .map_err(io_error("reading the memory of QEMU"))?;
                take(run.first + done, bytes)?;
                done += now;
            }
        }
        Ok(())
    }

    /// Writes those pages whose content is another than what is there: a page that is left alone goes
    /// on being shared, or needs no memory at all. The caller has checked that it lies within.
    pub fn write_differing(
        &mut self,
        block: &RamBlock,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), HypervisorError> {
        let mut there = std::mem::take(&mut self.scratch);
        there.resize(bytes.len(), 0);
        self.memory
            .read_exact_at(&mut there, block.address + offset)
            .map_err(io_error("reading the memory of QEMU"))?;
        let page = PAGE as usize;
        let mut from = None;
        for at in 0..=bytes.len() / page {
            let range = at * page..(at * page + page).min(bytes.len());
            let differs = !range.is_empty() && bytes[range.clone()] != there[range];
            match (differs, from) {
                (true, None) => from = Some(at),
                (false, Some(first)) => {
                    let start = first * page;
                    self.write(block, offset + start as u64, &bytes[start..at * page])?;
                    from = None;
                }
                _ => {}
            }
        }
        self.scratch = there;
        Ok(())
    }

    /// Writes into a block. The caller has checked that it lies within.
    pub fn write(
        &self,
        block: &RamBlock,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), HypervisorError> {
        self.memory
            .write_all_at(bytes, block.address + offset)
            .map_err(io_error("writing the memory of QEMU"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_list_is_read_and_nonsense_refused() {
        let head = "              Block Name    PSize              Offset               Used              Total                HVA  RO\n";
        let good = "   0000:00:02.0/vga.vram    4 KiB  0x0000000010080000 0x0000000000800000 0x0000000000800000 0x00007f6fcc200000  rw\n /rom@etc/acpi/rsdp    4 KiB  0x0000000010b00000 0x0000000000000024 0x0000000000001000 0x00007f6f6f600000  ro\n\n";
        let blocks = parse_ram_blocks(&format!("{head}{good}")).expect("read");
        assert_eq!(blocks.len(), 2);
        assert_eq!(
            blocks[0],
            RamBlock {
                name: "0000:00:02.0/vga.vram".into(),
                bytes: 8 << 20,
                address: 0x7f6f_cc20_0000
            }
        );
        assert_eq!(blocks[1].bytes, 4096);
        for bad in [
            "x",
            "ram 4 KiB 0x0 0x1 0x1 zz rw",
            "4 KiB 0x0 0x1 0x1 0x1 rw",
            "r 4 KiB 0x0 0xffffffffffffffff 0x1 0x1 rw",
        ] {
            assert!(parse_ram_blocks(&format!("{head}{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_means_present_or_swapped_and_not_of_the_file() {
        let entries = [
            PRESENT,
            SWAPPED,
            PRESENT | OF_FILE,
            0,
            SWAPPED | OF_FILE,
            PRESENT | 7,
        ];
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_ne_bytes()).collect();
        let mut runs = Vec::new();
        private_runs(&bytes, 10, &mut runs);
        assert_eq!(
            runs,
            [
                PageRun {
                    first: 10,
                    count: 2
                },
                PageRun {
                    first: 15,
                    count: 1
                }
            ]
        );
    }

    /// The kernel really tells written pages of a private file mapping from others.
    #[test]
    fn written_pages_of_a_private_mapping_are_found() {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
        let mut file = tempfile::tempfile().expect("file");
        std::io::Write::write_all(&mut file, &vec![1u8; 64 * 4096]).expect("fill");
        let length = std::num::NonZeroUsize::new(64 * 4096).expect("not zero");
        // SAFETY: a new mapping of our own file, unmapped below, used only within its bounds.
        let map = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
                &file,
                0,
            )
        }
        .expect("mmap");
        let start = map.cast::<u8>().as_ptr();
        // SAFETY: within the mapping.
        unsafe {
            assert_eq!(start.add(3 * 4096).read_volatile(), 1);
            for page in [5usize, 6, 40] {
                start.add(page * 4096 + 9).write_volatile(7);
            }
        }
        let block = RamBlock {
            name: "ram".into(),
            bytes: 64 * 4096,
            address: start as u64,
        };
        let memory = Memory::open(std::process::id(), false).expect("open");
        let runs = memory.private_pages(&block).expect("runs");
        assert_eq!(
            runs,
            [
                PageRun { first: 5, count: 2 },
                PageRun {
                    first: 40,
                    count: 1
                }
            ]
        );
        let mut seen = Vec::new();
        memory
            .read_pages(&block, &runs, |first, bytes| {
                seen.push((first, bytes.len(), bytes[9], bytes[10]));
                Ok(())
            })
            .expect("read");
        assert_eq!(seen, [(5, 8192, 7, 1), (40, 4096, 7, 1)]);
        // SAFETY: mapped above, not used any more.
        unsafe { munmap(map, length.get()) }.expect("munmap");
    }
}
