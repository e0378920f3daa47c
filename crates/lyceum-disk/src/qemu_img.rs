//! Calls of `qemu-img`.
//!
//! On this program's own files it runs as it is. On an upload it runs in the [sandbox](crate::sandbox),
//! with the format named, a backing file forbidden, and everything it prints taken as hostile.

use crate::error::DiskError;
use crate::inspect::ImageFormat;
use crate::sandbox::{Budget, IMAGE, Sandbox, cannot_start};
use crate::{Cancel, inspect};
use serde::Deserialize;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How much of a program's output is kept.
const MAX_OUTPUT: usize = 256 << 10;
/// How often cancel and free space are looked at while a program runs.
const LOOK: Duration = Duration::from_millis(200);

/// The program.
#[derive(Debug, Clone)]
pub struct QemuImg {
    program: PathBuf,
}

/// What `qemu-img info` says, the part that is compared.
#[derive(Debug, Deserialize)]
pub struct Info {
    /// Size as the guest sees it.
    #[serde(rename = "virtual-size")]
    pub virtual_bytes: u64,
    /// Driver.
    pub format: String,
    /// Must be absent.
    #[serde(rename = "backing-filename")]
    pub backing: Option<String>,
    /// Must be absent.
    #[serde(default)]
    pub encrypted: bool,
}

#[derive(Debug, Deserialize)]
struct CheckResult {
    #[serde(default)]
    corruptions: u64,
    #[serde(default, rename = "check-errors")]
    errors: u64,
}

/// What accompanies a run of the program.
pub struct Run<'a> {
    /// Ends it.
    pub cancel: &'a Cancel,
    /// Is told how far it is, in percent.
    pub progress: &'a mut dyn FnMut(f64),
    /// Is asked now and then, and may end it with [`DiskError::Full`].
    pub space: &'a mut dyn FnMut() -> Result<(), DiskError>,
}

impl<'a> Run<'a> {
    /// Only cancel matters.
    fn quiet(cancel: &'a Cancel) -> Self {
        // Neither closure captures anything, so the boxes take no memory.
        Run {
            cancel,
            progress: Box::leak(Box::new(|_| {})),
            space: Box::leak(Box::new(|| Ok(()))),
        }
    }
}

/// How a run of a program went.
struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

impl QemuImg {
    /// A path or a name in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        QemuImg {
            program: program.into(),
        }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it on this program's own files.
    pub fn trusted(&self, arguments: &[OsString]) -> Result<(), DiskError> {
        self.cancellable(arguments, &Cancel::new())
    }

    /// The same for work that may take long.
    pub fn cancellable(&self, arguments: &[OsString], cancel: &Cancel) -> Result<(), DiskError> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| {
            DiskError::Tool(format!(
                "can't run {}: {e}. Install it (Debian: qemu-utils)",
                self.program.display()
            ))
        })?;
        let done = watch(child, &mut Run::quiet(cancel))?;
        if done.status.success() {
            return Ok(());
        }
        if done.stderr.contains("No space left on device") {
            return Err(DiskError::Full {
                what: "can't write a disk".into(),
            });
        }
        Err(DiskError::Tool(format!(
            "{} {} failed: {}. The tier's file system may be the cause: look at the system's log",
            self.program.display(),
            arguments
                .first()
                .map(|a| a.to_string_lossy())
                .unwrap_or_default(),
            done.stderr
        )))
    }

    /// `info` on an upload.
    pub fn info(
        &self,
        sandbox: &Sandbox,
        image: &Path,
        format: ImageFormat,
        cancel: &Cancel,
    ) -> Result<Info, DiskError> {
        let arguments = ["info".into(), "--output=json".into(), node(format).into()];
        let done = self.in_sandbox(sandbox, &arguments, image, 0, cancel)?;
        if !done.status.success() {
            return Err(self.failed("can't be read", &done));
        }
        serde_json::from_slice(&done.stdout).map_err(|e| {
            DiskError::Refused(format!(
                "the image can't be read: qemu-img says something unexpected ({e}). {}.",
                inspect::AGAIN
            ))
        })
    }

    /// `check` on an upload or on a converted image in the sandbox's hands; what it finds is
    /// a refusal. Formats that can't be checked pass.
    pub fn check(
        &self,
        sandbox: &Sandbox,
        image: &Path,
        format: ImageFormat,
        cancel: &Cancel,
    ) -> Result<(), DiskError> {
        if matches!(format, ImageFormat::Raw | ImageFormat::Iso) {
            return Ok(());
        }
        let arguments = ["check".into(), "--output=json".into(), node(format).into()];
        let done = self.in_sandbox(sandbox, &arguments, image, 0, cancel)?;
        // 0 good, 2 corrupt, 3 lost clusters only, 63 can't be checked.
        let found: Option<CheckResult> = serde_json::from_slice(&done.stdout).ok();
        match (done.status.code(), found) {
            (Some(63), _) => Ok(()),
            (Some(0 | 3), Some(found)) if found.corruptions == 0 && found.errors == 0 => Ok(()),
            (Some(2), Some(found)) => Err(DiskError::Refused(format!(
                "the image is damaged: qemu-img check finds {} corruptions and {} errors. {}.",
                found.corruptions,
                found.errors,
                inspect::AGAIN
            ))),
            _ => Err(self.failed("can't be checked", &done)),
        }
    }

    /// `convert` of an upload to `disk.qcow2` in the sandbox's output folder.
    pub fn convert(
        &self,
        sandbox: &Sandbox,
        image: &Path,
        format: ImageFormat,
        virtual_bytes: u64,
        run: &mut Run<'_>,
    ) -> Result<(), DiskError> {
        let arguments: Vec<OsString> = vec![
            "convert".into(),
            "-p".into(),
            "-O".into(),
            "qcow2".into(),
            "-o".into(),
            crate::qcow2::STANDALONE_OPTIONS.into(),
            node(format).into(),
            CONVERTED.into(),
        ];
        // Data and its tables: L2 entries take 1/8192, refcounts 1/32768.
        let file_bytes = virtual_bytes
            .saturating_add(virtual_bytes / 64)
            .saturating_add(64 << 20);
        let budget = budget(file_bytes, virtual_bytes);
        let child = sandbox
            .command(&self.program, &arguments, Some(image), budget)?
            .spawn()
            .map_err(|e| cannot_start(&self.program, &e))?;
        let done = watch(child, run)?;
        if done.status.success() {
            Ok(())
        } else {
            Err(self.failed("can't be converted", &done))
        }
    }

    fn in_sandbox(
        &self,
        sandbox: &Sandbox,
        arguments: &[OsString],
        image: &Path,
        file_bytes: u64,
        cancel: &Cancel,
    ) -> Result<Finished, DiskError> {
        let length = std::fs::metadata(image).map(|m| m.len()).unwrap_or(0);
        let child = sandbox
            .command(
                &self.program,
                arguments,
                Some(image),
                budget(file_bytes, length),
            )?
            .spawn()
            .map_err(|e| cannot_start(&self.program, &e))?;
        watch(child, &mut Run::quiet(cancel))
    }

    fn failed(&self, what: &str, done: &Finished) -> DiskError {
        use std::os::unix::process::ExitStatusExt;
        if done.stderr.contains("No space left on device") {
            return DiskError::Full {
                what: "can't convert the image".into(),
            };
        }
        let why = match done.status.signal() {
            Some(nix::libc::SIGXCPU | nix::libc::SIGKILL) => {
                "qemu-img took more CPU time than such an image needs".into()
            }
            Some(nix::libc::SIGXFSZ) => "it would become larger than its header says".into(),
            Some(signal) => format!("qemu-img was ended by signal {signal}"),
            // The message is made from hostile input; the page shows it as text.
            None => done.stderr.replace("qemu-img: ", ""),
        };
        DiskError::Refused(format!(
            "the image {what}: {}. Export the image again and check that the copy is complete.",
            why.trim().trim_end_matches('.')
        ))
    }
}

/// Name of the converted image in the sandbox's output folder.
pub const CONVERTED: &str = "disk.qcow2";

/// The image as a QEMU block node whose format is fixed and which has no backing file,
/// whatever its header says.
fn node(format: ImageFormat) -> String {
    format!(
        r#"json:{{"driver":"{format}","read-only":true,"backing":null,"file":{{"driver":"file","filename":"{IMAGE}"}}}}"#
    )
}

fn budget(file_bytes: u64, work_bytes: u64) -> Budget {
    Budget {
        memory_bytes: 4 << 30,
        // 5 MB of CPU work per second is far slower than any machine in use.
        cpu_seconds: 300 + work_bytes / 5_000_000,
        file_bytes,
    }
}

enum Heard {
    Percent(f64),
    Out(Vec<u8>),
    Err(Vec<u8>),
}

/// Waits for a child while listening to it. The thread that calls this is the one that
/// spawned the child, because the child is killed when that thread ends.
fn watch(mut child: Child, run: &mut Run<'_>) -> Result<Finished, DiskError> {
    let (sender, heard) = channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let outcome = std::thread::scope(|scope| {
        let errors = sender.clone();
        if let Some(out) = stdout {
            scope.spawn(move || listen_out(out, &sender));
        } else {
            drop(sender);
        }
        if let Some(err) = stderr {
            scope.spawn(move || {
                let _ = errors.send(Heard::Err(read_some(err)));
            });
        } else {
            drop(errors);
        }
        let outcome = listen(&heard, run);
        if outcome.is_err() {
            // Its pipes close with it, so the readers end.
            let _ = child.kill();
        }
        outcome
    });
    let status = child
        .wait()
        .map_err(|e| DiskError::Tool(format!("can't wait for qemu-img: {e}")))?;
    let (stdout, stderr) = outcome?;
    let stderr = String::from_utf8_lossy(&stderr);
    let stderr: String = stderr.trim().chars().take(600).collect();
    Ok(Finished {
        status,
        stdout,
        stderr,
    })
}

/// Until both pipes are closed.
fn listen(heard: &Receiver<Heard>, run: &mut Run<'_>) -> Result<(Vec<u8>, Vec<u8>), DiskError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        run.cancel.check()?;
        match heard.recv_timeout(LOOK) {
            Ok(Heard::Percent(percent)) => {
                (run.progress)(percent);
                (run.space)()?;
            }
            Ok(Heard::Out(bytes)) => out = bytes,
            Ok(Heard::Err(bytes)) => err = bytes,
            Err(RecvTimeoutError::Timeout) => (run.space)()?,
            Err(RecvTimeoutError::Disconnected) => return Ok((out, err)),
        }
    }
}

fn listen_out(mut out: impl Read, sender: &Sender<Heard>) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match out.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if let Some(percent) = last_percent(&buffer[..n]) {
                    let _ = sender.send(Heard::Percent(percent));
                }
                let room = MAX_OUTPUT.saturating_sub(all.len());
                all.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = sender.send(Heard::Out(all));
}

fn read_some(mut pipe: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = pipe.by_ref().take(MAX_OUTPUT as u64).read_to_end(&mut kept);
    // The rest is read and dropped, so that the program does not stand still.
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    kept
}

/// The last `(12.34/100%)` in a piece of output.
fn last_percent(piece: &[u8]) -> Option<f64> {
    let text = String::from_utf8_lossy(piece);
    let (before, _) = text.rsplit_once("/100%)")?;
    let (_, number) = before.rsplit_once('(')?;
    let percent: f64 = number.trim().parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_qemu_img_prints_it() {
        assert_eq!(
            last_percent(b"    (0.00/100%)\r    (37.50/100%)\r"),
            Some(37.5)
        );
        assert_eq!(last_percent(b"    (100.00/100%)\r\n"), Some(100.0));
        for odd in [&b""[..], b"/100%)", b"(nan/100%)", b"(-3/100%)", b"(12"] {
            assert_eq!(last_percent(odd), None, "{odd:?}");
        }
    }
}
