//! One piece of work per object at a time.

use lyceum_disk::Cancel;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// What is being worked on. Clones share it.
#[derive(Clone, Default)]
pub struct Objects {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

#[derive(Default)]
struct Entry {
    lock: Arc<AsyncMutex<()>>,
    /// Holder and waiters; at 0 the entry goes away.
    users: usize,
    /// The holder's.
    holder: Option<(&'static str, Cancel)>,
}

/// The right to work on one object, until it is dropped.
pub struct Hold {
    key: String,
    objects: Objects,
    /// Is set when somebody wants this work to end.
    pub cancel: Cancel,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Objects {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on `key`; `what` says what will be done, as in "is being verified".
    pub async fn hold(&self, key: String, what: &'static str) -> Hold {
        let lock = {
            let mut entries = self.entries();
            let entry = entries.entry(key.clone()).or_default();
            entry.users += 1;
            entry.lock.clone()
        };
        // Counts as a user also while it waits, and when the wait is given up.
        let mut hold = Hold {
            key,
            objects: self.clone(),
            cancel: Cancel::new(),
            guard: None,
        };
        hold.guard = Some(lock.lock_owned().await);
        if let Some(entry) = self.entries().get_mut(&hold.key) {
            entry.holder = Some((what, hold.cancel.clone()));
        }
        hold
    }

    /// Like [`Self::hold`], but says at once what is being done with the object.
    pub fn try_hold(&self, key: String, what: &'static str) -> Result<Hold, &'static str> {
        let mut entries = self.entries();
        let entry = entries.entry(key.clone()).or_default();
        match entry.lock.clone().try_lock_owned() {
            Ok(guard) => {
                let cancel = Cancel::new();
                entry.users += 1;
                entry.holder = Some((what, cancel.clone()));
                Ok(Hold {
                    key,
                    objects: self.clone(),
                    cancel,
                    guard: Some(guard),
                })
            }
            Err(_) => Err(entry.holder.as_ref().map_or("is being worked on", |h| h.0)),
        }
    }

    /// Asks the work on `key`, if any, to end.
    pub fn cancel(&self, key: &str) {
        if let Some((_, cancel)) = self.entries().get(key).and_then(|e| e.holder.as_ref()) {
            cancel.cancel();
        }
    }

    /// Asks all work to end.
    pub fn cancel_all(&self) {
        for (_, cancel) in self.entries().values().filter_map(|e| e.holder.as_ref()) {
            cancel.cancel();
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut entries = self.objects.entries();
        if let Some(entry) = entries.get_mut(&self.key) {
            if self.guard.is_some() {
                entry.holder = None;
            }
            entry.users -= 1;
            if entry.users == 0 {
                entries.remove(&self.key);
            }
        }
        drop(entries);
        self.guard = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left() {
        let objects = Objects::default();
        let first = objects.hold("a".into(), "is being made").await;
        assert_eq!(
            objects.try_hold("a".into(), "is being removed").err(),
            Some("is being made")
        );
        drop(objects.try_hold("b".into(), "other").unwrap());
        let waiting = tokio::spawn({
            let objects = objects.clone();
            async move { objects.hold("a".into(), "is being removed").await }
        });
        objects.cancel("a");
        assert!(first.cancel.is_cancelled());
        drop(first);
        let second = waiting.await.unwrap();
        assert!(
            !second.cancel.is_cancelled(),
            "the old cancel hit the new work"
        );
        // A wait that is given up leaves nothing either.
        let given_up = objects.hold("a".into(), "never");
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(1), given_up)
                .await
                .is_err()
        );
        drop(second);
        assert!(objects.is_empty());
    }
}
