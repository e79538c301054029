//! Tokens to a tree: one function for each level of precedence, and the checks that Java makes while it compiles.
//!
//! Java: `SelectorParser.jj`, and the `create...` methods of its expression classes.

use crate::Expression;
use crate::error::{CompileError, Problem};
use crate::lexer::{Lexer, Token, shorten};
use crate::tree::{Condition, Constant, Operand, Place, Relation};
use crate::value::Number;

type ParseResult<T = Operand> = Result<T, CompileError>;

pub(crate) fn parse(text: &str) -> ParseResult<Condition> {
    let mut lexer = Lexer::new(text);
    if text.len() > Expression::LEN_MAX {
        return Err(lexer.error(0, Problem::TooLong { len: text.len() }));
    }
    let token = lexer.next_token()?;
    let mut parser = Parser { lexer, token, nesting: 0 };
    let start = parser.lexer.start();
    let whole = parser.or()?;
    // As Java, nobody asks whether the text ends here.
    parser.condition(start, whole)
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The one token of lookahead.
    token: Token<'t>,
    /// Open levels, and the links of chains (see `link`): no tree becomes deeper than a few times this.
    nesting: usize,
}

impl<'t> Parser<'t> {
    fn or(&mut self) -> ParseResult {
        let start = self.lexer.start();
        let first = self.and()?;
        if self.token == Token::Or { self.joined(start, first, Self::and, Condition::Or) } else { Ok(first) }
    }

    fn and(&mut self) -> ParseResult {
        let start = self.lexer.start();
        let first = self.equality()?;
        if self.token == Token::And { self.joined(start, first, Self::equality, Condition::And) } else { Ok(first) }
    }

    /// The terms behind `first`, which begins at `start`, as long as the operator that follows it is repeated.
    fn joined(
        &mut self,
        start: usize,
        first: Operand,
        term: fn(&mut Self) -> ParseResult,
        join: fn(Vec<Condition>) -> Condition,
    ) -> ParseResult {
        let operator = self.token;
        let mut terms = vec![self.condition(start, first)?];
        while self.take(operator)? {
            let start = self.lexer.start();
            let term = term(self)?;
            terms.push(self.condition(start, term)?);
        }
        Ok(operand(join(terms)))
    }

    fn equality(&mut self) -> ParseResult {
        let start = self.lexer.start();
        let mut left = self.comparison()?;
        let mut links = 0;
        while let Token::Equal | Token::NotEqual | Token::Is = self.token {
            left = self.equated(start, left)?;
            self.link(&mut links)?;
        }
        Ok(left)
    }

    /// `left`, which begins at `start`, with the `=`, `<>` or IS that follows it.
    fn equated(&mut self, start: usize, left: Operand) -> ParseResult {
        let operator = self.token;
        self.advance()?;
        let (condition, negated) = if operator == Token::Is {
            let negated = self.take(Token::Not)?;
            self.expect(Token::Null, if negated { "NULL" } else { "NULL or NOT NULL" })?;
            (Condition::IsNull(Box::new(left)), negated)
        } else {
            (self.equal(start, left)?, operator == Token::NotEqual)
        };
        Ok(operand(if negated { Condition::Not(Box::new(condition)) } else { condition }))
    }

    /// What follows a `=` or `<>`.
    fn equal(&mut self, start: usize, left: Operand) -> ParseResult<Condition> {
        let right_start = self.lexer.start();
        let right = self.comparison()?;
        for (start, side) in [(start, &left), (right_start, &right)] {
            if *side == Operand::Constant(Constant::Null) {
                return Err(self.lexer.error(start, Problem::EqualsNull));
            }
        }
        // Only this way around: Java lets `5 = TRUE` pass, which is false.
        if let Operand::Constant(Constant::Truth(_)) = left
            && let Operand::Constant(Constant::Number(_) | Constant::Text(_)) = right
        {
            return Err(self.lexer.error(start, Problem::TruthEqualsOther));
        }
        Ok(Condition::Equal(Box::new([left, right])))
    }

    fn comparison(&mut self) -> ParseResult {
        let start = self.lexer.start();
        let mut left = self.unary()?;
        let mut links = 0;
        while self.token.begins_comparison() {
            left = operand(self.compared(start, left)?);
            self.link(&mut links)?;
        }
        Ok(left)
    }

    /// `left`, which begins at `start`, with the comparison that follows it.
    fn compared(&mut self, start: usize, left: Operand) -> ParseResult<Condition> {
        let negated = self.take(Token::Not)?;
        match self.token {
            Token::Between => self.between(start, left, negated),
            Token::In => self.listed(start, left, negated),
            Token::Contains => self.search(left, Place::Anywhere, negated),
            Token::StartsWith => self.search(left, Place::Start, negated),
            Token::EndsWith => self.search(left, Place::End, negated),
            _ if negated => Err(self.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH after NOT")),
            Token::Less => self.compare(start, left, Relation::Less),
            Token::LessOrEqual => self.compare(start, left, Relation::LessOrEqual),
            Token::Greater => self.compare(start, left, Relation::Greater),
            Token::GreaterOrEqual => self.compare(start, left, Relation::GreaterOrEqual),
            _ => Err(self.unexpected("a comparison")),
        }
    }

    fn compare(&mut self, start: usize, left: Operand, relation: Relation) -> ParseResult<Condition> {
        self.advance()?;
        let left = self.comparable(start, left)?;
        let right = self.bound()?;
        Ok(Condition::Compare(Box::new([left, right]), relation))
    }

    fn between(&mut self, start: usize, value: Operand, negated: bool) -> ParseResult<Condition> {
        self.advance()?;
        let value = self.comparable(start, value)?;
        let low_start = self.lexer.start();
        let low = self.bound()?;
        self.expect(Token::And, "AND between the two bounds of BETWEEN")?;
        let high = self.bound()?;
        // Java looks at literals alone, not at `-5`, and not with NOT.
        if let (Operand::Constant(Constant::Number(least)), Operand::Constant(Constant::Number(most))) = (&low, &high)
            && !negated
            && least.order(*most).is_gt()
        {
            return Err(self.lexer.error(low_start, Problem::EmptyRange));
        }
        Ok(Condition::Between { operands: Box::new([value, low, high]), negated })
    }

    fn listed(&mut self, start: usize, left: Operand, negated: bool) -> ParseResult<Condition> {
        let Operand::Property(property) = left else {
            return Err(self.lexer.error(start, Problem::PropertyExpected { found: describe(&left) }));
        };
        self.advance()?;
        self.expect(Token::Open, "`(` and a list of strings")?;
        let mut list = vec![self.string()?];
        while self.take(Token::Comma)? {
            list.push(self.string()?);
        }
        self.expect(Token::Close, "`,` or `)`")?;
        list.sort_unstable();
        Ok(Condition::In { property, list: list.into(), negated })
    }

    fn search(&mut self, left: Operand, place: Place, negated: bool) -> ParseResult<Condition> {
        self.advance()?;
        Ok(Condition::Search { place, operand: Box::new(left), sought: self.string()?, negated })
    }

    fn unary(&mut self) -> ParseResult {
        if !matches!(self.token, Token::Plus | Token::Minus | Token::Not | Token::Open) {
            return self.leaf();
        }
        self.deepen()?;
        let operand = self.nested()?;
        self.nesting -= 1;
        Ok(operand)
    }

    /// A sign, NOT or parenthesis with what it is for.
    fn nested(&mut self) -> ParseResult {
        let opening = self.token;
        self.advance()?;
        match opening {
            // Without effect, even before a string.
            Token::Plus => self.unary(),
            Token::Minus => Ok(Operand::Negate(Box::new(self.unary()?))),
            Token::Not => {
                let start = self.lexer.start();
                let negated = self.unary()?;
                Ok(operand(Condition::Not(Box::new(self.condition(start, negated)?))))
            }
            _ => {
                let inner = self.or()?;
                self.expect(Token::Close, "`)`")?;
                Ok(inner)
            }
        }
    }

    fn leaf(&mut self) -> ParseResult {
        let leaf = match self.token {
            Token::Name(name) => Operand::Property(name.into()),
            Token::Whole(digits) => Operand::Constant(Constant::Number(self.whole(digits)?)),
            Token::Fraction(text) => Operand::Constant(Constant::Number(self.fraction(text)?)),
            Token::Text(quoted) => Operand::Constant(Constant::Text(unquote(quoted))),
            Token::True => Operand::Constant(Constant::Truth(true)),
            Token::False => Operand::Constant(Constant::Truth(false)),
            Token::Null => Operand::Constant(Constant::Null),
            _ => return Err(self.unexpected("a property, a literal, NOT, a sign or `(`")),
        };
        self.advance()?;
        Ok(leaf)
    }

    fn whole(&self, digits: &str) -> ParseResult<Number> {
        match digits.parse::<i64>() {
            // An `L` behind the digits does not make a small number long.
            Ok(number) => Ok(i32::try_from(number).map_or(Number::Long(number), Number::Int)),
            Err(_) => Err(self.lexer.error(self.lexer.start(), Problem::NumberTooLarge)),
        }
    }

    fn fraction(&self, text: &str) -> ParseResult<Number> {
        match text.parse::<f64>() {
            // Java means to refuse what is too small for a double, and refuses 0.0 with it.
            Ok(number) if number > 0.0 && number.is_finite() => Ok(Number::Double(number)),
            _ => Err(self.lexer.error(self.lexer.start(), Problem::FractionOutOfRange)),
        }
    }

    fn string(&mut self) -> ParseResult<Box<str>> {
        let Token::Text(quoted) = self.token else { return Err(self.unexpected("a string in single quotes")) };
        self.advance()?;
        Ok(unquote(quoted))
    }

    fn bound(&mut self) -> ParseResult {
        let start = self.lexer.start();
        let bound = self.unary()?;
        self.comparable(start, bound)
    }

    /// `operand`, which begins at `start`, where a condition is needed.
    fn condition(&self, start: usize, operand: Operand) -> ParseResult<Condition> {
        match operand {
            Operand::Condition(condition) => Ok(*condition),
            Operand::Property(name) => Ok(Condition::Cast(name)),
            Operand::Constant(Constant::Truth(truth)) => Ok(Condition::Constant(Some(truth))),
            Operand::Constant(Constant::Null) => Ok(Condition::Constant(None)),
            Operand::Constant(Constant::Number(_) | Constant::Text(_)) | Operand::Negate(_) => {
                Err(self.lexer.error(start, Problem::ConditionExpected { found: describe(&operand) }))
            }
        }
    }

    /// `operand`, which begins at `start`, as a side of `<` and its kin.
    fn comparable(&self, start: usize, operand: Operand) -> ParseResult {
        match operand {
            Operand::Property(_) | Operand::Negate(_) | Operand::Constant(Constant::Number(_)) => Ok(operand),
            Operand::Condition(_) | Operand::Constant(_) => {
                Err(self.lexer.error(start, Problem::NumberExpected { found: describe(&operand) }))
            }
        }
    }

    /// `a = b = c` is `(a = b) = c`: each link but the first puts what is left of it one level deeper. That is never taken back, for
    /// what encloses the chain encloses these levels too.
    fn link(&mut self, links: &mut usize) -> ParseResult<()> {
        *links += 1;
        if *links == 1 { Ok(()) } else { self.deepen() }
    }

    fn deepen(&mut self) -> ParseResult<()> {
        self.nesting += 1;
        if self.nesting > Expression::NESTING_MAX {
            return Err(self.lexer.error(self.lexer.start(), Problem::TooDeep));
        }
        Ok(())
    }

    fn advance(&mut self) -> ParseResult<()> {
        self.token = self.lexer.next_token()?;
        Ok(())
    }

    /// Whether `token` was next. If so, it is behind us now.
    fn take(&mut self, token: Token<'_>) -> ParseResult<bool> {
        let found = self.token == token;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, token: Token<'_>, expected: &'static str) -> ParseResult<()> {
        if self.take(token)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> CompileError {
        self.lexer.error(self.lexer.start(), Problem::Unexpected { expected, found: self.lexer.shown() })
    }
}

fn operand(condition: Condition) -> Operand {
    Operand::Condition(Box::new(condition))
}

/// As a message names it.
fn describe(operand: &Operand) -> String {
    match operand {
        Operand::Constant(Constant::Null) => "NULL".to_owned(),
        Operand::Constant(Constant::Truth(true)) => "TRUE".to_owned(),
        Operand::Constant(Constant::Truth(false)) => "FALSE".to_owned(),
        Operand::Constant(Constant::Number(_)) => "a number".to_owned(),
        Operand::Constant(Constant::Text(text)) => format!("'{}'", shorten(text)),
        Operand::Property(name) => format!("the property {}", shorten(name)),
        Operand::Negate(_) => "a number with a sign".to_owned(),
        Operand::Condition(_) => "a condition".to_owned(),
    }
}

fn unquote(quoted: &str) -> Box<str> {
    quoted.replace("''", "'").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, expected) in [
            ("", "at character 1: expected a property, a literal, NOT, a sign or `(`, found the end"),
            ("a = )", "at character 5: expected a property, a literal, NOT, a sign or `(`, found )"),
            ("(a = 1 b", "at character 8: expected `)`, found b"),
            (
                "a NOT NULL",
                "at character 7: expected BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH after NOT, found NULL",
            ),
            ("a IS 5", "at character 6: expected NULL or NOT NULL, found 5"),
            ("a IN ('x' 'y')", "at character 11: expected `,` or `)`, found 'y'"),
            ("a BETWEEN 1, 5", "at character 12: expected AND between the two bounds of BETWEEN, found ,"),
            ("é = 1", "at character 1: 'é' has no meaning here"),
            ("s = 'é' AND !", "at character 13: '!' has no meaning here"),
            ("a > 'x'", "at character 5: `<`, `>` and BETWEEN compare numbers and properties, not 'x'"),
            ("NOT a > 1", "at character 1: `<`, `>` and BETWEEN compare numbers and properties, not a condition"),
            ("NOT a IN ('x')", "at character 1: IN needs a property on its left, not a condition"),
            ("a OR 5", "at character 6: expected a condition or a property, found a number"),
            ("a = NULL", "at character 5: NULL equals nothing; write IS NULL or IS NOT NULL"),
            ("TRUE = 5", "at character 1: TRUE and FALSE cannot equal a number or a string"),
            ("a BETWEEN 5 AND 1", "at character 11: BETWEEN needs the lower number first"),
            ("a = 9223372036854775808", "at character 5: this number is above 9223372036854775807"),
            (
                "a = 0.0",
                "at character 5: this number is not between 4.9E-324 and 1.8E308; zero is written 0, without a point",
            ),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn a_long_literal_makes_no_long_message() {
        let text = format!("a > '{}'", "é".repeat(1000));
        assert!(error(&text).len() < 200);
        let text = format!("a IN {}", "b".repeat(1000));
        assert!(error(&text).len() < 200);
    }
}
