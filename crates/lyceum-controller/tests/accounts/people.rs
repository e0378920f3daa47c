//! Rosters, deleting, and agents that join.

use crate::site::*;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_roster_file_does_what_its_preview_said() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    site.image().await;
    let admin = site.admin().await;
    let teacher = site.person(&admin, "teach", "teacher").await;
    site.make_user(&admin, "ana", "student").await;
    site.make_user(&admin, "ben", "student").await;
    let course = site.course(&teacher, "Class 7b").await;
    let file = |csv: &str| json!({"csv": csv, "remove_missing": true, "create_accounts": true});
    let preview = format!("courses/{course}/roster/preview");
    let roster = format!("courses/{course}/roster");
    let apply = async |csv: &str| {
        site.call(Method::PUT, &roster, Some(&teacher), file(csv))
            .await
    };
    let names = async || -> Vec<String> {
        let list = answer(site.get(&roster, Some(&teacher)).await, StatusCode::OK).await;
        list.as_array()
            .unwrap()
            .iter()
            .map(|m| {
                format!(
                    "{} {}",
                    m["login"].as_str().unwrap(),
                    m["role"].as_str().unwrap()
                )
            })
            .collect()
    };
    assert_eq!(
        answer(apply("login\nana\nben\n").await, StatusCode::OK).await["add"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let csv = "\u{feff}Login;Name;Role\r\nana;;teacher\r\nnew;\"New; Comer\";\r\n";
    let planned = answer(
        site.post(&preview, Some(&teacher), file(csv)).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(
        names().await,
        ["ana student", "ben student", "teach teacher"],
        "the preview changed something"
    );
    let mut done = answer(apply(csv).await, StatusCode::OK).await;
    let links = done["links"].take();
    done["links"] = json!([]);
    assert_eq!(done, planned);
    assert_eq!(
        names().await,
        ["ana teacher", "new student", "teach teacher"]
    );
    let secret = links[0]["path"]
        .as_str()
        .unwrap()
        .strip_prefix("/#/welcome/")
        .unwrap();
    let new = site.open_link(secret, Some("my very own")).await;
    let seen = answer(site.get("courses", Some(&new)).await, StatusCode::OK).await;
    assert_eq!(
        (&seen[0]["name"], &seen[0]["my_role"], &seen[0]["students"]),
        (&json!("Class 7b"), &json!("student"), &json!(1))
    );

    // Any problem, and nothing happens.
    let bad = "login\nana\nother\n../etc\n";
    let planned = answer(
        site.post(&preview, Some(&teacher), file(bad)).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(planned["problems"][0]["line"], 4);
    let message = refused(
        apply(bad).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid",
    )
    .await;
    assert!(message.contains("line 4"), "{message}");
    assert_eq!(
        names().await,
        ["ana teacher", "new student", "teach teacher"]
    );
    assert_eq!(
        site.sign_in("other", "x").await.status(),
        StatusCode::UNAUTHORIZED
    );
    let big = format!("login\n{}", "\u{1}".repeat(1024 * 1024));
    refused(
        apply(&big).await,
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
    )
    .await;
    site.stop().await;
}

#[tokio::test]
async fn accounts_and_courses_are_deleted_with_care() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    site.image().await;
    let admin = site.admin().await;
    let me = answer(site.get("session", Some(&admin)).await, StatusCode::OK).await;
    let own = format!("users/{}", me["user"]["id"].as_str().unwrap());
    assert_eq!(site.delete(&own, &admin).await, StatusCode::CONFLICT);
    for patch in [json!({"role": "teacher"}), json!({"disabled": true})] {
        refused(
            site.call(Method::PATCH, &own, Some(&admin), patch).await,
            StatusCode::CONFLICT,
            "last_admin",
        )
        .await;
    }
    assert_eq!(
        site.get("audit", Some(&admin)).await.status(),
        StatusCode::OK,
        "a refusal changed something"
    );
    let teacher = site.person(&admin, "teach", "teacher").await;
    let ana = site.make_user(&admin, "ana", "student").await;
    let taken = json!({"login": "ANA", "name": "x", "role": "student", "password": null});
    refused(
        site.post("users", Some(&admin), taken).await,
        StatusCode::CONFLICT,
        "conflict",
    )
    .await;
    let course = site.course(&teacher, "Short").await;
    let member = format!("courses/{course}/members/{}", ana["id"].as_str().unwrap());
    let put = site
        .call(
            Method::PUT,
            &member,
            Some(&teacher),
            json!({"role": "student"}),
        )
        .await;
    assert_eq!(put.status(), StatusCode::OK);

    // An account with a desktop: closed at once, the row goes with the desktop.
    let body = json!({"course": course, "user": ana["id"]});
    let desktop = answer(
        site.post("desktops", Some(&teacher), body).await,
        StatusCode::CREATED,
    )
    .await;
    let desktop = desktop["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        site.delete(&format!("users/{}", ana["id"].as_str().unwrap()), &admin)
            .await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        site.sign_in("ana", "password of ana").await.status(),
        StatusCode::UNAUTHORIZED
    );
    let again = site.make_user(&admin, "ana", "student").await;
    assert_ne!(again["id"], ana["id"]);
    let user = ana["id"].as_str().unwrap().parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while lyceum_store::users::get(&site.app.store, &user)
        .await
        .unwrap()
        .is_some()
    {
        // It never ran, so the reconciler needs no host to remove it; if it did, this test would.
        assert!(
            Instant::now() < deadline,
            "{:?}",
            lyceum_store::desktops::get(&site.app.store, &desktop).await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        site.delete(&format!("courses/{course}"), &admin).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        site.get(&format!("courses/{course}"), Some(&teacher))
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
    site.stop().await;
}

#[tokio::test]
async fn an_agent_joins_once_with_its_own_token() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let admin = site.admin().await;
    let make = async |name: &str| {
        let body = json!({"kind": "host", "name": name});
        let token = answer(
            site.post("join-tokens", Some(&admin), body).await,
            StatusCode::CREATED,
        )
        .await;
        token["token"].as_str().unwrap().to_owned()
    };
    let join = async |token: &str, name: &str, url: &str| {
        let state = tempfile::tempdir().unwrap();
        let kind = lyceum_proto::join::AgentKind::Host;
        lyceum_wire::join::join(token, kind, name.parse().unwrap(), url, state.path()).await
    };
    let token = make("kvm1").await;
    let url = "https://127.0.0.1:7443";
    assert!(
        join(&token, "kvm2", url).await.is_err(),
        "a token for another name was taken"
    );
    assert!(
        join(&token, "kvm1", "file:///etc/passwd").await.is_err(),
        "a strange address was taken"
    );
    let identity = join(&token, "kvm1", url).await.unwrap();
    assert_eq!(identity.peer().to_string(), "lyceum://host/kvm1");
    assert!(
        join(&token, "kvm1", url).await.is_err(),
        "a token worked twice"
    );
    let replaced = make("kvm3").await;
    make("kvm3").await;
    assert!(
        join(&replaced, "kvm3", url).await.is_err(),
        "a replaced token worked"
    );
    let hosts = lyceum_store::agents::list(&site.app.store, "host")
        .await
        .unwrap();
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].url, url);
    let storage = json!({"kind": "storage", "name": "kvm1"});
    refused(
        site.post("join-tokens", Some(&admin), storage).await,
        StatusCode::CONFLICT,
        "conflict",
    )
    .await;
    site.stop().await;
}
