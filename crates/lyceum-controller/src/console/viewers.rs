//! Who looks at which desktop, for all who look at it.

use lyceum_model::DesktopId;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// Most viewers of one desktop; QEMU has room for 32.
pub const VIEWERS_MAX: usize = 16;

#[derive(Debug, Clone)]
struct Viewer {
    id: u64,
    name: String,
    view_only: bool,
}

#[derive(Debug)]
struct Room {
    viewers: Vec<Viewer>,
    // Told at each change.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    rooms: HashMap<DesktopId, Room>,
    next: u64,
}

/// Who looks at which desktop. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Viewers(Arc<Mutex<Inner>>);

/// A viewer as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The person's name.
    pub name: String,
    /// Whether it only watches.
    pub view_only: bool,
    /// Whether it is the one who is told.
    pub you: bool,
}

impl Viewers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only means that another thread panicked while it held plain data.
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Somebody looks; until the answer is dropped. Nothing when there are too many.
    pub fn enter(&self, desktop: &DesktopId, name: &str, view_only: bool) -> Option<Presence> {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let room = inner.rooms.entry(desktop.clone()).or_insert_with(|| Room {
            viewers: Vec::new(),
            version: watch::channel(0).0,
        });
        if room.viewers.len() >= VIEWERS_MAX {
            return None;
        }
        room.viewers.push(Viewer {
            id,
            name: name.to_owned(),
            view_only,
        });
        room.version.send_modify(|v| *v += 1);
        Some(Presence {
            viewers: self.clone(),
            desktop: desktop.clone(),
            id,
            changes: room.version.subscribe(),
        })
    }

    /// How many look at a desktop.
    pub fn count(&self, desktop: &DesktopId) -> usize {
        self.lock()
            .rooms
            .get(desktop)
            .map_or(0, |r| r.viewers.len())
    }
}

/// One viewer's place.
#[derive(Debug)]
pub struct Presence {
    viewers: Viewers,
    desktop: DesktopId,
    id: u64,
    /// Changes when somebody comes or goes.
    pub changes: watch::Receiver<u64>,
}

impl Presence {
    /// Everybody who looks, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        let inner = self.viewers.lock();
        let Some(room) = inner.rooms.get(&self.desktop) else {
            return Vec::new();
        };
        room.viewers
            .iter()
            .map(|v| Seen {
                name: v.name.clone(),
                view_only: v.view_only,
                you: v.id == self.id,
            })
            .collect()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut inner = self.viewers.lock();
        if let Some(room) = inner.rooms.get_mut(&self.desktop) {
            room.viewers.retain(|v| v.id != self.id);
            room.version.send_modify(|v| *v += 1);
            if room.viewers.is_empty() {
                inner.rooms.remove(&self.desktop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sees_everybody_until_they_go() {
        let viewers = Viewers::default();
        let d: DesktopId = "d1".parse().expect("id");
        let ann = viewers.enter(&d, "Ann", false).expect("room");
        let mut told = ann.changes.clone();
        told.mark_unchanged();
        let teacher = viewers.enter(&d, "Ms Chen", true).expect("room");
        assert!(told.has_changed().expect("open"));
        let seen: Vec<_> = ann
            .seen()
            .into_iter()
            .map(|s| (s.name, s.view_only, s.you))
            .collect();
        assert_eq!(
            seen,
            [("Ann".into(), false, true), ("Ms Chen".into(), true, false)]
        );
        drop(ann);
        assert_eq!(teacher.seen().len(), 1);
        drop(teacher);
        assert_eq!(viewers.count(&d), 0);
        let many: Vec<_> = (0..1000)
            .filter_map(|_| viewers.enter(&d, "Ann", false))
            .collect();
        assert_eq!(many.len(), VIEWERS_MAX);
        drop(many);
        assert!(viewers.lock().rooms.is_empty());
    }
}
