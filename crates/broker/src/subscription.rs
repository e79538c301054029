//! What a consumer wants of a queue: all messages, those with certain tags, or those whose properties satisfy an SQL92 condition.
//!
//! Tags are compared by their codes, which queue entries hold; the client checks the exact text again. A condition is evaluated on the
//! record. Java: `ExpressionMessageFilter`, `ConsumerFilterManager`; spec broker §E.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::sync::Arc;

use ferromq_filter::{CompileError, Expression};
use ferromq_protocol::body::SubscriptionData;
use ferromq_protocol::message::Record;
use ferromq_protocol::message::properties::{pairs, property};
use ferromq_protocol::message::tags::tags_code;
use ferromq_store::{Arrival, MessageFilter};
use parking_lot::Mutex;

/// Bytes of text of the conditions kept in compiled form; beyond it, all are compiled anew when they are next used.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Which messages a pull is for.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    All,
    /// Tags out of the pull itself.
    Codes(Vec<i64>),
    /// Tags out of the group's heartbeat.
    Subscribed(Arc<SubscriptionData>),
    Condition(Arc<Expression>),
}

impl Wanted {
    /// `*` or nothing is everything; `A || B` is a list. `None` for text with separators only.
    pub(crate) fn by_tags(expression: &str) -> Option<Wanted> {
        if matches!(expression.trim(), "" | "*") {
            return Some(Wanted::All);
        }
        let codes: Vec<i64> =
            expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(tags_code).collect();
        (!codes.is_empty()).then_some(Wanted::Codes(codes))
    }

    /// By a subscription's tags; one whose codes are missing is taken by its text. Java: `DefaultMessageFilter.isMatchedByConsumeQueue`.
    pub(crate) fn by_subscribed_tags(subscription: Arc<SubscriptionData>) -> Wanted {
        if subscription.class_filter_mode || subscription.sub_string == "*" {
            Wanted::All
        } else if subscription.code_set.is_empty() {
            Wanted::by_tags(&subscription.sub_string).unwrap_or(Wanted::All)
        } else {
            Wanted::Subscribed(subscription)
        }
    }

    /// Whether a message that has just become visible is wanted.
    pub(crate) fn matches_arrival(&self, arrival: &Arrival<'_>) -> bool {
        match self {
            Wanted::Condition(condition) => is_true(condition, arrival.properties),
            _ => self.matches_tags_code(Some(arrival.tags_code)),
        }
    }
}

impl MessageFilter for Wanted {
    fn matches_tags_code(&self, code: Option<i64>) -> bool {
        match (self, code) {
            (Wanted::All | Wanted::Condition(_), _) | (_, None) => true,
            (Wanted::Codes(codes), Some(code)) => codes.contains(&code),
            (Wanted::Subscribed(subscription), Some(code)) => {
                subscription.code_set.iter().any(|wanted| i64::from(*wanted) == code)
            }
        }
    }

    fn reads_records(&self) -> bool {
        matches!(self, Wanted::Condition(_))
    }

    fn matches_record(&self, record: &Record<'_>) -> bool {
        match self {
            Wanted::Condition(condition) => is_true(condition, &record.properties()),
            _ => true,
        }
    }
}

/// Lookups in one message's properties that scan their text; most conditions need fewer. More of them go through a table, so that a long
/// condition on many properties costs the sum of both and not their product.
const SCANS_MAX: u32 = 16;

/// Whether a condition holds for a message with these properties.
fn is_true(condition: &Expression, properties: &str) -> bool {
    let scans = Cell::new(0);
    let table = OnceCell::new();
    condition.matches(|name| {
        if scans.get() < SCANS_MAX {
            scans.set(scans.get() + 1);
            return property(properties, name);
        }
        table.get_or_init(|| pairs(properties).collect::<HashMap<_, _>>()).get(name).copied()
    })
}

/// Conditions in compiled form, by their text: a pull must not compile one each time.
#[derive(Default)]
pub(crate) struct Conditions {
    compiled: Mutex<Compiled>,
}

#[derive(Default)]
struct Compiled {
    by_text: HashMap<Box<str>, Arc<Expression>>,
    text_bytes: usize,
}

impl Conditions {
    pub(crate) fn compile(&self, text: &str) -> Result<Wanted, CompileError> {
        if let Some(expression) = self.compiled.lock().by_text.get(text) {
            return Ok(Wanted::Condition(Arc::clone(expression)));
        }
        // Not under the lock: the text may be long.
        let expression = Arc::new(Expression::compile(text)?);
        let mut compiled = self.compiled.lock();
        if compiled.text_bytes + text.len() > COMPILED_BYTES_MAX {
            *compiled = Compiled::default();
        }
        compiled.text_bytes += text.len();
        compiled.by_text.insert(text.into(), Arc::clone(&expression));
        Ok(Wanted::Condition(expression))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(expression: &str) -> Option<Vec<i64>> {
        match Wanted::by_tags(expression)? {
            Wanted::Codes(codes) => Some(codes),
            _ => Some(Vec::new()),
        }
    }

    #[test]
    fn tag_expressions() {
        assert_eq!(codes("*"), Some(vec![]));
        assert_eq!(codes(""), Some(vec![]));
        assert_eq!(codes("TagA || TagB"), Some(vec![2_598_919, 2_598_920]));
        assert_eq!(codes("TagA||"), Some(vec![2_598_919]));
        assert_eq!(codes("||"), None);
        let wanted = Wanted::by_tags("TagA").unwrap();
        assert!(wanted.matches_tags_code(Some(2_598_919)));
        // A message without a tag has code 0 and never matches a list.
        assert!(!wanted.matches_tags_code(Some(0)));
    }

    #[test]
    fn a_condition_sees_the_same_however_often_it_looks() {
        let properties = "a\u{1}1\u{2}b\u{1}2\u{2}a\u{1}3\u{2}c\u{1}\u{2}";
        for looks in [1, SCANS_MAX as usize, 100] {
            let holds = |last| {
                let mut terms = vec!["b <> '2'"; looks - 1];
                terms.push(last);
                is_true(&Expression::compile(&terms.join(" OR ")).unwrap(), properties)
            };
            assert!(holds("a = '3'") && holds("c IS NULL") && !holds("a = '1'"), "{looks} looks");
        }
    }

    #[test]
    fn conditions_are_compiled_once_and_bounded() {
        let conditions = Conditions::default();
        assert!(conditions.compile("a >").is_err());
        let long = |name: &str| format!("{name} = '{}'", "x".repeat(COMPILED_BYTES_MAX / 5));
        for name in ["a", "b", "c", "d", "a"] {
            conditions.compile(&long(name)).unwrap();
        }
        assert_eq!(conditions.compiled.lock().by_text.len(), 4);
        conditions.compile(&long("e")).unwrap();
        assert_eq!(conditions.compiled.lock().by_text.len(), 1);
    }
}
