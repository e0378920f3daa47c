//! First sign-in, passwords, bearer secrets, the local socket.

use crate::site::*;
use lyceum_controller::{Controller, StartError};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn the_first_admin_comes_in_by_a_link_that_works_once() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let mode = |name: &str| {
        std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("first-sign-in"), mode("controller.sock")),
        (0o600, 0o600)
    );
    assert!(matches!(
        Controller::bind(config(dir.path())).await,
        Err(StartError::Running(_))
    ));
    let first = site.first_secret();
    site.stop().await;

    // Not used: the next start makes a new one, and the old one is worth nothing.
    let site = Site::start(dir.path()).await;
    let secret = site.first_secret();
    assert_ne!(secret, first);
    let body = |secret: &str| json!({"secret": secret, "new_password": "the admin's password"});
    refused(
        site.post("session/one-time", None, body(&first)).await,
        StatusCode::UNAUTHORIZED,
        "link_used",
    )
    .await;
    let short = json!({"secret": secret, "new_password": "short"});
    refused(
        site.post("session/one-time", None, short).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid",
    )
    .await;

    // Of many at once, one gets in.
    let tries = futures::future::join_all(
        (0..4).map(|_| site.post("session/one-time", None, body(&secret))),
    )
    .await;
    let mut inside = Vec::new();
    for response in tries {
        if response.status() == StatusCode::OK {
            let cookie = response.headers()["set-cookie"]
                .to_str()
                .unwrap()
                .to_owned();
            assert!(
                cookie.contains("; HttpOnly; SameSite=Strict; Path=/")
                    && !cookie.contains("Secure"),
                "{cookie}"
            );
            inside.push(signed(response).await);
        } else {
            refused(response, StatusCode::UNAUTHORIZED, "link_used").await;
        }
    }
    assert_eq!(inside.len(), 1);
    let me = answer(site.get("session", Some(&inside[0])).await, StatusCode::OK).await;
    assert_eq!(
        (&me["user"]["login"], &me["user"]["role"]),
        (&json!("admin"), &json!("admin"))
    );
    assert_eq!(me["csrf"], inside[0].csrf.as_str());
    site.stop().await;

    // Used: no new link, the password works, and the session outlived the restart.
    let site = Site::start(dir.path()).await;
    assert!(!dir.path().join("first-sign-in").exists());
    assert_eq!(
        site.get("session", Some(&inside[0])).await.status(),
        StatusCode::OK
    );
    signed(site.sign_in(" ADMIN ", "the admin's password").await).await;
    site.stop().await;
}

#[tokio::test]
async fn wrong_passwords_are_limited_without_locking_anybody_out() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let admin = site.admin().await;
    site.make_user(&admin, "ana", "student").await;
    site.make_user(&admin, "ben", "student").await;
    for _ in 0..3 {
        signed(site.sign_in("ana", "password of ana").await).await;
    }
    let mut messages = Vec::new();
    for (login, password) in [
        ("ana", "wrong"),
        ("ana", ""),
        ("ana", "password of ben"),
        ("nobody", "x"),
        ("../x", "y"),
    ] {
        messages.push(
            refused(
                site.sign_in(login, password).await,
                StatusCode::UNAUTHORIZED,
                "wrong_credentials",
            )
            .await,
        );
    }
    messages.dedup();
    assert_eq!(
        messages.len(),
        1,
        "the message tells whether there is such an account"
    );
    for _ in 0..2 {
        site.sign_in("ana", "wrong").await;
    }
    for password in ["wrong", "password of ana"] {
        let response = site.sign_in("ana", password).await;
        let seconds: u64 = response.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=20).contains(&seconds), "{seconds}");
        let message = refused(response, StatusCode::TOO_MANY_REQUESTS, "too_many_requests").await;
        assert!(message.contains(" s"), "{message}");
    }
    signed(site.sign_in("ben", "password of ben").await).await;
    let log = answer(site.get("audit", Some(&admin)).await, StatusCode::OK)
        .await
        .to_string();
    assert!(log.contains("session.refused") && log.contains("session.sign_in"));
    assert!(!log.contains("password of"), "a password is in the log");
    site.stop().await;
}

#[tokio::test]
async fn a_secret_as_bearer_needs_no_token_and_a_wrong_one_is_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let admin = site.admin().await;
    let with = |secret: &str| {
        site.http
            .patch(format!("{}/api/v1/settings", site.url))
            .header("authorization", format!("Bearer {secret}"))
            .json(&json!({"classroom_name": "Room 7"}))
    };
    assert_eq!(
        with("nonsense").send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let changed = answer(with(&admin.cookie).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(changed["classroom_name"], "Room 7");
    let me = answer(site.get("session", Some(&admin)).await, StatusCode::OK).await;
    assert_eq!(me["classroom_name"], "Room 7");
    for (field, value) in [
        ("overcommit", json!(0.1)),
        ("overcommit", json!(1000)),
        ("starts_at_once", json!(0)),
    ] {
        let patch = site
            .call(
                Method::PATCH,
                "settings",
                Some(&admin),
                json!({field: value}),
            )
            .await;
        refused(patch, StatusCode::UNPROCESSABLE_ENTITY, "invalid").await;
    }
    site.stop().await;
}

#[tokio::test]
async fn the_local_socket_has_the_rights_of_who_runs_the_classroom() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let http = reqwest::Client::builder()
        .no_proxy()
        .unix_socket(dir.path().join("controller.sock"))
        .build()
        .unwrap();
    let me = http
        .get("http://localhost/api/v1/session")
        .send()
        .await
        .unwrap();
    assert_eq!(answer(me, StatusCode::OK).await["user"]["login"], "local");
    let body = json!({"login": "ana", "name": "Ana", "role": "teacher", "password": null});
    let made = http
        .post("http://localhost/api/v1/users")
        .json(&body)
        .send()
        .await
        .unwrap();
    answer(made, StatusCode::CREATED).await;
    let log = http
        .get("http://localhost/api/v1/audit")
        .send()
        .await
        .unwrap();
    let log = answer(log, StatusCode::OK).await;
    assert_eq!(
        (&log["items"][0]["actor"], &log["items"][0]["action"]),
        (&json!("local"), &json!("user.create"))
    );
    let password = json!({"old_password": null, "new_password": "12345678"});
    let refusal = http
        .post("http://localhost/api/v1/password")
        .json(&password)
        .send()
        .await
        .unwrap();
    refused(refusal, StatusCode::UNPROCESSABLE_ENTITY, "invalid").await;
    site.stop().await;
}
