//! `lyceum login`, `logout` and `password`: for a controller on another machine.

use super::user::password_from_stdin;
use crate::client::Client;
use crate::context::print;
use crate::exit::Exit;
use crate::format::word;
use crate::place::{self, Place, SavedSession};
use lyceum_api::accounts::{Me, OneTimeSignIn, PasswordChange, SignIn};
use std::io::{IsTerminal, Write};

/// How to sign in.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// Sign-in name; not needed with --link
    #[arg(required_unless_present = "link")]
    login: Option<String>,
    /// A one-time link or its secret; the new password is asked for
    #[arg(long, conflicts_with = "login")]
    link: Option<String>,
    /// Trust the classroom's own CA with this SHA-256, as `lyceum doctor` on the controller's machine says it
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    ca_sha256: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// 64 hex digits, with or without the colons that other programs put between them.
fn fingerprint(text: &str) -> Result<String, String> {
    let hex: String = text.chars().filter(|c| *c != ':').collect();
    match hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(hex.to_ascii_lowercase()),
        false => Err("it is 64 hexadecimal digits".to_owned()),
    }
}

/// A password typed at the terminal, unseen, or from standard input.
fn ask(question: &str, from_stdin: bool) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if from_stdin || !stdin.is_terminal() {
        return password_from_stdin();
    }
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    eprint!("{question}: ");
    let _ = std::io::stderr().flush();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before)?;
    eprintln!();
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn url_of(place: &Place) -> anyhow::Result<String> {
    match place {
        Place::Url { url, .. } => Ok(url.clone()),
        Place::Socket(_) => Err(Exit::usage(
            "signing in is for a classroom on another machine: add --url URL. On the controller's own machine the local socket needs none",
        )),
    }
}

/// Signs in and keeps the session.
pub async fn login(place: &Place, args: LoginArgs) -> anyhow::Result<()> {
    let url = url_of(place)?;
    if url.starts_with("http://") && !is_loopback(&url) {
        eprintln!(
            "warning: {url} is not encrypted; the password and the session can be read on the way"
        );
    }
    // Said once, it is kept with the session.
    let known = match place {
        Place::Url { ca_sha256, .. } => ca_sha256.clone(),
        Place::Socket(_) => None,
    };
    let ca_sha256 = args.ca_sha256.or(known);
    let client = Client::new(&Place::Url {
        url: url.clone(),
        session: None,
        ca_sha256: ca_sha256.clone(),
    })?;
    let (me, cookie): (Me, String) = match (args.login, args.link) {
        (_, Some(link)) => {
            let secret = link.rsplit('/').next().unwrap_or(&link).to_owned();
            let new_password = ask("New password (8 characters or more)", args.password_stdin)?;
            client
                .sign_in(
                    "session/one-time",
                    &OneTimeSignIn {
                        secret,
                        new_password: Some(new_password),
                    },
                )
                .await?
        }
        (Some(login), None) => {
            let password = ask("Password", args.password_stdin)?;
            client
                .sign_in("session", &SignIn { login, password })
                .await?
        }
        (None, None) => return Err(Exit::usage("name who signs in")),
    };
    place::save_session(
        &url,
        Some(SavedSession {
            cookie,
            csrf: me.csrf,
            ca_sha256,
        }),
    )?;
    print(&format!(
        "signed in at {url} as {} ({})\n",
        me.user.login,
        word(&me.user.role)
    ))
}

fn is_loopback(url: &str) -> bool {
    match url::Url::parse(url)
        .ok()
        .and_then(|url| url.host().map(|host| host.to_owned()))
    {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Ends the session and forgets it.
pub async fn logout(place: &Place) -> anyhow::Result<()> {
    let url = url_of(place)?;
    let client = Client::new(place)?;
    let ended: Result<serde_json::Value, _> = client.delete("session").await;
    place::save_session(&url, None)?;
    ended?;
    print(&format!("signed out at {url}\n"))
}

/// Changes the password of the signed-in person.
pub async fn password(place: &Place) -> anyhow::Result<()> {
    url_of(place)?;
    let client = Client::new(place)?;
    let old = ask("Present password", false)?;
    let new_password = ask("New password (8 characters or more)", false)?;
    let _: serde_json::Value = client
        .post(
            "password",
            &PasswordChange {
                old_password: Some(old),
                new_password,
            },
        )
        .await?;
    print("the password is changed; every other session has ended\n")
}
