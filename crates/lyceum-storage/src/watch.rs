//! What is looked at all the time, whoever asks for what.

use crate::agent::Agent;
use lyceum_disk::Tended;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often stores are looked at. What is written between two looks must fit into half of the
/// headroom.
const LOOK: Duration = Duration::from_secs(1);
/// How often the disks' counters are looked at, in looks.
const WEAR: u64 = 60;

impl Agent {
    /// Until `shutdown`.
    pub(crate) async fn watch(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0u64;
        // A fault that stays is said once and not every second.
        let mut said = String::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => {}
            }
            looks += 1;
            let wear = looks.is_multiple_of(WEAR);
            let tended = self
                .look(move |inner| {
                    if wear {
                        inner.wear.look();
                    }
                    Ok(inner.driver.tend()?)
                })
                .await;
            match tended {
                Ok(done) => {
                    said.clear();
                    done.iter().for_each(tell);
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        tracing::error!(error = text, "desktops' disks can't be watched");
                        said = text;
                    }
                }
            }
        }
        let _ = self
            .look(|inner| {
                inner.wear.look();
                Ok(())
            })
            .await;
    }
}

fn tell(done: &Tended) {
    match done {
        Tended::Extended { what, bytes } => {
            tracing::info!(what, bytes, "extended before it is full")
        }
        Tended::Paused(overlay) => tracing::error!(
            %overlay,
            "the slow tier is full: this desktop stands still, and goes on when there is room; delete what is not needed, or add a disk"
        ),
        Tended::Resumed(overlay) => tracing::info!(%overlay, "there is room again: it goes on"),
        Tended::Lost(overlay) => tracing::error!(
            %overlay,
            "its snapshot became full and is lost: reset the desktop, or restore a restore point"
        ),
    }
}
