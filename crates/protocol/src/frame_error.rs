//! Why bytes are no frame, or make none.

use crate::json::lexer::LexError;

/// Longest header that is read. Java reads any that fits the frame; a message's properties are at most 32 KiB, a condition 256 KiB, and each
/// header is gone through several times.
pub const HEADER_LEN_MAX: usize = 1024 * 1024;

/// Why bytes are not a frame. There is no answer to these; the connection is closed (Java: `NettyDecoder`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes, limit {limit}")]
    TooLong { len: u64, limit: usize },
    #[error("a frame whose length word is {total}, which leaves no room for a header")]
    TooShort { total: usize },
    #[error("a header of {header} bytes in {room} bytes")]
    HeaderLen { header: usize, room: usize },
    #[error("a header of {len} bytes, limit {HEADER_LEN_MAX}")]
    HeaderTooLong { len: usize },
    #[error("unknown header serialization {0}")]
    Serialization(u8),
    #[error("JSON header: {expected} expected at byte {at}")]
    Json { expected: &'static str, at: usize },
    #[error("binary header: {0} reaches past the end")]
    Binary(&'static str),
    /// Only when writing.
    #[error("the {field} {value} does not fit a binary header")]
    NotBinary { field: &'static str, value: i32 },
    /// Only when writing.
    #[error("a field name is too long for a binary header")]
    NameTooLong,
}

impl From<LexError> for FrameError {
    fn from(LexError { at, expected }: LexError) -> FrameError {
        FrameError::Json { expected, at }
    }
}
