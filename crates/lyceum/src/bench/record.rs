//! The results of the paper's experiments: as a table, as JSON that a later run can be compared
//! with, and as a page with plots beside the paper's numbers.

use super::html;
use super::write;
use crate::context::print;
use crate::exit::Exit;
use crate::table::Table;
use lyceum_tune::verdict::median;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What all of these experiments take.
#[derive(Debug, Clone, clap::Args)]
pub struct Output {
    /// Compare with this earlier result of the same experiment, made with --json before tuning
    #[arg(long, value_name = "FILE")]
    pub before: Option<PathBuf>,
    /// Write the numbers here
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What belongs in one plot: `send`, `write to /srv/slow`.
    pub series: String,
    /// The place in it: `4 connections`, `64 KiB`.
    pub point: String,
    /// Unit.
    pub unit: String,
    /// Every measurement.
    pub samples: Vec<f64>,
    /// Less is better.
    #[serde(default)]
    pub less: bool,
    /// In words, what else was seen.
    #[serde(default)]
    pub note: String,
}

impl Row {
    /// The middle one of the measurements.
    pub fn value(&self) -> f64 {
        median(&self.samples)
    }
}

/// A number of the paper's, and what was measured here beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// What is compared.
    pub what: String,
    /// The paper's number.
    pub paper: String,
    /// What was measured; empty: this run does not say.
    pub here: String,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which experiment: `net`, `disk`, `nfs`, `storm`.
    pub experiment: String,
    /// For a person.
    pub title: String,
    /// When, milliseconds since 1970.
    pub at: i64,
    /// Name, kernel, CPUs of this machine.
    pub machine: String,
    /// Figures.
    pub rows: Vec<Row>,
    /// Beside the paper's.
    pub paper: Vec<Beside>,
    /// What one should know when reading it.
    pub notes: Vec<String>,
}

impl Record {
    /// An empty one of this machine.
    pub fn new(experiment: &str, title: &str) -> Record {
        let word = |path: &str| {
            std::fs::read_to_string(path).map_or_else(|_| "?".into(), |s| s.trim().to_owned())
        };
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        Record {
            experiment: experiment.into(),
            title: title.into(),
            at: jiff::Timestamp::now().as_millisecond(),
            machine: format!(
                "{} · Linux {} · {cpus} CPUs · Lyceum {}",
                word("/proc/sys/kernel/hostname"),
                word("/proc/sys/kernel/osrelease"),
                env!("CARGO_PKG_VERSION")
            ),
            rows: Vec::new(),
            paper: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Of a series and a point.
    pub fn value(&self, series: &str, point: &str) -> Option<f64> {
        self.row(series, point).map(Row::value)
    }

    fn row(&self, series: &str, point: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|r| r.series == series && r.point == point)
    }

    fn load(path: &Path, experiment: &str) -> anyhow::Result<Record> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Exit::usage(format!("--before {}: {e}", path.display())))?;
        let record: Record = serde_json::from_str(&text).map_err(|e| {
            Exit::usage(format!(
                "--before {}: {e}; give a file that was written with --json",
                path.display()
            ))
        })?;
        if record.experiment != experiment {
            return Err(Exit::usage(format!(
                "--before {} is a result of `bench {}`, and this is `bench {experiment}`",
                path.display(),
                record.experiment
            )));
        }
        Ok(record)
    }

    /// Tells it in all the ways that were asked for.
    pub fn tell(&self, output: &Output, json: bool) -> anyhow::Result<()> {
        let before = match &output.before {
            Some(path) => Some(Record::load(path, &self.experiment)?),
            None => None,
        };
        let text = serde_json::to_string_pretty(self)? + "\n";
        // `--json` without a file is the global flag.
        if let Some(path) = output.json.as_deref().filter(|path| *path != "-") {
            write(path.as_ref(), &text)?;
        }
        if let Some(path) = &output.html {
            write(path, &self.page(before.as_ref()))?;
        }
        print(&if json {
            text
        } else {
            self.table(before.as_ref())
        })
    }

    /// Finds out that `--before` can't be used before an hour of measuring and not after it.
    pub fn check(output: &Output, experiment: &str) -> anyhow::Result<()> {
        match &output.before {
            Some(path) => Record::load(path, experiment).map(drop),
            None => Ok(()),
        }
    }

    fn table(&self, before: Option<&Record>) -> String {
        let mut table = Table::new(match before {
            Some(_) => &["WHAT", "AT", ">BEFORE", ">NOW", ">CHANGE", "UNIT", "NOTE"][..],
            None => &["WHAT", "AT", ">NOW", ">LEAST", ">MOST", "UNIT", "NOTE"][..],
        });
        for row in &self.rows {
            let least = row.samples.iter().copied().fold(f64::INFINITY, f64::min);
            let most = row.samples.iter().copied().fold(0.0, f64::max);
            let (a, b, c) = match before {
                Some(before) => {
                    let was = before.value(&row.series, &row.point);
                    (
                        was.map_or_else(|| "-".into(), figure),
                        figure(row.value()),
                        was.map_or_else(|| "-".into(), |was| change(was, row.value())),
                    )
                }
                None => (figure(row.value()), figure(least), figure(most)),
            };
            table.row([&row.series, &row.point, &a, &b, &c, &row.unit, &row.note]);
        }
        let mut out = table.render();
        if !self.paper.is_empty() {
            let mut paper = Table::new(&["BESIDE THE PAPER", "PAPER", "HERE"]);
            for line in &self.paper {
                let here = if line.here.is_empty() {
                    "-"
                } else {
                    &line.here
                };
                paper.row([&line.what, &line.paper, here]);
            }
            let _ = write!(out, "\n{}", paper.render());
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        let _ = write!(out, "\n{}\n", self.machine);
        out
    }

    fn page(&self, before: Option<&Record>) -> String {
        let mut body = String::new();
        let mut series: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !series.contains(&row.series.as_str()) {
                series.push(&row.series);
            }
        }
        for name in series {
            let rows: Vec<&Row> = self.rows.iter().filter(|r| r.series == name).collect();
            let unit = rows.first().map_or("", |r| r.unit.as_str());
            let mut bars = Vec::new();
            for row in rows {
                let was = before.and_then(|b| b.value(name, &row.point));
                if let Some(was) = was {
                    let shown = format!("{} before", figure(was));
                    bars.push((row.point.clone(), was, "fb", shown));
                }
                let mut shown = figure(row.value());
                if let Some(was) = was {
                    let _ = write!(shown, " ({})", change(was, row.value()));
                }
                let point = if was.is_some() { "now" } else { &row.point };
                bars.push((point.to_owned(), row.value(), "fa", shown));
            }
            let _ = write!(
                body,
                "<div class=\"card\"><h2>{}, {}</h2>{}</div>",
                html::escape(name),
                html::escape(unit),
                html::bars(&bars)
            );
        }
        if !self.paper.is_empty() {
            body.push_str("<div class=\"card\"><h2>Beside the paper</h2><table><tr><th>what<th>paper<th>here</tr>");
            for line in &self.paper {
                let here = if line.here.is_empty() {
                    "–"
                } else {
                    &line.here
                };
                let _ = write!(
                    body,
                    "<tr><td>{}<td>{}<td>{}</tr>",
                    html::escape(&line.what),
                    html::escape(&line.paper),
                    html::escape(here)
                );
            }
            body.push_str("</table></div>");
        }
        for note in &self.notes {
            let _ = write!(body, "<p class=\"dim\">{}</p>", html::escape(note));
        }
        let line = format!("{} · {}", crate::format::moment(self.at), self.machine);
        html::page_of(&self.title, &line, &body)
    }
}

/// A number with three digits that count.
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// How much more, or less.
pub fn change(before: f64, after: f64) -> String {
    if before <= 0.0 {
        return "-".into();
    }
    format!("{:+.1} %", (after / before - 1.0) * 100.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(samples: &[f64]) -> Record {
        let mut record = Record::new("net", "TCP <between> machines");
        record.rows.push(Row {
            series: "send".into(),
            point: "1 connection".into(),
            unit: "Mbit/s".into(),
            samples: samples.to_vec(),
            less: false,
            note: String::new(),
        });
        record.paper.push(Beside {
            what: "tuning".into(),
            paper: "+9 %".into(),
            here: String::new(),
        });
        record
    }

    #[test]
    fn before_and_after() {
        let (before, after) = (record(&[90.0, 100.0, 110.0]), record(&[118.0, 120.0]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("before.json");
        std::fs::write(&path, serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(Record::load(&path, "net").unwrap(), before);
        let said = Record::load(&path, "disk").unwrap_err().to_string();
        assert!(said.contains("bench net"), "{said}");
        let table = after.table(Some(&before));
        assert!(table.contains("+19.0 %"), "{table}");
        let page = after.page(Some(&before));
        assert!(
            page.contains("+19.0 %") && page.contains("&lt;between&gt;"),
            "{page}"
        );
        assert_eq!(page.matches("<rect").count(), 2);
        for outside in ["http:", "https:", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
