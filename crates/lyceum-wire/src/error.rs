//! [`ErrorBody`] as an answer.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lyceum_proto::{ErrorBody, code};

/// Codes of the wire itself, besides [`lyceum_proto::code`].
pub mod wire_code {
    /// The peer may not do this. HTTP 403.
    pub const FORBIDDEN: &str = "forbidden";
    /// There is no such method on this path. HTTP 405.
    pub const METHOD: &str = "method_not_allowed";
    /// The body is longer than allowed. HTTP 413.
    pub const TOO_LARGE: &str = "too_large";
    /// It would wait too long. HTTP 503.
    pub const UNAVAILABLE: &str = "unavailable";
}

/// An error on its way to the other side. Handlers return it; `?` makes one of an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{body}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What is sent.
    pub body: ErrorBody,
}

impl ApiError {
    /// With the status that belongs to the code.
    pub fn new(code: &str, message: impl Into<String>) -> ApiError {
        ErrorBody {
            code: code.to_owned(),
            message: message.into(),
        }
        .into()
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        Self::new(code::NOT_FOUND, message)
    }

    /// 422.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        Self::new(code::INVALID, message)
    }

    /// 409, not in a state for that.
    pub fn state(message: impl Into<String>) -> ApiError {
        Self::new(code::STATE, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> ApiError {
        Self::new(wire_code::FORBIDDEN, message)
    }

    /// 500. The message goes to the caller: other parts of the classroom, not people outside.
    pub fn internal(message: impl Into<String>) -> ApiError {
        Self::new(code::INTERNAL, message)
    }
}

/// HTTP status of a code; unknown ones are 500.
pub fn status_of(code: &str) -> StatusCode {
    match code {
        code::STALE_GENERATION | code::IN_USE | code::STATE => StatusCode::CONFLICT,
        code::NOT_FOUND => StatusCode::NOT_FOUND,
        code::INVALID | code::DAMAGED => StatusCode::UNPROCESSABLE_ENTITY,
        code::TIER_FULL => StatusCode::INSUFFICIENT_STORAGE,
        wire_code::FORBIDDEN => StatusCode::FORBIDDEN,
        wire_code::METHOD => StatusCode::METHOD_NOT_ALLOWED,
        wire_code::TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        wire_code::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        ApiError {
            status: status_of(&body.code),
            body,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(code = %self.body.code, "{}", self.body.message);
        }
        (self.status, Json(self.body)).into_response()
    }
}
