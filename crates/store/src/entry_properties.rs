//! The properties of a message that its queue entry and its index entries are made from.

use ferromq_protocol::message::properties::{self, names};

/// The properties that queue and index entries are made from, found in one walk. Of duplicates the last one counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryProperties<'a> {
    pub tags: Option<&'a str>,
    pub keys: Option<&'a str>,
    pub unique_key: Option<&'a str>,
    pub delay: Option<&'a str>,
}

impl<'a> EntryProperties<'a> {
    pub fn of(properties: &'a str) -> EntryProperties<'a> {
        let mut found = EntryProperties::default();
        for (name, value) in properties::pairs(properties) {
            match name {
                names::TAGS => found.tags = Some(value),
                names::KEYS => found.keys = Some(value),
                names::UNIQUE_KEY => found.unique_key = Some(value),
                names::DELAY_TIME_LEVEL => found.delay = Some(value),
                _ => {}
            }
        }
        found
    }
}
