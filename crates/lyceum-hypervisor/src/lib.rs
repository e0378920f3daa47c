//! What the host agent needs of a hypervisor, and nothing about any particular
//! one: [`Hypervisor`] starts and finds machines, [`Instance`] is one of them.
//!
//! `lyceum-qemu` implements it with real QEMU. [`sim`] implements it without any
//! machine, for tests and the simulator; the agent above is the same program.
//!
//! Paths in this interface are absolute and resolved already: the agent turns
//! the references of the protocol into paths on its mounts.

pub mod sim;
mod types;

pub use types::*;

pub use lyceum_model::MoveWay;

use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Starts machines and finds those that outlived a restart of the agent.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// What this host offers; a release sealed on another platform is not forked.
    fn platform(&self) -> lyceum_model::Platform;

    /// Whether its machines can be [started](StartRequest::spice) with a SPICE server.
    fn has_spice(&self) -> bool {
        false
    }

    /// Starts a machine and returns as soon as there is a process to own: its
    /// progress is in [`Instance::watch`]. On an error nothing is left behind.
    /// An existing machine in `request.run_dir` is an error: the caller ends it first.
    async fn start(&self, request: StartRequest) -> Result<Arc<dyn Instance>, StartError>;

    /// Reads every byte of a delta and says whether a desktop of this size could be brought up from it here.
    async fn verify_delta(
        &self,
        delta: &Path,
        sealed: &SealedFiles,
        size: lyceum_model::MachineSize,
    ) -> Result<(), DeltaFault>;

    /// Takes over the machine whose run directory this is, after the agent was
    /// restarted. `Ok(None)`: its process is gone; the directory may be removed.
    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Instance>>, HypervisorError>;
}

/// One machine. Dropping the last handle does **not** end it: machines outlive
/// the agent.
///
/// ```text
///   Starting ──► Running ──► (suspend) ──► Ended
///      └──────────┴── (end, or the process ended by itself) ──► Ended
///
///   moves:  here   Running ── send ── hand_over ── end
///                     ▲         │         │
///                     └─────────┴─────────┴── take_back (or it is elsewhere: end)
///           there  Starting ── receive ── take_over ──► Running
/// ```
#[async_trait]
pub trait Instance: Send + Sync {
    /// The state as it changes. The last value is [`InstanceState::Ended`].
    fn watch(&self) -> watch::Receiver<InstanceState>;

    /// Process id of the machine's process.
    fn pid(&self) -> u32;

    /// What was asked for at its start. After [`Hypervisor::adopt`] too.
    fn request(&self) -> StartRequest;

    /// Writes the delta (pages, device state, a copy-free reference to the
    /// overlay, which is flushed) into `out`, which must not exist yet and
    /// appears complete or not at all, then ends the machine. On an error the
    /// machine goes on.
    async fn suspend(&self, out: &Path) -> Result<DeltaSummary, HypervisorError>;

    /// The same, but the machine goes on, standing still for the moment of the
    /// copy only; the overlay's content at that moment is copied into `out` too. Of a machine that shares no
    /// memory with its release the disk alone is kept, after the guest was asked to write out what it holds.
    async fn capture(&self, out: &Path) -> Result<DeltaSummary, HypervisorError>;

    /// Bytes of memory that are the machine's own and not its release's; `None`: it has no release
    /// memory, so that it can only be moved [live](MoveWay::Live).
    async fn own_bytes(&self) -> Result<Option<u64>, HypervisorError>;

    /// Sends the running machine into `out`, piece by piece, to be fed into [`Instance::receive`]
    /// of a machine that was started with [`StartFrom::Arrive`]. `before_still` is awaited just before it
    /// stands still, where that moment is ours to choose; where `out` is closed by then, it does not stand
    /// still. When it returns, the machine stands still
    /// with its disk flushed and given up, and waits for [`Instance::hand_over`] or [`Instance::take_back`].
    /// After an error (a closed `out` is one) it is for the caller to take it back.
    async fn send(
        &self,
        way: MoveWay,
        bytes_per_second: Option<u64>,
        before_still: Before,
        out: tokio::sync::mpsc::Sender<Vec<u8>>,
    ) -> Result<Sent, HypervisorError>;

    /// Lets go of the disk's lock, so that the other machine may take it. From here on nobody but
    /// the lock knows which of the two goes on.
    async fn hand_over(&self) -> Result<(), HypervisorError>;

    /// Takes the lock back and lets the machine go on, if nobody else has it. Safe at any time of a
    /// move, and after a restart of the agent. An error: it is not known yet, ask again.
    async fn take_back(&self) -> Result<TakenBack, HypervisorError>;

    /// Takes in what another machine sends. When it returns, everything has come and was verified,
    /// and the machine could go on, but does not.
    async fn receive(
        &self,
        input: tokio::sync::mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), HypervisorError>;

    /// Takes the disk's lock and goes on: the machine is the desktop from now on. Fails when somebody
    /// else has the lock; the caller ends the machine then.
    async fn take_over(&self, usable: Usable) -> Result<(), HypervisorError>;

    /// Seals a machine that was started with [`StartFrom::ColdForSeal`]: asks the
    /// guest to make ready, stops it, saves RAM and device state into the files named there and
    /// ends it. The disk is flushed and closed when this returns.
    async fn seal(&self) -> Result<SealSummary, HypervisorError>;

    /// Asks the guest to shut down, through its helper and then by its power button (ACPI), and waits
    /// for at most `patience`, then ends it in any case; the reason in [`InstanceState::Ended`] says
    /// which it was. Idempotent. `Duration::ZERO`: ends it at once. Returns when the process is gone
    /// and its run directory is removed.
    async fn end(&self, patience: std::time::Duration) -> Result<(), HypervisorError>;

    /// A connection to the machine's RFB (VNC) server, before the handshake.
    async fn vnc(&self) -> Result<Box<dyn Stream>, HypervisorError>;

    /// A connection to the machine's SPICE server, before the link; without a password. Fails for a machine
    /// that was [started](StartRequest::spice) without one.
    async fn spice(&self) -> Result<Box<dyn Stream>, HypervisorError> {
        Err(HypervisorError::State(
            "this desktop runs without SPICE: it was started before that was chosen, or its host can't".into(),
        ))
    }

    /// Memory and CPU time right now.
    async fn usage(&self) -> Result<Usage, HypervisorError>;

    /// Puts text into the guest's clipboard.
    async fn set_clipboard(&self, text: &str) -> Result<(), HypervisorError>;

    /// Text of the guest's clipboard.
    async fn clipboard(&self) -> Result<String, HypervisorError>;
}

/// Something to be awaited at a certain moment.
pub type Before = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A two-way stream of bytes.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}
