//! What one desktop is asked for, and in which order it is done. Pure: no I/O, no
//! clock, no synchronisation of its own; the [actor](crate::desktop) owns it.
//!
//! ```text
//!            Run                     usable                  Save
//!   (none) ───────► Starting ──────────────────► Running ──────────► Saving
//!      ▲               │ Stop, or Run of a newer    │                  │ over (a capture, or it failed)
//!      │               ▼ generation                 ▼                  ▼
//!      └─────────── Ending ◄────────────────────────┴────────────── Running
//! ```
//!
//! The policy:
//! - What carries an older generation than the newest seen is refused.
//! - Each generation is started at most once. Saying it again changes nothing, also
//!   when its machine has ended since.
//! - A newer generation replaces an older one: its machine is ended first, or its
//!   start is dropped when it has not begun.
//! - Stop beats start: it drops what waits to be started and ends what is there.
//! - A save is only of a desktop that runs; the same save again is the same save. One
//!   that has begun is not interrupted: what came meanwhile is done after it.

use lyceum_model::Generation;

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// On its way.
    Starting,
    /// Usable.
    Running,
    /// A delta is being written.
    Saving,
    /// Being ended.
    Ending,
}

/// A save as asked for. `K` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save<K> {
    /// Its name.
    pub key: K,
    /// Whether the machine is ended afterwards.
    pub suspend: bool,
}

/// Answer to something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It changed what will be done.
    Accepted,
    /// It is done or being done already.
    Known,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Older than the newest generation seen.
    Stale {
        /// The newest.
        newest: Generation,
    },
    /// It needs a running desktop of that generation.
    NotRunning,
    /// Another save is going on.
    Saving,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<R, K> {
    /// Start this; the machine counts as [`Doing::Starting`] from now on.
    Start(R),
    /// End the machine, giving the guest this many milliseconds.
    End {
        /// Patience.
        patience_ms: u64,
    },
    /// Write a delta.
    Save(Save<K>),
}

/// The queue of one desktop. `R` is what a start needs, `K` names a save.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue<R, K> {
    newest: Generation,
    /// Whether the newest generation was given out to be started.
    started: bool,
    machine: Option<(Generation, Doing)>,
    next: Option<R>,
    /// Asked for, and not begun.
    end: Option<u64>,
    save: Option<Save<K>>,
    saving: Option<Save<K>>,
}

impl<R: Clone, K: Clone + PartialEq> Queue<R, K> {
    /// Nothing runs; this generation is the newest known, and `started` whether it was
    /// started here.
    pub fn new(newest: Generation, started: bool) -> Self {
        Queue {
            newest,
            started,
            machine: None,
            next: None,
            end: None,
            save: None,
            saving: None,
        }
    }

    /// The same with a machine that was found there. One that is older than what
    /// was seen before is ended.
    pub fn adopted(newest: Generation, machine: Generation, doing: Doing) -> Self {
        let newest = newest.max(machine);
        Queue {
            machine: Some((machine, doing)),
            end: (machine < newest).then_some(0),
            ..Queue::new(newest, newest == machine)
        }
    }

    /// The newest generation seen.
    pub fn newest(&self) -> Generation {
        self.newest
    }

    /// Whether the newest generation has been started.
    pub fn started(&self) -> bool {
        self.started
    }

    /// The machine, as far as the queue knows.
    pub fn machine(&self) -> Option<(Generation, Doing)> {
        self.machine
    }

    /// Whether something waits to be started.
    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    fn not_stale(&self, generation: Generation) -> Result<(), Refusal> {
        if generation < self.newest {
            return Err(Refusal::Stale {
                newest: self.newest,
            });
        }
        Ok(())
    }

    /// What [`run`](Self::run) would say, without changing anything.
    pub fn would_run(&self, generation: Generation) -> Result<Admission, Refusal> {
        self.not_stale(generation)?;
        let known = generation == self.newest && (self.started || self.next.is_some());
        Ok(if known {
            Admission::Known
        } else {
            Admission::Accepted
        })
    }

    /// Run it under this generation.
    pub fn run(&mut self, generation: Generation, request: R) -> Result<Admission, Refusal> {
        let admission = self.would_run(generation)?;
        if admission == Admission::Accepted {
            self.newest = generation;
            self.started = false;
            self.next = Some(request);
            self.save = None;
        }
        Ok(admission)
    }

    /// Stop it. [`Admission::Known`]: there was nothing to stop.
    pub fn stop(&mut self, generation: Generation, patience_ms: u64) -> Result<Admission, Refusal> {
        self.not_stale(generation)?;
        let called_off = self.next.take().is_some();
        if generation > self.newest {
            self.newest = generation;
            self.started = false;
        } else if called_off {
            // It does not come back by being said again.
            self.started = true;
        }
        self.save = None;
        match self.machine {
            None => Ok(Admission::Known),
            Some((_, Doing::Ending)) => Ok(Admission::Known),
            Some(_) => {
                self.end = Some(self.end.map_or(patience_ms, |p| p.min(patience_ms)));
                Ok(Admission::Accepted)
            }
        }
    }

    /// Write a delta of it.
    pub fn save(&mut self, generation: Generation, save: Save<K>) -> Result<Admission, Refusal> {
        self.not_stale(generation)?;
        let running = match self.machine {
            Some((of, doing)) => {
                of == generation && matches!(doing, Doing::Running | Doing::Saving)
            }
            None => false,
        };
        if !running || self.end.is_some() || self.next.is_some() {
            return Err(Refusal::NotRunning);
        }
        match (&self.saving, &self.save) {
            (Some(s), _) | (None, Some(s)) if *s == save => Ok(Admission::Known),
            (None, None) => {
                self.save = Some(save);
                Ok(Admission::Accepted)
            }
            _ => Err(Refusal::Saving),
        }
    }

    /// What is to be done next, if anything; ask again after each answer. Taking it changes what the machine is doing.
    pub fn take(&mut self) -> Option<Action<R, K>> {
        let Some((generation, doing)) = self.machine else {
            let request = self.next.take()?;
            self.machine = Some((self.newest, Doing::Starting));
            self.started = true;
            return Some(Action::Start(request));
        };
        if matches!(doing, Doing::Ending | Doing::Saving) {
            return None;
        }
        if self.end.is_some() || self.next.is_some() {
            self.machine = Some((generation, Doing::Ending));
            self.save = None;
            let patience_ms = self.end.take().unwrap_or(0);
            return Some(Action::End { patience_ms });
        }
        if doing == Doing::Running
            && let Some(save) = self.save.take()
        {
            self.machine = Some((generation, Doing::Saving));
            self.saving = Some(save.clone());
            return Some(Action::Save(save));
        }
        None
    }

    /// The machine became usable.
    pub fn usable(&mut self) {
        if let Some((_, doing @ Doing::Starting)) = &mut self.machine {
            *doing = Doing::Running;
        }
    }

    /// A save is over and the machine is there still.
    pub fn save_over(&mut self) {
        self.saving = None;
        if let Some((_, doing @ Doing::Saving)) = &mut self.machine {
            *doing = Doing::Running;
        }
    }

    /// The machine ended by itself; what is left of it is being cleared up, then it is [`gone`](Self::gone).
    pub fn ended_by_itself(&mut self) {
        if let Some((_, doing)) = &mut self.machine {
            *doing = Doing::Ending;
        }
        self.end = None;
        self.save = None;
        self.saving = None;
    }

    /// There is no machine any more, for whatever reason.
    pub fn gone(&mut self) {
        self.machine = None;
        self.end = None;
        self.save = None;
        self.saving = None;
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
