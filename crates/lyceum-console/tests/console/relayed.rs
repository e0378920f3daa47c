//! The way from an agent to the gateway.

use lyceum_console::relay::{Relayed, relay};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

struct Rig {
    gateway: Relayed<DuplexStream>,
    machine: DuplexStream,
    end: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn rig(room: usize) -> Rig {
    let (near, agent) = duplex(1000);
    let (to_machine, machine) = duplex(room);
    let end = CancellationToken::new();
    let ends = end.clone().cancelled_owned();
    let task = tokio::spawn(async move { relay(agent, to_machine, ends).await.unwrap() });
    Rig {
        gateway: Relayed::new(near),
        machine,
        end,
        task,
    }
}

#[tokio::test]
async fn bytes_pass_in_any_portions_both_ways() {
    let mut rig = rig(500);
    let picture: Vec<u8> = (0..200_000u32).map(|i| (i * 7) as u8).collect();
    let sent = picture.clone();
    let machine = tokio::spawn(async move {
        rig.machine.write_all(&sent).await.unwrap();
        let mut input = vec![0; 3000];
        rig.machine.read_exact(&mut input).await.unwrap();
        (rig.machine, input)
    });
    let mut got = vec![0; picture.len()];
    rig.gateway.read_exact(&mut got).await.unwrap();
    assert_eq!(got, picture);
    rig.gateway.write_all(&[9; 3000]).await.unwrap();
    let (machine, input) = machine.await.unwrap();
    assert_eq!(input, [9; 3000]);
    let taken = rig.gateway.taken();
    assert_eq!(taken.get(), None, "it goes on");
    drop(machine);
    assert_eq!(rig.gateway.read(&mut [0; 10]).await.unwrap(), 0);
    assert_eq!(taken.get(), Some(3000));
    rig.task.await.unwrap();
}

#[tokio::test]
async fn at_the_end_the_machine_reads_what_was_passed_on_and_that_is_what_counts() {
    let mut rig = rig(100);
    // More than the machine and the agent hold: part of it stays with the gateway.
    rig.gateway.write_all(&[5; 900]).await.unwrap();
    // The agent has begun to pass on.
    let mut first = [0; 50];
    rig.machine.read_exact(&mut first).await.unwrap();
    rig.end.cancel();
    let mut read = first.len();
    let mut rest = Vec::new();
    read += rig.machine.read_to_end(&mut rest).await.unwrap();
    rig.machine.write_all(b"last words").await.unwrap();
    drop(rig.machine);
    let mut words = Vec::new();
    rig.gateway.read_to_end(&mut words).await.unwrap();
    assert_eq!(words, b"last words");
    assert_eq!(rig.gateway.taken().get(), Some(read as u64));
    rig.task.await.unwrap();
}

#[tokio::test]
async fn a_machine_that_hangs_does_not_hold_up_the_end() {
    let mut rig = rig(10);
    rig.gateway.write_all(&[5; 5]).await.unwrap();
    let mut first = [0; 5];
    rig.machine.read_exact(&mut first).await.unwrap();
    rig.end.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        let mut words = Vec::new();
        rig.gateway.read_to_end(&mut words).await.unwrap();
    });
    ended.await.expect("the agent can go on");
    assert_eq!(rig.gateway.taken().get(), Some(5));
}

#[tokio::test]
async fn an_agent_that_is_killed_says_nothing() {
    let (near, mut agent) = duplex(1000);
    let mut gateway = Relayed::new(near);
    agent.write_all(&[0, 0, 0, 9, 1, 2]).await.unwrap();
    drop(agent);
    let mut words = Vec::new();
    gateway.read_to_end(&mut words).await.unwrap();
    assert_eq!(words, [1, 2]);
    assert_eq!(gateway.taken().get(), None);
}
