//! The WebSocket at the server's end, against another implementation and against noise.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use lyceum_console::WebSocket;
use lyceum_console::websocket::{Heard, Say};
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

async fn pair(room: usize) -> (WebSocket<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (own, theirs) = duplex(room);
    let config = WebSocketConfig::default();
    let client = WebSocketStream::from_raw_socket(theirs, Role::Client, Some(config)).await;
    (WebSocket::new(own), client)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), work)
            .await
            .expect("it hangs")
    })
}

// What was heard, until the client ends it; and how often there was a sign of life and nothing else.
async fn all(mut socket: WebSocket<DuplexStream>) -> (Vec<u8>, usize) {
    let (mut bytes, mut alive) = (Vec::new(), 0);
    while let Some(heard) = socket.next().await {
        match heard.expect("it is understood") {
            Heard::Bytes(part) => bytes.extend_from_slice(&part),
            Heard::Alive => alive += 1,
        }
    }
    (bytes, alive)
}

fn made(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_a_client_sends_is_heard_in_whatever_messages_and_portions(
        lengths in prop::collection::vec(prop_oneof![0usize..200, 65_530usize..65_540], 1..12),
        room in 1usize..5000,
    ) {
        run(async {
            let (socket, mut client) = pair(room).await;
            let sent = async {
                let mut whole = Vec::new();
                for (i, length) in lengths.iter().enumerate() {
                    let part = made(*length, i as u8);
                    whole.extend_from_slice(&part);
                    if i % 3 == 2 {
                        client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
                    }
                    client.send(Message::binary(part)).await.unwrap();
                }
                client.send(Message::Close(None)).await.unwrap();
                // The answers to the pings have to go somewhere.
                while let Some(Ok(_)) = client.next().await {}
                whole
            };
            let (whole, (heard, _)) = tokio::join!(sent, all(socket));
            assert_eq!(whole, heard);
        });
    }

    #[test]
    fn what_is_said_arrives_in_order_however_little_is_taken_at_once(
        pieces in prop::collection::vec((prop_oneof![1usize..300, 65_530usize..65_540], 0u8..4), 1..20),
        room in 1usize..5000,
    ) {
        run(async {
            let (mut socket, mut client) = pair(room).await;
            let (mut bytes, mut texts) = (Vec::new(), Vec::new());
            for (i, (length, kind)) in pieces.iter().enumerate() {
                match kind {
                    0 => texts.push(format!("note {i}")),
                    _ => bytes.extend_from_slice(&made(*length, i as u8)),
                }
            }
            let say = async {
                for (i, (length, kind)) in pieces.iter().enumerate() {
                    match kind {
                        0 => socket.feed(Say::Text(format!("note {i}"))).await.unwrap(),
                        1 => {
                            socket.feed(Say::Ping).await.unwrap();
                            socket.send(Say::Bytes(made(*length, i as u8).into())).await.unwrap();
                        }
                        _ => socket.feed(Say::Bytes(made(*length, i as u8).into())).await.unwrap(),
                    }
                }
                socket.send(Say::Close { code: 4004, reason: "it is off" }).await.unwrap();
            };
            let hear = async {
                let (mut heard, mut notes) = (Vec::new(), Vec::new());
                loop {
                    match client.next().await.expect("more").expect("whole frames") {
                        Message::Binary(part) => heard.extend_from_slice(&part),
                        Message::Text(text) => notes.push(text.to_string()),
                        Message::Ping(_) => {}
                        Message::Close(frame) => break (heard, notes, frame.map(|f| u16::from(f.code))),
                        other => panic!("{other:?}"),
                    }
                }
            };
            let ((), (heard, notes, code)) = tokio::join!(say, hear);
            assert_eq!((heard, notes, code), (bytes, texts, Some(4004)));
        });
    }

    #[test]
    fn noise_ends_it_or_is_waited_out(noise in prop::collection::vec(any::<u8>(), 0..600), room in 1usize..700) {
        run(async {
            let (own, mut theirs) = duplex(room);
            let mut socket = WebSocket::new(own);
            let send = async move {
                // It may be closed in the middle.
                let _ = theirs.write_all(&noise).await;
                noise.len()
            };
            let hear = async {
                let mut heard = 0;
                while let Some(Ok(item)) = socket.next().await {
                    if let Heard::Bytes(bytes) = item {
                        heard += bytes.len();
                    }
                }
                assert!(socket.next().await.is_none(), "it stays ended");
                drop(socket);
                heard
            };
            let (sent, heard) = tokio::join!(send, hear);
            assert!(heard <= sent);
        });
    }
}

#[test]
fn a_divided_message_with_a_ping_inside_is_one_stream() {
    run(async {
        let (socket, mut client) = pair(64).await;
        let send = async {
            let part = |code, last, bytes: &'static [u8]| {
                Message::Frame(Frame::message(
                    Bytes::from_static(bytes),
                    OpCode::Data(code),
                    last,
                ))
            };
            client
                .send(part(Data::Binary, false, b"one "))
                .await
                .unwrap();
            client
                .send(Message::Ping(Bytes::from_static(b"42")))
                .await
                .unwrap();
            client.send(part(Data::Continue, false, b"")).await.unwrap();
            client
                .send(part(Data::Continue, true, b"two"))
                .await
                .unwrap();
            assert_eq!(
                client.next().await.unwrap().unwrap(),
                Message::Pong(Bytes::from_static(b"42")),
                "answered although nobody else has something to say"
            );
            client.send(Message::Close(None)).await.unwrap();
        };
        let ((), (heard, alive)) = tokio::join!(send, all(socket));
        assert_eq!(heard, b"one two");
        assert_eq!(alive, 2);
    });
}

// A frame with a mask of zeros.
fn frame(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend_from_slice(length);
    bytes[1] |= 0x80;
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn what_the_protocol_forbids_ends_it() {
    let long = [0xff; 8];
    let mut endless = vec![127];
    endless.extend(long);
    let cases: [(&str, Vec<u8>); 9] = [
        ("without a mask", vec![0x82, 1, 7]),
        ("an extension", frame(0xc2, &[1], b"x")),
        ("text", frame(0x81, &[1], b"x")),
        ("an unknown kind", frame(0x83, &[1], b"x")),
        ("an unknown kind that is not data", frame(0x8b, &[0], b"")),
        ("the rest of nothing", frame(0x80, &[1], b"x")),
        ("a divided ping", frame(0x09, &[1], b"x")),
        ("a long ping", frame(0x89, &[126, 0, 126], &[0; 126])),
        ("of impossible length", frame(0x82, &endless, b"x")),
    ];
    for (name, bytes) in cases {
        run(async {
            let (own, mut theirs) = duplex(4096);
            let mut socket = WebSocket::new(own);
            theirs.write_all(&bytes).await.unwrap();
            let heard = socket.next().await;
            assert!(matches!(heard, Some(Err(_))), "{name}: {heard:?}");
            assert!(socket.next().await.is_none(), "{name}");
        });
    }
    // Another message in the middle of one.
    run(async {
        let (own, mut theirs) = duplex(4096);
        let mut socket = WebSocket::new(own);
        theirs.write_all(&frame(0x02, &[1], b"x")).await.unwrap();
        theirs.write_all(&frame(0x82, &[1], b"y")).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Heard::Bytes(Bytes::from_static(b"x"))
        );
        assert!(matches!(socket.next().await, Some(Err(_))));
    });
}

#[test]
fn who_asks_for_signs_of_life_and_reads_none_costs_nothing() {
    run(async {
        let (own, theirs) = duplex(1 << 20);
        let mut socket = WebSocket::new(own);
        let mut masked = frame(0x89, &[100], &[1; 100]);
        let one = masked.clone();
        for _ in 0..5000 {
            masked.extend_from_slice(&one);
        }
        let (mut from, mut to) = tokio::io::split(theirs);
        let send = async {
            to.write_all(&masked).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let hear = async {
            let mut alive = 0;
            while let Some(heard) = socket.next().await {
                assert_eq!(heard.unwrap(), Heard::Alive);
                alive += 1;
            }
            drop(socket);
            alive
        };
        let ((), alive) = tokio::join!(send, hear);
        assert_eq!(alive, 5001);
        // Whole answers, no more than were asked for.
        let mut said = Vec::new();
        from.read_to_end(&mut said).await.unwrap();
        assert!(said.len() <= 5001 * 102 && said.len() % 102 == 0 && !said.is_empty());
    });
}

#[test]
fn a_head_is_as_short_as_it_can_be() {
    let cases: [(usize, &[u8]); 6] = [
        (0, &[0x82, 0]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (200_000, &[0x82, 127, 0, 0, 0, 0, 0, 3, 0x0d, 0x40]),
    ];
    for (length, head) in cases {
        run(async {
            let (own, mut theirs) = duplex(1 << 20);
            let mut socket = WebSocket::new(own);
            // In two parts, which go together.
            let payload = Bytes::from(vec![7; length]);
            socket
                .feed(Say::Bytes(payload.slice(..length / 4)))
                .await
                .unwrap();
            socket
                .feed(Say::Bytes(payload.slice(length / 4..)))
                .await
                .unwrap();
            socket.close().await.unwrap();
            drop(socket);
            let mut said = Vec::new();
            theirs.read_to_end(&mut said).await.unwrap();
            assert!(said.starts_with(head), "{length}");
            assert_eq!(said[head.len()..], payload, "{length}");
        });
    }
}
