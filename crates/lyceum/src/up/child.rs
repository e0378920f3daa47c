//! A part as a child process: started, logged, restarted when it dies, stopped when told.
//!
//! Children are in process groups of their own, so that Ctrl-C in the terminal reaches only the
//! supervisor, and the kernel ends them when the supervisor is killed.

use super::limit::Limit;
use super::log::PartLog;
use crate::exit::{self, Exit};
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How to start a part.
#[derive(Debug, Clone)]
pub struct Part {
    /// For messages, for example `host-2`.
    pub name: String,
    /// Arguments of `lyceum`.
    pub args: Vec<String>,
    /// The join token, until it has joined. It works once, and again for the same agent.
    pub join: Option<String>,
    /// Its log.
    pub log: PathBuf,
    /// While this file is there the part does not run: the machine it stands for is off.
    pub off_flag: Option<PathBuf>,
    /// The control groups that it runs in with all its machines.
    pub limit: Option<Limit>,
}

/// A part that runs.
pub struct Running {
    name: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
    starts: watch::Receiver<u32>,
}

/// A part that was up for so long is restarted at once.
const STEADY: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(15);
/// How long a part may take to stop after it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether a machine was switched.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

fn spawn(part: &Part, join: Option<&str>) -> std::io::Result<Child> {
    // The very program that runs, even when its file was replaced by a newer build meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("lyceum")
        .args(&part.args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .env_remove("LYCEUM_STATE")
        .env_remove("LYCEUM_URL");
    if let Some(token) = join {
        // Not as an argument: everybody may read those.
        command.env("LYCEUM_JOIN_TOKEN", token);
    }
    let supervisor = std::process::id();
    // Opened here: between fork and exec a file can only be written.
    let groups = match &part.limit {
        Some(limit) => limit
            .procs()
            .iter()
            .map(|path| std::fs::OpenOptions::new().write(true).open(path))
            .collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for group in &groups {
                // 0 stands for whoever writes it.
                (&*group).write_all(b"0")?;
            }
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
            // The supervisor may have died before the line above.
            if nix::unistd::getppid().as_raw() as u32 != supervisor {
                return Err(std::io::Error::other("the supervisor is gone"));
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Copies what the part says into its log, line by line.
fn listen(from: Option<impl AsyncRead + Unpin + Send + 'static>, log: PartLog) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Some(from) = from else { return };
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => log.line(String::from_utf8_lossy(&line).trim_end()),
            }
        }
    })
}

/// In words.
fn how(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(e) => format!("unknown status: {e}"),
    }
}

impl Running {
    /// Starts the part and keeps it running until it is stopped.
    pub fn start(part: Part) -> anyhow::Result<Running> {
        let log = PartLog::open(&part.name, &part.log).map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!("the log {} can't be written: {e}", part.log.display()),
            )
        })?;
        let first = spawn(&part, part.join.as_deref()).map_err(|e| {
            Exit::coded(exit::FAILED, format!("{} can't be started: {e}", part.name))
        })?;
        let stop = CancellationToken::new();
        let (starts, starts_seen) = watch::channel(1);
        let name = part.name.clone();
        let task = tokio::spawn(keep(part, first, log, stop.clone(), starts));
        Ok(Running {
            name,
            stop,
            task,
            starts: starts_seen,
        })
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        *self.starts.borrow()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the part and waits for that.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Until the part's machine is switched off, or on; never for a part that stands for none.
async fn switched(part: &Part, off: bool) {
    match &part.off_flag {
        Some(flag) => {
            while flag.exists() != off {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn keep(
    part: Part,
    first: Child,
    log: PartLog,
    stop: CancellationToken,
    starts: watch::Sender<u32>,
) {
    let mut next = Some(first);
    let mut backoff = BACKOFF_FIRST;
    loop {
        let since = Instant::now();
        let why = match next
            .take()
            .map_or_else(|| spawn(&part, part.join.as_deref()), Ok)
        {
            Ok(mut child) => {
                let out = listen(child.stdout.take(), log.clone());
                let err = listen(child.stderr.take(), log.clone());
                let status = tokio::select! {
                    status = child.wait() => status,
                    () = switched(&part, true) => {
                        log.tell("its machine is switched off");
                        end(&mut child, &log).await;
                        let _ = tokio::join!(out, err);
                        tokio::select! {
                            () = switched(&part, false) => {}
                            () = stop.cancelled() => return,
                        }
                        log.tell("its machine is switched on");
                        continue;
                    }
                    () = stop.cancelled() => {
                        end(&mut child, &log).await;
                        let _ = tokio::join!(out, err);
                        return;
                    }
                };
                // Its last words come before the message about its end.
                let _ =
                    tokio::time::timeout(Duration::from_secs(1), async { tokio::join!(out, err) })
                        .await;
                how(status)
            }
            Err(e) => e.to_string(),
        };
        if since.elapsed() > STEADY {
            backoff = BACKOFF_FIRST;
        }
        log.tell(&format!(
            "ended by itself ({why}); starting it again in {:.1} s",
            backoff.as_secs_f64()
        ));
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = stop.cancelled() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MOST);
        starts.send_modify(|n| *n += 1);
    }
}

/// Asks the process to end, and ends it when it does not.
async fn end(child: &mut Child, log: &PartLog) {
    let Some(pid) = child.id() else { return };
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    if tokio::time::timeout(STOP_PATIENCE, child.wait())
        .await
        .is_err()
    {
        log.tell("does not stop; ending it");
        let _ = child.kill().await;
    }
}
