//! The page, built into the program from `web/dist`. Without it, which is how one works on the
//! controller alone, a plain page says that it was not built.

use crate::app::App;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{LazyLock, Mutex};

/// What the page may load: only from here.
const CSP: &str = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; \
    connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'";

const NOT_BUILT: &str = "<!doctype html><meta charset=\"utf-8\"><title>Lyceum</title>\
    <p>The controller runs, but its page was not built into it: run <code>make</code> and start it again. \
    The API is below <code>/api/v1</code>.";

#[derive(RustEmbed)]
#[folder = "../../web/dist/"]
#[allow_missing = true]
struct Dist;

/// Its routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { answer("index.html", &headers) }))
        .route(
            "/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { answer(&path, &headers) }),
        )
}

fn answer(path: &str, asked: &HeaderMap) -> Response {
    let mut response = match Dist::get(path) {
        Some(file) => serve(path, file, asked),
        None if path == "index.html" => {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [(header::CONTENT_TYPE, html)],
                NOT_BUILT,
            )
                .into_response()
        }
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn serve(path: &str, file: EmbeddedFile, asked: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let etag = format!("\"{}\"", hex::encode(&hash[..16]));
    // Vite writes a hash of the content into these names: what is there never changes.
    let caching = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    let known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| {
            v.split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag)
        });
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let kind = file.metadata.mimetype();
    let text = kind.starts_with("text/")
        || matches!(
            kind,
            "application/javascript" | "application/json" | "image/svg+xml"
        );
    let kind = if kind.starts_with("text/") {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_owned()
    };
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if text && wants_gzip(asked) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return (headers, gzipped(hash, &file.data)).into_response();
    }
    (headers, file.data.into_owned()).into_response()
}

fn wants_gzip(asked: &HeaderMap) -> bool {
    asked
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|part| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some("gzip") && !words.any(|w| matches!(w, "q=0" | "q=0.0"))
        })
}

/// Compressed once per file, not once per student of a class that opens the page.
fn gzipped(hash: [u8; 32], data: &[u8]) -> bytes::Bytes {
    static KEPT: LazyLock<Mutex<HashMap<[u8; 32], bytes::Bytes>>> = LazyLock::new(Mutex::default);
    // A poisoned lock only means that another thread panicked while it held copies.
    let lock = || KEPT.lock().unwrap_or_else(|p| p.into_inner());
    if let Some(kept) = lock().get(&hash) {
        return kept.clone();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = match encoder.write_all(data).and_then(|()| encoder.finish()) {
        Ok(packed) => bytes::Bytes::from(packed),
        // Writing into memory does not fail.
        Err(e) => {
            tracing::error!("a file of the page could not be compressed: {e}");
            return bytes::Bytes::new();
        }
    };
    let mut kept = lock();
    // During development files change under us; there are some dozen of them.
    if kept.len() > 500 {
        kept.clear();
    }
    kept.insert(hash, packed.clone());
    packed
}

/// Whether the page is in this program.
pub fn is_built() -> bool {
    Dist::get("index.html").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_when_asked_for() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            wants_gzip(&headers)
        };
        assert!(with("gzip, deflate, br"));
        assert!(with("br;q=1.0, gzip;q=0.8"));
        assert!(!with("br") && !with("gzip;q=0") && !with("identity"));
        let text = "hello ".repeat(1000);
        let packed = gzipped([1; 32], text.as_bytes());
        assert!(packed.len() < 100 && !packed.is_empty());
        assert_eq!(packed, gzipped([1; 32], text.as_bytes()));
    }

    #[test]
    fn paths_do_not_leave_the_page() {
        for path in [
            "../package.json",
            "../../Cargo.toml",
            "assets/../../package.json",
            "/etc/passwd",
        ] {
            let response = answer(path, &HeaderMap::new());
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
