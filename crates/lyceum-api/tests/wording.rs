//! The catalogue of texts, the sources that write them and the page's dictionary stay together.
#![allow(clippy::unwrap_used)]

use lyceum_api::wording::CATALOGUE;
use std::path::Path;

/// All Rust text of the crates but the catalogue's.
fn sources() -> String {
    fn walk(dir: &Path, out: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("wording.rs") {
                out.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = String::new();
    for entry in std::fs::read_dir(crates).unwrap().flatten() {
        let src = entry.path().join("src");
        if src.is_dir() {
            walk(&src, &mut all);
        }
    }
    all
}

/// `{why}`, `{why:?}`, `{}` and `{:.1}` are all the same hole.
fn holes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, next)) if name.len() < 60 && !name.contains(['{', '"', '\n']) => {
                out.push_str("{}");
                rest = next;
            }
            _ => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

#[test]
fn every_form_is_written_somewhere() {
    let sources = holes(&sources());
    let lost: Vec<&str> = CATALOGUE
        .iter()
        // Put together of two.
        .filter(|(code, _)| *code != "seal.trying_step")
        .map(|(_, form)| *form)
        .filter(|form| !sources.contains(&format!("\"{}\"", holes(form))))
        .collect();
    assert!(lost.is_empty(), "nobody writes these any more: {lost:#?}");
}

#[test]
fn the_page_knows_every_form_in_chinese() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/src/i18n/texts-zh-hant.ts");
    let page = std::fs::read_to_string(path).unwrap();
    for (code, form) in CATALOGUE {
        let line = page
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("\"{code}\": ")))
            .unwrap_or_else(|| panic!("{code} is missing in texts-zh-hant.ts"));
        for name in form
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
        {
            assert!(
                line.contains(&format!("{{{name}}}")),
                "{code} leaves out {name}"
            );
        }
    }
}
