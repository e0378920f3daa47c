//! `openapi.json` at the root is the document of this very API.
//! After a change: `UPDATE_OPENAPI=1 cargo test -p lyceum-controller --test openapi`.

use std::collections::HashSet;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.json");

#[test]
fn the_committed_document_is_up_to_date() {
    let text = lyceum_controller::api::openapi_json().unwrap();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        committed == text,
        "openapi.json is not what the program offers: run UPDATE_OPENAPI=1 cargo test -p lyceum-controller --test openapi"
    );
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_an_id_of_its_own() {
    let document: serde_json::Value =
        serde_json::from_str(&lyceum_controller::api::openapi_json().unwrap()).unwrap();
    fn walk(value: &serde_json::Value, visit: &mut impl FnMut(&str, &serde_json::Value)) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    visit(key, value);
                    walk(value, visit);
                }
            }
            serde_json::Value::Array(all) => all.iter().for_each(|v| walk(v, visit)),
            _ => {}
        }
    }
    let mut ids = HashSet::new();
    let mut problems = Vec::new();
    walk(&document, &mut |key, value| {
        let Some(text) = value.as_str() else { return };
        let there = document.pointer(text.trim_start_matches('#')).is_some();
        if key == "$ref" && !there {
            problems.push(format!("{text} is not there"));
        }
        if key == "operationId" && !ids.insert(text.to_owned()) {
            problems.push(format!("{text} is there twice"));
        }
    });
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(ids.len() > 50, "only {} operations", ids.len());
}
