//! iperf3 and fio: run, bounded, and read. Nothing here decides what is measured.

use crate::exit::{self, Exit};
use serde_json::Value;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Port that iperf3 listens on.
pub const IPERF_PORT: u16 = 5201;
/// What a measurement may take beyond the time that was asked for.
const SLACK: Duration = Duration::from_secs(120);

fn failed(message: impl Into<String>) -> anyhow::Error {
    Exit::coded(exit::FAILED, message)
}

/// Runs a measuring program to its end; it dies with this future.
async fn run(
    program: &str,
    arguments: &[String],
    seconds: u64,
) -> anyhow::Result<(String, String)> {
    let child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            failed(format!(
                "{program} can't be run: {e}. Install it, on Debian: apt install {program}"
            ))
        })?;
    let limit = Duration::from_secs(seconds) + SLACK;
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(Ok(output)) => Ok((
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
        Ok(Err(e)) => Err(failed(format!("{program} can't be waited for: {e}"))),
        Err(_) => Err(failed(format!(
            "{program} did not end within {} s and was ended: look whether the disk or the network it measures still answers",
            limit.as_secs()
        ))),
    }
}

/// One TCP measurement.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Who runs `lyceum bench net --serve`.
    pub peer: IpAddr,
    /// Port there.
    pub port: u16,
    /// How long.
    pub seconds: u32,
    /// Connections at once.
    pub streams: u32,
    /// The other machine sends.
    pub receive: bool,
}

/// What TCP reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Throughput {
    /// Megabits per second that arrived.
    pub mbits: f64,
    /// Segments that were sent again, where the sender says it.
    pub retransmits: Option<u64>,
    /// CPU that the measuring took here, percent of one.
    pub cpu: f64,
}

/// Measures TCP.
pub async fn tcp(wanted: &Tcp) -> anyhow::Result<Throughput> {
    let mut arguments: Vec<String> = vec![
        "-J".into(),
        "-c".into(),
        wanted.peer.to_string(),
        "-p".into(),
        wanted.port.to_string(),
        "-t".into(),
        wanted.seconds.to_string(),
        "-P".into(),
        wanted.streams.to_string(),
    ];
    if wanted.receive {
        arguments.push("-R".into());
    }
    let (out, said) = run("iperf3", &arguments, u64::from(wanted.seconds)).await?;
    parse_tcp(&out).map_err(|why| told(wanted.peer, wanted.port, &why, &said))
}

fn told(peer: IpAddr, port: u16, why: &str, said: &str) -> anyhow::Error {
    let said = said.trim();
    failed(format!(
        "iperf3 to {peer}, port {port}: {why}{}{said}. On that machine: lyceum bench net --serve {peer}",
        if said.is_empty() { "" } else { "; " }
    ))
}

fn json(text: &str) -> Result<Value, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|e| format!("its answer is not JSON ({e})"))?;
    match value.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(value),
    }
}

/// What iperf3's JSON says of TCP.
pub fn parse_tcp(text: &str) -> Result<Throughput, String> {
    let value = json(text)?;
    let bits = value["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .filter(|b| b.is_finite() && *b > 0.0)
        .ok_or("its answer has no throughput")?;
    Ok(Throughput {
        mbits: bits / 1e6,
        retransmits: value["end"]["sum_sent"]["retransmits"].as_u64(),
        cpu: value["end"]["cpu_utilization_percent"]["host_total"]
            .as_f64()
            .unwrap_or(0.0),
    })
}

/// Whether packets of so many bytes, IP header included, arrive there in one piece.
pub async fn large_packets(peer: IpAddr, port: u16, bytes: u64) -> anyhow::Result<bool> {
    let headers = if peer.is_ipv4() { 28 } else { 48 };
    let arguments: Vec<String> = [
        "-J",
        "-c",
        &peer.to_string(),
        "-p",
        &port.to_string(),
        "-u",
        "--dont-fragment",
        "-b",
        "20M",
        "-t",
        "1",
        "-l",
        &bytes.saturating_sub(headers).to_string(),
    ]
    .map(String::from)
    .to_vec();
    let (out, _) = run("iperf3", &arguments, 1).await?;
    Ok(parse_datagrams(&out))
}

/// Whether most of the datagrams arrived. An error is a no: the kernel itself refuses to send
/// what does not fit.
pub fn parse_datagrams(text: &str) -> bool {
    let Ok(value) = json(text) else { return false };
    let sum = &value["end"]["sum"];
    match (sum["packets"].as_f64(), sum["lost_packets"].as_f64()) {
        (Some(packets), Some(lost)) => packets > 0.0 && lost < packets / 2.0,
        _ => false,
    }
}

/// What a file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Read from the beginning to the end.
    Read,
    /// Written from the beginning to the end; flushed at the end.
    Write,
    /// Written at random places, with a flush after every 32 writes, as a guest does.
    Flushed,
}

/// One measurement of a folder.
#[derive(Debug, Clone)]
pub struct File {
    /// Where; a file is made there and removed.
    pub dir: PathBuf,
    /// What is done.
    pub what: Use,
    /// Bytes at once.
    pub block: u64,
    /// Size of the file.
    pub size: u64,
    /// How long.
    pub seconds: u32,
    /// Past the page cache.
    pub direct: bool,
}

/// What a folder reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// MiB per second.
    pub mib_s: f64,
    /// Operations per second.
    pub iops: f64,
    /// 99 of 100 flushes were not slower, milliseconds; `None`: there were none.
    pub flush_p99_ms: Option<f64>,
}

/// Removes a bench's file.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A name for a bench's file that nothing else has.
pub fn bench_file(dir: &Path) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    dir.join(format!(".lyceum-bench-{}-{n}", std::process::id()))
}

/// Whether the folder is there and has room for so many bytes.
pub fn has_room(dir: &Path, bytes: u64) -> anyhow::Result<()> {
    // fio makes folders that are not there, without a word.
    if !dir.is_dir() {
        return Err(Exit::usage(format!(
            "{} is not a folder: name one on the disk that is to be measured",
            dir.display()
        )));
    }
    let found = nix::sys::statvfs::statvfs(dir).map_err(|e| {
        failed(format!(
            "{} can't be asked for its room: {e}",
            dir.display()
        ))
    })?;
    let free = found.blocks_available() * found.fragment_size();
    if free < bytes + bytes / 4 {
        return Err(failed(format!(
            "{} has {} left, and a file of {} is to be made there: make room, or choose a smaller --size-mib",
            dir.display(),
            crate::format::bytes(free),
            crate::format::bytes(bytes)
        )));
    }
    Ok(())
}

/// Measures a folder.
pub async fn file(wanted: &File) -> anyhow::Result<Figures> {
    has_room(&wanted.dir, wanted.size)?;
    let path = bench_file(&wanted.dir);
    let _removed = Removed(path.clone());
    let rw = match wanted.what {
        Use::Read => "read",
        Use::Write => "write",
        Use::Flushed => "randwrite",
    };
    let mut arguments: Vec<String> = vec![
        "--name=lyceum".into(),
        // In fio a colon divides file names.
        format!(
            "--filename={}",
            path.display().to_string().replace(':', "\\:")
        ),
        format!("--rw={rw}"),
        format!("--bs={}", wanted.block),
        format!("--size={}", wanted.size),
        format!("--runtime={}", wanted.seconds),
        "--time_based".into(),
        "--ioengine=psync".into(),
        format!("--direct={}", u8::from(wanted.direct)),
        "--randseed=1".into(),
        "--output-format=json".into(),
    ];
    match wanted.what {
        Use::Read => {}
        Use::Write => arguments.push("--end_fsync=1".into()),
        Use::Flushed => arguments.push("--fsync=32".into()),
    }
    // A file is laid out before it is read, at whatever the disk does.
    let layout = wanted.size / (10 << 20);
    let (out, said) = run("fio", &arguments, u64::from(wanted.seconds) + layout).await?;
    parse_file(&out, wanted.what == Use::Read).map_err(|why| {
        let said = said.trim();
        failed(format!(
            "fio in {}: {why}{}{said}{}",
            wanted.dir.display(),
            if said.is_empty() { "" } else { "; " },
            if wanted.direct {
                ". Where a file system can't be used past the page cache: --buffered"
            } else {
                ""
            }
        ))
    })
}

/// What fio's JSON says.
pub fn parse_file(text: &str, read: bool) -> Result<Figures, String> {
    // Words of fio come before it when something is odd.
    let begin = text.find('{').ok_or("it gave no answer")?;
    let value = json(&text[begin..])?;
    let job = &value["jobs"][0];
    match job["error"].as_i64() {
        Some(0) => {}
        Some(n) => return Err(std::io::Error::from_raw_os_error(n as i32).to_string()),
        None => return Err("its answer has no job".into()),
    }
    let side = &job[if read { "read" } else { "write" }];
    let bytes = side["bw_bytes"]
        .as_f64()
        .filter(|b| *b > 0.0)
        .ok_or("it measured nothing: give it more --seconds")?;
    let flushes = job["sync"]["total_ios"].as_u64().unwrap_or(0);
    let p99 = job["sync"]["lat_ns"]["percentile"]["99.000000"].as_f64();
    Ok(Figures {
        mib_s: bytes / f64::from(1 << 20),
        iops: side["iops"].as_f64().unwrap_or(0.0),
        flush_p99_ms: p99.filter(|_| flushes > 0).map(|ns| ns / 1e6),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_of_the_programs_are_told() {
        let error = r#"{"start":{},"intervals":[],"end":{},"error":"unable to connect to server: Connection refused"}"#;
        assert!(parse_tcp(error).unwrap_err().contains("Connection refused"));
        assert!(!parse_datagrams(error));
        let error = r#"{"jobs":[{"error":28}]}"#;
        assert!(parse_file(error, true).unwrap_err().contains("No space"));
        for odd in [
            "",
            "{",
            "{}",
            "[]",
            "{\"jobs\":[]}",
            "{\"end\":{\"sum_received\":{\"bits_per_second\":-1}}}",
        ] {
            parse_tcp(odd).unwrap_err();
            parse_file(odd, false).unwrap_err();
        }
    }

    #[test]
    fn datagrams_that_are_lost_prove_nothing() {
        let said = |packets: u32, lost: u32| {
            format!(r#"{{"end":{{"sum":{{"packets":{packets},"lost_packets":{lost}}}}}}}"#)
        };
        assert!(parse_datagrams(&said(279, 32)));
        assert!(!parse_datagrams(&said(279, 279)));
        assert!(!parse_datagrams(&said(0, 0)));
    }

    /// With the real fio; `make test` installs it.
    #[tokio::test]
    async fn fio_measures_a_folder_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (what, block) in [
            (Use::Read, 65536),
            (Use::Write, 65536),
            (Use::Flushed, 4096),
        ] {
            let figures = file(&File {
                dir: dir.path().into(),
                what,
                block,
                size: 4 << 20,
                seconds: 1,
                direct: false,
            })
            .await
            .unwrap();
            assert!(figures.mib_s > 0.0 && figures.iops > 0.0, "{figures:?}");
            assert_eq!(
                figures.flush_p99_ms.is_some(),
                what == Use::Flushed,
                "{what:?} {figures:?}"
            );
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = File {
            dir: dir.path().join("missing"),
            what: Use::Read,
            block: 4096,
            size: 4096,
            seconds: 1,
            direct: false,
        };
        let said = file(&missing).await.unwrap_err().to_string();
        assert!(said.contains("not a folder"), "{said}");
        assert!(!dir.path().join("missing").exists());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named_with_its_package() {
        let said = run("iperf3-that-is-not-there", &[], 1).await.unwrap_err();
        assert!(said.to_string().contains("apt install"), "{said}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_panic(text in ".*") {
            let _ = (parse_tcp(&text), parse_file(&text, true), parse_datagrams(&text));
        }
    }
}
