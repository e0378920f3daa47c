//! What an uploaded image is, found out by reading as little of it as possible with
//! parsers that can't do anything but read it.
//!
//! QEMU finds an image's format from its first bytes and then follows what the image says:
//! a backing file, an external data file, extents, a parent. An upload may say
//! `/etc/shadow` there. So before QEMU sees it, these parsers establish the format, refuse
//! everything that points outside the file, and check that tables and data lie inside it.
//!
//! **Invariant: every read is bounded by a constant or by the size limit, and no byte
//! sequence makes a parser panic.** `tests/parsers.rs` throws bytes at them.

mod bytes;
mod qcow2;
mod raw;
mod vdi;
mod vhdx;
mod vmdk;

pub use bytes::Bytes;
pub use qcow2::{Qcow2Facts, facts as qcow2_facts};

use crate::{Cancel, DiskError};
use serde::{Deserialize, Serialize};

/// A format that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's own.
    Qcow2,
    /// The bytes of the disk.
    Raw,
    /// VMware, one file.
    Vmdk,
    /// Hyper-V.
    Vhdx,
    /// VirtualBox.
    Vdi,
    /// A CD to install from.
    Iso,
}

impl ImageFormat {
    /// Its name, which is also the name of QEMU's driver (but for ISO, which is never converted).
    pub fn as_str(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
            ImageFormat::Vmdk => "vmdk",
            ImageFormat::Vhdx => "vhdx",
            ImageFormat::Vdi => "vdi",
            ImageFormat::Iso => "iso",
        }
    }
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an image may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest disk as the guest sees it, in bytes: what the tier may hold.
    pub max_virtual_bytes: u64,
}

/// A harmless image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What it is.
    pub format: ImageFormat,
    /// Size as the guest sees it; for an ISO the length of the file.
    pub virtual_bytes: u64,
    /// What a person should know, for example that snapshots are not taken over.
    pub notes: Vec<String>,
}

/// Why an image is not taken: the reason and what to do, without the name in front.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Dangerous, broken, too large or unknown.
    Refused { why: String, cure: String },
    /// Somebody cancelled.
    Cancelled,
    /// The upload could not be read.
    Read(std::io::Error),
}

pub(crate) type Checked<T> = Result<T, Stop>;

/// Refuses.
pub(crate) fn refuse<T>(why: impl Into<String>, cure: &str) -> Checked<T> {
    Err(Stop::Refused {
        why: why.into(),
        cure: cure.to_owned(),
    })
}

/// What to do about a broken file.
pub(crate) const AGAIN: &str = "export the image again and check that the copy is complete";

/// Refuses because the file ends too early.
pub(crate) fn truncated<T>(what: &str) -> Checked<T> {
    refuse(format!("the file is cut short: {what}"), AGAIN)
}

/// Refuses because the header says something impossible.
pub(crate) fn lying<T>(what: impl std::fmt::Display) -> Checked<T> {
    refuse(format!("its header is damaged: {what}"), AGAIN)
}

pub(crate) fn check_size(virtual_bytes: u64, limits: Limits) -> Checked<()> {
    if virtual_bytes == 0 {
        return lying("it says that the disk is empty");
    }
    if virtual_bytes > limits.max_virtual_bytes {
        return refuse(
            format!(
                "the disk is {} large for the guest, and the tier can hold {}",
                size(virtual_bytes),
                size(limits.max_virtual_bytes)
            ),
            "make the disk smaller before exporting it, or add space to the fast tier",
        );
    }
    Ok(())
}

/// Bytes for a person.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// What the name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// `.qcow2` and so on: the content must be that.
    Exactly(ImageFormat),
    /// Any name: the content decides.
    Nothing,
}

fn promise(name: &str) -> Promise {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    match extension.as_deref() {
        Some("qcow2") => Promise::Exactly(ImageFormat::Qcow2),
        // Whatever the first bytes look like: on a raw disk they are the guest's own, and
        // the guest can write a qcow2 header there to have a file of the host read.
        Some("raw" | "dd") => Promise::Exactly(ImageFormat::Raw),
        Some("vmdk") => Promise::Exactly(ImageFormat::Vmdk),
        Some("vhdx") => Promise::Exactly(ImageFormat::Vhdx),
        Some("vdi") => Promise::Exactly(ImageFormat::Vdi),
        Some("iso") => Promise::Exactly(ImageFormat::Iso),
        _ => Promise::Nothing,
    }
}

/// What the first bytes are.
enum Found {
    Format(ImageFormat),
    Unsupported {
        what: &'static str,
        cure: &'static str,
    },
    Unknown,
}

fn found(image: &dyn Bytes) -> Checked<Found> {
    let head = bytes::up_to(image, 0, 1024)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    let unpack = "unpack it and upload the disk image that is inside";
    Ok(if at(0, b"QFI\xfb") {
        Found::Format(ImageFormat::Qcow2)
    } else if at(0, b"KDMV") {
        Found::Format(ImageFormat::Vmdk)
    } else if at(0, b"vhdxfile") {
        Found::Format(ImageFormat::Vhdx)
    } else if at(64, &0xbeda_107f_u32.to_le_bytes()) {
        Found::Format(ImageFormat::Vdi)
    } else if at(0, b"COWD") || at(0, b"# Disk DescriptorFile") || at(0, b"# Disk Descriptor") {
        Found::Unsupported {
            what: "a VMware descriptor, which only names the files that hold the disk",
            cure: "export the machine as one file: `qemu-img convert -O qcow2` where all its files are, or OVF export",
        }
    } else if at(0, b"conectix") || at(0, b"cxsparse") {
        Found::Unsupported {
            what: "an old VHD image",
            cure: "convert it to VHDX first (Hyper-V: Edit Disk, Convert)",
        }
    } else if at(0, b"QED\0") {
        Found::Unsupported {
            what: "a QED image",
            cure: "convert it to qcow2 first with qemu-img",
        }
    } else if at(257, b"ustar") {
        Found::Unsupported {
            what: "a tar or OVA archive",
            cure: unpack,
        }
    } else if at(0, b"PK\x03\x04") || at(0, b"7z\xbc\xaf\x27\x1c") || at(0, b"Rar!") {
        Found::Unsupported {
            what: "an archive",
            cure: unpack,
        }
    } else if at(0, b"\x1f\x8b")
        || at(0, b"\xfd7zXZ\0")
        || at(0, b"\x28\xb5\x2f\xfd")
        || at(0, b"BZh")
    {
        Found::Unsupported {
            what: "a compressed file",
            cure: unpack,
        }
    } else if raw::is_iso(image)? {
        Found::Format(ImageFormat::Iso)
    } else if raw::looks_like_a_disk(image)? {
        Found::Format(ImageFormat::Raw)
    } else {
        Found::Unknown
    })
}

/// Checks an uploaded image. `name` is what its owner called it: the ending decides whether
/// the bytes are a raw disk or may be read as what they look like.
pub fn inspect(
    image: &dyn Bytes,
    name: &str,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Inspected, DiskError> {
    match look(image, name, limits, cancel) {
        Ok(inspected) => Ok(inspected),
        Err(Stop::Cancelled) => Err(DiskError::Cancelled),
        Err(Stop::Refused { why, cure }) => Err(DiskError::Refused(format!(
            "the image {name:?} is not imported: {why}. {}.",
            capital(&cure)
        ))),
        Err(Stop::Read(error)) => Err(DiskError::Refused(format!(
            "the image {name:?} can't be read: {error}. Upload it again."
        ))),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn look(image: &dyn Bytes, name: &str, limits: Limits, cancel: &Cancel) -> Checked<Inspected> {
    let format = match promise(name) {
        Promise::Exactly(ImageFormat::Raw) => ImageFormat::Raw,
        Promise::Exactly(promised) => match found(image)? {
            Found::Format(format) if format == promised => promised,
            Found::Format(format) => {
                return refuse(
                    format!("its name says {promised}, its content is {format}"),
                    "give the file the ending that fits its content, if it comes from where you think it does",
                );
            }
            Found::Unsupported { what, cure } => return refuse(format!("it is {what}"), cure),
            Found::Unknown => {
                return refuse(
                    format!("its name says {promised}, but it does not begin like one"),
                    AGAIN,
                );
            }
        },
        Promise::Nothing => match found(image)? {
            Found::Format(format) => format,
            Found::Unsupported { what, cure } => return refuse(format!("it is {what}"), cure),
            Found::Unknown => {
                return refuse(
                    "it is no qcow2, vmdk, vhdx, vdi or ISO, and it has no partition table",
                    "if it is the plain content of a disk, give the file the ending .raw",
                );
            }
        },
    };
    let (virtual_bytes, notes) = match format {
        ImageFormat::Qcow2 => qcow2::check(image, limits, cancel)?,
        ImageFormat::Vmdk => vmdk::check(image, limits, cancel)?,
        ImageFormat::Vhdx => vhdx::check(image, limits, cancel)?,
        ImageFormat::Vdi => vdi::check(image, limits, cancel)?,
        ImageFormat::Raw => raw::check(image, limits)?,
        ImageFormat::Iso => raw::check_iso(image, limits)?,
    };
    Ok(Inspected {
        format,
        virtual_bytes,
        notes,
    })
}
