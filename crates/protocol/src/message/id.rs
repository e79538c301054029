//! The two message ids: the broker's, which says where a record is, and the client's unique key.
//!
//! Java: MessageDecoder.createMessageId / decodeMessageId, MessageClientIDSetter.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};

use super::record::plain_ip;
use crate::offsets::PhysicalOffset;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("a message id has 32 or 56 hex digits, this one has {0} characters")]
    Length(usize),
    #[error("message id contains something that is not a hex digit")]
    NotHex,
    #[error("message id names the port {0}")]
    Port(u32),
    #[error("message id names a negative offset")]
    NegativeOffset,
}

/// The broker's id of a stored message: the address to ask and the physical offset. Prints as upper-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    pub host: SocketAddr,
    pub physical_offset: PhysicalOffset,
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(
            plain_ip(self.host),
            &[&u32::from(self.host.port()).to_be_bytes(), &self.physical_offset.0.to_be_bytes()],
            f,
        )
    }
}

impl FromStr for OffsetMessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<OffsetMessageId, IdError> {
        let bytes = unhex(text)?;
        let (ip, rest) = split_ip(bytes.bytes());
        let (port, offset) = rest.split_at(4);
        let port = port.iter().fold(0, |port: u32, byte| port << 8 | u32::from(*byte));
        let offset = offset.iter().fold(0, |offset: u64, byte| offset << 8 | u64::from(*byte));
        if offset > i64::MAX as u64 {
            return Err(IdError::NegativeOffset);
        }
        let port = u16::try_from(port).map_err(|_| IdError::Port(port))?;
        Ok(OffsetMessageId { host: SocketAddr::new(ip, port), physical_offset: PhysicalOffset(offset) })
    }
}

/// The parts of a client's UNIQ_KEY. Brokers treat the text as opaque; tools take it apart to show where and when a
/// message was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UniqueKey {
    pub ip: IpAddr,
    /// The low 16 bits of the process id.
    pub process: u16,
    /// Java: hash code of the class loader; any number that tells two generators of one process apart.
    pub generator: u32,
    /// Milliseconds since the start of the month in which the key was made (in the maker's time zone).
    pub millis_in_month: u32,
    pub counter: u16,
}

impl fmt::Display for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: [&[u8]; 4] = [
            &self.process.to_be_bytes(),
            &self.generator.to_be_bytes(),
            &self.millis_in_month.to_be_bytes(),
            &self.counter.to_be_bytes(),
        ];
        write_hex(self.ip, &parts, f)
    }
}

impl FromStr for UniqueKey {
    type Err = IdError;

    /// Accepts either case: the Go client writes some parts in lower case.
    fn from_str(text: &str) -> Result<UniqueKey, IdError> {
        let bytes = unhex(text)?;
        let (ip, rest) = split_ip(bytes.bytes());
        let number =
            |range: std::ops::Range<usize>| rest[range].iter().fold(0, |n: u32, byte| n << 8 | u32::from(*byte));
        Ok(UniqueKey {
            ip,
            process: number(0..2) as u16, // two bytes
            generator: number(2..6),
            millis_in_month: number(6..10),
            counter: number(10..12) as u16, // two bytes
        })
    }
}

/// Makes unique keys for one producer. The counter wraps after 65,536 keys; together with the milliseconds that is
/// what Java offers too.
#[derive(Debug)]
pub struct UniqueKeySource {
    ip: IpAddr,
    process: u16,
    generator: u32,
    counter: AtomicU16,
}

impl UniqueKeySource {
    pub fn new(ip: IpAddr, process_id: u32, generator: u32) -> UniqueKeySource {
        // Java keeps the low 16 bits of the process id.
        UniqueKeySource { ip, process: process_id as u16, generator, counter: AtomicU16::new(0) }
    }

    /// The next key; `millis_in_month` as in [`UniqueKey`].
    pub fn next(&self, millis_in_month: u32) -> UniqueKey {
        UniqueKey {
            ip: self.ip,
            process: self.process,
            generator: self.generator,
            millis_in_month,
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Milliseconds since the start of the (UTC) month that `now_ms`, milliseconds since 1970, lies in: the time part of a unique key.
pub fn millis_in_month(now_ms: i64) -> u32 {
    const DAY_MS: i64 = 86_400_000;
    let days = now_ms.div_euclid(DAY_MS);
    // Day of month by the civil calendar: days from 0000-03-01, split into 400-year eras, years and 153-day runs of five months.
    let since_march = days + 719_468;
    let day_of_era = since_march.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    u32::try_from(day_of_month * DAY_MS + now_ms.rem_euclid(DAY_MS)).unwrap_or(0)
}

/// Writes an id's bytes as hex digits, in one piece: every reply to a send carries an id.
fn write_hex(ip: IpAddr, parts: &[&[u8]], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut id = IdBytes { array: [0; 28], len: 0 };
    match ip {
        IpAddr::V4(ip) => id.push(&ip.octets()),
        IpAddr::V6(ip) => id.push(&ip.octets()),
    }
    for part in parts {
        id.push(part);
    }
    let mut text = [0; 56];
    for (digits, byte) in text.chunks_exact_mut(2).zip(id.bytes()) {
        digits[0] = b"0123456789ABCDEF"[usize::from(byte >> 4)];
        digits[1] = b"0123456789ABCDEF"[usize::from(byte & 15)];
    }
    // Only ASCII was written.
    f.write_str(str::from_utf8(&text[..id.len * 2]).unwrap_or_default())
}

/// The 16 or 28 bytes behind an id.
struct IdBytes {
    array: [u8; 28],
    len: usize,
}

impl IdBytes {
    fn bytes(&self) -> &[u8] {
        &self.array[..self.len]
    }

    fn push(&mut self, part: &[u8]) {
        self.array[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }
}

fn unhex(text: &str) -> Result<IdBytes, IdError> {
    if text.len() != 32 && text.len() != 56 {
        return Err(IdError::Length(text.len()));
    }
    let mut bytes = IdBytes { array: [0; 28], len: text.len() / 2 };
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(IdError::NotHex);
    for (byte, pair) in bytes.array.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8; // two hex digits
    }
    Ok(bytes)
}

/// Splits 16 bytes into an IPv4 address and 12 more, 28 bytes into an IPv6 address and 12 more.
fn split_ip(bytes: &[u8]) -> (IpAddr, &[u8]) {
    let (ip, rest) = bytes.split_at(bytes.len() - 12);
    let ip = match <[u8; 4]>::try_from(ip) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::from(Ipv6Addr::from(ip.iter().fold(0, |n: u128, byte| n << 8 | u128::from(*byte)))),
    };
    (ip, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_month_starts_at_its_first_midnight() {
        const DAY: i64 = 86_400_000;
        assert_eq!(millis_in_month(0), 0);
        assert_eq!(millis_in_month(31 * DAY - 1), 2_678_399_999);
        assert_eq!(millis_in_month(31 * DAY), 0);
        // 2024-02-29T00:00:00.005Z and the day after it.
        assert_eq!(millis_in_month(1_709_164_800_005), 28 * 86_400_000 + 5);
        assert_eq!(millis_in_month(1_709_251_200_000), 0);
    }

    #[test]
    fn offset_id_vectors() {
        for (host, offset, text) in [
            ("10.0.0.1:10911", 1000, "0A00000100002A9F00000000000003E8"),
            ("10.0.0.1:10911", 123_456_789, "0A00000100002A9F00000000075BCD15"),
            ("[2001:db8::1]:10911", 1, "20010DB800000000000000000000000100002A9F0000000000000001"),
        ] {
            let id = OffsetMessageId { host: host.parse().unwrap(), physical_offset: PhysicalOffset(offset) };
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_lowercase().parse(), Ok(id));
        }
    }

    #[test]
    fn bad_ids() {
        assert_eq!("".parse::<OffsetMessageId>(), Err(IdError::Length(0)));
        assert_eq!("0A00000100002A9F00000000000003EG".parse::<OffsetMessageId>(), Err(IdError::NotHex));
        assert_eq!("0A00000100012A9F00000000000003E8".parse::<OffsetMessageId>(), Err(IdError::Port(0x12A9F)));
        assert_eq!("0A00000100002A9F80000000000003E8".parse::<OffsetMessageId>(), Err(IdError::NegativeOffset));
        assert_eq!("éééééééééééééééé".parse::<UniqueKey>(), Err(IdError::NotHex));
    }

    #[test]
    fn keys_count_up() {
        let source = UniqueKeySource::new("10.0.0.1".parse().unwrap(), 0x1_025D, 0x764E_0E2F);
        assert_eq!(source.next(0x2A67_0F98).to_string(), "0A000001025D764E0E2F2A670F980000");
        assert_eq!(source.next(0x2A67_0F98).to_string(), "0A000001025D764E0E2F2A670F980001");
        let key: UniqueKey = "FD0000000000000000000000000000025D764E0E2F2A670F98120000".parse().unwrap();
        assert_eq!((key.ip, key.process), ("fd00::2".parse().unwrap(), 0x5D76));
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in "[0-9a-fA-F]{30,58}|\\PC{0,60}") {
            if let Ok(id) = text.parse::<OffsetMessageId>() {
                prop_assert_eq!(id.to_string().to_lowercase(), text.to_lowercase());
            }
            if let Ok(key) = text.parse::<UniqueKey>() {
                prop_assert_eq!(key.to_string().to_lowercase(), text.to_lowercase());
            }
        }
    }
}
