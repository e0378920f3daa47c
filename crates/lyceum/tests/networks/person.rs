//! People with their browsers: requests to the page's port from an address of theirs, over TLS.

use crate::world::{LOGIN4, LOGIN6, NATIVE, PAGE, World, ip};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// How long a browser waits.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long somebody who stands before a closed door waits before he tries again.
const KNOCK: Duration = Duration::from_millis(500);

/// The login server, as somebody with this address sees it.
pub fn login_server(from: IpAddr, port: u16) -> SocketAddr {
    let to = match from.is_ipv4() {
        true => IpAddr::from(LOGIN4),
        false => ip(LOGIN6),
    };
    SocketAddr::new(to, port)
}

async fn connect(from: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let socket = match from.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(login_server(from, port)).await
}

/// Runs it in a namespace.
pub fn block_within<T: Send + 'static>(
    ns: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    crate::world::within(ns, || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work)
    })
}

/// How browsers know the login server.
pub fn trust(world: &World) -> TlsConnector {
    let pem = std::fs::read(world.path("controller").join(lyceum_wire::ca::CA_FILE)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Person {
    tls: TlsConnector,
    from: IpAddr,
    /// Headers of every request.
    headers: String,
}

impl Person {
    /// Signs in with a one-time link.
    pub async fn sign_in(tls: TlsConnector, from: IpAddr, link: String, header: &str) -> Person {
        let mut person = Person {
            tls,
            from,
            headers: header.to_owned(),
        };
        let secret = link.rsplit('/').next().unwrap();
        let body = json!({ "secret": secret, "new_password": null }).to_string();
        let (status, head, me) = person.request("POST", "session/one-time", &body).await;
        assert_eq!(status, 200, "{me}");
        let cookie = head
            .lines()
            .find_map(|l| {
                l.to_ascii_lowercase()
                    .starts_with("set-cookie:")
                    .then(|| &l[11..])
            })
            .expect("a cookie");
        let cookie = cookie.split(';').next().unwrap().trim();
        let csrf = me["csrf"].as_str().unwrap();
        person.headers += &format!("Cookie: {cookie}\r\nX-Lyceum-CSRF: {csrf}\r\n");
        person
    }

    /// Status, head and body.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String, Value) {
        let work = async {
            let tcp = connect(self.from, PAGE).await?;
            let name = ServerName::try_from("classroom.test").unwrap();
            let mut stream = self.tls.connect(name, tcp).await?;
            let text = format!(
                "{method} /api/v1/{path} HTTP/1.1\r\nHost: classroom.test\r\nConnection: close\r\n{}\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                self.headers,
                body.len()
            );
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            // Some end without saying so.
            let _ = stream.read_to_end(&mut answer).await;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = tokio::time::timeout(PATIENCE, work).await;
        let answer = answer.expect("an answer in time").expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head[9..12].parse().unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (status, head.to_owned(), body)
    }
}

/// Whether the door to the port for native viewers is open for this address. A closed one does not answer; behind an
/// open one there may be nobody just now, which is said.
pub async fn knock(from: IpAddr) -> bool {
    match tokio::time::timeout(KNOCK, connect(from, NATIVE)).await {
        Ok(Ok(_)) => true,
        Ok(Err(e)) => e.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// Stands before the door until it opens, and says when that was.
pub async fn opens(from: IpAddr) -> Instant {
    let end = Instant::now() + crate::world::DEADLINE;
    loop {
        // Much shorter than the kernel's own second between two attempts.
        let tried = tokio::time::timeout(Duration::from_millis(50), connect(from, NATIVE)).await;
        if matches!(tried, Ok(Ok(_))) {
            return Instant::now();
        }
        assert!(Instant::now() < end, "the door for {from} stays closed");
    }
}
