//! Messages that wait in the log for something and cannot be read when it comes.

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_store::{Effort, Store};
use tracing::{debug, error};

/// The message at a place of the log, for a thread that may wait for the disk. `None` when there is none, or the disk does
/// not give it; the log says which.
pub(crate) fn look_up(store: &Store, what: &'static str, at: PhysicalOffset) -> Option<Bytes> {
    match store.message_at(at, Effort::Full) {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => report(store, what, at),
        Err(error) => error!(physical_offset = %at, %error, "{what} is left out"),
    }
    None
}

/// Tells the log of a message that is left out: gone with the beginning of the log, or damaged.
pub(crate) fn report(store: &Store, what: &'static str, at: PhysicalOffset) {
    if store.is_gone(at) {
        debug!(physical_offset = %at, "{what} is no longer in the log");
    } else {
        error!(physical_offset = %at, "{what} cannot be read in the log and is left out");
    }
}
