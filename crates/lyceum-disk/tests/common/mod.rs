//! Making images, good and hostile, and importing them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use lyceum_disk::import::{Import, Step};
use lyceum_disk::inspect::{ImageFormat, Limits};
use lyceum_disk::qemu_img::QemuImg;
use lyceum_disk::{Cancel, DiskError};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Stands in a file of the host that no import may ever read.
pub const CANARY: &str = "CANARY-4f1b7c-this-was-read-from-the-host";

pub struct Bench {
    pub folder: TempDir,
    pub canary: PathBuf,
}

pub fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        let canary = folder.path().join("canary");
        let bench = Bench { folder, canary };
        bench.plant();
        bench
    }

    /// Writes the canary so that anybody may read it: only the import's own care protects it.
    pub fn plant(&self) {
        fs::write(&self.canary, CANARY.repeat(2000)).unwrap();
        fs::set_permissions(&self.canary, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A raw disk of `mib` MiB with a boot record, some data and holes.
    pub fn raw(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.path(name);
        let file = fs::File::create(&path).unwrap();
        file.set_len(mib << 20).unwrap();
        let mut seed = 7u64;
        for at in (0..mib << 20).step_by(3 << 20) {
            let noise: Vec<u8> = (0..70_000)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) as u8
                })
                .collect();
            let keep = noise.len().min(((mib << 20) - at) as usize);
            file.write_all_at(&noise[..keep], at).unwrap();
        }
        file.write_all_at(&[0; 64], 446).unwrap();
        file.write_all_at(b"\x55\xaa", 510).unwrap();
        path
    }

    pub fn patch(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    /// The whole import under the name `name`: format and bytes of the disk as the guest sees it.
    pub fn import(&self, image: &Path, name: &str) -> Result<(ImageFormat, Vec<u8>), DiskError> {
        self.import_with(image, name, &Cancel::new(), &mut |_| {}, &mut || Ok(()))
    }

    pub fn import_with(
        &self,
        image: &Path,
        name: &str,
        cancel: &Cancel,
        progress: &mut dyn FnMut(Step),
        space: &mut dyn FnMut() -> Result<(), DiskError>,
    ) -> Result<(ImageFormat, Vec<u8>), DiskError> {
        let _ = fs::set_permissions(image, fs::Permissions::from_mode(0o644));
        let work = self.path("work");
        let import = Import {
            image,
            name,
            limits: Limits {
                max_virtual_bytes: 8 << 30,
            },
            work: &work,
            owner: None,
        };
        let inspected = import.inspect(cancel)?;
        let qemu = QemuImg::new("qemu-img");
        let done = import.convert(&qemu, inspected, cancel, progress, space)?;
        let out = self.path("imported.raw");
        let disk = done.disk();
        qemu_img(&[
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            disk.to_str().unwrap(),
            out.to_str().unwrap(),
        ]);
        let bytes = fs::read(&out).unwrap();
        fs::remove_file(out).unwrap();
        Ok((done.inspected.format, bytes))
    }

    /// The import must be refused, with a message that holds `expect`; no byte of the
    /// canary is anywhere but in the canary, and nothing is left behind.
    pub fn refused(&self, image: &Path, name: &str, expect: &str) -> String {
        let message = match self.import(image, name) {
            Err(DiskError::Refused(message)) => message,
            other => panic!("{name}: {:?} instead of a refusal", other.map(|o| o.0)),
        };
        assert!(
            message.contains(expect),
            "{name}: {expect:?} is not in: {message}"
        );
        assert!(
            !message.contains(CANARY),
            "{name}: the message shows the canary"
        );
        let left: Vec<_> = fs::read_dir(self.path("work")).unwrap().collect();
        assert!(left.is_empty(), "{name}: left behind: {left:?}");
        message
    }
}
