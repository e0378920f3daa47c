//! `lyceum sim`: a rehearsal of a whole school on simulated hosts. No classroom is needed.

use crate::context::print;
use crate::exit::{Exit, FAILED};
use crate::table::Table;
use clap::Args;
use lyceum_sim::{Outcome, Report, Rule, Scenario, Session};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What to rehearse.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// File that describes the school (TOML); - reads standard input. Without it: a school of
    /// 1,000 students with 40 hosts, for a week
    #[arg(value_name = "SCENARIO")]
    pub scenario: Option<PathBuf>,
    /// Recorded sessions to replay instead of made ones: a JSON list of
    /// {"begin": MINUTE, "end": MINUTE, "cpu_percent": N}, counted from a Monday, 00:00
    #[arg(long, value_name = "FILE")]
    pub sessions: Option<PathBuf>,
    /// Calendar file (.ics) with lessons besides the scenario's; an event's title is the name of its course
    #[arg(long, value_name = "FILE")]
    pub ics: Option<PathBuf>,
    /// Weeks, instead of the scenario's
    #[arg(long, value_name = "N")]
    pub weeks: Option<u32>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print the scenario itself, as a file to begin with
    #[arg(long)]
    pub print_scenario: bool,
}

/// Runs the command.
pub fn run(args: &SimArgs, json: bool) -> anyhow::Result<()> {
    let mut scenario = match &args.scenario {
        Some(path) => {
            toml::from_str::<Scenario>(&read(path)?).map_err(|e| wrong(path, e.to_string()))?
        }
        None => Scenario::default(),
    };
    if let Some(weeks) = args.weeks {
        scenario.weeks = weeks;
    }
    if let Some(path) = &args.ics {
        scenario.calendar.ics = read(path)?;
    }
    if args.print_scenario {
        return print(&toml::to_string(&scenario)?);
    }
    let sessions = match &args.sessions {
        Some(path) => Some(sessions(&read(path)?).map_err(|e| wrong(path, e))?),
        None => None,
    };
    let report = lyceum_sim::rehearse(&scenario, sessions)
        .map_err(|e| Exit::coded(FAILED, format!("the scenario can't be played: {e}")))?;
    if let Some(path) = &args.html {
        std::fs::write(path, lyceum_sim::page(&report))
            .map_err(|e| wrong(path, format!("it can't be written: {e}")))?;
    }
    if json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))
    } else {
        print(&text(&report))
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> anyhow::Error {
    Exit::coded(FAILED, format!("{}: {why}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let result = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    result
        .map(|_| text)
        .map_err(|e| wrong(path, format!("it can't be read: {e}")))
}

fn sessions(text: &str) -> Result<Vec<Session>, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| format!("{}: {}", e.path(), e.inner()))
}

type Row<'a> = (&'a str, &'a dyn Fn(&Outcome) -> String);

fn text(report: &Report) -> String {
    let mut out = format!(
        "{}: {} weeks, {} hosts, {} students, {} sessions\n\n",
        crate::table::plain(&report.name),
        report.weeks,
        report.hosts,
        report.students,
        report.sessions
    );
    let rows: [Row; 13] = [
        ("energy, kWh", &|o| format!("{:.0}", o.kwh)),
        ("less than always on, %", &|o| {
            format!("{:.1}", o.saved_percent)
        }),
        ("students at a bell", &|o| o.bell_students.to_string()),
        ("of these without a seat", &|o| {
            o.bell_without_seat.to_string()
        }),
        ("waiting at the bell, median, s", &|o| {
            format!("{:.1}", o.bell_wait_median_s)
        }),
        ("95th percentile, s", &|o| {
            format!("{:.1}", o.bell_wait_p95_s)
        }),
        ("longest, s", &|o| format!("{:.0}", o.bell_wait_longest_s)),
        ("without a seat outside of class", &|o| {
            o.study_without_seat.to_string()
        }),
        ("moves", &|o| o.moves.to_string()),
        ("disturbed minutes", &|o| o.disturbed_minutes.to_string()),
        ("hosts switched on", &|o| o.switched_on.to_string()),
        ("plans given up", &|o| o.plans_given_up.to_string()),
        ("interrupted by a broken host", &|o| {
            o.interrupted.to_string()
        }),
    ];
    let titles: Vec<&'static str> = std::iter::once("POLICY")
        .chain(report.outcomes.iter().map(|o| match o.policy {
            Rule::None => ">NONE",
            Rule::Paper => ">PAPER",
            Rule::Ours => ">OURS",
        }))
        .collect();
    let mut table = Table::new(&titles);
    for (name, cell) in rows {
        table.row(std::iter::once(name.to_owned()).chain(report.outcomes.iter().map(cell)));
    }
    out.push_str(&table.render());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_is_told_and_bad_records_are_named() {
        let scenario = Scenario {
            courses: Vec::new(),
            ..Scenario::default()
        };
        let recorded = sessions(r#"[{"begin":10,"end":70.5,"cpu_percent":3}]"#).unwrap();
        let report = lyceum_sim::rehearse(&scenario, Some(recorded)).unwrap();
        let text = text(&report);
        assert!(
            text.contains("1 sessions") && text.contains("PAPER"),
            "{text}"
        );
        let error = sessions(r#"[{"begin":10,"end":"x","cpu_percent":3}]"#).unwrap_err();
        assert!(error.contains("[0].end"), "{error}");
    }
}
