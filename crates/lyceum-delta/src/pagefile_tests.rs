//! Tables that a correct writer never writes, with a correct checksum.

use super::*;

fn part(runs: u64, slots: u64) -> PagePart {
    PagePart {
        blocks: vec![
            BlockInfo {
                name: "ram".into(),
                bytes: 16 * PAGE as u64,
            },
            BlockInfo {
                name: "vga".into(),
                bytes: 4 * PAGE as u64,
            },
        ],
        slots,
        runs,
        slots_blake3: String::new(),
        runs_blake3: String::new(),
    }
}

fn run(block: u32, first: u64, pages: u32, slot: Option<u64>) -> Run {
    Run {
        block,
        pages,
        first,
        slot,
    }
}

fn check(slots: u64, runs: &[Run]) -> Result<(), String> {
    check_runs(Path::new("pages"), &part(runs.len() as u64, slots), runs).map_err(|e| e.to_string())
}

#[test]
fn hostile_tables_are_refused() {
    for (slots, runs, why) in [
        (1, vec![run(2, 0, 1, None)], "block that does not exist"),
        (1, vec![run(0, 16, 1, None)], "outside of its RAM block"),
        (
            1,
            vec![run(0, u64::MAX, 1, None)],
            "outside of its RAM block",
        ),
        (
            1,
            vec![run(0, 0, u32::MAX, None)],
            "outside of its RAM block",
        ),
        (1, vec![run(0, 0, 0, None)], "outside of its RAM block"),
        (1, vec![run(0, 0, 2, Some(0))], "outside of the file"),
        (
            1,
            vec![run(0, 0, 1, Some(u64::MAX - 1))],
            "outside of the file",
        ),
        (
            9,
            vec![run(0, 0, 4, Some(0)), run(0, 3, 1, Some(5))],
            "overlap",
        ),
        (
            9,
            vec![run(1, 0, 1, Some(0)), run(0, 3, 1, Some(5))],
            "overlap",
        ),
    ] {
        let error = check(slots, &runs).expect_err("taken");
        assert!(error.contains(why), "{runs:?}: {error}");
    }
    assert_eq!(
        check(
            4,
            &[
                run(0, 0, 4, Some(0)),
                run(0, 4, 12, None),
                run(1, 0, 4, Some(0))
            ]
        ),
        Ok(())
    );
}

#[test]
fn a_run_survives_its_encoding() {
    for before in [run(1, 2, 3, Some(4)), run(u32::MAX, u64::MAX - 7, 9, None)] {
        let mut bytes = Vec::new();
        before.encode(&mut bytes);
        let bytes: [u8; RUN_BYTES] = bytes.try_into().expect("24 bytes");
        assert_eq!(Run::decode(&bytes), before);
    }
}
