//! The SQL92 language that consumers filter messages with: an expression over a message's properties, compiled once and evaluated
//! for each message that is read.
//!
//! Accepts, refuses and answers what `SqlFilter` of RocketMQ 5.3.3 does (`tests/golden/filter-5.3.3.txt`), its oddities included: a
//! filter that a group has in use must not select other messages here. Knows no messages, no files, no network; uses no other crate.
//!
//! ```
//! use ferromq_filter::Expression;
//!
//! let expression = Expression::compile("age BETWEEN 18 AND 65 AND city IN ('Paris', 'Lima')")?;
//! let properties = [("age", "40"), ("city", "Lima")];
//! assert!(expression.matches(|name| properties.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)));
//!
//! let error = Expression::compile("age > 'old'").unwrap_err();
//! assert_eq!(error.to_string(), "at character 7: `<`, `>` and BETWEEN compare numbers and properties, not 'old'");
//! # Ok::<(), ferromq_filter::CompileError>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod evaluate;
mod lexer;
mod parser;
mod tree;
mod value;

pub use error::{CompileError, EvaluationError};

use tree::Condition;

/// A compiled filter. Evaluating it takes no memory from the heap.
#[derive(Clone, Debug)]
pub struct Expression {
    condition: Condition,
}

impl Expression {
    /// Longest text that is compiled, in bytes. Java has no limit; a list of ten thousand keys stays below this.
    pub const LEN_MAX: usize = 256 * 1024;

    /// How many parentheses, signs and NOTs may be open at one place. Java ends at its thread's stack, some thousand deep.
    pub const NESTING_MAX: usize = 200;

    /// Takes memory in proportion to the text, and stack for [`NESTING_MAX`](Expression::NESTING_MAX) levels.
    ///
    /// Text behind a complete expression is ignored, as in Java: `a = 1 b = 2` is `a = 1`.
    pub fn compile(text: &str) -> Result<Expression, CompileError> {
        parser::parse(text).map(|condition| Expression { condition })
    }

    /// Whether a message is wanted: a value that is unknown or cannot be compared is a no.
    pub fn matches<'p>(&self, property: impl Fn(&str) -> Option<&'p str>) -> bool {
        self.evaluate(property) == Ok(Some(true))
    }

    /// `None` is SQL's unknown. `property` is asked for each name as often as the expression needs it.
    pub fn evaluate<'p>(&self, property: impl Fn(&str) -> Option<&'p str>) -> Result<Option<bool>, EvaluationError> {
        // The closure around it lets the values live shorter than 'p.
        self.condition.truth(&|name: &str| property(name))
    }
}
