//! Native SPICE clients on real machines: a real client sees a picture, a client of our own is told to come again when
//! its desktop is reset or moved, and nobody else gets in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lyceum_spice::SpiceError;
use lyceum_spice::link::{Hello, channel, result};
use lyceum_spice::main_channel::{MINI_HEADER, Messages, Piece, SWITCH_HOST};
use lyceum_spice::shake;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Generous: guests are emulated, and other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(300);
/// The main channel's message that asks for the list of the others.
const ATTACH_CHANNELS: u16 = 104;

fn lyceum(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lyceum"));
    command
        .env_remove("LYCEUM_URL")
        .env("LYCEUM_STATE", state)
        .stdin(Stdio::null());
    command
}

fn try_json(state: &Path, args: &[&str]) -> Result<Value, String> {
    let output = lyceum(state).args(args).arg("--json").output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn json(state: &Path, args: &[&str]) -> Value {
    try_json(state, args).unwrap_or_else(|said| panic!("{args:?}: {said}"))
}

/// A classroom with real machines on two hosts. It ends when this is dropped.
struct Classroom(Child);

impl Classroom {
    fn start(state: &Path) -> Classroom {
        let image = std::env::var_os("LYCEUM_TINY_IMAGE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.lyceum/images/tiny.qcow2"),
            PathBuf::from,
        );
        assert!(
            image.is_file(),
            "{} is not there: make tiny-image",
            image.display()
        );
        let mut child = lyceum(state)
            .args(["up", "--free-ports", "--hosts", "2", "--accelerator", "tcg"])
            .args(["--image-memory", "128"])
            .arg("--image")
            .arg(image)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let classroom = Classroom(child);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("{line}");
                if line.starts_with("ready: ") {
                    let _ = tell.send(());
                }
            }
        });
        told.recv_timeout(PATIENCE).expect("the classroom comes up");
        classroom
    }
}

impl Drop for Classroom {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// What a `.vv` file says.
struct Viewer(HashMap<String, String>);

impl Viewer {
    fn ask(state: &Path, desktop: &str) -> Result<Viewer, String> {
        let file = state.join("own.vv");
        let to = file.to_str().unwrap();
        try_json(state, &["desktop", "spice", desktop, "--output", to])?;
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o777, 0o600, "a secret");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(text.starts_with("[virt-viewer]\ntype=spice\n"), "{text}");
        let pair = |line: &str| {
            line.split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        };
        Ok(Viewer(text.lines().filter_map(pair).collect()))
    }

    /// When sessions that have ended are still counted, again.
    fn ask_patiently(state: &Path, desktop: &str) -> Viewer {
        let until = Instant::now() + PATIENCE;
        loop {
            match Viewer::ask(state, desktop) {
                Ok(viewer) => return viewer,
                Err(said) if said.contains("too many") && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(said) => panic!("{said}"),
            }
        }
    }

    fn get(&self, key: &str) -> &str {
        &self.0[key]
    }

    fn port(&self) -> u16 {
        self.get("tls-port").parse().unwrap()
    }

    fn ca(&self) -> String {
        self.get("ca").replace("\\n", "\n")
    }

    /// A real client, which takes a picture and ends.
    fn screenshot(&self, password: &str, to: &Path) -> bool {
        let ca = to.with_extension("pem");
        std::fs::write(&ca, self.ca()).unwrap();
        let mut command = Command::new("spicy-screenshot");
        command
            // It knows no option for the authority, unlike remote-viewer, which reads the file.
            .env("SSL_CERT_FILE", &ca)
            .env("HOME", to.parent().unwrap())
            .args(["-h", self.get("host"), "-s", self.get("tls-port")])
            .args(["-w", password, "-o"])
            .arg(to)
            .stdin(Stdio::null());
        let mut child = command
            .spawn()
            .expect("the package spice-client-gtk is installed");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success() && to.exists();
            }
            assert!(Instant::now() < until, "it hangs");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    async fn tls(&self, from: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{from}:0").parse().unwrap())?;
        let to = format!("{}:{}", self.get("host"), self.get("tls-port"));
        let tcp = socket.connect(to.parse().unwrap()).await?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.get("host").to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }

    async fn link(&self, channel: u8, connection: u32) -> Result<TlsStream<TcpStream>, SpiceError> {
        self.link_with(channel, connection, self.get("password"), "127.0.0.1")
            .await
    }

    async fn link_with(
        &self,
        channel: u8,
        connection: u32,
        password: &str,
        from: &str,
    ) -> Result<TlsStream<TcpStream>, SpiceError> {
        let mut stream = self.tls(from).await?;
        let hello = Hello {
            connection,
            channel,
            id: 0,
            common: vec![],
            own: vec![],
        };
        let first = if channel == channel::DISPLAY {
            display_init()
        } else {
            Vec::new()
        };
        shake::connect(&mut stream, &hello, password, &first).await?;
        Ok(stream)
    }
}

/// What a display's client says first: what it keeps of pictures.
fn display_init() -> Vec<u8> {
    let mut bytes = channel::DISPLAY_INIT.to_le_bytes().to_vec();
    bytes.extend(14u32.to_le_bytes());
    bytes.push(1);
    bytes.extend(1_000_000u64.to_le_bytes());
    bytes.push(1);
    bytes.extend(1_000_000u32.to_le_bytes());
    bytes
}

/// The main channel of a session.
struct Main {
    stream: TlsStream<TcpStream>,
    messages: Messages,
}

impl Main {
    async fn open(viewer: &Viewer, connection: u32) -> (Main, u32) {
        let stream = viewer
            .link(channel::MAIN, connection)
            .await
            .expect("let in");
        let mut main = Main {
            stream,
            messages: Messages::default(),
        };
        let session = loop {
            let piece = main.next().await.expect("a message");
            if let Some(session) = piece.session() {
                break session;
            }
        };
        // As every client does.
        let mut ask = ATTACH_CHANNELS.to_le_bytes().to_vec();
        ask.extend([0; 4]);
        main.stream.write_all(&ask).await.unwrap();
        (main, session)
    }

    async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.messages.next_piece() {
                return Some(piece);
            }
            let mut block = vec![0; 8192];
            match tokio::time::timeout(PATIENCE, self.stream.read(&mut block))
                .await
                .expect("in time")
            {
                Ok(read @ 1..) => self.messages.feed(&block[..read]),
                _ => return None,
            }
        }
    }

    /// Until it is told to come again; answers to which port.
    async fn told_to_come_again(&mut self) -> u16 {
        loop {
            match self.next().await.expect("it is told before it is closed") {
                Piece::Message {
                    kind: SWITCH_HOST,
                    bytes,
                } => {
                    let body = &bytes[MINI_HEADER..];
                    return u16::from_le_bytes([body[2], body[3]]);
                }
                Piece::Message { .. } | Piece::Part(_) => {}
            }
        }
    }
}

fn refused(linked: Result<TlsStream<TcpStream>, SpiceError>) -> bool {
    match linked {
        Ok(_) => false,
        Err(SpiceError::Refused(code)) => code == result::PERMISSION_DENIED,
        // The port says nothing to strangers.
        Err(SpiceError::Io(_)) => true,
        Err(e) => panic!("{e}"),
    }
}

fn has_a_picture(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(&bytes[..2], b"P6", "a portable pixmap");
    // Text on a screen is few pixels, and not all are alike.
    let pixels = &bytes[bytes.len() - 300_000..];
    pixels.chunks(3).any(|p| p != &pixels[..3])
}

/// Process ids of the desktop's machines.
fn machines(desktop: &str) -> Vec<u32> {
    let name = format!("guest=lyceum-{desktop}");
    let pid = |entry: std::fs::DirEntry| -> Option<u32> {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        line.split(|b| *b == 0)
            .any(|word| word == name.as_bytes())
            .then_some(pid)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(pid).collect()
}

#[test]
fn spice_clients_see_a_picture_and_are_told_to_come_again() {
    let dir = tempfile::Builder::new()
        .prefix("lys")
        .tempdir_in("/tmp")
        .unwrap();
    let state = dir.path().join("s");
    let _classroom = Classroom::start(&state);
    let course = "First steps in programming";
    let list = || json(&state, &["desktop", "list"])[0].clone();
    json(&state, &["course", "start", course]);
    let id = list()["id"].as_str().unwrap().to_owned();

    // It has to be chosen, and desktops that run have to be started again.
    let said = Viewer::ask(&state, &id).err().expect("it is off");
    assert!(said.contains("not switched on"), "{said}");
    json(&state, &["course", "set", course, "--spice", "yes"]);
    let said = Viewer::ask(&state, &id)
        .err()
        .expect("it was started without");
    assert!(said.contains("without SPICE"), "{said}");
    json(&state, &["desktop", "reset", &id]);

    // A real client; its password does not work twice, nor does another one.
    let viewer = Viewer::ask(&state, &id).expect("a file");
    let picture = dir.path().join("picture.ppm");
    assert!(!viewer.screenshot("wrong", &picture));
    assert!(
        viewer.screenshot(viewer.get("password"), &picture),
        "a real client is let in"
    );
    assert!(has_a_picture(&picture));
    std::fs::remove_file(&picture).unwrap();
    assert!(
        !viewer.screenshot(viewer.get("password"), &picture),
        "used up"
    );

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let viewer = Viewer::ask(&state, &id).expect("a file");
    let (mut main, session, mut display) = runtime.block_on(async {
        assert!(refused(
            viewer
                .link_with(channel::MAIN, 0, "wrong", "127.0.0.1")
                .await
        ));
        assert!(refused(
            viewer
                .link_with(channel::MAIN, 0, viewer.get("password"), "127.0.0.2")
                .await
        ));
        assert!(
            refused(viewer.link(channel::DISPLAY, 7).await),
            "the main channel comes first"
        );
        let (main, session) = Main::open(&viewer, 0).await;
        assert!(refused(viewer.link(channel::MAIN, 0).await), "used up");
        let display = viewer
            .link(channel::DISPLAY, session)
            .await
            .expect("comes with it");
        (main, session, display)
    });

    // One that hangs up before it said anything, or says something else, does its machine no harm.
    let before = machines(&id);
    assert_eq!(before.len(), 1);
    for said in [&b""[..], &[101, 0, 0, 0, 0, 1], &[9; 40]] {
        runtime.block_on(async {
            let mut stream = viewer.tls("127.0.0.1").await.unwrap();
            let hello = Hello {
                connection: session,
                channel: channel::DISPLAY,
                id: 0,
                common: vec![],
                own: vec![],
            };
            let linked = shake::connect(&mut stream, &hello, viewer.get("password"), said);
            linked.await.expect("linked");
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
                .await
                .expect("closed");
        });
    }

    assert_eq!(machines(&id), before);

    // Through a reset and moves of both kinds: told to come again, and let in again with the same password.
    for order in [
        &["desktop", "reset", &id][..],
        &["desktop", "move", &id, "--way", "delta"],
        &["desktop", "move", &id, "--way", "live"],
        // After it a desktop shares nothing with its release, and could not be suspended below.
        &["desktop", "reset", &id],
    ] {
        json(&state, order);
        runtime.block_on(async {
            assert_eq!(main.told_to_come_again().await, viewer.port());
            let _ = main.stream.shutdown().await;
            let mut rest = Vec::new();
            // Nothing more comes, however long it was held.
            let ended = tokio::time::timeout(PATIENCE, display.read_to_end(&mut rest));
            let _ = ended.await.expect("its other channels end with it");
            assert!(refused(
                viewer
                    .link_with(channel::MAIN, 0, viewer.get("password"), "127.0.0.2")
                    .await
            ));
            let (again, now) = Main::open(&viewer, session).await;
            main = again;
            display = viewer
                .link(channel::DISPLAY, now)
                .await
                .expect("comes with it");
        });
    }

    let moved = machines(&id);
    assert_eq!(moved.len(), 1);
    // A client that hangs up as soon as it is linked, or that another one follows then, when its machine has hardly begun
    // with it, does that no harm.
    for n in 0..20 {
        let first = Viewer::ask_patiently(&state, &id);
        let second = (n % 3 > 0).then(|| Viewer::ask_patiently(&state, &id));
        runtime.block_on(async {
            let (main, session) = Main::open(&first, 0).await;
            let display = first.link(channel::DISPLAY, session).await;
            // The machine is linked to after the client: anything may be going on by then.
            tokio::time::sleep(Duration::from_millis(n * 2)).await;
            match second {
                Some(second) => drop((Main::open(&second, 0).await, main, display)),
                None => drop((main, display.expect("linked"))),
            }
        });
        assert_eq!(machines(&id), moved, "{n}");
    }
    let viewer = Viewer::ask_patiently(&state, &id);
    let (mut main, _display) = runtime.block_on(async {
        let (main, session) = Main::open(&viewer, 0).await;
        let mut display = viewer
            .link(channel::DISPLAY, session)
            .await
            .expect("linked");
        display.read_exact(&mut [0]).await.expect("it is served");
        (main, display)
    });
    // Who comes last has the desktop; the one before is not told to come again.
    let other = Viewer::ask_patiently(&state, &id);
    runtime.block_on(async {
        let (_other, _) = Main::open(&other, 0).await;
        while let Some(piece) = main.next().await {
            assert!(!matches!(
                piece,
                Piece::Message {
                    kind: SWITCH_HOST,
                    ..
                }
            ));
        }
        assert!(refused(viewer.link(channel::MAIN, 0).await));
    });
    assert_eq!(machines(&id), moved, "none ended by itself on the way");
    json(&state, &["desktop", "suspend", &id]);
    assert!(Viewer::ask(&state, &id).is_err(), "it does not run");
}
