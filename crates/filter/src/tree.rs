//! What a compiled expression is made of. Only the parser builds it, and it checks what the types do not say.

use crate::value::{Number, Value};

/// Something that is true, false or unknown. Java: `BooleanExpression`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    Constant(Option<bool>),
    /// A bare property. Its value is a string and never a boolean: false when the property is there, else unknown.
    Cast(Box<str>),
    Not(Box<Condition>),
    /// Two or more, as are the terms of `Or`: one node for a whole chain, so that a long chain is not a deep tree.
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Equal(Box<[Operand; 2]>),
    IsNull(Box<Operand>),
    /// The operands are no conditions and no constants other than numbers.
    Compare(Box<[Operand; 2]>, Relation),
    /// Value, low, high; operands as of `Compare`.
    Between {
        operands: Box<[Operand; 3]>,
        negated: bool,
    },
    In {
        property: Box<str>,
        /// Sorted.
        list: Box<[Box<str>]>,
        negated: bool,
    },
    Search {
        place: Place,
        operand: Box<Operand>,
        sought: Box<str>,
        negated: bool,
    },
}

/// Something with a value. Java: `Expression`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Constant(Constant),
    Property(Box<str>),
    Negate(Box<Operand>),
    Condition(Box<Condition>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Constant {
    Null,
    Truth(bool),
    Number(Number),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where a string is sought in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Anywhere,
    Start,
    End,
}

impl Constant {
    pub(crate) fn value(&self) -> Option<Value<'_>> {
        match self {
            Constant::Null => None,
            Constant::Truth(truth) => Some(Value::Truth(*truth)),
            Constant::Number(number) => Some(Value::Number(*number)),
            Constant::Text(text) => Some(Value::Text(text)),
        }
    }
}
