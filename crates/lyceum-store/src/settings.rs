//! Settings of the classroom: one row per key that was ever set, its value as JSON.
//! What keys there are and what they may hold is the controller's business.

use crate::{Result, Store, StoreError, Tx};
use serde_json::{Map, Value};

fn read(rows: Vec<(String, String)>) -> Result<Map<String, Value>> {
    rows.into_iter()
        .map(|(key, text)| match serde_json::from_str(&text) {
            Ok(value) => Ok((key, value)),
            Err(_) => Err(StoreError::Unreadable {
                what: "settings.value",
                value: text,
            }),
        })
        .collect()
}

/// All that were set.
pub async fn all(store: &Store) -> Result<Map<String, Value>> {
    read(
        sqlx::query_as("SELECT key, value FROM settings")
            .fetch_all(store.pool())
            .await?,
    )
}

/// The same inside a transaction.
pub async fn all_tx(tx: &mut Tx) -> Result<Map<String, Value>> {
    read(
        sqlx::query_as("SELECT key, value FROM settings")
            .fetch_all(tx.connection())
            .await?,
    )
}

/// Sets one.
pub async fn set(tx: &mut Tx, key: &str, value: &Value) -> Result<()> {
    sqlx::query(
        "INSERT INTO settings (key, value) VALUES ($1, $2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(key)
    .bind(value.to_string())
    .execute(tx.connection())
    .await?;
    tx.touch("settings", key);
    Ok(())
}
