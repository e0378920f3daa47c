//! Removes what is over: sessions nobody uses, secrets nobody used, and the rows of courses
//! and accounts that are being deleted once their last desktop is gone. It takes no input but
//! the store, so a controller that was killed half-way goes on where it was.

use crate::app::App;
use lyceum_store::{courses, one_time, sessions, users};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::TaskTracker;

const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Changes of desktops come in bursts: one look is enough for all that come in this time.
const TOGETHER: Duration = Duration::from_millis(200);

/// Starts it; it ends with the controller.
pub fn spawn(app: &App, work: &TaskTracker) {
    let app = app.clone();
    work.spawn(async move {
        let stop = app.shutdown.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = run(&app) => {}
        }
    });
}

async fn run(app: &App) {
    let mut changes = app.store.changes();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        // The first tick is at once: a start is a recovery.
        let result = tokio::select! {
            _ = sweep.tick() => match self::sweep(app).await {
                Ok(()) => reap(app).await,
                e => e,
            },
            change = changes.recv() => match change {
                Ok(change) if change.kind == "desktop" => {
                    tokio::time::sleep(TOGETHER).await;
                    // What came meanwhile is looked at now too.
                    while changes.try_recv().is_ok() {}
                    reap(app).await
                }
                Ok(_) => Ok(()),
                Err(RecvError::Lagged(_)) => reap(app).await,
                Err(RecvError::Closed) => return,
            },
        };
        if let Err(e) = result {
            tracing::warn!("what is over could not be removed, it will be tried again: {e}");
        }
    }
}

/// Deletes courses and accounts that are being deleted and have no desktop any more.
pub async fn reap(app: &App) -> lyceum_store::Result<()> {
    if !courses::any_deleting(&app.store).await? {
        return Ok(());
    }
    let mut tx = app.store.begin_write().await?;
    courses::reap(&mut tx).await?;
    users::reap(&mut tx).await?;
    tx.commit().await
}

async fn sweep(app: &App) -> lyceum_store::Result<()> {
    let now = app.now();
    // An answer that can't be had now is had at the next sweep.
    let Ok(settings) = app.settings().await else {
        return Ok(());
    };
    let idle = i64::from(settings.session_idle_minutes) * 60_000;
    let mut tx = app.store.begin_write().await?;
    // `last_seen` lags by up to a minute.
    sessions::delete_idle(&mut tx, now - idle - 120_000).await?;
    one_time::delete_expired(&mut tx, now).await?;
    tx.commit().await
}
