//! Closes the difference between what the store says should be and what agents
//! say is. Every reconciler reads the store and takes no other input; a change
//! of the store is only a hint to look now instead of at the next round. So any
//! of them may be killed at any instant, and starting again is the whole recovery.
//!
//! | module | brings about |
//! |---|---|
//! | [`step`], [`act`] | one desktop, one step |
//! | [`watch`] | what hosts observe, into the store |
//! | [`hand_out`] | the capture before a hand-out |
//! | [`moves`] | running desktops on other hosts, hosts that are emptied |
//! | [`networks`] | what hosts know of courses' networks |
//! | [`restore_points`] | points that were asked for, desktops back at theirs |
//! | [`point_schedule`] | points that courses' schedules ask for, and no more than they keep |
//! | [`samples`] | what was measured, in the store |
//! | [`power`] | hosts on and off |
//! | [`allocation`] | plans, made and carried out |
//! | [`prepare`] | releases verified on every host before they are asked for |
//! | [`pressure`] | room on a host that runs out of real memory |
//! | [`timetable`] | desktops ready at the bell, and ended after the lesson |
//! | [`sweep`] | nothing is left on the tiers that no row names |

pub mod act;
pub mod allocation;
pub mod hand_out;
pub mod moves;
pub mod networks;
pub mod observe;
pub mod point_schedule;
pub mod power;
pub mod prepare;
pub mod pressure;
pub mod restore_points;
pub mod samples;
pub mod step;
pub mod sweep;
pub mod timetable;
pub mod watch;

use crate::app::App;
use lyceum_model::DesktopId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

/// Between two looks at everything, whether or not something changed.
const ROUND: Duration = Duration::from_secs(5);

/// Starts all reconcilers; dropping the set ends them.
pub fn spawn(app: &App) -> JoinSet<()> {
    let mut set = JoinSet::new();
    set.spawn(desktops(app.clone()));
    set.spawn(watch::run(app.clone()));
    set.spawn(hand_out::run(app.clone()));
    set.spawn(moves::run(app.clone()));
    set.spawn(networks::run(app.clone()));
    set.spawn(restore_points::run(app.clone()));
    set.spawn(point_schedule::run(app.clone()));
    set.spawn(prepare::run(app.clone()));
    set.spawn(samples::run(app.clone()));
    set.spawn(power::run(app.clone()));
    set.spawn(crate::power::measure::run(app.clone()));
    set.spawn(allocation::run(app.clone()));
    set.spawn(pressure::run(app.clone()));
    set.spawn(sweep::run(app.clone()));
    set.spawn(timetable::run(app.clone()));
    set
}

/// Desktops that are being worked on: at most one task each. A desktop that changes
/// while its task is at work is looked at again by the same task.
#[derive(Clone, Default)]
struct AtWork(Arc<Mutex<HashMap<DesktopId, bool>>>);

impl AtWork {
    /// Whether the caller shall start a task.
    fn begin(&self, id: &DesktopId) -> bool {
        let mut map = self.0.lock().unwrap_or_else(|p| p.into_inner());
        match map.get_mut(id) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                map.insert(id.clone(), false);
                true
            }
        }
    }

    /// Whether the task shall look again; otherwise it has ended.
    fn again(&self, id: &DesktopId) -> bool {
        let mut map = self.0.lock().unwrap_or_else(|p| p.into_inner());
        match map.get_mut(id) {
            Some(again) if *again => {
                *again = false;
                true
            }
            _ => {
                map.remove(id);
                false
            }
        }
    }
}

async fn desktops(app: App) {
    let mut changes = app.store.changes();
    let at_work = AtWork::default();
    let mut tasks = JoinSet::new();
    let mut round = tokio::time::interval(ROUND);
    loop {
        let ids: HashSet<DesktopId> = tokio::select! {
            _ = round.tick() => everyone(&app).await,
            change = changes.recv() => match change {
                Ok(change) if change.kind == "desktop" => change.id.parse().into_iter().collect(),
                Ok(_) => continue,
                Err(RecvError::Lagged(_)) => everyone(&app).await,
                Err(RecvError::Closed) => return,
            },
        };
        while tasks.try_join_next().is_some() {}
        for id in ids {
            if at_work.begin(&id) {
                tasks.spawn(one(app.clone(), at_work.clone(), id));
            }
        }
    }
}

async fn everyone(app: &App) -> HashSet<DesktopId> {
    match lyceum_store::desktops::all(&app.store).await {
        Ok(all) => all.into_iter().map(|d| d.id).collect(),
        Err(e) => {
            tracing::error!("desktops could not be read: {e}");
            HashSet::new()
        }
    }
}

/// Works on one desktop until there is nothing more to do now. Errors are tried again with a growing pause.
async fn one(app: App, at_work: AtWork, id: DesktopId) {
    let mut pause = Duration::from_millis(200);
    loop {
        match act::step(&app, &id).await {
            Ok(act::Progress::Again) => {
                pause = Duration::from_millis(200);
                continue;
            }
            Ok(act::Progress::Rest) => {}
            Err(e) => {
                tracing::warn!(desktop = %id, "{e}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
                continue;
            }
        }
        if !at_work.again(&id) {
            return;
        }
    }
}
