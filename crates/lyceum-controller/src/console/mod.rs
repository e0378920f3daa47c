//! The console gateway: a browser's WebSocket or a native viewer on one side, on the other the RFB
//! stream of the desktop on whichever host it runs.
//!
//! - [`tickets`]: what opens a console. - [`serve`]: one console. - [`supply`]: finds its machine,
//!   again and again, and closes it when its person loses the right to see it.
//! - [`viewers`]: who looks at what. - [`native`]: the port for VNC viewers outside of the page.
//! - [`spice`]: the port for SPICE clients.
//!
//! How a viewer is kept while machines come and go behind it is `lyceum_console`.

pub mod native;
mod serve;
pub mod spice;
mod supply;
mod tickets;
mod viewers;

pub use serve::{Upgrade, close, upgrade};
pub use tickets::{Grant, TICKET_MS, Tickets};
pub use viewers::{Seen, VIEWERS_MAX, Viewers};
