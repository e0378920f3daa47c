//! The load of a class on the tiers: every desktop boots, signs in and works, all at once, all
//! with the *same* offsets, because they are copies of one image.
//!
//! It is done twice in one run: *shared*, through the page cache of this machine, as desktops
//! over one release are run here; and *apart*, past it, as readers that know nothing of each
//! other, as with an image per desktop. What comes off the disk is counted by the kernel.

use super::record::{Beside, Output, Record, Row, figure};
use super::say;
use super::stats::Sorted;
use super::tools::{bench_file, has_room};
use crate::exit::{self, Exit};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Instant;

/// Everything is a multiple of this, or a disk can't be read past the page cache.
const PAGE: u64 = 4096;
/// The longest operation.
const LONGEST: u64 = 128 << 10;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the image that all read: on the fast tier
    #[arg(long, value_name = "DIR")]
    fast: PathBuf,
    /// Folder of what they write: on the slow tier
    #[arg(long, value_name = "DIR")]
    slow: PathBuf,
    /// Desktops
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    desktops: u32,
    /// Size of the image; it is made and removed
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    image_mib: u64,
    /// Another seed is another load
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the results go
    #[command(flatten)]
    output: Output,
}

/// One thing a desktop does to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// Of the image.
    Read { at: u64, bytes: u64 },
    /// To its own file.
    Write { at: u64, bytes: u64 },
    /// Everything written must be on the disk.
    Flush,
}

/// A part of a lesson's beginning.
struct Phase {
    name: &'static str,
    ops: Vec<Op>,
}

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below.max(1)
    }

    fn pages(&mut self, least: u64, most: u64) -> u64 {
        (least + self.roll(most - least + 1)) * PAGE
    }
}

/// What every desktop does with an image of so many bytes: boot reads about an eighth of it in
/// runs, signing in reads less and writes settings, work writes small things and flushes them.
fn model(image: u64, seed: u64) -> [Phase; 3] {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut runs = |share: u64, ops: &mut Vec<Op>| {
        let mut left = image / 1000 * share;
        while left > 0 {
            let mut at = dice.roll(image / PAGE) * PAGE;
            for _ in 0..=dice.roll(8) {
                let bytes = dice.pages(4, LONGEST / PAGE).min(image - at);
                if bytes == 0 || left == 0 {
                    break;
                }
                ops.push(Op::Read { at, bytes });
                at += bytes;
                left = left.saturating_sub(bytes);
            }
        }
    };
    let (mut boot, mut login, mut again) = (Vec::new(), Vec::new(), Vec::new());
    runs(120, &mut boot);
    runs(40, &mut login);
    runs(5, &mut again);
    let mut mixed = |reads: Vec<Op>, writes: usize, most: u64, every: usize| {
        let mut ops = Vec::new();
        let each = reads.len().div_ceil(writes.max(1)).max(1);
        let mut reads = reads.into_iter();
        for n in 1..=writes {
            ops.extend(reads.by_ref().take(each));
            let bytes = dice.pages(1, most);
            let at = dice.roll((image - bytes) / PAGE) * PAGE;
            ops.push(Op::Write { at, bytes });
            if n % every == 0 {
                ops.push(Op::Flush);
            }
        }
        ops.extend(reads);
        ops.push(Op::Flush);
        ops
    };
    let login = mixed(login, 64, 8, 16);
    let steady = mixed(again, 256, 1, 32);
    [
        Phase {
            name: "boot",
            ops: boot,
        },
        Phase {
            name: "login",
            ops: login,
        },
        Phase {
            name: "steady",
            ops: steady,
        },
    ]
}

fn bytes_read(ops: &[Op]) -> u64 {
    let read = |op: &Op| match op {
        Op::Read { bytes, .. } => *bytes,
        Op::Write { .. } | Op::Flush => 0,
    };
    ops.iter().map(read).sum()
}

/// A buffer that disks take past the page cache.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new() -> Aligned {
        let bytes = vec![0x5a; (LONGEST + PAGE) as usize];
        let from = bytes.as_ptr().align_offset(PAGE as usize);
        Aligned { bytes, from }
    }

    fn part(&mut self, bytes: u64) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + bytes as usize]
    }
}

/// Files of a bench; removed with it.
struct Files(Vec<PathBuf>);

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn file_error(what: &str, path: &Path, e: std::io::Error) -> anyhow::Error {
    Exit::coded(
        exit::FAILED,
        format!("{what} {} failed: {e}", path.display()),
    )
}

/// An image without holes: they are not read from anywhere.
fn make_image(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let failed = |e| file_error("writing the image", path, e);
    let mut file = File::create_new(path).map_err(failed)?;
    let mut dice = Dice(7);
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&dice.roll(u64::MAX).to_le_bytes());
        }
        file.write_all(&block).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

/// Bytes that this process caused to be read from disks and file servers.
fn off_the_disk() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("read_bytes: ")?.trim().parse().ok())
        .unwrap_or(0)
}

/// What one phase took.
#[derive(Debug)]
struct Took {
    /// Seconds per desktop.
    seconds: Vec<f64>,
    /// Milliseconds per operation, all desktops.
    operations: Vec<f64>,
    /// Bytes off the disk, all desktops.
    disk: u64,
}

/// Runs one phase on all desktops at once.
fn replay(ops: &[Op], image: &Path, own: &[PathBuf], direct: bool) -> std::io::Result<Took> {
    let flags = if direct { nix::libc::O_DIRECT } else { 0 };
    let mut opened = Vec::new();
    for path in own {
        let base = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(image)?;
        let own = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        opened.push((base, own));
    }
    let began_disk = off_the_disk();
    let start = Barrier::new(opened.len());
    let results: Vec<std::io::Result<(f64, Vec<f64>)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = opened
            .iter()
            .map(|(base, own)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    one(ops, base, own)
                })
            })
            .collect();
        let gone = || Err(std::io::Error::other("a desktop's thread broke off"));
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| gone()))
            .collect()
    });
    let mut took = Took {
        seconds: Vec::new(),
        operations: Vec::new(),
        disk: off_the_disk().saturating_sub(began_disk),
    };
    for result in results {
        let (seconds, operations) = result?;
        took.seconds.push(seconds);
        took.operations.extend(operations);
    }
    Ok(took)
}

fn one(ops: &[Op], base: &File, own: &File) -> std::io::Result<(f64, Vec<f64>)> {
    let mut buffer = Aligned::new();
    let mut each = Vec::with_capacity(ops.len());
    let began = Instant::now();
    for op in ops {
        let at_op = Instant::now();
        match *op {
            Op::Read { at, bytes } => base.read_exact_at(buffer.part(bytes), at)?,
            Op::Write { at, bytes } => own.write_all_at(buffer.part(bytes), at)?,
            Op::Flush => own.sync_data()?,
        }
        each.push(at_op.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((began.elapsed().as_secs_f64(), each))
}

/// Forgets what the page cache has of the image.
fn forget(image: &Path) -> anyhow::Result<()> {
    let file = File::open(image).map_err(|e| file_error("opening", image, e))?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|e| file_error("emptying the page cache of", image, e.into()))
}

/// Measures and reports.
pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    Record::check(&args.output, "storm")?;
    let output = args.output.clone();
    let record = tokio::task::spawn_blocking(move || measure(&args)).await??;
    record.tell(&output, json)
}

fn measure(args: &Args) -> anyhow::Result<Record> {
    let image_bytes = args.image_mib << 20;
    let phases = model(image_bytes, args.seed);
    has_room(&args.fast, image_bytes)?;
    has_room(&args.slow, u64::from(args.desktops) * (8 << 20))?;
    let image = bench_file(&args.fast);
    let own: Vec<PathBuf> = (0..args.desktops).map(|_| bench_file(&args.slow)).collect();
    let mut all = own.clone();
    all.push(image.clone());
    let _removed = Files(all);
    say(&format!("making an image of {} MiB", args.image_mib));
    make_image(&image, image_bytes)?;

    let n = args.desktops;
    let mut record = Record::new(
        "storm",
        &format!("{n} desktops boot, sign in and work at once"),
    );
    let mut boots = Vec::new();
    for (half, direct) in [("shared", false), ("apart", true)] {
        forget(&image)?;
        let (mut off, mut asked) = (0, 0);
        for phase in &phases {
            say(&format!("{}, {half}", phase.name));
            let took = match replay(&phase.ops, &image, &own, direct) {
                Ok(took) => took,
                Err(e) if direct && e.raw_os_error() == Some(nix::libc::EINVAL) => {
                    record.notes.push(format!(
                        "{} can't be read past the page cache, so readers apart from each other were not measured.",
                        args.fast.display()
                    ));
                    return Ok(record);
                }
                Err(e) => return Err(file_error("the load on", &image, e)),
            };
            let seconds = Sorted::new(took.seconds.iter().copied());
            let bytes = bytes_read(&phase.ops);
            off += took.disk;
            asked += bytes * u64::from(n);
            let mut row = |series: String, unit: &str, value: f64, less: bool| {
                record.rows.push(Row {
                    series,
                    point: phase.name.into(),
                    unit: unit.into(),
                    samples: vec![value],
                    less,
                    note: String::new(),
                });
            };
            row(
                format!("until the last is through, {half}"),
                "s",
                seconds.last(),
                true,
            );
            let each = bytes as f64 / f64::from(1 << 20) / seconds.median().max(1e-9);
            row(format!("read per desktop, {half}"), "MiB/s", each, false);
            let slow = Sorted::new(took.operations.iter().copied()).quantile(0.99);
            row(format!("99 of 100 operations, {half}"), "ms", slow, true);
            if phase.name == "boot" {
                boots.push((half, each));
            }
        }
        record.rows.push(Row {
            series: "off the disk, per desktop".into(),
            point: half.into(),
            unit: "MiB".into(),
            samples: vec![off as f64 / f64::from(n) / f64::from(1 << 20)],
            less: true,
            note: format!("{} MiB were asked for", (asked / u64::from(n)) >> 20),
        });
    }
    let series = "off the disk, per desktop";
    if let (Some(shared), Some(apart)) = (
        record.value(series, "shared"),
        record.value(series, "apart"),
    ) && apart > 0.0
    {
        record.notes.push(format!(
            "Shared, a desktop costs 1/{} of the bytes that it costs apart.",
            figure(apart / shared.max(1e-9))
        ));
    }
    for (half, each) in boots {
        record.paper.push(Beside {
            what: format!("60 desktops started at once, reading each; here {n}, {half}"),
            paper: "20 MB/s (8 HDD), 40 MB/s (5 SSD)".into(),
            here: format!("{} MiB/s", figure(each)),
        });
    }
    Ok(record)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_desktop_replays_the_same_within_the_image(mib in 16u64..256, seed in any::<u64>()) {
            let image = mib << 20;
            let (phases, again) = (model(image, seed), model(image, seed));
            for (phase, again) in phases.iter().zip(&again) {
                prop_assert_eq!(&phase.ops, &again.ops);
                for op in &phase.ops {
                    if let Op::Read { at, bytes } | Op::Write { at, bytes } = op {
                        prop_assert!(at % PAGE == 0 && bytes % PAGE == 0);
                        prop_assert!(*bytes > 0 && *bytes <= LONGEST && at + bytes <= image);
                    }
                }
            }
            let read = bytes_read(&phases[0].ops);
            prop_assert!(read >= image / 10 && read < image / 5, "{read} of {image}");
            prop_assert_eq!(phases[2].ops.iter().filter(|op| **op == Op::Flush).count(), 9);
        }
    }

    #[test]
    fn desktops_share_what_they_read() {
        // Not in /tmp, which may be memory; where the test runs is on a disk.
        let dir = tempfile::tempdir_in(".").unwrap();
        let args = Args {
            fast: dir.path().into(),
            slow: dir.path().into(),
            desktops: 16,
            image_mib: 16,
            seed: 1,
            output: Output {
                before: None,
                json: None,
                html: None,
            },
        };
        let record = measure(&args).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(record.value("read per desktop, shared", "boot").unwrap() > 0.0);
        let off = |half| record.value("off the disk, per desktop", half);
        // Where it could be read past the cache, every desktop paid for all of its own reads.
        if let (Some(shared), Some(apart)) = (off("shared"), off("apart")) {
            assert!(shared < apart, "{shared} {apart}");
        }
    }
}
