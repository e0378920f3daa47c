//! Hyper-V disk images, second format.

use super::bytes::{Bytes, Fields, get, inside, table};
use super::{Checked, Limits, check_size, lying, refuse, truncated};
use crate::Cancel;

/// A GUID as it lies in the file: the first three groups little-endian.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ]
}

const REGION_BAT: [u8; 16] = guid(
    0x2dc2_7766,
    0xf623,
    0x4200,
    [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08],
);
const REGION_METADATA: [u8; 16] = guid(
    0x8b7c_a206,
    0x4790,
    0x4b9a,
    [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e],
);
const ITEM_PARAMETERS: [u8; 16] = guid(
    0xcaa1_6737,
    0xfa36,
    0x4d43,
    [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b],
);
const ITEM_SIZE: [u8; 16] = guid(
    0x2fa5_4224,
    0xcd1b,
    0x4876,
    [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8],
);
const ITEM_SECTOR: [u8; 16] = guid(
    0x8141_bf1d,
    0xa96f,
    0x4709,
    [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f],
);
const ITEM_PARENT: [u8; 16] = guid(
    0xa8d3_5f2d,
    0xb30b,
    0x454d,
    [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c],
);

const MIB: u64 = 1 << 20;
const MERGE: &str = "merge it with its parent first (Hyper-V: Edit Disk, Merge)";

struct Region {
    offset: u64,
    length: u64,
}

/// Checks an upload.
pub fn check(image: &dyn Bytes, limits: Limits, cancel: &Cancel) -> Checked<(u64, Vec<String>)> {
    log_is_empty(image)?;
    let (bat, metadata) = regions(image)?;
    let facts = metadata_items(image, &metadata)?;
    check_size(facts.virtual_bytes, limits)?;
    // Between the blocks of each chunk the table has one entry for a sector bitmap.
    let chunk = (1u64 << 23) * facts.sector / facts.block;
    let blocks = facts.virtual_bytes.div_ceil(facts.block);
    let entries = blocks + (blocks.saturating_sub(1)) / chunk.max(1);
    if entries.saturating_mul(8) > bat.length {
        return lying("its block table is too small for its size");
    }
    let length = image.length();
    table::<8>(
        image,
        bat.offset,
        entries,
        "its block table",
        cancel,
        |_, entry| {
            let entry = u64::from_le_bytes(entry);
            // 6: fully present, 7: partially present (the rest from a parent).
            match entry & 7 {
                6 if (entry >> 20).saturating_mul(MIB) >= length => {
                    truncated("data of the disk would lie beyond its end")
                }
                7 => refuse("part of its data would come from another disk", MERGE),
                _ => Ok(()),
            }
        },
    )?;
    Ok((facts.virtual_bytes, Vec::new()))
}

/// The newer of the two headers says whether changes wait in the log.
fn log_is_empty(image: &dyn Bytes) -> Checked<()> {
    let mut newest: Option<(u64, bool)> = None;
    for offset in [64 << 10, 128 << 10] {
        let header = get(image, offset, 4096, "its header")?;
        let f = Fields(&header);
        if header.get(..4) != Some(b"head") {
            continue;
        }
        if f.le16(66) != 1 {
            return refuse(
                format!("it is version {} of VHDX", f.le16(66)),
                "convert it to qcow2 where it came from",
            );
        }
        let this = (f.le64(8), f.bytes16(48) == [0; 16]);
        if newest.is_none_or(|n| this.0 > n.0) {
            newest = Some(this);
        }
    }
    match newest {
        Some((_, true)) => Ok(()),
        Some((_, false)) => refuse(
            "it was not closed cleanly: changes wait in its log",
            "attach it once in Hyper-V or Windows, detach it, and upload it again",
        ),
        None => lying("both headers are missing"),
    }
}

fn regions(image: &dyn Bytes) -> Checked<(Region, Region)> {
    let table = get(image, 192 << 10, 64 << 10, "its region table")?;
    let f = Fields(&table);
    let count = f.le32(8) as usize;
    if table.get(..4) != Some(b"regi") || count > 2047 {
        return lying("its region table is missing");
    }
    let (mut bat, mut metadata) = (None, None);
    for at in (0..count).map(|i| 16 + 32 * i) {
        let region = Region {
            offset: f.le64(at + 16),
            length: u64::from(f.le32(at + 24)),
        };
        let slot = match f.bytes16(at) {
            REGION_BAT => &mut bat,
            REGION_METADATA => &mut metadata,
            _ if f.le32(at + 28) & 1 == 1 => {
                return refuse(
                    "it needs a feature that is not known here",
                    "convert it to qcow2 where it came from",
                );
            }
            _ => continue,
        };
        if slot.is_some() || region.offset < MIB || !region.offset.is_multiple_of(MIB) {
            return lying("a region is in the wrong place");
        }
        inside(image, region.offset, region.length, "a region")?;
        *slot = Some(region);
    }
    match (bat, metadata) {
        (Some(bat), Some(metadata)) => Ok((bat, metadata)),
        _ => lying("a region is missing"),
    }
}

struct Facts {
    virtual_bytes: u64,
    block: u64,
    sector: u64,
}

fn metadata_items(image: &dyn Bytes, region: &Region) -> Checked<Facts> {
    let table = get(image, region.offset, 64 << 10, "its metadata")?;
    let f = Fields(&table);
    let count = f.le16(10) as usize;
    if table.get(..8) != Some(b"metadata") || count > 2047 {
        return lying("its metadata table is missing");
    }
    let (mut virtual_bytes, mut block, mut sector) = (None, None, None);
    for at in (0..count).map(|i| 32 + 32 * i) {
        let (offset, length) = (u64::from(f.le32(at + 16)), u64::from(f.le32(at + 20)));
        let item = |bytes: usize| {
            if length < bytes as u64 || offset < 64 << 10 || offset + length > region.length {
                return lying("an item of its metadata is in the wrong place");
            }
            get(image, region.offset + offset, bytes, "its metadata")
        };
        match f.bytes16(at) {
            ITEM_PARENT => {
                return refuse(
                    "it is only the difference to another disk, which is not part of the upload",
                    MERGE,
                );
            }
            ITEM_PARAMETERS => {
                let bytes = item(8)?;
                let f = Fields(&bytes);
                if f.le32(4) & 2 != 0 {
                    return refuse(
                        "it is only the difference to another disk, which is not part of the upload",
                        MERGE,
                    );
                }
                block = Some(u64::from(f.le32(0)));
            }
            ITEM_SIZE => virtual_bytes = Some(Fields(&item(8)?).le64(0)),
            ITEM_SECTOR => sector = Some(u64::from(Fields(&item(4)?).le32(0))),
            _ => {}
        }
    }
    let (Some(virtual_bytes), Some(block), Some(sector)) = (virtual_bytes, block, sector) else {
        return lying("an item of its metadata is missing");
    };
    if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) {
        return lying(format_args!("blocks of {block} bytes"));
    }
    if !matches!(sector, 512 | 4096) {
        return lying(format_args!("sectors of {sector} bytes"));
    }
    Ok(Facts {
        virtual_bytes,
        block,
        sector,
    })
}
