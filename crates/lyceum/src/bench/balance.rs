//! The paper's table 4: five desktops compute at once on one host, without and with compute balance.
//!
//! Each computes pi again and again, started by its own keyboard; that it began and that it is done it says in its
//! clipboard. How often is found out before, so that one alone would take the time that was asked for.

use super::class::{Class, with_class};
use super::room::Room;
use super::typist::{RETURN, Typist};
use super::{Common, Machine, say, write};
use crate::context::{Context, print};
use crate::exit::{self, Exit};
use crate::table::Table;
use lyceum_api::Page;
use lyceum_api::allocation::{Allocation, AllocationNow, PlanRecord, StepAction, StepState};
use lyceum_api::desktops::{ClipboardText, Desktop};
use lyceum_model::HostId;
use lyceum_placement::Mode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two looks at a desktop's clipboard.
const LOOK: Duration = Duration::from_secs(2);
/// A desktop that was typed into begins within this.
const BEGINS: Duration = Duration::from_secs(120);
/// The shortest computation from which the longer ones are scaled.
const TRIED: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many desktops compute at once
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=50))]
    desktops: u32,
    /// Seconds that one would compute alone on its host
    #[arg(long, value_name = "S", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=7200))]
    alone: u32,
    /// Minutes of the averages that are decided on; the paper's and the setting's usual one is 10
    #[arg(long, value_name = "MIN", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=60))]
    average: u32,
    /// What all benches take
    #[command(flatten)]
    common: Common,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
struct Run {
    /// Of each desktop, from its return key until it said that it was done; in the order they came.
    seconds: Vec<f64>,
    mean_s: f64,
    /// Desktops by host at the end.
    hosts: BTreeMap<String, usize>,
    /// Moves of the plan that came by itself.
    moves: usize,
    /// When it came, seconds after the computing began.
    plan_after_s: Option<f64>,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
struct Result {
    desktops: usize,
    average_minutes: u32,
    /// Computations of pi to 300 digits, each desktop.
    rounds: u64,
    without: Run,
    with: Run,
    /// How much shorter the mean is, percent.
    shorter_percent: f64,
    machine: Machine,
}

/// What a desktop runs; its clipboard is this file, which is read whole before anything in it is done.
fn script(rounds: u64) -> String {
    format!(
        "{{ echo began >/run/lyceum/clipboard\n\
         i=0; while [ $i -lt {rounds} ]; do echo 'scale=300;4*a(1)' | bc -l >/dev/null; i=$((i+1)); done\n\
         echo done >/run/lyceum/clipboard; exit; }}\n"
    )
}

/// Measures and reports.
pub async fn run(ctx: &Context, args: Args) -> anyhow::Result<()> {
    let room = Room::find(ctx, 2).await?;
    let before: AllocationNow = ctx.client.get("allocation").await?;
    let class = Class::make(ctx, &args.common.image, args.desktops as usize).await?;
    let result = with_class(ctx, class, async |class| {
        measure(ctx, &room, class, &before.settings, &args).await
    })
    .await;
    room.open(ctx).await;
    if let Err(error) = allocate(ctx, &before.settings).await {
        say(&format!(
            "the allocation's settings could not be put back: {error}; see: lyceum allocation show"
        ));
    }
    let result = result?;
    let json = serde_json::to_string_pretty(&result)? + "\n";
    if let Some(path) = &args.common.json {
        write(path.as_ref(), &json)?;
    }
    print(&if ctx.json { json } else { text(&result) })
}

async fn allocate(ctx: &Context, settings: &Allocation) -> anyhow::Result<AllocationNow> {
    Ok(ctx.client.put("allocation", settings).await?)
}

async fn measure(
    ctx: &Context,
    room: &Room,
    class: &Class,
    before: &Allocation,
    args: &Args,
) -> anyhow::Result<Result> {
    let all = args.desktops as usize;
    let Some(host) = room.hosts.first() else {
        return Err(Exit::coded(exit::FAILED, "there is no host"));
    };
    let mut by_hand = before.clone();
    by_hand.automatic = false;
    by_hand.average_minutes = args.average;
    by_hand.every_minutes = 1;
    by_hand.policy.mode = Mode::ComputeBalance;
    by_hand.policy.pause_minutes = 0;
    let by_itself = Allocation {
        automatic: true,
        ..by_hand.clone()
    };
    let now = allocate(ctx, &by_hand).await?;
    if now.mode != Mode::ComputeBalance {
        return Err(Exit::coded(
            exit::REFUSED,
            format!(
                "the timetable wants {} now ({}), so compute balance can't be tried",
                now.mode, now.mode_reason
            ),
        ));
    }
    let desktops = start(ctx, room, class, host, all).await?;
    let rounds = scale(ctx, &desktops, args.alone).await?;
    let idle = Duration::from_secs(u64::from(args.average + 1) * 60);

    say(&format!(
        "{all} desktops compute on {host}, without balance"
    ));
    let without = compute(ctx, class, &desktops, rounds).await?;

    class.order(ctx, "stop", all, false).await?;
    let desktops = start(ctx, room, class, host, all).await?;
    say(&format!(
        "waiting {} minutes, so that no average has anything of it",
        args.average + 1
    ));
    tokio::time::sleep(idle).await;
    say(&format!(
        "{all} desktops compute on {host}, with compute balance"
    ));
    allocate(ctx, &by_itself).await?;
    let with = compute(ctx, class, &desktops, rounds).await?;
    allocate(ctx, &by_hand).await?;
    say("stopping them");
    class.order(ctx, "stop", all, false).await?;
    Ok(Result {
        desktops: all,
        average_minutes: args.average,
        rounds,
        shorter_percent: (1.0 - with.mean_s / without.mean_s) * 100.0,
        without,
        with,
        machine: class.machine.clone(),
    })
}

/// All of them on one host, while the others are open as well.
async fn start(
    ctx: &Context,
    room: &Room,
    class: &Class,
    host: &HostId,
    all: usize,
) -> anyhow::Result<Vec<Desktop>> {
    room.only(ctx, std::slice::from_ref(host)).await?;
    say(&format!("starting {all} desktops on {host}"));
    class.order(ctx, "start", all, false).await?;
    room.open(ctx).await;
    class.desktops(ctx).await
}

/// How many rounds one desktop does alone in this time.
async fn scale(ctx: &Context, desktops: &[Desktop], seconds: u32) -> anyhow::Result<u64> {
    let Some(one) = desktops.get(..1) else {
        return Err(Exit::coded(exit::FAILED, "no desktop runs"));
    };
    say("trying how fast one of them computes");
    let mut rounds = 4;
    loop {
        let took = together(ctx, one, rounds).await?;
        let took = took.first().copied().unwrap_or_default();
        if took >= TRIED.as_secs_f64() {
            let needed = rounds as f64 * f64::from(seconds) / took;
            return Ok((needed.round() as u64).max(1));
        }
        rounds *= 4;
    }
}

async fn compute(
    ctx: &Context,
    class: &Class,
    desktops: &[Desktop],
    rounds: u64,
) -> anyhow::Result<Run> {
    let began = jiff::Timestamp::now().as_millisecond();
    let seconds = together(ctx, desktops, rounds).await?;
    let mut hosts = BTreeMap::new();
    for d in class.desktops(ctx).await? {
        let name = d.host.map_or_else(|| "none".to_owned(), |h| h.to_string());
        *hosts.entry(name).or_default() += 1;
    }
    let plans: Page<PlanRecord> = ctx.client.get("plans").await?;
    let acted: Vec<&PlanRecord> = plans
        .items
        .iter()
        .filter(|p| p.acted_at.is_some_and(|at| at >= began))
        .collect();
    let moves = acted
        .iter()
        .flat_map(|p| &p.steps)
        .filter(|s| s.action == StepAction::Move && s.state == StepState::Done)
        .count();
    let first = acted.iter().filter_map(|p| p.acted_at).min();
    Ok(Run {
        mean_s: seconds.iter().sum::<f64>() / seconds.len().max(1) as f64,
        seconds,
        hosts,
        moves,
        plan_after_s: first.map(|at| (at - began) as f64 / 1000.0),
    })
}

/// Has all of them compute at once; how long each took, shortest first.
async fn together(ctx: &Context, desktops: &[Desktop], rounds: u64) -> anyhow::Result<Vec<f64>> {
    let body = ClipboardText {
        text: script(rounds),
    };
    // Each has its order before the first begins.
    let mut typists = Vec::new();
    for d in desktops {
        let path = format!("desktops/{}/clipboard", d.id);
        let () = ctx.client.put(&path, &body).await?;
        let mut typist = Typist::open(ctx, &d.id).await?;
        typist.text("sh /run/lyceum/clipboard").await?;
        typists.push((d, typist));
    }
    let mut computing = Vec::new();
    for (d, mut typist) in typists {
        typist.key(RETURN).await?;
        computing.push(until_done(ctx, d, Instant::now(), typist));
    }
    let mut seconds = futures::future::try_join_all(computing).await?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// Waits until it says that it is done; its console stays open meanwhile, as a person's would.
async fn until_done(
    ctx: &Context,
    d: &Desktop,
    began: Instant,
    typist: Typist,
) -> anyhow::Result<f64> {
    let path = format!("desktops/{}/clipboard", d.id);
    let mut computes = false;
    loop {
        // On its way to another host it does not answer for a moment.
        if let Ok(ClipboardText { text }) = ctx.client.get::<ClipboardText>(&path).await {
            match text.trim() {
                "done" => {
                    drop(typist);
                    return Ok(began.elapsed().as_secs_f64());
                }
                "began" => computes = true,
                _ => {}
            }
        }
        if !computes && began.elapsed() > BEGINS {
            return Err(Exit::coded(
                exit::FAILED,
                "nothing that was typed into a desktop was done: its image has to have a shell on its screen, as the tiny one has (make tiny-image)",
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn text(r: &Result) -> String {
    let mut table = Table::new(&[
        "COMPUTE BALANCE",
        ">EACH, MINUTES",
        ">MEAN",
        "AT THE END",
        ">MOVES",
    ]);
    for (name, run) in [("without", &r.without), ("with", &r.with)] {
        let each: Vec<String> = run
            .seconds
            .iter()
            .map(|s| format!("{:.2}", s / 60.0))
            .collect();
        let hosts: Vec<String> = run
            .hosts
            .iter()
            .map(|(host, n)| format!("{n} on {host}"))
            .collect();
        table.row([
            name.to_owned(),
            each.join(" "),
            format!("{:.2}", run.mean_s / 60.0),
            hosts.join(", "),
            run.moves.to_string(),
        ]);
    }
    let m = &r.machine;
    format!(
        "{}\nmean {:.0} % shorter; averages of {} minutes; the plan came {:.0} s after they began\n\
         {}; {} hosts, {}, QEMU {}\n",
        table.render(),
        r.shorter_percent,
        r.average_minutes,
        r.with.plan_after_s.unwrap_or(f64::NAN),
        m.image,
        m.hosts,
        m.accelerator,
        m.qemu
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_desktops_run_says_when_it_begins_and_when_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let clipboard = dir.path().join("clipboard");
        let text = script(2).replace("/run/lyceum/clipboard", clipboard.to_str().unwrap());
        // As many as it is told, whatever bc does here.
        let counted = text.replace("bc -l >/dev/null", "cat >>\"$0.log\"");
        std::fs::write(&clipboard, counted).unwrap();
        let status = Command::new("sh").arg(&clipboard).status().unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read_to_string(&clipboard).unwrap(), "done\n");
        let log = std::fs::read_to_string(dir.path().join("clipboard.log")).unwrap();
        assert_eq!(log, "scale=300;4*a(1)\n".repeat(2));
    }
}
