//! As much of RFB (VNC) as it takes to see one whole picture: the proof that a
//! desktop's console works.

use lyceum_hypervisor::HypervisorError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Larger pictures than this are refused, in pixels each way.
const MAX_SIDE: u16 = 8192;

/// One whole picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Whether all of it has one colour.
    pub blank: bool,
}

fn bad(what: &str) -> HypervisorError {
    HypervisorError::State(format!("QEMU's VNC server {what}"))
}

fn io(source: std::io::Error) -> HypervisorError {
    HypervisorError::Io {
        what: "talking to QEMU's VNC server".into(),
        source,
    }
}

/// Shakes hands and fetches one whole picture.
pub async fn picture(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Picture, HypervisorError> {
    let (width, height, bytes_per_pixel) = handshake(stream).await?;
    // Encodings: raw, which every server sends when no other is asked for.
    stream
        .write_all(&[2, 0, 0, 1, 0, 0, 0, 0])
        .await
        .map_err(io)?;
    let mut request = vec![3u8, 0, 0, 0, 0, 0];
    request.extend_from_slice(&width.to_be_bytes());
    request.extend_from_slice(&height.to_be_bytes());
    stream.write_all(&request).await.map_err(io)?;
    let whole = u64::from(width) * u64::from(height);
    let mut seen = 0u64;
    let mut colour: Option<u32> = None;
    let mut blank = true;
    let mut buffer = vec![0u8; 64 << 10];
    while seen < whole {
        match stream.read_u8().await.map_err(io)? {
            0 => {}
            2 => continue,
            3 => {
                skip(stream, 3).await?;
                let length = stream.read_u32().await.map_err(io)?;
                skip(stream, u64::from(length.min(1 << 20))).await?;
                continue;
            }
            other => return Err(bad(&format!("sent a message of the unknown kind {other}"))),
        }
        skip(stream, 1).await?;
        let rectangles = stream.read_u16().await.map_err(io)?;
        for _ in 0..rectangles {
            let mut head = [0u8; 12];
            stream.read_exact(&mut head).await.map_err(io)?;
            let at = |i: usize| u64::from(u16::from_be_bytes([head[i], head[i + 1]]));
            let (x, y, w, h) = (at(0), at(2), at(4), at(6));
            if head[8..] != [0; 4] || x + w > u64::from(width) || y + h > u64::from(height) {
                return Err(bad("sent a rectangle that was not asked for"));
            }
            let mut left = w * h * bytes_per_pixel;
            while left > 0 {
                // Whole pixels at a time, so that colours can be compared.
                let now = left.min(buffer.len() as u64) as usize;
                let part = &mut buffer[..now];
                stream.read_exact(part).await.map_err(io)?;
                if blank && bytes_per_pixel == 4 {
                    let (pixels, _) = part.as_chunks::<4>();
                    let first =
                        *colour.get_or_insert(pixels.first().map_or(0, |p| u32::from_ne_bytes(*p)));
                    blank = pixels.iter().all(|p| u32::from_ne_bytes(*p) == first);
                }
                left -= now as u64;
            }
            seen += w * h;
        }
    }
    Ok(Picture {
        width,
        height,
        blank,
    })
}

async fn skip(stream: &mut (impl AsyncRead + Unpin), bytes: u64) -> Result<(), HypervisorError> {
    let skipped = tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink())
        .await
        .map_err(io)?;
    if skipped == bytes {
        Ok(())
    } else {
        Err(bad("ended in the middle of a message"))
    }
}

async fn handshake(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<(u16, u16, u64), HypervisorError> {
    let mut version = [0u8; 12];
    stream.read_exact(&mut version).await.map_err(io)?;
    if &version[..4] != b"RFB " {
        return Err(bad("does not speak RFB"));
    }
    stream.write_all(b"RFB 003.008\n").await.map_err(io)?;
    let kinds = stream.read_u8().await.map_err(io)?;
    let mut offered = vec![0u8; usize::from(kinds)];
    stream.read_exact(&mut offered).await.map_err(io)?;
    if !offered.contains(&1) {
        return Err(bad("asks for a password"));
    }
    stream.write_all(&[1]).await.map_err(io)?;
    if stream.read_u32().await.map_err(io)? != 0 {
        return Err(bad("refused the connection"));
    }
    // Shared: others stay connected.
    stream.write_all(&[1]).await.map_err(io)?;
    let width = stream.read_u16().await.map_err(io)?;
    let height = stream.read_u16().await.map_err(io)?;
    let mut format = [0u8; 16];
    stream.read_exact(&mut format).await.map_err(io)?;
    let name = stream.read_u32().await.map_err(io)?;
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE || name > 4096 {
        return Err(bad("has a picture of impossible size"));
    }
    skip(stream, u64::from(name)).await?;
    let bytes = match format[0] {
        8 => 1,
        16 => 2,
        32 => 4,
        _ => return Err(bad("has pixels of unknown size")),
    };
    Ok((width, height, bytes))
}
