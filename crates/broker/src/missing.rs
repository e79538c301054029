//! Messages that wait in the log for something and cannot be read when it comes.

use ferromq_protocol::PhysicalOffset;
use ferromq_store::Store;
use tracing::{debug, error};

/// Tells the log of a message that is left out: gone with the beginning of the log, or damaged.
pub(crate) fn report(store: &Store, what: &'static str, at: PhysicalOffset) {
    if store.is_gone(at) {
        debug!(physical_offset = %at, "{what} is no longer in the log");
    } else {
        error!(physical_offset = %at, "{what} cannot be read in the log and is left out");
    }
}
