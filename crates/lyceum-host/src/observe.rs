//! What the agent says about itself: everything it knows of, with a revision
//! that grows with every change, and a way to wait for the next one.

use lyceum_model::{DesktopId, DraftId, Phase, UnixMillis};
use lyceum_proto::host::{HostLoad, Observed, ObservedDesktop, SealStatus, Traffic};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How long a desktop that has been stopped is spoken of. Suspended and failed ones are until they run again or are stopped.
const SPEAK_OF_STOPPED: Duration = Duration::from_secs(600);

/// Changes within this time are told together: when a class starts there are hundreds in a second.
const TOGETHER: Duration = Duration::from_millis(25);

/// Milliseconds since 1970.
pub fn now() -> UnixMillis {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as UnixMillis)
}

/// What a desktop uses, as it is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shown {
    /// Proportional memory, KiB.
    pub pss_kib: u64,
    /// CPU, percent of one.
    pub cpu_percent: f64,
    /// Since its machine started.
    pub traffic: Traffic,
}

struct State {
    revision: u64,
    desktops: BTreeMap<DesktopId, ObservedDesktop>,
    stopped: BTreeMap<DesktopId, std::time::Instant>,
    seals: BTreeMap<DraftId, SealStatus>,
    load: HostLoad,
}

/// What is said.
pub struct Observatory {
    boot: u64,
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

impl Observatory {
    /// Nothing observed yet.
    pub fn new(load: HostLoad) -> Observatory {
        // Microseconds of its start: below 2^53, so that JavaScript can read it.
        let boot = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as u64);
        Observatory {
            boot,
            state: Mutex::new(State {
                revision: 1,
                desktops: BTreeMap::new(),
                stopped: BTreeMap::new(),
                seals: BTreeMap::new(),
                load,
            }),
            revision: watch::Sender::new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.lock();
        if change(&mut state) {
            state.revision += 1;
            self.revision.send_replace(state.revision);
        }
    }

    /// Says this of a desktop.
    pub fn desktop(&self, observed: ObservedDesktop) {
        self.change(|state| {
            let id = observed.desktop.clone();
            if observed.phase == Phase::Stopped {
                state.stopped.insert(id.clone(), std::time::Instant::now());
            } else {
                state.stopped.remove(&id);
            }
            state.desktops.insert(id, observed.clone()) != Some(observed)
        });
    }

    /// The step a desktop is at. Nobody is woken: steps come often, and are heard with the
    /// next change or sample.
    pub fn step(&self, desktop: &DesktopId, detail: &str) {
        if let Some(seen) = self.lock().desktops.get_mut(desktop) {
            seen.detail = detail.to_owned();
        }
    }

    /// What is said of a desktop.
    pub fn get(&self, desktop: &DesktopId) -> Option<ObservedDesktop> {
        self.lock().desktops.get(desktop).cloned()
    }

    /// Says this of a seal.
    pub fn seal(&self, status: SealStatus) {
        self.change(|state| {
            state.seals.insert(status.draft.clone(), status.clone()) != Some(status)
        });
    }

    /// What is said of a seal.
    pub fn get_seal(&self, draft: &DraftId) -> Option<SealStatus> {
        self.lock().seals.get(draft).cloned()
    }

    /// Speaks no more of a seal.
    pub fn forget_seal(&self, draft: &DraftId) {
        self.change(|state| state.seals.remove(draft).is_some());
    }

    /// Whether a seal is under way.
    pub fn seals_run(&self) -> bool {
        self.lock().seals.values().any(|s| s.outcome.is_none())
    }

    /// The load as last sampled.
    pub fn load(&self) -> HostLoad {
        self.lock().load.clone()
    }

    /// A new sample: the load, and what its desktops use. One revision for all of it.
    pub fn sampled(&self, load: HostLoad, usage: &BTreeMap<DesktopId, Shown>) {
        self.change(|state| {
            state.load = load;
            for (id, desktop) in &mut state.desktops {
                let seen = usage.get(id).copied().unwrap_or_default();
                desktop.pss_kib = seen.pss_kib;
                desktop.cpu_percent = seen.cpu_percent;
                desktop.read_bytes = seen.traffic.read.unwrap_or(0);
                desktop.traffic = seen.traffic;
            }
            let State {
                desktops, stopped, ..
            } = state;
            stopped.retain(|id, since| {
                let keep = since.elapsed() < SPEAK_OF_STOPPED;
                if !keep {
                    desktops.remove(id);
                }
                keep
            });
            true
        });
    }

    /// Everything.
    pub fn observed(&self) -> Observed {
        let state = self.lock();
        Observed {
            boot: self.boot,
            revision: state.revision,
            desktops: state.desktops.values().cloned().collect(),
            seals: state.seals.values().cloned().collect(),
            load: state.load.clone(),
        }
    }

    /// Everything, as soon as the revision is above `after`, and in any case after
    /// `wait`. A number above our own is from before a restart: answered at once.
    pub async fn watch(&self, after: u64, wait: Duration) -> Observed {
        let mut revision = self.revision.subscribe();
        if *revision.borrow_and_update() == after {
            // Either way there is something to say.
            let changed = tokio::time::timeout(wait, revision.changed()).await;
            if changed.is_ok() {
                tokio::time::sleep(TOGETHER.min(wait)).await;
            }
        }
        self.observed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_ends_with_a_change_or_with_its_time() {
        let seen = Observatory::new(crate::load::unmeasured(1024));
        let first = seen.watch(0, Duration::from_secs(60)).await;
        assert_eq!(first.revision, 1);
        // Nothing happens: answered when the time is over.
        let again = seen.watch(1, Duration::from_millis(20)).await;
        assert_eq!(again.revision, 1);
        let (changed, ()) = tokio::join!(seen.watch(1, Duration::from_secs(3600)), async {
            seen.seal(SealStatus {
                draft: "d".parse().unwrap(),
                step: "booting".into(),
                outcome: None,
            });
        });
        assert_eq!((changed.revision, changed.seals.len()), (2, 1));
        // Of an earlier start of the agent.
        let at_once = seen.watch(99, Duration::from_secs(3600)).await;
        assert_eq!(at_once.revision, 2);
    }
}
