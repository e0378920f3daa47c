//! Consoles: one connection of a viewer, whatever becomes of the machine behind it.

use crate::world::Classroom;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};

const PATIENCE: Duration = Duration::from_secs(60);
const ASK: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 160, 0, 120];

fn key(k: u8) -> [u8; 8] {
    [4, 1, 0, 0, 0, 0, 0, k]
}

/// What a simulated machine shows after a key: one colour, changed by each key in its own way.
fn after([r, g, b]: [u8; 3], k: u8) -> [u8; 3] {
    let [_, kr, kg, kb] = u32::from(k).wrapping_mul(2_654_435_761).to_be_bytes();
    [r ^ kr, g.wrapping_add(kg | 1), b ^ kb]
}

struct Viewer {
    socket: WebSocketStream<UnixStream>,
    buffer: Vec<u8>,
    notes: Vec<Value>,
}

async fn connect(room: &Classroom, ticket: &str) -> Result<Viewer, Error> {
    let stream = UnixStream::connect(room.socket()).await.unwrap();
    let mut request = format!("ws://localhost/api/v1/console/{ticket}")
        .into_client_request()
        .unwrap();
    let protocol = "lyceum".parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(Viewer {
        socket,
        buffer: Vec::new(),
        notes: Vec::new(),
    })
}

fn ticket(room: &Classroom, desktop: &str, view_only: bool) -> String {
    let path = format!("desktops/{desktop}/console-ticket?view_only={view_only}");
    let answer = room.send("POST", &path, json!({})).expect("a ticket");
    answer["ticket"].as_str().unwrap().to_owned()
}

impl Viewer {
    fn open(room: &Classroom, desktop: &str, view_only: bool) -> Viewer {
        let ticket = ticket(room, desktop, view_only);
        room.run(async {
            let mut viewer = connect(room, &ticket).await.expect("a console");
            assert_eq!(viewer.read(12).await, b"RFB 003.008\n");
            viewer.send(b"RFB 003.008\n").await;
            assert_eq!(viewer.read(2).await, [1, 1]);
            viewer.send(&[1]).await;
            assert_eq!(viewer.read(4).await, [0; 4]);
            viewer.send(&[1]).await;
            let init = viewer.read(24).await;
            assert_eq!(init[..4], [0, 160, 0, 120]);
            let name = u32::from_be_bytes(init[20..].try_into().unwrap());
            viewer.read(name as usize).await;
            viewer.send(&ASK).await;
            viewer
        })
    }

    async fn send(&mut self, bytes: &[u8]) {
        let message = Message::binary(bytes.to_vec());
        self.socket.send(message).await.expect("it is open");
    }

    /// The next message, or the code it was closed with.
    async fn hear(&mut self) -> Result<(), u16> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next());
        match next.await.expect("something comes") {
            Some(Ok(Message::Binary(bytes))) => self.buffer.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => {
                self.notes.push(serde_json::from_str(&text).expect("JSON"));
            }
            Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |f| f.code.into())),
            Some(Ok(_)) => {}
            Some(Err(e)) => panic!("{e}"),
            None => return Err(0),
        }
        Ok(())
    }

    async fn read(&mut self, bytes: usize) -> Vec<u8> {
        while self.buffer.len() < bytes {
            self.hear().await.expect("it stays open");
        }
        self.buffer.drain(..bytes).collect()
    }

    /// The next picture's colour; the one after is asked for.
    async fn colour(&mut self) -> [u8; 3] {
        let head = self.read(16).await;
        assert_eq!(head[..4], [0, 0, 0, 1], "an update with one rectangle");
        assert_eq!(head[12..], [0; 4], "raw");
        let pixels = self.read(160 * 120 * 4).await;
        self.send(&ASK).await;
        [pixels[2], pixels[1], pixels[0]]
    }

    /// Pictures until it shows this.
    async fn until(&mut self, colour: [u8; 3]) {
        while self.colour().await != colour {}
    }

    async fn noted(&mut self, note: Value) {
        while !self.notes.contains(&note) {
            self.hear().await.expect("it stays open");
        }
        self.notes.retain(|n| *n != note);
    }
}

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
    let code = room.run(async {
        loop {
            if let Err(code) = viewer.hear().await {
                break code;
            }
        }
    });
    assert_eq!(code, 4004);
}

// ---- a native viewer ----

#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut tls = connector.connect(name, tcp).await.unwrap();
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
