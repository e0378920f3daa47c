//! The program `lyceum`: the classroom's parts, the supervisor that runs them all on one
//! machine, and the command line that does what the page does.
//!
//! Every command but the parts themselves is a client of the public API; nothing here reads
//! the store or talks to an agent.

mod bench;
mod cli;
mod client;
mod commands;
mod context;
mod doctor;
mod exit;
mod format;
mod gateway;
mod parts;
mod place;
mod resolve;
mod table;
mod tune;
mod up;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, Global, HostArgs, StorageArgs};
use client::{CallError, Client};
use context::Context;
use exit::Exit;
use place::Place;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS implementation for every part of the process; a second call is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lyceum: no threads can be started: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    let json = cli.global.json();
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => ExitCode::from(tell(&error, json)),
    }
}

/// Says what went wrong, once, and with what code to end.
fn tell(error: &anyhow::Error, json: bool) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        if !exit.message.is_empty() {
            eprintln!("lyceum: {}", table::plain_lines(&exit.message));
        }
        return exit.code;
    }
    if let Some(call) = error.downcast_ref::<CallError>() {
        match call {
            CallError::Refused { error, .. } if json => {
                eprintln!("{}", serde_json::to_string(error).unwrap_or_default());
            }
            _ => eprintln!("lyceum: {}", table::plain_lines(&call.to_string())),
        }
        return call.code();
    }
    eprintln!("lyceum: {}", table::plain_lines(&format!("{error:#}")));
    exit::FAILED
}

fn context(global: &Global) -> anyhow::Result<Context> {
    let place = Place::find(global.url.as_deref(), global.state.as_deref())?;
    Ok(Context {
        client: Client::new(&place)?,
        json: global.json(),
        no_wait: global.no_wait,
    })
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(global.state.as_deref(), args).await,
        Command::Controller(args) => parts::controller(args).await,
        Command::Storage(StorageArgs {
            command: None,
            agent,
        }) => parts::storage(agent).await,
        Command::Storage(StorageArgs {
            command: Some(command),
            ..
        }) => {
            let json = global.json();
            tokio::task::spawn_blocking(move || commands::storage::run(command, json)).await?
        }
        Command::Host(HostArgs {
            command: None,
            agent,
        }) => parts::host(agent).await,
        Command::Host(HostArgs {
            command: Some(command),
            ..
        }) => commands::host::run(&context(global)?, command).await,
        Command::Doctor(args) => doctor::run(global.state.as_deref(), args, global.json()).await,
        Command::Bench(command) => bench::run(|| context(global), command, global.json()).await,
        Command::Tune(command) => tune::run(command, global.json()).await,
        Command::Openapi => context::print(&lyceum_controller::api::openapi_json()?),
        Command::Status => commands::status::run(&context(global)?).await,
        Command::Image(command) => commands::image::run(&context(global)?, command).await,
        Command::Course(command) => commands::course::run(&context(global)?, command).await,
        Command::Desktop(command) => commands::desktop::run(&context(global)?, command).await,
        Command::RestorePoint(command) => {
            commands::restore_point::run(&context(global)?, command).await
        }
        Command::Plan(args) => match args.cluster {
            Some(_) => commands::plan::run(&args, global.json()),
            None => commands::allocation::plan(&context(global)?, args.policy, args.act).await,
        },
        Command::Allocation(command) => commands::allocation::run(&context(global)?, command).await,
        Command::Samples(command) => commands::samples::run(&context(global)?, command).await,
        Command::Sim(args) => commands::sim::run(&args, global.json()),
        Command::Gateway(args) => gateway::run(&context(global)?, args).await,
        Command::Network(command) => commands::network::run(&context(global)?, command).await,
        Command::Timetable(command) => commands::timetable::run(&context(global)?, command).await,
        Command::User(command) => commands::user::run(&context(global)?, command).await,
        Command::Operation(command) => commands::operation::run(&context(global)?, command).await,
        Command::Audit(args) => commands::audit::run(&context(global)?, args).await,
        Command::Settings(command) => commands::settings::run(&context(global)?, command).await,
        Command::Session(command) => commands::session::run(&context(global)?, command).await,
        Command::Login(args) => {
            commands::login::login(&Place::find(global.url.as_deref(), None)?, args).await
        }
        Command::Logout => {
            commands::login::logout(&Place::find(global.url.as_deref(), None)?).await
        }
        Command::Password => {
            commands::login::password(&Place::find(global.url.as_deref(), None)?).await
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lyceum", &mut script);
            context::print(&String::from_utf8_lossy(&script))
        }
    }
}
