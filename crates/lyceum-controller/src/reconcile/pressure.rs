//! Forks promise more memory than there is. A host that runs out of real memory
//! first admits no more; when that is not enough, its throw-away desktops are
//! suspended, one at a time and the quietest first, before the kernel kills anything.

use crate::app::App;
use crate::orders::{self, By, Target, Want};
use lyceum_model::{HostId, Persistence, Phase};
use lyceum_proto::host::HostFacts;
use lyceum_store::desktops::{Desktop, Owner};
use lyceum_store::{agents, desktops};
use std::collections::HashMap;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(5);
/// Below this share of its memory a host suspends desktops.
const LOW_SHARE: f64 = 0.04;
/// Time in which tasks waited for memory, in percent, above which it does too.
const HIGH_PRESSURE: f64 = 25.0;
/// Rounds in a row before anything is done: a peak is not a shortage.
const ROUNDS: u32 = 3;

/// Runs for ever.
pub async fn run(app: App) {
    let mut short: HashMap<HostId, u32> = HashMap::new();
    loop {
        tokio::time::sleep(ROUND).await;
        if let Err(e) = round(&app, &mut short).await {
            tracing::warn!("{e}");
        }
    }
}

/// Whether the host is so short of memory that something has to go.
fn is_short(facts: &HostFacts) -> bool {
    let load = &facts.load;
    let low = (load.memory_mib as f64 * LOW_SHARE) as u64;
    !load.admits && (load.available_mib < low || load.memory_pressure > HIGH_PRESSURE)
}

/// The desktop that is missed least: throw-away, running, quietest.
fn victim<'a>(
    host: &HostId,
    all: &'a [Desktop],
    cpu: &HashMap<lyceum_model::DesktopId, crate::live::LiveDesktop>,
) -> Option<&'a Desktop> {
    all.iter()
        .filter(|d| d.host.as_ref() == Some(host) && d.phase == Phase::Running)
        .filter(|d| {
            d.persistence == Persistence::Throwaway && matches!(d.owner, Owner::Course { .. })
        })
        .min_by(|a, b| {
            let of = |d: &Desktop| cpu.get(&d.id).map_or(0.0, |l| l.cpu_percent);
            of(a).total_cmp(&of(b)).then_with(|| a.id.cmp(&b.id))
        })
}

async fn round(app: &App, short: &mut HashMap<HostId, u32>) -> Result<(), super::act::StepError> {
    let now = app.now();
    for agent in agents::list(&app.store, "host").await? {
        let facts: Option<HostFacts> = agent
            .facts
            .as_deref()
            .and_then(|t| serde_json::from_str(t).ok());
        let fresh = agent
            .heard
            .is_some_and(|at| now - at < orders::cluster::SILENT_AFTER_MS);
        let count = short.entry(agent.id.clone()).or_default();
        match facts {
            Some(facts) if fresh && is_short(&facts) => *count += 1,
            _ => {
                *count = 0;
                continue;
            }
        }
        if *count < ROUNDS {
            continue;
        }
        *count = 0;
        let all = desktops::all(&app.store).await?;
        if all
            .iter()
            .any(|d| d.host.as_ref() == Some(&agent.id) && d.phase == Phase::Suspending)
        {
            continue;
        }
        let Some(quietest) = victim(&agent.id, &all, &app.live.desktops()) else {
            continue;
        };
        tracing::warn!(host = %agent.id, desktop = %quietest.id, "short of memory: suspending it");
        let settings = app.settings().await?;
        let mut tx = app.store.begin_write().await?;
        let Some(desktop) = desktops::get_tx(&mut tx, &quietest.id).await? else {
            continue;
        };
        let name = desktop.hostname.to_string();
        let scope = orders::desktop_scope(&desktop, &name);
        orders::give(
            &mut tx,
            &settings,
            &By {
                login: "system".into(),
            },
            scope,
            Want::Suspend,
            vec![Target { desktop, name }],
            &HashMap::new(),
            now,
        )
        .await?;
        if let Some(mut desktop) = desktops::get_tx(&mut tx, &quietest.id).await? {
            desktop.notice = Some(format!(
                "{} ran out of memory, so it was suspended; start it to go on where you were.",
                agent.id
            ));
            desktops::put(&mut tx, &desktop).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
