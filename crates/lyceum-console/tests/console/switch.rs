//! Servers come and go behind a client, at any byte.

use crate::picture::Picture;
use crate::server::{KINDS, Kind, Server};
use crate::viewer::Viewer;
use lyceum_console::{Mode, Session};
use proptest::prelude::*;
use std::time::Instant;

pub const LAST_RECT: i32 = -224;
pub const DESKTOP_SIZE: i32 = -223;
pub const EXTENDED: i32 = -308;
/// What noVNC would list, and ZRLE, which must not get through.
pub const ENCODINGS: [i32; 9] = [1, 7, 16, 5, 2, 0, -239, -261, 6];

pub fn set_encodings(list: &[i32]) -> Vec<u8> {
    let mut out = vec![2, 0];
    out.extend((list.len() as u16).to_be_bytes());
    for code in list {
        out.extend(code.to_be_bytes());
    }
    out
}

pub fn ask(incremental: bool, w: u16, h: u16) -> Vec<u8> {
    let mut out = vec![3, u8::from(incremental), 0, 0, 0, 0];
    out.extend(w.to_be_bytes());
    out.extend(h.to_be_bytes());
    out
}

/// Everything that is ready for the client.
pub fn read(session: &mut Session) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(piece) = session.to_client() {
        out.extend_from_slice(&piece);
    }
    session.client_drained();
    out
}

/// Everything that is to be said to the server now.
pub fn told(session: &mut Session) -> Vec<u8> {
    session.advance(Instant::now());
    let out = session.to_server().to_vec();
    session.wrote(out.len());
    out
}

pub fn feed(session: &mut Session, bytes: &[u8]) {
    session
        .from_server(bytes::Bytes::copy_from_slice(bytes))
        .unwrap();
}

/// A session whose client has been welcomed by this server.
pub fn welcomed(server: &Server, more: &[i32]) -> (Session, Viewer) {
    let mut session = Session::new(Mode::default());
    assert_eq!(read(&mut session), b"RFB 003.008\n");
    session.from_client(b"RFB 003.008\n").unwrap();
    assert_eq!(read(&mut session), [1, 1]);
    session.from_client(&[1, 1]).unwrap();
    assert_eq!(read(&mut session), [0; 4], "no size is known yet");
    session.attach(false, None);
    feed(&mut session, &server.hello());
    let init = read(&mut session);
    assert_eq!(init.len(), 24 + 4);
    assert_eq!(&init[24..], b"test");
    assert_eq!(told(&mut session), b"RFB 003.008\n\x01\x01");
    let list: Vec<i32> = ENCODINGS.iter().chain(more).copied().collect();
    session.from_client(&set_encodings(&list)).unwrap();
    let p = &server.picture;
    session.from_client(&ask(false, p.width, p.height)).unwrap();
    (session, Viewer::new(Picture::new(p.width, p.height, 0)))
}

/// Has another server take over, and shows its whole picture.
fn take_over(session: &mut Session, viewer: &mut Viewer, server: &mut Server, tight: bool) {
    session.attach(true, None);
    feed(session, &server.hello());
    viewer.follow(&read(session)).unwrap();
    let (w, h) = (server.picture.width, server.picture.height);
    session.from_client(&ask(true, w, h)).unwrap();
    let said = told(session);
    assert!(
        said.ends_with(&ask(false, w, h)),
        "a whole picture is asked for: {said:?}"
    );
    assert!(session.is_waiting());
    feed(session, &server.whole(tight));
    viewer.follow(&read(session)).unwrap();
    assert!(!session.is_waiting());
}

#[test]
fn encodings_with_state_are_not_offered_to_servers() {
    let server = Server::new(Picture::new(32, 32, 0), 1);
    let (mut session, _) = welcomed(&server, &[]);
    let mut expected = set_encodings(&[1, 7, 5, 2, 0, -239, -261]);
    expected.extend(ask(false, 32, 32));
    assert_eq!(told(&mut session), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_server_may_vanish_at_any_byte_and_another_goes_on(
        seed in 1u64..u64::MAX,
        updates in prop::collection::vec((prop::collection::vec(0usize..KINDS.len(), 0..5), any::<bool>()), 1..6),
        cut in 0.0f64..1.0,
        chunk in 1usize..3000,
        knows_last in any::<bool>(),
        tight in any::<bool>(),
        rounds in 1usize..4,
    ) {
        let mut server = Server::new(Picture::new(100, 70, 0x102030), seed);
        let more: &[i32] = if knows_last { &[LAST_RECT] } else { &[] };
        let (mut session, mut viewer) = welcomed(&server, more);
        told(&mut session);
        feed(&mut session, &server.whole(tight));
        viewer.follow(&read(&mut session)).unwrap();
        prop_assert_eq!(&viewer.picture, &server.picture);
        for round in 0..rounds {
            let mut stream = Vec::new();
            for (kinds, last) in &updates {
                let kinds: Vec<Kind> = kinds.iter().map(|k| KINDS[*k]).collect();
                stream.extend(server.update(&kinds, *last && knows_last));
            }
            let all = round == 0;
            let end = if all { stream.len() } else { (stream.len() as f64 * cut) as usize };
            for part in stream[..end].chunks(chunk) {
                feed(&mut session, part);
            }
            if all {
                viewer.follow(&read(&mut session)).unwrap();
                prop_assert_eq!(&viewer.picture, &server.picture);
            }
            session.detach();
            // Whatever came, the client is between two messages.
            viewer.follow(&read(&mut session)).unwrap();
            let picture = server.picture.clone();
            server = Server::new(picture, seed.rotate_left(7 + round as u32));
            take_over(&mut session, &mut viewer, &mut server, tight);
            prop_assert_eq!(&viewer.picture, &server.picture);
        }
    }
}

#[test]
fn a_picture_too_large_to_be_held_is_ended_by_what_the_next_one_covers() {
    // 1.2 MB of raw pixels and of hextile.
    for kind in [Kind::Raw, Kind::Hextile] {
        for cut in [100, 300_000, 500_000] {
            let mut server = Server::new(Picture::new(640, 480, 0x445566), 9);
            let (mut session, mut viewer) = welcomed(&server, &[]);
            told(&mut session);
            let mut stream = Vec::new();
            // A rectangle of random size: large enough after some tries.
            while stream.len() < cut + 1000 {
                stream = server.update(&[kind, Kind::Raw], false);
            }
            for part in stream[..cut].chunks(8192) {
                feed(&mut session, part);
                viewer.follow(&read(&mut session)).ok();
            }
            session.detach();
            viewer.follow(&read(&mut session)).unwrap();
            let mut next = Server::new(server.picture.clone(), 11);
            take_over(&mut session, &mut viewer, &mut next, false);
            assert_eq!(viewer.picture, next.picture);
        }
    }
}

#[test]
fn the_next_server_may_have_another_size() {
    for (more, told_size) in [
        (&[EXTENDED][..], true),
        (&[DESKTOP_SIZE][..], true),
        (&[][..], false),
    ] {
        let mut first = Server::new(Picture::new(64, 64, 1), 3);
        let (mut session, mut viewer) = welcomed(&first, more);
        told(&mut session);
        feed(&mut session, &first.whole(true));
        viewer.follow(&read(&mut session)).unwrap();

        let mut next = Server::new(Picture::new(96, 80, 0x777777), 5);
        session.attach(false, None);
        feed(&mut session, &next.hello());
        viewer.follow(&read(&mut session)).unwrap();
        session.from_client(&ask(true, 64, 64)).unwrap();
        let said = told(&mut session);
        if told_size {
            assert_eq!((viewer.picture.width, viewer.picture.height), (96, 80));
            feed(&mut session, &next.whole(true));
            viewer.follow(&read(&mut session)).unwrap();
            assert_eq!(viewer.picture, next.picture);
        } else {
            // It is asked for what the client has room for; what lies beyond is left out.
            assert!(said.ends_with(&ask(false, 64, 64)));
            assert!(
                !said.windows(4).any(|w| w == 7i32.to_be_bytes()),
                "no Tight: {said:?}"
            );
            feed(&mut session, &next.whole(false));
            viewer.follow(&read(&mut session)).unwrap();
            assert_eq!((viewer.picture.width, viewer.picture.height), (64, 64));
        }
    }
}

#[test]
fn what_the_client_agreed_upon_is_told_to_the_next_server() {
    let mut first = Server::new(Picture::new(16, 16, 0), 3);
    let (mut session, mut viewer) = welcomed(&first, &[]);
    told(&mut session);
    feed(&mut session, &first.whole(false));
    viewer.follow(&read(&mut session)).unwrap();
    let next = Server::new(Picture::new(16, 16, 9), 4);
    session.attach(true, None);
    feed(&mut session, &next.hello());
    session.from_client(&ask(true, 16, 16)).unwrap();
    let mut expected = b"RFB 003.008\n\x01\x01".to_vec();
    expected.extend(set_encodings(&[1, 7, 5, 2, 0, -239, -261]));
    expected.extend(ask(false, 16, 16));
    assert_eq!(told(&mut session), expected);
}

#[test]
fn a_request_that_was_not_answered_is_made_again() {
    let server = Server::new(Picture::new(16, 16, 0), 3);
    let (mut session, _) = welcomed(&server, &[]);
    assert!(told(&mut session).ends_with(&ask(false, 16, 16)));
    session.detach();
    read(&mut session);
    session.attach(true, None);
    feed(&mut session, &server.hello());
    read(&mut session);
    // The client asks no second time: it waits for its answer.
    assert!(told(&mut session).ends_with(&ask(false, 16, 16)));
}

#[test]
fn a_client_that_does_not_read_is_not_asked_for() {
    let mut server = Server::new(Picture::new(64, 64, 0), 3);
    let (mut session, mut viewer) = welcomed(&server, &[]);
    told(&mut session);
    feed(&mut session, &server.whole(false));
    session.from_client(&ask(true, 64, 64)).unwrap();
    assert!(
        told(&mut session).is_empty(),
        "the picture was not read yet"
    );
    let bytes = {
        let mut out = Vec::new();
        while let Some(piece) = session.to_client() {
            out.extend_from_slice(&piece);
        }
        out
    };
    viewer.follow(&bytes).unwrap();
    assert!(told(&mut session).is_empty(), "it may still be on its way");
    session.client_drained();
    assert_eq!(told(&mut session), ask(true, 64, 64));
}

#[test]
fn pixels_that_change_in_mid_stream_cost_a_new_server() {
    let mut server = Server::new(Picture::new(64, 64, 0), 3);
    let (mut session, _) = welcomed(&server, &[]);
    told(&mut session);
    let mut format = *lyceum_console::protocol::PixelFormat::COMMON.raw();
    format[10] = 0;
    format[12] = 16;
    let mut message = vec![0; 4];
    message.extend(format);
    session.from_client(&message).unwrap();
    assert!(session.wants_another_server());
    session.attach(true, None);
    feed(&mut session, &server.hello());
    let said = told(&mut session);
    assert!(said.windows(16).any(|w| w == format), "{said:?}");
    feed(&mut session, &server.whole(false));
}

#[test]
fn older_clients_and_those_that_are_let_in_already_shake_hands() {
    let server = Server::new(Picture::new(16, 16, 0), 3);
    for (version, security) in [("3", false), ("7", true)] {
        let mut session = Session::new(Mode::default());
        read(&mut session);
        session
            .from_client(format!("RFB 003.00{version}\n").as_bytes())
            .unwrap();
        if security {
            assert_eq!(read(&mut session), [1, 1]);
            session.from_client(&[1]).unwrap();
        } else {
            assert_eq!(read(&mut session), [0, 0, 0, 1]);
        }
        session.from_client(&[1]).unwrap();
        session.attach(false, None);
        feed(&mut session, &server.hello());
        assert_eq!(read(&mut session).len(), 28, "{version}");
    }
    let mut session = Session::new(Mode {
        let_in: true,
        ..Mode::default()
    });
    assert_eq!(read(&mut session), [0; 4]);
    session.from_client(&[1]).unwrap();
    session.attach(false, None);
    feed(&mut session, &server.hello());
    assert_eq!(read(&mut session).len(), 28);
}
