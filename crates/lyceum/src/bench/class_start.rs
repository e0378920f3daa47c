//! Start of a class: fork against cold linked clone, of the same release, in the same run.

use super::class::{Class, with_class};
use super::stats::Sorted;
use super::{Common, Machine, html, say, write};
use crate::context::{Context, print};
use crate::exit::{self, Exit};
use crate::format::{bytes, mib};
use crate::table::Table;
use lyceum_api::desktops::Desktop;
use serde::Serialize;
use std::time::Duration;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many desktops are forked
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    desktops: u32,
    /// How many are booted cold; default: as many as are forked. 0: none
    #[arg(long, value_name = "N")]
    cold: Option<u32>,
    /// Seconds after the last start until memory is read
    #[arg(long, value_name = "S", default_value_t = 15)]
    settle: u64,
    /// Empty the page cache before each half (root only), so that "read from the fast tier" counts from nothing
    #[arg(long)]
    drop_caches: bool,
    /// What all benches take
    #[command(flatten)]
    common: Common,
}

/// One half of the measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Half {
    /// Desktops.
    pub n: usize,
    /// Until the first was usable, seconds after the order, by this program's clock.
    pub first_s: f64,
    /// Until half of them were.
    pub median_s: f64,
    /// Until the last was.
    pub last_s: f64,
    /// Sum of the desktops' proportional memory, MiB.
    pub pss_mib: f64,
    /// Sum of their nominal memory, MiB.
    pub nominal_mib: u64,
    /// Bytes that starting them read from disk, per desktop; with a warm page cache few.
    pub fast_tier_bytes_per_desktop: u64,
    /// The same times as the hosts' agents measured them, each from the moment that it was asked.
    pub agents: Agents,
    /// When each was usable, seconds after the order.
    pub usable_s: Vec<f64>,
}

/// Times seen by the hosts.
#[derive(Debug, Clone, Serialize)]
pub struct Agents {
    first_s: f64,
    median_s: f64,
    last_s: f64,
}

impl Half {
    /// Until the last was usable, as the agents measured.
    pub fn agents_last(&self) -> f64 {
        self.agents.last_s
    }
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    /// By fork.
    pub fork: Half,
    /// By cold boot.
    pub cold: Option<Half>,
    /// Cold over fork of `last_s / n`: how many times faster a class starts by fork.
    pub ratio_last_per_desktop: Option<f64>,
    /// Cold over fork of memory per desktop.
    pub ratio_pss_per_desktop: Option<f64>,
    /// Where it was measured.
    pub machine: Machine,
}

/// Measures and reports.
pub async fn run(ctx: &Context, args: Args) -> anyhow::Result<()> {
    let forks = args.desktops as usize;
    let colds = args.cold.unwrap_or(args.desktops) as usize;
    let settle = Duration::from_secs(args.settle);
    let class = Class::make(ctx, &args.common.image, forks.max(colds)).await?;
    let result = with_class(ctx, class, async |class| {
        say(&format!("starting {forks} desktops by fork"));
        let fork = half(ctx, class, forks, false, settle, args.drop_caches).await?;
        let cold = match colds {
            0 => None,
            n => {
                say(&format!("starting {n} desktops as cold linked clones"));
                Some(half(ctx, class, n, true, settle, args.drop_caches).await?)
            }
        };
        let ratio = |of: &dyn Fn(&Half) -> f64| {
            let cold = cold.as_ref()?;
            let ratio = (of(cold) / cold.n as f64) / (of(&fork) / fork.n as f64);
            ratio.is_finite().then_some(ratio)
        };
        Ok(Result {
            ratio_last_per_desktop: ratio(&|h| h.last_s),
            ratio_pss_per_desktop: ratio(&|h| h.pss_mib),
            fork: fork.clone(),
            cold: cold.clone(),
            machine: class.machine.clone(),
        })
    })
    .await?;

    let json = serde_json::to_string_pretty(&result)? + "\n";
    if let Some(path) = &args.common.json {
        write(path.as_ref(), &json)?;
    }
    if let Some(path) = &args.common.html {
        write(path, &html::class_start(&result))?;
    }
    print(&if ctx.json { json } else { text(&result) })
}

async fn half(
    ctx: &Context,
    class: &Class,
    n: usize,
    cold: bool,
    settle: Duration,
    drop: bool,
) -> anyhow::Result<Half> {
    if drop {
        drop_caches()?;
    }
    let timed = class.order(ctx, "start", n, cold).await?;
    let desktops = class.settled(ctx, settle).await?;
    let wanted = if cold { "cold" } else { "fork" };
    let other: Vec<&Desktop> = desktops
        .iter()
        .filter(|d| d.started_by.as_deref() != Some(wanted))
        .collect();
    if desktops.len() != n || !other.is_empty() {
        let why = other
            .first()
            .and_then(|d| d.cold_reason.clone())
            .unwrap_or_default();
        return Err(Exit::coded(
            exit::FAILED,
            format!(
                "{} of {n} desktops run, {} of them not started by {wanted}: not a measurement. {why}",
                desktops.len(),
                other.len()
            ),
        ));
    }
    say("stopping them");
    class.order(ctx, "stop", n, false).await?;

    let seen = Sorted::new(timed.seconds.iter().copied());
    let agents = Sorted::new(
        desktops
            .iter()
            .filter_map(|d| d.usable_ms)
            .map(|ms| ms as f64 / 1000.0),
    );
    Ok(Half {
        n,
        first_s: seen.first(),
        median_s: seen.median(),
        last_s: seen.last(),
        pss_mib: desktops.iter().map(|d| d.pss_kib as f64 / 1024.0).sum(),
        nominal_mib: desktops.iter().map(|d| u64::from(d.size.memory_mib)).sum(),
        fast_tier_bytes_per_desktop: desktops.iter().map(|d| d.read_bytes).sum::<u64>()
            / n.max(1) as u64,
        agents: Agents {
            first_s: agents.first(),
            median_s: agents.median(),
            last_s: agents.last(),
        },
        usable_s: seen.all().to_vec(),
    })
}

/// Writes back and forgets all cached files of this machine.
fn drop_caches() -> anyhow::Result<()> {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "1").map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!("the page cache can't be emptied: {e}; --drop-caches needs root"),
        )
    })
}

fn text(r: &Result) -> String {
    let mut table = Table::new(&[
        "START BY",
        ">N",
        ">FIRST",
        ">MEDIAN",
        ">LAST",
        ">LAST / N",
        ">MEMORY",
        ">NOMINAL",
        ">SHARE",
        ">READ / N",
    ]);
    for (name, half) in [("fork", Some(&r.fork)), ("cold boot", r.cold.as_ref())] {
        let Some(h) = half else { continue };
        table.row([
            name.to_owned(),
            h.n.to_string(),
            format!("{:.2} s", h.first_s),
            format!("{:.2} s", h.median_s),
            format!("{:.2} s", h.last_s),
            format!("{:.2} s", h.last_s / h.n as f64),
            mib(h.pss_mib.round() as u64),
            mib(h.nominal_mib),
            format!("{:.1} %", 100.0 * h.pss_mib / h.nominal_mib.max(1) as f64),
            bytes(h.fast_tier_bytes_per_desktop),
        ]);
    }
    let mut out = table.render();
    if let Some(ratio) = r.ratio_last_per_desktop {
        out.push_str(&format!(
            "\na class starts {ratio:.1} times faster by fork (last usable, per desktop)"
        ));
    }
    if let Some(ratio) = r.ratio_pss_per_desktop {
        out.push_str(&format!(", with {ratio:.1} times less memory per desktop"));
    }
    let m = &r.machine;
    out.push_str(&format!(
        "\n{}; {} hosts on {} CPUs, {}, QEMU {}\n",
        m.image, m.hosts, m.cpus, m.accelerator, m.qemu
    ));
    out
}
