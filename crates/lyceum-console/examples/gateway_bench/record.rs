//! Records what a real machine sends, as our gateway asks for it on behalf of noVNC, while somebody types into a
//! terminal, moves its window and goes over the panel.

use crate::AnyError;
use lyceum_console::{Mode, Session};
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// noVNC's encodings, in its order: copy, Tight, TightPNG, hextile, RRE, raw, and what is beside the picture; quality 7, compression 2.
const ENCODINGS: [i32; 14] = [
    1, 7, -260, 5, 2, 0, -25, -254, -223, -224, -258, -308, -307, -239,
];

struct Desk {
    session: Session,
    stream: UnixStream,
    size: (u16, u16),
    updates: Vec<Vec<u8>>,
}

impl Desk {
    fn ask(&mut self) -> Result<(), AnyError> {
        let mut ask = vec![3, 1, 0, 0, 0, 0];
        ask.extend(self.size.0.to_be_bytes());
        ask.extend(self.size.1.to_be_bytes());
        Ok(self.session.from_client(&ask)?)
    }

    // Carries bytes for so long; each update is kept, and the next asked for.
    async fn watch(&mut self, time: Duration) -> Result<(), AnyError> {
        let until = Instant::now() + time;
        let mut now = Vec::new();
        loop {
            self.session.advance(Instant::now());
            while !self.session.to_server().is_empty() {
                let written = self.stream.write(self.session.to_server()).await?;
                self.session.wrote(written);
            }
            let mut block = bytes::BytesMut::with_capacity(65_536);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // Keys wait for their turn in the session.
            let left = left.min(Duration::from_millis(5));
            if let Ok(read) = tokio::time::timeout(left, self.stream.read_buf(&mut block)).await {
                if read? == 0 {
                    return Err("the machine is gone".into());
                }
                let before = self.session.pictures();
                self.session.from_server(block.freeze())?;
                while let Some(piece) = self.session.to_client() {
                    now.extend_from_slice(&piece);
                }
                self.session.client_drained();
                if self.session.pictures() > before {
                    self.updates.push(std::mem::take(&mut now));
                    self.ask()?;
                }
            }
        }
    }

    async fn say(&mut self, message: &[u8], pause: u64) -> Result<(), AnyError> {
        self.session.from_client(message)?;
        self.watch(Duration::from_millis(pause)).await
    }

    async fn key(&mut self, keysym: u32) -> Result<(), AnyError> {
        for down in [1, 0] {
            let mut key = vec![4, down, 0, 0];
            key.extend(keysym.to_be_bytes());
            self.say(&key, 30).await?;
        }
        Ok(())
    }

    // At the pace of somebody who types well.
    async fn text(&mut self, text: &str) -> Result<(), AnyError> {
        for c in text.chars() {
            let keysym = if c == '\n' { 0xff0d } else { c as u32 };
            self.key(keysym).await?;
            self.watch(Duration::from_millis(60)).await?;
        }
        Ok(())
    }

    async fn pointer(&mut self, buttons: u8, x: u16, y: u16) -> Result<(), AnyError> {
        let mut message = vec![5, buttons];
        message.extend(x.to_be_bytes());
        message.extend(y.to_be_bytes());
        self.say(&message, 20).await
    }

    async fn click(&mut self, x: u16, y: u16) -> Result<(), AnyError> {
        for buttons in [0, 1, 0] {
            self.pointer(buttons, x, y).await?;
        }
        Ok(())
    }

    async fn drag(&mut self, from: (u16, u16), to: (u16, u16)) -> Result<(), AnyError> {
        const STEPS: i32 = 40;
        let at = |a: u16, b: u16, step: i32| {
            (i32::from(a) + (i32::from(b) - i32::from(a)) * step / STEPS) as u16
        };
        self.pointer(0, from.0, from.1).await?;
        for step in 0..=STEPS {
            self.pointer(1, at(from.0, to.0, step), at(from.1, to.1, step))
                .await?;
        }
        self.pointer(0, to.0, to.1).await
    }
}

/// The lesson that is recorded; the demo desktop's places, 1280 by 800.
async fn lesson(desk: &mut Desk) -> Result<(), AnyError> {
    let second = Duration::from_secs(1);
    // The panel's terminal.
    desk.click(92, 780).await?;
    desk.watch(10 * second).await?;
    desk.updates.clear();
    desk.text("echo typed at the pace of a person, with a mistake")
        .await?;
    for _ in 0..7 {
        desk.key(0xff08).await?;
    }
    desk.text("word\n").await?;
    desk.text("cat /etc/services\n").await?;
    desk.watch(3 * second).await?;
    desk.text(
        "for i in $(seq 60); do echo line $i of a program that says something; sleep .1; done\n",
    )
    .await?;
    desk.watch(7 * second).await?;
    // The window's title, the pointer over the panel and over the desktop.
    desk.drag((640, 12), (700, 160)).await?;
    desk.drag((700, 160), (520, 60)).await?;
    for step in 0..60 {
        desk.pointer(0, 40 + 20 * step, 780).await?;
    }
    desk.text("exit\n").await?;
    desk.watch(2 * second).await
}

pub async fn record(socket: &str, out: &str) -> Result<(), AnyError> {
    let mut desk = Desk {
        session: Session::new(Mode::default()),
        stream: UnixStream::connect(socket).await?,
        size: (0, 0),
        updates: Vec::new(),
    };
    desk.session.attach(false, None);
    desk.session.from_client(b"RFB 003.008\n\x01\x01")?;
    desk.session.advance(Instant::now());
    // The server's handshake, until its picture's size is known.
    let mut hello = Vec::new();
    while hello.len() < 12 + 2 + 4 + 24 {
        let mut block = bytes::BytesMut::with_capacity(4096);
        desk.stream.read_buf(&mut block).await?;
        desk.session.from_server(block.freeze())?;
        while !desk.session.to_server().is_empty() {
            let written = desk.stream.write(desk.session.to_server()).await?;
            desk.session.wrote(written);
        }
        while let Some(piece) = desk.session.to_client() {
            hello.extend_from_slice(&piece);
        }
    }
    desk.session.client_drained();
    let number = |at: usize| u16::from_be_bytes([hello[at], hello[at + 1]]);
    desk.size = (number(18), number(20));
    let mut tell = vec![2, 0, 0, ENCODINGS.len() as u8];
    ENCODINGS
        .iter()
        .for_each(|code| tell.extend(code.to_be_bytes()));
    desk.session.from_client(&tell)?;
    desk.ask()?;
    desk.watch(Duration::from_secs(3)).await?;
    lesson(&mut desk).await?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(out)?);
    for update in &desk.updates {
        file.write_all(&(update.len() as u32).to_be_bytes())?;
        file.write_all(update)?;
    }
    let mut sizes: Vec<usize> = desk.updates.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    let total: usize = sizes.iter().sum();
    println!(
        "{} updates of a picture of {} by {}, {total} bytes: median {}, 90th percentile {}, largest {}",
        sizes.len(),
        desk.size.0,
        desk.size.1,
        sizes[sizes.len() / 2],
        sizes[sizes.len() * 9 / 10],
        sizes[sizes.len() - 1]
    );
    Ok(())
}
