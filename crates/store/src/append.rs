//! What an append gives back, and the buffer it encodes into.

use std::cell::RefCell;

use ferromq_protocol::message::NewMessage;
use ferromq_protocol::{PhysicalOffset, QueueOffset};

use crate::error::AppendError;

/// A message that is in the log (in memory: see `Store::when_safe` for the disk).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedMessage {
    /// Where its record begins; part of its message id.
    pub physical_offset: PhysicalOffset,
    /// Bytes of the record.
    pub record_len: usize,
    /// 0 if the system flag says that it is prepared or rolled back; the broker stores its halves without that flag.
    pub queue_offset: QueueOffset,
    /// Milliseconds, this broker's clock.
    pub store_timestamp: i64,
    /// Where the record ends: what to wait for.
    pub end: PhysicalOffset,
}

/// A batch that is in the log as a whole: consecutive records with consecutive queue offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedBatch {
    /// Of each message, in order.
    pub physical_offsets: Vec<PhysicalOffset>,
    /// Of the first message.
    pub queue_offset: QueueOffset,
    pub count: usize,
    pub store_timestamp: i64,
    pub end: PhysicalOffset,
}

/// Buffers beyond this are given back after use, so that one large message does not cost memory for ever.
const KEPT_CAPACITY: usize = 256 * 1024;

#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// Length of each record in `bytes`.
    lens: Vec<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Encodes messages into this thread's buffer and hands it to `act`, with the length of each record.
pub fn with_encoded<T>(
    messages: &[NewMessage<'_>],
    act: impl FnOnce(&mut [u8], &[usize]) -> Result<T, AppendError>,
) -> Result<T, AppendError> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.bytes.clear();
        scratch.lens.clear();
        for message in messages {
            let before = scratch.bytes.len();
            message.encode(&mut scratch.bytes)?;
            scratch.lens.push(scratch.bytes.len() - before);
        }
        let result = act(&mut scratch.bytes, &scratch.lens);
        if scratch.bytes.capacity() > KEPT_CAPACITY {
            scratch.bytes = Vec::new();
        }
        result
    })
}
