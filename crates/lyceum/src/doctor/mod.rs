//! `lyceum doctor`: what a first run breaks on, each finding with its cure.
//!
//! One file per subject. Every check tries the thing itself where it can: a guest is run with
//! KVM, a process's memory is read, an address is listened on.

mod machine;
mod network;
mod qemu;
mod rights;
mod segments;

pub use machine::memory_mib;

use crate::context::print;
use crate::exit::{self, Exit};
use crate::place;
use crate::table::plain;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not always.
    Warn,
    /// The classroom can't run like this.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// A word for programs, for example `kvm`.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Ok,
            found: found.into(),
            cure: None,
        }
    }
    fn warn(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Warn,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }
    fn fail(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Fail,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }
}

/// What is said with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// The worst of all.
    worst: Level,
    findings: Vec<Finding>,
}

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Skip the guest that tries KVM (it takes a few seconds)
    #[arg(long)]
    no_guest: bool,
    /// Look at this directory instead of the state directory's fast tier
    #[arg(long, value_name = "DIR")]
    fast: Option<PathBuf>,
    /// Look at this directory instead of the state directory's slow tier
    #[arg(long, value_name = "DIR")]
    slow: Option<PathBuf>,
}

/// Looks at everything and says what it found.
pub async fn run(state: Option<&Path>, args: DoctorArgs, json: bool) -> anyhow::Result<()> {
    let state = state.map_or_else(place::default_state_dir, Path::to_owned);
    let fast = args.fast.unwrap_or_else(|| state.join("fast"));
    let slow = args.slow.unwrap_or_else(|| state.join("slow"));

    let mut findings = vec![machine::processor()];
    findings.extend(qemu::check().await);
    if !args.no_guest {
        findings.push(qemu::kvm().await);
    }
    findings.extend(machine::memory());
    findings.extend(machine::disks(&fast, &slow));
    findings.extend(rights::check(&state));
    findings.extend(network::check(&state).await);
    findings.extend(segments::check());
    findings.push(machine::clock());
    findings.extend(machine::limits());
    findings.extend(machine::helpers());

    let worst = findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok);
    let report = Report { worst, findings };
    if json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print(&text(&report))?;
    }
    match worst {
        Level::Fail => Err(Exit::silent(exit::FAILED)),
        Level::Ok | Level::Warn => Ok(()),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for f in &report.findings {
        let level = match f.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        out.push_str(&format!("{level}  {:<9} {}\n", f.check, plain(&f.found)));
        if let Some(cure) = &f.cure {
            out.push_str(&format!("      {:<9} -> {}\n", "", plain(cure)));
        }
    }
    let count = |level| report.findings.iter().filter(|f| f.level == level).count();
    out.push_str(&format!(
        "\n{} ok, {} to mind, {} in the way\n",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    ));
    out
}

/// What stands in the way of a start for certain and is found in no time; `lyceum up` asks first.
pub async fn before_start() -> Vec<Finding> {
    let mut findings = qemu::check().await;
    findings.retain(|f| f.level == Level::Fail);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_cure_and_counts() {
        let report = Report {
            worst: Level::Fail,
            findings: vec![
                Finding::ok("a", "fine"),
                Finding::fail("b", "broken", "mend it"),
            ],
        };
        let text = text(&report);
        assert!(text.contains("FAIL  b         broken"));
        assert!(text.contains("-> mend it"));
        assert!(text.ends_with("1 ok, 0 to mind, 1 in the way\n"));
        assert!(Level::Fail > Level::Warn && Level::Warn > Level::Ok);
    }
}
