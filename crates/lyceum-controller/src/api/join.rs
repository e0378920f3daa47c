//! How agents become part of the classroom: join tokens for admins, and the door on the
//! agents' own port where a token is used.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json};
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use lyceum_api::hosts::{AgentKind, JoinToken, JoinTokenCreate};
use lyceum_model::UnixMillis;
use lyceum_proto::join::{self, JoinRequest, JoinResponse, RenewRequest};
use lyceum_store::one_time::{self, Purpose};
use lyceum_store::{StoreError, agents};
use lyceum_wire::extract::Json as WireJson;
use lyceum_wire::{ApiError, Peer, PeerKind};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a token works, milliseconds.
const TOKEN_LIFE: UnixMillis = 24 * 3600 * 1000;

/// Its routes in the public API.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What the agents' port answers.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/join", axum::routing::post(join))
        .route("/renew", axum::routing::post(renew))
        .with_state(app)
}

fn word(kind: AgentKind) -> &'static str {
    match kind {
        AgentKind::Host => "host",
        AgentKind::Storage => "storage",
    }
}

/// Make a token with which an agent joins once. An older unused one for the same agent stops working.
#[utoipa::path(post, path = "/join-tokens", request_body = JoinTokenCreate, responses((status = 201, body = JoinToken)))]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<JoinTokenCreate>,
) -> Result<(StatusCode, Json<JoinToken>), ApiFailure> {
    actor.require_admin()?;
    let token = token(&app, Some(&actor), body.kind, &body.name).await?;
    Ok((StatusCode::CREATED, Json(token)))
}

/// Makes a token; `actor` is `None` when the program itself sets a classroom up.
pub async fn token(
    app: &App,
    actor: Option<&Actor>,
    kind: AgentKind,
    name: &lyceum_model::HostId,
) -> Result<JoinToken, ApiFailure> {
    let url = app.agent_url.get().ok_or_else(|| {
        ApiFailure::unavailable("the controller is just starting: try again in a second")
    })?;
    let token = lyceum_wire::JoinToken::new(url.clone(), app.ca.fingerprint())
        .map_err(ApiFailure::internal)?;
    let text = token.to_text().map_err(ApiFailure::internal)?;
    let (now, subject) = (app.now(), format!("{}/{name}", word(kind)));
    let expires = now + TOKEN_LIFE;
    let mut tx = app.store.begin_write().await?;
    if let Some(other) = agents::get_tx(&mut tx, name).await?
        && other.kind != word(kind)
    {
        return Err(ApiFailure::conflict(format!(
            "{name} is the name of an agent of another kind ({}): choose another",
            other.kind
        )));
    }
    one_time::insert(
        &mut tx,
        Purpose::Join,
        &token.secret_hash(),
        &subject,
        now,
        expires,
    )
    .await?;
    let local = Actor::local();
    audit::write(
        &mut tx,
        actor.unwrap_or(&local),
        "join_token.create",
        subject,
        "",
    )
    .await?;
    tx.commit().await?;
    Ok(JoinToken {
        token: text,
        expires,
    })
}

async fn join(
    State(app): State<App>,
    WireJson(request): WireJson<JoinRequest>,
) -> Result<WireJson<JoinResponse>, ApiError> {
    let kind = match request.kind {
        join::AgentKind::Host => "host",
        join::AgentKind::Storage => "storage",
    };
    check_url(&request.url)?;
    let now = app.now();
    let subject = format!("{kind}/{}", request.name);
    let mut tx = app.store.begin_write().await.map_err(internal)?;
    let hash = lyceum_wire::join::secret_hash(&request.secret);
    // The same key may ask again: its answer may have been lost.
    let key =
        lyceum_wire::key_hash(&request.csr_pem).map_err(|e| ApiError::invalid(e.to_string()))?;
    let meant_for = one_time::take(&mut tx, Purpose::Join, &hash, Some(&key), now)
        .await
        .map_err(internal)?;
    // Without the commit below nothing is used up, so a token for another agent stays good for that one.
    if meant_for.as_deref() != Some(&subject) {
        return Err(ApiError::forbidden(
            "the join token was used already, is too old, or is for another agent: make a new one on the controller",
        ));
    }
    let response = app
        .ca
        .sign_join(&request)
        .map_err(|e| ApiError::invalid(e.to_string()))?;
    agents::join(&mut tx, &request.name, kind, &request.url, now)
        .await
        .map_err(internal)?;
    audit::write_as(&mut tx, "system", "", "agent.join", &subject, &request.url)
        .await
        .map_err(|e| ApiError::internal(e.message))?;
    tx.commit().await.map_err(internal)?;
    tracing::info!(agent = subject, url = request.url, "an agent joined");
    Ok(WireJson(response))
}

/// The next certificate of an agent, whose present one says who it is.
async fn renew(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    WireJson(request): WireJson<RenewRequest>,
) -> Result<WireJson<JoinResponse>, ApiError> {
    let Some(Extension(peer)) = peer else {
        return Err(ApiError::forbidden(
            "only who has a certificate of this classroom can renew it",
        ));
    };
    let kind = match peer.kind {
        PeerKind::Host => "host",
        PeerKind::Storage => "storage",
        PeerKind::Controller => {
            return Err(ApiError::forbidden(
                "a controller makes its own certificate",
            ));
        }
    };
    let subject = format!("{kind}/{}", peer.name);
    let mut tx = app.store.begin_write().await.map_err(internal)?;
    let known = agents::get_tx(&mut tx, &peer.name)
        .await
        .map_err(internal)?;
    if known.is_none_or(|agent| agent.kind != kind) {
        return Err(ApiError::forbidden(format!(
            "{subject} is not part of this classroom any more: join it with a new token"
        )));
    }
    let response = app
        .ca
        .sign(&peer, &request.csr_pem)
        .map_err(|e| ApiError::invalid(e.to_string()))?;
    audit::write_as(&mut tx, "system", "", "agent.renew", &subject, "")
        .await
        .map_err(|e| ApiError::internal(e.message))?;
    tx.commit().await.map_err(internal)?;
    tracing::info!(agent = subject, "an agent's certificate was renewed");
    Ok(WireJson(response))
}

fn internal(e: StoreError) -> ApiError {
    tracing::error!("an agent could not join: {e}");
    ApiError::internal("the controller's store failed; its log says how")
}

fn check_url(text: &str) -> Result<(), ApiError> {
    let bad = || {
        ApiError::invalid(format!(
            "{:?} is not an address where an agent can be reached; it looks like https://10.0.0.5:7443",
            text.chars().take(100).collect::<String>()
        ))
    };
    let url = url::Url::parse(text).map_err(|_| bad())?;
    let plain = url.scheme() == "https"
        && url.host_str().is_some()
        && url.port().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty();
    if plain && text.len() <= 300 {
        Ok(())
    } else {
        Err(bad())
    }
}
