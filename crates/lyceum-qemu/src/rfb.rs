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

/// The pseudo-encoding that tells of another size of the picture.
const DESKTOP_SIZE: i32 = -223;

/// Shakes hands and fetches one whole picture.
///
/// A guest that is booting changes the size of its picture, and QEMU then drops what it was
/// about to send: what is not whole is asked for again.
pub async fn picture(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Picture, HypervisorError> {
    let (mut width, mut height, bytes_per_pixel) = handshake(stream).await?;
    // Encodings: raw, which every server sends when no other is asked for, and its size.
    let mut encodings = vec![2, 0, 0, 2, 0, 0, 0, 0];
    encodings.extend_from_slice(&DESKTOP_SIZE.to_be_bytes());
    stream.write_all(&encodings).await.map_err(io)?;
    loop {
        let mut request = vec![3u8, 0, 0, 0, 0, 0];
        request.extend_from_slice(&width.to_be_bytes());
        request.extend_from_slice(&height.to_be_bytes());
        stream.write_all(&request).await.map_err(io)?;
        let rectangles = next_update(stream).await?;
        let whole = u64::from(width) * u64::from(height);
        let mut seen = 0u64;
        let mut seen_colour = Colour::default();
        for _ in 0..rectangles {
            let mut head = [0u8; 12];
            stream.read_exact(&mut head).await.map_err(io)?;
            let at = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
            let (x, y, w, h) = (at(0), at(2), at(4), at(6));
            match i32::from_be_bytes([head[8], head[9], head[10], head[11]]) {
                DESKTOP_SIZE => {
                    sizes_are_possible(w, h)?;
                    (width, height) = (w, h);
                    seen = 0;
                }
                0 if u32::from(x) + u32::from(w) <= u32::from(width)
                    && u32::from(y) + u32::from(h) <= u32::from(height) =>
                {
                    let pixels = u64::from(w) * u64::from(h);
                    seen_colour.read(stream, pixels, bytes_per_pixel).await?;
                    seen += pixels;
                }
                _ => return Err(bad("sent a rectangle that was not asked for")),
            }
        }
        if seen >= whole && whole == u64::from(width) * u64::from(height) {
            return Ok(Picture {
                width,
                height,
                blank: seen_colour.one,
            });
        }
    }
}

/// The number of rectangles of the next update; everything else is passed over.
async fn next_update(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, HypervisorError> {
    loop {
        match stream.read_u8().await.map_err(io)? {
            0 => {
                skip(stream, 1).await?;
                return stream.read_u16().await.map_err(io);
            }
            2 => {}
            3 => {
                skip(stream, 3).await?;
                let length = stream.read_u32().await.map_err(io)?;
                skip(stream, u64::from(length.min(1 << 20))).await?;
            }
            other => return Err(bad(&format!("sent a message of the unknown kind {other}"))),
        }
    }
}

/// Whether all pixels that were read have one colour.
struct Colour {
    first: Option<u32>,
    one: bool,
}

impl Default for Colour {
    fn default() -> Self {
        Colour {
            first: None,
            one: true,
        }
    }
}

impl Colour {
    async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        pixels: u64,
        bytes_per_pixel: u64,
    ) -> Result<(), HypervisorError> {
        // Whole pixels at a time, so that colours can be compared.
        let mut buffer = vec![0u8; 64 << 10];
        let mut left = pixels * bytes_per_pixel;
        while left > 0 {
            let now = left.min(buffer.len() as u64) as usize;
            let part = &mut buffer[..now];
            stream.read_exact(part).await.map_err(io)?;
            if self.one && bytes_per_pixel == 4 {
                let (pixels, _) = part.as_chunks::<4>();
                let first = *self
                    .first
                    .get_or_insert(pixels.first().map_or(0, |p| u32::from_ne_bytes(*p)));
                self.one = pixels.iter().all(|p| u32::from_ne_bytes(*p) == first);
            }
            left -= now as u64;
        }
        Ok(())
    }
}

fn sizes_are_possible(width: u16, height: u16) -> Result<(), HypervisorError> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(bad("has a picture of impossible size"));
    }
    Ok(())
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
    sizes_are_possible(width, height)?;
    if name > 4096 {
        return Err(bad("has a name of impossible length"));
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(server: &mut (impl AsyncRead + Unpin)) -> (u16, u16) {
        let mut request = [0u8; 10];
        server.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..6], [3, 0, 0, 0, 0, 0]);
        let at = |i: usize| u16::from_be_bytes([request[i], request[i + 1]]);
        (at(6), at(8))
    }

    fn update(rectangles: &[(u16, u16, i32)]) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(&(rectangles.len() as u16).to_be_bytes());
        for &(w, h, encoding) in rectangles {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&w.to_be_bytes());
            bytes.extend_from_slice(&h.to_be_bytes());
            bytes.extend_from_slice(&encoding.to_be_bytes());
            if encoding == 0 {
                bytes.extend(std::iter::repeat_n(7, usize::from(w) * usize::from(h) * 4));
            }
        }
        bytes
    }

    /// A guest that boots changes the size of its picture while it is being fetched.
    #[tokio::test]
    async fn a_picture_that_changes_its_size_is_fetched_again() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let talk = async move {
            server.write_all(b"RFB 003.008\n").await.unwrap();
            server.read_exact(&mut [0; 12]).await.unwrap();
            server.write_all(&[1, 1]).await.unwrap();
            server.read_exact(&mut [0; 1]).await.unwrap();
            server.write_all(&[0; 4]).await.unwrap();
            server.read_exact(&mut [0; 1]).await.unwrap();
            let mut init = vec![0, 72, 0, 40, 32];
            init.extend_from_slice(&[0; 15]);
            init.extend_from_slice(&[0; 4]);
            server.write_all(&init).await.unwrap();
            server.read_exact(&mut [0; 12]).await.unwrap();
            assert_eq!(ask(&mut server).await, (72, 40));
            // Half of it, then another size and no more of the old one.
            server.write_all(&update(&[(72, 20, 0)])).await.unwrap();
            assert_eq!(ask(&mut server).await, (72, 40));
            let resized = update(&[(64, 30, DESKTOP_SIZE)]);
            server.write_all(&resized).await.unwrap();
            assert_eq!(ask(&mut server).await, (64, 30));
            server.write_all(&update(&[(64, 30, 0)])).await.unwrap();
            server
        };
        let (picture, _) = tokio::join!(picture(&mut client), talk);
        let picture = picture.unwrap();
        assert_eq!((picture.width, picture.height), (64, 30));
        assert!(picture.blank);
    }
}
