//! Signing in and out, sessions, the own password.

use crate::app::App;
use crate::audit;
use crate::auth::{
    Actor, COOKIE, Known, Origin, Verdict, check_new_password, presented_secret, secret,
};
use crate::error::{ApiFailure, Json, Path};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lyceum_api::accounts::{self as api, Me, OneTimeSignIn, PasswordChange, SignIn};
use lyceum_model::SessionId;
use lyceum_store::one_time::{self, Purpose};
use lyceum_store::sessions::{self, Session};
use lyceum_store::users::{self, User};
use lyceum_store::{StoreError, Tx};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Sessions of one person that are kept; the longest unused end first.
const SESSIONS: usize = 20;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_in, me, sign_out))
        .routes(routes!(sign_in_once))
        .routes(routes!(list))
        .routes(routes!(revoke))
        .routes(routes!(change_password))
}

fn limit_address(origin: Origin) -> IpAddr {
    match origin {
        Origin::Network(address) => address,
        Origin::Socket => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

fn take_try(app: &App, login: &str, origin: Origin) -> Result<(), ApiFailure> {
    app.limits
        .take(login, limit_address(origin), Instant::now())
        .map_err(|seconds| {
            ApiFailure::too_many(
                format!("too many wrong tries from here: wait {seconds} s, then try again"),
                seconds,
            )
        })
}

/// Sign in with a password.
#[utoipa::path(post, path = "/session", request_body = SignIn, responses((status = 200, body = Me)), security(()))]
async fn sign_in(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Json(body): Json<SignIn>,
) -> Result<Response, ApiFailure> {
    // One that can't be a sign-in name is nobody's, and costs the same time.
    let login = lyceum_model::name::login(&body.login).unwrap_or_default();
    take_try(&app, &login, origin)?;
    let user = users::by_login(&app.store, &login).await?;
    let source = user.as_ref().map_or("local", |u| u.source.as_str());
    let authenticator = app
        .authenticators
        .iter()
        .find(|a| a.source() == source)
        .ok_or_else(|| {
            ApiFailure::unavailable(format!(
                "this controller is not connected to {source}, which knows the password"
            ))
        })?;
    let verdict = authenticator
        .check(user.as_ref(), &login, &body.password)
        .await?;
    match (verdict, user) {
        (Verdict::Right, Some(user)) if !user.disabled => {
            app.limits
                .give_back(&login, limit_address(origin), Instant::now());
            let mut tx = app.store.begin_write().await?;
            // The account may have been closed, or the password changed, while it was checked.
            let user = users::get_tx(&mut tx, &user.id)
                .await?
                .filter(|now| !now.disabled && now.password_hash == user.password_hash)
                .ok_or_else(wrong)?;
            begin(&app, tx, user, origin, &headers, false, "session.sign_in").await
        }
        (_, user) => {
            if let Some(user) = user {
                let mut tx = app.store.begin_write().await?;
                audit::write_as(
                    &mut tx,
                    &user.login,
                    &origin.to_string(),
                    "session.refused",
                    format!("user/{}", user.id),
                    if user.disabled {
                        "the account is disabled"
                    } else {
                        "wrong password"
                    },
                )
                .await?;
                tx.commit().await?;
            }
            Err(wrong())
        }
    }
}

// The same for a wrong name, a wrong password and a disabled account.
fn wrong() -> ApiFailure {
    ApiFailure::new(
        StatusCode::UNAUTHORIZED,
        "wrong_credentials",
        "the sign-in name or the password is wrong, or the account is disabled",
    )
}

/// Sign in with a one-time link, and set a password.
#[utoipa::path(post, path = "/session/one-time", request_body = OneTimeSignIn, responses((status = 200, body = Me)), security(()))]
async fn sign_in_once(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Json(body): Json<OneTimeSignIn>,
) -> Result<Response, ApiFailure> {
    // Per link, not per account: a class behind one address opens its links at once.
    take_try(&app, &body.secret, origin)?;
    let used_up = || {
        ApiFailure::new(
            StatusCode::UNAUTHORIZED,
            "link_used",
            "this link was used already, is too old, or was replaced by a newer one: ask for a new one",
        )
    };
    let hash = match &body.new_password {
        Some(password) => {
            // Whose it is, and so the sign-in name, is known only once the link is used up.
            check_new_password(password, "")?;
            Some(app.passwords.hash(password).await?)
        }
        None => None,
    };
    let mut tx = app.store.begin_write().await?;
    let subject = one_time::take(
        &mut tx,
        Purpose::SignIn,
        &secret::hash(&body.secret),
        None,
        app.now(),
    )
    .await?
    .ok_or_else(used_up)?;
    let id = lyceum_store::parse("one_time.subject", &subject)?;
    let mut user = users::get_tx(&mut tx, &id)
        .await?
        .filter(|u| !u.disabled && !u.deleting)
        .ok_or_else(used_up)?;
    if let Some(hash) = &hash {
        if user.source != "local" {
            return Err(ApiFailure::state(
                "your password is kept in the school's directory: change it there, and use the link without one",
            ));
        }
        users::set_password(&mut tx, &user.id, hash).await?;
        // Whoever had the old password is out.
        sessions::delete_others(&mut tx, &user.id, None).await?;
        user.password_hash = Some(hash.clone());
    }
    app.limits
        .give_back(&body.secret, limit_address(origin), Instant::now());
    begin(
        &app,
        tx,
        user,
        origin,
        &headers,
        hash.is_none(),
        "session.one_time",
    )
    .await
}

/// Begins a session, commits, and answers with its cookie.
async fn begin(
    app: &App,
    mut tx: Tx,
    user: User,
    origin: Origin,
    headers: &HeaderMap,
    may_set_password: bool,
    action: &str,
) -> Result<Response, ApiFailure> {
    let secret = secret::new()?;
    let now = app.now();
    let client: String = headers
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("unknown")
        .chars()
        .take(200)
        .collect();
    let session = Session {
        id: SessionId::new(),
        secret_hash: secret::hash(&secret),
        user: user.id.clone(),
        created: now,
        last_seen: now,
        client,
        address: origin.to_string(),
        may_set_password,
    };
    sessions::keep_newest(&mut tx, &user.id, SESSIONS - 1).await?;
    sessions::insert(&mut tx, &session).await?;
    let target = format!("user/{}", user.id);
    audit::write_as(
        &mut tx,
        &user.login,
        &session.address,
        action,
        target,
        &session.client,
    )
    .await?;
    tx.commit().await?;
    let me = Me {
        user: super::users::shown(&user),
        session: session.id,
        classroom_name: app.settings().await?.classroom_name,
        csrf: secret::csrf(&secret),
    };
    with_cookie(app, Json(me).into_response(), &secret, false)
}

fn with_cookie(
    app: &App,
    mut response: Response,
    secret: &str,
    end: bool,
) -> Result<Response, ApiFailure> {
    let secure = if app.config.serves_tls() {
        "; Secure"
    } else {
        ""
    };
    let end = if end { "; Max-Age=0" } else { "" };
    let cookie = format!("{COOKIE}={secret}; HttpOnly; SameSite=Strict; Path=/{secure}{end}");
    response.headers_mut().insert(
        header::SET_COOKIE,
        HeaderValue::from_str(&cookie).map_err(ApiFailure::internal)?,
    );
    Ok(response)
}

/// Who is signed in.
#[utoipa::path(get, path = "/session", responses((status = 200, body = Me)))]
async fn me(
    State(app): State<App>,
    actor: Actor,
    headers: HeaderMap,
) -> Result<Json<Me>, ApiFailure> {
    let classroom_name = app.settings().await?.classroom_name;
    let (Some(user), Some(session)) = (actor.user(), actor.session_id()) else {
        return local(classroom_name).map(Json);
    };
    Ok(Json(Me {
        user: super::users::shown(user),
        session: session.clone(),
        classroom_name,
        csrf: presented_secret(&headers)
            .map(secret::csrf)
            .unwrap_or_default(),
    }))
}

/// The local command line has no account; it sees itself as an admin called `local`.
fn local(classroom_name: String) -> Result<Me, ApiFailure> {
    Ok(Me {
        user: api::User {
            id: "local".parse().map_err(ApiFailure::internal)?,
            login: "local".into(),
            name: "local".into(),
            role: api::Role::Admin,
            disabled: false,
            has_password: false,
            created: 0,
        },
        session: "local".parse().map_err(ApiFailure::internal)?,
        classroom_name,
        csrf: String::new(),
    })
}

/// Sign out.
#[utoipa::path(delete, path = "/session", responses((status = 204)))]
async fn sign_out(State(app): State<App>, actor: Actor) -> Result<Response, ApiFailure> {
    if let (Some(user), Some(session)) = (actor.user(), actor.session_id()) {
        let mut tx = app.store.begin_write().await?;
        sessions::delete(&mut tx, &user.id, session).await?;
        audit::write(
            &mut tx,
            &actor,
            "session.sign_out",
            format!("user/{}", user.id),
            "",
        )
        .await?;
        tx.commit().await?;
    }
    with_cookie(&app, StatusCode::NO_CONTENT.into_response(), "", true)
}

/// Own sessions, the last used first.
#[utoipa::path(get, path = "/sessions", responses((status = 200, body = Vec<api::Session>)))]
async fn list(State(app): State<App>, actor: Actor) -> Result<Json<Vec<api::Session>>, ApiFailure> {
    let Some(user) = actor.user_id() else {
        return Ok(Json(Vec::new()));
    };
    let all = sessions::of_user(&app.store, user).await?;
    Ok(Json(
        all.into_iter()
            .map(|s| api::Session {
                current: actor.session_id() == Some(&s.id),
                id: s.id,
                created: s.created,
                last_seen: s.last_seen,
                client: s.client,
                address: s.address,
            })
            .collect(),
    ))
}

/// End an own session.
#[utoipa::path(delete, path = "/sessions/{id}", params(("id" = SessionId, Path)), responses((status = 204)))]
async fn revoke(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<SessionId>,
) -> Result<StatusCode, ApiFailure> {
    let user = actor
        .user_id()
        .ok_or_else(|| ApiFailure::not_found("session"))?;
    let mut tx = app.store.begin_write().await?;
    if !sessions::delete(&mut tx, user, &id).await? {
        return Err(ApiFailure::not_found("session"));
    }
    audit::write(
        &mut tx,
        &actor,
        "session.revoke",
        format!("session/{id}"),
        "",
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the own password; every other own session ends.
#[utoipa::path(post, path = "/password", request_body = PasswordChange, responses((status = 204)))]
async fn change_password(
    State(app): State<App>,
    actor: Actor,
    origin: Origin,
    Json(body): Json<PasswordChange>,
) -> Result<StatusCode, ApiFailure> {
    let Known { session, user, .. } = actor.require_person()?;
    if user.source != "local" {
        return Err(ApiFailure::state(
            "your password is kept in the school's directory: change it there",
        ));
    }
    check_new_password(&body.new_password, &user.login)?;
    match &body.old_password {
        Some(old) => {
            // Somebody at an unlocked screen may not try through all passwords.
            take_try(&app, &user.login, origin)?;
            let checker: Arc<_> = app.passwords.clone();
            use crate::auth::Authenticator;
            if checker.check(Some(user), &user.login, old).await? != Verdict::Right {
                return Err(ApiFailure::new(
                    StatusCode::FORBIDDEN,
                    "wrong_credentials",
                    "the present password is wrong",
                ));
            }
            app.limits
                .give_back(&user.login, limit_address(origin), Instant::now());
        }
        None if session.may_set_password => {}
        None => {
            return Err(ApiFailure::invalid(
                "give the present password too: it may only be left out right after signing in with a one-time link",
            ));
        }
    }
    let hash = app.passwords.hash(&body.new_password).await?;
    let mut tx = app.store.begin_write().await?;
    // Somebody may have changed it, or ended this session, in the meantime.
    let unchanged = users::get_tx(&mut tx, &user.id)
        .await?
        .is_some_and(|now| !now.disabled && now.password_hash == user.password_hash);
    if !unchanged || !sessions::exists(&mut tx, &session.id).await? {
        return Err(ApiFailure::unauthenticated());
    }
    users::set_password(&mut tx, &user.id, &hash).await?;
    sessions::delete_others(&mut tx, &user.id, Some(&session.id)).await?;
    sessions::password_set(&mut tx, &session.id).await?;
    one_time::revoke(&mut tx, Purpose::SignIn, user.id.as_str()).await?;
    audit::write(
        &mut tx,
        &actor,
        "user.password",
        format!("user/{}", user.id),
        "",
    )
    .await?;
    tx.commit()
        .await
        .map_err(|e: StoreError| e.into())
        .map(|()| StatusCode::NO_CONTENT)
}
