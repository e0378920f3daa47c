//! The store on SQLite; on PostgreSQL too when `LYCEUM_TEST_POSTGRES` names a database.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lyceum_store::{Store, agents};

async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite:{}", dir.path().join("db").display()))
        .await
        .unwrap();
    (dir, store)
}

#[tokio::test]
async fn opens_twice_and_keeps_rows() {
    let (dir, store) = store().await;
    let id = "kvm1".parse().unwrap();
    let mut tx = store.begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "https://127.0.0.1:1", 5)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    drop(store);
    let store = Store::open(&format!("sqlite:{}", dir.path().join("db").display()))
        .await
        .unwrap();
    assert_eq!(agents::list(&store, "host").await.unwrap().len(), 1);
    assert!(agents::list(&store, "storage").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_then_write_transactions_under_load_all_succeed() {
    let (_dir, store) = store().await;
    let id: lyceum_model::HostId = "kvm1".parse().unwrap();
    let mut tx = store.begin_write().await.unwrap();
    agents::join(&mut tx, &id, "host", "u", 0).await.unwrap();
    tx.commit().await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (store, id) = (store.clone(), id.clone());
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
        agents::get(&store, &id).await.unwrap().unwrap().heard,
        Some(200)
    );
}
