//! Frames: `total u32, header word u32 (serialization in the top byte, header length below), header, body`.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::fields::EncodeFields;
use crate::frame_error::{FrameError, HEADER_LEN_MAX};
use crate::head::{Head, HeadParts};
use crate::serialization::Serialization;
use crate::{binary_header, json_header};

/// Largest frame, in bytes, its length word included. Java: `com.rocketmq.remoting.frameMaxLength`.
pub const FRAME_LEN_MAX: usize = 16_777_216;

/// Longest body that is put into a frame; the rest is room for its header.
pub const BODY_LEN_MAX: usize = FRAME_LEN_MAX - 64 * 1024;

/// Bytes before the header.
const PREFIX_LEN: usize = 8;

/// One whole frame: its header, how that was written, and the body.
pub(crate) type Parts = (Head, Serialization, Bytes);

/// See [`crate::decode_frame`].
#[inline]
pub(crate) fn split(buffer: &mut BytesMut, frame_len_max: usize) -> Result<Option<Parts>, FrameError> {
    let Some(word) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let total = u32::from_be_bytes(*word);
    let frame_len = u64::from(total) + 4;
    // A negative total reads as a huge one here.
    let frame_len = match usize::try_from(frame_len) {
        Ok(len) if len <= frame_len_max => len,
        _ => {
            return Err(FrameError::TooLong { len: frame_len, limit: frame_len_max });
        }
    };
    if frame_len <= PREFIX_LEN {
        return Err(FrameError::TooShort { total: frame_len - 4 });
    }
    if buffer.len() < frame_len {
        return Ok(None);
    }
    let mut frame = buffer.split_to(frame_len).freeze();
    frame.advance(4);
    let word = frame.get_u32();
    let [serialization, ..] = word.to_be_bytes();
    let header_len = (word & 0x00ff_ffff) as usize;
    if header_len == 0 || header_len > frame.len() {
        return Err(FrameError::HeaderLen { header: header_len, room: frame.len() });
    }
    if header_len > HEADER_LEN_MAX {
        return Err(FrameError::HeaderTooLong { len: header_len });
    }
    let header = frame.split_to(header_len);
    let (head, serialization) = match serialization {
        0 => (json_header::parse(header)?, Serialization::Json),
        1 => (binary_header::parse(&header)?, Serialization::Binary),
        other => return Err(FrameError::Serialization(other)),
    };
    Ok(Some((head, serialization, frame)))
}

/// Writes everything of a frame before its body. On an error `out` is as it was.
pub(crate) fn encode_head(
    out: &mut BytesMut,
    serialization: Serialization,
    head: &HeadParts<'_>,
    fields: Option<&dyn EncodeFields>,
    body_len: usize,
) -> Result<(), FrameError> {
    let start = out.len();
    let result = try_encode_head(out, start, serialization, head, fields, body_len);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn try_encode_head(
    out: &mut BytesMut,
    start: usize,
    serialization: Serialization,
    head: &HeadParts<'_>,
    fields: Option<&dyn EncodeFields>,
    body_len: usize,
) -> Result<(), FrameError> {
    out.reserve(256);
    out.put_bytes(0, PREFIX_LEN);
    match serialization {
        Serialization::Json => json_header::write(out, head, fields),
        Serialization::Binary => binary_header::write(out, head, fields)?,
    }
    let header_len = out.len() - start - PREFIX_LEN;
    let too_long = |len: usize| FrameError::TooLong { len: len as u64, limit: FRAME_LEN_MAX };
    let frame_len = header_len.saturating_add(PREFIX_LEN).saturating_add(body_len);
    if frame_len > FRAME_LEN_MAX {
        return Err(too_long(frame_len));
    }
    // Both are below 2^24 now.
    let total = u32::try_from(frame_len - 4).map_err(|_| too_long(frame_len))?;
    let header_word = u32::try_from(header_len).map_err(|_| too_long(frame_len))? | serialization.type_byte() << 24;
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
    out[start + 4..start + PREFIX_LEN].copy_from_slice(&header_word.to_be_bytes());
    Ok(())
}
