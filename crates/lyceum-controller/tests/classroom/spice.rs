//! SPICE clients of people who signed in: what ends them, what they are told to come again for. Real machines and
//! a real client are in the tests of the program.

use crate::person::Person;
use crate::tls::encrypted;
use crate::viewer::PATIENCE;
use crate::world::Classroom;
use lyceum_spice::SpiceError;
use lyceum_spice::link::{Hello, channel, result};
use lyceum_spice::main_channel::{Messages, Piece, SWITCH_HOST};
use lyceum_spice::shake;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// What a `.vv` file says of the way in.
struct Pass {
    port: u16,
    password: String,
}

impl Pass {
    fn ask(room: &Classroom, person: &Person, desktop: &str) -> Pass {
        let path = format!("desktops/{desktop}/spice-viewer");
        let answer = person.send(room, "POST", &path).expect("a file");
        let file = text(&answer, "file");
        let value = |key: &str| {
            let line = file.lines().find_map(|l| l.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{key} {file}")).to_owned()
        };
        Pass {
            port: value("tls-port=").parse().unwrap(),
            password: value("password="),
        }
    }

    async fn link(&self, channel: u8, connection: u32) -> Result<TlsStream<TcpStream>, SpiceError> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut stream = encrypted(tcp).await?;
        let hello = Hello {
            connection,
            channel,
            id: 0,
            common: vec![],
            own: vec![],
        };
        shake::connect(&mut stream, &hello, &self.password, &[]).await?;
        Ok(stream)
    }

    async fn open(&self, connection: u32) -> Session {
        let stream = self.link(channel::MAIN, connection).await.expect("let in");
        let mut session = Session {
            main: stream,
            messages: Messages::default(),
            inputs: None,
            number: 0,
        };
        while session.number == 0 {
            let piece = session.next().await.expect("a message");
            session.number = piece.session().unwrap_or(0);
        }
        let inputs = self.link(channel::INPUTS, session.number).await;
        session.inputs = Some(inputs.expect("it comes with its main channel"));
        session
    }
}

struct Session {
    main: TlsStream<TcpStream>,
    messages: Messages,
    inputs: Option<TlsStream<TcpStream>>,
    number: u32,
}

impl Session {
    async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.messages.next_piece() {
                return Some(piece);
            }
            let mut block = [0; 1024];
            let read = tokio::time::timeout(PATIENCE, self.main.read(&mut block));
            match read.await.expect("in time") {
                Ok(read @ 1..) => self.messages.feed(&block[..read]),
                _ => return None,
            }
        }
    }

    /// Until its end, on both channels; whether it was told to come again before.
    async fn ended(mut self) -> bool {
        let mut told = false;
        while let Some(piece) = self.next().await {
            if let Piece::Message {
                kind: SWITCH_HOST, ..
            } = piece
            {
                told = true;
                let _ = self.main.shutdown().await;
            }
        }
        let mut rest = Vec::new();
        if let Some(mut inputs) = self.inputs.take() {
            let ended = tokio::time::timeout(PATIENCE, inputs.read_to_end(&mut rest));
            let _ = ended.await.expect("its other channels end with it");
        }
        told
    }
}

/// A course with SPICE switched on, and its desktops running: desktop and person of each.
fn running(students: usize) -> (Classroom, Vec<(String, String)>) {
    let mut room = Classroom::new(students);
    let course = format!("courses/{}", room.course());
    room.send("PATCH", &course, json!({"spice": true}))
        .expect("changed");
    room.order("start", json!({}));
    let all = room.desktops();
    let all = all
        .iter()
        .map(|d| (text(d, "id"), text(d, "user")))
        .collect();
    (room, all)
}

#[test]
fn a_spice_client_is_let_go_when_its_person_signs_out_or_may_not_see_the_desktop_any_more() {
    let (room, all) = running(2);
    let person = Person::sign_in(&room, &all[0].1);
    let other = person.again(&room);
    let pass = Pass::ask(&room, &other, &all[0].0);
    let session = room.run(pass.open(0));
    other.send(&room, "DELETE", "session").expect("signed out");
    assert!(!room.run(session.ended()), "not told to come again");
    // The session that is left has a client of its own, and one that signed out has none.
    let again = room.run(pass.link(channel::MAIN, 0));
    assert!(matches!(
        again,
        Err(SpiceError::Io(_) | SpiceError::Refused(result::PERMISSION_DENIED))
    ));
    let session = room.run(Pass::ask(&room, &person, &all[0].0).open(0));
    drop(session);

    let person = Person::sign_in(&room, &all[1].1);
    let session = room.run(Pass::ask(&room, &person, &all[1].0).open(0));
    let member = format!("courses/{}/members/{}", room.course(), all[1].1);
    room.send("DELETE", &member, Value::Null)
        .expect("taken off");
    assert!(!room.run(session.ended()), "not told to come again");
}

#[test]
fn a_spice_client_comes_again_after_a_reset_a_move_and_the_end_of_a_host_and_asks_anew_after_a_restart_of_the_controller()
 {
    let (mut room, all) = running(1);
    let (id, user) = &all[0];
    let person = Person::sign_in(&room, user);
    let ways = person.send(&room, "GET", &format!("desktops/{id}/viewers"));
    assert_eq!(ways.unwrap()["spice"], true);
    let pass = Pass::ask(&room, &person, id);
    let mut session = room.run(pass.open(0));

    room.order_one(id, "reset");
    let number = session.number;
    assert!(room.run(session.ended()), "told to come again");
    session = room.run(pass.open(number));

    let to = if text(&room.desktops()[0], "host") == "kvm1" {
        "kvm2"
    } else {
        "kvm1"
    };
    room.send("POST", &format!("desktops/{id}/move"), json!({"to": to}))
        .expect("accepted");
    let number = session.number;
    assert!(room.run(session.ended()), "told to come again");
    session = room.run(pass.open(number));
    room.until("it runs there", |room| {
        text(&room.desktops()[0], "host") == to
    });

    room.kill_host(to);
    room.crash(id);
    room.start_host(to);
    let number = session.number;
    assert!(room.run(session.ended()), "told to come again");
    session = room.run(pass.open(number));

    room.kill_controller();
    assert!(!room.run(session.ended()));
    room.start_controller();
    let session = room.run(Pass::ask(&room, &person, id).open(0));
    drop(session);
}

#[test]
fn the_page_is_told_whether_a_desktop_can_be_seen_by_spice_and_why_not() {
    let mut room = Classroom::new(1);
    room.order("start", json!({}));
    let d = room.desktops().remove(0);
    let person = Person::sign_in(&room, &text(&d, "user"));
    let ways = |room: &Classroom| {
        let path = format!("desktops/{}/viewers", text(&d, "id"));
        person.send(room, "GET", &path).expect("an answer")
    };
    let said = ways(&room);
    assert_eq!(
        (&said["vnc"], &said["spice"]),
        (&json!(true), &json!(false))
    );
    assert!(
        text(&said, "spice_reason").contains("not switched on"),
        "{said}"
    );
    let course = format!("courses/{}", room.course());
    room.send("PATCH", &course, json!({"spice": true}))
        .expect("changed");
    let said = ways(&room);
    assert!(
        text(&said, "spice_reason").contains("without SPICE"),
        "{said}"
    );
    room.order_one(&text(&d, "id"), "reset");
    assert_eq!(ways(&room)["spice"], true);
    room.order_one(&text(&d, "id"), "stop");
    assert!(text(&ways(&room), "spice_reason").contains("not up yet"));
}
