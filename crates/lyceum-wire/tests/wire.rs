//! Two parts of a classroom on loopback, and those who don't belong to it.

#![allow(clippy::unwrap_used)]

use axum::extract::Request;
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use lyceum_proto::join::{AgentKind, JoinRequest};
use lyceum_wire::extract::{Json, Path};
use lyceum_wire::join::{JoinToken, join, secret_matches};
use lyceum_wire::server::accept_upgrade;
use lyceum_wire::{
    Access, ApiError, ClassroomCa, Client, ClientError, Identity, Peer, PeerKind, serve,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

fn ca() -> ClassroomCa {
    let dir = tempfile::tempdir().unwrap();
    ClassroomCa::open_or_create(dir.path()).unwrap()
}

fn host(name: &str) -> Peer {
    Peer::new(PeerKind::Host, name.parse().unwrap())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Echo {
    text: String,
}

fn router() -> Router {
    Router::new()
        .route(
            "/whoami",
            get(|Extension(peer): Extension<Peer>| async move { Json(peer.to_string()) }),
        )
        .route(
            "/echo",
            post(|Json(body): Json<Echo>| async move { Json(body) }),
        )
        .route(
            "/id/{id}",
            get(|Path(id): Path<lyceum_model::DesktopId>| async move { Json(id) }),
        )
        .route("/empty", get(|| async {}))
        .route("/panic", get(panics))
        .route(
            "/length",
            put(|request: Request| async move {
                use http_body_util::BodyExt;
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                Json(bytes.len())
            }),
        )
        .route(
            "/stream",
            get(|mut request: Request| async move {
                let (response, stream) = accept_upgrade(&mut request, "rfb")?;
                tokio::spawn(async move {
                    let mut stream = stream.await.unwrap();
                    let mut buf = [0; 1024];
                    while let Ok(n @ 1..) = stream.read(&mut buf).await {
                        buf[..n].reverse();
                        stream.write_all(&buf[..n]).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                });
                Ok::<_, ApiError>(response)
            }),
        )
}

async fn panics() {
    panic!("on purpose");
}

async fn start(identity: Identity, router: Router, access: Access) -> (String, CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        serve(listener, router, &identity, access, token)
            .await
            .unwrap();
    });
    (url, stop)
}

async fn agent(ca: &ClassroomCa) -> (String, CancellationToken) {
    let identity = ca.issue(&host("h1"), &[]).unwrap();
    start(identity, router(), Access::Only(vec![PeerKind::Controller])).await
}

#[tokio::test]
async fn calls_streams_and_errors() {
    let ca = ca();
    let (url, _stop) = agent(&ca).await;
    let client = Client::new(&ca.controller_identity(&[]).unwrap(), &url, &host("h1")).unwrap();

    let who: String = client.get("/whoami").await.unwrap();
    assert_eq!(who, "lyceum://controller/controller");
    let () = client.get("/empty").await.unwrap();

    let body = Echo { text: "x".into() };
    let echo: Echo = client.post("/echo", &body).await.unwrap();
    assert_eq!(echo.text, "x");

    let code = |e: ClientError| e.code().map(str::to_owned);
    let e = client
        .post::<_, Echo>("/echo", &serde_json::json!({"text": "x", "extra": 1}))
        .await
        .unwrap_err();
    assert!(e.to_string().contains("extra"), "{e}");
    assert_eq!(code(e).as_deref(), Some("invalid"));
    let long = Echo {
        text: "x".repeat(2 * 1024 * 1024),
    };
    let e = client.post::<_, Echo>("/echo", &long).await.unwrap_err();
    assert_eq!(code(e).as_deref(), Some("too_large"));
    let e = client.get::<String>("/id/..%2f..%2fetc").await.unwrap_err();
    assert_eq!(code(e).as_deref(), Some("invalid"));
    let e = client.get::<String>("/nowhere").await.unwrap_err();
    assert_eq!(code(e).as_deref(), Some("not_found"));
    let e = client.delete::<String>("/whoami").await.unwrap_err();
    assert_eq!(code(e).as_deref(), Some("method_not_allowed"));
    let e = client.get::<String>("/panic").await.unwrap_err();
    assert_eq!(code(e).as_deref(), Some("internal"));

    // A streamed body is not subject to the limit of JSON bodies.
    let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![7u8; 65536])));
    let length: usize = client
        .put_stream("/length", futures::stream::iter(chunks))
        .await
        .unwrap();
    assert_eq!(length, 64 * 65536);

    let e = client.get::<String>("/stream").await.unwrap_err();
    assert_eq!(code(e).as_deref(), Some("invalid"));
    let e = client.upgrade("/whoami", "rfb").await.unwrap_err();
    assert!(matches!(e, ClientError::Answer { .. }), "{e}");
    let mut stream = client.upgrade("/stream", "rfb").await.unwrap();
    for text in [b"abc", b"def"] {
        stream.write_all(text).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = [0; 3];
        stream.read_exact(&mut back).await.unwrap();
        back.reverse();
        assert_eq!(&back, text);
    }
}

#[tokio::test]
async fn strangers_are_refused() {
    let ours = ca();
    let theirs = ca();
    let (url, _stop) = agent(&ours).await;
    let me = ours.controller_identity(&[]).unwrap();

    // A controller of another classroom.
    let stranger = theirs.controller_identity(&[]).unwrap();
    let client = Client::new(&stranger, &url, &host("h1")).unwrap();
    let e = client.get::<String>("/whoami").await.unwrap_err();
    assert!(matches!(e, ClientError::Unreachable { .. }), "{e}");
    // The same, believing our CA.
    let forged = Identity::new(
        Peer::controller(),
        stranger_parts(&stranger, "certificate_pem"),
        stranger_parts(&stranger, "key_pem"),
        ours.pem().to_owned(),
    )
    .unwrap();
    let client = Client::new(&forged, &url, &host("h1")).unwrap();
    let e = client.get::<String>("/whoami").await.unwrap_err();
    assert!(matches!(e, ClientError::Unreachable { .. }), "{e}");

    // The right CA, the wrong kind.
    let storage = Peer::new(PeerKind::Storage, "s1".parse().unwrap());
    for wrong in [storage, host("h2")] {
        let client = Client::new(&ours.issue(&wrong, &[]).unwrap(), &url, &host("h1")).unwrap();
        let e = client.get::<String>("/whoami").await.unwrap_err();
        assert_eq!(e.code(), Some("forbidden"), "{e}");
    }

    // A host that poses as another, or as storage.
    for expected in [
        host("h2"),
        Peer::new(PeerKind::Storage, "h1".parse().unwrap()),
    ] {
        let client = Client::new(&me, &url, &expected).unwrap();
        let e = client.get::<String>("/whoami").await.unwrap_err();
        assert!(matches!(e, ClientError::Unreachable { .. }), "{e}");
    }

    // No certificate: the pinned client of join has none.
    let dir = tempfile::tempdir().unwrap();
    let (url, _stop) = start(
        ours.controller_identity(&[]).unwrap(),
        Router::new().route("/join", post(|| async { Json("reached") })),
        Access::Only(vec![PeerKind::Host]),
    )
    .await;
    let token = JoinToken::new(url, ours.fingerprint()).unwrap();
    let e = join(
        &token.to_text().unwrap(),
        AgentKind::Host,
        "h1".parse().unwrap(),
        "https://127.0.0.1:1",
        dir.path(),
    )
    .await
    .unwrap_err();
    assert!(
        matches!(&e, lyceum_wire::WireError::Join(c) if matches!(**c, ClientError::Unreachable { .. })),
        "{e}"
    );
}

fn stranger_parts(identity: &Identity, field: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    identity.save(dir.path()).unwrap();
    let text = std::fs::read(dir.path().join("identity.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    json[field].as_str().unwrap().to_owned()
}

async fn join_port(ca: Arc<ClassroomCa>, hash: String) -> String {
    let signer = ca.clone();
    let router = Router::new().route(
        "/join",
        post(move |Json(request): Json<JoinRequest>| async move {
            if !secret_matches(&request.secret, &hash) {
                return Err(ApiError::forbidden("unknown or used token"));
            }
            signer
                .sign_join(&request)
                .map(Json)
                .map_err(|e| ApiError::invalid(e.to_string()))
        }),
    );
    let identity = ca.controller_identity(&["127.0.0.1".into()]).unwrap();
    start(identity, router, Access::Join).await.0
}

#[tokio::test]
async fn joins_once_and_only_the_right_classroom() {
    let ca = Arc::new(ca());
    let mut token = JoinToken::new(String::new(), ca.fingerprint()).unwrap();
    token.url = join_port(ca.clone(), token.secret_hash()).await;
    let name: lyceum_model::HostId = "h1".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let try_join = async |token: &JoinToken, kind: AgentKind, dir: &std::path::Path| {
        let text = token.to_text().unwrap();
        join(&text, kind, name.clone(), "https://127.0.0.1:1", dir).await
    };

    // The token of one classroom at the controller of another.
    let mut wrong_ca = token.clone();
    wrong_ca.ca_sha256 = self::ca().fingerprint();
    assert!(
        try_join(&wrong_ca, AgentKind::Host, dir.path())
            .await
            .is_err()
    );
    let mut wrong_secret = token.clone();
    wrong_secret.secret = "guess".into();
    let e = try_join(&wrong_secret, AgentKind::Host, dir.path())
        .await
        .unwrap_err();
    assert!(e.to_string().contains("token"), "{e}");
    assert!(Identity::load(dir.path()).unwrap().is_none());

    let identity = try_join(&token, AgentKind::Host, dir.path()).await.unwrap();
    assert_eq!(identity.peer(), &host("h1"));
    assert_eq!(identity.ca_pem(), ca.pem());
    // Again: nothing is used up. As somebody else: refused.
    assert!(
        try_join(&wrong_secret, AgentKind::Host, dir.path())
            .await
            .is_ok()
    );
    let e = try_join(&token, AgentKind::Storage, dir.path())
        .await
        .unwrap_err();
    assert!(
        matches!(e, lyceum_wire::WireError::AlreadyJoined { .. }),
        "{e}"
    );

    // What it got works.
    let loaded = Identity::load(dir.path()).unwrap().unwrap();
    let (url, _stop) = start(loaded, router(), Access::Only(vec![PeerKind::Controller])).await;
    let client = Client::new(&ca.controller_identity(&[]).unwrap(), &url, &host("h1")).unwrap();
    let _: String = client.get("/whoami").await.unwrap();
}

#[tokio::test]
async fn shuts_down_and_lets_a_running_request_end() {
    let ca = ca();
    let entered = Arc::new(tokio::sync::Notify::new());
    let go_on = Arc::new(tokio::sync::Notify::new());
    let (e, g) = (entered.clone(), go_on.clone());
    let router = Router::new().route(
        "/slow",
        get(move || async move {
            e.notify_one();
            g.notified().await;
            Json("done")
        }),
    );
    let identity = ca.issue(&host("h1"), &[]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let token = stop.clone();
    let server = tokio::spawn(async move {
        let access = Access::Only(vec![PeerKind::Controller]);
        serve(listener, router, &identity, access, token).await
    });
    let client = Client::new(&ca.controller_identity(&[]).unwrap(), &url, &host("h1")).unwrap();
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.get::<String>("/slow").await });
    entered.notified().await;
    stop.cancel();
    go_on.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), "done");
    server.await.unwrap().unwrap();
    let e = client.get::<String>("/slow").await.unwrap_err();
    assert!(matches!(e, ClientError::Unreachable { .. }), "{e}");

    // Nobody answers: a call ends when its time is over.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", deaf.local_addr().unwrap());
    let client = Client::new(&ca.controller_identity(&[]).unwrap(), &url, &host("h1")).unwrap();
    let e = client
        .timeout(Duration::from_millis(100))
        .get::<String>("/")
        .await
        .unwrap_err();
    assert!(matches!(e, ClientError::Timeout { .. }), "{e}");
}
