//! One queue of one topic on one broker; in JSON often a map key.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::TopicName;

/// Java: MessageQueue. Ordered as Java's compareTo: topic, broker, queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    pub broker_name: String,
    /// −1 where all queues of a broker are meant (pop assignments).
    pub queue_id: i32,
    pub topic: TopicName,
}

impl MessageQueue {
    pub fn new(topic: impl Into<TopicName>, broker_name: impl Into<String>, queue_id: i32) -> MessageQueue {
        MessageQueue { broker_name: broker_name.into(), queue_id, topic: topic.into() }
    }
}

impl Ord for MessageQueue {
    fn cmp(&self, other: &MessageQueue) -> std::cmp::Ordering {
        (self.topic.as_str(), self.broker_name.as_str(), self.queue_id).cmp(&(
            other.topic.as_str(),
            other.broker_name.as_str(),
            other.queue_id,
        ))
    }
}

impl PartialOrd for MessageQueue {
    fn partial_cmp(&self, other: &MessageQueue) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for MessageQueue {
    /// As Java's toString, which tools print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageQueue [topic={}, brokerName={}, queueId={}]", self.topic, self.broker_name, self.queue_id)
    }
}
