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
pub(super) const RETRY: [Duration; 5] = [
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
pub(super) type Closed = (u16, &'static str);

/// Supplies a console with connections until it has to be closed, which it says as well.
pub async fn supply(
    app: &App,
    actor: &Actor,
    desktop: &DesktopId,
    orders: Orders,
    lost: Arc<Notify>,
) {
    let mut supply = Supply {
        watch: Watch::new(app, actor, desktop),
        orders,
        attached: None,
        last: None,
        taken: None,
    };
    let (code, reason) = tokio::select! {
        closed = supply.run(&lost) => closed,
        () = app.shutdown.cancelled() => close::RESTART,
    };
    // The gateway may have ended by itself.
    let _ = supply.orders.send(Server::Close { code, reason }).await;
}

/// Where a desktop can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// On this host.
    pub host: HostId,
    /// As this generation.
    pub generation: Generation,
}

/// Looks for a person whether a desktop may still be seen, and where.
pub(super) struct Watch<'a> {
    app: &'a App,
    actor: &'a Actor,
    desktop: &'a DesktopId,
    changes: Receiver<Change>,
    course: Option<String>,
    off_since: Option<Instant>,
}

struct Supply<'a> {
    watch: Watch<'a>,
    orders: Orders,
    attached: Option<Place>,
    // The generation that was shown last.
    last: Option<Generation>,
    // How much of what was done the last machine has heard.
    taken: Option<Taken>,
}

impl<'a> Watch<'a> {
    /// From now on.
    pub(super) fn new(app: &'a App, actor: &'a Actor, desktop: &'a DesktopId) -> Watch<'a> {
        Watch {
            app,
            actor,
            desktop,
            changes: app.store.changes(),
            course: None,
            off_since: None,
        }
    }

    /// The desktop's row; `None`: the store can't be read now, and the picture need not suffer. `shown`: there was a
    /// picture already. An error: the console is to be closed.
    pub(super) async fn look(&mut self, shown: bool) -> Result<Option<Desktop>, Closed> {
        let row = match desktops::get(&self.app.store, self.desktop).await {
            Ok(Some(row)) => row,
            Ok(None) => return Err(close::DELETED),
            Err(_) => return Ok(None),
        };
        if let Owner::Course { course, .. } = &row.owner {
            self.course = Some(course.to_string());
        }
        // Anything that woke this up may concern the rights.
        if !self.may_see(&row).await {
            return Err(close::FORBIDDEN);
        }
        match self.is_off(&row, shown) {
            Some(closed) => Err(closed),
            None => Ok(Some(row)),
        }
    }

    /// Until something changed that [`look`](Self::look) looks at; at the latest when it has to look again.
    pub(super) async fn changed(&mut self) {
        let own = self.own();
        let _ = tokio::time::timeout(CHECK, changed(&mut self.changes, &own)).await;
    }

    /// A connection to the machine, of this kind. `None`: something changed first.
    pub(super) async fn open(
        &mut self,
        place: &Place,
        path: &str,
        protocol: &str,
    ) -> Option<Result<RawStream, crate::agents::AgentError>> {
        let path = format!(
            "/v1/desktops/{}/{path}?generation={}",
            self.desktop, place.generation.0
        );
        let app = self.app;
        let open = async {
            let client = app.agents.host(&place.host).await?;
            Ok(client.timeout(OPEN).upgrade(&path, protocol).await?)
        };
        let own = self.own();
        tokio::select! {
            opened = open => Some(opened),
            // It may be elsewhere by now.
            () = changed(&mut self.changes, &own) => None,
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
    fn is_off(&mut self, row: &Desktop, shown: bool) -> Option<Closed> {
        let off = row.desired != Desired::Running
            && matches!(row.phase, Phase::Stopped | Phase::Suspended | Phase::Failed);
        if !off {
            self.off_since = None;
            return None;
        }
        let since = *self.off_since.get_or_insert_with(Instant::now);
        (!shown || since.elapsed() > OFF_MAX).then_some(close::NOT_RUNNING)
    }
}

impl Supply<'_> {
    async fn run(&mut self, lost: &Notify) -> Closed {
        let mut tries = 0;
        let mut checked: Option<Instant> = None;
        loop {
            let row = match self.watch.look(self.last.is_some()).await {
                Ok(row) => row,
                Err(closed) => return closed,
            };
            let mut wait = CHECK;
            if let Some(row) = row {
                checked = Some(Instant::now());
                let place = place(&row);
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
            let own = self.watch.own();
            tokio::select! {
                () = lost.notified() => self.attached = None,
                () = changed(&mut self.watch.changes, &own) => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.orders.closed() => return close::ENDED,
            }
        }
    }

    async fn attach(&mut self, row: &Desktop, place: Place) -> Attach {
        let stream = match self.watch.open(&place, "console", "lyceum-console").await {
            Some(Ok(stream)) => stream,
            Some(Err(e)) => {
                tracing::debug!(desktop = %row.id, host = %place.host, "console: {e}");
                return Attach::Later;
            }
            None => return Attach::Again,
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
pub(super) fn place(row: &Desktop) -> Option<Place> {
    let runs = row.phase == Phase::Running && row.observed_generation == row.generation;
    let host = row.host.clone().filter(|_| runs)?;
    Some(Place {
        host,
        generation: row.generation,
    })
}
