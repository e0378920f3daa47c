//! The way from a host's agent to the gateway: the server's bytes in frames, so that the agent can
//! say at the end how much of what a person did has reached the machine. What did not is given to the
//! next one; nothing is lost and nothing is done twice when a machine is moved, suspended, or its agent ends.
//!
//! Agent to gateway: `length u32, bytes`, and at the end `0xffff_ffff, taken u64`. Gateway to agent: plain bytes.

use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Marks the end, in place of a length.
const END: u32 = u32::MAX;
/// What is on its way, each way, in bytes.
const BLOCK: usize = 32 * 1024;
/// How long a machine may take to read what was written to it, once the end is near. It goes on meanwhile, and
/// reads at once when it gets a processor; on an overloaded host that takes longer.
const DRAIN: Duration = Duration::from_secs(5);

/// What is known of how a connection ended: the bytes its machine has read. Nothing until an
/// orderly end.
#[derive(Debug, Clone, Default)]
pub struct Taken(Arc<OnceLock<u64>>);

impl Taken {
    /// Bytes that the machine has read of what was sent to it.
    pub fn get(&self) -> Option<u64> {
        self.0.get().copied()
    }
}

/// The gateway's end of a relay: reads the server's bytes out of their frames.
#[derive(Debug)]
pub struct Relayed<S> {
    stream: S,
    head: Head,
    left: u32,
    taken: Taken,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    bytes: [u8; 12],
    there: usize,
}

impl<S> Relayed<S> {
    /// On a fresh connection to an agent.
    pub fn new(stream: S) -> Self {
        Relayed {
            stream,
            head: Head {
                bytes: [0; 12],
                there: 0,
            },
            left: 0,
            taken: Taken::default(),
        }
    }

    /// How much the machine has read, once the end is reached.
    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Relayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.left == 0 {
            // A length, or the word for the end and what follows it.
            let there = this.head.there;
            let word = u32::from_be_bytes([
                this.head.bytes[0],
                this.head.bytes[1],
                this.head.bytes[2],
                this.head.bytes[3],
            ]);
            let need = if there >= 4 && word == END { 12 } else { 4 };
            if there < need {
                let mut rest = ReadBuf::new(&mut this.head.bytes[there..need]);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest))?;
                let got = rest.filled().len();
                if got == 0 {
                    // It ended without a word.
                    return Poll::Ready(Ok(()));
                }
                this.head.there += got;
            } else if word == END {
                let taken = this.head.bytes[4..]
                    .iter()
                    .fold(0, |n, b| n << 8 | u64::from(*b));
                let _ = this.taken.0.set(taken);
                return Poll::Ready(Ok(()));
            } else {
                this.left = word;
                this.head.there = 0;
            }
        }
        let most = this.left as usize;
        let before = out.filled().len();
        if out.remaining() <= most {
            ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
        } else {
            let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            let got = part.filled().len();
            out.advance(got);
        }
        this.left -= (out.filled().len() - before) as u32;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Relayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The agent's end: carries bytes between a gateway and a machine's server until either ends or
/// `end` comes. Then the machine is given what was received, and when it has read all of it, the
/// gateway is told how much that was.
pub async fn relay(
    gateway: impl AsyncRead + AsyncWrite + Unpin,
    machine: impl AsyncRead + AsyncWrite + Unpin,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let (mut from_gateway, mut to_gateway) = tokio::io::split(gateway);
    let (mut from_machine, mut to_machine) = tokio::io::split(machine);
    // Bytes the machine was given.
    let given = AtomicU64::new(0);
    let in_frame = AtomicBool::new(false);
    let ended = {
        // Input is passed on until the gateway or `end` says that it is over; then the machine's side
        // is closed, upon which it reads the rest and closes as well.
        let up = async {
            tokio::pin!(end);
            let mut block = BytesMut::new();
            loop {
                block.reserve(1024);
                let read = tokio::select! {
                    biased;
                    () = &mut end => break,
                    read = from_gateway.read_buf(&mut block) => read,
                };
                if !matches!(read, Ok(1..)) {
                    break;
                }
                // Not called off half-way: what is counted is what was written.
                while block.has_remaining() {
                    match to_machine.write(&block).await {
                        Ok(written @ 1..) => {
                            given.fetch_add(written as u64, Ordering::Relaxed);
                            block.advance(written);
                        }
                        _ => return,
                    }
                }
                let _ = to_machine.flush().await;
            }
            let _ = to_machine.shutdown().await;
        };
        let down = async {
            let mut block = BytesMut::new();
            loop {
                block.reserve(BLOCK);
                // Room for the length in front.
                block.extend_from_slice(&[0; 4]);
                if !matches!(from_machine.read_buf(&mut block).await, Ok(1..)) {
                    return Ok::<(), io::Error>(());
                }
                let length = (block.len() - 4) as u32;
                block[..4].copy_from_slice(&length.to_be_bytes());
                in_frame.store(true, Ordering::Relaxed);
                to_gateway.write_all(&block).await?;
                to_gateway.flush().await?;
                in_frame.store(false, Ordering::Relaxed);
                block.clear();
            }
        };
        tokio::pin!(up, down);
        tokio::select! {
            ended = &mut down => ended,
            // A machine that does not read any more gets nothing again: it may have read some.
            () = &mut up => tokio::time::timeout(DRAIN, &mut down).await.unwrap_or(Ok(())),
        }
    };
    ended?;
    if !in_frame.load(Ordering::Relaxed) {
        let mut word = [0xff; 12];
        word[4..].copy_from_slice(&given.into_inner().to_be_bytes());
        to_gateway.write_all(&word).await?;
    }
    to_gateway.shutdown().await
}
