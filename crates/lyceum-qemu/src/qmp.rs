//! QEMU's control socket (QMP): requests by id, events to whoever listens.
//!
//! A QMP socket serves one client at a time; a second one connects and hears
//! nothing. So there is one [`Qmp`] per machine, and it closes the socket when dropped.
//! What isn't understood is passed over: an unknown event is [`Event::Unknown`],
//! an answer that nobody waits for any more is dropped.

use crate::lines::{Line, next_line};
use lyceum_hypervisor::HypervisorError;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot};

/// Longest line taken from QEMU, in bytes.
const MAX_LINE: usize = 8 << 20;
/// How long a command may take unless its caller says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that happened in QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The guest stands still.
    Stop,
    /// The guest goes on.
    Resume,
    /// The machine goes down; `guest`: the guest itself wanted it.
    Shutdown {
        /// Whether the guest asked for it.
        guest: bool,
    },
    /// A device that was being removed is gone.
    DeviceDeleted {
        /// Its id.
        device: Option<String>,
    },
    /// The guest refused to let a device go.
    DeviceUnplugError {
        /// Its id.
        device: Option<String>,
    },
    /// Progress of a migration, as QEMU names it: `setup`, `active`, `completed`, `failed`...
    Migration {
        /// The state.
        status: String,
    },
    /// The guest opened or closed a port of the virtio-serial device.
    SerialPort {
        /// Id of the port.
        id: String,
        /// Whether it is open.
        open: bool,
    },
    /// Any other.
    Unknown {
        /// QEMU's name for it.
        name: String,
        /// What came with it.
        data: Value,
    },
}

impl Event {
    fn parse(name: &str, data: Value) -> Event {
        let text = |key: &str| data.get(key).and_then(Value::as_str).map(str::to_owned);
        let flag = |key: &str| data.get(key).and_then(Value::as_bool).unwrap_or(false);
        match name {
            "STOP" => Event::Stop,
            "RESUME" => Event::Resume,
            "SHUTDOWN" => Event::Shutdown {
                guest: flag("guest"),
            },
            "DEVICE_DELETED" => Event::DeviceDeleted {
                device: text("device"),
            },
            "DEVICE_UNPLUG_GUEST_ERROR" => Event::DeviceUnplugError {
                device: text("device"),
            },
            "MIGRATION" => Event::Migration {
                status: text("status").unwrap_or_default(),
            },
            "VSERPORT_CHANGE" => Event::SerialPort {
                id: text("id").unwrap_or_default(),
                open: flag("open"),
            },
            _ => Event::Unknown {
                name: name.to_owned(),
                data,
            },
        }
    }
}

type Answer = Result<Value, (String, String)>;

struct Shared {
    /// `None`: the connection is gone, and nobody will be answered any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    /// `None` like the above, so that listeners learn of it.
    events: Mutex<Option<broadcast::Sender<Event>>>,
}

impl Shared {
    fn waiting<T>(
        &self,
        with: impl FnOnce(&mut Option<HashMap<u64, oneshot::Sender<Answer>>>) -> T,
    ) -> T {
        with(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn handle(&self, line: &[u8]) {
        let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else {
            tracing::debug!("QEMU sent something that is no QMP message");
            return;
        };
        if let Some(name) = message
            .get("event")
            .and_then(Value::as_str)
            .map(str::to_owned)
        {
            let data = message.remove("data").unwrap_or(Value::Null);
            // Nobody listening is fine.
            if let Some(to) = &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = to.send(Event::parse(&name, data));
            }
            return;
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else {
            return;
        };
        let answer = match (message.remove("return"), message.remove("error")) {
            (Some(value), _) => Ok(value),
            (None, Some(error)) => {
                let text = |key: &str| {
                    error
                        .get(key)
                        .and_then(Value::as_str)
                        .unwrap_or("")
                        .to_owned()
                };
                Err((text("class"), text("desc")))
            }
            (None, None) => return,
        };
        // Late replies find nobody, and are dropped.
        if let Some(to) = self.waiting(|w| w.as_mut().and_then(|w| w.remove(&id))) {
            let _ = to.send(answer);
        }
    }
}

/// A connection to a QEMU.
pub struct Qmp {
    shared: Arc<Shared>,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    next: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Qmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qmp").finish_non_exhaustive()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn lost(what: &str) -> HypervisorError {
    HypervisorError::State(format!(
        "QEMU's control socket was closed {what}: the machine has ended"
    ))
}

impl Qmp {
    /// Waits for the greeting, and is ready for commands after it. No time limit of
    /// its own: QEMU greets when it is done building the machine.
    pub async fn greet(stream: UnixStream) -> Result<Qmp, HypervisorError> {
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        match next_line(&mut reader, MAX_LINE).await {
            Ok(Some(Line::Whole(line)))
                if serde_json::from_slice::<Value>(&line).is_ok_and(|v| v.get("QMP").is_some()) => {
            }
            Ok(Some(_)) => {
                return Err(HypervisorError::State(
                    "what answers on QEMU's control socket is not QEMU".into(),
                ));
            }
            Ok(None) | Err(_) => return Err(lost("before it greeted")),
        }
        let (events, _) = broadcast::channel(256);
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::new())),
            events: Mutex::new(Some(events)),
        });
        let reader = tokio::spawn(read(reader, Arc::clone(&shared)));
        let qmp = Qmp {
            shared,
            writer: tokio::sync::Mutex::new(writer),
            next: AtomicU64::new(1),
            reader,
        };
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        let events = self
            .shared
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let receiver = match &*events {
            Some(from) => from.subscribe(),
            // Its sender is gone at once: whoever waits is told.
            None => broadcast::channel(1).1,
        };
        Events { receiver }
    }

    /// Runs a command; `Null` for no arguments.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, HypervisorError> {
        self.execute_within(command, arguments, PATIENCE).await
    }

    /// Runs a command that may take `limit`. When it takes longer its answer is dropped once it comes.
    pub async fn execute_within(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, HypervisorError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        let (to, from) = oneshot::channel();
        let open = self
            .shared
            .waiting(|w| w.as_mut().map(|w| w.insert(id, to)).is_some());
        if !open {
            return Err(lost(&format!("before {command}")));
        }
        let talk = async {
            self.writer
                .lock()
                .await
                .write_all(&line)
                .await
                .map_err(|_| lost(&format!("before {command}")))?;
            from.await.map_err(|_| lost(&format!("during {command}")))
        };
        let answer = tokio::time::timeout(limit, talk).await;
        self.shared.waiting(|w| w.as_mut().map(|w| w.remove(&id)));
        match answer {
            Err(_) => Err(HypervisorError::Timeout {
                what: format!("QEMU's answer to {command}"),
                seconds: limit.as_secs(),
            }),
            Ok(Err(e)) => Err(e),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err((_class, message)))) => Err(HypervisorError::Refused {
                command: command.to_owned(),
                message,
            }),
        }
    }
}

async fn read(mut from: BufReader<OwnedReadHalf>, shared: Arc<Shared>) {
    while let Ok(Some(line)) = next_line(&mut from, MAX_LINE).await {
        if let Line::Whole(line) = line {
            shared.handle(&line);
        }
    }
    // Dropping the senders wakes everybody who waits.
    shared.waiting(Option::take);
    shared
        .events
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

/// Events of one QEMU.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    /// Waits for the first event that `pick` takes. An error when the connection is lost
    /// or `limit` passes.
    pub async fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, HypervisorError> {
        let wait = async {
            loop {
                match self.receiver.recv().await {
                    Ok(event) => {
                        if let Some(found) = pick(&event) {
                            return Ok(found);
                        }
                    }
                    // A flood of events: what is waited for may still come.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(lost(&format!("before {what}")));
                    }
                }
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(result) => result,
            Err(_) => Err(HypervisorError::Timeout {
                what: what.to_owned(),
                seconds: limit.as_secs(),
            }),
        }
    }
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
