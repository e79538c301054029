//! Held pulls: requests that found nothing, parked by topic and queue until a message arrives or their time is up.
//!
//! Only a list: who answers them is `handlers/pull.rs`. Bounded as a whole, per connection, per address, and per connection at one queue;
//! when full the pull is answered at once. What is parked goes with its connection. Whatever happens costs in proportion to the pulls that
//! it takes out, not to those that stay: an arrival looks at the pulls that want its tag. Java: `PullRequestHoldService`.

mod lists;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::{GroupName, QueueId, QueueOffset, TopicName};
use ferromq_remoting::ConnectionId;
use ferromq_store::Arrival;
use foldhash::HashMap;
use parking_lot::Mutex;

use self::lists::{LinkId, Links, List};
use crate::peer::Peer;
use crate::subscription::Condition;

/// How often deadlines are looked at. Java looks every 5 s.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A pull that waits for more tags than this is woken by every message of its queue, and looks itself.
const CODES_MAX: usize = 64;

/// Characters of different conditions at one queue that are evaluated for each message that arrives there. A pull whose condition does not
/// fit is woken by every message, and looks itself.
const CONDITION_LEN_SUM_MAX: usize = 8 * 1024;

/// Most pulls that may be parked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub all: usize,
    pub per_address: usize,
    pub per_connection: usize,
    /// Of one connection, at one queue: a consumer waits once for each of its groups.
    pub at_one_queue: usize,
}

impl Limits {
    /// `all` of them, of which one address can have half and one connection a quarter.
    pub fn of(all: usize) -> Limits {
        Limits { all, per_address: (all / 2).max(1), per_connection: (all / 4).max(1), at_one_queue: 256 }
    }
}

/// Which arrivals wake a pull.
#[derive(Clone, Debug)]
pub enum Wakes {
    /// None: it looks when its time is up.
    Never,
    Any,
    /// Messages with one of these tags' codes.
    Codes(Vec<i64>),
    Condition(Arc<Condition>),
}

/// One parked request; `P` is what it takes to run it again.
pub struct Held<P> {
    /// The offset it waits for.
    pub from: QueueOffset,
    pub deadline: Instant,
    pub parker: Peer,
    /// The group whose subscription it goes by; `None` when it brought its own.
    pub subscriber: Option<GroupName>,
    pub wakes: Wakes,
    pub pull: P,
}

/// Parked requests, by topic and queue.
pub struct HeldPulls<P> {
    state: Mutex<State<P>>,
    /// How many are parked; read without the lock so that an arrival nobody waits for costs one load.
    count: AtomicUsize,
    limits: Limits,
    /// Deadlines are sorted by the number of intervals since then.
    since: Instant,
}

struct State<P> {
    /// Numbered by their places here.
    entries: Vec<Option<Entry<P>>>,
    free: Vec<u32>,
    links: Links,
    topics: HashMap<TopicName, HashMap<QueueId, Waiting>>,
    connections: HashMap<ConnectionId, List>,
    addresses: HashMap<IpAddr, usize>,
    subscribers: HashMap<GroupName, List>,
    /// By the interval in which their time is up.
    deadlines: BTreeMap<u128, List>,
}

/// A parked request and its places in the lists.
struct Entry<P> {
    topic: TopicName,
    queue: QueueId,
    from: QueueOffset,
    deadline: Instant,
    interval: u128,
    parker: Peer,
    subscriber: Option<(GroupName, LinkId)>,
    of_connection: LinkId,
    of_deadline: LinkId,
    waits: Waits,
    pull: P,
}

/// Where in its queue's lists a request is.
enum Waits {
    Never,
    Any(LinkId),
    Codes(Vec<(i64, LinkId)>),
    Condition(Arc<Condition>, LinkId),
}

/// The requests that wait at one queue, by what wakes them.
#[derive(Default)]
struct Waiting {
    count: usize,
    any: List,
    codes: HashMap<i64, List>,
    /// Each once, however many requests have it.
    conditions: Vec<(Arc<Condition>, List)>,
    condition_len_sum: usize,
    of_connections: HashMap<ConnectionId, usize>,
}

impl<P> HeldPulls<P> {
    pub fn new(limits: Limits) -> HeldPulls<P> {
        let state = State {
            entries: Vec::new(),
            free: Vec::new(),
            links: Links::default(),
            topics: HashMap::default(),
            connections: HashMap::default(),
            addresses: HashMap::default(),
            subscribers: HashMap::default(),
            deadlines: BTreeMap::new(),
        };
        HeldPulls { state: Mutex::new(state), count: AtomicUsize::new(0), limits, since: Instant::now() }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Parks a request unless `is_over` says, under the lock that arrivals take, that there is nothing to wait for (its message has come
    /// meanwhile, its connection is closed), or a bound is reached.
    pub fn park(
        &self,
        topic: &TopicName,
        queue: QueueId,
        held: Held<P>,
        is_over: impl FnOnce(&P) -> bool,
    ) -> Result<(), P> {
        let mut state = self.state.lock();
        // Counted before the check: an arrival that the check does not see yet sees the count.
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        if count >= self.limits.all || state.is_full_for(held.parker, topic, queue, self.limits) || is_over(&held.pull)
        {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return Err(held.pull);
        }
        let interval = self.interval(held.deadline);
        state.insert(topic, queue, held, interval);
        Ok(())
    }

    /// Takes out the requests of the queue that the message wakes.
    pub fn take_woken(&self, arrival: &Arrival<'_>) -> Vec<P> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        self.taken(|state| {
            let Some(waiting) = state.topics.get(arrival.topic).and_then(|queues| queues.get(&arrival.queue_id)) else {
                return Vec::new();
            };
            let conditions = waiting.conditions.iter().filter(|(condition, _)| condition.holds(arrival.properties));
            let wanting = [Some(&waiting.any), waiting.codes.get(&arrival.tags_code)].into_iter().flatten();
            wanting
                .chain(conditions.map(|(_, list)| list))
                .flat_map(|list| state.links.iter(list))
                .filter(|number| state.entry(*number).is_some_and(|entry| entry.from <= arrival.queue_offset))
                .collect()
        })
    }

    /// Takes out the requests that go by the subscription of a group.
    pub fn take_subscriber(&self, group: &str) -> Vec<P> {
        self.taken(|state| {
            state.subscribers.get(group).map(|list| state.links.iter(list).collect()).unwrap_or_default()
        })
    }

    /// Takes out the requests of a connection.
    pub fn take_connection(&self, connection: ConnectionId) -> Vec<P> {
        self.taken(|state| {
            state.connections.get(&connection).map(|list| state.links.iter(list).collect()).unwrap_or_default()
        })
    }

    /// Takes out the requests whose deadline is not after `now`, and forgets queues that nobody waits for.
    pub fn take_expired(&self, now: Instant) -> Vec<P> {
        let last = self.interval(now);
        self.taken(|state| {
            state.topics.retain(|_, queues| {
                queues.retain(|_, waiting| waiting.count > 0);
                !queues.is_empty()
            });
            state
                .deadlines
                .range(..=last)
                .flat_map(|(_, list)| state.links.iter(list))
                .filter(|number| state.entry(*number).is_some_and(|entry| entry.deadline <= now))
                .collect()
        })
    }

    /// Takes out everything.
    pub fn take_all(&self) -> Vec<P> {
        self.taken(|state| (0..u32::try_from(state.entries.len()).unwrap_or(u32::MAX)).collect())
    }

    /// Takes out what `choose` names by number; numbers that stand for nothing are passed over.
    fn taken(&self, choose: impl FnOnce(&mut State<P>) -> Vec<u32>) -> Vec<P> {
        let mut state = self.state.lock();
        let chosen = choose(&mut state);
        let taken: Vec<P> = chosen.into_iter().filter_map(|number| state.remove(number)).collect();
        self.count.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }

    fn interval(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.since).as_millis() / CHECK_INTERVAL.as_millis()
    }
}

impl<P> State<P> {
    fn entry(&self, number: u32) -> Option<&Entry<P>> {
        self.entries.get(number as usize)?.as_ref()
    }

    fn is_full_for(&self, parker: Peer, topic: &TopicName, queue: QueueId, limits: Limits) -> bool {
        let at_queue = || {
            let waiting = self.topics.get(&**topic).and_then(|queues| queues.get(&queue))?;
            waiting.of_connections.get(&parker.connection).copied()
        };
        self.connections.get(&parker.connection).is_some_and(|list| {
            list.len() >= limits.per_connection || at_queue().is_some_and(|count| count >= limits.at_one_queue)
        }) || self.addresses.get(&parker.address).is_some_and(|count| *count >= limits.per_address)
    }

    fn insert(&mut self, topic: &TopicName, queue: QueueId, held: Held<P>, interval: u128) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("no more than `Limits::all`, which a u32 counts")
        });
        let Held { from, deadline, parker, subscriber, wakes, pull } = held;
        let links = &mut self.links;
        let of_connection = links.push(self.connections.entry(parker.connection).or_default(), number);
        *self.addresses.entry(parker.address).or_default() += 1;
        let subscriber = subscriber.map(|group| {
            let list = match self.subscribers.get_mut(&*group) {
                Some(list) => list,
                None => self.subscribers.entry(group.clone()).or_default(),
            };
            let link = links.push(list, number);
            (group, link)
        });
        let of_deadline = links.push(self.deadlines.entry(interval).or_default(), number);
        let queues = match self.topics.get_mut(&**topic) {
            Some(queues) => queues,
            None => self.topics.entry(topic.clone()).or_default(),
        };
        let waits = queues.entry(queue).or_default().insert(links, wakes, parker.connection, number);
        self.entries[number as usize] = Some(Entry {
            topic: topic.clone(),
            queue,
            from,
            deadline,
            interval,
            parker,
            subscriber,
            of_connection,
            of_deadline,
            waits,
            pull,
        });
    }

    /// Takes a request out of every list.
    fn remove(&mut self, number: u32) -> Option<P> {
        let entry = self.entries.get_mut(number as usize)?.take()?;
        self.free.push(number);
        let links = &mut self.links;
        if let Some(list) = self.connections.get_mut(&entry.parker.connection) {
            links.remove(list, entry.of_connection);
            if list.is_empty() {
                self.connections.remove(&entry.parker.connection);
            }
        }
        if let Some(count) = self.addresses.get_mut(&entry.parker.address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&entry.parker.address);
            }
        }
        if let Some((group, link)) = &entry.subscriber
            && let Some(list) = self.subscribers.get_mut(&**group)
        {
            links.remove(list, *link);
            if list.is_empty() {
                self.subscribers.remove(&**group);
            }
        }
        if let Some(list) = self.deadlines.get_mut(&entry.interval) {
            links.remove(list, entry.of_deadline);
            if list.is_empty() {
                self.deadlines.remove(&entry.interval);
            }
        }
        if let Some(waiting) = self.topics.get_mut(&*entry.topic).and_then(|queues| queues.get_mut(&entry.queue)) {
            waiting.remove(links, entry.waits, entry.parker.connection);
        }
        Some(entry.pull)
    }
}

impl Waiting {
    fn insert(&mut self, links: &mut Links, wakes: Wakes, connection: ConnectionId, number: u32) -> Waits {
        self.count += 1;
        *self.of_connections.entry(connection).or_default() += 1;
        match wakes {
            Wakes::Never => Waits::Never,
            Wakes::Codes(mut codes) if codes.len() <= CODES_MAX => {
                codes.sort_unstable();
                codes.dedup();
                let push = |code| (code, links.push(self.codes.entry(code).or_default(), number));
                Waits::Codes(codes.into_iter().map(push).collect())
            }
            Wakes::Condition(condition) => match self.condition(&condition) {
                Some(list) => {
                    let link = links.push(list, number);
                    Waits::Condition(condition, link)
                }
                None => Waits::Any(links.push(&mut self.any, number)),
            },
            Wakes::Any | Wakes::Codes(_) => Waits::Any(links.push(&mut self.any, number)),
        }
    }

    /// The list of a condition; `None` where there is no room for one more.
    fn condition(&mut self, condition: &Arc<Condition>) -> Option<&mut List> {
        let known = self.conditions.iter().position(|(known, _)| Arc::ptr_eq(known, condition));
        let place = match known {
            Some(place) => place,
            None if self.condition_len_sum + condition.len_bytes() > CONDITION_LEN_SUM_MAX => return None,
            None => {
                self.condition_len_sum += condition.len_bytes();
                self.conditions.push((Arc::clone(condition), List::default()));
                self.conditions.len() - 1
            }
        };
        self.conditions.get_mut(place).map(|(_, list)| list)
    }

    fn remove(&mut self, links: &mut Links, waits: Waits, connection: ConnectionId) {
        self.count -= 1;
        if let Some(count) = self.of_connections.get_mut(&connection) {
            *count -= 1;
            if *count == 0 {
                self.of_connections.remove(&connection);
            }
        }
        match waits {
            Waits::Never => {}
            Waits::Any(link) => links.remove(&mut self.any, link),
            Waits::Codes(codes) => {
                for (code, link) in codes {
                    if let Some(list) = self.codes.get_mut(&code) {
                        links.remove(list, link);
                        if list.is_empty() {
                            self.codes.remove(&code);
                        }
                    }
                }
            }
            Waits::Condition(condition, link) => {
                let place = self.conditions.iter().position(|(known, _)| Arc::ptr_eq(known, &condition));
                if let Some(place) = place {
                    links.remove(&mut self.conditions[place].1, link);
                    if self.conditions[place].1.is_empty() {
                        self.conditions.swap_remove(place);
                        self.condition_len_sum -= condition.len_bytes();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "pulls_test.rs"]
mod tests;
