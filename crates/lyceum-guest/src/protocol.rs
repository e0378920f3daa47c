//! What host and guest say to each other: one JSON object per line.
//!
//! The host asks `{"id":7,"op":"ping"}`; the guest answers `{"id":7,"ok":true,...}` or
//! `{"id":7,"ok":false,"error":"..."}`, and may say `{"event":"..."}` on its own. A line that can't be read as a request
//! is skipped; one that names an id gets an error as its answer.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

/// Longest line either side may send, without its newline, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Length of the random seed of an identity, in bytes.
pub const SEED_LEN: usize = 64;

/// A network card's address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `52:54:00:12:34:56`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What makes one fork different from the next.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Host name: letters, digits and hyphens, at most 63.
    pub hostname: String,
    /// 32 lower-case hexadecimal digits.
    pub machine_id: String,
    /// Wall clock, Unix time in milliseconds.
    pub time_unix_ms: u64,
    /// Mixed into the random generator. Secret.
    pub seed: [u8; SEED_LEN],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// What the host wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Are you there, and is the desktop usable?
    Ping,
    /// Forget what a fork must not inherit, and put everything on disk.
    PrepareSeal,
    /// Become somebody new.
    Identity(Box<Identity>),
    /// Bring up the network card with this address; give up after so many milliseconds.
    Network {
        /// The card.
        mac: Mac,
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// Set the wall clock: Unix time in milliseconds.
    SetTime(u64),
    /// Put everything on disk.
    Sync,
    /// Shut the whole guest down, as if its user had.
    Shutdown,
    /// Put text on the clipboard.
    ClipboardSet(String),
    /// Read the clipboard's text.
    ClipboardGet,
}

/// A request: its number and what is wanted, or why that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the answer.
    pub id: u64,
    /// What to do, or what is wrong with the request.
    pub op: Result<Op, String>,
}

impl Request {
    /// Reads one line. `None` for anything that is not a request with an id.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(line) else {
            return None;
        };
        let id = fields.get("id")?.as_u64()?;
        Some(Self {
            id,
            op: parse_op(&fields),
        })
    }
}

fn parse_op(fields: &Map<String, Value>) -> Result<Op, String> {
    let text = |name: &str| {
        let value = fields.get(name).and_then(Value::as_str);
        value.ok_or_else(|| format!("the request needs a text {name:?}"))
    };
    let number = |name: &str| {
        let value = fields.get(name).and_then(Value::as_u64);
        value.ok_or_else(|| format!("the request needs a whole number {name:?}"))
    };
    Ok(match text("op")? {
        "ping" => Op::Ping,
        "prepare_seal" => Op::PrepareSeal,
        "identity" => {
            let hostname = text("hostname")?;
            if !is_hostname(hostname) {
                return Err(
                    "\"hostname\" must be 1 to 63 letters, digits and inner hyphens".into(),
                );
            }
            let machine_id = text("machine_id")?;
            if machine_id.len() != 32
                || !machine_id
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            {
                return Err("\"machine_id\" must be 32 lower-case hexadecimal digits".into());
            }
            let seed = BASE64
                .decode(text("seed_b64")?)
                .ok()
                .and_then(|s| s.try_into().ok());
            let seed =
                seed.ok_or_else(|| format!("\"seed_b64\" must be {SEED_LEN} bytes in base64"))?;
            Op::Identity(Box::new(Identity {
                hostname: hostname.to_owned(),
                machine_id: machine_id.to_owned(),
                time_unix_ms: number("time_unix_ms")?,
                seed,
            }))
        }
        "network" => {
            let mac = Mac::parse(text("mac")?).ok_or("\"mac\" must look like 52:54:00:12:34:56")?;
            Op::Network {
                mac,
                timeout_ms: number("timeout_ms")?,
            }
        }
        "set_time" => Op::SetTime(number("time_unix_ms")?),
        "sync" => Op::Sync,
        "shutdown" => Op::Shutdown,
        "clipboard_set" => Op::ClipboardSet(text("text")?.to_owned()),
        "clipboard_get" => Op::ClipboardGet,
        other => {
            return Err(format!(
                "this helper (version {}) does not know {other:?}",
                env!("CARGO_PKG_VERSION")
            ));
        }
    })
}

fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The line that answers request `id`, newline included. `Ok` carries an object of further fields (or null for none).
#[must_use]
pub fn answer(id: u64, result: Result<Value, String>) -> Vec<u8> {
    let message = match result {
        Ok(Value::Object(mut fields)) => {
            fields.insert("id".into(), id.into());
            fields.insert("ok".into(), true.into());
            Value::Object(fields)
        }
        Ok(_) => json!({"id": id, "ok": true}),
        Err(error) => json!({"id": id, "ok": false, "error": error}),
    };
    let line = message.to_string();
    if line.len() > MAX_LINE {
        return answer(
            id,
            Err(format!("the answer is longer than {MAX_LINE} bytes")),
        );
    }
    let mut line = line.into_bytes();
    line.push(b'\n');
    line
}

/// The line for an event, newline included.
#[must_use]
pub fn event(name: &str) -> Vec<u8> {
    let mut line = json!({ "event": name }).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Cuts a stream of bytes into lines. Lines over [`MAX_LINE`] are dropped as a whole.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// The line being read is too long already.
    skipping: bool,
}

impl Lines {
    /// Takes what was read and calls `each` with every line that is now whole, without its newline.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (head, tail) = (&bytes[..end], &bytes[end + 1..]);
            if !self.skipping && self.partial.len() + head.len() <= MAX_LINE {
                if self.partial.is_empty() {
                    each(head);
                } else {
                    self.partial.extend_from_slice(head);
                    each(&self.partial);
                }
            }
            self.partial.clear();
            self.skipping = false;
            bytes = tail;
        }
        if self.skipping || self.partial.len() + bytes.len() > MAX_LINE {
            self.partial.clear();
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Forgets a line that was begun: the other side is new.
    pub fn reset(&mut self) {
        self.partial.clear();
        self.skipping = false;
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
