//! The gateway between made-up clients and servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod edge;
mod hostile;
mod keys;
mod picture;
mod relayed;
mod server;
mod switch;
mod viewer;
mod websocket;
