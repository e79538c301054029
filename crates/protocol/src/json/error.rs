//! Why a text could not be read, and how much of it is read at most.

use std::fmt;

use serde::de;

use super::lexer::LexError;

/// Deepest nesting of arrays and objects; real bodies stay below ten.
pub const DEPTH_MAX: u32 = 64;
/// Most objects in one text, references counted each time: bounds what a few bytes each can make us allocate.
pub const OBJECTS_MAX: u32 = 1 << 20;
/// Most references followed in one text.
pub const REFERENCES_MAX: u32 = 1 << 14;
/// Why a text could not be read into the wanted type. `at` is a byte position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("empty JSON text")]
    Empty,
    #[error("JSON syntax: {expected} expected at byte {at}")]
    Syntax { at: usize, expected: &'static str },
    #[error("JSON nests deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep { at: usize },
    #[error("JSON holds more than {OBJECTS_MAX} objects")]
    TooManyObjects,
    #[error("JSON reference at byte {at} leads nowhere or too far")]
    Reference { at: usize },
    #[error("JSON value at byte {at}: {reason}")]
    Value { at: usize, reason: String },
}

impl JsonError {
    /// The error with its place in `text`, as editors count: for files that people repair by hand.
    pub fn in_text(&self, text: &[u8]) -> String {
        let at = match self {
            JsonError::Syntax { at, .. }
            | JsonError::TooDeep { at }
            | JsonError::Reference { at }
            | JsonError::Value { at, .. } => *at,
            JsonError::Empty | JsonError::TooManyObjects => return self.to_string(),
        };
        // As it was read, so that the place counts in it.
        let text = String::from_utf8_lossy(without_frame(text));
        let before = &text.as_bytes()[..at.min(text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        format!("line {line}, column {column}: {self}")
    }
}

impl From<LexError> for JsonError {
    fn from(LexError { at, expected }: LexError) -> JsonError {
        JsonError::Syntax { at, expected }
    }
}

impl de::Error for JsonError {
    fn custom<T: fmt::Display>(reason: T) -> JsonError {
        JsonError::Value { at: 0, reason: reason.to_string() }
    }
}

/// The text without the byte order mark that editors leave in front, and the zeros or Ctrl-Z that disks and DOS leave behind.
pub(super) fn without_frame(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let end = text.iter().rposition(|byte| !matches!(byte, 0 | 0x1A)).map_or(0, |last| last + 1);
    // Nothing but zeros is what a file looks like whose content never reached the disk, not an empty one.
    if end == 0 { text } else { &text[..end] }
}
