//! The store itself: opening, transactions under load, what it announces.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, on_both};
use lyceum_store::{Store, StoreError, agents};

on_both!(
    opens_twice_and_keeps_rows,
    read_then_write_transactions_under_load_all_succeed,
    a_transaction_that_is_dropped_changes_and_announces_nothing,
    two_programs_may_open_an_empty_store_at_once,
    a_store_of_a_newer_program_is_refused,
);

async fn opens_twice_and_keeps_rows(place: &Place) {
    let store = place.open().await;
    let id = "kvm1".parse().unwrap();
    let mut tx = store.begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "https://127.0.0.1:1", 5)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(agents::list(&store, "host").await.unwrap().len(), 1);
    assert!(agents::list(&store, "storage").await.unwrap().is_empty());
}

async fn read_then_write_transactions_under_load_all_succeed(place: &Place) {
    // Two programs on the same store, each with many writers.
    let stores = [place.open().await, place.open().await];
    let id: lyceum_model::HostId = "kvm1".parse().unwrap();
    let mut tx = stores[0].begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "u", 0).await.unwrap();
    tx.commit().await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (store, id) = (stores[n % 2].clone(), id.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                let mut tx = store.begin_write().await.unwrap();
                let have = agents::list_tx(&mut tx, "host")
                    .await
                    .unwrap()
                    .remove(0)
                    .heard
                    .unwrap_or(0);
                agents::heard(&mut tx, &id, "{}", have + 1).await.unwrap();
                tx.commit().await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        agents::get(&stores[0], &id).await.unwrap().unwrap().heard,
        Some(200)
    );
}

async fn a_transaction_that_is_dropped_changes_and_announces_nothing(place: &Place) {
    let store = place.open().await;
    let mut changes = store.changes();
    let id: lyceum_model::HostId = "kvm1".parse().unwrap();
    let mut tx = store.begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "u", 0).await.unwrap();
    drop(tx);
    assert!(agents::get(&store, &id).await.unwrap().is_none());
    assert!(changes.try_recv().is_err());
    let mut tx = store.begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "u", 0).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(changes.try_recv().unwrap().id, "kvm1");
}

async fn two_programs_may_open_an_empty_store_at_once(place: &Place) {
    let (a, b) = tokio::join!(place.open(), place.open());
    assert!(agents::list(&a, "host").await.unwrap().is_empty());
    assert!(agents::list(&b, "host").await.unwrap().is_empty());
}

async fn a_store_of_a_newer_program_is_refused(place: &Place) {
    let store = place.open().await;
    let mut tx = store.begin_write().await.unwrap();
    sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
        .bind(9999i64)
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    drop(store);
    let refused = Store::open(place.url()).await.err().unwrap();
    assert!(
        matches!(refused, StoreError::Unreadable { .. }),
        "{refused}"
    );
}
