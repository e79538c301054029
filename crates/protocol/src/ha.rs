//! The stream between a master and a slave of native HA: reports one way, packets the other.
//!
//! It has no frames, no version and no name of who speaks. The slave says how far it holds the log, eight bytes at a time; the master sends
//! ranges of log bytes, each behind a head of twelve. Java: DefaultHAConnection, DefaultHAClient. Layout: docs/format.md, HA stream.
//!
//! Both decoders take from the front of a read buffer what is whole, keep nothing themselves and allocate nothing. What cannot be right is
//! an error as soon as its length or offset is there, so a reader never holds more than one packet of [`PACKET_BODY_LEN_MAX`] and one read.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::offsets::PhysicalOffset;

/// Bytes of a report.
pub const REPORT_LEN: usize = 8;

/// Bytes in front of a packet's body.
pub const PACKET_HEAD_LEN: usize = 12;

/// Longest body of a packet, in bytes. A Java slave reads into a buffer of 4 MiB (`DefaultHAClient.READ_MAX_BUFFER_SIZE`) and never gets on
/// behind a packet that does not fit there, so no master sends a longer one.
pub const PACKET_BODY_LEN_MAX: usize = 4 * 1024 * 1024 - PACKET_HEAD_LEN;

/// What no master or slave says. The stream cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HaStreamError {
    #[error("no log has the offset {0:#018x}")]
    Offset(u64),
    #[error("a packet of {len} bytes, limit {PACKET_BODY_LEN_MAX}")]
    PacketTooLong { len: u32 },
}

/// A range of log bytes. May begin and end inside a record; never goes over the end of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where the first byte of the body stands.
    pub at: PhysicalOffset,
    /// Empty in a heartbeat.
    pub body: Bytes,
}

/// The slave holds the log up to `end`.
pub fn encode_report(end: PhysicalOffset) -> [u8; REPORT_LEN] {
    end.as_i64().to_be_bytes()
}

/// What stands in front of a body of `body_len` bytes that begins at `at`; with 0 it is a heartbeat.
///
/// # Panics
/// When the body is longer than [`PACKET_BODY_LEN_MAX`].
pub fn encode_packet_head(at: PhysicalOffset, body_len: usize) -> [u8; PACKET_HEAD_LEN] {
    assert!(body_len <= PACKET_BODY_LEN_MAX, "a packet of {body_len} bytes");
    let mut head = [0; PACKET_HEAD_LEN];
    head[..8].copy_from_slice(&at.as_i64().to_be_bytes());
    head[8..].copy_from_slice(&(body_len as u32).to_be_bytes());
    head
}

/// Takes all whole reports out of `buffer`. Only the last one counts: it says everything that those before it said. `None` until there is one.
pub fn decode_reports(buffer: &mut BytesMut) -> Result<Option<PhysicalOffset>, HaStreamError> {
    let mut last = None;
    while let Some(report) = buffer.first_chunk::<REPORT_LEN>() {
        last = Some(offset(u64::from_be_bytes(*report))?);
        buffer.advance(REPORT_LEN);
    }
    Ok(last)
}

/// Splits the next packet off `buffer` without copying its body. `None` until it is whole.
pub fn decode_packet(buffer: &mut BytesMut) -> Result<Option<Packet>, HaStreamError> {
    let Some(head) = buffer.first_chunk::<PACKET_HEAD_LEN>() else {
        return Ok(None);
    };
    let mut head = &head[..];
    let (at, len) = (offset(head.get_u64())?, head.get_u32());
    // A negative length reads as a huge one here. A u32 fits into a usize.
    if len as usize > PACKET_BODY_LEN_MAX {
        return Err(HaStreamError::PacketTooLong { len });
    }
    let whole = PACKET_HEAD_LEN + len as usize;
    offset(at.0 + u64::from(len))?;
    if buffer.len() < whole {
        return Ok(None);
    }
    let mut packet = buffer.split_to(whole).freeze();
    packet.advance(PACKET_HEAD_LEN);
    Ok(Some(Packet { at, body: packet }))
}

/// Java's offsets are signed, and none is negative.
fn offset(value: u64) -> Result<PhysicalOffset, HaStreamError> {
    if value > i64::MAX.unsigned_abs() {
        return Err(HaStreamError::Offset(value));
    }
    Ok(PhysicalOffset(value))
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> BytesMut {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// An empty slave and a Java master whose log ends at 2,147,485,000, with segments of 1 GiB.
    #[test]
    fn the_first_exchange_of_an_empty_slave() {
        let mut stream = hex("0000000000000000");
        assert_eq!(decode_reports(&mut stream), Ok(Some(PhysicalOffset(0))));
        let mut stream = hex("0000000080000000 00000548");
        assert_eq!(decode_packet(&mut stream), Ok(None));
        stream.put_bytes(7, 1352);
        stream.extend_from_slice(&hex("0000000080000548 00000000"));
        let packet = decode_packet(&mut stream).unwrap().unwrap();
        assert_eq!((packet.at, packet.body.len()), (PhysicalOffset(2_147_483_648), 1352));
        assert_eq!(encode_packet_head(packet.at, 1352)[..], hex("0000000080000000 00000548")[..]);
        assert_eq!(encode_report(packet.at + 1352)[..], hex("0000000080000548")[..]);
        let heartbeat = Packet { at: PhysicalOffset(2_147_485_000), body: Bytes::new() };
        assert_eq!(decode_packet(&mut stream), Ok(Some(heartbeat)));
        assert_eq!((decode_packet(&mut stream), stream.len()), (Ok(None), 0));
    }

    #[test]
    fn of_several_reports_the_last_whole_one_counts() {
        let mut stream = hex("0000000000000001 0000000000000009 00000000");
        assert_eq!(decode_reports(&mut stream), Ok(Some(PhysicalOffset(9))));
        assert_eq!((stream.len(), decode_reports(&mut stream)), (4, Ok(None)));
        stream.extend_from_slice(&hex("0000000c"));
        assert_eq!(decode_reports(&mut stream), Ok(Some(PhysicalOffset(12))));
    }

    #[test]
    fn what_no_peer_says_is_refused_before_the_body_is_there() {
        assert_eq!(decode_reports(&mut hex("ffffffffffffffff")), Err(HaStreamError::Offset(u64::MAX)));
        let refused = |head: &str| decode_packet(&mut hex(head)).unwrap_err();
        assert_eq!(refused("8000000000000000 00000000"), HaStreamError::Offset(1 << 63));
        assert_eq!(refused("7fffffffffffffff 00000001"), HaStreamError::Offset(1 << 63));
        assert_eq!(refused("0000000000000000 003ffff5"), HaStreamError::PacketTooLong { len: 0x3f_fff5 });
        assert_eq!(refused("0000000000000000 ffffffff"), HaStreamError::PacketTooLong { len: u32::MAX });
        assert_eq!(decode_packet(&mut hex("0000000000000000 003ffff4")), Ok(None));
    }

    proptest! {
        /// However the bytes come in, the same packets come out.
        #[test]
        fn packets_survive_any_cuts(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in proptest::collection::vec(1..30_usize, 1..40),
        ) {
            let (mut sent, mut stream, mut at) = (Vec::new(), Vec::new(), PhysicalOffset(0));
            for body in bodies {
                stream.extend_from_slice(&encode_packet_head(at, body.len()));
                stream.extend_from_slice(&body);
                sent.push(Packet { at, body: body.clone().into() });
                at = at + body.len() as u64;
            }
            let (mut buffer, mut got, mut rest) = (BytesMut::new(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                while let Some(packet) = decode_packet(&mut buffer).unwrap() {
                    got.push(packet);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_reports(&mut BytesMut::from(&bytes[..]));
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(packet)) = decode_packet(&mut buffer) {
                prop_assert!(packet.body.len() <= bytes.len());
            }
        }
    }
}
