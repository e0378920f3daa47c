//! Client of Lyceum's helper inside the guest: one JSON object per line on a
//! virtio-serial port.
//!
//! **Everything the guest says is hostile.** Lines are bounded, what is no answer to a
//! question is dropped, text is cut and cleaned before anybody sees it.

use crate::lines::{Line, next_line};
use base64::Engine as _;
use lyceum_hypervisor::{HypervisorError, Identity};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

/// Longest line either side may send, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest clipboard text, in bytes: it fits a line even when every character is escaped.
pub const MAX_CLIPBOARD: usize = 10 * 1024;

type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// Connection to a helper. There may be none on the other side.
pub struct Guest {
    waiting: Arc<Waiting>,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    next: std::sync::atomic::AtomicU64,
    ready: watch::Receiver<bool>,
    reader: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What the helper says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// Whether the desktop is usable.
    pub ready: bool,
    /// What is missing until it is.
    pub what: String,
}

/// Text from a guest, fit to be shown: at most 200 characters, none of them control characters.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

impl Guest {
    /// Over a connection to the port's socket.
    pub fn new(stream: UnixStream) -> Guest {
        let (reader, writer) = stream.into_split();
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(Some(HashMap::new())));
        let (ready_to, ready) = watch::channel(false);
        let reader = tokio::spawn(read(BufReader::new(reader), Arc::clone(&waiting), ready_to));
        // Not from 1: an answer to a question from before the fork must not fit a new one.
        let first = getrandom::u32().unwrap_or(7);
        Guest {
            waiting,
            writer: tokio::sync::Mutex::new(writer),
            next: (u64::from(first) << 16).into(),
            ready,
            reader,
        }
    }

    /// Becomes true when the helper says that the desktop is usable.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    async fn ask(
        &self,
        op: &str,
        mut fields: Value,
        limit: Duration,
    ) -> Result<Value, HypervisorError> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        fields["id"] = id.into();
        fields["op"] = op.into();
        let mut line = fields.to_string().into_bytes();
        if line.len() > MAX_LINE {
            return Err(HypervisorError::State(format!(
                "the question {op} to the guest is too long"
            )));
        }
        line.push(b'\n');
        let (to, from) = oneshot::channel();
        let gone =
            || HypervisorError::State(format!("the machine ended before the guest answered {op}"));
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().ok_or_else(gone)?.insert(id, to);
        }
        let talk = async {
            self.writer
                .lock()
                .await
                .write_all(&line)
                .await
                .map_err(|_| gone())?;
            from.await.map_err(|_| gone())
        };
        let answer = tokio::time::timeout(limit, talk).await;
        if let Some(waiting) = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            waiting.remove(&id);
        }
        match answer {
            Err(_) => Err(HypervisorError::Timeout {
                what: format!("the guest's answer to {op}"),
                seconds: limit.as_secs(),
            }),
            Ok(Err(e)) => Err(e),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(text))) => Err(HypervisorError::Guest(format!("refused {op}: {text}"))),
        }
    }

    /// Whether the helper is there, and the desktop usable.
    pub async fn ping(&self, limit: Duration) -> Result<Pong, HypervisorError> {
        let answer = self.ask("ping", json!({}), limit).await?;
        Ok(Pong {
            ready: answer["ready"].as_bool().unwrap_or(false),
            what: clean(answer["what"].as_str().unwrap_or("")),
        })
    }

    /// Removes what a fork must not inherit.
    pub async fn prepare_seal(&self, limit: Duration) -> Result<(), HypervisorError> {
        self.ask("prepare_seal", json!({}), limit).await.map(drop)
    }

    /// Makes the guest's identity new. Returns its new SSH host key, when it has one.
    pub async fn identity(
        &self,
        identity: &Identity,
        limit: Duration,
    ) -> Result<Option<String>, HypervisorError> {
        let mut seed = [0u8; 64];
        getrandom::fill(&mut seed).map_err(|e| {
            HypervisorError::State(format!("no random numbers for the guest's seed: {e}"))
        })?;
        let fields = json!({
            "hostname": identity.hostname,
            "machine_id": identity.machine_id,
            "time_unix_ms": unix_ms(),
            "seed_b64": base64::engine::general_purpose::STANDARD.encode(seed),
        });
        let answer = self.ask("identity", fields, limit).await?;
        let key = answer["ssh_host_key"].as_str().unwrap_or("").trim();
        let plain = key.len() <= 1024
            && key.starts_with("ssh-")
            && key.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        Ok(plain.then(|| key.to_owned()))
    }

    /// Waits for the network card and its address, for example `10.77.1.5/24`.
    pub async fn network(&self, mac: &str, limit: Duration) -> Result<String, HypervisorError> {
        let fields = json!({ "mac": mac, "timeout_ms": limit.as_millis() as u64 });
        // The helper gives up by itself; a little longer, so that its reason is heard.
        let answer = self
            .ask("network", fields, limit + Duration::from_secs(5))
            .await?;
        let address = answer["address"].as_str().unwrap_or("");
        let valid = address.split_once('/').is_some_and(|(address, length)| {
            address.parse::<std::net::IpAddr>().is_ok()
                && length.parse::<u8>().is_ok_and(|l| l <= 128)
        });
        if !valid {
            return Err(HypervisorError::Guest(format!(
                "named {:?} as its address",
                clean(address)
            )));
        }
        Ok(address.to_owned())
    }

    /// Sets the guest's clock to now.
    pub async fn set_time(&self, limit: Duration) -> Result<(), HypervisorError> {
        self.ask("set_time", json!({ "time_unix_ms": unix_ms() }), limit)
            .await
            .map(drop)
    }

    /// Asks the guest to write out what its file systems have in memory.
    pub async fn sync(&self, limit: Duration) -> Result<(), HypervisorError> {
        self.ask("sync", json!({}), limit).await.map(drop)
    }

    /// Asks the guest to shut itself down; it has begun to when this returns.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), HypervisorError> {
        self.ask("shutdown", json!({}), limit).await.map(drop)
    }

    /// Puts text on the clipboard, at most [`MAX_CLIPBOARD`] bytes.
    pub async fn clipboard_set(&self, text: &str, limit: Duration) -> Result<(), HypervisorError> {
        if text.len() > MAX_CLIPBOARD {
            return Err(HypervisorError::State(format!(
                "the text for the clipboard is {} bytes long, the most is {MAX_CLIPBOARD}: take less of it",
                text.len()
            )));
        }
        self.ask("clipboard_set", json!({ "text": text }), limit)
            .await
            .map(drop)
    }

    /// Text on the clipboard.
    pub async fn clipboard_get(&self, limit: Duration) -> Result<String, HypervisorError> {
        let answer = self.ask("clipboard_get", json!({}), limit).await?;
        match answer["text"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(HypervisorError::Guest("answered without a text".into())),
        }
    }
}

async fn read(
    mut from: BufReader<OwnedReadHalf>,
    waiting: Arc<Waiting>,
    ready: watch::Sender<bool>,
) {
    while let Ok(Some(line)) = next_line(&mut from, MAX_LINE).await {
        let Line::Whole(line) = line else { continue };
        let Ok(Value::Object(mut message)) = serde_json::from_slice(&line) else {
            continue;
        };
        if message.get("event").and_then(Value::as_str) == Some("ready") {
            ready.send_replace(true);
            continue;
        }
        let (Some(id), Some(ok)) = (
            message.get("id").and_then(Value::as_u64),
            message.get("ok").and_then(Value::as_bool),
        ) else {
            continue;
        };
        let to = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|w| w.remove(&id));
        if let Some(to) = to {
            let error = message.remove("error");
            let _ = to.send(match ok {
                true => Ok(Value::Object(message)),
                false => Err(clean(
                    error
                        .as_ref()
                        .and_then(Value::as_str)
                        .unwrap_or("it did not say why"),
                )),
            });
        }
    }
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncBufReadExt;

    /// A guest that answers every request with `reply`, `ID` replaced.
    fn guest(reply: &'static str) -> Guest {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let request: Value = serde_json::from_str(&line).expect("JSON");
                let text = reply.replace("ID", &request["id"].to_string());
                if writer.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Guest::new(ours)
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn garbage_and_wrong_types_are_passed_over() {
        let guest = guest(concat!(
            "\u{7f}\u{0}garbage\n[]\n{\"id\":\"ID\",\"ok\":true}\n{\"id\":1,\"ok\":true,\"ready\":true}\n",
            "{\"id\":ID,\"ok\":\"yes\"}\n{\"event\":7}\n{\"event\":\"ready\"}\n",
            "{\"id\":ID,\"ok\":true,\"ready\":1,\"what\":\"a\\u001b[31mb\"}\n"
        ));
        let pong = guest.ping(LIMIT).await.expect("pong");
        assert_eq!(
            pong,
            Pong {
                ready: false,
                what: "a[31mb".into()
            }
        );
        assert!(*guest.ready().borrow());
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused() {
        for reply in [
            "{\"id\":ID,\"ok\":true,\"address\":\"10.0.0.1\"}\n",
            "{\"id\":ID,\"ok\":true,\"address\":\"<script>/24\"}\n",
            "{\"id\":ID,\"ok\":true,\"address\":\"10.0.0.1/999\"}\n",
            "{\"id\":ID,\"ok\":true}\n",
        ] {
            let error = guest(reply)
                .network("52:54:00:00:00:01", LIMIT)
                .await
                .expect_err("taken");
            assert!(matches!(error, HypervisorError::Guest(_)), "{error}");
        }
        let guest = guest("{\"id\":ID,\"ok\":true,\"address\":\"10.0.0.1/24\"}\n");
        assert_eq!(
            guest
                .network("52:54:00:00:00:01", LIMIT)
                .await
                .expect("address"),
            "10.0.0.1/24"
        );
    }

    #[tokio::test]
    async fn a_host_key_that_is_none_is_left_out_and_refusals_are_told() {
        let identity = Identity {
            hostname: lyceum_model::Hostname::from_text("a", "b"),
            machine_id: "0".repeat(32),
        };
        let odd = guest("{\"id\":ID,\"ok\":true,\"ssh_host_key\":\"ssh-ed25519 A\\nroot\"}\n");
        assert_eq!(
            odd.identity(&identity, LIMIT).await.expect("identity"),
            None
        );
        let no = guest("{\"id\":ID,\"ok\":false,\"error\":\"disk full\"}\n");
        let error = no.identity(&identity, LIMIT).await.expect_err("refused");
        assert_eq!(error.to_string(), "the guest refused identity: disk full");
    }

    #[tokio::test]
    async fn a_silent_guest_is_a_timeout() {
        let error = guest("")
            .ping(Duration::from_millis(20))
            .await
            .expect_err("silent");
        assert!(matches!(error, HypervisorError::Timeout { .. }), "{error}");
    }
}
