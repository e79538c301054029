//! Bytes of another broker's log, looked at before any of them becomes this one's.
//!
//! A log says of itself where each record stands, how long it is and what the CRC of its body is, and a record's parts are as long together
//! as it says; all of that is held against the bytes. Nothing covers a record's queue offset, times, flags, hosts, topic and properties:
//! who sent the bytes vouches for these.

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::record::{BLANK_LEN, BLANK_MAGIC, MAGIC_V1, MAGIC_V2, ParsedRecord};
use ferromq_protocol::message::{Record, RecordError};

use crate::big_endian::long_at;
use crate::commit_log::looks_torn;
use crate::error::{AppendError, CopyFault};
use crate::walk::record_at;

/// Records are appended together up to so many bytes; one that is longer, alone.
const RUN_LEN_MAX: usize = 256 * 1024;
/// Where a record says that it stands.
const PLACE_AT: usize = 28;

/// Whole records at the start of some bytes, each checked.
#[derive(Debug)]
pub struct Run {
    /// Bytes of them.
    pub len: usize,
    /// The store time of the last one, as it says.
    pub timestamp: i64,
    /// Of those that look torn though they are not, where the last one ends in the run.
    pub torn_end: Option<usize>,
    pub then: Then,
}

/// What comes behind a run.
#[derive(Debug)]
pub enum Then {
    /// More, for the next run.
    More,
    /// Nothing, or an item of which the rest is not there.
    Part,
    /// The filler that ends the segment.
    Filler,
    Bad(CopyFault),
}

/// Looks at bytes that are to stand at `physical`, which is at `in_segment` of its segment, with so much `room` left there. The run is
/// longer than `len_max` only if its first record is.
pub fn look(bytes: &[u8], physical: u64, in_segment: usize, room: usize, len_max: usize) -> Run {
    let len_max = len_max.min(RUN_LEN_MAX);
    let mut run = Run { len: 0, timestamp: 0, torn_end: None, then: Then::More };
    while run.len < len_max {
        match item_at(&bytes[run.len..], physical + run.len as u64, room - run.len) {
            Ok(Item::Record(record)) if run.len > 0 && run.len + record.record_len() > len_max => break,
            Ok(Item::Record(record)) => {
                let is_torn = looks_torn(record.bytes(), in_segment + run.len);
                run.len += record.record_len();
                run.timestamp = record.store_timestamp();
                if is_torn {
                    run.torn_end = Some(run.len);
                }
            }
            Ok(Item::Filler) => {
                run.then = Then::Filler;
                break;
            }
            Ok(Item::Part) => {
                run.then = Then::Part;
                break;
            }
            Err(fault) => {
                run.then = Then::Bad(fault);
                break;
            }
        }
    }
    run
}

enum Item<'a> {
    Record(Record<'a>),
    Filler,
    Part,
}

/// What a bad item is found by is looked at as soon as it is there: nobody waits for, or keeps, the rest of something that cannot be taken.
fn item_at(bytes: &[u8], physical: u64, room: usize) -> Result<Item<'_>, CopyFault> {
    let Some(len) = bytes.first_chunk() else { return Ok(Item::Part) };
    // A u32 fits into a usize.
    let stated = u32::from_be_bytes(*len) as usize;
    if stated > room {
        return Err(CopyFault::NoRoom { len: stated, room });
    }
    let Some(magic) = bytes.get(4..BLANK_LEN).and_then(<[u8]>::first_chunk) else { return Ok(Item::Part) };
    match u32::from_be_bytes(*magic) {
        BLANK_MAGIC if stated == room => return Ok(Item::Filler),
        BLANK_MAGIC => return Err(CopyFault::Filler { stated, room }),
        MAGIC_V1 | MAGIC_V2 => {}
        other => return Err(RecordError::UnknownMagic(other).into()),
    }
    if stated + BLANK_LEN > room {
        return Err(CopyFault::NoRoom { len: stated, room });
    }
    if bytes.len() >= PLACE_AT + 8 && long_at(bytes, PLACE_AT) != physical {
        return Err(RecordError::Elsewhere { stated: PhysicalOffset(long_at(bytes, PLACE_AT)) }.into());
    }
    let Some(bytes) = bytes.get(..stated) else { return Ok(Item::Part) };
    match record_at(bytes, physical)? {
        ParsedRecord::Record(record) => {
            record.check_crc()?;
            Ok(Item::Record(record))
        }
        ParsedRecord::Blank { .. } => Err(RecordError::Blank.into()),
    }
}

/// The time that counts for a copy whose last record says `stated`: never later than now, since what is said to be stored by then may
/// be taken for complete, and no time before there were any.
pub fn believed_time(stated: i64, now_ms: i64) -> i64 {
    stated.min(now_ms).max(0)
}

impl From<RecordError> for CopyFault {
    fn from(error: RecordError) -> CopyFault {
        CopyFault::Record(error)
    }
}

impl From<AppendError> for CopyFault {
    fn from(error: AppendError) -> CopyFault {
        CopyFault::Refused(error)
    }
}
