//! Measurements, plans, power and energy are written, read back and changed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, on_both};
use lyceum_model::{HostId, OperationId, PlanId};
use lyceum_store::energy::Energy;
use lyceum_store::plans::{self, Deed, Plan, Progress, Step};
use lyceum_store::power::{self, Power, Wanted};
use lyceum_store::samples::{self, MINUTE, Sample, Values};
use lyceum_store::{Store, energy};

on_both!(
    minutes_become_tens_and_go,
    power_comes_back_as_written,
    energy_adds_up_by_day,
    plans_come_back_and_the_one_that_runs_stays,
    pages_of_moves_lose_none_that_came_together,
);

fn host() -> HostId {
    "kvm1".parse().unwrap()
}

fn minute(subject: &str, at: i64, cpu: f64, written: Option<i64>) -> Sample {
    Sample {
        subject: subject.into(),
        span: 1,
        at,
        host: host(),
        values: Values {
            cpu,
            memory_kib: 1000,
            written_rate: written,
            desktops: 2,
            ..Values::default()
        },
        count: 20,
    }
}

async fn write(store: &Store, samples: &[Sample]) {
    let mut tx = store.begin_write().await.unwrap();
    for s in samples {
        samples::put(&mut tx, s).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn minutes_become_tens_and_go(place: &Place) {
    let store = place.open().await;
    let all: Vec<Sample> = (0..12)
        .flat_map(|m| {
            let written = (m % 2 == 0).then_some(100);
            [
                minute("host/kvm1", m * MINUTE, m as f64, written),
                minute("desktop/d1", m * MINUTE, 50.0, None),
            ]
        })
        .collect();
    write(&store, &all).await;
    // The same minute again is passed over.
    write(&store, &[minute("host/kvm1", 0, 99.0, None)]).await;
    let seen = samples::of(&store, "host/kvm1", 1, 2 * MINUTE)
        .await
        .unwrap();
    assert_eq!(seen.len(), 10);
    assert_eq!(seen[0], all[4]);
    assert_eq!(samples::newest_ten(&store).await.unwrap(), None);
    for _ in 0..2 {
        let mut tx = store.begin_write().await.unwrap();
        samples::thin(&mut tx, 0).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(samples::newest_ten(&store).await.unwrap(), Some(0));
    let tens = samples::since(&store, 10, 0).await.unwrap();
    assert_eq!(tens.len(), 2);
    let of_host = &tens[1];
    assert_eq!(
        (of_host.subject.as_str(), of_host.count),
        ("host/kvm1", 200)
    );
    assert!((of_host.values.cpu - 4.5).abs() < 1e-9, "{of_host:?}");
    // What was not measured is no nought.
    assert_eq!(of_host.values.written_rate, Some(100));
    assert_eq!(tens[0].values.written_rate, None);
    let mut tx = store.begin_write().await.unwrap();
    samples::forget(&mut tx, 11 * MINUTE, 0).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(samples::since(&store, 1, 0).await.unwrap().len(), 2);
    assert_eq!(samples::since(&store, 10, 0).await.unwrap().len(), 2);
}

async fn power_comes_back_as_written(place: &Place) {
    let store = place.open().await;
    let mut row = Power::new(host(), 5);
    for change in 0..2 {
        if change == 1 {
            row.become_(power::State::Waking, 9);
            row.wanted = Some(Wanted::On);
            row.plan = Some(PlanId::new());
            row.told = Some(10);
            row.tries = 3;
            row.failure = "no answer".into();
            row.failed_at = Some(4);
            row.heard_since = Some(2);
            row.setup = "{\"watts\":1}".into();
        }
        let mut tx = store.begin_write().await.unwrap();
        power::put(&mut tx, &row).await.unwrap();
        assert_eq!(
            power::get_tx(&mut tx, &host()).await.unwrap(),
            Some(row.clone())
        );
        tx.commit().await.unwrap();
        assert_eq!(power::all(&store).await.unwrap(), [row.clone()]);
    }
}

async fn energy_adds_up_by_day(place: &Place) {
    let store = place.open().await;
    for _ in 0..2 {
        let mut tx = store.begin_write().await.unwrap();
        for day in [0, 86_400_000] {
            let e = Energy {
                day,
                host: host(),
                drawn_ws: 1.5,
                always_ws: 4.0,
                on_ms: 7,
            };
            energy::add(&mut tx, &e).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    let seen = energy::since(&store, 86_400_000).await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].drawn_ws, seen[0].always_ws, seen[0].on_ms),
        (3.0, 8.0, 14)
    );
}

fn plan(at: i64, state: plans::State) -> Plan {
    Plan {
        id: PlanId::new(),
        at,
        mode: "power-saving".into(),
        reason: "it is night".into(),
        ordered_by: None,
        state,
        message: String::new(),
        stop: false,
        policy: "{}".into(),
        snapshot: "{}".into(),
        plan: "{}".into(),
        steps: vec![
            Step {
                deed: Deed::Move {
                    desktop: "d1".into(),
                    from: host(),
                    to: "kvm2".parse().unwrap(),
                },
                reason: "kvm1 is emptied".into(),
                progress: Progress::Begun,
                message: String::new(),
                operation: Some(OperationId::new()),
            },
            Step {
                deed: Deed::Off { host: host() },
                reason: String::new(),
                progress: Progress::Waiting,
                message: String::new(),
                operation: None,
            },
        ],
        acted_at: Some(at),
        changed: at,
        ended: None,
    }
}

async fn plans_come_back_and_the_one_that_runs_stays(place: &Place) {
    let store = place.open().await;
    let running = plan(1, plans::State::Running);
    let mut tx = store.begin_write().await.unwrap();
    plans::put(&mut tx, &running).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        plans::running(&store).await.unwrap().as_ref(),
        Some(&running)
    );
    let mut over = plan(7, plans::State::Done);
    over.stop = true;
    over.ended = Some(8);
    over.ordered_by = Some("ada".into());
    let mut tx = store.begin_write().await.unwrap();
    plans::put(&mut tx, &over).await.unwrap();
    assert_eq!(plans::newest_tx(&mut tx).await.unwrap(), Some(over.clone()));
    tx.commit().await.unwrap();
    assert_eq!(plans::last_acted(&store).await.unwrap(), Some(7));
    assert_eq!(
        plans::get(&store, &over.id).await.unwrap(),
        Some(over.clone())
    );
    let newest = plans::list(&store, None, 10).await.unwrap();
    assert_eq!(newest, [over.clone(), running.clone()]);
    assert_eq!(
        plans::list(&store, Some(&over.id), 10).await.unwrap(),
        [running]
    );
}

async fn pages_of_moves_lose_none_that_came_together(place: &Place) {
    use lyceum_store::moves::{self, Move, Place as At, State};
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    for n in 0..25 {
        let m = Move {
            id: lyceum_model::MoveId::new(),
            desktop: format!("d{}", n % 2).parse().unwrap(),
            operation: OperationId::new(),
            from: host(),
            to: "kvm2".parse().unwrap(),
            state: State::Waiting,
            cancel: false,
            generation: lyceum_model::Generation(0),
            wanted_way: None,
            way: None,
            why: String::new(),
            reason: String::new(),
            message: String::new(),
            bytes: None,
            pages: None,
            stand_still_ms: None,
            total_ms: None,
            pss_before_kib: None,
            pss_after_kib: None,
            // A drain orders all of them at one time.
            created: 1000 + n / 20,
            began: None,
            ended: None,
        };
        moves::put(&mut tx, &m).await.unwrap();
    }
    tx.commit().await.unwrap();
    for (desktop, count) in [(None, 25), (Some("d1".parse().unwrap()), 12)] {
        let (mut at, mut seen) = (At::end(), Vec::new());
        loop {
            let page = moves::list(&store, &at, desktop.as_ref(), 7).await.unwrap();
            seen.extend(page.iter().map(|m| m.id.to_string()));
            match page.last() {
                Some(last) if page.len() == 7 => at = At::of(last),
                _ => break,
            }
        }
        assert_eq!(seen.len(), count);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "none twice");
    }
}
