//! `lyceum network`: courses' networks, examinations, and how the gateway and hosts are doing.

use crate::context::Context;
use crate::exit::Exit;
use crate::format::{dash, moment, word};
use crate::resolve;
use crate::table::{Table, plain};
use clap::{Args, Subcommand, ValueEnum};
use lyceum_api::networks::{CourseNetwork, CourseNetworkPatch, Exam, Internet, Network};

/// Courses' networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// The gateway and the hosts' part
    Show,
    /// What a course's desktops reach; with options: change it, for those that run too
    Course(CourseArgs),
    /// Begin an examination, or change when it ends: the allowed destinations only, and no neighbours
    Exam {
        /// Which course
        course: String,
        /// Minutes from now until it ends by itself
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
    },
    /// End an examination
    ExamEnd {
        /// Which course
        course: String,
    },
}

/// How far out desktops reach.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum InternetArg {
    /// Everywhere but to the classroom's machines and other courses
    On,
    /// Nowhere
    Off,
    /// To the allowed destinations
    List,
}

/// What is shown or changed.
#[derive(Debug, Args)]
pub struct CourseArgs {
    /// Which course
    course: String,
    /// How far out its desktops reach
    #[arg(long)]
    internet: Option<InternetArg>,
    /// An allowed destination, several times: 192.0.2.0/24, example.org, [2001:db8::1]:443, 192.0.2.7:53/udp. They replace those before
    #[arg(long, value_name = "DESTINATION")]
    allow: Vec<String>,
    /// No destination is allowed any more
    #[arg(long, conflicts_with = "allow")]
    allow_none: bool,
    /// Whether its desktops reach each other
    #[arg(long, value_name = "yes|no", value_parser = super::course::yes_or_no)]
    among_themselves: Option<bool>,
}

/// Runs the command.
pub async fn run(ctx: &Context, command: NetworkCommand) -> anyhow::Result<()> {
    match command {
        NetworkCommand::Show => {
            let network: Network = ctx.client.get("network").await?;
            ctx.show(&network, overview)
        }
        NetworkCommand::Course(args) => {
            let course = resolve::course(&ctx.client, &args.course).await?;
            let path = format!("courses/{}/network", course.id);
            let patch = CourseNetworkPatch {
                internet: args.internet.map(|i| match i {
                    InternetArg::On => Internet::On,
                    InternetArg::Off => Internet::Off,
                    InternetArg::List => Internet::List,
                }),
                allowed: (!args.allow.is_empty() || args.allow_none).then_some(args.allow),
                among_themselves: args.among_themselves,
            };
            let network: CourseNetwork = match patch == CourseNetworkPatch::default() {
                true => ctx.client.get(&path).await?,
                false => ctx.client.patch(&path, &patch).await?,
            };
            ctx.show(&network, text)
        }
        NetworkCommand::Exam { course, minutes } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_err(|_| Exit::usage("this machine's clock stands before 1970: set it"))?;
            let until = now.as_millis() as i64 + i64::from(minutes) * 60_000;
            let path = format!("courses/{}/exam", course.id);
            let network: CourseNetwork = ctx.client.put(&path, &Exam { until }).await?;
            ctx.show(&network, text)
        }
        NetworkCommand::ExamEnd { course } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let path = format!("courses/{}/exam", course.id);
            let _: serde_json::Value = ctx.client.delete(&path).await?;
            ctx.done(
                &course,
                &format!("the examination of {} is over", course.name),
            )
        }
    }
}

fn text(n: &CourseNetwork) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| out += &format!("{name:<18} {}\n", plain(&value));
    line("internet", word(&n.internet));
    line(
        "allowed",
        match n.allowed.is_empty() {
            true => "-".into(),
            false => n.allowed.join(" "),
        },
    );
    line(
        "among-themselves",
        if n.among_themselves { "yes" } else { "no" }.into(),
    );
    line(
        "examination",
        match n.exam_until {
            Some(until) => format!("until {}", moment(until)),
            None => "no".into(),
        },
    );
    line("segment", dash(n.segment));
    line("enforced", match n.enforced {
        true => "by the gateway, at once".into(),
        false => "no gateway: each desktop alone in QEMU's user network, internet as it was at its start".into(),
    });
    if let Some(problem) = &n.problem {
        line("problem", problem.clone());
    }
    out
}

fn overview(n: &Network) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| out += &format!("{name:<10} {}\n", plain(&value));
    line(
        "gateway",
        n.gateway
            .clone()
            .unwrap_or_else(|| "none: desktops use QEMU's user network".into()),
    );
    line("heard", dash(n.heard.map(moment)));
    line("current", if n.current { "yes" } else { "no" }.into());
    line("doors", n.doors.to_string());
    if let Some(problem) = &n.problem {
        line("problem", problem.clone());
    }
    let put_right = |what: &Option<String>, at: Option<_>| {
        let what = what.as_ref()?;
        Some(format!("{}: {what}", dash(at.map(moment))))
    };
    if let Some(said) = put_right(&n.repaired, n.repaired_at) {
        line("put right", said);
    }
    let mut table = Table::new(&["HOST", "NETWORK", "PROBLEM", "CHANGED BY HAND, PUT RIGHT"]);
    for host in &n.hosts {
        table.row([
            host.id.to_string(),
            host.kind.clone(),
            dash(host.problem.clone()),
            dash(put_right(&host.repaired, host.repaired_at)),
        ]);
    }
    if !table.is_empty() {
        out += &format!("\n{}", table.render());
    }
    out
}
