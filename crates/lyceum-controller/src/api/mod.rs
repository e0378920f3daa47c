//! The public REST API below `/api/v1`: one file per resource, each with its `routes()`.
//!
//! Here is what all of them have in common: the document `openapi.json`, limits, the refusal
//! of other sites' requests, and the page beside the API.

pub mod audit;
pub mod console;
pub mod courses;
pub mod desktop_disk;
pub mod desktops;
pub mod drafts;
pub mod events;
pub mod health;
pub mod hosts;
pub mod images;
pub mod join;
pub mod metrics;
pub mod moves;
pub mod networks;
pub mod operations;
pub mod page;
pub mod plans;
pub mod power;
pub mod releases;
pub mod restore_points;
pub mod roster;
pub mod samples;
pub mod session;
pub mod settings;
pub mod timetable;
pub mod timetable_file;
pub mod users;

use crate::app::App;
use crate::auth::{self, Origin};
use crate::error::ApiFailure;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::{self, OpenApi, Ref, RefOr};
use utoipa_axum::router::OpenApiRouter;

/// Longest body in bytes; a route that takes more says so with its own [`DefaultBodyLimit`].
pub const BODY_LIMIT: usize = 256 * 1024;
/// How long a request may take until its answer begins. Uploads may take longer.
const ANSWER: Duration = Duration::from_secs(60);

/// Every resource.
fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(document())
        .merge(health::routes())
        .merge(operations::routes())
        .merge(hosts::routes())
        .merge(moves::routes())
        .merge(networks::routes())
        .merge(plans::routes())
        .merge(power::routes())
        .merge(samples::routes())
        .merge(events::routes())
        .merge(desktops::routes())
        .merge(desktop_disk::routes())
        .merge(console::routes())
        .merge(settings::routes())
        .merge(session::routes())
        .merge(users::routes())
        .merge(audit::routes())
        .merge(join::routes())
        .merge(courses::routes())
        .merge(roster::routes())
        .merge(timetable::routes())
        .merge(images::routes())
        .merge(drafts::routes())
        .merge(releases::routes())
        .merge(restore_points::routes())
}

fn document() -> OpenApi {
    openapi::OpenApiBuilder::new()
        .info(
            openapi::InfoBuilder::new()
                .title("Lyceum")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "The API of a virtual computer classroom. Sign in with `POST /api/v1/session`: the cookie \
                     `lyceum_session` (or its value as `Authorization: Bearer`) then stands for you; requests with \
                     the cookie that change something carry the header `X-Lyceum-CSRF` with the token from the \
                     sign-in's answer. Times are milliseconds since 1970 UTC.",
                ))
                .build(),
        )
        .build()
}

/// The document of the API, complete.
pub fn openapi() -> OpenApi {
    finish(
        OpenApiRouter::new()
            .nest("/api/v1", resources())
            .into_openapi_with(document()),
    )
}

/// `openapi.json` as it is kept beside the sources.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&openapi()).map(|text| text + "\n")
}

trait WithDocument {
    fn into_openapi_with(self, document: OpenApi) -> OpenApi;
}

impl WithDocument for OpenApiRouter<App> {
    fn into_openapi_with(self, mut document: OpenApi) -> OpenApi {
        let mut all = self.into_openapi();
        document.paths = std::mem::take(&mut all.paths);
        document.components = all.components;
        document
    }
}

// What every operation has alike: an id made of its method and path, the tag of its
// resource, and the one form of an error.
fn finish(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let resource = path
            .trim_start_matches("/api/v1/")
            .split('/')
            .next()
            .unwrap_or_default();
        let methods: [(HttpMethod, &mut Option<Operation>); 5] = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Delete, &mut item.delete),
            (HttpMethod::Patch, &mut item.patch),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            let method = match method {
                HttpMethod::Get => "get",
                HttpMethod::Put => "put",
                HttpMethod::Post => "post",
                HttpMethod::Delete => "delete",
                _ => "patch",
            };
            let words: String = path
                .trim_start_matches("/api/v1/")
                .chars()
                .filter(|c| !matches!(c, '{' | '}'))
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            operation.operation_id = Some(format!("{method}_{words}"));
            operation.tags = Some(vec![resource.to_owned()]);
            operation.responses.responses.insert(
                "default".into(),
                RefOr::T(
                    openapi::ResponseBuilder::new()
                        .description("What failed, why, and what to do")
                        .content(
                            "application/json",
                            openapi::ContentBuilder::new()
                                .schema(Some(RefOr::Ref(Ref::from_schema_name("ApiError"))))
                                .build(),
                        )
                        .build(),
                ),
            );
        }
    }
    let mut components = document.components.take().unwrap_or_default();
    add_schema::<lyceum_api::ApiError>(&mut components);
    add_schema::<lyceum_api::ChangeEvent>(&mut components);
    document.components = Some(components);
    document
}

fn add_schema<T: utoipa::ToSchema>(components: &mut openapi::Components) {
    components
        .schemas
        .insert(T::name().into_owned(), T::schema());
    let mut more = Vec::new();
    T::schemas(&mut more);
    components.schemas.extend(more);
}

/// The whole service: API and page.
pub fn router(app: App) -> Router {
    let api: Router<App> = OpenApiRouter::new().nest("/api/v1", resources()).into();
    let api = api
        .route(
            "/api/{*rest}",
            axum::routing::any(|| async { ApiFailure::not_found("address in the API") }),
        )
        .method_not_allowed_fallback(|| async {
            ApiFailure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this address does not know that method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(from_fn(timeout));
    api.merge(metrics::routes())
        .merge(page::routes())
        .layer(CatchPanicLayer::custom(
            |panic: Box<dyn std::any::Any + Send>| {
                let what = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no text");
                ApiFailure::internal(format!("panic: {what}")).into_response()
            },
        ))
        .layer(from_fn(trace))
        .with_state(app)
}

/// Refuses requests that another site made a browser send: changing ones and WebSockets
/// whose `Origin` or `Host` is not us. Answers nothing to say to caches.
async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    through_proxy(&app, &mut request);
    let from_socket = request.extensions().get::<Origin>() == Some(&Origin::Socket);
    let matters = auth::changes_something(request.method())
        || request.headers().contains_key(header::UPGRADE);
    if matters
        && !from_socket
        && let Err(failure) = check_site(&app, &request)
    {
        return failure.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Puts the address in place that a proxy of the school passed the request on for.
fn through_proxy(app: &App, request: &mut Request) {
    let trusted = &app.config.trusted_proxies;
    let Some(Origin::Network(peer)) = request.extensions().get::<Origin>().copied() else {
        return;
    };
    if trusted.is_empty() {
        return;
    }
    let said: Vec<&str> = request
        .headers()
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let from = crate::network::forwarded(&said.join(","), peer, trusted);
    request.extensions_mut().insert(Origin::Network(from));
}

fn check_site(app: &App, request: &Request) -> Result<(), ApiFailure> {
    // HTTP/2 has it in the address instead of a header.
    let host = request
        .uri()
        .authority()
        .map(|a| a.as_str().to_owned())
        .or_else(|| text(request.headers(), header::HOST).map(str::to_owned))
        .ok_or_else(|| ApiFailure::malformed("the request does not say which host it is for"))?;
    if !host_is_ours(&app.config.names, &host) {
        return Err(ApiFailure::new(
            StatusCode::FORBIDDEN,
            "wrong_host",
            format!(
                "this controller does not know that it is called {}: add that to `names` in its configuration",
                host.chars().take(100).collect::<String>()
            ),
        ));
    }
    let elsewhere = || {
        ApiFailure::new(
            StatusCode::FORBIDDEN,
            "wrong_origin",
            "the request was made by a page of another site",
        )
    };
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let site = origin.to_str().ok().and_then(|o| o.split_once("://"));
        match site {
            Some(("http" | "https", site)) if site.eq_ignore_ascii_case(&host) => {}
            _ => return Err(elsewhere()),
        }
    }
    if text(
        request.headers(),
        header::HeaderName::from_static("sec-fetch-site"),
    ) == Some("cross-site")
    {
        return Err(elsewhere());
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

// A name that somebody else's DNS points at us would let their page be "same origin".
fn host_is_ours(names: &[String], host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

async fn timeout(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    if path.is_some_and(|p| p.as_str().ends_with("/upload")) {
        return next.run(request).await;
    }
    match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            ApiFailure::unavailable("the answer took too long, so it was given up: try again")
                .into_response()
        }
    }
}

/// Notes each request: by its route, never by its address, which may hold a ticket.
async fn trace(request: Request, next: Next) -> Response {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return next.run(request).await;
    }
    let begin = Instant::now();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "page".to_owned(), |p| p.as_str().to_owned());
    let response = next.run(request).await;
    tracing::debug!(
        %method,
        route,
        status = response.status().as_u16(),
        took_us = begin.elapsed().as_micros() as u64,
        "request"
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_known_names_are_ours() {
        let names = vec!["class.example".to_owned()];
        for host in [
            "127.0.0.1:8470",
            "10.0.0.1",
            "[::1]:8470",
            "[::1]",
            "localhost:1",
            "LOCALHOST",
            "class.example",
            "Class.Example:443",
        ] {
            assert!(host_is_ours(&names, host), "{host}");
        }
        for host in [
            "evil.example",
            "class.example.evil.example",
            "",
            ":80",
            "127.0.0.1.evil.example:8470",
        ] {
            assert!(!host_is_ours(&names, host), "{host}");
        }
    }
}
