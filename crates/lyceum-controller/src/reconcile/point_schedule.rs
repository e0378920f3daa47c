//! Takes the points that courses' schedules ask for, and drops those that they do not keep. While
//! nobody's class runs nothing is taken; a class that begins gets its first point after one interval.

use super::act::StepError;
use crate::app::App;
use crate::orders::restore_points::{self as orders, how};
use lyceum_model::{DesktopId, OperationId, PointId, UnixMillis};
use lyceum_store::desktops::{self, Desktop, Owner};
use lyceum_store::restore_points::{self, Origin, Point, Schedule, State};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(5);
const MINUTE: UnixMillis = 60_000;
const HOUR: UnixMillis = 60 * MINUTE;
/// When no class begins, what was kept to undo a restore is dropped after this time all the same.
const UNDO_FOR: UnixMillis = 7 * 24 * HOUR;

/// Runs for ever.
pub async fn run(app: App) {
    let mut round = tokio::time::interval(ROUND);
    loop {
        round.tick().await;
        if let Err(e) = look(&app).await {
            tracing::warn!("scheduled restore points: {e}");
        }
    }
}

/// One look at every schedule.
pub async fn look(app: &App) -> Result<(), StepError> {
    let now = app.now();
    let schedules = restore_points::schedules(&app.store).await?;
    let all = if schedules.iter().any(|s| s.every_min > 0) {
        desktops::all(&app.store).await?
    } else {
        Vec::new()
    };
    for schedule in &schedules {
        let running: Vec<&Desktop> = all.iter().filter(|d| runs_in(d, schedule)).collect();
        match due(schedule, !running.is_empty(), now) {
            Due::No => {}
            Due::Note(last_run) => {
                let mut tx = app.store.begin_write().await?;
                let mut s = restore_points::schedule_tx(&mut tx, &schedule.course).await?;
                if s == *schedule {
                    s.last_run = last_run;
                    restore_points::put_schedule(&mut tx, &s).await?;
                }
                tx.commit().await?;
            }
            Due::Take => take(app, schedule, &running, now).await?,
        }
    }
    thin_out(app, &schedules, now).await
}

fn runs_in(d: &Desktop, schedule: &Schedule) -> bool {
    matches!(&d.owner, Owner::Course { course, .. } if *course == schedule.course)
        && d.host.is_some()
        && d.phase == lyceum_model::Phase::Running
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    No,
    /// Write this as the last time: a class began, or ended.
    Note(UnixMillis),
    Take,
}

fn due(s: &Schedule, class_runs: bool, now: UnixMillis) -> Due {
    match (s.every_min, class_runs, s.last_run) {
        (0, _, 0) | (_, false, 0) => Due::No,
        (0, _, _) | (_, false, _) => Due::Note(0),
        (_, true, 0) => Due::Note(now),
        // A clock that was set back begins anew.
        (_, true, last) if last > now => Due::Note(now),
        (every, true, last) if now - last >= i64::from(every) * MINUTE => Due::Take,
        _ => Due::No,
    }
}

async fn take(
    app: &App,
    seen: &Schedule,
    running: &[&Desktop],
    now: UnixMillis,
) -> Result<(), StepError> {
    let batch = OperationId::new();
    let mut tx = app.store.begin_write().await?;
    let mut s = restore_points::schedule_tx(&mut tx, &seen.course).await?;
    if s != *seen {
        return Ok(());
    }
    s.last_run = now;
    restore_points::put_schedule(&mut tx, &s).await?;
    let busy: HashSet<DesktopId> = restore_points::restores_tx(&mut tx)
        .await?
        .into_iter()
        .map(|r| r.desktop)
        .collect();
    for d in running.iter().filter(|d| !busy.contains(&d.id)) {
        let mut point = orders::new_point(d, Origin::Scheduled, batch.as_str(), None, "", now)?;
        if let Err(orders::Not::Ever(why)) = how(d) {
            point.state = State::Failed;
            point.message = why.to_owned();
        }
        restore_points::put(&mut tx, &point).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn thin_out(app: &App, schedules: &[Schedule], now: UnixMillis) -> Result<(), StepError> {
    let all = restore_points::all(&app.store).await?;
    let policies: HashMap<_, _> = schedules.iter().map(|s| (&s.course, s)).collect();
    let mut by_desktop: HashMap<&DesktopId, Vec<&Point>> = HashMap::new();
    for point in &all {
        by_desktop.entry(&point.desktop).or_default().push(point);
    }
    let mut gone = Vec::new();
    for points in by_desktop.values() {
        let policy = points.first().and_then(|p| policies.get(&p.course));
        gone.extend(superfluous(points, policy.copied(), now));
    }
    if gone.is_empty() {
        return Ok(());
    }
    let mut tx = app.store.begin_write().await?;
    for id in gone {
        if !orders::in_use(&mut tx, &id).await? {
            orders::drop_row(&mut tx, &id).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Which of a desktop's points (the newest first) are not kept: pure. Of those that could not be taken
/// the newest is kept while nothing newer could be; what somebody asked for is never thinned out.
fn superfluous(points: &[&Point], policy: Option<&Schedule>, now: UnixMillis) -> Vec<PointId> {
    let mut gone = Vec::new();
    let (mut last, mut hourly, mut hours) = (0, 0, HashSet::new());
    let mut newer = false;
    for p in points {
        match (p.state, p.origin) {
            (State::Failed, _) if newer => gone.push(p.id.clone()),
            (State::Failed, _) => newer = true,
            (State::Ready, Origin::Scheduled) => {
                newer = true;
                let Some(policy) = policy else { continue };
                if last < policy.keep_last {
                    last += 1;
                } else if hourly < policy.keep_hourly && hours.insert(p.taken.div_euclid(HOUR)) {
                    hourly += 1;
                } else {
                    gone.push(p.id.clone());
                }
            }
            (State::Ready, Origin::Undo) if now - p.taken > UNDO_FOR => gone.push(p.id.clone()),
            (State::Ready, Origin::Asked) => newer = true,
            _ => {}
        }
    }
    gone
}

#[cfg(test)]
#[path = "point_schedule_tests.rs"]
mod tests;
