//! People: accounts, and the one-time links that let them in.

use crate::app::App;
use crate::audit;
use crate::auth::{Actor, check_new_password, secret};
use crate::error::{ApiFailure, Json, Path, Query};
use crate::orders::{self, By, Scope, Target, Want};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::accounts::{self as api, OneTimeLink, UserCreate, UserPatch};
use lyceum_api::courses::UserQuery;
use lyceum_model::{UnixMillis, UserId, name};
use lyceum_store::one_time::{self, Purpose};
use lyceum_store::users::{self, Role, User};
use lyceum_store::{Tx, desktops, sessions};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a one-time link works, milliseconds.
const LINK_LIFE: UnixMillis = 7 * 24 * 3600 * 1000;
/// Longest name of a person, characters.
const NAME: usize = 120;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(patch, delete))
        .routes(routes!(one_time_link))
}

/// A person for the page.
pub fn shown(user: &User) -> api::User {
    api::User {
        id: user.id.clone(),
        login: user.login.clone(),
        name: user.name.clone(),
        role: match user.role {
            Role::Student => api::Role::Student,
            Role::Teacher => api::Role::Teacher,
            Role::Admin => api::Role::Admin,
        },
        disabled: user.disabled,
        has_password: user.password_hash.is_some() || user.source != "local",
        created: user.created,
    }
}

fn role(role: api::Role) -> Role {
    match role {
        api::Role::Student => Role::Student,
        api::Role::Teacher => Role::Teacher,
        api::Role::Admin => Role::Admin,
    }
}

/// A name of a person, trimmed.
pub fn person_name(text: &str) -> Result<String, ApiFailure> {
    Ok(name::title("the person's name", text, NAME)?)
}

/// A sign-in link that is about to be kept.
pub struct Link {
    /// Its secret; only the hash is kept.
    pub secret: String,
    /// Until when it works.
    pub expires: UnixMillis,
}

/// A new link.
pub fn link(now: UnixMillis) -> Result<Link, ApiFailure> {
    Ok(Link {
        secret: secret::new()?,
        expires: now + LINK_LIFE,
    })
}

/// The page's path for a link's secret.
pub fn sign_in_path(secret: &str) -> String {
    format!("/#/welcome/{secret}")
}

/// Makes a link for somebody; older unused ones stop working.
pub async fn make_link(
    tx: &mut Tx,
    user: &UserId,
    now: UnixMillis,
) -> Result<OneTimeLink, ApiFailure> {
    let link = link(now)?;
    let hash = secret::hash(&link.secret);
    one_time::insert(tx, Purpose::SignIn, &hash, user.as_str(), now, link.expires).await?;
    Ok(OneTimeLink {
        path: sign_in_path(&link.secret),
        expires: link.expires,
    })
}

/// The rows of an account that is being made.
pub fn fresh(login: String, name: String, role: Role, now: UnixMillis) -> User {
    User {
        id: UserId::new(),
        login,
        name,
        role,
        source: "local".into(),
        password_hash: None,
        disabled: false,
        deleting: false,
        created: now,
    }
}

/// People, by sign-in name.
#[utoipa::path(get, path = "/users", params(UserQuery), responses((status = 200, body = Vec<api::User>)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<UserQuery>,
) -> Result<Json<Vec<api::User>>, ApiFailure> {
    actor.require_teacher()?;
    let search = query.search.unwrap_or_default().trim().to_lowercase();
    let wanted = query.role.map(role);
    Ok(Json(
        users::list(&app.store)
            .await?
            .iter()
            .filter(|u| wanted.is_none_or(|role| u.role == role))
            .filter(|u| u.login.contains(&search) || u.name.to_lowercase().contains(&search))
            .map(shown)
            .collect(),
    ))
}

/// Make an account.
#[utoipa::path(post, path = "/users", request_body = UserCreate, responses((status = 201, body = api::User)))]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<UserCreate>,
) -> Result<(StatusCode, Json<api::User>), ApiFailure> {
    actor.require_admin()?;
    let mut user = fresh(
        name::login(&body.login)?,
        person_name(&body.name)?,
        role(body.role),
        app.now(),
    );
    if let Some(password) = &body.password {
        check_new_password(password, &user.login)?;
        user.password_hash = Some(app.passwords.hash(password).await?);
    }
    let mut tx = app.store.begin_write().await?;
    users::insert(&mut tx, &user).await?;
    let detail = format!("{} ({}), {:?}", user.login, user.name, user.role);
    audit::write(
        &mut tx,
        &actor,
        "user.create",
        format!("user/{}", user.id),
        detail,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(shown(&user))))
}

async fn open_account(tx: &mut Tx, id: &UserId) -> Result<User, ApiFailure> {
    users::get_tx(tx, id)
        .await?
        .filter(|u| !u.deleting)
        .ok_or_else(|| ApiFailure::not_found("person"))
}

/// Change name, role, or whether somebody may sign in.
#[utoipa::path(patch, path = "/users/{id}", params(("id" = UserId, Path)), request_body = UserPatch,
    responses((status = 200, body = api::User)))]
async fn patch(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<UserId>,
    Json(body): Json<UserPatch>,
) -> Result<Json<api::User>, ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let before = open_account(&mut tx, &id).await?;
    let mut user = before.clone();
    if let Some(text) = &body.name {
        user.name = person_name(text)?;
    }
    if let Some(new) = body.role {
        user.role = role(new);
    }
    if let Some(disabled) = body.disabled {
        user.disabled = disabled;
    }
    if user != before {
        users::update(&mut tx, &user).await?;
        check_admins(&mut tx, &before).await?;
        if user.disabled && !before.disabled {
            sessions::delete_others(&mut tx, &id, None).await?;
            one_time::revoke(&mut tx, Purpose::SignIn, id.as_str()).await?;
        }
        let mut detail = vec![user.login.clone()];
        if user.name != before.name {
            detail.push(format!("name {} → {}", before.name, user.name));
        }
        if user.role != before.role {
            detail.push(format!("role {:?} → {:?}", before.role, user.role));
        }
        if user.disabled != before.disabled {
            detail.push(format!("disabled {} → {}", before.disabled, user.disabled));
        }
        audit::write(
            &mut tx,
            &actor,
            "user.change",
            format!("user/{id}"),
            detail.join("; "),
        )
        .await?;
        tx.commit().await?;
    }
    Ok(Json(shown(&user)))
}

// The classroom must not lose its last admin by a slip.
async fn check_admins(tx: &mut Tx, before: &User) -> Result<(), ApiFailure> {
    if before.role == Role::Admin && !before.disabled && users::count_admins(tx).await? == 0 {
        return Err(ApiFailure::new(
            StatusCode::CONFLICT,
            "last_admin",
            format!(
                "{} is the last admin: make somebody else an admin first",
                before.login
            ),
        ));
    }
    Ok(())
}

/// Delete an account. It is closed at once; its desktops are deleted with it.
#[utoipa::path(delete, path = "/users/{id}", params(("id" = UserId, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<UserId>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_admin()?;
    if actor.user_id() == Some(&id) {
        return Err(ApiFailure::state(
            "nobody deletes the own account: ask another admin to do it",
        ));
    }
    let settings = app.settings().await?;
    let now = app.now();
    let mut tx = app.store.begin_write().await?;
    let user = open_account(&mut tx, &id).await?;
    users::close(&mut tx, &id).await?;
    check_admins(&mut tx, &user).await?;
    let own = desktops::all_tx(&mut tx)
        .await?
        .into_iter()
        .filter(|d| matches!(&d.owner, desktops::Owner::Course { user, .. } if *user == id));
    let targets: Vec<Target> = own
        .map(|desktop| Target {
            desktop,
            name: user.name.clone(),
        })
        .collect();
    let count = targets.len();
    if count > 0 {
        let by = By {
            login: actor.login().to_owned(),
        };
        let scope = Scope {
            target: format!("user/{id}"),
            target_name: user.name.clone(),
            course: None,
        };
        let facts = Default::default();
        orders::give(
            &mut tx,
            &settings,
            &by,
            scope,
            Want::Delete,
            targets,
            &facts,
            now,
        )
        .await?;
    }
    let detail = format!("{} ({}), desktops: {count}", user.login, user.name);
    audit::write(&mut tx, &actor, "user.delete", format!("user/{id}"), detail).await?;
    if count == 0 {
        users::reap(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a link that signs somebody in once. Older unused ones stop working.
#[utoipa::path(post, path = "/users/{id}/one-time-link", params(("id" = UserId, Path)),
    responses((status = 201, body = OneTimeLink)))]
async fn one_time_link(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<UserId>,
) -> Result<(StatusCode, Json<OneTimeLink>), ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let user = open_account(&mut tx, &id).await?;
    if user.disabled {
        return Err(ApiFailure::state(format!(
            "{} may not sign in: allow it first",
            user.login
        )));
    }
    let link = make_link(&mut tx, &id, app.now()).await?;
    audit::write(
        &mut tx,
        &actor,
        "user.one_time_link",
        format!("user/{id}"),
        user.login,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(link)))
}
