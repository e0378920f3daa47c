//! Running the system's own programs: output kept within bounds, an end set to waiting, and
//! failures in words.

use crate::DiskError;
use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How much of a program's output is kept.
const MAX_OUTPUT: u64 = 4 << 20;
/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// A program that takes longer is stuck: storage that hangs is seen by its users first.
const LIMIT: Duration = Duration::from_secs(300);

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended with status 0.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// The beginning of what it complained about, in one line.
    pub stderr: String,
}

/// Runs `program` to its end. An error only when it can't be run; `package` is the Debian
/// package that brings it.
pub fn run<A: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: &[A],
) -> Result<Said, DiskError> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .env("PATH", path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            DiskError::Tool(format!(
                "can't run {program}: {e}. Install it (Debian: {package})"
            ))
        })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let began = Instant::now();
    let (status, out, err) = std::thread::scope(|scope| {
        let out = scope.spawn(move || some(stdout));
        let err = scope.spawn(move || some(stderr));
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if began.elapsed() > LIMIT => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break Err(DiskError::Tool(format!(
                        "{program} did not end within {} s and was ended: look at the system's log for a disk that hangs",
                        LIMIT.as_secs()
                    )));
                }
                Ok(None) => std::thread::sleep(LOOK),
                Err(e) => break Err(DiskError::Tool(format!("can't wait for {program}: {e}"))),
            }
        };
        (
            status,
            out.join().unwrap_or_default(),
            err.join().unwrap_or_default(),
        )
    });
    Ok(Said {
        success: status?.success(),
        stdout: String::from_utf8_lossy(&out).into_owned(),
        stderr: one_line(&String::from_utf8_lossy(&err)),
    })
}

/// Like [`run`]; ending badly is an error, which begins with `what`, as in "can't make a volume".
pub fn must<A: AsRef<OsStr>>(
    what: &str,
    program: &str,
    package: &str,
    arguments: &[A],
) -> Result<String, DiskError> {
    let said = run(program, package, arguments)?;
    if said.success {
        return Ok(said.stdout);
    }
    let why = match said.stderr.as_str() {
        "" => one_line(&said.stdout),
        why => why.to_owned(),
    };
    let full = [
        "No space left on device",
        "insufficient free space",
        "insufficient suitable",
    ];
    if full.iter().any(|words| why.contains(words)) {
        return Err(DiskError::Full {
            what: format!("{what}: {program} says: {why}"),
        });
    }
    Err(DiskError::Tool(format!(
        "{what}: {program} says: {}",
        if why.is_empty() { "nothing" } else { &why }
    )))
}

/// The caller's search path with the folders of administration tools.
fn path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

fn some(pipe: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    }
    kept
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("WARNING:"))
        .collect();
    lines.join("; ").chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_kept_and_its_failure_told() {
        assert_eq!(
            must("can't", "echo", "coreutils", &["a b"]).unwrap(),
            "a b\n"
        );
        let bad = must("can't list", "ls", "coreutils", &["/no/such/place"]).unwrap_err();
        assert!(bad.to_string().contains("/no/such/place"), "{bad}");
        let none = run("no-such-program-xyz", "some-package", &[""; 0]).unwrap_err();
        assert!(none.to_string().contains("some-package"), "{none}");
    }

    #[test]
    fn no_room_is_known_by_its_words() {
        let script = "echo 'Volume group \"x\" has insufficient free space (0 extents): 8 required.' >&2; exit 5";
        let full = must("can't", "sh", "dash", &["-c", script]).unwrap_err();
        assert!(matches!(full, DiskError::Full { .. }), "{full}");
    }
}
