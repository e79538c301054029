//! Held pulls: requests that found nothing, parked by topic and queue until a message arrives or their time is up.
//!
//! Only a list: who answers them is `handlers/pull.rs`. Bounded; when full the pull is answered at once. Java: `PullRequestHoldService`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::{QueueId, QueueOffset, TopicName};
use foldhash::HashMap;
use parking_lot::Mutex;

/// How often deadlines are looked at. Java looks every 5 s.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// One parked request; `P` is what it takes to run it again.
pub struct Held<P> {
    /// The offset it waits for.
    pub from: QueueOffset,
    pub deadline: Instant,
    pub pull: P,
}

/// The waiting requests of one topic, by queue.
type TopicQueues<P> = HashMap<QueueId, Vec<Held<P>>>;

/// Parked requests, by topic and queue.
pub struct HeldPulls<P> {
    queues: Mutex<HashMap<TopicName, TopicQueues<P>>>,
    /// How many are parked; read without the lock so that an arrival nobody waits for costs one load.
    count: AtomicUsize,
    count_max: usize,
}

impl<P> HeldPulls<P> {
    pub fn new(count_max: usize) -> HeldPulls<P> {
        HeldPulls { queues: Mutex::new(HashMap::default()), count: AtomicUsize::new(0), count_max }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Parks a request unless `already_there` says, under the lock that arrivals take, that its message has come meanwhile, or the bound is reached.
    pub fn park(
        &self,
        topic: &str,
        queue: QueueId,
        held: Held<P>,
        already_there: impl FnOnce() -> bool,
    ) -> Result<(), P> {
        let mut queues = self.queues.lock();
        // Counted before the check: an arrival that the check does not see yet sees the count.
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        if count >= self.count_max || already_there() {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return Err(held.pull);
        }
        if !queues.contains_key(topic) {
            queues.insert(TopicName::from(topic), HashMap::default());
        }
        if let Some(topic_queues) = queues.get_mut(topic) {
            topic_queues.entry(queue).or_default().push(held);
        }
        Ok(())
    }

    /// Takes out the requests of one queue that `wakes` names.
    pub fn take(&self, topic: &str, queue: QueueId, mut wakes: impl FnMut(&Held<P>) -> bool) -> Vec<P> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let mut queues = self.queues.lock();
        let Some(waiting) = queues.get_mut(topic).and_then(|topic_queues| topic_queues.get_mut(&queue)) else {
            return Vec::new();
        };
        let woken: Vec<P> = waiting.extract_if(.., |held| wakes(held)).map(|held| held.pull).collect();
        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
        woken
    }

    /// Takes out the requests whose deadline is not after `now`, and forgets queues that nobody waits for.
    pub fn take_expired(&self, now: Instant) -> Vec<P> {
        self.take_where(|held| held.deadline <= now)
    }

    /// Takes out everything.
    pub fn take_all(&self) -> Vec<P> {
        self.take_where(|_| true)
    }

    fn take_where(&self, mut wanted: impl FnMut(&Held<P>) -> bool) -> Vec<P> {
        let mut taken = Vec::new();
        self.queues.lock().retain(|_, topic_queues| {
            topic_queues.retain(|_, waiting| {
                taken.extend(waiting.extract_if(.., |held| wanted(held)).map(|held| held.pull));
                !waiting.is_empty()
            });
            !topic_queues.is_empty()
        });
        self.count.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(from: u64, deadline: Instant, pull: &'static str) -> Held<&'static str> {
        Held { from: QueueOffset(from), deadline, pull }
    }

    #[test]
    fn only_the_waiting_queue_is_touched() {
        let pulls = HeldPulls::new(10);
        let later = Instant::now() + Duration::from_secs(60);
        pulls.park("T", QueueId(0), held(5, later, "a"), || false).unwrap();
        pulls.park("T", QueueId(1), held(5, later, "b"), || false).unwrap();
        pulls.park("U", QueueId(0), held(5, later, "c"), || false).unwrap();
        assert_eq!(pulls.take("T", QueueId(0), |held| held.from <= QueueOffset(4)), Vec::<&str>::new());
        assert_eq!(pulls.take("T", QueueId(0), |held| held.from <= QueueOffset(5)), ["a"]);
        assert_eq!(pulls.take("T", QueueId(0), |_| true), Vec::<&str>::new());
        assert_eq!(pulls.len(), 2);
    }

    #[test]
    fn a_message_that_came_meanwhile_is_not_waited_for() {
        let pulls = HeldPulls::new(10);
        assert_eq!(pulls.park("T", QueueId(0), held(0, Instant::now(), "a"), || true), Err("a"));
        assert_eq!(pulls.len(), 0);
    }

    #[test]
    fn the_bound_refuses() {
        let pulls = HeldPulls::new(1);
        pulls.park("T", QueueId(0), held(0, Instant::now(), "a"), || false).unwrap();
        assert_eq!(pulls.park("T", QueueId(0), held(0, Instant::now(), "b"), || false), Err("b"));
    }

    #[test]
    fn deadlines_and_shutdown_empty_the_list() {
        let pulls = HeldPulls::new(10);
        let now = Instant::now();
        pulls.park("T", QueueId(0), held(0, now, "due"), || false).unwrap();
        pulls.park("T", QueueId(0), held(0, now + Duration::from_secs(60), "later"), || false).unwrap();
        assert_eq!(pulls.take_expired(now), ["due"]);
        assert_eq!(pulls.take_all(), ["later"]);
        assert_eq!(pulls.len(), 0);
        assert!(pulls.queues.lock().is_empty());
    }
}
