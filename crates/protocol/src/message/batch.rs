//! The body of a batch send: several messages behind one header. Java: `MessageDecoder.encodeMessages`.
//!
//! Each item carries its own flag, body and properties; topic, queue and hosts come from the send header.
//! Java: MessageDecoder.encodeMessages, MessageExtBatch.

use std::borrow::Cow;

use super::properties::PROPERTIES_LEN_MAX;

/// Bytes of an item beside body and properties: total, magic, CRC, flag, body length (4 each), properties length (2).
const ITEM_OVERHEAD: usize = 5 * 4 + 2;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("batch item {item} ends after {left} bytes, {needed} needed")]
    Truncated { item: usize, needed: usize, left: usize },
    #[error("batch item {item} states a negative length")]
    NegativeLength { item: usize },
    #[error("batch body without items")]
    Empty,
    #[error("properties of a batch item are {len} bytes, limit {PROPERTIES_LEN_MAX}")]
    PropertiesTooLong { len: usize },
    #[error("body of a batch item is {len} bytes, more than its length field holds")]
    BodyTooLong { len: usize },
}

/// One message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    /// Property string. Bytes that are not UTF-8 are replaced, as a Java reader would.
    pub properties: Cow<'a, str>,
}

impl BatchItem<'_> {
    /// Appends this item as a client sends it. On an error nothing is written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let properties = self.properties.as_bytes();
        let properties_len =
            i16::try_from(properties.len()).map_err(|_| BatchError::PropertiesTooLong { len: properties.len() })?;
        let too_long = |_| BatchError::BodyTooLong { len: self.body.len() };
        let body_len = i32::try_from(self.body.len()).map_err(too_long)?;
        let total = i32::try_from(ITEM_OVERHEAD + self.body.len() + properties.len()).map_err(too_long)?;
        out.extend_from_slice(&total.to_be_bytes());
        out.extend_from_slice(&[0; 8]); // magic and CRC: the broker writes its own
        out.extend_from_slice(&self.flag.to_be_bytes());
        out.extend_from_slice(&body_len.to_be_bytes());
        out.extend_from_slice(self.body);
        out.extend_from_slice(&properties_len.to_be_bytes());
        out.extend_from_slice(properties);
        Ok(())
    }
}

/// The items of a checked batch body, in order.
#[derive(Debug, Clone)]
pub struct BatchItems<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> BatchItems<'a> {
    /// Checks every length in `body`. The total, magic and CRC words of the items are not looked at: Java ignores
    /// them too, and some clients leave them empty.
    pub fn parse(body: &'a [u8]) -> Result<BatchItems<'a>, BatchError> {
        let mut rest = body;
        let mut len = 0;
        while !rest.is_empty() {
            rest = take_item(rest, len)?.1;
            len += 1;
        }
        if len == 0 {
            return Err(BatchError::Empty);
        }
        Ok(BatchItems { rest: body, len })
    }
}

impl<'a> Iterator for BatchItems<'a> {
    type Item = BatchItem<'a>;

    fn next(&mut self) -> Option<BatchItem<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        // `parse` walked the same bytes, so this cannot fail any more.
        let (item, rest) = take_item(self.rest, 0).ok()?;
        self.rest = rest;
        self.len -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for BatchItems<'_> {}

fn take_item(bytes: &[u8], item: usize) -> Result<(BatchItem<'_>, &[u8]), BatchError> {
    let mut cursor = Cursor { bytes, item };
    cursor.take(12)?;
    let flag = cursor.int()?;
    let body_len = cursor.int()?;
    let body = cursor.take_signed(body_len.into())?;
    let properties_len = cursor.short()?;
    let properties = String::from_utf8_lossy(cursor.take_signed(properties_len.into())?);
    Ok((BatchItem { flag, body, properties }, cursor.bytes))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    item: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(BatchError::Truncated {
            item: self.item,
            needed: len,
            left: self.bytes.len(),
        })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn take_signed(&mut self, len: i64) -> Result<&'a [u8], BatchError> {
        let len = usize::try_from(len).map_err(|_| BatchError::NegativeLength { item: self.item })?;
        self.take(len)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn int(&mut self) -> Result<i32, BatchError> {
        self.array().map(i32::from_be_bytes)
    }

    fn short(&mut self) -> Result<i16, BatchError> {
        self.array().map(i16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item<'a>(flag: i32, body: &'a [u8], properties: &'a str) -> BatchItem<'a> {
        BatchItem { flag, body, properties: Cow::Borrowed(properties) }
    }

    #[test]
    fn protocol_example() {
        let mut out = Vec::new();
        item(0, b"hello", &"p".repeat(28)).encode(&mut out).unwrap();
        assert_eq!(out.len(), 0x37);
        assert_eq!(&out[..27], b"\0\0\0\x37\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05hello\0\x1c");
    }

    #[test]
    fn damage_is_an_error() {
        let mut out = Vec::new();
        item(7, b"one", "A\u{1}1\u{2}").encode(&mut out).unwrap();
        item(8, b"", "").encode(&mut out).unwrap();
        assert_eq!(BatchItems::parse(&out).unwrap().len(), 2);
        assert_eq!(BatchItems::parse(&[]).unwrap_err(), BatchError::Empty);
        for cut in 1..out.len() {
            let whole_items = cut == 22 + 3 + 4;
            assert_eq!(BatchItems::parse(&out[..cut]).is_ok(), whole_items, "{cut}");
        }
        out[16] = 0xFF;
        assert_eq!(BatchItems::parse(&out).unwrap_err(), BatchError::NegativeLength { item: 0 });
        assert!(matches!(
            item(0, b"", &"x".repeat(32_768)).encode(&mut out),
            Err(BatchError::PropertiesTooLong { len: 32_768 })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(items) = BatchItems::parse(&bytes) {
                let expected = items.len();
                prop_assert_eq!(items.count(), expected);
            }
        }

        #[test]
        fn round_trip(items in proptest::collection::vec((any::<i32>(), proptest::collection::vec(any::<u8>(), 0..40), "[a-zé\u{1}\u{2}]{0,20}"), 1..6)) {
            let mut out = Vec::new();
            for (flag, body, properties) in &items {
                item(*flag, body, properties).encode(&mut out).unwrap();
            }
            let read: Vec<_> = BatchItems::parse(&out).unwrap().map(|i| (i.flag, i.body.to_vec(), i.properties.into_owned())).collect();
            prop_assert_eq!(read, items);
        }
    }
}
