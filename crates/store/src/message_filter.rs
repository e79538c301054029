//! What a reader asks of a message before it is an answer.

use ferromq_protocol::message::Record;

/// What a consumer wants of a queue.
pub trait MessageFilter {
    /// Decides by the queue entry alone. The code is `None` where an entry has none to offer.
    fn matches_tags_code(&self, tags_code: Option<i64>) -> bool;
    /// Whether [`MessageFilter::matches_record`] has to be asked: it costs a look at each record.
    fn reads_records(&self) -> bool {
        false
    }
    fn matches_record(&self, _record: &Record<'_>) -> bool {
        true
    }
}

/// Lets everything through.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllMessages;

impl MessageFilter for AllMessages {
    fn matches_tags_code(&self, _: Option<i64>) -> bool {
        true
    }
}
