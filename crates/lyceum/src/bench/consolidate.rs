//! Idle desktops of one host go to another, until the first is empty.

use super::class::{Class, with_class};
use super::room::{Room, drain};
use super::stats::Sorted;
use super::{Common, Machine, say, write};
use crate::context::{Context, print};
use crate::exit::{self, Exit};
use lyceum_api::Page;
use lyceum_api::desktops::Desktop;
use lyceum_api::moves::{Move, MoveState};
use lyceum_model::MoveWay;
use serde::Serialize;
use std::time::Duration;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many desktops
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    desktops: u32,
    /// How often: there and back counts twice
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
    /// Seconds after they have started until the first move
    #[arg(long, value_name = "S", default_value_t = 20)]
    settle: u64,
    /// What all benches take
    #[command(flatten)]
    common: Common,
}

/// The result. Seconds are by this program's clock, from the order until the controller said that all run on
/// the other host.
#[derive(Debug, Clone, Serialize)]
struct Result {
    desktops: usize,
    empty_after_s: Vec<f64>,
    /// Of one move, as its hosts count.
    stood_still_median_ms: f64,
    stood_still_longest_ms: f64,
    total_median_ms: f64,
    bytes_median: f64,
    deltas: usize,
    moves: usize,
    machine: Machine,
}

/// Measures and reports.
pub async fn run(ctx: &Context, args: Args) -> anyhow::Result<()> {
    let room = Room::find(ctx, 2).await?;
    let class = Class::make(ctx, &args.common.image, args.desktops as usize).await?;
    let result = with_class(ctx, class, async |class| {
        measure(ctx, &room, class, &args).await
    })
    .await;
    room.open(ctx).await;
    let result = result?;
    let json = serde_json::to_string_pretty(&result)? + "\n";
    if let Some(path) = &args.common.json {
        write(path.as_ref(), &json)?;
    }
    print(&if ctx.json { json } else { text(&result) })
}

async fn measure(ctx: &Context, room: &Room, class: &Class, args: &Args) -> anyhow::Result<Result> {
    let all = args.desktops as usize;
    let (Some(mut from), Some(mut to)) = (room.hosts.first(), room.hosts.get(1)) else {
        return Err(Exit::coded(exit::FAILED, "there are no two hosts"));
    };
    room.only(ctx, std::slice::from_ref(from)).await?;
    say(&format!("starting {all} desktops on {from}"));
    class.order(ctx, "start", all, false).await?;
    class.settled(ctx, Duration::from_secs(args.settle)).await?;
    let mut seconds = Vec::new();
    let mut moves: Vec<Move> = Vec::new();
    for _ in 0..args.times {
        say(&format!("emptying {from} into {to}"));
        room_for(ctx, to).await?;
        let (accepted, took) = drain(ctx, from).await?;
        let there: Vec<Desktop> = class.desktops(ctx).await?;
        if there.iter().any(|d| d.host.as_ref() != Some(to)) {
            return Err(Exit::coded(
                exit::FAILED,
                format!("not all desktops are on {to} afterwards"),
            ));
        }
        seconds.push(took);
        let mut before = String::new();
        loop {
            let page: Page<Move> = ctx.client.get(&format!("moves{before}")).await?;
            let more = page.items.iter().any(|m| m.operation == accepted.operation);
            moves.extend(
                page.items
                    .into_iter()
                    .filter(|m| m.operation == accepted.operation && m.state == MoveState::Done),
            );
            match page.next {
                Some(next) if more => before = format!("?before={next}"),
                _ => break,
            }
        }
        std::mem::swap(&mut from, &mut to);
    }
    say("stopping them");
    class.order(ctx, "stop", all, false).await?;
    let of =
        |f: fn(&Move) -> Option<u64>| Sorted::new(moves.iter().filter_map(f).map(|v| v as f64));
    let still = of(|m| m.stand_still_ms);
    Ok(Result {
        desktops: all,
        empty_after_s: seconds,
        stood_still_median_ms: still.median(),
        stood_still_longest_ms: still.quantile(1.0),
        total_median_ms: of(|m| m.total_ms).median(),
        bytes_median: of(|m| m.bytes).median(),
        deltas: moves
            .iter()
            .filter(|m| m.way == Some(MoveWay::Delta))
            .count(),
        moves: moves.len(),
        machine: class.machine.clone(),
    })
}

/// Lets a host take desktops.
async fn room_for(ctx: &Context, host: &lyceum_model::HostId) -> anyhow::Result<()> {
    let path = format!("hosts/{host}/resume");
    let () = ctx.client.post(&path, &serde_json::json!({})).await?;
    Ok(())
}

fn text(r: &Result) -> String {
    let seconds: Vec<String> = r
        .empty_after_s
        .iter()
        .map(|s| format!("{s:.1} s"))
        .collect();
    let m = &r.machine;
    format!(
        "{} desktops from one host to the other: empty after {}\n\
         each: stood still {:.0} ms (median; longest {:.0} ms), {:.0} ms in all, {}; {} of {} as deltas\n\
         {}; {} hosts on {} CPUs, {}, QEMU {}\n",
        r.desktops,
        seconds.join(", "),
        r.stood_still_median_ms,
        r.stood_still_longest_ms,
        r.total_median_ms,
        crate::format::bytes(r.bytes_median.max(0.0) as u64),
        r.deltas,
        r.moves,
        m.image,
        m.hosts,
        m.cpus,
        m.accelerator,
        m.qemu
    )
}
