//! How the parts of a classroom reach each other: HTTP/1.1 with JSON over
//! mutual TLS.
//!
//! - [`ca`]: the classroom's certificate authority, kept by the controller.
//! - [`peer`]: who somebody is: a kind and a name, written into the certificate.
//! - [`identity`]: a part's own key and certificate, kept in its state directory.
//! - [`join`]: how an agent gets a certificate, with a one-time token.
//! - [`server`]: an axum router behind TLS that knows its peer.
//! - [`client`]: typed calls to one peer, and raw streams (`Upgrade`).
//! - [`error`]: [`lyceum_proto::ErrorBody`] as an answer of axum.
//! - [`extract`]: extractors whose refusals are in that form.
//!
//! **Invariant:** a part never sends or answers a request on a connection whose
//! other end it does not know; the one exception is [`server::Access::Join`].

pub mod ca;
pub mod client;
pub mod error;
pub mod extract;
mod file;
pub mod identity;
pub mod join;
pub mod peer;
pub mod renew;
pub mod server;
mod tls;

pub use ca::{ClassroomCa, key_hash};
pub use client::{Client, ClientError, RawStream};
pub use error::ApiError;
pub use file::write_atomically;
pub use identity::Identity;
pub use join::JoinToken;
pub use peer::{Peer, PeerKind};
pub use renew::Renewing;
pub use server::{Access, serve, serve_renewing};
pub use tls::{https_config, pinned_https_config};

/// What goes wrong with keys, certificates and their files.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A file could not be read or written.
    #[error(
        "{what} {path}: {source}; check that the directory exists and belongs to this program's user"
    )]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: std::path::PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} is not usable: {why}; restore it from a backup, or remove it and join anew")]
    Damaged {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate or signing request is not as it must be.
    #[error("{0}")]
    Certificate(String),
    /// The token is not one.
    #[error("the join token is not usable: {0}; make a new one on the controller")]
    Token(String),
    /// The agent has another identity already.
    #[error(
        "{path} already holds the identity of {peer}: give this agent a state directory of its own, or remove that file first"
    )]
    AlreadyJoined {
        /// The file.
        path: std::path::PathBuf,
        /// Who it is.
        peer: Peer,
    },
    /// The controller refused, or could not be reached.
    #[error("joining failed: {0}")]
    Join(#[source] Box<ClientError>),
    /// The controller did not give a new certificate.
    #[error("asking for a new certificate failed: {0}")]
    Renew(#[source] Box<ClientError>),
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl From<rcgen::Error> for WireError {
    fn from(e: rcgen::Error) -> Self {
        WireError::Certificate(format!("a certificate could not be made: {e}"))
    }
}
