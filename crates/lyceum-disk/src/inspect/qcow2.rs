//! qcow2, versions 2 and 3.

use super::bytes::{Bytes, Fields, get, inside, table, up_to};
use super::{Checked, Limits, Stop, check_size, lying, refuse, truncated};
use crate::Cancel;

const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// Dirty, corrupt, data file, compression type, extended L2.
const INCOMPATIBLE_KNOWN: u64 = 0b1_1111;
const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;
/// QEMU's own limit for the L1 table and for the refcount table.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

const FLATTEN: &str =
    "make one file of it where it came from: qemu-img convert -O qcow2 IMAGE NEW.qcow2";

/// What a qcow2 header says, read without judging it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2Facts {
    /// Size as the guest sees it.
    pub virtual_bytes: u64,
    /// The backing file's name as it stands there.
    pub backing: Option<String>,
    /// The data lies in another file.
    pub external_data: bool,
    /// It is encrypted.
    pub encrypted: bool,
    cluster_bits: u32,
    extended_l2: bool,
    version: u32,
    snapshots: u32,
    snapshots_offset: u64,
    l1_entries: u64,
    l1_offset: u64,
}

/// Reads a qcow2 header and checks that its numbers make sense; also for this
/// program's own overlays. `Err` is the reason.
pub fn facts(image: &dyn Bytes) -> Result<Qcow2Facts, String> {
    header(image).map_err(|stop| match stop {
        Stop::Refused { why, .. } => why,
        Stop::Cancelled => "cancelled".into(),
        Stop::Read(error) => error.to_string(),
    })
}

fn header(image: &dyn Bytes) -> Checked<Qcow2Facts> {
    let bytes = up_to(image, 0, 112)?;
    let f = Fields(&bytes);
    if bytes.len() < 72 {
        return truncated("not even its header is whole");
    }
    if f.be32(0) != 0x5146_49fb {
        return lying("it does not begin like a qcow2 image");
    }
    let version = f.be32(4);
    if !(2..=3).contains(&version) {
        return refuse(
            format!("it is version {version} of qcow"),
            "convert it to qcow2 with a current qemu-img first",
        );
    }
    let cluster_bits = f.be32(20);
    if !(9..=21).contains(&cluster_bits) {
        return lying(format_args!("cluster size 2^{cluster_bits}"));
    }
    let cluster = 1u64 << cluster_bits;
    let (incompatible, refcount_order, header_length) = if version == 2 {
        (0, 4, 72)
    } else {
        if bytes.len() < 104 {
            return truncated("not even its header is whole");
        }
        (f.be64(72), f.be32(96), u64::from(f.be32(100)))
    };
    if !(if version == 2 { 72 } else { 104 }..=cluster).contains(&header_length) {
        return lying(format_args!("header of {header_length} bytes"));
    }
    if incompatible & !INCOMPATIBLE_KNOWN != 0 {
        return refuse(
            format!("it uses features that are not known here (bits {incompatible:#x})"),
            FLATTEN,
        );
    }
    if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return refuse(
            "it is marked as corrupt",
            "repair it where it came from: qemu-img check -r all IMAGE",
        );
    }
    if refcount_order > 6 {
        return lying(format_args!("refcounts of 2^{refcount_order} bits"));
    }
    let mut facts = Qcow2Facts {
        virtual_bytes: f.be64(24),
        backing: None,
        external_data: incompatible & INCOMPATIBLE_DATA_FILE != 0,
        encrypted: f.be32(32) != 0,
        cluster_bits,
        extended_l2: incompatible & INCOMPATIBLE_EXTENDED_L2 != 0,
        version,
        snapshots: f.be32(60),
        snapshots_offset: f.be64(64),
        l1_entries: u64::from(f.be32(36)),
        l1_offset: f.be64(40),
    };
    if facts.extended_l2 && cluster_bits < 14 {
        return lying("extended L2 entries with clusters this small");
    }
    let (backing_offset, backing_length) = (f.be64(8), f.be32(16));
    if backing_offset != 0 || backing_length != 0 {
        if backing_length > 1023 || backing_offset > cluster {
            return lying("the backing file's name is too long or in the wrong place");
        }
        let name = up_to(image, backing_offset, backing_length as usize)?;
        facts.backing = Some(String::from_utf8_lossy(&name).into_owned());
    }
    extensions(image, header_length, cluster, &mut facts)?;
    tables(image, &f, cluster, &facts)?;
    Ok(facts)
}

/// Header extensions: pairs of type and length, up to the end of the first cluster.
fn extensions(
    image: &dyn Bytes,
    header_length: u64,
    cluster: u64,
    facts: &mut Qcow2Facts,
) -> Checked<()> {
    let mut at = header_length;
    while at + 8 <= cluster {
        let bytes = up_to(image, at, 8)?;
        if bytes.len() < 8 {
            break;
        }
        let f = Fields(&bytes);
        let (kind, length) = (f.be32(0), u64::from(f.be32(4)));
        match kind {
            EXTENSION_END => break,
            EXTENSION_DATA_FILE => facts.external_data = true,
            EXTENSION_CRYPTO => facts.encrypted = true,
            _ => {}
        }
        if length > cluster - at - 8 {
            return lying("a header extension runs out of the header");
        }
        at += 8 + length.next_multiple_of(8);
    }
    Ok(())
}

fn tables(image: &dyn Bytes, f: &Fields<'_>, cluster: u64, facts: &Qcow2Facts) -> Checked<()> {
    let refcounts = (f.be64(48), u64::from(f.be32(56)) * cluster);
    if refcounts.0 == 0
        || !refcounts.0.is_multiple_of(cluster)
        || refcounts.1 > MAX_REFCOUNT_TABLE_BYTES
    {
        return lying("its refcount table is in the wrong place or too large");
    }
    inside(image, refcounts.0, refcounts.1, "its refcount table")?;
    if facts.l1_entries * 8 > MAX_L1_BYTES {
        return lying(format_args!("an L1 table of {} entries", facts.l1_entries));
    }
    if facts.l1_entries > 0 && (facts.l1_offset == 0 || !facts.l1_offset.is_multiple_of(cluster)) {
        return lying("its L1 table is in the wrong place");
    }
    inside(image, facts.l1_offset, facts.l1_entries * 8, "its L1 table")?;
    if facts.l1_entries < facts.l1_needed() {
        return lying(format_args!(
            "an L1 table of {} entries is too small for its size",
            facts.l1_entries
        ));
    }
    Ok(())
}

impl Qcow2Facts {
    fn l2_entries(&self) -> u64 {
        (1 << self.cluster_bits) / if self.extended_l2 { 16 } else { 8 }
    }
    fn l1_needed(&self) -> u64 {
        self.virtual_bytes
            .div_ceil(self.l2_entries() << self.cluster_bits)
    }
}

/// Checks an upload: nothing outside the file, and everything the guest would see inside it.
pub fn check(image: &dyn Bytes, limits: Limits, cancel: &Cancel) -> Checked<(u64, Vec<String>)> {
    let facts = header(image)?;
    if let Some(name) = &facts.backing {
        return refuse(
            format!(
                "it is only the difference to a backing file ({name:?}), which is not part of the upload"
            ),
            FLATTEN,
        );
    }
    if facts.external_data {
        return refuse(
            "its data lies in an external data file, which is not part of the upload",
            FLATTEN,
        );
    }
    if facts.encrypted {
        return refuse(
            "it is encrypted",
            "decrypt it where it came from: qemu-img convert with the secret, to a new qcow2",
        );
    }
    check_size(facts.virtual_bytes, limits)?;
    let mut notes = Vec::new();
    if facts.snapshots > 0 {
        if facts.snapshots > 65_536 {
            return lying(format_args!("{} snapshots", facts.snapshots));
        }
        inside(image, facts.snapshots_offset, 40, "its snapshot table")?;
        notes.push(format!(
            "it holds {} internal snapshots; only the current state is taken over",
            facts.snapshots
        ));
    }
    clusters(image, &facts, cancel)?;
    Ok((facts.virtual_bytes, notes))
}

/// Walks all tables: QEMU reads zeros where a file ends too early, which would turn a
/// truncated upload into a silently damaged disk.
fn clusters(image: &dyn Bytes, facts: &Qcow2Facts, cancel: &Cancel) -> Checked<()> {
    let (bits, cluster, length) = (
        facts.cluster_bits,
        1u64 << facts.cluster_bits,
        image.length(),
    );
    let compressed_mask = (1u64 << (62 - (bits - 8))) - 1;
    let check_entry = |entry: u64| -> Checked<()> {
        let start = if entry & (1 << 62) != 0 {
            entry & compressed_mask
        } else {
            let offset = entry & OFFSET;
            if !offset.is_multiple_of(cluster) {
                return lying("a data cluster is not where clusters can be");
            }
            offset
        };
        // The last cluster may end with the file.
        if start != 0 && start >= length {
            return truncated("data of the disk would lie beyond its end");
        }
        Ok(())
    };
    let l1 = |_, entry: [u8; 8]| -> Checked<()> {
        let l2 = u64::from_be_bytes(entry) & OFFSET;
        if l2 == 0 {
            return Ok(());
        }
        if !l2.is_multiple_of(cluster) {
            return lying("an L2 table is not where clusters can be");
        }
        if facts.extended_l2 {
            table::<16>(
                image,
                l2,
                facts.l2_entries(),
                "an L2 table",
                cancel,
                |_, e| check_entry(Fields(&e).be64(0)),
            )
        } else {
            table::<8>(
                image,
                l2,
                facts.l2_entries(),
                "an L2 table",
                cancel,
                |_, e| check_entry(u64::from_be_bytes(e)),
            )
        }
    };
    // get() proves the header is still there: an upload does not change while it is checked.
    get(image, 0, 72, "its header")?;
    table::<8>(
        image,
        facts.l1_offset,
        facts.l1_needed(),
        "its L1 table",
        cancel,
        l1,
    )
}
