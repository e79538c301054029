//! The message record: the bytes of one message in the commit log and in every answer that carries messages.
//!
//! [`NewMessage::encode`] writes a record, [`stamp_record`] fills in what only the append knows, [`Record::parse`]
//! reads one with every length checked. Java: MessageExtEncoder, MessageDecoder, CommitLog.checkMessageAndReturnSize.
//! Layout: docs/format.md, Message record.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::properties::{self, PROPERTIES_LEN_MAX};
use super::sys_flag::SysFlag;
use crate::offsets::{PhysicalOffset, QueueId, QueueOffset};
use crate::topics;

/// Record whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Record whose topic length is two bytes; written only for topics longer than 127.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Filler at the end of a segment.
pub const BLANK_MAGIC: u32 = 0xCBD4_3194;
/// Bytes of a filler: its length and its magic. Every segment keeps this much free after its last record.
pub const BLANK_LEN: usize = 8;
/// Longest `%RETRY%` or `%DLQ%` topic a broker takes, in bytes; others end at [`TOPIC_LEN_V1_MAX`].
pub const TOPIC_LEN_MAX: usize = 255;
/// Longest ordinary topic, in bytes; longer ones need [`MAGIC_V2`].
pub const TOPIC_LEN_V1_MAX: usize = 127;
/// Longest topic the two length bytes of a V2 record can state.
const TOPIC_LEN_V2_MAX: usize = i16::MAX as usize;
/// Longest record its length field can state.
const RECORD_LEN_MAX: usize = i32::MAX as usize;
/// How far a record may exceed the body limit.
pub const RECORD_OVERHEAD_MAX: usize = 64 * 1024;

/// Bytes of a V1 record with IPv4 hosts and nothing in it.
pub const RECORD_LEN_MIN: usize = 91;
/// What an IPv6 host is longer than an IPv4 one.
const V6_EXTRA: usize = 12;

const MAGIC_AT: usize = 4;
const CRC_AT: usize = 8;
const QUEUE_ID_AT: usize = 12;
const FLAG_AT: usize = 16;
const QUEUE_OFFSET_AT: usize = 20;
const PHYSICAL_OFFSET_AT: usize = 28;
const SYS_FLAG_AT: usize = 36;
const BORN_TIMESTAMP_AT: usize = 40;
const BORN_HOST_AT: usize = 48;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record needs {needed} bytes, {left} are left")]
    Truncated { needed: usize, left: usize },
    #[error("no record has the magic {0:#010x}")]
    UnknownMagic(u32),
    #[error("a segment filler, not a message")]
    Blank,
    #[error("record states {stated} bytes, its parts have {found}")]
    LengthMismatch { stated: usize, found: usize },
    #[error("{field} is {value}, beyond its signed field")]
    OutOfRange { field: &'static str, value: u64 },
    #[error("the record says that it stands at {stated}")]
    Elsewhere { stated: PhysicalOffset },
    #[error("topic is not UTF-8")]
    TopicNotUtf8,
    #[error("body CRC is {found:#010x}, record says {stated:#010x}")]
    CrcMismatch { stated: u32, found: u32 },
    #[error("message body is {len} bytes, limit {limit}")]
    BodyTooLong { len: usize, limit: usize },
    #[error("record is {len} bytes, limit {limit}")]
    RecordTooLong { len: usize, limit: usize },
    #[error("topic is {len} bytes, limit {limit}")]
    TopicTooLong { len: usize, limit: usize },
    #[error("properties are {len} bytes, limit {PROPERTIES_LEN_MAX}")]
    PropertiesTooLong { len: usize },
}

/// A message on its way into the log. Java: MessageExtBrokerInner.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    pub topic: &'a str,
    pub queue_id: QueueId,
    /// The producer's own flag; no meaning to the broker.
    pub flag: i32,
    /// Compression and transaction bits. The two host bits are set from the hosts, whatever comes in here.
    pub sys_flag: SysFlag,
    /// Milliseconds, the producer's clock.
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    /// The broker's address as clients reach it: it becomes part of the message id.
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    /// Physical offset of the half message for a commit, else 0.
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    /// Property string, stored as it is.
    pub properties: &'a str,
}

impl<'a> NewMessage<'a> {
    /// A stored message once more, for another place: what retries, delayed messages and transactions are made of. What is not said
    /// here is the record's, but for the offset of a half, which it is not made from.
    pub fn copy_of(record: &Record<'a>, topic: &'a str, queue_id: QueueId, properties: &'a str) -> NewMessage<'a> {
        NewMessage {
            topic,
            queue_id,
            flag: record.flag(),
            sys_flag: record.sys_flag(),
            born_timestamp: record.born_timestamp(),
            born_host: record.born_host(),
            store_host: record.store_host(),
            reconsume_times: record.reconsume_times(),
            prepared_transaction_offset: 0,
            body: record.body(),
            properties,
        }
    }

    /// Length of the record in bytes.
    pub fn record_len(&self) -> usize {
        RECORD_LEN_MIN
            + usize::from(self.topic.len() > TOPIC_LEN_V1_MAX)
            + if is_v6(self.born_host) { V6_EXTRA } else { 0 }
            + if is_v6(self.store_host) { V6_EXTRA } else { 0 }
            + self.body.len()
            + self.topic.len()
            + self.properties.len()
    }

    /// Checks everything a broker refuses (Java: `MessageExtEncoder.encode`): body up to `body_len_max` bytes, record up to that plus
    /// [`RECORD_OVERHEAD_MAX`], topic up to 127 bytes (255 for retry and dead-letter topics), properties.
    pub fn check_limits(&self, body_len_max: usize) -> Result<(), RecordError> {
        if self.body.len() > body_len_max {
            return Err(RecordError::BodyTooLong { len: self.body.len(), limit: body_len_max });
        }
        let long_allowed = topics::is_retry(self.topic) || topics::is_dead_letter(self.topic);
        let limit = if long_allowed { TOPIC_LEN_MAX } else { TOPIC_LEN_V1_MAX };
        if self.topic.len() > limit {
            return Err(RecordError::TopicTooLong { len: self.topic.len(), limit });
        }
        self.check_format()?;
        let (len, limit) = (self.record_len(), body_len_max.saturating_add(RECORD_OVERHEAD_MAX));
        if len > limit {
            return Err(RecordError::RecordTooLong { len, limit });
        }
        Ok(())
    }

    /// Offsets come with [`stamp_record`].
    fn check_format(&self) -> Result<(), RecordError> {
        let topic_len = self.topic.len();
        StatedFields {
            record_len: self.record_len(),
            queue_id: self.queue_id,
            queue_offset: QueueOffset(0),
            physical_offset: PhysicalOffset(0),
            topic_len,
            topic_len_max: if topic_len > TOPIC_LEN_V1_MAX { TOPIC_LEN_V2_MAX } else { TOPIC_LEN_V1_MAX },
            properties_len: self.properties.len(),
        }
        .check()
    }

    /// Appends the record to `out`, body CRC included. Queue offset, physical offset and store time are 0 until
    /// [`stamp_record`]. Checked here is that [`Record::parse`] will read it, see [`NewMessage::check_limits`] for what
    /// else a broker refuses; on an error nothing is written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.check_format()?;
        let start = out.len();
        let len = self.record_len();
        out.reserve(len);
        let mut sys_flag = self.sys_flag.without(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6);
        if is_v6(self.born_host) {
            sys_flag = sys_flag.with(SysFlag::BORN_HOST_V6);
        }
        if is_v6(self.store_host) {
            sys_flag = sys_flag.with(SysFlag::STORE_HOST_V6);
        }
        let long_topic = self.topic.len() > TOPIC_LEN_V1_MAX;

        // The casts below cannot cut anything off: `check_format` held every length against its field.
        let mut head = [0; BORN_HOST_AT];
        head[..MAGIC_AT].copy_from_slice(&(len as u32).to_be_bytes());
        head[MAGIC_AT..CRC_AT].copy_from_slice(&if long_topic { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
        head[CRC_AT..QUEUE_ID_AT].copy_from_slice(&body_crc(self.body).to_be_bytes());
        head[QUEUE_ID_AT..FLAG_AT].copy_from_slice(&self.queue_id.0.to_be_bytes());
        head[FLAG_AT..QUEUE_OFFSET_AT].copy_from_slice(&self.flag.to_be_bytes());
        head[SYS_FLAG_AT..BORN_TIMESTAMP_AT].copy_from_slice(&sys_flag.0.to_be_bytes());
        head[BORN_TIMESTAMP_AT..].copy_from_slice(&self.born_timestamp.to_be_bytes());
        out.extend_from_slice(&head);
        write_host(self.born_host, out);
        out.extend_from_slice(&[0; 8]); // store time
        write_host(self.store_host, out);
        out.extend_from_slice(&self.reconsume_times.to_be_bytes());
        out.extend_from_slice(&self.prepared_transaction_offset.to_be_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        out.extend_from_slice(self.body);
        if long_topic {
            out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes());
        } else {
            out.push(self.topic.len() as u8);
        }
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(&(self.properties.len() as u16).to_be_bytes());
        out.extend_from_slice(self.properties.as_bytes());
        debug_assert_eq!(out.len() - start, len);
        Ok(())
    }
}

/// What a record says of itself in fields that Java reads signed. Checked by whoever writes a record and by whoever reads
/// one, so that nothing is taken into a log that would end it at the next start.
struct StatedFields {
    record_len: usize,
    queue_id: QueueId,
    queue_offset: QueueOffset,
    physical_offset: PhysicalOffset,
    topic_len: usize,
    topic_len_max: usize,
    properties_len: usize,
}

impl StatedFields {
    fn check(&self) -> Result<(), RecordError> {
        let long_max = i64::MAX.unsigned_abs();
        for (field, value, max) in [
            ("queue id", u64::from(self.queue_id.0), u64::from(i32::MAX.unsigned_abs())),
            ("queue offset", self.queue_offset.0, long_max),
            ("physical offset", self.physical_offset.0, long_max),
        ] {
            if value > max {
                return Err(RecordError::OutOfRange { field, value });
            }
        }
        if self.topic_len > self.topic_len_max {
            return Err(RecordError::TopicTooLong { len: self.topic_len, limit: self.topic_len_max });
        }
        if self.properties_len > PROPERTIES_LEN_MAX {
            return Err(RecordError::PropertiesTooLong { len: self.properties_len });
        }
        // A body is shorter than its record.
        if self.record_len > RECORD_LEN_MAX {
            return Err(RecordError::RecordTooLong { len: self.record_len, limit: RECORD_LEN_MAX });
        }
        Ok(())
    }
}

/// Fills in the three fields an append decides, at their fixed places in an encoded record. Cheap: 24 bytes.
///
/// # Panics
/// When `record` is shorter than a record can be; [`NewMessage::encode`] never makes such a thing.
pub fn stamp_record(record: &mut [u8], queue_offset: QueueOffset, physical: PhysicalOffset, store_timestamp: i64) {
    assert!(record.len() >= RECORD_LEN_MIN, "a record has at least {RECORD_LEN_MIN} bytes");
    record[QUEUE_OFFSET_AT..PHYSICAL_OFFSET_AT].copy_from_slice(&queue_offset.0.to_be_bytes());
    record[PHYSICAL_OFFSET_AT..SYS_FLAG_AT].copy_from_slice(&physical.0.to_be_bytes());
    let at = store_timestamp_at(SysFlag(i32::from_be_bytes(array(record, SYS_FLAG_AT))));
    record[at..at + 8].copy_from_slice(&store_timestamp.to_be_bytes());
}

/// CRC-32 of a body as records keep it: 31 bits, 0 for an empty body. Java: UtilAll.crc32.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// The eight bytes that end a segment with `left` bytes to spare.
pub fn blank(left: u32) -> [u8; BLANK_LEN] {
    let mut bytes = [0; BLANK_LEN];
    bytes[..MAGIC_AT].copy_from_slice(&left.to_be_bytes());
    bytes[MAGIC_AT..].copy_from_slice(&BLANK_MAGIC.to_be_bytes());
    bytes
}

/// What stands at a position of a segment.
#[derive(Debug, Clone, Copy)]
pub enum ParsedRecord<'a> {
    Record(Record<'a>),
    /// The filler: nothing follows in this segment. `len` is what it states, `None` when that makes no sense; readers
    /// go on at the next segment whatever it says.
    Blank {
        len: Option<usize>,
    },
}

/// Checked view of one record. All lengths were held against the bytes; the body CRC is checked on demand.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Exactly the record.
    bytes: &'a [u8],
    topic: &'a str,
    body: (usize, usize),
    properties: &'a [u8],
}

impl<'a> Record<'a> {
    /// The length that the record at the start of `bytes` states, when its head is that of one that stands at `physical`;
    /// whether the rest of it is whole, or there, is not looked at. For finding records again behind damage.
    pub fn head_at(bytes: &[u8], physical: PhysicalOffset) -> Option<usize> {
        let head = bytes.get(..SYS_FLAG_AT)?;
        let len = u32::from_be_bytes(array(head, 0)) as usize;
        let known = matches!(u32::from_be_bytes(array(head, MAGIC_AT)), MAGIC_V1 | MAGIC_V2);
        let stands = u64::from_be_bytes(array(head, PHYSICAL_OFFSET_AT)) == physical.0;
        (known && stands && (RECORD_LEN_MIN..=RECORD_LEN_MAX).contains(&len)).then_some(len)
    }

    /// Whether `bytes`, which stand at `physical`, may have been the head of a record, however damaged: its magic is left, or what it says
    /// of its own place.
    pub fn is_remnant_at(bytes: &[u8], physical: PhysicalOffset) -> bool {
        bytes.get(..SYS_FLAG_AT).is_some_and(|head| {
            matches!(u32::from_be_bytes(array(head, MAGIC_AT)), MAGIC_V1 | MAGIC_V2)
                || u64::from_be_bytes(array(head, PHYSICAL_OFFSET_AT)) == physical.0
        })
    }

    /// Reads the record at the start of `bytes`; what follows it is not looked at. A segment filler is an error here,
    /// see [`Record::parse_in_segment`].
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, RecordError> {
        match Record::parse_in_segment(bytes)? {
            ParsedRecord::Record(record) => Ok(record),
            ParsedRecord::Blank { .. } => Err(RecordError::Blank),
        }
    }

    /// Reads the record or filler at the start of `bytes`. Zeroed bytes are [`RecordError::UnknownMagic`] with magic 0:
    /// that is how a scan notices the end of what was written.
    pub fn parse_in_segment(bytes: &'a [u8]) -> Result<ParsedRecord<'a>, RecordError> {
        if bytes.len() < BLANK_LEN {
            return Err(RecordError::Truncated { needed: BLANK_LEN, left: bytes.len() });
        }
        // A u32 fits into a usize.
        let stated = u32::from_be_bytes(array(bytes, 0)) as usize;
        let magic = u32::from_be_bytes(array(bytes, MAGIC_AT));
        let topic_len_max = match magic {
            MAGIC_V1 => TOPIC_LEN_V1_MAX,
            MAGIC_V2 => TOPIC_LEN_V2_MAX,
            BLANK_MAGIC => return Ok(ParsedRecord::Blank { len: (stated <= RECORD_LEN_MAX).then_some(stated) }),
            other => return Err(RecordError::UnknownMagic(other)),
        };
        if stated < RECORD_LEN_MIN {
            return Err(RecordError::LengthMismatch { stated, found: RECORD_LEN_MIN });
        }
        if stated > RECORD_LEN_MAX {
            return Err(RecordError::RecordTooLong { len: stated, limit: RECORD_LEN_MAX });
        }
        let bytes = bytes.get(..stated).ok_or(RecordError::Truncated { needed: stated, left: bytes.len() })?;
        let sys_flag = SysFlag(i32::from_be_bytes(array(bytes, SYS_FLAG_AT)));
        let mut reader = Reader { bytes, at: reconsume_times_at(sys_flag) + 4 + 8 };
        let body_len = reader.int()?;
        let body_at = reader.at;
        reader.take(body_len)?;
        let topic_len = if magic == MAGIC_V1 { reader.byte()? } else { reader.short()? };
        let topic = reader.take(topic_len)?;
        let properties_len = reader.short()?;
        let properties = reader.take(properties_len)?;
        if reader.at != stated {
            return Err(RecordError::LengthMismatch { stated, found: reader.at });
        }
        StatedFields {
            record_len: stated,
            queue_id: QueueId(u32::from_be_bytes(array(bytes, QUEUE_ID_AT))),
            queue_offset: QueueOffset(u64::from_be_bytes(array(bytes, QUEUE_OFFSET_AT))),
            physical_offset: PhysicalOffset(u64::from_be_bytes(array(bytes, PHYSICAL_OFFSET_AT))),
            topic_len,
            topic_len_max,
            properties_len,
        }
        .check()?;
        let topic = std::str::from_utf8(topic).map_err(|_| RecordError::TopicNotUtf8)?;
        Ok(ParsedRecord::Record(Record { bytes, topic, body: (body_at, body_at + body_len), properties }))
    }

    /// The record itself, from its length word to its last property byte.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Length of the record in bytes.
    pub fn record_len(&self) -> usize {
        self.bytes.len()
    }

    /// [`MAGIC_V1`] or [`MAGIC_V2`].
    pub fn magic(&self) -> u32 {
        u32::from_be_bytes(array(self.bytes, MAGIC_AT))
    }

    /// The body CRC as stored.
    pub fn stored_crc(&self) -> u32 {
        u32::from_be_bytes(array(self.bytes, CRC_AT))
    }

    /// Holds the stored CRC against the body. As in Java an empty body passes whatever is stored.
    pub fn check_crc(&self) -> Result<(), RecordError> {
        if self.body().is_empty() {
            return Ok(());
        }
        let (stated, found) = (self.stored_crc(), body_crc(self.body()));
        if stated == found { Ok(()) } else { Err(RecordError::CrcMismatch { stated, found }) }
    }

    pub fn queue_id(&self) -> QueueId {
        QueueId(u32::from_be_bytes(array(self.bytes, QUEUE_ID_AT)))
    }

    pub fn flag(&self) -> i32 {
        i32::from_be_bytes(array(self.bytes, FLAG_AT))
    }

    pub fn queue_offset(&self) -> QueueOffset {
        QueueOffset(u64::from_be_bytes(array(self.bytes, QUEUE_OFFSET_AT)))
    }

    /// Where the record says it stands; Java never holds this against the real position.
    pub fn physical_offset(&self) -> PhysicalOffset {
        PhysicalOffset(u64::from_be_bytes(array(self.bytes, PHYSICAL_OFFSET_AT)))
    }

    pub fn sys_flag(&self) -> SysFlag {
        SysFlag(i32::from_be_bytes(array(self.bytes, SYS_FLAG_AT)))
    }

    /// Milliseconds, the producer's clock.
    pub fn born_timestamp(&self) -> i64 {
        i64::from_be_bytes(array(self.bytes, BORN_TIMESTAMP_AT))
    }

    pub fn born_host(&self) -> SocketAddr {
        read_host(self.bytes, BORN_HOST_AT, self.sys_flag().has(SysFlag::BORN_HOST_V6))
    }

    /// Milliseconds, the broker's clock.
    pub fn store_timestamp(&self) -> i64 {
        i64::from_be_bytes(array(self.bytes, store_timestamp_at(self.sys_flag())))
    }

    pub fn store_host(&self) -> SocketAddr {
        let flag = self.sys_flag();
        read_host(self.bytes, store_timestamp_at(flag) + 8, flag.has(SysFlag::STORE_HOST_V6))
    }

    pub fn reconsume_times(&self) -> i32 {
        i32::from_be_bytes(array(self.bytes, reconsume_times_at(self.sys_flag())))
    }

    /// Physical offset of the half message for a commit, else 0.
    pub fn prepared_transaction_offset(&self) -> i64 {
        i64::from_be_bytes(array(self.bytes, reconsume_times_at(self.sys_flag()) + 4))
    }

    /// The body as stored: still compressed if the sys flag says so.
    pub fn body(&self) -> &'a [u8] {
        // `parse` took exactly this range out of the same bytes.
        &self.bytes[self.body.0..self.body.1]
    }

    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The property string as stored.
    pub fn properties_bytes(&self) -> &'a [u8] {
        self.properties
    }

    /// The property string. Bytes that are not UTF-8 (batch items of some clients) are replaced, as in Java.
    pub fn properties(&self) -> Cow<'a, str> {
        // Nearly always UTF-8, and checking that is several times cheaper than looking for what to replace.
        std::str::from_utf8(self.properties).map_or_else(|_| String::from_utf8_lossy(self.properties), Cow::Borrowed)
    }

    /// One property; see [`properties::property`].
    pub fn property(&self, name: &str) -> Option<Cow<'a, str>> {
        match self.properties() {
            Cow::Borrowed(text) => properties::property(text, name).map(Cow::Borrowed),
            Cow::Owned(text) => properties::property(&text, name).map(|value| Cow::Owned(value.to_owned())),
        }
    }
}

/// The records in an answer body or a run of log bytes, one after the other. Ends after the first error or filler.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8]) -> Records<'a> {
        Records { rest: bytes }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Record::parse_in_segment(self.rest) {
            Ok(ParsedRecord::Record(record)) => {
                self.rest = &self.rest[record.record_len()..];
                Some(Ok(record))
            }
            Ok(ParsedRecord::Blank { .. }) => {
                self.rest = &[];
                None
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// An IPv4 address in IPv6 clothes (a dual-stack listener's peer) is stored as IPv4: old clients know nothing else.
pub(super) fn plain_ip(host: SocketAddr) -> IpAddr {
    host.ip().to_canonical()
}

fn is_v6(host: SocketAddr) -> bool {
    plain_ip(host).is_ipv6()
}

fn write_host(host: SocketAddr, out: &mut Vec<u8>) {
    match plain_ip(host) {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&u32::from(host.port()).to_be_bytes());
}

/// A stored port is 32 bits wide; one that no socket can have reads as 0.
fn read_host(bytes: &[u8], at: usize, v6: bool) -> SocketAddr {
    let (ip, port_at) = if v6 {
        (IpAddr::from(Ipv6Addr::from(array::<16>(bytes, at))), at + 16)
    } else {
        (IpAddr::from(Ipv4Addr::from(array::<4>(bytes, at))), at + 4)
    };
    let port = u16::try_from(u32::from_be_bytes(array(bytes, port_at))).unwrap_or(0);
    SocketAddr::new(ip, port)
}

fn store_timestamp_at(flag: SysFlag) -> usize {
    BORN_HOST_AT + if flag.has(SysFlag::BORN_HOST_V6) { 20 } else { 8 }
}

fn reconsume_times_at(flag: SysFlag) -> usize {
    store_timestamp_at(flag) + 8 + if flag.has(SysFlag::STORE_HOST_V6) { 20 } else { 8 }
}

/// Copies `N` bytes at `at`. Callers stay inside the 91 bytes (or, with IPv6 hosts, inside the part before the body
/// length that `parse` read past) that every record has.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let taken = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..len))
            .ok_or(RecordError::LengthMismatch { stated: self.bytes.len(), found: self.at.saturating_add(len) })?;
        self.at += len;
        Ok(taken)
    }

    // Lengths of one, two and four bytes, as they are: [`StatedFields::check`] refuses what is negative in Java.

    fn byte(&mut self) -> Result<usize, RecordError> {
        Ok(self.take(1)?[0].into())
    }

    fn short(&mut self) -> Result<usize, RecordError> {
        Ok(u16::from_be_bytes(array(self.take(2)?, 0)).into())
    }

    fn int(&mut self) -> Result<usize, RecordError> {
        // A u32 fits into a usize.
        Ok(u32::from_be_bytes(array(self.take(4)?, 0)) as usize)
    }
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
