//! Who is on a course's roster.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path};
use crate::roster;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use lyceum_api::courses::{
    CourseRole, Member, MemberPut, RosterChange, RosterCsv, RosterLink, RosterRow,
};
use lyceum_api::wording::wordings;
use lyceum_model::{CourseId, UserId};
use lyceum_store::Tx;
use lyceum_store::courses::{self, MemberRole};
use lyceum_store::users::{self, Role, User};
use std::collections::HashMap;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// Longest body, bytes: 1 MiB of text as JSON, where a character may take six.
const BODY: usize = 6 * roster::MAX_BYTES + 1024;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, apply).layer(DefaultBodyLimit::max(BODY)))
        .routes(routes!(preview).layer(DefaultBodyLimit::max(BODY)))
        .routes(routes!(put_member, remove_member))
}

fn role(role: CourseRole) -> MemberRole {
    match role {
        CourseRole::Student => MemberRole::Student,
        CourseRole::Teacher => MemberRole::Teacher,
    }
}

fn shown(member: courses::Member) -> Member {
    Member {
        user: member.user,
        login: member.login,
        name: member.name,
        role: super::courses::shown_role(member.role),
    }
}

/// The roster, by sign-in name.
#[utoipa::path(get, path = "/courses/{id}/roster", params(("id" = CourseId, Path)), responses((status = 200, body = Vec<Member>)))]
async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Json<Vec<Member>>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let members = courses::members(&app.store, &id).await?;
    Ok(Json(members.into_iter().map(shown).collect()))
}

/// What a plan needs, and the accounts it was made for.
async fn plan(
    tx: &mut Tx,
    id: &CourseId,
    body: &RosterCsv,
) -> Result<(RosterChange, HashMap<String, User>), ApiFailure> {
    if body.csv.len() > roster::MAX_BYTES {
        return Err(ApiFailure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the roster file is larger than 1 MiB: is this the right file?",
        ));
    }
    let present: Vec<RosterRow> = courses::members_tx(tx, id)
        .await?
        .into_iter()
        .map(shown)
        .map(|m| RosterRow {
            login: m.login,
            name: m.name,
            role: m.role,
        })
        .collect();
    let accounts: HashMap<String, User> = users::list_tx(tx)
        .await?
        .into_iter()
        .map(|u| (u.login.clone(), u))
        .collect();
    let names = accounts
        .iter()
        .map(|(login, u)| (login.clone(), u.name.clone()))
        .collect();
    let mut change = roster::plan(
        &body.csv,
        &names,
        &present,
        body.remove_missing,
        body.create_accounts,
    );
    change.wordings = wordings(change.problems.iter().map(|p| p.message.as_str()));
    Ok((change, accounts))
}

/// What a roster file would change. Changes nothing.
#[utoipa::path(post, path = "/courses/{id}/roster/preview", params(("id" = CourseId, Path)), request_body = RosterCsv,
    responses((status = 200, body = RosterChange)))]
async fn preview(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<RosterCsv>,
) -> Result<Json<RosterChange>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let mut tx = app.store.begin_write().await?;
    let (change, _) = plan(&mut tx, &id, &body).await?;
    Ok(Json(change))
}

/// Make the roster what a file says, all of it or, when any line has a problem, nothing. New
/// accounts are students'; when an admin does it, teachers of the course become teachers.
#[utoipa::path(put, path = "/courses/{id}/roster", params(("id" = CourseId, Path)), request_body = RosterCsv,
    responses((status = 200, body = RosterChange)))]
async fn apply(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<RosterCsv>,
) -> Result<Json<RosterChange>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let settings = app.settings().await?;
    let now = app.now();
    let mut tx = app.store.begin_write().await?;
    let (mut change, mut accounts) = plan(&mut tx, &id, &body).await?;
    if let Some(first) = change.problems.first() {
        return Err(ApiFailure::invalid(format!(
            "nothing was changed: line {}: {}{}",
            first.line,
            first.message,
            match change.problems.len() {
                1 => String::new(),
                n => format!(" (and {} more problems)", n - 1),
            }
        )));
    }
    if !change.create.is_empty() {
        actor.require_teacher()?;
    }
    for row in &change.create {
        let global = match row.role {
            CourseRole::Teacher if actor.is_admin() => Role::Teacher,
            _ => Role::Student,
        };
        let user = super::users::fresh(row.login.clone(), row.name.clone(), global, now);
        users::insert(&mut tx, &user).await?;
        let link = super::users::make_link(&mut tx, &user.id, now).await?;
        let detail = format!(
            "{} ({}), {global:?}, by a roster file",
            user.login, user.name
        );
        audit::write(
            &mut tx,
            &actor,
            "user.create",
            format!("user/{}", user.id),
            detail,
        )
        .await?;
        change.links.push(RosterLink {
            login: row.login.clone(),
            path: link.path,
        });
        accounts.insert(row.login.clone(), user);
    }
    let account = |row: &RosterRow| {
        accounts
            .get(&row.login)
            .map(|u| (u.id.clone(), u.name.clone()))
            .ok_or_else(|| ApiFailure::internal("a roster row without an account"))
    };
    for row in change.add.iter().chain(&change.change) {
        courses::put_member(&mut tx, &id, &account(row)?.0, role(row.role)).await?;
    }
    let gone = change
        .remove
        .iter()
        .map(account)
        .collect::<Result<Vec<_>, _>>()?;
    super::courses::take_off(&mut tx, &app, &settings, &actor, &id, &gone).await?;
    let names = |rows: &[RosterRow]| {
        rows.iter()
            .map(|r| r.login.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let detail = format!(
        "added: {}; changed: {}; removed: {}",
        names(&change.add),
        names(&change.change),
        names(&change.remove)
    );
    audit::write(
        &mut tx,
        &actor,
        "course.roster",
        format!("course/{id}"),
        detail,
    )
    .await?;
    tx.commit().await?;
    Ok(Json(change))
}

/// Put somebody on the roster, or change the role there.
#[utoipa::path(put, path = "/courses/{id}/members/{user}", params(("id" = CourseId, Path), ("user" = UserId, Path)),
    request_body = MemberPut, responses((status = 200, body = Member)))]
async fn put_member(
    State(app): State<App>,
    actor: Actor,
    Path((id, user)): Path<(CourseId, UserId)>,
    Json(body): Json<MemberPut>,
) -> Result<Json<Member>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let mut tx = app.store.begin_write().await?;
    let person = users::get_tx(&mut tx, &user)
        .await?
        .filter(|u| !u.deleting)
        .ok_or_else(|| ApiFailure::not_found("person"))?;
    courses::put_member(&mut tx, &id, &user, role(body.role)).await?;
    let detail = format!("{} as {:?}", person.login, body.role);
    audit::write(
        &mut tx,
        &actor,
        "course.member",
        format!("course/{id}"),
        detail,
    )
    .await?;
    tx.commit().await?;
    Ok(Json(Member {
        user,
        login: person.login,
        name: person.name,
        role: body.role,
    }))
}

/// Take somebody off the roster. Access ends at once; the desktop in the course is deleted.
#[utoipa::path(delete, path = "/courses/{id}/members/{user}", params(("id" = CourseId, Path), ("user" = UserId, Path)),
    responses((status = 204)))]
async fn remove_member(
    State(app): State<App>,
    actor: Actor,
    Path((id, user)): Path<(CourseId, UserId)>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let settings = app.settings().await?;
    let mut tx = app.store.begin_write().await?;
    let member = courses::members_tx(&mut tx, &id)
        .await?
        .into_iter()
        .find(|m| m.user == user)
        .ok_or_else(|| ApiFailure::not_found("person on the roster"))?;
    let gone = [(user, member.name.clone())];
    super::courses::take_off(&mut tx, &app, &settings, &actor, &id, &gone).await?;
    audit::write(
        &mut tx,
        &actor,
        "course.member_removed",
        format!("course/{id}"),
        member.login,
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
