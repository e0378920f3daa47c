//! `lyceum-guest`: the helper inside a golden image.
//!
//! A forked desktop wakes up in the middle of another machine's life. This program is already running then, and within
//! milliseconds gives it a random seed, a clock, a name, SSH host keys and a network of its own. It is small, static and
//! mostly one thread around one `epoll`, because what it does is done sixty times when a class begins.

mod channel;
mod desktop;
mod dhcp;
mod files;
mod identity;
mod netlink;
mod network;
mod packet;
mod power;
mod protocol;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use channel::{Asker, Channel, ChannelError};
use desktop::Desktop;
use identity::Machine;
use network::{Answers, Network};
use protocol::{Op, Request};

const HELP: &str = "\
lyceum-guest: gives a forked desktop its own identity and network

Runs as root inside a golden image and talks to the host on the virtio-serial
port org.lyceum.guest.0.

  --ready-file FILE    the guest counts as usable once FILE exists
  --session-user NAME  the clipboard is that of this user's X session
  --display DISPLAY    its X display (:0)
  --xauthority FILE    the display's cookie, if not in the user's ~/.Xauthority
  --version, --help";

const TOKEN_PORT: u64 = 0;
const TOKEN_LINKS: u64 = 1;
const TOKEN_PACKETS: u64 = 2;
const TOKEN_DONE: u64 = 3;

/// How long the port may take to appear while the guest boots.
const PORT_PATIENCE: Duration = Duration::from_secs(30);
/// How often the boot is looked at, until the guest is ready. Never afterwards: an idle guest must not wake up.
const BOOT_POLL: Duration = Duration::from_millis(200);
/// A clock that is wrong by more than this, in milliseconds, belongs to a machine that stood still.
const STOOD_STILL_MS: u64 = 30_000;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    match args.peek().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("--version") => {
            println!("lyceum-guest {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let run = Desktop::from_args(args).and_then(|desktop| Helper::start(desktop)?.run());
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("lyceum-guest: {error}");
    ExitCode::FAILURE
}

/// Whom it is for, and what came of it.
type Answer = (Asker, Result<Value, String>);

/// Everything the main loop looks after.
struct Helper {
    epoll: sys::Epoll,
    channel: Channel,
    network: Network,
    desktop: Arc<Desktop>,
    /// Answers of work that may take long and has a thread of its own.
    done: Receiver<Answer>,
    worker: Worker,
    ready: bool,
    ready_told: bool,
    /// The program that shuts the guest down, once the answer is on its way.
    power_off: Option<PathBuf>,
}

/// What a thread needs to hand back its answer.
#[derive(Clone)]
struct Worker {
    done: Sender<Answer>,
    waker: Arc<sys::Waker>,
}

impl Helper {
    fn start(desktop: Desktop) -> Result<Self, String> {
        // World-readable files by default, whatever started this; private ones say so themselves.
        sys::set_umask(0o022);
        std::fs::create_dir_all("/run/lyceum")
            .map_err(|error| format!("can't make /run/lyceum: {error}; run it as root"))?;
        let channel = open_channel()?;
        let (sender, done) = mpsc::channel();
        let waiting = |error| format!("can't set up waiting for events: {error}");
        let waker = Arc::new(sys::Waker::new().map_err(waiting)?);
        let epoll = sys::Epoll::new().map_err(waiting)?;
        channel.register(&epoll, TOKEN_PORT).map_err(waiting)?;
        let network = Network::new(&epoll, TOKEN_LINKS, TOKEN_PACKETS)
            .map_err(|error| format!("can't watch the network cards: {error}; run it as root"))?;
        epoll.add(&*waker, TOKEN_DONE).map_err(waiting)?;
        let worker = Worker {
            done: sender,
            waker,
        };
        let desktop = Arc::new(desktop);
        Ok(Self {
            epoll,
            channel,
            network,
            desktop,
            done,
            worker,
            ready: false,
            ready_told: false,
            power_off: None,
        })
    }

    /// Works until the port is gone.
    fn run(mut self) -> Result<(), String> {
        loop {
            self.look_at_boot().map_err(|error| error.to_string())?;
            let boot = (!self.ready).then_some(BOOT_POLL);
            let network = self
                .network
                .next_deadline()
                .map(|d| d.saturating_duration_since(Instant::now()));
            let timeout = [boot, network].into_iter().flatten().min();
            let events = self
                .epoll
                .wait(timeout)
                .map_err(|error| format!("can't wait for events: {error}"))?;
            let mut answers = Answers::new();
            for token in events {
                match token {
                    TOKEN_PORT => self.hear(&mut answers)?,
                    TOKEN_LINKS => report(self.network.links_changed()),
                    TOKEN_PACKETS => {}
                    _ => {
                        self.worker.waker.clear();
                        answers.extend(self.done.try_iter());
                    }
                }
            }
            self.network.work(&self.epoll, &mut answers);
            for (asker, result) in answers {
                let line = protocol::answer(asker.id, result);
                self.channel
                    .send(asker.session, &line)
                    .map_err(|error| error.to_string())?;
            }
            if let Some(program) = self.power_off.take() {
                power::off(program);
            }
        }
    }

    /// Notices that the guest has become ready, and says so once.
    fn look_at_boot(&mut self) -> Result<(), ChannelError> {
        self.ready = self.ready || self.desktop.missing().is_none();
        if self.ready && !self.ready_told && self.channel.host_listens() {
            self.ready_told = true;
            self.channel
                .send(self.channel.session(), &protocol::event("ready"))?;
        }
        Ok(())
    }

    fn hear(&mut self, answers: &mut Answers) -> Result<(), String> {
        let mut requests = Vec::new();
        let heard = self.channel.ready(|session, line| {
            requests.extend(Request::parse(line).map(|request| (session, request)));
        });
        heard.map_err(|error| error.to_string())?;
        for (session, request) in requests {
            self.handle(
                Asker {
                    session,
                    id: request.id,
                },
                request.op,
                answers,
            );
        }
        Ok(())
    }

    fn handle(&mut self, asker: Asker, op: Result<Op, String>, answers: &mut Answers) {
        let op = match op {
            Ok(op) => op,
            Err(error) => return answers.push((asker, Err(error))),
        };
        let desktop = Arc::clone(&self.desktop);
        match op {
            Op::Ping => {
                let mut pong = json!({ "version": env!("CARGO_PKG_VERSION"), "ready": self.ready });
                if let Some(what) = desktop.missing().filter(|_| !self.ready) {
                    pong["what"] = what.into();
                }
                answers.push((asker, Ok(pong)));
            }
            // Quick, and what follows it must find it done.
            Op::Identity(identity) => {
                answers.push((
                    asker,
                    Machine::this()
                        .become_new(&identity)
                        .map_err(|error| error.to_string()),
                ));
            }
            Op::SetTime(unix_ms) => {
                let wrong_by = sys::clock().abs_diff(unix_ms);
                let set = sys::set_clock(unix_ms).map(|()| Value::Null);
                if wrong_by > STOOD_STILL_MS {
                    self.network.doubt();
                }
                answers.push((
                    asker,
                    set.map_err(|error| format!("can't set the clock: {error}")),
                ));
            }
            Op::Network { mac, timeout_ms } => {
                self.network
                    .request(asker, mac, Duration::from_millis(timeout_ms));
            }
            Op::PrepareSeal => {
                self.worker.spawn(asker, || {
                    Machine::this()
                        .prepare_seal()
                        .map_err(|error| error.to_string())
                });
            }
            // Begun once the answer is sent: what shuts the guest down ends this program too.
            Op::Shutdown => match power::program() {
                Some(program) => {
                    self.power_off = Some(program);
                    answers.push((asker, Ok(Value::Null)));
                }
                None => answers.push((
                    asker,
                    Err("can't shut down: this guest has no program `poweroff`".into()),
                )),
            },
            Op::Sync => self.worker.spawn(asker, || {
                sys::sync_all();
                Ok(Value::Null)
            }),
            Op::ClipboardSet(text) => self
                .worker
                .spawn(asker, move || desktop.set_clipboard(&text)),
            Op::ClipboardGet => self.worker.spawn(asker, move || desktop.clipboard()),
        }
    }
}

impl Worker {
    /// Does `work` in a thread of its own and hands its answer to the main loop.
    fn spawn(&self, asker: Asker, work: impl FnOnce() -> Result<Value, String> + Send + 'static) {
        let back = self.clone();
        let thread = std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || {
                let _ = back.done.send((asker, work()));
                back.waker.wake();
            });
        if let Err(error) = thread {
            let _ = self
                .done
                .send((asker, Err(format!("can't start a thread: {error}"))));
            self.waker.wake();
        }
    }
}

/// Opens the port, waiting while the kernel is still finding its devices.
fn open_channel() -> Result<Channel, String> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match Channel::open() {
            Err(ChannelError::NoPort) if Instant::now() < deadline => std::thread::sleep(BOOT_POLL),
            other => return other.map_err(|error| error.to_string()),
        }
    }
}

fn report(result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("lyceum-guest: can't read the kernel's news on network cards: {error}");
    }
}
