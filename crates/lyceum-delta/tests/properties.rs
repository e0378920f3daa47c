//! Whatever is written is read back; whatever is changed is refused.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use lyceum_delta::*;
use lyceum_model::{Accelerator, MachineSize, Platform, ReleaseId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn platform() -> Platform {
    Platform {
        qemu_version: "10.0.2".into(),
        machine_type: "pc-i440fx-10.0".into(),
        cpu_model: "qemu64".into(),
        accelerator: Accelerator::Tcg,
    }
}

const SIZE: MachineSize = MachineSize {
    vcpus: 1,
    memory_mib: 64,
};
const RAM_PAGES: u64 = 64 * 256;

fn release() -> ReleaseId {
    "r1".parse().expect("valid")
}

fn description() -> Description {
    Description {
        release: release(),
        platform: platform(),
        size: SIZE,
        vm_generation_id: uuid::Uuid::from_u128(7),
        nic_mac: Some("52:54:00:00:00:01".into()),
    }
}

fn open(dir: &Path) -> Result<Delta, DeltaError> {
    Delta::open(
        dir,
        Expect {
            release: &release(),
            platform: &platform(),
            size: SIZE,
        },
    )
}

/// Pages are given as (number, seed of the content); seed 0 is a zero page.
fn content(seed: u8) -> Vec<u8> {
    (0..PAGE)
        .map(|i| if seed == 0 { 0 } else { seed ^ (i / 7) as u8 })
        .collect()
}

fn write(out: &Path, rounds: &[Vec<(u64, u8)>], overlay: Option<&[u8]>) -> Header {
    let writer = DeltaWriter::create(out).expect("create");
    let mut pages = writer
        .pages(BlockInfo {
            name: "ram".into(),
            bytes: RAM_PAGES * PAGE as u64,
        })
        .expect("pages");
    for round in rounds {
        for (page, seed) in round {
            pages.put(0, *page, &content(*seed)).expect("put");
        }
    }
    let mut blocks = writer
        .blocks(vec![BlockInfo {
            name: "vga.vram".into(),
            bytes: 8 * PAGE as u64,
        }])
        .expect("blocks");
    let vram: Vec<u8> = [content(9), content(9), content(0), content(4)].concat();
    blocks.put(0, 2, &vram).expect("put");
    if let Some(overlay) = overlay {
        std::fs::write(writer.overlay_path(), overlay).expect("overlay");
    }
    writer
        .finish(description(), pages, blocks, b"device state")
        .expect("finish")
}

fn read(file: &pagefile::PageFile) -> BTreeMap<(u32, u64), Vec<u8>> {
    let mut all = BTreeMap::new();
    file.for_each::<DeltaError>(|block, at, bytes| {
        for (i, page) in bytes.chunks(PAGE).enumerate() {
            all.insert((block, at / PAGE as u64 + i as u64), page.to_vec());
        }
        Ok(())
    })
    .expect("for_each");
    all
}

fn rounds() -> impl Strategy<Value = Vec<Vec<(u64, u8)>>> {
    let page = prop_oneof![0..40u64, RAM_PAGES - 20..RAM_PAGES];
    prop::collection::vec(prop::collection::vec((page, 0..12u8), 0..60), 1..4)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .expect("dir")
        .map(|e| e.expect("entry").path())
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_set_of_pages_comes_back_as_last_written(rounds in rounds()) {
        let dir = tempfile::tempdir().expect("tempdir");
        let out = dir.path().join("delta");
        write(&out, &rounds, None);
        let mut model = BTreeMap::new();
        for (page, seed) in rounds.iter().flatten() {
            model.insert((0u32, *page), content(*seed));
        }
        let delta = open(&out).expect("open");
        prop_assert_eq!(&read(delta.pages()), &model);
        let blocks = read(delta.blocks());
        prop_assert_eq!(blocks.keys().map(|k| k.1).collect::<Vec<_>>(), vec![2, 3, 4, 5]);
        prop_assert_eq!(&blocks[&(0, 5)], &content(4));
        // Equal pages are stored once, zero pages never.
        let distinct: std::collections::BTreeSet<u8> =
            rounds.iter().flatten().map(|(_, s)| *s).filter(|s| *s != 0).collect();
        if rounds.len() == 1 && rounds[0].len() == model.len() {
            prop_assert_eq!(delta.header().pages.slots, distinct.len() as u64);
        }
        prop_assert_eq!(files(dir.path()), vec![out]);
    }

    #[test]
    fn any_flipped_bit_is_refused(rounds in rounds(), file in 0..4usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let dir = tempfile::tempdir().expect("tempdir");
        let out = dir.path().join("delta");
        write(&out, &rounds, None);
        let file = files(&out)[file].clone();
        let mut bytes = std::fs::read(&file).expect("read");
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&file, bytes).expect("write");
        let error = open(&out).expect_err("a damaged delta was taken");
        prop_assert!(error.is_bad_delta(), "{}", error);
    }

    #[test]
    fn any_truncation_or_extension_is_refused(rounds in rounds(), file in 0..4usize, at in any::<prop::sample::Index>(), longer in any::<bool>()) {
        let dir = tempfile::tempdir().expect("tempdir");
        let out = dir.path().join("delta");
        write(&out, &rounds, None);
        let file = files(&out)[file].clone();
        let mut bytes = std::fs::read(&file).expect("read");
        prop_assume!(!bytes.is_empty());
        if longer { bytes.push(0) } else { bytes.truncate(at.index(bytes.len())) }
        std::fs::write(&file, bytes).expect("write");
        let error = open(&out).expect_err("a cut delta was taken");
        prop_assert!(error.is_bad_delta(), "{}", error);
    }

    #[test]
    fn any_text_as_header_is_an_error(text in ".{0,300}") {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join(HEADER_FILE), text).expect("write");
        prop_assert!(open(dir.path()).is_err());
    }
}

#[test]
fn other_release_platform_and_size_are_told_apart() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join("delta");
    write(&out, &[vec![(1, 1)]], None);
    let other = "r2".parse().expect("valid");
    let (release, here) = (release(), platform());
    let open = |release, platform: &Platform, size| {
        Delta::open(
            &out,
            Expect {
                release,
                platform,
                size,
            },
        )
    };
    assert!(matches!(
        open(&other, &here, SIZE),
        Err(DeltaError::OtherRelease { .. })
    ));
    let newer = Platform {
        qemu_version: "10.1.0".into(),
        ..platform()
    };
    let error = open(&release, &newer, SIZE).expect_err("taken");
    assert!(
        error
            .to_string()
            .contains("QEMU is 10.1.0 here, 10.0.2 there"),
        "{error}"
    );
    let kvm = Platform {
        accelerator: Accelerator::Kvm,
        ..platform()
    };
    assert!(matches!(
        open(&release, &kvm, SIZE),
        Err(DeltaError::OtherPlatform(_))
    ));
    let larger = MachineSize {
        memory_mib: 128,
        ..SIZE
    };
    assert!(matches!(
        open(&release, &here, larger),
        Err(DeltaError::OtherSize { .. })
    ));
    open(&release, &here, SIZE).expect("the right one");
}

#[test]
fn a_newer_format_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(
        dir.path().join(HEADER_FILE),
        r#"{"header":{"format":2,"new":1},"blake3":""}"#,
    )
    .expect("write");
    assert!(matches!(
        open(dir.path()),
        Err(DeltaError::Format { found: 2, known: 1 })
    ));
}

#[test]
fn an_overlay_is_verified_where_it_is_used() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join("delta");
    let header = write(&out, &[vec![]], Some(b"overlay"));
    open(&out).expect("open");
    Delta::verify_overlay(&header, &out.join(OVERLAY_FILE)).expect("verify");
    std::fs::write(out.join(OVERLAY_FILE), b"overlax").expect("write");
    assert!(Delta::verify_overlay(&header, &out.join(OVERLAY_FILE)).is_err());
    std::fs::write(out.join(OVERLAY_FILE), b"overla").expect("write");
    assert!(matches!(open(&out), Err(DeltaError::Length { .. })));
}

#[test]
fn an_unfinished_delta_leaves_nothing_and_an_old_remainder_does_not_matter() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join("delta");
    std::fs::create_dir(dir.path().join("delta.partial")).expect("mkdir");
    std::fs::write(dir.path().join("delta.partial/pages"), b"old").expect("write");
    drop(DeltaWriter::create(&out).expect("create"));
    assert!(files(dir.path()).is_empty());
    write(&out, &[vec![(0, 1)]], None);
    assert!(
        DeltaWriter::create(&out).is_err(),
        "an existing delta would be written over"
    );
    open(&out).expect("still there");
}
