//! Text to tokens, one at a time: what stands behind a complete expression is not read, and so may be anything.

use crate::error::{CompileError, Problem};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'t> {
    End,
    /// The name of a property.
    Name(&'t str),
    /// Digits.
    Whole(&'t str),
    /// A number with a point or an exponent.
    Fraction(&'t str),
    /// What is between the quotes, where a quote is still doubled.
    Text(&'t str),
    And,
    Between,
    Contains,
    EndsWith,
    False,
    In,
    Is,
    Not,
    Null,
    Or,
    StartsWith,
    True,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
}

impl Token<'_> {
    /// Whether it stands between an operand and what the operand is compared with, `=` and IS aside.
    pub(crate) fn begins_comparison(self) -> bool {
        use Token::*;
        matches!(
            self,
            Less | LessOrEqual | Greater | GreaterOrEqual | Not | Between | In | Contains | StartsWith | EndsWith
        )
    }
}

const KEYWORDS: &[(&str, Token<'static>)] = &[
    ("AND", Token::And),
    ("BETWEEN", Token::Between),
    ("CONTAINS", Token::Contains),
    ("ENDSWITH", Token::EndsWith),
    ("FALSE", Token::False),
    ("IN", Token::In),
    ("IS", Token::Is),
    ("NOT", Token::Not),
    ("NULL", Token::Null),
    ("OR", Token::Or),
    ("STARTSWITH", Token::StartsWith),
    ("TRUE", Token::True),
];

pub(crate) struct Lexer<'t> {
    text: &'t str,
    /// Where the token that was read last begins and ends, in bytes.
    start: usize,
    end: usize,
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Lexer<'t> {
        Lexer { text, start: 0, end: 0 }
    }

    pub(crate) fn next_token(&mut self) -> Result<Token<'t>, CompileError> {
        self.skip_blanks_and_comments()?;
        self.start = self.end;
        let rest = &self.text[self.start..];
        let (token, len) = match rest.as_bytes() {
            [] => (Token::End, 0),
            [b'=', ..] => (Token::Equal, 1),
            [b'<', b'>', ..] => (Token::NotEqual, 2),
            [b'<', b'=', ..] => (Token::LessOrEqual, 2),
            [b'<', ..] => (Token::Less, 1),
            [b'>', b'=', ..] => (Token::GreaterOrEqual, 2),
            [b'>', ..] => (Token::Greater, 1),
            [b'(', ..] => (Token::Open, 1),
            [b')', ..] => (Token::Close, 1),
            [b',', ..] => (Token::Comma, 1),
            [b'+', ..] => (Token::Plus, 1),
            [b'-', ..] => (Token::Minus, 1),
            [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => number(rest),
            [b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$', ..] => word(rest),
            [b'\'', ..] => match quoted(rest) {
                Some(found) => found,
                None => return Err(self.error(self.start, Problem::Unclosed { what: "string", end: "'" })),
            },
            _ => {
                let c = rest.chars().next().unwrap_or_default();
                return Err(self.error(self.start, Problem::Unreadable(c)));
            }
        };
        self.end = self.start + len;
        Ok(token)
    }

    /// Where the token that was read last begins.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The token that was read last, as a message shows it.
    pub(crate) fn shown(&self) -> String {
        if self.start == self.text.len() { "the end".to_owned() } else { shorten(&self.text[self.start..self.end]) }
    }

    pub(crate) fn error(&self, at: usize, problem: Problem) -> CompileError {
        CompileError { position: self.text[..at].chars().count() + 1, problem: Box::new(problem) }
    }

    fn skip_blanks_and_comments(&mut self) -> Result<(), CompileError> {
        loop {
            let rest = self.text[self.end..].trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.end = self.text.len() - rest.len();
            if let Some(comment) = rest.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(len) => self.end += 2 + len + 2,
                    None => return Err(self.error(self.end, Problem::Unclosed { what: "comment", end: "*/" })),
                }
            } else if rest.starts_with("--")
                && let Some(len) = rest.find(['\n', '\r'])
            {
                self.end += len;
            } else {
                // Two dashes in the last line are two signs, as in Java, whose comment must see the end of its line.
                return Ok(());
            }
        }
    }
}

/// At most 40 characters, so that a long literal does not make a long message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn number(rest: &str) -> (Token<'_>, usize) {
    let bytes = rest.as_bytes();
    let digits_at = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits_at(0);
    let mut len = whole;
    if bytes.get(len) == Some(&b'.') {
        len += 1 + digits_at(len + 1);
    }
    if let Some(b'e' | b'E') = bytes.get(len) {
        let digits = len + 1 + usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
        let count = digits_at(digits);
        if count > 0 {
            len = digits + count;
        }
    }
    if len > whole {
        (Token::Fraction(&rest[..len]), len)
    } else if bytes[0] == b'0' {
        // A zero goes alone: `007` is three tokens.
        (Token::Whole(&rest[..1]), 1)
    } else {
        (Token::Whole(&rest[..whole]), whole + usize::from(matches!(bytes.get(whole), Some(b'l' | b'L'))))
    }
}

fn word(rest: &str) -> (Token<'_>, usize) {
    let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')).count();
    let word = &rest[..len];
    let keyword = KEYWORDS.iter().find(|(keyword, _)| word.eq_ignore_ascii_case(keyword));
    (keyword.map_or(Token::Name(word), |(_, token)| *token), len)
}

/// `None` if the closing quote is missing.
fn quoted(rest: &str) -> Option<(Token<'_>, usize)> {
    let mut end = 1;
    loop {
        end += rest[end..].find('\'')?;
        if !rest[end + 1..].starts_with('\'') {
            return Some((Token::Text(&rest[1..end]), end + 1));
        }
        end += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text);
        std::iter::from_fn(|| Some(lexer.next_token().unwrap()).filter(|token| *token != Token::End)).collect()
    }

    fn error(text: &str) -> String {
        let mut lexer = Lexer::new(text);
        loop {
            match lexer.next_token() {
                Ok(Token::End) => panic!("{text} is fine"),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn words_and_keywords() {
        assert_eq!(
            tokens("NOT not nOtx $a.5 _"),
            [Token::Not, Token::Not, Token::Name("nOtx"), Token::Name("$a"), Token::Fraction(".5"), Token::Name("_")]
        );
        assert_eq!(tokens("in(isnull"), [Token::In, Token::Open, Token::Name("isnull")]);
    }

    #[test]
    fn numbers_end_where_java_ends_them() {
        let (whole, fraction) = (Token::Whole, Token::Fraction);
        assert_eq!(tokens("0 10 10L 10l5"), [whole("0"), whole("10"), whole("10"), whole("10"), whole("5")]);
        assert_eq!(tokens("007"), [whole("0"), whole("0"), whole("7")]);
        assert_eq!(tokens("0L"), [whole("0"), Token::Name("L")]);
        assert_eq!(
            tokens("5. 00.5 5.e3 1E+5 1.5.5"),
            [fraction("5."), fraction("00.5"), fraction("5.e3"), fraction("1E+5"), fraction("1.5"), fraction(".5")]
        );
        assert_eq!(tokens("1e 1e+"), [whole("1"), Token::Name("e"), whole("1"), Token::Name("e"), Token::Plus]);
    }

    #[test]
    fn strings_and_comments() {
        assert_eq!(tokens("'' '''' 'a''b'"), [Token::Text(""), Token::Text("''"), Token::Text("a''b")]);
        assert_eq!(tokens("a--b\rc/**/d/***/e/* * / */"), ["a", "c", "d", "e"].map(Token::Name));
        assert_eq!(tokens("a --b"), [Token::Name("a"), Token::Minus, Token::Minus, Token::Name("b")]);
        assert_eq!(error("é 'a''"), "at character 1: 'é' has no meaning here");
        assert_eq!(error("'é' 'a''"), "at character 5: this string has no end, `'` is missing");
        assert_eq!(error("a /*/"), "at character 3: this comment has no end, `*/` is missing");
        assert_eq!(error("a . b"), "at character 3: '.' has no meaning here");
    }
}
