//! A place to run `qemu-img` on bytes that strangers made, where there is nothing to steal.
//!
//! The header checks of [`crate::inspect`] keep QEMU from being *asked* to read a file of
//! the host. This is for the day when QEMU's parsers have a hole: the process sees a file
//! system that consists of the programs and libraries of the machine (read-only), the image
//! (read-only) and one empty folder to write to; it has no network, no privileges and no
//! way to gain any, and limits on memory, CPU time and file size.
//!
//! Root makes the namespaces itself and becomes [`UNPRIVILEGED`]; anybody else gets them
//! through a user namespace. Where neither is allowed nothing is run: [`probe`] says so.

use crate::error::{Context, DiskError};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// User and group that a sandboxed process of root becomes. The number belongs to nobody:
/// systemd's list of user ids names it as unused.
pub const UNPRIVILEGED: u32 = 61_100;

/// The image as the sandboxed process sees it.
pub const IMAGE: &str = "/image";
/// The folder it may write to, and where it starts.
pub const OUT: &str = "/out";

/// What the process may use at most.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Address space, bytes.
    pub memory_bytes: u64,
    /// CPU time, seconds.
    pub cpu_seconds: u64,
    /// Length of a file it writes, bytes.
    pub file_bytes: u64,
}

/// A prepared place for one process; its folders go away with it.
#[derive(Debug)]
pub struct Sandbox {
    work: crate::files::TempPath,
}

/// Everything the child needs between fork and exec, made before the fork: in a child of
/// a process with threads, memory must not be allocated.
struct Plan {
    root: CString,
    binds: Vec<Bind>,
    links: Vec<(CString, CString)>,
    folders: Vec<CString>,
    image_file: CString,
    limits: Vec<(Resource, u64)>,
    user_namespace: Option<UserMap>,
}

struct Bind {
    from: CString,
    to: CString,
    read_only: bool,
}

struct UserMap {
    uid: Vec<u8>,
    gid: Vec<u8>,
}

fn c(path: impl AsRef<Path>) -> Result<CString, DiskError> {
    CString::new(path.as_ref().as_os_str().as_bytes())
        .map_err(|_| DiskError::Invalid("a path holds a zero byte".into()))
}

impl Sandbox {
    /// Makes the folders in `folder`, which is on the file system where the result shall be.
    pub fn new(folder: &Path) -> Result<Self, DiskError> {
        let work = crate::files::TempPath::folder_in(folder)?;
        for name in ["root", "out"] {
            let path = work.path().join(name);
            fs::create_dir(&path).on("can't make the folder", &path)?;
        }
        if Uid::effective().is_root() {
            let out = work.path().join("out");
            std::os::unix::fs::chown(&out, Some(UNPRIVILEGED), Some(UNPRIVILEGED))
                .on("can't change the owner of", &out)?;
        }
        Ok(Sandbox { work })
    }

    /// Where the process's output is from outside. What is there was made by a process
    /// that may be in a stranger's hands: open it without following links.
    pub fn out(&self) -> PathBuf {
        self.work.path().join("out")
    }

    /// A command for `program` with `image` (if any) at [`IMAGE`]. The image file must be
    /// readable for everybody; its folder need not be. stdin is empty, stdout and stderr are pipes.
    pub fn command(
        &self,
        program: &Path,
        arguments: &[OsString],
        image: Option<&Path>,
        budget: Budget,
    ) -> Result<Command, DiskError> {
        let plan = self.plan(image, budget)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/local/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: `enter` makes system calls only, with memory that was allocated before the fork.
        unsafe {
            command.pre_exec(move || plan.enter().map_err(std::io::Error::from));
        }
        Ok(command)
    }

    fn plan(&self, image: Option<&Path>, budget: Budget) -> Result<Plan, DiskError> {
        let root = self.work.path().join("root");
        let at = |inside: &str| root.join(inside.trim_start_matches('/'));
        let (mut binds, mut links, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        for name in [
            "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/nix", "/gnu",
        ] {
            let Ok(meta) = fs::symlink_metadata(name) else {
                continue;
            };
            if meta.is_symlink() {
                let target = fs::read_link(name).on("can't read the link", Path::new(name))?;
                links.push((c(target)?, c(at(name))?));
            } else if meta.is_dir() {
                folders.push(c(at(name))?);
                binds.push(Bind {
                    from: c(name)?,
                    to: c(at(name))?,
                    read_only: true,
                });
            }
        }
        folders.push(c(at(OUT))?);
        binds.push(Bind {
            from: c(self.out())?,
            to: c(at(OUT))?,
            read_only: false,
        });
        if let Some(image) = image {
            let image = fs::canonicalize(image).on("can't find", image)?;
            binds.push(Bind {
                from: c(image)?,
                to: c(at(IMAGE))?,
                read_only: true,
            });
        }
        let (uid, gid) = (Uid::effective(), Gid::effective());
        Ok(Plan {
            image_file: c(at(IMAGE))?,
            root: c(&root)?,
            binds,
            links,
            folders,
            limits: vec![
                (Resource::RLIMIT_AS, budget.memory_bytes),
                (Resource::RLIMIT_CPU, budget.cpu_seconds),
                (Resource::RLIMIT_FSIZE, budget.file_bytes),
                (Resource::RLIMIT_CORE, 0),
                (Resource::RLIMIT_NOFILE, 64),
            ],
            user_namespace: (!uid.is_root()).then(|| UserMap {
                uid: format!("{uid} {uid} 1").into_bytes(),
                gid: format!("{gid} {gid} 1").into_bytes(),
            }),
        })
    }
}

const NONE: Option<&CStr> = None;

impl Plan {
    /// Runs in the child between fork and exec. Allocates nothing.
    fn enter(&self) -> Result<(), Errno> {
        let mut spaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        if self.user_namespace.is_some() {
            spaces |= CloneFlags::CLONE_NEWUSER;
        }
        unshare(spaces)?;
        if let Some(map) = &self.user_namespace {
            write(c"/proc/self/setgroups", b"deny")?;
            write(c"/proc/self/uid_map", &map.uid)?;
            write(c"/proc/self/gid_map", &map.gid)?;
        }
        self.mounts()?;
        nix::unistd::chroot(self.root.as_c_str())?;
        nix::unistd::chdir(c"/out")?;
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit, *limit)?;
        }
        if self.user_namespace.is_none() {
            nix::unistd::setgroups(&[])?;
            nix::unistd::setgid(Gid::from_raw(UNPRIVILEGED))?;
            nix::unistd::setuid(Uid::from_raw(UNPRIVILEGED))?;
        }
        // SAFETY: prctl with these options takes numbers only. The signal comes last,
        // because a change of user takes it back.
        unsafe {
            Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        }
        Ok(())
    }

    fn mounts(&self) -> Result<(), Errno> {
        let own = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, c"/", NONE, own, NONE)?;
        let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let root = self.root.as_c_str();
        mount(
            Some(c"tmpfs"),
            root,
            Some(c"tmpfs"),
            strict,
            Some(c"size=64k,mode=0755"),
        )?;
        for folder in &self.folders {
            nix::unistd::mkdir(folder.as_c_str(), Mode::from_bits_truncate(0o755))?;
        }
        for (target, link) in &self.links {
            nix::unistd::symlinkat(target.as_c_str(), nix::fcntl::AT_FDCWD, link.as_c_str())?;
        }
        touch(&self.image_file)?;
        for bind in &self.binds {
            let (from, to) = (bind.from.as_c_str(), bind.to.as_c_str());
            mount(
                Some(from),
                to,
                NONE,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                NONE,
            )?;
            if bind.read_only {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | strict;
                match mount(NONE, to, NONE, flags, NONE) {
                    // In a user namespace flags of the outer mount may be locked; there
                    // the process has no more rights on these files than its user anyway.
                    Err(Errno::EPERM) if self.user_namespace.is_some() => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

fn touch(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the string ends with a zero byte; the descriptor is closed once.
    unsafe {
        let fd = Errno::result(libc::open(
            path.as_ptr(),
            libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC,
            0o444,
        ))?;
        libc::close(fd);
    }
    Ok(())
}

fn write(path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the string ends with a zero byte, the length is the slice's, and the
    // descriptor is closed once.
    unsafe {
        let fd = Errno::result(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        let done = Errno::result(libc::write(fd, bytes.as_ptr().cast(), bytes.len()));
        libc::close(fd);
        done.map(drop)
    }
}

/// Why a sandboxed process could not be started, and what to do.
pub fn cannot_start(program: &Path, error: &std::io::Error) -> DiskError {
    DiskError::Tool(format!(
        "can't run {} in isolation: {error}. Images are only imported where that works: run the storage agent as root, or allow user namespaces to its user, and check that the program is installed (Debian: qemu-utils)",
        program.display()
    ))
}

/// Tries the sandbox with a harmless call, so that the agent can say at its start, and not
/// at the first upload, that images can't be imported here. Answers the version of `qemu-img`.
pub fn probe(folder: &Path, qemu_img: &Path) -> Result<String, DiskError> {
    let sandbox = Sandbox::new(folder)?;
    let budget = Budget {
        memory_bytes: 4 << 30,
        cpu_seconds: 10,
        file_bytes: 0,
    };
    let output = sandbox
        .command(qemu_img, &["--version".into()], None, budget)?
        .output()
        .map_err(|e| cannot_start(qemu_img, &e))?;
    if !output.status.success() {
        return Err(DiskError::Tool(format!(
            "{} --version fails in isolation: {}. Install it under /usr (Debian: qemu-utils)",
            qemu_img.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
