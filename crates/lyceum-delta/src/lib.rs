//! The file format of a delta: what a running desktop consists of besides its
//! release and its disk overlay.
//!
//! A delta is one folder:
//!
//! | file            | content |
//! |-----------------|---------|
//! | `delta.json`    | the [`Header`]: what it belongs to, and length and hash of every other file |
//! | `pages`         | pages of the release's RAM that the desktop wrote, a [page file](pagefile) |
//! | `blocks`        | the other RAM blocks (video memory, ROM copies), a page file |
//! | `device-state`  | QEMU's own device state, opaque |
//! | `overlay.qcow2` | the disk overlay at that moment; only in a delta of a desktop that went on |
//!
//! Of a machine that shares no memory with its release (it was booted cold) there is the disk alone: its delta has
//! no pages and an empty device state ([`Header::holds_memory`]), and is booted from instead of resumed.
//!
//! A desktop that moves sends the same things over a [stream].
//!
//! A [`DeltaWriter`] fills `NAME.partial` and renames it after everything is on
//! stable storage: the folder appears whole or not at all. [`Delta::open`]
//! verifies every byte (of the overlay: its length; see [`Delta::verify_overlay`])
//! and every offset before anything of it can be used.
//!
//! **Invariant: nothing that a delta says makes the reader panic or allocate more
//! than the file it lies in is long.**

mod error;
mod header;
pub mod pagefile;
mod reader;
mod seen;
pub mod stream;
mod writer;

pub use error::DeltaError;
pub use header::{BlockInfo, FORMAT, FilePart, Header, PagePart};
pub use reader::{Delta, Expect};
pub use seen::{News, Seen};
pub use writer::{DeltaWriter, Description};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Name of the header file in the folder.
pub const HEADER_FILE: &str = "delta.json";
/// Name of the file with pages of the release's RAM.
pub const PAGES_FILE: &str = "pages";
/// Name of the file with the other RAM blocks.
pub const BLOCKS_FILE: &str = "blocks";
/// Name of the device state file.
pub const DEVICE_STATE_FILE: &str = "device-state";
/// Name of the copied overlay.
pub const OVERLAY_FILE: &str = "overlay.qcow2";
