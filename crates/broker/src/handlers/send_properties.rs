//! The properties of a message between producer and store: what a send looks for in them, and what the broker adds and takes out.
//!
//! One pass over the text, no map. Java: `SendMessageProcessor.sendMessage`, `HookUtils.handleScheduleMessage`.

use std::net::SocketAddr;

use ferromq_protocol::QueueId;
use ferromq_protocol::message::properties::{self, PROPERTY_SEPARATOR, names};
use ferromq_protocol::message::{UniqueKeySource, millis_in_month};

use crate::clock::now_ms;
use crate::destination::{Destination, push_property};
use crate::timers::TimerWish;

/// What the broker adds to every message.
pub(super) struct AddedProperties {
    /// Ready to append.
    text: String,
    unique_keys: UniqueKeySource,
}

impl AddedProperties {
    pub(super) fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        store_host: SocketAddr,
    ) -> AddedProperties {
        let mut text = String::new();
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        let process = std::process::id();
        let generator = process.rotate_left(16) ^ u32::from(store_host.port());
        AddedProperties { text, unique_keys: UniqueKeySource::new(store_host.ip(), process, generator) }
    }

    /// A unique key for a message that came without one.
    pub(super) fn unique_key(&self) -> String {
        self.unique_keys.next(millis_in_month(now_ms())).to_string()
    }

    /// Writes the properties as stored of a message for this topic and queue: the client's, without those that only the broker may set,
    /// then the broker's own, among them a unique key if one was made.
    pub(super) fn write(
        &self,
        text: &mut String,
        found: &SendProperties<'_>,
        destination: Destination,
        (topic, queue): (&str, QueueId),
        made_key: Option<&str>,
    ) {
        let from_client = found.text;
        if found.needs_cleaning || destination != Destination::Own {
            for (name, value) in properties::pairs(from_client) {
                if !is_brokers_own(name) && !destination.replaces(name) {
                    push_property(text, name, value);
                }
            }
        } else {
            text.push_str(from_client);
            if !from_client.is_empty() && !from_client.ends_with(PROPERTY_SEPARATOR) {
                text.push(PROPERTY_SEPARATOR);
            }
        }
        let unique_key = made_key.or(found.unique_key).unwrap_or_default();
        let mark = |text: &mut String| destination.push_marks(text, topic, queue, unique_key);
        if !destination.waits() {
            mark(text);
        }
        if let Some(key) = made_key {
            push_property(text, names::UNIQUE_KEY, key);
        }
        text.push_str(&self.text);
        if destination.waits() {
            mark(text);
        }
    }
}

/// Properties that producers cannot set: the broker's value wins, or they mean nothing on a new message.
fn is_brokers_own(name: &str) -> bool {
    matches!(name, names::MSG_REGION | names::TRACE_SWITCH | names::CLUSTER | names::POP_CHECK_POINT | names::CRC32)
}

/// A property that must be a number and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("java.lang.NumberFormatException: For input string: \"{value}\"")]
pub(super) struct NotANumber<'a> {
    value: &'a str,
}

/// The properties of a message as its client sends it, and what one pass over them found.
#[derive(Clone, Copy)]
pub(super) struct SendProperties<'a> {
    /// All of them.
    text: &'a str,
    pub unique_key: Option<&'a str>,
    /// Delay level, as the producer wrote it.
    delay: Option<&'a str>,
    pub timer: TimerWish<'a>,
    pub half: bool,
    /// Seconds, as the producer wrote them: age at which an open transaction is asked after.
    pub immunity: Option<&'a str>,
    /// False when the producer does not want to wait for flush and replicas.
    pub waits: bool,
    /// Holds a property that only the broker may set.
    needs_cleaning: bool,
}

impl<'a> SendProperties<'a> {
    pub(super) fn of(text: &'a str) -> SendProperties<'a> {
        let mut found = SendProperties {
            text,
            unique_key: None,
            delay: None,
            timer: TimerWish::default(),
            half: false,
            immunity: None,
            waits: true,
            needs_cleaning: false,
        };
        for (name, value) in properties::pairs(text) {
            match name {
                names::UNIQUE_KEY => found.unique_key = Some(value),
                names::DELAY_TIME_LEVEL => found.delay = Some(value),
                names::TRANSACTION_PREPARED => found.half = value.eq_ignore_ascii_case("true"),
                names::CHECK_IMMUNITY_TIME_IN_SECONDS => found.immunity = Some(value),
                names::WAIT_STORE_MSG_OK => found.waits = value.eq_ignore_ascii_case("true"),
                _ if found.timer.notice(name, value) => {}
                _ => found.needs_cleaning |= is_brokers_own(name),
            }
        }
        found
    }

    /// 0 when there is none. What Java's `Integer.parseInt` reads: a sign, decimal digits, 32 bits.
    pub(super) fn delay_level(&self) -> Result<i32, NotANumber<'a>> {
        self.delay.map_or(Ok(0), |value| value.parse().map_err(|_| NotANumber { value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_notices_what_matters() {
        let found = SendProperties::of(
            "UNIQ_KEY\u{1}K\u{2}DELAY\u{1}3\u{2}WAIT\u{1}false\u{2}TRAN_MSG\u{1}TRUE\u{2}POP_CK\u{1}x\u{2}TIMER_DELAY_MS\u{1}9",
        );
        assert_eq!((found.unique_key, found.delay_level()), (Some("K"), Ok(3)));
        assert_eq!(found.timer.delay_ms, Some("9"));
        assert!(found.half && found.needs_cleaning && !found.waits);
        let nothing = SendProperties::of("TAGS\u{1}a\u{2}DELAY\u{1}x\u{2}");
        assert_eq!((nothing.unique_key, nothing.delay_level()), (None, Err(NotANumber { value: "x" })));
        assert!(nothing.timer.delay_ms.is_none() && !nothing.half && !nothing.needs_cleaning && nothing.waits);
    }

    #[test]
    fn the_brokers_own_properties_win() {
        let added = AddedProperties::new([(names::CLUSTER, "C")], ([127, 0, 0, 1], 10911).into());
        let stored = |from_client: &str, destination, made_key| {
            let mut text = String::new();
            added.write(&mut text, &SendProperties::of(from_client), destination, ("T", QueueId(1)), made_key);
            text
        };
        // C++ and Go leave the last separator out.
        let kept = stored("UNIQ_KEY\u{1}K\u{2}TAGS\u{1}a", Destination::Own, None);
        assert_eq!(kept, "UNIQ_KEY\u{1}K\u{2}TAGS\u{1}a\u{2}CLUSTER\u{1}C\u{2}");
        let cleaned = stored("CLUSTER\u{1}other\u{2}UNIQ_KEY\u{1}K\u{2}POP_CK\u{1}x\u{2}", Destination::Own, None);
        assert_eq!(cleaned, "UNIQ_KEY\u{1}K\u{2}CLUSTER\u{1}C\u{2}");
        let dead = stored("DELAY\u{1}3\u{2}UNIQ_KEY\u{1}K\u{2}", Destination::GroupTopic { level: -1 }, None);
        assert_eq!(dead, "UNIQ_KEY\u{1}K\u{2}DELAY\u{1}-1\u{2}CLUSTER\u{1}C\u{2}");
        let half = stored("TRAN_MSG\u{1}true\u{2}REAL_TOPIC\u{1}x\u{2}UNIQ_KEY\u{1}K\u{2}", Destination::Half, None);
        assert_eq!(
            half,
            "TRAN_MSG\u{1}true\u{2}UNIQ_KEY\u{1}K\u{2}CLUSTER\u{1}C\u{2}REAL_TOPIC\u{1}T\u{2}REAL_QID\u{1}1\u{2}__transactionId__\u{1}K\u{2}"
        );
        let key = added.unique_key();
        assert_eq!(key.len(), 32);
        assert_eq!(stored("", Destination::Own, Some(&key)), format!("UNIQ_KEY\u{1}{key}\u{2}CLUSTER\u{1}C\u{2}"));
    }
}
