//! Garbage from either side: never a panic, never much memory.

use crate::picture::Picture;
use crate::server::{KINDS, Server};
use crate::switch::{feed, read, told, welcomed};
use lyceum_console::client::{CUT_TEXT_MAX, ClientParser};
use lyceum_console::server::HOLD_MAX;
use lyceum_console::{Mode, Session};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Attach,
    Detach,
    Read,
    Tell,
}

// Bytes that often look like the beginning of something.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            3 => any::<u8>().prop_map(|b| vec![b]),
            1 => Just(b"RFB 003.008\n".to_vec()),
            1 => Just(vec![0, 0, 0, 1]),
            1 => Just(vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 16, 0, 16, 0, 0, 0, 7]),
            1 => Just(vec![0, 0, 0, 9, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 5]),
            1 => Just(vec![0, 0, 0, 9, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]),
            1 => Just(vec![1, 1]),
            1 => Just(vec![6, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
            1 => Just(vec![2, 0, 0xff, 0xff]),
            1 => Just(vec![255, 1, 0, 2]),
            1 => Just(vec![0; 40]),
        ],
        0..30,
    )
    .prop_map(|parts| parts.concat())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => noise().prop_map(Step::Client),
            4 => noise().prop_map(Step::Server),
            1 => Just(Step::Attach),
            1 => Just(Step::Detach),
            2 => Just(Step::Read),
            2 => Just(Step::Tell),
        ],
        0..60,
    )
}

fn play(session: &mut Session, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Client(bytes) => {
                if session.from_client(&bytes).is_err() {
                    return;
                }
            }
            Step::Server(bytes) => {
                if session.wants_server() && session.from_server(bytes.into()).is_err() {
                    session.detach();
                }
            }
            Step::Attach => session.attach(true, Some(3)),
            Step::Detach => session.detach(),
            Step::Read => drop(read(session)),
            Step::Tell => drop(told(session)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn noise_from_the_first_byte(steps in steps()) {
        play(&mut Session::new(Mode::default()), steps);
    }

    #[test]
    fn noise_after_the_handshake(steps in steps()) {
        let server = Server::new(Picture::new(64, 64, 0), 3);
        let (mut session, _) = welcomed(&server, &[-224, -223, -308]);
        play(&mut session, steps);
    }

    #[test]
    fn a_good_stream_with_a_few_bad_bytes(
        seed in 1u64..u64::MAX,
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kinds in prop::collection::vec(0usize..KINDS.len(), 1..6),
    ) {
        let mut server = Server::new(Picture::new(80, 60, 0), seed);
        let (mut session, _) = welcomed(&server, &[-224]);
        told(&mut session);
        let kinds: Vec<_> = kinds.iter().map(|k| KINDS[*k]).collect();
        let mut stream = server.update(&kinds, false);
        for (at, byte) in harm {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        for part in stream.chunks(777) {
            if session.from_server(part.to_vec().into()).is_err() {
                break;
            }
        }
        session.detach();
        read(&mut session);
        // Another server makes it whole again.
        session.attach(true, None);
        feed(&mut session, &server.hello());
        feed(&mut session, &server.whole(true));
    }
}

#[test]
fn an_endless_rectangle_is_passed_on_and_not_held() {
    let server = Server::new(
        Picture {
            width: 0xffff,
            height: 0xffff,
            pixels: Vec::new(),
        },
        3,
    );
    let mut session = Session::new(Mode {
        let_in: true,
        ..Mode::default()
    });
    session.from_client(&[1]).unwrap();
    session.attach(false, None);
    feed(&mut session, &server.hello());
    read(&mut session);
    told(&mut session);
    // 17 GB of raw pixels begin.
    let head = [0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    feed(&mut session, &head);
    let block = vec![7u8; 64 * 1024];
    let mut given = 0;
    while session.wants_server() {
        feed(&mut session, &block);
        given += block.len();
        assert!(
            given <= 2 * HOLD_MAX,
            "a client that reads nothing holds {given} bytes"
        );
    }
    // It reads on: the rest comes, in portions.
    for _ in 0..100 {
        read(&mut session);
        assert!(session.wants_server());
        feed(&mut session, &block);
    }
}

#[test]
fn endless_texts_are_skipped() {
    let server = Server::new(Picture::new(16, 16, 0), 3);
    let (mut session, _) = welcomed(&server, &[]);
    told(&mut session);
    let mut text = vec![3, 0, 0, 0, 0x40, 0, 0, 0];
    text.resize(8 + (1 << 20), 65);
    feed(&mut session, &text);
    assert!(session.wants_server());
    assert!(read(&mut session).is_empty());

    let mut parser = ClientParser::default();
    parser.push(&[6, 0, 0, 0, 0, 0x10, 0, 0]);
    for _ in 0..1024 {
        parser.push(&[65; 1024]);
        assert_eq!(parser.next(), Ok(None));
        assert!(parser.held() <= CUT_TEXT_MAX);
    }
    parser.push(&[5, 0, 0, 1, 0, 1]);
    assert!(
        parser.next().unwrap().is_some(),
        "what follows is understood"
    );
}

#[test]
fn a_client_that_lists_every_encoding_there_is_is_refused() {
    let mut parser = ClientParser::default();
    parser.push(&[2, 0, 0xff, 0xff]);
    assert!(parser.next().is_err());
}

#[test]
fn compressed_rectangles_of_impossible_length_end_the_server() {
    let server = Server::new(Picture::new(1000, 1000, 0), 3);
    let (mut session, _) = welcomed(&server, &[]);
    told(&mut session);
    let mut head = vec![0, 0, 0, 1, 0, 0, 0, 0, 3, 0xe8, 3, 0xe8, 0, 0, 0, 7];
    head.extend([0, 0xff, 0xff, 0xff]);
    assert!(session.from_server(head.into()).is_err());
}
