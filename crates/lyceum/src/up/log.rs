//! The logs of the parts: everything into a file, warnings and worse to the terminal as well.

use crate::table::plain;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A log is begun anew when it is larger than this; the former one is kept as `NAME.1`.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The log of one part. Clones write to the same file.
#[derive(Clone)]
pub struct PartLog {
    name: String,
    file: Arc<Mutex<Opened>>,
}

struct Opened {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Opened {
    fn open(path: &Path) -> std::io::Result<Opened> {
        let file = File::options().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Opened {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.bytes > LARGEST {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = Opened::open(&self.path.clone())?;
        }
        self.bytes += line.len() as u64 + 1;
        writeln!(self.file, "{line}")
    }
}

/// Whether a person should see the line: a warning, an error, or something that is not in the
/// form of a log at all (a panic, words of a library).
fn matters(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let is_time =
        |word: &str| word.len() >= 20 && word.as_bytes()[0].is_ascii_digit() && word.contains('T');
    match (words.next(), words.next()) {
        (Some(time), Some("TRACE" | "DEBUG" | "INFO")) if is_time(time) => false,
        (Some(_), _) => true,
        (None, _) => false,
    }
}

/// The line without its time, which the terminal's reader knows.
fn short(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.len() >= 20 && time.contains('T') => rest.trim_start(),
        _ => line,
    }
}

impl PartLog {
    /// Opens the file to append to it.
    pub fn open(name: &str, path: &Path) -> std::io::Result<PartLog> {
        Ok(PartLog {
            name: name.to_owned(),
            file: Arc::new(Mutex::new(Opened::open(path)?)),
        })
    }

    /// A line that the part said.
    pub fn line(&self, line: &str) {
        self.keep(line);
        if matters(line) {
            eprintln!("{:<10} {}", self.name, plain(short(line)));
        }
    }

    /// A line about the part, for the log and the terminal.
    pub fn tell(&self, text: &str) {
        self.keep(&format!(
            "{} WARN lyceum::up: {text}",
            jiff::Timestamp::now()
        ));
        eprintln!("{:<10} {}", self.name, plain(text));
    }

    fn keep(&self, line: &str) {
        // A log that can't be written must not end the classroom.
        let _ = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_goes_to_the_terminal() {
        let time = "2026-01-02T03:04:05.123456Z";
        assert!(!matters(&format!("{time}  INFO lyceum_host: joined")));
        assert!(!matters(""));
        assert!(matters(&format!("{time}  WARN lyceum_host: no KVM")));
        assert!(matters(&format!("{time} ERROR lyceum_host: no QEMU")));
        assert!(matters("thread 'main' panicked at src/main.rs"));
        assert_eq!(short(&format!("{time}  WARN x: y")), "WARN x: y");
        assert_eq!(short("thread 'main' panicked"), "thread 'main' panicked");
    }

    #[test]
    fn a_log_that_grew_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let log = PartLog::open("a", &path).unwrap();
        let line = "2026-01-02T03:04:05.123456Z  INFO ".to_owned() + &"x".repeat(1 << 20);
        for _ in 0..18 {
            log.line(&line);
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 4 << 20);
        assert!(dir.path().join("a.log.1").exists());
    }
}
