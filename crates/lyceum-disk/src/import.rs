//! From an upload to a disk: inspect, read with QEMU in isolation, convert, check the
//! result as if it were another upload.

use crate::error::{Context, DiskError};
use crate::files::{create_new, sync_folder};
use crate::inspect::{ImageFormat, Inspected, Limits, inspect, qcow2_facts};
use crate::qemu_img::{CONVERTED, QemuImg, Run};
use crate::sandbox::Sandbox;
use crate::{Cancel, driver::Owner};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// What an import is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Reading headers and tables.
    Inspecting,
    /// `qemu-img check` on the upload.
    Checking,
    /// `qemu-img convert`, with percent.
    Converting(f64),
    /// Looking at the result and making it durable.
    Finishing,
}

/// What is imported, and how.
pub struct Import<'a> {
    /// The upload; readable for everybody, in a folder that is not.
    pub image: &'a Path,
    /// What its owner called it.
    pub name: &'a str,
    /// What it may be.
    pub limits: Limits,
    /// Folder for temporary files, on the file system of the result.
    pub work: &'a Path,
    /// Who owns the result; `None`: this process.
    pub owner: Option<Owner>,
}

/// The disk, under a temporary name that goes away unless it is moved to its place.
#[derive(Debug)]
pub struct Imported {
    /// What the upload was.
    pub inspected: Inspected,
    sandbox: Sandbox,
}

impl Imported {
    /// Where the finished, fsynced qcow2 is; rename it.
    pub fn disk(&self) -> PathBuf {
        self.sandbox.out().join(CONVERTED)
    }
}

impl Import<'_> {
    /// Checks the upload's bytes; the first step, enough for an ISO.
    pub fn inspect(&self, cancel: &Cancel) -> Result<Inspected, DiskError> {
        let file = File::open(self.image).on("can't open", self.image)?;
        inspect(&file, self.name, self.limits, cancel)
    }

    /// Converts an inspected image that is not an ISO. `space` is asked now and then and may
    /// end the work with [`DiskError::Full`].
    pub fn convert(
        &self,
        qemu_img: &QemuImg,
        inspected: Inspected,
        cancel: &Cancel,
        progress: &mut dyn FnMut(Step),
        space: &mut dyn FnMut() -> Result<(), DiskError>,
    ) -> Result<Imported, DiskError> {
        let format = inspected.format;
        if format == ImageFormat::Iso {
            return Err(DiskError::Invalid(
                "an ISO is not converted: it is kept as it is, beside an empty disk".into(),
            ));
        }
        let sandbox = Sandbox::new(self.work)?;
        let info = qemu_img.info(&sandbox, self.image, format, cancel)?;
        if info.backing.is_some() || info.encrypted || info.format != format.as_str() {
            return Err(self.differs("what it is"));
        }
        if info.virtual_bytes != inspected.virtual_bytes {
            return Err(self.differs("how large it is"));
        }
        progress(Step::Checking);
        qemu_img.check(&sandbox, self.image, format, cancel)?;
        progress(Step::Converting(0.0));
        qemu_img.convert(
            &sandbox,
            self.image,
            format,
            inspected.virtual_bytes,
            &mut Run {
                cancel,
                progress: &mut |percent| progress(Step::Converting(percent)),
                space,
            },
        )?;
        progress(Step::Finishing);
        self.finish(&sandbox, inspected.virtual_bytes)?;
        let imported = Imported { inspected, sandbox };
        // Once more with QEMU's own eyes, still in isolation.
        let again = Sandbox::new(self.work)?;
        qemu_img.check(&again, &imported.disk(), ImageFormat::Qcow2, cancel)?;
        let mode = if self.owner.is_some() { 0o660 } else { 0o600 };
        let disk = imported.disk();
        fs::set_permissions(&disk, Permissions::from_mode(mode))
            .on("can't set the rights of", &disk)?;
        sync_folder(&imported.sandbox.out())?;
        Ok(imported)
    }

    /// The result was written by a process that read hostile bytes: it is taken only if it
    /// is a plain file, not shared with anything, and a qcow2 that refers to nothing.
    fn finish(&self, sandbox: &Sandbox, virtual_bytes: u64) -> Result<(), DiskError> {
        let path = sandbox.out().join(CONVERTED);
        let odd = |why: &str| {
            DiskError::Refused(format!(
                "the image is not imported: converting it gave {why}. {}.",
                crate::inspect::AGAIN
            ))
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path)
            .on("can't open", &path)?;
        let meta = file.metadata().on("can't look at", &path)?;
        if !meta.is_file() || meta.nlink() != 1 {
            return Err(odd("something that is not a plain file"));
        }
        let (uid, gid) = match self.owner {
            Some(owner) => (owner.uid, owner.gid),
            None => (
                nix::unistd::Uid::effective().as_raw(),
                nix::unistd::Gid::effective().as_raw(),
            ),
        };
        fchown(&file, Some(uid), Some(gid)).on("can't change the owner of", &path)?;
        // Readable for everybody only until it was checked once more in isolation; nobody
        // else gets into the folder.
        file.set_permissions(Permissions::from_mode(0o644))
            .on("can't set the rights of", &path)?;
        let facts = qcow2_facts(&file).map_err(|why| odd(&format!("a broken qcow2 ({why})")))?;
        if facts.backing.is_some() || facts.external_data || facts.encrypted {
            return Err(odd("a disk that refers to something else"));
        }
        if facts.virtual_bytes != virtual_bytes {
            return Err(odd("a disk of another size"));
        }
        file.sync_all().on("can't sync", &path)
    }

    fn differs(&self, what: &str) -> DiskError {
        DiskError::Refused(format!(
            "the image {:?} is not imported: its header can be read in two ways, and they differ in {what}. {}.",
            self.name,
            crate::inspect::AGAIN
        ))
    }
}

/// Copies an ISO to `to`, readable for everybody who gets into the folder.
pub fn keep_iso(image: &Path, to: &Path, cancel: &Cancel) -> Result<(), DiskError> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    let temp = crate::files::TempPath::new_in(folder);
    let out = create_new(temp.path(), 0o444)?;
    crate::files::copy_sparse(image, &out, temp.path(), cancel)?;
    temp.persist(to)
}
