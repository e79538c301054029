//! The property string of a message: `name 0x01 value 0x02`, repeated.
//!
//! Reading a value never builds a map; editing works on one growing string. Everything takes one pass over the text, or a fixed number of
//! them: a peer sets how long it is and how many names are in it. The rules for malformed pieces are Java's
//! (MessageDecoder.string2messageProperties): a piece counts only with a name and a value, later duplicates win.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use crate::short_text::first_of;

/// Between a name and its value.
pub const NAME_VALUE_SEPARATOR: char = '\u{1}';
/// After every pair; the last one may be missing.
pub const PROPERTY_SEPARATOR: char = '\u{2}';
/// Longest property string a record can hold, in bytes: its length is a signed 16-bit number.
pub const PROPERTIES_LEN_MAX: usize = i16::MAX as usize;

/// As many pairs as most messages have at most.
const FEW: usize = 32;

/// Reserved property names. Java: MessageConst.
pub mod names {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT_STORE_MSG_OK: &str = "WAIT";
    pub const DELAY_TIME_LEVEL: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const BUYER_ID: &str = "BUYER_ID";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const TRANSFER_FLAG: &str = "TRANSFER_FLAG";
    pub const CORRECTION_FLAG: &str = "CORRECTION_FLAG";
    pub const MQ2_FLAG: &str = "MQ2_FLAG";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_SWITCH: &str = "TRACE_ON";
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    pub const EXTEND_UNIQ_INFO: &str = "EXTEND_UNIQ_INFO";
    pub const CONSUME_START_TIME: &str = "CONSUME_START_TIME";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const INNER_BASE: &str = "INNER_BASE";
    pub const DUP_INFO: &str = "DUP_INFO";
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const TRANSACTION_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const INSTANCE_ID: &str = "INSTANCE_ID";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const TTL: &str = "TTL";
    pub const MESSAGE_TYPE: &str = "MSG_TYPE";
    pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const CLUSTER: &str = "CLUSTER";
    pub const POP_CHECK_POINT: &str = "POP_CK";
    pub const POP_CHECK_POINT_OFFSET: &str = "POP_CK_OFFSET";
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const FORWARD_QUEUE_ID: &str = "PROPERTY_FORWARD_QUEUE_ID";
    pub const REDIRECT: &str = "REDIRECT";
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
    pub const TRACE_CONTEXT: &str = "TRACE_CONTEXT";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    pub const TIMER_DELAY_LEVEL: &str = "TIMER_DELAY_LEVEL";
    pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
    pub const BORN_HOST: &str = "__BORNHOST";
    pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
    pub const CRC32: &str = "__CRC32#";
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    pub const TRANSIENT_TOPIC_SYS_FLAG: &str = "__RMQ.TRANSIENT.TOPIC_SYS_FLAG";
    pub const TRANSIENT_GROUP_SYS_FLAG: &str = "__RMQ.TRANSIENT.GROUP_SYS_FLAG";
    /// Value of [`MESSAGE_TYPE`] on the answer of a request/reply exchange.
    pub const REPLY_MESSAGE_TYPE: &str = "reply";
}

/// The well-formed pairs of a property string, in order, duplicates included.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        const NAME_END: u8 = NAME_VALUE_SEPARATOR as u8;
        const PAIR_END: u8 = PROPERTY_SEPARATOR as u8;
        while !rest.is_empty() {
            // Both are ASCII, so a cut beside one is on a character boundary.
            let name_end = first_of(NAME_END, PAIR_END, rest.as_bytes()).unwrap_or(rest.len());
            let (name, behind) = (&rest[..name_end], rest.get(name_end + 1..).unwrap_or_default());
            if rest.as_bytes().get(name_end) != Some(&NAME_END) {
                rest = behind;
                continue;
            }
            let value_end = first_of(PAIR_END, PAIR_END, behind.as_bytes()).unwrap_or(behind.len());
            let value = &behind[..value_end];
            rest = behind.get(value_end + 1..).unwrap_or_default();
            if !name.is_empty() && !value.is_empty() {
                return Some((name, value));
            }
        }
        None
    })
}

/// The value of a property; with duplicates the last one counts. Empty values do not exist.
pub fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    pairs(text).filter(|(found, _)| *found == name).last().map(|(_, value)| value)
}

/// The keys a KEYS value stands for: separated by single spaces, empty ones skipped.
pub fn keys(value: &str) -> impl Iterator<Item = &str> {
    value.split(' ').filter(|key| !key.is_empty())
}

fn pair(piece: &str) -> Option<(&str, &str)> {
    let (name, value) = piece.split_once(NAME_VALUE_SEPARATOR)?;
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

/// A property string under edit. Every pair in it is well-formed and ends in the separator, and no name appears twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    text: String,
}

impl Properties {
    pub fn new() -> Properties {
        Properties::default()
    }

    /// Takes over the well-formed pairs of `text`: malformed pieces vanish and of duplicates the last value stays,
    /// as when Java reads the string into a map and writes it again. Order is kept.
    pub fn parse(text: &str) -> Properties {
        let mut properties = Properties { text: String::with_capacity(text.len() + 1) };
        let mut found = [("", ""); FEW];
        let mut count = 0;
        for pair in pairs(text) {
            let Some(place) = found.get_mut(count) else { return properties.parse_many(text) };
            *place = pair;
            count += 1;
        }
        let found = &found[..count];
        for (place, (name, value)) in found.iter().enumerate() {
            if found[place + 1..].iter().all(|(later, _)| later != name) {
                properties.push(name, value);
            }
        }
        properties
    }

    /// Comparing each name with all others would take the square of their number, which a peer sets; a few it finds sooner than a map.
    fn parse_many(mut self, text: &str) -> Properties {
        // Where each name comes last.
        let last: HashMap<&str, usize> = pairs(text).enumerate().map(|(place, (name, _))| (name, place)).collect();
        for (place, (name, value)) in pairs(text).enumerate() {
            if last.get(name) == Some(&place) {
                self.push(name, value);
            }
        }
        self
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn len_bytes(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The value of `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        property(&self.text, name)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.text)
    }

    /// Gives `name` this value, replacing any earlier one; the pair moves to the end. An empty value removes the
    /// property: readers would not see it anyway. The separator characters cannot be part of a name or value and
    /// are left out of what is written.
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.remove(name);
        let start = self.text.len();
        self.push(name, value);
        // One separator of each kind is ours; more, or an empty side, and the pair is written again without them.
        let added = &self.text[start..];
        let separators = added.matches([NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR]).count();
        let well_formed = added.strip_suffix(PROPERTY_SEPARATOR).and_then(pair).is_some();
        if separators != 2 || !well_formed {
            let plain = |text: &str| text.replace([NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR], "");
            let name_plain = plain(name);
            let value_plain = plain(added.get(name.len()..).unwrap_or_default());
            self.text.truncate(start);
            if !name_plain.is_empty() && !value_plain.is_empty() {
                self.remove(&name_plain);
                self.push(&name_plain, value_plain);
            }
        }
    }

    /// Takes the property out; false when it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some((start, end)) = self.span(name) else { return false };
        self.text.replace_range(start..end, "");
        true
    }

    fn push(&mut self, name: &str, value: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{name}{NAME_VALUE_SEPARATOR}{value}{PROPERTY_SEPARATOR}");
    }

    /// Byte range of the pair called `name`, its separator included.
    fn span(&self, name: &str) -> Option<(usize, usize)> {
        let mut start = 0;
        for piece in self.text.split_inclusive(PROPERTY_SEPARATOR) {
            let end = start + piece.len();
            if piece.strip_prefix(name).is_some_and(|rest| rest.starts_with(NAME_VALUE_SEPARATOR)) {
                return Some((start, end));
            }
            start = end;
        }
        None
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn malformed_pieces_are_skipped() {
        let text = "A\u{1}1\u{2}\u{1}x\u{2}B\u{1}\u{2}DELAY\u{3}18\u{2}\u{2}C\u{1}3";
        assert_eq!(pairs(text).collect::<Vec<_>>(), [("A", "1"), ("C", "3")]);
        assert_eq!(Properties::parse(text).as_str(), "A\u{1}1\u{2}C\u{1}3\u{2}");
    }

    #[test]
    fn the_last_duplicate_counts() {
        let text = "A\u{1}1\u{2}B\u{1}2\u{2}A\u{1}3\u{2}A\u{1}\u{2}";
        assert_eq!(property(text, "A"), Some("3"));
        assert_eq!(property(text, "C"), None);
        assert_eq!(Properties::parse(text).as_str(), "B\u{1}2\u{2}A\u{1}3\u{2}");
    }

    #[test]
    fn a_value_may_hold_the_name_separator() {
        // Java cuts at the first separator of a piece.
        assert_eq!(property("A\u{1}x\u{1}y\u{2}", "A"), Some("x\u{1}y"));
    }

    #[test]
    fn edits() {
        let mut properties = Properties::parse("TAGS\u{1}TagA\u{2}KEYS\u{1}k1  k2\u{2}");
        properties.set(names::DELAY_TIME_LEVEL, 3);
        properties.set(names::TAGS, "TagB");
        assert_eq!(properties.as_str(), "KEYS\u{1}k1  k2\u{2}DELAY\u{1}3\u{2}TAGS\u{1}TagB\u{2}");
        assert_eq!(keys(properties.value(names::KEYS).unwrap()).collect::<Vec<_>>(), ["k1", "k2"]);
        assert!(properties.remove(names::KEYS));
        assert!(!properties.remove(names::KEYS));
        properties.set(names::TAGS, "");
        assert_eq!(properties.as_str(), "DELAY\u{1}3\u{2}");
        properties.set("A", "one\u{2}B\u{1}two");
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("DELAY", "3"), ("A", "oneBtwo")]);
    }

    proptest! {
        #[test]
        fn edited_strings_stay_well_formed(text in "[ab\u{1}\u{2}é]{0,24}", name in "[ab\u{1}é]{0,3}", value in "[ab\u{1}\u{2}]{0,4}") {
            let mut properties = Properties::parse(&text);
            properties.set(&name, &value);
            let plain = |text: &str| text.replace(['\u{1}', '\u{2}'], "");
            let (name, value) = (plain(&name), plain(&value));
            if !name.is_empty() && !value.is_empty() {
                prop_assert_eq!(properties.value(&name), Some(value.as_str()));
            }
            prop_assert_eq!(Properties::parse(properties.as_str()), properties);
        }

        #[test]
        fn what_is_taken_over_is_what_readers_see(
            text in prop_oneof!["[abc\u{1}\u{2}]{0,40}", "([a-z]{1,2}\u{1}[ab]{0,2}\u{2}){0,80}"]
        ) {
            let mut expected: Vec<(&str, &str)> = Vec::new();
            for (name, value) in pairs(&text) {
                expected.retain(|(known, _)| *known != name);
                expected.push((name, value));
            }
            let properties = Properties::parse(&text);
            prop_assert_eq!(properties.iter().collect::<Vec<_>>(), expected);
        }
    }

    /// Half a million names and no two alike: work in the square of them would take the better part of an hour, one pass a moment.
    #[test]
    fn many_names_cost_their_length() {
        let text: String = (0..500_000).map(|number| format!("n{number}\u{1}v\u{2}")).collect();
        let begun = std::time::Instant::now();
        let properties = Properties::parse(&text);
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!(properties.as_str(), text);
    }
}
