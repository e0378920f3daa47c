//! Reading and writing folders with fio: disks of this machine, or mounts of a file server.

use super::record::{Beside, Output, Record, Row, change};
use super::say;
use super::tools::{File, Use, file};
use crate::exit::Exit;
use std::path::{Path, PathBuf};

/// A folder with the name it has in the results.
#[derive(Debug, Clone)]
pub struct Folder {
    /// What it is called.
    label: String,
    /// Where.
    dir: PathBuf,
}

fn folder(text: &str) -> Result<Folder, String> {
    let (label, dir) = match text.split_once('=') {
        Some((label, dir)) if !label.is_empty() && !label.contains('/') => (label, dir),
        _ => (text, text),
    };
    if dir.is_empty() {
        return Err("give a folder, or NAME=FOLDER".into());
    }
    Ok(Folder {
        label: label.to_owned(),
        dir: dir.into(),
    })
}

fn block(text: &str) -> Result<u64, String> {
    let text = text.to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix(['k', 'm']) {
        Some(digits) if text.ends_with('k') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text.as_str(), 1),
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(n) if (512..=64 << 20).contains(&n) && n.is_power_of_two() => Ok(n),
        _ => Err("a block is a power of two from 512 to 64m, as in 4k".into()),
    }
}

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to measure, or NAME=FOLDER; several are measured in turns in the same run, and compared with the first
    #[arg(long = "dir", value_name = "[NAME=]DIR", required = true, value_parser = folder)]
    dirs: Vec<Folder>,
    /// Bytes at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "4k,64k,1m", value_parser = block)]
    block: Vec<u64>,
    /// Size of the file that is made and removed; more than the machine's memory to measure its disks through the page cache
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    size_mib: u64,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How often each is done
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Through the page cache, and not past it
    #[arg(long)]
    buffered: bool,
    /// Where the results go
    #[command(flatten)]
    output: Output,
}

/// File system and options of the mount that holds a folder.
fn mounted_as(dir: &Path) -> String {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, at, kind, options, ..] = words.as_slice() else {
            continue;
        };
        let depth = at.len();
        if dir.starts_with(at) && best.as_ref().is_none_or(|(d, _)| depth >= *d) {
            best = Some((depth, format!("{kind}, {options}")));
        }
    }
    best.map_or_else(|| "?".into(), |(_, text)| text)
}

/// Measures and reports: `disk` for disks of this machine, `nfs` for mounts.
pub async fn run(args: Args, nfs: bool, json: bool) -> anyhow::Result<()> {
    let name = if nfs { "nfs" } else { "disk" };
    Record::check(&args.output, name)?;
    let title = if nfs {
        "Reading and writing over NFS"
    } else {
        "Reading and writing disks"
    };
    let mut record = Record::new(name, title);
    for folder in &args.dirs {
        super::tools::has_room(&folder.dir, args.size_mib << 20)?;
        let how = mounted_as(&folder.dir);
        if nfs && !how.starts_with("nfs") {
            return Err(Exit::usage(format!(
                "{} is no NFS mount ({how}): measure it with `lyceum bench disk`",
                folder.dir.display()
            )));
        }
        record.notes.push(format!(
            "{} is {} ({how})",
            folder.label,
            folder.dir.display()
        ));
    }
    for (what, word) in [
        (Use::Read, "read"),
        (Use::Write, "write"),
        (Use::Flushed, "write, flush every 32"),
    ] {
        for &block in &args.block {
            say(&format!("{word}, {}", size(block)));
            let mut samples = vec![Vec::new(); args.dirs.len()];
            let mut slowest = vec![None::<f64>; args.dirs.len()];
            // In turns: whatever else the machine does meets all folders alike.
            for _ in 0..args.repeat {
                for (n, folder) in args.dirs.iter().enumerate() {
                    let figures = file(&File {
                        dir: folder.dir.clone(),
                        what,
                        block,
                        size: args.size_mib << 20,
                        seconds: args.seconds,
                        direct: !args.buffered,
                    })
                    .await?;
                    samples[n].push(figures.mib_s);
                    let p99 = figures.flush_p99_ms.unwrap_or(0.0);
                    if figures.flush_p99_ms.is_some() {
                        slowest[n] = Some(slowest[n].unwrap_or(0.0).max(p99));
                    }
                }
            }
            for (n, folder) in args.dirs.iter().enumerate() {
                record.rows.push(Row {
                    series: format!("{word}, {}", folder.label),
                    point: size(block),
                    unit: "MiB/s".into(),
                    samples: std::mem::take(&mut samples[n]),
                    less: false,
                    note: slowest[n].map_or_else(String::new, |ms| {
                        format!("99 of 100 flushes within {ms:.1} ms")
                    }),
                });
            }
        }
    }
    beside_the_paper(&mut record, &args.dirs, &args.block, nfs);
    record.tell(&args.output, json)
}

/// The paper compared two folders: so do we, when there are two.
fn beside_the_paper(record: &mut Record, dirs: &[Folder], blocks: &[u64], nfs: bool) {
    let words: &[&str] = if nfs {
        &["write", "write, flush every 32"]
    } else {
        &["write"]
    };
    let paper = if nfs {
        "async instead of sync: +121 to +271 %"
    } else {
        "data=writeback: +3 to +13 %"
    };
    let [first, others @ ..] = dirs else { return };
    for other in others {
        for word in words {
            let changes: Vec<String> = blocks
                .iter()
                .filter_map(|b| {
                    let of = |f: &Folder| record.value(&format!("{word}, {}", f.label), &size(*b));
                    Some(format!(
                        "{} at {}",
                        change(of(first)?, of(other)?),
                        size(*b)
                    ))
                })
                .collect();
            record.paper.push(Beside {
                what: format!("{word}: {} instead of {}", other.label, first.label),
                paper: paper.into(),
                here: changes.join(", "),
            });
        }
    }
    if others.is_empty() {
        record.paper.push(Beside {
            what: "two folders with different settings".into(),
            paper: paper.into(),
            here: String::new(),
        });
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        n if n >= 1 << 20 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_blocks_of_the_command_line() {
        let named = folder("async=/srv/a=b").unwrap();
        assert_eq!(
            (named.label.as_str(), named.dir.to_str()),
            ("async", Some("/srv/a=b"))
        );
        assert_eq!(folder("/srv/a=b").unwrap().label, "/srv/a=b");
        folder("x=").unwrap_err();
        for (text, bytes) in [("4k", 4096), ("1M", 1 << 20), ("512", 512)] {
            assert_eq!(block(text).unwrap(), bytes);
        }
        for text in ["", "k", "3k", "0", "1g", "99999999999999999999m", "128m"] {
            block(text).unwrap_err();
        }
    }

    /// Both folders are the same disk, so nothing is said about which one wins.
    #[tokio::test]
    async fn two_folders_in_one_run_beside_the_paper() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let named = |name: &str| Folder {
            label: name.into(),
            dir: dir.path().join(name),
        };
        let out = dir.path().join("out.json");
        let args = Args {
            dirs: vec![named("a"), named("b")],
            block: vec![65536],
            size_mib: 4,
            seconds: 1,
            repeat: 1,
            buffered: true,
            output: Output {
                before: None,
                json: Some(out.to_string_lossy().into_owned()),
                html: Some(dir.path().join("out.html")),
            },
        };
        run(args, false, true).await.unwrap();
        let record: Record = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!(record.rows.len(), 6);
        assert!(record.rows.iter().all(|r| r.value() > 0.0), "{record:?}");
        assert_eq!(record.paper.len(), 1);
        assert!(record.paper[0].here.contains("64 KiB"), "{record:?}");
        let page = std::fs::read_to_string(dir.path().join("out.html")).unwrap();
        assert!(page.contains("+3 to +13 %"));
        let args = Args {
            dirs: vec![named("a")],
            block: vec![4096],
            size_mib: 1,
            seconds: 1,
            repeat: 1,
            buffered: true,
            output: Output {
                before: None,
                json: None,
                html: None,
            },
        };
        let said = run(args, true, true).await.unwrap_err().to_string();
        assert!(said.contains("no NFS mount"), "{said}");
    }
}
