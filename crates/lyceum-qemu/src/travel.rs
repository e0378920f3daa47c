//! A running machine on its way to another host, this side of it.
//!
//! ```text
//! Running ── rounds: pages it wrote, again those that changed meanwhile ──┐
//!    ▲                                                                    │ stop
//!    │         device state, QEMU gives up its image locks, last round ◄─┘
//!    │                         │
//!    │                 ┌── stands still, our lock held ── hand_over ── stands still, lock free
//!    │                 │                                                     │
//!    └── lock taken, disk as we left it ◄──────── take_back ─────────────────┤
//!                                                                            └─► Elsewhere, Outdated
//! ```
//!
//! **The lock of the disk decides.** Whoever holds it may go on, and nobody else; it lies where the disk
//! lies, so it can be asked whatever network is cut and whoever has died. It is taken before a machine goes on
//! and lives in QEMU's own descriptor: it ends with that QEMU and not before. Against a machine that
//! took it, wrote and died meanwhile stands the *witness*: the disk's time and size as they were when it was given
//! up, in a file of the run directory that is there before the lock is let go.

use crate::instance::QemuInstance;
use crate::machine;
use crate::pages::{Memory, PAGE, PageRun, RamBlock};
use crate::qmp::Event;
use crate::save;
use crate::start::ram_blocks;
use crate::util::{ChannelWriter, blocking, io_error, write_whole};
use lyceum_delta::stream::{StreamHeader, StreamWriter};
use lyceum_delta::{BlockInfo, FORMAT, News, Seen};
use lyceum_hypervisor::{Before, HypervisorError, MoveWay, Sent, TakenBack};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Rounds while the guest runs. More of them only help while each finds clearly less to do.
const ROUNDS: u32 = 5;
/// Changed pages below which the guest is stopped: a few milliseconds' worth.
const FEW: u64 = 256;
/// Pages that are looked at in one go.
const BATCH: u64 = 256;
/// Threads that look at a machine's pages, at most: a stream is not written faster by more.
const LOOKERS: usize = 4;
/// Pieces that the other host may not have taken yet when the guest is stopped.
const NEARLY_ALL: usize = 4;
/// A guest that had to wait longer than this is looked at once more before it is stopped.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long QEMU may take to notice that a migration was called off.
const CANCEL_PATIENCE: Duration = Duration::from_secs(20);

type Result<T> = std::result::Result<T, HypervisorError>;

/// The disk as it was when it was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witness {
    bytes: u64,
    blocks: u64,
    changed: (i64, i64),
}

impl Witness {
    fn of(disk: &Path) -> Result<Witness> {
        let meta = std::fs::metadata(disk).map_err(io_error(disk.display().to_string()))?;
        Ok(Witness {
            bytes: meta.len(),
            blocks: meta.blocks(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

pub(crate) async fn own_bytes(instance: &QemuInstance) -> Result<Option<u64>> {
    instance.must_run("measure it")?;
    if save::release(instance).is_err() {
        return Ok(None);
    }
    let (ram, _) = ram_blocks(instance).await?;
    let pid = instance.process.mark.pid;
    blocking(move || {
        let runs = Memory::open(pid, false)?.private_pages(&ram)?;
        Ok(Some(runs.iter().map(|r| r.count).sum::<u64>() * PAGE))
    })
    .await
}

pub(crate) async fn send(
    instance: &QemuInstance,
    way: MoveWay,
    bytes_per_second: Option<u64>,
    before_still: Before,
    out: mpsc::Sender<Vec<u8>>,
) -> Result<Sent> {
    let usable = instance.must_run("move it")?;
    let busy =
        instance.saving.clone().try_lock_owned().map_err(|_| {
            HypervisorError::State("can't move it: the machine is being saved".into())
        })?;
    instance.hold_for_move(busy);
    let mut sent = match way {
        MoveWay::Delta => delta(instance, before_still, out).await?,
        MoveWay::Live => live(instance, bytes_per_second, out).await?,
    };
    sent.usable = usable;
    Ok(sent)
}

async fn delta(
    instance: &QemuInstance,
    before_still: Before,
    out: mpsc::Sender<Vec<u8>>,
) -> Result<Sent> {
    let release = save::release(instance)?.release.clone();
    let (ram, others) = ram_blocks(instance).await?;
    let info = |b: &RamBlock| BlockInfo {
        name: b.name.clone(),
        bytes: b.bytes,
    };
    let header = StreamHeader {
        format: FORMAT,
        release,
        platform: instance.context.platform.clone(),
        size: instance.request.size,
        vm_generation_id: instance.request.vm_generation_id,
        nic_mac: instance.request.nic.as_ref().map(|n| n.mac.clone()),
        blocks: std::iter::once(&ram).chain(&others).map(info).collect(),
    };
    let pid = instance.process.mark.pid;
    let disk = instance.request.disk.top.clone();
    let way = out.clone();
    let mut source = blocking(move || {
        let memory = Memory::open(pid, false)?;
        let seen = Seen::new(&header.blocks);
        let to = ChannelWriter::new(out);
        let writer = StreamWriter::begin(to, header).map_err(save::delta_error)?;
        let mut source = Source {
            memory,
            ram,
            others,
            seen,
            writer,
        };
        let mut before = u64::MAX;
        for _ in 0..ROUNDS {
            let changed = source.round()?;
            if changed < FEW || changed > before / 4 * 3 {
                break;
            }
            before = changed;
        }
        // What it wrote so far is on the file server before it stands still.
        flush_if_remote(&disk)?;
        Ok(source)
    })
    .await?;
    // What the other host has not taken yet would be waited for while it stands still.
    let waited = Instant::now();
    taken(&way).await?;
    if waited.elapsed() > AGAIN_AFTER {
        source = source.again().await?;
        taken(&way).await?;
    }
    let waited = Instant::now();
    before_still.await;
    if way.is_closed() {
        return Err(way_broke());
    }
    drop(way);
    if waited.elapsed() > AGAIN_AFTER {
        source = source.again().await?;
    }
    let stood_still = Instant::now();
    let saved = save::stop_and_save_state(instance).await?;
    give_up_disk(instance).await?;
    let (bytes, pages) = blocking(move || {
        source.round()?;
        let state = save::read_state(&saved)?;
        let (to, bytes, pages) = source.writer.finish(&state).map_err(save::delta_error)?;
        drop(to);
        Ok((bytes, pages))
    })
    .await?;
    Ok(Sent {
        bytes,
        pages,
        stood_still: Some(stood_still),
        ..Sent::default()
    })
}

/// What is copied from, and where to.
struct Source {
    memory: Memory,
    ram: RamBlock,
    others: Vec<RamBlock>,
    seen: Seen,
    writer: StreamWriter<ChannelWriter>,
}

/// Waits until all but the last of what was sent was taken.
async fn taken(way: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let most = way.max_capacity().saturating_sub(NEARLY_ALL);
    way.reserve_many(most)
        .await
        .map(drop)
        .map_err(|_| way_broke())
}

fn way_broke() -> HypervisorError {
    HypervisorError::State("the way to the other host broke".into())
}

impl Source {
    /// One more round while the guest runs.
    async fn again(mut self) -> Result<Source> {
        blocking(move || {
            self.round()?;
            Ok(self)
        })
        .await
    }

    /// Sends what is new or changed since the last round; how many pages that were.
    fn round(&mut self) -> Result<u64> {
        let mut runs = self.memory.private_pages(&self.ram)?;
        // A page that was its own and is not any more has the release's content again.
        let mut own = runs.iter().peekable();
        let gone: Vec<PageRun> = (self.seen.pages(0))
            .filter(|page| {
                while own.next_if(|r| r.first + r.count <= *page).is_some() {}
                own.peek().is_none_or(|r| *page < r.first)
            })
            .map(|first| PageRun { first, count: 1 })
            .collect();
        runs.extend(gone);
        let mut changed = self.copy(0, &runs)?;
        for number in 0..self.others.len() {
            let whole = [PageRun {
                first: 0,
                count: self.others[number].bytes / PAGE,
            }];
            changed += self.copy(number + 1, &whole)?;
        }
        Ok(changed)
    }

    /// Looks at these pages with several threads and sends what is new. A page is in one run only.
    fn copy(&mut self, number: usize, runs: &[PageRun]) -> Result<u64> {
        let block = match number {
            0 => &self.ram,
            n => &self.others[n - 1],
        };
        let batches = batches(runs);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // A thread is worth its start for some MiB.
        let lookers = processors
            .min(LOOKERS)
            .min(batches.len().div_ceil(8))
            .max(1);
        let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (memory, seen, writer) = (&self.memory, &self.seen, &mut self.writer);
        let mut all: Vec<News> = Vec::new();
        std::thread::scope(|scope| {
            // Few wait: what is not written yet needs not be read yet.
            let (found, finds) = sync_channel::<Result<(u64, Vec<u8>, Vec<News>)>>(lookers);
            for _ in 0..lookers {
                let (found, next, over, batches) = (found.clone(), &next, &over, &batches);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed)
                        && let Some(runs) = batches.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let looked = memory.read_pages(block, runs, |first, bytes| {
                            let news = seen.look(number, first, bytes);
                            if !news.is_empty() {
                                // Nobody takes it when the way is broken.
                                let _ = found.send(Ok((first, bytes.to_vec(), news)));
                            }
                            Ok(())
                        });
                        if let Err(e) = looked {
                            let _ = found.send(Err(e));
                            return;
                        }
                    }
                });
            }
            drop(found);
            let mut sent: Result<()> = Ok(());
            // To the end also after an error: then the others are not waiting for a reader.
            for find in finds {
                sent = sent.and_then(|()| {
                    let (first, bytes, news) = find?;
                    let which = news.iter().map(|n| n.page);
                    writer
                        .put(number as u32, first, &bytes, which)
                        .map_err(save::delta_error)?;
                    all.extend(news);
                    Ok(())
                });
                over.store(sent.is_err(), Ordering::Relaxed);
            }
            sent
        })?;
        self.seen.note(number, &all);
        Ok(all.len() as u64)
    }
}

/// The runs in portions of about a [`BATCH`] of pages.
fn batches(runs: &[PageRun]) -> Vec<Vec<PageRun>> {
    let mut batches: Vec<Vec<PageRun>> = Vec::new();
    let mut room = 0;
    for run in runs {
        let (mut first, end) = (run.first, run.first + run.count);
        while first < end {
            if room == 0 {
                batches.push(Vec::new());
                room = BATCH;
            }
            let count = room.min(end - first);
            if let Some(last) = batches.last_mut() {
                last.push(PageRun { first, count });
            }
            first += count;
            room -= count;
        }
    }
    batches
}

/// On a file server, what one host wrote is there for another one only when it was flushed. On one
/// machine all see the same pages.
fn flush_if_remote(disk: &Path) -> Result<()> {
    const LOCAL: [i64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];
    let local =
        nix::sys::statfs::statfs(disk).is_ok_and(|s| LOCAL.contains(&s.filesystem_type().0));
    if local {
        return Ok(());
    }
    std::fs::File::open(disk)
        .and_then(|f| f.sync_all())
        .map_err(io_error(format!("flushing {}", disk.display())))
}

/// Lets QEMU give up its image locks, flushes the disk, and notes how it is.
async fn give_up_disk(instance: &QemuInstance) -> Result<()> {
    instance
        .qmp
        .execute("blockdev-set-active", json!({ "active": false }))
        .await?;
    let (disk, path) = (instance.request.disk.top.clone(), instance.dir.witness());
    blocking(move || {
        flush_if_remote(&disk)?;
        let text = serde_json::to_vec(&Witness::of(&disk)?)
            .map_err(|e| HypervisorError::State(e.to_string()))?;
        write_whole(&path, &text).map_err(io_error(format!("writing {}", path.display())))
    })
    .await
}

/// QEMU's own live migration, into a socket of ours.
async fn live(
    instance: &QemuInstance,
    bytes_per_second: Option<u64>,
    out: mpsc::Sender<Vec<u8>>,
) -> Result<Sent> {
    let qmp = &instance.qmp;
    let listener = instance
        .dir
        .listen_for_qemu(machine::MIGRATION_SOCKET, instance.context.user)?;
    let mut events = qmp.events();
    let off = |name: &str, state: bool| json!({ "capability": name, "state": state });
    let capabilities = json!({ "capabilities": [
        off("x-ignore-shared", false), off("events", true), off("auto-converge", true),
    ] });
    qmp.execute("migrate-set-capabilities", capabilities)
        .await?;
    // Not limited by default: then the receiver is.
    let limit = bytes_per_second.unwrap_or(1 << 34);
    qmp.execute(
        "migrate-set-parameters",
        json!({ "max-bandwidth": limit, "downtime-limit": 200 }),
    )
    .await?;
    qmp.execute("migrate", json!({ "uri": machine::migration_uri() }))
        .await?;
    let stood_still = std::sync::OnceLock::new();
    let pump = async {
        let (mut stream, _) = listener
            .accept()
            .await
            .map_err(io_error("taking QEMU's migration"))?;
        let mut bytes = 0u64;
        loop {
            let mut piece = vec![0u8; 256 << 10];
            let n = stream
                .read(&mut piece)
                .await
                .map_err(io_error("reading QEMU's migration"))?;
            if n == 0 {
                return Ok::<u64, HypervisorError>(bytes);
            }
            piece.truncate(n);
            bytes += n as u64;
            out.send(piece).await.map_err(|_| way_broke())?;
        }
    };
    let mut pump = std::pin::pin!(pump);
    let wait = events.wait_for(
        "QEMU's migration",
        Duration::from_secs(24 * 3600),
        |event| match event {
            Event::Stop => {
                stood_still.get_or_init(Instant::now);
                None
            }
            Event::Migration { status } if status == "completed" => Some(true),
            Event::Migration { status } if status == "failed" || status == "cancelled" => {
                Some(false)
            }
            _ => None,
        },
    );
    let mut wait = std::pin::pin!(wait);
    let (completed, bytes) = tokio::select! {
        () = out.closed() => {
            return Err(HypervisorError::State("nobody takes it any more".into()));
        }
        completed = &mut wait => (completed?, None),
        bytes = &mut pump => {
            let bytes = bytes?;
            (wait.await?, Some(bytes))
        }
    };
    if !completed {
        let info = qmp.execute("query-migrate", Value::Null).await?;
        return Err(HypervisorError::Refused {
            command: "migrate".into(),
            message: info["error-desc"].as_str().unwrap_or("it failed").into(),
        });
    }
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => pump.await?,
    };
    give_up_disk(instance).await?;
    let info = qmp.execute("query-migrate", Value::Null).await?;
    let ram = |key: &str| info["ram"][key].as_u64().unwrap_or(0);
    Ok(Sent {
        bytes,
        pages: ram("normal") + ram("duplicate"),
        stood_still: stood_still.get().copied(),
        ..Sent::default()
    })
}

pub(crate) async fn hand_over(instance: &QemuInstance) -> Result<()> {
    let (process, disk) = (instance.process.clone(), instance.request.disk.top.clone());
    blocking(move || {
        let file = process.open_file(&disk)?;
        crate::launch::unlock(&file, &disk)
    })
    .await
}

/// Whether the machine has the disk's lock now.
pub(crate) async fn take_lock(instance: &QemuInstance) -> Result<bool> {
    let (process, disk) = (instance.process.clone(), instance.request.disk.top.clone());
    blocking(move || {
        let file = process.open_file(&disk)?;
        crate::launch::try_lock(&file, &disk)
    })
    .await
}

pub(crate) async fn take_back(instance: &QemuInstance) -> Result<TakenBack> {
    if !instance.process.is_alive() {
        return Err(HypervisorError::State("the machine has ended".into()));
    }
    if !take_lock(instance).await? {
        return Ok(TakenBack::Elsewhere);
    }
    let path = instance.dir.witness();
    match std::fs::read(&path) {
        Ok(text) => {
            let then: Option<Witness> = serde_json::from_slice(&text).ok();
            if then != Some(Witness::of(&instance.request.disk.top)?) {
                return Ok(TakenBack::Outdated);
            }
        }
        // It never got so far as to give its disk up.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error(path.display().to_string())(e)),
    }
    call_off_migration(instance).await?;
    instance
        .qmp
        .execute("blockdev-set-active", json!({ "active": true }))
        .await?;
    instance.qmp.execute("cont", Value::Null).await?;
    // The other machine may have announced itself already.
    crate::arrive::announce(instance).await;
    let _ = std::fs::remove_file(&path);
    instance.move_over();
    Ok(TakenBack::GoesOn)
}

/// A migration that QEMU is in the middle of ends before the guest can go on.
async fn call_off_migration(instance: &QemuInstance) -> Result<()> {
    let deadline = Instant::now() + CANCEL_PATIENCE;
    loop {
        let info = instance.qmp.execute("query-migrate", Value::Null).await?;
        match info["status"].as_str() {
            None | Some("none" | "completed" | "failed" | "cancelled") => return Ok(()),
            Some(_) if Instant::now() > deadline => {
                return Err(HypervisorError::Timeout {
                    what: "calling QEMU's migration off".into(),
                    seconds: CANCEL_PATIENCE.as_secs(),
                });
            }
            Some(_) => {
                instance.qmp.execute("migrate_cancel", Value::Null).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
