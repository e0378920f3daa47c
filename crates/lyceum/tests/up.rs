//! The program as it is run: a whole classroom of simulated machines, its command line, and
//! what happens when parts of it are killed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Generous: other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(120);

fn lyceum(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lyceum"));
    command
        .env_remove("LYCEUM_URL")
        .env("LYCEUM_STATE", state)
        .env("XDG_CONFIG_HOME", state.join("config"))
        .stdin(Stdio::null());
    command
}

/// Runs a command line to its end.
fn call(state: &Path, args: &[&str]) -> Output {
    lyceum(state).args(args).output().unwrap()
}

/// The same, which must work, with its JSON.
fn json(state: &Path, args: &[&str]) -> Value {
    let output = lyceum(state).args(args).arg("--json").output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A classroom that runs. Ended when dropped.
struct Classroom {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Classroom {
    fn start(state: &Path) -> Classroom {
        let mut child = lyceum(state)
            .args(["up", "--simulated", "--free-ports"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let out: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in out {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().unwrap().push(line);
                }
            });
        }
        let classroom = Classroom { child, said };
        classroom.wait_for("ready: ");
        classroom
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The first line that holds the text.
    fn wait_for(&self, text: &str) -> String {
        let mut line = None;
        until(&format!("a line with {text:?}"), || {
            line = self
                .said
                .lock()
                .unwrap()
                .iter()
                .find(|l| l.contains(text))
                .cloned();
            line.is_some()
        });
        line.unwrap()
    }

    /// Process ids of the parts.
    fn parts(&self) -> Vec<Pid> {
        let pid = self.pid();
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .map(|text| {
                text.split_ascii_whitespace()
                    .map(|p| Pid::from_raw(p.parse().unwrap()))
                    .collect::<Vec<_>>()
            })
            .unwrap_or_default()
            .into_iter()
            .chain(children_of_threads(pid))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

/// Children belong to the thread that started them.
fn children_of_threads(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace()
                .map(|p| Pid::from_raw(p.parse().unwrap()))
                .collect::<Vec<_>>()
        })
        .collect()
}

impl Drop for Classroom {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "the classroom said:\n{}",
                self.said.lock().map(|s| s.join("\n")).unwrap_or_default()
            );
        }
    }
}

fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "{what} did not come in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn alive(pid: Pid) -> bool {
    // A zombie is not.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

fn command_line(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .replace('\0', " ")
}

#[test]
fn a_classroom_survives_what_is_done_to_it() {
    let dir = tempfile::Builder::new().prefix("lyc").tempdir().unwrap();
    let state = dir.path().join("state");
    let mut first = Classroom::start(&state);

    // One line each, with a way in that is no default.
    let link = first.wait_for("/#/welcome/");
    assert!(link.contains("http://127.0.0.1:"), "{link}");

    let status = json(&state, &["status"]);
    assert_eq!(status["health"]["status"], "ok");
    assert_eq!(status["hosts"].as_array().unwrap().len(), 3);

    // A second one is refused, and says who is in the way.
    let second = call(&state, &["up", "--simulated"]);
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        words.contains("runs already") && words.contains(&first.child.id().to_string()),
        "{words}"
    );

    // The command line makes something that must be kept.
    json(
        &state,
        &[
            "user",
            "create",
            "ada",
            "--name",
            "王小明",
            "--role",
            "teacher",
        ],
    );
    let twice = call(&state, &["user", "create", "ada"]);
    assert_eq!(twice.status.code(), Some(3), "refused by the controller");

    // A part that is killed is started again, and told of.
    let parts = first.parts();
    assert_eq!(
        parts.len(),
        5,
        "{:?}",
        parts.iter().map(|p| command_line(*p)).collect::<Vec<_>>()
    );
    let host = *parts
        .iter()
        .find(|p| command_line(**p).contains("host-2.toml"))
        .unwrap();
    kill(host, Signal::SIGKILL).unwrap();
    first.wait_for("ended by itself");
    until("another host-2", || {
        first
            .parts()
            .iter()
            .any(|p| *p != host && command_line(*p).contains("host-2.toml"))
    });
    until("three hosts", || {
        json(&state, &["status"])["health"]["hosts_online"] == 3
    });

    // When the supervisor is killed, its parts end.
    let parts = first.parts();
    kill(first.pid(), Signal::SIGKILL).unwrap();
    first.child.wait().unwrap();
    until("the end of all parts", || !parts.iter().any(|p| alive(*p)));
    let gone = call(&state, &["status"]);
    assert_eq!(gone.status.code(), Some(4), "no controller to reach");

    // Another start finds everything, on the same addresses, and joins nobody anew.
    let url = first.wait_for("ready: ");
    let mut again = Classroom::start(&state);
    assert_eq!(again.wait_for("ready: "), url);
    let users = json(&state, &["user", "list", "--search", "ada"]);
    assert_eq!(users[0]["name"], "王小明");
    let table = call(&state, &["user", "list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("王小明"));

    // Asked to stop, it ends in peace and leaves nothing running.
    let parts = again.parts();
    kill(again.pid(), Signal::SIGTERM).unwrap();
    let status = again.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(!parts.iter().any(|p| alive(*p)));
}

#[test]
fn a_taken_port_is_said_with_its_cure() {
    let dir = tempfile::Builder::new().prefix("lyc").tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let page = holder.local_addr().unwrap().to_string();
    // The agents' ports are free ones, chosen as the supervisor would.
    let free = std::net::TcpListener::bind("127.77.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let output = call(
        &dir.path().join("state"),
        &[
            "up",
            "--simulated",
            "--page",
            &page,
            "--agents-port",
            &free.to_string(),
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains(&page) && words.contains("--page"), "{words}");
}

#[test]
fn what_is_not_a_command_is_a_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["nonsense"][..],
        &["course", "create"],
        &["--url", "ftp://x", "status"],
        &["host"],
        &["course", "set", "x"],
    ] {
        let code = call(dir.path(), args).status.code();
        // `course set x` asks the controller first, which is not there.
        assert!(matches!(code, Some(2 | 4)), "{args:?}: {code:?}");
    }
    let script = call(dir.path(), &["completions", "bash"]);
    assert!(String::from_utf8_lossy(&script.stdout).contains("_lyceum"));
}
