//! What durability costs: a guest's writes with a flush after every 32, through QEMU's own block
//! layer, onto desktops' disks in several folders or modes, in turns in one run.
//!
//! `qemu-img bench` is the guest here: the same code writes the same kind of disk (qcow2 with
//! subclusters over a base) as under a desktop, and nothing else of a machine is in the way.

use super::record::{Beside, Output, Record, Row, change};
use super::say;
use super::tools::{bench_file, has_room};
use crate::exit::{self, Exit};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

/// Size of the disk that is written, bytes.
const DISK: u64 = 1 << 30;
/// Bytes of each write.
const BLOCK: u64 = 4096;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder where a disk with `safe` durability is made: on the slow tier, or its mount
    #[arg(long, value_name = "DIR")]
    safe: PathBuf,
    /// The same on an export whose mode is `nfs-async`, the paper's
    #[arg(long, value_name = "DIR")]
    paper: Option<PathBuf>,
    /// Writes of each measurement
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(64..=10_000_000))]
    writes: u32,
    /// How often each is done
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Where the results go
    #[command(flatten)]
    output: Output,
}

/// Files of a bench; removed with it.
struct Removed(Vec<PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn qemu_img(arguments: &[&str]) -> anyhow::Result<()> {
    let output = tokio::process::Command::new("qemu-img")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!(
                    "qemu-img can't be run: {e}. Install it, on Debian: apt install qemu-utils"
                ),
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Exit::coded(
        exit::FAILED,
        format!(
            "qemu-img {}: {}",
            arguments.first().unwrap_or(&""),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    ))
}

/// A disk as the storage agent makes a desktop's.
async fn make(dir: &Path) -> anyhow::Result<(PathBuf, Removed)> {
    has_room(dir, DISK / 4)?;
    let path = bench_file(dir);
    let removed = Removed(vec![path.clone()]);
    let name = path.to_string_lossy().into_owned();
    let size = DISK.to_string();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "extended_l2=on,cluster_size=128k",
        &name,
        &size,
    ])
    .await?;
    Ok((path, removed))
}

/// Writes per second of a new disk there.
async fn once(dir: &Path, cache: &str, writes: u32) -> anyhow::Result<f64> {
    let (path, _removed) = make(dir).await?;
    let name = path.to_string_lossy().into_owned();
    // Each write somewhere else, as a file system does it; the step is odd in blocks, so that
    // none is written twice before all were.
    let step = (37 * BLOCK).to_string();
    let count = writes.to_string();
    let block = BLOCK.to_string();
    let began = Instant::now();
    qemu_img(&[
        "bench",
        "-w",
        "-f",
        "qcow2",
        "-t",
        cache,
        "--flush-interval=32",
        "-d",
        "32",
        "-c",
        &count,
        "-s",
        &block,
        "-S",
        &step,
        &name,
    ])
    .await?;
    Ok(f64::from(writes) / began.elapsed().as_secs_f64().max(1e-9))
}

/// Measures and reports.
pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    Record::check(&args.output, "durability")?;
    let mut ways: Vec<(&str, &Path, &str)> = vec![("safe", &args.safe, "none")];
    if let Some(paper) = &args.paper {
        ways.push(("nfs-async", paper, "none"));
    }
    // What would be safe as well, with a second copy of everything in the host's memory.
    ways.push(("safe, cached", &args.safe, "writeback"));
    ways.push(("throwaway", &args.safe, "unsafe"));
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for round in 1..=args.repeat {
        for (n, (name, dir, cache)) in ways.iter().enumerate() {
            say(&format!("{name}, {round} of {}", args.repeat));
            samples[n].push(once(dir, cache, args.writes).await?);
        }
    }
    let mut record = Record::new(
        "durability",
        "What durability costs: 4 KiB writes with a flush after every 32",
    );
    for ((name, _, _), samples) in ways.iter().zip(samples) {
        record.rows.push(Row {
            series: "writes of a desktop".into(),
            point: (*name).into(),
            unit: "per second".into(),
            samples,
            less: false,
            note: match *name {
                "safe" => "what was flushed is on the disk",
                "nfs-async" => "a power cut of the file server loses what was acknowledged",
                "safe, cached" => "the same promise through the host's page cache, for comparison: no mode of desktops",
                _ => "flushes are ignored: for desktops that are reset anyway",
            }
            .into(),
        });
    }
    let of = |name: &str| record.value("writes of a desktop", name);
    let here = match (of("safe"), of("nfs-async")) {
        (Some(safe), Some(paper)) => {
            record.notes.push(format!(
                "safe reaches {:.0} % of the paper's async here.",
                safe / paper.max(1e-9) * 100.0
            ));
            change(safe, paper)
        }
        _ => String::new(),
    };
    record.paper.push(Beside {
        what: "NFS async instead of safe, writing".into(),
        paper: "+121 to +271 %".into(),
        here,
    });
    record.tell(&args.output, json)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// With the real qemu-img; both folders are one disk, so nothing is said about who wins.
    #[tokio::test]
    async fn all_three_in_one_run() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let out = dir.path().join("out.json");
        let args = Args {
            safe: dir.path().into(),
            paper: Some(dir.path().into()),
            writes: 256,
            repeat: 1,
            output: Output {
                before: None,
                json: Some(out.to_string_lossy().into_owned()),
                html: None,
            },
        };
        run(args, true).await.unwrap();
        let record: Record = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        let points: Vec<&str> = record.rows.iter().map(|r| r.point.as_str()).collect();
        assert_eq!(points, ["safe", "nfs-async", "safe, cached", "throwaway"]);
        assert!(record.rows.iter().all(|r| r.value() > 0.0));
        std::fs::remove_file(&out).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
