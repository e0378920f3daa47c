//! Which controller the command line talks to, and the session it has there.
//!
//! In this order: `--url` (or `LYCEUM_URL`), else the local socket in `--state` (or
//! `LYCEUM_STATE`), else `./.lyceum/state`, else the user's or the system's own state directory.

use crate::exit::{self, Exit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the controller's local socket inside its state directory.
pub const SOCKET: &str = "controller.sock";

/// A controller.
#[derive(Debug, Clone)]
pub enum Place {
    /// Its local socket.
    Socket(PathBuf),
    /// Its address.
    Url {
        /// Without a slash at the end.
        url: String,
        /// The session, when there was a sign-in.
        session: Option<SavedSession>,
        /// SHA-256 (hex) of the CA to trust; `None`: those of the system.
        ca_sha256: Option<String>,
    },
}

/// A session as kept in the user's configuration directory.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSession {
    /// Value of the session cookie.
    pub cookie: String,
    /// The header that changing requests carry.
    pub csrf: String,
    /// SHA-256 (hex) of the classroom's own CA, when that is trusted instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_sha256: Option<String>,
}

impl std::fmt::Debug for SavedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SavedSession")
    }
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

fn env_dir(name: &str, below_home: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
        _ => home().join(below_home),
    }
}

/// Where a classroom keeps its state when nobody says.
pub fn default_state_dir() -> PathBuf {
    let here = Path::new(".lyceum/state");
    if here.is_dir() {
        return here.to_owned();
    }
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/lyceum");
    }
    env_dir("XDG_STATE_HOME", ".local/state").join("lyceum")
}

/// The controller's socket inside a state directory: of `lyceum up`, or of a controller alone.
pub fn socket_in(state: &Path) -> PathBuf {
    let nested = state.join("controller").join(SOCKET);
    if nested.exists() {
        nested
    } else {
        state.join(SOCKET)
    }
}

impl Place {
    /// The controller that the options name.
    pub fn find(url: Option<&str>, state: Option<&Path>) -> anyhow::Result<Place> {
        if let Some(url) = url {
            let url = check_url(url)?;
            let session = load_sessions()?.remove(&url);
            let ca_sha256 = session.as_ref().and_then(|s| s.ca_sha256.clone());
            return Ok(Place::Url {
                url,
                session,
                ca_sha256,
            });
        }
        let state = state.map_or_else(default_state_dir, Path::to_owned);
        Ok(Place::Socket(socket_in(&state)))
    }
}

/// The address without path and slash; only http and https.
pub fn check_url(text: &str) -> anyhow::Result<String> {
    let bad = |why: &str| {
        Exit::usage(format!(
            "{text:?} is not the address of a classroom: {why}; it looks like https://classroom.example:8470"
        ))
    };
    let url = url::Url::parse(text).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it begins with neither http:// nor https://"));
    }
    if url.path() != "/" || url.query().is_some() {
        return Err(bad("it has a path"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it has a user name in it"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn sessions_file() -> PathBuf {
    env_dir("XDG_CONFIG_HOME", ".config").join("lyceum/sessions.json")
}

fn load_sessions() -> anyhow::Result<BTreeMap<String, SavedSession>> {
    let path = sessions_file();
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!(
                    "{} can't be read: {e}; remove it and sign in again",
                    path.display()
                ),
            )
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(Exit::coded(
            exit::FAILED,
            format!("{} can't be read: {e}", path.display()),
        )),
    }
}

/// Keeps a session (readable by this user only), or forgets it.
pub fn save_session(url: &str, session: Option<SavedSession>) -> anyhow::Result<()> {
    let mut sessions = load_sessions()?;
    match session {
        Some(session) => sessions.insert(url.to_owned(), session),
        None => sessions.remove(url),
    };
    let path = sessions_file();
    let write = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = serde_json::to_vec_pretty(&sessions)?;
        lyceum_wire::write_atomically(&path, &text, 0o600)
    };
    write().map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!("the session can't be kept in {}: {e}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_made_plain_or_refused() {
        assert_eq!(
            check_url("https://a.example:8470/").unwrap(),
            "https://a.example:8470"
        );
        for bad in [
            "a.example",
            "ftp://a.example",
            "https://a.example/x",
            "https://u:p@a.example",
            "https://",
        ] {
            assert!(check_url(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_session_is_never_printed() {
        let session = SavedSession {
            cookie: "topsecret".into(),
            csrf: "alsosecret".into(),
            ca_sha256: None,
        };
        assert!(!format!("{session:?}").contains("secret"));
    }
}
