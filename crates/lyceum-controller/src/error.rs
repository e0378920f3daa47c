//! Errors on their way to a person: one form, and nothing in it of our insides.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use lyceum_api::ApiError;
use lyceum_api::wording::wordings;
use lyceum_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An answer other than what was asked for. Handlers return it; `?` makes one of a [`StoreError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// HTTP status.
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// What failed, why, and what to do, for a person.
    pub message: String,
    /// Seconds after which it is worth trying again.
    pub retry_after: Option<u64>,
}

impl ApiFailure {
    /// Any.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiFailure {
            status,
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// 400: not JSON, an unknown field, a wrong type, an id that is none.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// 401: nobody is signed in.
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "nobody is signed in, or the session has ended: sign in",
        )
    }

    /// 403: signed in, and still not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404. Also for what is there but not for the one who asks.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}, or it is not yours"),
        )
    }

    /// 409: something with that name is there already.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 409: others use it; the message names them.
    pub fn in_use(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "in_use", message)
    }

    /// 409: it is not in a state for that.
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "state", message)
    }

    /// 422: understood, and not possible.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
    }

    /// 429, with the seconds to wait.
    pub fn too_many(message: impl Into<String>, seconds: u64) -> Self {
        ApiFailure {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
        }
    }

    /// 503: a part that is needed is not there just now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 507: seats or memory run out; nothing was done.
    pub fn no_room(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_room", message)
    }

    /// 500. What happened goes to the log, not to the person.
    pub fn internal(happened: impl std::fmt::Display) -> Self {
        tracing::error!("a request failed: {happened}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something broke in the controller; its log says what. Try again, and tell whoever runs the classroom if it stays",
        )
    }
}

impl From<StoreError> for ApiFailure {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Conflict(message) => Self::conflict(message),
            e => Self::internal(e),
        }
    }
}

impl From<lyceum_model::NameError> for ApiFailure {
    fn from(e: lyceum_model::NameError) -> Self {
        Self::invalid(e.to_string())
    }
}

impl From<lyceum_model::machine::SizeError> for ApiFailure {
    fn from(e: lyceum_model::machine::SizeError) -> Self {
        Self::invalid(e.to_string())
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let body = ApiError {
            code: self.code.to_owned(),
            wordings: wordings([self.message.as_str()]),
            message: self.message,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A JSON body, in and out; going in with the house's errors. The `Content-Type` must say
/// JSON: that alone keeps other sites' forms out.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiFailure> {
        let is_json = is_json(&request);
        let bytes = body(request, state).await?;
        if !is_json {
            return Err(ApiFailure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "malformed",
                "the request's Content-Type must be application/json",
            ));
        }
        parse(&bytes).map(Json)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A JSON body that may be left out, which means the default.
#[derive(Debug, Clone)]
pub struct JsonOrDefault<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for JsonOrDefault<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiFailure> {
        let is_json = is_json(&request);
        let bytes = body(request, state).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) => Ok(JsonOrDefault(T::default())),
            (false, true) => parse(&bytes).map(JsonOrDefault),
            (false, false) => Err(ApiFailure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "malformed",
                "the request's Content-Type must be application/json",
            )),
        }
    }
}

fn is_json(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"))
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiFailure> {
    Bytes::from_request(request, state)
        .await
        .map_err(|e| match e {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                ApiFailure::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    "the request's body is longer than this request can be",
                )
            }
            _ => ApiFailure::malformed("the request's body could not be read to its end"),
        })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiFailure> {
    // serde would also take an array of a struct's fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiFailure::malformed(
            "the request's body must be a JSON object",
        ));
    }
    serde_json::from_slice(bytes).map_err(|e| {
        // Long unknown field names and values are echoed by serde: keep what a person reads short.
        let why: String = e.to_string().chars().take(300).collect();
        ApiFailure::malformed(format!("the request's JSON is not as it must be: {why}"))
    })
}

/// Parts of the path; ids are parsed by their types, so path tricks end here.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiFailure> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|p| Path(p.0))
            .map_err(|e| {
                let why: String = e.body_text().chars().take(300).collect();
                ApiFailure::malformed(format!("the path is not valid: {why}"))
            })
    }
}

/// The query string.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiFailure> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|q| Query(q.0))
            .map_err(|e| {
                let why: String = e.body_text().chars().take(300).collect();
                ApiFailure::malformed(format!("the query is not valid: {why}"))
            })
    }
}
