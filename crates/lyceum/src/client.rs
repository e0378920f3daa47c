//! The public API as the command line uses it: over the controller's local socket,
//! where whoever may open it is an administrator, or over HTTP with a session.

use crate::exit::{self, Exit};
use crate::place::{Place, SavedSession};
use lyceum_api::ApiError;
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Where answers are waited for at most; long work is an operation and answers at once.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to one controller.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// `http://localhost` for the socket.
    base: String,
    session: Option<SavedSession>,
    /// For messages.
    place: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The controller said no.
    #[error("{}", .error.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        error: ApiError,
    },
    /// No connection, or it broke. Whether the controller did what was asked is not known.
    #[error("the controller can't be reached at {place}: {why}. {cure}")]
    Unreachable {
        /// Where.
        place: String,
        /// Why.
        why: String,
        /// What to do.
        cure: &'static str,
    },
    /// Something answered that is not a controller of this version.
    #[error(
        "what answers at {place} does not speak Lyceum's API: {why}; check the address and that both sides have the same version"
    )]
    Odd {
        /// Where.
        place: String,
        /// What was odd.
        why: String,
    },
}

impl CallError {
    /// The exit code that stands for it.
    pub fn code(&self) -> u8 {
        match self {
            CallError::Refused { .. } => exit::REFUSED,
            CallError::Unreachable { .. } | CallError::Odd { .. } => exit::UNREACHABLE,
        }
    }

    /// Whether the controller said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, CallError::Refused { status: 404, .. })
    }
}

/// Why a transport error happened, innermost first: reqwest's own words hide it.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl Client {
    /// A client for this place. Connects only when it is used.
    pub fn new(place: &Place) -> anyhow::Result<Client> {
        // Answers are JSON from our own controller; no proxy stands between.
        let builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5));
        let (builder, base, session, text) = match place {
            Place::Socket(path) => (
                builder.unix_socket(path.as_path()),
                "http://localhost".to_owned(),
                None,
                path.display().to_string(),
            ),
            Place::Url {
                url,
                session,
                ca_sha256,
            } => {
                let builder = match ca_sha256 {
                    Some(ca) => {
                        let config = lyceum_wire::pinned_https_config(ca)
                            .map_err(|e| Exit::coded(exit::FAILED, e.to_string()))?;
                        builder.tls_backend_preconfigured(config)
                    }
                    None => builder,
                };
                (builder, url.clone(), session.clone(), url.clone())
            }
        };
        Ok(Client {
            http: builder.build().map_err(|e| {
                Exit::coded(
                    exit::FAILED,
                    format!("HTTP can't be used: {}", root_cause(&e)),
                )
            })?,
            base,
            session,
            place: text,
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .http
            .request(method.clone(), format!("{}/api/v1/{path}", self.base));
        if let Some(session) = &self.session {
            request = request.header("Cookie", format!("lyceum_session={}", session.cookie));
            if method != Method::GET {
                request = request.header("X-Lyceum-CSRF", &session.csrf);
            }
        }
        request
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        self.send_for(request, StatusCode::OK).await
    }

    /// `also`: a status that is a success besides the usual ones.
    async fn send_for(
        &self,
        request: RequestBuilder,
        also: StatusCode,
    ) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|e| CallError::Unreachable {
            place: self.place.clone(),
            why: if e.is_timeout() {
                "no answer in time".into()
            } else {
                root_cause(&e)
            },
            cure: if self.base == "http://localhost" {
                "Start the classroom (lyceum up, or make run), or name its state directory with --state"
            } else if self.base.starts_with("https://") {
                "Check the address and that the controller runs. When its certificate is by the classroom's own CA: lyceum login --ca-sha256 HEX, which `lyceum doctor` on the controller's machine says"
            } else {
                "Check the address and that the controller runs"
            },
        })?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED || status == also {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(mut error) => {
                if status == StatusCode::UNAUTHORIZED {
                    error
                        .message
                        .push_str("; sign in with: lyceum login --url URL");
                }
                Err(CallError::Refused {
                    status: status.as_u16(),
                    error,
                })
            }
            Err(_) => Err(CallError::Odd {
                place: self.place.clone(),
                why: format!("it answered {status} without an error in Lyceum's form"),
            }),
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, CallError> {
        let odd = |why: String| CallError::Odd {
            place: self.place.clone(),
            why,
        };
        let body = response.bytes().await.map_err(|e| odd(root_cause(&e)))?;
        // An answer without content stands for `()` and `Option::None`.
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(text).map_err(|e| odd(e.to_string()))
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let request = self.request(Method::GET, path).timeout(ANSWER);
        let response = self.send(request).await?;
        self.decode(response).await
    }

    /// Any method with a JSON body.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let request = self.request(method, path).timeout(ANSWER).json(body);
        let response = self.send(request).await?;
        self.decode(response).await
    }

    /// `POST`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.call(Method::POST, path, body).await
    }

    /// `PATCH`.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.call(Method::PATCH, path, body).await
    }

    /// `PUT`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.call(Method::PUT, path, body).await
    }

    /// `DELETE`, without a body.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let request = self.request(Method::DELETE, path).timeout(ANSWER);
        let response = self.send(request).await?;
        self.decode(response).await
    }

    /// `PUT` of a file, streamed; there is no limit on how long it takes.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        length: u64,
        body: Body,
    ) -> Result<T, CallError> {
        let request = self
            .request(Method::PUT, path)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Length", length)
            .body(body);
        let response = self.send(request).await?;
        self.decode(response).await
    }

    /// `GET` of a file; there is no limit on how long it takes.
    pub async fn download(&self, path: &str) -> Result<reqwest::Response, CallError> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Opens a WebSocket; the stream that it runs on.
    pub async fn web_socket(&self, path: &str) -> Result<reqwest::Upgraded, CallError> {
        let request = self
            .request(Method::GET, path)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            // Answered with a hash of it, against caches that know nothing of WebSockets: none is between.
            .header("Sec-WebSocket-Key", "bHljZXVtLWx5Y2V1bS1seQ==");
        let response = self
            .send_for(request, StatusCode::SWITCHING_PROTOCOLS)
            .await?;
        response.upgrade().await.map_err(|e| CallError::Odd {
            place: self.place.clone(),
            why: root_cause(&e),
        })
    }

    /// `POST` that signs in: also the session cookie that the answer sets.
    pub async fn sign_in<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(T, String), CallError> {
        let request = self.request(Method::POST, path).timeout(ANSWER).json(body);
        let response = self.send(request).await?;
        let cookie = response
            .headers()
            .get_all("set-cookie")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(|value| value.strip_prefix("lyceum_session="))
            .and_then(|value| value.split(';').next())
            .map(str::to_owned)
            .ok_or_else(|| CallError::Odd {
                place: self.place.clone(),
                why: "it signed in without setting a session".into(),
            })?;
        Ok((self.decode(response).await?, cookie))
    }

    /// Where this goes, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }
}

/// A path segment out of a text that may hold anything.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
