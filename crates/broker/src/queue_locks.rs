//! Which client of a group may consume a queue in order. Java: `RebalanceLockManager`.
//!
//! Time comes in as an `Instant`: a wall clock that is set back would lengthen every lock. Nothing is kept on disk: after a restart clients
//! lock again within 20 seconds. Neither groups nor queues need exist to be locked, so their number is bounded, and each address has a share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_protocol::GroupName;
use ferromq_protocol::body::MessageQueue;
use parking_lot::Mutex;

/// A lock that its owner did not renew for longer than this is free. Java: `rocketmq.broker.rebalance.lockMaxLiveTime`.
const LOCK_LIFE: Duration = Duration::from_secs(60);

/// Time between two looks for expired locks that nobody asks for again.
pub(crate) const EXPIRE_PERIOD: Duration = Duration::from_secs(10);

/// Longest name of a topic or broker in a lock.
const NAME_LEN_MAX: usize = 255;

/// How many locks there may be. A queue beyond it is not locked, which its client takes as locked by somebody else, and tries again.
#[derive(Clone, Copy, Debug)]
pub struct LockLimits {
    pub all: usize,
    pub per_address: usize,
}

impl Default for LockLimits {
    fn default() -> LockLimits {
        LockLimits { all: 1_000_000, per_address: 250_000 }
    }
}

/// Owner of all queue locks.
#[derive(Default)]
pub struct QueueLocks {
    locks: Mutex<Locks>,
    limits: LockLimits,
}

#[derive(Default)]
struct Locks {
    groups: HashMap<GroupName, HashMap<MessageQueue, Lock>>,
    count: usize,
    of_addresses: HashMap<IpAddr, usize>,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
}

struct Lock {
    client_id: Arc<str>,
    address: IpAddr,
    renewed_at: Instant,
}

impl Lock {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed_at) > LOCK_LIFE
    }
}

impl QueueLocks {
    pub fn new(limits: LockLimits) -> QueueLocks {
        QueueLocks { locks: Mutex::default(), limits }
    }

    /// Locks what is free, expired or the client's own already, and renews it; answers with the queues that the client now holds.
    /// Whether the queues exist is not looked at.
    pub fn lock(
        &self,
        group: &GroupName,
        client_id: &str,
        address: IpAddr,
        queues: Vec<MessageQueue>,
        now: Instant,
    ) -> Vec<MessageQueue> {
        let client_id: Arc<str> = client_id.into();
        let mut locks = self.locks.lock();
        let locks = &mut *locks;
        queues
            .into_iter()
            .filter(|queue| {
                let known = locks.groups.get_mut(&**group).and_then(|group| group.get_mut(queue));
                match known {
                    Some(lock) if lock.client_id == client_id && lock.address == address => {
                        lock.renewed_at = now;
                        true
                    }
                    Some(lock) if lock.client_id != client_id && !lock.is_expired(now) => {
                        tracing::debug!(%group, %queue, client_id = &*client_id, holder = &*lock.client_id, "queue is locked by another client");
                        false
                    }
                    Some(_) => {
                        locks.remove(group, queue);
                        locks.insert(group, queue, &client_id, address, now, self.limits)
                    }
                    None => locks.insert(group, queue, &client_id, address, now, self.limits),
                }
            })
            .collect()
    }

    /// Gives up the client's own locks; those of others stay.
    pub fn unlock(&self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let mut locks = self.locks.lock();
        for queue in queues {
            let held = locks.groups.get(group).and_then(|group| group.get(queue));
            if held.is_some_and(|lock| &*lock.client_id == client_id) {
                locks.remove(group, queue);
            }
        }
    }

    /// Whether any member of the group holds a lock now, which makes it a group that consumes in order. Java: `!isLockAllExpired`.
    pub fn group_holds_locks(&self, group: &str) -> bool {
        self.group_holds_locks_at(group, Instant::now())
    }

    fn group_holds_locks_at(&self, group: &str, now: Instant) -> bool {
        self.locks.lock().groups.get(group).is_some_and(|locks| locks.values().any(|lock| !lock.is_expired(now)))
    }

    /// Forgets expired locks. Java keeps them for ever.
    pub(crate) fn expire(&self, now: Instant) {
        let mut locks = self.locks.lock();
        let Locks { groups, count, of_addresses, .. } = &mut *locks;
        groups.retain(|_, locks| {
            locks.retain(|_, lock| {
                let stays = !lock.is_expired(now);
                if !stays {
                    *count -= 1;
                    leave(of_addresses, lock.address);
                }
                stays
            });
            !locks.is_empty()
        });
    }
}

impl Locks {
    fn insert(
        &mut self,
        group: &GroupName,
        queue: &MessageQueue,
        client_id: &Arc<str>,
        address: IpAddr,
        now: Instant,
        limits: LockLimits,
    ) -> bool {
        let of_address = self.of_addresses.get(&address).copied().unwrap_or(0);
        let too_long =
            queue.topic.len().max(queue.broker_name.len()).max(group.len()).max(client_id.len()) > NAME_LEN_MAX;
        if self.count >= limits.all || of_address >= limits.per_address || too_long {
            if !self.refusing {
                self.refusing = true;
                tracing::warn!(%group, %address, count = self.count, of_address, "too many queue locks, or too long names: no new ones");
            }
            return false;
        }
        self.refusing = false;
        self.count += 1;
        *self.of_addresses.entry(address).or_default() += 1;
        if !self.groups.contains_key(&**group) {
            self.groups.insert(group.clone().into_owned(), HashMap::new());
        }
        if let Some(locks) = self.groups.get_mut(&**group) {
            locks.insert(queue.clone(), Lock { client_id: Arc::clone(client_id), address, renewed_at: now });
        }
        true
    }

    fn remove(&mut self, group: &str, queue: &MessageQueue) {
        let Some(locks) = self.groups.get_mut(group) else { return };
        if let Some(lock) = locks.remove(queue) {
            self.count -= 1;
            leave(&mut self.of_addresses, lock.address);
        }
        if locks.is_empty() {
            self.groups.remove(group);
        }
    }
}

/// One lock less of an address.
fn leave(of_addresses: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = of_addresses.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            of_addresses.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("TopicWire2", "broker-a", id)
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// A time that goes by only when told to.
    struct House {
        locks: QueueLocks,
        begin: Instant,
    }

    impl House {
        fn new(limits: LockLimits) -> House {
            House { locks: QueueLocks::new(limits), begin: Instant::now() }
        }

        fn lock(&self, group: &str, client_id: &str, ids: &[i32], at_ms: u64) -> Vec<i32> {
            let queues = ids.iter().copied().map(queue).collect();
            let at = self.begin + Duration::from_millis(at_ms);
            let held = self.locks.lock(&group.into(), client_id, address(1), queues, at);
            held.into_iter().map(|queue| queue.queue_id).collect()
        }

        fn holds(&self, group: &str, at_ms: u64) -> bool {
            self.locks.group_holds_locks_at(group, self.begin + Duration::from_millis(at_ms))
        }

        fn assert_empty(&self) {
            let locks = self.locks.locks.lock();
            assert!(locks.groups.is_empty() && locks.of_addresses.is_empty());
            assert_eq!(locks.count, 0);
        }
    }

    /// A sequence captured from Java's broker.
    #[test]
    fn locks_of_two_clients() {
        let house = House::new(LockLimits::default());
        assert_eq!(house.lock("G_hb", "A", &[0, 1], 0), [0, 1]);
        assert!(house.lock("G_hb", "B", &[1], 1).is_empty());
        house.locks.unlock("G_hb", "B", &[queue(1)]);
        assert!(house.lock("G_hb", "B", &[1], 2).is_empty());
        house.locks.unlock("G_hb", "A", &[queue(1), queue(7)]);
        assert_eq!(house.lock("G_hb", "B", &[1, 0], 3), [1]);
        assert_eq!(house.lock("other", "B", &[0], 3), [0]);
    }

    #[test]
    fn a_lock_lives_sixty_seconds_after_its_renewal() {
        let house = House::new(LockLimits::default());
        house.lock("G", "A", &[0], 0);
        house.lock("G", "A", &[0], 50_000);
        assert!(house.lock("G", "B", &[0], 110_000).is_empty());
        assert!(house.holds("G", 110_000));
        assert!(!house.holds("G", 110_001));
        assert_eq!(house.lock("G", "B", &[0], 110_001), [0]);
        assert!(!house.holds("nobody", 0));
    }

    #[test]
    fn nothing_is_kept_for_groups_without_locks() {
        let house = House::new(LockLimits::default());
        house.lock("G", "A", &[0], 0);
        house.locks.unlock("G", "A", &[queue(0)]);
        assert!(house.lock("G", "A", &[], 0).is_empty());
        house.assert_empty();
        house.lock("G", "A", &[0, 1], 0);
        house.locks.expire(house.begin + LOCK_LIFE);
        assert!(house.holds("G", 60_000));
        house.locks.expire(house.begin + LOCK_LIFE + Duration::from_millis(1));
        house.assert_empty();
    }

    #[test]
    fn one_address_cannot_have_all_locks() {
        let house = House::new(LockLimits { all: 100, per_address: 60 });
        let all: Vec<i32> = (0..200).collect();
        assert_eq!(house.lock("G", "greedy", &all, 0).len(), 60);
        // Its own can be renewed, and another address does not notice.
        assert_eq!(house.lock("G", "greedy", &all[..10], 1).len(), 10);
        let other = |count: i32| {
            let queues = (0..count).map(queue).collect();
            house.locks.lock(&"H".into(), "honest", address(2), queues, house.begin).len()
        };
        assert_eq!(other(20), 20);
        assert_eq!(other(100), 40);
        let long = MessageQueue::new("t".repeat(NAME_LEN_MAX + 1), "b", 0);
        house.locks.expire(house.begin + 2 * LOCK_LIFE);
        assert!(house.locks.lock(&"G".into(), "A", address(1), vec![long], house.begin).is_empty());
        house.assert_empty();
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_locks(
            steps in proptest::collection::vec((0u8..3, 0usize..2, 0usize..3, 0i32..6, 0u64..4, any::<bool>()), 0..80)
        ) {
            let house = House::new(LockLimits { all: 12, per_address: 6 });
            let mut now = house.begin;
            for (from, group, client, id, pause, locks) in steps {
                now += Duration::from_secs(pause * 15);
                let (group, client) = (["G", "H"][group], ["A", "B", "C"][client]);
                if locks {
                    house.locks.lock(&group.into(), client, address(from), vec![queue(id), queue(id + 1)], now);
                } else {
                    house.locks.unlock(group, client, &[queue(id)]);
                    house.locks.expire(now);
                }
                let locks = house.locks.locks.lock();
                let all: Vec<&Lock> = locks.groups.values().flat_map(HashMap::values).collect();
                prop_assert_eq!(all.len(), locks.count);
                prop_assert!(all.len() <= 12);
                prop_assert_eq!(locks.of_addresses.values().sum::<usize>(), all.len());
                for (address, count) in &locks.of_addresses {
                    prop_assert!(*count <= 6);
                    prop_assert_eq!(all.iter().filter(|lock| lock.address == *address).count(), *count);
                }
            }
        }
    }
}
