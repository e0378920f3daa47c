//! A roster file: reading it, and finding what it changes. Pure: the preview and the real
//! thing call the same function, so they can't differ.

use lyceum_api::courses::{CourseRole, RosterChange, RosterProblem, RosterRow};
use lyceum_model::name;
use std::collections::{HashMap, HashSet};

/// Longest file, bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Most people in a file.
pub const MAX_ROWS: usize = 5000;
/// Problems that are told; more would not be read.
const MAX_PROBLEMS: usize = 50;
const NAME: usize = 120;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Sign-in name as [`name::login`] makes it.
    pub login: String,
    /// Name, if the file gives one.
    pub name: Option<String>,
    /// Role in the course, if the file gives one.
    pub role: Option<CourseRole>,
}

/// Reads the file. Every line is either in the first or has a problem in the second.
pub fn read(text: &str) -> (Vec<Line>, Vec<RosterProblem>) {
    let mut problems = Vec::new();
    let mut problem = |line: u64, message: String| {
        if problems.len() < MAX_PROBLEMS {
            problems.push(RosterProblem { line, message });
        }
    };
    if text.len() > MAX_BYTES {
        problem(
            1,
            "the file is larger than 1 MiB: a roster is a small list, is this the right file?"
                .into(),
        );
        return (Vec::new(), problems);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter(text))
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut lines: Vec<Line> = Vec::new();
    let mut columns: Option<Columns> = None;
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(e) => {
                let line = e.position().map_or(1, csv::Position::line);
                problem(
                    line,
                    "the line can't be read as CSV: check its quotes".into(),
                );
                break;
            }
        }
        let number = record.position().map_or(1, csv::Position::line);
        let Some(columns) = &columns else {
            match Columns::find(&record) {
                Ok(found) => columns = Some(found),
                Err(message) => {
                    problem(number, message);
                    break;
                }
            }
            continue;
        };
        if record.iter().all(str::is_empty) {
            continue;
        }
        if lines.len() >= MAX_ROWS {
            problem(
                number,
                format!("the file has more than {MAX_ROWS} people: split it"),
            );
            break;
        }
        match columns.line(number, &record) {
            Ok(line) => {
                if let Some(first) = seen.insert(line.login.clone(), number) {
                    problem(
                        number,
                        format!(
                            "{} is in line {first} already: remove one of the two",
                            line.login
                        ),
                    );
                } else {
                    lines.push(line);
                }
            }
            Err(message) => problem(number, message),
        }
    }
    if columns.is_none() && problems.is_empty() {
        problems.push(RosterProblem {
            line: 1,
            message: "the file is empty: its first line must name the columns, for example login,name,role".into(),
        });
    }
    (lines, problems)
}

/// Whichever of comma, semicolon and tab is most often in the first line.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    let count = |c: u8| header.bytes().filter(|b| *b == c).count();
    // At a tie the first counts.
    let mut best = b',';
    for candidate in [b';', b'\t'] {
        if count(candidate) > count(best) {
            best = candidate;
        }
    }
    best
}

struct Columns {
    login: usize,
    name: Option<usize>,
    role: Option<usize>,
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Columns, String> {
        let at = |what: &str| -> Result<Option<usize>, String> {
            let mut found = header
                .iter()
                .enumerate()
                .filter(|(_, name)| name.eq_ignore_ascii_case(what))
                .map(|(index, _)| index);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(format!("the first line names the column {what} twice")),
                (first, None) => Ok(first),
            }
        };
        Ok(Columns {
            login: at("login")?.ok_or(
                "the first line must name the columns, and one of them must be login; for example login,name,role",
            )?,
            name: at("name")?,
            role: at("role")?,
        })
    }

    fn line(&self, number: u64, record: &csv::StringRecord) -> Result<Line, String> {
        let field =
            |index: Option<usize>| index.and_then(|i| record.get(i)).filter(|v| !v.is_empty());
        let login =
            name::login(field(Some(self.login)).unwrap_or_default()).map_err(|e| e.to_string())?;
        let name = field(self.name)
            .map(|text| name::title("the person's name", text, NAME))
            .transpose()
            .map_err(|e| e.to_string())?;
        let role = match field(self.role) {
            None => None,
            Some(word) if word.eq_ignore_ascii_case("student") => Some(CourseRole::Student),
            Some(word) if word.eq_ignore_ascii_case("teacher") => Some(CourseRole::Teacher),
            Some(word) => {
                let word: String = word.chars().take(40).collect();
                return Err(format!("{word:?} is no role: write student or teacher"));
            }
        };
        Ok(Line {
            number,
            login,
            name,
            role,
        })
    }
}

/// Finds what the file changes. `accounts`: names as shown, by sign-in name; `roster`: as it is.
/// `links` of the answer stays empty.
pub fn plan(
    text: &str,
    accounts: &HashMap<String, String>,
    roster: &[RosterRow],
    remove_missing: bool,
    create_accounts: bool,
) -> RosterChange {
    let (lines, problems) = read(text);
    let mut change = RosterChange {
        problems,
        ..RosterChange::default()
    };
    let present: HashMap<&str, &RosterRow> = roster.iter().map(|r| (r.login.as_str(), r)).collect();
    let mut in_file = HashSet::new();
    for line in lines {
        in_file.insert(line.login.clone());
        let member = present.get(line.login.as_str());
        let row = |name: String, role: CourseRole| RosterRow {
            login: line.login.clone(),
            name,
            role,
        };
        match (accounts.get(&line.login), member) {
            (_, Some(member)) => match line.role {
                Some(role) if role != member.role => {
                    change.change.push(row(member.name.clone(), role))
                }
                // Without a role in the file people keep theirs.
                _ => change.unchanged += 1,
            },
            (Some(name), None) => {
                change
                    .add
                    .push(row(name.clone(), line.role.unwrap_or(CourseRole::Student)));
            }
            (None, None) if create_accounts => {
                let name = line.name.clone().unwrap_or_else(|| line.login.clone());
                let row = row(name, line.role.unwrap_or(CourseRole::Student));
                change.create.push(row.clone());
                change.add.push(row);
            }
            (None, None) if change.problems.len() < MAX_PROBLEMS => {
                change.problems.push(RosterProblem {
                    line: line.number,
                    message: format!(
                        "{} has no account: check the spelling, or let accounts be made",
                        line.login
                    ),
                })
            }
            (None, None) => {}
        }
    }
    if remove_missing {
        // Lists of a school's office hold pupils: they must not take the teachers out of the course.
        change.remove = roster
            .iter()
            .filter(|r| r.role == CourseRole::Student && !in_file.contains(&r.login))
            .cloned()
            .collect();
    }
    change.problems.sort_by_key(|p| p.line);
    change
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
