//! Desktops that plans leave where they are, because somebody said so.

use crate::{Result, Store, Tx, parse};
use lyceum_model::DesktopId;
use sqlx::Row;
use std::collections::HashSet;

/// All of them.
pub async fn all(store: &Store) -> Result<HashSet<DesktopId>> {
    sqlx::query("SELECT desktop_id FROM pinned_desktops")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            let id: String = row.try_get("desktop_id")?;
            parse("pinned_desktops.desktop_id", &id)
        })
        .collect()
}

/// Whether this one is.
pub async fn is_pinned(store: &Store, id: &DesktopId) -> Result<bool> {
    let row = sqlx::query("SELECT desktop_id FROM pinned_desktops WHERE desktop_id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?;
    Ok(row.is_some())
}

/// Pins it, or lets it go; what is so already stays so.
pub async fn set(tx: &mut Tx, id: &DesktopId, pinned: bool) -> Result<()> {
    let text = if pinned {
        "INSERT INTO pinned_desktops (desktop_id) VALUES ($1) ON CONFLICT (desktop_id) DO NOTHING"
    } else {
        "DELETE FROM pinned_desktops WHERE desktop_id = $1"
    };
    sqlx::query(text)
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("desktop", id);
    Ok(())
}
