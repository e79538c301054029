//! Java's references: the second printing of one object is `{"$ref":"$.path.to.the.first"}`.
//!
//! Only paths from the root are followed; a peer that points at a parent asks for an endless object and is refused.

use super::error::JsonError;
use super::scan::Scanner;

impl Scanner<'_> {
    /// If a reference stands here, moves to what it points at and returns the position after the reference, where
    /// reading goes on. The caller goes one level deeper for each reference it follows.
    pub fn follow_reference(&mut self) -> Result<Option<usize>, JsonError> {
        if self.lexer.peek() != Some(b'{') || !self.might_be_reference() {
            return Ok(None);
        }
        let start = self.lexer.at;
        self.lexer.at += 1;
        let is_reference = matches!(self.lexer.peek(), Some(b'"' | b'\'')) && self.lexer.string()? == "$ref";
        if !is_reference {
            self.lexer.at = start;
            return Ok(None);
        }
        self.lexer.expect(b':', "a colon")?;
        let failed = JsonError::Reference { at: start };
        let Some(b'"' | b'\'') = self.lexer.peek() else {
            return Err(failed);
        };
        let path = self.lexer.string()?;
        self.lexer.expect(b'}', "the end of a reference")?;
        let resume = self.lexer.at;
        self.references_left = self.references_left.checked_sub(1).ok_or(failed.clone())?;
        let depth = self.depth;
        self.depth = 0;
        let found = path.strip_prefix('$').is_some_and(|path| self.walk(path).unwrap_or(false));
        self.depth = depth;
        self.reference_bytes_left = self.reference_bytes_left.checked_sub(self.lexer.at).ok_or(failed.clone())?;
        if found { Ok(Some(resume)) } else { Err(failed) }
    }

    fn might_be_reference(&self) -> bool {
        // Enough for the usual compact text; a blank after the brace makes the slow check decide.
        match self.lexer.text.as_bytes().get(self.lexer.at + 1..self.lexer.at + 3) {
            Some([b'"' | b'\'', b'$']) => true,
            Some([byte, _]) => byte.is_ascii_whitespace(),
            _ => false,
        }
    }

    /// Walks from the root along `.name` and `[index]` steps; false when a step leads nowhere.
    fn walk(&mut self, path: &str) -> Result<bool, JsonError> {
        self.lexer.at = 0;
        let mut rest = path;
        while !rest.is_empty() {
            let step;
            (step, rest) = match next_step(rest) {
                Some(next) => next,
                None => return Ok(false),
            };
            let found = match self.lexer.peek() {
                Some(b'{') => self.walk_into_object(&step)?,
                Some(b'[') => self.walk_into_array(&step)?,
                _ => false,
            };
            if !found {
                return Ok(false);
            }
        }
        Ok(self.lexer.peek().is_some())
    }

    fn walk_into_object(&mut self, wanted: &str) -> Result<bool, JsonError> {
        self.lexer.at += 1;
        while self.lexer.peek_element() != Some(b'}') {
            if matches!(self.lexer.peek(), Some(b'{' | b'[')) {
                self.skip_name()?;
            } else {
                let name = self.lexer.name()?;
                self.lexer.expect(b':', "a colon")?;
                if name == wanted {
                    return Ok(true);
                }
            }
            self.skip_value()?;
        }
        Ok(false)
    }

    fn walk_into_array(&mut self, wanted: &str) -> Result<bool, JsonError> {
        let Ok(index) = wanted.parse::<usize>() else {
            return Ok(false);
        };
        self.lexer.at += 1;
        let mut at = 0;
        while self.lexer.peek_element() != Some(b']') {
            if at == index {
                return Ok(true);
            }
            self.skip_value()?;
            at += 1;
        }
        Ok(false)
    }
}

/// Cuts `.name` (with `\` before special characters) or `[index]` off a path.
fn next_step(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        return Some((index.trim_matches(['"', '\'']).to_owned(), rest));
    }
    let path = path.strip_prefix('.')?;
    let mut name = String::new();
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return Some((name, &path[at..])),
            _ => name.push(c),
        }
    }
    Some((name, ""))
}
