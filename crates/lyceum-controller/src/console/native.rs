//! The port for native VNC viewers: TLS and a one-time password (VeNCrypt, X509Plain), and only for
//! addresses from which somebody has just asked for it on the page. To all others it says not a word.

use super::serve;
use super::tickets::Grant;
use super::viewers::Presence;
use crate::app::App;
use crate::auth::{Actor, Origin, secret};
use crate::error::ApiFailure;
use lyceum_console::Mode;
use lyceum_console::gateway::Plain;
use lyceum_model::UnixMillis;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

/// How long a password works, milliseconds: enough to start a viewer and type it.
pub const PASSWORD_MS: UnixMillis = 120_000;
/// Passwords that may wait at once, in all and for one person.
const WAITING_MAX: usize = 1_000;
const PERSON_MAX: usize = 8;
/// Wrong passwords from an address until those that wait for it are void.
const WRONG_MAX: u32 = 5;
/// Connections that are shaking hands at once, and for how long each may.
const SHAKING: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(20);
const VERSION: &[u8; 12] = b"RFB 003.008\n";
const VENCRYPT: u8 = 19;
const X509_PLAIN: u32 = 262;

#[derive(Clone)]
struct Waiting {
    user: String,
    password: String,
    from: IpAddr,
    actor: Actor,
    grant: Grant,
    expires: UnixMillis,
    wrong: u32,
}

/// One-time passwords for native viewers. They live in memory only.
#[derive(Clone, Default)]
pub struct NativePasswords(Arc<Mutex<Vec<Waiting>>>);

/// What a native viewer is let in with.
#[derive(Debug, Clone)]
pub struct NativePass {
    /// Name to sign in with.
    pub user: String,
    /// The one-time password.
    pub password: String,
    /// Until when.
    pub expires: UnixMillis,
}

// Where native viewers of this person come from.
pub(super) fn address(origin: Origin) -> IpAddr {
    match origin {
        Origin::Socket => IpAddr::from([127, 0, 0, 1]),
        Origin::Network(ip) => ip.to_canonical(),
    }
}

impl NativePasswords {
    fn lock(&self, now: UnixMillis) -> MutexGuard<'_, Vec<Waiting>> {
        // A poisoned lock only means that another thread panicked while it held plain data.
        let mut all = self.0.lock().unwrap_or_else(|p| p.into_inner());
        all.retain(|w| w.expires > now && w.wrong < WRONG_MAX);
        all
    }

    /// A password for one viewer at the address that the request came from.
    pub fn issue(
        &self,
        actor: &Actor,
        origin: Origin,
        grant: Grant,
        now: UnixMillis,
    ) -> Result<NativePass, ApiFailure> {
        let password = secret::new()?;
        let pass = NativePass {
            user: actor.login().to_owned(),
            password: password.clone(),
            expires: now + PASSWORD_MS,
        };
        let mut all = self.lock(now);
        let own = all.iter().filter(|w| w.user == pass.user).count();
        if all.len() >= WAITING_MAX || own >= PERSON_MAX {
            return Err(ApiFailure::too_many(
                "too many viewers are being let in: wait a moment",
                30,
            ));
        }
        all.push(Waiting {
            user: pass.user.clone(),
            password: secret::hash(&password),
            from: address(origin),
            actor: actor.clone(),
            grant,
            expires: pass.expires,
            wrong: 0,
        });
        Ok(pass)
    }

    /// Whether somebody at this address may come.
    fn expects(&self, from: IpAddr, now: UnixMillis) -> bool {
        self.lock(now).iter().any(|w| w.from == from)
    }

    /// Uses a password up.
    fn redeem(
        &self,
        user: &str,
        password: &str,
        from: IpAddr,
        now: UnixMillis,
    ) -> Option<(Actor, Grant)> {
        let hash = secret::hash(password);
        let mut all = self.lock(now);
        let right = all
            .iter()
            .position(|w| w.from == from && w.user == user && w.password == hash);
        match right {
            Some(at) => {
                let waiting = all.swap_remove(at);
                Some((waiting.actor, waiting.grant))
            }
            None => {
                all.iter_mut()
                    .filter(|w| w.from == from)
                    .for_each(|w| w.wrong += 1);
                None
            }
        }
    }
}

/// Serves native viewers until the controller ends.
pub async fn listen(app: App, listener: TcpListener, tls: TlsAcceptor) {
    let shaking = Arc::new(Semaphore::new(SHAKING));
    let viewers = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = app.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // Mostly too many open files: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let from = from.ip().to_canonical();
        // Whoever is not expected learns nothing, not even what this is.
        if !app.native.expects(from, app.now()) {
            tracing::debug!(%from, "a native viewer that nobody expects");
            continue;
        }
        let Ok(slot) = shaking.clone().try_acquire_owned() else {
            continue;
        };
        let (app, tls) = (app.clone(), tls.clone());
        viewers.spawn(async move {
            let let_in = tokio::time::timeout(HANDSHAKE, shake_hands(&app, stream, &tls, from));
            let let_in = let_in.await;
            drop(slot);
            match let_in {
                Ok(Ok((stream, actor, grant))) => view(&app, actor, grant, stream).await,
                Ok(Err(e)) => tracing::debug!(%from, "a native viewer was not let in: {e}"),
                Err(_) => tracing::debug!(%from, "a native viewer did not shake hands in time"),
            }
        });
    }
    drop(listener);
    viewers.close();
    viewers.wait().await;
}

async fn view(app: &App, actor: Actor, grant: Grant, stream: TlsStream<TcpStream>) {
    let name = actor.user().map_or("", |u| u.name.as_str());
    let Some(presence): Option<Presence> = app.viewers.enter(&grant.desktop, name, grant.view_only)
    else {
        return;
    };
    let mode = Mode {
        view_only: grant.view_only,
        let_in: true,
    };
    let mut client = Plain::new(stream);
    let end = serve::watch(app, &actor, &grant, &mut client, presence, mode).await;
    tracing::debug!(desktop = %grant.desktop, ?end, "a native viewer left");
}

fn no(why: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

// Up to, but not with, the result of the security type, which is the session's to say.
async fn shake_hands(
    app: &App,
    mut stream: TcpStream,
    tls: &TlsAcceptor,
    from: IpAddr,
) -> std::io::Result<(TlsStream<TcpStream>, Actor, Grant)> {
    stream.set_nodelay(true)?;
    encrypted(&mut stream).await?;
    let mut stream = tls.accept(stream).await?;
    let (user, password) = credentials(&mut stream).await?;
    match app.native.redeem(&user, &password, from, app.now()) {
        Some((actor, grant)) => Ok((stream, actor, grant)),
        None => {
            let words = b"wrong or used password: ask for a new one on the page";
            stream.write_all(&[0, 0, 0, 1, 0, 0, 0]).await?;
            stream.write_all(&[words.len() as u8]).await?;
            stream.write_all(words).await?;
            stream.shutdown().await?;
            Err(no("wrong password"))
        }
    }
}

// Agrees upon VeNCrypt with a certificate, name and password.
async fn encrypted(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    stream.write_all(VERSION).await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    if &version != VERSION && &version != b"RFB 003.007\n" {
        return Err(no("it does not speak RFB 3.8"));
    }
    stream.write_all(&[1, VENCRYPT]).await?;
    if stream.read_u8().await? != VENCRYPT {
        return Err(no("it does not know VeNCrypt"));
    }
    stream.write_all(&[0, 2]).await?;
    let mut version = [0; 2];
    stream.read_exact(&mut version).await?;
    if version != [0, 2] {
        stream.write_all(&[0xff]).await?;
        return Err(no("another version of VeNCrypt"));
    }
    stream.write_all(&[0, 1]).await?;
    stream.write_all(&X509_PLAIN.to_be_bytes()).await?;
    if stream.read_u32().await? != X509_PLAIN {
        stream.write_all(&[0]).await?;
        return Err(no("it does not know X509Plain"));
    }
    stream.write_all(&[1]).await?;
    stream.flush().await
}

async fn credentials(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(String, String)> {
    let (user, password) = (stream.read_u32().await?, stream.read_u32().await?);
    if user > 256 || password > 256 {
        return Err(no("a name or password of impossible length"));
    }
    let mut text = async |length: u32| {
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await?;
        String::from_utf8(bytes).map_err(|_| no("a name or password that is no text"))
    };
    Ok((text(user).await?, text(password).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn issue(all: &NativePasswords, now: UnixMillis) -> NativePass {
        let grant = Grant::new("d1".parse().expect("id"), "local", true, now);
        all.issue(&Actor::local(), Origin::Network(ip(1)), grant, now)
            .expect("password")
    }

    #[test]
    fn a_password_works_once_in_time_and_from_its_address() {
        let all = NativePasswords::default();
        let p = issue(&all, 0);
        assert!(all.expects(ip(1), 1) && !all.expects(ip(2), 1));
        assert!(all.redeem("local", &p.password, ip(2), 1).is_none());
        assert!(all.redeem("ann", &p.password, ip(1), 1).is_none());
        assert!(all.redeem("local", &p.password, ip(1), 1).is_some());
        assert!(all.redeem("local", &p.password, ip(1), 1).is_none());
        assert!(!all.expects(ip(1), 1), "nobody is expected any more");
        let p = issue(&all, 0);
        assert!(
            all.redeem("local", &p.password, ip(1), PASSWORD_MS)
                .is_none()
        );
    }

    #[test]
    fn passwords_can_not_be_guessed_or_collected() {
        let all = NativePasswords::default();
        let p = issue(&all, 0);
        for _ in 0..WRONG_MAX {
            assert!(all.redeem("local", "guess", ip(1), 1).is_none());
        }
        assert!(all.redeem("local", &p.password, ip(1), 1).is_none());
        for _ in 0..PERSON_MAX {
            issue(&all, 1);
        }
        let grant = Grant::new("d1".parse().expect("id"), "local", true, 1);
        let more = all.issue(&Actor::local(), Origin::Socket, grant, 1);
        assert!(more.is_err());
    }
}
