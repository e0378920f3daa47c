//! What a desktop's actor does: start, save, end, and what becomes of each.

use super::{Actor, Done, Outcome, Pending, SaveKey, Work, observed};
use crate::moves::{self, Failure, Fate};
use crate::queue::Save;
use crate::start;
use lyceum_hypervisor::{HypervisorError, InstanceState};
use lyceum_model::{DeltaId, DesktopId, Generation, Phase};
use lyceum_proto::code;
use lyceum_proto::host::{ObservedDesktop, SavedDelta};
use lyceum_proto::moves::Moved;
use lyceum_wire::ApiError;
use std::time::Duration;

impl Actor {
    pub(super) fn begin_start(&mut self, pending: Pending) {
        self.asked = Some(pending.asked);
        self.observed.phase = Phase::Starting;
        self.observed.detail = "waiting for its turn".into();
        self.publish();
        let prepare = start::prepare(self.agent.clone(), self.id.clone(), *pending.run);
        self.work = Some(Work::Prepare(Box::pin(prepare)));
    }

    pub(super) fn begin_save(&mut self, save: Save<SaveKey>, name: DeltaId) {
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
        let out = self.agent.tiers.delta(&name);
        let (suspend, tiers) = (save.suspend, self.agent.tiers.clone());
        let (consoles, id) = (self.agent.consoles.clone(), self.id.clone());
        let work = async move {
            tiers
                .check()
                .map_err(|e| HypervisorError::State(e.message))?;
            // It was written by an earlier start of this agent, whose answer got lost.
            if !suspend && let Some(written) = written_before(&name, &out).await {
                let disk_only = instance.request().from.shares().is_none();
                return Ok(SavedDelta {
                    disk_only,
                    ..written
                });
            }
            // What people did so far is part of what is saved, and no key stays down in it.
            let _shut = match suspend {
                true => Some(consoles.let_go(&id).await),
                false => None,
            };
            let summary = if suspend {
                instance.suspend(&out).await?
            } else {
                instance.capture(&out).await?
            };
            Ok(SavedDelta {
                delta: name,
                memory_bytes: summary.memory_bytes + summary.device_bytes,
                overlay_bytes: summary.overlay_bytes,
                disk_only: summary.disk_only,
                not_flushed: summary.not_flushed,
                stand_still_ms: summary.stand_still_ms,
                total_ms: summary.total_ms,
            })
        };
        self.work = Some(Work::Save(save, Box::pin(work)));
    }

    pub(super) fn begin_move(&mut self, arrives_as: Generation) {
        let Some(instance) = self.machine() else {
            return;
        };
        let Some(moving) = &self.moving else {
            self.goes_on("");
            return;
        };
        self.observed.detail = format!("moving to {}", moving.request.to);
        let work = moves::send(
            self.agent.clone(),
            self.id.clone(),
            instance,
            moving.request.clone(),
            moving.cancel.clone(),
        );
        self.publish();
        self.work = Some(Work::Move(arrives_as, Box::pin(work)));
    }

    async fn moved(&mut self, arrives_as: Generation, result: Result<Moved, Failure>) {
        let Some(moving) = self.moving.take() else {
            return;
        };
        let to = moving.request.to;
        let answer = match result {
            Ok(moved) => {
                tracing::info!(desktop = %self.id, %to, ?moved, "it moved");
                // It is the other host's; what stands still here is of no use to anybody.
                self.queue.ended_by_itself();
                self.end_now(0, Outcome::stopped(&format!("it was moved to {to}")));
                Ok(moved)
            }
            Err(Failure { error, fate }) => {
                tracing::warn!(desktop = %self.id, "{error}");
                match fate {
                    Fate::GoesOn => self.goes_on(""),
                    Fate::Lost => {
                        self.queue.ended_by_itself();
                        self.end_now(0, Outcome::failed(error.to_string()));
                    }
                }
                Err(error)
            }
        };
        for reply in moving.replies {
            let _ = reply.send(answer.clone());
        }
        self.moves.insert(arrives_as, answer);
    }

    pub(super) async fn begin_end(&mut self, patience_ms: u64) {
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

    pub(super) fn end_now(&mut self, patience_ms: u64, outcome: Outcome) {
        let Some(instance) = self.machine() else {
            return;
        };
        if !self.queue.has_next() {
            self.observed.phase = Phase::Stopping;
            self.observed.detail = outcome.detail.clone();
            self.publish();
        }
        // A guest that was given time: how it took it is worth knowing.
        let tell = patience_ms > 0 && outcome.detail.is_empty();
        self.outcome = Some(outcome);
        self.deadline = None;
        let end = async move {
            instance.end(Duration::from_millis(patience_ms)).await?;
            Ok(match &*instance.watch().borrow() {
                InstanceState::Ended { reason, .. } if tell => Some(reason.clone()),
                _ => None,
            })
        };
        self.work = Some(Work::End(Box::pin(end)));
    }

    pub(super) async fn done(&mut self, done: Done) {
        match done {
            Done::Prepared(Ok(mut prepared)) => {
                self.observed.started_by = Some(prepared.started_by.into());
                self.observed.cold_reason = prepared.cold_reason.clone();
                self.permit = prepared.permit.take();
                self.deadline = Some(tokio::time::Instant::now() + prepared.ready_timeout());
                let launch = start::launch(self.agent.clone(), *prepared);
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
            Done::Moved(arrives_as, result) => self.moved(arrives_as, result).await,
            Done::Ended(Ok(how)) => {
                let mut outcome = self.outcome.take().unwrap_or_else(|| Outcome::stopped(""));
                if let Some(how) = how {
                    outcome.detail = how;
                }
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
                    instance.end(Duration::ZERO).await.map(|()| None)
                };
                self.work = Some(Work::End(Box::pin(again)));
            }
        }
    }

    pub(super) async fn saved(
        &mut self,
        save: Save<SaveKey>,
        result: Result<SavedDelta, HypervisorError>,
    ) {
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
                self.captures.insert(saved.delta.clone(), saved.clone());
                self.goes_on("");
                Ok(saved)
            }
            Err(e) => {
                tracing::warn!(desktop = %self.id, "it could not be saved: {e}");
                self.goes_on(&format!("it could not be saved and goes on: {e}"));
                Err(save_error(&self.id, &e))
            }
        };
        let (for_this, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.saves)
            .into_iter()
            .partition(|(key, _)| SaveKey::Delta(key.clone()) == save.key);
        self.saves = others;
        for (_, reply) in for_this {
            let _ = reply.send(answer.clone());
        }
    }

    pub(super) fn goes_on(&mut self, detail: &str) {
        self.queue.save_over();
        if !self.queue.has_next() {
            self.observed.phase = Phase::Running;
            self.observed.detail = detail.into();
            self.publish();
        }
    }

    /// There is no machine any more.
    pub(super) async fn gone(&mut self, outcome: Outcome) {
        self.agent.network.unplug(&self.agent, &self.id);
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
        if let Some(moving) = self.moving.take() {
            let error = ApiError::state("the desktop ended before it could be moved");
            for reply in moving.replies {
                let _ = reply.send(Err(error.clone()));
            }
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

/// A delta that is there under this name is whole. How long its desktop stood still for it is not
/// known any more.
async fn written_before(name: &DeltaId, folder: &std::path::Path) -> Option<SavedDelta> {
    use std::os::unix::fs::MetadataExt;
    let overlay = std::ffi::OsStr::new(lyceum_model::disk::layout::DELTA_OVERLAY);
    let (mut memory_bytes, mut overlay_bytes) = (0, 0);
    let mut files = tokio::fs::read_dir(folder).await.ok()?;
    while let Some(file) = files.next_entry().await.ok()? {
        let bytes = file.metadata().await.ok()?.blocks() * 512;
        if file.file_name() == overlay {
            overlay_bytes += bytes;
        } else {
            memory_bytes += bytes;
        }
    }
    Some(SavedDelta {
        delta: name.clone(),
        memory_bytes,
        overlay_bytes,
        disk_only: false,
        not_flushed: None,
        stand_still_ms: 0,
        total_ms: 0,
    })
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
