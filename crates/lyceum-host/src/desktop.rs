//! One desktop's actor: a task that owns everything about it. It decides with the
//! [queue](crate::queue), does one thing at a time, and says what is.
//!
//! ```text
//!   command ─► Queue ─► Action ─► Work (prepare, launch, save, end) ─► Done ─► Queue ...
//!                                    instance's own state ────────────────────┘
//! ```

use crate::agent::Agent;
use crate::known::Known;
use crate::queue::{Action, Admission, Doing, Queue, Refusal, Save};
use crate::start::{self, Prepared};
use futures::future::BoxFuture;
use lyceum_hypervisor::{HypervisorError, Instance, InstanceState, StartError, StartFrom};
use lyceum_model::{DeltaId, DesktopId, Generation, Phase};
use lyceum_proto::host::{ObservedDesktop, RunRequest, SaveRequest, SavedDelta, StopRequest};
use lyceum_proto::{ErrorBody, code};
use lyceum_wire::ApiError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Where an answer goes. Nobody listening any more is fine: the work goes on.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// What a desktop is asked for.
pub(crate) enum Command {
    /// Answered once it is accepted and cannot be forgotten.
    Run(Box<RunRequest>, Instant, Reply<ObservedDesktop>),
    /// Answered when there is no machine.
    Stop(StopRequest, Reply<ObservedDesktop>),
    /// Answered when the delta is complete.
    Save(SaveRequest, bool, Reply<SavedDelta>),
}

/// A way to talk to a desktop's actor.
#[derive(Clone)]
pub(crate) struct Desktop {
    commands: mpsc::Sender<Command>,
    instance: watch::Receiver<Option<Arc<dyn Instance>>>,
}

impl Desktop {
    /// Its machine, if it has one.
    pub(crate) fn instance(&self) -> Option<Arc<dyn Instance>> {
        self.instance.borrow().clone()
    }

    /// Sends a command and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let gone = || ApiError::internal("the agent is shutting down: ask again when it is back");
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A start as it waits in the queue.
#[derive(Clone)]
struct Pending {
    run: Box<RunRequest>,
    asked: Instant,
}

/// What the actor is in the middle of.
enum Work {
    /// Checks and waiting: dropped when it is called off.
    Prepare(BoxFuture<'static, Result<Prepared, ErrorBody>>),
    /// The hypervisor is starting it: never dropped.
    #[allow(clippy::type_complexity)]
    Launch(BoxFuture<'static, (Prepared, Result<Arc<dyn Instance>, StartError>)>),
    Save(
        Save<DeltaId>,
        BoxFuture<'static, Result<SavedDelta, HypervisorError>>,
    ),
    End(BoxFuture<'static, Result<(), HypervisorError>>),
}

enum Done {
    Prepared(Result<Prepared, ErrorBody>),
    Launched(Box<Prepared>, Result<Arc<dyn Instance>, StartError>),
    Saved(Save<DeltaId>, Result<SavedDelta, HypervisorError>),
    Ended(Result<(), HypervisorError>),
}

/// How a run ended.
struct Outcome {
    phase: Phase,
    detail: String,
    delta: Option<SavedDelta>,
}

impl Outcome {
    fn stopped(detail: &str) -> Outcome {
        Outcome {
            phase: Phase::Stopped,
            detail: detail.into(),
            delta: None,
        }
    }
    fn failed(detail: String) -> Outcome {
        Outcome {
            phase: Phase::Failed,
            detail,
            delta: None,
        }
    }
}

/// The actor of a desktop.
pub(crate) struct Actor {
    agent: Arc<Agent>,
    id: DesktopId,
    commands: mpsc::Receiver<Command>,
    queue: Queue<Pending, DeltaId>,
    /// As published last.
    observed: ObservedDesktop,
    instance: watch::Sender<Option<Arc<dyn Instance>>>,
    state: Option<watch::Receiver<InstanceState>>,
    work: Option<Work>,
    /// Asked for while it was being launched.
    end_after_launch: Option<u64>,
    /// What becomes of the desktop when the machine is gone.
    outcome: Option<Outcome>,
    permit: Option<OwnedSemaphorePermit>,
    asked: Option<Instant>,
    /// When it must be usable.
    deadline: Option<tokio::time::Instant>,
    stops: Vec<Reply<ObservedDesktop>>,
    saves: Vec<(DeltaId, Reply<SavedDelta>)>,
    captures: HashMap<DeltaId, SavedDelta>,
}

pub(crate) fn observed(id: &DesktopId, generation: Generation, phase: Phase) -> ObservedDesktop {
    ObservedDesktop {
        desktop: id.clone(),
        generation,
        phase,
        detail: String::new(),
        started_by: None,
        cold_reason: None,
        address: None,
        ssh_host_key: None,
        usable_ms: None,
        pss_kib: 0,
        cpu_percent: 0.0,
        read_bytes: 0,
        delta: None,
    }
}

impl Actor {
    /// With what is kept of the desktop, and the machine that was found, if any.
    pub(crate) fn new(
        agent: Arc<Agent>,
        id: DesktopId,
        known: Known,
        adopted: Option<Arc<dyn Instance>>,
    ) -> (Actor, Desktop) {
        let (tx, commands) = mpsc::channel(64);
        let mut deadline = None;
        let (queue, observed) = match &adopted {
            Some(instance) => {
                let request = instance.request();
                let timeout = Duration::from_millis(request.ready_timeout_ms);
                deadline = Some(tokio::time::Instant::now() + timeout);
                let mut seen = observed(&id, request.generation, Phase::Starting);
                seen.started_by = Some(
                    match request.from {
                        StartFrom::Fork { .. } => "fork",
                        StartFrom::Resume { .. } => "resume",
                        StartFrom::HandOut { .. } => "hand_out",
                        StartFrom::Cold | StartFrom::ColdForSeal { .. } => "cold",
                    }
                    .into(),
                );
                if let Some(notes) = crate::notes::read(&agent.config.state_dir, &request) {
                    seen.cold_reason = notes.cold_reason;
                    seen.usable_ms = notes.usable_ms;
                }
                let queue = Queue::adopted(known.generation, request.generation, Doing::Starting);
                (queue, seen)
            }
            None => {
                let seen = known
                    .outcome
                    .unwrap_or_else(|| observed(&id, known.generation, Phase::Stopped));
                (Queue::new(known.generation, known.started), seen)
            }
        };
        let state = adopted.as_ref().map(|i| i.watch());
        let (instance, receiver) = watch::channel(adopted);
        let actor = Actor {
            agent,
            id,
            commands,
            queue,
            observed,
            instance,
            state,
            work: None,
            end_after_launch: None,
            outcome: None,
            permit: None,
            asked: None,
            deadline,
            stops: Vec::new(),
            saves: Vec::new(),
            captures: HashMap::new(),
        };
        let handle = Desktop {
            commands: tx,
            instance: receiver,
        };
        (actor, handle)
    }

    /// Says what is.
    pub(crate) fn publish(&mut self) {
        // Numbers of the last sample are kept.
        if let Some(last) = self.agent.observatory.get(&self.id) {
            self.observed.pss_kib = last.pss_kib;
            self.observed.cpu_percent = last.cpu_percent;
            self.observed.read_bytes = last.read_bytes;
        }
        self.agent.observatory.desktop(self.observed.clone());
    }

    /// Reads the state of a machine that was found, before anything is published.
    pub(crate) fn look(&mut self) {
        self.instance_changed();
    }

    /// Until the agent shuts down.
    pub(crate) async fn run(mut self) {
        self.act().await;
        loop {
            let stopping = self.agent.shutdown.is_cancelled();
            // What is called off by dropping it is; machines stay as they are. The rest is finished.
            if stopping
                && !matches!(
                    self.work,
                    Some(Work::Launch(_) | Work::Save(..) | Work::End(_))
                )
            {
                return;
            }
            tokio::select! {
                biased;
                done = Self::work(&mut self.work) => self.done(done).await,
                changed = Self::changed(&mut self.state) => {
                    if changed {
                        self.instance_changed();
                    } else {
                        self.state = None;
                    }
                }
                command = self.commands.recv(), if !stopping => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                () = Self::until(self.deadline) => self.too_late(),
                () = self.agent.shutdown.cancelled(), if !stopping => continue,
            }
            self.act().await;
        }
    }

    async fn work(work: &mut Option<Work>) -> Done {
        let done = match work {
            None => std::future::pending().await,
            Some(Work::Prepare(f)) => Done::Prepared(f.await),
            Some(Work::Launch(f)) => {
                let (prepared, result) = f.await;
                Done::Launched(Box::new(prepared), result)
            }
            Some(Work::Save(save, f)) => {
                let result = f.await;
                Done::Saved(save.clone(), result)
            }
            Some(Work::End(f)) => Done::Ended(f.await),
        };
        *work = None;
        done
    }

    async fn changed(state: &mut Option<watch::Receiver<InstanceState>>) -> bool {
        match state {
            Some(state) => state.changed().await.is_ok(),
            None => std::future::pending().await,
        }
    }

    async fn until(deadline: Option<tokio::time::Instant>) {
        match deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Run(run, asked, reply) => {
                let answer = self.asked_to_run(run, asked).await;
                let _ = reply.send(answer);
            }
            Command::Stop(stop, reply) => match self.asked_to_stop(&stop).await {
                Ok(()) => self.stops.push(reply),
                Err(e) => {
                    let _ = reply.send(Err(e));
                }
            },
            Command::Save(save, suspend, reply) => match self.asked_to_save(&save, suspend).await {
                Ok(None) => self.saves.push((save.delta, reply)),
                Ok(Some(saved)) => {
                    let _ = reply.send(Ok(saved));
                }
                Err(e) => {
                    let _ = reply.send(Err(e));
                }
            },
        }
    }

    async fn asked_to_run(
        &mut self,
        run: Box<RunRequest>,
        asked: Instant,
    ) -> Result<ObservedDesktop, ApiError> {
        let generation = run.generation;
        let mut queue = self.queue.clone();
        let admission = queue
            .run(generation, Pending { run, asked })
            .map_err(|r| self.refused(r))?;
        if admission == Admission::Accepted {
            self.keep(generation, true, None).await?;
            self.queue = queue;
            self.observed = observed(&self.id, generation, Phase::Starting);
            self.observed.detail = match self.queue.machine() {
                Some(_) => "ending the machine before it".into(),
                None => "waiting for its turn".into(),
            };
            self.publish();
        }
        Ok(self.observed.clone())
    }

    async fn asked_to_stop(&mut self, stop: &StopRequest) -> Result<(), ApiError> {
        let mut queue = self.queue.clone();
        queue
            .stop(stop.generation, stop.patience_ms)
            .map_err(|r| self.refused(r))?;
        let nothing = queue.machine().is_none();
        if nothing
            && (self.observed.phase != Phase::Stopped || queue.newest() > self.queue.newest())
        {
            self.observed = ObservedDesktop {
                generation: queue.newest(),
                ..observed(&self.id, queue.newest(), Phase::Stopped)
            };
            self.keep(queue.newest(), queue.started(), Some(self.observed.clone()))
                .await?;
            self.publish();
        } else if queue.newest() > self.queue.newest() {
            self.keep(queue.newest(), queue.started(), None).await?;
        }
        self.queue = queue;
        Ok(())
    }

    async fn asked_to_save(
        &mut self,
        save: &SaveRequest,
        suspend: bool,
    ) -> Result<Option<SavedDelta>, ApiError> {
        if !suspend && let Some(saved) = self.captures.get(&save.delta) {
            return Ok(Some(saved.clone()));
        }
        if suspend
            && self.observed.phase == Phase::Suspended
            && self.observed.generation == save.generation
            && let Some(saved) = &self.observed.delta
            && saved.delta == save.delta
        {
            return Ok(Some(saved.clone()));
        }
        let wanted = Save {
            key: save.delta.clone(),
            suspend,
        };
        self.queue
            .save(save.generation, wanted)
            .map_err(|r| self.refused(r))?;
        Ok(None)
    }

    fn refused(&self, refusal: Refusal) -> ApiError {
        let id = &self.id;
        match refusal {
            Refusal::Stale { newest } => ApiError::new(
                code::STALE_GENERATION,
                format!(
                    "desktop {id} has been asked for under generation {newest} here already; what carries an older one is out of date and is not done"
                ),
            ),
            Refusal::NotRunning => ApiError::state(format!(
                "desktop {id} does not run under that generation here (it is {}), so there is nothing to save",
                word(self.observed.phase)
            )),
            Refusal::Saving => ApiError::state(format!(
                "desktop {id} is being saved under another name: wait until that is over"
            )),
        }
    }

    fn machine(&self) -> Option<Arc<dyn Instance>> {
        self.instance.borrow().clone()
    }

    // `&mut` because the actor can't be shared between threads, only moved.
    async fn keep(
        &mut self,
        generation: Generation,
        started: bool,
        outcome: Option<ObservedDesktop>,
    ) -> Result<(), ApiError> {
        let known = Known {
            generation,
            started,
            outcome,
        };
        self.agent.known.save(&self.id, known).await.map_err(|e| {
            ApiError::internal(format!("nothing was done, because it can't be kept: {e}"))
        })
    }

    /// Begins what the queue wants next, and answers those who wait for what is reached.
    async fn act(&mut self) {
        // A machine that ended by itself is cleared up first.
        self.clear_up_ended();
        while let Some(action) = self.next_action() {
            match action {
                Action::Start(pending) => self.begin_start(pending),
                Action::Save(save) => self.begin_save(save),
                Action::End { patience_ms } => self.begin_end(patience_ms).await,
            }
        }
        if self.queue.machine().is_none() {
            for reply in self.stops.drain(..) {
                let _ = reply.send(Ok(self.observed.clone()));
            }
        }
    }

    fn next_action(&mut self) -> Option<Action<Pending, DeltaId>> {
        // Nothing new is begun when the agent is about to end.
        if self.agent.shutdown.is_cancelled() {
            return None;
        }
        self.queue.take()
    }

    fn begin_start(&mut self, pending: Pending) {
        self.asked = Some(pending.asked);
        self.observed.phase = Phase::Starting;
        self.observed.detail = "waiting for its turn".into();
        self.publish();
        let prepare = start::prepare(self.agent.clone(), self.id.clone(), *pending.run);
        self.work = Some(Work::Prepare(Box::pin(prepare)));
    }

    fn begin_save(&mut self, save: Save<DeltaId>) {
        let Some(instance) = self.machine() else {
            return;
        };
        self.observed.phase = if save.suspend {
            Phase::Suspending
        } else {
            Phase::Running
        };
        self.observed.detail = if save.suspend {
            "saving".into()
        } else {
            "capturing".into()
        };
        self.publish();
        let (out, name) = (self.agent.tiers.delta(&save.key), save.key.clone());
        let (suspend, tiers) = (save.suspend, self.agent.tiers.clone());
        let work = async move {
            tiers
                .check()
                .map_err(|e| HypervisorError::State(e.message))?;
            let summary = if suspend {
                instance.suspend(&out).await?
            } else {
                instance.capture(&out).await?
            };
            Ok(SavedDelta {
                delta: name,
                memory_bytes: summary.memory_bytes + summary.device_bytes,
                overlay_bytes: summary.overlay_bytes,
                stand_still_ms: summary.stand_still_ms,
                total_ms: summary.total_ms,
            })
        };
        self.work = Some(Work::Save(save, Box::pin(work)));
    }

    async fn begin_end(&mut self, patience_ms: u64) {
        match self.work {
            Some(Work::Prepare(_)) => {
                // Nothing exists yet.
                self.work = None;
                self.gone(Outcome::stopped("")).await;
            }
            Some(Work::Launch(_)) => self.end_after_launch = Some(patience_ms),
            _ => self.end_now(patience_ms, Outcome::stopped("")),
        }
    }

    fn end_now(&mut self, patience_ms: u64, outcome: Outcome) {
        let Some(instance) = self.machine() else {
            return;
        };
        if !self.queue.has_next() {
            self.observed.phase = Phase::Stopping;
            self.observed.detail = outcome.detail.clone();
            self.publish();
        }
        self.outcome = Some(outcome);
        self.deadline = None;
        let end = async move { instance.end(Duration::from_millis(patience_ms)).await };
        self.work = Some(Work::End(Box::pin(end)));
    }

    fn too_late(&mut self) {
        self.deadline = None;
        if self.queue.machine().map(|m| m.1) != Some(Doing::Starting) || self.work.is_some() {
            return;
        }
        let step = self.observed.detail.clone();
        self.queue.ended_by_itself();
        self.end_now(
            0,
            Outcome::failed(format!(
                "it did not become usable in time (last step: {step}); open its console while it starts to see why"
            )),
        );
    }

    fn instance_changed(&mut self) {
        let Some(state) = &mut self.state else {
            return;
        };
        let state = state.borrow_and_update().clone();
        let current = self.queue.machine();
        match state {
            InstanceState::Starting { step } => {
                if let Some((_, Doing::Starting)) = current
                    && !self.queue.has_next()
                {
                    self.observed.detail = step;
                    self.publish();
                }
            }
            InstanceState::Running { usable } => {
                if let Some((_, Doing::Starting)) = current {
                    self.queue.usable();
                    self.permit = None;
                    self.deadline = None;
                    let asked = self.asked.take();
                    if !self.queue.has_next() {
                        let seen = &mut self.observed;
                        seen.phase = Phase::Running;
                        seen.detail = String::new();
                        seen.address = usable.address;
                        seen.ssh_host_key = usable.ssh_host_key;
                        if let Some(asked) = asked {
                            seen.usable_ms = Some(asked.elapsed().as_millis() as u64);
                        }
                        self.publish();
                        self.write_notes();
                    }
                }
            }
            // Seen to in `clear_up_ended`, when nothing else is being done.
            InstanceState::Ended { .. } => {}
        }
    }

    fn clear_up_ended(&mut self) {
        if self.work.is_some() || self.queue.machine().is_none() {
            return;
        }
        let ended = match self.state.as_ref().map(|s| s.borrow().clone()) {
            Some(InstanceState::Ended { reason, expected }) => Some((reason, expected)),
            _ => None,
        };
        if let Some((reason, expected)) = ended {
            let outcome = if expected {
                Outcome::stopped(&reason)
            } else {
                tracing::warn!(desktop = %self.id, "its machine ended by itself: {reason}");
                Outcome::failed(reason)
            };
            self.queue.ended_by_itself();
            self.end_now(0, outcome);
        }
    }

    fn write_notes(&self) {
        if let Some(instance) = self.machine() {
            let request = instance.request();
            let notes = crate::notes::Notes {
                generation: request.generation,
                cold_reason: self.observed.cold_reason.clone(),
                usable_ms: self.observed.usable_ms,
            };
            crate::notes::write(&self.agent.config.state_dir, &request, notes);
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Prepared(Ok(mut prepared)) => {
                self.observed.started_by = Some(prepared.started_by.into());
                self.observed.cold_reason = prepared.cold_reason.clone();
                self.permit = prepared.permit.take();
                self.deadline = Some(tokio::time::Instant::now() + prepared.ready_timeout());
                let launch = start::launch(self.agent.clone(), prepared);
                self.work = Some(Work::Launch(Box::pin(launch)));
            }
            Done::Prepared(Err(e)) => self.gone(Outcome::failed(e.message)).await,
            Done::Launched(prepared, Ok(instance)) => {
                if !self.queue.has_next() {
                    self.observed.started_by = Some(prepared.started_by.into());
                    self.observed.cold_reason = prepared.cold_reason.clone();
                }
                self.deadline = Some(tokio::time::Instant::now() + prepared.ready_timeout());
                self.state = Some(instance.watch());
                self.instance.send_replace(Some(instance));
                match self.end_after_launch.take() {
                    Some(patience) => self.end_now(patience, Outcome::stopped("")),
                    None => self.instance_changed(),
                }
            }
            Done::Launched(_, Err(e)) => {
                self.end_after_launch = None;
                tracing::warn!(desktop = %self.id, "it could not be started: {e}");
                self.gone(Outcome::failed(e.to_string())).await;
            }
            Done::Saved(save, result) => self.saved(save, result).await,
            Done::Ended(Ok(())) => {
                let outcome = self.outcome.take().unwrap_or_else(|| Outcome::stopped(""));
                self.gone(outcome).await;
            }
            Done::Ended(Err(e)) => {
                tracing::error!(desktop = %self.id, "its machine could not be ended: {e}");
                self.observed.detail = format!("its machine could not be ended, trying again: {e}");
                self.publish();
                let Some(instance) = self.machine() else {
                    return;
                };
                let again = async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    instance.end(Duration::ZERO).await
                };
                self.work = Some(Work::End(Box::pin(again)));
            }
        }
    }

    async fn saved(&mut self, save: Save<DeltaId>, result: Result<SavedDelta, HypervisorError>) {
        let answer = match result {
            Ok(saved) if save.suspend => {
                // The process is gone; what is left is its run directory.
                if let Some(instance) = self.machine()
                    && let Err(e) = instance.end(Duration::ZERO).await
                {
                    tracing::warn!(desktop = %self.id, "after the suspend: {e}");
                }
                self.gone(Outcome {
                    phase: Phase::Suspended,
                    detail: String::new(),
                    delta: Some(saved.clone()),
                })
                .await;
                Ok(saved)
            }
            Ok(saved) => {
                self.captures.insert(save.key.clone(), saved.clone());
                self.goes_on("");
                Ok(saved)
            }
            Err(e) => {
                tracing::warn!(desktop = %self.id, "it could not be saved: {e}");
                self.goes_on(&format!("it could not be saved and goes on: {e}"));
                Err(save_error(&self.id, &e))
            }
        };
        let (for_this, others) = std::mem::take(&mut self.saves)
            .into_iter()
            .partition(|(key, _)| *key == save.key);
        self.saves = others;
        for (_, reply) in Vec::<(DeltaId, Reply<SavedDelta>)>::from(for_this) {
            let _ = reply.send(answer.clone());
        }
    }

    fn goes_on(&mut self, detail: &str) {
        self.queue.save_over();
        if !self.queue.has_next() {
            self.observed.phase = Phase::Running;
            self.observed.detail = detail.into();
            self.publish();
        }
    }

    /// There is no machine any more.
    async fn gone(&mut self, outcome: Outcome) {
        self.queue.gone();
        self.instance.send_replace(None);
        self.state = None;
        self.permit = None;
        self.deadline = None;
        self.asked = None;
        for (_, reply) in self
            .saves
            .extract_if(.., |_| outcome.phase != Phase::Suspended)
        {
            let _ = reply.send(Err(ApiError::state(
                "the desktop ended before it could be saved",
            )));
        }
        if self.queue.has_next() {
            // A newer generation is what is spoken of already.
            return;
        }
        let newest = self.queue.newest();
        // A stop under a newer generation is what it ended by.
        let generation = match outcome.phase {
            Phase::Stopped => newest,
            _ => self.observed.generation,
        };
        let seen = ObservedDesktop {
            started_by: self.observed.started_by.take(),
            cold_reason: self.observed.cold_reason.take(),
            detail: outcome.detail,
            delta: outcome.delta,
            ..observed(&self.id, generation, outcome.phase)
        };
        // Lost only if this fails and the agent is restarted: then it is reported as ended by itself.
        if let Err(e) = self
            .keep(newest, self.queue.started(), Some(seen.clone()))
            .await
        {
            tracing::error!(desktop = %self.id, "{e}");
        }
        self.observed = seen;
        self.publish();
    }
}

fn save_error(id: &DesktopId, e: &HypervisorError) -> ApiError {
    let message = format!("desktop {id} could not be saved and goes on: {e}");
    match e {
        HypervisorError::State(_) => ApiError::state(message),
        HypervisorError::Io { source, .. }
            if matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ) =>
        {
            ApiError::new(code::TIER_FULL, message)
        }
        _ => ApiError::internal(message),
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Stopped => "stopped",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Suspending => "being suspended",
        Phase::Suspended => "suspended",
        Phase::Stopping => "being stopped",
        Phase::Failed => "failed",
        Phase::Unknown => "unknown",
    }
}
