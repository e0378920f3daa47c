//! Measures the gateway as a process of its own, and any other proxy from WebSocket to TCP beside it.
//!
//! ```text
//! gateway_bench bench [--websockify PATH] [--recording FILE] [--held 2000] [--seconds 30] [--round 4] [--threads 1]
//! gateway_bench record SOCKET FILE
//! ```
//!
//! Three processes: made-up machines that answer with pictures, the proxy, and viewers. What counts for
//! the proxy is its own CPU time and memory, so that the others may be as busy as they like. A recording is made of a real
//! demo desktop that nobody else uses, by way of its QEMU's VNC socket.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod gateway;
mod machine;
mod record;
mod viewer;

use machine::{LARGE, RECORDED, SIZED, picture, recording};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use viewer::Viewer;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const WIDTH: u16 = 1280;
const HEIGHT: u16 = 800;

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // What a proxy does is counted for each core: this one has as many as it is told, by default one.
    if let ["serve" | "serve-tls", _, threads] = words[..] {
        runtime.worker_threads(threads.parse()?);
    }
    let runtime = runtime.enable_all().build()?;
    match words[..] {
        ["machine"] => runtime.block_on(machine::machines(None)),
        ["machine", file] => runtime.block_on(machine::machines(Some(file))),
        ["serve", machines, _] => runtime.block_on(gateway::gateways(machines.parse()?, false)),
        ["serve-tls", machines, _] => runtime.block_on(gateway::gateways(machines.parse()?, true)),
        ["record", socket, out] => runtime.block_on(record::record(socket, out)),
        ["bench", ..] => runtime.block_on(bench(&args[1..])),
        _ => Err("usage: gateway_bench bench [--websockify PATH] [--recording FILE] [--held N] [--seconds N] [--round N] [--threads N], or gateway_bench record SOCKET FILE".into()),
    }
}

async fn announced() -> Result<TcpListener, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

// ---- measuring ----

struct Part(Child, SocketAddr);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn part(words: &[&str]) -> Result<Part, AnyError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(words)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().ok_or("no output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    let address = line.trim().parse()?;
    Ok(Part(child, address))
}

// The other proxy; it has a process for each connection.
fn websockify(path: &str, machines: SocketAddr) -> Result<Part, AnyError> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new(path)
        .args([&free.to_string(), &machines.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    for _ in 0..200 {
        if std::net::TcpStream::connect(free).is_ok() {
            return Ok(Part(child, free));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("websockify does not listen".into())
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let own: Vec<u32> = text
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|p| p.parse().ok())
        .collect();
    own.iter()
        .flat_map(|p| std::iter::once(*p).chain(children(*p)))
        .collect()
}

/// CPU seconds of a process and its children.
fn cpu(pid: u32) -> f64 {
    let ticks = |pid: u32| -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |i: usize| -> f64 {
            rest.split_whitespace()
                .nth(i)
                .and_then(|n| n.parse().ok())
                .unwrap_or(0.0)
        };
        field(11) + field(12)
    };
    let all = ticks(pid) + children(pid).into_iter().map(ticks).sum::<f64>();
    // SAFETY: a question about a constant of the system.
    all / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

fn rss_kib(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("Pss:"))
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// What viewers ask for again and again.
#[derive(Clone, Copy)]
enum Load {
    Sized(u16),
    Recorded,
    Large,
}

/// Bytes and updates passed on for each CPU second of the proxy, four viewers at once that each ask for the next update when they have one.
async fn throughput(
    proxy: &Part,
    load: Load,
    recorded: &[usize],
    seconds: u64,
) -> Result<(f64, f64), AnyError> {
    let large = picture(16).len();
    let next = move |n: usize| match load {
        Load::Sized(bytes) => (bytes, SIZED, usize::from(bytes)),
        Load::Recorded => (0, RECORDED, 0),
        Load::Large => (n as u16 % 7, LARGE, large),
    };
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(Viewer::connect(proxy.1, false).await?);
    }
    let before = cpu(proxy.0.id());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut set = tokio::task::JoinSet::new();
    for mut viewer in all {
        let recorded = recorded.to_vec();
        set.spawn(async move {
            let (mut bytes, mut updates) = (0, 0);
            while Instant::now() < until {
                let (x, y, size) = next(updates);
                let size = match load {
                    Load::Recorded => recorded[updates % recorded.len()],
                    _ => size,
                };
                viewer.ask(true, x, y).await?;
                viewer.read(size).await?;
                bytes += size;
                updates += 1;
            }
            // Kept until the CPU time is read: that of a process that ended is not its parent's yet.
            Ok::<_, AnyError>((bytes, updates, viewer))
        });
    }
    let (mut total, mut updates) = (0, 0);
    let mut kept = Vec::new();
    while let Some(done) = set.join_next().await {
        let (bytes, n, viewer) = done??;
        total += bytes;
        updates += n;
        kept.push(viewer);
    }
    let used = cpu(proxy.0.id()) - before;
    Ok((total as f64 / used, updates as f64 / used))
}

/// Between two key presses: faster than people type, slower than keys are given on at (one in 20 ms).
const PRESSES: Duration = Duration::from_millis(30);

/// From key press to picture: median and 99th percentile, in microseconds.
async fn latency(to: SocketAddr, rounds: usize) -> Result<(f64, f64), AnyError> {
    let mut viewer = Viewer::connect(to, false).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        viewer.ask(true, 0, 0).await?;
        tokio::time::sleep(PRESSES).await;
        let begin = Instant::now();
        viewer.press().await?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentiles(times))
}

/// The same without anything between.
async fn direct(to: SocketAddr, rounds: usize) -> Result<(f64, f64), AnyError> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 12]).await?;
    stream.write_all(b"RFB 003.008\n").await?;
    stream.read_exact(&mut [0; 2]).await?;
    stream.write_all(&[1, 1]).await?;
    stream.read_exact(&mut [0; 32]).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        tokio::time::sleep(PRESSES).await;
        let begin = Instant::now();
        stream.write_all(&[4, 1, 0, 0, 0, 0, 0, 0x61]).await?;
        stream.read_exact(&mut [0; machine::SMALL]).await?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentiles(times))
}

fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

async fn bench(args: &[String]) -> Result<(), AnyError> {
    let option = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1).cloned()
    };
    let number = |name: &str, default: u64| -> Result<u64, AnyError> {
        Ok(option(name).map_or(Ok(default), |n| n.parse())?)
    };
    let (held, seconds) = (number("--held", 2000)?, number("--seconds", 30)?);
    // Each held connection is two files in the gateway and one here and at the machines.
    let most = libc::rlimit {
        rlim_cur: 65_536,
        rlim_max: 65_536,
    };
    // SAFETY: a plain call with a struct on the stack; when it fails, the number held will show it.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &most) };

    let file = option("--recording");
    let recorded: Vec<usize> = match &file {
        Some(file) => recording(file)?.iter().map(bytes::Bytes::len).collect(),
        None => Vec::new(),
    };
    let mut words = vec!["machine"];
    words.extend(file.as_deref());
    let machine = part(&words)?;
    let to = machine.1.to_string();
    let other = option("--websockify")
        .map(|path| websockify(&path, machine.1))
        .transpose()?;

    let threads = number("--threads", 1)?.to_string();
    let gateway = part(&["serve", &to, &threads])?;
    let (d50, d99) = direct(machine.1, 500).await?;
    let (g50, g99) = latency(gateway.1, 500).await?;
    println!(
        "key press to picture, us: direct p50 {d50:.0} p99 {d99:.0}, through the gateway p50 {g50:.0} p99 {g99:.0}"
    );
    println!(
        "added by the gateway and a WebSocket, us: p50 {:.0} p99 {:.0}",
        g50 - d50,
        g99 - d99
    );
    if let Some(other) = &other {
        let (w50, w99) = latency(other.1, 500).await?;
        println!("through websockify, us: p50 {w50:.0} p99 {w99:.0}");
    }

    let mut loads: Vec<(String, Load)> = [200, 1000, 4000, 16_000, 60_000]
        .map(|bytes| (format!("updates of {bytes} bytes"), Load::Sized(bytes)))
        .into();
    loads.push(("16 rectangles of 60,000 bytes".into(), Load::Large));
    if !recorded.is_empty() {
        loads.push(("recorded".into(), Load::Recorded));
    }
    for (name, load) in loads {
        let round = number("--round", 4)?;
        let (ours, updates) = throughput(&gateway, load, &recorded, round).await?;
        print!(
            "{name}, for each CPU second: gateway {:.1} MB, {updates:.0} updates",
            ours / 1e6
        );
        if let Some(other) = &other {
            let (theirs, updates) = throughput(other, load, &recorded, round).await?;
            print!(
                "; websockify {:.1} MB, {updates:.0} updates; {:.2} times as much",
                theirs / 1e6,
                ours / theirs
            );
        }
        println!();
    }
    drop((gateway, other));

    for kind in ["serve", "serve-tls"] {
        let gateway = part(&[kind, &to, &threads])?;
        hold(&gateway, kind == "serve-tls", held, seconds).await?;
    }
    Ok(())
}

/// Memory of connections that do nothing, and as many with an update each second.
async fn hold(gateway: &Part, tls: bool, held: u64, seconds: u64) -> Result<(), AnyError> {
    let pid = gateway.0.id();
    let with = if tls { "with TLS" } else { "without TLS" };
    // The threads' own blocks are there before it counts.
    let _warm = Viewer::connect(gateway.1, tls).await?;
    let before = rss_kib(pid);
    let mut viewers = Vec::new();
    for _ in 0..held {
        let mut viewer = Viewer::connect(gateway.1, tls).await?;
        viewer.ask(true, 0, 0).await?;
        viewers.push(viewer);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = (rss_kib(pid) - before) / held as f64;
    println!("{held} idle connections {with}: {idle:.1} KiB each in the gateway");

    let began = cpu(pid);
    let mut set = tokio::task::JoinSet::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    for (i, mut viewer) in viewers.into_iter().enumerate() {
        set.spawn(async move {
            tokio::time::sleep(Duration::from_millis(i as u64 % 1000)).await;
            let mut updates = 0u64;
            while Instant::now() < until {
                viewer.press().await?;
                viewer.ask(true, 0, 0).await?;
                updates += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok::<_, AnyError>((updates, viewer))
        });
    }
    let (mut kept, mut updates) = (Vec::new(), 0);
    while let Some(done) = set.join_next().await {
        if let Ok(Ok((n, viewer))) = done {
            kept.push(viewer);
            updates += n;
        }
    }
    println!(
        "{} of {held} connections {with} held for {seconds} s with an update each second: {updates} updates, {:.1} s of CPU, {:.1} KiB each at the end",
        kept.len(),
        cpu(pid) - began,
        (rss_kib(pid) - before) / held as f64
    );
    Ok(())
}
