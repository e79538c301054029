//! Why an expression cannot be compiled, or has no answer for a message.

use std::fmt;

use crate::Expression;

/// Displays as one line for the person who wrote the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    pub(crate) position: usize,
    /// In a box because a recursive parser passes many results on, and their size is its stack.
    pub(crate) problem: Box<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    TooLong { len: usize },
    TooDeep,
    Unreadable(char),
    Unclosed { what: &'static str, end: &'static str },
    Unexpected { expected: &'static str, found: String },
    NumberTooLarge,
    FractionOutOfRange,
    ConditionExpected { found: String },
    NumberExpected { found: String },
    PropertyExpected { found: String },
    EqualsNull,
    TruthEqualsOther,
    EmptyRange,
}

impl CompileError {
    /// Where in the text, in characters from 1.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: ", self.position)?;
        match &*self.problem {
            Problem::TooLong { len } => write!(f, "the text has {len} bytes, the limit is {}", Expression::LEN_MAX),
            Problem::TooDeep => write!(f, "nested deeper than {} levels", Expression::NESTING_MAX),
            Problem::Unreadable(c) => write!(f, "{c:?} has no meaning here"),
            Problem::Unclosed { what, end } => write!(f, "this {what} has no end, `{end}` is missing"),
            Problem::Unexpected { expected, found } => write!(f, "expected {expected}, found {found}"),
            Problem::NumberTooLarge => write!(f, "this number is above {}", i64::MAX),
            Problem::FractionOutOfRange => {
                write!(f, "this number is not between 4.9E-324 and 1.8E308; zero is written 0, without a point")
            }
            Problem::ConditionExpected { found } => write!(f, "expected a condition or a property, found {found}"),
            Problem::NumberExpected { found } => {
                write!(f, "`<`, `>` and BETWEEN compare numbers and properties, not {found}")
            }
            Problem::PropertyExpected { found } => write!(f, "IN needs a property on its left, not {found}"),
            Problem::EqualsNull => write!(f, "NULL equals nothing; write IS NULL or IS NOT NULL"),
            Problem::TruthEqualsOther => write!(f, "TRUE and FALSE cannot equal a number or a string"),
            Problem::EmptyRange => write!(f, "BETWEEN needs the lower number first"),
        }
    }
}

impl std::error::Error for CompileError {}

/// Why there is no answer for a message. Such a message does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationError {
    /// A property was compared with a number and is none, or none of that kind: `5.5` and `5000000000` against `a > 5`.
    NotANumber,
    /// A condition was compared with a string on its right side (`TRUE = a`), which Java cannot do; `a = TRUE` is fine.
    TruthBeforeText,
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EvaluationError::NotANumber => "a value is not a number of the kind that it is compared with",
            EvaluationError::TruthBeforeText => "a condition cannot be compared with a string on its right",
        })
    }
}

impl std::error::Error for EvaluationError {}
