//! A commit log in memory, for tests: real records and fillers, on tiny segments, with a border up to which it is on the disk.

use bytes::Bytes;
use ferromq_protocol::message::record::{BLANK_LEN, blank};
use ferromq_protocol::message::{NewMessage, ParsedRecord, Record, RecordError, SysFlag, stamp_record};
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};

use crate::comparing::Probe;
use crate::follower::{CopyLog, NotAppended};
use crate::planted::{Bug, planted};

/// Bytes of a segment.
pub const SEGMENT_LEN: u64 = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelLog {
    first: u64,
    /// From `first` on.
    bytes: Vec<u8>,
    flushed: u64,
    /// Where records begin; fillers are none.
    starts: Vec<u64>,
}

impl ModelLog {
    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn end(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    pub fn starts(&self) -> &[u64] {
        &self.starts
    }

    pub fn as_copy(&self) -> CopyLog {
        let [first, end, flushed] = [self.first, self.end(), self.flushed].map(PhysicalOffset);
        CopyLog { first, end, flushed }
    }

    pub fn flush(&mut self, to: u64) {
        self.flushed = self.flushed.max(to.min(self.end()));
    }

    /// A message of the broker's own; where it ends.
    pub fn append(&mut self, id: u64, body_len: usize) -> u64 {
        let body: Vec<u8> = id.to_be_bytes().into_iter().cycle().take(body_len.max(8)).collect();
        let host = ([10, 0, 0, 1], 10911).into();
        let message = NewMessage {
            topic: "T",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag::default(),
            born_timestamp: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            properties: "",
        };
        let room = SEGMENT_LEN - self.end() % SEGMENT_LEN;
        if (message.record_len() + BLANK_LEN) as u64 > room {
            self.bytes.extend_from_slice(&blank(room as u32));
            self.bytes.resize(self.bytes.len() + room as usize - BLANK_LEN, 0);
        }
        let (at, from) = (self.end(), self.bytes.len());
        message.encode(&mut self.bytes).unwrap();
        stamp_record(&mut self.bytes[from..], QueueOffset(self.starts.len() as u64), PhysicalOffset(at), 1);
        self.starts.push(at);
        self.end()
    }

    /// Takes whole records and fillers off the front of `bytes`, or nothing if one of them is bad.
    pub fn append_copy(&mut self, at: u64, bytes: &[u8]) -> Result<usize, NotAppended> {
        assert_eq!(at, self.end(), "not at the end");
        let (mut taken, mut starts) = (0, Vec::new());
        while taken < bytes.len() {
            let here = at + taken as u64;
            let room = (SEGMENT_LEN - here % SEGMENT_LEN) as usize;
            let rest = &bytes[taken..bytes.len().min(taken + room)];
            let bad = NotAppended::Bad { at: PhysicalOffset(here) };
            let len = match Record::parse_in_segment(rest) {
                Ok(ParsedRecord::Blank { len }) if len == Some(room) => {
                    if rest.len() < room {
                        break;
                    }
                    room
                }
                Ok(ParsedRecord::Record(record)) => {
                    let is_whole = record.physical_offset().0 == here && record.check_crc().is_ok();
                    let len = record.record_len();
                    if len + BLANK_LEN > room || !is_whole && !planted(Bug::BadRecordAppended) {
                        return Err(bad);
                    }
                    starts.push(here);
                    len
                }
                Err(RecordError::Truncated { needed, .. }) if rest.len() < room && needed <= room => break,
                _ => return Err(bad),
            };
            taken += len;
        }
        if planted(Bug::PartialRecordAppended) {
            taken = bytes.len();
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.starts.extend(starts);
        Ok(taken)
    }

    pub fn read(&self, at: u64, len: usize) -> Bytes {
        let from = (at - self.first) as usize;
        Bytes::copy_from_slice(&self.bytes[from..from + len])
    }

    /// The record that begins there, if one does.
    pub fn record_at(&self, at: u64) -> Option<&[u8]> {
        let index = self.starts.binary_search(&at).ok()?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.end());
        // Behind it there may be a filler.
        let bytes = &self.bytes[(at - self.first) as usize..(end - self.first) as usize];
        Some(Record::parse(bytes).unwrap().bytes())
    }

    /// Our side of a comparison: the last record that begins in `from..=near`, and where; else `near`.
    pub fn probe(&self, probe: Probe) -> (u64, Option<&[u8]>) {
        let count = self.starts.partition_point(|start| *start <= probe.near.0);
        let start = self.starts[..count].last().filter(|start| **start >= probe.from.0);
        start.map_or((probe.near.0, None), |start| (*start, self.record_at(*start)))
    }

    /// The end of the last record that ends at `offset` or before; of a filler at a segment's end too.
    pub fn record_end_by(&self, offset: u64) -> u64 {
        if offset >= self.end() {
            return self.end();
        }
        let count = self.starts.partition_point(|start| *start <= offset);
        self.starts[..count].last().copied().unwrap_or(self.first)
    }

    /// Forgets what is behind `to`, the end of a record.
    pub fn cut(&mut self, to: u64) {
        self.bytes.truncate((to - self.first) as usize);
        self.starts.retain(|start| *start < to);
        self.flushed = self.flushed.min(to);
    }

    /// Begins anew, with nothing, at `at`.
    pub fn restart_at(&mut self, at: u64) {
        *self = ModelLog { first: at, flushed: at, ..ModelLog::default() };
    }

    /// Old segments go.
    pub fn drop_before(&mut self, first: u64) {
        let first = first - first % SEGMENT_LEN;
        if first > self.first && first <= self.flushed {
            self.bytes.drain(..(first - self.first) as usize);
            self.starts.retain(|start| *start >= first);
            self.first = first;
        }
    }
}
