//! The text of a JSON header: its members, one after the other, and how text and numbers are written into one.
//!
//! Headers are read on every request: the text is walked once, and slices of it are kept.

mod places;

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};

use crate::frame_error::FrameError;
use crate::json::lexer::{Lexer, Value};

pub(crate) use places::Places;

/// Walks the members of one object.
#[derive(Clone)]
pub(crate) struct Members<'a> {
    lexer: Lexer<'a>,
    done: bool,
}

impl<'a> Members<'a> {
    /// `text` begins, after blanks, with an object.
    pub(crate) fn open(text: &'a str) -> Result<Self, FrameError> {
        let mut lexer = Lexer::new(text);
        lexer.expect(b'{', "an object")?;
        Ok(Self { lexer, done: false })
    }

    /// The cursor's place.
    pub(crate) fn at(&self) -> usize {
        self.lexer.at
    }

    /// Whether the value the cursor is on is an object.
    pub(crate) fn is_object(&mut self) -> bool {
        self.lexer.peek() == Some(b'{')
    }

    /// Nothing but blanks may follow.
    pub(crate) fn expect_end(&mut self) -> Result<(), FrameError> {
        Ok(self.lexer.expect_end()?)
    }

    /// `object` has been walked to its end before.
    pub(crate) fn of_checked(object: &'a str) -> Self {
        // The brace is there, or nothing is.
        Self { lexer: Lexer { text: object, at: 1 }, done: object.is_empty() }
    }

    /// The next member; `None` after the closing brace.
    pub(crate) fn next_member(&mut self) -> Result<Option<(Cow<'a, str>, Value<'a>)>, FrameError> {
        match self.next_name()? {
            Some(name) => Ok(Some((name, self.value()?))),
            None => Ok(None),
        }
    }

    /// The next member's name, leaving the cursor on its value; `None` after the closing brace.
    pub(crate) fn next_name(&mut self) -> Result<Option<Cow<'a, str>>, FrameError> {
        if self.done {
            return Ok(None);
        }
        let lexer = &mut self.lexer;
        if let Some((name, value_at)) = lexer.compact_name() {
            lexer.at = value_at;
            return Ok(Some(Cow::Borrowed(name)));
        }
        if lexer.peek_element() == Some(b'}') {
            lexer.at += 1;
            self.done = true;
            return Ok(None);
        }
        let name = lexer.name()?;
        lexer.expect(b':', "a colon")?;
        lexer.peek();
        Ok(Some(name))
    }

    /// The value the cursor is on.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, FrameError> {
        let value = self.lexer.value()?;
        self.expect_separator()?;
        Ok(value)
    }

    /// The object the cursor is on, all of whose members are walked here, so that later walks cannot fail; `places` learns
    /// where they stand.
    pub(crate) fn object(&mut self, places: &mut Places) -> Result<&'a str, FrameError> {
        let start = self.lexer.at;
        let text = &self.lexer.text[start..];
        if let Some(len) = places::compact_object(text.as_bytes(), places) {
            self.lexer.at = start + len;
            self.expect_separator()?;
            return Ok(&text[..len]);
        }
        *places = Places::default();
        let mut inner = Members { lexer: Lexer { text: self.lexer.text, at: start + 1 }, done: false };
        while let Some((name, value)) = inner.next_member()? {
            places.note(text, matches!(name, Cow::Borrowed(_)).then_some(&*name), &value);
        }
        self.lexer.at = inner.lexer.at;
        self.expect_separator()?;
        Ok(&self.lexer.text[start..inner.lexer.at])
    }

    /// What follows a value.
    fn expect_separator(&mut self) -> Result<(), FrameError> {
        match self.lexer.peek() {
            Some(b',' | b'}') => Ok(()),
            _ => Ok(self.lexer.missing("a comma or a closing brace")?),
        }
    }
}

/// Whether text is ASCII that nobody escapes.
pub(crate) fn is_plain(text: &str) -> bool {
    // Looked at whole, several bytes at a time.
    let bytes = text.as_bytes();
    !bytes.iter().fold(false, |found, byte| found | !matches!(byte, b' '..=b'~') | matches!(byte, b'"' | b'\\'))
}

/// Writes text the way fastjson escapes it: quotes, backslashes, control characters up to U+009F, U+2028 and U+2029.
pub(crate) fn write_escaped(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    // Nearly all text.
    if is_plain(text) {
        return out.put_slice(bytes);
    }
    let mut plain_from = 0;
    let mut at = 0;
    let may_need_escape = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f | 0xc2 | 0xe2);
    while let Some(step) = bytes[at..].iter().position(may_need_escape) {
        at += step;
        // `at` is on the first byte of a character: the bytes looked for never continue one.
        let Some(character) = text[at..].chars().next() else {
            break;
        };
        let len = character.len_utf8();
        let short = match character {
            '"' => Some(b'"'),
            '\\' => Some(b'\\'),
            '\u{8}' => Some(b'b'),
            '\u{c}' => Some(b'f'),
            '\n' => Some(b'n'),
            '\r' => Some(b'r'),
            '\t' => Some(b't'),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => None,
            _ => {
                at += len;
                continue;
            }
        };
        out.put_slice(&bytes[plain_from..at]);
        out.put_u8(b'\\');
        match short {
            Some(letter) => out.put_u8(letter),
            None => {
                let unit = u32::from(character);
                out.put_u8(b'u');
                for shift in [12, 8, 4, 0] {
                    out.put_u8(b"0123456789ABCDEF"[(unit >> shift & 0xf) as usize]);
                }
            }
        }
        at += len;
        plain_from = at;
    }
    out.put_slice(&bytes[plain_from..]);
}
