//! Agents join, ask again when the answer was lost, and renew their certificates.

use crate::site::{Site, answer};
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use lyceum_proto::join::{AgentKind, JoinRequest, JoinResponse, RenewRequest};
use lyceum_wire::extract::Json;
use lyceum_wire::{
    Access, ApiError, Client, Identity, JoinToken, Peer, PeerKind, Renewing, serve, serve_renewing,
};
use reqwest::StatusCode;
use serde_json::json;
use std::path::Path;
use tokio_util::sync::CancellationToken;

async fn token(site: &Site) -> JoinToken {
    let admin = site.admin().await;
    let body = json!({"kind": "host", "name": "h1"});
    let made = answer(
        site.post("join-tokens", Some(&admin), body).await,
        StatusCode::CREATED,
    )
    .await;
    JoinToken::parse(made["token"].as_str().unwrap()).unwrap()
}

async fn join(token: &JoinToken, dir: &Path) -> Result<Identity, lyceum_wire::WireError> {
    let (text, name) = (token.to_text().unwrap(), "h1".parse().unwrap());
    lyceum_wire::join::join(&text, AgentKind::Host, name, "https://127.0.0.1:1", dir).await
}

/// Hands requests on to the controller and loses its answers.
async fn swallows(State(controller): State<Client>, Json(body): Json<JoinRequest>) -> ApiError {
    let answer: Result<JoinResponse, _> = controller.post("/join", &body).await;
    answer.expect("the controller lets it join");
    ApiError::new("unavailable", "the line is cut")
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_repeated_by_the_same_agent_only() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let token = token(&site).await;
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through_relay = JoinToken {
        url: format!("https://{}", relay.local_addr().unwrap()),
        ..token.clone()
    };
    let own = site.app.ca.controller_identity(&[]).unwrap();
    let controller = Client::new(&own, &token.url, &Peer::controller()).unwrap();
    let router = Router::new()
        .route("/join", post(swallows))
        .with_state(controller);
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move { serve(relay, router, &own, Access::Join, until).await });

    let [agent, thief] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let lost = join(&through_relay, agent.path()).await.unwrap_err();
    assert!(lost.to_string().contains("the line is cut"), "{lost}");
    assert!(Identity::load(agent.path()).unwrap().is_none());
    // Whoever has the token, but not the key, gets nothing.
    let refused = join(&token, thief.path()).await.unwrap_err();
    assert!(refused.to_string().contains("used already"), "{refused}");
    let identity = join(&token, agent.path())
        .await
        .expect("the same key asks again");
    assert_eq!(identity.peer().to_string(), "lyceum://host/h1");
    assert!(
        !agent.path().join("joining.json").exists(),
        "the key lies about"
    );
    stop.cancel();
    site.stop().await;
}

/// What a server shows to who connects now.
async fn shown(url: &str) -> Vec<u8> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .tls_info(true)
        .build()
        .unwrap();
    let response = client.get(url).send().await.unwrap();
    let tls = response
        .extensions()
        .get::<reqwest::tls::TlsInfo>()
        .unwrap();
    tls.peer_certificate().unwrap().to_vec()
}

#[tokio::test]
async fn an_agent_renews_its_certificate_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let token = token(&site).await;
    let agent = tempfile::tempdir().unwrap();
    let first = join(&token, agent.path()).await.unwrap();
    let life = first.validity().unwrap();
    assert!(life.end - life.start < 2 * 365 * 24 * 3600, "{life:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let renewing = Renewing::new(first, agent.path().to_owned());
    let stop = CancellationToken::new();
    let (served, until) = (renewing.clone(), stop.clone());
    let router = Router::new().route("/", get(|| async { Json(1) }));
    tokio::spawn(
        async move { serve_renewing(listener, router, &served, Access::Join, until).await },
    );
    let own = site.app.ca.controller_identity(&[]).unwrap();
    let peer = Peer::new(PeerKind::Host, "h1".parse().unwrap());
    let open = Client::new(&own, &url, &peer).unwrap();
    let _: u32 = open.get("/").await.unwrap();
    let before = shown(&url).await;

    renewing.renew().await.unwrap();
    let after = shown(&url).await;
    assert_ne!(before, after, "the old certificate is shown still");
    assert_eq!(shown(&url).await, after);
    // The connection that was there goes on, and a new one trusts the new certificate.
    let _: u32 = open.get("/").await.unwrap();
    let fresh = Client::new(&own, &url, &peer).unwrap();
    let _: u32 = fresh.get("/").await.unwrap();
    // A restart finds it, and can renew it again.
    let kept = Identity::load(agent.path()).unwrap().unwrap();
    let again = Renewing::new(kept, agent.path().to_owned());
    again.renew().await.unwrap();

    // Who is no agent gets none: without a certificate, as controller, or thrown out.
    let renew = format!("{}/renew", token.url);
    let anonymous = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let body = json!({"csr_pem": "x"});
    let response = anonymous.post(&renew).json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let as_controller = Client::new(&own, &token.url, &Peer::controller()).unwrap();
    let request = RenewRequest {
        csr_pem: "x".into(),
    };
    let refused = as_controller
        .post::<_, JoinResponse>("/renew", &request)
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("its own certificate")
    );
    let mut tx = site.app.store.begin_write().await.unwrap();
    sqlx::query("DELETE FROM agents WHERE id = 'h1'")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let refused = again.renew().await.unwrap_err();
    assert!(
        refused.to_string().contains("not part of this classroom"),
        "{refused}"
    );
    stop.cancel();
    site.stop().await;
}
