//! Real machines between two real agents over mutual TLS: the way is cut at random bytes,
//! agents and machines are killed in the middle.

use super::lab::{Lab, SIZE};
use super::{Cleanup, READY_MS, draft, kill, qemu_pid};
use lyceum_hypervisor::Hypervisor;
use lyceum_hypervisor::sim::SimConfig;
use lyceum_model::{Generation, MoveWay, Phase};
use lyceum_proto::host::{Clipboard, ObservedDesktop, SealOutcome, StartMode};
use lyceum_proto::moves::{MoveRequest, Moved};
use lyceum_qemu::{AcceleratorChoice, QemuConfig, QemuHypervisor};
use lyceum_wire::ClientError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How often the way is cut; `LYCEUM_MOVES` says otherwise (`make test-moves`).
fn times() -> u64 {
    let asked = std::env::var("LYCEUM_MOVES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// Stands between the hosts and cuts every connection once so many bytes have come from
/// the source or the destination together.
struct Link {
    url: String,
    left: Arc<AtomicU64>,
    target: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

impl Link {
    async fn new() -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicU64::new(u64::MAX / 2));
        let (target, to) = tokio::sync::watch::channel(None::<SocketAddr>);
        let budget = left.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Some(to) = *to.borrow() else { continue };
                let Ok(far) = TcpStream::connect(to).await else {
                    continue;
                };
                tokio::spawn(relay(near, far, budget.clone()));
            }
        });
        Link { url, left, target }
    }

    fn reaches(&self, lab: &Lab) {
        let address = lab.client.url().trim_start_matches("https://");
        self.target.send_replace(Some(address.parse().unwrap()));
    }

    fn cut_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

async fn relay(near: TcpStream, far: TcpStream, left: Arc<AtomicU64>) {
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        () = carry(near_in, far_out, left.clone()) => {}
        () = carry(far_in, near_out, left) => {}
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    left: Arc<AtomicU64>,
) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) if n > 0 => n as u64,
            _ => return,
        };
        let had = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |l| {
            Some(l.saturating_sub(n))
        });
        let now = n.min(had.unwrap_or(0));
        if to.write_all(&buffer[..now as usize]).await.is_err() || now < n {
            return;
        }
    }
}

struct Pair {
    here: Lab,
    there: Lab,
    link: Link,
    generation: u64,
    vm_generation_id: uuid::Uuid,
    _cleanup: [Cleanup; 2],
}

impl Pair {
    async fn new() -> Pair {
        let hypervisor = QemuHypervisor::new(QemuConfig {
            accelerator: AcceleratorChoice::Tcg,
            ..QemuConfig::default()
        })
        .unwrap();
        let platform = hypervisor.platform();
        let mut here = Lab::stopped(SimConfig::default());
        here.real = Some(Arc::new(hypervisor));
        here.config.memory_mib = Some(1024);
        let mut there = here.beside("h2");
        let cleanup = [
            Cleanup(here.config.run_dir.clone()),
            Cleanup(there.config.run_dir.clone()),
        ];
        here.start().await;
        let good = draft(&here, "good");
        here.seal(&good, READY_MS).await;
        assert!(matches!(
            here.sealed(&good).await,
            SealOutcome::Sealed { .. }
        ));
        here.release = here.publish(&here.staging(&good), platform);
        there.release = here.release.clone();
        there.start().await;
        let link = Link::new().await;
        let mut pair = Pair {
            here,
            there,
            link,
            generation: 1,
            vm_generation_id: uuid::Uuid::nil(),
            _cleanup: cleanup,
        };
        let mut request = pair.here.fork("a", 1);
        request.ready_timeout_ms = READY_MS;
        pair.vm_generation_id = request.vm_generation_id;
        pair.here.run("a", &request).await.unwrap();
        pair.here.wait_phase("a", Phase::Running).await;
        pair
    }

    /// Tells the destination to wait, and answers what the source is told.
    async fn prepare(&mut self) -> MoveRequest {
        let runs_as = self.here.wait_phase("a", Phase::Running).await.generation;
        self.generation += 1;
        let mut request = self.here.fork("a", self.generation);
        request.ready_timeout_ms = READY_MS;
        request.vm_generation_id = self.vm_generation_id;
        request.start = StartMode::Arrive {
            release: self.here.release.clone(),
            from: self.here.config.name.clone(),
            way: MoveWay::Delta,
            platform: self.here.real.as_ref().unwrap().platform(),
            tiers: None,
            need_mib: u64::from(SIZE.memory_mib),
        };
        self.there.run("a", &request).await.unwrap();
        self.link.reaches(&self.there);
        MoveRequest {
            generation: runs_as,
            arrives_as: Generation(self.generation),
            to: self.there.config.name.clone(),
            url: self.link.url.clone(),
            way: MoveWay::Delta,
            mbit_per_s: None,
            time_limit_ms: READY_MS,
        }
    }

    async fn go(&self, request: &MoveRequest) -> Result<Moved, ClientError> {
        let patient = std::time::Duration::from_millis(2 * READY_MS);
        self.here
            .client
            .timeout(patient)
            .post("/v1/desktops/a/move", request)
            .await
    }

    /// What the controller does when the source says that it did not move.
    async fn clear_up(&self) {
        self.there.stop("a", self.generation).await.unwrap();
    }

    /// `here` is where it runs from now on.
    fn swap(&mut self) {
        std::mem::swap(&mut self.here, &mut self.there);
    }

    async fn shut_down(mut self) {
        self.here.shut_down().await;
        self.there.shut_down().await;
    }

    /// One machine, here, whose guest answers.
    async fn assert_runs_here(&self) {
        let seen: ObservedDesktop = self.here.wait_phase("a", Phase::Running).await;
        // The one that was left stands still, and is ended after it was said that it arrived.
        (self.there.wait("a", |d| !d.phase.may_hold_disk())).await;
        let there = self.there.config.run_dir.join("d/a");
        assert!(qemu_pid(&there).is_none(), "there are two of {seen:?}");
        assert!(qemu_pid(&self.here.config.run_dir.join("d/a")).is_some());
        let text = format!("still here {}", self.generation);
        let path = "/v1/desktops/a/clipboard";
        let () = (self.here.client)
            .put(path, &Clipboard { text: text.clone() })
            .await
            .unwrap();
        let found: Clipboard = self.here.client.get(path).await.unwrap();
        assert_eq!(found.text, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_whose_way_is_cut_at_a_random_byte_end_with_one_desktop() {
    let mut pair = Pair::new().await;
    let before = pair.link.left.load(Ordering::SeqCst);
    let request = pair.prepare().await;
    let moved = pair.go(&request).await.unwrap();
    let whole = before - pair.link.left.load(Ordering::SeqCst);
    println!("{moved:?}, {whole} bytes on the wire");
    assert!(moved.bytes < u64::from(SIZE.memory_mib) << 20);
    // Asked again, it is the same move.
    assert_eq!(pair.go(&request).await.unwrap(), moved);
    pair.swap();
    pair.assert_runs_here().await;

    let (mut went, mut stayed) = (0, 0);
    for round in 0..times() {
        let request = pair.prepare().await;
        // Every other time near the end, where it is handed over.
        let random = u64::from_le_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap());
        let near = whole.saturating_sub(3000);
        let cut = match round % 2 {
            0 => random % whole,
            _ => near + random % 4000,
        };
        pair.link.cut_after(cut);
        let answer = pair.go(&request).await;
        pair.link.cut_after(u64::MAX / 2);
        match answer {
            Ok(_) => {
                went += 1;
                pair.swap();
            }
            Err(e) => {
                stayed += 1;
                assert!(e.to_string().contains("goes on where it was"), "{cut}: {e}");
                pair.clear_up().await;
            }
        }
        pair.assert_runs_here().await;
    }
    println!("cut {} times: {went} went, {stayed} stayed", times());
    pair.here.stop("a", pair.generation).await.unwrap();
    pair.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_in_which_somebody_is_killed_end_with_one_desktop_or_none() {
    let mut pair = Pair::new().await;
    // The machine that waits there is killed.
    let request = pair.prepare().await;
    let there = pair.there.config.run_dir.join("d/a");
    pair.there
        .wait("a", |d| d.detail.contains("waiting for the desktop"))
        .await;
    kill(qemu_pid(&there).unwrap());
    pair.go(&request).await.unwrap_err();
    pair.clear_up().await;
    pair.assert_runs_here().await;

    // The agent there is killed while it is being sent, slowly enough to be in the middle.
    let mut request = pair.prepare().await;
    request.mbit_per_s = Some(40);
    let (answer, ()) = tokio::join!(
        async {
            pair.here
                .client
                .timeout(std::time::Duration::from_millis(READY_MS))
                .post::<_, Moved>("/v1/desktops/a/move", &request)
                .await
        },
        async {
            pair.there.wait("a", |d| d.detail == "arriving").await;
            pair.there.kill().await;
        }
    );
    answer.unwrap_err();
    pair.there.start().await;
    pair.clear_up().await;
    pair.assert_runs_here().await;

    // The agent here is killed; its machine goes on, and nothing arrives.
    let mut request = pair.prepare().await;
    request.mbit_per_s = Some(40);
    let client = pair.here.client.clone();
    let asked = tokio::spawn(async move {
        client
            .post::<_, Moved>("/v1/desktops/a/move", &request)
            .await
    });
    pair.there.wait("a", |d| d.detail == "arriving").await;
    pair.here.kill().await;
    asked.await.unwrap().unwrap_err();
    pair.here.start().await;
    pair.clear_up().await;
    pair.assert_runs_here().await;

    // Its machine here is killed: there is none, and it is said so.
    let mut request = pair.prepare().await;
    request.mbit_per_s = Some(40);
    let machine = qemu_pid(&pair.here.config.run_dir.join("d/a")).unwrap();
    let (answer, ()) = tokio::join!(pair.go(&request), async {
        pair.there.wait("a", |d| d.detail == "arriving").await;
        kill(machine);
    });
    answer.unwrap_err();
    pair.here.wait_phase("a", Phase::Failed).await;
    pair.clear_up().await;
    let nobody = [&pair.here, &pair.there].map(|l| qemu_pid(&l.config.run_dir.join("d/a")));
    assert_eq!(nobody, [None, None]);
    pair.shut_down().await;
}
