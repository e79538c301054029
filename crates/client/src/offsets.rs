//! Queue offsets and the committed offsets of groups.

use ferromq_protocol::body::{MessageQueue, ResetOffsetBody};
use ferromq_protocol::header::{
    MaxOffsetRequest, MinOffsetRequest, OffsetReply, ResetOffsetRequest, SearchOffsetRequest, UpdateOffsetRequest,
};
use ferromq_protocol::{Command, EncodeFields, QueueId, QueueOffset, RequestCode};

use crate::{Admin, AdminError, FoundMessage, Queue};

/// What to reset, and to where.
#[derive(Clone, Copy, Debug)]
pub struct ResetOffset<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    /// Milliseconds since 1970; −1 for the end of each queue.
    pub timestamp: i64,
    /// Without it offsets only move backwards.
    pub force: bool,
    /// One queue only.
    pub queue_id: Option<u32>,
    /// To this offset instead of a time.
    pub offset: Option<u64>,
}

impl Admin {
    /// GET_MIN_OFFSET (31).
    pub async fn min_offset(&self, queue: &Queue) -> Result<u64, AdminError> {
        let header = MinOffsetRequest { topic: queue.topic.as_str().into(), queue_id: QueueId(queue.queue_id) };
        self.offset(&queue.addr, RequestCode::GET_MIN_OFFSET, &header).await
    }

    /// GET_MAX_OFFSET (30).
    pub async fn max_offset(&self, queue: &Queue) -> Result<u64, AdminError> {
        let header =
            MaxOffsetRequest { topic: queue.topic.as_str().into(), queue_id: QueueId(queue.queue_id), committed: true };
        self.offset(&queue.addr, RequestCode::GET_MAX_OFFSET, &header).await
    }

    /// SEARCH_OFFSET_BY_TIMESTAMP (29): the first message stored at or after `timestamp`.
    pub async fn offset_by_time(&self, queue: &Queue, timestamp: i64) -> Result<u64, AdminError> {
        let header = SearchOffsetRequest {
            topic: queue.topic.as_str().into(),
            queue_id: QueueId(queue.queue_id),
            timestamp,
            boundary_type: None,
        };
        self.offset(&queue.addr, RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &header).await
    }

    async fn offset(&self, addr: &str, code: RequestCode, header: &dyn EncodeFields) -> Result<u64, AdminError> {
        let reply = self.ask_named(addr, Command::request(code, header)).await?;
        let reply: OffsetReply = reply.header().map_err(AdminError::header(addr))?;
        Ok(reply.offset.0)
    }

    /// UPDATE_CONSUMER_OFFSET (15).
    pub async fn update_consumer_offset(
        &self,
        addr: &str,
        group: &str,
        topic: &str,
        queue_id: u32,
        offset: u64,
    ) -> Result<(), AdminError> {
        let header = UpdateOffsetRequest {
            consumer_group: group.into(),
            topic: topic.into(),
            queue_id: Some(QueueId(queue_id)),
            commit_offset: Some(offset as i64),
        };
        self.ask_named(addr, Command::request(RequestCode::UPDATE_CONSUMER_OFFSET, &header)).await.map(drop)
    }

    /// INVOKE_BROKER_TO_RESET_OFFSET (222): online members are told to start over. Returns the new offsets.
    pub async fn reset_offset(
        &self,
        addr: &str,
        reset: &ResetOffset<'_>,
    ) -> Result<Vec<(MessageQueue, i64)>, AdminError> {
        let header = ResetOffsetRequest {
            group: reset.group.into(),
            topic: reset.topic.into(),
            timestamp: reset.timestamp,
            is_force: reset.force,
            queue_id: reset.queue_id.map_or(-1, |id| id as i32),
            offset: reset.offset.map(|offset| offset as i64),
        };
        let reply = self.ask(addr, Command::request(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &header)).await?;
        if reply.body.is_empty() {
            return Ok(Vec::new());
        }
        let body: ResetOffsetBody = crate::admin::body(addr, &reply)?;
        Ok(body.offset_table.into_iter().collect())
    }

    /// Whether a group has consumed a message: its committed offset in the message's queue lies beyond it. Java: `consumed`.
    pub async fn is_consumed(&self, message: &FoundMessage, group: &str) -> Result<bool, AdminError> {
        let stats = self.consume_stats(group, None).await?;
        let info = self.cluster_info().await?;
        let stored_at = message.store_host().to_string();
        Ok(stats.offset_table.iter().any(|(queue, offsets)| {
            *queue.topic == *message.topic()
                && queue.queue_id == message.queue_id() as i32
                && info
                    .broker_addr_table
                    .get(&queue.broker_name)
                    .is_some_and(|broker| broker.master() == Some(&stored_at))
                && QueueOffset(offsets.consumer_offset.max(0) as u64) > message.queue_offset()
        }))
    }
}
