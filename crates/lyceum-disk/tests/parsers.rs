//! The header parsers under fire: whatever the bytes, they answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::qemu_img;
use lyceum_disk::Cancel;
use lyceum_disk::inspect::{Limits, inspect};
use proptest::prelude::*;
use std::sync::OnceLock;

const NAMES: [&str; 7] = [
    "a.qcow2", "a.vmdk", "a.vhdx", "a.vdi", "a.raw", "a.iso", "a",
];

fn look(bytes: &[u8], name: &str) -> bool {
    let limits = Limits {
        max_virtual_bytes: 64 << 30,
    };
    inspect(&bytes, name, limits, &Cancel::new()).is_ok()
}

/// Good images whose bytes are then changed, so that the parsers are reached deep inside.
fn seeds() -> &'static Vec<(&'static str, Vec<u8>)> {
    static SEEDS: OnceLock<Vec<(&'static str, Vec<u8>)>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        std::fs::write(&raw, vec![1u8; 300_000]).unwrap();
        let mut out = Vec::new();
        for (name, format, options) in [
            ("a.qcow2", "qcow2", "cluster_size=4k"),
            ("a.qcow2", "qcow2", "extended_l2=on"),
            ("a.vmdk", "vmdk", "subformat=monolithicSparse"),
            ("a.vmdk", "vmdk", "subformat=streamOptimized"),
            ("a.vdi", "vdi", "static=off"),
            ("a.vhdx", "vhdx", "block_size=1M"),
        ] {
            let path = folder.path().join(name);
            qemu_img(&[
                "convert",
                "-f",
                "raw",
                "-O",
                format,
                "-o",
                options,
                raw.to_str().unwrap(),
                path.to_str().unwrap(),
            ]);
            let bytes = std::fs::read(&path).unwrap();
            assert!(look(&bytes, name), "{name} {options}");
            out.push((name, bytes));
        }
        out
    })
}

/// Where headers and tables are: the first bytes of these places are changed most.
const PLACES: [usize; 10] = [
    0,
    340,
    512,
    1024,
    4096,
    64 << 10,
    128 << 10,
    192 << 10,
    2 << 20,
    3 << 20,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..4096), name in 0..NAMES.len()) {
        look(&bytes, NAMES[name]);
    }

    #[test]
    fn changed_images_are_answered(
        seed in 0..6usize,
        changes in prop::collection::vec((0..PLACES.len(), 0..256usize, prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..9usize), 1..6),
        cut in prop::option::of(0..4_000_000usize),
    ) {
        let (name, bytes) = &seeds()[seed];
        let mut bytes = bytes.clone();
        for (place, offset, value, count) in changes {
            let at = PLACES[place] + offset;
            for byte in bytes.iter_mut().skip(at).take(count) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        look(&bytes, name);
    }
}
