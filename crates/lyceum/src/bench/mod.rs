//! `lyceum bench`: what a classroom reaches, measured on the one that runs, through the same
//! API that everybody uses.
//!
//! A bench makes a course and students of its own and removes them afterwards, also when it
//! fails or is interrupted. **What is timed:** a clock in this program, from the moment the
//! order is sent until the controller's operation counts the desktop as there, which it does
//! when the desktop is usable: identity renewed, address obtained, picture served. What the
//! hosts' agents measured from their side is reported beside it.
//!
//! `net`, `disk`, `nfs`, `storm` and `durability` are the paper's experiments: they measure a
//! machine and need no classroom.

mod balance;
mod class;
mod class_start;
mod consolidate;
mod durability;
mod files;
mod html;
mod moves;
mod net;
mod record;
mod reset;
mod restore;
mod room;
mod stats;
mod storm;
pub mod tools;
mod typist;

use crate::context::Context;
use crate::exit::{self, Exit};
use clap::Subcommand;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Benches.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Start a class by fork, and then by cold linked clones of the same release
    ClassStart(class_start::Args),
    /// Reset one desktop again and again while others run
    Reset(reset::Args),
    /// Move a running desktop from host to host, as a delta and by live migration
    Move(moves::Args),
    /// Restore points of one desktop: pause and size; and of a class: until the last is back
    Restore(restore::Args),
    /// Move all desktops of one host to another, until it is empty
    Consolidate(consolidate::Args),
    /// The paper's table 4: desktops that compute on one host, without and with compute balance
    Balance(balance::Args),
    /// TCP between two machines, both ways (iperf3)
    Net(net::Args),
    /// Reads and writes of this machine's disks by block size (fio)
    Disk(files::Args),
    /// The same over NFS; give two mounts to compare sync and async (fio)
    Nfs(files::Args),
    /// A class that boots, signs in and works, every desktop with the same offsets
    Storm(storm::Args),
    /// Flushed writes of a desktop: safe against the paper's async (qemu-img)
    Durability(durability::Args),
}

/// What all benches take.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Golden image whose newest release is used
    #[arg(long, default_value = "Demo")]
    image: String,
    /// Write the numbers here
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Where and with what it was measured.
#[derive(Debug, Clone, Serialize)]
struct Machine {
    /// When, milliseconds since 1970.
    at: i64,
    /// Version of the controller.
    version: String,
    /// Logical CPUs of a host.
    cpus: u32,
    /// Hosts.
    hosts: usize,
    /// What executes guests.
    accelerator: String,
    /// QEMU's version.
    qemu: String,
    /// Image and release.
    image: String,
}

/// Runs a bench; those of a classroom ask for it.
pub async fn run(
    ctx: impl Fn() -> anyhow::Result<Context>,
    command: BenchCommand,
    json: bool,
) -> anyhow::Result<()> {
    match command {
        BenchCommand::ClassStart(args) => class_start::run(&ctx()?, args).await,
        BenchCommand::Reset(args) => reset::run(&ctx()?, args).await,
        BenchCommand::Move(args) => moves::run(&ctx()?, args).await,
        BenchCommand::Restore(args) => restore::run(&ctx()?, args).await,
        BenchCommand::Consolidate(args) => consolidate::run(&ctx()?, args).await,
        BenchCommand::Balance(args) => balance::run(&ctx()?, args).await,
        BenchCommand::Net(args) => net::run(args, json).await,
        BenchCommand::Disk(args) => files::run(args, false, json).await,
        BenchCommand::Nfs(args) => files::run(args, true, json).await,
        BenchCommand::Storm(args) => storm::run(args, json).await,
        BenchCommand::Durability(args) => durability::run(args, json).await,
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!("{} can't be written: {e}", path.display()),
        )
    })
}

/// Says what is going on, on standard error: standard output is for the result.
fn say(text: &str) {
    eprintln!("{}", crate::table::plain(text));
}
