//! What all parts of a running agent share.

use crate::config::HostConfig;
use crate::console::Consoles;
use crate::desktop::{Actor, Desktop};
use crate::known::{Known, KnownStore};
use crate::moves::Moves;
use crate::observe::Observatory;
use crate::releases::Releases;
use crate::replica::{Need, Replica};
use crate::seal::Seals;
use crate::tiers::Tiers;
use lyceum_hypervisor::{Hypervisor, Instance};
use lyceum_model::{Accelerator, DesktopId, Generation, Platform, ReleaseId, ReleaseManifest};
use lyceum_proto::ErrorBody;
use lyceum_proto::host::HostFacts;
use lyceum_wire::Renewing;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running agent.
pub(crate) struct Agent {
    pub(crate) config: HostConfig,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) platform: Platform,
    pub(crate) tiers: Tiers,
    pub(crate) releases: Arc<Releases>,
    pub(crate) replica: Option<Arc<Replica>>,
    pub(crate) known: KnownStore,
    pub(crate) observatory: Observatory,
    pub(crate) seals: Seals,
    pub(crate) moves: Moves,
    pub(crate) identity: Renewing,
    pub(crate) network: crate::network::Network,
    /// Where other hosts send their desktops, when that is an address of its own.
    pub(crate) migration_url: Option<String>,
    pub(crate) consoles: Consoles,
    pub(crate) going_off: crate::power::GoingOff,
    /// Memory that desktops may use, MiB.
    pub(crate) memory_mib: u64,
    /// Asks everybody to come to an end: what must not be interrupted is finished first.
    pub(crate) shutdown: CancellationToken,
    /// Ends everything where it is, as if the process were gone.
    pub(crate) kill: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Cold boots take long: they have their own slots, so that forks never wait behind them.
    warm_slots: Arc<Semaphore>,
    cold_slots: Arc<Semaphore>,
    desktops: Mutex<HashMap<DesktopId, Desktop>>,
    /// Machines that are there and could not be taken over yet.
    strangers: Mutex<HashSet<DesktopId>>,
}

impl Agent {
    #[allow(clippy::too_many_arguments)] // Built in one place only.
    pub(crate) fn new(
        config: HostConfig,
        hypervisor: Arc<dyn Hypervisor>,
        releases: Releases,
        replica: Option<Arc<Replica>>,
        known: KnownStore,
        seals: Seals,
        identity: Renewing,
        migration_url: Option<String>,
        network: crate::network::Network,
        memory_mib: u64,
        shutdown: CancellationToken,
        kill: CancellationToken,
    ) -> Arc<Agent> {
        let slots = config.starts_at_once();
        Arc::new(Agent {
            tiers: Tiers::new(&config),
            platform: hypervisor.platform(),
            hypervisor,
            releases: Arc::new(releases),
            replica,
            known,
            observatory: Observatory::new(crate::load::unmeasured(memory_mib)),
            seals,
            moves: Moves::new(config.moves),
            identity,
            network,
            migration_url,
            consoles: Consoles::default(),
            going_off: Default::default(),
            memory_mib,
            shutdown,
            kill,
            tasks: TaskTracker::new(),
            warm_slots: Arc::new(Semaphore::new(slots)),
            cold_slots: Arc::new(Semaphore::new(slots)),
            desktops: Mutex::new(HashMap::new()),
            strangers: Mutex::new(HashSet::new()),
            config,
        })
    }

    /// Runs a task that ends with the agent.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = kill.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Waits until one more start may be on its way. `None` never happens while the agent lives.
    pub(crate) async fn start_slot(&self, cold: bool) -> Option<OwnedSemaphorePermit> {
        let slots = if cold {
            &self.cold_slots
        } else {
            &self.warm_slots
        };
        slots.clone().acquire_owned().await.ok()
    }

    /// Whether as many desktops are being forked as may be at once.
    pub(crate) fn starts_are_full(&self) -> bool {
        self.warm_slots.available_permits() == 0
    }

    /// The actor of a desktop that was known at the start of the agent.
    pub(crate) fn add(self: &Arc<Self>, id: DesktopId, actor: Actor, handle: Desktop) {
        self.lock().insert(id, handle);
        self.spawn(actor.run());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DesktopId, Desktop>> {
        self.desktops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desktop, if it has been heard of.
    pub(crate) fn desktop(&self, id: &DesktopId) -> Option<Desktop> {
        self.lock().get(id).cloned()
    }

    /// The desktop; its actor is started when it is new.
    pub(crate) fn desktop_or_new(self: &Arc<Self>, id: &DesktopId) -> Desktop {
        let mut desktops = self.lock();
        if let Some(handle) = desktops.get(id) {
            return handle.clone();
        }
        let (actor, handle) = Actor::new(self.clone(), id.clone(), Known::default(), None);
        desktops.insert(id.clone(), handle.clone());
        drop(desktops);
        self.spawn(actor.run());
        handle
    }

    /// Every machine of a desktop.
    pub(crate) fn instances(&self) -> Vec<(DesktopId, Arc<dyn Instance>)> {
        self.lock()
            .iter()
            .filter_map(|(id, d)| Some((id.clone(), d.instance()?)))
            .collect()
    }

    /// Notes that a desktop's machine could, or could not yet, be taken over.
    pub(crate) fn not_adopted(&self, id: &DesktopId, stranger: bool) {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if stranger {
            strangers.insert(id.clone());
        } else {
            strangers.remove(id);
        }
    }

    /// Refuses every request for a desktop whose machine is there and not in our hands.
    pub(crate) fn can_be_asked(&self, id: &DesktopId) -> Result<(), ErrorBody> {
        let strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if strangers.contains(id) {
            return Err(ErrorBody {
                code: lyceum_proto::code::STATE.into(),
                message: format!(
                    "the machine of desktop {id} was found and can't be taken over yet: it is tried again, see the log of host {}",
                    self.config.name
                ),
            });
        }
        Ok(())
    }

    /// Whether a desktop is spoken of under this generation or a newer one already.
    pub(crate) fn is_known(&self, id: &DesktopId, generation: Generation) -> bool {
        self.observatory
            .get(id)
            .is_some_and(|seen| seen.generation >= generation)
    }

    /// Refuses a start that this host has no memory for, whatever is reported
    /// about it: between two samples a whole class can be started.
    pub(crate) fn has_memory(&self) -> Result<(), ErrorBody> {
        self.has_memory_for(0)
    }

    /// The same for a desktop that needs so many MiB, after all that is on its way here already.
    pub(crate) fn has_memory_for(&self, need_mib: u64) -> Result<(), ErrorBody> {
        let floor = self.config.marks.refuse_mib;
        let coming = self.moves.on_their_way_mib();
        let refuse = |message: String| {
            Err(ErrorBody {
                code: lyceum_proto::code::STATE.into(),
                message,
            })
        };
        match crate::load::available_mib() {
            Some(available) if available < floor => refuse(format!(
                "host {} has {available} MiB of memory left and starts nothing below {floor} MiB: start the desktop on another host, or end others first",
                self.config.name
            )),
            Some(available) if available < floor + coming + need_mib => refuse(format!(
                "host {} has {available} MiB of memory left; {coming} MiB of it are for desktops that are on their way, and {need_mib} MiB more with {floor} MiB to spare are not there: choose another host",
                self.config.name
            )),
            _ => Ok(()),
        }
    }

    /// A release's folder and manifest, every byte of it verified: on this host's own disk if it
    /// is complete there, else on the file server's tier.
    pub(crate) async fn release(
        self: &Arc<Self>,
        id: &ReleaseId,
    ) -> Result<(PathBuf, Arc<ReleaseManifest>), ErrorBody> {
        if let Some(replica) = &self.replica
            && let Some(found) = replica.verified(id).await
        {
            return Ok(found);
        }
        let folder = self.tiers.release(id);
        let manifest = self.releases.verified(id, folder.clone()).await?;
        if let Some(replica) = &self.replica
            && replica.wants(id)
        {
            // For the next time; nobody waits for it.
            let (agent, id) = (self.clone(), id.clone());
            self.spawn(async move { agent.replicate(&id, Need::Used).await });
        }
        Ok((folder, manifest))
    }

    /// Copies a release to this host's own disk, where there is one, and waits until it is there.
    /// When it can't be, desktops use the file server's.
    pub(crate) async fn replicate(self: &Arc<Self>, id: &ReleaseId, need: Need) {
        let Some(replica) = self.replica.clone() else {
            return;
        };
        let from = self.tiers.release(id);
        let running: HashSet<ReleaseId> = self
            .instances()
            .iter()
            .filter_map(|(_, machine)| {
                let base = machine.request().disk.base.clone()?;
                base.parent()?.file_name()?.to_str()?.parse().ok()
            })
            .collect();
        let wanted = id.clone();
        let filled =
            tokio::task::spawn_blocking(move || replica.fill(&wanted, &from, need, &running));
        match filled.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(release = %id, "{e}"),
            Err(e) => tracing::warn!(release = %id, "copying it broke off: {e}"),
        }
    }

    /// What this host is.
    pub(crate) fn facts(&self) -> HostFacts {
        let warnings = match self.platform.accelerator {
            Accelerator::Kvm => Vec::new(),
            Accelerator::Tcg => vec![
                "KVM does not work on this host, so desktops run in software emulation, about ten times slower: see `lyceum doctor`".to_owned(),
            ],
            Accelerator::Simulated => vec!["desktops on this host are simulated".to_owned()],
        };
        HostFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            platform: self.platform.clone(),
            warnings,
            cpus: crate::config::cpus(),
            load: self.observatory.load(),
            migration_url: self.migration_url.clone(),
            network: self.network.facts(),
            tiers: self.tiers.identity(),
            replica: self.replica.as_ref().map(|r| r.facts()),
            can_power_off: self.config.power_off.is_some(),
            spice: self.hypervisor.has_spice(),
            cores: Some(
                crate::cores::cores().map_or(f64::from(crate::config::cpus()), |c| c.limit),
            ),
        }
    }
}
