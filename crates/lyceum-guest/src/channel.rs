//! The virtio-serial port to the host.
//!
//! The port is there whether or not the host listens. When it does not, reads return nothing at once and writes would
//! block. What was begun with one host is dropped when it goes, because the next one knows nothing of it: each has its
//! own [`Session`] number. The next one's first bytes may well arrive before the news that there is somebody again, so
//! requests that come in between belong to it already, and their answers wait.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::protocol::Lines;
use crate::sys;

/// The port's name, as QEMU was told.
pub const PORT_NAME: &str = "org.lyceum.guest.0";

/// Answers the host does not read are dropped beyond this, in bytes.
const MAX_UNSENT: usize = 1024 * 1024;

/// Why there is no channel to the host.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The virtual machine has no such port, or the driver is not loaded.
    #[error(
        "there is no virtio-serial port named {PORT_NAME}: the machine was started without it, or the kernel module virtio_console is missing"
    )]
    NoPort,
    /// It is there and can't be used.
    #[error("can't {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The device file.
        path: PathBuf,
        /// What the kernel said. `EBUSY` means that another helper runs.
        source: io::Error,
    },
}

/// Which host's connection something belongs to. Counts up.
pub type Session = u64;

/// Whom an answer is for: the connection and the request's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The connection.
    pub session: Session,
    /// The request's number.
    pub id: u64,
}

/// The open port.
#[derive(Debug)]
pub struct Channel {
    path: PathBuf,
    port: File,
    lines: Lines,
    unsent: VecDeque<u8>,
    host_listens: bool,
    session: Session,
}

impl Channel {
    /// Finds and opens the port.
    pub fn open() -> Result<Self, ChannelError> {
        let path = find().ok_or(ChannelError::NoPort)?;
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        let port = match port {
            Ok(port) => port,
            Err(source) => {
                return Err(ChannelError::Io {
                    doing: "open",
                    path,
                    source,
                });
            }
        };
        Ok(Self {
            path,
            port,
            lines: Lines::default(),
            unsent: VecDeque::new(),
            host_listens: true,
            session: 0,
        })
    }

    /// Registers the port with the main loop.
    pub fn register(&self, epoll: &sys::Epoll, token: u64) -> io::Result<()> {
        epoll.add(&self.port, token)
    }

    /// Is there a host at the other end, as far as is known?
    pub fn host_listens(&self) -> bool {
        self.host_listens
    }

    /// The connection that a request read now belongs to.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Reads what is there, calls `each` with every whole line and the session it belongs to, and sends what could not
    /// be sent before.
    pub fn ready(&mut self, mut each: impl FnMut(Session, &[u8])) -> Result<(), ChannelError> {
        let mut buffer = [0; 8 * 1024];
        loop {
            match sys::read(self.port.as_fd(), &mut buffer) {
                Ok(0) => {
                    self.host_went();
                    return Ok(());
                }
                Ok(length) => {
                    let session = self.session;
                    self.lines
                        .feed(&buffer[..length], |line| each(session, line));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("read", error)),
            }
        }
        // Nothing to read for now, as opposed to nobody there.
        self.host_listens = true;
        self.flush()
    }

    fn host_went(&mut self) {
        if self.host_listens {
            self.host_listens = false;
            self.session += 1;
            self.lines.reset();
            self.unsent.clear();
        }
    }

    /// Sends a line, now or when the host takes it. One for a host that has gone is dropped.
    pub fn send(&mut self, session: Session, line: &[u8]) -> Result<(), ChannelError> {
        if session == self.session && self.unsent.len() + line.len() <= MAX_UNSENT {
            self.unsent.extend(line);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        while !self.unsent.is_empty() {
            let (head, _) = self.unsent.as_slices();
            match sys::write(self.port.as_fd(), head) {
                Ok(0) => return Ok(()),
                Ok(length) => drop(self.unsent.drain(..length)),
                // Goes on when the port reports room again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("write to", error)),
            }
        }
        Ok(())
    }

    fn error(&self, doing: &'static str, source: io::Error) -> ChannelError {
        ChannelError::Io {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

/// The port's device file: by udev's link, or by the kernel's own list where there is no udev.
fn find() -> Option<PathBuf> {
    let link = PathBuf::from("/dev/virtio-ports").join(PORT_NAME);
    if link.exists() {
        return Some(link);
    }
    fs::read_dir("/sys/class/virtio-ports")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).ok()?;
            (name.trim_end() == PORT_NAME).then(|| PathBuf::from("/dev").join(entry.file_name()))
        })
}
