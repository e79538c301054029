//! Taking a message for a given time back before it is due: 370, and the handle that a send's reply gives for it.
//!
//! The message stays where it is; a marker for the same time says that it is not to be delivered. Java: `RecallMessageProcessor`,
//! `RecallMessageHandle`; protocol §3.1.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use ferromq_protocol::header::{RecallReply, RecallRequest};
use ferromq_protocol::message::properties::{Properties, names};
use ferromq_protocol::message::{NewMessage, SysFlag};
use ferromq_protocol::{Command, QueueId, Reply, ResponseCode};
use ferromq_remoting::{Connection, Outcome};
use ferromq_store::Store;

use crate::clock::now_ms;
use crate::config::LiveConfig;
use crate::handlers::send::append_failure;
use crate::refusal::Refusal;
use crate::timers;
use crate::topics::Topics;

/// First word of a handle: the version of its form.
const VERSION: &str = "v1";

/// The parts that a recall uses.
pub(crate) struct RecallPath {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub store: Arc<Store>,
    /// Stored with every message.
    pub store_host: SocketAddr,
}

/// The handle of a message that is due then. It names the millisecond after, because Java rounds the time in it down.
pub(super) fn handle(topic: &str, broker: &str, due_ms: i64, unique_key: &str) -> String {
    URL_SAFE.encode(format!("{VERSION} {topic} {broker} {} {unique_key}", due_ms.saturating_add(1)))
}

/// A handle taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Handle {
    topic: String,
    broker: String,
    due_ms: i64,
    unique_key: String,
}

impl Handle {
    fn parse(text: &str) -> Option<Handle> {
        let text = String::from_utf8(URL_SAFE.decode(text).ok()?).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let [VERSION, topic, broker, time, unique_key] = words[..] else { return None };
        let due_ms = time.parse::<i64>().ok()?.checked_sub(1)?;
        Some(Handle { topic: topic.into(), broker: broker.into(), due_ms, unique_key: unique_key.into() })
    }
}

impl RecallPath {
    /// RECALL_MESSAGE. Answered when the marker is stored; a message that is delivered in this moment may still come.
    pub(crate) fn recall(&self, connection: &Connection, command: &Command) -> Result<Outcome, Refusal> {
        let request: RecallRequest = command.header()?;
        let config = self.config.current();
        if !config.recall_message_enable {
            let refusal = Refusal::no_permission("recall failed, operation is forbidden");
            return Err(refusal.header([(names::MSG_REGION, config.region_id.clone())]));
        }
        if self.topics.find(&request.topic).is_none() {
            return Err(Refusal::topic_not_exist(&request.topic));
        }
        let illegal = |remark: String| Refusal::new(ResponseCode::ILLEGAL_OPERATION, remark);
        let handle = Handle::parse(&request.recall_handle)
            .ok_or_else(|| illegal("recall failed, the handle is not one that a broker has given".into()))?;
        if *handle.topic != *request.topic || handle.broker != config.broker_name {
            let remark = format!("recall failed, the handle is for topic {} on {}", handle.topic, handle.broker);
            return Err(illegal(remark));
        }
        let ahead_ms = handle.due_ms.saturating_sub(now_ms());
        if !(1..=i64::from(config.timer_max_delay_sec) * 1000).contains(&ahead_ms) {
            return Err(illegal(format!("recall failed, the message was due {} ms ago", ahead_ms.saturating_neg())));
        }
        let mut properties = Properties::new();
        properties.set(names::UNIQUE_KEY, &handle.unique_key);
        properties.set(names::TIMER_DEL_UNIQKEY, timers::cancel_key(&handle.topic, &handle.unique_key));
        let (topic, queue_id) = timers::divert(&mut properties, handle.due_ms, &handle.topic, QueueId(0));
        let marker = NewMessage {
            topic,
            queue_id,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: now_ms(),
            born_host: connection.peer_addr(),
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"0",
            properties: properties.as_str(),
        };
        match self.store.append_silently(&marker) {
            Ok(_) => Ok(Outcome::Reply(Reply::ok().header(RecallReply { msg_id: handle.unique_key.into() }))),
            Err(error) => {
                let (code, remark) = append_failure(&error, config.max_message_size);
                Err(Refusal::new(code, remark))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_javas() {
        let text = handle("TopicA", "broker-a", 1_800_000_000_000, "KEY");
        assert_eq!(URL_SAFE.decode(&text).unwrap(), b"v1 TopicA broker-a 1800000000001 KEY");
        let parsed = Handle::parse(&text).unwrap();
        assert_eq!((parsed.due_ms, &*parsed.unique_key), (1_800_000_000_000, "KEY"));
        for wrong in
            ["", "?", &URL_SAFE.encode("v2 a b 1 k"), &URL_SAFE.encode("v1 a b x k"), &URL_SAFE.encode("v1 a b 1")]
        {
            assert_eq!(Handle::parse(wrong), None);
        }
    }
}
