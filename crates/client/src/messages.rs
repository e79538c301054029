//! Reading messages: by id, by key, by place in a queue.

use ferromq_protocol::header::{PullReply, PullRequest, QueryMessageRequest, ViewMessageRequest};
use ferromq_protocol::message::OffsetMessageId;
use ferromq_protocol::message::properties::names;
use ferromq_protocol::{Command, RequestCode, ResponseCode};

use crate::{Admin, AdminError, FoundMessage};

/// How far back a unique key is looked for, in milliseconds before its own time. Java: three days.
const UNIQUE_KEY_RANGE_MS: i64 = 3 * 24 * 3_600_000;

/// What a pull found. Java: `PullStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStatus {
    Found,
    NoNewMessage,
    NoMatchedMessage,
    OffsetIllegal,
}

impl PullStatus {
    pub fn java_name(self) -> &'static str {
        match self {
            PullStatus::Found => "FOUND",
            PullStatus::NoNewMessage => "NO_NEW_MSG",
            PullStatus::NoMatchedMessage => "NO_MATCHED_MSG",
            PullStatus::OffsetIllegal => "OFFSET_ILLEGAL",
        }
    }
}

/// One answer to a pull.
#[derive(Debug)]
pub struct PullResult {
    pub status: PullStatus,
    pub next_offset: u64,
    pub min_offset: u64,
    pub max_offset: u64,
    pub messages: Vec<FoundMessage>,
}

impl Admin {
    /// By offset id (asks the broker named in it) or by unique key (asks every broker of the topic). `None`: there is no such message.
    pub async fn message_by_id(&self, topic: &str, id: &str) -> Result<Option<FoundMessage>, AdminError> {
        if let Ok(place) = id.parse::<OffsetMessageId>()
            && let Ok(message) = self.view_message(&place, topic).await
        {
            return Ok(Some(message));
        }
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64);
        let mut found = self.query(topic, id, 32, (now - UNIQUE_KEY_RANGE_MS, i64::MAX), true).await?;
        found.retain(|message| message.property(names::UNIQUE_KEY) == Some(id));
        Ok(if found.is_empty() { None } else { Some(found.swap_remove(0)) })
    }

    /// By business key: QUERY_MESSAGE (12) at every broker of the topic. Hash collisions are dropped.
    pub async fn messages_by_key(
        &self,
        topic: &str,
        key: &str,
        count_max: i32,
        begin: i64,
        end: i64,
    ) -> Result<Vec<FoundMessage>, AdminError> {
        let mut found = self.query(topic, key, count_max, (begin, end), false).await?;
        found.retain(|message| {
            message.topic() == topic
                && message.property(names::KEYS).is_some_and(|keys| keys.split(' ').any(|known| known == key))
        });
        Ok(found)
    }

    async fn query(
        &self,
        topic: &str,
        key: &str,
        count_max: i32,
        range: (i64, i64),
        unique: bool,
    ) -> Result<Vec<FoundMessage>, AdminError> {
        let mut found = Vec::new();
        for addr in self.route(topic).await?.broker_datas.iter().filter_map(|broker| broker.replica()) {
            let header = QueryMessageRequest {
                topic: topic.into(),
                key: key.into(),
                max_num: count_max,
                begin_timestamp: range.0,
                end_timestamp: range.1,
            };
            let mut request = Command::request(RequestCode::QUERY_MESSAGE, &header);
            if unique {
                request = request.with_field("_UNIQUE_KEY_QUERY", "true");
            }
            match self.ask_named(addr, request).await {
                Ok(reply) => {
                    found.extend(FoundMessage::all(&reply.body).map_err(|error| AdminError::malformed(addr, error))?)
                }
                Err(error) if error.code() == Some(ResponseCode::QUERY_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// VIEW_MESSAGE_BY_ID (33).
    pub async fn view_message(&self, place: &OffsetMessageId, topic: &str) -> Result<FoundMessage, AdminError> {
        let addr = place.host.to_string();
        let header = ViewMessageRequest { offset: place.physical_offset.as_i64(), topic: Some(topic.into()) };
        let reply = self.ask_named(&addr, Command::request(RequestCode::VIEW_MESSAGE_BY_ID, &header)).await?;
        FoundMessage::new(reply.body).map_err(|error| AdminError::malformed(&addr, error))
    }

    /// PULL_MESSAGE (11) without waiting and without committing.
    pub async fn pull(
        &self,
        addr: &str,
        group: &str,
        topic: &str,
        queue_id: u32,
        offset: u64,
        count_max: u32,
    ) -> Result<PullResult, AdminError> {
        let header = PullRequest {
            consumer_group: group.into(),
            topic: topic.into(),
            queue_id: queue_id as i32,
            queue_offset: offset as i64,
            max_msg_nums: count_max as i32,
            // Bit 2: the subscription is in the request.
            sys_flag: 4,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some("*".into()),
            sub_version: 0,
            expression_type: Some("TAG".into()),
            max_msg_bytes: None,
            request_source: None,
            proxy_froward_client_id: None,
        };
        let reply = self.invoke_broker(addr, Command::request(RequestCode::PULL_MESSAGE, &header)).await?;
        let status = match reply.response_code() {
            ResponseCode::SUCCESS => PullStatus::Found,
            ResponseCode::PULL_NOT_FOUND => PullStatus::NoNewMessage,
            ResponseCode::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatchedMessage,
            ResponseCode::PULL_OFFSET_MOVED => PullStatus::OffsetIllegal,
            _ => {
                return Err(AdminError::Refused {
                    code: reply.response_code(),
                    remark: reply.remark.as_ref().map(ToString::to_string).unwrap_or_default(),
                    broker: Some(addr.to_owned()),
                });
            }
        };
        let fields: PullReply = reply.header().map_err(AdminError::header(addr))?;
        let mut messages = FoundMessage::all(&reply.body).map_err(|error| AdminError::malformed(addr, error))?;
        for message in &mut messages {
            message.add_property(names::MIN_OFFSET, fields.min_offset);
            message.add_property(names::MAX_OFFSET, fields.max_offset);
        }
        Ok(PullResult {
            status,
            next_offset: fields.next_begin_offset.0,
            min_offset: fields.min_offset.0,
            max_offset: fields.max_offset.0,
            messages,
        })
    }
}
