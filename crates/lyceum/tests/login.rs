//! The command line against a controller on another address, over TLS by the classroom's own CA.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lyceum_wire::ClassroomCa;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn lyceum(home: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lyceum"))
        .env_remove("LYCEUM_STATE")
        .env("XDG_CONFIG_HOME", home)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn signs_in_over_tls_and_believes_the_named_ca_only() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("controller");
    let port = {
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        any.local_addr().unwrap().port()
    };
    let config = dir.path().join("controller.toml");
    // Not on loopback alone, so it speaks TLS; browsers know it by this address.
    let text = format!(
        "state_dir = {state:?}\nlisten = \"0.0.0.0:{port}\"\nnames = [\"127.0.0.9\"]\nagent_listen = \"127.0.0.1:0\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let controller = Command::new(env!("CARGO_BIN_EXE_lyceum"))
        .args(["controller", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _controller = Controller(controller);
    let link = state.join("first-sign-in");
    let until = Instant::now() + PATIENCE;
    while !link.exists() {
        assert!(Instant::now() < until, "the controller does not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let link = std::fs::read_to_string(link).unwrap();
    let ca = ClassroomCa::open_or_create(&state).unwrap().fingerprint();
    let url = format!("https://127.0.0.9:{port}");
    let home = dir.path().join("home");
    let login = |ca: &[&str], link: &str| {
        let mut args = vec!["--url", &url, "login", "--link", link, "--password-stdin"];
        args.extend(ca);
        lyceum(&home, &args, "a long password\n")
    };

    // Nobody vouches for this CA; it says how to name it. Another one is not believed.
    let unknown = login(&[], link.trim());
    assert!(!unknown.status.success());
    assert!(said(&unknown).contains("--ca-sha256"), "{}", said(&unknown));
    let other = "0".repeat(64);
    assert!(
        !login(&["--ca-sha256", &other], link.trim())
            .status
            .success()
    );
    let wrong = login(&["--ca-sha256", "abc"], link.trim());
    assert!(said(&wrong).contains("64 hexadecimal"), "{}", said(&wrong));

    // None of that reached the controller: the link, which works once, still does. Colons are no matter.
    let pairs: Vec<String> = ca
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
        .collect();
    let signed_in = login(&["--ca-sha256", &pairs.join(":")], link.trim());
    assert!(signed_in.status.success(), "{}", said(&signed_in));

    // From now on it is known, and so is who signed in.
    let list = lyceum(&home, &["--url", &url, "user", "list", "--json"], "");
    assert!(list.status.success(), "{}", said(&list));
    assert!(said(&list).contains("admin"), "{}", said(&list));
    let out = lyceum(&home, &["--url", &url, "logout"], "");
    assert!(out.status.success(), "{}", said(&out));
    let after = lyceum(&home, &["--url", &url, "user", "list"], "");
    assert!(!after.status.success(), "{}", said(&after));
}
