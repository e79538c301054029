//! The text of a JSON header: its members, one after the other, and how text and numbers are written into one.
//!
//! Our own scanner: headers are read on every request, and what clients send is wider than JSON (unquoted and
//! single-quoted keys, any commas, numbers and booleans where texts belong). It walks the text once, keeps slices of it,
//! allocates only to undo escapes, and does not recurse.

mod places;

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};

use crate::frame_error::FrameError;

pub(crate) use places::Places;

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

/// Undoes the escapes of text that [`Scanner::quoted`] has checked.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // The first half of a surrogate pair, waiting for the second.
    let mut high: Option<u16> = None;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
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
fn escape(escape: &[u8]) -> Option<(u16, usize)> {
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
        b'u' => return Some((hex(4)?, 6)),
        _ => return None,
    };
    Some((u16::from(unit), 2))
}

/// Walks the members of one object.
#[derive(Clone)]
pub(crate) struct Members<'a> {
    scanner: Scanner<'a>,
    done: bool,
}

impl<'a> Members<'a> {
    /// `text` begins, after white space, with an object.
    pub(crate) fn open(text: &'a str) -> Result<Self, FrameError> {
        let mut scanner = Scanner { text, at: 0 };
        scanner.skip_space();
        scanner.expect(b'{', "not an object")?;
        Ok(Self { scanner, done: false })
    }

    /// The cursor's place.
    pub(crate) fn at(&self) -> usize {
        self.scanner.at
    }

    /// Whether the value the cursor is on is an object.
    pub(crate) fn is_object(&self) -> bool {
        self.scanner.peek() == Some(b'{')
    }

    /// Nothing but white space may follow.
    pub(crate) fn expect_end(&mut self) -> Result<(), FrameError> {
        self.scanner.expect_end()
    }

    /// `object` has been walked to its end before.
    pub(crate) fn of_checked(object: &'a str) -> Self {
        // The brace is there, or nothing is.
        Self { scanner: Scanner { text: object, at: 1 }, done: object.is_empty() }
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
        let scanner = &mut self.scanner;
        if let Some((name, value_at)) = scanner.compact_name() {
            scanner.at = value_at;
            return Ok(Some(Cow::Borrowed(name)));
        }
        scanner.skip_space();
        // Any number of commas, as fastjson allows them.
        while scanner.peek() == Some(b',') {
            scanner.at += 1;
            scanner.skip_space();
        }
        if scanner.peek() == Some(b'}') {
            scanner.at += 1;
            self.done = true;
            return Ok(None);
        }
        let name = scanner.name()?;
        scanner.skip_space();
        scanner.expect(b':', "no colon after a name")?;
        scanner.skip_space();
        Ok(Some(name))
    }

    /// The value the cursor is on.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, FrameError> {
        let value = self.scanner.value()?;
        self.scanner.expect_separator()?;
        Ok(value)
    }

    /// The object the cursor is on, all of whose members are walked here, so that later walks cannot fail; `places` learns
    /// where they stand.
    pub(crate) fn object(&mut self, places: &mut Places) -> Result<&'a str, FrameError> {
        let start = self.scanner.at;
        let text = &self.scanner.text[start..];
        if let Some(len) = places::compact_object(text.as_bytes(), places) {
            self.scanner.at = start + len;
            self.scanner.expect_separator()?;
            return Ok(&text[..len]);
        }
        *places = Places::default();
        let mut inner = Members { scanner: Scanner { text: self.scanner.text, at: start + 1 }, done: false };
        while let Some((name, value)) = inner.next_member()? {
            places.note(text, matches!(name, Cow::Borrowed(_)).then_some(&*name), &value);
        }
        self.scanner.at = inner.scanner.at;
        self.scanner.expect_separator()?;
        Ok(&self.scanner.text[start..inner.scanner.at])
    }
}

/// Where the next quote or backslash is, eight bytes at a time: most texts are shorter than what a vector search costs to begin.
#[inline]
fn quote_or_escape(quote: u8, bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_be_bytes([0x7f; 8]);
    // 0x80 in every byte that is zero, and nothing anywhere else.
    let zeros = |word: u64| !(((word & LOW) + LOW) | word | LOW);
    let quotes = u64::from_be_bytes([quote; 8]);
    let escapes = u64::from_be_bytes([b'\\'; 8]);
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (number, chunk) in chunks.iter().enumerate() {
        let word = u64::from_be_bytes(*chunk);
        let hits = zeros(word ^ quotes) | zeros(word ^ escapes);
        if hits != 0 {
            return Some(number * 8 + hits.leading_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == quote || *byte == b'\\')?;
    Some(chunks.len() * 8 + at)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0x08)
}

/// A cursor over the text. `at` is always on a character boundary.
#[derive(Clone)]
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn problem(&self, problem: &'static str) -> FrameError {
        FrameError::Json { problem, at: self.at }
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), FrameError> {
        if self.peek() != Some(byte) {
            return Err(self.problem(problem));
        }
        self.at += 1;
        Ok(())
    }

    /// A name as nearly all clients write it: `"name":` behind a comma or the opening brace, no white space, no escape in
    /// it; and where its value begins. Anything else gives `None`.
    #[inline]
    fn compact_name(&self) -> Option<(&'a str, usize)> {
        let bytes = self.text.as_bytes();
        let start = if *bytes.get(self.at)? == b',' { self.at + 2 } else { self.at + 1 };
        if *bytes.get(start - 1)? != b'"' {
            return None;
        }
        let end = start + quote_or_escape(b'"', &bytes[start..])?;
        let [b'"', b':', value] = *bytes.get(end..end + 3)? else { return None };
        // Cuts are beside ASCII bytes, so on character boundaries.
        (!is_space(value)).then(|| (&self.text[start..end], end + 2))
    }

    /// What follows a value.
    fn expect_separator(&mut self) -> Result<(), FrameError> {
        self.skip_space();
        if matches!(self.peek(), Some(b',' | b'}')) {
            Ok(())
        } else {
            Err(self.problem("no comma or brace after a value"))
        }
    }

    /// Nothing but white space may follow.
    fn expect_end(&mut self) -> Result<(), FrameError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.problem("text after the object")) }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, FrameError> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                let (inner, escaped) = self.quoted(quote)?;
                Ok(if escaped { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) })
            }
            _ => {
                let name =
                    self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-' | b'.' | 0x80..));
                if name.is_empty() { Err(self.problem("no name")) } else { Ok(Cow::Borrowed(name)) }
            }
        }
    }

    fn value(&mut self) -> Result<Value<'a>, FrameError> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                let (inner, escaped) = self.quoted(quote)?;
                Ok(Value::Quoted { inner, escaped })
            }
            Some(b'{' | b'[') => self.nested().map(Value::Nested),
            _ => {
                let word = self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'));
                let number = word.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.'));
                if number || matches!(word, "true" | "false" | "null") {
                    Ok(Value::Bare(word))
                } else {
                    Err(self.problem("not a value"))
                }
            }
        }
    }

    /// The longest run of such bytes. The predicate must take either all or no bytes from 0x80 up.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.bytes().position(|byte| !wanted(byte)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// What is between the quotes, and whether it has escapes. Leaves the cursor after the closing quote.
    fn quoted(&mut self, quote: u8) -> Result<(&'a str, bool), FrameError> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        let mut escaped = false;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(step) = quote_or_escape(quote, rest) else {
                return Err(self.problem("a text without end"));
            };
            at += step;
            if bytes[at] == quote {
                self.at = at + 1;
                return Ok((&self.text[start..at], escaped));
            }
            let Some((_, len)) = escape(&bytes[at..]) else {
                self.at = at;
                return Err(self.problem("an unknown escape"));
            };
            escaped = true;
            at += len;
        }
    }

    /// An object or a list, passed over by counting brackets outside of texts.
    fn nested(&mut self) -> Result<&'a str, FrameError> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.peek() {
                None => return Err(self.problem("an object or list without end")),
                Some(quote @ (b'"' | b'\'')) => {
                    self.quoted(quote)?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }
}

/// Hands the decimal digits of `value` to `take`. The formatting of the standard library takes several times as long.
pub(crate) fn decimal<T>(value: i64, take: impl FnOnce(&str) -> T) -> T {
    // The longest is "-9223372036854775808".
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        // A digit.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    // Only ASCII was written.
    take(str::from_utf8(&digits[at..]).unwrap_or_default())
}

/// Writes text the way fastjson escapes it: quotes, backslashes, control characters up to U+009F, U+2028 and U+2029.
pub(crate) fn write_escaped(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    // Looked at whole, several bytes at a time: nearly all text has nothing to escape.
    if !bytes.iter().fold(false, |found, byte| found | !matches!(byte, b' '..=b'~') | matches!(byte, b'"' | b'\\')) {
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
