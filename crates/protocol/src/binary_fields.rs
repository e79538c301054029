//! The ext fields of a binary header, and how its lengths are read and written.

use bytes::BytesMut;

use crate::frame_error::FrameError;

/// Fills the length word at `start` with the number of bytes after it. Frames over the limit are refused later on, as
/// a whole, so a length that does not fit here never leaves.
pub(crate) fn patch_len(out: &mut BytesMut, start: usize) {
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

type Entry<'a> = (&'a [u8], &'a [u8]);

/// Walks a map block. An entry whose length lies is an error, before anything is allocated.
pub(crate) struct Entries<'a>(Reader<'a>);

impl<'a> Entries<'a> {
    pub(crate) fn new(block: &'a [u8]) -> Self {
        Self(Reader::new(block))
    }

    /// The next key and value; `None` at the end of the block.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry<'a>>, FrameError> {
        if self.0.at == self.0.bytes.len() {
            return Ok(None);
        }
        let len = usize::try_from(self.0.i16("key length")?).map_err(|_| FrameError::Binary("key length"))?;
        let key = self.0.take(len, "key")?;
        let value = self.0.block("value")?;
        Ok(Some((key, value)))
    }
}

/// A cursor that cannot run past the end.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], FrameError> {
        let end = self.at.checked_add(len).ok_or(FrameError::Binary(what))?;
        let taken = self.bytes.get(self.at..end).ok_or(FrameError::Binary(what))?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, FrameError> {
        let bytes = self.take(2, what)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, FrameError> {
        let bytes = self.take(4, what)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A 32-bit length and that many bytes.
    pub(crate) fn block(&mut self, what: &'static str) -> Result<&'a [u8], FrameError> {
        let len = usize::try_from(self.i32(what)?).map_err(|_| FrameError::Binary(what))?;
        self.take(len, what)
    }
}
