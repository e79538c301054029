//! What a consumer wants of a queue: all messages, those with certain tags, or those whose properties satisfy an SQL92 condition.
//!
//! Tags are compared by their codes, which queue entries hold; the client checks the exact text again. A condition is evaluated on the
//! record. Java: `ExpressionMessageFilter`, `ConsumerFilterManager`.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::sync::Arc;

use ferromq_filter::{CompileError, Expression};
use ferromq_protocol::body::SubscriptionData;
use ferromq_protocol::message::Record;
use ferromq_protocol::message::properties::{pairs, property};
use ferromq_protocol::message::tags::tags_code;
use ferromq_store::MessageFilter;
use parking_lot::Mutex;

/// Most tags of one subscription, and most bytes of its text. Java has no limit; every pull reads the list, and every message it looks at is
/// compared with it.
const TAGS_MAX: usize = 2048;
const TAGS_LEN_MAX: usize = 64 * 1024;

/// A pull that waits for more tags than this is woken by every message of its queue, and looks itself.
const WAKING_CODES_MAX: usize = 64;

/// Bytes that a byte of a condition's text takes in compiled form, at most: `a=1 OR a=1 OR ...`.
const COMPILED_PER_BYTE: usize = 16;

/// Bytes of text of the conditions kept in compiled form; beyond it, some are compiled anew when they are next used.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Which messages a pull is for.
#[derive(Clone, Debug)]
pub(crate) enum PullFilter {
    All,
    /// Tags out of the pull itself.
    Codes(Vec<i64>),
    /// Tags out of the group's heartbeat.
    Subscribed(Arc<SubscriptionData>),
    Condition(Arc<Condition>),
}

/// A compiled condition.
#[derive(Debug)]
pub(crate) struct Condition {
    expression: Expression,
    len_bytes: usize,
}

/// Why a list of tags is no subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TagsError {
    #[error("nothing but separators")]
    NoTags,
    #[error("a list of {0} bytes, the limit is {TAGS_LEN_MAX}")]
    TooLong(usize),
    #[error("more than {TAGS_MAX} tags")]
    TooMany,
}

/// Whether a subscription is one that this broker can keep and compare messages with.
pub(crate) fn check(data: &SubscriptionData) -> Result<(), SubscriptionError> {
    if !SubscriptionData::is_tag_type(Some(&data.expression_type)) {
        return match data.sub_string.len() {
            len if len > Expression::LEN_MAX => Err(SubscriptionError::Condition(len)),
            _ => Ok(()),
        };
    }
    let len = data.sub_string.len() + data.tags_set.iter().map(String::len).sum::<usize>();
    if len > 2 * TAGS_LEN_MAX {
        return Err(TagsError::TooLong(len).into());
    }
    if data.code_set.len() > TAGS_MAX || data.tags_set.len() > TAGS_MAX {
        return Err(TagsError::TooMany.into());
    }
    match PullFilter::by_tags(&data.sub_string) {
        // Its codes may be there all the same.
        Ok(_) | Err(TagsError::NoTags) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Why a subscription is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscriptionError {
    #[error(transparent)]
    Tags(#[from] TagsError),
    #[error("a condition of {0} bytes, the limit is {max}", max = Expression::LEN_MAX)]
    Condition(usize),
}

impl PullFilter {
    /// `*` or nothing is everything; `A || B` is a list.
    pub(crate) fn by_tags(expression: &str) -> Result<PullFilter, TagsError> {
        if expression.len() > TAGS_LEN_MAX {
            return Err(TagsError::TooLong(expression.len()));
        }
        if matches!(expression.trim(), "" | "*") {
            return Ok(PullFilter::All);
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let codes: Vec<i64> = tags.map(tags_code).take(TAGS_MAX + 1).collect();
        match codes.len() {
            0 => Err(TagsError::NoTags),
            count if count > TAGS_MAX => Err(TagsError::TooMany),
            _ => Ok(PullFilter::Codes(codes)),
        }
    }

    /// By a subscription's tags; one whose codes are missing is taken by its text. Java: `DefaultMessageFilter.isMatchedByConsumeQueue`.
    pub(crate) fn by_subscribed_tags(subscription: Arc<SubscriptionData>) -> PullFilter {
        if subscription.class_filter_mode || subscription.sub_string == "*" {
            PullFilter::All
        } else if subscription.code_set.is_empty() {
            PullFilter::by_tags(&subscription.sub_string).unwrap_or(PullFilter::All)
        } else {
            PullFilter::Subscribed(subscription)
        }
    }

    /// Which arrivals are worth a look.
    pub(crate) fn wakes(&self) -> WakeRule {
        match self {
            PullFilter::All => WakeRule::Any,
            PullFilter::Codes(codes) => WakeRule::by(codes.iter().copied()),
            PullFilter::Subscribed(subscription) => {
                WakeRule::by(subscription.code_set.iter().map(|code| i64::from(*code)))
            }
            PullFilter::Condition(condition) => WakeRule::Condition(Arc::clone(condition)),
        }
    }

    /// About what it keeps in memory. A group's subscription is kept anyway.
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            PullFilter::All | PullFilter::Subscribed(_) => 0,
            PullFilter::Codes(codes) => codes.len() * size_of::<i64>(),
            PullFilter::Condition(condition) => condition.len_bytes() * COMPILED_PER_BYTE,
        }
    }
}

/// Which arrivals wake a pull.
#[derive(Clone, Debug)]
pub(crate) enum WakeRule {
    /// None: it looks when its time is up.
    Never,
    Any,
    /// Messages with this tag's code.
    Code(i64),
    /// Messages with one of these.
    Codes(Vec<i64>),
    Condition(Arc<Condition>),
}

impl WakeRule {
    fn by(mut codes: impl ExactSizeIterator<Item = i64>) -> WakeRule {
        match codes.len() {
            1 => codes.next().map_or(WakeRule::Any, WakeRule::Code),
            2..=WAKING_CODES_MAX => WakeRule::Codes(codes.collect()),
            _ => WakeRule::Any,
        }
    }
}

impl MessageFilter for PullFilter {
    fn matches_tags_code(&self, code: Option<i64>) -> bool {
        match (self, code) {
            (PullFilter::All | PullFilter::Condition(_), _) | (_, None) => true,
            (PullFilter::Codes(codes), Some(code)) => codes.contains(&code),
            (PullFilter::Subscribed(subscription), Some(code)) => {
                subscription.code_set.iter().any(|wanted| i64::from(*wanted) == code)
            }
        }
    }

    fn reads_records(&self) -> bool {
        matches!(self, PullFilter::Condition(_))
    }

    fn matches_record(&self, record: &Record<'_>) -> bool {
        match self {
            PullFilter::Condition(condition) => condition.holds(&record.properties()),
            _ => true,
        }
    }
}

/// Lookups in one message's properties that scan their text; most conditions need fewer. More of them go through a table, so that a long
/// condition on many properties costs the sum of both and not their product.
const SCANS_MAX: u32 = 16;

impl Condition {
    fn compile(text: &str) -> Result<Condition, CompileError> {
        Ok(Condition { expression: Expression::compile(text)?, len_bytes: text.len() })
    }

    /// Of its text.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether it holds for a message with these properties.
    pub(crate) fn holds(&self, properties: &str) -> bool {
        let scans = Cell::new(0);
        let table = OnceCell::new();
        self.expression.matches(|name| {
            if scans.get() < SCANS_MAX {
                scans.set(scans.get() + 1);
                return property(properties, name);
            }
            table.get_or_init(|| pairs(properties).collect::<HashMap<_, _>>()).get(name).copied()
        })
    }
}

/// Conditions in compiled form, by their text: a pull must not compile one each time.
#[derive(Default)]
pub(crate) struct Conditions {
    compiled: Mutex<ConditionCache>,
}

#[derive(Default)]
struct ConditionCache {
    by_text: HashMap<Box<str>, Arc<Condition>>,
    text_bytes: usize,
}

impl Conditions {
    pub(crate) fn compile(&self, text: &str) -> Result<PullFilter, CompileError> {
        if let Some(condition) = self.compiled.lock().by_text.get(text) {
            return Ok(PullFilter::Condition(Arc::clone(condition)));
        }
        // Not under the lock: the text may be long.
        let condition = Arc::new(Condition::compile(text)?);
        self.compiled.lock().keep(text, &condition);
        Ok(PullFilter::Condition(condition))
    }
}

impl ConditionCache {
    /// Makes room by forgetting others, whichever come first: nobody keeps everybody's out by bringing new ones all the time.
    fn keep(&mut self, text: &str, condition: &Arc<Condition>) {
        let room = COMPILED_BYTES_MAX - text.len().min(COMPILED_BYTES_MAX);
        if self.text_bytes > room {
            let text_bytes = &mut self.text_bytes;
            self.by_text.retain(|known, _| {
                let stays = *text_bytes <= room;
                if !stays {
                    *text_bytes -= known.len();
                }
                stays
            });
        }
        if self.by_text.insert(text.into(), Arc::clone(condition)).is_none() {
            self.text_bytes += text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(expression: &str) -> Option<Vec<i64>> {
        match PullFilter::by_tags(expression).ok()? {
            PullFilter::Codes(codes) => Some(codes),
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
        let wanted = PullFilter::by_tags("TagA").unwrap();
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
                Condition::compile(&terms.join(" OR ")).unwrap().holds(properties)
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
        let compiled = conditions.compiled.lock();
        assert_eq!(compiled.by_text.len(), 4);
        assert!(compiled.by_text.contains_key(&*long("e")));
        assert_eq!(compiled.text_bytes, compiled.by_text.keys().map(|text| text.len()).sum::<usize>());
    }

    #[test]
    fn what_wakes_a_pull_is_what_it_wants_unless_that_is_long() {
        let wakes = |count: usize| {
            let tags: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
            PullFilter::by_tags(&tags.join("||")).unwrap().wakes()
        };
        assert!(matches!(wakes(1), WakeRule::Code(code) if code == tags_code("t0")));
        assert!(matches!(wakes(WAKING_CODES_MAX), WakeRule::Codes(codes) if codes.len() == WAKING_CODES_MAX));
        assert!(matches!(wakes(WAKING_CODES_MAX + 1), WakeRule::Any));
        assert!(matches!(PullFilter::All.wakes(), WakeRule::Any));
    }

    #[test]
    fn lists_of_tags_have_a_bound_and_say_so() {
        let list = |count: usize| vec!["t"; count].join("||");
        assert!(PullFilter::by_tags(&list(TAGS_MAX)).is_ok());
        assert_eq!(PullFilter::by_tags(&list(TAGS_MAX + 1)).unwrap_err(), TagsError::TooMany);
        let long = "a".repeat(TAGS_LEN_MAX + 1);
        assert_eq!(PullFilter::by_tags(&long).unwrap_err().to_string(), "a list of 65537 bytes, the limit is 65536");
        let of = |sub_string: &str, codes: usize| SubscriptionData {
            sub_string: sub_string.into(),
            code_set: vec![1; codes],
            ..SubscriptionData::default()
        };
        assert!(check(&of("*", 0)).is_ok() && check(&of("||", 1)).is_ok() && check(&of("a||b", TAGS_MAX)).is_ok());
        for wrong in [
            of(&long, 0),
            of("*", TAGS_MAX + 1),
            SubscriptionData { tags_set: vec![long.clone(), long.clone()], ..of("*", 0) },
        ] {
            assert!(check(&wrong).is_err());
        }
        let condition =
            |len| SubscriptionData { expression_type: SubscriptionData::SQL92.into(), ..of(&"a".repeat(len), 0) };
        assert!(check(&condition(Expression::LEN_MAX)).is_ok());
        assert!(check(&condition(Expression::LEN_MAX + 1)).is_err());
    }
}
