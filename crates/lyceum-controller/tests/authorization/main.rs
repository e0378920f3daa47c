//! Nobody sees or touches what is not theirs: every operation of the API, asked by everybody;
//! and every operation with requests that are forged or malformed.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod table;
mod world;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use table::{Row, table};
use world::{Who, World};

fn class(status: StatusCode) -> char {
    match status.as_u16() {
        400 => 'M',
        401 => 'U',
        403 => 'F',
        404 => 'N',
        405 | 415 | 500 => '!',
        _ => 'A',
    }
}

fn name(row: &Row) -> String {
    format!("{} {}", row.method, row.path)
}

#[test]
fn every_operation_is_in_the_table_and_the_table_holds_no_other() {
    let document = serde_json::to_value(lyceum_controller::api::openapi()).unwrap();
    let mut offered = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.strip_prefix("/api/v1").unwrap();
            offered.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let tried: BTreeSet<String> = table()
        .iter()
        .map(|r| format!("{} {}", r.method, r.template))
        .collect();
    let missing: Vec<_> = offered.difference(&tried).collect();
    let unknown: Vec<_> = tried.difference(&offered).collect();
    assert!(
        missing.is_empty(),
        "operations without an authorisation test: {missing:#?}"
    );
    assert!(
        unknown.is_empty(),
        "rows for operations that are not offered: {unknown:#?}"
    );
}

#[tokio::test]
async fn everybody_gets_what_the_table_says_and_refusals_change_nothing() {
    let mut wrong = Vec::new();
    let shared = World::new().await;
    let before = shared.everything().await;
    for row in table() {
        for (who, expected) in Who::ALL.into_iter().zip(row.expected.chars()) {
            if expected == 'A' {
                // It may change something: in a world of its own.
                let world = World::new().await;
                let answer = world
                    .ask(who, row.method, row.path, row.body.as_ref())
                    .await;
                if class(answer.status) != 'A' {
                    wrong.push(format!(
                        "{who:?} {}: {} {}",
                        name(&row),
                        answer.status,
                        answer.text
                    ));
                }
                continue;
            }
            let answer = shared
                .ask(who, row.method, row.path, row.body.as_ref())
                .await;
            if class(answer.status) != expected {
                wrong.push(format!(
                    "{who:?} {}: {} instead of {expected}: {}",
                    name(&row),
                    answer.status,
                    answer.text
                ));
            }
            if answer.code.is_empty() {
                wrong.push(format!(
                    "{who:?} {}: not in the one form of an error: {}",
                    name(&row),
                    answer.text
                ));
            }
            if shared.everything().await != before {
                panic!("{who:?} {}: refused, and yet the store changed", name(&row));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn changing() -> impl Iterator<Item = Row> {
    table().into_iter().filter(|r| r.method != "GET")
}

#[tokio::test]
async fn a_changing_request_needs_the_token_of_its_session() {
    let world = World::new().await;
    let before = world.everything().await;
    let mut wrong = Vec::new();
    // Signing in has no session yet; `Origin` protects it (next test).
    for row in changing().filter(|r| !r.template.starts_with("/session") || r.method == "DELETE") {
        for token in [None, Some("wrong"), Some("")] {
            let mut request = world.request(Who::Admin, row.method, row.path, row.body.as_ref());
            match token {
                None => request.headers_mut().remove("x-lyceum-csrf"),
                Some(text) => request
                    .headers_mut()
                    .insert("x-lyceum-csrf", HeaderValue::from_static(text)),
            };
            let answer = world.send(request).await;
            if (answer.status, answer.code.as_str()) != (StatusCode::FORBIDDEN, "csrf") {
                wrong.push(format!(
                    "{} with {token:?}: {} {}",
                    name(&row),
                    answer.status,
                    answer.text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let world = World::new().await;
    let before = world.everything().await;
    let mut wrong = Vec::new();
    for row in changing() {
        for (header, value, code) in [
            ("origin", "https://evil.example", "wrong_origin"),
            ("origin", "null", "wrong_origin"),
            ("sec-fetch-site", "cross-site", "wrong_origin"),
            ("host", "evil.example", "wrong_host"),
        ] {
            let mut request = world.request(Who::Admin, row.method, row.path, row.body.as_ref());
            request
                .headers_mut()
                .insert(header, HeaderValue::from_static(value));
            let answer = world.send(request).await;
            if (answer.status, answer.code.as_str()) != (StatusCode::FORBIDDEN, code) {
                wrong.push(format!(
                    "{} with {header} {value}: {} {}",
                    name(&row),
                    answer.status,
                    answer.text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.everything().await, before);
    let mut request = world.request(Who::Admin, "GET", "/console/x", None);
    request
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static("websocket"));
    request
        .headers_mut()
        .insert("origin", HeaderValue::from_static("https://evil.example"));
    assert_eq!(
        world.send(request).await.code,
        "wrong_origin",
        "a WebSocket of another site"
    );
    let mut request = world.request(
        Who::Admin,
        "PATCH",
        "/settings",
        Some(&json!({"overcommit": 3.0})),
    );
    request
        .headers_mut()
        .insert("origin", HeaderValue::from_static("http://127.0.0.1:8470"));
    assert_eq!(
        world.send(request).await.status,
        StatusCode::OK,
        "our own page"
    );
}

#[tokio::test]
async fn hostile_bodies_are_refused_clearly_and_change_nothing() {
    let world = World::new().await;
    let before = world.everything().await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut wrong = Vec::new();
    for row in table().into_iter().filter(|r| r.body.is_some()) {
        let body = row.body.clone().unwrap();
        let mut unknown = body.clone();
        unknown["no_such_field"] = json!(1);
        let field = body.as_object().unwrap().keys().next().unwrap().clone();
        let mut wrong_type = body.clone();
        wrong_type[&field] = json!({"of": ["another", "type"]});
        let mut huge = body.clone();
        huge[&field] = json!("x".repeat(7 * 1024 * 1024));
        let cases: [(&str, String); 9] = [
            ("unknown field", unknown.to_string()),
            ("wrong type", wrong_type.to_string()),
            ("array", "[]".into()),
            ("null", "null".into()),
            ("not JSON", "{\"".into()),
            ("not UTF-8", "\u{fffd}".into()),
            ("deep", deep.clone()),
            ("deep inside", format!("{{{:?}: {deep}}}", field)),
            ("huge", huge.to_string()),
        ];
        for (case, text) in cases {
            let request = with_body(&world, &row, text);
            let answer = world.send(request).await;
            let expected = if case == "huge" {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            if answer.status != expected || answer.code.is_empty() || answer.text.len() > 1000 {
                wrong.push(format!(
                    "{} {case}: {} {}",
                    name(&row),
                    answer.status,
                    answer.text
                ));
            }
        }
        let mut request = with_body(&world, &row, body.to_string());
        request
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("text/plain"));
        let answer = world.send(request).await;
        if answer.status != StatusCode::UNSUPPORTED_MEDIA_TYPE {
            wrong.push(format!("{} as text: {}", name(&row), answer.status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.everything().await, before);
}

fn with_body(world: &World, row: &Row, text: String) -> Request<Body> {
    let mut request = world.request(Who::Admin, row.method, row.path, Some(&Value::Null));
    request
        .headers_mut()
        .insert("content-length", HeaderValue::from(text.len()));
    *request.body_mut() = Body::from(text);
    request
}

#[tokio::test]
async fn path_tricks_in_ids_lead_nowhere() {
    let world = World::new().await;
    let before = world.everything().await;
    let mut wrong = Vec::new();
    let long = "a".repeat(65);
    for row in table().into_iter().filter(|r| r.template.contains('{')) {
        for trick in [
            "..",
            "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "%00",
            "A",
            "a%20b",
            "%ff",
            "-",
            &long,
        ] {
            let path = match row.template.find("{id}") {
                Some(_) => row.template.replace("{id}", trick),
                None => row.template.replace("{ticket}", trick),
            };
            let path = path.replace("{user}", trick);
            let answer = world
                .ask(Who::Admin, row.method, &path, row.body.as_ref())
                .await;
            let fine = matches!(answer.status.as_u16(), 400 | 404 | 405) && !answer.code.is_empty();
            if !fine || answer.text.len() > 1000 {
                wrong.push(format!(
                    "{} {path}: {} {}",
                    row.method, answer.status, answer.text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn lists_hold_only_what_one_may_see() {
    let world = World::new().await;
    for (who, courses, desktops) in [
        (Who::Student, &["course-a"][..], 1),
        (Who::OtherStudent, &["course-b"], 0),
        (Who::OtherTeacher, &["course-b"], 0),
        (Who::Teacher, &["course-a"], 1),
        (Who::Admin, &["course-a", "course-b"], 0),
    ] {
        let list = async |path: &str| -> Vec<Value> {
            serde_json::from_str(&world.ask(who, "GET", path, None).await.text).unwrap()
        };
        let seen: Vec<Value> = list("/courses").await;
        let names: Vec<&str> = seen.iter().map(|c| c["id"].as_str().unwrap()).collect();
        assert_eq!(names, courses, "{who:?}");
        assert_eq!(list("/desktops").await.len(), desktops, "{who:?}");
        if matches!(who, Who::Teacher | Who::OtherTeacher | Who::Admin) {
            let expected = if who == Who::OtherTeacher { 0 } else { 2 };
            assert_eq!(list("/desktops?all=true").await.len(), expected, "{who:?}");
        }
    }
}

#[tokio::test]
async fn who_is_taken_off_the_roster_loses_the_desktop_at_once() {
    let world = World::new().await;
    assert_eq!(
        world
            .ask(Who::Student, "GET", "/desktops/desktop-a", None)
            .await
            .status,
        StatusCode::OK
    );
    let path = "/courses/course-a/members/student";
    assert_eq!(
        world.ask(Who::Teacher, "DELETE", path, None).await.status,
        StatusCode::NO_CONTENT
    );
    let row = lyceum_store::desktops::get(&world.app.store, &"desktop-a".parse().unwrap())
        .await
        .unwrap();
    let desired = row.map(|d| d.desired);
    assert_eq!(
        desired,
        Some(lyceum_model::Desired::Absent),
        "it is ordered away"
    );
    for path in ["/desktops/desktop-a", "/courses/course-a"] {
        assert_eq!(
            world.ask(Who::Student, "GET", path, None).await.status,
            StatusCode::NOT_FOUND
        );
    }
    let ticket = "/desktops/desktop-a/console-ticket";
    assert_eq!(
        world.ask(Who::Student, "POST", ticket, None).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn students_restore_their_own_desktops_where_the_course_lets_them() {
    let world = World::new().await;
    let list = "/desktops/desktop-a/restore-points";
    let none = world.ask(Who::Student, "GET", list, None).await;
    assert_eq!(
        none.text, "[]",
        "there are points, and they are not the student's to see"
    );
    let body = json!({"every_min": 0, "keep_last": 6, "keep_hourly": 0, "own_restore": true});
    let path = "/courses/course-a/point-schedule";
    let set = world.ask(Who::Teacher, "PUT", path, Some(&body)).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    let own = "/desktops/desktop-a";
    let listed = world
        .ask(Who::Student, "GET", &format!("{own}/restore-points"), None)
        .await;
    assert_eq!(listed.status, StatusCode::OK, "{}", listed.text);
    assert!(listed.text.contains("point-a"), "{}", listed.text);
    for (method, path, body, allowed) in [
        (
            "POST",
            format!("{own}/restore"),
            json!({"point": "point-a"}),
            true,
        ),
        ("POST", format!("{own}/restore-points"), json!({}), false),
        ("DELETE", "/restore-points/point-a".into(), json!({}), false),
    ] {
        let answer = world.ask(Who::Student, method, &path, Some(&body)).await;
        let expected = match allowed {
            true => StatusCode::ACCEPTED,
            false => StatusCode::FORBIDDEN,
        };
        assert_eq!(answer.status, expected, "{path}: {}", answer.text);
        let other = world
            .ask(Who::OtherStudent, method, &path, Some(&body))
            .await;
        assert_eq!(
            other.status,
            StatusCode::NOT_FOUND,
            "{path}: {}",
            other.text
        );
    }
    // Another desktop's point is none of this one's.
    let foreign = world
        .ask(
            Who::Teacher,
            "POST",
            "/desktops/desktop-t/restore",
            Some(&json!({"point": "point-a"})),
        )
        .await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{}", foreign.text);
}
