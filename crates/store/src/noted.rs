//! What dispatch reads from a record's properties, for the queue and for the index.

use ferromq_protocol::message::properties::{self, names};

/// The properties that queue and index entries are made from, found in one walk. Of duplicates the last one counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noted<'a> {
    pub tags: Option<&'a str>,
    pub keys: Option<&'a str>,
    pub unique_key: Option<&'a str>,
    pub delay: Option<&'a str>,
}

impl<'a> Noted<'a> {
    pub fn of(properties: &'a str) -> Noted<'a> {
        let mut noted = Noted::default();
        for (name, value) in properties::pairs(properties) {
            match name {
                names::TAGS => noted.tags = Some(value),
                names::KEYS => noted.keys = Some(value),
                names::UNIQUE_KEY => noted.unique_key = Some(value),
                names::DELAY_TIME_LEVEL => noted.delay = Some(value),
                _ => {}
            }
        }
        noted
    }
}
