//! One simulated machine.

use super::{Fault, SimConfig, SimEventKind, SimHypervisor, SimWorld, rfb, spice};
use crate::*;
use lyceum_model::{MachineSize, Platform, ReleaseId, disk::layout};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// In the run directory, when machines outlive the process.
const STATE_FILE: &str = "machine.json";
/// In a delta.
const DELTA_FILE: &str = "delta.json";

#[derive(Serialize, Deserialize)]
struct Kept {
    request: StartRequest,
    usable: Option<Usable>,
    /// It stands still, to be moved: how often its disk had been taken over then.
    #[serde(default)]
    stands: Option<u64>,
}

/// What goes from one machine to another.
#[derive(Serialize, Deserialize)]
struct Travelling {
    release: Option<ReleaseId>,
    size: MachineSize,
    platform: Platform,
    desktop: lyceum_model::DesktopId,
}

#[derive(Serialize, Deserialize)]
struct DeltaFile {
    release: Option<ReleaseId>,
    size: MachineSize,
    platform: Platform,
}

pub(super) struct Machine {
    world: SimWorld,
    pub(super) config: SimConfig,
    platform: Platform,
    pub(super) request: StartRequest,
    state: watch::Sender<InstanceState>,
    screen: watch::Sender<rfb::Screen>,
    clipboard: Mutex<String>,
    began: Instant,
    /// It stands still, to be moved: how often its disk had been taken over then.
    stands: Mutex<Option<u64>>,
    /// One long operation at a time.
    busy: tokio::sync::Mutex<()>,
}

fn io(what: &str, path: &Path, source: std::io::Error) -> HypervisorError {
    HypervisorError::Io {
        what: format!("{what} {}", path.display()),
        source,
    }
}

impl Machine {
    pub(super) fn new(hypervisor: &SimHypervisor, request: StartRequest) -> Arc<Machine> {
        Arc::new(Machine {
            world: hypervisor.world.clone(),
            config: hypervisor.config.clone(),
            platform: hypervisor.platform.clone(),
            state: watch::Sender::new(InstanceState::Starting {
                step: "starting".into(),
            }),
            screen: watch::Sender::new(rfb::Screen::of(request.desktop.as_str())),
            request,
            clipboard: Mutex::new(String::new()),
            began: Instant::now(),
            stands: Mutex::new(None),
            busy: tokio::sync::Mutex::new(()),
        })
    }

    /// The machine that another process left in this run directory.
    pub(super) fn load(
        hypervisor: &SimHypervisor,
        run_dir: &Path,
    ) -> Result<Option<Arc<Machine>>, HypervisorError> {
        let path = run_dir.join(STATE_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("can't read", &path, e)),
        };
        // Written whole or not at all; anything else was not a machine.
        let Ok(kept) = serde_json::from_slice::<Kept>(&text) else {
            return Ok(None);
        };
        let machine = Machine::new(hypervisor, kept.request);
        *machine.standing() = kept.stands;
        if let Some(usable) = kept.usable {
            machine
                .state
                .send_replace(InstanceState::Running { usable });
        }
        Ok(Some(machine))
    }

    pub(super) fn make_files(&self) -> Result<(), HypervisorError> {
        let dir = &self.request.run_dir;
        std::fs::create_dir_all(dir).map_err(|e| io("can't make", dir, e))?;
        if let StartFrom::ColdForSeal { ram, .. } = &self.request.from {
            std::fs::write(ram, b"ram of a simulated machine")
                .map_err(|e| io("can't write", ram, e))?;
        }
        self.keep(None)
    }

    fn keep(&self, usable: Option<Usable>) -> Result<(), HypervisorError> {
        if !self.config.persist {
            return Ok(());
        }
        let path = self.request.run_dir.join(STATE_FILE);
        let kept = Kept {
            request: self.request.clone(),
            usable,
            stands: *self.standing(),
        };
        let write = || {
            let new = path.with_extension("new");
            std::fs::write(&new, serde_json::to_vec(&kept)?)?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|e| io("can't write", &path, e))
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.stands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its guest runs, or is on its way up.
    pub(super) fn goes(&self) -> bool {
        let runs = match &*self.state.borrow() {
            InstanceState::Starting { .. } => {
                !matches!(self.request.from, StartFrom::Arrive { .. })
            }
            InstanceState::Running { .. } => true,
            // It may be among the machines of its world for a moment yet.
            InstanceState::Ended { .. } => false,
        };
        runs && self.standing().is_none()
    }

    fn usable(&self) -> Option<Usable> {
        match &*self.state.borrow() {
            InstanceState::Running { usable } => Some(usable.clone()),
            _ => None,
        }
    }

    /// Ends when nothing arrives in time.
    pub(super) fn wait_for_arrival(self: Arc<Self>) {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(self.request.ready_timeout_ms)).await;
            if matches!(&*self.state.borrow(), InstanceState::Starting { .. }) {
                self.process_gone("the desktop did not arrive in time", false);
            }
        });
    }

    /// After a restart of the agent: nothing waits any more, and what stood still goes on if it may.
    pub(super) async fn adopted(&self) -> Result<(), HypervisorError> {
        let waits = matches!(self.request.from, StartFrom::Arrive { .. })
            && matches!(&*self.state.borrow(), InstanceState::Starting { .. });
        if waits {
            self.process_gone("the host agent was restarted before it arrived", false);
        } else if self.standing().is_some() {
            match self.take_back().await? {
                TakenBack::GoesOn => {}
                TakenBack::Elsewhere => self.process_gone("it goes on on another host", true),
                TakenBack::Outdated => {
                    self.process_gone("it went on on another host and ended there", false);
                }
            }
        }
        Ok(())
    }

    /// Lets it become usable, in time and unless something goes wrong.
    pub(super) fn come_up(self: Arc<Self>, fault: Option<Fault>) {
        if fault == Some(Fault::NeverReady) {
            self.state.send_if_modified(|state| match state {
                InstanceState::Starting { step } => {
                    *step = "waiting for the guest".into();
                    true
                }
                _ => false,
            });
            return;
        }
        let ms = match self.request.from {
            StartFrom::Cold | StartFrom::ColdForSeal { .. } => self.config.cold_ms,
            _ => self.config.fork_ms,
        };
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            self.become_usable(fault != Some(Fault::NoHelper));
            if let Some(Fault::EndsAfter(time)) = fault {
                tokio::time::sleep(time).await;
                self.process_gone("its process ended by itself", false);
            }
        });
    }

    fn become_usable(&self, guest_helper: bool) {
        let nic = self.request.nic.as_ref();
        let ms = self.began.elapsed().as_millis() as u64;
        let usable = Usable {
            address: nic.map(|nic| match &nic.link {
                NicLink::User { address, .. } | NicLink::Tap { address, .. } => {
                    format!("{address}/24")
                }
            }),
            identity_ms: self.request.identity.as_ref().map(|_| ms),
            address_ms: nic.map(|_| ms),
            picture_ms: ms,
            ssh_host_key: self
                .request
                .identity
                .as_ref()
                .map(|i| format!("ssh-ed25519 simulated-{}", i.machine_id)),
            guest_helper,
        };
        let came = self.state.send_if_modified(|state| match state {
            InstanceState::Starting { .. } => {
                *state = InstanceState::Running {
                    usable: usable.clone(),
                };
                true
            }
            _ => false,
        });
        if came {
            // A machine that can't be kept is lost at the next restart of the process only.
            if let Err(e) = self.keep(Some(usable)) {
                tracing::warn!("{e}");
            }
            self.world.record(&self.request, SimEventKind::Usable);
        }
    }

    /// Its process is gone; the first reason counts.
    pub(super) fn process_gone(&self, reason: &str, expected: bool) {
        let ended = self.state.send_if_modified(|state| match state {
            InstanceState::Ended { .. } => false,
            _ => {
                *state = InstanceState::Ended {
                    reason: reason.into(),
                    expected,
                };
                true
            }
        });
        if ended {
            // A run directory without this file is one without a machine.
            let _ = std::fs::remove_file(self.request.run_dir.join(STATE_FILE));
            self.world.leave(self);
            self.world.record(&self.request, SimEventKind::Ended);
        }
    }

    fn must_run(&self) -> Result<(), HypervisorError> {
        match &*self.state.borrow() {
            InstanceState::Running { .. } => Ok(()),
            InstanceState::Starting { .. } => Err(HypervisorError::State(
                "the desktop is not usable yet".into(),
            )),
            InstanceState::Ended { .. } => {
                Err(HypervisorError::State("the machine has ended".into()))
            }
        }
    }

    /// Writes a delta as a folder that appears whole.
    async fn save(&self, out: &Path, with_overlay: bool) -> Result<DeltaSummary, HypervisorError> {
        let _busy = self.busy.lock().await;
        self.must_run()?;
        if let Some(Fault::Save(why)) = self.world.fault(&self.request.desktop) {
            return Err(HypervisorError::State(why));
        }
        if out.exists() {
            return Err(HypervisorError::State(format!(
                "{} exists already",
                out.display()
            )));
        }
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(self.config.save_ms)).await;
        self.must_run()?;
        let file = DeltaFile {
            release: self.request.from.shares().map(|s| s.release.clone()),
            size: self.request.size,
            platform: self.platform.clone(),
        };
        let part = out.with_extension("partial");
        let disk_only = file.release.is_none();
        let write = || {
            match std::fs::remove_dir_all(&part) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            std::fs::create_dir_all(&part)?;
            if !disk_only {
                std::fs::write(part.join("pages"), b"pages")?;
            }
            std::fs::write(part.join(DELTA_FILE), serde_json::to_vec(&file)?)?;
            if with_overlay {
                let copy = part.join(layout::DELTA_OVERLAY);
                std::fs::copy(&self.request.disk.top, copy)?;
            }
            std::fs::rename(&part, out)
        };
        write().map_err(|e| io("can't write the delta", out, e))?;
        self.world.record(&self.request, SimEventKind::Saved);
        let ms = began.elapsed().as_millis() as u64;
        Ok(DeltaSummary {
            memory_bytes: match disk_only {
                true => 0,
                false => u64::from(self.request.size.memory_mib) * 1024 * 1024 / 50,
            },
            device_bytes: if disk_only { 0 } else { 100_000 },
            disk_only,
            not_flushed: None,
            overlay_bytes: std::fs::metadata(&self.request.disk.top).map_or(0, |m| m.len()),
            stand_still_ms: ms,
            total_ms: ms,
        })
    }
}

/// What is wrong with a delta, or whether it holds memory.
pub(super) fn check_delta(
    delta: &Path,
    sealed: &SealedFiles,
    size: MachineSize,
    platform: &Platform,
) -> Result<bool, String> {
    let text =
        std::fs::read(delta.join(DELTA_FILE)).map_err(|e| format!("{}: {e}", delta.display()))?;
    let file: DeltaFile =
        serde_json::from_slice(&text).map_err(|e| format!("it is damaged: {e}"))?;
    let Some(release) = &file.release else {
        return Ok(false);
    };
    if *release != sealed.release {
        return Err("it belongs to another release".into());
    }
    if file.size != size {
        return Err("it is of a desktop of another size".into());
    }
    match file.platform.difference(platform) {
        Some(difference) => Err(format!("it was saved on another platform: {difference}")),
        None => Ok(true),
    }
}

fn lock_path(top: &Path) -> PathBuf {
    let mut name = top.as_os_str().to_owned();
    name.push(".writer");
    name.into()
}

/// Takes a disk among processes, as QEMU's image locks would. A file, because the
/// simulated machine has no process of its own that could hold a lock.
pub(super) fn lock_disk(top: &Path, run_dir: &Path) -> Result<(), HypervisorError> {
    use std::io::Write;
    let path = lock_path(top);
    let create = || {
        let mut file = std::fs::File::create_new(&path)?;
        file.write_all(run_dir.as_os_str().as_encoded_bytes())
    };
    match create() {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let by = std::fs::read_to_string(&path).unwrap_or_default();
            // Left by a process that was killed between the two files.
            if !Path::new(&by).join(STATE_FILE).exists() {
                return std::fs::write(&path, run_dir.as_os_str().as_encoded_bytes())
                    .map_err(|e| io("can't write", &path, e));
            }
            Err(HypervisorError::State(format!(
                "{} is written by the machine in {by} already",
                top.display()
            )))
        }
        Err(e) => Err(io("can't write", &path, e)),
    }
}

/// The same for a disk that may be this machine's own already; whether it is now.
pub(super) fn try_lock_disk(top: &Path, run_dir: &Path) -> Result<bool, HypervisorError> {
    let ours =
        std::fs::read(lock_path(top)).is_ok_and(|by| by == run_dir.as_os_str().as_encoded_bytes());
    if ours {
        return Ok(true);
    }
    match lock_disk(top, run_dir) {
        Ok(()) => Ok(true),
        Err(HypervisorError::State(_)) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn unlock_disk(top: &Path) {
    let _ = std::fs::remove_file(lock_path(top));
}

#[async_trait]
impl Instance for Machine {
    fn watch(&self) -> watch::Receiver<InstanceState> {
        self.state.subscribe()
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn request(&self) -> StartRequest {
        self.request.clone()
    }

    async fn suspend(&self, out: &Path) -> Result<DeltaSummary, HypervisorError> {
        if self.request.from.shares().is_none() {
            return Err(HypervisorError::State(
                "the machine shares no memory with its release: stop it instead".into(),
            ));
        }
        let summary = self.save(out, false).await?;
        self.process_gone("suspended", true);
        Ok(summary)
    }

    async fn capture(&self, out: &Path) -> Result<DeltaSummary, HypervisorError> {
        self.save(out, true).await
    }

    async fn own_bytes(&self) -> Result<Option<u64>, HypervisorError> {
        self.must_run()?;
        let own = u64::from(self.request.size.memory_mib) * (1 << 20) / 100
            * self.config.fork_pss_percent;
        Ok(self.request.from.shares().map(|_| own))
    }

    async fn send(
        &self,
        _way: MoveWay,
        _bytes_per_second: Option<u64>,
        before_still: Before,
        out: tokio::sync::mpsc::Sender<Vec<u8>>,
    ) -> Result<Sent, HypervisorError> {
        let _busy = self.busy.lock().await;
        self.must_run()?;
        if self.standing().is_some() {
            return Err(HypervisorError::State("it is being moved already".into()));
        }
        if self.world.fault(&self.request.desktop) == Some(Fault::NeverSent) {
            out.closed().await;
            return Err(HypervisorError::State("nobody takes it any more".into()));
        }
        let release = match &self.request.from {
            StartFrom::Fork { sealed }
            | StartFrom::Resume { sealed, .. }
            | StartFrom::HandOut { sealed, .. }
            | StartFrom::Arrive {
                sealed: Some(sealed),
            } => Some(sealed.release.clone()),
            _ => None,
        };
        let travelling = Travelling {
            release,
            size: self.request.size,
            platform: self.platform.clone(),
            desktop: self.request.desktop.clone(),
        };
        let piece =
            serde_json::to_vec(&travelling).map_err(|e| HypervisorError::State(e.to_string()))?;
        let bytes = piece.len() as u64;
        tokio::time::sleep(Duration::from_millis(self.config.save_ms)).await;
        self.must_run()?;
        before_still.await;
        if out.is_closed() {
            return Err(HypervisorError::State("nobody takes it any more".into()));
        }
        let stood_still = Some(Instant::now());
        *self.standing() = Some(self.world.take_overs(&self.request.disk.top));
        self.keep(self.usable())?;
        out.send(piece)
            .await
            .map_err(|_| HypervisorError::State("the way to the other host broke".into()))?;
        Ok(Sent {
            bytes,
            pages: 1,
            usable: self.usable().unwrap_or_default(),
            stood_still,
        })
    }

    async fn hand_over(&self) -> Result<(), HypervisorError> {
        self.world.unlock(self);
        Ok(())
    }

    async fn take_back(&self) -> Result<TakenBack, HypervisorError> {
        self.must_run()?;
        if !self.world.try_lock(self)? {
            return Ok(TakenBack::Elsewhere);
        }
        let then = *self.standing();
        match then {
            Some(then) if then != self.world.take_overs(&self.request.disk.top) => {
                Ok(TakenBack::Outdated)
            }
            then => {
                *self.standing() = None;
                self.keep(self.usable())?;
                if then.is_some() {
                    self.world.record(&self.request, SimEventKind::TookBack);
                }
                Ok(TakenBack::GoesOn)
            }
        }
    }

    async fn receive(
        &self,
        mut input: tokio::sync::mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), HypervisorError> {
        let StartFrom::Arrive { sealed } = &self.request.from else {
            return Err(HypervisorError::State(
                "the machine does not wait for a desktop to arrive".into(),
            ));
        };
        let mut all = Vec::new();
        while let Some(piece) = input.recv().await {
            all.extend(piece);
        }
        if let Some(Fault::Receive(why)) = self.world.fault(&self.request.desktop) {
            return Err(HypervisorError::State(why));
        }
        let came: Travelling = serde_json::from_slice(&all)
            .map_err(|e| HypervisorError::State(format!("what arrived is damaged: {e}")))?;
        let release = sealed.as_ref().map(|s| s.release.clone());
        if (came.release != release && release.is_some())
            || came.size != self.request.size
            || came.desktop != self.request.desktop
        {
            return Err(HypervisorError::State(
                "what arrives is another desktop than the one that is waited for".into(),
            ));
        }
        if let Some(difference) = came.platform.difference(&self.platform) {
            return Err(HypervisorError::State(format!(
                "the desktop comes from another platform: {difference}"
            )));
        }
        Ok(())
    }

    async fn take_over(&self, usable: Usable) -> Result<(), HypervisorError> {
        if !self.world.try_lock(self)? {
            return Err(HypervisorError::State(
                "the disk is in another machine's hands: the desktop went on where it was".into(),
            ));
        }
        let came = self.state.send_if_modified(|state| match state {
            InstanceState::Starting { .. } => {
                *state = InstanceState::Running {
                    usable: usable.clone(),
                };
                true
            }
            _ => false,
        });
        if !came {
            self.world.unlock(self);
            return Err(HypervisorError::State(
                "the machine does not wait for a desktop any more".into(),
            ));
        }
        self.world.taken_over(&self.request.disk.top);
        self.world.record(&self.request, SimEventKind::TookOver);
        self.keep(Some(usable))
    }

    async fn seal(&self) -> Result<SealSummary, HypervisorError> {
        let _busy = self.busy.lock().await;
        self.must_run()?;
        let StartFrom::ColdForSeal { device_state, .. } = &self.request.from else {
            return Err(HypervisorError::State(
                "the machine was not started to be sealed".into(),
            ));
        };
        if let Some(Fault::Save(why)) = self.world.fault(&self.request.desktop) {
            return Err(HypervisorError::State(why));
        }
        tokio::time::sleep(Duration::from_millis(self.config.save_ms)).await;
        self.must_run()?;
        std::fs::write(device_state, b"device state of a simulated machine")
            .map_err(|e| io("can't write", device_state, e))?;
        let guest_helper = matches!(
            &*self.state.borrow(),
            InstanceState::Running { usable } if usable.guest_helper
        );
        self.world.record(&self.request, SimEventKind::Sealed);
        self.process_gone("sealed", true);
        Ok(SealSummary {
            platform: self.platform.clone(),
            size: self.request.size,
            guest_helper,
        })
    }

    async fn end(&self, patience: Duration) -> Result<(), HypervisorError> {
        let _busy = self.busy.lock().await;
        let how = match patience.is_zero() {
            true => "ended",
            false => "the guest shut down, asked through its helper",
        };
        self.process_gone(how, true);
        let dir = &self.request.run_dir;
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("can't remove", dir, e)),
            _ => Ok(()),
        }
    }

    async fn vnc(&self) -> Result<Box<dyn Stream>, HypervisorError> {
        if let InstanceState::Ended { .. } = &*self.state.borrow() {
            return Err(HypervisorError::State("the machine has ended".into()));
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (screen, mut state) = (self.screen.clone(), self.state.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                // A viewer that goes away is no error.
                _ = rfb::serve(ours, screen) => {}
                _ = state.wait_for(|s| matches!(s, InstanceState::Ended { .. })) => {}
            }
        });
        Ok(Box::new(theirs))
    }

    async fn spice(&self) -> Result<Box<dyn Stream>, HypervisorError> {
        if let InstanceState::Ended { .. } = &*self.state.borrow() {
            return Err(HypervisorError::State("the machine has ended".into()));
        }
        if !self.request.spice {
            return Err(HypervisorError::State(
                "this desktop runs without SPICE: it was started before that was chosen".into(),
            ));
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let mut state = self.state.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                // A client that goes away is no error.
                _ = spice::serve(ours) => {}
                _ = state.wait_for(|s| matches!(s, InstanceState::Ended { .. })) => {}
            }
        });
        Ok(Box::new(theirs))
    }

    async fn usage(&self) -> Result<Usage, HypervisorError> {
        if let InstanceState::Ended { .. } = &*self.state.borrow() {
            return Err(HypervisorError::State("the machine has ended".into()));
        }
        let nominal = u64::from(self.request.size.memory_mib) * 1024;
        let pss_kib = match self.request.from {
            StartFrom::Cold
            | StartFrom::ColdForSeal { .. }
            | StartFrom::Arrive { sealed: None } => nominal,
            _ => nominal * self.config.fork_pss_percent / 100,
        };
        Ok(Usage {
            pss_kib,
            rss_kib: nominal,
            cpu_ms: self.began.elapsed().as_millis() as u64 / 50,
            read_bytes: 0,
            written_bytes: 0,
        })
    }

    async fn set_clipboard(&self, text: &str) -> Result<(), HypervisorError> {
        self.must_run()?;
        *self
            .clipboard
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = text.to_owned();
        Ok(())
    }

    async fn clipboard(&self) -> Result<String, HypervisorError> {
        self.must_run()?;
        Ok(self
            .clipboard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }
}
