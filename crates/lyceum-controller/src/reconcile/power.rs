//! Hosts on and off, as their rows say they should be: the states are drawn in [`lyceum_store::power`].
//!
//! **A host is never switched off with a desktop on it or on its way to it.** That is decided in the one
//! transaction that writes *going off*, which every choice of a host sees; and the host's agent looks once more
//! at what is really there. A host is up when its agent is heard, off when it is not heard any more.

use crate::agents::AgentError;
use crate::app::App;
use crate::orders::cluster::SILENT_AFTER_MS;
use crate::power::{self, wake};
use lyceum_api::allocation::Allocation;
use lyceum_model::{Desired, HostId, UnixMillis};
use lyceum_store::agents::Agent;
use lyceum_store::power::{Power, State, Wanted};
use lyceum_store::{Tx, agents, desktops};
use serde::de::IgnoredAny;
use std::collections::HashSet;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(1);
/// A host that is to come up is told again after this long: packets get lost.
const AGAIN_MS: UnixMillis = 20_000;
/// Agents are given this long to be heard after the controller's start before their silence is one.
const GRACE_MS: UnixMillis = 30_000;

/// Runs for ever.
pub async fn run(app: App) {
    let began = app.now();
    let mut heard_before: HashSet<HostId> = HashSet::new();
    let mut changes = app.store.changes();
    loop {
        if let Err(e) = round(&app, began, &mut heard_before).await {
            tracing::warn!("hosts could not be switched: {e}");
        }
        let _ = tokio::time::timeout(ROUND, async {
            while changes.recv().await.is_ok_and(|c| c.kind != "plan") {}
        })
        .await;
    }
}

async fn round(
    app: &App,
    began: UnixMillis,
    heard_before: &mut HashSet<HostId>,
) -> Result<(), AgentError> {
    let settings = super::samples::settings(&app.store).await?;
    let hosts = agents::list(&app.store, "host").await?;
    let rows = lyceum_store::power::all(&app.store).await?;
    for agent in &hosts {
        let now = app.now();
        let heard = agent.heard.is_some_and(|at| now - at <= SILENT_AFTER_MS);
        if heard {
            heard_before.insert(agent.id.clone());
        }
        let row = rows.iter().find(|r| r.host == agent.id);
        let seen = Seen {
            heard,
            // Right after its own start nobody has been heard.
            silence_counts: heard_before.contains(&agent.id) || now - began > GRACE_MS,
            now,
        };
        if row.is_some_and(|r| next(r, agent, &seen, &settings) == *r) {
            continue;
        }
        let mut tx = app.store.begin_write().await?;
        let row = lyceum_store::power::get_tx(&mut tx, &agent.id)
            .await?
            .unwrap_or_else(|| Power::new(agent.id.clone(), 0));
        let new = next(&row, agent, &seen, &settings);
        lyceum_store::power::put(&mut tx, &new).await?;
        tx.commit().await?;
        if new.state != row.state {
            tracing::info!(host = %agent.id, "power: {:?} → {:?} {}", row.state, new.state, new.failure);
        }
    }
    begin_wanted(app).await?;
    tell(app).await
}

struct Seen {
    heard: bool,
    silence_counts: bool,
    now: UnixMillis,
}

/// The row after what is seen now: pure.
fn next(row: &Power, agent: &Agent, seen: &Seen, settings: &Allocation) -> Power {
    let mut new = row.clone();
    let now = seen.now;
    // A clock that was set back must not make it wait for ever.
    let passed = |since: UnixMillis| (now - since).max(0);
    match (seen.heard, row.heard_since) {
        (true, None) => {
            new.heard_since = Some(now);
            // It was away although it was on.
            if row.state == State::On && row.failed_at.is_some() {
                new.failure = "its agent was not heard for a while".into();
                new.failed_at = Some(now);
            }
        }
        (false, Some(_)) if seen.silence_counts => {
            new.heard_since = None;
            if row.state == State::On {
                // Noted, so that its return is told from its first coming.
                new.failed_at = Some(now);
                new.failure = "its agent is not heard".into();
            }
        }
        _ => {}
    }
    match row.state {
        State::On => {
            let long_ago = row
                .failed_at
                .is_some_and(|at| passed(at) > power::LEAVE_ALONE_MS);
            if long_ago && seen.heard && row.heard_since.is_some() {
                new.failure = String::new();
                new.failed_at = None;
            }
        }
        State::Waking if seen.heard && fresh(row, agent) => {
            new.become_(State::On, now);
            new.wanted = None;
            new.failure = String::new();
            new.failed_at = None;
        }
        State::Waking if passed(row.since) > i64::from(settings.wake_timeout_s) * 1000 => {
            let words = if row.failure.is_empty() {
                String::new()
            } else {
                format!(" ({})", row.failure)
            };
            new.become_(State::Off, now);
            new.wanted = None;
            new.plan = None;
            new.failure = format!(
                "it did not come up within {} s{words}; look at it, then switch it on by hand",
                settings.wake_timeout_s
            );
            new.failed_at = Some(now);
        }
        State::Off if seen.heard && fresh(row, agent) => {
            // Somebody pressed its button.
            new.become_(State::On, now);
            new.wanted = None;
            new.failure = String::new();
            new.failed_at = None;
        }
        State::GoingOff if row.told.is_some() && !seen.heard && seen.silence_counts => {
            new.become_(State::Off, now);
            new.wanted = None;
            new.failure = String::new();
            new.failed_at = None;
        }
        State::GoingOff if passed(row.since) > i64::from(settings.off_timeout_s) * 1000 => {
            let state = if seen.heard { State::On } else { State::Off };
            new.become_(state, now);
            new.wanted = None;
            if state == State::On {
                new.failure = format!(
                    "it was told to go off and is still there after {} s",
                    settings.off_timeout_s
                );
                new.failed_at = Some(now);
            }
        }
        State::Waking | State::Off | State::GoingOff => {}
    }
    new
}

/// Whether it was heard since the row came into its state: not its last words from before.
fn fresh(row: &Power, agent: &Agent) -> bool {
    agent.heard.is_some_and(|at| at > row.since)
}

/// Begins what is wanted: one of each group at a time.
async fn begin_wanted(app: &App) -> Result<(), AgentError> {
    let any = lyceum_store::power::all(&app.store).await?;
    if any.iter().all(|r| r.wanted.is_none()) {
        return Ok(());
    }
    let mut tx = app.store.begin_write().await?;
    let now = app.now();
    let mut rows = lyceum_store::power::all_tx(&mut tx).await?;
    for i in 0..rows.len() {
        let (state, wanted) = (rows[i].state, rows[i].wanted);
        match (state, wanted) {
            (State::Off, Some(Wanted::On)) if !group_is_busy(&rows, i) => {
                rows[i].become_(State::Waking, now);
                rows[i].failure = String::new();
            }
            (State::On, Some(Wanted::Off)) if !group_is_busy(&rows, i) => {
                match why_not_off(app, &mut tx, &rows[i]).await? {
                    None => rows[i].become_(State::GoingOff, now),
                    Some(why) => {
                        rows[i].wanted = None;
                        rows[i].plan = None;
                        rows[i].failure = format!("it was not switched off: {why}");
                        rows[i].failed_at = None;
                    }
                }
            }
            // It is so already.
            (State::On | State::Waking, Some(Wanted::On))
            | (State::Off | State::GoingOff, Some(Wanted::Off))
                if state != State::Waking && state != State::GoingOff =>
            {
                rows[i].wanted = None;
            }
            _ => continue,
        }
        lyceum_store::power::put(&mut tx, &rows[i]).await?;
        tracing::info!(host = %rows[i].host, "power: {:?} {}", rows[i].state, rows[i].failure);
    }
    Ok(tx.commit().await?)
}

fn group_is_busy(rows: &[Power], i: usize) -> bool {
    let Some(group) = power::setup(&rows[i]).group else {
        return false;
    };
    rows.iter().enumerate().any(|(k, other)| {
        k != i
            && matches!(other.state, State::Waking | State::GoingOff)
            && power::setup(other).group.as_deref() == Some(&group)
    })
}

/// Why a host can't be switched off now. In the transaction that switches it: whoever chooses a host
/// afterwards sees that it goes.
pub async fn why_not_off(
    app: &App,
    tx: &mut Tx,
    row: &Power,
) -> lyceum_store::Result<Option<String>> {
    let agent = agents::get_tx(tx, &row.host).await?;
    let facts = agent
        .as_ref()
        .and_then(|a| a.facts.as_deref())
        .and_then(|t| serde_json::from_str(t).ok());
    if let Some(why) = power::not_switchable(app, &power::setup(row), facts.as_ref()) {
        return Ok(Some(why));
    }
    let heard = agent.and_then(|a| a.heard);
    if heard.is_none_or(|at| app.now() - at > SILENT_AFTER_MS) {
        return Ok(Some("its agent is not heard".into()));
    }
    let (mut on_it, mut coming) = (0, 0);
    for d in desktops::all_tx(tx).await? {
        // One that failed and is tried again may be started there.
        let there = d.phase.may_hold_disk() || (d.desired == Desired::Running && !d.gave_up);
        if there && d.host.as_ref() == Some(&row.host) {
            on_it += 1;
        }
        if d.moving_to.as_ref() == Some(&row.host) {
            coming += 1;
        }
    }
    // A move that waits for its turn has not said so in the desktop's row yet.
    coming += lyceum_store::moves::active_tx(tx)
        .await?
        .iter()
        .filter(|m| m.to == row.host)
        .count();
    Ok(match (on_it, coming) {
        (0, 0) => None,
        (0, n) => Some(format!("{n} desktops are on their way to it")),
        (n, _) => Some(format!("{n} desktops are on it")),
    })
}

/// Tells boards and agents.
async fn tell(app: &App) -> Result<(), AgentError> {
    for row in lyceum_store::power::all(&app.store).await? {
        let now = app.now();
        let due = match row.state {
            State::Waking => row
                .told
                .is_none_or(|at| !(0..AGAIN_MS).contains(&(now - at))),
            State::GoingOff => row.told.is_none(),
            State::On | State::Off => false,
        };
        if !due {
            continue;
        }
        let answer = match row.state {
            State::Waking => match power::setup(&row).method {
                Some(method) => wake::wake(app, &row.host, &method).await,
                None => Err("nothing is set up that could bring it up".into()),
            },
            _ => off(app, &row.host).await,
        };
        let mut tx = app.store.begin_write().await?;
        let Some(mut new) = lyceum_store::power::get_tx(&mut tx, &row.host).await? else {
            continue;
        };
        if new.state != row.state || new.since != row.since {
            continue;
        }
        new.told = Some(app.now());
        new.tries += 1;
        match (&answer, row.state) {
            (Ok(()), _) => new.failure = String::new(),
            // Told again until its time is over; the last words are kept.
            (Err(why), State::Waking) => new.failure = why.clone(),
            (Err(why), _) => {
                new.become_(State::On, app.now());
                new.wanted = None;
                new.plan = None;
                new.failure = why.clone();
                new.failed_at = None;
            }
        }
        if let Err(why) = &answer {
            tracing::warn!(host = %row.host, "power: {why}");
        }
        lyceum_store::power::put(&mut tx, &new).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn off(app: &App, host: &HostId) -> Result<(), String> {
    let answer: Result<IgnoredAny, AgentError> = async {
        Ok(app
            .agents
            .host(host)
            .await?
            .timeout(Duration::from_secs(75))
            .post("/v1/power-off", &serde_json::json!({}))
            .await?)
    }
    .await;
    match answer {
        Ok(_) => Ok(()),
        // It may have gone while it answered.
        Err(e) if e.is_silence() => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

/// Orders hosts on or off; a host that is so already, or on its way, is left alone.
pub async fn want(
    tx: &mut Tx,
    host: &HostId,
    wanted: Wanted,
    plan: Option<&lyceum_model::PlanId>,
) -> lyceum_store::Result<()> {
    let mut row = lyceum_store::power::get_tx(tx, host)
        .await?
        .unwrap_or_else(|| Power::new(host.clone(), 0));
    row.wanted = Some(wanted);
    row.plan = plan.cloned();
    lyceum_store::power::put(tx, &row).await?;
    tx.touch("plan", "power");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agent(heard: Option<i64>) -> Agent {
        Agent {
            id: "kvm1".parse().unwrap(),
            kind: "host".into(),
            url: String::new(),
            state: "active".into(),
            joined: 0,
            heard,
            facts: None,
        }
    }

    fn row(state: State, since: i64) -> Power {
        Power {
            state,
            ..Power::new("kvm1".parse().unwrap(), since)
        }
    }

    fn see(row: &Power, heard: Option<i64>, now: i64) -> Power {
        let seen = Seen {
            heard: heard.is_some_and(|at| now - at <= SILENT_AFTER_MS),
            silence_counts: true,
            now,
        };
        next(row, &agent(heard), &seen, &Allocation::default())
    }

    #[test]
    fn a_host_that_comes_up_is_on_and_one_that_does_not_is_reported() {
        let mut waking = row(State::Waking, 100_000);
        waking.wanted = Some(Wanted::On);
        // Its last words before it went off don't count.
        assert_eq!(see(&waking, Some(99_000), 101_000).state, State::Waking);
        let up = see(&waking, Some(150_000), 151_000);
        assert_eq!((up.state, up.wanted, up.since), (State::On, None, 151_000));
        let late = see(&waking, None, 100_000 + 300_001);
        assert_eq!((late.state, late.wanted), (State::Off, None));
        assert!(late.failure.contains("did not come up"), "{late:?}");
        assert_eq!(late.failed_at, Some(400_001));
    }

    #[test]
    fn a_host_is_off_when_it_was_told_and_is_silent() {
        let mut going = row(State::GoingOff, 100_000);
        assert_eq!(
            see(&going, None, 120_000).state,
            State::GoingOff,
            "not told yet"
        );
        going.told = Some(100_500);
        assert_eq!(see(&going, Some(101_000), 110_000).state, State::GoingOff);
        assert_eq!(see(&going, Some(101_000), 117_000).state, State::Off);
        let stays = see(&going, Some(280_000), 281_000);
        assert_eq!(stays.state, State::On);
        assert!(stays.failure.contains("still there"));
        // Somebody presses its button.
        let off = row(State::Off, 117_000);
        assert_eq!(see(&off, Some(101_000), 118_000).state, State::Off);
        assert_eq!(see(&off, Some(200_000), 201_000).state, State::On);
    }

    #[test]
    fn a_host_that_flaps_is_noted_and_one_that_joins_is_not() {
        let new = row(State::On, 0);
        let heard = see(&new, Some(1_000), 1_500);
        assert_eq!((heard.heard_since, heard.failed_at), (Some(1_500), None));
        let gone = see(&heard, Some(1_000), 30_000);
        assert_eq!(gone.heard_since, None);
        let back = see(&gone, Some(40_000), 40_500);
        assert_eq!(back.failed_at, Some(40_500));
        assert_eq!(back.state, State::On, "nobody switches it for that");
    }

    proptest! {
        /// Whatever is seen in whatever order, nothing but an order switches a host: a host that is on is
        /// never said to be off, and looking twice at the same changes nothing.
        #[test]
        fn only_orders_switch(
            state in 0..4u8, since in 0..1_000_000i64, told in proptest::option::of(0..1_000_000i64),
            heard in proptest::option::of(0..2_000_000i64), now in 0..2_000_000i64,
        ) {
            let state = [State::On, State::Waking, State::Off, State::GoingOff][usize::from(state)];
            let mut before = row(state, since);
            before.told = told;
            let after = see(&before, heard, now);
            if state == State::On {
                prop_assert_eq!(after.state, State::On);
            }
            if state == State::Off {
                prop_assert!(matches!(after.state, State::Off | State::On));
            }
            let again = see(&after, heard, now);
            if after.state == state {
                prop_assert_eq!(again, after);
            }
        }
    }
}
