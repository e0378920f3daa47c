//! VMware disk images in one file: monolithic sparse and stream-optimized.

use super::bytes::{Bytes, Fields, get, inside, table, up_to};
use super::{Checked, Limits, check_size, lying, refuse, truncated};
use crate::Cancel;

const SECTOR: u64 = 512;
/// The grain directory is at the end, and a second header there says where.
const AT_END: u64 = u64::MAX;
/// What QEMU reads of an embedded descriptor, whatever the header says.
const QEMU_DESCRIPTOR: u64 = 20 * SECTOR;
const MAX_DESCRIPTOR: u64 = 1 << 20;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;

const ONE_FILE: &str = "export the machine as one file: `qemu-img convert -O qcow2` where all its files are, or OVF export";

struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: u64,
    descriptor_length: u64,
    per_table: u64,
    directory: u64,
}

fn header(bytes: &[u8]) -> Checked<Header> {
    let f = Fields(bytes);
    if bytes.get(..4) != Some(b"KDMV") {
        return lying("a header is missing");
    }
    let version = f.le32(4);
    if !(1..=3).contains(&version) {
        return refuse(format!("it is version {version} of VMDK"), ONE_FILE);
    }
    Ok(Header {
        flags: f.le32(8),
        capacity: f.le64(12),
        grain: f.le64(20),
        descriptor: f.le64(28),
        descriptor_length: f.le64(36),
        per_table: u64::from(f.le32(44)),
        directory: f.le64(56),
    })
}

/// Checks an upload.
pub fn check(image: &dyn Bytes, limits: Limits, cancel: &Cancel) -> Checked<(u64, Vec<String>)> {
    let first = header(&get(image, 0, 512, "its header")?)?;
    // QEMU takes capacity 0 as "the descriptor tells which files hold the data".
    if first.capacity == 0 {
        return refuse(
            "its header says that other files hold the data, and they are not part of the upload",
            ONE_FILE,
        );
    }
    descriptor(image, &first)?;
    let real = if first.directory == AT_END {
        footer(image)?
    } else {
        header(&get(image, 0, 512, "its header")?)?
    };
    let Some(virtual_bytes) = real.capacity.checked_mul(SECTOR) else {
        return lying(format_args!("{} sectors", real.capacity));
    };
    if real.capacity != first.capacity {
        return lying("its two headers differ");
    }
    check_size(virtual_bytes, limits)?;
    // QEMU's limits: grains up to 2^21 sectors, tables up to 512 entries.
    if !real.grain.is_power_of_two() || !(8..=1 << 21).contains(&real.grain) {
        return lying(format_args!("grains of {} sectors", real.grain));
    }
    if real.per_table == 0 || real.per_table > 512 {
        return lying(format_args!("tables of {} entries", real.per_table));
    }
    grains(image, &real, cancel)?;
    Ok((virtual_bytes, Vec::new()))
}

fn footer(image: &dyn Bytes) -> Checked<Header> {
    // Footer marker, footer, end-of-stream marker: one sector each.
    let Some(offset) = image.length().checked_sub(3 * SECTOR) else {
        return truncated("the footer is missing");
    };
    let bytes = get(image, offset, 1024, "its footer")?;
    let marker = Fields(&bytes);
    let ours = marker.le64(0) == 1 && marker.le32(8) == 0 && marker.le32(12) == 3;
    if !ours || bytes.get(512..516) != Some(b"KDMV") {
        return truncated("the footer is missing");
    }
    let footer = header(&bytes[512..])?;
    if footer.directory == AT_END {
        return lying("its footer names no directory");
    }
    Ok(footer)
}

/// The embedded text. It is read like QEMU does, by searching, and more strictly.
fn descriptor(image: &dyn Bytes, header: &Header) -> Checked<()> {
    let Some(offset) = header.descriptor.checked_mul(SECTOR).filter(|o| *o != 0) else {
        return refuse("it has no descriptor", ONE_FILE);
    };
    let length = header.descriptor_length.saturating_mul(SECTOR);
    if length > MAX_DESCRIPTOR {
        return lying(format_args!("a descriptor of {length} bytes"));
    }
    inside(image, offset, length, "its descriptor")?;
    let bytes = up_to(image, offset, length.max(QEMU_DESCRIPTOR) as usize)?;
    // QEMU takes it as text up to the first zero byte.
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let (mut create_type, mut extents) = (None, 0);
    for line in text.lines().map(str::trim) {
        let lower = line.to_ascii_lowercase();
        if let Some((key, value)) = lower.split_once('=') {
            match key.trim() {
                "createtype" => create_type = Some(value.trim().trim_matches('"').to_owned()),
                "parentcid" if value.trim() != "ffffffff" => return parent(),
                _ => {}
            }
        }
        // Anywhere in the text: that is how QEMU looks for it.
        if lower.contains("parentfilenamehint") {
            return parent();
        }
        if ["rw ", "rdonly ", "noaccess "]
            .iter()
            .any(|access| lower.starts_with(access))
        {
            extents += 1;
            if lower.split_whitespace().nth(2) != Some("sparse") {
                return refuse(
                    "its descriptor names a file that holds the data, which is not part of the upload",
                    ONE_FILE,
                );
            }
        }
    }
    match create_type.as_deref() {
        Some("monolithicsparse" | "streamoptimized") if extents <= 1 => Ok(()),
        Some(kind) => refuse(
            format!("it is of the kind {kind:?} with {extents} files, of which this is one"),
            ONE_FILE,
        ),
        None => lying("its descriptor does not say what kind of image it is"),
    }
}

fn parent<T>() -> Checked<T> {
    refuse(
        "it is only the difference to another disk, which is not part of the upload",
        "remove the snapshots in VMware or make a full clone first",
    )
}

fn grains(image: &dyn Bytes, header: &Header, cancel: &Cancel) -> Checked<()> {
    let length = image.length();
    let all = header.capacity.div_ceil(header.grain);
    let tables = all.div_ceil(header.per_table);
    let Some(directory) = header.directory.checked_mul(SECTOR) else {
        return lying("its grain directory is in the wrong place");
    };
    if directory == 0 {
        return lying("its grain directory is in the wrong place");
    }
    let stream = header.flags & (FLAG_COMPRESSED | FLAG_MARKERS) != 0;
    table::<4>(
        image,
        directory,
        tables,
        "its grain directory",
        cancel,
        |_, entry| {
            let offset = u64::from(u32::from_le_bytes(entry)) * SECTOR;
            if offset == 0 {
                return Ok(());
            }
            table::<4>(
                image,
                offset,
                header.per_table,
                "a grain table",
                cancel,
                |_, entry| {
                    let sector = u32::from_le_bytes(entry);
                    // 0: not there, 1: zeros.
                    if sector > 1 && u64::from(sector) * SECTOR >= length {
                        return truncated(if stream {
                            "compressed data would lie beyond its end"
                        } else {
                            "data of the disk would lie beyond its end"
                        });
                    }
                    Ok(())
                },
            )
        },
    )
}
