//! Made-up machines that answer with pictures of the sizes that they are asked for, or out of a recording.

use crate::{AnyError, HEIGHT, WIDTH, announced};
use bytes::Bytes;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What an update request asks for, as its upper edge; its left edge is a size in bytes. The first request of a
/// connection is for a whole picture, whatever was asked for.
pub const SIZED: u16 = 1;
pub const RECORDED: u16 = 2;
pub const LARGE: u16 = 3;
/// Bytes that an update has before and in the head of its only rectangle.
pub const HEAD: usize = 4 + 12 + 1 + 3;
/// The answer to a key.
pub const SMALL: usize = HEAD + 300;

/// A picture as QEMU sends it to noVNC: Tight rectangles of 60,000 bytes, which are not looked into.
pub fn picture(rectangles: u16) -> Bytes {
    update(rectangles, 60_000)
}

/// An update with Tight rectangles of so many bytes.
fn update(rectangles: u16, bytes: usize) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(rectangles.to_be_bytes());
    for i in 0..rectangles {
        rectangle(&mut out, i % 8 * 64, bytes);
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

/// Updates of a recording: each is its length, 32 bits, and its bytes.
pub fn recording(file: &str) -> Result<Vec<Bytes>, AnyError> {
    let mut rest = Bytes::from(std::fs::read(file)?);
    let mut all = Vec::new();
    while rest.len() >= 4 {
        let length = u32::from_be_bytes(rest.split_to(4)[..].try_into()?) as usize;
        all.push(rest.split_to(length));
    }
    Ok(all)
}

pub async fn machines(file: Option<&str>) -> Result<(), AnyError> {
    let listener = announced().await?;
    let updates: Arc<[Bytes]> = file.map_or(Ok(Vec::new()), recording)?.into();
    let large = picture(16);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(machine(stream, large.clone(), updates.clone()));
    }
}

// Answers each request at once; a change is answered when a key is pressed.
async fn machine(stream: TcpStream, large: Bytes, updates: Arc<[Bytes]>) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(256, stream);
    let whole = picture(1);
    let small = update(1, SMALL - HEAD);
    let mut sized = Bytes::new();
    let mut next = 0;
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
                let incremental = stream.read_u8().await? != 0;
                let (x, y) = (stream.read_u16().await?, stream.read_u16().await?);
                stream.read_exact(&mut [0; 4]).await?;
                match y {
                    SIZED => {
                        let bytes = usize::from(x).max(HEAD);
                        if sized.len() != bytes {
                            sized = update(1, bytes - HEAD);
                        }
                        stream.write_all(&sized).await?;
                    }
                    RECORDED if !updates.is_empty() => {
                        stream.write_all(&updates[next % updates.len()]).await?;
                        next += 1;
                    }
                    LARGE => stream.write_all(&large).await?,
                    _ if incremental => {}
                    _ => stream.write_all(&whole).await?,
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
