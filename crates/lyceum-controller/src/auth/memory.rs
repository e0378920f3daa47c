//! Sessions, settings and agents that were read lately, so that a request which changes nothing
//! needs no database for its rights.
//!
//! The store announces each change before the transaction's `commit` returns, and every look
//! here first takes in what was announced: a request that begins after an answer about a
//! revocation never sees the session. Other controllers on one PostgreSQL do not hear our
//! announcements, hence the short life of entries there.

use super::secret;
use crate::app::App;
use crate::error::ApiFailure;
use lyceum_api::Settings;
use lyceum_model::UnixMillis;
use lyceum_store::agents::{self, Agent};
use lyceum_store::sessions::{self, Session};
use lyceum_store::users::User;
use lyceum_store::{Change, Store};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// How long an entry lives.
const LIFE: Duration = Duration::from_secs(60);
/// The same when other controllers may change the store.
const SHARED_LIFE: Duration = Duration::from_secs(2);
/// Sessions that are kept.
const MOST: usize = 20_000;
/// How exact `last_seen` is in the store, milliseconds.
const SEEN_EVERY: UnixMillis = 60_000;

/// A signed-in person.
#[derive(Debug)]
pub struct Known {
    /// The session.
    pub session: Session,
    /// Its person.
    pub user: User,
    // Newer than the session's row, by at most a minute.
    last_seen: AtomicI64,
    last_written: AtomicI64,
}

struct Inner {
    changes: Receiver<Change>,
    // Counts announced changes, to tell whether what was read meanwhile is still true.
    epoch: u64,
    sessions: HashMap<String, (Instant, Arc<Known>)>,
    settings: Option<(Instant, Settings)>,
    agents: Option<(Instant, Arc<Vec<Agent>>)>,
}

/// See the module.
pub struct Memory {
    inner: Mutex<Inner>,
    life: Duration,
}

impl Memory {
    /// Listens to the store's changes from now on.
    pub fn new(store: &Store) -> Memory {
        Memory {
            life: if store.is_shared() { SHARED_LIFE } else { LIFE },
            inner: Mutex::new(Inner {
                changes: store.changes(),
                epoch: 0,
                sessions: HashMap::new(),
                settings: None,
                agents: None,
            }),
        }
    }

    /// Takes in what was announced.
    fn current(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only means that another thread panicked while it held copies.
        let mut inner = self.inner.lock().unwrap_or_else(|p| p.into_inner());
        loop {
            match inner.changes.try_recv() {
                Ok(Change { kind, id }) => match kind {
                    "session" => {
                        inner.epoch += 1;
                        inner
                            .sessions
                            .retain(|_, (_, k)| k.session.id.as_str() != id);
                    }
                    "user" => {
                        inner.epoch += 1;
                        inner.sessions.retain(|_, (_, k)| k.user.id.as_str() != id);
                    }
                    "settings" => {
                        inner.epoch += 1;
                        inner.settings = None;
                    }
                    "host" => {
                        inner.epoch += 1;
                        inner.agents = None;
                    }
                    _ => {}
                },
                Err(TryRecvError::Lagged(_)) => {
                    inner.epoch += 1;
                    inner.sessions.clear();
                    inner.settings = None;
                    inner.agents = None;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return inner,
            }
        }
    }

    /// Who has this session, if it is one that goes on. Notes that it was used.
    pub async fn session(&self, app: &App, given: &str) -> Result<Option<Arc<Known>>, ApiFailure> {
        // What the store keeps; it also bounds the key's length.
        let hash = secret::hash(given);
        let (cached, epoch) = {
            let inner = self.current();
            let cached = inner
                .sessions
                .get(&hash)
                .filter(|(read, _)| read.elapsed() < self.life)
                .map(|(_, known)| known.clone());
            (cached, inner.epoch)
        };
        let known = match cached {
            Some(known) => known,
            None => {
                let Some((session, user)) = sessions::find(&app.store, &hash).await? else {
                    return Ok(None);
                };
                let known = Arc::new(Known {
                    last_seen: session.last_seen.into(),
                    last_written: session.last_seen.into(),
                    session,
                    user,
                });
                let mut inner = self.current();
                if inner.epoch == epoch {
                    if inner.sessions.len() >= MOST {
                        inner.sessions.clear();
                    }
                    inner.sessions.insert(hash, (Instant::now(), known.clone()));
                }
                known
            }
        };
        let settings = self.settings(&app.store).await?;
        let now = app.now();
        let idle = UnixMillis::from(settings.session_idle_minutes) * 60_000;
        if known.user.disabled || now - known.last_seen.load(Ordering::Relaxed) > idle {
            return Ok(None);
        }
        known.last_seen.fetch_max(now, Ordering::Relaxed);
        let written = known.last_written.load(Ordering::Relaxed);
        if now - written >= SEEN_EVERY
            && known
                .last_written
                .compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            // Nobody waits for it; at worst a session ends a minute early.
            let (store, id) = (app.store.clone(), known.session.id.clone());
            tokio::spawn(async move {
                let write = async {
                    let mut tx = store.begin_write().await?;
                    sessions::seen(&mut tx, &id, now).await?;
                    tx.commit().await
                };
                if let Err(e) = write.await {
                    tracing::warn!("the use of a session could not be noted: {e}");
                }
            });
        }
        Ok(Some(known))
    }

    /// The settings.
    pub async fn settings(&self, store: &Store) -> Result<Settings, ApiFailure> {
        let epoch = {
            let inner = self.current();
            if let Some((read, settings)) = &inner.settings
                && read.elapsed() < self.life
            {
                return Ok(settings.clone());
            }
            inner.epoch
        };
        let settings = crate::api::settings::from_rows(lyceum_store::settings::all(store).await?)?;
        let mut inner = self.current();
        if inner.epoch == epoch {
            inner.settings = Some((Instant::now(), settings.clone()));
        }
        Ok(settings)
    }

    /// All agents that joined, hosts first.
    pub async fn agents(&self, store: &Store) -> Result<Arc<Vec<Agent>>, ApiFailure> {
        let epoch = {
            let inner = self.current();
            if let Some((read, agents)) = &inner.agents
                && read.elapsed() < self.life
            {
                return Ok(agents.clone());
            }
            inner.epoch
        };
        let mut all = agents::list(store, "host").await?;
        all.extend(agents::list(store, "storage").await?);
        let all = Arc::new(all);
        let mut inner = self.current();
        if inner.epoch == epoch {
            inner.agents = Some((Instant::now(), all.clone()));
        }
        Ok(all)
    }
}
