//! How sessions end.

use crate::site::*;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn sessions_end_when_they_are_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let admin = site.admin().await;
    let user = site.make_user(&admin, "ana", "student").await;
    let id = user["id"].as_str().unwrap();
    let sign_in = async || signed(site.sign_in("ana", "password of ana").await).await;
    let alive =
        async |who: &Signed| site.get("session", Some(who)).await.status() == StatusCode::OK;

    // One by one.
    let (one, two, three) = (sign_in().await, sign_in().await, sign_in().await);
    assert!(alive(&one).await && alive(&two).await && alive(&three).await);
    let list = answer(site.get("sessions", Some(&one)).await, StatusCode::OK).await;
    assert_eq!(list.as_array().unwrap().len(), 3);
    let second =
        answer(site.get("session", Some(&two)).await, StatusCode::OK).await["session"].clone();
    let path = format!("sessions/{}", second.as_str().unwrap());
    assert_eq!(site.delete(&path, &one).await, StatusCode::NO_CONTENT);
    assert!(alive(&one).await && !alive(&two).await);
    assert_eq!(site.delete("session", &one).await, StatusCode::NO_CONTENT);
    assert!(!alive(&one).await && alive(&three).await);

    // A new password ends the others.
    let four = sign_in().await;
    let change = |old: Option<&str>, new: &str| json!({"old_password": old, "new_password": new});
    let wrong = change(Some("no"), "a new password");
    refused(
        site.post("password", Some(&four), wrong).await,
        StatusCode::FORBIDDEN,
        "wrong_credentials",
    )
    .await;
    refused(
        site.post("password", Some(&four), change(None, "a new password"))
            .await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid",
    )
    .await;
    assert!(alive(&three).await);
    let right = change(Some("password of ana"), "a new password");
    assert_eq!(
        site.post("password", Some(&four), right).await.status(),
        StatusCode::NO_CONTENT
    );
    assert!(alive(&four).await && !alive(&three).await);
    assert_eq!(
        site.sign_in("ana", "password of ana").await.status(),
        StatusCode::UNAUTHORIZED
    );

    // A link lets in without the old password, and lets set a new one once.
    let link = answer(
        site.post(
            &format!("users/{id}/one-time-link"),
            Some(&admin),
            json!({}),
        )
        .await,
        StatusCode::CREATED,
    )
    .await;
    let secret = link["path"]
        .as_str()
        .unwrap()
        .strip_prefix("/#/welcome/")
        .unwrap()
        .to_owned();
    let five = site.open_link(&secret, None).await;
    assert_eq!(
        site.post("password", Some(&five), change(None, "yet another one"))
            .await
            .status(),
        StatusCode::NO_CONTENT
    );
    refused(
        site.post("password", Some(&five), change(None, "and one more"))
            .await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid",
    )
    .await;

    // A disabled account is out at once, and its links too.
    let patch = site
        .call(
            Method::PATCH,
            &format!("users/{id}"),
            Some(&admin),
            json!({"disabled": true}),
        )
        .await;
    assert_eq!(patch.status(), StatusCode::OK);
    assert!(!alive(&five).await);
    assert_eq!(
        site.sign_in("ana", "yet another one").await.status(),
        StatusCode::UNAUTHORIZED
    );
    let link = site
        .post(
            &format!("users/{id}/one-time-link"),
            Some(&admin),
            json!({}),
        )
        .await;
    refused(link, StatusCode::CONFLICT, "state").await;
    site.stop().await;
}

#[tokio::test]
async fn an_idle_session_ends_and_its_use_is_noted_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let admin = site.admin().await;
    let ana = site.person(&admin, "ana", "student").await;
    let me = answer(site.get("session", Some(&ana)).await, StatusCode::OK).await;
    let (session, user) = (
        me["session"].as_str().unwrap().to_owned(),
        me["user"]["id"].as_str().unwrap().to_owned(),
    );
    let id = session.parse().unwrap();
    let user = user.parse().unwrap();
    let set = async |seen: i64| {
        let mut tx = site.app.store.begin_write().await.unwrap();
        lyceum_store::sessions::seen(&mut tx, &id, seen)
            .await
            .unwrap();
        tx.touch("session", &id);
        tx.commit().await.unwrap();
    };
    let stored = async || {
        lyceum_store::sessions::of_user(&site.app.store, &user)
            .await
            .unwrap()[0]
            .last_seen
    };
    let before = site.app.now() - 5 * 60_000;
    set(before).await;
    assert_eq!(
        site.get("session", Some(&ana)).await.status(),
        StatusCode::OK
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while stored().await == before {
        assert!(Instant::now() < deadline, "the use was not noted");
        tokio::task::yield_now().await;
    }
    let noted = stored().await;
    for _ in 0..20 {
        assert_eq!(
            site.get("session", Some(&ana)).await.status(),
            StatusCode::OK
        );
    }
    assert_eq!(stored().await, noted, "noted more than once a minute");
    let idle = i64::from(site.app.settings().await.unwrap().session_idle_minutes) * 60_000;
    set(site.app.now() - idle - 1000).await;
    refused(
        site.get("session", Some(&ana)).await,
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
    )
    .await;
    site.stop().await;
}
