//! VirtualBox disk images.

use super::bytes::{Bytes, Fields, get, inside, table};
use super::{Checked, Limits, check_size, lying, refuse, truncated};
use crate::Cancel;

const BLOCK: u64 = 1 << 20;
/// "Never written" and "written with zeros".
const NO_BLOCK: [u32; 2] = [0xffff_ffff, 0xffff_fffe];

/// Checks an upload.
pub fn check(image: &dyn Bytes, limits: Limits, cancel: &Cancel) -> Checked<(u64, Vec<String>)> {
    let header = get(image, 0, 512, "its header")?;
    let f = Fields(&header);
    if f.le32(68) != 0x0001_0001 {
        return refuse(
            format!("it is version {:#x} of VDI", f.le32(68)),
            "open and clone it with a current VirtualBox first",
        );
    }
    let merge =
        "merge it with its parent in VirtualBox first: clone the disk (VBoxManage clonemedium)";
    match f.le32(76) {
        1 | 2 => {}
        3 | 4 => {
            return refuse(
                "it is only the difference to another disk, which is not part of the upload",
                merge,
            );
        }
        other => return lying(format_args!("image type {other}")),
    }
    // uuid_link (what it is a difference to) and uuid_parent.
    if f.bytes16(424) != [0; 16] || f.bytes16(440) != [0; 16] {
        return refuse(
            "it names a parent disk, which is not part of the upload",
            merge,
        );
    }
    let (map, data) = (u64::from(f.le32(340)), u64::from(f.le32(344)));
    let virtual_bytes = f.le64(368);
    let (block, extra) = (u64::from(f.le32(376)), f.le32(380));
    let (blocks, allocated) = (u64::from(f.le32(384)), u64::from(f.le32(388)));
    if block != BLOCK || extra != 0 {
        return lying(format_args!("blocks of {block} and {extra} bytes"));
    }
    check_size(virtual_bytes, limits)?;
    if blocks != virtual_bytes.div_ceil(BLOCK) {
        return lying("its number of blocks does not fit its size");
    }
    if map < 512 || map % 512 != 0 || data % 512 != 0 || data < map || allocated > blocks {
        return lying("its block map or its data is in the wrong place");
    }
    inside(image, map, blocks * 4, "its block map")?;
    if allocated > 0 {
        // The last block may end with the file.
        let last = data + (allocated - 1) * BLOCK;
        if last >= image.length() {
            return truncated("data of the disk would lie beyond its end");
        }
    }
    table::<4>(image, map, blocks, "its block map", cancel, |_, entry| {
        let entry = u32::from_le_bytes(entry);
        if !NO_BLOCK.contains(&entry) && u64::from(entry) >= allocated {
            return lying("its block map names a block that is not there");
        }
        Ok(())
    })?;
    Ok((virtual_bytes, Vec::new()))
}
