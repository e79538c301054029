//! Which client of a group may consume a queue in order. Java: `RebalanceLockManager`; spec broker §C.7.
//!
//! Time comes in as `now_ms`. Nothing is kept on disk: after a restart clients lock again within 20 seconds.

use std::collections::HashMap;

use ferromq_protocol::GroupName;
use ferromq_protocol::body::MessageQueue;
use parking_lot::Mutex;

use crate::clock::now_ms;

/// A lock that its owner did not renew for longer than this is free. Java: `rocketmq.broker.rebalance.lockMaxLiveTime`.
const LOCK_LIFE_MS: i64 = 60_000;

/// Owner of all queue locks.
#[derive(Default)]
pub struct QueueLocks {
    groups: Mutex<HashMap<GroupName, HashMap<MessageQueue, Lock>>>,
}

struct Lock {
    client_id: String,
    renewed_at_ms: i64,
}

impl Lock {
    fn is_expired(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.renewed_at_ms) > LOCK_LIFE_MS
    }
}

impl QueueLocks {
    pub fn new() -> QueueLocks {
        QueueLocks::default()
    }

    /// Locks what is free, expired or the client's own already, and renews it; answers with the queues that the client now holds.
    /// Whether the queues exist is not looked at.
    pub fn lock(
        &self,
        group: &GroupName,
        client_id: &str,
        queues: Vec<MessageQueue>,
        now_ms: i64,
    ) -> Vec<MessageQueue> {
        let mut groups = self.groups.lock();
        if !groups.contains_key(&**group) {
            groups.insert(group.clone().into_owned(), HashMap::new());
        }
        let Some(locks) = groups.get_mut(&**group) else { return Vec::new() };
        // Java keeps expired locks for ever.
        locks.retain(|_, lock| !lock.is_expired(now_ms));
        let held = queues
            .into_iter()
            .filter(|queue| {
                let lock = locks.entry(queue.clone()).or_insert_with(|| Lock { client_id: client_id.to_owned(), renewed_at_ms: now_ms });
                let own = lock.client_id == client_id;
                if own {
                    lock.renewed_at_ms = now_ms;
                } else {
                    tracing::debug!(%group, %queue, client_id, holder = lock.client_id, "queue is locked by another client");
                }
                own
            })
            .collect();
        if locks.is_empty() {
            groups.remove(&**group);
        }
        held
    }

    /// Gives up the client's own locks; those of others stay.
    pub fn unlock(&self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let mut groups = self.groups.lock();
        let Some(locks) = groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            groups.remove(group);
        }
    }

    /// Whether any member of the group holds a lock now, which makes it a group that consumes in order. Java: `!isLockAllExpired`.
    pub fn group_holds_locks(&self, group: &str) -> bool {
        self.group_holds_locks_at(group, now_ms())
    }

    fn group_holds_locks_at(&self, group: &str, now_ms: i64) -> bool {
        self.groups.lock().get(group).is_some_and(|locks| locks.values().any(|lock| !lock.is_expired(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("TopicWire2", "broker-a", id)
    }

    /// The sequence of reference/wire/client.txt.
    #[test]
    fn locks_of_two_clients() {
        let locks = QueueLocks::new();
        let group = GroupName::from("G_hb");
        assert_eq!(locks.lock(&group, "A", vec![queue(0), queue(1)], 0), [queue(0), queue(1)]);
        assert_eq!(locks.lock(&group, "B", vec![queue(1)], 1), []);
        locks.unlock(&group, "B", &[queue(1)]);
        assert_eq!(locks.lock(&group, "B", vec![queue(1)], 2), []);
        locks.unlock(&group, "A", &[queue(1), queue(7)]);
        assert_eq!(locks.lock(&group, "B", vec![queue(1), queue(0)], 3), [queue(1)]);
        assert_eq!(locks.lock(&GroupName::from("other"), "B", vec![queue(0)], 3), [queue(0)]);
    }

    #[test]
    fn a_lock_lives_sixty_seconds_after_its_renewal() {
        let locks = QueueLocks::new();
        let group = GroupName::from("G");
        locks.lock(&group, "A", vec![queue(0)], 0);
        locks.lock(&group, "A", vec![queue(0)], 50_000);
        assert_eq!(locks.lock(&group, "B", vec![queue(0)], 110_000), []);
        assert!(locks.group_holds_locks_at("G", 110_000));
        assert!(!locks.group_holds_locks_at("G", 110_001));
        assert_eq!(locks.lock(&group, "B", vec![queue(0)], 110_001), [queue(0)]);
        assert!(!locks.group_holds_locks_at("nobody", 0));
    }

    #[test]
    fn nothing_is_kept_for_groups_without_locks() {
        let locks = QueueLocks::new();
        let group = GroupName::from("G");
        locks.lock(&group, "A", vec![queue(0)], 0);
        locks.unlock(&group, "A", &[queue(0)]);
        assert_eq!(locks.lock(&group, "A", vec![], 0), []);
        assert!(locks.groups.lock().is_empty());
    }
}
