//! From arguments to a process: the run directory, the open files, the start.
//!
//! ```text
//! RUN_DIR/            0700, the agent's
//!   request.json      what was asked for
//!   process           /proc/PID/stat as the process itself saw it before it became QEMU
//!   boot              boot id of the host
//!   running.json      once usable: how it became so
//!   qemu.log          its stdout and stderr
//!   qmp.sock guest.sock qga.sock
//!   incoming          device state of a machine that arrives or is resumed, until it is loaded
//!   witness.json      how the disk was when it was given up for a move
//!   q/                0700, QEMU's: vnc.sock, spice.sock, saved device state
//! ```

use crate::guest::Guest;
use crate::machine::{self, SavedNic, fd};
use crate::process::{Mark, Process, boot_id};
use crate::qmp::Qmp;
use crate::save::{as_migrated, read_device_state};
use crate::util::{io_error, last_lines, write_whole};
use lyceum_hypervisor::{HypervisorError, Nic, NicLink, StartFrom, StartRequest};
use lyceum_model::{Accelerator, Durability, Platform};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long QEMU may take to build the machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(60);

/// User and group that QEMU runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unprivileged {
    pub uid: u32,
    pub gid: u32,
}

/// The run directory of a machine.
#[derive(Debug, Clone)]
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    pub(crate) fn new(path: &Path) -> RunDir {
        RunDir(path.to_owned())
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    pub(crate) fn request(&self) -> PathBuf {
        self.0.join("request.json")
    }
    pub(crate) fn process(&self) -> PathBuf {
        self.0.join("process")
    }
    pub(crate) fn boot(&self) -> PathBuf {
        self.0.join("boot")
    }
    pub(crate) fn running(&self) -> PathBuf {
        self.0.join("running.json")
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("qemu.log")
    }
    /// Device state of a machine that arrives.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.0.join("incoming")
    }
    /// How the disk was when it was given up for a move.
    pub(crate) fn witness(&self) -> PathBuf {
        self.0.join("witness.json")
    }
    /// The directory that QEMU may write.
    pub(crate) fn own(&self) -> PathBuf {
        self.0.join("q")
    }

    /// Connects to a socket in the run directory, however long its path is: the
    /// address names the directory by an open descriptor.
    pub(crate) async fn connect(
        &self,
        dir: &Path,
        name: &str,
    ) -> Result<UnixStream, HypervisorError> {
        let what = || format!("connecting to {}", dir.join(name).display());
        let handle = open_dir(dir).map_err(io_error(what()))?;
        UnixStream::connect(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
            .await
            .map_err(io_error(what()))
    }

    /// A socket in QEMU's directory that QEMU may connect to.
    pub(crate) fn listen_for_qemu(
        &self,
        name: &str,
        user: Option<Unprivileged>,
    ) -> Result<tokio::net::UnixListener, HypervisorError> {
        let path = self.own().join(name);
        let what = || format!("making the socket {}", path.display());
        // Of an earlier attempt.
        let _ = fs::remove_file(&path);
        let handle = open_dir(&self.own()).map_err(io_error(what()))?;
        let listener =
            tokio::net::UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
                .map_err(io_error(what()))?;
        if let Some(user) = user {
            std::os::unix::fs::lchown(&path, Some(user.uid), Some(user.gid))
                .map_err(io_error(what()))?;
        }
        Ok(listener)
    }

    pub(crate) fn remove(&self) -> Result<(), HypervisorError> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io_error(format!("removing {}", self.0.display()))(e))
            }
            _ => Ok(()),
        }
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
}

/// A machine whose QEMU greeted.
pub(crate) struct Launched {
    pub process: Process,
    pub qmp: Qmp,
    pub guest: Guest,
    pub dir: RunDir,
}

/// Takes the descriptor numbers that QEMU is given out of use in this process. A
/// descriptor of the standard library's own, made while it starts a program, can then
/// never be one of them.
fn reserve_descriptors() -> Result<(), HypervisorError> {
    static RESERVED: OnceLock<Result<Vec<OwnedFd>, String>> = OnceLock::new();
    let reserve = || -> Result<Vec<OwnedFd>, String> {
        use std::os::fd::FromRawFd;
        let null = File::open("/dev/null").map_err(|e| format!("/dev/null: {e}"))?;
        let mut held = Vec::new();
        for number in fd::RANGE {
            // SAFETY: the descriptor is open; a new one comes back.
            let got = unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
            if got >= 0 {
                // SAFETY: made just now, owned by nobody else.
                held.push(unsafe { OwnedFd::from_raw_fd(got) });
            }
            if got != number {
                return Err(format!(
                    "file descriptor {number} is in use or above the limit (ulimit -n)"
                ));
            }
        }
        Ok(held)
    };
    match RESERVED.get_or_init(reserve) {
        Ok(_) => Ok(()),
        Err(e) => Err(HypervisorError::State(e.clone())),
    }
}

/// Files that QEMU is to inherit, with their numbers.
#[derive(Default)]
struct Inherited(Vec<(OwnedFd, RawFd)>);

impl Inherited {
    fn add(&mut self, file: impl Into<OwnedFd>, number: RawFd) {
        self.0.push((file.into(), number));
    }
}

/// Starts QEMU and waits until it greets. On an error nothing is left behind.
pub(crate) async fn launch(
    binary: &Path,
    platform: &Platform,
    user: Option<Unprivileged>,
    request: &StartRequest,
    saved_nic: Option<&SavedNic>,
    device_state: Option<&Path>,
) -> Result<Launched, HypervisorError> {
    reserve_descriptors()?;
    let dir = RunDir::new(&request.run_dir);
    create_run_dir(&dir, user)?;
    let started = start(
        binary,
        platform,
        user,
        request,
        saved_nic,
        device_state,
        &dir,
    )
    .await;
    match started {
        Ok(launched) => Ok(launched),
        Err(e) => {
            if let StartFrom::ColdForSeal { ram, .. } = &request.from {
                let _ = fs::remove_file(ram);
            }
            let _ = dir.remove();
            Err(e)
        }
    }
}

fn create_run_dir(dir: &RunDir, user: Option<Unprivileged>) -> Result<(), HypervisorError> {
    if dir.process().exists() {
        return Err(HypervisorError::State(format!(
            "there is a machine in {} already: end it first",
            dir.path().display()
        )));
    }
    let make = |path: &Path| {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .map_err(io_error(format!("making {}", path.display())))
    };
    make(dir.path())?;
    make(&dir.own())?;
    if let Some(user) = user {
        std::os::unix::fs::chown(dir.own(), Some(user.uid), Some(user.gid)).map_err(io_error(
            format!("giving {} to QEMU's user", dir.own().display()),
        ))?;
    }
    Ok(())
}

async fn start(
    binary: &Path,
    platform: &Platform,
    user: Option<Unprivileged>,
    request: &StartRequest,
    saved_nic: Option<&SavedNic>,
    device_state: Option<&Path>,
    dir: &RunDir,
) -> Result<Launched, HypervisorError> {
    let saved = |what: &Path, bytes: &[u8]| {
        write_whole(what, bytes).map_err(io_error(format!("writing {}", what.display())))
    };
    let text = serde_json::to_vec(request).map_err(|e| HypervisorError::State(e.to_string()))?;
    saved(&dir.request(), &text)?;
    saved(&dir.boot(), boot_id().as_bytes())?;

    let incoming = dir.incoming();
    let device_state = match &request.from {
        // Filled in when it has come.
        StartFrom::Arrive { sealed: Some(_) } => {
            saved(&incoming, b"")?;
            Some(incoming.as_path())
        }
        StartFrom::Resume { .. } | StartFrom::HandOut { .. } => {
            if let Some(from) = device_state {
                let state = read_device_state(from)?;
                saved(&incoming, &as_migrated(state, &platform.machine_type))?;
            }
            Some(incoming.as_path())
        }
        _ => device_state,
    };
    let mut inherited = open_files(user, request, device_state)?;
    let own = open_dir(&dir.own()).map_err(io_error("opening the run directory"))?;
    inherited.add(own, fd::DIR);
    for (name, number) in [
        ("qmp.sock", fd::QMP),
        ("guest.sock", fd::GUEST),
        ("qga.sock", fd::QGA),
    ] {
        inherited.add(listen(dir, name)?, number);
    }
    // Connected before QEMU is there: nobody has to look for when it is.
    let qmp = dir.connect(dir.path(), "qmp.sock").await?;
    let guest = dir.connect(dir.path(), "guest.sock").await?;

    let args = machine::arguments(platform, request, saved_nic);
    spawn(binary, platform, &args, dir, user, &inherited)?;
    drop(inherited);
    let process = read_mark(dir)?
        .map(Process::open)
        .transpose()?
        .flatten()
        .ok_or_else(|| {
            HypervisorError::State(format!("QEMU ended at once: {}", last_lines(&dir.log())))
        })?;
    match tokio::time::timeout(BUILD_PATIENCE, Qmp::greet(qmp)).await {
        Ok(Ok(qmp)) => Ok(Launched {
            process,
            qmp,
            guest: Guest::new(guest),
            dir: dir.clone(),
        }),
        Ok(Err(e)) => {
            process.kill().await?;
            let log = last_lines(&dir.log());
            Err(if log.is_empty() {
                e
            } else {
                HypervisorError::State(format!("QEMU could not start: {log}"))
            })
        }
        Err(_) => {
            process.kill().await?;
            Err(HypervisorError::Timeout {
                what: "QEMU's start".into(),
                seconds: BUILD_PATIENCE.as_secs(),
            })
        }
    }
}

/// The mark in the run directory; `None` when no process was started in it, or
/// before the host was booted last.
pub(crate) fn read_mark(dir: &RunDir) -> Result<Option<Mark>, HypervisorError> {
    let read = |path: PathBuf| match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(path.display().to_string())(e)),
    };
    let (Some(boot), Some(stat)) = (read(dir.boot())?, read(dir.process())?) else {
        return Ok(None);
    };
    if boot != boot_id() {
        return Ok(None);
    }
    Ok(Mark::parse(&stat))
}

fn listen(dir: &RunDir, name: &str) -> Result<OwnedFd, HypervisorError> {
    let what = || format!("making the socket {}", dir.path().join(name).display());
    let handle = open_dir(dir.path()).map_err(io_error(what()))?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
        .map_err(io_error(what()))?;
    Ok(listener.into())
}

fn open(path: &Path, options: &fs::OpenOptions) -> Result<File, HypervisorError> {
    let file = options
        .open(path)
        .map_err(io_error(format!("opening {}", path.display())))?;
    Ok(file)
}

fn open_files(
    user: Option<Unprivileged>,
    request: &StartRequest,
    device_state: Option<&Path>,
) -> Result<Inherited, HypervisorError> {
    let mut inherited = Inherited::default();
    let mut read_only = File::options();
    read_only
        .read(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    let disk = &request.disk;
    if let Some(base) = &disk.base {
        inherited.add(open(base, &read_only)?, fd::BASE);
    }
    let mut writable = File::options();
    // QEMU compares the flags of the descriptor with the node's cache mode.
    let direct = match disk.durability {
        Durability::Safe => libc::O_DIRECT,
        Durability::Throwaway => 0,
    };
    writable.read(true).write(true).custom_flags(direct);
    let top = open(&disk.top, &writable)?;
    // A machine that arrives takes the lock when it takes over.
    if !matches!(request.from, StartFrom::Arrive { .. }) {
        lock(&top, &disk.top)?;
    }
    inherited.add(top, fd::TOP);
    if let Some(cdrom) = &disk.cdrom {
        inherited.add(open(cdrom, &read_only)?, fd::CDROM);
    }
    if let Some(Nic {
        link: NicLink::Tap { name, .. },
        ..
    }) = &request.nic
    {
        inherited.add(crate::tap::open(name)?, fd::TAP);
    }
    if let Some(state) = device_state {
        let mut plain = File::options();
        inherited.add(open(state, plain.read(true))?, fd::STATE);
    }
    match &request.from {
        StartFrom::Cold | StartFrom::Arrive { sealed: None } => {}
        StartFrom::Fork { sealed }
        | StartFrom::Resume { sealed, .. }
        | StartFrom::HandOut { sealed, .. }
        | StartFrom::Arrive {
            sealed: Some(sealed),
        } => {
            inherited.add(open_ram(&sealed.ram, user, request)?, fd::RAM);
        }
        StartFrom::ColdForSeal { ram, .. } => {
            let mut new = File::options();
            new.read(true).write(true).create_new(true).mode(0o644);
            let file = open(ram, &new)?;
            let what = || format!("making {}", ram.display());
            file.set_len(u64::from(request.size.memory_mib) << 20)
                .map_err(io_error(what()))?;
            if let Some(user) = user {
                // QEMU opens it a second time, by its descriptor, and must be allowed to.
                std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))
                    .map_err(io_error(what()))?;
            }
            inherited.add(file, fd::RAM);
        }
    }
    Ok(inherited)
}

/// A byte of the disk's file that is locked for as long as a machine has it open. QEMU's own
/// locks are bytes 100 to 203.
const LOCK_BYTE: i64 = 300;

/// One machine per disk. A QEMU that waits for device state takes its own image locks only when
/// it goes on; this lock is held from before it is started. It belongs to the open file, which
/// QEMU inherits: it ends with that QEMU, neither sooner nor later.
fn lock(top: &File, path: &Path) -> Result<(), HypervisorError> {
    match try_lock(top, path)? {
        true => Ok(()),
        false => Err(HypervisorError::State(format!(
            "the disk {} is locked by another machine: end that one first",
            path.display()
        ))),
    }
}

/// Whether the lock is held now by whoever has `top` open.
pub(crate) fn try_lock(top: &impl AsRawFd, path: &Path) -> Result<bool, HypervisorError> {
    set_lock(top, path, libc::F_WRLCK)
}

/// Lets the lock go.
pub(crate) fn unlock(top: &impl AsRawFd, path: &Path) -> Result<(), HypervisorError> {
    set_lock(top, path, libc::F_UNLCK).map(drop)
}

fn set_lock(top: &impl AsRawFd, path: &Path, kind: libc::c_int) -> Result<bool, HypervisorError> {
    // SAFETY: plain old data, for which all zero is a valid value.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    (range.l_start, range.l_len) = (LOCK_BYTE, 1);
    // SAFETY: the descriptor is open and `range` valid for the call.
    if unsafe { libc::fcntl(top.as_raw_fd(), libc::F_OFD_SETLK, &range) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(io_error(format!("locking {}", path.display()))(error)),
    }
}

/// A release's RAM file is opened a second time by QEMU, read-only, so its user must be able to read it.
fn open_ram(
    path: &Path,
    user: Option<Unprivileged>,
    request: &StartRequest,
) -> Result<File, HypervisorError> {
    let mut options = File::options();
    let file = open(path, options.read(true))?;
    let meta = file
        .metadata()
        .map_err(io_error(path.display().to_string()))?;
    let expected = u64::from(request.size.memory_mib) << 20;
    if meta.len() != expected {
        return Err(HypervisorError::State(format!(
            "{} is {} bytes long, the machine's memory {expected}: the release is damaged or of another size",
            path.display(),
            meta.len()
        )));
    }
    let readable = |u: Unprivileged| {
        meta.mode() & 0o004 != 0 || (meta.uid() == u.uid && meta.mode() & 0o400 != 0)
    };
    if user.is_some_and(|u| !readable(u)) {
        return Err(HypervisorError::State(format!(
            "QEMU's user may not read {}: make it readable for all (chmod a+r)",
            path.display()
        )));
    }
    Ok(file)
}

fn spawn(
    binary: &Path,
    platform: &Platform,
    args: &[String],
    dir: &RunDir,
    user: Option<Unprivileged>,
    inherited: &Inherited,
) -> Result<(), HypervisorError> {
    let log = File::create(dir.log()).map_err(io_error("making qemu.log"))?;
    let both = log.try_clone().map_err(io_error("making qemu.log"))?;
    let mark = File::create_new(dir.process()).map_err(io_error("making the process file"))?;
    let mark = OwnedFd::from(mark);
    let numbers: Vec<(RawFd, RawFd)> = inherited
        .0
        .iter()
        .map(|(from, to)| (from.as_raw_fd(), *to))
        .collect();
    let mark_fd = mark.as_raw_fd();
    // In software emulation huge pages only pad translated code and video memory: 6 MiB per
    // desktop, without being faster (measured). KVM's guests without sealed memory gain from them.
    let small_pages = platform.accelerator != Accelerator::Kvm;
    let mut command = Command::new(binary);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(both)
        .env_clear();
    for name in ["PATH", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // SAFETY: only system calls between fork and exec, on memory that was set up before.
    unsafe {
        command.pre_exec(move || become_qemu(mark_fd, small_pages, &numbers, user));
    }
    // Not waited for here: the pidfd tells when it ends.
    command.spawn().map(drop).map_err(io_error(format!(
        "starting {} (is the package qemu-system-x86 installed?)",
        binary.display()
    )))
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs in the child, after fork and before exec: nothing but system calls.
fn become_qemu(
    mark: RawFd,
    small_pages: bool,
    numbers: &[(RawFd, RawFd)],
    user: Option<Unprivileged>,
) -> io::Result<()> {
    // SAFETY: system calls on descriptors and a buffer that live through the calls.
    unsafe {
        // A session of its own: it outlives the agent and its terminal.
        check(libc::setsid().into())?;
        libc::umask(0o077);
        if small_pages {
            libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        }
        // The mark of this process is in the run directory before it becomes QEMU: however
        // the agent ends, the next one finds it.
        let stat = libc::open(
            c"/proc/self/stat".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        check(stat.into())?;
        let mut buffer = [0u8; 1024];
        let length = libc::read(stat, buffer.as_mut_ptr().cast(), buffer.len());
        check(length as libc::c_long)?;
        check(libc::write(mark, buffer.as_ptr().cast(), length as usize) as libc::c_long)?;
        for (from, to) in numbers {
            check(libc::dup2(*from, *to).into())?;
        }
        match user {
            Some(user) => {
                check(libc::setgroups(0, std::ptr::null()).into())?;
                check(libc::setresgid(user.gid, user.gid, user.gid).into())?;
                check(libc::setresuid(user.uid, user.uid, user.uid).into())?;
            }
            None => {
                // An agent that was started anew isn't the parent any more, and may read the
                // memory of its own user's machines all the same.
                libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0);
            }
        }
    }
    Ok(())
}
