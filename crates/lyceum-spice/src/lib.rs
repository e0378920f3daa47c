//! What a gateway has to know of SPICE: how a channel is linked, on both sides, and how a client is
//! told to come again. Everything else is passed on unread.
//!
//! ```text
//! remote-viewer ──one connection per channel──► gateway ──one per channel──► QEMU
//!                 link: ours, with a password            link: ours, without
//! ```
//!
//! - [`link`]: the messages of the link stage as types. - [`ticket`]: the password's encryption, which SPICE does
//!   inside of TLS as well. - [`shake`]: the link stage over a stream, as server and as client. - [`main_channel`]:
//!   where messages of the main channel begin and end, and the order to connect again. - [`taken_up`]: when a channel may be closed without harm to
//!   its server.
//!
//! **Invariants.** All but [`shake`] does no I/O; nothing asks a clock. No input of either side makes anything here panic or
//! hold more than a bounded amount of memory.

pub mod link;
pub mod main_channel;
pub mod shake;
pub mod taken_up;
pub mod ticket;

/// What went wrong with a link.
#[derive(Debug, thiserror::Error)]
pub enum SpiceError {
    /// The connection ended or failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// What was said is not SPICE as it should be.
    #[error("this is not SPICE: {0}")]
    Protocol(&'static str),
    /// The server said no, by one of SPICE's numbers.
    #[error("the SPICE server refused the link (error {0})")]
    Refused(u32),
    /// A key could not be made or used.
    #[error("the ticket's key: {0}")]
    Key(String),
}
