//! Measures the gateway as a process of its own, and any other proxy from WebSocket to TCP beside it.
//!
//! ```text
//! cargo run --release -p lyceum-console --example gateway_bench -- bench [--websockify PATH] [--held 2000] [--seconds 30]
//! ```
//!
//! Three processes: made-up machines that answer with pictures, the proxy, and viewers. What counts for
//! the proxy is its own CPU time and memory, so that the others may be as busy as they like.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use lyceum_console::{ClientItem, Limits, Mode, Server, ToClient};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const WIDTH: u16 = 1280;
const HEIGHT: u16 = 800;

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match args.first().map(String::as_str) {
        Some("machine") => runtime.block_on(machines()),
        Some("serve") => runtime.block_on(gateways(args[1].parse()?)),
        Some("bench") => runtime.block_on(bench(&args[1..])),
        _ => Err("usage: gateway_bench bench [--websockify PATH] [--held N] [--seconds N]".into()),
    }
}

async fn announced() -> Result<TcpListener, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

// ---- made-up machines ----

/// A picture as QEMU sends it to noVNC: Tight rectangles of 60,000 bytes, which are not looked into.
fn picture(rectangles: u16) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(rectangles.to_be_bytes());
    for i in 0..rectangles {
        rectangle(&mut out, i % 8 * 64, 60_000);
    }
    out.into()
}

fn rectangle(out: &mut Vec<u8>, y: u16, bytes: usize) {
    for n in [0, y, 256, 64] {
        out.extend(n.to_be_bytes());
    }
    out.extend(7i32.to_be_bytes());
    out.push(0x90);
    out.extend([
        (bytes & 0x7f) as u8 | 0x80,
        (bytes >> 7 & 0x7f) as u8 | 0x80,
        (bytes >> 14) as u8,
    ]);
    out.resize(out.len() + bytes, 0x55);
}

async fn machines() -> Result<(), AnyError> {
    let listener = announced().await?;
    let large = picture(16);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(machine(stream, large.clone()));
    }
}

// Answers a whole picture at once; a change is answered when a key is pressed.
async fn machine(mut stream: TcpStream, large: Bytes) -> std::io::Result<()> {
    let mut small = vec![0, 0, 0, 1];
    rectangle(&mut small, 0, 300);
    stream.write_all(b"RFB 003.008\n").await?;
    stream.read_exact(&mut [0; 12]).await?;
    stream.write_all(&[1, 1]).await?;
    stream.read_u8().await?;
    stream.write_all(&[0; 4]).await?;
    stream.read_u8().await?;
    let mut init = Vec::new();
    init.extend(WIDTH.to_be_bytes());
    init.extend(HEIGHT.to_be_bytes());
    init.extend(lyceum_console::protocol::PixelFormat::COMMON.raw());
    init.extend([0, 0, 0, 4]);
    init.extend(b"made");
    stream.write_all(&init).await?;
    loop {
        match stream.read_u8().await? {
            0 => drop(stream.read_exact(&mut [0; 19]).await?),
            2 => {
                stream.read_u8().await?;
                let n = stream.read_u16().await?;
                stream.read_exact(&mut vec![0; 4 * usize::from(n)]).await?;
            }
            3 => {
                let incremental = stream.read_u8().await?;
                stream.read_exact(&mut [0; 8]).await?;
                if incremental == 0 {
                    stream.write_all(&large).await?;
                }
            }
            4 => {
                stream.read_exact(&mut [0; 7]).await?;
                stream.write_all(&small).await?;
            }
            5 => drop(stream.read_exact(&mut [0; 5]).await?),
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

// ---- the gateway ----

fn websocket() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(1024 * 1024)
}

struct Page(WebSocketStream<TcpStream>);

impl Stream for Page {
    type Item = Result<ClientItem, tungstenite::Error>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|item| match item? {
            Ok(Message::Binary(bytes)) => Some(Ok(ClientItem::Bytes(bytes))),
            Ok(Message::Close(_)) => None,
            Ok(_) => Some(Ok(ClientItem::Alive)),
            Err(e) => Some(Err(e)),
        })
    }
}

impl Sink<ToClient> for Page {
    type Error = tungstenite::Error;
    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.0).poll_ready(cx)
    }
    fn start_send(mut self: Pin<&mut Self>, item: ToClient) -> Result<(), Self::Error> {
        let message = match item {
            ToClient::Bytes(bytes) => Message::Binary(bytes),
            ToClient::Ping => Message::Ping(Bytes::new()),
            ToClient::Note(_) => return Ok(()),
        };
        Pin::new(&mut self.0).start_send(message)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

async fn gateways(machines: SocketAddr) -> Result<(), AnyError> {
    let listener = announced().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(gateway(stream, machines));
    }
}

async fn gateway(stream: TcpStream, machines: SocketAddr) -> Result<(), AnyError> {
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(websocket())).await?;
    let (orders, servers) = mpsc::channel(2);
    let lost = Arc::new(Notify::new());
    let mut page = Page(socket);
    let none = futures::stream::pending();
    let supply = async {
        loop {
            let stream = TcpStream::connect(machines).await?;
            stream.set_nodelay(true)?;
            let order = Server::Attach {
                stream,
                same: true,
                taken: None,
            };
            let _ = orders.send(order).await;
            lost.notified().await;
        }
        #[allow(unreachable_code)]
        Ok::<(), AnyError>(())
    };
    let serve = lyceum_console::serve(
        &mut page,
        servers,
        lost.clone(),
        none,
        Mode::default(),
        Limits::default(),
    );
    tokio::select! {
        _ = serve => Ok(()),
        failed = supply => failed,
    }
}

// ---- viewers ----

struct Viewer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Viewer {
    async fn connect(to: SocketAddr) -> Result<Viewer, AnyError> {
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{to}/")).await?;
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_nodelay(true)?;
        }
        let mut viewer = Viewer {
            socket,
            buffer: Vec::new(),
            at: 0,
        };
        viewer.read(12).await?;
        viewer.send(b"RFB 003.008\n").await?;
        viewer.read(2).await?;
        viewer.send(&[1]).await?;
        viewer.read(4).await?;
        viewer.send(&[1]).await?;
        viewer.read(28).await?;
        viewer.send(&[2, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0]).await?;
        Ok(viewer)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), AnyError> {
        self.socket.send(Message::binary(bytes.to_vec())).await?;
        Ok(())
    }

    async fn read(&mut self, bytes: usize) -> Result<(), AnyError> {
        let mut left = bytes - self.buffer.len().saturating_sub(self.at).min(bytes);
        self.at += bytes - left;
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        while left > 0 {
            match self.socket.next().await {
                Some(Ok(Message::Binary(part))) => {
                    if part.len() > left {
                        self.buffer = part[left..].to_vec();
                        self.at = 0;
                        left = 0;
                    } else {
                        left -= part.len();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.into()),
                None => return Err("the proxy closed".into()),
            }
        }
        Ok(())
    }

    async fn ask(&mut self, incremental: bool) -> Result<(), AnyError> {
        let mut ask = vec![3, u8::from(incremental), 0, 0, 0, 0];
        ask.extend(WIDTH.to_be_bytes());
        ask.extend(HEIGHT.to_be_bytes());
        self.send(&ask).await
    }
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

/// Bytes passed on for each CPU second of the proxy.
async fn throughput(proxy: &Part, viewers: usize, seconds: u64) -> Result<f64, AnyError> {
    let size = picture(16).len();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut all = Vec::new();
    for _ in 0..viewers {
        let mut viewer = Viewer::connect(proxy.1).await?;
        viewer.ask(false).await?;
        viewer.read(size).await?;
        all.push(viewer);
    }
    let before = cpu(proxy.0.id());
    let mut set = tokio::task::JoinSet::new();
    for mut viewer in all {
        set.spawn(async move {
            let mut bytes = 0;
            while Instant::now() < until {
                viewer.ask(false).await?;
                viewer.read(size).await?;
                bytes += size;
            }
            // Kept until the CPU time is read: that of a process that ended is not its parent's yet.
            Ok::<_, AnyError>((bytes, viewer))
        });
    }
    let mut total = 0;
    let mut kept = Vec::new();
    while let Some(done) = set.join_next().await {
        let (bytes, viewer) = done??;
        total += bytes;
        kept.push(viewer);
    }
    Ok(total as f64 / (cpu(proxy.0.id()) - before))
}

/// From key press to picture: median and 99th percentile, in microseconds.
async fn latency(to: SocketAddr, rounds: usize) -> Result<(f64, f64), AnyError> {
    let mut viewer = Viewer::connect(to).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        viewer.ask(true).await?;
        tokio::time::sleep(Duration::from_millis(12)).await;
        let begin = Instant::now();
        viewer.send(&[4, 1, 0, 0, 0, 0, 0, 0x61]).await?;
        viewer.read(4 + 12 + 1 + 3 + 300).await?;
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
        tokio::time::sleep(Duration::from_millis(12)).await;
        let begin = Instant::now();
        stream.write_all(&[4, 1, 0, 0, 0, 0, 0, 0x61]).await?;
        stream.read_exact(&mut [0; 4 + 12 + 1 + 3 + 300]).await?;
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

    let machine = part(&["machine"])?;
    let to = machine.1.to_string();

    let gateway = part(&["serve", &to])?;
    let (d50, d99) = direct(machine.1, 1000).await?;
    let (g50, g99) = latency(gateway.1, 1000).await?;
    println!(
        "key press to picture, us: direct p50 {d50:.0} p99 {d99:.0}, through the gateway p50 {g50:.0} p99 {g99:.0}"
    );
    println!(
        "added by the gateway and a WebSocket, us: p50 {:.0} p99 {:.0}",
        g50 - d50,
        g99 - d99
    );

    let ours = throughput(&gateway, 4, 10).await?;
    println!("gateway: {:.0} MB for each CPU second", ours / 1e6);
    if let Some(path) = option("--websockify") {
        let other = websockify(&path, machine.1)?;
        let (w50, w99) = latency(other.1, 1000).await?;
        println!("through websockify, us: p50 {w50:.0} p99 {w99:.0}");
        let theirs = throughput(&other, 4, 10).await?;
        println!(
            "websockify: {:.0} MB for each CPU second; the gateway passes on {:.1} times as much",
            theirs / 1e6,
            ours / theirs
        );
    }
    drop(gateway);

    let gateway = part(&["serve", &to])?;
    let pid = gateway.0.id();
    let mut warm = Viewer::connect(gateway.1).await?;
    warm.ask(true).await?;
    let before = rss_kib(pid);
    let mut viewers = Vec::new();
    for _ in 0..held {
        let mut viewer = Viewer::connect(gateway.1).await?;
        viewer.ask(true).await?;
        viewers.push(viewer);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = (rss_kib(pid) - before) / held as f64;
    println!("{held} idle connections: {idle:.1} KiB each in the gateway");

    let began = cpu(pid);
    let mut set = tokio::task::JoinSet::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    for (i, mut viewer) in viewers.into_iter().enumerate() {
        set.spawn(async move {
            tokio::time::sleep(Duration::from_millis(i as u64 % 1000)).await;
            let mut updates = 0u64;
            while Instant::now() < until {
                viewer.send(&[4, 1, 0, 0, 0, 0, 0, 0x61]).await?;
                viewer.read(4 + 12 + 1 + 3 + 300).await?;
                viewer.ask(true).await?;
                updates += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok::<_, AnyError>(updates)
        });
    }
    let (mut alive, mut updates) = (0, 0);
    while let Some(done) = set.join_next().await {
        if let Ok(Ok(n)) = done {
            alive += 1;
            updates += n;
        }
    }
    println!(
        "{alive} of {held} connections held for {seconds} s with an update each second: {updates} updates, {:.1} s of CPU, {:.1} KiB each at the end",
        cpu(pid) - began,
        (rss_kib(pid) - before) / held as f64
    );
    Ok(())
}
