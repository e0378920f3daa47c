//! Typed calls to one peer.

use crate::{Identity, Peer, WireError, tls};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http_body_util::{
    BodyDataStream, BodyExt, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody,
};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lyceum_proto::ErrorBody;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A raw stream of bytes in both directions, after an upgrade.
pub type RawStream = TokioIo<hyper::upgrade::Upgraded>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Longest answer in bytes.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
/// Shorter than the server's, so that a call seldom meets a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error(
        "{url:?} is not an address of a part of the classroom ({why}); it looks like https://10.0.0.5:7443"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// No connection, or it broke. Whether the peer did what was asked is not known.
    #[error(
        "{peer} can't be reached at {url}: {why}; check that it runs and that its address is right"
    )]
    Unreachable {
        /// Who.
        peer: Peer,
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// No answer in time. Whether the peer did what was asked is not known.
    #[error("{peer} at {url} did not answer within {ms} ms")]
    Timeout {
        /// Who.
        peer: Peer,
        /// Where.
        url: String,
        /// How long it was waited for.
        ms: u128,
    },
    /// The peer said no.
    #[error("{body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        body: ErrorBody,
    },
    /// The answer is not what it must be: mostly another version.
    #[error(
        "{peer} answered what can't be understood: {why}; check that both run the same version"
    )]
    Answer {
        /// Who.
        peer: Peer,
        /// What is wrong.
        why: String,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Setup(#[from] Box<WireError>),
}

impl ClientError {
    /// The peer's [error code](lyceum_proto::code); `None` when it did not answer.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Refused { body, .. } => Some(&body.code),
            _ => None,
        }
    }
}

impl From<ClientError> for WireError {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Setup(e) => *e,
            e => WireError::Join(Box::new(e)),
        }
    }
}

/// Calls one peer. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    http: hyper_util::client::legacy::Client<Connector, RequestBody>,
    base: String,
    peer: Peer,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({} at {})", self.peer, self.base)
    }
}

impl Client {
    /// For `peer`, who is expected at `url` (`https://ADDRESS:PORT`). Whoever
    /// else answers there is not talked to. No connection is made yet.
    pub fn new(identity: &Identity, url: &str, peer: &Peer) -> Result<Client, ClientError> {
        Self::with_config(tls::client_config(identity).map_err(Box::new)?, url, peer)
    }

    /// Without a certificate of one's own, to the peer that a CA with this SHA-256 vouches for.
    pub(crate) fn pinned(url: &str, peer: &Peer, ca_sha256: &str) -> Result<Client, ClientError> {
        Self::with_config(tls::pinned_config(ca_sha256).map_err(Box::new)?, url, peer)
    }

    fn with_config(
        config: rustls::ClientConfig,
        url: &str,
        peer: &Peer,
    ) -> Result<Client, ClientError> {
        let bad = |why: &str| ClientError::Url {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        let parsed = url::Url::parse(url).map_err(|e| bad(&e.to_string()))?;
        if parsed.scheme() != "https" {
            return Err(bad("it does not begin with https://"));
        }
        let host = parsed.host_str().ok_or_else(|| bad("it has no host"))?;
        let port = parsed.port().ok_or_else(|| bad("it has no port"))?;
        if parsed.path() != "/" || parsed.query().is_some() || !parsed.username().is_empty() {
            return Err(bad("it has more than a host and a port"));
        }
        let connector = Connector {
            tls: TlsConnector::from(Arc::new(config)),
            // The brackets of an IPv6 address belong to the URL only.
            address: host.trim_matches(|c| c == '[' || c == ']').to_owned(),
            port,
            name: peer.server_name().map_err(Box::new)?,
            peer: peer.clone(),
        };
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(16)
            .build(connector);
        Ok(Client {
            http,
            base: format!("https://{host}:{port}"),
            peer: peer.clone(),
            timeout: CALL,
        })
    }

    /// The same with another limit for each whole call; it is 30 s otherwise.
    pub fn timeout(&self, timeout: Duration) -> Client {
        Client {
            timeout,
            ..self.clone()
        }
    }

    /// Who is called.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// `https://ADDRESS:PORT`.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// `GET`. `path` begins with `/`; see [`with_query`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, empty()).await
    }

    /// `PUT` with a JSON body.
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call(Method::PUT, path, self.json(body)?).await
    }

    /// `POST` with a JSON body.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, self.json(body)?).await
    }

    /// `DELETE`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, empty()).await
    }

    /// `PUT` with a body that is sent as it comes. It takes as long as it takes; it is for
    /// the caller to end a stream that stalls.
    pub async fn put_stream<S, E, T>(&self, path: &str, body: S) -> Result<T, ClientError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
        T: DeserializeOwned,
    {
        let body = StreamBody::new(body.map_ok(Frame::data).map_err(Into::into));
        let request = self.request(Method::PUT, path, UnsyncBoxBody::new(body))?;
        self.answer(self.send(request).await?).await
    }

    /// `GET` of bytes that come as they come, and how many they are. As with [`Client::put_stream`], the limit is for
    /// the beginning of the answer only.
    pub async fn get_stream(
        &self,
        path: &str,
    ) -> Result<
        (
            Option<u64>,
            impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
        ),
        ClientError,
    > {
        let request = self.request(Method::GET, path, empty())?;
        let response = self.within(self.send(request)).await?;
        if !response.status().is_success() {
            return match self.answer::<serde::de::IgnoredAny>(response).await {
                Err(e) => Err(e),
                Ok(_) => Err(self.unreadable("it gave no bytes")),
            };
        }
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Ok((
            length,
            BodyDataStream::new(response.into_body()).map_err(Into::into),
        ))
    }

    /// Asks for a raw stream: `GET` with `Upgrade: protocol`.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> Result<RawStream, ClientError> {
        let mut request = self.request(Method::GET, path, empty())?;
        let value = header::HeaderValue::from_str(protocol).map_err(|e| self.unreadable(e))?;
        let headers = request.headers_mut();
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("upgrade"),
        );
        headers.insert(header::UPGRADE, value);
        self.within(async {
            let response = self.send(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return match self.answer::<serde::de::IgnoredAny>(response).await {
                    Err(e) => Err(e),
                    Ok(_) => Err(self.unreadable("it gave no stream")),
                };
            }
            let stream = hyper::upgrade::on(response)
                .await
                .map_err(|e| self.unreachable(&e))?;
            Ok(TokioIo::new(stream))
        })
        .await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<T, ClientError> {
        let request = self.request(method, path, body)?;
        self.within(async { self.answer(self.send(request).await?).await })
            .await
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout {
                peer: self.peer.clone(),
                url: self.base.clone(),
                ms: self.timeout.as_millis(),
            }),
        }
    }

    fn json<B: Serialize>(&self, body: &B) -> Result<RequestBody, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(|e| self.unreadable(e))?;
        Ok(UnsyncBoxBody::new(
            Full::new(Bytes::from(bytes)).map_err(|never| match never {}),
        ))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, ClientError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|e| ClientError::Url {
                url: format!("{}{path}", self.base),
                why: e.to_string(),
            })
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, ClientError> {
        self.http
            .request(request)
            .await
            .map_err(|e| self.unreachable(&e))
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        response: Response<Incoming>,
    ) -> Result<T, ClientError> {
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|e| self.unreachable(e.as_ref()))?
            .to_bytes();
        if status.is_success() {
            // Answers without content are read as null.
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(bytes).map_err(|e| self.unreadable(e));
        }
        let body = serde_json::from_slice(&bytes)
            .map_err(|_| self.unreadable(format!("status {status} without a reason")))?;
        Err(ClientError::Refused {
            status: status.as_u16(),
            body,
        })
    }

    fn unreadable(&self, why: impl std::fmt::Display) -> ClientError {
        ClientError::Answer {
            peer: self.peer.clone(),
            why: why.to_string(),
        }
    }

    fn unreachable(&self, e: &(dyn std::error::Error + 'static)) -> ClientError {
        // The first text of the chain is mostly just "client error".
        let mut why = e.to_string();
        let mut source = e.source();
        while let Some(e) = source {
            let text = e.to_string();
            if !why.ends_with(&text) {
                why = format!("{why}: {text}");
            }
            source = e.source();
        }
        ClientError::Unreachable {
            peer: self.peer.clone(),
            url: self.base.clone(),
            why,
        }
    }
}

fn empty() -> RequestBody {
    UnsyncBoxBody::new(Empty::new().map_err(|never| match never {}))
}

/// A path with a query string, percent-encoded.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    format!("{path}?{query}")
}

/// Connects to the one address and checks that the one peer is there.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    address: String,
    port: u16,
    name: ServerName<'static>,
    peer: Peer,
}

impl Connector {
    async fn connect(self) -> Result<TlsIo, BoxError> {
        let work = async {
            let stream = TcpStream::connect((self.address.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let stream = self.tls.connect(self.name, stream).await?;
            let found = match stream.get_ref().1.peer_certificates() {
                Some([certificate, ..]) => Peer::of_certificate(certificate)?,
                _ => return Err(BoxError::from("it shows no certificate")),
            };
            if found != self.peer {
                return Err(format!("{found} answers there").into());
            }
            Ok(TlsIo(TokioIo::new(stream)))
        };
        match tokio::time::timeout(CONNECT, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs()).into()),
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TlsIo;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TlsIo, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

struct TlsIo(TokioIo<TlsStream<TcpStream>>);

impl Connection for TlsIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
