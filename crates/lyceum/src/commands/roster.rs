//! `lyceum course roster`: who is in a course.

use crate::context::Context;
use crate::exit::{self, Exit};
use crate::format::word;
use crate::resolve;
use crate::table::{Table, plain};
use clap::Subcommand;
use lyceum_api::courses::{CourseRole, Member, MemberPut, RosterChange, RosterCsv, RosterRow};
use std::path::PathBuf;

/// Largest roster file, bytes; what the controller takes.
const LIMIT: u64 = 1024 * 1024;

/// Rosters.
#[derive(Debug, Subcommand)]
pub enum RosterCommand {
    /// Everybody in a course
    List {
        /// Course
        course: String,
    },
    /// Put the people of a CSV file (login, name, role) on the roster
    Import {
        /// Course
        course: String,
        /// The file; - for standard input
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Take people off who are not in the file
        #[arg(long)]
        remove_missing: bool,
        /// Make accounts for people who have none, and print their one-time links
        #[arg(long)]
        create_accounts: bool,
    },
    /// Put a person on the roster
    Add {
        /// Course
        course: String,
        /// Sign-in name
        login: String,
        /// As a teacher
        #[arg(long)]
        teacher: bool,
    },
    /// Take a person off the roster
    Remove {
        /// Course
        course: String,
        /// Sign-in name
        login: String,
    },
}

fn read(file: &std::path::Path) -> anyhow::Result<String> {
    use std::io::Read;
    let open = || -> std::io::Result<Box<dyn Read>> {
        Ok(match file.to_str() {
            Some("-") => Box::new(std::io::stdin()),
            _ => Box::new(std::fs::File::open(file)?),
        })
    };
    let mut text = Vec::new();
    open()
        .and_then(|from| from.take(LIMIT + 1).read_to_end(&mut text))
        .map_err(|e| Exit::usage(format!("{} can't be read: {e}", file.display())))?;
    if text.len() as u64 > LIMIT {
        return Err(Exit::usage(format!(
            "{} is larger than 1 MiB; that is no roster",
            file.display()
        )));
    }
    // Spreadsheets put a byte order mark before UTF-8.
    let text = String::from_utf8(text).map_err(|_| {
        Exit::usage(format!(
            "{} is not UTF-8; save it as \"CSV UTF-8\" in the spreadsheet",
            file.display()
        ))
    })?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

/// Runs the command.
pub async fn run(ctx: &Context, command: RosterCommand) -> anyhow::Result<()> {
    match command {
        RosterCommand::List { course } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let members: Vec<Member> = ctx
                .client
                .get(&format!("courses/{}/roster", course.id))
                .await?;
            ctx.show_table(&members, "nobody", |members| {
                let mut table = Table::new(&["LOGIN", "NAME", "ROLE"]);
                for m in members {
                    table.row([m.login.clone(), m.name.clone(), word(&m.role)]);
                }
                table
            })
        }
        RosterCommand::Import {
            course,
            file,
            dry_run,
            remove_missing,
            create_accounts,
        } => {
            let body = RosterCsv {
                csv: read(&file)?,
                remove_missing,
                create_accounts,
            };
            let course = resolve::course(&ctx.client, &course).await?;
            let preview: RosterChange = ctx
                .client
                .post(&format!("courses/{}/roster/preview", course.id), &body)
                .await?;
            if dry_run || !preview.problems.is_empty() {
                ctx.show(&preview, |change| changes(change, true))?;
                return if preview.problems.is_empty() {
                    Ok(())
                } else {
                    Err(Exit::silent(exit::REFUSED))
                };
            }
            let change: RosterChange = ctx
                .client
                .put(&format!("courses/{}/roster", course.id), &body)
                .await?;
            ctx.show(&change, |change| changes(change, false))
        }
        RosterCommand::Add {
            course,
            login,
            teacher,
        } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let user = resolve::user(&ctx.client, &login).await?;
            let role = if teacher {
                CourseRole::Teacher
            } else {
                CourseRole::Student
            };
            let _: serde_json::Value = ctx
                .client
                .put(
                    &format!("courses/{}/members/{}", course.id, user.id),
                    &MemberPut { role },
                )
                .await?;
            ctx.done(
                &Member {
                    user: user.id,
                    login: user.login.clone(),
                    name: user.name,
                    role,
                },
                &format!("{} is in {} as a {}", user.login, course.name, word(&role)),
            )
        }
        RosterCommand::Remove { course, login } => {
            let course = resolve::course(&ctx.client, &course).await?;
            let user = resolve::user(&ctx.client, &login).await?;
            let answer: serde_json::Value = ctx
                .client
                .delete(&format!("courses/{}/members/{}", course.id, user.id))
                .await?;
            super::course::follow_if_any(ctx, answer).await?;
            ctx.done(
                &user,
                &format!("{} is no longer in {}", user.login, course.name),
            )
        }
    }
}

/// What a roster file changes, line by line.
pub fn changes(change: &RosterChange, preview: bool) -> String {
    let mut out = String::new();
    let mut list = |sign: char, what: &str, rows: &[RosterRow]| {
        for row in rows {
            out.push_str(&plain(&format!(
                "{sign} {what} {} ({}), {}",
                row.login,
                row.name,
                word(&row.role)
            )));
            out.push('\n');
        }
    };
    list('+', "account", &change.create);
    list('+', "roster ", &change.add);
    list('~', "role   ", &change.change);
    list('-', "roster ", &change.remove);
    for problem in &change.problems {
        out.push_str(&plain(&format!(
            "! line {}: {}",
            problem.line, problem.message
        )));
        out.push('\n');
    }
    for link in &change.links {
        out.push_str(&plain(&format!(
            "  {} signs in once with {}",
            link.login, link.path
        )));
        out.push('\n');
    }
    let count =
        change.create.len().max(change.add.len()) + change.change.len() + change.remove.len();
    out.push_str(&match (change.problems.is_empty(), preview) {
        (false, _) => format!(
            "nothing was changed: {} lines can't be used\n",
            change.problems.len()
        ),
        (true, true) => format!(
            "{count} would change, {} stay; nothing was changed\n",
            change.unchanged
        ),
        (true, false) => format!("{count} changed, {} stay\n", change.unchanged),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_api::courses::RosterProblem;

    #[test]
    fn a_preview_says_that_nothing_was_changed() {
        let row = RosterRow {
            login: "ada".into(),
            name: "Ada \u{1b}[1m".into(),
            role: CourseRole::Student,
        };
        let change = RosterChange {
            add: vec![row],
            unchanged: 3,
            ..RosterChange::default()
        };
        let text = changes(&change, true);
        assert!(text.contains("+ roster  ada"));
        assert!(text.contains("1 would change, 3 stay; nothing was changed"));
        assert!(!text.contains('\u{1b}'));
        let bad = RosterChange {
            problems: vec![RosterProblem {
                line: 4,
                message: "no login".into(),
            }],
            ..RosterChange::default()
        };
        assert!(changes(&bad, false).contains("! line 4: no login\nnothing was changed"));
    }
}
