//! Restore points: how long a desktop stands still for one and how large it is, and how long a whole class
//! takes to go back to one.

use super::class::{Class, with_class};
use super::stats::Sorted;
use super::{Common, Machine, say, write};
use crate::context::{Context, print, report};
use crate::exit::{self, Exit};
use crate::table::Table;
use lyceum_api::desktops::{Accepted, Desktop};
use lyceum_api::operations::OperationState;
use lyceum_api::restore_points::{
    CoursePoints, CourseRestore, PointState, RestorePoint, TakePoint,
};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Desktops
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    desktops: u32,
    /// How often a point of one idle desktop is taken
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    points: u32,
    /// Seconds after they have started until the first point
    #[arg(long, value_name = "S", default_value_t = 10)]
    settle: u64,
    /// What all benches take
    #[command(flatten)]
    common: Common,
}

/// Points of one idle desktop. Milliseconds and bytes are its host's own.
#[derive(Debug, Clone, Serialize)]
struct Points {
    points: usize,
    still_median_ms: f64,
    still_p99_ms: f64,
    total_median_ms: f64,
    bytes_median: f64,
    memory_bytes: u64,
    /// Of its memory.
    percent_median: f64,
}

/// An order to the class, by this program's clock, until the last desktop is usable.
#[derive(Debug, Clone, Serialize)]
struct Timed {
    desktops: u32,
    seconds: f64,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
struct Result {
    points: Points,
    class_take: Timed,
    class_restore: Timed,
    class_undo: Timed,
    machine: Machine,
}

async fn order(
    ctx: &Context,
    path: &str,
    body: &impl Serialize,
    desktops: u32,
) -> anyhow::Result<Timed> {
    let began = Instant::now();
    let accepted: Accepted = ctx.client.post(path, body).await?;
    let timed =
        super::class::watch(ctx, &accepted.operation, began, Duration::from_millis(20)).await?;
    let seconds = began.elapsed().as_secs_f64();
    if timed.operation.state != OperationState::Done {
        return Err(Exit::coded(exit::FAILED, report(&timed.operation)));
    }
    Ok(Timed { desktops, seconds })
}

async fn points_of(ctx: &Context, d: &Desktop) -> anyhow::Result<Vec<RestorePoint>> {
    let path = format!("desktops/{}/restore-points", d.id);
    let mut points: Vec<RestorePoint> = ctx.client.get(&path).await?;
    points.retain(|p| p.state == PointState::Ready);
    Ok(points)
}

fn summary(d: &Desktop, points: &[RestorePoint]) -> Points {
    let of = |f: fn(&RestorePoint) -> Option<u64>| {
        Sorted::new(points.iter().filter_map(f).map(|v| v as f64))
    };
    let (still, bytes) = (of(|p| p.stand_still_ms), of(|p| p.bytes));
    let memory_bytes = u64::from(d.size.memory_mib) << 20;
    Points {
        points: points.len(),
        still_median_ms: still.median(),
        still_p99_ms: still.quantile(0.99),
        total_median_ms: of(|p| p.total_ms).median(),
        bytes_median: bytes.median(),
        memory_bytes,
        percent_median: bytes.median() / memory_bytes as f64 * 100.0,
    }
}

/// Measures and reports.
pub async fn run(ctx: &Context, args: Args) -> anyhow::Result<()> {
    let all = args.desktops;
    let class = Class::make(ctx, &args.common.image, all as usize).await?;
    let result = with_class(ctx, class, async |class| {
        say(&format!("starting {all} desktops"));
        class.order(ctx, "start", all as usize, false).await?;
        let desktops = class.settled(ctx, Duration::from_secs(args.settle)).await?;
        let Some(first) = desktops.first() else {
            return Err(Exit::coded(exit::FAILED, "no desktop runs"));
        };
        say(&format!("{} points of one of them", args.points));
        let own = format!("desktops/{}/restore-points", first.id);
        for _ in 0..args.points {
            order(ctx, &own, &TakePoint::default(), 1).await?;
        }
        let points = summary(first, &points_of(ctx, first).await?);
        let course = format!("courses/{}", class.course.id);
        say("a point of the class, and back to it");
        let path = format!("{course}/restore-points");
        let class_take = order(ctx, &path, &TakePoint::default(), all).await?;
        let listed: CoursePoints = ctx.client.get(&path).await?;
        let Some(batch) = listed.batches.into_iter().find(|b| b.ready == all) else {
            return Err(Exit::coded(exit::FAILED, "not every desktop has a point"));
        };
        let back = CourseRestore {
            batch: batch.batch,
            users: None,
        };
        let class_restore = order(ctx, &format!("{course}/restore"), &back, all).await?;
        let undo = serde_json::json!({});
        let class_undo = order(ctx, &format!("{course}/undo-restore"), &undo, all).await?;
        say("stopping them");
        class.order(ctx, "stop", all as usize, false).await?;
        Ok(Result {
            points,
            class_take,
            class_restore,
            class_undo,
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
    let p = &r.points;
    let mut one = Table::new(&[
        "ONE IDLE DESKTOP",
        ">POINTS",
        ">STOOD STILL",
        ">99 OF 100",
        ">IN ALL",
        ">SIZE",
        ">OF ITS MEMORY",
    ]);
    one.row([
        "restore point".to_owned(),
        p.points.to_string(),
        format!("{:.0} ms", p.still_median_ms),
        format!("{:.0} ms", p.still_p99_ms),
        format!("{:.0} ms", p.total_median_ms),
        crate::format::bytes(p.bytes_median.max(0.0) as u64),
        format!("{:.1} %", p.percent_median),
    ]);
    let mut class = Table::new(&["CLASS", ">DESKTOPS", ">UNTIL THE LAST"]);
    for (name, timed) in [
        ("take", &r.class_take),
        ("restore", &r.class_restore),
        ("undo", &r.class_undo),
    ] {
        class.row([
            name.to_owned(),
            timed.desktops.to_string(),
            format!("{:.1} s", timed.seconds),
        ]);
    }
    let m = &r.machine;
    format!(
        "{}\n{}\n{}; {} hosts on {} CPUs, {}, QEMU {}\n",
        one.render(),
        class.render(),
        m.image,
        m.hosts,
        m.cpus,
        m.accelerator,
        m.qemu
    )
}
