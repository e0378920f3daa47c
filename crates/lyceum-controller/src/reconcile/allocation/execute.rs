//! Carries a plan out, one step at a time. Where it stands is in its row, written together with what is done:
//! whoever reads it after a `kill -9` knows what was begun, looks how that ended, and never begins it again.

use super::{PlanError, Wanted, wanted};
use crate::app::App;
use crate::orders::{self, By};
use crate::power;
use crate::reconcile::power::want;
use lyceum_api::allocation::Allocation;
use lyceum_model::{DesktopId, HostId, PlanId, UnixMillis};
use lyceum_placement::decide::{self, UnderWay};
use lyceum_placement::{Mode, PlanPolicy};
use lyceum_store::desktops::Filter;
use lyceum_store::plans::{self, Deed, Plan, Progress, State, Step};
use lyceum_store::power::{Power, State as PowerState, Wanted as PowerWanted};
use lyceum_store::{Tx, desktops, moves, power as power_rows};

/// A plan that got no further for this long, because no controller was there, is out of date.
const OUT_OF_DATE_MS: UnixMillis = 15 * 60_000;

/// Takes it one step further. Whether there may be more to do at once.
pub async fn advance(app: &App, id: &PlanId) -> Result<bool, PlanError> {
    let settings = crate::reconcile::samples::settings(&app.store).await?;
    let app_settings = app.settings().await?;
    let now = app.now();
    let Some(seen) = plans::get(&app.store, id).await? else {
        return Ok(false);
    };
    let wanted = wanted::wanted(app, &settings).await?;
    let names = desktops::names(&app.store, Filter::All).await?;
    let mut tx = app.store.begin_write().await?;
    let Some(mut plan) = plans::get_tx(&mut tx, id).await? else {
        return Ok(false);
    };
    if plan.state != State::Running {
        return Ok(false);
    }
    let before = plan.clone();
    let more = {
        settle(&mut tx, &mut plan).await?;
        if let Some(why) = enough(&mut tx, &plan, &settings, &wanted, now, seen.changed).await? {
            skip_all(&mut plan, &why);
            plan.message = why;
            calling_off(&mut tx, &mut plan).await?;
        }
        match plan.steps.iter().position(|s| !over(s)) {
            None => {
                finish(&mut plan, now);
                false
            }
            // Begun: waited for.
            Some(at) if plan.steps[at].progress == Progress::Begun => false,
            Some(at) => {
                let name =
                    |d: &DesktopId| names.get(d).map_or_else(String::new, |n| n.user.clone());
                begin(app, &mut tx, &app_settings, &mut plan, at, name, now).await?
            }
        }
    };
    if plan == before {
        return Ok(false);
    }
    plan.changed = now;
    plans::put(&mut tx, &plan).await?;
    tx.commit().await?;
    Ok(more && plan.state == State::Running)
}

fn over(step: &Step) -> bool {
    matches!(
        step.progress,
        Progress::Done | Progress::Failed | Progress::Skipped
    )
}

fn skip_all(plan: &mut Plan, why: &str) {
    for step in &mut plan.steps {
        if step.progress == Progress::Waiting {
            step.progress = Progress::Skipped;
            step.message = why.to_owned();
        }
    }
}

/// Moves that were begun and are not on their way yet are called off.
async fn calling_off(tx: &mut Tx, plan: &mut Plan) -> Result<(), PlanError> {
    for step in &plan.steps {
        if let (Progress::Begun, Deed::Move { .. }, Some(operation)) =
            (step.progress, &step.deed, &step.operation)
        {
            for m in moves::of_operation(tx, operation).await? {
                if m.state == moves::State::Waiting {
                    orders::moves::cancel(tx, operation).await?;
                }
            }
        }
        if let (Progress::Begun, Deed::Off { host }) = (step.progress, &step.deed)
            && let Some(mut row) = power_rows::get_tx(tx, host).await?
            && row.state == PowerState::On
        {
            // Not begun by its agent yet.
            row.wanted = None;
            row.plan = None;
            row.failure = String::new();
            power_rows::put(tx, &row).await?;
        }
    }
    Ok(())
}

/// Why nothing more is begun; `None`: it goes on.
async fn enough(
    tx: &mut Tx,
    plan: &Plan,
    settings: &Allocation,
    wanted: &Wanted,
    now: UnixMillis,
    changed: UnixMillis,
) -> Result<Option<String>, PlanError> {
    if plan.steps.iter().all(|s| s.progress != Progress::Waiting)
        && !plan
            .steps
            .iter()
            .any(|s| s.progress == Progress::Begun && matches!(s.deed, Deed::Off { .. }))
    {
        return Ok(None);
    }
    if plan.stop {
        return Ok(Some("it was called off".into()));
    }
    let begun = plan.steps.iter().any(|s| s.progress == Progress::Begun);
    if !begun && now - changed > OUT_OF_DATE_MS {
        return Ok(Some(
            "it was interrupted for too long, so the classroom may be another by now".into(),
        ));
    }
    let Ok(mode) = plan.mode.parse::<Mode>() else {
        return Ok(None);
    };
    let takes_away = plan
        .steps
        .iter()
        .any(|s| !over(s) && !matches!(s.deed, Deed::On { .. }));
    if !takes_away {
        return Ok(None);
    }
    let all = desktops::all_tx(tx).await?;
    let policy: Option<PlanPolicy> = serde_json::from_str(&plan.policy).ok();
    let under_way = UnderWay {
        mode,
        policy: policy.as_ref(),
        ordered: plan.ordered_by.is_some(),
        takes_away,
        starting: super::cluster::starting(&all, plan.acted_at.unwrap_or(plan.at)).len(),
    };
    Ok(decide::enough(
        &under_way,
        &settings.policy,
        &wanted.demand(),
    ))
}

/// Finds out how what was begun has ended.
async fn settle(tx: &mut Tx, plan: &mut Plan) -> Result<(), PlanError> {
    let rows = power_rows::all_tx(tx).await?;
    let mut replace: Vec<(usize, HostId)> = Vec::new();
    for i in 0..plan.steps.len() {
        let step = &mut plan.steps[i];
        if step.progress != Progress::Begun {
            continue;
        }
        match step.deed.clone() {
            Deed::Move { .. } => settle_move(tx, step).await?,
            Deed::On { host } => {
                let Some(row) = rows.iter().find(|r| r.host == host) else {
                    continue;
                };
                if row.state == PowerState::On {
                    step.progress = Progress::Done;
                } else if row.wanted.is_none() {
                    step.progress = Progress::Failed;
                    step.message = row.failure.clone();
                    replace.push((i, host));
                }
            }
            Deed::Off { host } => {
                let Some(row) = rows.iter().find(|r| r.host == host) else {
                    continue;
                };
                if row.state == PowerState::Off {
                    step.progress = Progress::Done;
                } else if row.wanted.is_none() && row.state == PowerState::On {
                    step.progress = Progress::Failed;
                    step.message = row.failure.clone();
                }
            }
        }
    }
    for (i, host) in replace {
        replacement(plan, i, &host, &rows);
    }
    Ok(())
}

async fn settle_move(tx: &mut Tx, step: &mut Step) -> Result<(), PlanError> {
    let Some(operation) = &step.operation else {
        step.progress = Progress::Failed;
        step.message = "its move was not written down".into();
        return Ok(());
    };
    match moves::of_operation(tx, operation).await?.pop() {
        Some(m) if m.state == moves::State::Done => step.progress = Progress::Done,
        Some(m) if m.state.is_over() => {
            step.progress = Progress::Failed;
            step.message = m.message;
        }
        Some(_) => {}
        None => {
            step.progress = Progress::Failed;
            step.message = "its move is not known any more".into();
        }
    }
    Ok(())
}

/// Another host in place of one that did not come up: the first that is off and was not tried.
fn replacement(plan: &mut Plan, failed: usize, host: &HostId, rows: &[Power]) {
    let tried = |h: &HostId| {
        plan.steps
            .iter()
            .any(|s| matches!(&s.deed, Deed::On { host } if host == h))
    };
    let other = rows.iter().find(|r| {
        let setup = power::setup(r);
        r.state == PowerState::Off
            && r.failed_at.is_none()
            && r.host != *host
            && setup.method.is_some()
            && !setup.maintenance
            && !setup.reserve
            && !tried(&r.host)
    });
    if let Some(other) = other {
        let step = Step {
            deed: Deed::On {
                host: other.host.clone(),
            },
            reason: format!("{host} did not come up"),
            progress: Progress::Waiting,
            message: String::new(),
            operation: None,
        };
        plan.steps.insert(failed + 1, step);
    }
}

/// Begins the step at this place. Whether there is more to do at once.
async fn begin(
    app: &App,
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    plan: &mut Plan,
    at: usize,
    name: impl Fn(&DesktopId) -> String,
    now: UnixMillis,
) -> Result<bool, PlanError> {
    match plan.steps[at].deed.clone() {
        Deed::On { .. } => {
            // All at once: those of one group wait for each other.
            for step in &mut plan.steps {
                if let Deed::On { host } = &step.deed
                    && step.progress == Progress::Waiting
                {
                    want(tx, host, PowerWanted::On, Some(&plan.id)).await?;
                    step.progress = Progress::Begun;
                }
            }
            Ok(false)
        }
        Deed::Move { desktop, from, to } => {
            let step = &mut plan.steps[at];
            match begin_move(tx, settings, step, &desktop, &from, &to, name, now).await? {
                None => {
                    step.progress = Progress::Begun;
                    Ok(false)
                }
                Some(why) => {
                    step.progress = Progress::Failed;
                    step.message = why;
                    Ok(true)
                }
            }
        }
        Deed::Off { host } => {
            let kept = plan.steps.iter().find(|s| {
                matches!(&s.deed, Deed::Move { from, .. } if *from == host)
                    && s.progress != Progress::Done
            });
            if let Some(why) = kept.map(|s| s.message.clone()) {
                let step = &mut plan.steps[at];
                step.progress = Progress::Skipped;
                step.message = format!("not all of its desktops were moved away: {why}");
                return Ok(true);
            }
            let row = power_rows::get_tx(tx, &host)
                .await?
                .unwrap_or_else(|| Power::new(host.clone(), 0));
            if let Some(why) = crate::reconcile::power::why_not_off(app, tx, &row).await? {
                let step = &mut plan.steps[at];
                step.progress = Progress::Failed;
                step.message = why;
                return Ok(true);
            }
            want(tx, &host, PowerWanted::Off, Some(&plan.id)).await?;
            plan.steps[at].progress = Progress::Begun;
            Ok(false)
        }
    }
}

/// Orders a move, with the row of the plan in the same transaction. The words say why it can't be.
#[allow(clippy::too_many_arguments)] // Each is a thing of its own.
async fn begin_move(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    step: &mut Step,
    desktop: &str,
    from: &HostId,
    to: &HostId,
    name: impl Fn(&DesktopId) -> String,
    now: UnixMillis,
) -> Result<Option<String>, PlanError> {
    let Ok(id) = desktop.parse::<DesktopId>() else {
        return Ok(Some("it is no desktop's name".into()));
    };
    let d = match desktops::get_tx(tx, &id).await? {
        Some(d) if d.host.as_ref() == Some(from) => d,
        Some(d) if d.host.as_ref() == Some(to) => {
            return Ok(Some("it is there already".into()));
        }
        Some(_) => return Ok(Some(format!("it does not run on {from} any more"))),
        None => return Ok(Some("it was deleted".into())),
    };
    let by = By {
        login: "system".into(),
    };
    let given = orders::moves::give(
        tx,
        settings,
        &by,
        &d,
        &name(&id),
        Some(to),
        None,
        &step.reason,
        now,
    )
    .await;
    match given {
        Ok(operation) => {
            step.operation = Some(operation);
            Ok(None)
        }
        Err(refusal) => Ok(Some(refusal.to_string())),
    }
}

fn finish(plan: &mut Plan, now: UnixMillis) {
    let count = |p: Progress| plan.steps.iter().filter(|s| s.progress == p).count();
    let (done, failed, skipped) = (
        count(Progress::Done),
        count(Progress::Failed),
        count(Progress::Skipped),
    );
    plan.state = if !plan.message.is_empty() {
        State::Stopped
    } else if failed + skipped == 0 {
        State::Done
    } else {
        State::Failed
    };
    if plan.state == State::Failed {
        plan.message = format!("{done} of {} steps were done", plan.steps.len());
    }
    plan.ended = Some(now);
}
