//! `lyceum user`: people and their ways in.

use crate::client::segment;
use crate::context::{Context, print};
use crate::exit::Exit;
use crate::format::{moment, word};
use crate::resolve;
use crate::table::Table;
use clap::{Subcommand, ValueEnum};
use lyceum_api::accounts::{OneTimeLink, Role, User, UserCreate, UserPatch};
use std::io::Read;

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Works on own desktops
    Student,
    /// Makes courses and images, runs own courses
    Teacher,
    /// Everything
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Student => Role::Student,
            RoleArg::Teacher => Role::Teacher,
            RoleArg::Admin => Role::Admin,
        }
    }
}

/// People.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Everybody, or whom a search finds
    List {
        /// Only this role
        #[arg(long)]
        role: Option<RoleArg>,
        /// Part of the name or sign-in name
        #[arg(long)]
        search: Option<String>,
    },
    /// Make an account; without --password-stdin a one-time link is the way in
    Create {
        /// Sign-in name
        login: String,
        /// Name as shown; default: the sign-in name
        #[arg(long)]
        name: Option<String>,
        /// Role
        #[arg(long, default_value = "student")]
        role: RoleArg,
        /// Read the first password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Change name or role
    Set {
        /// Sign-in name
        login: String,
        /// Name as shown
        #[arg(long)]
        name: Option<String>,
        /// Role
        #[arg(long)]
        role: Option<RoleArg>,
    },
    /// No more sign-ins, and every session ends
    Disable {
        /// Sign-in name
        login: String,
    },
    /// Sign-ins are possible again
    Enable {
        /// Sign-in name
        login: String,
    },
    /// Make a link that signs the person in once
    Link {
        /// Sign-in name
        login: String,
    },
    /// Delete the account and its desktops
    Delete {
        /// Sign-in name
        login: String,
    },
}

/// One line of standard input, without its end.
pub fn password_from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .map_err(|e| Exit::usage(format!("no password can be read from standard input: {e}")))?;
    let password = text.lines().next().unwrap_or("").to_owned();
    if password.is_empty() {
        return Err(Exit::usage(
            "standard input holds no password; write it there, for example with: read -s P; printf %s \"$P\" | lyceum ...",
        ));
    }
    Ok(password)
}

/// Runs the command.
pub async fn run(ctx: &Context, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List { role, search } => {
            let mut query = Vec::new();
            if let Some(role) = role {
                query.push(format!("role={}", word(&Role::from(role))));
            }
            if let Some(search) = search {
                query.push(format!("search={}", segment(&search)));
            }
            let users: Vec<User> = ctx
                .client
                .get(&format!("users?{}", query.join("&")))
                .await?;
            ctx.show_table(&users, "nobody", |users| {
                let mut table =
                    Table::new(&["LOGIN", "NAME", "ROLE", "PASSWORD", "STATE", "SINCE"]);
                for u in users {
                    table.row([
                        u.login.clone(),
                        u.name.clone(),
                        word(&u.role),
                        if u.has_password { "set" } else { "not set" }.into(),
                        if u.disabled { "disabled" } else { "active" }.into(),
                        moment(u.created),
                    ]);
                }
                table
            })
        }
        UserCommand::Create {
            login,
            name,
            role,
            password_stdin,
        } => {
            let password = password_stdin.then(password_from_stdin).transpose()?;
            let with_link = password.is_none();
            let body = UserCreate {
                name: name.unwrap_or_else(|| login.clone()),
                login,
                role: role.into(),
                password,
            };
            let user: User = ctx.client.post("users", &body).await?;
            ctx.done(
                &user,
                &format!("{} ({}) can sign in now", user.login, word(&user.role)),
            )?;
            if with_link && !ctx.json {
                link(ctx, &user).await?;
            }
            Ok(())
        }
        UserCommand::Set { login, name, role } => {
            if name.is_none() && role.is_none() {
                return Err(Exit::usage("nothing to change; give --name or --role"));
            }
            patch(
                ctx,
                &login,
                UserPatch {
                    name,
                    role: role.map(Role::from),
                    disabled: None,
                },
            )
            .await
        }
        UserCommand::Disable { login } => {
            patch(
                ctx,
                &login,
                UserPatch {
                    disabled: Some(true),
                    ..UserPatch::default()
                },
            )
            .await
        }
        UserCommand::Enable { login } => {
            patch(
                ctx,
                &login,
                UserPatch {
                    disabled: Some(false),
                    ..UserPatch::default()
                },
            )
            .await
        }
        UserCommand::Link { login } => {
            let user = resolve::user(&ctx.client, &login).await?;
            link(ctx, &user).await
        }
        UserCommand::Delete { login } => {
            let user = resolve::user(&ctx.client, &login).await?;
            let _: serde_json::Value = ctx.client.delete(&format!("users/{}", user.id)).await?;
            ctx.done(&user, &format!("{} is deleted", user.login))
        }
    }
}

async fn patch(ctx: &Context, login: &str, patch: UserPatch) -> anyhow::Result<()> {
    let user = resolve::user(&ctx.client, login).await?;
    let user: User = ctx
        .client
        .patch(&format!("users/{}", user.id), &patch)
        .await?;
    let state = if user.disabled { "disabled" } else { "active" };
    ctx.done(
        &user,
        &format!(
            "{}: {}, {}, {state}",
            user.login,
            user.name,
            word(&user.role)
        ),
    )
}

async fn link(ctx: &Context, user: &User) -> anyhow::Result<()> {
    let link: OneTimeLink = ctx
        .client
        .post(
            &format!("users/{}/one-time-link", user.id),
            &serde_json::json!({}),
        )
        .await?;
    if ctx.json {
        return ctx.show(&link, |_| String::new());
    }
    let page = super::status::page_address(ctx).await?;
    print(&format!(
        "signs {} in once, until {}: {page}{}\n",
        user.login,
        moment(link.expires),
        link.path
    ))
}
