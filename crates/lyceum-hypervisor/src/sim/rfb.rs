//! A small RFB 3.8 server (RFC 6143): a coloured picture that changes with every
//! key pressed, so that a console's whole path can be tried without a guest.
//! Security type None, encoding Raw, true-colour formats of 8, 16 and 32 bits.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;

const WIDTH: u16 = 160;
const HEIGHT: u16 = 120;
/// Longest clipboard text taken from a viewer.
const CUT_TEXT: u32 = 64 * 1024;

/// What is on the screen: one colour, and how often it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    rgb: [u8; 3],
    changes: u64,
}

impl Screen {
    /// A colour of its own for each name.
    pub(super) fn of(name: &str) -> Screen {
        let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
        });
        let [_, r, g, b] = hash.to_be_bytes();
        Screen {
            rgb: [r, g, b],
            changes: 0,
        }
    }

    fn key(&mut self, key: u32) {
        let [_, r, g, b] = key.wrapping_mul(2_654_435_761).to_be_bytes();
        let [or, og, ob] = self.rgb;
        // The green channel always changes, whichever key it is.
        self.rgb = [or ^ r, og.wrapping_add(g | 1), ob ^ b];
        self.changes += 1;
    }
}

/// `PIXEL_FORMAT` of the protocol.
#[derive(Debug, Clone, Copy)]
struct Format {
    bytes: usize,
    big_endian: bool,
    max: [u16; 3],
    shift: [u8; 3],
}

const DEFAULT_FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

impl Format {
    fn parse(raw: &[u8; 16]) -> io::Result<Format> {
        let bytes = match (raw[0], raw[3]) {
            (8, 1) => 1,
            (16, 1) => 2,
            (32, 1) => 4,
            _ => return Err(bad("only true colour of 8, 16 or 32 bits is served")),
        };
        let max = |i: usize| u16::from_be_bytes([raw[i], raw[i + 1]]);
        let shift = [raw[10], raw[11], raw[12]];
        if shift.iter().any(|s| *s > 31) {
            return Err(bad("a colour is shifted out of its pixel"));
        }
        Ok(Format {
            bytes,
            big_endian: raw[2] != 0,
            max: [max(4), max(6), max(8)],
            shift,
        })
    }

    fn pixel(&self, rgb: [u8; 3]) -> Vec<u8> {
        let value = (0..3).fold(0u32, |v, i| {
            let scaled = u32::from(rgb[i]) * u32::from(self.max[i]) / 255;
            v | scaled << self.shift[i]
        });
        let (le, be) = (value.to_le_bytes(), value.to_be_bytes());
        if self.big_endian {
            be[4 - self.bytes..].to_vec()
        } else {
            le[..self.bytes].to_vec()
        }
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Serves one viewer until it goes away. Viewers share the screen.
pub(super) async fn serve<S>(stream: S, screen: watch::Sender<Screen>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    stream.write_all(b"RFB 003.008\n").await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    if &version != b"RFB 003.008\n" {
        return Err(bad("only RFB 3.8 is served"));
    }
    stream.write_all(&[1, 1]).await?;
    if stream.read_u8().await? != 1 {
        stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 0]).await?;
        return Err(bad("the viewer wants another security type"));
    }
    stream.write_all(&[0, 0, 0, 0]).await?;
    let _shared = stream.read_u8().await?;
    let mut init = Vec::new();
    init.extend(WIDTH.to_be_bytes());
    init.extend(HEIGHT.to_be_bytes());
    init.extend(DEFAULT_FORMAT);
    let name = b"simulated desktop";
    init.extend((name.len() as u32).to_be_bytes());
    init.extend(name);
    stream.write_all(&init).await?;
    stream.flush().await?;

    let mut format = Format::parse(&DEFAULT_FORMAT)?;
    let mut changes = screen.subscribe();
    // Whether the viewer waits for the next change of the picture.
    let mut waiting = false;
    loop {
        tokio::select! {
            kind = stream.read_u8() => {
                let now = message(kind?, &mut stream, &screen, &mut format, &mut waiting).await?;
                if now {
                    update(&mut stream, &mut changes, &format).await?;
                }
            }
            changed = changes.changed(), if waiting => {
                changed.map_err(|_| bad("the machine is gone"))?;
                waiting = false;
                update(&mut stream, &mut changes, &format).await?;
            }
        }
    }
}

/// Reads the rest of a message; whether a picture is to be sent now.
async fn message<S: AsyncRead + Unpin>(
    kind: u8,
    stream: &mut S,
    screen: &watch::Sender<Screen>,
    format: &mut Format,
    waiting: &mut bool,
) -> io::Result<bool> {
    match kind {
        0 => {
            let mut body = [0; 19];
            stream.read_exact(&mut body).await?;
            let mut raw = [0; 16];
            raw.copy_from_slice(&body[3..]);
            *format = Format::parse(&raw)?;
        }
        2 => {
            let mut head = [0; 3];
            stream.read_exact(&mut head).await?;
            for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
                // Raw is always allowed, so what else the viewer knows does not matter.
                stream.read_i32().await?;
            }
        }
        3 => {
            let mut body = [0; 9];
            stream.read_exact(&mut body).await?;
            if body[0] == 0 {
                *waiting = false;
                return Ok(true);
            }
            *waiting = true;
        }
        4 => {
            let mut body = [0; 7];
            stream.read_exact(&mut body).await?;
            if body[0] != 0 {
                let key = u32::from_be_bytes([body[3], body[4], body[5], body[6]]);
                screen.send_modify(|s| s.key(key));
            }
        }
        5 => {
            let mut body = [0; 5];
            stream.read_exact(&mut body).await?;
        }
        6 => {
            let mut head = [0; 3];
            stream.read_exact(&mut head).await?;
            let length = stream.read_u32().await?;
            if length > CUT_TEXT {
                return Err(bad("the viewer's clipboard is too long"));
            }
            let mut text = vec![0; length as usize];
            stream.read_exact(&mut text).await?;
        }
        _ => return Err(bad("an unknown message")),
    }
    Ok(false)
}

async fn update<S: AsyncWrite + Unpin>(
    stream: &mut S,
    changes: &mut watch::Receiver<Screen>,
    format: &Format,
) -> io::Result<()> {
    let rgb = changes.borrow_and_update().rgb;
    let mut out = vec![0, 0, 0, 1, 0, 0, 0, 0];
    out.extend(WIDTH.to_be_bytes());
    out.extend(HEIGHT.to_be_bytes());
    out.extend([0; 4]);
    out.extend(
        format
            .pixel(rgb)
            .repeat(usize::from(WIDTH) * usize::from(HEIGHT)),
    );
    stream.write_all(&out).await?;
    stream.flush().await
}
