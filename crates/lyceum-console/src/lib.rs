//! The console gateway's protocol: keeps a client's RFB (VNC) connection while the servers behind it
//! come and go.
//!
//! ```text
//! noVNC, native viewer ──one connection──► Session ──one after another──► QEMU here, QEMU there, ...
//! ```
//!
//! - [`protocol`]: the words of RFB. - [`client`], [`server`]: take the two streams apart, in any
//!   portions, holding no more than a bounded part. - [`input`]: keys and clicks while there is no
//!   server. - [`session`]: puts them together. - [`gateway`], [`relay`]: the asynchronous edges, at the client
//!   and at the machine. - [`websocket`]: what carries a browser's stream.
//!
//! **Invariants.** Everything but [`gateway`], [`relay`] and [`websocket`] does no I/O and asks no clock. No input of either side makes
//! it panic or hold more than a bounded amount of memory. A client is always left at the boundary of a message.

pub mod client;
pub mod gateway;
pub mod input;
mod output;
pub mod protocol;
pub mod relay;
pub mod server;
pub mod session;
pub mod websocket;

pub use gateway::{ClientItem, End, Limits, Note, Server, ToClient, serve};
pub use session::{Mode, Session};
pub use websocket::WebSocket;
