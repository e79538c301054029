//! Sends single messages and waits for each answer. No retries, no batches: the SDK's producer is a later matter.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ferromq_protocol::header::{SendReply, SendRequest};
use ferromq_protocol::message::properties::{Properties, names};
use ferromq_protocol::message::{UniqueKeySource, millis_in_month};
use ferromq_protocol::{Command, RequestCode, ResponseCode, topics};
use ferromq_remoting::address::{outward_v4, outward_v6};

use crate::{Admin, AdminError};

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingMessage<'a> {
    pub topic: &'a str,
    pub body: &'a [u8],
    /// Business keys, separated by blanks.
    pub keys: Option<&'a str>,
    pub tags: Option<&'a str>,
}

/// Where a message went.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Java: `SendStatus`.
    pub status: &'static str,
    /// The unique key the message carries.
    pub message_id: String,
    pub offset_message_id: String,
    pub broker_name: String,
    pub queue_id: u32,
    pub queue_offset: u64,
}

/// Sends in the name of one producer group.
pub struct Producer<'a> {
    admin: &'a Admin,
    group: String,
    unique_keys: UniqueKeySource,
    next_queue: AtomicUsize,
}

impl<'a> Producer<'a> {
    pub fn new(admin: &'a Admin, group: &str) -> Producer<'a> {
        let unique_keys = UniqueKeySource::new(own_address(), std::process::id(), now_ms() as u32);
        // Different processes start at different queues.
        let start = now_ms() as usize;
        Producer { admin, group: group.to_owned(), unique_keys, next_queue: AtomicUsize::new(start) }
    }

    /// Sends to the given (broker name, queue id), or to the topic's queues in turn.
    pub async fn send(&self, message: &OutgoingMessage<'_>, queue: Option<(String, u32)>) -> Result<Sent, AdminError> {
        let queues = self.admin.publish_queues(message.topic).await?;
        let chosen = match &queue {
            Some((broker, id)) => queues
                .iter()
                .find(|queue| queue.broker_name == *broker)
                .map(|found| crate::Queue { queue_id: *id, ..found.clone() }),
            None => queues.get(self.next_queue.fetch_add(1, Ordering::Relaxed) % queues.len().max(1)).cloned(),
        };
        let Some(chosen) = chosen else {
            let remark = match queue {
                Some((broker, _)) => format!("The broker[{broker}] not exist"),
                None => format!("No route info of this topic: {}", message.topic),
            };
            return Err(AdminError::Refused { code: ResponseCode(10005), remark, broker: None });
        };
        let key = self.unique_keys.next(millis_in_month(now_ms())).to_string();
        let mut properties = Properties::new();
        properties.set(names::UNIQUE_KEY, &key);
        if let Some(keys) = message.keys {
            properties.set(names::KEYS, keys);
        }
        if let Some(tags) = message.tags {
            properties.set(names::TAGS, tags);
        }
        properties.set(names::WAIT_STORE_MSG_OK, true);
        let header = SendRequest {
            producer_group: self.group.as_str().into(),
            topic: message.topic.into(),
            default_topic: topics::AUTO_CREATE_TOPIC.into(),
            default_topic_queue_nums: 4,
            queue_id: chosen.queue_id as i32,
            sys_flag: 0,
            born_timestamp: now_ms(),
            flag: 0,
            properties: Some(properties.as_str().into()),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        };
        let request =
            Command::request(RequestCode::SEND_MESSAGE_V2, &header.short_names()).with_body(message.body.to_vec());
        let reply = self.admin.invoke_broker(&chosen.addr, request).await?;
        let status = match reply.response_code() {
            ResponseCode::SUCCESS => "SEND_OK",
            ResponseCode::FLUSH_DISK_TIMEOUT => "FLUSH_DISK_TIMEOUT",
            ResponseCode::FLUSH_SLAVE_TIMEOUT => "FLUSH_SLAVE_TIMEOUT",
            ResponseCode::SLAVE_NOT_AVAILABLE => "SLAVE_NOT_AVAILABLE",
            code => {
                let remark = reply.remark.as_ref().map(ToString::to_string).unwrap_or_default();
                return Err(AdminError::Refused { code, remark, broker: Some(chosen.addr) });
            }
        };
        let fields: SendReply = reply.header().map_err(AdminError::header(&chosen.addr))?;
        Ok(Sent {
            status,
            message_id: key,
            offset_message_id: fields.msg_id.to_string(),
            broker_name: chosen.broker_name,
            queue_id: fields.queue_id.0,
            queue_offset: fields.queue_offset.0,
        })
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// The address this machine would send from; loopback when it has no route.
fn own_address() -> IpAddr {
    outward_v4().or_else(outward_v6).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
