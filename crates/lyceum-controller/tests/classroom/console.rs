//! Consoles: one connection of a viewer, whatever becomes of the machine behind it.

use crate::tls::encrypted;
use crate::viewer::{ASK, PATIENCE, Viewer, after, connect, key, ticket};
use crate::world::Classroom;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error;

fn one_running(room: &mut Classroom) -> String {
    room.order("start", json!({}));
    room.desktops()[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_console_stays_while_its_desktop_is_reset_suspended_resumed_and_its_agent_killed() {
    let mut room = Classroom::new(1);
    let id = one_running(&mut room);
    let mut viewer = Viewer::open(&room, &id, false);
    let (live, waiting) = (json!({"link": "live"}), json!({"link": "waiting"}));
    let fresh = room.run(viewer.colour());
    room.run(async {
        viewer.noted(live.clone()).await;
        viewer.send(&key(b'a')).await;
        assert_eq!(viewer.colour().await, after(fresh, b'a'));
    });

    room.order_one(&id, "reset");
    room.run(async {
        viewer.noted(waiting.clone()).await;
        viewer.until(fresh).await;
        viewer.noted(live.clone()).await;
    });

    room.order_one(&id, "suspend");
    room.run(async {
        viewer.noted(waiting.clone()).await;
        // Nobody is there to hear it yet.
        viewer.send(&key(b'b')).await;
        viewer.send(&key(b'c')).await;
    });
    room.order_one(&id, "start");
    let shown = after(after(fresh, b'b'), b'c');
    room.run(viewer.until(shown));

    let host = room.desktops()[0]["host"].as_str().unwrap().to_owned();
    viewer.notes.clear();
    room.kill_host(&host);
    room.run(async {
        viewer.noted(waiting).await;
        viewer.send(&key(b'd')).await;
    });
    room.start_host(&host);
    room.run(async {
        viewer.until(after(shown, b'd')).await;
        viewer.noted(live).await;
    });
}

#[test]
fn several_look_at_one_desktop_and_are_told_of_each_other() {
    let mut room = Classroom::new(1);
    let id = one_running(&mut room);
    let mut own = Viewer::open(&room, &id, false);
    let mut teacher = Viewer::open(&room, &id, true);
    let seen = |view_only: bool, you: bool| json!({"name": "", "view_only": view_only, "you": you});
    room.run(async {
        let first = own.colour().await;
        own.noted(json!({"viewers": [seen(false, true), seen(true, false)]}))
            .await;
        assert_eq!(teacher.colour().await, first);
        teacher
            .noted(json!({"viewers": [seen(false, false), seen(true, true)]}))
            .await;
        // Who only watches does nothing.
        teacher.send(&key(b'x')).await;
        own.send(&key(b'a')).await;
        assert_eq!(teacher.colour().await, after(first, b'a'));
        assert_eq!(own.colour().await, after(first, b'a'));
        drop(teacher);
        own.noted(json!({"viewers": [seen(false, true)]})).await;
    });
}

#[test]
fn tickets_are_for_once_and_a_desktop_has_room_for_so_many_viewers() {
    let mut room = Classroom::new(1);
    let id = one_running(&mut room);
    let refused = |ticket: &str| match room.run(connect(&room, ticket)) {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(e) => panic!("{e}"),
        Ok(_) => 101,
    };
    assert_eq!(refused("forged"), 403);
    let once = ticket(&room, &id, false);
    assert_eq!(refused(&once), 101);
    assert_eq!(refused(&once), 403, "used");
    // Sockets without end.
    let mut open = Vec::new();
    let mut codes = Vec::new();
    for _ in 0..40 {
        let ticket = ticket(&room, &id, true);
        room.run(async {
            let mut viewer = connect(&room, &ticket).await.expect("a console");
            loop {
                match viewer.hear().await {
                    Err(code) => break codes.push(code),
                    Ok(()) if viewer.buffer.len() >= 12 => break open.push(viewer),
                    Ok(()) => {}
                }
            }
        });
    }
    assert!(codes.iter().all(|c| *c == 4009), "{codes:?}");
    assert!((15..=16).contains(&open.len()), "{}", open.len());
    drop(open);
    room.until("there is room again", |room| {
        let ticket = ticket(room, &id, true);
        room.run(async {
            let mut viewer = connect(room, &ticket).await.expect("a console");
            viewer.hear().await.is_ok()
        })
    });
}

#[test]
fn a_console_closes_when_its_desktop_is_deleted_and_says_so() {
    let mut room = Classroom::new(1);
    let id = one_running(&mut room);
    let mut viewer = Viewer::open(&room, &id, false);
    room.run(viewer.colour());
    room.order_one(&id, "stop");
    // The picture stays: it may be switched on again.
    room.run(viewer.noted(json!({"link": "waiting"})));
    room.order_one(&id, "start");
    room.run(async { while viewer.colour().await == [0; 3] {} });
    room.order_one(&id, "stop");
    room.send("DELETE", &format!("desktops/{id}"), Value::Null)
        .expect("ordered away");
    assert_eq!(room.run(viewer.closed()), 4004);
}

// ---- a native viewer ----

async fn native(port: u16, user: &str, password: &str) -> TlsStream<TcpStream> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut expect = [0; 12];
    tcp.read_exact(&mut expect).await.unwrap();
    tcp.write_all(&expect).await.unwrap();
    tcp.read_exact(&mut expect[..2]).await.unwrap();
    assert_eq!(expect[..2], [1, 19], "VeNCrypt and nothing else");
    tcp.write_all(&[19]).await.unwrap();
    tcp.read_exact(&mut expect[..2]).await.unwrap();
    tcp.write_all(&[0, 2]).await.unwrap();
    tcp.read_exact(&mut expect[..6]).await.unwrap();
    assert_eq!(expect[..6], [0, 1, 0, 0, 1, 6], "X509Plain");
    tcp.write_all(&262u32.to_be_bytes()).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), 1);
    let mut tls = encrypted(tcp).await.unwrap();
    tls.write_u32(user.len() as u32).await.unwrap();
    tls.write_u32(password.len() as u32).await.unwrap();
    tls.write_all(user.as_bytes()).await.unwrap();
    tls.write_all(password.as_bytes()).await.unwrap();
    tls.flush().await.unwrap();
    tls
}

#[test]
fn a_native_viewer_comes_in_with_a_password_from_its_own_address_and_stays_through_a_reset() {
    let mut room = Classroom::new(1);
    let id = one_running(&mut room);
    let path = format!("desktops/{id}/native-viewer");
    let pass = room.send("POST", &path, json!({})).expect("a password");
    let port = pass["port"].as_u64().unwrap() as u16;
    let (user, password) = (
        pass["user"].as_str().unwrap().to_owned(),
        pass["password"].as_str().unwrap().to_owned(),
    );
    let mut tls = room.run(async {
        // From another address nothing is said.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let to = format!("127.0.0.1:{port}").parse().unwrap();
        let mut stranger = socket.connect(to).await.unwrap();
        let mut said = Vec::new();
        let _ = stranger.read_to_end(&mut said).await;
        assert!(said.is_empty(), "{said:?}");
        // A wrong password is told so.
        let mut wrong = native(port, &user, "wrong").await;
        assert_eq!(wrong.read_u32().await.unwrap(), 1);
        let mut tls = native(port, &user, &password).await;
        assert_eq!(tls.read_u32().await.unwrap(), 0);
        tls.write_all(&[1]).await.unwrap();
        let mut init = [0; 24];
        tls.read_exact(&mut init).await.unwrap();
        let name = u32::from_be_bytes(init[20..].try_into().unwrap());
        tls.read_exact(&mut vec![0; name as usize]).await.unwrap();
        tls.write_all(&ASK).await.unwrap();
        tls.flush().await.unwrap();
        let mut picture = vec![0; 16 + 160 * 120 * 4];
        tls.read_exact(&mut picture).await.unwrap();
        tls.write_all(&ASK).await.unwrap();
        // Used up: the port is closed again to everybody.
        let mut again = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut said = Vec::new();
        let _ = again.read_to_end(&mut said).await;
        assert!(said.is_empty(), "{said:?}");
        tls
    });
    room.order_one(&id, "reset");
    room.run(async {
        let mut picture = vec![0; 16 + 160 * 120 * 4];
        let read = tls.read_exact(&mut picture);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        assert_eq!(picture[..4], [0, 0, 0, 1]);
    });
}
