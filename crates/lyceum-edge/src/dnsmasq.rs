//! One dnsmasq per segment, each on its segment's bridge.

use crate::tool::{DNSMASQ, EdgeError, Machine, Result, io};
use lyceum_net::{Course, dnsmasq};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Child;

/// How long one that was asked to end may take.
const END_PATIENCE: Duration = Duration::from_secs(5);

struct Server {
    config: String,
    /// Files that it reads anew when told to.
    tables: (String, String),
    child: Child,
}

/// The servers of all segments, by their numbers.
pub(crate) struct Servers {
    machine: Machine,
    dir: PathBuf,
    running: BTreeMap<u32, Server>,
    /// What was asked for last.
    courses: Vec<Course>,
    upstreams: Vec<IpAddr>,
}

impl Servers {
    pub(crate) async fn new(machine: Machine, dir: &Path) -> Result<Servers> {
        // dnsmasq reads its files as a user of its own.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(io(format!("making {}", dir.display())))?;
        let servers = Servers {
            machine,
            dir: dir.to_owned(),
            running: BTreeMap::new(),
            courses: Vec::new(),
            upstreams: Vec::new(),
        };
        servers.end_left_over().await?;
        Ok(servers)
    }

    fn file(&self, segment: u32, kind: &str) -> PathBuf {
        self.dir.join(format!("{segment}.{kind}"))
    }

    /// Ends what a gateway left that was killed: whoever was started with a configuration of this directory.
    async fn end_left_over(&self) -> Result<()> {
        let mark = format!("--conf-file={}/", self.dir.display());
        let find = || -> Vec<Pid> {
            let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            all.filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                let mut args = line.split(|b| *b == 0);
                let program = args.next()?;
                let ours =
                    program.ends_with(b"dnsmasq") && args.any(|a| a.starts_with(mark.as_bytes()));
                ours.then_some(Pid::from_raw(pid))
            })
            .collect()
        };
        let until = tokio::time::Instant::now() + END_PATIENCE;
        loop {
            let found = find();
            if found.is_empty() {
                return Ok(());
            }
            let late = tokio::time::Instant::now() >= until;
            for pid in found {
                // It may have ended by now, which is what is wanted.
                let _ = kill(
                    pid,
                    if late {
                        Signal::SIGKILL
                    } else {
                        Signal::SIGTERM
                    },
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes these the servers that run.
    pub(crate) async fn apply(&mut self, courses: &[Course], upstreams: &[IpAddr]) -> Result<()> {
        self.courses = courses.to_vec();
        self.upstreams = upstreams.to_vec();
        let wanted: BTreeSet<u32> = courses.iter().map(|c| c.segment.number).collect();
        let gone: Vec<u32> = self
            .running
            .keys()
            .filter(|n| !wanted.contains(n))
            .copied()
            .collect();
        for number in gone {
            if let Some(server) = self.running.remove(&number) {
                end(server.child).await;
            }
            for kind in ["conf", "leases", "names"] {
                let _ = std::fs::remove_file(self.file(number, kind));
            }
        }
        for course in courses {
            self.serve(course, upstreams).await?;
        }
        Ok(())
    }

    async fn serve(&mut self, course: &Course, upstreams: &[IpAddr]) -> Result<()> {
        let number = course.segment.number;
        let (leases, names) = (self.file(number, "leases"), self.file(number, "names"));
        let config = dnsmasq::render(course, upstreams, &leases, &names);
        let tables = (dnsmasq::leases(course), dnsmasq::names(course));
        let write = |path: &Path, text: &str| {
            // In place: dnsmasq must find all of it or the old one.
            let new = path.with_extension("new");
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, path))
                .map_err(io(format!("writing {}", path.display())))
        };
        if let Some(server) = self.running.get_mut(&number) {
            let lives = matches!(server.child.try_wait(), Ok(None));
            if lives && server.config == config {
                if server.tables != tables {
                    write(&leases, &tables.0)?;
                    write(&names, &tables.1)?;
                    if let Some(pid) = server.child.id() {
                        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGHUP);
                    }
                    server.tables = tables;
                }
                return Ok(());
            }
        }
        if let Some(old) = self.running.remove(&number) {
            end(old.child).await;
        }
        let path = self.file(number, "conf");
        write(&path, &config)?;
        write(&leases, &tables.0)?;
        write(&names, &tables.1)?;
        let child = self.start(&path)?;
        self.running.insert(
            number,
            Server {
                config,
                tables,
                child,
            },
        );
        Ok(())
    }

    fn start(&self, config: &Path) -> Result<Child> {
        if !DNSMASQ.is_here() {
            return Err(DNSMASQ.missing());
        }
        let log = std::fs::File::create(config.with_extension("log"))
            .map_err(io("making the log of dnsmasq"))?;
        let errors = log.try_clone().map_err(io("making the log of dnsmasq"))?;
        self.machine
            .command(DNSMASQ.program)
            .arg("--keep-in-foreground")
            .arg("--log-facility=-")
            .arg("--pid-file=")
            .arg(format!("--conf-file={}", config.display()))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Desktops keep their addresses and names while the gateway's agent is away; the next one
            // ends these and starts its own.
            .kill_on_drop(false)
            .spawn()
            .map_err(io("starting dnsmasq"))
    }

    /// Starts those anew that ended, and says which.
    pub(crate) async fn repair(&mut self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for (number, server) in &mut self.running {
            let ended: std::result::Result<_, EdgeError> =
                server.child.try_wait().map_err(io("looking after dnsmasq"));
            if let Some(status) = ended? {
                let log = std::fs::read_to_string(self.dir.join(format!("{number}.log")));
                let last = log.unwrap_or_default();
                let last = last.lines().last().unwrap_or("it said nothing").to_owned();
                words.push(format!(
                    "dnsmasq of segment {number} had ended ({status}; {last})"
                ));
            }
        }
        if !words.is_empty() {
            let (courses, upstreams) = (self.courses.clone(), self.upstreams.clone());
            self.apply(&courses, &upstreams).await?;
        }
        Ok(words)
    }
}

async fn end(mut child: Child) {
    if let Some(pid) = child.id() {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    if tokio::time::timeout(END_PATIENCE, child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}
