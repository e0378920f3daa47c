//! What a desktop is asked for: taken, kept, or refused.

use super::{Actor, Command, Moving, Pending, Reply, SaveKey, observed};
use crate::known::Known;
use crate::queue::{Admission, Refusal, Save};
use lyceum_model::{Generation, Phase};
use lyceum_proto::code;
use lyceum_proto::host::{ObservedDesktop, RunRequest, SaveRequest, SavedDelta, StopRequest};
use lyceum_proto::moves::{MoveRequest, Moved};
use lyceum_wire::ApiError;
use std::time::Instant;

impl Actor {
    pub(super) async fn command(&mut self, command: Command) {
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
            Command::Move(request, reply) => self.asked_to_move(request, reply),
            Command::CancelMove(arrives_as, reply) => {
                let _ = reply.send(self.asked_to_cancel(arrives_as));
            }
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

    pub(super) async fn asked_to_run(
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

    pub(super) async fn asked_to_stop(&mut self, stop: &StopRequest) -> Result<(), ApiError> {
        let mut queue = self.queue.clone();
        queue
            .stop(stop.generation, stop.patience_ms)
            .map_err(|r| self.refused(r))?;
        // It is to end, wherever it is.
        if let Some(moving) = &self.moving {
            moving.cancel.cancel();
        }
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

    pub(super) async fn asked_to_save(
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
            key: SaveKey::Delta(save.delta.clone()),
            suspend,
        };
        self.queue
            .save(save.generation, wanted)
            .map_err(|r| self.refused(r))?;
        Ok(None)
    }

    pub(super) fn asked_to_move(&mut self, request: MoveRequest, reply: Reply<Moved>) {
        let arrives_as = request.arrives_as;
        if let Some(over) = self.moves.get(&arrives_as) {
            let _ = reply.send(over.clone());
            return;
        }
        if let Some(moving) = &mut self.moving
            && moving.request.arrives_as == arrives_as
        {
            moving.replies.push(reply);
            return;
        }
        let wanted = Save {
            key: SaveKey::Move(arrives_as),
            suspend: true,
        };
        match self.queue.save(request.generation, wanted) {
            Ok(_) => {
                self.moving = Some(Moving {
                    request,
                    cancel: self.agent.shutdown.child_token(),
                    replies: vec![reply],
                });
            }
            Err(refusal) => {
                let _ = reply.send(Err(self.refused(refusal)));
            }
        }
    }

    pub(super) fn asked_to_cancel(
        &mut self,
        arrives_as: lyceum_model::Generation,
    ) -> Result<(), ApiError> {
        match &self.moving {
            Some(moving) if moving.request.arrives_as == arrives_as => {
                moving.cancel.cancel();
                Ok(())
            }
            _ => Err(ApiError::state(format!(
                "desktop {} is not being moved as generation {arrives_as}: there is nothing to call off",
                self.id
            ))),
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> ApiError {
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
            Refusal::Saving => ApiError::new(
                code::IN_USE,
                format!("desktop {id} is being saved under another name: wait until that is over"),
            ),
        }
    }

    // `&mut` because the actor can't be shared between threads, only moved.
    pub(super) async fn keep(
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
