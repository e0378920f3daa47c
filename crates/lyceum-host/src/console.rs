//! Consoles of this host's desktops: each a relay between the gateway and the machine's VNC server.
//!
//! Before a machine stands still for good (it is suspended, or goes on elsewhere) its consoles are
//! [let go](Consoles::let_go): the machine is given what people did so far, it lets go of the keys
//! that are down, and the gateway learns from where on the next machine has to be told.

use lyceum_model::DesktopId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// SPICE closes no half of a channel, so nobody hears when QEMU has read the last keys and let go of those that are down.
const KEYS_SETTLE: Duration = Duration::from_millis(100);

/// The consoles of one desktop that are open together.
#[derive(Debug, Clone, Default)]
struct Opened {
    end: CancellationToken,
    relays: TaskTracker,
    last_input: Arc<Mutex<Option<Instant>>>,
}

#[derive(Debug, Default)]
struct Room {
    opened: Opened,
    // How many want nobody to come in.
    shut: usize,
}

/// All consoles of this host. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Consoles(Arc<Mutex<HashMap<DesktopId, Room>>>);

/// One console's place; it is open until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    opened: Opened,
    _open: TaskTrackerToken,
}

impl Seat {
    /// Comes when the console is to end.
    pub(crate) fn end(&self) -> impl Future<Output = ()> + Send + use<> {
        self.opened.end.clone().cancelled_owned()
    }

    /// When input was passed on last, if nobody knows that the machine has read it.
    pub(crate) fn ended(self, last_input: Option<Instant>) {
        let mut last = self
            .opened
            .last_input
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = last_input.max(*last);
    }
}

/// No console of the desktop is open or can be opened until this is dropped.
#[derive(Debug)]
pub(crate) struct Shut {
    consoles: Consoles,
    desktop: DesktopId,
}

impl Consoles {
    fn lock(&self) -> MutexGuard<'_, HashMap<DesktopId, Room>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a console; none while they are shut.
    pub(crate) fn enter(&self, desktop: &DesktopId) -> Option<Seat> {
        let mut rooms = self.lock();
        // Rooms that nobody is in are left at the next visit of anybody.
        rooms.retain(|_, room| room.shut > 0 || !room.opened.relays.is_empty());
        let room = rooms.entry(desktop.clone()).or_default();
        if room.shut > 0 {
            return None;
        }
        Some(Seat {
            _open: room.opened.relays.token(),
            opened: room.opened.clone(),
        })
    }

    /// Ends the desktop's consoles in order, while its machine still runs. Until the answer is
    /// dropped no other is opened; a machine that goes on in the end has its consoles back by that.
    pub(crate) async fn let_go(&self, desktop: &DesktopId) -> Shut {
        let opened = {
            let mut rooms = self.lock();
            let room = rooms.entry(desktop.clone()).or_default();
            room.shut += 1;
            std::mem::take(&mut room.opened)
        };
        let shut = Shut {
            consoles: self.clone(),
            desktop: desktop.clone(),
        };
        opened.end.cancel();
        opened.relays.close();
        opened.relays.wait().await;
        let last = *opened
            .last_input
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            tokio::time::sleep_until(last + KEYS_SETTLE).await;
        }
        shut
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        let mut rooms = self.consoles.lock();
        if let Some(room) = rooms.get_mut(&self.desktop) {
            room.shut -= 1;
            if room.shut == 0 {
                rooms.remove(&self.desktop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn consoles_end_in_order_and_stay_shut_until_the_machine_goes_on() {
        let consoles = Consoles::default();
        let d: DesktopId = "d1".parse().expect("id");
        let other: DesktopId = "d2".parse().expect("id");
        let seat = consoles.enter(&d).expect("open");
        let end = seat.end();
        let ended = tokio::spawn(async move {
            end.await;
            seat.ended(Some(Instant::now()));
        });
        let elsewhere = consoles.enter(&other).expect("open");
        let shut = consoles.let_go(&d).await;
        assert!(ended.is_finished(), "it is waited for");
        assert!(consoles.enter(&d).is_none());
        assert!(!elsewhere.opened.end.is_cancelled());
        let twice = consoles.let_go(&d).await;
        drop(shut);
        assert!(consoles.enter(&d).is_none());
        drop(twice);
        let again = consoles.enter(&d).expect("open");
        assert!(!again.opened.end.is_cancelled());
        drop((again, elsewhere));
        consoles.enter(&d);
        assert_eq!(consoles.lock().len(), 1, "nothing is kept of the past");
    }
}
