//! Evaluation for one message: three-valued, and in the order in which Java evaluates, because the first error ends it.

use crate::error::EvaluationError;
use crate::tree::{Condition, Operand, Place, Relation};
use crate::value::Value;

/// `None` is unknown.
type Truth = Result<Option<bool>, EvaluationError>;

impl Condition {
    pub(crate) fn truth<'v, P>(&'v self, property: &P) -> Truth
    where
        P: Fn(&str) -> Option<&'v str>,
    {
        match self {
            Condition::Constant(truth) => Ok(*truth),
            Condition::Cast(name) => Ok(property(name).map(|_| false)),
            Condition::Not(condition) => Ok(condition.truth(property)?.map(|truth| !truth)),
            Condition::And(terms) => all(terms.iter().map(|term| term.truth(property))),
            Condition::Or(terms) => any(terms.iter().map(|term| term.truth(property))),
            Condition::Equal(operands) => equal(operands[0].value(property)?, operands[1].value(property)?),
            Condition::IsNull(operand) => Ok(Some(operand.value(property)?.is_none())),
            Condition::Compare(operands, relation) => {
                compare(operands[0].value(property)?, *relation, &operands[1], property)
            }
            Condition::Between { operands, negated } => {
                let [value, low, high] = &**operands;
                let value = value.value(property)?;
                let sides = if *negated {
                    [(Relation::Less, low), (Relation::Greater, high)]
                } else {
                    [(Relation::GreaterOrEqual, low), (Relation::LessOrEqual, high)]
                };
                let sides = sides.into_iter().map(|(relation, bound)| compare(value, relation, bound, property));
                if *negated { any(sides) } else { all(sides) }
            }
            Condition::In { property: name, list, negated } => {
                let listed = |value: &str| list.binary_search_by(|entry| (**entry).cmp(value)).is_ok();
                Ok(property(name).map(|value| listed(value) != *negated))
            }
            // Before the operand, which may be an error.
            Condition::Search { sought, .. } if sought.is_empty() => Ok(Some(false)),
            Condition::Search { place, operand, sought, negated } => Ok(Some(match operand.value(property)? {
                Some(Value::Text(text)) => place.holds(text, sought) != *negated,
                // Not unknown, and not turned by NOT either.
                _ => false,
            })),
        }
    }
}

impl Operand {
    fn value<'v, P>(&'v self, property: &P) -> Result<Option<Value<'v>>, EvaluationError>
    where
        P: Fn(&str) -> Option<&'v str>,
    {
        Ok(match self {
            Operand::Constant(constant) => constant.value(),
            Operand::Property(name) => property(name).map(Value::Text),
            Operand::Negate(operand) => match operand.value(property)? {
                Some(Value::Number(number)) => Some(Value::Number(number.negated())),
                // A property too: its value is a string, which Java does not read as a number here.
                _ => None,
            },
            Operand::Condition(condition) => condition.truth(property)?.map(Value::Truth),
        })
    }
}

impl Relation {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Relation::Less => order.is_lt(),
            Relation::LessOrEqual => order.is_le(),
            Relation::Greater => order.is_gt(),
            Relation::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Place {
    fn holds(self, text: &str, sought: &str) -> bool {
        match self {
            Place::Anywhere => text.contains(sought),
            Place::Start => text.starts_with(sought),
            Place::End => text.ends_with(sought),
        }
    }
}

/// Two absent values are equal; a present one never equals an absent one, but unknown it is only with the absent one on the left.
fn equal(left: Option<Value<'_>>, right: Option<Value<'_>>) -> Truth {
    match (left, right) {
        (None, None) => Ok(Some(true)),
        (None, Some(_)) => Ok(None),
        (Some(_), None) => Ok(Some(false)),
        (Some(left), Some(right)) => Ok(Some(left.order(right)?.is_eq())),
    }
}

fn compare<'v, P>(left: Option<Value<'v>>, relation: Relation, right: &'v Operand, property: &P) -> Truth
where
    P: Fn(&str) -> Option<&'v str>,
{
    let Some(left) = left else { return Ok(None) };
    let Some(right) = right.value(property)? else { return Ok(None) };
    Ok(Some(relation.holds(left.numeric_order(right)?)))
}

fn all(terms: impl Iterator<Item = Truth>) -> Truth {
    let mut outcome = Some(true);
    for term in terms {
        match term? {
            Some(true) => {}
            Some(false) => return Ok(Some(false)),
            None => outcome = None,
        }
    }
    Ok(outcome)
}

fn any(terms: impl Iterator<Item = Truth>) -> Truth {
    let mut outcome = Some(false);
    for term in terms {
        match term? {
            Some(false) => {}
            Some(true) => return Ok(Some(true)),
            None => outcome = None,
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use crate::{EvaluationError, Expression};

    #[test]
    fn what_decides_early_hides_later_errors_only() {
        let truth = |text: &str| Expression::compile(text).unwrap().evaluate(|name| (name == "a").then_some("x"));
        assert_eq!(truth("a = 'x' OR a > 5"), Ok(Some(true)));
        assert_eq!(truth("a > 5 OR a = 'x'"), Err(EvaluationError::NotANumber));
        assert_eq!(truth("a = 'y' AND a > 5"), Ok(Some(false)));
        assert_eq!(truth("b > 5 AND a > 5"), Err(EvaluationError::NotANumber));
        assert_eq!(truth("TRUE = a"), Err(EvaluationError::TruthBeforeText));
    }

    #[test]
    fn a_property_is_read_only_when_it_is_needed() {
        let asked = RefCell::new(Vec::new());
        let expression = Expression::compile("a BETWEEN 1 AND 9 AND b = 1 OR c IN ('x')").unwrap();
        let matched = expression.matches(|name| {
            asked.borrow_mut().push(name.to_owned());
            (name != "b").then_some("10")
        });
        assert!(!matched);
        assert_eq!(*asked.borrow(), ["a", "c"]);
    }
}
