//! An axum router behind TLS that knows its peer.

use crate::error::wire_code;
use crate::{ApiError, Identity, Peer, PeerKind, RawStream, Renewing, WireError, tls};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Longest JSON body in bytes; a route sets its own with [`DefaultBodyLimit`].
pub const BODY_LIMIT: usize = 1024 * 1024;
/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may idle, and a request's head may take.
const IDLE: Duration = Duration::from_secs(75);
/// How long running requests may take when the server shuts down.
const GRACE: Duration = Duration::from_secs(5);

/// Who is served. Everybody else gets 403 or no TLS connection at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Peers of these kinds, with a certificate of our CA. Handlers find the
    /// [`Peer`] among the request's extensions.
    Only(Vec<PeerKind>),
    /// Also those without a certificate: for the port where agents join. The
    /// [`Peer`] is there for those who have one. A wrong certificate is refused still.
    Join,
}

/// Serves until `shutdown` is cancelled, then lets running requests end (a few
/// seconds) and returns. Upgraded connections belong to their handlers: they watch the token themselves.
///
/// Unknown paths and methods, panics and wrong bodies are answered with an
/// [`ErrorBody`](lyceum_proto::ErrorBody) too; the router needs no fallback.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    identity: &Identity,
    access: Access,
    shutdown: CancellationToken,
) -> Result<(), WireError> {
    let (_keep, fixed) = tokio::sync::watch::channel(identity.clone());
    serve_as(listener, router, fixed, access, shutdown).await
}

/// The same for an agent whose certificate is renewed meanwhile: new connections get the present one.
pub async fn serve_renewing(
    listener: TcpListener,
    router: Router,
    identity: &Renewing,
    access: Access,
    shutdown: CancellationToken,
) -> Result<(), WireError> {
    serve_as(listener, router, identity.watch(), access, shutdown).await
}

async fn serve_as(
    listener: TcpListener,
    router: Router,
    mut identity: tokio::sync::watch::Receiver<Identity>,
    access: Access,
    shutdown: CancellationToken,
) -> Result<(), WireError> {
    let acceptor = |identity: &Identity, access: &Access| -> Result<TlsAcceptor, WireError> {
        let config = tls::server_config(identity, *access == Access::Join)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    };
    let mut present = acceptor(&identity.borrow_and_update(), &access)?;
    let server = Arc::new(Server {
        router: with_defaults(router),
        access,
        shutdown: shutdown.clone(),
    });
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    // Ends what is left when the grace is over.
    let abort = CancellationToken::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                if identity.has_changed().unwrap_or(false) {
                    match acceptor(&identity.borrow_and_update(), &server.access) {
                        Ok(next) => present = next,
                        Err(e) => tracing::error!(
                            "the new certificate can't be used, so the old one is: {e}"
                        ),
                    }
                }
                let tls = present.clone();
                let (server, abort) = (server.clone(), abort.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = abort.cancelled() => {}
                        result = server.connection(tls, stream) => {
                            if let Err(e) = result {
                                tracing::debug!(%from, "connection ended: {e}");
                            }
                        }
                    }
                });
            }
            Err(e) => {
                // Mostly too many open files: it passes when connections end.
                tracing::warn!("no connection could be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        abort.cancel();
        tasks.wait().await;
    }
    Ok(())
}

fn with_defaults(router: Router) -> Router {
    router
        .fallback(|request: Request| async move {
            ApiError::not_found(format!("there is no {} here", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            ApiError::new(
                wire_code::METHOD,
                format!("{} is not for {}", request.method(), request.uri().path()),
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(
            |_panic: Box<dyn std::any::Any + Send>| {
                // What the panic said is in the log already.
                ApiError::internal("the request hit a mistake in this program: see its log")
                    .into_response()
            },
        ))
}

struct Server {
    router: Router,
    access: Access,
    shutdown: CancellationToken,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    async fn connection(&self, tls: TlsAcceptor, stream: TcpStream) -> Result<(), BoxError> {
        stream.set_nodelay(true)?;
        let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
        let peer = match stream.get_ref().1.peer_certificates() {
            Some([certificate, ..]) => Some(Peer::of_certificate(certificate)?),
            _ => None,
        };
        let refusal = self.refusal(peer.as_ref());
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let (router, refusal) = (self.router.clone(), refusal.clone());
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            async move {
                match refusal {
                    Some(e) => Ok(e.into_response()),
                    None => router.oneshot(request.map(Body::new)).await,
                }
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }

    fn refusal(&self, peer: Option<&Peer>) -> Option<ApiError> {
        match (&self.access, peer) {
            (Access::Join, _) => None,
            (Access::Only(kinds), Some(peer)) if kinds.contains(&peer.kind) => None,
            (Access::Only(_), Some(peer)) => Some(ApiError::forbidden(format!(
                "{peer} may not ask this part of the classroom for anything"
            ))),
            (Access::Only(_), None) => Some(ApiError::forbidden("a certificate is needed")),
        }
    }
}

/// Turns the request's connection into a raw stream: returns the answer to give
/// (101) and the stream, which is there once the answer is sent. `protocol` is
/// what the `Upgrade` header must say.
pub fn accept_upgrade(
    request: &mut Request,
    protocol: &'static str,
) -> Result<
    (
        Response,
        impl Future<Output = Result<RawStream, hyper::Error>> + Send + use<>,
    ),
    ApiError,
> {
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
    if !asked {
        return Err(ApiError::invalid(format!(
            "this is a stream: ask with the headers Connection: upgrade and Upgrade: {protocol}"
        )));
    }
    let upgraded = hyper::upgrade::on(request);
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    Ok((response, async move { upgraded.await.map(TokioIo::new) }))
}
