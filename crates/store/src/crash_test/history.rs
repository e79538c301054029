//! What was promised: all that was put into the log, how much of it outlives a power cut, and what follows from that for queues and timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferromq_protocol::topics::{
    TIMER_TOPIC as TIMERS, TRANSACTION_HALF_TOPIC as HALVES, TRANSACTION_OP_HALF_TOPIC as OPS,
};

use super::rot::Rot;
use crate::table_change::topic_deleted;

pub const TOPICS: [&str; 2] = ["A", "B"];
pub const QUEUES: u32 = 2;
/// Of the system, with one queue each.
pub const SYSTEM_TOPICS: [&str; 3] = [TIMERS, HALVES, OPS];

/// All queues that there may be.
pub fn queues() -> impl Iterator<Item = (&'static str, u32)> {
    let queues = TOPICS.into_iter().flat_map(|topic| (0..QUEUES).map(move |queue| (topic, queue)));
    queues.chain(SYSTEM_TOPICS.map(|topic| (topic, 0)))
}

/// What was, or is being, put into the log.
#[derive(Clone, PartialEq)]
pub enum Put {
    Message {
        topic: &'static str,
        queue: u32,
        /// `None` for one that nobody knows of in its queue.
        offset: Option<u64>,
        physical: u64,
        body: Vec<u8>,
    },
    Deletion {
        topic: String,
    },
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Put::Message { topic, queue, offset, physical, body } => {
                write!(f, "{topic}/{queue} {offset:?} at {physical}: {} bytes, {}", body.len(), key(body))
            }
            Put::Deletion { topic } => write!(f, "deletion of {topic}"),
        }
    }
}

/// Of a queue: its next offset, and the messages that the log still has.
pub type Seen<'a> = (u64, Vec<(u64, &'a [u8])>);

#[derive(Debug)]
pub struct Known {
    pub put: Put,
    /// Of its record in the log.
    pub end: u64,
}

impl Known {
    /// Where its record begins in the log.
    pub fn start(&self) -> u64 {
        self.put.start(self.end)
    }
}

impl Put {
    /// Where its record begins in the log, if it ends there.
    pub fn start(&self, end: u64) -> u64 {
        match self {
            Put::Message { physical, .. } => *physical,
            Put::Deletion { topic } => end - topic_deleted(topic, 0).unwrap().len() as u64,
        }
    }
}

/// What was promised.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In log order, those too that are gone from it.
    pub puts: Vec<Arc<Known>>,
    /// May be in the log: the store has not answered yet, or it has refused in doubt.
    pub pending: Vec<Put>,
    /// What ends by here in the log is there after a power cut.
    pub safe: u64,
    /// The log begins there; a retention that goes on may have got up to the other.
    pub min: u64,
    pub min_at_most: u64,
    /// The log may end there at any time, or where a segment does behind that: a truncation has begun.
    pub truncated_to: Option<u64>,
    /// Queue offsets of timers that were delivered, and those of which a checkpoint that was saved says so.
    pub delivered: BTreeSet<u64>,
    pub delivered_for_good: BTreeSet<u64>,
    /// Makes bodies differ, those of messages that are lost too.
    pub count: u32,
    /// Of what was promised, this may be lost all the same.
    pub rot: Rot,
}

impl History {
    /// Of a moment between `before` and now, while other threads went on: what may be there by now, and only what was promised before.
    pub fn since(&self, before: History) -> History {
        History {
            safe: before.safe,
            min: before.min,
            min_at_most: self.min_at_most.max(self.min),
            delivered_for_good: before.delivered_for_good,
            ..self.clone()
        }
    }

    pub fn end(&self) -> u64 {
        self.puts.last().map_or(0, |last| last.end)
    }

    /// Of each queue that there is: its next offset, and the messages that the log still has.
    pub fn queues(&self) -> BTreeMap<(&'static str, u32), Seen<'_>> {
        let mut queues = BTreeMap::<_, (u64, Vec<_>)>::new();
        for known in &self.puts {
            match &known.put {
                Put::Message { topic, queue, offset: Some(offset), body, .. } => {
                    let (next, there) = queues.entry((*topic, *queue)).or_default();
                    assert_eq!(*offset, *next, "a gap, or an offset given twice, in {topic}/{queue}");
                    *next += 1;
                    if known.end > self.min {
                        there.push((*offset, body.as_slice()));
                    }
                }
                Put::Message { .. } => {}
                Put::Deletion { topic } => queues.retain(|(of, _), _| of != topic),
            }
        }
        queues
    }

    pub fn next(&self, topic: &'static str, queue: u32) -> u64 {
        self.queues().get(&(topic, queue)).map_or(0, |(next, _)| *next)
    }
}

pub fn properties(topic: &str, body: &[u8]) -> String {
    if topic == OPS {
        return "TAGS\u{1}d\u{2}".to_owned();
    }
    let key = key(body);
    let more = if topic == TIMERS {
        format!("TIMER_OUT_MS\u{1}{}\u{2}", due_of(body))
    } else if topic == HALVES {
        format!("REAL_TOPIC\u{1}{}\u{2}REAL_QID\u{1}0\u{2}", TOPICS[0])
    } else if ends_with_zero(topic, body) {
        "ZERO\u{1}\0".to_owned()
    } else {
        String::new()
    };
    format!("UNIQ_KEY\u{1}{key}\u{2}KEYS\u{1}k{key}\u{2}{more}")
}

/// Of a message for a given time.
pub fn due_of(body: &[u8]) -> i64 {
    i64::from_be_bytes(body[..8].try_into().unwrap())
}

/// Whether the last byte of the message's properties is one, so that it looks torn: only the checkpoint vouches for it.
pub fn ends_with_zero(topic: &str, body: &[u8]) -> bool {
    TOPICS.contains(&topic) && body[0] == 1
}

pub fn key(body: &[u8]) -> String {
    body[body.len().saturating_sub(4)..].iter().map(|byte| format!("{byte:02x}")).collect()
}
