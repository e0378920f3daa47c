//! What an agent must not forget: the newest generation of each desktop, and how
//! its last run ended. One small file per desktop, written whole and synced before
//! anything is done or answered (invariant 2).

use crate::HostError;
use lyceum_model::{DesktopId, Generation};
use lyceum_proto::host::ObservedDesktop;
use lyceum_wire::write_atomically;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// After this time without a word of it a desktop that does not run is forgotten. No request is that old.
const FORGET: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is kept of a desktop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The newest generation seen.
    pub generation: Generation,
    /// Whether it was to be started here.
    pub started: bool,
    /// How it ended; `None` while it runs, or when nothing was run.
    pub outcome: Option<ObservedDesktop>,
}

/// The files.
#[derive(Debug, Clone)]
pub struct KnownStore {
    dir: PathBuf,
}

impl KnownStore {
    /// In this directory, which is made when it is not there.
    pub fn open(dir: PathBuf) -> Result<KnownStore, HostError> {
        std::fs::create_dir_all(&dir).map_err(|e| HostError::file("making", &dir, e))?;
        Ok(KnownStore { dir })
    }

    /// Everything that is kept. A file that can't be read is an error: guessing a
    /// generation could give a disk two writers.
    pub fn load(&self) -> Result<BTreeMap<DesktopId, Known>, HostError> {
        let mut all = BTreeMap::new();
        let fail = |e| HostError::file("reading", &self.dir, e);
        for entry in std::fs::read_dir(&self.dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let Some(id) = name
                .to_str()
                .and_then(|n| n.strip_suffix(".json"))
                .and_then(|n| n.parse::<DesktopId>().ok())
            else {
                continue;
            };
            let path = entry.path();
            let text = std::fs::read(&path).map_err(|e| HostError::file("reading", &path, e))?;
            let known: Known = serde_json::from_slice(&text).map_err(|e| HostError::Damaged {
                path: path.clone(),
                why: e.to_string(),
            })?;
            let age = entry
                .metadata()
                .ok()
                .and_then(|m| m.modified().ok())
                .and_then(|t| t.elapsed().ok());
            if (known.outcome.is_some() || !known.started) && age.is_some_and(|a| a > FORGET) {
                std::fs::remove_file(&path).map_err(|e| HostError::file("removing", &path, e))?;
                continue;
            }
            all.insert(id, known);
        }
        Ok(all)
    }

    /// Keeps it; on stable storage when this returns.
    pub async fn save(&self, desktop: &DesktopId, known: Known) -> Result<(), HostError> {
        let path = self.dir.join(format!("{desktop}.json"));
        let work = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                let text = serde_json::to_vec(&known)?;
                write_atomically(&path, &text, 0o600)
            })
        };
        match work.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(HostError::file("writing", &path, e)),
            Err(e) => Err(HostError::file("writing", &path, std::io::Error::other(e))),
        }
    }
}
