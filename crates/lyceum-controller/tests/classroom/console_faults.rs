//! Consoles of people who signed in over the network: what closes them, what does not, and who gets none.

use crate::person::Person;
use crate::viewer::{ASK, PATIENCE, Viewer, after, key};
use crate::world::Classroom;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Desktop and person of each student.
fn running(room: &mut Classroom) -> Vec<(String, String)> {
    room.order("start", json!({}));
    let all = room.desktops();
    all.iter()
        .map(|d| (text(d, "id"), text(d, "user")))
        .collect()
}

/// It still shows what is done.
fn works(room: &Classroom, viewer: &mut Viewer, k: u8) {
    room.run(async {
        let now = viewer.colour().await;
        viewer.send(&key(k)).await;
        viewer.until(after(now, k)).await;
        // The one that was asked for since comes with the next key.
        viewer.send(&key(k)).await;
    });
}

#[test]
fn a_console_closes_when_its_person_signs_out_or_may_not_see_the_desktop_any_more() {
    let mut room = Classroom::new(3);
    let all = running(&mut room);
    let (ann, ben, cho) = (&all[0], &all[1], &all[2]);

    // One of two sessions ends; the other goes on.
    let here = Person::sign_in(&room, &ann.1);
    let there = here.again(&room);
    let mut first = here.open(&room, &ann.0);
    let mut second = there.open(&room, &ann.0);
    room.run(async {
        first.colour().await;
        second.colour().await;
    });
    here.send(&room, "DELETE", "session").expect("signed out");
    assert_eq!(room.run(first.closed()), 4003);
    room.run(async { second.send(&key(b'a')).await });
    works(&room, &mut second, b'b');
    // Signed out from elsewhere.
    let third = there.again(&room);
    let session = text(&there.send(&room, "GET", "session").unwrap(), "session");
    third
        .send(&room, "DELETE", &format!("sessions/{session}"))
        .expect("signed out");
    assert_eq!(room.run(second.closed()), 4003);
    let answer = there.send(&room, "POST", &format!("desktops/{}/console-ticket", ann.0));
    assert_eq!(answer.unwrap_err().0, 401, "the page is told why");

    // An account that is switched off.
    let mut viewer = Person::sign_in(&room, &ben.1).open(&room, &ben.0);
    room.run(viewer.colour());
    room.send(
        "PATCH",
        &format!("users/{}", ben.1),
        json!({"disabled": true}),
    )
    .expect("switched off");
    assert_eq!(room.run(viewer.closed()), 4003);

    // Taken off the roster: the student's own view, and that of nobody else.
    let person = Person::sign_in(&room, &cho.1);
    let mut viewer = person.open(&room, &cho.0);
    room.run(viewer.colour());
    let member = format!("courses/{}/members/{}", room.course(), cho.1);
    room.send("DELETE", &member, Value::Null)
        .expect("taken off");
    assert_eq!(room.run(viewer.closed()), 4003);
    let answer = person.send(&room, "POST", &format!("desktops/{}/console-ticket", cho.0));
    assert_eq!(answer.unwrap_err().0, 404, "the page is told why");
}

#[test]
fn a_teacher_who_leaves_the_course_looks_on_no_more() {
    let mut room = Classroom::new(1);
    let (id, student) = running(&mut room).remove(0);
    let mut own = Person::sign_in(&room, &student).open(&room, &id);
    let teacher = room.teacher();
    let mut watching = Person::sign_in(&room, &teacher).open(&room, &id);
    room.run(async {
        own.colour().await;
        watching.colour().await;
    });
    let member = format!("courses/{}/members/{teacher}", room.course());
    room.send("DELETE", &member, Value::Null)
        .expect("taken off");
    assert_eq!(room.run(watching.closed()), 4003);
    room.run(async { own.send(&key(b'a')).await });
    works(&room, &mut own, b'b');
}

#[test]
fn a_restart_of_the_controller_costs_nobody_the_session_or_what_is_on_the_screen() {
    let mut room = Classroom::new(1);
    let (id, student) = running(&mut room).remove(0);
    let person = Person::sign_in(&room, &student);
    let mut viewer = person.open(&room, &id);
    let shown = room.run(async {
        let fresh = viewer.colour().await;
        viewer.send(&key(b'a')).await;
        let shown = after(fresh, b'a');
        viewer.until(shown).await;
        shown
    });
    room.kill_controller();
    room.run(viewer.gone());
    room.start_controller();
    // The cookie is as good as before; the picture is asked for anew, and the desktop never noticed.
    let mut again = person.open(&room, &id);
    room.run(async {
        again.until(shown).await;
        again.send(&key(b'b')).await;
        again.until(after(shown, b'b')).await;
    });
}

#[test]
fn keys_that_are_typed_while_a_desktop_becomes_as_new_arrive_once_and_in_order() {
    let mut room = Classroom::slow(1);
    let (id, student) = running(&mut room).remove(0);
    let person = Person::sign_in(&room, &student);
    let mut viewer = person.open(&room, &id);
    let fresh = room.run(viewer.colour());
    let accepted = person
        .send(&room, "POST", &format!("desktops/{id}/reset"))
        .expect("accepted");
    room.run(async {
        viewer.noted(json!({"link": "live"})).await;
        viewer.noted(json!({"link": "waiting"})).await;
        for k in *b"once" {
            viewer.send(&key(k)).await;
        }
        // Colours do not depend on the order of some keys, but their number and sum tell one that is missing or doubled.
        let shown = b"once".iter().fold(fresh, |colour, k| after(colour, *k));
        viewer.until(shown).await;
    });
    assert_eq!(room.wait(&accepted)["state"], "done");
}

#[test]
fn a_host_that_vanishes_in_mid_stream_costs_the_picture_only_until_the_desktop_runs_again() {
    let mut room = Classroom::new(1);
    let (id, student) = running(&mut room).remove(0);
    let mut viewer = Person::sign_in(&room, &student).open(&room, &id);
    let fresh = room.run(async {
        let fresh = viewer.colour().await;
        viewer.send(&key(b'a')).await;
        viewer.until(after(fresh, b'a')).await;
        viewer.noted(json!({"link": "live"})).await;
        fresh
    });
    let host = text(&room.desktops()[0], "host");
    // Its power fails: agent and machine are gone, and only the agent comes back.
    room.kill_host(&host);
    room.run(viewer.noted(json!({"link": "waiting"})));
    room.crash(&id);
    room.start_host(&host);
    room.run(async {
        viewer.until(fresh).await;
        viewer.noted(json!({"link": "live"})).await;
        viewer.send(&key(b'b')).await;
        viewer.until(after(fresh, b'b')).await;
    });
}

#[test]
fn tickets_open_one_console_in_time_for_their_person_and_from_our_own_page() {
    let mut room = Classroom::new(2);
    let all = running(&mut room);
    let (ann, ben) = (
        Person::sign_in(&room, &all[0].1),
        Person::sign_in(&room, &all[1].1),
    );
    let site = format!("http://{}", room.page());
    let id = &all[0].0;
    let answer = ben.send(&room, "POST", &format!("desktops/{id}/console-ticket"));
    assert_eq!(answer.unwrap_err().0, 404, "another's desktop");
    assert_eq!(ann.refused(&room, "forged", &site), 403);
    let ticket = ann.ticket(&room, id);
    assert_eq!(ann.refused(&room, &ticket, &site), 101);
    assert_eq!(ann.refused(&room, &ticket, &site), 403, "used");
    let ticket = ann.ticket(&room, id);
    assert_eq!(ben.refused(&room, &ticket, &site), 403, "another's");
    assert_eq!(ann.refused(&room, &ticket, &site), 403, "used up by that");
    let ticket = ann.ticket(&room, id);
    for other in ["https://evil.example", "null"] {
        assert_eq!(ann.refused(&room, &ticket, other), 403, "{other}");
    }
    assert_eq!(
        ann.refused(&room, &ticket, &site),
        101,
        "not used up by that"
    );
    let ticket = ann.ticket(&room, id);
    let now = jiff::Timestamp::now().as_millisecond();
    room.set_clock(now + 31_000);
    assert_eq!(ann.refused(&room, &ticket, &site), 403, "expired");
}

#[test]
fn who_talks_nonsense_reads_nothing_or_opens_sockets_without_end_harms_nobody_else() {
    let mut room = Classroom::new(2);
    room.kill_controller();
    room.limits.stalled = Duration::from_millis(500);
    room.start_controller();
    let all = running(&mut room);
    let (ann, ben) = (
        Person::sign_in(&room, &all[0].1),
        Person::sign_in(&room, &all[1].1),
    );
    let mut good = ben.open(&room, &all[1].0);

    // After the handshake: a message that nobody knows.
    let mut bad = ann.open(&room, &all[0].0);
    room.run(async {
        bad.colour().await;
        bad.send(&[0xee; 4000]).await;
    });
    assert_eq!(room.run(bad.closed()), 1002);

    // Asks and asks, and reads nothing.
    let ticket = ann.ticket(&room, &all[0].0);
    let page = room.page();
    room.run(async {
        let site = format!("http://{page}");
        let opened = ann.connect(page, &ticket, &site, Some(4096)).await;
        let mut deaf = opened.expect("a console");
        deaf.begin().await;
        let whole = [&[3, 0][..], &ASK[2..]].concat();
        let until = Instant::now() + PATIENCE;
        while deaf.try_send(&whole).await.is_ok() {
            assert!(Instant::now() < until, "it is let do so for ever");
        }
    });

    // Sockets that say nothing, as many as there is room for in this process.
    let soft = std::fs::read_to_string("/proc/self/limits").unwrap();
    let soft = soft
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap();
    let soft: usize = soft
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(4096);
    let many = (soft.saturating_sub(400) / 2).min(1000);
    let sockets: Vec<TcpStream> = room.run(async {
        let mut sockets = Vec::new();
        for _ in 0..many {
            sockets.push(TcpStream::connect(page).await.unwrap());
        }
        sockets
    });
    works(&room, &mut good, b'a');
    let mut another = ann.open(&room, &all[0].0);
    works(&room, &mut another, b'b');
    drop(sockets);
}

#[test]
fn who_does_nothing_or_stays_for_ever_is_told_so() {
    let mut room = Classroom::new(1);
    let (id, student) = running(&mut room).remove(0);
    room.kill_controller();
    room.limits.idle = Duration::from_millis(400);
    room.start_controller();
    let person = Person::sign_in(&room, &student);
    let mut viewer = person.open(&room, &id);
    assert_eq!(room.run(viewer.closed()), 4008);
    room.kill_controller();
    room.limits = Default::default();
    room.limits.lifetime = Duration::from_millis(400);
    room.start_controller();
    let mut viewer = person.open(&room, &id);
    assert_eq!(room.run(viewer.closed()), 4010);
}

#[test]
fn people_who_have_nothing_but_ipv6_are_served_as_well() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let mut room = Classroom::new(1);
    room.kill_controller();
    room.listen = IpAddr::V6(Ipv6Addr::LOCALHOST);
    room.start_controller();
    let (id, student) = running(&mut room).remove(0);
    let person = Person::sign_in(&room, &student);
    let mut viewer = person.open(&room, &id);
    works(&room, &mut viewer, b'a');
    let path = format!("courses/{}", room.course());
    room.send("PATCH", &path, json!({"spice": true}))
        .expect("changed");
    for way in ["native-viewer", "spice-viewer"] {
        if way == "spice-viewer" {
            room.order_one(&id, "reset");
        }
        let pass = person
            .send(&room, "POST", &format!("desktops/{id}/{way}"))
            .expect("let in");
        let port = match pass["port"].as_u64() {
            Some(port) => port as u16,
            None => {
                let file = text(&pass, "file");
                assert!(file.lines().any(|l| l == "host=::1"), "{file}");
                let port = file.lines().find_map(|l| l.strip_prefix("tls-port="));
                port.unwrap().parse().unwrap()
            }
        };
        // Somebody is expected at this address: what shakes hands is not hung up upon.
        room.run(async {
            let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))
                .await
                .unwrap();
            if way == "native-viewer" {
                let mut said = [0; 12];
                stream.read_exact(&mut said).await.unwrap();
                assert_eq!(&said, b"RFB 003.008\n");
            } else {
                let waited = tokio::time::timeout(Duration::from_millis(300), stream.read_u8());
                assert!(waited.await.is_err(), "it waits for TLS");
            }
        });
    }
}
