//! Forks promise more memory than there is. A host that runs out of real memory
//! first admits no more; when that is not enough, its throw-away desktops are moved to
//! hosts that have room, or suspended where none has, one at a time and the quietest first, before
//! the kernel kills anything.

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
    // All that its desktops may have is in use: what comes next is somebody else's.
    let full = load.desktops_pss_mib > load.memory_mib;
    !load.admits && (full || load.available_mib < low || load.memory_pressure > HIGH_PRESSURE)
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
        if all.iter().any(|d| {
            d.host.as_ref() == Some(&agent.id)
                && (d.phase == Phase::Suspending || d.moving_to.is_some())
        }) {
            continue;
        }
        let Some(quietest) = victim(&agent.id, &all, &app.live.desktops()) else {
            continue;
        };
        let settings = app.settings().await?;
        let mut tx = app.store.begin_write().await?;
        let Some(desktop) = desktops::get_tx(&mut tx, &quietest.id).await? else {
            continue;
        };
        let name = desktop.hostname.to_string();
        let by = By {
            login: "system".into(),
        };
        let reason = format!("{} runs out of memory", agent.id);
        let moved = orders::moves::give(
            &mut tx, &settings, &by, &desktop, &name, None, None, &reason, now,
        )
        .await;
        match moved {
            Ok(_) => {
                tracing::warn!(host = %agent.id, desktop = %desktop.id, "short of memory: moving it away");
                tx.commit().await?;
                continue;
            }
            Err(why) => {
                tracing::warn!(host = %agent.id, desktop = %desktop.id, "short of memory: suspending it, since it can't be moved: {why}");
            }
        }
        let scope = orders::desktop_scope(&desktop, &name);
        orders::give(
            &mut tx,
            &settings,
            &by,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveDesktop;
    use crate::reconcile::step::tests_support::desktop;
    use lyceum_model::{Accelerator, Platform};
    use lyceum_proto::host::HostLoad;

    fn facts(admits: bool, available_mib: u64, memory_pressure: f64) -> HostFacts {
        HostFacts {
            version: String::new(),
            platform: Platform {
                qemu_version: String::new(),
                machine_type: String::new(),
                cpu_model: String::new(),
                accelerator: Accelerator::Simulated,
            },
            warnings: Vec::new(),
            cpus: 2,
            migration_url: None,
            tiers: None,
            replica: None,
            network: None,
            can_power_off: false,
            spice: false,
            cores: None,
            load: HostLoad {
                at: 0,
                memory_mib: 10_000,
                available_mib,
                desktops_pss_mib: 0,
                cpu_percent: 0.0,
                desktops_cpu_percent: 0.0,
                memory_pressure,
                admits,
                refuses_because: None,
                traffic: Default::default(),
            },
        }
    }

    #[test]
    fn a_host_that_only_admits_no_more_suspends_nothing() {
        assert!(!is_short(&facts(false, 5_000, 0.0)));
        assert!(
            !is_short(&facts(true, 100, 50.0)),
            "it says itself that it has room"
        );
        assert!(is_short(&facts(false, 399, 0.0)));
        assert!(is_short(&facts(false, 5_000, 26.0)));
        let mut full = facts(false, 5_000, 0.0);
        full.load.desktops_pss_mib = 10_000;
        assert!(!is_short(&full), "all of it and no more");
        full.load.desktops_pss_mib = 10_001;
        assert!(is_short(&full));
    }

    #[test]
    fn the_quietest_running_throw_away_desktop_goes_and_a_persistent_one_never() {
        let host: HostId = "kvm1".parse().expect("id");
        let named = |id: &str, phase, persistence| Desktop {
            id: id.parse().expect("id"),
            host: Some(host.clone()),
            phase,
            persistence,
            ..desktop()
        };
        let all = [
            named("busy", Phase::Running, Persistence::Throwaway),
            named("quiet", Phase::Running, Persistence::Throwaway),
            named("kept", Phase::Running, Persistence::Persistent),
            named("starting", Phase::Starting, Persistence::Throwaway),
        ];
        let cpu = HashMap::from([(
            all[0].id.clone(),
            LiveDesktop {
                pss_kib: 0,
                cpu_percent: 80.0,
                ..LiveDesktop::default()
            },
        )]);
        assert_eq!(
            victim(&host, &all, &cpu).map(|d| d.id.as_str()),
            Some("quiet")
        );
        assert_eq!(victim(&host, &all[2..], &cpu), None);
        let other: HostId = "kvm2".parse().expect("id");
        assert_eq!(victim(&other, &all, &cpu), None);
    }
}
