//! Lets every host verify the releases it will be asked for before somebody waits for it: hashing
//! a release's memory and disk takes seconds, and belongs before the lesson. It also brings
//! their pages into the host's cache.
//!
//! What was prepared is remembered per start of a host's agent; forgetting it costs a request
//! that the host answers from its own notes.

use crate::app::App;
use crate::orders::cluster::SILENT_AFTER_MS;
use lyceum_model::{HostId, ReleaseId};
use lyceum_proto::code;
use lyceum_store::{agents, courses, releases};
use serde::de::IgnoredAny;
use std::collections::HashSet;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(10);
/// Hashing a large release from a slow disk.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs for ever.
pub async fn run(app: App) {
    let mut done = HashSet::new();
    let mut changes = app.store.changes();
    loop {
        if let Err(e) = round(&app, &mut done).await {
            tracing::warn!("releases could not be prepared: {e}");
        }
        // A new release is prepared at once.
        let _ = tokio::time::timeout(ROUND, async {
            while changes
                .recv()
                .await
                .is_ok_and(|change| change.kind != "release")
            {}
        })
        .await;
    }
}

/// The releases that new desktops may start from: of each course its own, of each image the newest.
async fn wanted(app: &App) -> lyceum_store::Result<HashSet<ReleaseId>> {
    let all = releases::all(&app.store).await?;
    let mut wanted: HashSet<ReleaseId> = HashSet::new();
    let mut images = HashSet::new();
    let mut newest_first: Vec<_> = all.iter().collect();
    newest_first.sort_by_key(|r| std::cmp::Reverse(r.version));
    for release in newest_first {
        if release.state == releases::State::Offered && images.insert(&release.image) {
            wanted.insert(release.id.clone());
        }
    }
    let pinned = courses::list(&app.store)
        .await?
        .into_iter()
        .filter_map(|c| c.release);
    wanted.extend(pinned);
    wanted.retain(|id| {
        all.iter()
            .any(|r| r.id == *id && r.state != releases::State::Damaged)
    });
    Ok(wanted)
}

type Done = HashSet<(HostId, u64, ReleaseId)>;

async fn round(app: &App, done: &mut Done) -> lyceum_store::Result<()> {
    let wanted = wanted(app).await?;
    let now = app.now();
    for host in agents::list(&app.store, "host").await? {
        if host.heard.is_none_or(|at| now - at > SILENT_AFTER_MS) {
            continue;
        }
        let Some(boot) = app.live.host(&host.id).map(|o| o.boot) else {
            continue;
        };
        for release in &wanted {
            let key = (host.id.clone(), boot, release.clone());
            if done.contains(&key) {
                continue;
            }
            match prepare(app, &host.id, release).await {
                Ok(()) => {
                    done.insert(key);
                }
                Err(e) if e.code() == Some(code::DAMAGED) => {
                    let why = e.to_string();
                    tracing::error!(%release, host = %host.id, "{why}");
                    if let Err(e) = crate::drafts::mark_damaged(app, release, &why).await {
                        tracing::error!(%release, "it is damaged, and that could not be noted: {e}");
                    }
                }
                Err(e) => tracing::info!(%release, host = %host.id, "not prepared yet: {e}"),
            }
        }
    }
    Ok(())
}

async fn prepare(
    app: &App,
    host: &HostId,
    release: &ReleaseId,
) -> Result<(), crate::agents::AgentError> {
    let client = app.agents.host(host).await?.timeout(PATIENCE);
    let _: IgnoredAny = client
        .post(
            &format!("/v1/releases/{release}/prepare"),
            &serde_json::json!({}),
        )
        .await?;
    Ok(())
}
