//! One machine: its state, and the operations on it.

use crate::hypervisor::Context;
use crate::launch::{Launched, RunDir};
use crate::machine::{SPICE_SOCKET, VNC_SOCKET};
use crate::process::{Exit, Process};
use crate::util::{blocking, last_lines};
use crate::{guest::Guest, qmp::Qmp};
use async_trait::async_trait;
use lyceum_hypervisor::{
    Before, DeltaSummary, HypervisorError, Instance, InstanceState, MoveWay, SealSummary, Sent,
    StartRequest, Stream, TakenBack, Usable, Usage,
};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the guest may take for small requests.
const GUEST_PATIENCE: Duration = Duration::from_secs(10);

/// How long the helper may take to say that the guest has begun to shut down. A guest that is still
/// booting has none yet.
const HELPER_PATIENCE: Duration = Duration::from_secs(5);

/// The state, shared with the task that waits for the process's end. That task holds
/// no connection to the machine: dropping the last handle closes them.
#[derive(Debug)]
pub(crate) struct StateCell {
    sender: watch::Sender<InstanceState>,
    /// Why the process is about to end, and whether that was asked for.
    ending: Mutex<Option<(String, bool)>>,
}

impl StateCell {
    fn new() -> StateCell {
        let step = "starting the machine".to_owned();
        StateCell {
            sender: watch::channel(InstanceState::Starting { step }).0,
            ending: Mutex::new(None),
        }
    }

    /// Nothing comes after [`InstanceState::Ended`].
    fn set(&self, state: InstanceState) {
        self.sender.send_if_modified(|now| {
            let change = !matches!(now, InstanceState::Ended { .. }) && *now != state;
            if change {
                *now = state;
            }
            change
        });
    }

    /// Notes why the process will end; the first reason counts.
    fn note_end(&self, reason: impl Into<String>, expected: bool) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.get_or_insert_with(|| (reason.into(), expected));
    }

    /// Says more exactly how an end that was asked for comes about.
    fn amend_end(&self, reason: &str) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((noted, true)) = ending.as_mut() {
            reason.clone_into(noted);
        }
    }
}

/// Where a machine is that waits for what another host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Waiting,
    /// It is being taken over, or was.
    Taken,
    GivenUp,
}

/// A machine run by QEMU.
#[derive(Debug)]
pub(crate) struct QemuInstance {
    own: std::sync::Weak<QemuInstance>,
    pub(crate) context: Arc<Context>,
    pub(crate) request: StartRequest,
    pub(crate) dir: RunDir,
    pub(crate) process: Process,
    pub(crate) qmp: Qmp,
    pub(crate) guest: Guest,
    /// When its start began.
    pub(crate) began: Instant,
    /// Cancelled when the machine is ended while it starts.
    pub(crate) ending: CancellationToken,
    /// Held by whoever saves the machine: suspend, capture, seal.
    pub(crate) saving: Arc<tokio::sync::Mutex<()>>,
    /// Holds `saving` from the beginning of a move until it is over.
    moving: Mutex<Option<tokio::sync::OwnedMutexGuard<()>>>,
    /// Of a machine that waits for what another host sends.
    pub(crate) arrival: watch::Sender<Arrival>,
    state: Arc<StateCell>,
}

impl QemuInstance {
    pub(crate) fn new(
        context: Arc<Context>,
        request: StartRequest,
        launched: Launched,
        began: Instant,
    ) -> Arc<QemuInstance> {
        let Launched {
            process,
            qmp,
            guest,
            dir,
        } = launched;
        let state = Arc::new(StateCell::new());
        tokio::spawn(watch_end(process.clone(), Arc::clone(&state), dir.clone()));
        Arc::new_cyclic(|own| QemuInstance {
            own: own.clone(),
            context,
            request,
            dir,
            process,
            qmp,
            guest,
            began,
            ending: CancellationToken::new(),
            saving: Arc::default(),
            moving: Mutex::new(None),
            arrival: watch::Sender::new(Arrival::Waiting),
            state,
        })
    }

    pub(crate) fn hold_for_move(&self, busy: tokio::sync::OwnedMutexGuard<()>) {
        *self.moving.lock().unwrap_or_else(PoisonError::into_inner) = Some(busy);
    }

    /// It goes on here after all, and may be saved or moved again.
    pub(crate) fn move_over(&self) {
        self.moving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    pub(crate) fn since_start_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(crate) fn set_step(&self, step: &str) {
        self.state.set(InstanceState::Starting {
            step: step.to_owned(),
        });
    }

    /// Usable from now on, and known as such to the next agent.
    pub(crate) async fn set_running(&self, usable: Usable) -> Result<(), HypervisorError> {
        let bytes =
            serde_json::to_vec(&usable).map_err(|e| HypervisorError::State(e.to_string()))?;
        let path = self.dir.running();
        crate::util::write_whole(&path, &bytes)
            .map_err(crate::util::io_error(format!("writing {}", path.display())))?;
        self.state.set(InstanceState::Running { usable });
        Ok(())
    }

    pub(crate) fn set_state(&self, state: InstanceState) {
        self.state.set(state);
    }

    pub(crate) fn state(&self) -> InstanceState {
        self.state.sender.borrow().clone()
    }

    pub(crate) fn note_end(&self, reason: impl Into<String>, expected: bool) {
        self.state.note_end(reason, expected);
    }

    pub(crate) fn must_run(&self, what: &str) -> Result<Usable, HypervisorError> {
        match self.state() {
            InstanceState::Running { usable } => Ok(usable),
            InstanceState::Starting { step } => Err(HypervisorError::State(format!(
                "can't {what}: the machine is still starting ({step})"
            ))),
            InstanceState::Ended { reason, .. } => Err(HypervisorError::State(format!(
                "can't {what}: the machine has ended ({reason})"
            ))),
        }
    }

    /// Tells QEMU to leave and waits until it is gone. QEMU flushes and closes its disk; one that
    /// does not leave in time is killed.
    pub(crate) async fn quit(&self) -> Result<(), HypervisorError> {
        // The answer may be lost with the connection.
        let quit = self
            .qmp
            .execute_within("quit", Value::Null, Duration::from_secs(5));
        let leave = async {
            let _ = quit.await;
            self.process.ended().await
        };
        if tokio::time::timeout(Duration::from_secs(10), leave)
            .await
            .is_err()
        {
            tracing::warn!(desktop = %self.request.desktop, "QEMU did not quit and is killed");
            self.process.kill().await?;
        }
        self.wait_ended().await;
        Ok(())
    }

    /// Until everybody who watches has seen the end.
    pub(crate) async fn wait_ended(&self) {
        let mut watch = self.state.sender.subscribe();
        let _ = watch
            .wait_for(|s| matches!(s, InstanceState::Ended { .. }))
            .await;
    }
}

async fn watch_end(process: Process, state: Arc<StateCell>, dir: RunDir) {
    let exit = process.ended().await;
    let noted = state
        .ending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let (reason, expected) = noted.unwrap_or_else(|| {
        let how = match exit {
            // Asked for by whoever sits in front of it.
            Some(Exit::Code(0)) => return ("the guest was shut down".to_owned(), true),
            Some(exit) => exit.to_string(),
            None => "ended".to_owned(),
        };
        let log = last_lines(&dir.log());
        let colon = if log.is_empty() { "" } else { ": " };
        (format!("QEMU {how}{colon}{log}"), false)
    });
    state.set(InstanceState::Ended { reason, expected });
}

#[async_trait]
impl Instance for QemuInstance {
    fn watch(&self) -> watch::Receiver<InstanceState> {
        self.state.sender.subscribe()
    }

    fn pid(&self) -> u32 {
        self.process.mark.pid
    }

    fn request(&self) -> StartRequest {
        self.request.clone()
    }

    async fn suspend(&self, out: &Path) -> Result<DeltaSummary, HypervisorError> {
        crate::save::suspend(self, out).await
    }

    async fn capture(&self, out: &Path) -> Result<DeltaSummary, HypervisorError> {
        crate::save::capture(self, out).await
    }

    async fn own_bytes(&self) -> Result<Option<u64>, HypervisorError> {
        crate::travel::own_bytes(self).await
    }

    async fn send(
        &self,
        way: MoveWay,
        bytes_per_second: Option<u64>,
        before_still: Before,
        out: tokio::sync::mpsc::Sender<Vec<u8>>,
    ) -> Result<Sent, HypervisorError> {
        crate::travel::send(self, way, bytes_per_second, before_still, out).await
    }

    async fn hand_over(&self) -> Result<(), HypervisorError> {
        crate::travel::hand_over(self).await
    }

    async fn take_back(&self) -> Result<TakenBack, HypervisorError> {
        crate::travel::take_back(self).await
    }

    async fn receive(
        &self,
        input: tokio::sync::mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), HypervisorError> {
        crate::arrive::receive(self, input).await
    }

    async fn take_over(&self, usable: Usable) -> Result<(), HypervisorError> {
        let own = self
            .own
            .upgrade()
            .ok_or_else(|| HypervisorError::State("the machine is gone".into()))?;
        crate::arrive::take_over(&own, usable).await
    }

    async fn seal(&self) -> Result<SealSummary, HypervisorError> {
        crate::seal::seal(self).await
    }

    async fn end(&self, patience: Duration) -> Result<(), HypervisorError> {
        self.ending.cancel();
        self.note_end("it was ended", true);
        if !patience.is_zero() && self.process.is_alive() {
            if !self.shut_down(patience).await {
                self.state.amend_end(&format!(
                    "ended: the guest did not shut down within {} s, neither through its helper nor by its power button",
                    patience.as_secs()
                ));
            }
            if self.process.is_alive() {
                // Not killed at once: what the guest flushed is written out.
                return self.end_now().await;
            }
        }
        self.process.kill().await?;
        self.wait_ended().await;
        self.dir.remove()
    }

    async fn vnc(&self) -> Result<Box<dyn Stream>, HypervisorError> {
        Ok(Box::new(
            self.dir.connect(&self.dir.own(), VNC_SOCKET).await?,
        ))
    }

    async fn spice(&self) -> Result<Box<dyn Stream>, HypervisorError> {
        if !self.request.spice {
            return Err(HypervisorError::State(
                "this desktop runs without SPICE: it was started before its course allowed it, or its host lacks the package qemu-system-modules-spice. Once that is in order, start it again".into(),
            ));
        }
        Ok(Box::new(
            self.dir.connect(&self.dir.own(), SPICE_SOCKET).await?,
        ))
    }

    async fn usage(&self) -> Result<Usage, HypervisorError> {
        let process = self.process.clone();
        blocking(move || process.usage()).await
    }

    async fn set_clipboard(&self, text: &str) -> Result<(), HypervisorError> {
        self.guest.clipboard_set(text, GUEST_PATIENCE).await
    }

    async fn clipboard(&self) -> Result<String, HypervisorError> {
        self.guest.clipboard_get(GUEST_PATIENCE).await
    }
}

impl QemuInstance {
    /// Asks the guest to shut down, first through its helper, then by the power button, which many
    /// guests ignore. Whether it did within `patience`.
    async fn shut_down(&self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        let ended_by = async |at| {
            let ended = tokio::time::timeout_at(at, self.process.ended());
            ended.await.is_ok()
        };
        let helper = || {
            self.state
                .amend_end("the guest shut down, asked through its helper")
        };
        // Waits in the port while there is no helper yet: a guest that is still booting reads it then.
        let mut asked = std::pin::pin!(self.guest.shutdown(patience));
        helper();
        let first = tokio::time::timeout(HELPER_PATIENCE.min(patience), &mut asked).await;
        match &first {
            // It has begun; a service that hangs must not use up all of the time.
            Ok(Ok(())) if ended_by(deadline - patience / 3).await => return true,
            // It may have gone before its answer was read.
            Ok(Err(_)) if !self.process.is_alive() => return true,
            Ok(Err(e)) => {
                tracing::info!(desktop = %self.request.desktop, "not shut down through the helper: {e}");
            }
            Ok(Ok(())) | Err(_) => {}
        }
        self.state
            .amend_end("the guest shut down, asked by its power button");
        let press = self
            .qmp
            .execute_within("system_powerdown", Value::Null, HELPER_PATIENCE);
        if let Err(e) = press.await {
            tracing::info!(desktop = %self.request.desktop, "its power button could not be pressed: {e}");
        }
        if first.is_err() {
            tokio::select! {
                Ok(()) = &mut asked => helper(),
                ended = ended_by(deadline) => return ended,
            }
        }
        ended_by(deadline).await
    }

    async fn end_now(&self) -> Result<(), HypervisorError> {
        self.quit().await?;
        self.dir.remove()
    }
}
