//! A hypervisor without machines, for tests and the simulator: the agent above it
//! is the real one.
//!
//! A [`SimWorld`] is what outlives an agent: machines, who writes which disk, what
//! happened. An agent gets a [`SimHypervisor`] on it; a new one on the same world
//! finds the machines again. With [`SimConfig::persist`] they are also found by
//! another process, through files in their run directories, and writers of a disk
//! are seen across processes.
//!
//! What it is strict about, because agents must be: a disk has one writer, a run
//! directory one machine, files that a start names must exist, a delta belongs
//! to its release, platform and size.

mod instance;
mod rfb;
mod spice;

use crate::*;
use instance::Machine;
use lyceum_model::{Accelerator, DesktopId, Platform};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How the simulated machines behave. Times are those of one machine alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Milliseconds until a fork, resume or hand-out is usable.
    pub fork_ms: u64,
    /// Milliseconds until a cold boot is usable.
    pub cold_ms: u64,
    /// Milliseconds a suspend, capture or seal takes.
    pub save_ms: u64,
    /// Proportional set size of a fork, in percent of its nominal memory; a cold boot uses all of it.
    pub fork_pss_percent: u64,
    /// Keep machines in files, so that they outlive the process.
    pub persist: bool,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            fork_ms: 1,
            cold_ms: 5,
            save_ms: 1,
            fork_pss_percent: 8,
            persist: false,
        }
    }
}

/// What is to go wrong with a desktop's machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// [`Hypervisor::start`] fails.
    Start(String),
    /// A fork is refused as not possible.
    NotForkable(String),
    /// It stays in [`InstanceState::Starting`].
    NeverReady,
    /// The guest has no helper.
    NoHelper,
    /// Once usable, it ends by itself after this time.
    EndsAfter(Duration),
    /// Suspend, capture and seal fail; the machine goes on.
    Save(String),
    /// Sending it to another host never comes to its end.
    NeverSent,
    /// What arrives can't be taken in.
    Receive(String),
}

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct SimEvent {
    /// To whose machine.
    pub desktop: DesktopId,
    /// Under which generation.
    pub generation: lyceum_model::Generation,
    /// What.
    pub what: SimEventKind,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimEventKind {
    /// Started from sealed memory.
    Forked,
    /// Started from a delta.
    Resumed,
    /// Started from another desktop's delta.
    HandedOut,
    /// Powered on.
    Booted,
    /// Became usable.
    Usable,
    /// Found again by a new agent.
    Adopted,
    /// Its delta was written.
    Saved,
    /// Became sealed memory.
    Sealed,
    /// Waits for what another host sends.
    Waits,
    /// Came from another host and goes on here.
    TookOver,
    /// Did not go to another host after all, and goes on here.
    TookBack,
    /// Its process is gone.
    Ended,
}

#[derive(Default)]
struct Inner {
    machines: HashMap<PathBuf, Arc<Machine>>,
    /// Which run directory writes a disk.
    writers: HashMap<PathBuf, PathBuf>,
    /// How often a disk was taken over by a machine that arrived.
    taken_over: HashMap<PathBuf, u64>,
    faults: HashMap<DesktopId, Fault>,
    events: Vec<SimEvent>,
}

/// What outlives an agent.
#[derive(Clone, Default)]
pub struct SimWorld(Arc<Mutex<Inner>>);

impl SimWorld {
    /// An empty one.
    pub fn new() -> SimWorld {
        SimWorld::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half-changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this goes wrong with machines of this desktop; `None`: nothing does.
    pub fn set_fault(&self, desktop: &DesktopId, fault: Option<Fault>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => inner.faults.insert(desktop.clone(), fault),
            None => inner.faults.remove(desktop),
        };
    }

    fn fault(&self, desktop: &DesktopId) -> Option<Fault> {
        self.lock().faults.get(desktop).cloned()
    }

    /// The machine of this desktop ends as if its process had been killed.
    pub fn crash(&self, desktop: &DesktopId) {
        let machines: Vec<_> = self.lock().machines.values().cloned().collect();
        for machine in machines.iter().filter(|m| &m.request.desktop == desktop) {
            machine.process_gone("its process was killed", false);
        }
    }

    /// Everything that happened so far.
    pub fn events(&self) -> Vec<SimEvent> {
        self.lock().events.clone()
    }

    /// Desktops whose machines exist now, with their generations.
    pub fn alive(&self) -> Vec<(DesktopId, lyceum_model::Generation)> {
        let mut alive: Vec<_> = self
            .lock()
            .machines
            .values()
            .map(|m| (m.request.desktop.clone(), m.request.generation))
            .collect();
        alive.sort();
        alive
    }

    /// Those of them that do not stand still and do not wait for what another host sends.
    pub fn going(&self) -> Vec<(DesktopId, lyceum_model::Generation)> {
        let mut going: Vec<_> = self
            .lock()
            .machines
            .values()
            .filter(|m| m.goes())
            .map(|m| (m.request.desktop.clone(), m.request.generation))
            .collect();
        going.sort();
        going
    }

    /// Whether the machine has the lock of its disk now; [`SimWorld::unlock`] lets it go.
    fn try_lock(&self, machine: &Machine) -> Result<bool, HypervisorError> {
        let (run_dir, top) = (&machine.request.run_dir, &machine.request.disk.top);
        let mut inner = self.lock();
        if inner.writers.get(top).is_some_and(|by| by != run_dir) {
            return Ok(false);
        }
        if machine.config.persist && !instance::try_lock_disk(top, run_dir)? {
            return Ok(false);
        }
        inner.writers.insert(top.clone(), run_dir.clone());
        Ok(true)
    }

    fn unlock(&self, machine: &Machine) {
        let (run_dir, top) = (&machine.request.run_dir, &machine.request.disk.top);
        let mut inner = self.lock();
        if inner.writers.get(top) == Some(run_dir) {
            inner.writers.remove(top);
            if machine.config.persist {
                instance::unlock_disk(top);
            }
        }
    }

    fn take_overs(&self, top: &Path) -> u64 {
        self.lock().taken_over.get(top).copied().unwrap_or(0)
    }

    fn taken_over(&self, top: &Path) {
        *self.lock().taken_over.entry(top.to_owned()).or_default() += 1;
    }

    fn record(&self, request: &StartRequest, what: SimEventKind) {
        self.lock().events.push(SimEvent {
            desktop: request.desktop.clone(),
            generation: request.generation,
            what,
        });
    }

    /// Makes the machine known and its disk taken; what is wrong otherwise.
    fn enter(&self, machine: &Arc<Machine>) -> Result<(), HypervisorError> {
        let (run_dir, top) = (&machine.request.run_dir, &machine.request.disk.top);
        let mut inner = self.lock();
        if inner.machines.contains_key(run_dir) {
            return Err(HypervisorError::State(format!(
                "there is a machine in {} already",
                run_dir.display()
            )));
        }
        if matches!(machine.request.from, StartFrom::Arrive { .. }) {
            // It takes the disk when it takes over.
            inner.machines.insert(run_dir.clone(), machine.clone());
            return Ok(());
        }
        if let Some(other) = inner.writers.get(top) {
            return Err(HypervisorError::State(format!(
                "{} is written by the machine in {} already",
                top.display(),
                other.display()
            )));
        }
        if machine.config.persist {
            instance::lock_disk(top, run_dir)?;
        }
        inner.writers.insert(top.clone(), run_dir.clone());
        inner.machines.insert(run_dir.clone(), machine.clone());
        Ok(())
    }

    fn leave(&self, machine: &Machine) {
        let (run_dir, top) = (&machine.request.run_dir, &machine.request.disk.top);
        let mut inner = self.lock();
        inner.machines.remove(run_dir);
        if inner.writers.get(top) == Some(run_dir) {
            inner.writers.remove(top);
            if machine.config.persist {
                instance::unlock_disk(top);
            }
        }
    }
}

/// A host's hypervisor in a world. Needs a tokio runtime that lives as long as the machines.
#[derive(Clone)]
pub struct SimHypervisor {
    world: SimWorld,
    config: SimConfig,
    platform: Platform,
}

impl SimHypervisor {
    /// On this world.
    pub fn new(world: SimWorld, config: SimConfig) -> SimHypervisor {
        SimHypervisor {
            world,
            config,
            platform: Platform {
                qemu_version: "0.0.0".into(),
                machine_type: "simulated-1".into(),
                cpu_model: "simulated".into(),
                accelerator: Accelerator::Simulated,
            },
        }
    }

    /// With another platform.
    pub fn with_platform(mut self, platform: Platform) -> SimHypervisor {
        self.platform = platform;
        self
    }

    fn check_files(&self, request: &StartRequest) -> Result<(), StartError> {
        let exists = |path: &Path| match std::fs::metadata(path) {
            Ok(_) => Ok(()),
            Err(source) => Err(HypervisorError::Io {
                what: format!("can't open {}", path.display()),
                source,
            }),
        };
        exists(&request.disk.top)?;
        for path in [&request.disk.base, &request.disk.cdrom]
            .into_iter()
            .flatten()
        {
            exists(path)?;
        }
        match &request.from {
            StartFrom::Cold
            | StartFrom::ColdForSeal { .. }
            | StartFrom::Arrive { sealed: None } => {}
            StartFrom::Fork { sealed }
            | StartFrom::Arrive {
                sealed: Some(sealed),
            } => {
                exists(&sealed.ram)?;
                exists(&sealed.device_state)?;
            }
            StartFrom::Resume { sealed, delta } | StartFrom::HandOut { sealed, delta } => {
                exists(&sealed.ram)?;
                exists(&sealed.device_state)?;
                let checked = instance::check_delta(delta, sealed, request.size, &self.platform);
                if !checked.map_err(StartError::BadDelta)? {
                    return Err(StartError::BadDelta("it holds a disk alone".into()));
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Hypervisor for SimHypervisor {
    fn platform(&self) -> Platform {
        self.platform.clone()
    }

    fn has_spice(&self) -> bool {
        true
    }

    async fn start(&self, request: StartRequest) -> Result<Arc<dyn Instance>, StartError> {
        let fault = self.world.fault(&request.desktop);
        match (&fault, &request.from) {
            (Some(Fault::Start(why)), _) => {
                return Err(HypervisorError::State(why.clone()).into());
            }
            (Some(Fault::NotForkable(why)), StartFrom::Fork { .. } | StartFrom::Resume { .. }) => {
                return Err(StartError::NotForkable(why.clone()));
            }
            _ => {}
        }
        self.check_files(&request)?;
        let machine = Machine::new(self, request);
        self.world.enter(&machine)?;
        if let Err(e) = machine.make_files() {
            machine.process_gone("could not be started", true);
            return Err(e.into());
        }
        self.world.record(
            &machine.request,
            match machine.request.from {
                StartFrom::Fork { .. } => SimEventKind::Forked,
                StartFrom::Resume { .. } => SimEventKind::Resumed,
                StartFrom::HandOut { .. } => SimEventKind::HandedOut,
                StartFrom::Arrive { .. } => SimEventKind::Waits,
                StartFrom::Cold | StartFrom::ColdForSeal { .. } => SimEventKind::Booted,
            },
        );
        if matches!(machine.request.from, StartFrom::Arrive { .. }) {
            machine.clone().wait_for_arrival();
        } else {
            machine.clone().come_up(fault);
        }
        Ok(machine)
    }

    async fn verify_delta(
        &self,
        delta: &Path,
        sealed: &SealedFiles,
        size: lyceum_model::MachineSize,
    ) -> Result<(), DeltaFault> {
        instance::check_delta(delta, sealed, size, &self.platform)
            .map(drop)
            .map_err(DeltaFault::Damaged)
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Instance>>, HypervisorError> {
        let known = self.world.lock().machines.get(run_dir).cloned();
        let machine = match known {
            Some(machine) => machine,
            None if self.config.persist => match Machine::load(self, run_dir)? {
                Some(machine) => {
                    let mut inner = self.world.lock();
                    let (run_dir, top) = (&machine.request.run_dir, &machine.request.disk.top);
                    inner.writers.insert(top.clone(), run_dir.clone());
                    inner.machines.insert(run_dir.clone(), machine.clone());
                    drop(inner);
                    let fault = self.world.fault(&machine.request.desktop);
                    machine.clone().come_up(fault);
                    machine
                }
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        self.world.record(&machine.request, SimEventKind::Adopted);
        machine.adopted().await?;
        Ok(Some(machine))
    }
}

#[cfg(test)]
mod tests;
