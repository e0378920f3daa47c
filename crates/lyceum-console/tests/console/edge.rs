//! The asynchronous edge, over pipes.

use crate::picture::Picture;
use crate::server::Server as Shown;
use crate::switch::{ask, set_encodings};
use lyceum_console::gateway::Plain;
use lyceum_console::{End, Limits, Mode, Server, serve};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

struct Rig {
    client: DuplexStream,
    servers: mpsc::Sender<Server<DuplexStream>>,
    lost: Arc<Notify>,
    task: JoinHandle<End>,
}

fn rig(mode: Mode, limits: Limits) -> Rig {
    let (client, far) = duplex(64 * 1024);
    let (servers, orders) = mpsc::channel(4);
    let lost = Arc::new(Notify::new());
    let heard = lost.clone();
    let task = tokio::spawn(async move {
        let mut plain = Plain::new(far);
        let no_notes = futures::stream::pending();
        serve(&mut plain, orders, heard, no_notes, mode, limits).await
    });
    Rig {
        client,
        servers,
        lost,
        task,
    }
}

const LET_IN: Mode = Mode {
    view_only: false,
    let_in: true,
};

async fn attach(rig: &Rig, shown: &Shown) -> DuplexStream {
    let (mut near, far) = duplex(1 << 20);
    rig.servers
        .send(Server::Attach {
            stream: far,
            same: true,
            taken: None,
        })
        .await
        .unwrap();
    near.write_all(&shown.hello()).await.unwrap();
    let mut said = [0; 14];
    near.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"RFB 003.008\n\x01\x01");
    near
}

async fn welcome(rig: &mut Rig) {
    rig.client.write_all(&[1]).await.unwrap();
    let mut head = [0; 4 + 28];
    rig.client.read_exact(&mut head).await.unwrap();
}

async fn expect(stream: &mut DuplexStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn a_client_stays_while_servers_come_and_go() {
    let mut rig = rig(LET_IN, Limits::default());
    let mut shown = Shown::new(Picture::new(16, 16, 5), 1);
    let mut server = attach(&rig, &shown).await;
    welcome(&mut rig).await;
    rig.client.write_all(&ask(true, 16, 16)).await.unwrap();
    expect(&mut server, &ask(false, 16, 16)).await;
    for round in 0..20u8 {
        let picture = shown.whole(false);
        server.write_all(&picture).await.unwrap();
        expect(&mut rig.client, &picture).await;
        // The client goes on asking and typing, the server is gone.
        drop(server);
        rig.lost.notified().await;
        rig.client.write_all(&ask(true, 16, 16)).await.unwrap();
        let key = [4, 1, 0, 0, 0, 0, 0, 0x61 + round];
        rig.client.write_all(&key).await.unwrap();
        shown = Shown::new(Picture::new(16, 16, u32::from(round)), 7);
        server = attach(&rig, &shown).await;
        let mut said = [0; 18];
        server.read_exact(&mut said).await.unwrap();
        let whole = ask(false, 16, 16);
        let orders = [[&key[..], &whole].concat(), [&whole[..], &key].concat()];
        assert!(orders.contains(&said.to_vec()), "{said:?}");
    }
    assert!(!rig.task.is_finished());
    drop(rig.client);
    assert_eq!(rig.task.await.unwrap(), End::Gone);
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_lost_and_the_client_is_not() {
    let mut rig = rig(LET_IN, Limits::default());
    let shown = Shown::new(Picture::new(16, 16, 5), 1);
    let mut server = attach(&rig, &shown).await;
    welcome(&mut rig).await;
    server.write_all(&[77; 100]).await.unwrap();
    rig.lost.notified().await;
    let mut shown = Shown::new(Picture::new(16, 16, 6), 1);
    let mut server = attach(&rig, &shown).await;
    rig.client.write_all(&ask(true, 16, 16)).await.unwrap();
    expect(&mut server, &ask(false, 16, 16)).await;
    let picture = shown.whole(false);
    server.write_all(&picture).await.unwrap();
    expect(&mut rig.client, &picture).await;
}

#[tokio::test]
async fn a_client_that_talks_nonsense_ends() {
    let mut rig = rig(LET_IN, Limits::default());
    let shown = Shown::new(Picture::new(16, 16, 5), 1);
    let _server = attach(&rig, &shown).await;
    welcome(&mut rig).await;
    rig.client.write_all(&[99; 10]).await.unwrap();
    assert!(matches!(rig.task.await.unwrap(), End::Client(_)));
}

#[tokio::test]
async fn a_slow_client_holds_the_server_back() {
    let mut rig = rig(LET_IN, Limits::default());
    let shown = Shown::new(Picture::new(16, 16, 5), 1);
    let mut server = attach(&rig, &shown).await;
    welcome(&mut rig).await;
    // Bells for ever; nobody listens. Pipes hold 1 MiB and 64 KiB, the gateway its bound.
    let mut given = 0usize;
    let bells = vec![2u8; 64 * 1024];
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(300), server.write(&bells)).await
    {
        given += written.unwrap();
        assert!(
            given < 3 << 20,
            "{given} bytes wait for a client that does not read"
        );
    }
    let mut heard = vec![0; given.min(1 << 20)];
    rig.client.read_exact(&mut heard).await.unwrap();
}

#[tokio::test]
async fn a_client_that_stalls_or_sleeps_or_stays_too_long_ends() {
    let never = Duration::from_secs(3600);
    let limits = Limits {
        stalled: never,
        ping: never,
        dead: never,
        idle: never,
        lifetime: never,
    };
    let short = Duration::from_millis(150);
    let idle = Limits {
        idle: short,
        ..limits
    };
    let lifetime = Limits {
        lifetime: short,
        ..limits
    };
    let dead = Limits {
        dead: short,
        ..limits
    };
    assert_eq!(rig(LET_IN, idle).task.await.unwrap(), End::Idle);
    assert_eq!(rig(LET_IN, lifetime).task.await.unwrap(), End::Lifetime);
    assert_eq!(rig(LET_IN, dead).task.await.unwrap(), End::Stalled);
    let watching = Mode {
        view_only: true,
        let_in: true,
    };
    let both = Limits {
        lifetime: 2 * short,
        ..idle
    };
    assert_eq!(
        rig(watching, both).task.await.unwrap(),
        End::Lifetime,
        "who watches does nothing"
    );

    let mut stalled = rig(
        LET_IN,
        Limits {
            stalled: short,
            ..limits
        },
    );
    let shown = Shown::new(Picture::new(16, 16, 5), 1);
    let mut server = attach(&stalled, &shown).await;
    welcome(&mut stalled).await;
    server.write_all(&vec![2; 512 * 1024]).await.unwrap();
    assert_eq!(stalled.task.await.unwrap(), End::Stalled);
}

#[tokio::test]
async fn the_caller_may_end_it_at_once() {
    let mut rig = rig(LET_IN, Limits::default());
    let shown = Shown::new(Picture::new(16, 16, 5), 1);
    let _server = attach(&rig, &shown).await;
    welcome(&mut rig).await;
    rig.client.write_all(&set_encodings(&[7, 0])).await.unwrap();
    let close = Server::Close {
        code: 4003,
        reason: "not yours any more",
    };
    rig.servers.send(close).await.unwrap();
    let end = End::Closed {
        code: 4003,
        reason: "not yours any more",
    };
    assert_eq!(rig.task.await.unwrap(), end);
}
