//! Tells hosts of courses' networks: who takes part, and whose desktops reach each other. The gateway
//! asks by itself.

use crate::app::App;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// Between two looks, also at whether an examination is over.
const ROUND: Duration = Duration::from_secs(2);

/// Runs for ever.
pub async fn run(app: App) {
    if app.config.network.is_none() {
        return;
    }
    let mut changes = app.store.changes();
    loop {
        if let Err(e) = crate::network::tell_all(&app).await {
            tracing::warn!("hosts could not be told of courses' networks: {e}");
        }
        if let Err(e) = crate::network::note_repairs(&app).await {
            tracing::warn!("what hosts put right in their networks could not be kept: {e}");
        }
        let _ = tokio::time::timeout(ROUND, async {
            loop {
                match changes.recv().await {
                    Ok(change) if matches!(change.kind, "network" | "course" | "host") => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        })
        .await;
    }
}
