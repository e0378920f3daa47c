//! What is only known since a machine's start and nice to say after a restart of
//! the agent too. Not synced: it is no loss.

use lyceum_hypervisor::StartRequest;
use lyceum_model::Generation;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Notes about a running machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// Of which generation.
    pub(crate) generation: Generation,
    pub(crate) cold_reason: Option<String>,
    pub(crate) usable_ms: Option<u64>,
}

fn path(state_dir: &Path, request: &StartRequest) -> PathBuf {
    state_dir
        .join("notes")
        .join(format!("{}.json", request.desktop))
}

/// Writes them in the background.
pub(crate) fn write(state_dir: &Path, request: &StartRequest, notes: Notes) {
    let path = path(state_dir, request);
    tokio::task::spawn_blocking(move || {
        let written = serde_json::to_vec(&notes)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&path, text));
        if let Err(e) = written {
            tracing::warn!("{}: {e}", path.display());
        }
    });
}

/// Reads them; `None` when there are none of this very run.
pub(crate) fn read(state_dir: &Path, request: &StartRequest) -> Option<Notes> {
    let text = std::fs::read(path(state_dir, request)).ok()?;
    let notes: Notes = serde_json::from_slice(&text).ok()?;
    (notes.generation == request.generation).then_some(notes)
}
