//! Power is saved on a whole classroom of real machines: desktops are moved together, empty hosts end, and for the
//! next bell a host is switched on again and its class is there. `make test-power`: it waits for a real bell.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(600);
const QUIET: &str = "First steps in programming";
const COMING: &str = "Evening class";

fn lyceum(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lyceum"));
    command
        .env_remove("LYCEUM_URL")
        .env("LYCEUM_STATE", state)
        .stdin(Stdio::null());
    command
}

fn json(state: &Path, args: &[&str]) -> Value {
    let output = lyceum(state).args(args).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// A classroom with real machines, ended when this is dropped.
struct Classroom(Child);

impl Classroom {
    fn start(state: &Path) -> Classroom {
        let image = std::env::var_os("LYCEUM_TINY_IMAGE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/tiny.qcow2"),
            PathBuf::from,
        );
        assert!(image.is_file(), "{}: make tiny-image", image.display());
        let mut child = lyceum(state)
            .args(["up", "--free-ports", "--image-memory", "128", "--image"])
            .arg(image)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let classroom = Classroom(child);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("{line}");
                if line.starts_with("ready: ") {
                    let _ = tell.send(());
                }
            }
        });
        told.recv_timeout(PATIENCE).expect("the classroom comes up");
        classroom
    }
}

impl Drop for Classroom {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[track_caller]
fn until(what: &str, so: impl Fn() -> bool) -> f64 {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "not reached: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{what}: {seconds:.1} s");
    seconds
}

/// Names of hosts that are on.
fn on(state: &Path) -> BTreeSet<String> {
    json(state, &["host", "list"])
        .as_array()
        .unwrap()
        .iter()
        .filter(|h| h["power"]["state"] == "on" && h["online"] == true)
        .map(|h| h["id"].as_str().unwrap().to_owned())
        .collect()
}

fn off(state: &Path) -> usize {
    json(state, &["host", "list"])
        .as_array()
        .unwrap()
        .iter()
        .filter(|h| h["power"]["state"] == "off" && h["online"] == false)
        .count()
}

fn desktops(state: &Path, course: &str) -> Vec<Value> {
    json(state, &["desktop", "list", "--course", course])
        .as_array()
        .unwrap()
        .clone()
}

fn hosts_of(desktops: &[Value]) -> BTreeSet<String> {
    desktops
        .iter()
        .filter_map(|d| d["host"].as_str().map(str::to_owned))
        .collect()
}

fn run(desktops: &[Value], count: usize) -> bool {
    desktops.len() == count && desktops.iter().all(|d| d["phase"] == "running")
}

/// Agents of hosts that run, by their configuration.
fn agents(up: &Classroom) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let text = |name: &str| std::fs::read_to_string(entry.path().join(name));
        let (Ok(line), Ok(stat)) = (text("cmdline"), text("stat")) else {
            continue;
        };
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1))
            .and_then(|pid| pid.parse::<u32>().ok());
        if parent == Some(up.0.id())
            && let Some(name) = line.split('\0').find(|word| word.contains("/host-"))
        {
            let name = name.rsplit('/').next().unwrap().trim_end_matches(".toml");
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
#[ignore = "waits for a bell and its end, some ten minutes: make test-power"]
fn a_quiet_classroom_is_consolidated_switched_off_and_on_again_for_the_bell() {
    let dir = tempfile::Builder::new()
        .prefix("lyw")
        .tempdir_in("/tmp")
        .unwrap();
    let state = dir.path().join("s");
    let up = Classroom::start(&state);
    json(&state, &["settings", "set", "--seats-per-host", "3"]);
    json(&state, &["course", "start", QUIET]);
    let three = desktops(&state, QUIET);
    assert!(run(&three, 3) && hosts_of(&three).len() == 3, "{three:#?}");
    assert_eq!(agents(&up).len(), 3);

    // Three desktops fit on one host, and nobody wants more seats.
    json(
        &state,
        &[
            "allocation",
            "set",
            "mode=power-saving",
            "automatic=true",
            "every_minutes=1",
            "settle_s=0",
            "pause_minutes=0",
            "min_on_minutes=0",
            "min_off_minutes=0",
            "off_threshold_seats=0",
            "on_threshold_seats=0",
        ],
    );
    until("consolidated, two hosts off", || off(&state) == 2);
    let three = desktops(&state, QUIET);
    assert!(run(&three, 3), "{three:#?}");
    assert_eq!(hosts_of(&three), on(&state));
    until("their agents have ended", || agents(&up) == on(&state));
    let moves = json(&state, &["desktop", "moves"]);
    let moves: Vec<&Value> = moves.as_array().unwrap().iter().collect();
    assert_eq!(moves.len(), 2, "{moves:#?}");
    for m in moves {
        assert_eq!(
            (m["state"].as_str(), m["way"].as_str()),
            (Some("done"), Some("delta"))
        );
    }

    // Another class, for which there is no seat on the host that is on.
    json(&state, &["course", "create", COMING, "--image", "Demo"]);
    let roster = dir.path().join("roster.csv");
    let mut file = std::fs::File::create(&roster).unwrap();
    writeln!(file, "login,name\ne1,One\ne2,Two\ne3,Three").unwrap();
    json(
        &state,
        &[
            "course",
            "roster",
            "import",
            COMING,
            roster.to_str().unwrap(),
            "--create-accounts",
        ],
    );
    json(
        &state,
        &[
            "timetable",
            "rules",
            "--zone",
            "UTC",
            "--lead-floor-minutes",
            "1",
            "--hosts-before-minutes",
            "1",
            "--class-mode",
            "none",
            "--other-mode",
            "none",
        ],
    );
    json(
        &state,
        &[
            "timetable",
            "course",
            COMING,
            "--at-end",
            "stop",
            "--grace-minutes",
            "0",
        ],
    );
    // A whole minute, with time for what comes before.
    let now = jiff::Timestamp::now().as_millisecond();
    let bell = (now / 60_000 + 5) * 60_000;
    let zoned = |ms: i64| {
        jiff::Timestamp::from_millisecond(ms)
            .unwrap()
            .to_zoned(jiff::tz::TimeZone::UTC)
    };
    let end = bell + 2 * 60_000;
    let when = format!(
        "{}-{}",
        zoned(bell).strftime("%Y-%m-%d %H:%M"),
        zoned(end).strftime("%H:%M")
    );
    json(&state, &["timetable", "add", COMING, &when]);
    assert_eq!(off(&state), 2, "it is early yet");
    until("a host is on for the class", || on(&state).len() >= 2);
    until("the class is there", || run(&desktops(&state, COMING), 3));
    let before = bell - jiff::Timestamp::now().as_millisecond();
    println!(
        "the class is there {:.1} s before the bell",
        before as f64 / 1000.0
    );
    assert!(before >= 0, "usable at the bell");
    let class = desktops(&state, COMING);
    assert!(hosts_of(&class).is_subset(&on(&state)), "{class:#?}");
    assert!(run(&desktops(&state, QUIET), 3), "nobody else noticed");

    // And after the lesson all of it again.
    until("the lesson is over, two hosts off", || {
        jiff::Timestamp::now().as_millisecond() > end && off(&state) == 2
    });
    assert!(run(&desktops(&state, QUIET), 3));
    assert!(
        desktops(&state, COMING)
            .iter()
            .all(|d| d["phase"] == "stopped")
    );
    until("their agents have ended again", || {
        agents(&up) == on(&state)
    });
}
