//! Keys and clicks while servers come and go.

use crate::picture::Picture;
use crate::server::Server;
use crate::switch::{feed, read, told, welcomed};
use bytes::BytesMut;
use lyceum_console::input::{HELD_MAX, InputQueue};
use lyceum_console::protocol::{Input, Key};
use lyceum_console::{Mode, Session};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn key(down: bool, keysym: u32) -> Input {
    Input::Key {
        down,
        key: Key {
            keysym,
            keycode: None,
        },
    }
}

const SHIFT: u32 = 0xffe1;

/// Events as a server reads them.
fn events(mut bytes: &[u8]) -> Vec<Input> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let n = match bytes[0] {
            4 => {
                out.push(key(
                    bytes[1] != 0,
                    u32::from_be_bytes(bytes[4..8].try_into().unwrap()),
                ));
                8
            }
            5 => {
                out.push(Input::Pointer {
                    buttons: bytes[1],
                    x: u16::from_be_bytes([bytes[2], bytes[3]]),
                    y: u16::from_be_bytes([bytes[4], bytes[5]]),
                });
                6
            }
            other => panic!("message {other}"),
        };
        bytes = &bytes[n..];
    }
    out
}

/// A machine that servers show one after another; each lets go of its keys at the end.
#[derive(Default)]
struct Machine {
    typed: Vec<u32>,
    down: Vec<u32>,
    server_down: Vec<u32>,
    buttons: u8,
    clicks: Vec<(u16, u16)>,
}

impl Machine {
    fn hear(&mut self, event: &Input) {
        match event {
            Input::Key { down, key } => {
                let known = self.server_down.contains(&key.keysym);
                if *down {
                    if !key.is_modifier() {
                        self.typed.push(key.keysym);
                    }
                    if !known {
                        self.server_down.push(key.keysym);
                        self.down.push(key.keysym);
                    }
                } else if known {
                    // As QEMU does, a key that it knows nothing of is not let go.
                    self.server_down.retain(|k| *k != key.keysym);
                    self.down.retain(|k| *k != key.keysym);
                }
            }
            Input::Pointer { buttons, x, y } => {
                if buttons & 1 != 0 && self.buttons & 1 == 0 {
                    self.clicks.push((*x, *y));
                }
                self.buttons = *buttons;
            }
            Input::CutText(_) => {}
        }
    }

    fn server_ends(&mut self) {
        for k in self.server_down.drain(..) {
            self.down.retain(|d| *d != k);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Type(u32),
    Press(u32),
    Release(u32),
    Click(u16, u16),
    // Time passes and what may be said is; only a part is read by the server before it is lost.
    Advance(u64),
    Lose(usize),
    Find,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let letter = 0x61u32..0x7b;
    prop::collection::vec(
        prop_oneof![
            4 => letter.clone().prop_map(Step::Type),
            1 => prop_oneof![Just(SHIFT), letter.clone()].prop_map(Step::Press),
            1 => prop_oneof![Just(SHIFT), letter].prop_map(Step::Release),
            2 => (0u16..50, 0u16..50).prop_map(|(x, y)| Step::Click(x, y)),
            3 => (0u64..60).prop_map(Step::Advance),
            1 => (0usize..40).prop_map(Step::Lose),
            2 => Just(Step::Find),
        ],
        1..120,
    )
}

proptest! {
    #[test]
    fn every_key_and_click_arrives_once_and_in_order_and_none_sticks(steps in steps()) {
        let mut queue = InputQueue::default();
        let mut machine = Machine::default();
        let start = Instant::now();
        let mut now = start;
        let mut attached = false;
        // What is written to this server, and how much of it was handed to the machine.
        let mut written: Vec<u8> = Vec::new();
        let mut read_by_server = 0usize;
        let mut held: Vec<u32> = Vec::new();
        let (mut typed, mut clicks) = (Vec::new(), Vec::new());
        let mut all = steps;
        all.push(Step::Find);
        for _ in 0..400 {
            all.push(Step::Advance(40));
        }
        for step in all {
            match step {
                Step::Type(k) => {
                    if held.contains(&k) { continue; }
                    typed.push(k);
                    queue.push(key(true, k));
                    queue.push(key(false, k));
                }
                Step::Press(k) => {
                    if held.contains(&k) { continue; }
                    held.push(k);
                    if k != SHIFT { typed.push(k); }
                    queue.push(key(true, k));
                }
                Step::Release(k) => {
                    held.retain(|h| *h != k);
                    queue.push(key(false, k));
                }
                Step::Click(x, y) => {
                    clicks.push((x, y));
                    for buttons in [0, 1, 0] {
                        queue.push(Input::Pointer { buttons, x, y });
                    }
                }
                Step::Advance(ms) => {
                    now += Duration::from_millis(ms);
                    if attached {
                        let mut out = BytesMut::new();
                        queue.advance(now, written.len() as u64, &mut out);
                        written.extend_from_slice(&out);
                    }
                }
                Step::Lose(unread) if attached => {
                    attached = false;
                    // The server read whole messages only, and not the last of them.
                    let news = events(&written[read_by_server..]);
                    let keep = news.len().saturating_sub(unread);
                    let mut taken = read_by_server;
                    for event in &news[..keep] {
                        machine.hear(event);
                        taken += if matches!(event, Input::Key { .. }) { 8 } else { 6 };
                    }
                    machine.server_ends();
                    queue.lost(taken as u64);
                }
                Step::Find if !attached => {
                    attached = true;
                    written.clear();
                    read_by_server = 0;
                    let mut out = BytesMut::new();
                    queue.found(true, 0, &mut out);
                    written.extend_from_slice(&out);
                }
                Step::Lose(_) | Step::Find => {}
            }
        }
        for event in events(&written[read_by_server..]) {
            machine.hear(&event);
        }
        prop_assert_eq!(machine.typed, typed);
        prop_assert_eq!(machine.clicks, clicks);
        prop_assert_eq!(machine.buttons, 0);
        for k in &machine.down {
            prop_assert!(held.contains(k), "{:x} sticks", k);
        }
        if held.contains(&SHIFT) {
            prop_assert!(machine.down.contains(&SHIFT), "Shift is held but the machine lost it");
        }
    }
}

#[test]
fn keys_are_given_on_at_a_pace_that_a_keyboard_bears() {
    let mut queue = InputQueue::default();
    for k in 0..20 {
        queue.push(key(true, 0x61 + k));
    }
    let mut now = Instant::now();
    let mut out = BytesMut::new();
    queue.found(false, 0, &mut out);
    let again = queue.advance(now, 0, &mut out).expect("more later");
    let first = events(&out).len();
    assert!(first < 4, "{first} at once");
    assert!(again > now && again <= now + Duration::from_millis(20));
    let mut rounds = 0;
    while queue.waiting() > 0 {
        now += Duration::from_millis(20);
        queue.advance(now, 0, &mut out);
        rounds += 1;
    }
    assert!(rounds >= 12, "{rounds}");
    assert_eq!(events(&out).len(), 20);
}

#[test]
fn too_much_is_bounded_and_no_key_is_left_down_by_it() {
    let mut queue = InputQueue::default();
    queue.push(key(true, SHIFT));
    for i in 0..100_000u32 {
        queue.push(key(i % 2 == 0, 0x61));
        queue.push(Input::CutText(bytes::Bytes::from(vec![0; 1000])));
    }
    assert!(queue.waiting() <= HELD_MAX);
    queue.push(key(false, SHIFT));
    let mut machine = Machine::default();
    let mut out = BytesMut::new();
    queue.found(false, 0, &mut out);
    let mut now = Instant::now();
    while queue.advance(now, 0, &mut out).is_some() {
        now += Duration::from_millis(20);
    }
    let mut at = 0;
    while at < out.len() {
        let n = match out[at] {
            4 => 8,
            6 => 1008,
            other => panic!("{other}"),
        };
        if n == 8 {
            machine.hear(&events(&out[at..at + 8])[0]);
        }
        at += n;
    }
    assert!(machine.down.is_empty(), "{:?}", machine.down);
}

#[test]
fn a_viewer_that_only_watches_does_nothing() {
    let server = Server::new(Picture::new(16, 16, 0), 3);
    for view_only in [false, true] {
        let mut session = Session::new(Mode {
            view_only,
            let_in: true,
        });
        session.from_client(&[1]).unwrap();
        session.attach(false, None);
        feed(&mut session, &server.hello());
        read(&mut session);
        told(&mut session);
        session.from_client(&[4, 1, 0, 0, 0, 0, 0, 0x61]).unwrap();
        session.from_client(&[5, 1, 0, 1, 0, 1]).unwrap();
        session
            .from_client(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 30])
            .unwrap();
        session.from_client(&[6, 0, 0, 0, 0, 0, 0, 1, 65]).unwrap();
        assert_eq!(told(&mut session).is_empty(), view_only);
    }
}

#[test]
fn what_was_typed_while_no_server_was_there_comes_first() {
    let server = Server::new(Picture::new(16, 16, 0), 3);
    let (mut session, _) = welcomed(&server, &[]);
    told(&mut session);
    session.detach();
    session.from_client(&[4, 1, 0, 0, 0, 0, 0, 0x61]).unwrap();
    session.from_client(&[4, 0, 0, 0, 0, 0, 0, 0x61]).unwrap();
    assert_eq!(session.held(), 2);
    session.attach(true, None);
    feed(&mut session, &server.hello());
    let said = told(&mut session);
    let keys = [4, 1, 0, 0, 0, 0, 0, 0x61, 4, 0, 0, 0, 0, 0, 0, 0x61];
    assert!(said.windows(16).any(|w| w == keys));
    assert_eq!(session.held(), 0);
}
