use super::*;
use lyceum_model::Accelerator;
use proptest::prelude::*;

fn header(pages: u64) -> StreamHeader {
    StreamHeader {
        format: FORMAT,
        release: "r1".parse().expect("id"),
        platform: Platform {
            qemu_version: "10.0.2".into(),
            machine_type: "pc".into(),
            cpu_model: "qemu64".into(),
            accelerator: Accelerator::Tcg,
        },
        size: MachineSize {
            vcpus: 1,
            memory_mib: 64,
        },
        vm_generation_id: uuid::Uuid::nil(),
        nic_mac: None,
        blocks: vec![
            BlockInfo {
                name: "ram".into(),
                bytes: 64 << 20,
            },
            BlockInfo {
                name: "vga".into(),
                bytes: pages * PAGE as u64,
            },
        ],
    }
}

/// What a receiver holds after the whole stream, by block and page.
type Memory = std::collections::BTreeMap<(u32, u64), u8>;

fn receive(stream: &[u8]) -> Result<(Memory, Vec<u8>), DeltaError> {
    let mut reader = StreamReader::begin(stream)?;
    let (mut memory, mut device) = (Memory::new(), Vec::new());
    loop {
        match reader.piece()? {
            Piece::Pages {
                block,
                offset,
                bytes,
            } => {
                assert_eq!(offset % PAGE as u64, 0);
                for (n, page) in bytes.chunks(PAGE).enumerate() {
                    assert!(page.iter().all(|b| *b == page[0]));
                    memory.insert((block, offset / PAGE as u64 + n as u64), page[0]);
                }
            }
            Piece::State(state) => device = state.to_vec(),
            Piece::End => return Ok((memory, device)),
        }
    }
}

fn sample() -> Vec<u8> {
    let mut out = StreamWriter::begin(Vec::new(), header(16)).expect("begin");
    out.put(0, 3, &[7u8; 2 * PAGE], 3..5).expect("put");
    out.put(1, 0, &[0u8; 16 * PAGE], 0..16).expect("put");
    out.put(0, 3, &[9u8; PAGE], 3..4).expect("put");
    out.finish(b"devices").expect("finish").0
}

#[test]
fn only_the_wanted_pages_are_sent() {
    let mut out = StreamWriter::begin(Vec::new(), header(4)).expect("begin");
    let mut data = [1u8; 6 * PAGE];
    data[4 * PAGE..].fill(0);
    out.put(0, 5, &data, [5, 6, 8, 9, 10]).expect("put");
    out.put(0, 5, &data, []).expect("put");
    assert_eq!(out.so_far().1, 5);
    for outside in [4, 11, u64::MAX] {
        assert!(out.put(0, 5, &data, [outside]).is_err());
    }
    let (stream, ..) = out.finish(b"d").expect("finish");
    let (memory, _) = receive(&stream).expect("receive");
    let came: Vec<_> = memory
        .into_iter()
        .map(|((_, page), value)| (page, value))
        .collect();
    assert_eq!(came, [(5, 1), (6, 1), (8, 1), (9, 0), (10, 0)]);
}

#[test]
fn every_cut_and_every_flipped_byte_is_seen() {
    let whole = sample();
    let (memory, device) = receive(&whole).expect("whole");
    assert_eq!((memory[&(0, 3)], memory[&(0, 4)]), (9, 7));
    assert_eq!(device, b"devices");
    for cut in (0..whole.len()).step_by(61) {
        assert!(receive(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in (0..whole.len()).step_by(61) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        // A page that is not of one value any more is damage too; only the sum tells at the end.
        let seen = std::panic::catch_unwind(|| receive(&bytes).is_err());
        assert!(seen.unwrap_or(true), "flipped at {at}");
    }
}

proptest! {
    #[test]
    fn the_receiver_ends_with_what_was_put_last(
        puts in proptest::collection::vec((0u32..2, 0u64..60, 1usize..9, 0u8..4), 0..40)
    ) {
        let mut out = StreamWriter::begin(Vec::new(), header(70)).expect("begin");
        let mut model = Memory::new();
        for (block, first, pages, value) in puts {
            out.put(block, first, &vec![value; pages * PAGE], first..first + pages as u64).expect("put");
            for n in 0..pages as u64 {
                model.insert((block, first + n), value);
            }
        }
        let (stream, bytes, _) = out.finish(b"d").expect("finish");
        prop_assert_eq!(bytes as usize, stream.len());
        let (memory, _) = receive(&stream).expect("receive");
        prop_assert_eq!(memory, model);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut stream = sample();
        stream.truncate(400);
        stream.extend(&bytes);
        if let Ok(mut reader) = StreamReader::begin(stream.as_slice()) {
            for _ in 0..100 {
                match reader.piece() {
                    Ok(Piece::End) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
    }
}
