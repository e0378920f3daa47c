//! A PostgreSQL of a test's own: started as an unprivileged user on a Unix socket in a temporary
//! directory, without a network port, and gone with the test.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take, also on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(180);
const USER: &str = "lyceum";

/// A server; dropping it ends it.
pub struct Postgres {
    programs: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
}

/// Debian keeps the server's programs out of the way, one directory per version; the newest counts.
fn programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, bin)| bin);
    newest.expect("PostgreSQL is needed: scripts/setup --test installs it")
}

/// Which user to run as: PostgreSQL refuses to be root.
fn nobody() -> Option<(u32, u32)> {
    let uid = |text: &str| {
        text.lines().find_map(|l| {
            l.strip_prefix("Uid:")?
                .split_whitespace()
                .next()?
                .parse::<u32>()
                .ok()
        })
    };
    let own = uid(&std::fs::read_to_string("/proc/self/status").expect("/proc"));
    (own == Some(0)).then_some((65534, 65534))
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // A directory that everybody may enter.
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

impl Postgres {
    /// Makes a cluster and starts its server.
    pub fn start() -> Postgres {
        let programs = programs();
        let user = nobody();
        let dir = tempfile::Builder::new()
            .prefix("lypg")
            .tempdir_in("/tmp")
            .expect("a directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).expect("rights");
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("chown");
        }
        let data = dir.path().join("data");
        let mut init = as_user(&programs.join("initdb"), user);
        init.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--username", USER, "-D"])
            .arg(&data);
        run(init).expect("initdb");
        let mut server = as_user(&programs.join("postgres"), user);
        server.arg("-D").arg(&data).arg("-k").arg(dir.path());
        for setting in [
            "listen_addresses=",
            // What a test writes need not survive a power cut.
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=16MB",
        ] {
            server.args(["-c", setting]);
        }
        let child = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres");
        Postgres {
            programs,
            child,
            dir,
        }
    }

    /// Makes an empty database, as soon as the server listens; returns its URL.
    pub fn database(&self, name: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut create = Command::new(self.programs.join("createdb"));
            create
                .arg("-h")
                .arg(self.dir.path())
                .args(["-U", USER, name]);
            match run(create) {
                Ok(()) => break,
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        format!(
            "postgres://{USER}@localhost/{name}?host={}",
            self.dir.path().display()
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once: what it keeps is thrown away. Its children notice and follow.
        let quit = Command::new("kill")
            .args(["-QUIT", &self.child.id().to_string()])
            .status();
        if !quit.is_ok_and(|s| s.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
