//! Request and reply through the broker: 324 and 325. A consumer answers a request; the answer goes straight to the producer that
//! waits for it, and into the reply topic as a record of what was said.
//!
//! A task of its own waits for the requester to take it, ten seconds at most. Java: `ReplyMessageProcessor`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::header::{PushReplyRequest, SendRequest};
use ferromq_protocol::message::properties::{Properties, names, property};
use ferromq_protocol::message::{NewMessage, OffsetMessageId, SysFlag, TransactionKind};
use ferromq_protocol::{Command, QueueId, QueueOffset, Reply, RequestCode, ResponseCode};
use ferromq_store::Round;
use tracing::warn;

use crate::answer::Answer;
use crate::clients::Clients;
use crate::clock::now_ms;
use crate::handlers::send::{SendAnswer, SendPath};
use crate::live_config::LiveConfig;
use crate::peer::Origin;
use crate::refusal::Refusal;
use crate::statistics::Statistics;

/// How long the requester may take to accept the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The parts that replies use.
pub(crate) struct ReplyPath {
    pub config: Arc<LiveConfig>,
    pub send: Arc<SendPath>,
    pub clients: Arc<Clients>,
    pub statistics: Arc<Statistics>,
    /// Stored with every message.
    pub store_host: SocketAddr,
}

impl ReplyPath {
    /// SEND_REPLY_MESSAGE and its V2. The code says whether the requester has it, the ids where the stored copy is.
    pub(crate) fn reply(
        &self,
        round: &Round<'_>,
        origin: &Origin,
        request: &SendRequest,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        let config = self.config.current();
        let topic = self.send.find_or_create_topic(&config, origin, request)?;
        let queue = self.send.queue(request.queue_id, &topic)?;
        let properties = request.properties.as_deref().unwrap_or_default();
        let mut message_id = String::from("0");
        let mut queue_offset = QueueOffset(0);
        if config.store_reply_message_enable {
            let message = NewMessage {
                topic: &topic.topic_name,
                queue_id: queue,
                flag: request.flag,
                // A reply is no transaction; a half's flag would hide it.
                sys_flag: SysFlag(request.sys_flag).with_transaction(TransactionKind::None),
                born_timestamp: request.born_timestamp,
                born_host: origin.address,
                store_host: self.store_host,
                reconsume_times: request.reconsume_times,
                prepared_transaction_offset: 0,
                body,
                properties,
            };
            match round.append(&message) {
                Ok(appended) => {
                    self.statistics.stored(&topic.topic_name, &appended);
                    let id = OffsetMessageId { host: self.store_host, physical_offset: appended.physical_offset };
                    (message_id, queue_offset) = (id.to_string(), appended.queue_offset);
                }
                // The requester waits for the answer, not for its copy here.
                Err(error) => warn!(%error, "the copy of a reply was not stored"),
            }
        }
        let SendAnswer(answer) = self.send.answer(message_id, queue, queue_offset, None);
        let failed = |remark: String| Reply::error(ResponseCode::SYSTEM_ERROR, remark).header(answer.clone());
        let Some(requester) = property(properties, names::REPLY_TO_CLIENT) else {
            let remark = format!("reply message properties[{}] is null", names::REPLY_TO_CLIENT);
            return Ok(failed(remark).into());
        };
        let Some(client) = self.clients.producer_by_id(requester) else {
            return Ok(failed(format!("push reply message fail, channel of <{requester}> not found.")).into());
        };
        let push = self.push(origin, request, body, queue);
        let requester = requester.to_owned();
        // Ends with the requester's answer, its connection or the timeout; a shutdown waits for that as for every answer (`DRAIN`).
        Ok(Answer::later(|respond| {
            tokio::spawn(async move {
                let remark = match client.invoke(push, TIMEOUT).await {
                    Ok(taken) if taken.response_code() == ResponseCode::SUCCESS => {
                        return respond(Reply::ok().header(answer));
                    }
                    Ok(refused) => format!("push reply message to {requester} fail, it answered {}", refused.code),
                    Err(error) => format!("push reply message to {requester} fail: {error}"),
                };
                respond(Reply::error(ResponseCode::SYSTEM_ERROR, remark).header(answer));
            });
        }))
    }

    /// PUSH_REPLY_MESSAGE_TO_CLIENT.
    fn push(&self, origin: &Origin, request: &SendRequest, body: &[u8], queue: QueueId) -> Command {
        let now = now_ms();
        let mut properties = Properties::parse(request.properties.as_deref().unwrap_or_default());
        properties.set(names::PUSH_REPLY_TIME, now);
        let header = PushReplyRequest {
            producer_group: request.producer_group.clone(),
            topic: request.topic.clone(),
            default_topic: request.default_topic.clone(),
            default_topic_queue_nums: request.default_topic_queue_nums,
            queue_id: queue.as_i32(),
            sys_flag: request.sys_flag,
            born_timestamp: request.born_timestamp,
            flag: request.flag,
            properties: Some(properties.as_str().into()),
            reconsume_times: Some(request.reconsume_times),
            unit_mode: request.unit_mode,
            born_host: origin.address.to_string().into(),
            store_host: self.store_host.to_string().into(),
            store_timestamp: now,
        };
        Command::request(RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT, &header).with_body(body.to_vec())
    }
}
