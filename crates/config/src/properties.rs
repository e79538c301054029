//! Java `.properties` text to entries with the line each one starts on. Syntax: `java.util.Properties.load`.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// One `key = value`, escapes resolved. A key that stands twice yields two entries; the later one wins in Java.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Line the entry starts on, from 1.
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// The only thing that Java's reader refuses; every other line is some key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `\\u` must be followed by four hexadecimal digits")]
pub struct MalformedProperties {
    pub line: usize,
}

/// Bytes of a config file or request body to text, without the byte order mark that some editors put in front: UTF-8, or Latin-1 where it is not valid UTF-8.
/// Java reads Latin-1 always, which garbles what people write today; for ASCII, which all keys are, there is no difference.
pub fn decode_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// Entries in the order of the text.
pub fn parse_properties(text: &str) -> Result<Vec<Entry>, MalformedProperties> {
    let mut entries = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while chars.peek().is_some() {
        skip_blanks(&mut chars);
        match chars.peek() {
            None => break,
            Some('#' | '!') => while chars.next_if(|&c| !is_line_end(c)).is_some() {},
            Some(&c) if is_line_end(c) => {}
            Some(_) => entries.push(entry(&mut chars, &mut line)?),
        }
        if take_line_end(&mut chars) {
            line += 1;
        }
    }
    Ok(entries)
}

/// Reads up to, not including, the end of the logical line. `line` moves on over continuations.
fn entry(chars: &mut Peekable<Chars<'_>>, line: &mut usize) -> Result<Entry, MalformedProperties> {
    let start = *line;
    let mut key = String::new();
    while let Some(c) = chars.next_if(|&c| !is_line_end(c) && !is_blank(c) && c != '=' && c != ':') {
        plain_or_escaped(c, chars, line, &mut key)?;
    }
    // A backslash that ended the key's line continues the logical line; the separator may stand on the next one.
    skip_blanks(chars);
    if chars.next_if(|&c| c == '=' || c == ':').is_some() {
        skip_blanks(chars);
    }
    let mut value = String::new();
    while let Some(c) = chars.next_if(|&c| !is_line_end(c)) {
        plain_or_escaped(c, chars, line, &mut value)?;
    }
    Ok(Entry { line: start, key, value })
}

fn plain_or_escaped(
    c: char,
    chars: &mut Peekable<Chars<'_>>,
    line: &mut usize,
    out: &mut String,
) -> Result<(), MalformedProperties> {
    if c != '\\' {
        out.push(c);
        return Ok(());
    }
    if take_line_end(chars) {
        *line += 1;
        skip_blanks(chars);
        return Ok(());
    }
    match chars.next() {
        None => {}
        Some('t') => out.push('\t'),
        Some('n') => out.push('\n'),
        Some('r') => out.push('\r'),
        Some('f') => out.push('\u{c}'),
        Some('u') => {
            let first = utf16_unit(chars, *line)?;
            out.push(match char::from_u32(first) {
                Some(c) => c,
                None => low_half(first, chars, *line)?,
            });
        }
        Some(other) => out.push(other),
    }
    Ok(())
}

/// The second `\uXXXX` of a surrogate pair; a lone surrogate becomes the replacement character.
fn low_half(high: u32, chars: &mut Peekable<Chars<'_>>, line: usize) -> Result<char, MalformedProperties> {
    let mut ahead = chars.clone();
    if ahead.next() == Some('\\') && ahead.next() == Some('u') {
        let low = utf16_unit(&mut ahead, line)?;
        if let Some(Ok(c)) = char::decode_utf16([high, low].map(|unit| unit as u16)).next() {
            *chars = ahead;
            return Ok(c);
        }
    }
    Ok(char::REPLACEMENT_CHARACTER)
}

fn utf16_unit(chars: &mut Peekable<Chars<'_>>, line: usize) -> Result<u32, MalformedProperties> {
    let mut unit = 0;
    for _ in 0..4 {
        let digit = chars.next().and_then(|c| c.to_digit(16)).ok_or(MalformedProperties { line })?;
        unit = unit * 16 + digit;
    }
    Ok(unit)
}

fn skip_blanks(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|&c| is_blank(c)).is_some() {}
}

/// `\n`, `\r` or `\r\n`.
fn take_line_end(chars: &mut Peekable<Chars<'_>>) -> bool {
    match chars.next_if(|&c| is_line_end(c)) {
        None => false,
        Some(c) => {
            if c == '\r' {
                chars.next_if_eq(&'\n');
            }
            true
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<(usize, String, String)> {
        parse_properties(text).unwrap().into_iter().map(|e| (e.line, e.key, e.value)).collect()
    }

    fn entry(line: usize, key: &str, value: &str) -> (usize, String, String) {
        (line, key.into(), value.into())
    }

    #[test]
    fn separators_comments_and_lines() {
        let text = "# comment\n  ! another = x\n\na=1\n b : 2\r\nc 3\rd\ne = \n=f\n";
        let expected = [
            entry(4, "a", "1"),
            entry(5, "b", "2"),
            entry(6, "c", "3"),
            entry(7, "d", ""),
            entry(8, "e", ""),
            entry(9, "", "f"),
        ];
        assert_eq!(entries(text), expected);
    }

    #[test]
    fn continuation_and_escapes() {
        let text = "list = a;\\\n    b;\\\r\n\tc\nnext=1\nkey\\ with\\=odd\\:signs = x\\ty\\u0041\\q\n\\#k=v\nlast=x\\";
        let expected = [
            entry(1, "list", "a;b;c"),
            entry(4, "next", "1"),
            entry(5, "key with=odd:signs", "x\tyAq"),
            entry(6, "#k", "v"),
            entry(7, "last", "x"),
        ];
        assert_eq!(entries(text), expected);
        // Two backslashes are one character, not a continuation; a comment is never continued.
        assert_eq!(
            entries("a=x\\\\\nb=1\n# c \\\nd=2"),
            [entry(1, "a", "x\\"), entry(2, "b", "1"), entry(4, "d", "2")]
        );
        assert_eq!(entries("a=\\uD83D\\uDE00 \\uD83D"), [entry(1, "a", "😀 \u{fffd}")]);
    }

    #[test]
    fn xml_head_of_shipped_files_is_a_key() {
        assert_eq!(entries("<!--\n  Licensed to the ASF\n-->\nx=1")[2..], [entry(3, "-->", ""), entry(4, "x", "1")]);
    }

    #[test]
    fn bad_unicode_escape_names_its_line() {
        assert_eq!(parse_properties("a=1\nb=\\u00g0"), Err(MalformedProperties { line: 2 }));
    }

    #[test]
    fn latin_1_when_not_utf_8() {
        assert_eq!(decode_text(b"caf\xe9"), "café");
        assert_eq!(decode_text("café".as_bytes()), "café");
        assert_eq!(decode_text("\u{feff}brokerName=a".as_bytes()), "brokerName=a");
    }

    proptest! {
        #[test]
        fn never_panics_and_lines_grow(text in "[ \\t\\\\=:#!a-zé\\r\\nu0-9]{0,80}") {
            if let Ok(entries) = parse_properties(&text) {
                prop_assert!(entries.windows(2).all(|pair| pair[0].line < pair[1].line));
            }
        }
    }
}
