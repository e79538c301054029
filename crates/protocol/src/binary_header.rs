//! The ROCKETMQ binary header, serialization type 1. Java: `RocketMQSerializable`.
//!
//! `code i16, language u8, version i16, opaque i32, flag i32, remark (i32 length), map block (i32 length)`, where the
//! map block is `key (i16 length), value (i32 length)` over and over. Every length is checked against what is there.

use bytes::{BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::binary_fields::{Entries, Reader, patch_len};
use crate::fields::{EncodeFields, FieldWriter, Fields};
use crate::frame_error::FrameError;
use crate::head::{Flags, Head, HeadParts};
use crate::language::Language;
use crate::serialization::Serialization;

/// Reads a header; `header` is exactly the header's bytes.
pub(crate) fn parse(header: &Bytes) -> Result<Head, FrameError> {
    let mut reader = Reader::new(header);
    let code = i32::from(reader.i16("code")?);
    let language = Language(reader.take(1, "language")?[0]);
    let version = i32::from(reader.i16("version")?);
    let opaque = reader.i32("opaque")?;
    let flags = Flags(reader.i32("flag")?);
    let remark = match reader.block("remark")? {
        [] => None,
        text => Some(shared_text(header, text)),
    };
    let fields = match reader.block("ext fields")? {
        [] => Fields::default(),
        block => {
            let mut entries = Entries::new(block);
            while entries.next_entry()?.is_some() {}
            Fields::from_checked_binary(header.slice_ref(block))
        }
    };
    Ok(Head { code, language, version, opaque, flags, remark, fields })
}

/// Text as a slice of the frame; bytes that are not UTF-8 are replaced, as Java does.
fn shared_text(frame: &Bytes, text: &[u8]) -> ByteString {
    ByteString::try_from(frame.slice_ref(text)).unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned().into())
}

/// What goes into a header, whoever answers or asks.
pub(crate) fn write(
    out: &mut BytesMut,
    head: &HeadParts<'_>,
    fields: Option<&dyn EncodeFields>,
) -> Result<(), FrameError> {
    let narrow = |field, value: i32| i16::try_from(value).map_err(|_| FrameError::NotBinary { field, value });
    out.put_i16(narrow("code", head.code)?);
    out.put_u8(head.language.0);
    out.put_i16(narrow("version", head.version)?);
    out.put_i32(head.opaque);
    out.put_i32(head.flags.0);
    let start = out.len();
    out.put_i32(0);
    out.put_slice(head.remark.unwrap_or_default().as_bytes());
    patch_len(out, start);
    let start = out.len();
    out.put_i32(0);
    if let Some(fields) = fields {
        let mut writer = FieldWriter::new(out, Serialization::Binary);
        fields.encode_fields(&mut writer);
        if writer.name_too_long() {
            return Err(FrameError::NameTooLong);
        }
    }
    patch_len(out, start);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Bytes {
        Bytes::from_static(b"\x00\x0b\x00\x01\xdf\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x02hi\x00\x00\x00\x0c\x00\x05topic\x00\x00\x00\x01T")
    }

    #[test]
    fn the_specs_example() {
        let head = parse(&example()).unwrap();
        assert_eq!((head.code, head.language, head.version, head.opaque), (11, Language::JAVA, 479, 7));
        assert_eq!(head.remark.as_deref(), Some("hi"));
        assert_eq!(head.fields.text("topic").as_deref(), Some("T"));
        let mut out = BytesMut::new();
        write(&mut out, &head.parts(), Some(&head.fields)).unwrap();
        assert_eq!(out, example());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = example();
        for len in 0..whole.len() {
            assert!(parse(&whole.slice(..len)).is_err(), "{len}");
        }
    }

    #[test]
    fn lengths_that_lie() {
        for lie in [-5i32, 5000, i32::MAX, i32::MIN] {
            let mut bytes = example().to_vec();
            bytes[13..17].copy_from_slice(&lie.to_be_bytes());
            assert!(parse(&bytes.into()).is_err(), "remark {lie}");
            let mut bytes = example().to_vec();
            bytes[19..23].copy_from_slice(&lie.to_be_bytes());
            assert!(parse(&bytes.into()).is_err(), "map {lie}");
        }
    }

    #[test]
    fn an_empty_value_is_present() {
        let mut bytes = example().to_vec();
        bytes.truncate(19);
        bytes.extend_from_slice(b"\x00\x00\x00\x07\x00\x01a\x00\x00\x00\x00");
        let head = parse(&bytes.into()).unwrap();
        assert_eq!(head.fields.text("a").as_deref(), Some(""));
    }
}
