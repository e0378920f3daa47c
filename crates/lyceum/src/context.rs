//! What every command has: the client, and how to answer.

use crate::client::{CallError, Client};
use crate::exit::{self, Exit};
use crate::format;
use crate::table::{Table, plain};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lyceum_api::operations::{Operation, OperationState};
use lyceum_model::OperationId;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// What every command has.
pub struct Context {
    /// The controller.
    pub client: Client,
    /// Answer with the API's own JSON.
    pub json: bool,
    /// Don't wait for operations.
    pub no_wait: bool,
}

/// How often a running operation is asked for.
const POLL: Duration = Duration::from_millis(250);

/// Writes to standard output. That nobody reads any more (`| head`) ends the program in peace.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Exit::silent(exit::DONE)),
        Err(e) => Err(Exit::coded(
            exit::FAILED,
            format!("the answer can't be written: {e}"),
        )),
    }
}

impl Context {
    /// Prints the value as JSON, or what `text` makes of it.
    pub fn show<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            print(&(serde_json::to_string_pretty(value)? + "\n"))
        } else {
            print(&text(value))
        }
    }

    /// Prints a list as JSON or as a table; `empty` is said to people when it has no rows.
    pub fn show_table<T: Serialize>(
        &self,
        value: &T,
        empty: &str,
        table: impl FnOnce(&T) -> Table,
    ) -> anyhow::Result<()> {
        self.show(value, |value| {
            let table = table(value);
            if table.is_empty() {
                format!("{empty}\n")
            } else {
                table.render()
            }
        })
    }

    /// Says that something was done; with `--json` the value says it.
    pub fn done<T: Serialize>(&self, value: &T, text: &str) -> anyhow::Result<()> {
        self.show(value, |_| format!("{text}\n"))
    }

    /// Waits for an operation with a progress bar, prints how it ended and turns a bad end into
    /// an error. With `--no-wait` prints the operation as it is.
    pub async fn follow(&self, id: &OperationId) -> anyhow::Result<Operation> {
        if self.no_wait {
            let operation: Operation = self.client.get(&format!("operations/{id}")).await?;
            self.done(
                &operation,
                &format!("operation {id}; watch it with: lyceum operation watch {id}"),
            )?;
            return Ok(operation);
        }
        let operation = self.wait(id).await?;
        self.show(&operation, report)?;
        match operation.state {
            OperationState::Done | OperationState::Running => Ok(operation),
            OperationState::Failed | OperationState::Cancelled => Err(Exit::silent(exit::FAILED)),
        }
    }

    /// Waits for an operation to end, with a progress bar, and returns it. A controller that is
    /// away for a while (it is being restarted) does not end the waiting.
    pub async fn wait(&self, id: &OperationId) -> anyhow::Result<Operation> {
        let bar = progress_bar(self.json);
        let mut away_since: Option<std::time::Instant> = None;
        let path = format!("operations/{id}");
        loop {
            let next = tokio::select! {
                next = self.client.get::<Operation>(&path) => next,
                _ = tokio::signal::ctrl_c() => {
                    bar.finish_and_clear();
                    return Err(Exit::coded(exit::INTERRUPTED, format!(
                        "no longer watched; it goes on. Call it off with: lyceum operation cancel {id}"
                    )));
                }
            };
            match next {
                Ok(operation) => {
                    away_since = None;
                    bar.set_length(u64::from(operation.total.max(1)));
                    bar.set_position(u64::from(operation.done));
                    bar.set_message(plain(&format!(
                        "{} {}: {}",
                        operation.kind, operation.target_name, operation.step
                    )));
                    if operation.state != OperationState::Running {
                        bar.finish_and_clear();
                        return Ok(operation);
                    }
                }
                Err(error @ CallError::Unreachable { .. }) => {
                    let since = *away_since.get_or_insert_with(std::time::Instant::now);
                    if since.elapsed() > Duration::from_secs(60) {
                        bar.finish_and_clear();
                        return Err(error.into());
                    }
                    bar.set_message("the controller is away; waiting for it");
                }
                Err(error) => {
                    bar.finish_and_clear();
                    return Err(error.into());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A bar on standard error; invisible when nobody sees it.
pub fn progress_bar(quiet: bool) -> ProgressBar {
    let target = if quiet || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(1), target);
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed:>4} [{bar:30}] {pos}/{len} {wide_msg}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// How an operation stands, with every failure.
pub fn report(operation: &Operation) -> String {
    let took = operation
        .ended
        .map(|ended| format::duration(ended.saturating_sub(operation.created).max(0) as u64));
    let mut text = match operation.state {
        OperationState::Running => format!(
            "{} {}: running, {} of {}: {}\n",
            operation.kind, operation.target_name, operation.done, operation.total, operation.step
        ),
        OperationState::Done => format!(
            "{} {}: done, {} of {}",
            operation.kind, operation.target_name, operation.done, operation.total
        ),
        OperationState::Failed => format!(
            "{} {}: failed, {} of {} reached",
            operation.kind, operation.target_name, operation.done, operation.total
        ),
        OperationState::Cancelled => format!(
            "{} {}: called off, {} of {} reached",
            operation.kind, operation.target_name, operation.done, operation.total
        ),
    };
    if let Some(took) = took {
        text.push_str(&format!(" ({took})"));
    }
    let mut text = plain(text.trim_end()) + "\n";
    for failure in &operation.failures {
        text.push_str(&format!(
            "  {}: {}\n",
            plain(&failure.name),
            plain(&failure.message)
        ));
    }
    text
}
