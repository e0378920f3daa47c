//! Lessons begin and end their desktops.
//!
//! ```text
//!                begin - lead            begin                    end        end + grace
//!  ──────────────────┼─────────────────────┼───────────────────────┼──────────────┼──────
//!   hosts are wanted │ desktops start      │ all are usable        │ who is not   │ the
//!   (see `demand`)   │ (once per person)   │                       │ connected    │ others
//! ```
//!
//! What is ordered and the note that it was ordered are one transaction, so it happens once however
//! often the controller is killed. A controller that was down at the bell starts the desktops
//! of a lesson that is still on, and of no other.
//!
//! **A person's order wins.** Whoever stops a desktop has it stopped: it is not started a second time. At the
//! end it goes on when a person started this very desktop by hand, or ordered anything for it after the end.

use super::act::StepError;
use crate::app::App;
use crate::error::ApiFailure;
use crate::orders::{self, By, CourseFacts, Scope, Target, Want};
use crate::timetable::{LOGIN, School, clock, course_of, key};
use axum::http::StatusCode;
use lyceum_model::{CourseId, Desired, Persistence, Phase, UnixMillis, UserId};
use lyceum_store::desktops::{self, Desktop, Owner};
use lyceum_store::timetable::{self as rows, AtEnd, OccurrenceRow};
use lyceum_store::{Tx, operations};
use lyceum_timetable::{DAY, MINUTE, Occurrence};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Between two looks.
const ROUND: Duration = Duration::from_secs(2);
/// What was done is kept this long, days.
const KEPT_DAYS: i64 = 400;

/// Runs for ever.
pub async fn run(app: App) {
    let mut forgot = 0;
    loop {
        tokio::time::sleep(ROUND).await;
        let now = app.now();
        if let Err(e) = round(&app, now).await {
            tracing::warn!("the timetable: {e}");
        }
        if now - forgot > DAY {
            forgot = now;
            if let Err(e) = forget(&app, now).await {
                tracing::warn!("the timetable: {e}");
            }
        }
    }
}

async fn forget(app: &App, now: UnixMillis) -> Result<(), StepError> {
    let mut tx = app.store.begin_write().await?;
    rows::forget_occurrences(&mut tx, now - KEPT_DAYS * DAY).await?;
    tx.commit().await?;
    Ok(())
}

/// One look: begins what is due, ends what is over.
pub async fn round(app: &App, now: UnixMillis) -> Result<(), StepError> {
    let school = School::load(&app.store).await?;
    if !school.rules.acts {
        return Ok(());
    }
    let coming = school
        .table
        .between(now, now.saturating_add(school.longest_lead() + 1));
    let leads = school.leads(&app.store, &coming).await?;
    let lead = |o: &Occurrence| leads.get(&o.course).copied().unwrap_or(0);
    let due: Vec<&Occurrence> = coming
        .iter()
        .filter(|o| o.begin - lead(o) <= now)
        .filter(|o| course_of(o).is_some_and(|c| school.course(&c).starts))
        .collect();
    for o in &due {
        if let Err(e) = prepare(app, o, lead(o), now).await {
            tracing::warn!(course = %o.course, "a lesson's desktops could not be started: {e}");
        }
    }
    for row in rows::open_occurrences(&app.store).await? {
        if let Err(e) = finish(app, &school, &due, &row, now).await {
            tracing::warn!(course = %row.course, "a lesson's desktops could not be ended: {e}");
        }
    }
    Ok(())
}

/// Starts the desktops of those for whom that was not done yet.
async fn prepare(app: &App, o: &Occurrence, lead: i64, now: UnixMillis) -> Result<(), StepError> {
    let Some(course) = course_of(o) else {
        return Ok(());
    };
    let students = desktops::roster(&app.store, &course, "student").await?;
    // Most looks find that all of it is done.
    let known = rows::occurrences(&app.store, o.begin, o.begin + 1)
        .await?
        .into_iter()
        .find(|row| row.id == key(o));
    if let Some(row) = known {
        let done = rows::occurrence_people(&app.store, &row.id).await?;
        let all = students.iter().all(|(user, _, _)| done.contains(user));
        if row.ended.is_some() || (all && row.note.is_empty()) {
            return Ok(());
        }
    }
    let Some(facts) = orders::course_facts(&app.store, &course).await? else {
        return Ok(());
    };
    let settings = app.settings().await?;
    // All at once, or as many as there is room for when it is getting late.
    let late = now >= o.begin - lead / 2;
    let mut most = students.len();
    loop {
        let mut tx = app.store.begin_write().await?;
        let mut row = begun(&mut tx, o, &course, now).await?;
        if row.ended.is_some() {
            return Ok(());
        }
        let done: HashSet<UserId> = rows::occurrence_people_tx(&mut tx, &row.id)
            .await?
            .into_iter()
            .collect();
        let missing: Vec<_> = students
            .iter()
            .filter(|(user, _, _)| !done.contains(user))
            .take(most)
            .cloned()
            .collect();
        let left = students.len() - done.len().min(students.len());
        let before = row.clone();
        let started = start(&mut tx, &settings, &facts, &mut row, &missing, now).await;
        match started {
            Ok(()) => {
                if left <= missing.len() {
                    row.note.clear();
                }
                // Nothing to say is not said every two seconds.
                if !missing.is_empty() || row != before || row.prepared == Some(now) {
                    rows::put_occurrence(&mut tx, &row).await?;
                    tx.commit().await?;
                }
                return Ok(());
            }
            Err(e) => {
                drop(tx);
                if e.status == StatusCode::INSUFFICIENT_STORAGE && late && missing.len() > 1 {
                    most = missing.len() / 2;
                    continue;
                }
                return note(app, o, &course, &e.message, now).await;
            }
        }
    }
}

/// The row of an occurrence, new when it has none.
async fn begun(
    tx: &mut Tx,
    o: &Occurrence,
    course: &CourseId,
    now: UnixMillis,
) -> Result<OccurrenceRow, StepError> {
    let id = key(o);
    if let Some(row) = rows::occurrence_tx(tx, &id).await? {
        return Ok(row);
    }
    let lesson = o
        .lesson
        .parse()
        .map_err(|e| StepError::Order(format!("{e}")))?;
    Ok(OccurrenceRow {
        id,
        lesson,
        course: course.clone(),
        begins: o.begin,
        ends: o.end,
        prepared: Some(now),
        ended: None,
        start_operation: None,
        end_operation: None,
        note: String::new(),
    })
}

/// Why it waits, for the page.
async fn note(
    app: &App,
    o: &Occurrence,
    course: &CourseId,
    why: &str,
    now: UnixMillis,
) -> Result<(), StepError> {
    let mut tx = app.store.begin_write().await?;
    let mut row = begun(&mut tx, o, course, now).await?;
    if row.note != why {
        row.note = why.to_owned();
        tracing::warn!(%course, "a lesson's desktops wait: {why}");
        rows::put_occurrence(&mut tx, &row).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Orders the desktops of these people, and notes it.
async fn start(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    facts: &CourseFacts,
    row: &mut OccurrenceRow,
    people: &[(UserId, String, String)],
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    if people.is_empty() {
        return Ok(());
    }
    // The people's rows point to it.
    rows::put_occurrence(tx, row).await?;
    let mut down = Vec::new();
    for target in orders::ensure(tx, facts, people, now).await? {
        let d = &target.desktop;
        let up = d.desired == Desired::Running
            && d.host.is_some()
            && !d.gave_up
            && d.phase != Phase::Failed;
        // Somebody ended it while the class waited for room.
        let theirs =
            row.prepared.is_some_and(|at| d.ordered_at > at) && by_person(tx, d).await?.is_some();
        if !up && !theirs {
            down.push(target);
        }
    }
    if !down.is_empty() {
        let scope = Scope {
            target: format!("course/{}", facts.id),
            target_name: facts.name.clone(),
            course: Some(facts.id.clone()),
        };
        let all = HashMap::from([(facts.id.clone(), facts.clone())]);
        let want = Want::Start { cold: false };
        let operation = orders::give(tx, settings, &by(), scope, want, down, &all, now).await?;
        row.start_operation.get_or_insert(operation);
    }
    for (user, _, _) in people {
        rows::put_occurrence_person(tx, &row.id, user, now).await?;
    }
    Ok(())
}

fn by() -> By {
    By {
        login: LOGIN.into(),
    }
}

/// The kind of the newest order about a desktop, when a person gave it.
async fn by_person(tx: &mut Tx, d: &Desktop) -> Result<Option<String>, ApiFailure> {
    let Some(order) = &d.order else {
        return Ok(None);
    };
    Ok(operations::get_tx(tx, order)
        .await?
        .filter(|o| o.requested_by != LOGIN && o.requested_by != "system")
        .map(|o| o.kind))
}

/// What is to be done with a desktop at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is ended now.
    End,
    /// Its person is given time.
    Wait,
    /// It is left alone.
    Leave,
}

/// Decides. `order`: the kind of the newest order, when a person gave it.
fn fate(
    d: &Desktop,
    at_end: AtEnd,
    order: Option<&str>,
    ends: UnixMillis,
    connected: bool,
    grace: bool,
) -> Fate {
    let busy = match at_end {
        AtEnd::Keep => false,
        AtEnd::Suspend | AtEnd::Stop => d.desired == Desired::Running && !d.gave_up,
        // What was saved for want of memory is not kept either.
        AtEnd::Reset => matches!(d.desired, Desired::Running | Desired::Suspended),
    };
    let theirs = match order {
        None => false,
        Some("desktop.start") => true,
        Some(kind) => {
            d.ordered_at >= ends || (d.desired == Desired::Suspended && kind.ends_with("suspend"))
        }
    };
    if !busy || theirs {
        Fate::Leave
    } else if connected && grace {
        Fate::Wait
    } else {
        Fate::End
    }
}

/// Ends the desktops of a lesson that is over.
async fn finish(
    app: &App,
    school: &School,
    due: &[&Occurrence],
    row: &OccurrenceRow,
    now: UnixMillis,
) -> Result<(), StepError> {
    // A lesson that was changed while it is on ends when it says now.
    let around = school.table.between(row.begins, row.begins + 1);
    let ends = around
        .iter()
        .find(|o| key(o) == row.id)
        .map_or(row.ends, |o| o.end);
    if now < ends {
        return Ok(());
    }
    let rules = school.course(&row.course);
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    let Some(mut row) = rows::occurrence_tx(&mut tx, &row.id).await? else {
        return Ok(());
    };
    if row.ended.is_some() {
        return Ok(());
    }
    row.ends = ends;
    let next = due
        .iter()
        .find(|o| course_of(o).as_ref() == Some(&row.course) && key(o) != row.id);
    if let Some(next) = next {
        row.ended = Some(now);
        row.note = format!(
            "its desktops go on for the lesson at {}",
            clock(&school.table, next.begin)
        );
        rows::put_occurrence(&mut tx, &row).await?;
        tx.commit().await?;
        return Ok(());
    }
    let grace = now < ends + i64::from(rules.grace_minutes) * MINUTE;
    let people: HashSet<UserId> = rows::occurrence_people_tx(&mut tx, &row.id)
        .await?
        .into_iter()
        .collect();
    let (mut end, mut waiting) = (Vec::new(), 0);
    for d in desktops::all_tx(&mut tx).await? {
        let mine = matches!(&d.owner, Owner::Course { course, user } if *course == row.course && people.contains(user));
        if !mine {
            continue;
        }
        let order = by_person(&mut tx, &d).await?;
        let connected = app.viewers.count(&d.id) > 0;
        match fate(&d, rules.at_end, order.as_deref(), ends, connected, grace) {
            Fate::End => end.push(d),
            Fate::Wait => waiting += 1,
            Fate::Leave => {}
        }
    }
    if waiting > 0 && end.is_empty() {
        return Ok(());
    }
    if !end.is_empty() {
        let operation = end_order(&mut tx, &settings, &row.course, rules.at_end, end, now).await?;
        row.end_operation = Some(operation);
    }
    if waiting == 0 {
        row.ended = Some(now);
    }
    rows::put_occurrence(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(())
}

async fn end_order(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    course: &CourseId,
    at_end: AtEnd,
    desktops: Vec<Desktop>,
    now: UnixMillis,
) -> Result<lyceum_model::OperationId, StepError> {
    let name = lyceum_store::courses::get_tx(tx, course)
        .await?
        .map(|c| c.name)
        .unwrap_or_default();
    let names: HashMap<UserId, String> = lyceum_store::courses::members_tx(tx, course)
        .await?
        .into_iter()
        .map(|m| (m.user, m.name))
        .collect();
    let targets = desktops
        .into_iter()
        .map(|mut desktop| {
            if at_end == AtEnd::Reset {
                // Stopped like one that is thrown away; the next start takes over the course's own rule again.
                desktop.persistence = Persistence::Throwaway;
            }
            let name = match &desktop.owner {
                Owner::Course { user, .. } => names.get(user).cloned(),
                Owner::Draft { .. } => None,
            };
            Target {
                name: name.unwrap_or_else(|| desktop.hostname.to_string()),
                desktop,
            }
        })
        .collect();
    let want = match at_end {
        AtEnd::Suspend | AtEnd::Keep => Want::Suspend,
        AtEnd::Reset | AtEnd::Stop => Want::Stop,
    };
    let scope = Scope {
        target: format!("course/{course}"),
        target_name: name,
        course: Some(course.clone()),
    };
    let none = HashMap::new();
    Ok(orders::give(tx, settings, &by(), scope, want, targets, &none, now).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::step::tests_support::desktop;

    #[test]
    fn a_persons_order_wins_and_who_is_connected_has_time() {
        let ends = 1000;
        let d = |desired, ordered_at| Desktop {
            desired,
            ordered_at,
            ..desktop()
        };
        let running = d(Desired::Running, 500);
        let fate_of =
            |d: &Desktop, at_end, order: Option<&str>| fate(d, at_end, order, ends, false, true);
        for at_end in [AtEnd::Suspend, AtEnd::Stop, AtEnd::Reset] {
            assert_eq!(fate_of(&running, at_end, None), Fate::End);
            // A class that is handed something, or reset, during its lesson is still a class.
            for kind in ["course.hand-out", "course.start", "desktop.reset"] {
                assert_eq!(fate_of(&running, at_end, Some(kind)), Fate::End, "{kind}");
            }
            assert_eq!(
                fate_of(&running, at_end, Some("desktop.start")),
                Fate::Leave
            );
            let later = d(Desired::Running, 1000);
            assert_eq!(fate_of(&later, at_end, Some("course.start")), Fate::Leave);
            assert_eq!(fate(&running, at_end, None, ends, true, true), Fate::Wait);
            assert_eq!(fate(&running, at_end, None, ends, true, false), Fate::End);
            assert_eq!(
                fate_of(&d(Desired::Stopped, 500), at_end, None),
                Fate::Leave
            );
        }
        assert_eq!(fate_of(&running, AtEnd::Keep, None), Fate::Leave);
        let saved = d(Desired::Suspended, 500);
        assert_eq!(fate_of(&saved, AtEnd::Suspend, None), Fate::Leave);
        assert_eq!(fate_of(&saved, AtEnd::Stop, None), Fate::Leave);
        assert_eq!(fate_of(&saved, AtEnd::Reset, None), Fate::End);
        assert_eq!(
            fate_of(&saved, AtEnd::Reset, Some("desktop.suspend")),
            Fate::Leave
        );
    }
}
