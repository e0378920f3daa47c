//! The listeners: browsers (plain HTTP on loopback, TLS elsewhere), the local socket, and
//! the port where agents join.

use crate::api;
use crate::app::{App, StartError};
use crate::auth::Origin;
use crate::config::{ControllerConfig, PublicTls};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections of browsers at once; more wait to be accepted.
const CONNECTIONS: usize = 4096;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may idle, and a request's head may take.
const IDLE: Duration = Duration::from_secs(75);
/// How long running requests may take when the controller ends.
const GRACE: Duration = Duration::from_secs(3);

/// A controller whose listeners are bound, and which answers from [`serve`](Self::serve) on.
pub struct Controller {
    app: App,
    public: TcpListener,
    tls: Option<TlsAcceptor>,
    agents: TcpListener,
    native: Option<(TcpListener, TlsAcceptor)>,
    spice: Option<(TcpListener, TlsAcceptor)>,
    socket: UnixListener,
    identity: lyceum_wire::Identity,
    // Held while it runs: one controller per state directory.
    _lock: std::fs::File,
}

impl Controller {
    /// Opens the state directory, the store and the listeners.
    pub async fn bind(mut config: ControllerConfig) -> Result<Controller, StartError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StartError::File { what, path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.state_dir)
            .map_err(file("making", &config.state_dir))?;
        let lock_path = config.state_dir.join("controller.lock");
        let lock = std::fs::File::create(&lock_path).map_err(file("opening", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StartError::Running(config.state_dir));
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(file("locking", &lock_path)(source));
            }
        }
        if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            config.names.push(name.trim().to_owned());
        }
        let public = listen(config.listen)?;
        let agents = listen(config.agent_listen)?;
        let socket = local_socket(&config)?;
        let app = App::open(config).await?;
        let agent_address = agents.local_addr().map_err(|source| StartError::Listen {
            address: app.config.agent_listen,
            source,
        })?;
        let url = app.config.agent_url.clone();
        let _ = app
            .agent_url
            .set(url.unwrap_or_else(|| format!("https://{agent_address}")));
        let identity = app.ca.controller_identity(&app.config.names)?;
        let tls = tls(&app)?;
        let viewers = |address: Option<SocketAddr>, port: &std::sync::OnceLock<u16>| {
            let Some(address) = address else {
                return Ok(None);
            };
            let listener = listen(address)?;
            if let Ok(address) = listener.local_addr() {
                let _ = port.set(address.port());
            }
            let tls = match &tls {
                Some(tls) => tls.clone(),
                // The page may do without on loopback; passwords of viewers may not.
                None => acceptor(&app)?,
            };
            Ok::<_, StartError>(Some((listener, tls)))
        };
        let native = viewers(app.config.native_listen, &app.native_port)?;
        let spice = viewers(app.config.spice_listen, &app.spice_port)?;
        Ok(Controller {
            app,
            public,
            tls,
            agents,
            native,
            spice,
            socket,
            identity,
            _lock: lock,
        })
    }

    /// What it works with.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Where browsers reach it; for port 0 the one that was free.
    pub fn address(&self) -> SocketAddr {
        self.public.local_addr().unwrap_or(self.app.config.listen)
    }

    /// The page's address.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Answers until `shutdown` is done, then ends what runs.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let app = self.app;
        crate::first_admin::prepare(&app).await?;
        let stop = app.shutdown.clone();
        let work = TaskTracker::new();
        crate::housekeeping::spawn(&app, &work);
        let reconcilers = (crate::reconcile::spawn(&app), crate::drafts::spawn(&app));
        let router = api::router(app.clone());
        let join = tokio::spawn({
            let (router, stop) = (api::join::router(app.clone()), stop.clone());
            async move {
                let access = lyceum_wire::Access::Join;
                lyceum_wire::serve(self.agents, router, &self.identity, access, stop).await
            }
        });
        let public = tokio::spawn(serve_tcp(
            self.public,
            self.tls,
            router.clone(),
            stop.clone(),
        ));
        let socket = tokio::spawn(serve_socket(self.socket, router, stop.clone()));
        if let Some((listener, tls)) = self.native {
            work.spawn(crate::console::native::listen(app.clone(), listener, tls));
        }
        if let Some((listener, tls)) = self.spice {
            work.spawn(crate::console::spice::listen(app.clone(), listener, tls));
        }
        shutdown.await;
        stop.cancel();
        let _ = tokio::join!(public, socket);
        // Where they stand is in the store: the next start goes on from there.
        drop(reconcilers);
        if let Ok(Err(e)) = join.await {
            return Err(e.into());
        }
        work.close();
        work.wait().await;
        Ok(())
    }
}

/// Runs a controller until `shutdown` is done.
pub async fn run(
    config: ControllerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let controller = Controller::bind(config).await?;
    tracing::info!(url = controller.url(), "the controller listens");
    controller.serve(shutdown).await
}

/// Connections that wait to be accepted: a whole school may open the page in the same second,
/// and one that finds no place is tried again by the kernel only a second later.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of a controller that was just killed must not keep the next one out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Listen { address, source })
}

/// The local socket, for this user only from the first moment: it is made under another name,
/// closed to others, and then takes the place of an old one.
fn local_socket(config: &ControllerConfig) -> Result<UnixListener, StartError> {
    let path = config.socket();
    let fresh = config.state_dir.join("socket.new");
    let make = || -> std::io::Result<UnixListener> {
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, &path)?;
        Ok(listener)
    };
    make().map_err(|source| StartError::File {
        what: "making the socket",
        path: path.clone(),
        source,
    })
}

fn tls(app: &App) -> Result<Option<TlsAcceptor>, StartError> {
    if !app.config.serves_tls() {
        return Ok(None);
    }
    acceptor(app).map(Some)
}

fn acceptor(app: &App) -> Result<TlsAcceptor, StartError> {
    let config = match &app.config.tls {
        PublicTls::Files { certificate, key } => from_files(certificate, key)?,
        PublicTls::Auto | PublicTls::Own => lyceum_wire::https_config(&own_certificate(app)?)?,
    };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The page's certificate by our own CA: kept, so that a browser that was told to trust it
/// is not asked again after a restart, and made anew for other names.
fn own_certificate(app: &App) -> Result<lyceum_wire::Identity, StartError> {
    let mut names = app.config.names.clone();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    if !app.config.listen.ip().is_unspecified() {
        names.push(app.config.listen.ip().to_string());
    }
    names.sort();
    names.dedup();
    let hash = blake3::hash(format!("{} {}", app.ca.fingerprint(), names.join(" ")).as_bytes());
    let dir = app
        .config
        .state_dir
        .join(format!("page-tls-{}", &hash.to_hex()[..16]));
    let half_a_year_ahead = app.now() / 1000 + 180 * 24 * 3600;
    if let Some(known) = lyceum_wire::Identity::load(&dir)?
        && known.validity()?.end > half_a_year_ahead
    {
        return Ok(known);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|source| StartError::File {
            what: "making",
            path: dir.clone(),
            source,
        })?;
    let identity = app.ca.controller_identity(&names)?;
    identity.save(&dir)?;
    Ok(identity)
}

fn from_files(certificate: &Path, key: &Path) -> Result<rustls::ServerConfig, StartError> {
    let bad = |path: &Path, e: &dyn std::fmt::Display| {
        StartError::Tls(format!("{} can't be used: {e}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .map_err(|e| bad(certificate, &e))?;
    if chain.is_empty() {
        return Err(bad(certificate, &"it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::Tls(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| bad(certificate, &e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve_tcp(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    let connections = Connections::new(router, stop.clone());
    while let Some(slot) = connections.slot().await {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                wait_for_room(&e).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (tls, origin) = (tls.clone(), Origin::Network(from.ip()));
        let serve = connections.clone();
        connections.spawn(slot, async move {
            match tls {
                None => serve.connection(stream, origin).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve.connection(stream, origin).await,
                    Ok(Err(e)) => tracing::debug!(%from, "no TLS: {e}"),
                    Err(_) => tracing::debug!(%from, "no TLS in time"),
                },
            }
        });
    }
    drop(listener);
    connections.end().await;
}

async fn serve_socket(listener: UnixListener, router: Router, stop: CancellationToken) {
    let connections = Connections::new(router, stop.clone());
    // The file's mode keeps others out already; this holds when somebody changes it.
    let own = std::fs::metadata("/proc/self")
        .map(|m| std::os::unix::fs::MetadataExt::uid(&m))
        .unwrap_or(0);
    while let Some(slot) = connections.slot().await {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == own || peer.uid() == 0 => {
                    let serve = connections.clone();
                    connections.spawn(slot, async move {
                        serve.connection(stream, Origin::Socket).await;
                    });
                }
                _ => tracing::warn!("somebody else tried to use the local socket"),
            },
            Err(e) => wait_for_room(&e).await,
        }
    }
    drop(listener);
    connections.end().await;
}

// Mostly too many open files: it passes when connections end.
async fn wait_for_room(e: &std::io::Error) {
    tracing::warn!("no connection could be accepted: {e}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// What the connections of one listener share.
#[derive(Clone)]
struct Connections {
    router: Router,
    stop: CancellationToken,
    // Ends what is left when the grace is over.
    abort: CancellationToken,
    tasks: TaskTracker,
    slots: Arc<Semaphore>,
}

impl Connections {
    fn new(router: Router, stop: CancellationToken) -> Self {
        Connections {
            router,
            stop,
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    async fn slot(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            slot = self.slots.clone().acquire_owned() => slot.ok(),
        }
    }

    fn spawn(
        &self,
        slot: tokio::sync::OwnedSemaphorePermit,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection => {}
            }
        });
    }

    async fn connection<S>(&self, stream: S, origin: Origin)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(origin);
            self.router.clone().oneshot(request.map(Body::new))
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(IDLE))
            .max_concurrent_streams(128);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = result {
            tracing::debug!("connection ended: {e}");
        }
    }

    async fn end(&self) {
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait())
            .await
            .is_err()
        {
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}
