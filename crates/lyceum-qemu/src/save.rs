//! Suspend and capture: a running desktop becomes a delta.
//!
//! ```text
//! round 1   the guest runs: pages it wrote are copied, each with its hash
//! stop      disk I/O drained, caches flushed
//! state     device state into QEMU's own directory
//! round 2   pages that are new or changed since
//! blocks    video memory and ROM copies
//!   suspend: to stable storage, rename, QEMU quits     on any error: the guest goes on
//!   capture: overlay copied, the guest goes on, to stable storage, rename
//! ```
//!
//! A machine that shares no memory with its release is captured in the same way without its pages: what is left is its
//! disk, which the guest is asked to make up to date first.

use crate::instance::QemuInstance;
use crate::machine::{self, SAVED_STATE};
use crate::pages::{Memory, PAGE, PageRun, RamBlock};
use crate::start::ram_blocks;
use crate::util::{blocking, io_error, read_untrusted};
use lyceum_delta::pagefile::PageWriter;
use lyceum_delta::{BlockInfo, DeltaError, DeltaWriter, Description};
use lyceum_hypervisor::{DeltaSummary, HypervisorError, SealedFiles, StartFrom};
use lyceum_model::ReleaseId;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Device state without RAM is about 100 kB.
const MAX_STATE: u64 = 64 << 20;
/// Bytes of device state before its first section: magic and version.
const STATE_HEADER: usize = 8;
/// The kind of the section that names the machine type.
const CONFIGURATION: u8 = 7;
const SAVE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest may take to write out what it holds, before its disk alone is captured.
const SYNC_PATIENCE: Duration = Duration::from_secs(20);

type Result<T> = std::result::Result<T, HypervisorError>;

pub(crate) fn delta_error(error: DeltaError) -> HypervisorError {
    match error {
        DeltaError::Io { path, source } => HypervisorError::Io {
            what: path.display().to_string(),
            source,
        },
        other => HypervisorError::State(other.to_string()),
    }
}

/// The release that the machine is a fork of.
pub(crate) fn release(instance: &QemuInstance) -> Result<&SealedFiles> {
    let from = &instance.request.from;
    from.shares().ok_or_else(|| HypervisorError::State(match from {
        StartFrom::Arrive { .. } => "all of its memory came here with a live migration, so it shares none with its release any more: stop it instead".into(),
        _ => "the machine was booted cold, so there is no sealed memory to save its changes against: stop it instead".into(),
    }))
}

/// The release that its disk lies over.
fn disk_release(instance: &QemuInstance) -> Result<&ReleaseId> {
    let shares = instance.request.from.shares().map(|s| &s.release);
    shares.or(instance.request.disk.release.as_ref()).ok_or_else(|| {
        HypervisorError::State(
            "its disk is no desktop's, or it was started by an earlier version: stop it and start it again".into(),
        )
    })
}

pub(crate) async fn suspend(instance: &QemuInstance, out: &Path) -> Result<DeltaSummary> {
    let (_busy, began) = begin(instance, "suspend")?;
    release(instance)?;
    let first = first_round(instance, out).await?;
    let stopped_at = Instant::now();
    let written = match stopped(instance, first, false).await {
        Ok(stopped) => finish(instance, stopped).await,
        Err(e) => Err(e),
    };
    let mut summary = match written {
        Ok(summary) => summary,
        Err(e) => return Err(go_on(instance, e).await),
    };
    // From here on the delta is the desktop.
    instance.note_end("it was suspended", true);
    instance.quit().await?;
    summary.stand_still_ms = stopped_at.elapsed().as_millis() as u64;
    summary.total_ms = began.elapsed().as_millis() as u64;
    instance.dir.remove()?;
    Ok(summary)
}

pub(crate) async fn capture(instance: &QemuInstance, out: &Path) -> Result<DeltaSummary> {
    let (_busy, began) = begin(instance, "capture")?;
    disk_release(instance)?;
    let disk_only = instance.request.from.shares().is_none();
    let mut not_flushed = None;
    if disk_only {
        // What it holds in memory is lost with it. One that does not answer is captured all the same.
        let synced = instance.guest.sync(SYNC_PATIENCE).await;
        not_flushed = synced.err().map(|e| e.to_string());
    }
    let first = first_round(instance, out).await?;
    let stopped_at = Instant::now();
    let stopped = match stopped(instance, first, true).await {
        Ok(stopped) => stopped,
        Err(e) => return Err(go_on(instance, e).await),
    };
    instance.qmp.execute("cont", Value::Null).await?;
    let stand_still_ms = stopped_at.elapsed().as_millis() as u64;
    let mut summary = finish(instance, stopped).await?;
    summary.disk_only = disk_only;
    summary.not_flushed = not_flushed;
    summary.stand_still_ms = stand_still_ms;
    summary.total_ms = began.elapsed().as_millis() as u64;
    Ok(summary)
}

fn begin<'a>(
    instance: &'a QemuInstance,
    what: &str,
) -> Result<(tokio::sync::MutexGuard<'a, ()>, Instant)> {
    instance.must_run(what)?;
    let busy = instance.saving.try_lock().map_err(|_| {
        HypervisorError::State(format!("can't {what}: the machine is being saved already"))
    })?;
    Ok((busy, Instant::now()))
}

/// The machine goes on after a failure; if it can't, that is said too.
async fn go_on(instance: &QemuInstance, error: HypervisorError) -> HypervisorError {
    match instance.qmp.execute("cont", Value::Null).await {
        Ok(_) => error,
        Err(e) => HypervisorError::State(format!("{error}; and it could not go on: {e}")),
    }
}

/// What there is after the first round.
struct First {
    writer: DeltaWriter,
    pages: PageWriter,
    /// `None`: it shares no memory with its release, so none is copied.
    memory: Option<Memory>,
    ram: RamBlock,
    others: Vec<RamBlock>,
}

async fn first_round(instance: &QemuInstance, out: &Path) -> Result<First> {
    let (ram, others) = ram_blocks(instance).await?;
    let (pid, out) = (instance.process.mark.pid, out.to_owned());
    let shares = instance.request.from.shares().is_some();
    blocking(move || {
        let memory = match shares {
            true => Some(Memory::open(pid, false)?),
            false => None,
        };
        let writer = DeltaWriter::create(&out).map_err(delta_error)?;
        let mut pages = writer
            .pages(BlockInfo {
                name: ram.name.clone(),
                bytes: ram.bytes,
            })
            .map_err(delta_error)?;
        if let Some(memory) = &memory {
            let runs = memory.private_pages(&ram)?;
            copy(memory, &ram, &runs, 0, &mut pages)?;
            start_writeback(&pages.start_writeback().map_err(delta_error)?);
        }
        Ok(First {
            writer,
            pages,
            memory,
            ram,
            others,
        })
    })
    .await
}

/// Asks the kernel to begin writing, so that less is left for the end. It is only a hint.
fn start_writeback(file: &File) {
    // SAFETY: a system call on an open descriptor.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

fn copy(
    memory: &Memory,
    block: &RamBlock,
    runs: &[PageRun],
    number: u32,
    to: &mut PageWriter,
) -> Result<()> {
    memory.read_pages(block, runs, |first, bytes| {
        to.put(number, first, bytes).map(drop).map_err(delta_error)
    })
}

/// What there is at the moment the guest stands still.
struct Stopped {
    writer: DeltaWriter,
    pages: PageWriter,
    blocks: PageWriter,
    state: Vec<u8>,
    overlay_bytes: u64,
}

/// Stops the guest (its disk I/O is drained) and saves its device state, with which QEMU flushes its
/// disk and gives up its locks until the guest goes on. Where the state is.
pub(crate) async fn stop_and_save_state(instance: &QemuInstance) -> Result<PathBuf> {
    instance
        .qmp
        .execute_within("stop", Value::Null, SAVE_PATIENCE)
        .await?;
    let arguments = json!({ "filename": machine::saved_state_uri(), "live": false });
    instance
        .qmp
        .execute_within("xen-save-devices-state", arguments, SAVE_PATIENCE)
        .await?;
    Ok(instance.dir.own().join(SAVED_STATE))
}

/// The saved device state, which is removed.
pub(crate) fn read_state(saved: &Path) -> Result<Vec<u8>> {
    let state = read_device_state(saved)?;
    let _ = std::fs::remove_file(saved);
    Ok(state)
}

pub(crate) fn read_device_state(from: &Path) -> Result<Vec<u8>> {
    read_untrusted(from, MAX_STATE).map_err(io_error(format!(
        "reading the device state {}",
        from.display()
    )))
}

/// Device state that was saved alone, with the section that names the machine type put before all others, as every migration has it. QEMU
/// could be told to do without (`send-configuration=off`), but then it ends, with a failed assertion, when it is to be
/// migrated live later.
pub(crate) fn as_migrated(mut state: Vec<u8>, machine_type: &str) -> Vec<u8> {
    let first = state.get(STATE_HEADER);
    if first.is_some_and(|kind| *kind != CONFIGURATION) {
        let mut section = vec![CONFIGURATION];
        section.extend((machine_type.len() as u32).to_be_bytes());
        section.extend(machine_type.as_bytes());
        state.splice(STATE_HEADER..STATE_HEADER, section);
    }
    state
}

async fn stopped(instance: &QemuInstance, first: First, copy_overlay: bool) -> Result<Stopped> {
    let saved = stop_and_save_state(instance).await?;
    let overlay = instance.request.disk.top.clone();
    blocking(move || {
        let First {
            writer,
            mut pages,
            memory,
            ram,
            others,
        } = first;
        let mut state = read_state(&saved)?;
        let blocks = match memory {
            Some(memory) => last_round(&memory, &ram, &others, &writer, &mut pages)?,
            None => {
                state.clear();
                writer.blocks(Vec::new()).map_err(delta_error)?
            }
        };
        if copy_overlay {
            copy_file(&overlay, &writer.overlay_path())
                .map_err(io_error(format!("copying {}", overlay.display())))?;
        }
        let meta = std::fs::metadata(&overlay).map_err(io_error(overlay.display().to_string()))?;
        Ok(Stopped {
            writer,
            pages,
            blocks,
            state,
            overlay_bytes: meta.blocks() * 512,
        })
    })
    .await
}

/// Pages that are new or changed since the first round, and the other blocks.
fn last_round(
    memory: &Memory,
    ram: &RamBlock,
    others: &[RamBlock],
    writer: &DeltaWriter,
    pages: &mut PageWriter,
) -> Result<PageWriter> {
    let runs = memory.private_pages(ram)?;
    copy(memory, ram, &runs, 0, pages)?;
    let now: HashSet<u64> = runs
        .iter()
        .flat_map(|r| r.first..r.first + r.count)
        .collect();
    let gone: Vec<u64> = pages.pages_of(0).filter(|p| !now.contains(p)).collect();
    for page in gone {
        pages.forget(0, page);
    }
    let names = others
        .iter()
        .map(|b| BlockInfo {
            name: b.name.clone(),
            bytes: b.bytes,
        })
        .collect();
    let mut blocks = writer.blocks(names).map_err(delta_error)?;
    for (number, block) in (0..).zip(others) {
        let whole = [PageRun {
            first: 0,
            count: block.bytes / PAGE,
        }];
        copy(memory, block, &whole, number, &mut blocks)?;
    }
    Ok(blocks)
}

async fn finish(instance: &QemuInstance, stopped: Stopped) -> Result<DeltaSummary> {
    let what = Description {
        release: disk_release(instance)?.clone(),
        platform: instance.context.platform.clone(),
        size: instance.request.size,
        vm_generation_id: instance.request.vm_generation_id,
        nic_mac: instance.request.nic.as_ref().map(|n| n.mac.clone()),
    };
    let overlay = instance.request.disk.top.clone();
    blocking(move || {
        let Stopped {
            writer,
            pages,
            blocks,
            state,
            overlay_bytes,
        } = stopped;
        let memory_bytes = pages.stored_bytes();
        let device_bytes = blocks.stored_bytes() + state.len() as u64;
        // The delta counts for nothing without the disk it belongs to, whatever mode that was written in.
        let overlay = std::thread::spawn(move || {
            File::open(&overlay)
                .and_then(|f| f.sync_all())
                .map_err(io_error(format!("flushing {}", overlay.display())))
        });
        let partial = writer.finish(what, pages, blocks, &state);
        overlay
            .join()
            .unwrap_or_else(|_| Err(HypervisorError::State("a thread ended early".into())))?;
        partial.map_err(delta_error)?;
        Ok(DeltaSummary {
            memory_bytes,
            device_bytes,
            overlay_bytes,
            ..DeltaSummary::default()
        })
    })
    .await
}

/// Copies a file: shares its blocks where the file system can, keeps its holes where not.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (File::open(from)?, File::create_new(to)?);
    // SAFETY: an ioctl on two open descriptors.
    if unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) } == 0 {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0i64;
    while (at as u64) < length {
        // SAFETY: system calls on an open descriptor.
        let (data, hole) = unsafe {
            let data = libc::lseek(source.as_raw_fd(), at, libc::SEEK_DATA);
            if data < 0 {
                let error = io::Error::last_os_error();
                // No data after `at`: the rest is a hole.
                return if error.raw_os_error() == Some(libc::ENXIO) {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            (data, libc::lseek(source.as_raw_fd(), data, libc::SEEK_HOLE))
        };
        if hole < data {
            return Err(io::Error::last_os_error());
        }
        match copy_range(&source, &target, data, hole) {
            // Between two file systems, as a volume of LVM and the slow tier are, the kernel does not copy.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EXDEV | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
                ) =>
            {
                read_and_write(&source, &target, data, hole)?;
            }
            copied => copied?,
        }
        at = hole;
    }
    Ok(())
}

fn read_and_write(source: &File, target: &File, mut at: i64, to: i64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while at < to {
        let want = buffer.len().min((to - at) as usize);
        let n = source.read_at(&mut buffer[..want], at as u64)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.write_all_at(&buffer[..n], at as u64)?;
        at += n as i64;
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, from: i64, to: i64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (from, from);
    while read_at < to {
        // SAFETY: both offsets are valid for the call, both descriptors are open.
        let copied = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &mut read_at,
                target.as_raw_fd(),
                &mut write_at,
                (to - read_at) as usize,
                0,
            )
        };
        match copied {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n if n < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_that_was_saved_alone_names_its_machine_once() {
        let bare = b"QEVM\0\0\0\x03\x04rest".to_vec();
        let named = as_migrated(bare, "pc-1");
        assert_eq!(named, b"QEVM\0\0\0\x03\x07\0\0\0\x04pc-1\x04rest");
        assert_eq!(as_migrated(named.clone(), "pc-1"), named);
        assert_eq!(as_migrated(b"QEVM".to_vec(), "pc-1"), b"QEVM");
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&from).expect("create");
        file.write_all_at(b"head", 0).expect("write");
        file.write_all_at(b"middle", 10 << 20).expect("write");
        file.set_len(30 << 20).expect("set_len");
        file.sync_all().expect("sync");
        copy_file(&from, &to).expect("copy");
        assert_eq!(
            std::fs::read(&from).expect("read"),
            std::fs::read(&to).expect("read")
        );
        assert!(
            std::fs::metadata(&to).expect("meta").blocks() < 4096,
            "the holes were filled"
        );
    }

    /// A desktop's volume is a file system of its own, and what is captured goes to another one.
    #[test]
    fn a_copy_between_file_systems_has_them_too() {
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("no second file system here");
            return;
        };
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("a"), other.path().join("b"));
        let file = File::create(&from).expect("create");
        let long = vec![7u8; (3 << 20) + 5];
        file.write_all_at(&long, 8 << 20).expect("write");
        file.write_all_at(b"tail", (16 << 20) - 4).expect("write");
        file.sync_all().expect("sync");
        copy_file(&from, &to).expect("copy");
        assert_eq!(
            std::fs::read(&from).expect("read"),
            std::fs::read(&to).expect("read")
        );
        assert!(
            std::fs::metadata(&to).expect("meta").blocks() < 16384,
            "the holes were filled"
        );
    }
}
