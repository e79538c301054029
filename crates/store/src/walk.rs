//! Going through the log from record to record, over damage.
//!
//! One damaged record must not hide what follows it: a walk passes over it by the length it states, if what stands there
//! bears that out, else to the next place that holds the head of a record which says that it stands right there.

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::record::{BLANK_LEN, BLANK_MAGIC, RECORD_LEN_MIN};
use ferromq_protocol::message::{ParsedRecord, Record, RecordError};

/// What stands at a position of a segment.
#[derive(Debug)]
pub enum LogItem<'a> {
    Record(Record<'a>),
    /// Nothing more in this segment.
    End,
    /// Something that may become a record when more of it is there.
    Part,
    /// `len` bytes, at least one, in which there is no record that could be read.
    Damage {
        len: usize,
        error: RecordError,
    },
}

impl<'a> LogItem<'a> {
    /// Looks at the start of `bytes`, which stand at `physical`. `room` is what is left of the segment: more than `bytes`
    /// where the rest of it is not there yet. The body's CRC is not checked.
    pub fn at(bytes: &'a [u8], physical: u64, room: usize) -> LogItem<'a> {
        let error = match record_at(bytes, physical) {
            Ok(ParsedRecord::Record(record)) => return LogItem::Record(record),
            Ok(ParsedRecord::Blank { .. }) => return LogItem::End,
            // Unless other records follow: then it is its length that is damaged.
            Err(RecordError::Truncated { needed, .. })
                if bytes.len() < room && needed <= room && next_head(bytes, physical, bytes.len()).is_none() =>
            {
                return LogItem::Part;
            }
            // Less than a filler: only zeros, in a log of ours.
            Err(RecordError::Truncated { .. }) if room < BLANK_LEN => return LogItem::End,
            Err(error) => error,
        };
        LogItem::Damage { len: damaged_len(bytes, physical, room), error }
    }
}

/// The record, its body's CRC not checked, or the filler at the start of `bytes`, which stand at `physical`.
pub fn record_at(bytes: &[u8], physical: u64) -> Result<ParsedRecord<'_>, RecordError> {
    match Record::parse_in_segment(bytes)? {
        ParsedRecord::Record(record) if record.physical_offset().0 != physical => {
            Err(RecordError::Elsewhere { stated: record.physical_offset() })
        }
        parsed => Ok(parsed),
    }
}

/// How far it is from a record that cannot be read to the next that may be.
fn damaged_len(bytes: &[u8], physical: u64, room: usize) -> usize {
    let stated = bytes.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize);
    let bears_out = |len: &usize| *len == bytes.len() || begins(bytes, physical, *len);
    if (RECORD_LEN_MIN..=bytes.len()).contains(&stated) && bears_out(&stated) {
        return stated;
    }
    // A head at the very end may be there in part only.
    let last = if bytes.len() >= room { bytes.len() } else { bytes.len().saturating_sub(RECORD_LEN_MIN) };
    next_head(bytes, physical, last).unwrap_or(last).max(1)
}

fn next_head(bytes: &[u8], physical: u64, end: usize) -> Option<usize> {
    (1..end).find(|at| begins(bytes, physical, *at))
}

/// Whether at `at` there is the head of a record that says so itself, or of a filler.
fn begins(bytes: &[u8], physical: u64, at: usize) -> bool {
    let rest = &bytes[at..];
    let filler = rest.get(4..BLANK_LEN).is_some_and(|magic| magic == BLANK_MAGIC.to_be_bytes());
    filler || Record::head_at(rest, PhysicalOffset(physical.saturating_add(at as u64))).is_some()
}

#[cfg(test)]
mod tests {
    use ferromq_protocol::QueueOffset;
    use ferromq_protocol::message::record::blank;
    use ferromq_protocol::message::stamp_record;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::message;

    const START: u64 = 4096;

    /// Records of a segment that begins at [`START`], with where each ends; behind them the filler.
    fn segment(bodies: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for body in bodies {
            let at = bytes.len();
            message("T", 0, body, "").encode(&mut bytes).unwrap();
            stamp_record(&mut bytes[at..], QueueOffset(0), PhysicalOffset(START + at as u64), 1);
            ends.push(bytes.len());
        }
        bytes.extend_from_slice(&blank(100));
        bytes.extend_from_slice(&[0; 92]);
        (bytes, ends)
    }

    /// Where records were found, and where the walk ended.
    fn walk(bytes: &[u8], room: usize) -> (Vec<usize>, usize) {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            match LogItem::at(&bytes[at..], START + at as u64, room - at) {
                LogItem::Record(record) => {
                    found.push(at);
                    at += record.record_len();
                }
                LogItem::Damage { len, .. } => at += len,
                LogItem::Part | LogItem::End => return (found, at),
            }
        }
    }

    proptest! {
        /// Whatever becomes of one record, the others are found; and in pieces as well as in one go.
        #[test]
        fn damage_hides_no_other_record(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..8), which in any::<prop::sample::Index>(),
            from in any::<prop::sample::Index>(), garbage in proptest::collection::vec(any::<u8>(), 1..40), cut in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, ends) = segment(&bodies);
            let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).take(ends.len()).collect();
            let which = which.index(ends.len());
            let from = starts[which] + from.index(ends[which] - starts[which]);
            let to = ends[which].min(from + garbage.len());
            bytes[from..to].copy_from_slice(&garbage[..to - from]);
            // A length that leads to another record, or to the end of all there is, by chance is believed.
            let stated = starts[which] + u32::from_be_bytes(*bytes[starts[which]..].first_chunk().unwrap()) as usize;
            prop_assume!(stated == ends[which] || !ends.contains(&stated) && stated != bytes.len());
            let (found, end) = walk(&bytes, bytes.len());
            prop_assert_eq!(end, ends[ends.len() - 1]);
            for (at, start) in starts.iter().enumerate() {
                prop_assert!(at == which || found.contains(start), "{start} of {found:?}");
            }
            // Of what ends anywhere, no record is passed over that is whole with the rest.
            let cut = cut.index(bytes.len());
            let (before, went) = walk(&bytes[..cut], bytes.len());
            prop_assert!(went <= cut && found.iter().all(|at| before.contains(at) || *at >= went), "{before:?} to {went} of {found:?}");
        }
    }

    #[test]
    fn a_record_of_another_place_is_damage() {
        let (bytes, ends) = segment(&[b"one".to_vec(), b"two".to_vec()]);
        let moved = LogItem::at(&bytes, START + 1, bytes.len());
        assert!(
            matches!(moved, LogItem::Damage { error: RecordError::Elsewhere { stated }, .. } if stated.0 == START),
            "{moved:?}"
        );
        assert!(matches!(LogItem::at(&bytes[ends[1]..], START + ends[1] as u64, 100), LogItem::End));
        assert!(matches!(LogItem::at(&[0; 7], START, 7), LogItem::End));
    }
}
