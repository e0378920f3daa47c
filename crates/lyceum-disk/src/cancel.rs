//! Telling long work to stop.

use crate::DiskError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that long work looks at every few megabytes. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }
    /// Asks the work to stop; it clears up after itself.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    /// Whether the work was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
    /// [`DiskError::Cancelled`] once [`Self::cancel`] was called.
    pub fn check(&self) -> Result<(), DiskError> {
        if self.is_cancelled() {
            Err(DiskError::Cancelled)
        } else {
            Ok(())
        }
    }
}
