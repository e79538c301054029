//! Giving up an open that is under way: after a crash it may take minutes, and who stops a broker does not wait so long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by whoever opens a store and whoever may want that stopped. Looked at between records and between queues; without
/// effect once the store is open.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it when the guard goes, unless that is told to [`RaiseOnDrop::spare`].
    pub fn on_drop(&self) -> RaiseOnDrop {
        RaiseOnDrop(Some(self.clone()))
    }

    /// An error once it is raised.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_raised() { Err(io::Error::other("told to stop")) } else { Ok(()) }
    }
}

/// See [`Interrupt::on_drop`].
#[derive(Debug)]
pub struct RaiseOnDrop(Option<Interrupt>);

impl RaiseOnDrop {
    pub fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        if let Some(interrupt) = &self.0 {
            interrupt.raise();
        }
    }
}
