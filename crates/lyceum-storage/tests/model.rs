//! Any order of requests and restarts against a model of what must be there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::body::Body;
use axum::http::Method;
use common::{Bench, publish_request};
use lyceum_proto::storage::{Inventory, Published};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
enum Step {
    MakeDraft(u8),
    DeleteDraft(u8),
    Stage(u8),
    DeleteStaging(u8),
    /// Cold, with a reason that tells two releases apart.
    Publish(u8, u8),
    MakeOverlay(u8, u8),
    DeleteOverlay(u8),
    DeleteRelease(u8),
    DraftOfRelease(u8, u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..3u8;
    prop_oneof![
        3 => id.clone().prop_map(Step::MakeDraft),
        1 => id.clone().prop_map(Step::DeleteDraft),
        3 => id.clone().prop_map(Step::Stage),
        1 => id.clone().prop_map(Step::DeleteStaging),
        3 => (id.clone(), 0..2u8).prop_map(|(d, r)| Step::Publish(d, r)),
        3 => (id.clone(), id.clone()).prop_map(|(o, r)| Step::MakeOverlay(o, r)),
        1 => id.clone().prop_map(Step::DeleteOverlay),
        1 => id.clone().prop_map(Step::DeleteRelease),
        1 => (id.clone(), id).prop_map(|(d, r)| Step::DraftOfRelease(d, r)),
        1 => Just(Step::Restart),
    ]
}

/// What must be on the tiers.
#[derive(Default)]
struct Model {
    drafts: BTreeSet<String>,
    staging: BTreeSet<String>,
    releases: BTreeSet<String>,
    /// In the order of publishing, so that a step can name "the second one".
    known: Vec<String>,
    overlays: BTreeMap<String, String>,
    /// Draft → its last publish: reason and release.
    published: BTreeMap<String, (u8, String)>,
}

impl Model {
    fn release(&self, n: u8) -> String {
        match self.known.len() {
            0 => "none".into(),
            len => self.known[usize::from(n) % len].clone(),
        }
    }
}

async fn status(bench: &Bench, method: Method, path: &str, body: Value) -> (u16, Vec<u8>) {
    let (status, bytes) = bench.ask(method, path, Body::from(body.to_string())).await;
    (status.as_u16(), bytes)
}

async fn take(bench: Bench, model: &mut Model, step: Step) -> Bench {
    use Method as M;
    let expect = |got: &(u16, Vec<u8>), wanted: u16| {
        assert_eq!(got.0, wanted, "{}", String::from_utf8_lossy(&got.1));
    };
    match step {
        Step::MakeDraft(d) => {
            let body = json!({"from": "empty", "virtual_bytes": 1 << 20});
            expect(
                &status(&bench, M::PUT, &format!("/v1/drafts/d{d}"), body).await,
                200,
            );
            model.drafts.insert(format!("d{d}"));
        }
        Step::DeleteDraft(d) => {
            bench.delete(&format!("/v1/drafts/d{d}")).await;
            model.drafts.remove(&format!("d{d}"));
            model.published.remove(&format!("d{d}"));
        }
        Step::Stage(d) => {
            let id = format!("d{d}");
            let got = status(&bench, M::PUT, &format!("/v1/staging/{id}"), Value::Null).await;
            if model.staging.contains(&id) || model.drafts.contains(&id) {
                expect(&got, 200);
                model.staging.insert(id);
            } else {
                expect(&got, 404);
            }
        }
        Step::DeleteStaging(d) => {
            bench.delete(&format!("/v1/staging/d{d}")).await;
            model.staging.remove(&format!("d{d}"));
        }
        Step::Publish(d, reason) => {
            let id = format!("d{d}");
            let mut request = publish_request();
            request.memory = None;
            request.cold_reason = Some(format!("reason {reason}"));
            let path = format!("/v1/staging/{id}/publish");
            let got = status(&bench, M::POST, &path, json!(request)).await;
            let before = model
                .published
                .get(&id)
                .filter(|(r, release)| *r == reason && model.releases.contains(release))
                .cloned();
            if model.staging.remove(&id) {
                expect(&got, 200);
                let release = serde_json::from_slice::<Published>(&got.1)
                    .unwrap()
                    .release
                    .to_string();
                model.releases.insert(release.clone());
                if !model.known.contains(&release) {
                    model.known.push(release.clone());
                }
                model.published.insert(id, (reason, release));
            } else if let Some((_, release)) = before {
                expect(&got, 200);
                let again: Published = serde_json::from_slice(&got.1).unwrap();
                assert_eq!(again.release.as_str(), release);
            } else {
                expect(&got, 409);
            }
        }
        Step::MakeOverlay(o, r) => {
            let (id, release) = (format!("o{o}"), model.release(r));
            let body = json!({"release": release, "content": {"from": "empty"}});
            let got = status(&bench, M::PUT, &format!("/v1/overlays/{id}"), body).await;
            if !model.releases.contains(&release) {
                expect(&got, 404);
            } else if model.overlays.get(&id).is_some_and(|over| *over != release) {
                expect(&got, 422);
            } else {
                expect(&got, 200);
                model.overlays.insert(id, release);
            }
        }
        Step::DeleteOverlay(o) => {
            bench.delete(&format!("/v1/overlays/o{o}")).await;
            model.overlays.remove(&format!("o{o}"));
        }
        Step::DeleteRelease(r) => {
            let release = model.release(r);
            bench.delete(&format!("/v1/releases/{release}")).await;
            model.releases.remove(&release);
        }
        Step::DraftOfRelease(d, r) => {
            let (id, release) = (format!("d{d}"), model.release(r));
            let body = json!({"from": "release", "release": release});
            let got = status(&bench, M::PUT, &format!("/v1/drafts/{id}"), body).await;
            if model.drafts.contains(&id) || model.releases.contains(&release) {
                expect(&got, 200);
                model.drafts.insert(id);
            } else {
                expect(&got, 404);
            }
        }
        Step::Restart => return bench.restart().await,
    }
    bench
}

async fn compare(bench: &Bench, model: &Model) {
    let found: Inventory = bench.get("/v1/inventory").await;
    let text = |ids: Vec<String>| ids.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(
        text(found.drafts.iter().map(|i| i.to_string()).collect()),
        model.drafts
    );
    assert_eq!(
        text(found.staging.iter().map(|i| i.to_string()).collect()),
        model.staging
    );
    assert_eq!(
        text(found.releases.iter().map(|i| i.to_string()).collect()),
        model.releases
    );
    let overlays = text(found.overlays.iter().map(|i| i.0.to_string()).collect());
    assert_eq!(overlays, model.overlays.keys().cloned().collect());
    let all = bench.everything();
    assert!(!all.iter().any(|path| path.contains(".tmp-")), "{all:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_there_is_what_was_asked_for(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let mut model = Model::default();
            for step in steps {
                bench = take(bench, &mut model, step).await;
                compare(&bench, &model).await;
            }
        });
    }
}
