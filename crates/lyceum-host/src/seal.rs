//! Seals: a draft's disk becomes sealed memory and disk in the staging folder.
//!
//! ```text
//!   boot the copy of the disk ─► usable, helper there? ─► seal ─► fork it once ─► Sealed
//!        │ never usable               │ no helper            │ fails      │ fails
//!        ▼                            ▼                      ▼            ▼
//!      Failed                     ColdOnly (fresh copy)    Failed       Failed
//! ```
//!
//! A job is written down before anything is done. Whatever interrupts it, its
//! machines are ended and the staging folder is removed: at once, or when the agent
//! is started again.

use crate::HostError;
use crate::agent::Agent;
use lyceum_hypervisor::{
    DiskFiles, HypervisorError, Identity, Instance, InstanceState, SealedFiles, StartFrom,
    StartRequest, Usable,
};
use lyceum_model::disk::layout;
use lyceum_model::{DesktopId, DraftId, Durability, Generation, Hostname};
use lyceum_proto::host::{SealOutcome, SealRequest, SealStatus};
use lyceum_wire::{ApiError, write_atomically};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Overlay of the trial fork, in the staging folder.
const TRIAL: &str = "trial.qcow2";
/// The longest a fork may take that is as good as its release.
const TRIAL_MS: u64 = 120_000;

/// All jobs.
pub(crate) struct Seals {
    dir: PathBuf,
    jobs: Mutex<HashMap<DraftId, Job>>,
    /// One change of the set of jobs at a time.
    gate: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Job {
    cancel: CancellationToken,
    over: CancellationToken,
}

/// Why a seal did not come to its end.
enum Broken {
    /// The disk is fine, the memory can't be sealed.
    ColdOnly(String),
    Failed(String),
}

impl From<HypervisorError> for Broken {
    fn from(e: HypervisorError) -> Self {
        Broken::Failed(e.to_string())
    }
}

impl Seals {
    /// Kept in this directory.
    pub(crate) fn open(dir: PathBuf) -> Result<Seals, HostError> {
        std::fs::create_dir_all(&dir).map_err(|e| HostError::file("making", &dir, e))?;
        Ok(Seals {
            dir,
            jobs: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        })
    }

    fn path(&self, draft: &DraftId) -> PathBuf {
        self.dir.join(format!("{draft}.json"))
    }

    fn keep(&self, status: &SealStatus) -> Result<(), HostError> {
        let path = self.path(&status.draft);
        serde_json::to_vec(status)
            .map_err(std::io::Error::from)
            .and_then(|text| write_atomically(&path, &text, 0o600))
            .map_err(|e| HostError::file("writing", &path, e))
    }

    fn load(&self) -> Result<Vec<SealStatus>, HostError> {
        let fail = |e| HostError::file("reading", &self.dir, e);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = std::fs::read(&path).map_err(|e| HostError::file("reading", &path, e))?;
            match serde_json::from_slice(&text) {
                Ok(status) => all.push(status),
                Err(e) => {
                    return Err(HostError::Damaged {
                        path,
                        why: e.to_string(),
                    });
                }
            }
        }
        Ok(all)
    }
}

/// After a restart: clears up what was interrupted and reports the rest.
pub(crate) async fn recover(agent: &Arc<Agent>) -> Result<(), HostError> {
    for folder in ["s", "t"] {
        end_leftovers(agent, &agent.config.run_dir.join(folder)).await?;
    }
    for mut status in agent.seals.load()? {
        if status.outcome.is_none() {
            let staging = agent.tiers.staging(&status.draft);
            remove_dir(&staging).map_err(|e| HostError::file("removing", &staging, e))?;
            status.outcome = Some(SealOutcome::Failed {
                message: format!(
                    "host {} was restarted in the middle of it, and nothing of it is left: seal the draft again",
                    agent.config.name
                ),
            });
            agent.seals.keep(&status)?;
        }
        agent.observatory.seal(status);
    }
    Ok(())
}

async fn end_leftovers(agent: &Arc<Agent>, folder: &Path) -> Result<(), HostError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(HostError::file("reading", folder, e)),
    };
    for entry in entries.flatten() {
        let run_dir = entry.path();
        let ended = match agent.hypervisor.adopt(&run_dir).await {
            Ok(Some(machine)) => machine.end(Duration::ZERO).await,
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        ended.map_err(|e| HostError::Leftover {
            path: run_dir.clone(),
            why: e.to_string(),
        })?;
        remove_dir(&run_dir).map_err(|e| HostError::file("removing", &run_dir, e))?;
    }
    Ok(())
}

fn remove_dir(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Begins the job, or answers how it is doing.
pub(crate) async fn begin(
    agent: &Arc<Agent>,
    draft: DraftId,
    request: SealRequest,
) -> Result<SealStatus, ApiError> {
    request
        .size
        .check()
        .map_err(|e| ApiError::invalid(e.to_string()))?;
    if request.ready_timeout_ms == 0 {
        return Err(ApiError::invalid("ready_timeout_ms must be 1 or more"));
    }
    let seals = &agent.seals;
    let _gate = seals.gate.lock().await;
    if let Some(status) = agent.observatory.get_seal(&draft) {
        return Ok(status);
    }
    agent.tiers.check()?;
    agent.has_memory()?;
    let disk = agent.tiers.staging(&draft).join(layout::RELEASE_DISK);
    if !disk.is_file() {
        return Err(ApiError::invalid(format!(
            "{} is not there: let the storage agent make the staging folder first",
            disk.display()
        )));
    }
    let status = SealStatus {
        draft: draft.clone(),
        step: "waiting for its turn".into(),
        outcome: None,
    };
    seals
        .keep(&status)
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let job = Job {
        // Shutting down calls it off too.
        cancel: agent.shutdown.child_token(),
        over: CancellationToken::new(),
    };
    seals
        .jobs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(draft.clone(), job.clone());
    agent.observatory.seal(status.clone());
    let work = Sealing {
        agent: agent.clone(),
        draft,
        request,
        cancel: job.cancel,
        machine: None,
    };
    agent.spawn(async move {
        work.run().await;
        job.over.cancel();
    });
    Ok(status)
}

/// Calls the job off and waits until nothing is left of it; forgets it when it is over.
pub(crate) async fn cancel(agent: &Arc<Agent>, draft: &DraftId) -> Result<(), ApiError> {
    let seals = &agent.seals;
    let _gate = seals.gate.lock().await;
    // It stays among the jobs until it is over: whoever asks may go away while this waits, and the
    // next one must wait for the same end, or the job would speak up again after it was forgotten.
    let jobs = || seals.jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let job = jobs().get(draft).cloned();
    if let Some(job) = job {
        job.cancel.cancel();
        job.over.cancelled().await;
        jobs().remove(draft);
    }
    let path = seals.path(draft);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(ApiError::internal(
                HostError::file("removing", &path, e).to_string(),
            ));
        }
        _ => {}
    }
    agent.observatory.forget_seal(draft);
    Ok(())
}

struct Sealing {
    agent: Arc<Agent>,
    draft: DraftId,
    request: SealRequest,
    cancel: CancellationToken,
    /// Its machine right now.
    machine: Option<Arc<dyn Instance>>,
}

impl Sealing {
    async fn run(mut self) {
        let result = self.work().await;
        let mut left = self.end_machine().await.err();
        let staging = self.agent.tiers.staging(&self.draft);
        let _ = std::fs::remove_file(staging.join(TRIAL));
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(Broken::ColdOnly(reason)) => match self.fresh_copy().await {
                Ok(()) => SealOutcome::ColdOnly { reason },
                Err(e) => failed(
                    &staging,
                    format!("{reason}; and the disk could not be copied anew: {e}"),
                    &mut left,
                ),
            },
            Err(Broken::Failed(message)) => failed(&staging, message, &mut left),
        };
        if let Some(left) = left {
            tracing::error!(draft = %self.draft, "its seal left something behind: {left}");
        }
        let status = SealStatus {
            draft: self.draft.clone(),
            step: "over".into(),
            outcome: Some(outcome),
        };
        if let Err(e) = self.agent.seals.keep(&status) {
            tracing::error!("{e}");
        }
        self.agent.observatory.seal(status);
    }

    fn step(&self, step: &str) {
        self.agent.observatory.seal(SealStatus {
            draft: self.draft.clone(),
            step: step.into(),
            outcome: None,
        });
    }

    fn called_off(&self) -> Broken {
        Broken::Failed(if self.agent.shutdown.is_cancelled() {
            "the host agent was stopped in the middle of it, and nothing of it is left: seal the draft again".into()
        } else {
            "it was called off, and nothing of it is left".into()
        })
    }

    async fn work(&mut self) -> Result<SealOutcome, Broken> {
        let staging = self.agent.tiers.staging(&self.draft);
        let ram = staging.join(layout::RELEASE_RAM);
        let device_state = staging.join(layout::RELEASE_DEVICE_STATE);
        let disk = staging.join(layout::RELEASE_DISK);
        let slot = tokio::select! {
            () = self.cancel.cancelled() => return Err(self.called_off()),
            slot = self.agent.start_slot(true) => slot,
        };
        self.step("booting");
        let boot = StartRequest {
            run_dir: self.agent.config.seal_run_dir(&self.draft),
            disk: DiskFiles {
                top: disk.clone(),
                base: None,
                release: None,
                durability: Durability::Safe,
                cdrom: None,
            },
            from: StartFrom::ColdForSeal {
                ram: ram.clone(),
                device_state: device_state.clone(),
            },
            identity: None,
            ready_timeout_ms: self.request.ready_timeout_ms,
            ..self.machine_request()
        };
        let usable = self.start(boot, "").await?;
        drop(slot);
        if !usable.guest_helper {
            return Err(Broken::ColdOnly(
                "the guest boots, but Lyceum's helper does not answer in it, so identity could not be renewed in a fork: install the helper in the draft, or use the release for cold boots".into(),
            ));
        }
        self.step("saving memory");
        let Some(machine) = self.machine.clone() else {
            return Err(Broken::Failed("its machine is gone".into()));
        };
        let summary = tokio::select! {
            () = self.cancel.cancelled() => return Err(self.called_off()),
            summary = machine.seal() => summary
                .map_err(|e| Broken::Failed(format!("its memory could not be sealed: {e}")))?,
        };
        self.end_machine().await?;

        self.step("trying a fork");
        let overlay = staging.join(TRIAL);
        self.trial_overlay(&disk, &overlay).await?;
        let release = self
            .draft
            .as_str()
            .parse()
            .map_err(|e: lyceum_model::id::IdError| Broken::Failed(e.to_string()))?;
        let trial = StartRequest {
            run_dir: self.agent.config.trial_run_dir(&self.draft),
            disk: DiskFiles {
                top: overlay,
                base: Some(disk),
                release: None,
                durability: Durability::Throwaway,
                cdrom: None,
            },
            from: StartFrom::Fork {
                sealed: SealedFiles {
                    release,
                    ram,
                    device_state,
                },
            },
            identity: Some(Identity {
                hostname: Hostname::from_text("trial", ""),
                machine_id: uuid::Uuid::new_v4().simple().to_string(),
            }),
            ready_timeout_ms: self.request.ready_timeout_ms.min(TRIAL_MS),
            ..self.machine_request()
        };
        let began = Instant::now();
        self.start(trial, "trying a fork: ")
            .await
            .map_err(|e| match e {
                Broken::Failed(why) | Broken::ColdOnly(why) => {
                    Broken::Failed(format!("a fork of it does not come up: {why}"))
                }
            })?;
        let fork_usable_ms = began.elapsed().as_millis() as u64;
        self.end_machine().await?;
        if self.cancel.is_cancelled() {
            return Err(self.called_off());
        }
        Ok(SealOutcome::Sealed {
            platform: summary.platform,
            guest_helper: summary.guest_helper,
            fork_usable_ms,
        })
    }

    /// What both machines have in common.
    fn machine_request(&self) -> StartRequest {
        let id = format!("seal-{}", self.draft);
        StartRequest {
            desktop: id.parse().unwrap_or_else(|_| DesktopId::new()),
            generation: Generation(1),
            run_dir: PathBuf::new(),
            size: self.request.size,
            disk: DiskFiles {
                top: PathBuf::new(),
                base: None,
                release: None,
                durability: Durability::Safe,
                cdrom: None,
            },
            from: StartFrom::Cold,
            vm_generation_id: uuid::Uuid::new_v4(),
            identity: None,
            nic: None,
            spice: false,
            ready_timeout_ms: self.request.ready_timeout_ms,
        }
    }

    /// Starts a machine and waits until it is usable; `what` stands before its steps.
    async fn start(&mut self, request: StartRequest, what: &str) -> Result<Usable, Broken> {
        let limit = Duration::from_millis(request.ready_timeout_ms);
        if let Some(parent) = request.run_dir.parent() {
            crate::make_run_dir(parent).map_err(|e| Broken::Failed(e.to_string()))?;
        }
        let machine = self
            .agent
            .hypervisor
            .start(request)
            .await
            .map_err(|e| Broken::Failed(e.to_string()))?;
        let mut state = machine.watch();
        self.machine = Some(machine);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let mut last = String::new();
        loop {
            match state.borrow_and_update().clone() {
                InstanceState::Running { usable } => return Ok(usable),
                InstanceState::Ended { reason, .. } => {
                    return Err(Broken::Failed(format!("its machine ended: {reason}")));
                }
                InstanceState::Starting { step } => {
                    if step != last {
                        self.step(&format!("{what}{step}"));
                    }
                    last = step;
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(self.called_off()),
                () = &mut deadline => return Err(Broken::Failed(format!(
                    "the guest was not ready after {} s (last step: {last}): boot the draft and see in its console why",
                    limit.as_secs()
                ))),
                changed = state.changed() => changed.map_err(|_| {
                    Broken::Failed("its machine was lost".into())
                })?,
            }
        }
    }

    async fn end_machine(&mut self) -> Result<(), HypervisorError> {
        match self.machine.take() {
            Some(machine) => machine.end(Duration::ZERO).await,
            None => Ok(()),
        }
    }

    /// A throw-away overlay over the sealed disk that the machines' user can write.
    async fn trial_overlay(&self, base: &Path, top: &Path) -> Result<(), Broken> {
        let output = tokio::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(base)
            .args(["-o", "extended_l2=on,cluster_size=65536"])
            .arg(top)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| {
                Broken::Failed(format!(
                    "qemu-img can't be run ({e}): install qemu-utils on this host"
                ))
            })?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Broken::Failed(format!(
                "no overlay could be made over the sealed disk: {}",
                why.trim()
            )));
        }
        let mine = |e: std::io::Error| Broken::Failed(format!("{}: {e}", top.display()));
        // Whoever owns the sealed disk may use it; so may the machine that wrote it.
        copy_owner(base, top).map_err(mine)
    }

    /// The disk was booted and not ended in good order: the release gets a new copy.
    async fn fresh_copy(&self) -> std::io::Result<()> {
        let staging = self.agent.tiers.staging(&self.draft);
        let from = self.agent.tiers.draft(&self.draft);
        tokio::task::spawn_blocking(move || {
            for name in [layout::RELEASE_RAM, layout::RELEASE_DEVICE_STATE] {
                match std::fs::remove_file(staging.join(name)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            let (disk, new) = (staging.join(layout::RELEASE_DISK), staging.join("disk.new"));
            std::fs::copy(&from, &new)?;
            std::fs::File::open(&new)?.sync_all()?;
            copy_owner(&disk, &new)?;
            std::fs::rename(&new, &disk)?;
            std::fs::File::open(&staging)?.sync_all()
        })
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
    }
}

fn copy_owner(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let (from, now) = (std::fs::metadata(from)?, std::fs::metadata(to)?);
    if (from.uid(), from.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(to, Some(from.uid()), Some(from.gid()))
}

fn failed(staging: &Path, message: String, left: &mut Option<HypervisorError>) -> SealOutcome {
    if let Err(source) = remove_dir(staging) {
        *left = Some(HypervisorError::Io {
            what: format!("can't remove {}", staging.display()),
            source,
        });
    }
    SealOutcome::Failed { message }
}
