//! Looks for the machine behind a console for as long as somebody looks at it: wherever the
//! store says that it runs, a connection to it is handed to the gateway, and again after a reset,
//! a resume, a move or a restart of its host's agent.

use super::close;
use crate::app::App;
use crate::auth::Actor;
use lyceum_console::Server;
use lyceum_console::relay::{Relayed, Taken};
use lyceum_model::{Desired, DesktopId, Generation, HostId, Phase};
use lyceum_store::Change;
use lyceum_store::desktops::{self, Desktop, Owner};
use lyceum_wire::RawStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Between two tries to reach a machine that should be there.
const RETRY: [Duration; 5] = [
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
];
/// Rights are looked at after every change that concerns them, and in any case so often: other
/// controllers' changes are not heard.
const CHECK: Duration = Duration::from_secs(5);
/// A desktop that is off keeps its viewers for so long, should it be switched on again.
const OFF_MAX: Duration = Duration::from_secs(600);
const OPEN: Duration = Duration::from_secs(10);

/// A connection to a machine.
pub type Machine = Relayed<RawStream>;
type Orders = mpsc::Sender<Server<Machine>>;

/// Why a console is closed.
type Closed = (u16, &'static str);

/// Supplies a console with connections until it has to be closed, which it says as well.
pub async fn supply(
    app: &App,
    actor: &Actor,
    desktop: &DesktopId,
    orders: Orders,
    lost: Arc<Notify>,
) {
    let mut supply = Supply {
        app,
        actor,
        desktop,
        orders,
        changes: app.store.changes(),
        course: None,
        attached: None,
        last: None,
        taken: None,
        off_since: None,
    };
    let (code, reason) = tokio::select! {
        closed = supply.run(&lost) => closed,
        () = app.shutdown.cancelled() => close::RESTART,
    };
    // The gateway may have ended by itself.
    let _ = supply.orders.send(Server::Close { code, reason }).await;
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: HostId,
    generation: Generation,
}

struct Supply<'a> {
    app: &'a App,
    actor: &'a Actor,
    desktop: &'a DesktopId,
    orders: Orders,
    changes: Receiver<Change>,
    course: Option<String>,
    attached: Option<Place>,
    // The generation that was shown last.
    last: Option<Generation>,
    // How much of what was done the last machine has heard.
    taken: Option<Taken>,
    off_since: Option<Instant>,
}

impl Supply<'_> {
    async fn run(&mut self, lost: &Notify) -> Closed {
        let mut tries = 0;
        let mut checked: Option<Instant> = None;
        loop {
            let row = match desktops::get(&self.app.store, self.desktop).await {
                Ok(Some(row)) => Some(row),
                Ok(None) => return close::DELETED,
                // The store will be back; the picture need not suffer.
                Err(_) => None,
            };
            let mut wait = CHECK;
            if let Some(row) = row {
                if let Owner::Course { course, .. } = &row.owner {
                    self.course = Some(course.to_string());
                }
                // Anything that woke this up may concern the rights.
                if !self.may_see(&row).await {
                    return close::FORBIDDEN;
                }
                checked = Some(Instant::now());
                let place = place(&row);
                if let Some(closed) = self.is_off(&row) {
                    return closed;
                }
                if place.is_some() && place != self.attached {
                    if let Some(place) = place {
                        match self.attach(&row, place).await {
                            Attach::Done => tries = 0,
                            Attach::Again => continue,
                            Attach::Later => {
                                wait = RETRY[tries.min(RETRY.len() - 1)];
                                tries += 1;
                            }
                        }
                    }
                } else if place.is_none() {
                    tries = 0;
                }
            } else {
                wait = Duration::from_secs(1);
            }
            let check_at = checked.map_or_else(Instant::now, |at| at + CHECK);
            let until = (Instant::now() + wait).min(check_at.max(Instant::now()));
            let own = self.own();
            tokio::select! {
                () = lost.notified() => self.attached = None,
                () = changed(&mut self.changes, &own) => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.orders.closed() => return close::ENDED,
            }
        }
    }

    // What must change for something to matter here.
    fn own(&self) -> [(&'static str, Option<String>); 4] {
        let text = |id: &dyn std::fmt::Display| id.to_string();
        [
            ("session", self.actor.session_id().map(|s| text(s))),
            ("user", self.actor.user_id().map(|u| text(u))),
            ("course", self.course.clone()),
            ("desktop", Some(text(self.desktop))),
        ]
    }

    async fn may_see(&self, row: &Desktop) -> bool {
        if let (Some(id), Some(user)) = (self.actor.session_id(), self.actor.user_id()) {
            // When the store can't be read, the picture need not suffer.
            let signed_in = lyceum_store::sessions::of_user(&self.app.store, user)
                .await
                .map_or(true, |all| all.iter().any(|s| s.id == *id));
            if !signed_in {
                return false;
            }
        }
        match self.actor.require_desktop(self.app, row).await {
            Ok(_) => true,
            Err(e) => e.status.is_server_error(),
        }
    }

    // Whether it is off, and for too long.
    fn is_off(&mut self, row: &Desktop) -> Option<Closed> {
        let off = row.desired != Desired::Running
            && matches!(row.phase, Phase::Stopped | Phase::Suspended | Phase::Failed);
        if !off {
            self.off_since = None;
            return None;
        }
        let since = *self.off_since.get_or_insert_with(Instant::now);
        let shown = self.last.is_some();
        (!shown || since.elapsed() > OFF_MAX).then_some(close::NOT_RUNNING)
    }

    async fn attach(&mut self, row: &Desktop, place: Place) -> Attach {
        let path = format!(
            "/v1/desktops/{}/console?generation={}",
            self.desktop, place.generation.0
        );
        let app = self.app;
        let host = place.host.clone();
        let open = async {
            let client = app.agents.host(&host).await?;
            let stream = client
                .timeout(OPEN)
                .upgrade(&path, "lyceum-console")
                .await?;
            Ok::<_, crate::agents::AgentError>(stream)
        };
        let own = self.own();
        let stream = tokio::select! {
            opened = open => match opened {
                Ok(stream) => stream,
                Err(e) => {
                    tracing::debug!(desktop = %self.desktop, host = %place.host, "console: {e}");
                    return Attach::Later;
                }
            },
            // It may be elsewhere by now.
            () = changed(&mut self.changes, &own) => return Attach::Again,
        };
        let goes_on = matches!(row.started_by.as_deref(), Some("resume" | "move"));
        let same = self.last == Some(place.generation) || goes_on;
        self.last = Some(place.generation);
        self.attached = Some(place);
        let stream = Relayed::new(stream);
        let order = Server::Attach {
            same,
            taken: self.taken.replace(stream.taken()).and_then(|t| t.get()),
            stream,
        };
        let _ = self.orders.send(order).await;
        Attach::Done
    }
}

// Until one of these changes.
async fn changed(changes: &mut Receiver<Change>, own: &[(&'static str, Option<String>)]) {
    loop {
        match changes.recv().await {
            Ok(change) => {
                let known = |(kind, id): &(&str, Option<String>)| {
                    *kind == change.kind && id.as_ref() == Some(&change.id)
                };
                if own.iter().any(known) {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

enum Attach {
    Done,
    Again,
    Later,
}

// Where it can be seen: not before it is usable, so that nobody is shown an empty screen.
fn place(row: &Desktop) -> Option<Place> {
    let runs = row.phase == Phase::Running && row.observed_generation == row.generation;
    let host = row.host.clone().filter(|_| runs)?;
    Some(Place {
        host,
        generation: row.generation,
    })
}
