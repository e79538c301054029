//! Walking over a body's text: scalars, and skipping whole values, within budgets. Knows no types.

use std::borrow::Cow;

use super::error::{DEPTH_MAX, JsonError, REFERENCES_MAX};
use super::lexer::Lexer;

/// Most bytes walked to find what references point at.
const REFERENCE_BYTES_MAX: usize = 1 << 28;

/// A position in a text and what is left of its budgets.
pub(super) struct Scanner<'t> {
    pub lexer: Lexer<'t>,
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
    pub fn new(text: &'t str, objects_max: u32) -> Scanner<'t> {
        Scanner {
            lexer: Lexer::new(text),
            depth: 0,
            objects_left: objects_max,
            references_left: REFERENCES_MAX,
            reference_bytes_left: REFERENCE_BYTES_MAX,
        }
    }

    pub fn syntax<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Ok(self.lexer.missing(expected)?)
    }

    /// One level down; paired with [`Scanner::leave`].
    pub fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(JsonError::TooDeep { at: self.lexer.at }) } else { Ok(()) }
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Takes a value that is not an array or object.
    pub fn scalar(&mut self) -> Result<Scalar<'t>, JsonError> {
        if let Some(b'"' | b'\'') = self.lexer.peek() {
            return Ok(Scalar::Text(self.lexer.string()?));
        }
        Ok(match self.lexer.bare()? {
            "null" => Scalar::Null,
            "true" => Scalar::Bool(true),
            "false" => Scalar::Bool(false),
            number => Scalar::Number(number),
        })
    }

    /// Moves past a whole value of any kind.
    pub fn skip_value(&mut self) -> Result<(), JsonError> {
        match self.lexer.peek() {
            Some(b'{') => {
                self.enter()?;
                self.lexer.at += 1;
                while self.lexer.peek_element() != Some(b'}') {
                    self.skip_name()?;
                    self.skip_value()?;
                }
                self.lexer.at += 1;
                self.leave();
                Ok(())
            }
            Some(b'[') => {
                self.enter()?;
                self.lexer.at += 1;
                while self.lexer.peek_element() != Some(b']') {
                    self.skip_value()?;
                }
                self.lexer.at += 1;
                self.leave();
                Ok(())
            }
            _ => self.scalar().map(|_| ()),
        }
    }

    /// Moves past a member name of any kind and its colon.
    pub fn skip_name(&mut self) -> Result<(), JsonError> {
        if matches!(self.lexer.peek(), Some(b'{' | b'[')) {
            self.skip_value()?;
        } else {
            self.lexer.name()?;
        }
        Ok(self.lexer.expect(b':', "a colon")?)
    }
}
