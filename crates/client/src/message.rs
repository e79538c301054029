//! A message as a query or a pull brought it: its record, with the body readable.

use std::borrow::Cow;
use std::io::Read;
use std::net::SocketAddr;

use bytes::Bytes;
use ferromq_protocol::message::properties::{self, names};
use ferromq_protocol::message::{Compression, OffsetMessageId, Record, RecordError, Records};
use ferromq_protocol::{PhysicalOffset, QueueOffset};

/// Longest body that decompression may give, in bytes: what a broker accepts at most, many times over.
const BODY_LEN_MAX: u64 = 64 * 1024 * 1024;

/// One message. Java: `MessageExt`.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    record: Bytes,
    body: Bytes,
    /// Properties the reader adds (MIN_OFFSET and MAX_OFFSET of a pull), as Java's client does.
    added: Vec<(&'static str, String)>,
}

impl FoundMessage {
    /// Takes one record whose lengths are checked here; a compressed body is opened.
    pub fn new(record: Bytes) -> Result<FoundMessage, RecordError> {
        let parsed = Record::parse(&record)?;
        let plain = record.slice_ref(parsed.body());
        let body = match parsed.sys_flag().compression() {
            Some(Compression::Zlib) => decompress(&plain).unwrap_or(plain),
            // Other algorithms are shown as they are.
            _ => plain,
        };
        Ok(FoundMessage { record, body, added: Vec::new() })
    }

    /// All records of a reply's body.
    pub fn all(body: &Bytes) -> Result<Vec<FoundMessage>, RecordError> {
        Records::new(body).map(|record| FoundMessage::new(body.slice_ref(record?.bytes()))).collect()
    }

    pub(crate) fn add_property(&mut self, name: &'static str, value: impl ToString) {
        self.added.push((name, value.to_string()));
    }

    /// The view over the record. It was parsed when the message was made.
    pub fn record(&self) -> Record<'_> {
        Record::parse(&self.record).expect("FoundMessage::new has parsed this record")
    }

    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties().into_iter().rfind(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// In the order of the record; a repeated name counts with its last value.
    pub fn properties(&self) -> Vec<(&str, &str)> {
        let text = match std::str::from_utf8(self.record().properties_bytes()) {
            Ok(text) => text,
            Err(error) => {
                std::str::from_utf8(&self.record().properties_bytes()[..error.valid_up_to()]).unwrap_or_default()
            }
        };
        let mut all: Vec<(&str, &str)> = Vec::new();
        for (name, value) in
            properties::pairs(text).chain(self.added.iter().map(|(name, value)| (*name, value.as_str())))
        {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some(entry) => entry.1 = value,
                None => all.push((name, value)),
            }
        }
        all
    }

    /// The unique key, or the offset message id of a message without one. Java: `MessageClientExt.getMsgId`.
    pub fn message_id(&self) -> String {
        self.property(names::UNIQUE_KEY).map_or_else(|| self.offset_message_id(), str::to_owned)
    }

    pub fn offset_message_id(&self) -> String {
        OffsetMessageId { host: self.store_host(), physical_offset: self.physical_offset() }.to_string()
    }

    pub fn topic(&self) -> &str {
        self.record().topic()
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn queue_id(&self) -> u32 {
        self.record().queue_id().0
    }

    pub fn queue_offset(&self) -> QueueOffset {
        self.record().queue_offset()
    }

    pub fn physical_offset(&self) -> PhysicalOffset {
        self.record().physical_offset()
    }

    pub fn store_host(&self) -> SocketAddr {
        self.record().store_host()
    }

    pub fn store_timestamp(&self) -> i64 {
        self.record().store_timestamp()
    }

    /// Java shows a compressed body opened, with the flag cleared only in its own copy; the printed flag is the stored one.
    pub fn sys_flag(&self) -> i32 {
        self.record().sys_flag().0
    }

    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

fn decompress(body: &[u8]) -> Option<Bytes> {
    let mut out = Vec::new();
    flate2::read::ZlibDecoder::new(body).take(BODY_LEN_MAX).read_to_end(&mut out).ok()?;
    Some(out.into())
}
