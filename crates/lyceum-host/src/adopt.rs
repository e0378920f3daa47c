//! After a restart: machines that outlived the agent, and desktops without one.

use crate::HostError;
use crate::agent::Agent;
use crate::desktop::{self, Actor};
use crate::known::Known;
use lyceum_hypervisor::Instance;
use lyceum_model::{DesktopId, Phase};
use std::sync::Arc;
use std::time::Duration;

/// Between two attempts to take over a machine.
const ADOPT_AGAIN: Duration = Duration::from_secs(2);

/// Finds every machine again and what is kept of the others. Nothing is disturbed.
pub(crate) async fn all(agent: &Arc<Agent>) -> Result<(), HostError> {
    let mut known = agent.known.load()?;
    let dir = agent.config.desktops_run_dir();
    let entries = std::fs::read_dir(&dir).map_err(|e| HostError::file("reading", &dir, e))?;
    let ids: Vec<DesktopId> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    let found = futures::future::join_all(ids.into_iter().map(|id| async {
        let found = adopt(agent, &id).await;
        (id, found)
    }))
    .await;
    for (id, found) in found {
        let kept = known.remove(&id);
        match found {
            Ok(Some(instance)) => take(agent, id, kept.unwrap_or_default(), Some(instance)).await,
            Ok(None) => ended_unseen(agent, id, kept.unwrap_or_default()).await,
            Err(why) => {
                tracing::error!(desktop = %id, "its machine can't be taken over yet: {why}");
                let kept = kept.unwrap_or_default();
                let mut seen = desktop::observed(&id, kept.generation, Phase::Unknown);
                seen.detail = format!("its machine is there and can't be taken over yet: {why}");
                agent.observatory.desktop(seen);
                agent.not_adopted(&id, true);
                agent.spawn(adopt_later(agent.clone(), id, kept));
            }
        }
    }
    for (id, kept) in known {
        ended_unseen(agent, id, kept).await;
    }
    Ok(())
}

async fn adopt(agent: &Agent, id: &DesktopId) -> Result<Option<Arc<dyn Instance>>, String> {
    let run_dir = agent.config.desktop_run_dir(id);
    match agent.hypervisor.adopt(&run_dir).await {
        Ok(Some(instance)) if instance.request().desktop != *id => Err(format!(
            "it belongs to desktop {}",
            instance.request().desktop
        )),
        Ok(Some(instance)) => Ok(Some(instance)),
        Ok(None) => match std::fs::remove_dir_all(&run_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.to_string()),
            _ => Ok(None),
        },
        Err(e) => Err(e.to_string()),
    }
}

async fn adopt_later(agent: Arc<Agent>, id: DesktopId, kept: Known) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ADOPT_AGAIN) => {}
            () = agent.shutdown.cancelled() => return,
        }
        match adopt(&agent, &id).await {
            Ok(Some(instance)) => {
                take(&agent, id.clone(), kept, Some(instance)).await;
                break;
            }
            Ok(None) => {
                ended_unseen(&agent, id.clone(), kept).await;
                break;
            }
            Err(why) => tracing::warn!(desktop = %id, "its machine can't be taken over yet: {why}"),
        }
    }
    agent.not_adopted(&id, false);
}

/// Hands a desktop to its actor.
async fn take(
    agent: &Arc<Agent>,
    id: DesktopId,
    known: Known,
    instance: Option<Arc<dyn Instance>>,
) {
    if let Some(instance) = &instance
        && instance.request().generation > known.generation
    {
        // Only after the loss of what is kept: what runs is the best that is known.
        tracing::warn!(desktop = %id, "it runs under a newer generation than was kept");
        let mut kept = known.clone();
        kept.generation = instance.request().generation;
        kept.started = true;
        kept.outcome = None;
        if let Err(e) = agent.known.save(&id, kept).await {
            tracing::error!("{e}");
        }
    }
    let (mut actor, handle) = Actor::new(agent.clone(), id.clone(), known, instance);
    actor.publish();
    actor.look();
    agent.add(id, actor, handle);
}

/// A desktop without a machine. One that was to run and whose end nobody saw has failed.
async fn ended_unseen(agent: &Arc<Agent>, id: DesktopId, mut known: Known) {
    if known.started && known.outcome.is_none() {
        let mut seen = desktop::observed(&id, known.generation, Phase::Failed);
        seen.detail = format!(
            "its machine ended while the agent of host {} was not running",
            agent.config.name
        );
        known.outcome = Some(seen);
        if let Err(e) = agent.known.save(&id, known.clone()).await {
            tracing::error!("{e}");
        }
    }
    let speak = known
        .outcome
        .as_ref()
        .is_some_and(|o| o.phase != Phase::Stopped);
    let (mut actor, handle) = Actor::new(agent.clone(), id.clone(), known, None);
    if speak {
        actor.publish();
    }
    agent.add(id, actor, handle);
}
