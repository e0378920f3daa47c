//! Restore points of a class of real guests on QEMU: what was in memory and in a file comes back, goes
//! again with an undo, and a damaged point changes nothing; of a desktop that was booted cold, its disk.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mod.rs"]
mod common;

use common::{find, type_on};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Generous: guests are emulated, and other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(300);
/// What had no effect for so long is typed again.
const TYPE_AGAIN: Duration = Duration::from_secs(20);
const COURSE: &str = "First steps in programming";

fn call(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lyceum"))
        .env_remove("LYCEUM_URL")
        .env("LYCEUM_STATE", state)
        .stdin(Stdio::null())
        .args(args)
        .output()
        .unwrap()
}

fn json(state: &Path, args: &[&str]) -> Value {
    let output = call(state, &[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A classroom with real machines. It ends when this is dropped.
struct Classroom {
    child: Child,
    state: PathBuf,
}

impl Classroom {
    fn start(state: &Path) -> Classroom {
        let image = std::env::var_os("LYCEUM_TINY_IMAGE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/tiny.qcow2"),
            PathBuf::from,
        );
        assert!(
            image.is_file(),
            "{} is not there: make tiny-image",
            image.display()
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_lyceum"))
            .env_remove("LYCEUM_URL")
            .env("LYCEUM_STATE", state)
            .stdin(Stdio::null())
            .args(["up", "--free-ports", "--hosts", "1", "--accelerator", "tcg"])
            .args(["--image-memory", "128", "--memory", "1024", "--image"])
            .arg(image)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let classroom = Classroom {
            child,
            state: state.to_owned(),
        };
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

    /// A request to the API on the controller's local socket: status and body.
    fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut sockets = Vec::new();
        find(&self.state, "controller.sock", &mut sockets);
        let mut socket = UnixStream::connect(&sockets[0]).unwrap();
        let request = format!(
            "{method} /api/v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer[9..12].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
    }

    /// The clipboard is a file in the guest's memory.
    fn clipboard(&self, desktop: &str) -> String {
        let (status, body) = self.api("GET", &format!("desktops/{desktop}/clipboard"), "");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["text"].as_str().unwrap().trim().to_owned()
    }

    fn set_clipboard(&self, desktop: &str, text: &str) {
        let body = format!("{{\"text\":\"{text}\"}}");
        let path = format!("desktops/{desktop}/clipboard");
        let (status, answer) = self.api("PUT", &path, &body);
        assert_eq!(status, 204, "{answer}");
    }

    fn type_line(&self, desktop: &str, line: &str) {
        let mut sockets = Vec::new();
        find(&self.state.join("run"), "vnc.sock", &mut sockets);
        sockets.retain(|s| s.components().any(|c| c.as_os_str() == desktop));
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        let _ = type_on(&sockets[0], line);
    }

    /// Types the line until the clipboard is another one, and says what it is then. Keys of an emulated
    /// keyboard get lost, and so may a line: `None` when it had no effect some times.
    fn shell(&self, desktop: &str, line: &str) -> Option<String> {
        let before = self.clipboard(desktop);
        for _ in 0..5 {
            self.type_line(desktop, line);
            let until = Instant::now() + TYPE_AGAIN;
            while Instant::now() < until {
                let now = self.clipboard(desktop);
                if now != before {
                    return Some(now);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        None
    }

    /// What is in the file, as the guest's shell says it through the clipboard.
    fn file(&self, desktop: &str) -> Option<String> {
        self.set_clipboard(desktop, "nothing yet");
        self.shell(desktop, "cp /root/f /run/lyceum/clipboard")
    }

    /// Makes the guest write this into the file.
    fn write(&self, desktop: &str, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.set_clipboard(desktop, text);
            // The second part tells that the first was done.
            let line =
                "cp /run/lyceum/clipboard /root/f; sync; cp /etc/hostname /run/lyceum/clipboard";
            self.shell(desktop, line);
            if self.file(desktop).as_deref() == Some(text) {
                return;
            }
            assert!(Instant::now() < until, "the file is not written");
        }
    }

    fn desktops(&self) -> Vec<String> {
        let list = json(&self.state, &["desktop", "list"]);
        let ids = list.as_array().unwrap().iter();
        ids.map(|d| d["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Classroom {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

#[test]
fn memory_and_files_of_a_class_go_back_and_forth() {
    let dir = tempfile::Builder::new()
        .prefix("lyr")
        .tempdir_in("/tmp")
        .unwrap();
    let state = dir.path().join("s");
    let room = Classroom::start(&state);
    // By name, before anybody has a desktop: it is made for who is on the roster, for nobody else.
    json(&state, &["desktop", "start", &format!("{COURSE}/student1")]);
    assert_eq!(room.desktops().len(), 1);
    let nobody = call(&state, &["desktop", "start", &format!("{COURSE}/nobody")]);
    assert_eq!(nobody.status.code(), Some(3));
    json(&state, &["course", "start", COURSE]);
    let ids = room.desktops();
    assert!(ids.len() > 1, "{ids:?}");
    let d = ids[0].as_str();
    room.write(d, "one");
    for other in &ids[1..] {
        room.set_clipboard(other, "theirs");
    }

    json(
        &state,
        &["restore-point", "take", COURSE, "--note", "exercise"],
    );
    assert_eq!(room.clipboard(d), "one", "it goes on as it was");
    let points = json(&state, &["restore-point", "list", d]);
    let point = &points[0];
    println!("{point}");
    assert_eq!(
        (point["holds"].as_str(), point["note"].as_str()),
        (Some("memory"), Some("exercise"))
    );
    assert!(point["bytes"].as_u64().unwrap() > 0 && point["stand_still_ms"].as_u64().unwrap() > 0);

    room.write(d, "two");
    room.set_clipboard(d, "three");
    json(&state, &["restore-point", "restore", COURSE]);
    // Its memory, then its disk.
    assert_eq!(room.clipboard(d), "one");
    assert_eq!(room.file(d).as_deref(), Some("one"));
    for other in &ids[1..] {
        assert_eq!(room.clipboard(other), "theirs");
    }

    json(&state, &["restore-point", "undo", COURSE]);
    assert_eq!(room.clipboard(d), "three");
    assert_eq!(room.file(d).as_deref(), Some("two"));

    // A byte of the point is not what it was: the desktop is left as it is.
    room.set_clipboard(d, "kept");
    let mut files = Vec::new();
    find(&state, "pages", &mut files);
    files.retain(|f| f.components().any(|c| c.as_os_str() == "deltas"));
    assert!(!files.is_empty());
    for file in files {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(file)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 100).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 100).unwrap();
    }
    let refused = call(&state, &["restore-point", "restore", d]);
    let said = [refused.stdout, refused.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("damaged") && said.contains("stays as it was"),
        "{said}"
    );
    assert_eq!(room.clipboard(d), "kept");

    // Booted cold it shares no memory with the others: a point is its disk, taken while it runs, and booted from.
    json(&state, &["desktop", "stop", d]);
    json(&state, &["desktop", "start", d, "--cold"]);
    room.write(d, "four");
    json(&state, &["restore-point", "take", d, "--note", "cold"]);
    let point = json(&state, &["restore-point", "list", d])[0].clone();
    println!("{point}");
    assert_eq!(
        (point["holds"].as_str(), point["note"].as_str()),
        (Some("disk"), Some("cold"))
    );
    let said = point["message"].as_str().unwrap();
    assert!(said.ends_with("without its windows."), "{said}");
    room.write(d, "five");
    let id = point["id"].as_str().unwrap();
    json(&state, &["restore-point", "restore", d, "--to", id]);
    assert_eq!(room.file(d).as_deref(), Some("four"));
    json(&state, &["restore-point", "undo", d]);
    assert_eq!(room.file(d).as_deref(), Some("five"));
    // It can't be suspended, so it would run on after the classroom's end.
    json(&state, &["desktop", "stop", d]);
}
