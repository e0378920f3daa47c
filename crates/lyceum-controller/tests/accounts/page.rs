//! The page, and TLS.

use crate::site::*;
use lyceum_controller::{Controller, ControllerConfig, PublicTls};
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test]
async fn the_page_is_served_with_its_policy() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let page = site.http.get(&site.url).send().await.unwrap();
    let built = lyceum_controller::api::page::is_built();
    assert_eq!(
        page.status(),
        if built {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        }
    );
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    if built {
        let etag = page.headers()["etag"].clone();
        let again = site
            .http
            .get(&site.url)
            .header("if-none-match", etag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let packed = site
            .http
            .get(&site.url)
            .header("accept-encoding", "gzip")
            .send()
            .await
            .unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip");
    }
    for path in [
        "no-such-file",
        "../Cargo.toml",
        "%2e%2e/%2e%2e/Cargo.toml",
        "api",
    ] {
        let answer = site
            .http
            .get(format!("{}/{path}", site.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    refused(
        site.get("no-such-thing", None).await,
        StatusCode::NOT_FOUND,
        "not_found",
    )
    .await;
    refused(
        site.post("health", None, json!({})).await,
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
    )
    .await;
    site.stop().await;
}

#[tokio::test]
async fn other_addresses_speak_tls_with_our_own_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let own = || ControllerConfig {
        tls: PublicTls::Own,
        ..config(dir.path())
    };
    let site = Site::with(own()).await;
    assert!(site.url.starts_with("https://"));
    let body = json!({"secret": site.first_secret(), "new_password": null});
    let response = site.post("session/one-time", None, body).await;
    let cookie = response.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(cookie.contains("; Secure"), "{cookie}");
    site.stop().await;
    let certificates = || {
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.retain(|n| n.to_string_lossy().starts_with("page-tls-"));
        names
    };
    assert_eq!(certificates().len(), 1);
    let before = std::fs::read(dir.path().join(&certificates()[0]).join("identity.json")).unwrap();
    Site::with(own()).await.stop().await;
    let after = std::fs::read(dir.path().join(&certificates()[0]).join("identity.json")).unwrap();
    assert_eq!(
        before, after,
        "browsers would have to trust a new certificate after each start"
    );
    let missing = PublicTls::Files {
        certificate: dir.path().join("no.pem"),
        key: dir.path().join("no.key"),
    };
    let error = Controller::bind(ControllerConfig {
        tls: missing,
        ..config(dir.path())
    })
    .await
    .err()
    .unwrap();
    assert!(error.to_string().contains("no.pem"), "{error}");
}
