//! One-time passwords of SPICE clients, and the sessions that they opened. They live in memory only.
//!
//! ```text
//!              main channel              its machine is elsewhere: the client is told to come again
//!   Waiting ──────────────────► Live ──────────────────────────────────────────► Again
//!      │ two minutes              │ ▲                                              │ │ too late
//!      ▼                          ▼ └──────────────── main channel ────────────────┘ ▼
//!    gone                       gone                                                gone
//! ```
//!
//! QEMU serves one SPICE client at a time. Who comes last has the desktop; the session before it ends.

use super::super::native::{NativePass, PASSWORD_MS};
use crate::auth::{Actor, secret};
use crate::console::Grant;
use crate::console::supply::Place;
use crate::error::ApiFailure;
use lyceum_model::UnixMillis;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a client that was told to come again may take, milliseconds.
pub const AGAIN_MS: UnixMillis = 30_000;
/// Sessions at once, in all and of one person.
const SESSIONS_MAX: usize = 1_000;
const PERSON_MAX: usize = 8;
/// Wrong passwords from an address until those that wait for it are void.
const WRONG_MAX: u32 = 5;
/// Connections from an address that are shaking hands at once.
const SHAKING_MAX: usize = 16;
/// Channels of a session beside its main one.
const CHANNELS_MAX: usize = 16;

/// How a client reaches this controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Name or address.
    pub host: String,
    /// Subject of the certificate to expect, when it is of the classroom's own authority.
    pub subject: Option<String>,
}

/// What all channels know while a main channel lives.
#[derive(Debug)]
pub struct Live {
    /// The main channel has ended, and so do the others.
    pub end: CancellationToken,
    /// Its machine's end is gone; the others hold their clients' ends.
    pub lost: AtomicBool,
    /// Room for channels beside the main one.
    pub channels: Arc<Semaphore>,
    /// Where it is linked to, and the session's number there.
    pub(in crate::console) linked: OnceLock<(Place, u32)>,
    /// When its person did something last.
    pub busy: Mutex<Instant>,
}

impl Live {
    fn new() -> Arc<Live> {
        Arc::new(Live {
            end: CancellationToken::new(),
            lost: AtomicBool::new(false),
            channels: Arc::new(Semaphore::new(CHANNELS_MAX)),
            linked: OnceLock::new(),
            busy: Mutex::new(Instant::now()),
        })
    }

    /// Whether the machine's end is gone.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Notes that its person did something.
    pub fn did(&self) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long its person has done nothing.
    pub fn idle(&self) -> std::time::Duration {
        self.busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

#[derive(Debug)]
enum State {
    Waiting,
    Live(Arc<Live>),
    Again,
}

struct Session {
    number: u64,
    login: String,
    password: String,
    from: IpAddr,
    reach: Reach,
    actor: Actor,
    grant: Grant,
    state: State,
    // Of what is not live.
    expires: UnixMillis,
    wrong: u32,
    end: CancellationToken,
    began: Instant,
}

#[derive(Default)]
struct Inner {
    sessions: Vec<Session>,
    shaking: HashMap<IpAddr, usize>,
    last: u64,
}

/// Passwords and sessions. Cheap to clone.
#[derive(Clone, Default)]
pub struct SpiceSessions(Arc<Mutex<Inner>>);

/// A main channel that was let in.
pub struct Main {
    /// The session's name here.
    pub number: u64,
    /// Whose it is.
    pub actor: Actor,
    /// What may be seen.
    pub grant: Grant,
    /// How the client reaches this controller.
    pub reach: Reach,
    /// What its other channels know of it.
    pub live: Arc<Live>,
    /// The session is to end.
    pub end: CancellationToken,
    /// When it began.
    pub began: Instant,
}

/// Another channel that was let in.
pub struct Beside {
    /// Whose it is.
    pub actor: Actor,
    /// What may be seen.
    pub grant: Grant,
    /// Its main channel.
    pub live: Arc<Live>,
    /// The session is to end.
    pub end: CancellationToken,
}

/// Who was let in.
pub enum Perhaps {
    /// A main channel.
    Main(Main),
    /// Another one.
    Beside(Beside),
    /// Nobody.
    No,
}

/// A place among those that shake hands from an address.
pub struct Shaking {
    sessions: SpiceSessions,
    from: IpAddr,
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut inner = self.sessions.inner();
        if let Some(count) = inner.shaking.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                inner.shaking.remove(&self.from);
            }
        }
    }
}

impl SpiceSessions {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only means that another thread panicked while it held plain data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, now: UnixMillis) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner();
        inner.sessions.retain(|s| match s.state {
            State::Live(_) => true,
            State::Waiting => s.expires > now && s.wrong < WRONG_MAX,
            State::Again => s.expires > now,
        });
        inner
    }

    /// A password for one client at this address.
    pub fn issue(
        &self,
        actor: &Actor,
        from: IpAddr,
        grant: Grant,
        reach: Reach,
        now: UnixMillis,
    ) -> Result<NativePass, ApiFailure> {
        let password = secret::new()?;
        let expires = now + PASSWORD_MS;
        let login = actor.login().to_owned();
        let mut inner = self.lock(now);
        let own = inner.sessions.iter().filter(|s| s.login == login).count();
        if inner.sessions.len() >= SESSIONS_MAX || own >= PERSON_MAX {
            return Err(ApiFailure::too_many(
                "too many viewers are open or being let in: close some, or wait a moment",
                30,
            ));
        }
        inner.last += 1;
        let number = inner.last;
        inner.sessions.push(Session {
            number,
            login: login.clone(),
            password: secret::hash(&password),
            from,
            reach,
            actor: actor.clone(),
            grant,
            state: State::Waiting,
            expires,
            wrong: 0,
            end: CancellationToken::new(),
            began: Instant::now(),
        });
        Ok(NativePass {
            user: login,
            password,
            expires,
        })
    }

    /// A place for somebody at this address, if a client may come from there.
    pub fn expects(&self, from: IpAddr, now: UnixMillis) -> Option<Shaking> {
        let mut inner = self.lock(now);
        if !inner.sessions.iter().any(|s| s.from == from) {
            return None;
        }
        let count = inner.shaking.entry(from).or_default();
        if *count >= SHAKING_MAX {
            return None;
        }
        *count += 1;
        Some(Shaking {
            sessions: self.clone(),
            from,
        })
    }

    /// Lets a channel in, or not. A main channel uses the password up.
    pub fn enter(&self, password: &str, from: IpAddr, main: bool, now: UnixMillis) -> Perhaps {
        let hash = secret::hash(password);
        let mut inner = self.lock(now);
        let found = inner
            .sessions
            .iter()
            .position(|s| s.from == from && s.password == hash);
        let Some(session) = found.and_then(|at| inner.sessions.get_mut(at)) else {
            inner
                .sessions
                .iter_mut()
                .filter(|s| s.from == from)
                .for_each(|s| s.wrong += 1);
            return Perhaps::No;
        };
        if !main {
            return match &session.state {
                State::Live(live) => Perhaps::Beside(Beside {
                    actor: session.actor.clone(),
                    grant: session.grant.clone(),
                    live: live.clone(),
                    end: session.end.clone(),
                }),
                State::Waiting | State::Again => Perhaps::No,
            };
        }
        if let State::Live(_) = session.state {
            return Perhaps::No;
        }
        let live = Live::new();
        session.state = State::Live(live.clone());
        let let_in = Main {
            number: session.number,
            actor: session.actor.clone(),
            grant: session.grant.clone(),
            reach: session.reach.clone(),
            live,
            end: session.end.clone(),
            began: session.began,
        };
        let (number, desktop) = (session.number, session.grant.desktop.clone());
        inner.sessions.retain(|s| {
            let before = s.number != number
                && s.grant.desktop == desktop
                && matches!(s.state, State::Live(_) | State::Again);
            if before {
                s.end.cancel();
            }
            !before
        });
        Perhaps::Main(let_in)
    }

    /// The session's client was told to come again.
    pub fn comes_again(&self, number: u64, now: UnixMillis) {
        let mut inner = self.lock(now);
        if let Some(s) = inner.sessions.iter_mut().find(|s| s.number == number) {
            s.state = State::Again;
            s.expires = now + AGAIN_MS;
        }
    }

    /// The session is over. One that was told to come again is not, and neither is one whose client has come again.
    pub fn over(&self, number: u64, live: &Arc<Live>) {
        let mut inner = self.inner();
        inner.sessions.retain(|s| {
            s.number != number || !matches!(&s.state, State::Live(l) if Arc::ptr_eq(l, live))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn school() -> Reach {
        Reach {
            host: "school".into(),
            subject: None,
        }
    }

    fn issue(all: &SpiceSessions, desktop: &str, now: UnixMillis) -> String {
        let grant = Grant::new(desktop.parse().expect("id"), "local", false, now);
        all.issue(&Actor::local(), ip(1), grant, school(), now)
            .expect("password")
            .password
    }

    fn main(all: &SpiceSessions, password: &str, from: IpAddr, now: UnixMillis) -> Option<Main> {
        match all.enter(password, from, true, now) {
            Perhaps::Main(main) => Some(main),
            Perhaps::Beside(_) => panic!("it is a main channel"),
            Perhaps::No => None,
        }
    }

    fn beside(all: &SpiceSessions, password: &str, from: IpAddr, now: UnixMillis) -> bool {
        matches!(all.enter(password, from, false, now), Perhaps::Beside(_))
    }

    #[test]
    fn a_password_is_for_one_main_channel_and_those_that_come_with_it() {
        let all = SpiceSessions::default();
        let p = issue(&all, "d1", 0);
        assert!(all.expects(ip(1), 1).is_some() && all.expects(ip(2), 1).is_none());
        assert!(!beside(&all, &p, ip(1), 1), "the main channel comes first");
        assert!(main(&all, &p, ip(2), 1).is_none(), "from elsewhere");
        let first = main(&all, &p, ip(1), 1).expect("let in");
        assert!(main(&all, &p, ip(1), 1).is_none(), "used up");
        // Long after the password would have expired.
        assert!(beside(&all, &p, ip(1), 10 * PASSWORD_MS));
        assert!(!beside(&all, &p, ip(2), 1) && !beside(&all, "guess", ip(1), 1));
        all.over(first.number, &first.live);
        assert!(!beside(&all, &p, ip(1), 1));
        assert!(
            all.expects(ip(1), 1).is_none(),
            "nobody is expected any more"
        );
        let late = issue(&all, "d1", 0);
        assert!(main(&all, &late, ip(1), PASSWORD_MS).is_none());
    }

    #[test]
    fn who_was_told_to_comes_again_and_nobody_else() {
        let all = SpiceSessions::default();
        let p = issue(&all, "d1", 0);
        let first = main(&all, &p, ip(1), 1).expect("let in");
        all.comes_again(first.number, 5);
        assert!(!beside(&all, &p, ip(1), 6) && main(&all, &p, ip(2), 6).is_none());
        let second = main(&all, &p, ip(1), 6).expect("let in again");
        // The first connection is closed only now.
        all.over(first.number, &first.live);
        assert!(beside(&all, &p, ip(1), 7));
        all.comes_again(second.number, 10);
        assert!(main(&all, &p, ip(1), 10 + AGAIN_MS).is_none(), "too late");
    }

    #[test]
    fn who_comes_last_has_the_desktop() {
        let all = SpiceSessions::default();
        let (a, b, c) = (
            issue(&all, "d1", 0),
            issue(&all, "d1", 0),
            issue(&all, "d2", 0),
        );
        let first = main(&all, &a, ip(1), 1).expect("let in");
        let other = main(&all, &c, ip(1), 1).expect("let in");
        main(&all, &b, ip(1), 1).expect("let in");
        assert!(first.end.is_cancelled() && !other.end.is_cancelled());
        assert!(!beside(&all, &a, ip(1), 1));
    }

    #[test]
    fn passwords_can_not_be_guessed_or_collected_nor_sockets() {
        let all = SpiceSessions::default();
        let p = issue(&all, "d1", 0);
        for _ in 0..WRONG_MAX {
            assert!(main(&all, "guess", ip(1), 1).is_none());
        }
        assert!(main(&all, &p, ip(1), 1).is_none());
        for _ in 0..PERSON_MAX {
            issue(&all, "d1", 1);
        }
        let grant = Grant::new("d1".parse().expect("id"), "local", false, 1);
        assert!(
            all.issue(&Actor::local(), ip(1), grant, school(), 1)
                .is_err()
        );
        let held: Vec<_> = (0..1000).filter_map(|_| all.expects(ip(1), 1)).collect();
        assert_eq!(held.len(), SHAKING_MAX);
        drop(held);
        assert!(all.inner().shaking.is_empty());
    }
}
