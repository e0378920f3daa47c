//! Where desktops run and which hosts are on: looks from time to time whether something is to be done for the
//! mode in force, records what it decides with every reason, and carries it out step by step.
//!
//! | module | does |
//! |---|---|
//! | [`wanted`] | the mode in force, and what classes want soon |
//! | [`cluster`] | the planner's snapshot, out of the store: pure |
//! | [`prices`] | what moves cost, out of the last ones: pure |
//! | [`execute`] | one plan, one step at a time |
//!
//! What is done next, and what ends a plan early, is decided by [`lyceum_placement::decide`], which is pure: a rehearsal
//! (`lyceum sim`) asks the same. Plans are recorded, then carried out step by step.
//!
//! It reads nothing but the store, and where a plan stands is in its row: a controller that was killed goes on,
//! and a move that was begun is looked for before anything else is done. The pause between two plans counts for
//! what comes by itself; a person's order, and the timetable, which a person made, do not wait for it.

pub mod cluster;
pub mod execute;
pub mod prices;
pub mod wanted;

use crate::app::App;
use crate::error::ApiFailure;
use cluster::Cluster;
use lyceum_api::allocation::Allocation;
use lyceum_model::{DesktopId, HostId, PlanId, UnixMillis};
use lyceum_placement as placement;
use lyceum_placement::decide::{Next, decide};
use lyceum_placement::{Mode, NotDone, PlanPolicy};
use lyceum_store::plans::{self, Deed, Plan, Progress, State, Step};
use lyceum_store::{StoreError, Tx};
use std::time::Duration;
pub use wanted::Wanted;

/// While a plan is carried out, and to see orders.
const ROUND: Duration = Duration::from_secs(2);
/// A plan that was shown can be carried out for so long.
pub const SHOWN_FOR_MS: i64 = 10 * 60_000;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Settings and the like.
    #[error("{0}")]
    Order(String),
    /// The planner's input contradicts itself.
    #[error("no plan can be made: {0}")]
    Invalid(#[from] placement::Invalid),
}

impl From<ApiFailure> for PlanError {
    fn from(e: ApiFailure) -> Self {
        PlanError::Order(e.to_string())
    }
}

/// Runs for ever.
pub async fn run(app: App) {
    let mut changes = app.store.changes();
    // At once after a start: the pause counts from what is in the store.
    let mut looked: Option<(UnixMillis, Allocation)> = None;
    loop {
        match round(&app, &mut looked).await {
            Ok(()) => {}
            Err(e) => tracing::warn!("hosts could not be allocated: {e}"),
        }
        let _ = tokio::time::timeout(ROUND, async {
            while changes
                .recv()
                .await
                .is_ok_and(|c| !matches!(c.kind, "plan" | "move" | "host"))
            {}
        })
        .await;
        // Several changes come together.
        while changes.try_recv().is_ok() {}
    }
}

async fn round(app: &App, looked: &mut Option<(UnixMillis, Allocation)>) -> Result<(), PlanError> {
    if let Some(plan) = plans::running(&app.store).await? {
        while execute::advance(app, &plan.id).await? {}
        return Ok(());
    }
    let settings = super::samples::settings(&app.store).await?;
    if !settings.automatic {
        *looked = None;
        return Ok(());
    }
    let now = app.now();
    let wanted = wanted::wanted(app, &settings).await?;
    let every = i64::from(settings.every_minutes) * 60_000;
    // Other settings are looked at with at once.
    let due = !looked
        .as_ref()
        .is_some_and(|(at, with)| (0..every).contains(&(now - at)) && *with == settings);
    if !due && wanted.seats_needed == 0 {
        return Ok(());
    }
    let cluster = Cluster::read(app, &settings, now).await?;
    let next = decide(&settings.policy, &wanted.demand(), due, |policy| {
        cluster.plan(policy, now)
    })?;
    let (policy, plan) = match next {
        Next::Wait => return Ok(()),
        Next::Wake(policy, plan) => (policy, plan),
        Next::Plan(policy, plan) => {
            *looked = Some((now, settings));
            (policy, plan)
        }
    };
    let made = Made {
        reason: wanted.reason,
        ordered_by: None,
        policy,
        cluster,
        plan,
        now,
    };
    record(app, made, true).await?;
    Ok(())
}

/// A plan with what went into it.
pub struct Made {
    reason: String,
    ordered_by: Option<String>,
    policy: PlanPolicy,
    cluster: Cluster,
    plan: placement::Plan,
    now: UnixMillis,
}

/// Makes a plan; nothing is written. `mode`: another one than is in force.
pub async fn make(
    app: &App,
    settings: &Allocation,
    wanted: &Wanted,
    mode: Option<Mode>,
    ordered: bool,
    now: UnixMillis,
) -> Result<Made, PlanError> {
    let cluster = Cluster::read(app, settings, now).await?;
    let policy = PlanPolicy {
        mode: mode.unwrap_or(wanted.mode),
        ordered,
        ..wanted.demand().seats(&settings.policy)
    };
    let plan = cluster.plan(&policy, now)?;
    Ok(Made {
        reason: match mode {
            Some(_) => "it was asked for".into(),
            None => wanted.reason.clone(),
        },
        ordered_by: None,
        policy,
        cluster,
        plan,
        now,
    })
}

impl Made {
    /// Somebody ordered it.
    pub fn ordered_by(mut self, login: &str) -> Made {
        self.ordered_by = Some(login.to_owned());
        self
    }
}

/// Writes a plan down; `act`: it is then carried out. One is carried out at a time: when another one is, the
/// answer is none.
pub async fn record(app: &App, made: Made, act: bool) -> Result<Option<Plan>, PlanError> {
    let steps = steps(&made.plan);
    let text = |v: serde_json::Result<String>| v.map_err(|e| PlanError::Order(e.to_string()));
    let state = match (act, steps.is_empty()) {
        (_, true) => State::Idle,
        (true, false) => State::Running,
        (false, false) => State::Shown,
    };
    let mut new = Plan {
        id: PlanId::new(),
        at: made.now,
        mode: made.policy.mode.as_str().into(),
        reason: made.reason,
        ordered_by: made.ordered_by,
        state,
        message: String::new(),
        stop: false,
        policy: text(serde_json::to_string(&made.policy))?,
        snapshot: text(serde_json::to_string(&made.cluster.snapshot))?,
        plan: text(serde_json::to_string(&made.plan))?,
        steps,
        acted_at: (state == State::Running).then_some(made.now),
        changed: made.now,
        ended: (state != State::Running).then_some(made.now),
    };
    let mut tx = app.store.begin_write().await?;
    if state == State::Running && plans::running_tx(&mut tx).await?.is_some() {
        return Ok(None);
    }
    // What comes by itself and finds nothing to do takes the place of the last that found nothing.
    if state == State::Idle
        && new.ordered_by.is_none()
        && let Some(last) = plans::newest_tx(&mut tx).await?
        && last.state == State::Idle
        && last.ordered_by.is_none()
    {
        new.id = last.id;
    }
    plans::put(&mut tx, &new).await?;
    tx.commit().await?;
    Ok(Some(new))
}

/// What is done, in order: hosts on, moves one by one, hosts off. Places for desktops that wait are the starter's.
fn steps(plan: &placement::Plan) -> Vec<Step> {
    let step = |deed, reason: &str| Step {
        deed,
        reason: reason.to_owned(),
        progress: Progress::Waiting,
        message: String::new(),
        operation: None,
    };
    let host = |text: &String| text.parse::<HostId>().ok();
    let on = plan
        .power_on
        .iter()
        .filter_map(|h| Some(step(Deed::On { host: host(h)? }, "more seats are wanted")));
    let moves = plan.moves.iter().filter_map(|m| {
        let deed = Deed::Move {
            desktop: m.desktop.parse::<DesktopId>().ok()?.to_string(),
            from: host(&m.from)?,
            to: host(&m.to)?,
        };
        Some(step(deed, &m.reason))
    });
    let off = plan.power_off.iter().filter_map(|h| {
        Some(step(
            Deed::Off { host: host(h)? },
            "the other hosts have seats enough",
        ))
    });
    on.chain(moves).chain(off).collect()
}

/// Has a plan that was only shown carried out. Refused when it is too old or another one is being carried out.
pub async fn carry_out(
    tx: &mut Tx,
    id: &PlanId,
    by: &str,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    let mut plan = plans::get_tx(tx, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("plan"))?;
    if plan.state != State::Shown {
        return Err(ApiFailure::state(
            "only a plan that was shown and has something to do can be carried out: plan again",
        ));
    }
    if !(0..SHOWN_FOR_MS).contains(&(now - plan.at)) {
        return Err(ApiFailure::state(
            "the plan is older than 10 minutes, so the classroom may be another by now: plan again",
        ));
    }
    refuse_second(tx).await?;
    plan.state = State::Running;
    plan.ordered_by = Some(by.to_owned());
    plan.acted_at = Some(now);
    plan.changed = now;
    plan.ended = None;
    plans::put(tx, &plan).await?;
    Ok(())
}

/// Refuses when a plan is being carried out.
pub async fn refuse_second(tx: &mut Tx) -> Result<(), ApiFailure> {
    match plans::running_tx(tx).await? {
        Some(_) => Err(ApiFailure::state(
            "another plan is being carried out: wait until it is over, or stop it",
        )),
        None => Ok(()),
    }
}

/// Calls a plan off. What was begun comes to its end.
pub async fn stop(tx: &mut Tx, id: &PlanId) -> Result<(), ApiFailure> {
    let mut plan = plans::get_tx(tx, id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("plan"))?;
    if plan.state != State::Running {
        return Err(ApiFailure::state("it is not being carried out"));
    }
    plan.stop = true;
    plans::put(tx, &plan).await?;
    Ok(())
}

/// Something the planner does not know of.
pub(crate) fn not_done(what: impl Into<String>, why: impl Into<String>) -> NotDone {
    NotDone {
        what: what.into(),
        why: why.into(),
    }
}
