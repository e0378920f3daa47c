//! Moves of a running desktop from host to host, as a delta and by QEMU's own live migration.

use super::class::{Class, with_class};
use super::stats::Sorted;
use super::{Common, Machine, say, write};
use crate::context::{Context, print, report};
use crate::exit::{self, Exit};
use crate::table::Table;
use lyceum_api::Page;
use lyceum_api::desktops::{Accepted, Desktop};
use lyceum_api::moves::{Move, MoveOrder};
use lyceum_api::operations::OperationState;
use lyceum_model::MoveWay;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often one desktop is moved as a delta
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    moves: u32,
    /// How many others are moved by live migration, once each, to compare
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    live: u32,
    /// Seconds after they have started until the first move
    #[arg(long, value_name = "S", default_value_t = 10)]
    settle: u64,
    /// What all benches take
    #[command(flatten)]
    common: Common,
}

/// One way. Milliseconds and bytes are the hosts' own; the last column is by this program's clock,
/// from the order until the controller said that it runs on the other host.
#[derive(Debug, Clone, Serialize)]
struct Way {
    moves: usize,
    still_median_ms: f64,
    still_p99_ms: f64,
    total_median_ms: f64,
    total_p99_ms: f64,
    ordered_median_ms: f64,
    bytes_median: f64,
    pss_before_median_kib: f64,
    pss_after_median_kib: f64,
    stood_still_ms: Vec<u64>,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
struct Result {
    delta: Way,
    live: Option<Way>,
    machine: Machine,
}

/// Moves it once, wherever there is room.
async fn once(ctx: &Context, desktop: &Desktop, way: MoveWay) -> anyhow::Result<(Move, f64)> {
    let began = Instant::now();
    let body = MoveOrder {
        to: None,
        way: Some(way),
    };
    let path = format!("desktops/{}/move", desktop.id);
    let accepted: Accepted = ctx.client.post(&path, &body).await?;
    let timed =
        super::class::watch(ctx, &accepted.operation, began, Duration::from_millis(10)).await?;
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    if timed.operation.state != OperationState::Done {
        return Err(Exit::coded(exit::FAILED, report(&timed.operation)));
    }
    // Its memory afterwards is asked for after the operation has ended.
    for _ in 0..50 {
        let page: Page<Move> = ctx
            .client
            .get(&format!("moves?desktop={}", desktop.id))
            .await?;
        if let Some(m) = page
            .items
            .into_iter()
            .find(|m| m.operation == accepted.operation)
            && m.pss_after_kib.is_some()
        {
            return Ok((m, ms));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Exit::coded(
        exit::FAILED,
        "a move ended without its numbers",
    ))
}

fn summary(samples: &[(Move, f64)]) -> Way {
    let of = |f: fn(&Move) -> Option<u64>| {
        Sorted::new(samples.iter().filter_map(|(m, _)| f(m)).map(|v| v as f64))
    };
    let (still, total) = (of(|m| m.stand_still_ms), of(|m| m.total_ms));
    Way {
        moves: samples.len(),
        still_median_ms: still.median(),
        still_p99_ms: still.quantile(0.99),
        total_median_ms: total.median(),
        total_p99_ms: total.quantile(0.99),
        ordered_median_ms: Sorted::new(samples.iter().map(|(_, ms)| *ms)).median(),
        bytes_median: of(|m| m.bytes).median(),
        pss_before_median_kib: of(|m| m.pss_before_kib).median(),
        pss_after_median_kib: of(|m| m.pss_after_kib).median(),
        stood_still_ms: samples
            .iter()
            .filter_map(|(m, _)| m.stand_still_ms)
            .collect(),
    }
}

/// Measures and reports.
pub async fn run(ctx: &Context, args: Args) -> anyhow::Result<()> {
    let all = args.live as usize + 1;
    let class = Class::make(ctx, &args.common.image, all).await?;
    let result = with_class(ctx, class, async |class| {
        say(&format!("starting {all} desktops"));
        class.order(ctx, "start", all, false).await?;
        let desktops = class.settled(ctx, Duration::from_secs(args.settle)).await?;
        let (Some(first), others) = (desktops.first(), desktops.get(1..).unwrap_or_default())
        else {
            return Err(Exit::coded(exit::FAILED, "no desktop runs"));
        };
        say(&format!("moving one of them {} times", args.moves));
        let mut delta = Vec::new();
        for _ in 0..args.moves {
            delta.push(once(ctx, first, MoveWay::Delta).await?);
        }
        let mut live = Vec::new();
        for desktop in others {
            say("moving another one by live migration");
            live.push(once(ctx, desktop, MoveWay::Live).await?);
        }
        say("stopping them");
        class.order(ctx, "stop", all, false).await?;
        Ok(Result {
            delta: summary(&delta),
            live: (!live.is_empty()).then(|| summary(&live)),
            machine: class.machine.clone(),
        })
    })
    .await?;
    let json = serde_json::to_string_pretty(&result)? + "\n";
    if let Some(path) = &args.common.json {
        write(path.as_ref(), &json)?;
    }
    print(&if ctx.json { json } else { text(&result) })
}

fn text(r: &Result) -> String {
    let mut table = Table::new(&[
        "WAY",
        ">MOVES",
        ">STOOD STILL",
        ">99 OF 100",
        ">IN ALL",
        ">99 OF 100",
        ">ORDERED",
        ">SENT",
        ">MEMORY BEFORE",
        ">AFTER",
    ]);
    for (name, way) in [("delta", Some(&r.delta)), ("live", r.live.as_ref())] {
        let Some(w) = way else { continue };
        let bytes = |n: f64| crate::format::bytes(n.max(0.0) as u64);
        table.row([
            name.to_owned(),
            w.moves.to_string(),
            format!("{:.0} ms", w.still_median_ms),
            format!("{:.0} ms", w.still_p99_ms),
            format!("{:.0} ms", w.total_median_ms),
            format!("{:.0} ms", w.total_p99_ms),
            format!("{:.0} ms", w.ordered_median_ms),
            bytes(w.bytes_median),
            bytes(w.pss_before_median_kib * 1024.0),
            bytes(w.pss_after_median_kib * 1024.0),
        ]);
    }
    let m = &r.machine;
    format!(
        "{}\n{}; {} hosts on {} CPUs, {}, QEMU {}\n",
        table.render(),
        m.image,
        m.hosts,
        m.cpus,
        m.accelerator,
        m.qemu
    )
}
