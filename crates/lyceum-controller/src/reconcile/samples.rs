//! Once a minute what hosts said is averaged and written; every ten minutes the minutes before are averaged
//! again, and what is old goes. Energy is added up from the hosts' watts along with it.
//!
//! All times are the controller's own. A host that says nothing new leaves no sample, so whoever decides on
//! samples sees that there is none.

use crate::app::App;
use crate::power;
use lyceum_api::allocation::Allocation;
use lyceum_model::{DesktopId, UnixMillis};
use lyceum_store::energy::Energy;
use lyceum_store::power::State;
use lyceum_store::samples::{MINUTE, Sample};
use lyceum_store::{Store, desktops, energy, samples};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const TEN: i64 = 10 * MINUTE;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// A longer pause was no minute of this program: nothing is estimated of it.
const LONGEST: Duration = Duration::from_secs(150);

/// Runs for ever.
pub async fn run(app: App) {
    let mut last = Instant::now();
    let mut forgotten = 0;
    // What was gathered before is of no whole minute.
    let _ = app.live.take_minute();
    loop {
        let now = app.now();
        let wait = MINUTE - now.rem_euclid(MINUTE);
        tokio::time::sleep(Duration::from_millis(wait as u64)).await;
        let passed = last.elapsed();
        last = Instant::now();
        // The minute that has just ended.
        let now = app.now();
        let at = (now - MINUTE / 2).div_euclid(MINUTE) * MINUTE;
        if let Err(e) = minute(&app, at, passed).await {
            tracing::warn!("what was measured could not be written: {e}");
        }
        if let Err(e) = tens(&app.store, now).await {
            tracing::warn!("measurements could not be averaged: {e}");
        }
        if now - forgotten > HOUR {
            match forget(&app, now).await {
                Ok(()) => forgotten = now,
                Err(e) => tracing::warn!("old measurements could not be removed: {e}"),
            }
        }
    }
}

async fn minute(app: &App, at: UnixMillis, passed: Duration) -> lyceum_store::Result<()> {
    let vcpus: HashMap<DesktopId, f64> = desktops::all(&app.store)
        .await?
        .into_iter()
        .map(|d| (d.id, f64::from(d.size.vcpus.max(1))))
        .collect();
    let mut all = Vec::new();
    for (host, minute) in app.live.take_minute() {
        let sample = |subject: String, values, count: u32| Sample {
            subject,
            span: 1,
            at,
            host: host.clone(),
            values,
            count: i64::from(count),
        };
        if let Some((values, count)) = minute.host {
            all.push(sample(format!("host/{host}"), values, count));
        }
        for (id, mut values, count) in minute.desktops {
            // Of one processor to of its own.
            values.cpu /= vcpus.get(&id).copied().unwrap_or(1.0);
            all.push(sample(format!("desktop/{id}"), values, count));
        }
    }
    let rows = lyceum_store::power::all(&app.store).await?;
    let mut tx = app.store.begin_write().await?;
    for sample in &all {
        samples::put(&mut tx, sample).await?;
    }
    if passed <= LONGEST {
        for row in &rows {
            let setup = power::setup(row);
            let is_on = row.state != State::Off;
            // Measured, where it is; else as it was set.
            let measured = app.watts.now(&row.host, app.now()).filter(|_| is_on);
            let Some(on) = measured.or(setup.watts) else {
                continue;
            };
            let watts = if is_on {
                on
            } else {
                setup.watts_off.unwrap_or(0.0)
            };
            let e = Energy {
                day: at.div_euclid(DAY) * DAY,
                host: row.host.clone(),
                drawn_ws: watts * passed.as_secs_f64(),
                always_ws: on * passed.as_secs_f64(),
                on_ms: if is_on { passed.as_millis() as i64 } else { 0 },
            };
            energy::add(&mut tx, &e).await?;
        }
    }
    tx.commit().await
}

/// Averages over ten minutes that are whole and not made yet.
pub(crate) async fn tens(store: &Store, now: UnixMillis) -> lyceum_store::Result<()> {
    let end = now.div_euclid(TEN) * TEN;
    let first = match samples::newest_ten(store).await? {
        Some(at) => at + TEN,
        None => end - DAY,
    };
    // After a long pause there are no minutes that are older.
    let mut at = first.max(end - 7 * DAY);
    let mut whole = Vec::new();
    while at < end {
        whole.push(at);
        at += TEN;
    }
    for at in whole {
        let mut tx = store.begin_write().await?;
        samples::thin(&mut tx, at).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn forget(app: &App, now: UnixMillis) -> lyceum_store::Result<()> {
    let keep = settings(&app.store).await?;
    let mut tx = app.store.begin_write().await?;
    samples::forget(
        &mut tx,
        now - i64::from(keep.keep_minutes_h) * HOUR,
        now - i64::from(keep.keep_tens_days) * DAY,
    )
    .await?;
    tx.commit().await
}

/// How hosts are allocated, out of the settings. What a newer version wrote there is passed over.
pub async fn settings(store: &Store) -> lyceum_store::Result<Allocation> {
    let all = lyceum_store::settings::all(store).await?;
    Ok(all
        .get("allocation")
        .and_then(|v| serde_json::from_value(v.clone()).ok())
        .unwrap_or_default())
}
