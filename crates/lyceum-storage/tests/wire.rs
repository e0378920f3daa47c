//! The agent as the controller meets it: over mutual TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{config, image};
use futures::stream;
use lyceum_proto::storage::{ImportStatus, Inventory, StorageFacts};
use lyceum_wire::{ClassroomCa, Client, Peer, PeerKind};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn free_port() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn until_up(client: &Client) -> StorageFacts {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client.get("/v1/storage").await {
            Ok(facts) => return facts,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_is_served_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ca", "state"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let ca = ClassroomCa::open_or_create(&folder.path().join("ca")).unwrap();
    let me = Peer::new(PeerKind::Storage, "store-1".parse().unwrap());
    let local = ["127.0.0.1".to_owned()];
    let mut config = config(folder.path());
    config.listen = free_port();
    config.reserve_bytes = 1 << 20;
    let shutdown = CancellationToken::new();

    // Without an identity it does not start.
    let refused = lyceum_storage::run(config.clone(), shutdown.clone())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("join"), "{refused}");
    ca.issue(&me, &local)
        .unwrap()
        .save(&config.state_dir)
        .unwrap();
    let server = tokio::spawn(lyceum_storage::run(config.clone(), shutdown.clone()));

    let url = format!("https://{}", config.listen);
    let controller = ca.controller_identity(&local).unwrap();
    let client = Client::new(&controller, &url, &me).unwrap();
    let facts = until_up(&client).await;
    assert_eq!(facts.driver, "qcow2");

    // An upload in pieces, and its import.
    let bytes = image("qcow2");
    let pieces: Vec<Result<Bytes, std::io::Error>> = bytes
        .chunks(10_000)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    let path = format!("/v1/uploads/u?name=disk.qcow2&bytes={}", bytes.len());
    let () = client
        .put_stream(&path, stream::iter(pieces))
        .await
        .unwrap();
    let request = json!({"upload": "u", "draft": "d", "iso_disk_bytes": null});
    let _: ImportStatus = client.put("/v1/imports/j", &request).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status: ImportStatus = client.get("/v1/imports/j").await.unwrap();
        if status.outcome.is_some() {
            break;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        client
            .get::<Inventory>("/v1/inventory")
            .await
            .unwrap()
            .drafts
            .len(),
        1
    );

    // What can't fit is refused before its bytes were sent, and the sender learns why.
    let endless =
        stream::iter((0..4000).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; 64 << 10]))));
    let path = format!("/v1/uploads/big?name=a.raw&bytes={}", 1u64 << 60);
    let refused = client
        .put_stream::<_, _, ()>(&path, endless)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("tier_full"), "{refused}");

    // A host has a certificate of the same classroom, and is not the controller.
    let host = ca
        .issue(&Peer::new(PeerKind::Host, "h1".parse().unwrap()), &local)
        .unwrap();
    let refused = Client::new(&host, &url, &me)
        .unwrap()
        .get::<StorageFacts>("/v1/storage")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("forbidden"), "{refused}");

    shutdown.cancel();
    server.await.unwrap().unwrap();
    // The tiers are free again for the next start.
    lyceum_storage::Agent::open(config).await.unwrap();
}
