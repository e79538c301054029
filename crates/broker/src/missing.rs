//! Messages that wait in the log for something and cannot be read when it comes.
//!
//! What will never be read is stepped over, with a line in the log: those behind it must not wait for it. What may pass, as want of
//! descriptors does, is an error: to be tried again, or the message would be lost.

use bytes::Bytes;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use ferromq_store::{AppendError, Effort, QueueEntry, ReadError, Store};
use tracing::{debug, error};

/// The message at a place of the log, for a thread that may wait for the disk. `None` when there is none, or its sector is bad;
/// the log says which.
pub(crate) fn look_up(store: &Store, what: &'static str, at: PhysicalOffset) -> Result<Option<Bytes>, ReadError> {
    match store.message_at(at, Effort::Full) {
        Ok(Some(bytes)) => return Ok(Some(bytes)),
        Ok(None) => report(store, what, at),
        Err(error) if is_damage(&error) => error!(physical_offset = %at, %error, "{what} is left out"),
        Err(error) => return Err(error),
    }
    Ok(None)
}

/// The entry of a queue that ends behind `at`, for a thread that may wait for the disk. `None` when it stands for a message that was
/// lost, is gone with the beginning of the queue, or its sector is bad; the log says which.
pub(crate) fn look_up_entry(
    store: &Store,
    what: &'static str,
    topic: &str,
    queue: QueueId,
    at: QueueOffset,
) -> Result<Option<QueueEntry>, ReadError> {
    match store.sound_entry(topic, queue, at) {
        Ok(Some(entry)) => return Ok(Some(entry)),
        Ok(None) if store.queue_bounds(topic, queue).is_some_and(|bounds| at >= bounds.min) => {
            error!(topic, %queue, queue_offset = %at, "{what} was lost from the log and is left out");
        }
        Ok(None) => debug!(topic, %queue, queue_offset = %at, "{what} is no longer in its queue"),
        Err(error) if is_damage(&error) => {
            error!(topic, %queue, queue_offset = %at, %error, "{what} has an entry that cannot be read, and is left out");
        }
        Err(error) => return Err(error),
    }
    Ok(None)
}

/// What is to be stored again cannot be read now.
pub(crate) fn not_now(error: ReadError) -> AppendError {
    AppendError::CannotRead { reason: error.to_string() }
}

/// Whether a read will fail for ever: the device does not give these bytes, or the file does not have them any more.
fn is_damage(error: &ReadError) -> bool {
    const EIO: i32 = 5;
    match error {
        ReadError::Io { source, .. } => {
            source.raw_os_error() == Some(EIO) || source.kind() == std::io::ErrorKind::UnexpectedEof
        }
        ReadError::NeedsTime => false,
    }
}

/// Tells the log of a message that is left out: gone with the beginning of the log, or damaged.
pub(crate) fn report(store: &Store, what: &'static str, at: PhysicalOffset) {
    if store.is_gone(at) {
        debug!(physical_offset = %at, "{what} is no longer in the log");
    } else {
        error!(physical_offset = %at, "{what} cannot be read in the log and is left out");
    }
}
