//! The controller: the classroom's API and page, its accounts, its store, the reconcilers
//! that make agents do what the store says, and the gateway to desktops' consoles.
//!
//! - [`api`]: one file per resource; [`auth`]: who asks and what they may; [`audit`].
//! - [`agents`], [`live`]: clients of the agents, and what they said last.
//! - [`server`]: the listeners: browsers, agents that join, the local socket.

pub mod agents;
pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod config;
pub mod console;
pub mod drafts;
pub mod error;
pub mod first_admin;
pub mod gather;
pub mod housekeeping;
pub mod live;
pub mod network;
pub mod orders;
pub mod power;
pub mod reads;
pub mod reconcile;
pub mod roster;
pub mod server;
pub mod timetable;

pub use app::{App, StartError};
pub use config::{ControllerConfig, NetworkConfig, PublicTls};
pub use lyceum_console::Limits as ConsoleLimits;
pub use server::{Controller, run};
