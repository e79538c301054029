//! How a read ended.

/// Java: GetMessageStatus, without NO_MATCHED_LOGIC_QUEUE: 5.3.3 makes a queue of every one it is asked for, and so
/// answers [`ReadStatus::NoMessageInQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    Found,
    NoMatchedMessage,
    MessageWasRemoving,
    OffsetFoundNull,
    OffsetOverflowBadly,
    OffsetOverflowOne,
    OffsetTooSmall,
    /// The queue has no message, or is not known.
    NoMessageInQueue,
}

impl ReadStatus {
    /// As Java's enum constant, which goes into remarks.
    pub fn java_name(self) -> &'static str {
        match self {
            ReadStatus::Found => "FOUND",
            ReadStatus::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            ReadStatus::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            ReadStatus::OffsetFoundNull => "OFFSET_FOUND_NULL",
            ReadStatus::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            ReadStatus::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            ReadStatus::OffsetTooSmall => "OFFSET_TOO_SMALL",
            ReadStatus::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
        }
    }
}
