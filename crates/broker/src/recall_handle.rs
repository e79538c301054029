//! What names a message for a given time, so that it can be taken back: text that the reply to its send carries and a recall brings back.
//!
//! Java: `RecallMessageHandle`.

use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::URL_SAFE;

/// First word of a handle: the version of its form.
const VERSION: &str = "v1";

/// A handle taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecallHandle {
    pub topic: String,
    pub broker: String,
    /// The text says one millisecond more: Java rounds the time in it down to seconds, and so finds the right one.
    pub due_ms: i64,
    pub unique_key: String,
}

impl RecallHandle {
    /// `None` for what no broker has given.
    pub(crate) fn parse(text: &str) -> Option<RecallHandle> {
        let text = String::from_utf8(URL_SAFE.decode(text).ok()?).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let [VERSION, topic, broker, time, unique_key] = words[..] else { return None };
        // Text that is no number is a time that is past, as in Java.
        let due_ms = time.parse::<i64>().unwrap_or(0).saturating_sub(1);
        Some(RecallHandle { topic: topic.into(), broker: broker.into(), due_ms, unique_key: unique_key.into() })
    }
}

impl fmt::Display for RecallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecallHandle { topic, broker, due_ms, unique_key } = self;
        let text = format!("{VERSION} {topic} {broker} {} {unique_key}", due_ms.saturating_add(1));
        Base64Display::new(text.as_bytes(), &URL_SAFE).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_javas() {
        let handle = RecallHandle {
            topic: "TopicA".into(),
            broker: "broker-a".into(),
            due_ms: 1_800_000_000_000,
            unique_key: "KEY".into(),
        };
        let text = handle.to_string();
        assert_eq!(URL_SAFE.decode(&text).unwrap(), b"v1 TopicA broker-a 1800000000001 KEY");
        assert_eq!(RecallHandle::parse(&text), Some(handle));
        assert!(RecallHandle::parse(&URL_SAFE.encode("v1 a b x k")).is_some_and(|handle| handle.due_ms < 0));
        for wrong in ["v2 a b 1 k", "v1 a b 1"] {
            assert_eq!(RecallHandle::parse(&URL_SAFE.encode(wrong)), None);
        }
        assert_eq!((RecallHandle::parse(""), RecallHandle::parse("?")), (None, None));
    }
}
