//! Small helpers for errors and files.

use lyceum_hypervisor::HypervisorError;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// For `map_err`: says what was tried.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> HypervisorError {
    let what = what.into();
    move |source| HypervisorError::Io { what, source }
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HypervisorError> + Send + 'static,
) -> Result<T, HypervisorError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(HypervisorError::State(format!(
            "a worker thread ended early: {e}"
        )))
    })
}

/// Bounds `work` in time.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, HypervisorError>>,
) -> Result<T, HypervisorError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(HypervisorError::Timeout {
            what: what.to_owned(),
            seconds: limit.as_secs(),
        }),
    }
}

/// Reads a file that an unprivileged QEMU may have put there: no links followed,
/// plain files only, at most `max` bytes.
pub(crate) fn read_untrusted(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a plain file of at most {max} bytes"),
        ));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that is there whole or not at all after a crash of this process.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

/// The last lines of a log, at most about 600 characters of plain text.
pub(crate) fn last_lines(path: &Path) -> String {
    use std::io::{Seek, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .collect();
    let lines: Vec<&str> = text
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.contains("warning: netdev"))
        .collect();
    let from = lines.len().saturating_sub(4);
    lines[from..].join(" | ").chars().take(600).collect()
}

/// Pieces of this size go through a channel.
const PIECE: usize = 256 << 10;

/// Writes of a blocking thread, in pieces to somebody who does not block.
#[derive(Debug)]
pub(crate) struct ChannelWriter {
    to: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl ChannelWriter {
    pub(crate) fn new(to: mpsc::Sender<Vec<u8>>) -> ChannelWriter {
        ChannelWriter {
            to,
            piece: Vec::with_capacity(PIECE),
        }
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..now]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to
            .blocking_send(piece)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more"))
    }
}

/// The other side: reads of a blocking thread.
#[derive(Debug)]
pub(crate) struct ChannelReader {
    from: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl ChannelReader {
    pub(crate) fn new(from: mpsc::Receiver<Vec<u8>>) -> ChannelReader {
        ChannelReader {
            from,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.from.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let now = buffer.len().min(self.piece.len() - self.at);
        buffer[..now].copy_from_slice(&self.piece[self.at..self.at + now]);
        self.at += now;
        Ok(now)
    }
}
