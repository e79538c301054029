//! Walking over JSON text: blanks, strings, bare words, skipping whole values. Knows no types.

use std::borrow::Cow;

use super::JsonError;

/// Deepest nesting of arrays and objects; real bodies stay below ten.
pub const DEPTH_MAX: u32 = 64;
/// Most objects in one text, references counted each time: bounds what a few bytes each can make us allocate.
pub const OBJECTS_MAX: u32 = 1 << 20;
/// Most references followed in one text.
pub const REFERENCES_MAX: u32 = 1 << 14;
/// Most bytes walked to find what references point at.
const REFERENCE_BYTES_MAX: usize = 1 << 28;

/// A position in a text and what is left of its budgets.
pub(super) struct Scanner<'t> {
    pub bytes: &'t [u8],
    pub at: usize,
    pub depth: u32,
    pub objects_left: u32,
    pub references_left: u32,
    pub reference_bytes_left: usize,
}

/// A value that is neither array nor object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'t> {
    Null,
    Bool(bool),
    /// As written.
    Number(&'t str),
    Text(Cow<'t, str>),
}

impl<'t> Scanner<'t> {
    pub fn new(bytes: &'t [u8], objects_max: u32) -> Scanner<'t> {
        Scanner {
            bytes,
            at: 0,
            depth: 0,
            objects_left: objects_max,
            references_left: REFERENCES_MAX,
            reference_bytes_left: REFERENCE_BYTES_MAX,
        }
    }

    /// The next byte that is neither blank nor in a comment, without taking it.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at).copied() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0C | 0x08 => self.at += 1,
                b'/' => match self.comment_len() {
                    Some(len) => self.at += len,
                    None => return Some(byte),
                },
                _ => return Some(byte),
            }
        }
        None
    }

    /// Length of the comment that begins here, which people leave in config files: `/* ... */`, or `//` up to the line's end. None where
    /// there is none or it does not end; the slash is then what stands where a value should.
    fn comment_len(&self) -> Option<usize> {
        let rest = &self.bytes[self.at..];
        match rest.get(1)? {
            b'/' => Some(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())),
            b'*' => rest[2..].windows(2).position(|pair| pair == b"*/").map(|inner| inner + 4),
            _ => None,
        }
    }

    /// Like [`Scanner::peek`], also past any number of commas: empty and trailing elements do not exist.
    pub fn peek_element(&mut self) -> Option<u8> {
        while self.peek() == Some(b',') {
            self.at += 1;
        }
        self.peek()
    }

    pub fn syntax<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError::Syntax { at: self.at, expected })
    }

    /// Takes `byte` or fails.
    pub fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.syntax(expected)
        }
    }

    /// One level down; paired with [`Scanner::leave`].
    pub fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(JsonError::TooDeep { at: self.at }) } else { Ok(()) }
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Whether a null stands here (also as `undefined` or `NaN`, which Java's scripts write).
    pub fn at_null(&mut self) -> bool {
        self.peek();
        let rest = &self.bytes[self.at..];
        ["null", "undefined", "NaN"]
            .iter()
            .any(|word| rest.starts_with(word.as_bytes()) && !rest.get(word.len()).is_some_and(|next| is_word(*next)))
    }

    /// Takes a value that is not an array or object.
    pub fn scalar(&mut self) -> Result<Scalar<'t>, JsonError> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string().map(Scalar::Text),
            Some(byte) if is_word(byte) => {
                let start = self.at;
                match self.word()? {
                    "null" | "undefined" | "NaN" => Ok(Scalar::Null),
                    "true" => Ok(Scalar::Bool(true)),
                    "false" => Ok(Scalar::Bool(false)),
                    word if word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
                        Ok(Scalar::Number(word))
                    }
                    _ => {
                        self.at = start;
                        self.syntax("a value")
                    }
                }
            }
            _ => self.syntax("a value"),
        }
    }

    /// Takes a member name that is not an object: quoted either way or bare.
    pub fn name(&mut self) -> Result<Cow<'t, str>, JsonError> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string(),
            _ => self.word().map(Cow::Borrowed),
        }
    }

    fn word(&mut self) -> Result<&'t str, JsonError> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().take_while(|byte| is_word(**byte)).count();
        if len == 0 {
            return self.syntax("a name or value");
        }
        match std::str::from_utf8(&rest[..len]) {
            Ok(word) => {
                self.at += len;
                Ok(word)
            }
            Err(_) => self.syntax("UTF-8"),
        }
    }

    /// Takes a quoted string. Raw control characters are allowed; bytes that are not UTF-8 are replaced.
    pub fn string(&mut self) -> Result<Cow<'t, str>, JsonError> {
        let quote = self.bytes.get(self.at).copied();
        let start = self.at + 1;
        let mut end = start;
        let mut escaped = false;
        loop {
            match self.bytes.get(end) {
                None => return self.syntax("a closing quote"),
                byte if byte.copied() == quote => break,
                Some(b'\\') => {
                    escaped = true;
                    end += 2;
                }
                Some(_) => end += 1,
            }
        }
        let raw = &self.bytes[start..end];
        let text = if escaped { Cow::Owned(self.unescape(raw)?) } else { String::from_utf8_lossy(raw) };
        self.at = end + 1;
        Ok(text)
    }

    fn unescape(&self, raw: &[u8]) -> Result<String, JsonError> {
        let mut units: Vec<u16> = Vec::new();
        let mut text = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            if at > 0 {
                flush_units(&mut units, &mut text);
                text.push_str(&String::from_utf8_lossy(&rest[..at]));
            }
            let Some(code) = rest.get(at + 1) else {
                return self.syntax("an escape");
            };
            rest = &rest[at + 2..];
            let mut hex = |digits: usize| {
                let (number, after) = rest.split_at_checked(digits)?;
                rest = after;
                number.iter().try_fold(0u32, |n, byte| Some(n << 4 | char::from(*byte).to_digit(16)?))
            };
            let unit = match code {
                b'b' => Some(0x08),
                b't' => Some(0x09),
                b'n' => Some(0x0A),
                b'v' => Some(0x0B),
                b'f' | b'F' => Some(0x0C),
                b'r' => Some(0x0D),
                b'0'..=b'7' => Some(u32::from(code - b'0')),
                b'x' => hex(2),
                b'u' => hex(4),
                b'"' | b'\'' | b'\\' | b'/' => Some(u32::from(*code)),
                _ => None,
            };
            match unit.and_then(|unit| u16::try_from(unit).ok()) {
                Some(unit) => units.push(unit),
                None => return self.syntax("a known escape"),
            }
        }
        flush_units(&mut units, &mut text);
        text.push_str(&String::from_utf8_lossy(rest));
        Ok(text)
    }

    /// Moves past a whole value of any kind.
    pub fn skip_value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => {
                self.enter()?;
                self.at += 1;
                while self.peek_element() != Some(b'}') {
                    self.skip_name()?;
                    self.skip_value()?;
                }
                self.at += 1;
                self.leave();
                Ok(())
            }
            Some(b'[') => {
                self.enter()?;
                self.at += 1;
                while self.peek_element() != Some(b']') {
                    self.skip_value()?;
                }
                self.at += 1;
                self.leave();
                Ok(())
            }
            _ => self.scalar().map(|_| ()),
        }
    }

    /// Moves past a member name of any kind and its colon.
    pub fn skip_name(&mut self) -> Result<(), JsonError> {
        if matches!(self.peek(), Some(b'{' | b'[')) {
            self.skip_value()?;
        } else {
            self.name()?;
        }
        self.expect(b':', "a colon")
    }
}

/// Escapes come as UTF-16 units: two halves may make one character, a lone half makes none.
fn flush_units(units: &mut Vec<u16>, text: &mut String) {
    text.extend(char::decode_utf16(units.drain(..)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

/// What a bare name, number or keyword is made of.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-' | b'+' | b'.' | b'@' | b'%') || byte >= 0x80
}
