//! Changes as they happen, as server-sent events: each says only what changed, so
//! that the page fetches it again with the rights it has.

use crate::app::App;
use crate::auth::Actor;
use crate::error::ApiFailure;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use lyceum_api::{ApiError, ChangeEvent};
use lyceum_model::{CourseId, DesktopId};
use lyceum_store::{Change, desktops};
use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Rights may change while a stream is open; what was found out about a row is forgotten after this.
const REMEMBER: Duration = Duration::from_secs(60);

struct Listener {
    app: App,
    actor: Actor,
    changes: tokio::sync::broadcast::Receiver<Change>,
    mine: HashMap<String, bool>,
    since: tokio::time::Instant,
}

impl Listener {
    /// Whether the actor may know that this changed.
    async fn may_see(&mut self, change: &Change) -> bool {
        if self.actor.is_admin() {
            return true;
        }
        if self.since.elapsed() > REMEMBER {
            self.mine.clear();
            self.since = tokio::time::Instant::now();
        }
        match change.kind {
            "desktop" => {
                if let Some(known) = self.mine.get(&change.id) {
                    return *known;
                }
                let Ok(id) = change.id.parse::<DesktopId>() else {
                    return false;
                };
                let sees = match desktops::get(&self.app.store, &id).await {
                    Ok(Some(d)) => self.actor.require_desktop(&self.app, &d).await.is_ok(),
                    _ => false,
                };
                self.mine.insert(change.id.clone(), sees);
                sees
            }
            "course" => match change.id.parse::<CourseId>() {
                Ok(id) => self.actor.require_course(&self.app, &id).await.is_ok(),
                Err(_) => false,
            },
            "settings" => true,
            "image" | "draft" | "release" | "host" | "operation" | "restore_point" | "restore"
            | "timetable" => self.actor.is_teacher(),
            "user" => {
                self.actor.is_teacher()
                    || self
                        .actor
                        .user_id()
                        .is_some_and(|u| u.as_str() == change.id)
            }
            _ => false,
        }
    }

    async fn next(&mut self) -> Option<ChangeEvent> {
        let shutdown = self.app.shutdown.clone();
        loop {
            let received = tokio::select! {
                received = self.changes.recv() => received,
                () = shutdown.cancelled() => return None,
            };
            match received {
                Ok(change) => {
                    if self.may_see(&change).await {
                        return Some(ChangeEvent {
                            kind: change.kind.to_owned(),
                            id: change.id,
                        });
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    return Some(ChangeEvent {
                        kind: "reset".into(),
                        id: String::new(),
                    });
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Changes that one may see.
#[utoipa::path(get, path = "/events", tag = "events",
    responses((status = 200, description = "a stream of `change` events", body = ChangeEvent, content_type = "text/event-stream"),
              (status = "default", body = ApiError)))]
async fn events(
    State(app): State<App>,
    actor: Actor,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiFailure> {
    let listener = Listener {
        changes: app.store.changes(),
        app,
        actor,
        mine: HashMap::new(),
        since: tokio::time::Instant::now(),
    };
    let stream = futures::stream::unfold(listener, |mut listener| async move {
        let change = listener.next().await?;
        let data = serde_json::to_string(&change).unwrap_or_default();
        Some((Ok(Event::default().event("change").data(data)), listener))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}
