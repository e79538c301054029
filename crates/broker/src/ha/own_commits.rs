//! Offsets that clients have committed to this broker while it was a slave, and that its master may not know: it is told of them when it
//! can be reached, and until then they stay what they are here.

use std::collections::BTreeMap;

use ferromq_protocol::{ByteString, QueueId};
use foldhash::HashMap;
use tracing::warn;

/// Most queues of all groups. Of more, the master's offsets count.
const QUEUES_MAX: usize = 100_000;

type Bases = BTreeMap<QueueId, Option<i64>>;

/// By topic and group: what each queue's offset was before, which is what the master had when it was asked last.
#[derive(Default)]
pub(crate) struct OwnCommits {
    topics: HashMap<ByteString, HashMap<ByteString, Bases>>,
    count: usize,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnCommit {
    pub topic: ByteString,
    pub group: ByteString,
    pub queue: QueueId,
    pub offset: i64,
    /// What the master had before.
    pub base: Option<i64>,
}

impl OwnCommits {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn clear(&mut self) {
        *self = OwnCommits::default();
    }

    /// A client has committed; `before` is what was there.
    pub fn note(&mut self, topic: &str, group: &str, queue: QueueId, before: Option<i64>) {
        if self.has(topic, group, queue) {
            return;
        }
        if self.count >= QUEUES_MAX {
            if !std::mem::replace(&mut self.refusing, true) {
                warn!(topic, group, %queue, limit = QUEUES_MAX, "more offsets were committed here than can be told to the master when it is back; of the others its own count");
            }
            return;
        }
        self.refusing = false;
        self.count += 1;
        let groups = self.topics.entry(topic.into()).or_default();
        groups.entry(group.into()).or_default().insert(queue, before);
    }

    pub fn has(&self, topic: &str, group: &str, queue: QueueId) -> bool {
        !self.is_empty() && self.bases(topic, group).is_some_and(|queues| queues.contains_key(&queue))
    }

    fn bases(&self, topic: &str, group: &str) -> Option<&Bases> {
        self.topics.get(topic)?.get(group)
    }

    /// The master has `offset` now.
    pub fn rebase(&mut self, topic: &str, group: &str, queue: QueueId, offset: i64) {
        let groups = self.topics.get_mut(topic);
        if let Some(base) = groups.and_then(|groups| groups.get_mut(group)?.get_mut(&queue)) {
            *base = Some(offset);
        }
    }

    pub fn forget(&mut self, topic: &str, group: &str, queue: QueueId) {
        let Some(groups) = self.topics.get_mut(topic) else { return };
        let Some(queues) = groups.get_mut(group) else { return };
        if queues.remove(&queue).is_some() {
            self.count -= 1;
        }
        if queues.is_empty() {
            groups.remove(group);
        }
        if groups.is_empty() {
            self.topics.remove(topic);
        }
    }

    pub fn forget_topic(&mut self, topic: &str) {
        let gone = self.topics.remove(topic).unwrap_or_default();
        self.count -= gone.values().map(BTreeMap::len).sum::<usize>();
    }

    /// All of them, with what is there now by `offset`.
    pub fn list(&self, offset: impl Fn(&str, &str, QueueId) -> Option<i64>) -> Vec<OwnCommit> {
        let mut list = Vec::with_capacity(self.count);
        for (topic, groups) in &self.topics {
            for (group, queues) in groups {
                list.extend(queues.iter().filter_map(|(queue, base)| {
                    let offset = offset(topic, group, *queue)?;
                    let (topic, group) = (topic.clone(), group.clone());
                    Some(OwnCommit { topic, group, queue: *queue, offset, base: *base })
                }));
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many() {
        let mut own = OwnCommits::default();
        for queue in 0..QUEUES_MAX as u32 + 1 {
            own.note("T", "G", QueueId(queue), None);
        }
        assert_eq!((own.count, own.refusing, own.has("T", "G", QueueId(QUEUES_MAX as u32))), (QUEUES_MAX, true, false));
        // The first counts.
        own.note("T", "G", QueueId(0), Some(7));
        assert_eq!(own.list(|_, _, queue| (queue.0 == 0).then_some(9))[0].base, None);
        own.forget("T", "G", QueueId(0));
        own.note("T", "H", QueueId(1), Some(7));
        own.rebase("T", "H", QueueId(1), 8);
        assert_eq!(own.list(|_, group, _| (group == "H").then_some(9))[0].base, Some(8));
        own.forget("T", "H", QueueId(1));
        own.forget("T", "H", QueueId(1));
        assert_eq!(own.count, QUEUES_MAX - 1);
        own.forget_topic("T");
        assert!(own.is_empty() && own.topics.is_empty());
    }
}
