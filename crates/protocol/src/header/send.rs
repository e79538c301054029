//! Sending. Java: `SendMessageRequestHeader`, `SendMessageRequestHeaderV2`, `SendMessageResponseHeader`.

use crate::{ByteString, EncodeFields, FieldWriter, GroupName, Header, QueueId, QueueOffset, RequestCode, TopicName};

/// Store a message, or a batch: SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), and the replies of
/// request/reply, SEND_REPLY_MESSAGE (324) and its V2 (325). Java: `SendMessageRequestHeader`, `SendMessageRequestHeaderV2`.
///
/// `command.header::<SendRequest>()` picks the long or the one-letter names by the code. With the one-letter names an
/// unreadable number fails the header ([`crate::HeaderError::Invalid`]); with the long ones it counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Header)]
#[header(short_codes(
    RequestCode::SEND_MESSAGE_V2,
    RequestCode::SEND_BATCH_MESSAGE,
    RequestCode::SEND_REPLY_MESSAGE_V2
))]
pub struct SendRequest {
    #[header(short = "a")]
    pub producer_group: GroupName,
    #[header(short = "b")]
    pub topic: TopicName,
    /// Template for a topic that does not exist yet.
    #[header(short = "c")]
    pub default_topic: TopicName,
    /// Queues the client wishes for a topic that does not exist yet.
    #[header(short = "d")]
    pub default_topic_queue_nums: i32,
    /// Negative: the broker chooses a queue.
    #[header(short = "e")]
    pub queue_id: i32,
    #[header(short = "f")]
    pub sys_flag: i32,
    /// ms, the client's clock.
    #[header(short = "g")]
    pub born_timestamp: i64,
    /// The user's own; kept, never looked at.
    #[header(short = "h")]
    pub flag: i32,
    /// The property string (module [`crate::message::properties`]).
    #[header(short = "i")]
    pub properties: Option<ByteString>,
    #[header(short = "j", default)]
    pub reconsume_times: i32,
    #[header(short = "k", default)]
    pub unit_mode: bool,
    #[header(short = "l")]
    pub max_reconsume_times: Option<i32>,
    /// This, not the code, says that the body is a batch.
    #[header(short = "m", default)]
    pub batch: bool,
    /// Only the one-letter form has it; the long form writes `bname`, from 5.0 on.
    #[header(short = "n", name = "bname")]
    pub broker_name: Option<ByteString>,
}

impl SendRequest {
    /// The same header under its one-letter names, to be sent with a V2 or batch code.
    pub fn short_names(&self) -> ShortNames<'_> {
        ShortNames(self)
    }
}

/// Writes a [`SendRequest`] under its one-letter names.
pub struct ShortNames<'a>(&'a SendRequest);

impl EncodeFields for ShortNames<'_> {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        self.0.encode_short_fields(out);
    }
}

/// Where a message went. Java: `SendMessageResponseHeader`, and two ext fields beside it.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct SendReply {
    /// Offset message id; for a batch one per message, comma-separated.
    pub msg_id: ByteString,
    pub queue_id: QueueId,
    /// Of the first message of a batch.
    pub queue_offset: QueueOffset,
    /// The message's unique key.
    pub transaction_id: Option<ByteString>,
    pub batch_uniq_id: Option<ByteString>,
    pub recall_handle: Option<ByteString>,
    /// Clients read the two as soon as the header is there; refused sends carry them too.
    #[header(name = "MSG_REGION")]
    pub region: Option<ByteString>,
    #[header(name = "TRACE_ON")]
    pub trace_on: Option<bool>,
}

/// Broker to client: the reply to a request it made, PUSH_REPLY_MESSAGE_TO_CLIENT (326). Java: `ReplyMessageRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct PushReplyRequest {
    pub producer_group: GroupName,
    pub topic: TopicName,
    pub default_topic: TopicName,
    pub default_topic_queue_nums: i32,
    pub queue_id: i32,
    pub sys_flag: i32,
    /// ms.
    pub born_timestamp: i64,
    pub flag: i32,
    pub properties: Option<ByteString>,
    pub reconsume_times: Option<i32>,
    #[header(default)]
    pub unit_mode: bool,
    /// `ip:port`.
    pub born_host: ByteString,
    /// `ip:port`.
    pub store_host: ByteString,
    /// ms.
    pub store_timestamp: i64,
}

/// Take a delayed message back: RECALL_MESSAGE (370). Java: `RecallMessageRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct RecallRequest {
    pub producer_group: Option<GroupName>,
    pub topic: TopicName,
    pub recall_handle: ByteString,
}

/// Answer to 370. Java: `RecallMessageResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct RecallReply {
    pub msg_id: ByteString,
}
