//! The JSON header, serialization type 0. Java: `RemotingSerializable` over fastjson.
//!
//! Our own scanner: headers are read on every request, and what clients send is wider than JSON (unquoted and
//! single-quoted keys, any commas, numbers and booleans where texts belong). It walks the text once, keeps slices of it,
//! allocates only to undo escapes, and does not recurse.

mod places;

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::command::{Flags, Head, HeadParts, Serialization};
use crate::fields::{EncodeFields, FieldWriter, Fields};
use crate::frame::FrameError;
use crate::language::Language;

pub(crate) use places::Places;

/// Reads a header; `header` is exactly the header's bytes. Bytes that are not UTF-8 are replaced, as Java does.
pub(crate) fn parse(header: Bytes) -> Result<Head, FrameError> {
    let text = match ByteString::try_from(header.clone()) {
        Ok(text) => text,
        Err(_) => ByteString::from(String::from_utf8_lossy(&header).into_owned()),
    };
    let mut head = Head {
        code: 0,
        language: Language::JAVA,
        version: 0,
        opaque: 0,
        flags: Flags::default(),
        remark: None,
        fields: Fields::default(),
    };
    let mut members = Members::open(&text)?;
    loop {
        let at = members.scanner.at;
        let Some(name) = members.next_name()? else { break };
        if &*name == "extFields" && members.scanner.peek() == Some(b'{') {
            let mut places = Places::default();
            let object = members.object(&mut places)?;
            head.fields = Fields::from_checked_json(text.slice_ref(object), places);
            continue;
        }
        let value = members.value()?;
        let bad = |problem| FrameError::Json { problem, at };
        match &*name {
            "code" => head.code = value.int().ok_or(bad("code is not a number"))?,
            "version" => head.version = value.int().ok_or(bad("version is not a number"))?,
            "opaque" => head.opaque = value.int().ok_or(bad("opaque is not a number"))?,
            "flag" => head.flags = Flags(value.int().ok_or(bad("flag is not a number"))?),
            "language" => head.language = value.language().ok_or(bad("language is not in the table"))?,
            "remark" => {
                head.remark = value.into_text().map(|remark| match remark {
                    Cow::Borrowed(remark) => text.slice_ref(remark),
                    Cow::Owned(remark) => remark.into(),
                });
            }
            "extFields" => match value {
                Value::Bare("null") => head.fields = Fields::default(),
                _ => return Err(bad("extFields is not an object")),
            },
            _ => {}
        }
    }
    members.scanner.expect_end()?;
    Ok(head)
}

/// Writes a header as Java does: members in alphabetical order, absent ones left out, compact.
pub(crate) fn write(out: &mut BytesMut, head: &HeadParts<'_>, fields: Option<&dyn EncodeFields>) {
    out.put_slice(b"{\"code\":");
    put_int(out, head.code);
    if let Some(fields) = fields {
        out.put_slice(b",\"extFields\":");
        write_fields(out, fields);
    }
    out.put_slice(b",\"flag\":");
    put_int(out, head.flags.0);
    if let Some(language) = head.language.name() {
        out.put_slice(b",\"language\":\"");
        out.put_slice(language.as_bytes());
        out.put_u8(b'"');
    }
    out.put_slice(b",\"opaque\":");
    put_int(out, head.opaque);
    if let Some(remark) = head.remark {
        out.put_slice(b",\"remark\":\"");
        write_escaped(out, remark);
        out.put_u8(b'"');
    }
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_int(out, head.version);
    out.put_u8(b'}');
}

/// Writes the ext fields' object, braces included.
pub(crate) fn write_fields(out: &mut BytesMut, fields: &dyn EncodeFields) {
    out.put_u8(b'{');
    fields.encode_fields(&mut FieldWriter::new(out, Serialization::Json));
    out.put_u8(b'}');
}

fn put_int(out: &mut BytesMut, value: i32) {
    decimal(i64::from(value), |digits| out.put_slice(digits.as_bytes()));
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

    /// As an integer, quoted or not; null and the empty text are 0.
    fn int(&self) -> Option<i32> {
        match *self {
            Value::Bare("null") | Value::Quoted { inner: "" | "null", .. } => Some(0),
            Value::Bare(text) | Value::Quoted { inner: text, escaped: false } => text.parse().ok(),
            _ => None,
        }
    }

    /// A name or an ordinal of the table. Unknown names are unknown languages, unknown ordinals are errors: as in Java.
    fn language(&self) -> Option<Language> {
        match *self {
            Value::Bare("null") => Some(Language::JAVA),
            Value::Quoted { inner, .. } => Some(Language::from_name(inner)),
            Value::Bare(ordinal) => ordinal.parse().ok().map(Language).filter(|language| language.name().is_some()),
            Value::Nested(_) => None,
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
    fn open(text: &'a str) -> Result<Self, FrameError> {
        let mut scanner = Scanner { text, at: 0 };
        scanner.skip_space();
        scanner.expect(b'{', "not an object")?;
        Ok(Self { scanner, done: false })
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
    fn next_name(&mut self) -> Result<Option<Cow<'a, str>>, FrameError> {
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
    fn value(&mut self) -> Result<Value<'a>, FrameError> {
        let value = self.scanner.value()?;
        self.scanner.expect_separator()?;
        Ok(value)
    }

    /// The object the cursor is on, all of whose members are walked here, so that later walks cannot fail; `places` learns
    /// where they stand.
    fn object(&mut self, places: &mut Places) -> Result<&'a str, FrameError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, FrameError> {
        parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list(head: &Head) -> Vec<(String, String)> {
        head.fields.iter().map(|(name, value)| (name.into_owned(), value.into_text().into_owned())).collect()
    }

    #[test]
    fn what_java_sends_comes_back_the_same() {
        for text in [
            r#"{"code":105,"extFields":{"topic":"TopicA"},"flag":0,"language":"JAVA","opaque":0,"serializeTypeCurrentRPC":"JSON","version":479}"#,
            r#"{"code":0,"flag":1,"language":"JAVA","opaque":-12,"remark":"a\"b\\c\n\u0001","serializeTypeCurrentRPC":"JSON","version":479}"#,
            r#"{"code":22,"extFields":{},"flag":1,"language":"GO","opaque":2147483647,"serializeTypeCurrentRPC":"JSON","version":479}"#,
        ] {
            let head = head(text).unwrap();
            let mut out = BytesMut::new();
            let fields = head.fields.is_present().then_some(&head.fields as &dyn EncodeFields);
            write(&mut out, &head.parts(), fields);
            assert_eq!(std::str::from_utf8(&out).unwrap(), text);
        }
    }

    #[test]
    fn variations_clients_send() {
        let head = head("{code:206,'flag':0,language:'JAVA',\"opaque\":\"77\",,version:479,x:{a:[1,'}']},}\n").unwrap();
        assert_eq!((head.code, head.opaque, head.version, head.language), (206, 77, 479, Language::JAVA));
        assert_eq!(head.remark, None);
    }

    #[test]
    fn white_space_may_stand_anywhere_between_tokens() {
        let tokens = [
            "{",
            "\"code\"",
            ":",
            "105",
            ",",
            "\"extFields\"",
            ":",
            "{",
            "\"topic\"",
            ":",
            "\"T\"",
            ",",
            "\"n\"",
            ":",
            "5",
            "}",
            ",",
            "\"opaque\"",
            ":",
            "7",
            "}",
        ];
        for at in 0..=tokens.len() {
            for space in [" ", "\n", "\t  "] {
                let text = [tokens[..at].concat(), space.to_owned(), tokens[at..].concat()].concat();
                let head = head(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
                assert_eq!((head.code, head.opaque), (105, 7), "{text:?}");
                assert_eq!(list(&head), [("topic".into(), "T".into()), ("n".into(), "5".into())], "{text:?}");
            }
        }
        // As Python writes it.
        assert_eq!(list(&head(&tokens.join(" ")).unwrap()).len(), 2);
    }

    #[test]
    fn absent_members() {
        let head = head("{}").unwrap();
        assert_eq!(
            (head.code, head.opaque, head.version, head.flags, head.language),
            (0, 0, 0, Flags(0), Language::JAVA)
        );
        assert!(!head.fields.is_present());
        assert!(!super::parse(Bytes::from_static(b"{\"extFields\":null}")).unwrap().fields.is_present());
    }

    #[test]
    fn languages() {
        assert_eq!(head(r#"{"language":"KLINGON"}"#).unwrap().language, Language::UNKNOWN);
        assert_eq!(head(r#"{"language":9}"#).unwrap().language, Language::GO);
        assert_eq!(head(r#"{"language":null}"#).unwrap().language, Language::JAVA);
        assert!(head(r#"{"language":99}"#).is_err());
    }

    #[test]
    fn ext_values_become_text() {
        let head = head(r#"{"extFields":{"a":1,"b":true,"c":null,"d":{"x":1},"e":"\u0001\ud83d\ude00\x41","f":-2.5}}"#)
            .unwrap();
        let want = [("a", "1"), ("b", "true"), ("d", r#"{"x":1}"#), ("e", "\u{1}😀A"), ("f", "-2.5")];
        assert_eq!(list(&head), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        let head = head(r#"{"extFields":{"a":"\ud83dx","b":"\ude00","c":"\ud83d\ud83d\ude00","d":"\ud83d"}}"#).unwrap();
        let values: Vec<_> = list(&head).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["\u{fffd}x", "\u{fffd}", "\u{fffd}😀", "\u{fffd}"]);
    }

    #[test]
    fn what_closes_the_connection() {
        for text in [
            "",
            " ",
            "[]",
            "null",
            "{",
            "{bad json}",
            r#"{"code":206"#,
            r#"{"code":x}"#,
            r#"{"code":1}}"#,
            r#"{"code":1} x"#,
            r#"{"extFields":[1]}"#,
            r#"{"extFields":"x"}"#,
            r#"{"extFields":{"a" 1}}"#,
            r#"{"remark":"\q"}"#,
            r#"{"code":1e99}"#,
            r#"{"remark":"\u12"}"#,
            r#"{"a":[}"#,
            r#"{"code":99999999999}"#,
            "{\"a\":\"\\",
            "{'a':{",
            r#"{"a":1"b":2}"#,
        ] {
            // A list closed by a brace is not seen as long as nobody looks into it; the frame's end then is.
            assert!(head(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_are_fastjsons() {
        let mut out = BytesMut::new();
        write_escaped(&mut out, "\u{1}\u{b}\u{1f}\u{7f}\u{80}\u{9f}\u{a0}é/'\u{2028}\u{2026}订😀\"\\\t");
        let want = "\\u0001\\u000B\\u001F\\u007F\\u0080\\u009F\u{a0}é/'\\u2028\u{2026}订😀\\\"\\\\\\t";
        assert_eq!(std::str::from_utf8(&out).unwrap(), want);
    }

    #[test]
    fn integers() {
        for value in [0, 7, -1, i32::MAX, i32::MIN] {
            let mut out = BytesMut::new();
            put_int(&mut out, value);
            assert_eq!(std::str::from_utf8(&out).unwrap(), value.to_string());
        }
    }
}
