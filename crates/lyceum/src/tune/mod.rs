//! `lyceum tune`: the settings of hosts and file servers, measured. What is changed, why and on
//! whose word is decided in `lyceum-tune`, which does no I/O; here the machine is read, set,
//! measured and put back.
//!
//! A group of changes is noted before it is made, so that it can be undone whatever happens to
//! this program. Then it is measured in turns, without and with, and stays only if it helps.

mod edge;
mod keep;
mod measure;

use crate::bench::tools;
use crate::context::print;
use crate::exit::{self, Exit};
use crate::parts::HostFile;
use crate::table::{Table, plain};
use clap::{Args, Subcommand};
use edge::{Edge, Known};
use keep::Kept;
use lyceum_storage::StorageConfig;
use lyceum_tune::ledger::Tried;
use lyceum_tune::machine::{Machine, Roles};
use lyceum_tune::verdict::{Measured, median, together};
use lyceum_tune::{Change, Plan, plan};
use measure::{Measures, Probe};
use std::net::IpAddr;
use std::path::PathBuf;

/// Tuning of this machine.
#[derive(Debug, Subcommand)]
pub enum TuneCommand {
    /// What would be changed here, with the reason and source of each change; changes nothing
    Plan(Where),
    /// Change, measure before and after, and keep what helps
    Apply(Box<ApplyArgs>),
    /// Put back exactly what was before
    Undo {
        /// Also what somebody else has changed since
        #[arg(long)]
        force: bool,
        /// Folder that stands for a machine's root
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// What is kept and what was tried, with the measurements
    Status {
        /// Folder that stands for a machine's root
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// After a reboot: what was kept, again (lyceum-tune.service does it)
    #[command(hide = true)]
    Again {
        /// Folder that stands for a machine's root
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
}

/// What machine it is.
#[derive(Debug, Clone, Args)]
pub struct Where {
    /// Its configuration as a host or storage agent; default: host.toml and storage.toml in /etc/lyceum
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Its fast tier; default: as configured
    #[arg(long, value_name = "DIR")]
    pub fast: Option<PathBuf>,
    /// Its slow tier; default: as configured
    #[arg(long, value_name = "DIR")]
    pub slow: Option<PathBuf>,
    /// Another machine of the disk network, where `lyceum bench net --serve` waits
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Vec<IpAddr>,
    /// Folder that stands for a machine's root
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// How changes are tried.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// What machine it is
    #[command(flatten)]
    pub place: Where,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How often it is measured, without and with each group of changes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Size of the files that are written to measure
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub size_mib: u64,
    /// Measure disks through the page cache, where they can't be used past it
    #[arg(long)]
    pub buffered: bool,
    /// Port of iperf3 on the peers
    #[arg(long, value_name = "PORT", default_value_t = tools::IPERF_PORT)]
    pub port: u16,
    /// Only these groups of changes, as `plan` names them
    #[arg(long, value_name = "GROUP")]
    pub only: Vec<String>,
    /// Keep without measuring
    #[arg(long)]
    pub unmeasured: bool,
}

/// Runs a command.
pub async fn run(command: TuneCommand, json: bool) -> anyhow::Result<()> {
    match command {
        TuneCommand::Plan(place) => {
            let (edge, known) = find(&place)?;
            let machine = edge.machine(&known)?;
            show_plan(&plan(&machine), &known, &machine, json)
        }
        TuneCommand::Apply(args) => apply(&args, json).await,
        TuneCommand::Undo { force, root } => undo(&Edge::new(&root), force),
        TuneCommand::Status { root } => status(&Edge::new(&root), json),
        TuneCommand::Again { root } => again(&Edge::new(&root)),
    }
}

/// Reads a configuration; `None`: there is none.
fn config<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> anyhow::Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Exit::usage(format!("{}: {e}", path.display()))),
    };
    toml::from_str(&text)
        .map(Some)
        .map_err(|e| Exit::usage(format!("{}:\n{e}", path.display())))
}

/// What the machine does, and where its tiers are.
fn find(place: &Where) -> anyhow::Result<(Edge, Known)> {
    let edge = Edge::new(&place.root);
    let mut known = Known {
        peers: place.peer.clone(),
        ..Known::default()
    };
    let files = if place.config.is_empty() {
        vec![
            edge.path("etc/lyceum/storage.toml"),
            edge.path("etc/lyceum/host.toml"),
        ]
    } else {
        if let Some(path) = place.config.iter().find(|path| !path.exists()) {
            return Err(Exit::usage(format!("{} is not there", path.display())));
        }
        place.config.clone()
    };
    for path in files {
        // Both kinds refuse what they don't know, so one of them understands it, or neither.
        if let Ok(Some(storage)) = config::<StorageConfig>(&path) {
            known.roles.storage = true;
            known.fast = Some(storage.fast_dir);
            known.slow = Some(storage.slow_dir);
        } else if let Some(host) = config::<HostFile>(&path)? {
            known.roles.host = true;
            known.fast.get_or_insert(host.host.fast);
            known.slow.get_or_insert(host.host.slow);
        }
    }
    if known.roles == Roles::default() {
        // Nobody said: what a machine needs that reaches the file server.
        known.roles.host = true;
    }
    known.fast = place.fast.clone().or(known.fast);
    known.slow = place.slow.clone().or(known.slow);
    Ok((edge, known))
}

#[derive(serde::Serialize)]
struct ShownPlan<'a> {
    plan: &'a Plan,
    machine: &'a Machine,
}

fn show_plan(plan: &Plan, known: &Known, machine: &Machine, json: bool) -> anyhow::Result<()> {
    if json {
        return print(&(serde_json::to_string_pretty(&ShownPlan { plan, machine })? + "\n"));
    }
    let mut out = String::new();
    if plan.changes.is_empty() {
        out.push_str("nothing to change\n");
    } else {
        let mut table = Table::new(&["GROUP", "WHAT", "IS", "WOULD BE"]);
        for c in &plan.changes {
            let what = c.knob.to_string();
            table.row([&c.group, &what, c.from.as_str(), c.to.as_str()]);
        }
        out.push_str(&table.render());
        let mut told: Vec<&str> = Vec::new();
        for c in &plan.changes {
            if !told.contains(&c.reason.as_str()) {
                told.push(&c.reason);
                let line = format!("\n{}: {}\n  source: {}\n", c.group, c.reason, c.source);
                out.push_str(&line);
                if let Err(why) = measure::probes(c.experiment, known, machine) {
                    out.push_str(&format!("  can't be measured here: {why}\n"));
                }
            }
        }
    }
    let mut left = Table::new(&["STAYS", "IS", "WHY"]);
    for l in &plan.left {
        left.row([&l.what, &l.now, &l.reason]);
    }
    if !left.is_empty() {
        out.push_str(&format!("\n{}", left.render()));
    }
    print(&out)
}

fn say(text: &str) {
    eprintln!("{}", plain(text));
}

async fn apply(args: &ApplyArgs, json: bool) -> anyhow::Result<()> {
    let (edge, known) = find(&args.place)?;
    let mut kept = Kept::open(&edge)?;
    let machine = edge.machine(&known)?;
    let plan = plan(&machine);
    let mut groups: Vec<Vec<Change>> = Vec::new();
    for change in plan.changes {
        match groups.iter_mut().find(|g| g[0].group == change.group) {
            Some(group) => group.push(change),
            None => groups.push(vec![change]),
        }
    }
    for name in &args.only {
        if !groups.iter().any(|g| g[0].group == *name) {
            return Err(Exit::usage(format!(
                "--only {name:?}: nothing of that name is to be changed; `lyceum tune plan` shows the groups"
            )));
        }
    }
    let how = Measures {
        seconds: args.seconds,
        rounds: args.rounds,
        size: args.size_mib << 20,
        port: args.port,
        buffered: args.buffered,
    };
    for group in groups {
        let name = &group[0].group;
        if !args.only.is_empty() && !args.only.contains(name) {
            continue;
        }
        let probes = match measure::probes(group[0].experiment, &known, &machine) {
            Ok(probes) => probes,
            Err(_) if args.unmeasured => Vec::new(),
            Err(why) => {
                say(&format!("{name}: not tried: {why}"));
                continue;
            }
        };
        let probes = if args.unmeasured { Vec::new() } else { probes };
        for change in &group {
            kept.ledger.note(change);
        }
        kept.save()?;
        let tried = tokio::select! {
            tried = attempt(&edge, &group, &probes, &how) => tried,
            _ = tokio::signal::ctrl_c() => Err(Exit::coded(exit::INTERRUPTED, "interrupted; what was being tried is put back")),
        };
        let why = match tried {
            Ok(Tryout::Helps(measured)) => {
                say(&format!("{name}: kept; {}", told(&measured)));
                kept.ledger.measured(name, &measured);
                kept.save()?;
                kept.boot(&edge)?;
                continue;
            }
            Ok(Tryout::No(why, measured)) => {
                say(&format!("{name}: put back: {why}"));
                put_back(&edge, &group)?;
                kept.ledger.taken_back(Tried {
                    group: name.clone(),
                    changes: group
                        .iter()
                        .map(|c| format!("{} {} -> {}", c.knob, c.from, c.to))
                        .collect(),
                    why,
                    measured,
                });
                kept.save()?;
                continue;
            }
            Err(error) => error,
        };
        put_back(&edge, &group)?;
        kept.ledger.entries.retain(|e| e.group != *name);
        kept.save()?;
        return Err(why);
    }
    drop(kept);
    status(&edge, json)
}

/// How a try ended.
enum Tryout {
    Helps(Vec<Measured>),
    No(String, Vec<Measured>),
}

fn told(measured: &[Measured]) -> String {
    if measured.is_empty() {
        return "not measured".into();
    }
    let one = |m: &Measured| {
        format!(
            "{} {:.1} -> {:.1} {} ({:+.1} %)",
            m.what,
            median(&m.before),
            median(&m.after),
            m.unit,
            m.verdict().gain * 100.0
        )
    };
    measured.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn make(edge: &Edge, group: &[Change]) -> anyhow::Result<()> {
    group.iter().try_for_each(|c| edge.set(&c.knob, &c.to))
}

fn put_back(edge: &Edge, group: &[Change]) -> anyhow::Result<()> {
    for change in group.iter().rev() {
        // What could not be set is as it was.
        if edge.get(&change.knob).as_ref() != Some(&change.from) {
            edge.set(&change.knob, &change.from)?;
        }
    }
    Ok(())
}

/// Makes a group of changes and measures in turns, without and with it. It is made at the end.
async fn attempt(
    edge: &Edge,
    group: &[Change],
    probes: &[Probe],
    how: &Measures,
) -> anyhow::Result<Tryout> {
    make(edge, group)?;
    for change in group {
        let (Some(peer), Some(bytes)) = (&change.prove_to, change.to.as_number()) else {
            continue;
        };
        let Ok(address) = peer.parse() else { continue };
        say(&format!(
            "{}: do packets of {bytes} bytes reach {peer}?",
            change.group
        ));
        if !tools::large_packets(address, how.port, bytes).await? {
            return Ok(Tryout::No(
                format!(
                    "packets of {bytes} bytes do not reach {peer} in one piece: set the MTU there, and of what is between, first"
                ),
                Vec::new(),
            ));
        }
    }
    if probes.is_empty() {
        return Ok(Tryout::Helps(Vec::new()));
    }
    let mut measured: Vec<Measured> = probes.iter().map(Probe::figure).collect();
    for round in 1..=how.rounds {
        say(&format!(
            "{}: measuring, {round} of {}",
            group[0].group, how.rounds
        ));
        put_back(edge, group)?;
        for (probe, figure) in probes.iter().zip(&mut measured) {
            figure.before.push(probe.measure(how).await?);
        }
        make(edge, group)?;
        for (probe, figure) in probes.iter().zip(&mut measured) {
            figure.after.push(probe.measure(how).await?);
        }
    }
    if together(&measured) {
        return Ok(Tryout::Helps(measured));
    }
    let why = format!("it does not help; {}", told(&measured));
    Ok(Tryout::No(why, measured))
}

fn undo(edge: &Edge, force: bool) -> anyhow::Result<()> {
    let mut kept = Kept::open(edge)?;
    let knobs: Vec<_> = kept.ledger.entries.iter().map(|e| e.knob.clone()).collect();
    let undo = kept.ledger.undo(&edge.values(&knobs), force);
    for (knob, value) in &undo.writes {
        edge.set(knob, value)?;
        println!("{knob}: {value}");
    }
    let foreign = &undo.foreign;
    kept.ledger
        .entries
        .retain(|e| foreign.iter().any(|(knob, ..)| *knob == e.knob));
    if kept.ledger.entries.is_empty() {
        kept.ledger.tried.clear();
    }
    kept.save()?;
    kept.boot(edge)?;
    for knob in &undo.gone {
        println!("{knob}: no longer there");
    }
    if foreign.is_empty() {
        println!("everything is as it was before");
        return Ok(());
    }
    let list: Vec<String> = foreign
        .iter()
        .map(|(knob, now, before)| format!("{knob} is {now}, and was {before} before"))
        .collect();
    Err(Exit::coded(
        exit::FAILED,
        format!(
            "somebody else has changed since: {}. Left alone; --force puts back what was before",
            list.join("; ")
        ),
    ))
}

fn status(edge: &Edge, json: bool) -> anyhow::Result<()> {
    let ledger = keep::read(edge)?;
    if json {
        return print(&(serde_json::to_string_pretty(&ledger)? + "\n"));
    }
    let mut out = String::new();
    if ledger.entries.is_empty() {
        out.push_str("nothing is changed\n");
    } else {
        let mut table = Table::new(&["WHAT", "BEFORE", "SET", "NOW", "MEASURED"]);
        for e in &ledger.entries {
            let now = match edge.get(&e.knob) {
                None => "not there".to_owned(),
                Some(now) if now == e.set => "as set".into(),
                Some(now) => now.to_string(),
            };
            table.row([
                &e.knob.to_string(),
                e.before.as_str(),
                e.set.as_str(),
                &now,
                &told(&e.measured),
            ]);
        }
        out.push_str(&table.render());
    }
    for tried in &ledger.tried {
        let line = format!(
            "\n{}: tried and put back ({}): {}\n",
            tried.group,
            tried.changes.join(", "),
            tried.why
        );
        out.push_str(&line);
    }
    print(&out)
}

fn again(edge: &Edge) -> anyhow::Result<()> {
    let mut kept = Kept::open(edge)?;
    let knobs: Vec<_> = kept.ledger.entries.iter().map(|e| e.knob.clone()).collect();
    let writes = kept.ledger.again(&edge.values(&knobs));
    // Noted first: what the machine came up with is what an undo goes back to.
    kept.save()?;
    let mut trouble = None;
    for (knob, value) in writes {
        match edge.set(&knob, &value) {
            Ok(()) => println!("{knob}: {value}"),
            Err(error) => {
                eprintln!("{error}");
                trouble = Some(error);
            }
        }
    }
    match trouble {
        None => Ok(()),
        Some(_) => Err(Exit::silent(exit::FAILED)),
    }
}

#[cfg(test)]
mod tests;
