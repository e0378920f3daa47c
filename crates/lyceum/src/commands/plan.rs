//! `lyceum plan`: what the planner would do with a cluster that is described in a file. No
//! classroom is needed, and nothing is done. Without a file the classroom's controller plans.

use crate::context::print;
use crate::exit::{Exit, FAILED};
use crate::table::{Table, plain};
use clap::Args;
use lyceum_model::UnixMillis;
use lyceum_placement::{
    Desktop, Host, Mode, MovesBy, Plan, PlanPolicy, PlanPrice, Snapshot, Summary,
};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How to plan.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// File that describes the cluster (JSON); - reads standard input. Without it the classroom that runs plans
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// What the plan is for: memory-balance, compute-balance, power-saving, start,
    /// memory-balance-paper or power-saving-paper; without it, the mode in force
    #[arg(long, value_name = "NAME", value_parser = |name: &str| name.parse::<Mode>().map_err(|e| e.why))]
    pub policy: Option<Mode>,
    /// Have it done, and wait for that
    #[arg(long, conflicts_with = "cluster")]
    pub act: bool,
}

/// The file. What is not known is refused: a misspelt threshold must not be silently left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    hosts: Vec<Host>,
    desktops: Vec<Desktop>,
    #[serde(default)]
    policy: PlanPolicy,
    /// When a plan was last carried out.
    #[serde(default)]
    last_acted_at: Option<UnixMillis>,
    /// What a move may use of a link, megabits per second.
    #[serde(default)]
    move_mbit_per_s: Option<f64>,
    /// The time the file is of; without it, now.
    #[serde(default)]
    now: Option<UnixMillis>,
}

/// A file larger than this is no cluster, bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Runs the command.
pub fn run(args: &PlanArgs, json: bool) -> anyhow::Result<()> {
    let (Some(path), Some(policy)) = (&args.cluster, args.policy) else {
        return Err(Exit::usage("give --cluster FILE and --policy NAME"));
    };
    let text = read(path)?;
    let plan = plan_of(&text, policy)
        .map_err(|why| Exit::coded(FAILED, format!("{}: {why}", path.display())))?;
    if json {
        print(&(serde_json::to_string_pretty(&plan)? + "\n"))
    } else {
        print(&report(&plan))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let fail = |why: String| Exit::coded(FAILED, format!("{}: {why}", path.display()));
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(|e| {
            fail(format!(
                "it can't be opened: {e}; give a file, or - for standard input"
            ))
        })?)
    };
    let mut text = String::new();
    source
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|e| fail(format!("it can't be read as text: {e}")))?;
    if text.len() as u64 > LARGEST {
        return Err(fail(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(text)
}

/// Plans with the text of a file; errors name the place in it.
fn plan_of(text: &str, mode: Mode) -> Result<Plan, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let cluster: Cluster = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let place = if path == "." {
            "the file".to_owned()
        } else {
            path
        };
        format!("{place}: {}", e.into_inner())
    })?;
    reader
        .end()
        .map_err(|e| format!("after the cluster: {e}"))?;
    let snapshot = Snapshot {
        hosts: cluster.hosts,
        desktops: cluster.desktops,
        last_acted_at: cluster.last_acted_at,
        move_mbit_per_s: cluster.move_mbit_per_s,
    };
    let policy = PlanPolicy {
        mode,
        ..cluster.policy
    };
    let now = cluster
        .now
        .unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
    lyceum_placement::plan(&snapshot, &policy, now).map_err(|e| e.to_string())
}

fn report(plan: &Plan) -> String {
    let mut out = String::new();
    let mut section = |title: &str, table: Table| {
        if !table.is_empty() {
            out.push_str(&format!("{title}\n{}\n", table.render()));
        }
    };
    for (title, hosts) in [
        ("Switched on first:", &plan.power_on),
        ("Switched off once empty:", &plan.power_off),
    ] {
        let mut table = Table::new(&["HOST"]);
        for host in hosts {
            table.row([host]);
        }
        section(title, table);
    }
    let mut table = Table::new(&["DESKTOP", "HOST", "REASON"]);
    for start in &plan.starts {
        table.row([&start.desktop, &start.host, &start.reason]);
    }
    section("Starts:", table);
    let mut table = Table::new(&[
        ">#",
        "DESKTOP",
        "FROM",
        "TO",
        "BY",
        ">MIB SENT",
        ">MIB THERE",
        "REASON",
    ]);
    for (i, step) in plan.moves.iter().enumerate() {
        table.row([
            (i + 1).to_string().as_str(),
            &step.desktop,
            &step.from,
            &step.to,
            step.price.map_or("", |p| way(p.way)),
            &step
                .price
                .map_or_else(String::new, |p| format!("{:.1}", p.travels_mib)),
            &step
                .price
                .map_or_else(String::new, |p| p.memory_mib.to_string()),
            &step.reason,
        ]);
    }
    section("Moves, in this order:", table);
    let price = plan.price.as_ref().map(price);
    let mut table = Table::new(&["NOT DONE", "WHY"]);
    for entry in &plan.not_done {
        table.row([&entry.what, &entry.why]);
    }
    section("Not done:", table);
    let mut table = Table::new(&["HOST", ">BEFORE", ">AFTER", ">MEMORY %", ">THEN %", "POWER"]);
    for (a, b) in plan.before.hosts.iter().zip(&plan.after.hosts) {
        table.row([
            a.id.clone(),
            a.desktops.to_string(),
            b.desktops.to_string(),
            format!("{:.1}", a.used_percent),
            format!("{:.1}", b.used_percent),
            match (a.on, b.on) {
                (true, true) => "on".into(),
                (false, false) => "off".into(),
                (true, false) => "on, then off".into(),
                (false, true) => "off, then on".into(),
            },
        ]);
    }
    section("Desktops per host:", table);
    let line = |s: &Summary| {
        format!(
            "{} hosts on, {} desktops, {} free seats, spread {:.2} %, {:.0} W",
            s.hosts_on, s.desktops, s.free_seats, s.spread_percent, s.watts
        )
    };
    if let Some(price) = price {
        out.push_str(&format!("moves:  {price}\n"));
    }
    out.push_str(&format!(
        "before: {}\nafter:  {}\n",
        plain(&line(&plan.before)),
        plain(&line(&plan.after))
    ));
    out
}

/// How a desktop moves, for people.
pub fn way(way: MovesBy) -> &'static str {
    match way {
        MovesBy::Delta => "delta",
        MovesBy::Migration => "live",
    }
}

/// What all moves cost together, in words.
pub fn price(price: &PlanPrice) -> String {
    let mut text = format!("{:.1} MiB travel", price.travels_mib);
    if let Some(seconds) = price.seconds {
        text.push_str(&format!(", {seconds:.1} s one after another"));
    }
    if price.more_mib > 0 {
        text.push_str(&format!(
            ", and {} MiB that were shared are taken besides",
            price.more_mib
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = r#"{"id":"kvm1","power":"on","memory_mib":65536,"reserved_mib":2048,"cpu_cores":8,"seats":20,"cpu_percent":35.0,"watts":130}"#;
    const DESKTOP: &str = r#"{"id":"d1","host":"kvm1","memory_mib":2048,"vcpus":2,"cpu_percent":12.5,"movable":true,"owner":"s1"}"#;

    fn cluster(hosts: &str, desktops: &str, policy: &str) -> String {
        format!("{{\"hosts\":[{hosts}],\"desktops\":[{desktops}]{policy}}}")
    }

    #[test]
    fn the_documented_form_is_read_and_answered() {
        let policy = r#","policy":{"off_threshold_seats":18,"on_threshold_seats":6,"min_hosts":1,"cpu_high":80,"cpu_low":30}"#;
        for policy in [policy, ""] {
            for mode in Mode::ALL {
                let plan = plan_of(&cluster(HOST, DESKTOP, policy), mode).unwrap();
                let value = serde_json::to_value(&plan).unwrap();
                let keys: Vec<&str> = value
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(String::as_str)
                    .collect();
                assert_eq!(
                    keys,
                    [
                        "after",
                        "before",
                        "moves",
                        "not_done",
                        "power_off",
                        "power_on"
                    ]
                );
                assert!(report(&plan).contains("before: 1 hosts on, 1 desktops"));
            }
        }
        assert!(plan_of(&cluster("", "", ""), Mode::PowerSaving).is_ok());
    }

    #[test]
    fn what_moves_cost_is_told_before_they_are_made() {
        let (a, b) = (HOST, HOST.replace("kvm1", "kvm2"));
        let desktops: Vec<String> = (0..4)
            .map(|i| {
                let shared = if i == 0 {
                    ""
                } else {
                    r#""private_mib":60,"move_mib":8.5,"#
                };
                DESKTOP
                    .replace("\"d1\"", &format!("\"d{i}\""))
                    .replace("\"vcpus\"", &format!("{shared}\"vcpus\""))
            })
            .collect();
        let text = cluster(
            &format!("{a},{b}"),
            &desktops.join(","),
            r#","move_mbit_per_s":1000,"policy":{"balance_by":"seats"}"#,
        );
        let plan = plan_of(&text, Mode::MemoryBalance).unwrap();
        let value = serde_json::to_value(&plan).unwrap();
        // The one that shares nothing, and all of whose memory would travel, stays.
        assert_eq!(plan.moves.len(), 2);
        assert_eq!(
            value["moves"][0]["price"],
            serde_json::json!({"way": "delta", "travels_mib": 8.5, "memory_mib": 60, "more_mib": 0, "seconds": 0.07})
        );
        assert_eq!(
            value["price"],
            serde_json::json!({"travels_mib": 17.0, "more_mib": 0, "seconds": 0.14})
        );
        // One that an older program wrote down has no prices.
        let mut old = value.clone();
        old.as_object_mut().unwrap().remove("price");
        old["moves"][0].as_object_mut().unwrap().remove("price");
        let old: Plan = serde_json::from_value(old).unwrap();
        assert_eq!((old.price, old.moves[0].price), (None, None));
        let told = report(&plan);
        assert!(
            told.contains("17.0 MiB travel, 0.1 s one after another"),
            "{told}"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let two = format!("{HOST},{HOST}");
        let desktop = |from: &str, to: &str| cluster(HOST, &DESKTOP.replace(from, to), "");
        for (text, place) in [
            ("".to_owned(), "line 1"),
            ("{\"hosts\":[]".to_owned(), "line 1"),
            ("{\"hosts\":[]}".to_owned(), "desktops"),
            (
                "{\"hosts\":[],\"desktops\":[]} x".to_owned(),
                "after the cluster",
            ),
            (desktop("2048", "\"2 GiB\""), "desktops[0].memory_mib"),
            (desktop("2048", "-1"), "desktops[0].memory_mib"),
            (desktop("2048", "0"), "desktops[0].memory_mib"),
            (desktop("12.5", "-12.5"), "desktops[0].cpu_percent"),
            (desktop("12.5", "NaN"), "desktops[0].cpu_percent"),
            (
                desktop("\"vcpus\"", "\"move_mib\":-3,\"vcpus\""),
                "desktops[0].move_mib",
            ),
            (
                cluster(HOST, DESKTOP, ",\"move_mbit_per_s\":0"),
                "move_mbit_per_s",
            ),
            (desktop("kvm1", "kvm9"), "desktops[0].host"),
            (desktop("\"vcpus\"", "\"vpcus\""), "desktops[0].vpcus"),
            (
                cluster(HOST, &format!("{DESKTOP},{DESKTOP}"), ""),
                "desktops[1].id",
            ),
            (cluster(&two, "", ""), "hosts[1].id"),
            (
                cluster(&HOST.replace("\"on\"", "\"up\""), "", ""),
                "hosts[0].power",
            ),
            (
                cluster(&HOST.replace("35.0", "-0.5"), "", ""),
                "hosts[0].cpu_percent",
            ),
            (
                cluster(&HOST.replace("2048", "99999"), "", ""),
                "hosts[0].reserved_mib",
            ),
            (
                cluster(HOST, "", ",\"policy\":{\"cpu_low\":90}"),
                "policy.cpu_low",
            ),
            (
                cluster(HOST, "", ",\"policy\":{\"off_treshold_seats\":1}"),
                "policy.off_treshold_seats",
            ),
            (
                cluster(
                    HOST,
                    "",
                    ",\"policy\":{\"off_threshold_seats\":1,\"on_threshold_seats\":2}",
                ),
                "policy.on_threshold_seats",
            ),
        ] {
            let error = plan_of(&text, Mode::MemoryBalance).unwrap_err();
            assert!(error.contains(place), "{text}: {error}");
        }
    }
}
