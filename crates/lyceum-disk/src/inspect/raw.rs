//! Plain disks and CDs.

use super::bytes::{Bytes, Fields, up_to};
use super::{Checked, Limits, check_size, lying, truncated};

const SECTOR: u64 = 512;
/// Partition types that stand for "see elsewhere".
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;

/// Whether the bytes begin like a disk that boots: a boot record or a GUID partition table.
pub fn looks_like_a_disk(image: &dyn Bytes) -> Checked<bool> {
    let head = up_to(image, 0, 1024)?;
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    Ok(has(510, b"\x55\xaa") || has(512, b"EFI PART"))
}

/// Whether it is an ISO 9660 CD.
pub fn is_iso(image: &dyn Bytes) -> Checked<bool> {
    let descriptor = up_to(image, 32_768, 6)?;
    Ok(descriptor.get(1..6) == Some(b"CD001"))
}

/// A plain disk. That it is cut short shows only in its partition table.
pub fn check(image: &dyn Bytes, limits: Limits) -> Checked<(u64, Vec<String>)> {
    let length = image.length();
    if length < SECTOR {
        return truncated("a disk has at least one sector of 512 bytes");
    }
    // QEMU rounds up to whole sectors.
    let virtual_bytes = length.next_multiple_of(SECTOR);
    check_size(virtual_bytes, limits)?;
    let head = up_to(image, 0, 1024)?;
    let f = Fields(&head);
    if f.le16(510) == 0xaa55 {
        // A boot record of a bare file system has other things where partitions would be,
        // so only entries that look like partitions count: status 0 or 0x80.
        for entry in (0..4).map(|i| 446 + 16 * i) {
            let (status, kind) = (f.u8(entry), f.u8(entry + 4));
            let (start, sectors) = (u64::from(f.le32(entry + 8)), u64::from(f.le32(entry + 12)));
            let plain = kind != 0 && kind != PROTECTIVE && !EXTENDED.contains(&kind);
            let sane = (status == 0 || status == 0x80) && start > 0 && sectors > 0;
            if plain && sane && start * SECTOR >= length {
                return truncated("a partition begins beyond its end");
            }
            if plain && sane && (start + sectors) * SECTOR > virtual_bytes {
                return truncated("a partition would end beyond its end");
            }
        }
    }
    if head.get(512..520) == Some(b"EFI PART") {
        let other = f.le64(512 + 32);
        if other
            .checked_add(1)
            .and_then(|n| n.checked_mul(SECTOR))
            .is_none_or(|end| end > virtual_bytes)
        {
            return truncated("the second partition table would lie beyond its end");
        }
    }
    Ok((virtual_bytes, Vec::new()))
}

/// An ISO 9660 CD.
pub fn check_iso(image: &dyn Bytes, limits: Limits) -> Checked<(u64, Vec<String>)> {
    let length = image.length();
    check_size(length, limits)?;
    for index in 0..64u64 {
        let descriptor = up_to(image, 32_768 + index * 2048, 2048)?;
        if descriptor.len() < 2048 || descriptor.get(1..6) != Some(b"CD001") {
            return truncated("the list of its volumes does not end");
        }
        match descriptor[0] {
            // Primary volume descriptor.
            1 => {
                let f = Fields(&descriptor);
                let (blocks, block) = (u64::from(f.le32(80)), u64::from(f.le16(128)));
                if !matches!(block, 512 | 1024 | 2048) || blocks != u64::from(f.be32(84)) {
                    return lying("its volume descriptor contradicts itself");
                }
                // Padding at the end (150 blocks) gets lost when a CD is read back; it holds nothing.
                if blocks * block > length + 150 * 2048 {
                    return truncated("the volume is larger than the file");
                }
                return Ok((length, Vec::new()));
            }
            255 => return lying("it has no primary volume"),
            _ => {}
        }
    }
    lying("it has no primary volume")
}
