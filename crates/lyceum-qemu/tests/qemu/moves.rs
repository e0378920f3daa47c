//! Running machines go from one run directory to another, as between two hosts. The agents'
//! protocol around it is tested in `lyceum-host`.

use crate::common::*;
use lyceum_hypervisor::*;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// How often something is done in one run; `LYCEUM_MOVES` says otherwise (`make test-moves`).
fn times(default: usize) -> usize {
    std::env::var("LYCEUM_MOVES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

/// The machine that waits for what `source` sends, in a run directory of its own.
async fn waiting(
    room: &Classroom,
    source: &dyn Instance,
    sealed: Option<SealedFiles>,
) -> Arc<dyn Instance> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut request = source.request();
    request.generation = request.generation.next();
    request.run_dir = room.path(&format!("move{number}"));
    request.from = StartFrom::Arrive { sealed };
    room.hypervisor
        .start(request)
        .await
        .expect("a machine that waits")
}

/// Carries at most `limit` bytes.
async fn ferry(
    source: &dyn Instance,
    way: MoveWay,
    target: &dyn Instance,
    limit: Option<usize>,
) -> (Result<Sent, HypervisorError>, Result<(), HypervisorError>) {
    let (out, mut from) = mpsc::channel::<Vec<u8>>(4);
    let (to, input) = mpsc::channel(4);
    let carry = async move {
        let mut left = limit.unwrap_or(usize::MAX);
        while left > 0
            && let Some(mut piece) = from.recv().await
        {
            piece.truncate(left);
            left -= piece.len();
            if to.send(piece).await.is_err() {
                break;
            }
        }
    };
    let (sent, received, ()) = tokio::join!(
        source.send(way, None, Box::pin(async {}), out),
        target.receive(input),
        carry
    );
    (sent, received)
}

/// Moves it; the machine that is the desktop now, and how long it stood still in milliseconds.
async fn moved(
    room: &Classroom,
    machine: Machine,
    way: MoveWay,
    sealed: Option<SealedFiles>,
) -> (Machine, Sent, u128) {
    let target = waiting(room, &*machine.instance, sealed).await;
    let (sent, received) = ferry(&*machine.instance, way, &*target, None).await;
    let sent = sent.expect("sent");
    received.expect("received");
    machine.instance.hand_over().await.expect("handed over");
    target
        .take_over(sent.usable.clone())
        .await
        .expect("taken over");
    let still = sent.stood_still.expect("stood still").elapsed().as_millis();
    assert_eq!(
        machine.instance.take_back().await.expect("an answer"),
        TakenBack::Elsewhere
    );
    machine.end().await;
    let usable = running(&*target).await.expect("usable");
    let machine = Machine {
        instance: target,
        usable,
    };
    (machine, sent, still)
}

/// Writes random data into memory and to the disk, and checks what it wrote before, all the time.
const WORK: &str = r#"cat > /run/work <<'END'
n=0
while true; do
  n=$((n+1))
  dd if=/dev/urandom of=/run/new bs=64k count=32 2>/dev/null
  sha256sum < /run/new > /run/sum
  cp /run/new /root/blob.$((n%3)); sync
  sha256sum < /root/blob.$((n%3)) | cmp -s - /run/sum || echo disk $n >> /run/bad
  mv /run/new /run/blob.$((n%2)); cp /run/sum /run/sum.$((n%2))
  for i in 0 1; do [ -e /run/blob.$i ] || continue; sha256sum < /run/blob.$i | cmp -s - /run/sum.$i || echo memory $n >> /run/bad; done
  echo $n > /run/rounds
done
END
(sh /run/work >/dev/null 2>&1 & echo $! > /run/pid)"#;

/// It goes on, and nothing of what it wrote was lost.
async fn assert_works(machine: &Machine) -> u64 {
    let on = r#"kill -0 $(cat /run/pid); a=$(cat /run/rounds); i=0; while [ "$(cat /run/rounds)" = "$a" ]; do i=$((i+1)); [ $i -lt 600 ]; usleep 50000; done"#;
    machine.sh(on).await;
    assert_eq!(
        machine.sh("cat /run/bad 2>/dev/null || echo none").await,
        "none"
    );
    machine.sh("cat /run/rounds").await.parse().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_desktop_is_moved_again_and_again_and_goes_on_sharing() {
    let release = release().await;
    let room = Classroom::new();
    let mut machine = room.fork(release).await;
    machine.sh(WORK).await;
    let mut still = Vec::new();
    for round in 0..times(4) {
        let before = machine.instance.usage().await.expect("usage").pss_kib;
        let own = machine.instance.own_bytes().await.expect("own");
        let own = own.expect("it shares") / 1000;
        let sealed = Some(release.sealed.clone());
        let (next, sent, ms) = moved(&room, machine, MoveWay::Delta, sealed).await;
        machine = next;
        let after = machine.instance.usage().await.expect("usage").pss_kib;
        let kb = sent.bytes / 1000;
        eprintln!(
            "move {round}: {kb} kB, {} pages, own {own} kB, still {ms} ms, Pss {before} -> {after} kB",
            sent.pages
        );
        assert!(
            machine.instance.own_bytes().await.expect("own").is_some(),
            "it goes on sharing"
        );
        still.push(ms);
    }
    still.sort_unstable();
    eprintln!("stood still: {still:?} ms");
    assert!(assert_works(&machine).await > 0);
    // Its card came with it.
    let nic = machine.instance.request().nic.expect("NIC");
    assert_eq!(machine.sh("cat /sys/class/net/eth*/address").await, nic.mac);
    // It is a desktop like any other.
    machine
        .sh("kill $(cat /run/pid); echo kept > /root/kept; sync")
        .await;
    let request = machine.instance.request();
    let delta = room.path("delta");
    machine.instance.suspend(&delta).await.expect("suspend");
    let from = StartFrom::Resume {
        sealed: release.sealed.clone(),
        delta,
    };
    let machine = room.start(StartRequest { from, ..request }).await;
    assert_eq!(machine.sh("cat /root/kept").await, "kept");
    // The other way is open to one that was resumed, too.
    let (machine, ..) = moved(&room, machine, MoveWay::Live, None).await;
    assert_eq!(machine.sh("cat /root/kept").await, "kept");
    machine.end().await;
    release.assert_unchanged();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_whose_way_is_cut_anywhere_goes_on_where_it_was() {
    let release = release().await;
    let room = Classroom::new();
    let machine = room.fork(release).await;
    machine.sh(WORK).await;
    let sealed = || Some(release.sealed.clone());
    let target = waiting(&room, &*machine.instance, sealed()).await;
    let (sent, received) = ferry(&*machine.instance, MoveWay::Delta, &*target, None).await;
    received.expect("received");
    let sent = sent.expect("sent");
    // Nobody took it over, so it may go on here, and the other never can.
    machine.instance.hand_over().await.expect("handed over");
    assert_eq!(
        machine.instance.take_back().await.expect("an answer"),
        TakenBack::GoesOn
    );
    let error = target
        .take_over(sent.usable)
        .await
        .expect_err("two of one desktop");
    assert!(
        error.to_string().contains("another machine's hands"),
        "{error}"
    );
    end(&*target).await;
    assert_works(&machine).await;
    for round in 0..times(5) {
        let cut = getrandom::u32().expect("random") as usize % sent.bytes as usize;
        let target = waiting(&room, &*machine.instance, sealed()).await;
        let way = ferry(&*machine.instance, MoveWay::Delta, &*target, Some(cut));
        if let (sent, Ok(())) = way.await {
            // It changed less since the last time, and all of it came before the cut.
            let sent = sent.expect("half a desktop was taken");
            assert!(sent.bytes <= cut as u64, "half a desktop was taken");
            machine.instance.hand_over().await.expect("handed over");
        }
        end(&*target).await;
        let back = machine.instance.take_back().await.expect("an answer");
        assert_eq!(back, TakenBack::GoesOn, "round {round}, cut at {cut}");
        if round % 20 == 0 {
            assert_works(&machine).await;
        }
    }
    assert_works(&machine).await;
    machine.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_there_is_one_desktop_or_none() {
    let release = release().await;
    let room = Classroom::new();
    let machine = room.fork(release).await;
    machine.sh(WORK).await;
    let run_dir = machine.instance.request().run_dir;
    let sealed = || Some(release.sealed.clone());
    let sent_to = async |machine: &Machine, target: &dyn Instance| {
        let (sent, received) = ferry(&*machine.instance, MoveWay::Delta, target, None).await;
        received.expect("received");
        machine.instance.hand_over().await.expect("handed over");
        sent.expect("sent").usable
    };

    // The other one ends after everything has come, before it took over.
    let target = waiting(&room, &*machine.instance, sealed()).await;
    sent_to(&machine, &*target).await;
    kill(&*target).await;
    assert_eq!(
        machine.instance.take_back().await.expect("an answer"),
        TakenBack::GoesOn
    );

    // The agent here is restarted when nobody took it: it goes on here.
    let target = waiting(&room, &*machine.instance, sealed()).await;
    let usable = sent_to(&machine, &*target).await;
    drop(machine);
    let machine = adopted(&room, &run_dir).await;
    assert_works(&machine).await;
    target
        .take_over(usable)
        .await
        .expect_err("two of one desktop");
    end(&*target).await;

    // The same when the other one took it: this one is ended.
    let target = waiting(&room, &*machine.instance, sealed()).await;
    let usable = sent_to(&machine, &*target).await;
    target.take_over(usable).await.expect("taken over");
    drop(machine);
    if let Some(left) = room.hypervisor.adopt(&run_dir).await.expect("adopt") {
        let (reason, expected) = ended(&*left).await;
        assert!(expected && reason.contains("another host"), "{reason}");
    }
    // The agent there is restarted.
    let there = target.request().run_dir;
    drop(target);
    let machine = adopted(&room, &there).await;
    assert_works(&machine).await;

    // The other one took it, wrote, and ended: what is in memory here is out of date.
    let target = waiting(&room, &*machine.instance, sealed()).await;
    let usable = sent_to(&machine, &*target).await;
    target.take_over(usable.clone()).await.expect("taken over");
    let there = Machine {
        usable,
        instance: target,
    };
    assert_works(&there).await;
    assert_eq!(
        machine.instance.take_back().await.expect("an answer"),
        TakenBack::Elsewhere
    );
    kill(&*there.instance).await;
    assert_eq!(
        machine.instance.take_back().await.expect("an answer"),
        TakenBack::Outdated
    );
    machine.end().await;
}

async fn adopted(room: &Classroom, run_dir: &std::path::Path) -> Machine {
    let found = room.hypervisor.adopt(run_dir).await.expect("adopt");
    let instance = found.expect("its machine");
    let usable = running(&*instance).await.expect("usable");
    Machine { instance, usable }
}

async fn end(instance: &dyn Instance) {
    instance.end(std::time::Duration::ZERO).await.expect("end");
}

async fn kill(instance: &dyn Instance) {
    let pid = nix::unistd::Pid::from_raw(instance.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    ended(instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_booted_desktop_is_moved_by_live_migration() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.request(
        StartFrom::Cold,
        room.overlay(&release.disk),
        Some(release.disk.clone()),
    );
    let machine = room.start(request).await;
    machine.sh(WORK).await;
    assert_eq!(machine.instance.own_bytes().await.expect("own"), None);
    let began = Instant::now();
    let (machine, sent, still) = moved(&room, machine, MoveWay::Live, None).await;
    let (kb, ms) = (sent.bytes / 1000, began.elapsed().as_millis());
    eprintln!("live: {kb} kB, still {still} ms, in all {ms} ms");
    assert_works(&machine).await;

    // Cut in the middle: it goes on.
    let target = waiting(&room, &*machine.instance, None).await;
    let (sent, received) = ferry(&*machine.instance, MoveWay::Live, &*target, Some(1 << 20)).await;
    assert!(sent.is_err() && received.is_err());
    end(&*target).await;
    assert_eq!(
        machine.instance.take_back().await.expect("an answer"),
        TakenBack::GoesOn
    );
    assert_works(&machine).await;
    machine.end().await;
}
