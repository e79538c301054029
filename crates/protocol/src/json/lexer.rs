//! The marks of JSON text as RocketMQ's peers write it: blanks and comments, names, texts, numbers. Knows no types, and of structure only how to
//! pass over it.
//!
//! One for headers and bodies. What it takes beyond JSON is what Java's serializer takes (fastjson, `JSONLexerBase`): names and texts in either
//! quotes or none, more escapes, `undefined` and `NaN` for null. It keeps slices of the text, allocates only to undo escapes, and does not recurse.

use std::borrow::Cow;

use crate::short_text::first_of;

/// A cursor over the text. `at` is always on a character boundary.
#[derive(Clone)]
pub(crate) struct Lexer<'t> {
    pub(crate) text: &'t str,
    pub(crate) at: usize,
}

/// What does not stand where it should.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LexError {
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

/// One value in the text.
pub(crate) enum Value<'a> {
    /// Between quotes.
    Quoted { inner: &'a str, escaped: bool },
    /// Number, `true`, `false` or `null`, as written.
    Bare(&'a str),
    /// An object or a list, as written.
    Nested(&'a str),
}

impl<'a> Value<'a> {
    /// As text, the way fastjson fills a map of strings; `None` for null.
    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Value::Quoted { inner, escaped: false } => Some(Cow::Borrowed(inner)),
            Value::Quoted { inner, escaped: true } => Some(Cow::Owned(unescape(inner))),
            Value::Bare("null") => None,
            Value::Bare(text) | Value::Nested(text) => Some(Cow::Borrowed(text)),
        }
    }
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn missing<T>(&self, expected: &'static str) -> Result<T, LexError> {
        Err(LexError { at: self.at, expected })
    }

    /// The byte that the cursor is on.
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is neither blank nor in a comment, without taking it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.byte() {
            match byte {
                byte if is_blank(byte) => self.at += 1,
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
        let rest = &self.text.as_bytes()[self.at..];
        match rest.get(1)? {
            b'/' => Some(memchr::memchr(b'\n', rest).unwrap_or(rest.len())),
            b'*' => memchr::memmem::find(&rest[2..], b"*/").map(|inner| inner + 4),
            _ => None,
        }
    }

    /// Like [`Lexer::peek`], also past any number of commas: empty and trailing elements do not exist.
    pub(crate) fn peek_element(&mut self) -> Option<u8> {
        while self.peek() == Some(b',') {
            self.at += 1;
        }
        self.peek()
    }

    /// Takes `byte` or fails.
    pub(crate) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), LexError> {
        if self.peek() != Some(byte) {
            return self.missing(expected);
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but blanks may follow.
    pub(crate) fn expect_end(&mut self) -> Result<(), LexError> {
        if self.peek().is_none() { Ok(()) } else { self.missing("the end") }
    }

    /// Whether a null stands here.
    pub(crate) fn at_null(&mut self) -> bool {
        self.peek();
        let rest = &self.text.as_bytes()[self.at..];
        NULLS
            .iter()
            .any(|word| rest.starts_with(word.as_bytes()) && !rest.get(word.len()).is_some_and(|next| is_word(*next)))
    }

    /// A name as nearly all clients write it: `"name":` behind a comma or the opening brace, no white space, no escape in
    /// it; and where its value begins. Anything else gives `None`.
    #[inline]
    pub(crate) fn compact_name(&self) -> Option<(&'t str, usize)> {
        let bytes = self.text.as_bytes();
        let start = if *bytes.get(self.at)? == b',' { self.at + 2 } else { self.at + 1 };
        if *bytes.get(start - 1)? != b'"' {
            return None;
        }
        let end = start + first_of(b'"', b'\\', &bytes[start..])?;
        let [b'"', b':', value] = *bytes.get(end..end + 3)? else { return None };
        // Cuts are beside ASCII bytes, so on character boundaries.
        (!is_blank(value) && value != b'/').then(|| (&self.text[start..end], end + 2))
    }

    /// Takes a member name that is not an object: quoted either way or bare.
    pub(crate) fn name(&mut self) -> Result<Cow<'t, str>, LexError> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string(),
            _ => match self.word() {
                "" => self.missing("a name or value"),
                word => Ok(Cow::Borrowed(word)),
            },
        }
    }

    /// Takes a value of any kind, as it is written.
    pub(crate) fn value(&mut self) -> Result<Value<'t>, LexError> {
        match self.peek() {
            Some(b'"' | b'\'') => {
                let (inner, escaped) = self.quoted()?;
                Ok(Value::Quoted { inner, escaped })
            }
            Some(b'{' | b'[') => self.nested().map(Value::Nested),
            _ => self.bare().map(Value::Bare),
        }
    }

    /// Takes a number, a boolean or a null, which is `null` however it is written.
    pub(crate) fn bare(&mut self) -> Result<&'t str, LexError> {
        self.peek();
        let start = self.at;
        let word = self.word();
        let number = word.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.'));
        if number || matches!(word, "true" | "false") {
            return Ok(word);
        }
        if NULLS.contains(&word) {
            return Ok(NULLS[0]);
        }
        self.at = start;
        self.missing("a value")
    }

    fn word(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let len = rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Takes the quoted text that the cursor is on. Control characters may stand in it as they are.
    pub(crate) fn string(&mut self) -> Result<Cow<'t, str>, LexError> {
        let (inner, escaped) = self.quoted()?;
        Ok(if escaped { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) })
    }

    /// What is between the quotes that the cursor is on, and whether it has escapes.
    fn quoted(&mut self) -> Result<(&'t str, bool), LexError> {
        let bytes = self.text.as_bytes();
        let quote = bytes[self.at];
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(step) = first_of(quote, b'\\', rest) else {
                return self.missing("a closing quote");
            };
            at += step;
            if bytes[at] == quote {
                self.at = at + 1;
                return Ok((&self.text[start..at], escaped));
            }
            let Some((_, len)) = escape(&bytes[at..]) else {
                self.at = at;
                return self.missing("a known escape");
            };
            escaped = true;
            at += len;
        }
    }

    /// An object or a list, passed over by counting brackets outside of texts.
    fn nested(&mut self) -> Result<&'t str, LexError> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.peek() {
                None => return self.missing("a closing brace or bracket"),
                Some(b'"' | b'\'') => {
                    self.quoted()?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                // No comment: looking for its end once more at every slash would take the square of their number.
                Some(b'/') => return self.missing("a value"),
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }
}

/// Null, and what Java's scripts write for it.
const NULLS: [&str; 3] = ["null", "undefined", "NaN"];

/// Java: `JSONLexerBase.isWhitespace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0x08)
}

/// What a bare name, number or keyword is made of.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-' | b'+' | b'.' | b'@' | b'%') || byte >= 0x80
}

/// Undoes the escapes of text that [`Lexer::quoted`] has checked.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // The first half of a surrogate pair, waiting for the second.
    let mut high: Option<u16> = None;
    while let Some(at) = first_of(b'\\', b'\\', rest.as_bytes()) {
        if at > 0 && high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        out.push_str(&rest[..at]);
        let (unit, len) = escape(&rest.as_bytes()[at..]).unwrap_or((u16::from(b'\\'), 1));
        rest = &rest[at + len..];
        if let (None, unit @ 0..=0x7f) = (high, unit) {
            out.push(unit as u8 as char);
            continue;
        }
        if let Some(first) = high.take() {
            if let Some(Ok(character)) = char::decode_utf16([first, unit]).next() {
                out.push(character);
                continue;
            }
            out.push(char::REPLACEMENT_CHARACTER);
        }
        match unit {
            0xd800..=0xdbff => high = Some(unit),
            _ => out.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
    if high.is_some() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
    out.push_str(rest);
    out
}

/// The UTF-16 unit an escape stands for, and its length; `escape` begins with the backslash. Those of fastjson, which
/// knows more than JSON does. All of them are ASCII, so what follows is a whole character.
pub(crate) fn escape(escape: &[u8]) -> Option<(u16, usize)> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(u16::from(byte - b'0')),
        b'a'..=b'f' => Some(u16::from(byte - b'a' + 10)),
        b'A'..=b'F' => Some(u16::from(byte - b'A' + 10)),
        _ => None,
    };
    let hex =
        |digits: usize| escape.get(2..2 + digits)?.iter().try_fold(0, |unit, byte| Some(unit << 4 | digit(*byte)?));
    let letter = *escape.get(1)?;
    let unit = match letter {
        b'0'..=b'7' => letter - b'0',
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' | b'F' => 0x0c,
        b'r' => b'\r',
        b'"' | b'\'' | b'/' | b'\\' => letter,
        b'x' => return Some((hex(2)?, 4)),
        // What stands between properties, in every message.
        b'u' => match escape.get(2..6)? {
            [b'0', b'0', b'0', low] => return Some((digit(*low)?, 6)),
            _ => return Some((hex(4)?, 6)),
        },
        _ => return None,
    };
    Some((u16::from(unit), 2))
}
