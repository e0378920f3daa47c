//! One desktop's actor: a task that owns everything about it. It decides with the
//! [queue](crate::queue), does one thing at a time, and says what is.
//!
//! ```text
//!   command ─► Queue ─► Action ─► Work (prepare, launch, save, end) ─► Done ─► Queue ...
//!                                    instance's own state ────────────────────┘
//! ```

mod admission;
mod work;

use crate::agent::Agent;
use crate::known::Known;
use crate::moves::Failure;
use crate::queue::{Action, Doing, Queue, Save};
use crate::start::Prepared;
use futures::future::BoxFuture;
use lyceum_hypervisor::{HypervisorError, Instance, InstanceState, StartError, StartFrom};
use lyceum_model::{DeltaId, DesktopId, Generation, Phase};
use lyceum_proto::ErrorBody;
use lyceum_proto::host::{
    ObservedDesktop, RunRequest, SaveRequest, SavedDelta, StopRequest, Traffic,
};
use lyceum_proto::moves::{MoveRequest, Moved};
use lyceum_wire::ApiError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

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
    /// Answered when it is over.
    Move(MoveRequest, Reply<Moved>),
    /// Answered at once.
    CancelMove(Generation, Reply<()>),
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

    /// Its machine of that generation, as soon as there is one.
    pub(crate) async fn machine_of(
        &self,
        generation: Generation,
        patience: Duration,
    ) -> Option<Arc<dyn Instance>> {
        let mut watch = self.instance.clone();
        let wait = watch.wait_for(|i| {
            i.as_ref()
                .is_some_and(|i| i.request().generation == generation)
        });
        tokio::time::timeout(patience, wait)
            .await
            .ok()?
            .ok()?
            .clone()
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
        Save<SaveKey>,
        BoxFuture<'static, Result<SavedDelta, HypervisorError>>,
    ),
    Move(Generation, BoxFuture<'static, Result<Moved, Failure>>),
    /// With how the guest went, when it was given time.
    End(BoxFuture<'static, Result<Option<String>, HypervisorError>>),
}

/// What takes a machine's state out of it: into a delta, or to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SaveKey {
    Delta(DeltaId),
    /// As which generation it arrives.
    Move(Generation),
}

enum Done {
    Prepared(Result<Box<Prepared>, ErrorBody>),
    Launched(Box<Prepared>, Result<Arc<dyn Instance>, StartError>),
    Saved(Save<SaveKey>, Result<SavedDelta, HypervisorError>),
    Moved(Generation, Result<Moved, Failure>),
    Ended(Result<Option<String>, HypervisorError>),
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
    queue: Queue<Pending, SaveKey>,
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
    /// The move that waits or is going on.
    moving: Option<Moving>,
    /// How moves ended: asked again, they are the same.
    moves: HashMap<Generation, Result<Moved, ApiError>>,
}

/// A move that was asked for.
struct Moving {
    request: MoveRequest,
    cancel: CancellationToken,
    replies: Vec<Reply<Moved>>,
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
        traffic: Traffic::default(),
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
                        StartFrom::Arrive { sealed: Some(_) } => "move",
                        StartFrom::Arrive { sealed: None } => "cold",
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
            moving: None,
            moves: HashMap::new(),
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
            self.observed.traffic = last.traffic;
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
                    Some(Work::Launch(_) | Work::Save(..) | Work::Move(..) | Work::End(_))
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

    fn machine(&self) -> Option<Arc<dyn Instance>> {
        self.instance.borrow().clone()
    }

    async fn work(work: &mut Option<Work>) -> Done {
        let done = match work {
            None => std::future::pending().await,
            Some(Work::Prepare(f)) => Done::Prepared(f.await.map(Box::new)),
            Some(Work::Launch(f)) => {
                let (prepared, result) = f.await;
                Done::Launched(Box::new(prepared), result)
            }
            Some(Work::Save(save, f)) => {
                let result = f.await;
                Done::Saved(save.clone(), result)
            }
            Some(Work::Move(generation, f)) => Done::Moved(*generation, f.await),
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

    /// Begins what the queue wants next, and answers those who wait for what is reached.
    async fn act(&mut self) {
        // A machine that ended by itself is cleared up first.
        self.clear_up_ended();
        while let Some(action) = self.next_action() {
            match action {
                Action::Start(pending) => self.begin_start(pending),
                Action::Save(save) => match save.key.clone() {
                    SaveKey::Delta(delta) => self.begin_save(save, delta),
                    SaveKey::Move(generation) => self.begin_move(generation),
                },
                Action::End { patience_ms } => self.begin_end(patience_ms).await,
            }
        }
        if self.queue.machine().is_none() {
            for reply in self.stops.drain(..) {
                let _ = reply.send(Ok(self.observed.clone()));
            }
        }
    }

    fn next_action(&mut self) -> Option<Action<Pending, SaveKey>> {
        // Nothing new is begun when the agent is about to end.
        if self.agent.shutdown.is_cancelled() {
            return None;
        }
        self.queue.take()
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
                    self.agent.observatory.step(&self.id, &self.observed.detail);
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
}
