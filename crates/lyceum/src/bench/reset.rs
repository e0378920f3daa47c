//! Reset of one desktop while others run.

use super::class::{Class, watch, with_class};
use super::stats::Sorted;
use super::{Common, Machine, html, say, write};
use crate::context::{Context, print, report};
use crate::exit::{self, Exit};
use crate::table::Table;
use lyceum_api::desktops::Accepted;
use lyceum_api::operations::OperationState;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many other desktops run meanwhile
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=499))]
    others: u32,
    /// How often the one desktop is reset
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    resets: u32,
    /// Seconds after the class has started until the first reset
    #[arg(long, value_name = "S", default_value_t = 5)]
    settle: u64,
    /// What all benches take
    #[command(flatten)]
    common: Common,
}

/// The result. Times are seconds from the order until the desktop was usable again, by this program's clock.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    /// Resets.
    pub n: usize,
    /// The middle one.
    pub median_s: f64,
    /// 99 of 100 were not slower.
    pub p99_s: f64,
    /// The slowest.
    pub max_s: f64,
    /// Other desktops that ran.
    pub others: u32,
    /// Every one, in the order they were done.
    pub samples_s: Vec<f64>,
    /// Where it was measured.
    pub machine: Machine,
}

/// Measures and reports.
pub async fn run(ctx: &Context, args: Args) -> anyhow::Result<()> {
    let all = args.others as usize + 1;
    let class = Class::make(ctx, &args.common.image, all).await?;
    let result = with_class(ctx, class, async |class| {
        say(&format!("starting {all} desktops"));
        class.order(ctx, "start", all, false).await?;
        let desktops = class.settled(ctx, Duration::from_secs(args.settle)).await?;
        let victim = desktops
            .iter()
            .find(|d| Some(&d.user) == class.students.first())
            .ok_or_else(|| Exit::coded(exit::FAILED, "the first student's desktop does not run"))?;
        say(&format!("resetting one of them {} times", args.resets));
        let path = format!("desktops/{}/reset", victim.id);
        let mut samples = Vec::new();
        for _ in 0..args.resets {
            let began = Instant::now();
            let accepted: Accepted = ctx.client.post(&path, &serde_json::json!({})).await?;
            let timed = watch(ctx, &accepted.operation, began, Duration::from_millis(10)).await?;
            if timed.operation.state != OperationState::Done {
                return Err(Exit::coded(exit::FAILED, report(&timed.operation)));
            }
            samples.push(
                timed
                    .seconds
                    .last()
                    .copied()
                    .unwrap_or_else(|| began.elapsed().as_secs_f64()),
            );
        }
        say("stopping them");
        class.order(ctx, "stop", all, false).await?;
        let sorted = Sorted::new(samples.iter().copied());
        Ok(Result {
            n: sorted.len(),
            median_s: sorted.median(),
            p99_s: sorted.quantile(0.99),
            max_s: sorted.last(),
            others: args.others,
            samples_s: samples,
            machine: class.machine.clone(),
        })
    })
    .await?;

    let json = serde_json::to_string_pretty(&result)? + "\n";
    if let Some(path) = &args.common.json {
        write(path.as_ref(), &json)?;
    }
    if let Some(path) = &args.common.html {
        write(path, &html::reset(&result))?;
    }
    print(&if ctx.json { json } else { text(&result) })
}

fn text(r: &Result) -> String {
    let mut table = Table::new(&[">RESETS", ">OTHERS", ">MEDIAN", ">99 OF 100", ">SLOWEST"]);
    table.row([
        r.n.to_string(),
        r.others.to_string(),
        format!("{:.2} s", r.median_s),
        format!("{:.2} s", r.p99_s),
        format!("{:.2} s", r.max_s),
    ]);
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
